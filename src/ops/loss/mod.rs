//! The decoder and the cross-entropy of its logits, forward and backward in one pass.
//!
//!   z = x Wᵀ + b, nll = log Σ exp z − z[t], dz = (softmax(z) − onehot(t)) / labelled
//!   dx = dz W, dW += dzᵀ x, db += Σ dz
//! Logits exist only a chunk of rows at a time and are overwritten by their own gradient. A
//! target of −100 is ignored: no loss, no gradient, not counted.

mod gpu;

use rayon::prelude::*;

use super::linear::{Linear, linear_dw_rows, linear_dx_rows, linear_rows};
use super::{Cost, Into};
use crate::data::IGNORE;
use crate::device::Memory;
use crate::device::cpu::{Cpu, Element, Float, largest, rows_per_task, sum};
pub use gpu::supports;

/// What the training pass of the loss writes.
pub struct LossGrads<'a, D: Memory> {
    /// [M, C] =
    pub dx: &'a mut D::X,
    /// +=
    pub grads: &'a mut D::Acc,
    /// [1]: labelled rows of the whole step, over which the loss is a mean
    pub labelled: &'a D::Int,
}

/// What the loss reads.
pub struct LossInput<'a, D: Memory> {
    /// [M, C]
    pub x: &'a D::X,
    /// [M]
    pub targets: &'a D::Int,
    /// M
    pub rows: usize,
}

pub trait LossOps: Memory + Sized {
    /// sums [3] += (Σ nll, correct rows, labelled rows); with `train`, the gradients too.
    /// `logits` is scratch for as many rows at a time as it holds, [chunk, V].
    fn head_loss(
        &self,
        sums: &mut Self::Acc,
        train: Option<LossGrads<Self>>,
        logits: &mut Self::X,
        input: LossInput<Self>,
        params: &Self::X,
        at: &Linear,
    );
}

/// Three products when training, one otherwise. Logits are written and read, and when training
/// overwritten and read by two more products; x is read by two products and dx written, W read by
/// two, and dW read and written once, as though one chunk held all rows.
pub fn cost(at: &Linear, rows: usize, training: bool, size: usize, acc: usize) -> Cost {
    let (products, logits, x, w, dw) = if training { (3, 5, 3, 2, 2) } else { (1, 2, 1, 1, 0) };
    let (i, o) = (at.n_in, at.n_out);
    Cost {
        flops: (products * 2 * i + 5) as f64 * (rows * o) as f64,
        bytes: ((rows * (logits * o + x * i) + w * i * o) * size + dw * i * o * acc) as f64,
    }
}

impl<E: Element> LossOps for Cpu<E> {
    fn head_loss(
        &self,
        sums: &mut Vec<E::Acc>,
        mut train: Option<LossGrads<Self>>,
        logits: &mut Vec<E>,
        input: LossInput<Self>,
        params: &Vec<E>,
        at: &Linear,
    ) {
        let (c, v) = (at.n_in, at.n_out);
        let chunk = logits.len() / v;
        assert!(chunk > 0, "head_loss: scratch holds not one row of {v} logits");
        let scale = train.as_ref().map(|t| E::Acc::of(1.0 / f64::from(t.labelled[0].max(1))));
        for first in (0..input.rows).step_by(chunk) {
            let rows = chunk.min(input.rows - first);
            let x = &input.x[first * c..(first + rows) * c];
            let logits = &mut logits[..rows * v];
            linear_rows(logits, x, params, at, |_, _| {});
            let found = cross_entropy(logits, &input.targets[first..first + rows], v, scale);
            for (sum, found) in sums.iter_mut().zip(found) {
                *sum += found;
            }
            if let Some(train) = &mut train {
                let dx = &mut train.dx[first * c..(first + rows) * c];
                linear_dx_rows(dx, logits, params, at, Into::Set, |_, _| {});
                linear_dw_rows(train.grads, logits, x, at);
            }
        }
    }
}

/// (Σ nll, correct, labelled) of logits [rows, V]; with a scale, turns them into gradients.
fn cross_entropy<E: Element>(
    logits: &mut [E],
    targets: &[i32],
    v: usize,
    scale: Option<E::Acc>,
) -> [E::Acc; 3] {
    let task = rows_per_task(targets.len());
    let partials: Vec<[E::Acc; 3]> = logits
        .par_chunks_mut(task * v)
        .zip(targets.par_chunks(task))
        .map(|(logits, targets)| {
            let mut total = [E::Acc::ZERO; 3];
            for (row, &target) in logits.chunks_exact_mut(v).zip(targets) {
                add(&mut total, cross_entropy_row(row, target, scale));
            }
            total
        })
        .collect();
    let mut total = [E::Acc::ZERO; 3];
    for partial in partials {
        add(&mut total, partial);
    }
    total
}

fn add<A: Float>(total: &mut [A; 3], more: [A; 3]) {
    for (total, more) in total.iter_mut().zip(more) {
        *total += more;
    }
}

#[inline(always)]
fn cross_entropy_row<E: Element>(row: &mut [E], target: i32, scale: Option<E::Acc>) -> [E::Acc; 3] {
    if target == IGNORE {
        if scale.is_some() {
            row.fill(E::round(E::Acc::ZERO));
        }
        return [E::Acc::ZERO; 3];
    }
    let target = target as usize;
    // Passes over NaN, which then makes the sum, and with it the loss, NaN.
    let top = largest(row.len(), |i| row[i].wide());
    let total = sum(row.len(), |i| (row[i].wide() - top).exp());
    let nll = total.ln() + top - row[target].wide();
    let hit = if row[target].wide() == top { E::Acc::ONE } else { E::Acc::ZERO };
    if let Some(scale) = scale {
        let factor = scale / total;
        let target_z = row[target].wide();
        for z in row.iter_mut() {
            *z = E::round((z.wide() - top).exp() * factor);
        }
        row[target] = E::round((target_z - top).exp() * factor - scale);
    }
    [nll, hit, E::Acc::ONE]
}
