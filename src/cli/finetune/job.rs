//! What a finetuning run reads, before a device is asked for, and its training.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use super::super::embed::Pooled;
use super::super::tell;
use super::tell::shown;
use super::{FinetuneArgs, OptimizerArg};
use crate::card::file_name;
use crate::checkpoint::model_folder;
use crate::data::Tokenizer;
use crate::data::order::Permutation;
use crate::device::Device;
use crate::finetune::examples::Example;
use crate::finetune::outcome::Metric;
use crate::finetune::questions::Decoding;
use crate::finetune::reader::Data;
use crate::finetune::rows::in_order;
use crate::finetune::saying::are_tags;
use crate::finetune::train::{Epoch, Finetuned, Settings, balanced, counts, finetune};
use crate::hf::{FloatType, LoadReport, ModelDir, classifier_dropout, fits_family, write_config};
use crate::model::arch::{Arch, Dropouts, Family, Pooling, Task, TaskKind};
use crate::model::params::Layout;
use crate::ops::optimizer::Rule;
use crate::plan::Room;
use crate::rng::Philox;
use crate::train::schedule::{Schedule, Shape};
use crate::train::step::Layered;

/// Who holds out rows of `--train`: the same whatever trains on the others.
const SPLIT_SEED: u64 = 1;
/// Share of the steps in which the learning rate rises.
pub const WARMUP: f64 = 0.06;
/// Largest norm of a gradient.
pub const CLIP: f64 = 1.0;

/// A file of labelled data.
#[derive(Serialize)]
pub struct Source {
    /// Without its folder.
    pub file: String,
    pub rows: usize,
    /// XXH3 of the file, hexadecimal.
    pub xxh3: String,
}

impl Source {
    fn of(path: &Path, rows: usize) -> Result<Source> {
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        Ok(Source { file: file_name(path), rows, xxh3: format!("{:016x}", xxh3_64(&bytes)) })
    }
}

/// Everything read.
pub struct Job {
    pub dir: ModelDir,
    pub tokenizer: Tokenizer,
    pub arch: Arch,
    /// `--train`, and `--dev` where it was given.
    pub sources: Vec<Source>,
    pub train: Vec<Example>,
    pub held: Vec<Example>,
    pub metric: Metric,
    pub decoding: Decoding,
}

/// What came of the seeds so far.
#[derive(Default)]
pub struct Trained {
    /// By seed: the metric that chose the epoch.
    pub seeds: Vec<(u64, Option<f64>)>,
    /// Of the best seed, the first of equals.
    pub best: Option<(u64, Finetuned)>,
}

impl Trained {
    pub fn add(&mut self, metric: Metric, seed: u64, model: Finetuned) {
        let value = |model: &Finetuned| model.epochs[model.best].metric;
        let worth = |model: &Finetuned| metric.worth(value(model));
        self.seeds.push((seed, value(&model)));
        if self.best.as_ref().is_none_or(|(_, best)| worth(&model) > worth(best)) {
            self.best = Some((seed, model));
        }
    }
}

impl Job {
    pub fn read(args: &FinetuneArgs) -> Result<Job> {
        let (dir, tokenizer) = model(args)?;
        let kind = args.task.kind();
        ensure!(
            kind.is_some() || dir.arch.causal,
            "--task complete is what causal models do, and {} is a masked one",
            args.model.display()
        );
        let columns = args.rows.columns(kind)?;
        let data = Data::read(&args.train, kind, &columns)?;
        let arch = match kind {
            Some(kind) => arch(args, &dir, kind, known(&dir.arch, data.labels(kind, &columns)?))?,
            None => arch_of_completions(args, &dir.arch)?,
        };
        // What its own config.json cannot say would be lost after the training.
        write_config(&arch, &dir.ids, FloatType::F32)?;
        let layout = Layout::new(&arch);
        dir.fits(&arch, &layout.table)?;
        // Weights, gradients and two moments.
        Room::host().check(4 * size_of::<f32>() as u64 * layout.table.arena_len as u64)?;
        if args.freeze > arch.layers {
            bail!("--freeze {}: the model has {} layers", args.freeze, arch.layers);
        }
        let reads = (&arch, &tokenizer);
        let examples = |path, data| args.rows.examples(reads, &columns, path, data);
        let train = examples(&args.train, data)?;
        let mut sources = vec![Source::of(&args.train, train.len())?];
        let (train, held) = match &args.dev {
            Some(path) => {
                let held = examples(path, Data::read(path, kind, &columns)?)?;
                sources.push(Source::of(path, held.len())?);
                (train, held)
            }
            None => split(train, args.split)?,
        };
        let outputs = arch.outputs();
        if let Some(task) = &arch.task {
            check_counts(task, &[&train, &held].map(|examples| counts(examples, outputs)))?;
        }
        let metric = metric(args, &arch)?;
        let decoding = args.rows.answers.decoding_of([&train, &held]);
        Ok(Job { dir, tokenizer, arch, sources, train, held, metric, decoding })
    }

