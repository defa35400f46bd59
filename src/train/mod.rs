//! Training: one step, its learning rate, and the loop around it.

pub mod schedule;
pub mod step;
