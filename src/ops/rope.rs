//! Rotary positions, rotate-half form (Su et al. 2021), in place on the packed q and k.
//!
//! For position p, pair i < D/2 and angle a = p θ^(−2i/D):
//!   (x[i], x[i + D/2]) ← (x[i] cos a − x[i + D/2] sin a, x[i + D/2] cos a + x[i] sin a)
//! The backward is the rotation by −a. Angles are computed once, in f64, into a table.

use half::bf16;

use super::{Cost, attention::Attention};
use crate::device::Memory;
use crate::device::cpu::{Cpu, Element, for_row_blocks};
use crate::device::gpu::launch::Shape;
use crate::device::gpu::{Gpu, Tensor, limits};

/// Which way to rotate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Forward,
    Backward,
}

pub trait RopeOps: Memory {
    /// Rotates q and k of qkv [N, 3C] by the angles of `table` [context, D] (D/2 cosines, then
    /// D/2 sines, a row a position) at positions [N].
    fn rope(
        &self,
        qkv: &mut Self::X,
        table: &Self::Acc,
        positions: &Self::Int,
        at: &Attention,
        rows: usize,
        turn: Turn,
    );
}

/// The table of `context` positions for head width `d`: [context, D], cosines then sines.
pub fn table(context: usize, d: usize, theta: f64) -> Vec<f64> {
    let mut table = Vec::with_capacity(context * d);
    for p in 0..context {
        let angle = |i: usize| p as f64 * theta.powf(-2.0 * i as f64 / d as f64);
        table.extend((0..d / 2).map(|i| angle(i).cos()));
        table.extend((0..d / 2).map(|i| angle(i).sin()));
    }
    table
}

/// q and k cross memory twice.
pub fn cost(at: &Attention, rows: usize, size: usize) -> Cost {
    let elements = (rows * 2 * at.heads * at.head_dim) as f64;
    Cost { flops: 3.0 * elements, bytes: 2.0 * elements * size as f64 }
}

impl<E: Element> RopeOps for Cpu<E> {
    fn rope(
        &self,
        qkv: &mut Vec<E>,
        table: &Vec<E::Acc>,
        positions: &Vec<i32>,
        at: &Attention,
        rows: usize,
        turn: Turn,
    ) {
        let (d, c) = (at.head_dim, at.heads * at.head_dim);
        for_row_blocks(&mut qkv[..rows * 3 * c], 3 * c, |first, qkv| {
            for (n, row) in (first..).zip(qkv.chunks_exact_mut(3 * c)) {
                let angles = &table[positions[n] as usize * d..][..d];
                let (cos, sin) = angles.split_at(d / 2);
                for head in row[..2 * c].chunks_exact_mut(d) {
                    let (low, high) = head.split_at_mut(d / 2);
                    for i in 0..d / 2 {
                        let (a, b) = (low[i].wide(), high[i].wide());
                        let s = if turn == Turn::Forward { sin[i] } else { -sin[i] };
                        low[i] = E::round(a * cos[i] - b * s);
                        high[i] = E::round(b * cos[i] + a * s);
                    }
                }
            }
        });
    }
}

/// Whether the kernels take heads of this width: a thread turns 16 bytes of each half.
pub fn supports(head_dim: usize) -> Result<(), String> {
    limits::multiple("the width of a rotated head", head_dim, 16, usize::MAX)
}

/// Heads that a thread of the fast kernel turns, as `HEADS` of `kernels/rope.cu`.
const HEADS: usize = 4;

impl RopeOps for Gpu {
    fn rope(
        &self,
        qkv: &mut Tensor<bf16>,
        table: &Tensor<f32>,
        positions: &Tensor<i32>,
        at: &Attention,
        rows: usize,
        turn: Turn,
    ) {
        let (h, d) = (at.heads, at.head_dim);
        let sign = if turn == Turn::Forward { 1.0f32 } else { -1.0 };
        let args = [
            qkv.into(),
            table.into(),
            positions.into(),
            h.into(),
            d.into(),
            rows.into(),
            sign.into(),
        ];
        if self.naive() {
            return self.launch("rope_naive", Shape::each(rows * h * d, 256), &args);
        }
        assert_eq!(supports(d), Ok(()), "rope");
        let threads = rows * (2 * h).div_ceil(HEADS) * (d / 16);
        self.launch("rope", Shape::each(threads, 256), &args);
    }
}
