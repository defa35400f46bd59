//! `warpwright finetune`: a pretrained model adapted to labelled data.

mod job;
mod rows;
mod tell;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::card::CardArgs;
use super::device::{DeviceArgs, OnDevice};
use super::export::Making;
use crate::device::Device;
use crate::finetune::outcome::Metric;
use crate::finetune::train::Finetuned;
use crate::model::arch::TaskKind;
use job::{Job, Trained};
pub use rows::{AnswerArgs, RowArgs};

/// Adapt a pretrained model to labelled data
///
/// Trains a head and the model under it for a few epochs, keeps the epoch that is best on held-out
/// rows, and writes it as a folder that transformers loads, beside results.json: metrics with
/// intervals of 95%, the confusion of classes, the rows that it is most wrong about.
///
/// What --train holds:
///
/// classify, tag, regress: .csv and .tsv (first row: names of columns; quotes are plain characters
/// in a .tsv) or .jsonl, with columns text and label.
///
/// tokens: .jsonl with lists of tokens and labels, or lines as CoNLL's: a word, a tab or a space,
/// its label; an empty line between sentences.
///
/// answer: SQuAD's .json (1.1 or 2.0), or rows with columns question, context and answer, and
/// answer_start (the character it begins with) where an answer occurs more than once.
///
/// complete: rows with columns prompt and completion, joined as they stand; of causal models.
///
/// To go on with a language model's own objective on other text, see `pretrain --init`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples, the first with what scripts/fetch.py brings:\n  \
    warpwright finetune --model data/minilm --task classify --longest 256 --lr 5e-5 \\\n    \
    --train data/reviews/imdb-train.csv --dev data/reviews/imdb-test.csv\n  \
    warpwright finetune --model data/minilm --task answer --longest 384 --batch 24 \\\n    \
    --train data/answers/factbook-train.json --dev data/answers/factbook-test.json\n  \
    warpwright finetune --model runs/causal --task complete \\\n    \
    --train data/verses/verses-train.jsonl --dev data/verses/verses-test.jsonl\n  \
    warpwright finetune --model runs/masked --task regress --train pairs.tsv \\\n    \
    --text sentence1 --pair sentence2 --label score --epochs 4 --seeds 1,2,3\n  \
    warpwright finetune --model runs/masked --task tag --train posts.jsonl --label tags \\\n    \
    --freeze 2 --layer-decay 0.9 --class-weights\n  \
    warpwright finetune --model runs/masked --task tokens --train words.txt --patience 2")]
pub struct FinetuneArgs {
    /// A run directory (its best checkpoint), or a Hugging Face model's folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    #[arg(long, value_parser = tasks())]
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
    #[command(flatten)]
    pub rows: RowArgs,
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub epochs: usize,
    /// Rows, or sequences of what takes several, a step
    #[arg(long, value_name = "ROWS", default_value_t = 32)]
    pub batch: usize,
    /// Have the model take sequences of so many tokens; learnt positions beyond its own begin as
    /// copies of these
    #[arg(long, value_name = "TOKENS")]
    pub positions: Option<usize>,
    /// Have the model read another tokenizer's tokens: those that its own spells alike keep their
    /// rows, others begin at the mean of all
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,
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
    /// Dropout of what the classifier reads [default: as transformers reads the model's
    /// config.json, mostly that of hidden states]
    #[arg(long, value_name = "P")]
    pub dropout: Option<f64>,
    /// Dropout of hidden states, and of the embeddings where a family has one number for both
    /// [default: the model's own]
    #[arg(long, value_name = "P")]
    pub hidden_dropout: Option<f64>,
    /// Dropout of attention [default: the model's own]
    #[arg(long, value_name = "P")]
    pub attention_dropout: Option<f64>,
    /// What stands for a text [default: the model's own: its first token, or its last]
    #[arg(long, value_enum)]
    pub pooling: Option<super::embed::Pooled>,
    /// What the best epoch is chosen by [default: accuracy, F1, Pearson or perplexity, by the task]
    #[arg(long, value_enum)]
    pub metric: Option<Metric>,
    /// Stop after so many epochs without a better metric; 0 for never
    #[arg(long, value_name = "EPOCHS", default_value_t = 0)]
    pub patience: usize,
    /// Train once with each; the best is written, and mean and deviation are told
    #[arg(long, value_name = "SEEDS", value_delimiter = ',', default_value = "1")]
    pub seeds: Vec<u64>,
    #[command(flatten)]
    pub on: DeviceArgs,
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
    /// One of some classes for each word
    Tokens,
    /// Where a context answers a question
    Answer,
    /// How a prompt goes on
    Complete,
}

/// The tasks, and by other names what is none of them.
fn tasks() -> impl TypedValueParser<Value = TaskArg> {
    let known = TaskArg::value_variants().iter().filter_map(TaskArg::to_possible_value);
    let other = PossibleValue::new("mlm").aliases(["clm", "continue"]).hide(true);
    PossibleValuesParser::new(known.chain([other])).try_map(|name| {
        let why = "to go on with a language model's own objective, use `pretrain --init`";
        TaskArg::from_str(&name, false).map_err(|_| why)
    })
}

impl TaskArg {
    /// The kind of head; none for the language model's own.
    fn kind(self) -> Option<TaskKind> {
        match self {
            TaskArg::Classify => Some(TaskKind::Classes),
            TaskArg::Tag => Some(TaskKind::Flags),
            TaskArg::Regress => Some(TaskKind::Values),
            TaskArg::Tokens => Some(TaskKind::Tokens),
            TaskArg::Answer => Some(TaskKind::Spans),
            TaskArg::Complete => None,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum OptimizerArg {
    Adamw,
    Sgd,
    Rmsprop,
}

/// Finetunes once a seed and writes the best.
pub fn run(args: FinetuneArgs) -> Result<()> {
    check(&args)?;
    let out = args.out.clone().unwrap_or_else(|| "runs/finetune".into());
    args.card.known(&out).check()?;
    let making = Making::begin(&out)?;
    let job = Job::read(&args)?;
    let nvml = args.on.nvml()?;
    let energy = || nvml.as_ref()?.energy();
    let before = energy();
    let mut trained = Trained::default();
    for &seed in &args.seeds {
        let training = Training { job: &job, args: &args, seed };
        match args.on.run_with(|| Ok(job.arch.clone()), training) {
            Ok(model) => trained.add(job.metric, seed, model),
            Err(error) if args.seeds.len() == 1 => return Err(error),
            Err(error) => eprintln!("seed {seed} is left out: {error:#}"),
        }
    }
    let joules = energy().zip(before).map(|(after, before)| after - before);
    job.conclude(&args, trained, joules, making, &out)
}

/// One seed's.
struct Training<'a> {
    job: &'a Job,
    args: &'a FinetuneArgs,
    seed: u64,
}

impl OnDevice for Training<'_> {
    type Done = Finetuned;

    fn run_on<D: Device>(self, dev: D) -> Result<Finetuned> {
        self.job.train(&dev, self.args, self.seed)
    }
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
    ensure!(args.positions != Some(0), "--positions 0: give at least 1");
    ensure!(args.lr > 0.0 && args.lr.is_finite(), "--lr {}: give a positive number", args.lr);
    ensure!(
        args.weight_decay >= 0.0 && args.weight_decay.is_finite(),
        "--weight-decay {}: give 0 or more",
        args.weight_decay
    );
    args.rows.answers.check()?;
    ensure!(
        args.layer_decay > 0.0 && args.layer_decay <= 1.0,
        "--layer-decay {}: give a factor above 0, at most 1",
        args.layer_decay
    );
    Ok(())
}
