//! Optimizers, one pass over the flat arenas: master weights, moments and the stored copy.
//!
//! With g clipped to norm c (g ← g · min(1, c / (‖g‖ + 1e-6))) and t the number of steps applied:
//!   AdamW    w ← w − η λ w;  m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²
//!            w ← w − η (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
//!   SGD      g ← g + λ w;  m ← μ m + g;  w ← w − η (nesterov: g + μ m, else m)
//!   RMSprop  g ← g + λ w;  v ← α v + (1 − α) g²;  m ← μ m + g / (√v + ε);  w ← w − η m
//! (Loshchilov, Hutter 2019; the others as torch.optim has them.) A step that was judged not
//! finite changes nothing.

use bytemuck::{Pod, Zeroable, cast_slice};
use half::bf16;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Cost, Span};
use crate::device::cpu::{Cpu, Element, Float};
use crate::device::gpu::launch::{Arg, Shape};
use crate::device::gpu::{Gpu, Tensor};
use crate::device::{Buffer, Memory};
use crate::rng::{Philox, Stream};

/// An update rule and its constants.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "rule", deny_unknown_fields)]
pub enum Rule {
    AdamW {
        #[serde(default = "defaults::beta1")]
        beta1: f64,
        #[serde(default = "defaults::beta2")]
        beta2: f64,
        #[serde(default = "defaults::eps")]
        eps: f64,
    },
    Sgd {
        #[serde(default = "defaults::momentum")]
        momentum: f64,
        #[serde(default)]
        nesterov: bool,
    },
    RmsProp {
        #[serde(default = "defaults::alpha")]
        alpha: f64,
        #[serde(default = "defaults::eps")]
        eps: f64,
        #[serde(default)]
        momentum: f64,
    },
}

/// Constants that a recipe may leave out.
mod defaults {
    pub fn beta1() -> f64 {
        0.9
    }

    pub fn beta2() -> f64 {
        0.98
    }

    pub fn eps() -> f64 {
        1e-8
    }

    pub fn momentum() -> f64 {
        0.9
    }

    pub fn alpha() -> f64 {
        0.99
    }
}

impl Default for Rule {
    fn default() -> Self {
        let (beta1, beta2) = (defaults::beta1(), defaults::beta2());
        Rule::AdamW { beta1, beta2, eps: defaults::eps() }
    }
}

/// What one update needs besides the arenas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    pub rule: Rule,
    /// η
    pub lr: f64,
    /// c; infinite for no clipping.
    pub clip: f64,
    /// Round the stored copy up or down by chance, drawn from this seed, instead of to nearest.
    pub stochastic: Option<u64>,
}

/// Neighbouring parameters with the same treatment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    pub span: Span,
    /// Factor of η.
    pub lr_scale: f64,
    /// λ
    pub decay: f64,
}

/// The arenas that an update writes, all of one length.
pub struct Arenas<'a, D: Memory> {
    pub params: &'a mut D::X,
    pub master: &'a mut D::Acc,
    /// First moment, or momentum.
    pub m: &'a mut D::Acc,
    /// Second moment.
    pub v: &'a mut D::Acc,
}

pub trait OptimizerOps: Memory + Sized {
    /// One step of `update` on all `groups`, unless `control` (see `reduce.rs`) says not finite.
    fn update(
        &self,
        arenas: Arenas<Self>,
        grads: &Self::Acc,
        control: &Self::Acc,
        update: &Update,
        groups: &[Group],
    );

    /// params = master, rounded to the stored type.
    fn store(&self, params: &mut Self::X, master: &Self::Acc);
}

/// Gradient, master and the rule's moments read, all but the gradient and the stored copy written.
pub fn cost(rule: &Rule, len: usize, size: usize, acc: usize) -> Cost {
    let moments = if matches!(rule, Rule::Sgd { .. }) { 1 } else { 2 };
    Cost { flops: 14.0 * len as f64, bytes: (len * ((3 + 2 * moments) * acc + size)) as f64 }
}

