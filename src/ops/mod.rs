//! The operations a model is made of, one file a family: the maths, the trait, what it costs, and
//! the CPU reference.
//!
//! Conventions. Outputs come first and are overwritten (`=`), except gradients of parameters,
//! which are always accumulated (`+=`). Tensors are dense and row-major; there are no views: a
//! parameter is a [`Span`] of an arena. Sizes are explicit; a wrong one is a programmer's error
//! and asserts.

pub mod activation;
pub mod attention;
pub mod cache;
pub mod dropout;
pub mod embed;
pub mod gather;
pub mod linear;
pub mod loss;
pub mod mask;
pub mod norm;
pub mod optimizer;
pub mod reduce;
pub mod rope;
pub mod task;

use std::ops::Range;

pub use dropout::Dropout;

/// Where a parameter lies in an arena, in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub len: usize,
}

impl Span {
    /// The first `len` elements.
    pub fn first(len: usize) -> Span {
        Span { start: 0, len }
    }

    pub fn range(self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

/// What an op costs: floating-point operations, and bytes that must cross memory at least once.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    pub flops: f64,
    pub bytes: f64,
}

/// Whether a result replaces what is there or is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Into {
    Set,
    Add,
}
