//! Attention within each sequence of a token-flat batch.
//!
//! A head of width D over one sequence, with s_ij = q_i · k_j / √D on the allowed j, else −∞:
//!   lse_i = log Σ_j exp s_ij,  p_ij = exp(s_ij − lse_i),  o_i = Σ_j p̃_ij v_j
//! where p̃ is p under dropout. Backward, with δ_i = do_i · o_i and dp_ij = do_i · v_j (under the
//! same mask):
//!   ds_ij = p_ij (dp_ij − δ_i),  dv_j = Σ_i p̃_ij do_i
//!   dq_i = Σ_j ds_ij k_j / √D,   dk_j = Σ_i ds_ij q_i / √D
//! (Dao 2023.) The reference works on blocks of query rows against the keys they may see: memory
//! grows with the sequence's length, not its square. The allowed keys of a row are one interval.

mod gpu;
mod hopper;

use std::ops::Range;

use rayon::prelude::*;

pub(super) use gpu::NAIVE_THREADS;
pub use gpu::supports;
pub use hopper::hopper_queries;

use super::rope::{Rotation, Turn};
use super::{Cost, Dropout, Into};
use crate::device::Memory;
use crate::device::cpu::product::{Mat, product};
use crate::device::cpu::{Cpu, Element, Float, largest, sum};

/// The shape of an attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// H
    pub heads: usize,
    /// D
    pub head_dim: usize,
    /// j ≤ i only.
    pub causal: bool,
    /// |i − j| ≤ w only.
    pub window: Option<usize>,
    pub dropout: Option<Dropout>,
}

impl Attention {
    /// The keys that query i of a sequence of `len` tokens may see.
    pub fn keys(&self, i: usize, len: usize) -> Range<usize> {
        let w = self.window.unwrap_or(len);
        let end = if self.causal { i + 1 } else { (i + w + 1).min(len) };
        i.saturating_sub(w)..end
    }

    /// Pairs (i, j) that attend, in a sequence of `len` tokens.
    pub fn pairs(&self, len: usize) -> usize {
        match self.window {
            None if self.causal => len * (len + 1) / 2,
            None => len * len,
            Some(_) => (0..len).map(|i| self.keys(i, len).len()).sum(),
        }
    }

    /// C
    fn width(&self) -> usize {
        self.heads * self.head_dim
    }
}

/// The packed projections and where each sequence begins.
pub struct Packed<'a, D: Memory> {
    /// [N, 3C]: q, k, v, each [H, D]
    pub qkv: &'a D::X,
    /// [S + 1]
    pub cu_seqlens: &'a D::Int,
    /// [S]: as [`longest_first`]
    pub order: &'a D::Int,
    /// The same as the host knows it, for whom it would have to wait.
    pub ends: &'a [i32],
}

impl<D: Memory> Packed<'_, D> {
    /// S
    pub fn sequences(&self) -> usize {
        self.ends.len() - 1
    }

    /// Of all sequences.
    pub fn tokens(&self) -> usize {
        self.ends[self.sequences()] as usize
    }
}

/// The numbers of the sequences that begin and end so [S + 1], longest first: the order in which
/// a GPU's blocks take them up, so that none is left with long work at the end.
pub fn longest_first(ends: &[i32]) -> Vec<i32> {
    let length = |&s: &i32| ends[s as usize + 1] - ends[s as usize];
    let mut order: Vec<i32> = (0..ends.len() as i32 - 1).collect();
    order.sort_by_key(|s| std::cmp::Reverse(length(s)));
    order
}

/// What the backward needs of the forward.
pub struct Attended<'a, D: Memory> {
    /// [N, C]
    pub o: &'a D::X,
    /// [N, H]
    pub lse: &'a D::Acc,
}

pub trait AttentionOps: Memory + Sized {
    /// o [N, C] and lse [N, H], natural logarithm.
    fn attention(&self, o: &mut Self::X, lse: &mut Self::Acc, packed: Packed<Self>, at: &Attention);

