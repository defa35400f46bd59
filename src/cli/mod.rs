//! The commands, one file each: flags in, library calls, words for people out.

pub mod bench;
pub mod data;
pub mod fill;
pub mod generate;
pub mod info;
pub mod plan;
pub mod pretrain;
pub mod report;
pub mod trace;
pub mod verify;

use std::io::{self, Write};

/// Prints a line. (`println!` panics where nobody reads on, as in `warpwright generate | head`;
/// this is an error, which `main` takes for a success.)
pub fn say(line: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

/// Whether an error is that standard output was closed by its reader.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = |e: &(dyn std::error::Error + 'static)| Some(e.downcast_ref::<io::Error>()?.kind());
    error.chain().any(|e| io(e) == Some(io::ErrorKind::BrokenPipe))
}
