//! What stands behind the figures: which classes were taken for one another, the worst mistakes,
//! and when no answer had better been given.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Map, Value};

use super::examples::Example;
use super::outcome::Predictions;
use super::questions::Decoding;
use super::saying::said;
use crate::model::arch::Task;

/// Mistakes that are kept, and told.
const WORST: usize = 20;
const TOLD: usize = 5;

/// Characters of a label that a table shows.
const WIDEST: usize = 24;

/// More classes make no table that is read.
const CLASSES: usize = 10;

#[derive(Debug, Serialize)]
pub struct Findings<'a> {
    /// Rows are what was right, columns what was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    confusion: Option<Vec<Vec<u64>>>,
    /// Of answers, where some question has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    null: Option<Null>,
    worst: Vec<Mistake<'a>>,
}

/// When no answer is given.
#[derive(Debug, Serialize)]
struct Null {
    threshold: f64,
    /// What would have been best on these questions, and the F1 that it earns there.
    best_threshold: f64,
    best_f1: f64,
}

#[derive(Debug, Serialize)]
struct Mistake<'a> {
    /// Of SQuAD's JSON the question's number.
    line: u64,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<&'a str>,
    loss: f64,
    right: Value,
    /// Of tasks with a head of their own.
    #[serde(flatten)]
    said: Map<String, Value>,
}

impl<'a> Findings<'a> {
    /// Of a task, or of completions.
    pub fn of(
        task: Option<&Task>,
        examples: &'a [Example],
        predictions: &Predictions,
        decoding: &Decoding,
    ) -> Findings<'a> {
        let labels = task.map_or(&[][..], |task| &task.labels);
        let mistake = |(i, loss): (usize, f64)| {
            let example = &examples[i];
            let said = |task| said(task, example, &predictions.logits[i], decoding);
            Mistake {
                line: example.line,
                text: &example.text,
                question: example.question.as_deref(),
                loss,
                right: example.gold.shown(labels),
                said: task.map(said).unwrap_or_default(),
            }
        };
        let null =
            |(threshold, (best_threshold, best_f1))| Null { threshold, best_threshold, best_f1 };
        Findings {
            confusion: predictions.confusion(),
            null: decoding.threshold.zip(predictions.best_threshold()).map(null),
            worst: predictions.worst(WORST).into_iter().map(mistake).collect(),
        }
    }

    /// For people; `labels` are the names of the outputs.
    pub fn text(&self, labels: &[String]) -> String {
        let mut out = String::new();
        if let Some(confusion) = self.confusion.as_ref().filter(|rows| rows.len() <= CLASSES) {
            out += "\nwas (row), said (column):\n";
            let wide = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
            let wide = wide.clamp(6, WIDEST);
            let cell =
                |text: &str| format!("{:>wide$}  ", text.chars().take(wide).collect::<String>());
            let heads: String = labels.iter().map(|label| cell(label)).collect();
            // Writing to a String cannot fail.
            let _ = writeln!(out, "  {}{heads}", cell(""));
            for (label, row) in labels.iter().zip(confusion) {
                let row: String = row.iter().map(|count| cell(&count.to_string())).collect();
                let _ = writeln!(out, "  {}{row}", cell(label));
            }
        }
        if let Some(Null { best_threshold, best_f1, .. }) = &self.null {
            let best = match best_threshold.is_finite() {
                // Rounded up: an answer of that very doubt is one of those given.
                true => format!("--null-threshold {:.3}", (best_threshold * 1e3).ceil() / 1e3),
                false => "no answer to any question".into(),
            };
            let _ = writeln!(out, "\nbest in hindsight: {best}, answer F1 {best_f1:.4}");
        }
        out += "\nmost wrong about:\n";
        for Mistake { line, text, question, loss, .. } in self.worst.iter().take(TOLD) {
            let short: String = question.unwrap_or(text).chars().take(90).collect();
            let short = short.replace(['\n', '\r'], " ");
            let wrong = if question.is_some() { "sure of it by" } else { "loss" };
            let _ = writeln!(out, "  line {line}, {wrong} {loss:.2}: {short}");
        }
        out
    }
}
