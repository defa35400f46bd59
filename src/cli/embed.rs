//! `warpwright embed`: texts as vectors.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde::Serialize;

use super::device::{DeviceArgs, OnDevice};
use super::{lines, remarks, say};
use crate::device::Device;
use crate::eval::embed::Embedding;
use crate::model::arch::Pooling;
use crate::predict::Predictor;

/// Turn texts into vectors
///
/// Writes a JSON line for each: its text, its number of tokens and its vector, the mean of the last
/// hidden states scaled to length 1, so that a dot product is a cosine. Takes any encoder, with or
/// without a head.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    warpwright embed --model all-MiniLM-L6-v2 \"This is an example sentence\"\n  \
    warpwright embed --model runs/masked --input lines.txt > vectors.jsonl")]
pub struct EmbedArgs {
    /// A run directory (its best checkpoint), or a Hugging Face model's folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// A text a line; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub input: Option<PathBuf>,
    /// What stands for a text
    #[arg(long, value_enum, default_value = "mean")]
    pub pooling: Pooled,
    /// Leave vectors at the length they have
    #[arg(long)]
    pub raw: bool,
    /// Tokens of a text that count, special ones included
    #[arg(long, value_name = "TOKENS", default_value_t = 256)]
    pub longest: usize,
    #[command(flatten)]
    pub on: DeviceArgs,
    #[arg(required_unless_present = "input")]
    pub text: Vec<String>,
}

/// What stands for a text.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Pooled {
    /// The mean over its tokens
    Mean,
    /// Its first token
    First,
    /// Its last
    Last,
}

impl Pooled {
    pub(super) fn pooling(self) -> Pooling {
        match self {
            Pooled::Mean => Pooling::Mean,
            Pooled::First => Pooling::First,
            Pooled::Last => Pooling::Last,
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    text: &'a str,
    tokens: usize,
    vector: &'a [f64],
}

/// Texts that are read before they are turned into vectors together.
const AT_A_TIME: usize = 256;

/// Prints the vectors.
pub fn run(args: EmbedArgs) -> Result<()> {
    let longest = args.longest;
    ensure!(longest > 2, "--longest {longest} leaves no token of a text: give at least 3");
    args.on.run(&args.model.clone(), args)
}

impl OnDevice for EmbedArgs {
    type Done = ();

    fn run_on<D: Device>(self, dev: D) -> Result<()> {
        let EmbedArgs { model, input, pooling, raw, longest, text, .. } = self;
        let predictor = Predictor::open_body(dev, &model)?;
        remarks(&predictor.report, &predictor.tokenizer, &predictor.model.arch);
        let how = Embedding { pooling: pooling.pooling(), normalise: !raw, longest };
        let mut cut = 0;
        lines(input.as_deref(), text, AT_A_TIME, |texts| {
            for (text, found) in texts.iter().zip(predictor.embed(texts, how)?) {
                cut += usize::from(found.cut);
                let line = Line { text, tokens: found.tokens, vector: &found.vector };
                say(serde_json::to_string(&line)?)?;
            }
            Ok(())
        })?;
        if cut > 0 {
            eprintln!("{cut} texts were cut to {longest} tokens, or to what the model takes");
        }
        Ok(())
    }
}
