//! Models at work on text: embeddings, scores, losses and answers; and how good answers are.
//!
//! ```text
//! passes ─ likelihood ─> embed, score          sequences end to end, the rows that matter
//! prompts, hellaswag ─ likelihood ─ choice     few-shot questions: which completion is likeliest
//! loss                                         a text's, by windows or masks
//! explain                                     what a prediction rests on
//! metrics ─ results                            what answers are worth, with intervals
//! ```

pub mod choice;
pub mod embed;
pub mod explain;
pub mod hellaswag;
pub mod likelihood;
pub mod loss;
pub mod metrics;
pub(crate) mod passes;
pub mod prompts;
pub mod results;
pub mod score;

pub use passes::TOKENS;
