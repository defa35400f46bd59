//! What task heads need beside products: means over sequences, and losses of few outputs a row.
//!
//!   classes   −w[t] log softmax(z)[t], where a target t of −100 is ignored       (weight w[t])
//!   flags     −1/K Σ_k (w[k] y[k] log σ(z[k]) + (1 − y[k]) log σ(−z[k]))         (weight 1)
//!   values    1/K Σ_k (z[k] − y[k])²                                             (weight 1)
//!   spans     ½ (nll of the first row + nll of the last), each over a sequence's rows (weight 1)
//! The loss of a step is the sum of all over the sum of their weights, as torch has it.

mod gpu;

use rayon::prelude::*;

use super::Cost;
use crate::data::IGNORE;
use crate::device::Memory;
use crate::device::cpu::{Cpu, Element, Float, largest, sum};

/// What logits [M, K] are held to.
pub enum Truth<'a, D: Memory> {
    /// One of K classes a row: targets [M], weights [K].
    Classes { targets: &'a D::Int, weights: &'a D::Acc },
    /// Any of K labels a row: targets [M, K] of 0 and 1, weights [K] of the ones.
    Flags { targets: &'a D::Acc, weights: &'a D::Acc },
    /// K numbers a row: targets [M, K].
    Values { targets: &'a D::Acc },
    /// K = 2, the first and the last row of a span of each sequence: targets [S, 2], counted from
    /// the sequence's first row, both −100 where there is none; cu_seqlens [S + 1].
    Spans { targets: &'a D::Int, cu_seqlens: &'a D::Int, sequences: usize },
}

pub trait TaskOps: Memory {
    /// y [S, C] = the mean of each sequence's rows of x [N, C]; zeros for an empty sequence.
    fn mean_rows(
        &self,
        y: &mut Self::X,
        x: &Self::X,
        cu_seqlens: &Self::Int,
        width: usize,
        sequences: usize,
    );

    /// dx [N, C]: each row's share of its sequence's dy [S, C].
    fn mean_rows_backward(
        &self,
        dx: &mut Self::X,
        dy: &Self::X,
        cu_seqlens: &Self::Int,
        width: usize,
        sequences: usize,
    );

    /// sums [3] += (Σ loss, Σ weight of those predicted right, Σ weight) of `logits` [rows,
    /// outputs]. A row is right if its largest logit is its class', all its flags are, or both ends
    /// of its span; numbers never are. With `total` [1], the weights of the whole step, logits
    /// become the gradient of the step's loss.
    fn task_loss(
        &self,
        sums: &mut Self::Acc,
        logits: &mut Self::X,
        truth: Truth<Self>,
        rows: usize,
        outputs: usize,
        total: Option<&Self::Acc>,
    ) where
        Self: Sized;
}

/// N rows cross memory once, and S.
pub fn cost_mean(width: usize, tokens: usize, sequences: usize, size: usize) -> Cost {
    let elements = width * (tokens + sequences);
    Cost { flops: (width * tokens) as f64, bytes: (elements * size) as f64 }
}

/// Logits are read and, when training, overwritten.
pub fn cost_loss(rows: usize, outputs: usize, training: bool, size: usize) -> Cost {
    let logits = (rows * outputs) as f64;
    let streams = if training { 2.0 } else { 1.0 };
    Cost { flops: 5.0 * logits, bytes: streams * logits * size as f64 }
}

/// The rows of sequence `s`.
fn rows_of(cu_seqlens: &[i32], s: usize) -> std::ops::Range<usize> {
    cu_seqlens[s] as usize..cu_seqlens[s + 1] as usize
}

impl<E: Element> TaskOps for Cpu<E> {
    fn mean_rows(
        &self,
        y: &mut Vec<E>,
        x: &Vec<E>,
        cu_seqlens: &Vec<i32>,
        width: usize,
        sequences: usize,
    ) {
        y[..sequences * width].par_chunks_mut(width).enumerate().for_each(|(s, y)| {
            let rows = rows_of(cu_seqlens, s);
            let mut total = vec![E::Acc::ZERO; width];
            for x in x[rows.start * width..rows.end * width].chunks_exact(width) {
                for (total, x) in total.iter_mut().zip(x) {
                    *total += x.wide();
                }
            }
            let share = E::Acc::of(1.0 / rows.len().max(1) as f64);
            for (y, total) in y.iter_mut().zip(total) {
                *y = E::round(total * share);
            }
        });
    }

    fn mean_rows_backward(
        &self,
        dx: &mut Vec<E>,
        dy: &Vec<E>,
        cu_seqlens: &Vec<i32>,
        width: usize,
        sequences: usize,
    ) {
        for s in 0..sequences {
            let rows = rows_of(cu_seqlens, s);
            let share = E::Acc::of(1.0 / rows.len().max(1) as f64);
            let dy = &dy[s * width..][..width];
            let dx = &mut dx[rows.start * width..rows.end * width];
            dx.par_chunks_exact_mut(width).for_each(|dx| {
                for (dx, dy) in dx.iter_mut().zip(dy) {
                    *dx = E::round(dy.wide() * share);
                }
            });
        }
    }

