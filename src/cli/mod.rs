//! The commands, one file each: flags in, library calls, words for people out.

pub mod bench;
pub mod card;
pub mod data;
mod device;
pub mod embed;
pub mod eval;
pub mod explain;
pub mod export;
pub mod fill;
pub mod finetune;
pub mod generate;
pub mod info;
pub mod plan;
pub mod predict;
pub mod pretrain;
pub mod report;
pub mod score;
pub mod trace;
pub mod verify;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::data::Tokenizer;
use crate::data::files;
use crate::device::gpu::Gpu;
use crate::device::gpu::tuned::Tuned;
use crate::hf::LoadReport;
use crate::model::arch::Arch;

/// Prints a line. (`println!` panics where nobody reads on, as in `warpwright generate | head`;
/// this is an error, which `main` takes for a success.)
pub fn say(line: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

/// Prints a line. A reader that has gone is no reason to stop training.
fn tell(line: impl std::fmt::Display) {
    let _ = say(line);
}

/// What there is to say of a model that was opened, beside what is printed.
fn remarks(report: &LoadReport, tokenizer: &Tokenizer, arch: &Arch) {
    unused(report);
    let (tokens, vocab) = (tokenizer.vocabulary(), arch.vocab);
    if tokens > vocab {
        eprintln!("the tokenizer has {tokens} tokens, the model {vocab}: is it the model's own?");
    }
}

/// Lists, beside what is printed, the tensors of a model's files that are of no use to it.
fn unused(report: &LoadReport) {
    if !report.leftover.is_empty() {
        eprintln!("in the model's files, of no use here: {}", report.leftover.join(", "));
    }
}

/// Whether a command may write to `path`: where nothing is, or something of its own making, as
/// `is_own` finds by reading it.
fn may_write(path: &Path, is_own: impl FnOnce(BufReader<File>) -> bool) -> Result<()> {
    let own = || path.is_file() && File::open(path).is_ok_and(|f| is_own(BufReader::new(f)));
    ensure!(
        !path.exists() || own(),
        "{} exists, and is nothing that this command wrote: name another",
        path.display()
    );
    Ok(())
}

/// Hands over texts, `at_a_time` of them: the lines of `input` (`-` is standard input), or else
/// `given`.
///
/// # Errors
/// What cannot be read as text, or has no lines.
fn lines(
    input: Option<&Path>,
    given: Vec<String>,
    at_a_time: usize,
    mut each: impl FnMut(&[String]) -> Result<()>,
) -> Result<()> {
    let Some(path) = input else {
        return given.chunks(at_a_time).try_for_each(each);
    };
    let is_piped = path == Path::new("-");
    let name = if is_piped { "standard input".into() } else { path.display().to_string() };
    let wrong = || format!("{name} cannot be read");
    let reader: Box<dyn BufRead> = if is_piped {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).with_context(wrong)?))
    };
    let (mut held, mut last) = (Vec::new(), 0);
    for line in files::lines(reader) {
        let (number, text) = line.with_context(wrong)?;
        held.push(text);
        last = number;
        if held.len() == at_a_time {
            each(&held)?;
            held.clear();
        }
    }
    ensure!(last > 0, "{name} has no lines");
    if held.is_empty() { Ok(()) } else { each(&held) }
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
