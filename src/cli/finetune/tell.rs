//! What a finetuning run comes to: results.json, the model's folder, the bottom line for people.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::export::{Making, put_model};
use super::super::tell;
use super::FinetuneArgs;
use super::job::{CLIP, Job, Source, Trained, WARMUP};
use crate::card::{self, Origin, file_name};
pub use crate::eval::metrics::shown;
use crate::finetune::examples::{Example, Gold};
use crate::finetune::findings::Findings;
use crate::finetune::outcome::Metric;
use crate::finetune::train::counts;
use crate::hf::FloatType;
use crate::model::arch::TaskKind;

#[derive(Serialize)]
struct Measured {
    metric: Metric,
    value: Option<f64>,
    /// Of 95%
    low: Option<f64>,
    high: Option<f64>,
}

/// Rows, or words, that a label is right of.
#[derive(Serialize)]
struct Count {
    label: String,
    train: usize,
    held_out: usize,
}

/// Of several seeds.
#[derive(Serialize)]
struct Spread {
    mean: f64,
    /// Of the sample: over the number of seeds less one.
    deviation: f64,
}

#[derive(Serialize)]
struct Results<'a> {
    /// The name of the folder that was finetuned.
    model: String,
    data: &'a [Source],
    labels: &'a [String],
    train: usize,
    held_out: usize,
    /// By label; of questions those with an answer, and those without.
    counts: Vec<Count>,
    seed: u64,
    best_epoch: usize,
    metrics: Vec<Measured>,
    chosen_by: Metric,
    /// By seed: the metric that chose the epoch.
    seeds: Vec<(u64, Option<f64>)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    over_seeds: Option<Spread>,
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
        trained: Trained,
        joules: Option<f64>,
        making: Making,
        out: &Path,
    ) -> Result<()> {
        let Trained { seeds, best } = trained;
        let (seed, model) = best.context("no seed came to an end: see above")?;
        let task = self.arch.task.as_ref();
        let labels = task.map_or(&[][..], |task| &task.labels);
        let metrics: Vec<Measured> = Metric::all(task.map(|task| task.kind))
            .iter()
            .map(|&metric| {
                let interval = model.predictions.interval(metric, seed);
                let (low, high) = (interval.map(|i| i.low), interval.map(|i| i.high));
                Measured { metric, value: model.predictions.metric(metric), low, high }
            })
            .collect();
        let rates = model.epochs.iter().map(|epoch| epoch.samples_a_second);
        let results = Results {
            model: file_name(&args.model),
            data: &self.sources,
            labels,
            train: self.train.len(),
            held_out: self.held.len(),
            counts: self.counts(),
            seed,
            best_epoch: model.best + 1,
            metrics,
            chosen_by: self.metric,
            over_seeds: spread(seeds.iter().filter_map(|(_, value)| *value)),
            seeds,
            findings: Findings::of(task, &self.held, &model.predictions, &self.decoding),
            samples_a_second: rates.sum::<f64>() / model.epochs.len() as f64,
            joules,
            settings: self.settings(args),
        };
        bottom_line(&results);
        let json = serde_json::to_string_pretty(&results)? + "\n";
        let origin = Origin::Finetuned(serde_json::from_str(&json)?);
        making.finish(|folder| {
            let source = (&self.arch, &self.dir.ids, FloatType::F32);
            put_model(folder, source, &model.arena, Some(&self.tokenizer))?;
            fs::write(folder.join("results.json"), json).context("results.json")?;
            Ok(card::write(folder, &self.arch, &origin, &args.card.known(out))?)
        })?;
        tell(format_args!("wrote {}", out.display()));
        Ok(())
    }

    fn counts(&self) -> Vec<Count> {
        let both = [&self.train, &self.held];
        let Some(task) = &self.arch.task else { return vec![] };
        let (names, [train, held]) = match task.kind {
            TaskKind::Values => return vec![],
            TaskKind::Spans => {
                let names = ["with an answer", "without one"].map(String::from).to_vec();
                (names, both.map(|examples| answered(examples)))
            }
            _ => (task.labels.clone(), both.map(|examples| counts(examples, task.labels.len()))),
        };
        let pairs = train.into_iter().zip(held);
        let count = |(label, (train, held_out))| Count { label, train, held_out };
        names.into_iter().zip(pairs).map(count).collect()
    }

    /// What a finetuning was told, for its results and so for its card.
    fn settings(&self, args: &FinetuneArgs) -> Value {
        let task = self.arch.task.as_ref();
        let of = |is: fn(TaskKind) -> bool| task.filter(|task| is(task.kind));
        let spans = of(|kind| kind == TaskKind::Spans);
        let mut settings = json!({
            "split": args.dev.is_none().then_some(args.split),
            "epochs": args.epochs,
            "batch": args.batch,
            "longest": args.rows.longest,
            "stride": spans.map(|_| args.rows.answers.stride),
            "longest_answer": spans.map(|_| self.decoding.longest),
            "null_threshold": spans.and(self.decoding.threshold),
            "optimizer": format!("{:?}", args.optimizer).to_lowercase(),
            "learning_rate": args.lr,
            "schedule": "linear to 0",
            "warmup_share": WARMUP,
            "weight_decay": args.weight_decay,
            "gradient_clip": CLIP,
            "frozen_layers": args.freeze,
            "layer_decay": args.layer_decay,
            "class_weights": args.class_weights,
            "patience": args.patience,
            "embedding_dropout": self.arch.dropout.embed,
            "hidden_dropout": self.arch.dropout.hidden,
            "attention_dropout": self.arch.dropout.attention,
            "classifier_dropout": task.map(|task| task.dropout),
            "pooling": of(TaskKind::is_of_sequences).map(|task| task.pooling),
        });
        // What is of no meaning to the task.
        if let Some(map) = settings.as_object_mut() {
            map.retain(|_, value| !value.is_null());
        }
        settings
    }
}

/// Questions with an answer, and without.
fn answered(examples: &[Example]) -> Vec<usize> {
    let none = |e: &&Example| matches!(&e.gold, Gold::Answers(answers) if answers.is_empty());
    let without = examples.iter().filter(none).count();
    vec![examples.len() - without, without]
}

/// None of fewer than two.
fn spread(values: impl Iterator<Item = f64>) -> Option<Spread> {
    let values: Vec<f64> = values.collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| Spread { mean, deviation: (squares / (count - 1.0)).sqrt() })
}

/// The bottom line, for people.
fn bottom_line(results: &Results) {
    let Results { seed, best_epoch, held_out, .. } = results;
    tell(format_args!("\non {held_out} held-out rows, epoch {best_epoch} of seed {seed}:"));
    for Measured { metric, value, low, high } in &results.metrics {
        let (name, value) = (metric.name(), shown(*value));
        tell(format_args!("  {name:<10} {value}  [{}, {}]", shown(*low), shown(*high)));
    }
    if let Some(Spread { mean, deviation }) = results.over_seeds {
        let count = results.seeds.iter().filter(|(_, value)| value.is_some()).count();
        tell(format_args!("  over {count} seeds: {mean:.4} ± {deviation:.4}"));
    }
    tell(results.findings.text(results.labels).trim_end());
}
