//! `warpwright trace`: logits, loss and gradients of one batch.

use std::path::PathBuf;

use anyhow::Result;

use super::{say, unused};
use crate::config::{Dtype, Where, settle};
use crate::device::cpu::Cpu;
use crate::device::gpu::{self, Kernels};
use crate::trace::trace;

/// Run one batch through a model; write its logits, loss and every gradient
///
/// To compare with another framework. The input is JSON:
///   {"input_ids": [[5, 8, 2], [7]], "labels": [[-100, 8, -100], [7]]}
/// and optionally "token_type_ids", and "pair_labels" for a sentence-pair head. Sequences may
/// differ in length. A label of -100 is ignored; a causal model's labels are its ids. Of a model
/// with a task's head, labels are a class a sequence, a list of numbers a sequence, a class a
/// token, or [start, end] a sequence. The output (safetensors) holds logits [tokens, vocabulary]
/// (a task's: [sequences or tokens, outputs]), loss [1] (the mean over labelled tokens, plus that
/// over labelled pairs) and grad.NAME for each tensor NAME of model.safetensors.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Example:\n  \
    warpwright trace --model my-bert/ --input batch.json --output out.safetensors --dtype f64"
)]
pub struct TraceArgs {
    /// A Hugging Face model's folder, or a run directory
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The batch
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Where to write; a file that does not exist
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Where to compute
    #[arg(long, value_enum, default_value = "cpu", value_name = "DEVICE")]
    pub device: Where,
    /// The precision to compute in [default: bf16 on a GPU, f32 on the CPU]
    #[arg(long, value_enum)]
    pub dtype: Option<Dtype>,
}

/// Writes the trace and says where it is.
pub fn run(args: TraceArgs) -> Result<()> {
    let TraceArgs { model, input, output, device, dtype } = &args;
    let (device, dtype) = settle(*device, *dtype, gpu::available)?;
    let stored = dtype.of_sums();
    let report = match (device.place(), dtype) {
        (Some(place), _) => trace(&gpu::open(place, Kernels::Fast)?, model, input, output, stored)?,
        (None, Dtype::F64) => trace(&Cpu::<f64>::new(), model, input, output, stored)?,
        (None, Dtype::F32) => trace(&Cpu::<f32>::new(), model, input, output, stored)?,
        (None, Dtype::Bf16) => trace(&Cpu::<half::bf16>::new(), model, input, output, stored)?,
    };
    unused(&report);
    Ok(say(format_args!("wrote {}", output.display()))?)
}
