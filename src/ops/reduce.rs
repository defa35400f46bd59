//! Sums over whole arenas: the gradient's norm and whether a step is finite.
//!
//! The verdict stays on the device, in `control` [4], where the optimizer reads it:
//!   [0] norm of the gradient, √Σ g²
//!   [1] 1 if that norm and the loss are finite, else 0
//!   [2] optimizer steps applied, [3] steps skipped as not finite

use half::bf16;
use rayon::prelude::*;

use super::Cost;
use crate::device::cpu::{Cpu, Element, Float, sum};
use crate::device::gpu::launch::Shape;
use crate::device::gpu::{Gpu, Tensor};
use crate::device::{Buffer, Memory};

/// Elements of `control`.
pub const CONTROL: usize = 4;

pub trait ReduceOps: Memory {
    fn zero_x(&self, x: &mut Self::X, len: usize);

    fn zero_acc(&self, acc: &mut Self::Acc);

    /// Judges a step from its gradients and its loss sums [3] (see `loss.rs`), and counts it.
    fn judge(&self, control: &mut Self::Acc, grads: &Self::Acc, sums: &Self::Acc);
}

/// One pass over `len` elements, each of `size` bytes.
pub fn cost(len: usize, size: usize) -> Cost {
    Cost { flops: 2.0 * len as f64, bytes: (len * size) as f64 }
}

impl<E: Element> ReduceOps for Cpu<E> {
    fn zero_x(&self, x: &mut Vec<E>, len: usize) {
        x[..len].fill(E::round(E::Acc::ZERO));
    }

    fn zero_acc(&self, acc: &mut Vec<E::Acc>) {
        acc.fill(E::Acc::ZERO);
    }

    fn judge(&self, control: &mut Vec<E::Acc>, grads: &Vec<E::Acc>, sums: &Vec<E::Acc>) {
        const BLOCK: usize = 1 << 14;
        let partials: Vec<f64> =
            grads.par_chunks(BLOCK).map(|g| sum(g.len(), |i| g[i] * g[i]).to_f64()).collect();
        let norm = E::Acc::of(partials.iter().sum::<f64>().sqrt());
        let finite = norm.is_finite() && sums[0].is_finite();
        control[0] = norm;
        control[1] = if finite { E::Acc::ONE } else { E::Acc::ZERO };
        control[if finite { 2 } else { 3 }] += E::Acc::ONE;
    }
}

/// Blocks that share the sum of squares: eight for each of an H200's multiprocessors, everywhere,
/// so that sums come out the same everywhere.
const BLOCKS: usize = 8 * 132;

impl ReduceOps for Gpu {
    fn zero_x(&self, x: &mut Tensor<bf16>, len: usize) {
        self.zero(x.at(0), len * size_of::<bf16>());
    }

    fn zero_acc(&self, acc: &mut Tensor<f32>) {
        self.zero(acc.at(0), acc.len() * size_of::<f32>());
    }

    fn judge(&self, control: &mut Tensor<f32>, grads: &Tensor<f32>, sums: &Tensor<f32>) {
        let len = grads.len() as u64;
        if self.naive() {
            let args = [control.into(), grads.into(), sums.into(), len.into()];
            return self.launch("judge_naive", Shape::new(1, 1), &args);
        }
        let blocks = BLOCKS.min(grads.len().div_ceil(4 * 256)).max(1);
        let partials = self.workspace(blocks * size_of::<f64>());
        let args = [partials.into(), grads.into(), len.into()];
        self.launch("square_sums", Shape::new(blocks, 256), &args);
        let args = [control.into(), partials.into(), sums.into(), blocks.into()];
        self.launch("judge", Shape::new(1, 256), &args);
    }
}
