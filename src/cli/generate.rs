//! `warpwright generate`: text, continued.

use std::fs::{self, File};
use std::io::{BufWriter, Write, stdout};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::device::{DeviceArgs, OnDevice};
use super::export::beside;
use super::{lines, remarks};
use crate::device::Device;
use crate::finetune::table::Table;
use crate::generate::beams::{Beams, MOST};
use crate::generate::sampling::Sampling;
use crate::generate::{Choice, Continued, Continuing};
use crate::predict::Predictor;

/// Continue texts with a causal language model
///
/// One prompt is continued as you watch; of a file's prompts, many are continued together, and each
/// becomes a JSON line: prompt, text, number of tokens, and what ended it (text: the model said so;
/// stop; length). Where the model has a token that ends texts (<|endoftext|>), it sees one before
/// the prompt: a new text begins there, as in its training.
///
/// The same seed draws the same text, for each prompt its own; --temperature 0 always takes the
/// likeliest token, and --beams searches for the text that is likeliest as a whole, as transformers
/// does. What was computed of a text is kept, until it is longer than the model's context: from
/// there on every token takes a pass over the last ones that fit.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    warpwright generate --model runs/causal --prompt \"Call me\" --length 100 --top-p 0.9\n  \
    warpwright generate --model gpt2 --input prompts.txt --out texts.jsonl --temperature 0\n  \
    warpwright generate --model runs/translate --input pairs.jsonl --column source \\\n    \
    --out german.jsonl --beams 4 --length-penalty 0.6 --stop \"\\n\"")]
pub struct GenerateArgs {
    /// A run directory (its best checkpoint), or a Hugging Face model's folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// What the text begins with; empty begins a new document
    #[arg(long, default_value = "")]
    pub prompt: String,
    /// Continue every prompt of a file: each line (- for standard input), or each row of a .jsonl,
    /// .csv or .tsv
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub input: Option<PathBuf>,
    /// Column of the prompts, in a file of rows
    #[arg(long, value_name = "COLUMN", default_value = "prompt", requires = "input")]
    #[arg(conflicts_with = "prompt")]
    pub column: String,
    /// Where to write the JSON lines [default: standard output]
    #[arg(long, value_name = "FILE", requires = "input", conflicts_with = "prompt")]
    pub out: Option<PathBuf>,
    /// Prompts of a file that are continued together
    #[arg(long, value_name = "PROMPTS", default_value_t = 16, requires = "input")]
    #[arg(conflicts_with = "prompt")]
    pub batch: usize,
    /// Tokens to draw at most; the end of a text ends it earlier
    #[arg(long, value_name = "TOKENS", default_value_t = 200)]
    pub length: usize,
    /// End a text before this string, too; may be given again; \n is a line's end
    #[arg(long, value_name = "STRING")]
    pub stop: Vec<String>,
    /// Above 1 more varied, below 1 surer, 0 greedy
    #[arg(long, value_name = "T", default_value_t = 0.8)]
    pub temperature: f64,
    /// Draw from the K likeliest tokens only; 0 for all
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub top_k: usize,
    /// Draw from the likeliest tokens that reach this probability together
    #[arg(long, value_name = "P", default_value_t = 0.95)]
    pub top_p: f64,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Search with so many beams, instead of drawing
    #[arg(long, value_name = "BEAMS")]
    #[arg(conflicts_with_all = ["temperature", "top_k", "top_p", "seed"])]
    pub beams: Option<usize>,
    /// Of a search: texts are compared by log p / tokens^A; above 0 favours long ones
    #[arg(long, value_name = "A", default_value_t = 1.0, requires = "beams")]
    #[arg(allow_negative_numbers = true)]
    pub length_penalty: f64,
    /// Of a search: be content with the first texts that end, as many as there are beams
    #[arg(long, requires = "beams")]
    pub early_stopping: bool,
    #[command(flatten)]
    pub on: DeviceArgs,
}

/// What is asked of the model, as it was read.
struct Job {
    model: PathBuf,
    how: Continuing,
    /// One, or those of a file.
    prompts: Vec<String>,
    batch: usize,
    /// Whether there is a file of prompts, and where its texts go.
    to: Option<Option<PathBuf>>,
}

#[derive(Serialize)]
struct Line<'a> {
    prompt: &'a str,
    #[serde(flatten)]
    continued: Continued,
}

