//! Models at work on text: embeddings and scores; and how good answers are.

pub mod embed;
pub mod metrics;
pub(crate) mod passes;
pub mod score;
