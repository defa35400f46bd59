//! Products with a weight matrix: y = x Wᵀ + b, W [n_out, n_in] as torch's `Linear` stores it.
//!
//!   dx = dy W,  dW += dyᵀ x,  db += Σ dy over rows
//! What a fast kernel does in its epilogue is part of the op: the bias, the activation or gate with
//! its saved input, their gradients, and the rotation of q and k.

mod cuts;
mod gate;
mod gpu;
mod hopper;
mod ladder;
mod library;
mod rope;

use rayon::prelude::*;

use super::activation::{Activation, gate_rows, gate_rows_backward};
use super::rope::{Rotation, Turn};
use super::{Cost, Into, Span};
use crate::device::Memory;
use crate::device::cpu::product::{Mat, product};
use crate::device::cpu::{Cpu, Element, Float, for_row_blocks, rows_per_task};
pub(super) use gpu::Rows;
pub use gpu::supports;
pub use ladder::Rung;

/// A dense layer and where its weights lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Linear {
    /// W [n_out, n_in]
    pub weight: Span,
    /// b [n_out]
    pub bias: Option<Span>,
    pub n_in: usize,
    pub n_out: usize,
}

pub trait LinearOps: Memory + Sized {
    /// y [N, n_out] = x [N, n_in] Wᵀ + b
    fn linear(&self, y: &mut Self::X, x: &Self::X, params: &Self::X, at: &Linear, rows: usize);

    /// pre [N, n_out] = x Wᵀ + b, y [N, n_out] = act(pre)
    #[allow(clippy::too_many_arguments)]
    fn linear_act(
        &self,
        y: &mut Self::X,
        pre: &mut Self::X,
        x: &Self::X,
        params: &Self::X,
        at: &Linear,
        activation: Activation,
        rows: usize,
    );

    /// pre [N, 2F] = x Wᵀ + b, y [N, F] = act(a) ∘ g with [a, g] = pre; W [2F, n_in]
    #[allow(clippy::too_many_arguments)]
    fn linear_gate(
        &self,
        y: &mut Self::X,
        pre: &mut Self::X,
        x: &Self::X,
        params: &Self::X,
        at: &Linear,
        activation: Activation,
        rows: usize,
    );

    /// qkv [N, 3C] = x Wᵀ + b, of which q and k are then rotated; W [3C, n_in]
    fn linear_rope(
        &self,
        qkv: &mut Self::X,
        x: &Self::X,
        params: &Self::X,
        at: &Linear,
        rotation: Rotation<Self>,
        rows: usize,
    );

    /// dx [N, n_in] = or += dy [N, n_out] W
    fn linear_dx(
        &self,
        dx: &mut Self::X,
        dy: &Self::X,
        params: &Self::X,
        at: &Linear,
        rows: usize,
        into: Into,
    );

    /// dpre [N, n_in] = (dy [N, n_out] W) ∘ act'(pre [N, n_in]), where act(pre) was the input
    #[allow(clippy::too_many_arguments)]
    fn linear_dx_act(
        &self,
        dpre: &mut Self::X,
        dy: &Self::X,
        pre: &Self::X,
        params: &Self::X,
        at: &Linear,
        activation: Activation,
        rows: usize,
    );

    /// dpre [N, 2F] = [d ∘ g ∘ act'(a), d ∘ act(a)] with d [N, F] = dy [N, n_out] W and
    /// [a, g] = pre [N, 2F], where act(a) ∘ g was the input; W [n_out, F]
    #[allow(clippy::too_many_arguments)]
    fn linear_dx_gate(
        &self,
        dpre: &mut Self::X,
        dy: &Self::X,
        pre: &Self::X,
        params: &Self::X,
        at: &Linear,
        activation: Activation,
        rows: usize,
    );

    /// dW += dyᵀ x, db += Σ dy over rows, in `grads`
    fn linear_dw(&self, grads: &mut Self::Acc, dy: &Self::X, x: &Self::X, at: &Linear, rows: usize);

