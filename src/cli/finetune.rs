//! `warpwright finetune`: a pretrained model adapted to labelled data.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use half::bf16;
use serde::Serialize;
use serde_json::Value;

use super::card::{CardArgs, settings};
use super::export::write_model;
use super::say;
use crate::card::{self, Origin};
use crate::checkpoint::model_folder;
use crate::config::{Dtype, Where, settle};
use crate::data::Tokenizer;
use crate::data::order::Permutation;
use crate::device::Device;
use crate::device::cpu::Cpu;
use crate::device::gpu::{self, Kernels};
use crate::finetune::examples::{Columns, Example, ExampleError, Examples, Reader, labels};
use crate::finetune::outcome::{Metric, Predictions};
use crate::finetune::table::Table;
use crate::finetune::train::{Epoch, Finetuned, Settings, balanced, finetune};
use crate::hf::{FloatType, LoadReport, ModelDir};
use crate::model::arch::{Arch, Family, Pooling, Task, TaskKind};
use crate::ops::optimizer::Rule;
use crate::rng::Philox;
use crate::train::schedule::{Schedule, Shape};
use crate::train::step::Layered;

/// Adapt a pretrained model to labelled data
///
/// Reads .csv and .tsv (first row: names of columns) and .jsonl, trains a head and the model under
/// it for a few epochs, keeps the epoch that is best on held-out rows, and writes it as a folder
/// that transformers loads, beside results.json: metrics with intervals of 95%, the confusion of
/// classes, the rows that it is most wrong about.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    warpwright finetune --model all-MiniLM-L6-v2 --task classify --train reviews.csv\n  \
    warpwright finetune --model bert-base/ --task regress --train sts.tsv --dev dev.tsv \\\n    \
    --text sentence1 --pair sentence2 --label score --epochs 4 --seeds 1,2,3\n  \
    warpwright finetune --model runs/masked --task tag --train posts.jsonl --label tags \\\n    \
    --freeze 2 --layer-decay 0.9 --class-weights")]
pub struct FinetuneArgs {
    /// A run directory (its best checkpoint), or a Hugging Face model's folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    #[arg(long, value_enum)]
    pub task: TaskArg,
    /// Rows to learn from
    #[arg(long, value_name = "FILE")]
    pub train: PathBuf,
    /// Rows to choose by, and to measure [default: a share of --train, see --split]
    #[arg(long, value_name = "FILE")]
    pub dev: Option<PathBuf>,
    /// Share of --train held out where there is no --dev; drawn with seed 1, whatever --seeds
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    pub split: f64,
    /// Where to write [default: runs/finetune]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Column of the text
    #[arg(long, value_name = "COLUMN", default_value = "text")]
    pub text: String,
    /// Column of a second text
    #[arg(long, value_name = "COLUMN")]
    pub pair: Option<String>,
    /// Column of what is to be told: a class, a number, or labels (a list, or names with | between)
    #[arg(long, value_name = "COLUMN", default_value = "label")]
    pub label: String,
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub epochs: usize,
    /// Rows a step
    #[arg(long, value_name = "ROWS", default_value_t = 32)]
    pub batch: usize,
    /// Tokens of a row, special ones included; longer ones are cut
    #[arg(long, value_name = "TOKENS", default_value_t = 128)]
    pub longest: usize,
    #[arg(long, value_enum, default_value = "adamw")]
    pub optimizer: OptimizerArg,
    /// Largest learning rate; it rises over the first 6% of steps and falls to 0
    #[arg(long, value_name = "RATE", default_value_t = 3e-5)]
    pub lr: f64,
    #[arg(long, value_name = "LAMBDA", default_value_t = 0.01)]
    pub weight_decay: f64,
    /// Layers from below that do not learn, with the embeddings
    #[arg(long, value_name = "LAYERS", default_value_t = 0)]
    pub freeze: usize,
    /// Factor of the learning rate from each layer to the one below
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub layer_decay: f64,
    /// Let rare classes weigh as much as frequent ones
    #[arg(long)]
    pub class_weights: bool,
    /// Dropout of what the classifier reads [default: the model's own]
    #[arg(long, value_name = "P")]
    pub dropout: Option<f64>,
    /// Dropout of hidden states [default: the model's own]
    #[arg(long, value_name = "P")]
    pub hidden_dropout: Option<f64>,
    /// Dropout of attention [default: the model's own]
    #[arg(long, value_name = "P")]
    pub attention_dropout: Option<f64>,
    /// What stands for a text [default: the model's own: its first token, or its last]
    #[arg(long, value_enum)]
    pub pooling: Option<super::embed::Pooled>,
    /// What the best epoch is chosen by [default: accuracy, F1 or Pearson, by the task]
    #[arg(long, value_enum)]
    pub metric: Option<Metric>,
    /// Stop after so many epochs without a better metric; 0 for never
    #[arg(long, value_name = "EPOCHS", default_value_t = 0)]
    pub patience: usize,
    /// Train once with each; the best is written, and mean and deviation are told
    #[arg(long, value_name = "SEEDS", value_delimiter = ',', default_value = "1")]
    pub seeds: Vec<u64>,
    #[arg(long, value_enum, default_value = "auto", value_name = "DEVICE")]
    pub device: Where,
    /// The precision to compute in [default: bf16 on a GPU, f32 on the CPU]
    #[arg(long, value_enum)]
    pub dtype: Option<Dtype>,
    #[command(flatten)]
    pub card: CardArgs,
}

