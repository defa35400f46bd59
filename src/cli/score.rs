//! `warpwright score`: how likely a model takes texts to be.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use super::device::{DeviceArgs, OnDevice};
use super::{lines, remarks, say};
use crate::device::Device;
use crate::eval::score::Score;
use crate::predict::Predictor;

/// Tell how likely a model takes texts to be
///
/// Writes a JSON line for each: its number of scored tokens, the sum of their log-probabilities
/// [nats] and the mean of its negative. A causal model sees what comes before a token; a masked one
/// all others, each token masked in turn (the pseudo-log-likelihood), which takes a pass a token.
/// Special tokens are not scored.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    warpwright score --model runs/masked \"To be, or not to be.\" \"Be to not or, be to.\"\n  \
    warpwright score --model gpt2 --input lines.txt --tokens > scores.jsonl")]
pub struct ScoreArgs {
    /// A run directory (its best checkpoint), or a Hugging Face model's folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// A text a line; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub input: Option<PathBuf>,
    /// Each token and its log-probability, too
    #[arg(long)]
    pub tokens: bool,
    #[command(flatten)]
    pub on: DeviceArgs,
    #[arg(required_unless_present = "input")]
    pub text: Vec<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    text: &'a str,
    #[serde(flatten)]
    score: Score,
}

/// Prints the scores.
pub fn run(args: ScoreArgs) -> Result<()> {
    args.on.run(&args.model.clone(), args)
}

impl OnDevice for ScoreArgs {
    type Done = ();

    fn run_on<D: Device>(self, dev: D) -> Result<()> {
        let ScoreArgs { model, input, tokens, text, .. } = self;
        let predictor = Predictor::open(dev, &model)?;
        remarks(&predictor.report, &predictor.tokenizer, &predictor.model.arch);
        let mut number = 0;
        let place = |number| match &input {
            Some(path) => format!("{}, line {number}", path.display()),
            None => format!("text {number}"),
        };
        lines(input.as_deref(), text, 1, |texts| {
            for text in texts {
                number += 1;
                let score = predictor.score(text, tokens);
                let score = score.with_context(|| place(number))?;
                say(serde_json::to_string(&Line { text, score })?)?;
            }
            Ok(())
        })
    }
}