    /// dqkv [N, 3C] =, given d_o [N, C]. Where q and k were rotated, dq and dk are rotated back:
    /// gradients of what they were before.
    fn attention_backward(
        &self,
        dqkv: &mut Self::X,
        d_o: &Self::X,
        saved: Attended<Self>,
        packed: Packed<Self>,
        at: &Attention,
        rotation: Option<Rotation<Self>>,
    );
}

/// `pairs` as [`Attention::pairs`] summed over sequences. Two products forward; five backward, as
/// the scores are computed again. qkv, o and lse cross memory, and in the backward d_o and dqkv.
pub fn cost(
    at: &Attention,
    rows: usize,
    pairs: usize,
    backward: bool,
    size: usize,
    acc: usize,
) -> Cost {
    let products = if backward { 5.0 } else { 2.0 };
    let streams = if backward { 8 } else { 4 };
    Cost {
        flops: products * 2.0 * (pairs * at.width()) as f64,
        bytes: (rows * (streams * at.width() * size + at.heads * acc)) as f64,
    }
}

/// Query rows a block.
const BLOCK: usize = 64;

impl<E: Element> AttentionOps for Cpu<E> {
    fn attention(
        &self,
        o: &mut Vec<E>,
        lse: &mut Vec<E::Acc>,
        packed: Packed<Self>,
        at: &Attention,
    ) {
        let (o, lse) = (Shared::new(o), Shared::new(lse));
        for_heads(&packed, at, |head| {
            let d = at.head_dim;
            let mut out = vec![E::Acc::ZERO; head.len * d];
            let mut head_lse = vec![E::Acc::ZERO; head.len];
            let input = Head::load(&head, packed.qkv, at);
            forward(&mut out, &mut head_lse, &input, at);
            // SAFETY: (sequence, head) owns these columns of these rows; see `for_heads`.
            unsafe {
                o.put_rows(&out, head.first, at.width(), head.h * d, d, E::round);
                lse.put_rows(&head_lse, head.first, at.heads, head.h, 1, |x| x);
            }
        });
    }

    fn attention_backward(
        &self,
        dqkv: &mut Vec<E>,
        d_o: &Vec<E>,
        saved: Attended<Self>,
        packed: Packed<Self>,
        at: &Attention,
        rotation: Option<Rotation<Self>>,
    ) {
        let dqkv = Shared::new(dqkv);
        for_heads(&packed, at, |head| {
            let (d, c) = (at.head_dim, at.width());
            let input = Head::load(&head, packed.qkv, at);
            let d_o: Vec<E::Acc> = head.rows(d_o, c, head.h * d, d);
            let o: Vec<E::Acc> = head.rows(saved.o, c, head.h * d, d);
            let row_lse = |i: usize| saved.lse[(head.first + i) * at.heads + head.h];
            let lse: Vec<E::Acc> = (0..head.len).map(row_lse).collect();
            let mut grads = backward(&input, &d_o, &o, &lse, at);
            if let Some(rotation) = rotation {
                for grad in &mut grads[..2] {
                    for (n, grad) in (head.first..).zip(grad.chunks_exact_mut(d)) {
                        rotation.turn_head(grad, n, Turn::Backward);
                    }
                }
            }
            for (part, grad) in grads.iter().enumerate() {
                // SAFETY: (sequence, head) owns these columns of these rows; see `for_heads`.
                unsafe {
                    dqkv.put_rows(grad, head.first, 3 * c, part * c + head.h * d, d, E::round);
                }
            }
        });
    }
}

/// One head over one sequence.
struct Place {
    /// First row of the sequence in the batch.
    first: usize,
    /// Its tokens, T.
    len: usize,
    h: usize,
}

impl Place {
    /// [T, width] of `x` [N, stride], from column `col` on.
    fn rows<E: Element>(&self, x: &[E], stride: usize, col: usize, width: usize) -> Vec<E::Acc> {
        let mut rows = Vec::with_capacity(self.len * width);
        for n in self.first..self.first + self.len {
            rows.extend(x[n * stride + col..][..width].iter().map(|x| x.wide()));
        }
        rows
    }
}