/// What the model is to tell of a row.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum TaskArg {
    /// One of some classes
    Classify,
    /// Any of some labels
    Tag,
    /// A number
    Regress,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum OptimizerArg {
    Adamw,
    Sgd,
    Rmsprop,
}

/// Who holds out rows of `--train`: the same whatever trains on the others.
const SPLIT_SEED: u64 = 1;
/// Mistakes that are kept, and told.
const WORST: usize = 20;
const TOLD: usize = 5;

/// Everything read, before a device is asked for.
struct Job {
    dir: ModelDir,
    tokenizer: Tokenizer,
    arch: Arch,
    train: Vec<Example>,
    held: Vec<Example>,
    metric: Metric,
}

/// One seed's.
struct Trained {
    seed: u64,
    model: Finetuned,
}

#[derive(Serialize)]
struct Measured {
    metric: Metric,
    value: Option<f64>,
    /// Of 95%
    low: Option<f64>,
    high: Option<f64>,
}

#[derive(Serialize)]
struct Mistake<'a> {
    line: u64,
    text: &'a str,
    loss: f64,
    outputs: &'a [f64],
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
    /// Rows are what was right, columns what was said.
    confusion: Option<Vec<Vec<u64>>>,
    worst: Vec<Mistake<'a>>,
    samples_a_second: f64,
    settings: Value,
}

/// Finetunes once a seed and writes the best.
pub fn run(args: FinetuneArgs) -> Result<()> {
    check(&args)?;
    let out = args.out.clone().unwrap_or_else(|| "runs/finetune".into());
    ensure!(!out.exists(), "{} exists: name another folder with --out", out.display());
    let job = Job::read(&args)?;
    let (device, dtype) = settle(args.device, args.dtype, gpu::available)?;
    let mut trained = Vec::new();
    for &seed in &args.seeds {
        let model = match (device.place(), dtype) {
            (Some(place), _) => job.train(&gpu::open(place, Kernels::Fast)?, &args, seed)?,
            (None, Dtype::F64) => job.train(&Cpu::<f64>::new(), &args, seed)?,
            (None, Dtype::F32) => job.train(&Cpu::<f32>::new(), &args, seed)?,
            (None, Dtype::Bf16) => job.train(&Cpu::<bf16>::new(), &args, seed)?,
        };
        trained.push(Trained { seed, model });
    }
    job.conclude(&args, &trained, &out)
}

fn check(args: &FinetuneArgs) -> Result<()> {
    for (flag, value) in [("--epochs", args.epochs), ("--batch", args.batch)] {
        ensure!(value > 0, "{flag} is 0: give at least 1");
    }
    let share = 0.0..1.0;
    ensure!(
        args.dev.is_some() || (args.split > 0.0 && args.split < 1.0),
        "--split {}: give a share between 0 and 1, or --dev FILE",
        args.split
    );
    for (flag, p) in [
        ("--dropout", args.dropout),
        ("--hidden-dropout", args.hidden_dropout),
        ("--attention-dropout", args.attention_dropout),
    ] {
        ensure!(p.is_none_or(|p| share.contains(&p)), "{flag}: give a probability below 1");
    }
    ensure!(args.lr > 0.0 && args.lr.is_finite(), "--lr {}: give a positive number", args.lr);
    ensure!(args.weight_decay >= 0.0, "--weight-decay {}: give 0 or more", args.weight_decay);
    ensure!(
        args.layer_decay > 0.0 && args.layer_decay <= 1.0,
        "--layer-decay {}: give a factor above 0, at most 1",
        args.layer_decay
    );
    Ok(())
}

