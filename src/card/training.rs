//! How a model was trained.

use std::path::PathBuf;

use serde_json::Value;

use super::{Origin, Run, file_name, table};
use crate::config::Config;
use crate::data::{Masking, Objective};
use crate::model::arch::Arch;
use crate::telemetry::Record;
use crate::telemetry::format::{commas, duration};

/// Markdown.
pub fn of(arch: &Arch, origin: &Origin) -> String {
    match origin {
        Origin::Unknown => "Unknown here.\n\n".into(),
        Origin::Run(run) => of_run(run),
        Origin::Finetuned(results) => of_finetuning(arch, results),
    }
}

fn of_run(run: &Run) -> String {
    let config = &run.config;
    let facts = run.log.records.iter().find_map(|record| match record {
        Record::Run(facts) => Some(facts),
        _ => None,
    });
    let train = run.last();
    let unknown = || "unknown".to_string();
    let rows = [
        ["objective".into(), objective(&config.objective)],
        ["steps".into(), {
            let taken = run.step.map_or_else(unknown, commas);
            format!("{taken} in this model, of {} planned", commas(config.train.steps))
        }],
        ["tokens a step".into(), commas(config.batch.tokens as u64)],
        ["longest sequence".into(), format!("{} tokens", config.batch.context)],
        ["time".into(), train.map_or_else(unknown, |train| duration(train.seconds))],
        ["device".into(), facts.map_or_else(unknown, |facts| facts.device.clone())],
        ["warpwright".into(), facts.map_or_else(unknown, |facts| facts.version.clone())],
    ];
    let mut cells = vec![vec![String::new(), String::new()]];
    cells.extend(rows.map(|row| row.to_vec()));
    format!(
        "{}Everything that was set (paths shortened):\n\n```toml\n{}```\n\n",
        table(&cells),
        shortened(config).to_toml()
    )
}

fn objective(objective: &Objective) -> String {
    let Objective::Masked { masking, pair } = objective else {
        return "causal: each next token".into();
    };
    let Masking { rate, keep, random, unit } = masking;
    let percent = |share: f32| format!("{:.0}%", 100.0 * share);
    let pair = pair.map_or(String::new(), |pair| format!(", with sentence pairs ({pair:?})"));
    format!(
        "masked: {} of tokens by {unit:?}, of which {} are kept and {} random{pair}",
        percent(*rate),
        percent(*keep),
        percent(*random)
    )
    .to_lowercase()
}

/// The configuration without the folders of the machine that it ran on.
fn shortened(config: &Config) -> Config {
    let mut config = config.clone();
    let short = |path: &PathBuf| PathBuf::from(file_name(path));
    config.data.shards = config.data.shards.as_ref().map(short);
    config.data.text = config.data.text.iter().map(short).collect();
    config.data.general = config.data.general.as_ref().map(short);
    config.data.tokenizer = config.data.tokenizer.as_ref().map(short);
    if let Some(init) = config.init() {
        config.model.insert("init".into(), file_name(&init).into());
    }
    config
}

fn of_finetuning(arch: &Arch, results: &Value) -> String {
    let shown = |key: &str| match &results[key] {
        Value::Null => "unknown".to_string(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let mut cells = vec![vec![String::new(), String::new()]];
    let task = arch.task.as_ref().map_or("completions of prompts".into(), |task| {
        let kind = format!("{:?}", task.kind).to_lowercase();
        format!("{kind} ({})", super::named(&task.labels))
    });
    cells.push(vec!["task".into(), task]);
    for (name, key) in [
        ("rows to learn from", "train"),
        ("rows held out, to choose the epoch and to measure", "held_out"),
        ("seed", "seed"),
        ("epochs until the best", "best_epoch"),
    ] {
        cells.push(vec![name.into(), shown(key)]);
    }
    let settings = results["settings"].as_object();
    for (name, value) in settings.into_iter().flatten() {
        cells.push(vec![name.replace('_', " "), value.to_string().trim_matches('"').into()]);
    }
    let more = if settings.is_some() { "" } else { "Other hyperparameters are unknown here.\n\n" };
    table(&cells) + more
}