/// Calls `f` once for each (sequence, head), in parallel; no two calls share both.
fn for_heads<E: Element>(packed: &Packed<Cpu<E>>, at: &Attention, f: impl Fn(Place) + Sync + Send) {
    let ends = &packed.cu_seqlens[..packed.sequences() + 1];
    assert!(ends.is_sorted(), "attention: cu_seqlens must not decrease");
    (0..packed.sequences() * at.heads).into_par_iter().for_each(|task| {
        let (s, h) = (task / at.heads, task % at.heads);
        let first = ends[s] as usize;
        let len = ends[s + 1] as usize - first;
        if len > 0 {
            f(Place { first, len, h });
        }
    });
}

/// The inputs of one head, contiguous, q scaled by 1/√D.
struct Head<A> {
    /// [T, D]
    q: Vec<A>,
    k: Vec<A>,
    v: Vec<A>,
    len: usize,
    /// Row of the dropout mask that query 0 takes; query i takes `mask_row + i · H`.
    mask_row: usize,
}

impl<A: Float> Head<A> {
    fn load<E: Element<Acc = A>>(place: &Place, qkv: &[E], at: &Attention) -> Self {
        let (d, c) = (at.head_dim, at.width());
        let part = |p: usize| place.rows(qkv, 3 * c, p * c + place.h * d, d);
        let scale = A::of(1.0 / (d as f64).sqrt());
        let mut q = part(0);
        for q in &mut q {
            *q *= scale;
        }
        let mask_row = place.first * at.heads + place.h;
        Head { q, k: part(1), v: part(2), len: place.len, mask_row }
    }

    /// Blocks of query rows with the keys that any of them may see.
    fn blocks(&self, at: Attention) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let len = self.len;
        (0..len).step_by(BLOCK).map(move |first| {
            let rows = first..(first + BLOCK).min(len);
            let keys = at.keys(first, len).start..at.keys(rows.end - 1, len).end;
            (rows, keys)
        })
    }

    /// [rows, D] of a [T, D] matrix.
    fn part<'a>(x: &'a [A], rows: &Range<usize>, d: usize) -> Mat<'a, A> {
        Mat::new(&x[rows.start * d..rows.end * d], rows.len(), d)
    }

    /// Multiplies row i of a tile, of keys `keys`, by its dropout factors.
    fn drop(&self, tile: &mut [A], i: usize, keys: Range<usize>, at: &Attention) {
        let Some(dropout) = &at.dropout else { return };
        let row = ((self.mask_row + i * at.heads) as u64) << 32;
        let mut factors = [A::ZERO; 4];
        let mut loaded = u64::MAX;
        for (j, p) in keys.zip(tile) {
            let block = row | (j as u64 / 4);
            if block != loaded {
                factors = dropout.factors(block);
                loaded = block;
            }
            *p *= factors[j % 4];
        }
    }
}

#[inline(always)]
fn forward<A: Float>(o: &mut [A], lse: &mut [A], head: &Head<A>, at: &Attention) {
    let d = at.head_dim;
    let mut tile = vec![A::ZERO; BLOCK.min(head.len) * head.len];
    for (rows, keys) in head.blocks(*at) {
        let width = keys.len();
        let p = &mut tile[..rows.len() * width];
        let k = Head::part(&head.k, &keys, d);
        product(p, Head::part(&head.q, &rows, d), k.t(), Into::Set);
        for (i, p) in rows.clone().zip(p.chunks_exact_mut(width)) {
            let allowed = at.keys(i, head.len);
            let local = allowed.start - keys.start..allowed.end - keys.start;
            p[..local.start].fill(A::ZERO);
            p[local.end..].fill(A::ZERO);
            lse[i] = softmax(&mut p[local.clone()]);
            head.drop(&mut p[local], i, allowed, at);
        }
        let o = &mut o[rows.start * d..rows.end * d];
        product(o, Mat::new(p, rows.len(), width), Head::part(&head.v, &keys, d), Into::Set);
    }
}

