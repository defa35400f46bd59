//! Rotary positions, rotate-half form (Su et al. 2021), of the packed q and k.
//!
//! For position p, pair i < D/2 and angle a = p θ^(−2i/D):
//!   (x[i], x[i + D/2]) ← (x[i] cos a − x[i + D/2] sin a, x[i + D/2] cos a + x[i] sin a)
//! The backward is the rotation by −a. Angles are computed once, in f64, into a table.
//!
//! No op of its own, and as an activation it counts for nothing beside a product: it is part of the
//! one that makes q and k ([`linear_rope`](super::linear::LinearOps::linear_rope)) and of
//! attention's backward.

use bytemuck::{Pod, Zeroable};
use half::bf16;

use crate::device::Memory;
use crate::device::cpu::{Cpu, Element};
use crate::device::gpu::launch::{Arg, Shape};
use crate::device::gpu::{Gpu, Tensor, limits};

/// Which way to rotate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Forward,
    Backward,
}

/// By which angles the rows of a batch are rotated.
pub struct Rotation<'a, D: Memory> {
    /// [context, D]: D/2 cosines, then D/2 sines, a row a position
    pub table: &'a D::Acc,
    /// [N]
    pub positions: &'a D::Int,
    /// D
    pub head_dim: usize,
}

impl<D: Memory> Clone for Rotation<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D: Memory> Copy for Rotation<'_, D> {}

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

impl<E: Element> Rotation<'_, Cpu<E>> {
    /// Turns a head [D] of row `n`.
    pub(super) fn turn_head(&self, head: &mut [E::Acc], n: usize, turn: Turn) {
        let d = self.head_dim;
        let (cos, sin) = self.table[self.positions[n] as usize * d..][..d].split_at(d / 2);
        let (low, high) = head.split_at_mut(d / 2);
        for i in 0..d / 2 {
            let (a, b) = (low[i], high[i]);
            let s = if turn == Turn::Forward { sin[i] } else { -sin[i] };
            low[i] = a * cos[i] - b * s;
            high[i] = b * cos[i] + a * s;
        }
    }

    /// Turns q and k of rows of qkv [_, 3C], the first of which is row `first`.
    pub fn turn_rows(&self, qkv: &mut [E::Acc], first: usize, width: usize, turn: Turn) {
        for (n, row) in (first..).zip(qkv.chunks_exact_mut(3 * width)) {
            for head in row[..2 * width].chunks_exact_mut(self.head_dim) {
                self.turn_head(head, n, turn);
            }
        }
    }
}

/// Whether the kernels take heads of this width: a thread turns 16 bytes of each half.
pub fn supports(head_dim: usize) -> Result<(), String> {
    limits::multiple("the width of a rotated head", head_dim, 16, usize::MAX)
}

/// Heads that a thread of the fast kernel turns, as `HEADS` of `kernels/rope.cu`.
const HEADS: usize = 4;

/// The head width that products of sm_90a turn on the way out of their accumulators.
pub(super) const TURNED_IN_PLACE: usize = 64;

/// `Rotation` of `kernels/hopper.cuh`; zero: none.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct RotationArg {
    table: u64,
    positions: u64,
}

impl Rotation<'_, Gpu> {
    /// As kernels of sm_90a take it, or none.
    pub(super) fn arg(rotation: Option<Self>) -> Arg {
        Arg::of(rotation.map_or(RotationArg::default(), |rotation| RotationArg {
            table: rotation.table.address().0,
            positions: rotation.positions.address().0,
        }))
    }
}

impl Gpu {
    /// Rotates q and k of qkv [rows, 3C], in place.
    pub fn rope(
        &self,
        qkv: &mut Tensor<bf16>,
        rotation: Rotation<Self>,
        width: usize,
        rows: usize,
        turn: Turn,
    ) {
        let d = rotation.head_dim;
        let heads = width / d;
        assert_eq!(width % d, 0, "rope: {width} columns in heads of {d}");
        let sign = if turn == Turn::Forward { 1.0f32 } else { -1.0 };
        let args = [
            qkv.into(),
            rotation.table.into(),
            rotation.positions.into(),
            heads.into(),
            d.into(),
            rows.into(),
            sign.into(),
        ];
        if self.naive() {
            return self.launch("rope_naive", Shape::each(rows * width, 256), &args);
        }
        assert_eq!(supports(d), Ok(()), "rope");
        let threads = rows * (2 * heads).div_ceil(HEADS) * (d / 16);
        self.launch("rope", Shape::each(threads, 256), &args);
    }
}
