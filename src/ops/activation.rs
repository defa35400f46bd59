//! Activations, and the gate of a gated MLP.
//!
//!   gelu(x) = x Φ(x) = x/2 (1 + erf(x/√2));          gelu'(x) = Φ(x) + x φ(x)
//!   gelu_tanh(x) = x/2 (1 + tanh(u)), u = √(2/π) (x + 0.044715 x³)
//!   silu(x) = x σ(x);                                silu'(x) = σ(x) (1 + x (1 − σ(x)))
//! (Hendrycks, Gimpel 2016.) The gate of GeGLU and SwiGLU (Shazeer 2020) takes [a; g] = W x and
//! returns act(a) ∘ g. What follows a product is fused to it: see `linear/mod.rs`.

use serde::{Deserialize, Serialize};

use super::Cost;
use crate::device::cpu::{Element, Float};
use crate::device::gpu::driver::Address;
use crate::device::gpu::launch::Shape;
use crate::device::gpu::{Gpu, limits};

/// An activation; numbered as in `kernels/activation.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// The exact form, by erf.
    Gelu,
    /// The approximation by tanh (GPT-2's `gelu_new`).
    GeluTanh,
    Silu,
    Tanh,
}

impl Activation {
    /// y = act(x), element by element.
    pub fn map<E: Element>(self, y: &mut [E::Acc], x: &[E]) {
        match self {
            Activation::Gelu => each(y, x, gelu),
            Activation::GeluTanh => each(y, x, gelu_tanh),
            Activation::Silu => each(y, x, silu),
            Activation::Tanh => each(y, x, Float::tanh),
        }
    }

    /// y = act'(x), element by element.
    pub fn map_derivative<E: Element>(self, y: &mut [E::Acc], x: &[E]) {
        match self {
            Activation::Gelu => each(y, x, gelu_derivative),
            Activation::GeluTanh => each(y, x, gelu_tanh_derivative),
            Activation::Silu => each(y, x, silu_derivative),
            Activation::Tanh => each(y, x, tanh_derivative),
        }
    }
}

/// One loop a function, so that each vectorises.
fn each<E: Element>(y: &mut [E::Acc], x: &[E], f: impl Fn(E::Acc) -> E::Acc) {
    assert_eq!(y.len(), x.len(), "activation: lengths differ");
    for (y, x) in y.iter_mut().zip(x) {
        *y = f(x.wide());
    }
}

const SQRT_HALF: f64 = std::f64::consts::FRAC_1_SQRT_2;
const INV_SQRT_2PI: f64 = 0.398_942_280_401_432_7;
const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
const CUBIC: f64 = 0.044715;

#[inline(always)]
fn gelu<A: Float>(x: A) -> A {
    A::of(0.5) * x * (A::ONE + (x * A::of(SQRT_HALF)).erf())
}

#[inline(always)]
fn gelu_derivative<A: Float>(x: A) -> A {
    let half = A::of(0.5);
    let cdf = half * (A::ONE + (x * A::of(SQRT_HALF)).erf());
    cdf + x * A::of(INV_SQRT_2PI) * (-(half * x * x)).exp()
}

#[inline(always)]
fn gelu_tanh<A: Float>(x: A) -> A {
    A::of(0.5) * x * (A::ONE + tanh_argument(x).tanh())
}

#[inline(always)]
fn gelu_tanh_derivative<A: Float>(x: A) -> A {
    let half = A::of(0.5);
    let t = tanh_argument(x).tanh();
    let slope = A::of(SQRT_2_OVER_PI) * (A::ONE + A::of(3.0 * CUBIC) * x * x);
    half * (A::ONE + t) + half * x * (A::ONE - t * t) * slope
}

#[inline(always)]
fn tanh_argument<A: Float>(x: A) -> A {
    A::of(SQRT_2_OVER_PI) * (x + A::of(CUBIC) * x * x * x)
}

#[inline(always)]
fn silu<A: Float>(x: A) -> A {
    x * sigmoid(x)
}

#[inline(always)]
fn silu_derivative<A: Float>(x: A) -> A {
    let s = sigmoid(x);
    s * (A::ONE + x * (A::ONE - s))
}

#[inline(always)]
fn sigmoid<A: Float>(x: A) -> A {
    A::ONE / (A::ONE + (-x).exp())
}

#[inline(always)]
fn tanh_derivative<A: Float>(x: A) -> A {
    let t = x.tanh();
    A::ONE - t * t
}

/// The backward of an activation: two tensors of `len` elements are read and one is written.
pub fn cost(len: usize, size: usize) -> Cost {
    Cost { flops: 10.0 * len as f64, bytes: (3 * len * size) as f64 }
}

/// Rows of a gate: y [n, F] = act(a) ∘ g, with [a, g] a row of pre [n, 2F].
pub(super) fn gate_rows<E: Element>(y: &mut [E], pre: &[E], activation: Activation, inner: usize) {
    let mut act = vec![E::Acc::ZERO; inner];
    for (y, pre) in y.chunks_exact_mut(inner).zip(pre.chunks_exact(2 * inner)) {
        let (a, g) = pre.split_at(inner);
        activation.map(&mut act, a);
        for ((y, act), g) in y.iter_mut().zip(&act).zip(g) {
            *y = E::round(*act * g.wide());
        }
    }
}

/// Rows of its gradient: dpre [n, 2F] = [d ∘ g ∘ act'(a), d ∘ act(a)], with d [n, F] that of y.
pub(super) fn gate_rows_backward<E: Element>(
    dpre: &mut [E],
    d: &[E::Acc],
    pre: &[E],
    activation: Activation,
    inner: usize,
) {
    let (mut act, mut slope) = (vec![E::Acc::ZERO; inner], vec![E::Acc::ZERO; inner]);
    let rows = dpre.chunks_exact_mut(2 * inner).zip(d.chunks_exact(inner));
    for ((dpre, d), pre) in rows.zip(pre.chunks_exact(2 * inner)) {
        let (a, g) = pre.split_at(inner);
        let (da, dg) = dpre.split_at_mut(inner);
        activation.map(&mut act, a);
        activation.map_derivative(&mut slope, a);
        for ((da, slope), (g, &d)) in da.iter_mut().zip(&slope).zip(g.iter().zip(d)) {
            *da = E::round(d * g.wide() * *slope);
        }
        for ((dg, act), &d) in dg.iter_mut().zip(&act).zip(d) {
            *dg = E::round(d * *act);
        }
    }
}

/// Whether the kernels take a gated MLP of this inner width.
pub fn supports(inner: usize) -> Result<(), String> {
    limits::multiple("the inner width of a gated MLP", inner, 8, usize::MAX)
}

/// Kernels by the number of their activation.
const ACT_BACKWARD: [&str; 4] =
    ["act_backward_gelu", "act_backward_gelu_tanh", "act_backward_silu", "act_backward_tanh"];

/// dpre [len] = dy ∘ act'(pre), for [`super::linear::LinearOps::act_backward`].
pub(crate) fn launch_act_backward(
    gpu: &Gpu,
    [dpre, dy, pre]: [Address; 3],
    activation: Activation,
    len: usize,
) {
    let number = activation as i32;
    let args = [dpre.into(), dy.into(), pre.into(), (len as u64).into(), number.into()];
    if gpu.naive() {
        return gpu.launch("act_backward_naive", Shape::each(len, 256), &args);
    }
    let kernel = ACT_BACKWARD[activation as usize];
    gpu.launch(kernel, Shape::each(len.div_ceil(8), 256), &args[..4]);
}
