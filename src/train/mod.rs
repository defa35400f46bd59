//! Training: one step, its learning rate, and the loop around it.

pub mod folder;
pub mod prepare;
pub mod run;
pub mod samples;
pub mod schedule;
pub mod step;
