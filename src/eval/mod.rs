//! How good a trained model's answers are.

pub mod metrics;
