//! Masking on the device: the same masks, to the bit, as [`crate::data::masking`] draws.

use bytemuck::{Pod, Zeroable};

use super::Cost;
use crate::data::IGNORE;
use crate::data::masking::Masker;
use crate::data::objective::{Masking, Unit};
use crate::device::cpu::{Cpu, Element};
use crate::device::gpu::Gpu;
use crate::device::gpu::launch::{Arg, Shape};
use crate::device::{Buffer, Memory};

/// What masking writes.
pub struct Masked<'a, D: Memory> {
    /// [N]: what the model sees
    pub ids: &'a mut D::Int,
    /// [capacity, or more that are left alone]: the rows to predict, ascending, then −1
    pub rows: &'a mut D::Int,
    /// [capacity]: what stood there, then −100
    pub targets: &'a mut D::Int,
    /// [1] += rows to predict
    pub count: &'a mut D::Int,
}

/// What masking reads.
pub struct Unmasked<'a, D: Memory> {
    /// [N]
    pub ids: &'a D::Int,
    /// [N], from 0 in each sequence
    pub positions: &'a D::Int,
    /// [V]: `WORD_START | SPECIAL`
    pub flags: &'a D::Int,
    /// Stream position of the first token.
    pub start: u64,
    /// N
    pub tokens: usize,
    /// Only the first so many tokens may be selected.
    pub countable: usize,
}

pub trait MaskOps: Memory + Sized {
    fn mask(&self, out: Masked<Self>, input: Unmasked<Self>, masker: &Masker);
}

/// Ids, positions and masked ids cross memory.
pub fn cost(tokens: usize) -> Cost {
    Cost { flops: 0.0, bytes: (3 * size_of::<i32>() * tokens) as f64 }
}

impl<E: Element> MaskOps for Cpu<E> {
    fn mask(&self, out: Masked<Self>, input: Unmasked<Self>, masker: &Masker) {
        let ids = &mut out.ids[..input.tokens];
        ids.copy_from_slice(&input.ids[..input.tokens]);
        let starts = (0..input.tokens).filter(|&n| input.positions[n] == 0);
        let mut cu_seqlens: Vec<i32> = starts.map(|n| n as i32).collect();
        cu_seqlens.push(input.tokens as i32);
        let (rows, targets) = masker.apply(input.start, ids, &cu_seqlens, input.countable);
        out.count[0] += rows.len() as i32;
        out.rows[..masker.capacity()].fill(-1);
        out.targets[..masker.capacity()].fill(IGNORE);
        out.rows[..rows.len()].copy_from_slice(&rows);
        out.targets[..targets.len()].copy_from_slice(&targets);
    }
}

/// `Masking` of kernels/mask.cu.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct MaskingArg {
    seed: u64,
    start: u64,
    rate: f32,
    keep: f32,
    keep_or_random: f32,
    span_start: f32,
    unit: i32,
    mask: i32,
    vocab: i32,
    capacity: i32,
    tokens: i32,
    countable: i32,
}

impl MaskOps for Gpu {
    fn mask(&self, out: Masked<Self>, input: Unmasked<Self>, masker: &Masker) {
        let Masking { rate, keep, random, unit } = masker.masking();
        let arg = MaskingArg {
            seed: masker.seed(),
            start: input.start,
            rate,
            keep,
            keep_or_random: keep + random,
            span_start: masker.span_start(),
            unit: match unit {
                Unit::Token => 0,
                Unit::Word => 1,
                Unit::Span => 2,
            },
            mask: masker.mask(),
            vocab: input.flags.len() as i32,
            capacity: masker.capacity() as i32,
            tokens: input.tokens as i32,
            countable: input.countable as i32,
        };
        let args = [
            out.ids.into(),
            out.rows.into(),
            out.targets.into(),
            out.count.into(),
            input.ids.into(),
            input.positions.into(),
            input.flags.into(),
            Arg::of(arg),
        ];
        if self.naive() {
            self.launch("mask_naive", Shape::new(1, 1), &args);
        } else {
            self.launch("mask", Shape::new(1, 1024), &args);
        }
    }
}