impl<E: Element> OptimizerOps for Cpu<E> {
    fn update(
        &self,
        arenas: Arenas<Self>,
        grads: &Vec<E::Acc>,
        control: &Vec<E::Acc>,
        update: &Update,
        groups: &[Group],
    ) {
        const BLOCK: usize = 1 << 14;
        if control[1] == E::Acc::ZERO {
            return;
        }
        let (norm, t) = (control[0].to_f64(), control[2].to_f64());
        let clip = E::Acc::of((update.clip / (norm + 1e-6)).min(1.0));
        for group in groups {
            let range = group.span.range();
            arenas.params[range.clone()]
                .par_chunks_mut(BLOCK)
                .zip(arenas.master[range.clone()].par_chunks_mut(BLOCK))
                .zip(arenas.m[range.clone()].par_chunks_mut(BLOCK))
                .zip(arenas.v[range.clone()].par_chunks_mut(BLOCK))
                .zip(grads[range].par_chunks(BLOCK))
                .enumerate()
                .for_each(|(block, ((((p, w), m), v), g))| {
                    step(update, group, t, clip, w, m, v, g);
                    let first = group.span.start + block * BLOCK;
                    match update.stochastic {
                        None => round(p, w),
                        Some(seed) => round_by_chance(p, w, seed, t as u32, first),
                    }
                });
        }
    }

    fn store(&self, params: &mut Vec<E>, master: &Vec<E::Acc>) {
        round(params, master);
    }
}

fn round<E: Element>(params: &mut [E], master: &[E::Acc]) {
    for (p, &w) in params.iter_mut().zip(master) {
        *p = E::round(w);
    }
}

/// Element i of the arena takes word i % 4 of block i / 4.
fn round_by_chance<E: Element>(
    params: &mut [E],
    master: &[E::Acc],
    seed: u64,
    step: u32,
    first: usize,
) {
    let philox = Philox::new(seed);
    for (i, (p, &w)) in (first..).zip(params.iter_mut().zip(master)) {
        let words = philox.block(Stream::Rounding, step, i as u64 / 4);
        *p = E::round_by(w, words[i % 4]);
    }
}

/// The bf16 copy that an update by chance left of `master`, elements `first` and on of the arena,
/// at step `step` of the optimizer: a resumed run needs it, and no checkpoint holds it.
pub fn stored_by_chance(master: &[f64], seed: u64, step: u32, first: usize) -> Vec<f64> {
    const BLOCK: usize = 1 << 14;
    let mut stored = master.to_vec();
    stored.par_chunks_mut(BLOCK).enumerate().for_each(|(block, values)| {
        let master: Vec<f32> = values.iter().map(|&w| w as f32).collect();
        let mut params = vec![bf16::ZERO; values.len()];
        round_by_chance(&mut params, &master, seed, step, first + block * BLOCK);
        values.iter_mut().zip(params).for_each(|(value, p)| *value = p.to_f64());
    });
    stored
}

/// `Group` of kernels/optimizer.cu.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GroupArg {
    start: u64,
    lr_scale: f32,
    decay: f32,
}

/// `Constants` of kernels/optimizer.cu.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct RuleArg {
    rule: i32,
    clip: f32,
    beta: [f32; 2],
    rest: [f32; 2],
    log_beta: [f32; 2],
    epsilon: f32,
    stochastic: i32,
    seed: u64,
}

impl From<&Update> for RuleArg {
    fn from(update: &Update) -> RuleArg {
        let (rule, betas, epsilon) = match update.rule {
            Rule::AdamW { beta1, beta2, eps } => (0, [beta1, beta2], eps),
            Rule::Sgd { momentum, nesterov } => (1, [momentum, f64::from(nesterov)], 0.0),
            Rule::RmsProp { alpha, eps, momentum } => (2, [alpha, momentum], eps),
        };
        RuleArg {
            rule,
            clip: update.clip as f32,
            beta: betas.map(|b| b as f32),
            rest: betas.map(|b| (1.0 - b) as f32),
            log_beta: betas.map(|b| b.ln() as f32),
            epsilon: epsilon as f32,
            stochastic: update.stochastic.is_some().into(),
            seed: update.stochastic.unwrap_or(0),
        }
    }
}

