//! The commands, one file each: flags in, library calls, words for people out.

pub mod bench;
pub mod data;
pub mod export;
pub mod fill;
pub mod generate;
pub mod info;
pub mod plan;
pub mod pretrain;
pub mod report;
pub mod trace;
pub mod verify;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::device::gpu::Gpu;
use crate::device::gpu::tuned::Tuned;

/// Prints a line. (`println!` panics where nobody reads on, as in `warpwright generate | head`;
/// this is an error, which `main` takes for a success.)
pub fn say(line: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

/// The file that was named, or where the measured cuts of products are kept for this GPU.
fn cuts_file(named: Option<&Path>, gpu: &Gpu) -> Result<PathBuf> {
    let kept = || Tuned::place(gpu.driver().properties());
    let file = named.map(PathBuf::from).or_else(kept);
    file.context("there is no HOME to keep the cuts of products in: name a FILE")
}

/// The measured cuts of products for this GPU, of that file.
fn tuned(named: Option<&Path>, gpu: &Gpu) -> Result<Tuned> {
    let tuned = Tuned::read(&cuts_file(named, gpu)?, gpu.driver().properties());
    tuned.context("--tuned takes what `warpwright bench gemm --tune` writes")
}

/// Whether an error is that standard output was closed by its reader.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = |e: &(dyn std::error::Error + 'static)| Some(e.downcast_ref::<io::Error>()?.kind());
    error.chain().any(|e| io(e) == Some(io::ErrorKind::BrokenPipe))
}