    pub fn train<D: Device>(&self, dev: &D, args: &FinetuneArgs, seed: u64) -> Result<Finetuned> {
        let outputs = self.arch.outputs();
        let sequences: usize = self.train.iter().map(|example| example.sequences.len()).sum();
        let steps = args.epochs * sequences.div_ceil(args.batch);
        let rule = match args.optimizer {
            OptimizerArg::Adamw => Rule::default(),
            OptimizerArg::Sgd => Rule::Sgd { momentum: 0.9, nesterov: false },
            OptimizerArg::Rmsprop => Rule::RmsProp { alpha: 0.99, eps: 1e-8, momentum: 0.0 },
        };
        let settings = Settings {
            epochs: args.epochs,
            batch: args.batch,
            rule,
            schedule: Schedule {
                shape: Shape::Linear,
                peak: args.lr,
                warmup: (WARMUP * steps as f64).ceil() as u64,
                floor: 0.0,
                decay: 0.0,
            },
            decay: args.weight_decay,
            clip: CLIP,
            layered: Layered { frozen: args.freeze, decay: args.layer_decay },
            weights: if args.class_weights { balanced(&self.train, outputs) } else { vec![] },
            patience: args.patience,
            metric: self.metric,
            decoding: self.decoding,
            seed,
        };
        let (train, held) = (self.train.len(), self.held.len());
        tell(format_args!("seed {seed}: {train} rows to learn from, {held} held out"));
        let of_epoch = |epoch: Epoch| {
            let Epoch { number, loss, metric, samples_a_second } = epoch;
            let (name, value) = (self.metric.name(), shown(metric));
            tell(format_args!(
                "  epoch {number}  loss {loss:.4}  {name} {value}  {samples_a_second:.0} rows/s"
            ));
        };
        let examples = [&self.train[..], &self.held[..]];
        let trained = finetune(dev, &self.dir, &self.arch, examples, &settings, of_epoch)?;
        if let Some(why) = &trained.stopped {
            eprintln!("stopped, with the best epoch until then: {why}");
        }
        if seed == args.seeds[0] {
            heads(&trained.report);
        }
        Ok(trained)
    }
}

/// The model and its tokenizer, at the sizes that were asked for.
fn model(args: &FinetuneArgs) -> Result<(ModelDir, Tokenizer)> {
    let folder = model_folder(&args.model);
    let mut dir = ModelDir::open(&folder)?;
    let own = Tokenizer::load(&folder)?;
    if let Some(positions) = args.positions {
        dir.set_positions(positions);
    }
    let Some(path) = &args.tokenizer else { return Ok((dir, own)) };
    let other = Tokenizer::load(path)?;
    let known = dir.set_tokenizer(&own, &other);
    let new = other.vocabulary() - known;
    eprintln!("{}: the model knew {known} of its tokens; {new} are new to it", path.display());
    Ok((dir, other))
}

/// The metric that was named, or the task's own.
fn metric(args: &FinetuneArgs, arch: &Arch) -> Result<Metric> {
    let known = Metric::all(args.task.kind());
    // Words may have labels that are no tags of entities: parts of speech.
    let untagged = arch.task.as_ref().is_some_and(|task| !are_tags(&task.labels));
    let own = known.iter().find(|&&metric| !(metric == Metric::EntityF1 && untagged));
    let metric = args.metric.unwrap_or(*own.expect("a task has a metric"));
    ensure!(known.contains(&metric), "--metric: such a task has {}", names(known));
    ensure!(
        !(metric == Metric::EntityF1 && untagged),
        "--metric entity-f1: the labels are no tags of entities (B-X, I-X, O)"
    );
    Ok(metric)
}