    /// dpre [N, n] = dy ∘ act'(pre): the gradient through `linear_act`'s own activation.
    fn act_backward(
        &self,
        dpre: &mut Self::X,
        dy: &Self::X,
        pre: &Self::X,
        activation: Activation,
        len: usize,
    );
}

/// One product with the weight, either way: [rows, n_in], [rows, n_out] and W cross memory, and
/// `extra` more columns of [rows]: a saved pre-activation, both halves of a gate's input and of its
/// gradient, or what is added to.
pub fn cost(at: &Linear, rows: usize, extra: usize, size: usize) -> Cost {
    let (i, o) = (at.n_in, at.n_out);
    Cost {
        flops: 2.0 * (rows * i) as f64 * o as f64,
        bytes: ((rows * (i + o + extra) + i * o) * size) as f64,
    }
}

/// The product of the weight's gradient, which is read and written as `acc` bytes an element.
pub fn cost_dw(at: &Linear, rows: usize, size: usize, acc: usize) -> Cost {
    let (i, o) = (at.n_in, at.n_out);
    Cost {
        flops: 2.0 * (rows * i) as f64 * o as f64,
        bytes: (rows * (i + o) * size + 2 * i * o * acc) as f64,
    }
}

impl<E: Element> LinearOps for Cpu<E> {
    fn linear(&self, y: &mut Vec<E>, x: &Vec<E>, params: &Vec<E>, at: &Linear, rows: usize) {
        let y = &mut y[..rows * at.n_out];
        linear_rows(y, &x[..rows * at.n_in], params, at, |_, _| {});
    }

    fn linear_act(
        &self,
        y: &mut Vec<E>,
        pre: &mut Vec<E>,
        x: &Vec<E>,
        params: &Vec<E>,
        at: &Linear,
        activation: Activation,
        rows: usize,
    ) {
        let (n, len) = (at.n_out, rows * at.n_out);
        linear_rows(&mut pre[..len], &x[..rows * at.n_in], params, at, |_, _| {});
        for_row_blocks(&mut y[..len], n, |first, y| {
            let mut act = vec![E::Acc::ZERO; n];
            for (y, pre) in y.chunks_exact_mut(n).zip(pre[first * n..].chunks_exact(n)) {
                activation.map(&mut act, pre);
                for (y, &act) in y.iter_mut().zip(&act) {
                    *y = E::round(act);
                }
            }
        });
    }

    fn linear_gate(
        &self,
        y: &mut Vec<E>,
        pre: &mut Vec<E>,
        x: &Vec<E>,
        params: &Vec<E>,
        at: &Linear,
        activation: Activation,
        rows: usize,
    ) {
        let (n, inner) = (at.n_out, at.n_out / 2);
        linear_rows(&mut pre[..rows * n], &x[..rows * at.n_in], params, at, |_, _| {});
        for_row_blocks(&mut y[..rows * inner], inner, |first, y| {
            gate_rows(y, &pre[first * n..], activation, inner);
        });
    }

    fn linear_rope(
        &self,
        qkv: &mut Vec<E>,
        x: &Vec<E>,
        params: &Vec<E>,
        at: &Linear,
        rotation: Rotation<Self>,
        rows: usize,
    ) {
        let qkv = &mut qkv[..rows * at.n_out];
        linear_rows(qkv, &x[..rows * at.n_in], params, at, |first, qkv| {
            rotation.turn_rows(qkv, first, at.n_out / 3, Turn::Forward);
        });
    }

    fn linear_dx(
        &self,
        dx: &mut Vec<E>,
        dy: &Vec<E>,
        params: &Vec<E>,
        at: &Linear,
        rows: usize,
        into: Into,
    ) {
        let dx = &mut dx[..rows * at.n_in];
        linear_dx_rows(dx, &dy[..rows * at.n_out], params, at, into, |_, _| {});
    }

