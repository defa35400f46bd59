//! `warpwright generate`: text, continued.

use std::io::{Write, stdout};
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::device::cpu::Cpu;
use crate::predict::{Predictor, Sampling};

/// Continue a text with a causal language model
///
/// The same seed draws the same text. --temperature 0 always takes the likeliest token.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    warpwright generate --model runs/causal --prompt \"Call me\" --length 100 --top-p 0.9")]
pub struct GenerateArgs {
    /// A run directory (its best checkpoint), or a Hugging Face model's folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// What the text begins with; empty begins a new document
    #[arg(long, default_value = "")]
    pub prompt: String,
    /// Tokens to draw at most; the end of a text ends it earlier
    #[arg(long, value_name = "TOKENS", default_value_t = 200)]
    pub length: usize,
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
}

/// Prints the prompt and its continuation, as it is drawn.
pub fn run(args: GenerateArgs) -> Result<()> {
    let (t, p) = (args.temperature, args.top_p);
    ensure!(t >= 0.0 && t.is_finite(), "--temperature {t}: give 0 or more");
    ensure!(p > 0.0 && p <= 1.0, "--top-p {p}: give a share above 0, at most 1");
    let predictor = Predictor::open(Cpu::<f32>::new(), &args.model)?;
    let sampling = Sampling { temperature: t, top_k: args.top_k, top_p: p, seed: args.seed };
    let mut out = stdout();
    let mut said = write!(out, "{}", args.prompt);
    predictor.generate(&args.prompt, args.length, &sampling, |piece| {
        said = write!(out, "{piece}").and_then(|()| out.flush());
        if said.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    said?;
    Ok(writeln!(out)?)
}