/// Prints a prompt and its continuation, as it is drawn; or writes those of a file.
pub fn run(args: GenerateArgs) -> Result<()> {
    let how = how(&args)?;
    ensure!(args.batch > 0, "--batch 0 continues nothing: give at least 1");
    if let Some(out) = &args.out {
        ensure!(!out.exists(), "{} exists: name another file with --out", out.display());
    }
    let prompts = match &args.input {
        Some(path) => prompts(path, &args.column)?,
        None => vec![args.prompt],
    };
    let to = args.input.is_some().then_some(args.out);
    let job = Job { model: args.model.clone(), how, prompts, batch: args.batch, to };
    args.on.run(&args.model, job)
}

fn how(args: &GenerateArgs) -> Result<Continuing> {
    let (t, p, a) = (args.temperature, args.top_p, args.length_penalty);
    ensure!(t >= 0.0 && t.is_finite(), "--temperature {t}: give 0 or more");
    ensure!(p > 0.0 && p <= 1.0, "--top-p {p}: give a share above 0, at most 1");
    ensure!(a.is_finite(), "--length-penalty {a}: give a number");
    if let Some(beams) = args.beams {
        check_beams(beams)?;
    }
    let stops: Vec<String> = args.stop.iter().map(|stop| stop.replace("\\n", "\n")).collect();
    ensure!(stops.iter().all(|stop| !stop.is_empty()), "--stop: an empty string is everywhere");
    let choice = match args.beams {
        Some(count) => {
            Choice::Search(Beams { count, length_penalty: a, early_stopping: args.early_stopping })
        }
        None => {
            let (top_k, seed) = (args.top_k, args.seed);
            Choice::Draw(Sampling { temperature: t, top_k, top_p: p, seed })
        }
    };
    Ok(Continuing { length: args.length, stops, choice })
}

/// Whether so many can be searched with.
pub fn check_beams(beams: usize) -> Result<()> {
    ensure!((1..=MOST).contains(&beams), "--beams {beams}: give 1 to {MOST}");
    Ok(())
}

/// The prompts of a file: its rows' column, or its lines.
fn prompts(path: &Path, column: &str) -> Result<Vec<String>> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let mut prompts = Vec::new();
    if ["jsonl", "csv", "tsv"].contains(&extension) {
        let table = Table::read(path)?;
        for record in &table.records {
            prompts.push(table.text(record, column).context("--column names the prompts")?);
        }
    } else {
        lines(Some(path), vec![], 1, |line| {
            prompts.extend_from_slice(line);
            Ok(())
        })?;
    }
    Ok(prompts)
}

impl OnDevice for Job {
    type Done = ();

    fn run_on<D: Device>(self, dev: D) -> Result<()> {
        let predictor = Predictor::open(dev, &self.model)?;
        remarks(&predictor.report, &predictor.tokenizer, &predictor.model.arch);
        match &self.to {
            None => self.watch(&predictor),
            Some(None) => self.write(&predictor, &mut stdout()),
            Some(Some(path)) => {
                let partial = beside(path, ".partial");
                let io = || format!("{} cannot be written", path.display());
                let mut file = BufWriter::new(File::create(&partial).with_context(io)?);
                let written = self.write(&predictor, &mut file);
                let synced = written.and_then(|()| file.get_ref().sync_all().with_context(io));
                let done = synced.and_then(|()| fs::rename(&partial, path).with_context(io));
                if done.is_err() {
                    // It is ours alone, and the first error is the one to tell.
                    let _ = fs::remove_file(&partial);
                }
                done
            }
        }
    }
}

impl Job {
    /// Prints the text as it grows.
    fn watch<D: Device>(&self, predictor: &Predictor<D>) -> Result<()> {
        let (mut out, prompt) = (stdout(), &self.prompts[0]);
        let mut said = write!(out, "{prompt}");
        predictor.generate(prompt, &self.how, |piece| {
            said = write!(out, "{piece}").and_then(|()| out.flush());
            if said.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        said?;
        Ok(writeln!(out)?)
    }

    /// Writes a line a prompt.
    fn write<D: Device>(&self, predictor: &Predictor<D>, out: &mut dyn Write) -> Result<()> {
        for (group, prompts) in self.prompts.chunks(self.batch).enumerate() {
            let first = group * self.batch;
            let which = || format!("prompts {} to {}", first + 1, first + prompts.len());
            let found = predictor.generate_all(first as u32, prompts, &self.how);
            for (prompt, continued) in prompts.iter().zip(found.with_context(which)?) {
                let line = serde_json::to_string(&Line { prompt, continued })?;
                writeln!(out, "{line}")?;
            }
        }
        Ok(out.flush()?)
    }
}