impl Job {
    fn read(args: &FinetuneArgs) -> Result<Job> {
        let dir = ModelDir::open(&model_folder(&args.model))?;
        let tokenizer = Tokenizer::load(&model_folder(&args.model))?;
        let kind = match args.task {
            TaskArg::Classify => TaskKind::Classes,
            TaskArg::Tag => TaskKind::Flags,
            TaskArg::Regress => TaskKind::Values,
        };
        let metric = args.metric.unwrap_or(Metric::of(kind));
        let known = Metric::all(kind);
        ensure!(known.contains(&metric), "--metric: such a task has {}", names(known));
        let columns =
            Columns { text: args.text.clone(), pair: args.pair.clone(), label: args.label.clone() };
        let table = Table::read(&args.train)?;
        let outputs = match kind {
            TaskKind::Values => vec![args.label.clone()],
            _ => labels(&table, &args.label, kind)?,
        };
        let arch = arch(args, &dir.arch, kind, outputs.clone())?;
        let longest = args.longest;
        let reader = Reader { arch: &arch, tokenizer: &tokenizer, columns: &columns, longest };
        let read = |table: &Table| -> Result<Vec<Example>, ExampleError> {
            let Examples { examples, cut } = reader.read(table, &outputs)?;
            if cut > 0 {
                let path = table.path.display();
                eprintln!("{path}: {cut} rows were cut to {longest} tokens (--longest)");
            }
            Ok(examples)
        };
        let train = read(&table)?;
        let (train, held) = match &args.dev {
            Some(path) => (train, read(&Table::read(path)?)?),
            None => split(train, args.split)?,
        };
        if args.freeze > arch.layers {
            bail!("--freeze {}: the model has {} layers", args.freeze, arch.layers);
        }
        Ok(Job { dir, tokenizer, arch, train, held, metric })
    }

    fn train<D: Device>(&self, dev: &D, args: &FinetuneArgs, seed: u64) -> Result<Finetuned> {
        let outputs = self.arch.outputs();
        let steps = args.epochs * self.train.len().div_ceil(args.batch);
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
                warmup: (0.06 * steps as f64).ceil() as u64,
                floor: 0.0,
                decay: 0.0,
            },
            decay: args.weight_decay,
            clip: 1.0,
            layered: Layered { frozen: args.freeze, decay: args.layer_decay },
            weights: if args.class_weights { balanced(&self.train, outputs) } else { vec![] },
            patience: args.patience,
            metric: self.metric,
            seed,
        };
        let (train, held) = (self.train.len(), self.held.len());
        say(format_args!("seed {seed}: {train} rows to learn from, {held} held out"))?;
        let mut said = Ok(());
        let tell = |epoch: Epoch| {
            let Epoch { number, loss, metric, samples_a_second } = epoch;
            let (name, value) = (self.metric.name(), shown(metric));
            said = say(format_args!(
                "  epoch {number}  loss {loss:.4}  {name} {value}  {samples_a_second:.0} rows/s"
            ));
        };
        let examples = [&self.train[..], &self.held[..]];
        let trained = finetune(dev, &self.dir, &self.arch, examples, &settings, tell)?;
        said?;
        if seed == args.seeds[0] {
            heads(&trained.report)?;
        }
        Ok(trained)
    }

    /// Writes the best seed's model and results, and tells them.
    fn conclude(&self, args: &FinetuneArgs, trained: &[Trained], out: &Path) -> Result<()> {
        let value = |t: &Trained| t.model.epochs[t.model.best].metric;
        let order = |t: &&Trained| value(t).unwrap_or(f64::NEG_INFINITY);
        let best = trained.iter().max_by(|a, b| order(a).total_cmp(&order(b)));
        let Trained { seed, model } = best.expect("there is a seed");
        let task = self.arch.task.as_ref().expect("the arch of a task");
        let metrics: Vec<Measured> = Metric::all(task.kind)
            .iter()
            .map(|&metric| {
                let interval = model.predictions.interval(metric, *seed);
                let (low, high) = (interval.map(|i| i.low), interval.map(|i| i.high));
                Measured { metric, value: model.predictions.metric(metric), low, high }
            })
            .collect();
        let worst = model.predictions.worst(WORST);
        let mistake = |&(i, loss): &(usize, f64)| {
            let Example { line, text, .. } = &self.held[i];
            Mistake { line: *line, text, loss, outputs: model.predictions.row(i) }
        };
        let rates = model.epochs.iter().map(|epoch| epoch.samples_a_second);
        let results = Results {
            labels: &task.labels,
            train: self.train.len(),
            held_out: self.held.len(),
            seed: *seed,
            best_epoch: model.best + 1,
            metrics,
            seeds: trained.iter().map(|t| (t.seed, value(t))).collect(),
            confusion: (task.kind == TaskKind::Classes).then(|| confusion(&model.predictions)),
            worst: worst.iter().map(mistake).collect(),
            samples_a_second: rates.sum::<f64>() / model.epochs.len() as f64,
            settings: settings(args),
        };
        tell(&results)?;
        let json = serde_json::to_string_pretty(&results)? + "\n";
        let origin = Origin::Finetuned(serde_json::from_str(&json)?);
        write_model(out, |folder| {
            let source = (&self.arch, &self.dir.ids, FloatType::F32);
            super::export::put_model(folder, source, &model.arena, Some(&self.tokenizer))?;
            fs::write(folder.join("results.json"), json).context("results.json")?;
            Ok(card::write(folder, &self.arch, &origin, &args.card.known(out))?)
        })?;
        Ok(say(format_args!("wrote {}", out.display()))?)
    }
}