impl OptimizerOps for Gpu {
    fn update(
        &self,
        arenas: Arenas<Self>,
        grads: &Tensor<f32>,
        control: &Tensor<f32>,
        update: &Update,
        groups: &[Group],
    ) {
        let groups: Vec<GroupArg> = groups.iter().map(GroupArg::from).collect();
        let table = self.table(cast_slice(&groups));
        let len = grads.len();
        let args = [
            arenas.params.into(),
            arenas.master.into(),
            arenas.m.into(),
            arenas.v.into(),
            grads.into(),
            control.into(),
            table.into(),
            groups.len().into(),
            Arg::of(RuleArg::from(update)),
            (update.lr as f32).into(),
            (len as u64).into(),
        ];
        self.elementwise(["update_naive", "update"], len, &args);
    }

    fn store(&self, params: &mut Tensor<bf16>, master: &Tensor<f32>) {
        let len = master.len();
        let args = [params.into(), master.into(), (len as u64).into()];
        self.elementwise(["store_naive", "store"], len, &args);
    }
}

impl From<&Group> for GroupArg {
    fn from(group: &Group) -> GroupArg {
        GroupArg {
            start: group.span.start as u64,
            lr_scale: group.lr_scale as f32,
            decay: group.decay as f32,
        }
    }
}

impl Gpu {
    /// The naive kernel takes a thread an element of an arena, the fast one a thread four.
    fn elementwise(&self, kernels: [&'static str; 2], len: usize, args: &[Arg]) {
        assert_eq!(len % 4, 0, "an arena's length is a multiple of four");
        if self.naive() {
            self.launch(kernels[0], Shape::each(len, 256), args);
        } else {
            self.launch(kernels[1], Shape::each(len / 4, 256), args);
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn step<A: Float>(
    update: &Update,
    group: &Group,
    t: f64,
    clip: A,
    w: &mut [A],
    m: &mut [A],
    v: &mut [A],
    g: &[A],
) {
    let lr = update.lr * group.lr_scale;
    let (lr_a, decay) = (A::of(lr), A::of(group.decay));
    match update.rule {
        Rule::AdamW { beta1, beta2, eps } => {
            let (b1, b2, eps) = (A::of(beta1), A::of(beta2), A::of(eps));
            let (c1, c2) = (A::of(1.0 - beta1), A::of(1.0 - beta2));
            let rate = A::of(lr / (1.0 - beta1.powf(t)));
            let unbias = A::of(1.0 / (1.0 - beta2.powf(t)));
            let shrink = A::of(1.0 - lr * group.decay);
            for i in 0..g.len() {
                let g = g[i] * clip;
                m[i] = b1 * m[i] + c1 * g;
                v[i] = b2 * v[i] + c2 * g * g;
                w[i] = w[i] * shrink - rate * m[i] / ((v[i] * unbias).sqrt() + eps);
            }
        }
        Rule::Sgd { momentum, nesterov } => {
            let mu = A::of(momentum);
            for i in 0..g.len() {
                let g = g[i] * clip + decay * w[i];
                m[i] = mu * m[i] + g;
                w[i] -= lr_a * if nesterov { g + mu * m[i] } else { m[i] };
            }
        }
        Rule::RmsProp { alpha, eps, momentum } => {
            let (a, b, eps) = (A::of(alpha), A::of(1.0 - alpha), A::of(eps));
            let mu = A::of(momentum);
            for i in 0..g.len() {
                let g = g[i] * clip + decay * w[i];
                v[i] = a * v[i] + b * g * g;
                m[i] = mu * m[i] + g / (v[i].sqrt() + eps);
                w[i] -= lr_a * m[i];
            }
        }
    }
}
