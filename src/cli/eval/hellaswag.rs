//! `warpwright eval hellaswag`: llm.c's file of HellaSwag.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::{Job, ModelArgs, OutArgs, conclude, judged, on_device, say};
use crate::device::Device;
use crate::eval::choice::{Judged, accuracies};
use crate::eval::hellaswag::{self, Example};
use crate::eval::likelihood::Asked;
use crate::eval::metrics::bootstrap::Bootstrap;
use crate::eval::results::Results;
use crate::predict::Predictor;

/// HellaSwag, from the file that llm.c reads (hellaswag_val.bin), scored as llm.c scores it
///
/// Four ways to go on, of which one is right: the one with the least mean loss a token is taken
/// (elsewhere called acc_norm). Tokens are GPT-2's; no end of text stands before them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    warpwright eval hellaswag --model gpt2 --input hellaswag_val.bin")]
pub struct HellaswagArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Only the first so many examples
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    #[command(flatten)]
    pub out: OutArgs,
}

struct Hellaswag<'a> {
    args: &'a HellaswagArgs,
    examples: Vec<Example>,
}

/// Reads, asks, and tells in llm.c's words, too.
pub fn run(args: &HellaswagArgs) -> Result<()> {
    let mut examples = hellaswag::read(&args.input)?;
    examples.truncate(args.limit.unwrap_or(usize::MAX));
    ensure!(!examples.is_empty(), "{}: no example to ask about", args.input.display());
    let results = on_device(&args.model, &Hellaswag { args, examples })?;
    let right = results.rows.iter().filter(|row| row["said"] == row["right"]).count();
    let all = results.examples;
    say(format_args!("HellaSwag: {right}/{all} = {:.6}", right as f64 / all as f64))?;
    conclude(&results, &args.out)
}

impl Job for Hellaswag<'_> {
    fn run<D: Device>(&self, predictor: &Predictor<D>) -> Result<Results> {
        let arch = &predictor.model.arch;
        ensure!(arch.causal, "HellaSwag's file is for causal models: see `eval choice`");
        let asked: Vec<Asked> = self.examples.iter().flat_map(Example::asked).collect();
        // The last token is predicted, not read.
        if let Some(i) = asked.iter().position(|asked| asked.ids.len() > arch.context + 1) {
            let (tokens, context) = (asked[i].ids.len(), arch.context);
            bail!("example {}: {tokens} tokens, the model takes {context}", i / 4);
        }
        let found = judged(predictor, &asked)?;
        let judged: Vec<Judged> = self
            .examples
            .iter()
            .zip(found.chunks_exact(4))
            .map(|(example, found)| Judged::new(found, None, example.label))
            .collect();
        let row = |judged: &Judged| json!({ "right": judged.right, "said": judged.by_token() });
        Ok(Results {
            task: "hellaswag",
            model: Some(self.args.model.model.display().to_string()),
            data: self.args.input.display().to_string(),
            examples: judged.len(),
            unit: "examples",
            metrics: accuracies(&judged, &Bootstrap::default()),
            settings: Value::Null,
            rows: judged.iter().map(row).collect(),
        })
    }
}