    fn linear_dx_act(
        &self,
        dpre: &mut Vec<E>,
        dy: &Vec<E>,
        pre: &Vec<E>,
        params: &Vec<E>,
        at: &Linear,
        activation: Activation,
        rows: usize,
    ) {
        let n = at.n_in;
        let dpre = &mut dpre[..rows * n];
        linear_dx_rows(dpre, &dy[..rows * at.n_out], params, at, Into::Set, |first, dpre| {
            let mut slope = vec![E::Acc::ZERO; n];
            for (d, pre) in dpre.chunks_exact_mut(n).zip(pre[first * n..].chunks_exact(n)) {
                activation.map_derivative(&mut slope, pre);
                for (d, &slope) in d.iter_mut().zip(&slope) {
                    *d *= slope;
                }
            }
        });
    }

    fn linear_dx_gate(
        &self,
        dpre: &mut Vec<E>,
        dy: &Vec<E>,
        pre: &Vec<E>,
        params: &Vec<E>,
        at: &Linear,
        activation: Activation,
        rows: usize,
    ) {
        let (inner, task) = (at.n_in, product_rows(rows));
        let w = Mat::new(&params[at.weight.range()], at.n_out, inner);
        let (dpre, pre) = (&mut dpre[..rows * 2 * inner], &pre[..rows * 2 * inner]);
        dpre.par_chunks_mut(task * 2 * inner)
            .zip(dy[..rows * at.n_out].par_chunks(task * at.n_out))
            .zip(pre.par_chunks(task * 2 * inner))
            .for_each(|((dpre, dy), pre)| {
                let rows = dy.len() / at.n_out;
                let mut d = vec![E::Acc::ZERO; rows * inner];
                product(&mut d, Mat::new(dy, rows, at.n_out), w, Into::Set);
                gate_rows_backward(dpre, &d, pre, activation, inner);
            });
    }

    fn linear_dw(
        &self,
        grads: &mut Vec<E::Acc>,
        dy: &Vec<E>,
        x: &Vec<E>,
        at: &Linear,
        rows: usize,
    ) {
        linear_dw_rows(grads, &dy[..rows * at.n_out], &x[..rows * at.n_in], at);
    }

    fn act_backward(
        &self,
        dpre: &mut Vec<E>,
        dy: &Vec<E>,
        pre: &Vec<E>,
        activation: Activation,
        len: usize,
    ) {
        let task = rows_per_task(len).max(4096);
        dpre[..len]
            .par_chunks_mut(task)
            .zip(dy[..len].par_chunks(task))
            .zip(pre[..len].par_chunks(task))
            .for_each(|((dpre, dy), pre)| {
                let mut slope = vec![E::Acc::ZERO; pre.len()];
                activation.map_derivative(&mut slope, pre);
                for ((d, dy), &slope) in dpre.iter_mut().zip(dy).zip(&slope) {
                    *d = E::round(dy.wide() * slope);
                }
            });
    }
}

/// Rows of a product that one task takes. Each task packs the whole weight anew, so they are large.
fn product_rows(rows: usize) -> usize {
    rows.div_ceil(4).clamp(16, 1024)
}

/// y = x Wᵀ + b over all rows of the slices, in parallel; `finish(first row, rows of y)` may change
/// them before they are rounded.
pub(super) fn linear_rows<E: Element>(
    y: &mut [E],
    x: &[E],
    params: &[E],
    at: &Linear,
    finish: impl Fn(usize, &mut [E::Acc]) + Sync + Send,
) {
    let rows = x.len() / at.n_in;
    let task = product_rows(rows);
    let w = Mat::new(&params[at.weight.range()], at.n_out, at.n_in).t();
    let tasks = y.par_chunks_mut(task * at.n_out).zip(x.par_chunks(task * at.n_in)).enumerate();
    tasks.for_each(|(t, (y, x))| {
        E::with_wide(y, |y| {
            if rows <= FEW {
                product_by_columns(y, x, &params[at.weight.range()], at.n_in);
            } else {
                product(y, Mat::new(x, x.len() / at.n_in, at.n_in), w, Into::Set);
            }
            if let Some(bias) = at.bias {
                for y in y.chunks_exact_mut(at.n_out) {
                    for (y, b) in y.iter_mut().zip(&params[bias.range()]) {
                        *y += b.wide();
                    }
                }
            }
            finish(t * task, y);
        });
    });
}

