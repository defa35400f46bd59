//! From text to batches.

/// One micro-batch, token-flat, on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// [N]
    pub ids: Vec<i32>,
    /// [N] from 0 within the sequence
    pub positions: Vec<i32>,
    /// [N] token types, 0 or 1
    pub types: Vec<i32>,
    /// [S+1]
    pub cu_seqlens: Vec<i32>,
    /// [M] ascending rows whose loss counts (masked); None: all N rows (causal)
    pub rows: Option<Vec<i32>>,
    /// [M] or [N]; -100 is ignored
    pub targets: Vec<i32>,
    /// [S] pair labels, -100 ignored; empty without a pair objective
    pub pairs: Vec<i32>,
}