/// The model with the task's head.
fn arch(args: &FinetuneArgs, base: &Arch, kind: TaskKind, labels: Vec<String>) -> Result<Arch> {
    let own = match base.family {
        Family::Gpt2 => Pooling::Last,
        Family::Custom if base.causal => Pooling::Last,
        _ => Pooling::First,
    };
    let pooling = args.pooling.map_or(own, super::embed::Pooled::pooling);
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
    let dropout = args.dropout.unwrap_or(match base.family {
        Family::Gpt2 => 0.0,
        _ => base.dropout.hidden,
    });
    let mut arch = base.for_task(Task { kind, labels, pooling, dropout });
    arch.dropout.hidden = args.hidden_dropout.unwrap_or(arch.dropout.hidden);
    arch.dropout.attention = args.attention_dropout.unwrap_or(arch.dropout.attention);
    arch.validate()?;
    Ok(arch)
}

/// Tells what the model lacked, and what it had that the task has no use for.
fn heads(report: &LoadReport) -> Result<()> {
    let (missing, leftover) = (report.missing.join(", "), report.leftover.join(", "));
    if !missing.is_empty() {
        say(format_args!("  not in the model, drawn at random: {missing}"))?;
    }
    if !leftover.is_empty() {
        say(format_args!("  left out, of no use to the task: {leftover}"))?;
    }
    Ok(())
}

/// Holds out a share of the examples.
fn split(examples: Vec<Example>, share: f64) -> Result<(Vec<Example>, Vec<Example>)> {
    let count = (share * examples.len() as f64).round() as usize;
    ensure!(
        count > 0 && count < examples.len(),
        "--split {share} of {} rows leaves nothing to learn from or to measure: give --dev FILE",
        examples.len()
    );
    let order = Permutation::new(Philox::new(SPLIT_SEED), 0, examples.len() as u64);
    let is_held = |i: usize| (order.at(i as u64) as usize) < count;
    let mut parts = (Vec::new(), Vec::new());
    for (i, example) in examples.into_iter().enumerate() {
        if is_held(i) { parts.1.push(example) } else { parts.0.push(example) }
    }
    Ok(parts)
}

fn confusion(predictions: &Predictions) -> Vec<Vec<u64>> {
    let all: Vec<usize> = (0..predictions.labels.len()).collect();
    let (confusion, k) = (predictions.confusion(&all), predictions.outputs);
    (0..k).map(|gold| (0..k).map(|said| confusion.count(gold, said)).collect()).collect()
}

fn names(metrics: &[Metric]) -> String {
    let name = |metric: &Metric| metric.to_possible_value().map(|v| v.get_name().to_string());
    metrics.iter().filter_map(name).collect::<Vec<_>>().join(", ")
}

fn shown(value: Option<f64>) -> String {
    crate::eval::metrics::shown(value)
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
    if let Some(confusion) = results.confusion.as_ref().filter(|rows| rows.len() <= 10) {
        say("\nwas (row), said (column):")?;
        let wide = results.labels.iter().map(|l| l.chars().count()).max().unwrap_or(0).max(6);
        let cell = |text: &str| format!("{text:>wide$}  ");
        let heads: String = results.labels.iter().map(|label| cell(label)).collect();
        say(format_args!("  {}{heads}", cell("")))?;
        for (label, row) in results.labels.iter().zip(confusion) {
            let row: String = row.iter().map(|count| cell(&count.to_string())).collect();
            say(format_args!("  {}{row}", cell(label)))?;
        }
    }
    say("\nmost wrong about:")?;
    for Mistake { line, text, loss, .. } in results.worst.iter().take(TOLD) {
        let short: String = text.chars().take(90).collect();
        say(format_args!("  line {line}, loss {loss:.2}: {short}"))?;
    }
    Ok(())
}