/// Rows that are one task's, so that columns are shared out instead: as when a model generates.
const FEW: usize = 16;

/// Columns of a task then: what it packs of W stays in L2.
const COLUMNS: usize = 128;

/// y [m, n] = x [m, k] Wᵀ for W [n, k], a task some of the columns.
fn product_by_columns<E: Element>(y: &mut [E::Acc], x: &[E], w: &[E], k: usize) {
    let (m, n) = (x.len() / k, w.len() / k);
    let part = |w: &[E]| {
        let columns = w.len() / k;
        let mut part = vec![E::Acc::ZERO; m * columns];
        product(&mut part, Mat::new(x, m, k), Mat::new(w, columns, k).t(), Into::Set);
        part
    };
    let parts: Vec<Vec<E::Acc>> = w.par_chunks(COLUMNS * k).map(part).collect();
    for (j, part) in (0..n).step_by(COLUMNS).zip(parts) {
        let columns = part.len() / m;
        for (y, part) in y.chunks_exact_mut(n).zip(part.chunks_exact(columns)) {
            y[j..j + columns].copy_from_slice(part);
        }
    }
}

/// dx = or += dy W over all rows of the slices, in parallel; `finish(first row, rows of dx)` may
/// change them before they are rounded.
pub(super) fn linear_dx_rows<E: Element>(
    dx: &mut [E],
    dy: &[E],
    params: &[E],
    at: &Linear,
    into: Into,
    finish: impl Fn(usize, &mut [E::Acc]) + Sync + Send,
) {
    let task = product_rows(dy.len() / at.n_out);
    let w = Mat::new(&params[at.weight.range()], at.n_out, at.n_in);
    let tasks = dx.par_chunks_mut(task * at.n_in).zip(dy.par_chunks(task * at.n_out)).enumerate();
    tasks.for_each(|(t, (dx, dy))| {
        E::with_wide(dx, |dx| {
            product(dx, Mat::new(dy, dy.len() / at.n_out, at.n_out), w, into);
            finish(t * task, dx);
        });
    });
}

/// dW += dyᵀ x, db += Σ dy over all rows of the slices. Tasks share out the rows of W, so that
/// each sum over tokens belongs to one task; they are large, because each packs all of x anew.
pub(super) fn linear_dw_rows<E: Element>(grads: &mut [E::Acc], dy: &[E], x: &[E], at: &Linear) {
    let rows = x.len() / at.n_in;
    let tasks = at.n_out.div_ceil(256).next_multiple_of(2);
    let task = at.n_out.div_ceil(tasks);
    grads[at.weight.range()].par_chunks_mut(task * at.n_in).enumerate().for_each(|(t, dw)| {
        let m = dw.len() / at.n_in;
        let dy = Mat::strided(&dy[t * task..], rows, m, at.n_out).t();
        product(dw, dy, Mat::new(x, rows, at.n_in), Into::Add);
    });
    if let Some(bias) = at.bias {
        let columns = |t: usize, db: &mut [E::Acc]| {
            for dy in dy.chunks_exact(at.n_out) {
                for (db, dy) in db.iter_mut().zip(&dy[t * task..]) {
                    *db += dy.wide();
                }
            }
        };
        grads[bias.range()].par_chunks_mut(task).enumerate().for_each(|(t, db)| columns(t, db));
    }
}
