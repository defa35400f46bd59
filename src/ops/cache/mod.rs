//! Attention of one new token a sequence over the keys and values kept of those before it.
//!
//! For a head of width D, over the tokens j that the new one may see, itself the last of them:
//!   s_j = q · k_j / √D,  p_j = exp(s_j − log Σ exp s),  o = Σ_j p_j v_j
//!
//! A layer's cache is a table of rows, one a token, and a sequence is a list of such rows. So a
//! beam that goes on from another's tokens copies the list, four bytes a token, and not what 4 C L
//! numbers stand for; beams share the rows of their prompt; and rows need be in no order.

mod gpu;

use rayon::prelude::*;

use super::Cost;
use super::attention::Attention;
use crate::device::Memory;
use crate::device::cpu::{Cpu, Element, Float, largest, sum};

/// What sequences see of a layer.
pub struct Kept<'a, D: Memory> {
    /// [R, 2C]: k and v of a token, each [H, D]
    pub cache: &'a D::X,
    /// [S, stride]: the cache's rows of each sequence's tokens, in their order
    pub rows: &'a D::Int,
    pub stride: usize,
    /// [S]: tokens of each sequence, at least one: the new token is the last
    pub lengths: &'a D::Int,
    /// The same as the host knows it, for whom it would have to wait.
    pub known: &'a [i32],
}

impl<D: Memory> Kept<'_, D> {
    /// The tokens that each new one sees.
    pub fn seen(&self, at: &Attention) -> impl Iterator<Item = usize> {
        self.known.iter().map(move |&n| at.keys(n as usize - 1, n as usize).len())
    }
}

pub trait CacheOps: Memory + Sized {
    /// cache [R, 2C]: row rows[i] = k and v of row i of qkv [count, 3C]; −1 is no row. No other row
    /// occurs twice.
    fn keep(
        &self,
        cache: &mut Self::X,
        qkv: &Self::X,
        rows: &Self::Int,
        width: usize,
        count: usize,
    );

    /// o [S, C] of the new tokens' q, in qkv [S, 3C], whose k and v are kept already. `at` has no
    /// dropout.
    fn attend(&self, o: &mut Self::X, qkv: &Self::X, kept: Kept<Self>, at: &Attention);
}

/// k and v are read and written.
pub fn cost_keep(width: usize, count: usize, size: usize) -> Cost {
    Cost { flops: 0.0, bytes: (4 * width * count * size) as f64 }
}

/// Two products. k and v of the `seen` tokens of all sequences cross memory once; q and o, too.
pub fn cost_attend(at: &Attention, sequences: usize, seen: usize, size: usize) -> Cost {
    let width = at.heads * at.head_dim;
    Cost { flops: (4 * width * seen) as f64, bytes: (2 * width * (seen + sequences) * size) as f64 }
}

impl<E: Element> CacheOps for Cpu<E> {
    fn keep(&self, cache: &mut Vec<E>, qkv: &Vec<E>, rows: &Vec<i32>, width: usize, count: usize) {
        for (qkv, &row) in qkv.chunks_exact(3 * width).zip(&rows[..count]) {
            if let Ok(row) = usize::try_from(row) {
                cache[row * 2 * width..][..2 * width].copy_from_slice(&qkv[width..]);
            }
        }
    }

    fn attend(&self, o: &mut Vec<E>, qkv: &Vec<E>, kept: Kept<Self>, at: &Attention) {
        let (d, width) = (at.head_dim, at.heads * at.head_dim);
        let scale = E::Acc::of(1.0 / (d as f64).sqrt());
        let heads = o[..kept.known.len() * width].par_chunks_exact_mut(d).enumerate();
        heads.for_each(|(task, o)| {
            let (s, column) = (task / at.heads, task % at.heads * d);
            let length = kept.lengths[s] as usize;
            let seen = at.keys(length - 1, length);
            let rows = &kept.rows[s * kept.stride..][seen];
            let part = |row: i32, column: usize| &kept.cache[row as usize * 2 * width + column..];
            let q: Vec<E::Acc> =
                qkv[s * 3 * width + column..][..d].iter().map(|q| q.wide() * scale).collect();
            let score = |&row: &i32| {
                let k = &part(row, column)[..d];
                sum(d, |c| q[c] * k[c].wide())
            };
            let mut p: Vec<E::Acc> = rows.iter().map(score).collect();
            let top = largest(p.len(), |j| p[j]);
            for p in &mut p {
                *p = (*p - top).exp();
            }
            let share = E::Acc::ONE / sum(p.len(), |j| p[j]);
            let mut out = vec![E::Acc::ZERO; d];
            for (&row, &p) in rows.iter().zip(&p) {
                for (out, v) in out.iter_mut().zip(&part(row, width + column)[..d]) {
                    *out += p * v.wide();
                }
            }
            for (o, out) in o.iter_mut().zip(out) {
                *o = E::round(out * share);
            }
        });
    }
}
