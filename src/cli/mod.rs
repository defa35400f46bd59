//! The commands, one file each: flags in, library calls, words for people out.

pub mod data;
pub mod fill;
pub mod generate;
pub mod plan;
pub mod pretrain;
pub mod report;
pub mod trace;

use clap::ValueEnum;

/// What the CPU stores activations and weights as; sums are f32, or f64 for f64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    F64,
    F32,
    Bf16,
}

/// Calls `$f` with the CPU device that stores `$dtype`.
#[macro_export]
macro_rules! on_cpu {
    ($dtype:expr, $f:expr) => {{
        use $crate::device::cpu::Cpu;
        match $dtype {
            $crate::cli::Dtype::F64 => $f(Cpu::<f64>::new()),
            $crate::cli::Dtype::F32 => $f(Cpu::<f32>::new()),
            $crate::cli::Dtype::Bf16 => $f(Cpu::<half::bf16>::new()),
        }
    }};
}
