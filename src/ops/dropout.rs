//! Dropout whose mask is a pure function of (seed, step, site, index): nothing is stored, and the
//! backward draws the same mask again.
//!
//!   y[i] = x[i] / (1 − p) where u(i) ≥ p, else 0;   dx[i] = dy[i] / (1 − p) where u(i) ≥ p, else 0
//! with u(i) word i % 4 of the Philox block of index i / 4.

use half::bf16;

use super::Cost;
use crate::device::Memory;
use crate::device::cpu::{Cpu, Element, Float, for_row_blocks};
use crate::device::gpu::launch::Shape;
use crate::device::gpu::{Gpu, Tensor};
use crate::rng::{Philox, Stream};

/// One dropout site at one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    pub p: f64,
    pub seed: u64,
    /// Counts micro-batches, so that each of a step draws its own mask.
    pub step: u32,
    /// Which of the model's dropouts.
    pub site: u32,
}

impl Dropout {
    /// Keeps everything.
    pub fn none() -> Self {
        Dropout { p: 0.0, seed: 0, step: 0, site: 0 }
    }

    /// Factors, 0 or 1/(1 − p), of elements 4 · block to 4 · block + 3.
    #[inline(always)]
    pub fn factors<A: Float>(&self, block: u64) -> [A; 4] {
        let stream = Stream::Dropout.site(self.site);
        let words = Philox::new(self.seed).block(stream, self.step, block);
        // A word is below p · 2^32 with probability p.
        let threshold = (self.p * 4_294_967_296.0) as u32;
        let keep = A::of(1.0 / (1.0 - self.p));
        words.map(|word| if word >= threshold { keep } else { A::ZERO })
    }

    /// y = x under the mask of elements `first` and on; `first` is a multiple of 4.
    pub fn apply<E: Element>(&self, y: &mut [E], x: &[E], first: usize) {
        assert_eq!(first % 4, 0, "dropout: a block of the mask would be cut");
        for (block, (y, x)) in (first as u64 / 4..).zip(y.chunks_mut(4).zip(x.chunks(4))) {
            let factors = self.factors::<E::Acc>(block);
            for ((y, x), factor) in y.iter_mut().zip(x).zip(factors) {
                *y = E::round(x.wide() * factor);
            }
        }
    }
}

pub trait DropoutOps: Memory {
    /// y [len] = x under the mask: the forward, and the backward too.
    fn dropout(&self, y: &mut Self::X, x: &Self::X, dropout: Dropout, len: usize);
}

/// One pass over `len` elements; drawing the mask is integer work.
pub fn cost(len: usize, size: usize) -> Cost {
    Cost { flops: len as f64, bytes: (2 * len * size) as f64 }
}

impl<E: Element> DropoutOps for Cpu<E> {
    fn dropout(&self, y: &mut Vec<E>, x: &Vec<E>, dropout: Dropout, len: usize) {
        for_row_blocks(&mut y[..len], 64, |first, y| {
            let at = first * 64;
            dropout.apply(y, &x[at..at + y.len()], at);
        });
    }
}

/// Vectors of eight elements that a thread of the fast kernel takes, as in `kernels/dropout.cu`.
const VECTORS: usize = 2;

impl DropoutOps for Gpu {
    fn dropout(&self, y: &mut Tensor<bf16>, x: &Tensor<bf16>, dropout: Dropout, len: usize) {
        let args = [y.into(), x.into(), Some(dropout).into(), len.into()];
        if self.naive() {
            self.launch("dropout_naive", Shape::each(len, 256), &args);
        } else {
            self.launch("dropout", Shape::each(len.div_ceil(8 * VECTORS), 256), &args);
        }
    }
}