fn names(metrics: &[Metric]) -> String {
    let name = |metric: &Metric| metric.to_possible_value().map(|v| v.get_name().to_string());
    metrics.iter().filter_map(name).collect::<Vec<_>>().join(", ")
}

/// The model as it is, for prompts to be completed.
fn arch_of_completions(args: &FinetuneArgs, base: &Arch) -> Result<Arch> {
    ensure!(
        args.pooling.is_none() && args.dropout.is_none() && !args.class_weights,
        "--pooling, --dropout and --class-weights are of tasks with a head of their own"
    );
    let mut arch = Arch { task: None, pair: false, ..base.clone() };
    set_dropout(&mut arch, args.hidden_dropout, args.attention_dropout);
    arch.validate()?;
    Ok(arch)
}

/// The dropouts that were asked for, else the model's own.
fn set_dropout(arch: &mut Arch, hidden: Option<f64>, attention: Option<f64>) {
    let own = arch.dropout;
    let (hidden, attention) = (hidden.unwrap_or(own.hidden), attention.unwrap_or(own.attention));
    arch.dropout = Dropouts { hidden, attention, ..own };
    // BERT's config.json, and those after it, say one number for hidden states and embeddings.
    if !fits_family(arch) {
        arch.dropout.embed = hidden;
    }
}

/// The model with the task's head.
fn arch(args: &FinetuneArgs, dir: &ModelDir, kind: TaskKind, labels: Vec<String>) -> Result<Arch> {
    let base = &dir.arch;
    let own = match base.family {
        Family::Gpt2 => Pooling::Last,
        Family::Custom if base.causal => Pooling::Last,
        _ => Pooling::First,
    };
    let of_sequences = kind.is_of_sequences();
    ensure!(
        of_sequences || args.pooling.is_none(),
        "--pooling: such a task is of tokens; leave it away"
    );
    ensure!(
        !matches!(kind, TaskKind::Spans | TaskKind::Values) || !args.class_weights,
        "--class-weights: answers and numbers have no classes; leave it away"
    );
    let own = if of_sequences { own } else { Pooling::First };
    let pooling = args.pooling.map_or(own, Pooled::pooling);
    let expressible = match base.family {
        Family::Custom => true,
        Family::Modernbert => pooling != Pooling::Last,
        _ => pooling == own,
    };
    ensure!(
        expressible,
        "--pooling: transformers' {:?} has no such head; leave it away",
        base.family
    );
    let mut base = base.clone();
    set_dropout(&mut base, args.hidden_dropout, args.attention_dropout);
    let own = classifier_dropout(&dir.config, &base, kind)?;
    ensure!(
        own.is_some() || args.dropout.is_none(),
        "--dropout: transformers' {:?} has none before such a head; leave it away",
        base.family
    );
    let dropout = args.dropout.or(own).unwrap_or(0.0);
    let arch = base.for_task(Task { kind, labels, pooling, dropout });
    arch.validate()?;
    Ok(arch)
}

/// The labels, in the order in which the model has them if it knows just these.
fn known(base: &Arch, labels: Vec<String>) -> Vec<String> {
    let own = base.task.as_ref().map_or(&[][..], |task| &task.labels);
    let same = in_order(own.to_vec()) == in_order(labels.clone());
    if same { own.to_vec() } else { labels }
}

/// Tells what the model lacked, and what it had that the task has no use for.
fn heads(report: &LoadReport) {
    let (missing, leftover) = (report.missing.join(", "), report.leftover.join(", "));
    if !missing.is_empty() {
        tell(format_args!("  drawn at random, as the model has none for this: {missing}"));
    }
    if !leftover.is_empty() {
        tell(format_args!("  left out, of no use to the task: {leftover}"));
    }
}

