//! From text to batches, in the order data flows:
//!
//! ```text
//! files ─ sources ─ tokenizer ─ ingest ─> shards on disk          once a corpus
//! shards ─ shard, formats ─ dataset                               mapped, checked
//! documents ─ packing (order) ─ loader (masking) ─> Batch         a pure function of its number
//! ```
//!
//! **Invariant.** Batch k of a (data set, objective, N, context, seed) is the same whenever,
//! wherever and by whichever thread it is made. Nothing here has state for a checkpoint to keep.

pub mod dataset;
pub(crate) mod files;
pub mod formats;
pub mod ingest;
pub mod loader;
pub mod masking;
pub mod objective;
pub mod order;
pub mod packing;
pub mod shard;
pub mod shipped;
pub mod sources;
pub mod tokenizer;
mod words;

pub use dataset::{Corpus, Dataset, DatasetError, Manifest};
pub use loader::{Facts, Loader, LoaderError};
pub use objective::{Masking, Objective, Pair, Unit};
pub use tokenizer::Tokenizer;

/// A target that no loss counts.
pub const IGNORE: i32 = -100;

/// One micro-batch, token-flat, on the host: N tokens in S sequences, M of them masked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// `[N]`
    pub ids: Vec<i32>,
    /// `[N]` from 0 within each sequence
    pub positions: Vec<i32>,
    /// `[N]` token types, 0 or 1
    pub types: Vec<i32>,
    /// `[S+1]` where sequences begin; the last entry is N
    pub cu_seqlens: Vec<i32>,
    /// `[M]` ascending rows whose loss counts (masked); `None`: all N rows (causal), or to be
    /// masked
    pub rows: Option<Vec<i32>>,
    /// `[M]`, or `[N]` if `rows` is `None`; [`IGNORE`] does not count. Of spans `[S, 2]`.
    pub targets: Vec<i32>,
    /// `[S, K]` of a task whose targets are numbers, or zeros and ones; else empty
    pub reals: Vec<f64>,
    /// `[S]` pair labels, [`IGNORE`] does not count; empty without a pair objective
    pub pairs: Vec<i32>,
    /// What the device that trains is to mask; then `targets` is empty.
    pub to_mask: Option<ToMask>,
}

/// Tokens that are to be masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToMask {
    /// Stream position of the first token.
    pub start: u64,
    /// Only the first so many tokens may be selected.
    pub countable: usize,
    /// The most that are.
    pub rows: usize,
}

impl Batch {
    /// Targets that count.
    pub fn labelled(&self) -> usize {
        self.targets.iter().filter(|&&target| target != IGNORE).count()
    }

    /// S.
    pub fn sequences(&self) -> usize {
        self.cu_seqlens.len() - 1
    }
}
