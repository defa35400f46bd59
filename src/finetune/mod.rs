//! A pretrained model adapted to labelled data.
//!
//! ```text
//! CSV, TSV, JSONL ─ table ─> records ─ examples ─> tokens and labels
//! examples ─ batches ─> token-flat steps ─ train ─> the best weights on the held-out examples
//! predictions ─ outcome ─> metrics with intervals, confusion, worst mistakes
//! ```
//!
//! **Invariant.** What a run computes is a function of the model, the data, the settings and the
//! seed; order and dropout are drawn as in pretraining.

pub mod batches;
pub mod examples;
pub mod outcome;
pub mod table;
pub mod train;