/// That there is something to learn, by [what is learnt, what is held out] of each label.
fn check_counts(task: &Task, [learnt, held]: &[Vec<usize>; 2]) -> Result<()> {
    let known = |counts: &[usize]| counts.iter().filter(|&&count| count > 0).count();
    let exclusive = matches!(task.kind, TaskKind::Classes | TaskKind::Tokens);
    ensure!(
        !exclusive || known(learnt) > 1,
        "all rows to learn from have one label alone: give more rows, or another --dev FILE"
    );
    for ((label, learnt), held) in task.labels.iter().zip(learnt).zip(held) {
        if *learnt == 0 && *held > 0 {
            eprintln!("label {label:?}: held out {held} times, and never there to be learnt");
        }
    }
    Ok(())
}

/// Holds out a share of the examples; of questions all that are asked of one context together.
fn split(examples: Vec<Example>, share: f64) -> Result<(Vec<Example>, Vec<Example>)> {
    let total = examples.len();
    let count = (share * total as f64).round() as usize;
    let order = Permutation::new(Philox::new(SPLIT_SEED), 0, total as u64);
    let mut contexts: HashMap<String, usize> = HashMap::new();
    let mut parts = (Vec::new(), Vec::new());
    for (i, example) in examples.into_iter().enumerate() {
        let drawn = match example.question {
            Some(_) => *contexts.entry(example.text.clone()).or_insert(i),
            None => i,
        };
        let is_held = (order.at(drawn as u64) as usize) < count;
        if is_held { parts.1.push(example) } else { parts.0.push(example) }
    }
    ensure!(
        !parts.0.is_empty() && !parts.1.is_empty(),
        "--split {share} of {total} rows leaves nothing to learn from or to measure: give --dev \
         FILE"
    );
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hf::read_config;
    use crate::model::families::preset;

    #[test]
    fn labels_that_cannot_be_learnt_are_refused() {
        let labels = ["a", "b"].map(String::from).to_vec();
        let task =
            |kind| Task { kind, labels: labels.clone(), pooling: Pooling::First, dropout: 0.0 };
        let classes = task(TaskKind::Classes);
        check_counts(&classes, &[vec![3, 1], vec![0, 1]]).unwrap();
        let alone = check_counts(&classes, &[vec![3, 0], vec![0, 1]]).unwrap_err();
        assert!(alone.to_string().contains("one label alone"), "{alone}");
        // A label more or less may be right of every row.
        check_counts(&task(TaskKind::Flags), &[vec![3, 0], vec![0, 1]]).unwrap();
    }

    #[test]
    fn dropouts_are_what_a_family_s_config_can_say() {
        // With the embeddings' own 0.1, or 0 of ALBERT and ModernBERT; 0.2 where there is but one
        // number.
        for (name, embed, [classes, tokens, spans]) in [
            ("gpt2", 0.1, [false, true, false]),
            ("bert-base", 0.2, [true, true, false]),
            ("roberta-base", 0.2, [true, true, false]),
            ("albert-base", 0.2, [true, true, false]),
            ("modernbert-base", 0.0, [true, true, true]),
        ] {
            let mut arch = preset(name).unwrap();
            set_dropout(&mut arch, None, None);
            assert_eq!(arch, preset(name).unwrap());
            set_dropout(&mut arch, Some(0.2), Some(0.3));
            assert_eq!(arch.dropout, Dropouts { embed, hidden: 0.2, attention: 0.3 }, "{name}");
            for (kind, drops) in
                [(TaskKind::Classes, classes), (TaskKind::Tokens, tokens), (TaskKind::Spans, spans)]
            {
                let config = write_config(&arch, &Default::default(), FloatType::F32).unwrap();
                let own = classifier_dropout(&config, &arch, kind).unwrap();
                assert_eq!(own.is_some(), drops, "{name} {kind:?}");
                let pooling = if arch.causal && kind.is_of_sequences() {
                    Pooling::Last
                } else {
                    Pooling::First
                };
                let labels = ["start", "end"].map(String::from).to_vec();
                let dropout = if drops { 0.4 } else { 0.0 };
                let tuned = arch.for_task(Task { kind, labels, pooling, dropout });
                let config = write_config(&tuned, &Default::default(), FloatType::F32).unwrap();
                assert_eq!(read_config(&config).unwrap(), tuned.canonical(), "{name} {kind:?}");
            }
        }
    }
}
