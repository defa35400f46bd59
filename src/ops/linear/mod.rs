//! Products with a weight matrix: y = x Wᵀ + b, W [n_out, n_in] as torch's `Linear` stores it.
//!
//!   dx = dy W,  dW += dyᵀ x,  db += Σ dy over rows
//! What a fast kernel does in its epilogue is part of the op: the bias, the activation with its
//! saved input, and the activation's gradient.

mod gpu;

use rayon::prelude::*;

use super::activation::Activation;
use super::{Cost, Into, Span};
use crate::device::Memory;
use crate::device::cpu::product::{Mat, product};
use crate::device::cpu::{Cpu, Element, Float, rows_per_task};
pub(super) use gpu::Rows;
pub use gpu::supports;

/// A dense layer and where its weights lie.
#[derive(Debug, Clone, Copy)]
pub struct Linear {
    /// W [n_out, n_in]
    pub weight: Span,
    /// b [n_out]
    pub bias: Option<Span>,
    pub n_in: usize,
    pub n_out: usize,
}

pub trait LinearOps: Memory {
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
/// `extra` more columns of [rows]: a saved pre-activation, or what is added to.
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
        linear_rows(y, &x[..rows * at.n_in], params, at);
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
        let weights = Wide::of(params, at);
        let task = product_rows(rows);
        y[..rows * at.n_out]
            .par_chunks_mut(task * at.n_out)
            .zip(pre[..rows * at.n_out].par_chunks_mut(task * at.n_out))
            .zip(x[..rows * at.n_in].par_chunks(task * at.n_in))
            .for_each(|((y, pre), x)| {
                weights.forward(pre, x, at);
                let mut act = vec![E::Acc::ZERO; at.n_out];
                for (y, pre) in y.chunks_exact_mut(at.n_out).zip(pre.chunks_exact(at.n_out)) {
                    activation.map(&mut act, pre);
                    for (y, &act) in y.iter_mut().zip(&act) {
                        *y = E::round(act);
                    }
                }
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
        linear_dx_rows(dx, &dy[..rows * at.n_out], params, at, into);
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
        let weights = Wide::of(params, at);
        let task = product_rows(rows);
        dpre[..rows * at.n_in]
            .par_chunks_mut(task * at.n_in)
            .zip(dy[..rows * at.n_out].par_chunks(task * at.n_out))
            .zip(pre[..rows * at.n_in].par_chunks(task * at.n_in))
            .for_each(|((dpre, dy), pre)| {
                E::with_wide(dpre, |dpre| {
                    weights.backward(dpre, dy, at, Into::Set);
                    let mut slope = vec![E::Acc::ZERO; at.n_in];
                    for (d, pre) in dpre.chunks_exact_mut(at.n_in).zip(pre.chunks_exact(at.n_in)) {
                        activation.map_derivative(&mut slope, pre);
                        for (d, &slope) in d.iter_mut().zip(&slope) {
                            *d *= slope;
                        }
                    }
                });
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

/// A layer's weights in the type that products compute in.
struct Wide<'a, A: Clone> {
    weight: std::borrow::Cow<'a, [A]>,
    bias: Option<std::borrow::Cow<'a, [A]>>,
}

impl<'a, A: Float> Wide<'a, A> {
    fn of<E: Element<Acc = A>>(params: &'a [E], at: &Linear) -> Self {
        Wide {
            weight: E::widen(&params[at.weight.range()]),
            bias: at.bias.map(|b| E::widen(&params[b.range()])),
        }
    }

    /// y = x Wᵀ + b on one task's rows.
    fn forward<E: Element<Acc = A>>(&self, y: &mut [E], x: &[E], at: &Linear) {
        let rows = x.len() / at.n_in;
        let x = E::widen(x);
        let w = Mat::new(&self.weight, at.n_out, at.n_in).t();
        E::with_wide(y, |y| {
            product(y, Mat::new(&x, rows, at.n_in), w, Into::Set);
            if let Some(bias) = &self.bias {
                for y in y.chunks_exact_mut(at.n_out) {
                    for (y, &b) in y.iter_mut().zip(bias.iter()) {
                        *y += b;
                    }
                }
            }
        });
    }

    /// dx = or += dy W on one task's rows.
    fn backward<E: Element<Acc = A>>(&self, dx: &mut [A], dy: &[E], at: &Linear, into: Into) {
        let rows = dy.len() / at.n_out;
        let dy = E::widen(dy);
        let w = Mat::new(&self.weight, at.n_out, at.n_in);
        product(dx, Mat::new(&dy, rows, at.n_out), w, into);
    }
}

/// y = x Wᵀ + b over all rows of the slices, in parallel.
pub(super) fn linear_rows<E: Element>(y: &mut [E], x: &[E], params: &[E], at: &Linear) {
    let weights = Wide::of(params, at);
    let task = product_rows(x.len() / at.n_in);
    y.par_chunks_mut(task * at.n_out)
        .zip(x.par_chunks(task * at.n_in))
        .for_each(|(y, x)| weights.forward(y, x, at));
}

/// dx = or += dy W over all rows of the slices, in parallel.
pub(super) fn linear_dx_rows<E: Element>(
    dx: &mut [E],
    dy: &[E],
    params: &[E],
    at: &Linear,
    into: Into,
) {
    let weights = Wide::of(params, at);
    let task = product_rows(dy.len() / at.n_out);
    dx.par_chunks_mut(task * at.n_in)
        .zip(dy.par_chunks(task * at.n_out))
        .for_each(|(dx, dy)| E::with_wide(dx, |dx| weights.backward(dx, dy, at, into)));
}

/// dW += dyᵀ x, db += Σ dy over all rows of the slices. Tasks share out the rows of W, so that
/// each sum over tokens belongs to one task; they are large, because each packs all of x anew.
pub(super) fn linear_dw_rows<E: Element>(grads: &mut [E::Acc], dy: &[E], x: &[E], at: &Linear) {
    let rows = x.len() / at.n_in;
    let (dy, x) = (E::widen(dy), E::widen(x));
    let tasks = at.n_out.div_ceil(256).next_multiple_of(2);
    let task = at.n_out.div_ceil(tasks);
    grads[at.weight.range()].par_chunks_mut(task * at.n_in).enumerate().for_each(|(t, dw)| {
        let m = dw.len() / at.n_in;
        let dy = Mat::strided(&dy[t * task..], rows, m, at.n_out).t();
        product(dw, dy, Mat::new(&x, rows, at.n_in), Into::Add);
    });
    if let Some(bias) = at.bias {
        let columns = |t: usize, db: &mut [E::Acc]| {
            for dy in dy.chunks_exact(at.n_out) {
                for (db, &dy) in db.iter_mut().zip(&dy[t * task..]) {
                    *db += dy;
                }
            }
        };
        grads[bias.range()].par_chunks_mut(task).enumerate().for_each(|(t, db)| columns(t, db));
    }
}
