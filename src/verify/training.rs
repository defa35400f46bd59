//! Checks of what ends a step: the verdict on its gradient, and the update.

use super::draw::{acc, poisoned_x};
use super::{Check, Draw, Kind, Output, Sizes, Verifier};
use crate::device::Buffer;
use crate::ops::Span;
use crate::ops::optimizer::{Arenas, Group, OptimizerOps, Rule, Update};
use crate::ops::reduce::ReduceOps;

struct Judge {
    len: usize,
    /// Stands among the gradients.
    spoiled: Option<f64>,
}

impl<D: ReduceOps> Check<D> for Judge {
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let mut grads = draw.values(self.len, 1.0);
        if let Some(spoiled) = self.spoiled {
            grads[self.len / 2] = spoiled;
        }
        let (grads, sums) = (acc(dev, &grads), acc(dev, &[2.0, 1.0, 1.0]));
        // Counters hold what they counted; the rest is poisoned.
        let mut control = acc(dev, &[f64::NAN, f64::NAN, 3.0, 4.0]);
        dev.judge(&mut control, &grads, &sums);
        let control = control.to_vec();
        let mut out =
            vec![Output { tensor: "verdict", values: control[1..].to_vec(), kind: Kind::Exact }];
        if self.spoiled.is_none() {
            let norm = control[..1].to_vec();
            out.push(Output { tensor: "norm", values: norm, kind: Kind::Summed(self.len) });
        }
        out
    }
}

pub fn reduce(v: &mut Verifier) {
    let long = if v.sizes == Sizes::Full { 1 << 24 } else { 20_004 };
    for len in [1, 4, 1023, long] {
        v.check("judge", format!("{len}"), &Judge { len, spoiled: None });
    }
    for spoiled in [f64::NAN, f64::INFINITY] {
        let shape = format!("1000, one of them {spoiled}");
        v.check("judge", shape, &Judge { len: 1000, spoiled: Some(spoiled) });
    }
}

struct Step {
    len: usize,
    update: Update,
    /// Steps applied so far, this one included.
    step: f64,
    finite: bool,
}

/// Three groups, at borders that only bisection finds right.
fn groups(len: usize) -> Vec<Group> {
    let cuts = [0, len / 8 * 4, len / 8 * 4 + 4, len];
    let decays = [0.1, 0.0, 0.3];
    let group = |i: usize| Group {
        span: Span { start: cuts[i], len: cuts[i + 1] - cuts[i] },
        lr_scale: 1.0 + i as f64,
        decay: decays[i],
    };
    (0..3).map(group).filter(|group| group.span.len > 0).collect()
}

impl<D: OptimizerOps> Check<D> for Step {
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let len = self.len;
        let grads = draw.acc(dev, len, 1.0);
        let (mut master, mut m) = (draw.acc(dev, len, 0.1), draw.acc(dev, len, 0.1));
        // Squares of bf16 values are exact in f32.
        let squares: Vec<f64> = draw.values(len, 0.1).iter().map(|v| v * v).collect();
        let mut v = acc(dev, &squares);
        let mut params = draw.x(dev, len, 0.1);
        let control = acc(dev, &[3.0, f64::from(self.finite), self.step, 0.0]);
        let arenas = Arenas { params: &mut params, master: &mut master, m: &mut m, v: &mut v };
        dev.update(arenas, &grads, &control, &self.update, &groups(len));
        let summed = |tensor, values| Output { tensor, values, kind: Kind::Summed(16) };
        vec![
            summed("master", master.to_vec()),
            summed("m", m.to_vec()),
            summed("v", v.to_vec()),
            Output { tensor: "params", values: params.to_vec(), kind: Kind::Stored(16) },
        ]
    }
}

struct Store {
    len: usize,
}

impl<D: OptimizerOps> Check<D> for Store {
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let master = draw.acc(dev, self.len, 1.0);
        let mut params = poisoned_x(dev, self.len);
        dev.store(&mut params, &master);
        vec![Output { tensor: "params", values: params.to_vec(), kind: Kind::Stored(1) }]
    }
}

pub fn optimizer(v: &mut Verifier) {
    let adamw = Rule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
    let rules = [
        ("adamw", adamw),
        ("sgd", Rule::Sgd { momentum: 0.9, nesterov: false }),
        ("nesterov", Rule::Sgd { momentum: 0.9, nesterov: true }),
        ("rmsprop", Rule::RmsProp { alpha: 0.99, eps: 1e-8, momentum: 0.5 }),
    ];
    let long = if v.sizes == Sizes::Full { 1 << 24 } else { 5000 };
    for (name, rule) in rules {
        for (len, step, clip) in [(4, 1.0, 1.0), (1028, 10.0, f64::INFINITY), (long, 1e5, 0.5)] {
            let update = Update { rule, lr: 1e-2, clip, stochastic: None };
            let shape = format!("{name}, {len}, step {step}");
            v.check("update", shape, &Step { len, update, step, finite: true });
        }
    }
    let update = Update { rule: adamw, lr: 1e-2, clip: 1.0, stochastic: Some(9) };
    let by_chance = Step { len: 1028, update, step: 5.0, finite: true };
    v.check("update", "adamw, 1028, stochastic rounding".into(), &by_chance);
    let skipped = Step { finite: false, ..by_chance };
    v.check("update", "adamw, 1028, not finite".into(), &skipped);
    for len in [4, 1028] {
        v.check("store", format!("{len}"), &Store { len });
    }
}
