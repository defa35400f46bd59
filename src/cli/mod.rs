//! The commands, one file each: flags in, library calls, words for people out.

pub mod data;
pub mod fill;
pub mod generate;
pub mod plan;
pub mod pretrain;
pub mod report;
pub mod trace;

use clap::ValueEnum;

use crate::hf::FloatType;

/// What the device stores activations and weights as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// Sums in f64 too: the reference
    F64,
    F32,
    /// Sums in f32
    Bf16,
}

impl Dtype {
    /// How sums, and so master weights, are stored.
    pub fn of_sums(self) -> FloatType {
        if self == Dtype::F64 { FloatType::F64 } else { FloatType::F32 }
    }
}
