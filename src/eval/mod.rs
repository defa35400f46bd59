//! Models at work on text: embeddings and scores.

pub mod embed;
mod passes;
pub mod score;