    fn task_loss(
        &self,
        sums: &mut Vec<E::Acc>,
        logits: &mut Vec<E>,
        truth: Truth<Self>,
        rows: usize,
        outputs: usize,
        total: Option<&Vec<E::Acc>>,
    ) {
        let logits = &mut logits[..rows * outputs];
        let scale = total.map(|total| E::Acc::ONE / total[0]);
        let by_row = |i: usize, z: &mut [E]| match &truth {
            Truth::Classes { targets, weights } => classes(z, targets[i], weights, scale),
            Truth::Flags { targets, weights } => {
                flags(z, &targets[i * outputs..][..outputs], weights, scale)
            }
            Truth::Values { targets } => values(z, &targets[i * outputs..][..outputs], scale),
            Truth::Spans { .. } => unreachable!("a span is of a sequence"),
        };
        let mut found = [E::Acc::ZERO; 3];
        let mut count = |row: [E::Acc; 3]| found.iter_mut().zip(row).for_each(|(f, r)| *f += r);
        if let Truth::Spans { targets, cu_seqlens, sequences } = truth {
            for s in 0..sequences {
                let rows = rows_of(cu_seqlens, s);
                let z = &mut logits[rows.start * 2..rows.end * 2];
                count(span(z, [targets[2 * s], targets[2 * s + 1]], scale));
            }
        } else {
            for (i, z) in logits.chunks_exact_mut(outputs).enumerate() {
                count(by_row(i, z));
            }
        }
        for (sum, found) in sums.iter_mut().zip(found) {
            *sum += found;
        }
    }
}

/// (nll, hit) of the `n` logits that `at` finds, and log Σ exp of them.
fn nll<E: Element>(z: &[E], at: impl Fn(usize) -> usize, n: usize, t: usize) -> (E::Acc, bool) {
    let top = largest(n, |i| z[at(i)].wide());
    let total = sum(n, |i| (z[at(i)].wide() - top).exp());
    (total.ln() + top - z[at(t)].wide(), z[at(t)].wide() == top)
}

/// Those logits become factor · (softmax − onehot).
fn softmax_slope<E: Element>(
    z: &mut [E],
    at: impl Fn(usize) -> usize,
    n: usize,
    t: usize,
    factor: E::Acc,
) {
    let top = largest(n, |i| z[at(i)].wide());
    let total = sum(n, |i| (z[at(i)].wide() - top).exp());
    for i in 0..n {
        let p = (z[at(i)].wide() - top).exp() / total;
        let own = if i == t { E::Acc::ONE } else { E::Acc::ZERO };
        z[at(i)] = E::round((p - own) * factor);
    }
}

fn worth<A: Float>(right: bool, weight: A) -> A {
    if right { weight } else { A::ZERO }
}

fn classes<E: Element>(
    z: &mut [E],
    target: i32,
    weights: &[E::Acc],
    scale: Option<E::Acc>,
) -> [E::Acc; 3] {
    if target == IGNORE {
        if scale.is_some() {
            z.fill(E::round(E::Acc::ZERO));
        }
        return [E::Acc::ZERO; 3];
    }
    let (n, t) = (z.len(), target as usize);
    let weight = weights[t];
    let (loss, right) = nll(z, |i| i, n, t);
    if let Some(scale) = scale {
        softmax_slope(z, |i| i, n, t, scale * weight);
    }
    [loss * weight, worth(right, weight), weight]
}

fn flags<E: Element>(
    z: &mut [E],
    targets: &[E::Acc],
    weights: &[E::Acc],
    scale: Option<E::Acc>,
) -> [E::Acc; 3] {
    let (one, share) = (E::Acc::ONE, E::Acc::of(1.0 / z.len() as f64));
    let (mut loss, mut right) = (E::Acc::ZERO, true);
    for ((z, &y), &w) in z.iter_mut().zip(targets).zip(weights) {
        let x = z.wide();
        // −log σ(−x) = max(x, 0) + log(1 + exp −|x|), and −log σ(x) = that − x.
        let above = if x > E::Acc::ZERO { x } else { E::Acc::ZERO };
        let e = (x - above - above).exp();
        let softplus = above + (one + e).ln();
        loss += (w * y * (softplus - x) + (one - y) * softplus) * share;
        right &= (x > E::Acc::ZERO) == (y > E::Acc::of(0.5));
        if let Some(scale) = scale {
            let p = if x > E::Acc::ZERO { one / (one + e) } else { e / (one + e) };
            *z = E::round(((one - y) * p - w * y * (one - p)) * share * scale);
        }
    }
    [loss, worth(right, one), one]
}

fn values<E: Element>(z: &mut [E], targets: &[E::Acc], scale: Option<E::Acc>) -> [E::Acc; 3] {
    let share = E::Acc::of(1.0 / z.len() as f64);
    let mut loss = E::Acc::ZERO;
    for (z, &y) in z.iter_mut().zip(targets) {
        let off = z.wide() - y;
        loss += off * off * share;
        if let Some(scale) = scale {
            *z = E::round((off + off) * share * scale);
        }
    }
    [loss, E::Acc::ZERO, E::Acc::ONE]
}

fn span<E: Element>(z: &mut [E], ends: [i32; 2], scale: Option<E::Acc>) -> [E::Acc; 3] {
    let n = z.len() / 2;
    let Some(ends) = within(ends, n) else {
        if scale.is_some() {
            z.fill(E::round(E::Acc::ZERO));
        }
        return [E::Acc::ZERO; 3];
    };
    let half = E::Acc::of(0.5);
    let (mut loss, mut right) = (E::Acc::ZERO, true);
    for (end, &t) in ends.iter().enumerate() {
        let (of_end, hit) = nll(z, |i| 2 * i + end, n, t);
        loss += half * of_end;
        right &= hit;
        if let Some(scale) = scale {
            softmax_slope(z, |i| 2 * i + end, n, t, half * scale);
        }
    }
    [loss, worth(right, E::Acc::ONE), E::Acc::ONE]
}

/// A span within a sequence of `n` rows.
fn within(ends: [i32; 2], n: usize) -> Option<[usize; 2]> {
    let inside = |end: i32| usize::try_from(end).ok().filter(|&end| end < n);
    Some([inside(ends[0])?, inside(ends[1])?])
}