/// s ← softmax(s); returns log Σ exp s.
#[inline(always)]
fn softmax<A: Float>(s: &mut [A]) -> A {
    let top = largest(s.len(), |j| s[j]);
    for s in s.iter_mut() {
        *s = (*s - top).exp();
    }
    let total = sum(s.len(), |j| s[j]);
    let inverse = A::ONE / total;
    for s in s.iter_mut() {
        *s *= inverse;
    }
    top + total.ln()
}

/// [dq, dk, dv], each [T, D].
#[inline(always)]
fn backward<A: Float>(
    head: &Head<A>,
    d_o: &[A],
    o: &[A],
    lse: &[A],
    at: &Attention,
) -> [Vec<A>; 3] {
    let d = at.head_dim;
    let zeros = || vec![A::ZERO; head.len * d];
    let (mut dq, mut dk, mut dv) = (zeros(), zeros(), zeros());
    let mut tiles = vec![A::ZERO; 2 * BLOCK.min(head.len) * head.len];
    for (rows, keys) in head.blocks(*at) {
        let (n, width) = (rows.len(), keys.len());
        let (p, ds) = tiles.split_at_mut(n * width);
        let ds = &mut ds[..n * width];
        let (k, v) = (Head::part(&head.k, &keys, d), Head::part(&head.v, &keys, d));
        let (q, d_o_rows) = (Head::part(&head.q, &rows, d), Head::part(d_o, &rows, d));
        product(p, q, k.t(), Into::Set);
        product(ds, d_o_rows, v.t(), Into::Set);
        let tile_rows = p.chunks_exact_mut(width).zip(ds.chunks_exact_mut(width));
        for (i, (p, ds)) in rows.clone().zip(tile_rows) {
            let allowed = at.keys(i, head.len);
            let local = allowed.start - keys.start..allowed.end - keys.start;
            for row in [&mut *p, &mut *ds] {
                row[..local.start].fill(A::ZERO);
                row[local.end..].fill(A::ZERO);
            }
            let (p, ds) = (&mut p[local.clone()], &mut ds[local]);
            let delta = sum(d, |c| d_o[i * d + c] * o[i * d + c]);
            head.drop(ds, i, allowed.clone(), at);
            for (p, ds) in p.iter_mut().zip(ds.iter_mut()) {
                *p = (*p - lse[i]).exp();
                *ds = *p * (*ds - delta);
            }
            head.drop(p, i, allowed, at);
        }
        let (p, ds) = (Mat::new(p, n, width), Mat::new(ds, n, width));
        let keys = keys.start * d..keys.end * d;
        product(&mut dv[keys.clone()], p.t(), d_o_rows, Into::Add);
        product(&mut dk[keys], ds.t(), q, Into::Add);
        product(&mut dq[rows.start * d..rows.end * d], ds, k, Into::Set);
    }
    // q was scaled on loading, so dk already has its factor; dq gets it here.
    let scale = A::of(1.0 / (d as f64).sqrt());
    for dq in &mut dq {
        *dq *= scale;
    }
    [dq, dk, dv]
}

/// A slice whose columns are shared out among tasks.
struct Shared<T> {
    data: *mut T,
    len: usize,
}

// SAFETY: the pointer is only written through `put_rows`, whose callers own disjoint elements.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; the slice behind it outlives the parallel loop that borrows it.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T: Copy> Shared<T> {
    fn new(data: &mut [T]) -> Self {
        Shared { data: data.as_mut_ptr(), len: data.len() }
    }

    /// Stores `rows` [R, width] at rows `first` and on, columns `col` and on, of [.., stride].
    ///
    /// # Safety
    /// No other task may access these elements, and the slice must still be borrowed.
    unsafe fn put_rows<A: Copy>(
        &self,
        rows: &[A],
        first: usize,
        stride: usize,
        col: usize,
        width: usize,
        store: impl Fn(A) -> T,
    ) {
        for (n, row) in (first..).zip(rows.chunks_exact(width)) {
            let start = n * stride + col;
            assert!(start + width <= self.len, "attention: rows beyond the tensor");
            for (i, &value) in row.iter().enumerate() {
                // SAFETY: in bounds by the assertion, and ours alone by the caller's promise.
                unsafe { *self.data.add(start + i) = store(value) };
            }
        }
    }
}
