//! `warpwright eval`: how good a model, or an answer, is.

mod choice;
mod completion;
mod hellaswag;
mod labels;
mod loss;
mod questions;
mod task;
mod text;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use super::device::{DeviceArgs, OnDevice};
use super::{may_write, remarks, say};
use crate::data::files;
use crate::device::Device;
use crate::eval::likelihood::{Asked, Likelihood, likelihoods};
use crate::eval::results::Results;
use crate::predict::Predictor;

/// Measure a model on text or questions, or answers beside what is right.
///
/// Every figure of examples has an interval of 95%, from a bootstrap over the examples.
#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    Loss(loss::LossArgs),
    Choice(choice::ChoiceArgs),
    Completion(completion::CompletionArgs),
    Task(task::TaskArgs),
    Hellaswag(hellaswag::HellaswagArgs),
    Text(text::TextArgs),
    Labels(labels::LabelsArgs),
}

impl EvalCommand {
    fn out(&self) -> &OutArgs {
        match self {
            EvalCommand::Loss(args) => &args.out,
            EvalCommand::Choice(args) => &args.out,
            EvalCommand::Completion(args) => &args.out,
            EvalCommand::Task(args) => &args.out,
            EvalCommand::Hellaswag(args) => &args.out,
            EvalCommand::Text(args) => &args.out,
            EvalCommand::Labels(args) => &args.out,
        }
    }
}

/// Runs `warpwright eval …`.
pub fn run(command: &EvalCommand) -> Result<()> {
    command.out().check()?;
    match command {
        EvalCommand::Loss(args) => loss::run(args),
        EvalCommand::Choice(args) => choice::run(args),
        EvalCommand::Completion(args) => completion::run(args),
        EvalCommand::Task(args) => task::run(args),
        EvalCommand::Hellaswag(args) => hellaswag::run(args),
        EvalCommand::Text(args) => text::run(args),
        EvalCommand::Labels(args) => labels::run(args),
    }
}

#[derive(Debug, clap::Args)]
pub struct ModelArgs {
    /// A run directory (its best checkpoint), or a Hugging Face model's folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    #[command(flatten)]
    pub on: DeviceArgs,
}

#[derive(Debug, clap::Args)]
pub struct OutArgs {
    /// Write everything that was measured as JSON, too; earlier results there are replaced
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

impl OutArgs {
    /// Refuses a file that is there and holds no results, before anything is computed.
    fn check(&self) -> Result<()> {
        let has_metrics = |file| {
            serde_json::from_reader(file).is_ok_and(|json: Value| json["metrics"].is_array())
        };
        self.out.as_ref().map_or(Ok(()), |path| may_write(path, has_metrics))
    }
}

/// An evaluation of a model, on any device.
trait Job {
    fn run<D: Device>(&self, predictor: &Predictor<D>) -> Result<Results>;
}

/// Opens the model where it is to run, and evaluates it.
fn on_device(args: &ModelArgs, job: &impl Job) -> Result<Results> {
    args.on.run(&args.model, Evaluation { model: &args.model, job })
}

struct Evaluation<'a, J> {
    model: &'a Path,
    job: &'a J,
}

impl<J: Job> OnDevice for Evaluation<'_, J> {
    type Done = Results;

    fn run_on<D: Device>(self, dev: D) -> Result<Results> {
        let predictor = Predictor::open(dev, self.model)?;
        remarks(&predictor.report, &predictor.tokenizer, &predictor.model.arch);
        self.job.run(&predictor)
    }
}

/// The likelihoods, with a bar.
fn judged<D: Device>(predictor: &Predictor<D>, asked: &[Asked]) -> Result<Vec<Likelihood>> {
    let bar = bar(asked.iter().map(|a| a.scored.len() as u64).sum());
    let mask = predictor.tokenizer.specials().mask;
    let tick = |done| bar.set_position(done as u64);
    let found = likelihoods(&predictor.dev, &predictor.model, mask, asked, tick)?;
    bar.finish_and_clear();
    Ok(found)
}

/// A bar of tokens; nothing where standard error is no terminal.
fn bar(tokens: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len} tokens  {eta} left  {msg}");
    ProgressBar::new(tokens).with_style(style.expect("a literal template"))
}

/// Tells the results, and writes them if they are to be.
fn conclude(results: &Results, out: &OutArgs) -> Result<()> {
    say(results.table().trim_end())?;
    write(results, out)
}

/// Writes results if they are to be.
fn write(results: &impl Serialize, out: &OutArgs) -> Result<()> {
    let Some(path) = &out.out else { return Ok(()) };
    let json = serde_json::to_string_pretty(results)? + "\n";
    let written = files::write(path, json.as_bytes());
    written.with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(say(format_args!("wrote {}", path.display()))?)
}
