//! A pretrained model adapted to labelled data.
//!
//! ```text
//! CSV, TSV, JSONL ─ table ─> rows          ─ rows ───────┐
//!                         └> completions   ─ completions ┤
//! CoNLL, JSONL    ─────────> sentences     ─ sentences ──┼─> examples: sequences, what is right
//! SQuAD, JSONL    ─────────> questions     ─ questions ──┘       (reader: which; frame: specials)
//! sequences ─ batches ─> token-flat steps ─ train ─> the best weights on the held-out examples
//! logits ─ saying ─> words;  ─ outcome ─> metrics with intervals  ─ findings ─> worst mistakes
//! ```
//!
//! What is learnt, token by token:
//!
//! | task | targets |
//! |---|---|
//! | a class, labels, a number | one a sequence |
//! | words | each word's first token: its class; no other token counts |
//! | answers | the first and last token; twice the sequence's first where it has none |
//! | completions | each token's next, of the completion alone |
//!
//! **Invariant.** What a run computes is a function of the model, the data, the settings and the
//! seed; order and dropout are drawn as in pretraining.

pub mod batches;
pub mod completions;
pub mod examples;
pub mod findings;
pub mod frame;
pub mod infer;
pub mod outcome;
pub mod questions;
pub mod reader;
pub mod rows;
pub mod saying;
pub mod sentences;
pub mod table;
pub mod train;
