//! What a finetuning run comes to: results.json, the model's folder, the bottom line for people.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::export::{put_model, write_model};
use super::super::say;
use super::FinetuneArgs;
use super::job::{Job, Trained};
use crate::card::{self, Origin};
pub use crate::eval::metrics::shown;
use crate::finetune::findings::Findings;
use crate::finetune::outcome::Metric;
use crate::hf::FloatType;

#[derive(Serialize)]
struct Measured {
    metric: Metric,
    value: Option<f64>,
    /// Of 95%
    low: Option<f64>,
    high: Option<f64>,
}

#[derive(Serialize)]
struct Results<'a> {
    labels: &'a [String],
    train: usize,
    held_out: usize,
    seed: u64,
    best_epoch: usize,
    metrics: Vec<Measured>,
    /// By seed: the metric that chose the epoch.
    seeds: Vec<(u64, Option<f64>)>,
    #[serde(flatten)]
    findings: Findings<'a>,
    samples_a_second: f64,
    /// What the GPU took for all seeds, where it tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    joules: Option<f64>,
    settings: Value,
}

impl Job {
    /// Writes the best seed's model and results, and tells them.
    pub fn conclude(
        &self,
        args: &FinetuneArgs,
        trained: &[Trained],
        joules: Option<f64>,
        out: &Path,
    ) -> Result<()> {
        let value = |t: &Trained| t.model.epochs[t.model.best].metric;
        let worth = |t: &&Trained| self.metric.worth(value(t));
        let best = trained.iter().max_by(|a, b| worth(a).total_cmp(&worth(b)));
        let Trained { seed, model } = best.expect("there is a seed");
        let task = self.arch.task.as_ref();
        let labels = task.map_or(&[][..], |task| &task.labels);
        let metrics: Vec<Measured> = Metric::all(task.map(|task| task.kind))
            .iter()
            .map(|&metric| {
                let interval = model.predictions.interval(metric, *seed);
                let (low, high) = (interval.map(|i| i.low), interval.map(|i| i.high));
                Measured { metric, value: model.predictions.metric(metric), low, high }
            })
            .collect();
        let rates = model.epochs.iter().map(|epoch| epoch.samples_a_second);
        let results = Results {
            labels,
            train: self.train.len(),
            held_out: self.held.len(),
            seed: *seed,
            best_epoch: model.best + 1,
            metrics,
            seeds: trained.iter().map(|t| (t.seed, value(t))).collect(),
            findings: Findings::of(task, &self.held, &model.predictions, &self.decoding),
            samples_a_second: rates.sum::<f64>() / model.epochs.len() as f64,
            joules,
            settings: settings(args),
        };
        tell(&results)?;
        let json = serde_json::to_string_pretty(&results)? + "\n";
        let origin = Origin::Finetuned(serde_json::from_str(&json)?);
        write_model(out, |folder| {
            let source = (&self.arch, &self.dir.ids, FloatType::F32);
            put_model(folder, source, &model.arena, Some(&self.tokenizer))?;
            fs::write(folder.join("results.json"), json).context("results.json")?;
            Ok(card::write(folder, &self.arch, &origin, &args.card.known(out))?)
        })?;
        Ok(say(format_args!("wrote {}", out.display()))?)
    }
}

/// What a finetuning was told, for its results and so for its card.
fn settings(args: &FinetuneArgs) -> Value {
    json!({
        "epochs": args.epochs,
        "batch": args.batch,
        "longest": args.longest,
        "optimizer": format!("{:?}", args.optimizer).to_lowercase(),
        "learning_rate": args.lr,
        "weight_decay": args.weight_decay,
        "frozen_layers": args.freeze,
        "layer_decay": args.layer_decay,
        "class_weights": args.class_weights,
        "patience": args.patience,
    })
}

/// The bottom line, for people.
fn tell(results: &Results) -> Result<()> {
    let Results { seed, best_epoch, held_out, .. } = results;
    say(format_args!("\non {held_out} held-out rows, epoch {best_epoch} of seed {seed}:"))?;
    for Measured { metric, value, low, high } in &results.metrics {
        let (name, value) = (metric.name(), shown(*value));
        say(format_args!("  {name:<10} {value}  [{}, {}]", shown(*low), shown(*high)))?;
    }
    let values: Vec<f64> = results.seeds.iter().filter_map(|(_, value)| *value).collect();
    if values.len() > 1 {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let deviation = (squares / (values.len() - 1) as f64).sqrt();
        let count = values.len();
        say(format_args!("  over {count} seeds: {mean:.4} ± {deviation:.4}"))?;
    }
    Ok(say(results.findings.text(results.labels).trim_end())?)
}
