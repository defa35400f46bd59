//! The YAML that the Hub reads.

use std::fmt::Write;

use super::Known;
use super::results::Table;
use crate::model::arch::{Arch, Family, TaskKind};

/// The block, from `---` to `---`.
pub fn matter(arch: &Arch, known: &Known, measured: &[Table]) -> String {
    let mut out = String::from("---\n");
    let mut one = |key: &str, value: &str| {
        let _ = writeln!(out, "{key}: {}", quoted(value));
    };
    // Writing to a String cannot fail.
    if let Some(license) = &known.license {
        one("license", license);
    }
    let custom = arch.family == Family::Custom;
    one("library_name", if custom { "warpwright" } else { "transformers" });
    one("pipeline_tag", pipeline(arch));
    if let Some(base) = &known.base {
        one("base_model", base);
    }
    let tags = ["warpwright".to_string(), family(arch).to_string()];
    for (key, items) in
        [("language", &known.languages[..]), ("tags", &tags), ("datasets", &known.datasets)]
    {
        if !items.is_empty() {
            let _ = writeln!(out, "{key}:");
            items.iter().for_each(|item| out += &format!("- {}\n", quoted(item)));
        }
    }
    if !measured.is_empty() {
        let _ = writeln!(out, "model-index:\n- name: {}\n  results:", quoted(&known.name));
    }
    for Table { task, data, rows } in measured {
        // `eval task` measures what the model is for.
        let task = task.as_deref().filter(|task| *task != "task");
        let task = quoted(task.unwrap_or(pipeline(arch)));
        let _ = writeln!(out, "  - task:\n      type: {task}");
        let data = quoted(data);
        let _ = writeln!(out, "    dataset:\n      name: {data}\n      type: local\n    metrics:");
        for row in rows.iter().filter(|row| row.value.is_finite()) {
            let (kind, name) = (quoted(kind(&row.metric)), quoted(&row.metric));
            let _ = writeln!(out, "    - type: {kind}\n      name: {name}");
            let _ = writeln!(out, "      value: {}", row.value);
        }
    }
    out + "---\n\n"
}

/// The Hub's name of what the model does.
pub fn pipeline(arch: &Arch) -> &'static str {
    match arch.task.as_ref().map(|task| task.kind) {
        None if arch.causal => "text-generation",
        None => "fill-mask",
        Some(TaskKind::Tokens) => "token-classification",
        Some(TaskKind::Spans) => "question-answering",
        Some(_) => "text-classification",
    }
}

/// As the Hub tags it.
pub fn family(arch: &Arch) -> &'static str {
    match arch.family {
        Family::Gpt2 => "gpt2",
        Family::Bert => "bert",
        Family::Roberta => "roberta",
        Family::Albert => "albert",
        Family::Modernbert => "modernbert",
        Family::Custom => "custom",
    }
}

/// The Hub's name of a metric of ours, where it has one.
fn kind(metric: &str) -> &str {
    let name = match metric {
        "answer F1" | "entity F1" => "F1",
        "mean squared error" => "MSE",
        _ => metric.split([',', ' ']).next().unwrap_or(metric),
    };
    match name {
        "f1" | "F1" | "micro-f1" | "entity-f1" | "answer-f1" => "f1",
        "MSE" => "mse",
        "matthews" | "Matthews" => "matthews_correlation",
        "pearson" | "Pearson" => "pearsonr",
        "spearman" | "Spearman" => "spearmanr",
        "BLEU" => "bleu",
        "chrF2" => "chrf",
        "exact" => "exact_match",
        name => name,
    }
}

/// A text in YAML, which takes JSON's strings.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text serialises")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_the_hub_s_names() {
        for (ours, theirs) in [
            ("accuracy, per byte", "accuracy"),
            ("loss [nats a token]", "loss"),
            ("F1, macro", "f1"),
            ("micro-f1", "f1"),
            ("chrF2", "chrf"),
            ("answer F1", "f1"),
            ("entity F1", "f1"),
            ("mean squared error", "mse"),
            ("MSE", "mse"),
        ] {
            assert_eq!(kind(ours), theirs);
        }
        assert_eq!(quoted("a: \"b\""), "\"a: \\\"b\\\"\"");
    }
}
