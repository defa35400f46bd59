//! Checks of the norms, forward, fused with the residual sum, and backward.

use super::draw::{poisoned_acc, poisoned_x};
use super::{Check, Draw, Kind, Output, Sizes, Verifier};
use crate::device::Buffer;
use crate::ops::norm::{Norm, NormKind, NormOps, Normed, Residual};
use crate::ops::{Dropout, Into, Span};

/// A norm whose weights do not begin its arena, and how long the arena is.
fn norm_of(kind: NormKind, width: usize, bias: bool) -> (Norm, usize) {
    let weight = Span { start: 64, len: width };
    let after = (64 + width).next_multiple_of(64);
    let bias = bias.then_some(Span { start: after, len: width });
    (Norm { kind, weight, bias, width, eps: 1e-5 }, after + width)
}

fn stored(tensor: &'static str, y: &impl Buffer<Host = f64>, terms: usize) -> Output {
    Output { tensor, values: y.to_vec(), kind: Kind::Stored(terms) }
}

fn summed(tensor: &'static str, values: Vec<f64>, terms: usize) -> Output {
    Output { tensor, values, kind: Kind::Summed(terms) }
}

#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    width: usize,
    kind: NormKind,
    bias: bool,
}

struct NormCheck(Shape);

impl<D: NormOps> Check<D> for NormCheck {
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let Shape { rows, width, kind, bias } = self.0;
        let (at, arena) = norm_of(kind, width, bias);
        let (x, params) = (draw.x(dev, rows * width, 2.0), draw.x(dev, arena, 1.0));
        let (mut y, mut stats) = (poisoned_x(dev, rows * width), poisoned_acc(dev, rows * 2));
        dev.norm(&mut y, &mut stats, &x, &params, &at, rows);
        vec![stored("y", &y, width), summed("stats", stats.to_vec(), width)]
    }
}

struct AddNormCheck(Shape, Option<Dropout>);

impl<D: NormOps> Check<D> for AddNormCheck {
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let Shape { rows, width, kind, bias } = self.0;
        let (at, arena) = norm_of(kind, width, bias);
        let residual = draw.x(dev, rows * width, 2.0);
        let branch = draw.x(dev, rows * width, 1.0);
        let params = draw.x(dev, arena, 1.0);
        let [mut y, mut sum] = [0, 1].map(|_| poisoned_x(dev, rows * width));
        let mut stats = poisoned_acc(dev, rows * 2);
        let terms = Residual { residual: &residual, branch: &branch, dropout: self.1 };
        dev.add_norm(&mut y, &mut sum, &mut stats, terms, &params, &at, rows);
        let stats = summed("stats", stats.to_vec(), width);
        vec![stored("y", &y, width), stored("sum", &sum, 1), stats]
    }
}

struct Backward(Shape, Into);

impl<D: NormOps> Check<D> for Backward {
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let Shape { rows, width, kind, bias } = self.0;
        let (at, arena) = norm_of(kind, width, bias);
        let (x, params) = (draw.x(dev, rows * width, 2.0), draw.x(dev, arena, 1.0));
        let (mut y, mut stats) = (poisoned_x(dev, rows * width), poisoned_acc(dev, rows * 2));
        dev.norm(&mut y, &mut stats, &x, &params, &at, rows);
        let dy = draw.x(dev, rows * width, 1.0);
        let mut grads = draw.acc(dev, arena, 1.0);
        let mut dx = match self.1 {
            Into::Set => poisoned_x(dev, rows * width),
            Into::Add => draw.x(dev, rows * width, 1.0),
        };
        let saved = Normed { x: &x, stats: &stats, params: &params };
        dev.norm_backward(&mut dx, &mut grads, &dy, saved, &at, rows, self.1);
        // Sums over rows, of what was normed by sums over a row. The whole arena: what is no
        // weight of this norm must stay as it was.
        vec![stored("dx", &dx, width), summed("grads", grads.to_vec(), rows + width)]
    }
}

pub fn norm(v: &mut Verifier) {
    // Every template once, most with a tail; rows for several turns of the backward's blocks, with
    // one warp a row and with eight.
    let mut shapes = vec![
        (1, 8),
        (37, 256),
        (5, 320),
        (37, 760),
        (2201, 520),
        (199, 1024),
        (3, 1032),
        (37, 1600),
        (9, 2568),
        (5, 3080),
        (5, 5000),
        (137, 6152),
        (1, 8192),
    ];
    if v.sizes == Sizes::Full {
        for width in [256, 760, 768, 1024, 1600] {
            shapes.extend([1, 37, 199, 4096].map(|rows| (rows, width)));
        }
        shapes.extend([(4096, 4096), (4096, 8192), (65_536, 768)]);
    }
    let half = Dropout { p: 0.5, seed: 7 << 40 | 3, step: 2, site: 9 };
    for (i, (rows, width)) in shapes.into_iter().enumerate() {
        let (kind, bias) = match i % 3 {
            0 => (NormKind::Layer, true),
            1 => (NormKind::Rms, false),
            _ => (NormKind::Layer, false),
        };
        let shape = Shape { rows, width, kind, bias };
        let name = match kind {
            NormKind::Layer => "layer",
            NormKind::Rms => "rms",
        };
        let name = format!("{rows} × {width}, {name}");
        v.check("norm", name.clone(), &NormCheck(shape));
        let dropout = (i % 2 == 0).then_some(half);
        let dropped = if dropout.is_some() { ", dropout" } else { "" };
        v.check("add_norm", format!("{name}{dropped}"), &AddNormCheck(shape, dropout));
        let (into, how) = if i % 2 == 0 { (Into::Add, "+=") } else { (Into::Set, "=") };
        v.check("norm_backward", format!("{name}, {how}"), &Backward(shape, into));
    }
}
