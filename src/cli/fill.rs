//! `warpwright fill`: masked words, guessed.

use std::io;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::device::{DeviceArgs, OnDevice};
use super::{remarks, say};
use crate::device::Device;
use crate::predict::{Guess, Predictor};

/// Fill in the [MASK]s of a text with a masked language model
///
/// Prints the likeliest tokens for each [MASK] (RoBERTa writes it <mask>), best first, with their
/// probabilities.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    warpwright fill --model runs/masked \"To be, or not to[MASK], that is the question.\"")]
pub struct FillArgs {
    /// A run directory (its best checkpoint), or a Hugging Face model's folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Guesses to show for each [MASK]
    #[arg(long, short = 'k', value_name = "K", default_value_t = 5)]
    pub top: usize,
    #[command(flatten)]
    pub on: DeviceArgs,
    /// The text; a [MASK] right after a word stands for the space and the word that follow
    #[arg(required = true)]
    pub text: Vec<String>,
}

/// Prints the guesses.
pub fn run(args: FillArgs) -> Result<()> {
    ensure!(args.top > 0, "--top 0 shows nothing: ask for at least 1");
    args.on.run(&args.model.clone(), args)
}

impl OnDevice for FillArgs {
    type Done = ();

    fn run_on<D: Device>(self, dev: D) -> Result<()> {
        let predictor = Predictor::open(dev, &self.model)?;
        remarks(&predictor.report, &predictor.tokenizer, &predictor.model.arch);
        for text in &self.text {
            print(text, &guesses(&predictor, text, self.top)?)?;
        }
        Ok(())
    }
}

fn guesses<D: Device>(predictor: &Predictor<D>, text: &str, k: usize) -> Result<Vec<Vec<Guess>>> {
    Ok(predictor.fill(text, k)?)
}

/// The text, and under it a line of guesses for each of its masks.
pub fn print(text: &str, masks: &[Vec<Guess>]) -> io::Result<()> {
    say(text)?;
    for guesses in masks {
        let shown: Vec<String> = guesses
            .iter()
            .map(|g| format!("{:?} {:.1}%", g.token, 100.0 * g.probability))
            .collect();
        say(format_args!("  {}", shown.join("  ")))?;
    }
    Ok(())
}
