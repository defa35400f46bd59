//! Checks of the loss: products, cross-entropy and its gradients over chunks of rows.

use super::draw::{acc, int, poisoned_x, x};
use super::linear::layer;
use super::{Check, Draw, Kind, Output, Sizes, Verifier, named, with_products};
use crate::data::IGNORE;
use crate::device::cpu::{Cpu, Element};
use crate::device::gpu::{Gemm, Gpu, ProductCut};
use crate::device::{Buffer, Class};
use crate::ops::linear::Linear;
use crate::ops::loss::{LossGrads, LossInput, LossOps};

#[derive(Clone, Copy)]
struct HeadLoss {
    rows: usize,
    width: usize,
    vocab: usize,
    /// Rows of logits that the scratch holds.
    chunk: usize,
    bias: bool,
    train: bool,
    /// Of its products, as the cut; None: as the host chooses.
    gemm: Gemm,
    cut: Option<ProductCut>,
}

/// Whether a row's loss is ignored.
fn is_ignored(row: usize) -> bool {
    row % 5 == 3
}

/// The logit of a row's own token.
const OWN: f64 = 8.0;

/// Weights in which each labelled row has a token of its own, whose logit is about OWN or −OWN in
/// turn: so every device counts the same rows as correct, however it rounds. The rest is noise.
fn weights(draw: &mut Draw, x: &[f64], targets: &[i32], at: &Linear, arena: usize) -> Vec<f64> {
    let c = at.n_in;
    let mut params = draw.values(arena, 0.5 / (c as f64).sqrt());
    for (row, &target) in targets.iter().enumerate().filter(|(_, target)| **target != IGNORE) {
        let x = &x[row * c..][..c];
        let square: f64 = x.iter().map(|x| x * x).sum();
        let factor = if row % 2 == 0 { OWN / square } else { -OWN / square };
        let own = &mut params[at.weight.start + target as usize * c..][..c];
        own.iter_mut().zip(x).for_each(|(w, x)| *w = half::bf16::from_f64(x * factor).to_f64());
    }
    params
}

impl<E: Element> Check<Cpu<E>> for HeadLoss {
    fn run(&self, dev: &Cpu<E>, draw: &mut Draw) -> Vec<Output> {
        self.run_on(dev, draw)
    }
}

impl Check<Gpu> for HeadLoss {
    fn run(&self, dev: &Gpu, draw: &mut Draw) -> Vec<Output> {
        with_products(dev, self.gemm, self.cut, || self.run_on(dev, draw))
    }
}

impl HeadLoss {
    fn run_on<D: LossOps>(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let &HeadLoss { rows, width, vocab, chunk, bias, train, .. } = self;
        let (at, arena) = layer(width, vocab, bias);
        let inputs = draw.values(rows * width, 1.0);
        let target = |row: usize| if is_ignored(row) { IGNORE } else { (row * 7 % vocab) as i32 };
        let targets: Vec<i32> = (0..rows).map(target).collect();
        let params = weights(draw, &inputs, &targets, &at, arena);
        let (input, params, targets) = (x(dev, &inputs), x(dev, &params), int(dev, &targets));
        let mut grads = draw.acc(dev, arena, 0.1);
        let mut dx = poisoned_x(dev, rows * width);
        let mut logits = dev.x(Class::Scratch, chunk * vocab);
        let mut sums = acc(dev, &[3.0, 1.0, 2.0]);
        let labelled = &int(dev, &[rows as i32]);
        let gradients = train.then_some(LossGrads { dx: &mut dx, grads: &mut grads, labelled });
        let input = LossInput { x: &input, targets: &targets, rows };
        dev.head_loss(&mut sums, gradients, &mut logits, input, &params, &at);

        let sums = sums.to_vec();
        let (nll, counts) = (sums[..1].to_vec(), sums[1..].to_vec());
        let mut out = vec![
            Output { tensor: "nll", values: nll, kind: Kind::Summed(vocab) },
            Output { tensor: "correct, labelled", values: counts, kind: Kind::Exact },
        ];
        if train {
            let kind = Kind::Stored(vocab);
            out.push(Output { tensor: "dx", values: dx.to_vec(), kind });
            let kind = Kind::Summed(rows);
            out.push(Output { tensor: "dW, db", values: grads.to_vec(), kind });
        }
        out
    }
}

pub fn loss(v: &mut Verifier) {
    let full = v.sizes == Sizes::Full;
    let mut check = |rows, width, vocab, chunk, bias, train| {
        let passes = if train { "" } else { ", no gradient" };
        for &gemm in v.gemms() {
            let kind = named(gemm);
            let shape = format!("{rows} × {width} → {vocab}, {chunk} at a time{passes}{kind}");
            let check = HeadLoss { rows, width, vocab, chunk, bias, train, gemm, cut: None };
            v.check("head_loss", shape, &check);
        }
    };
    for train in [true, false] {
        check(33, 64, 264, 33, true, train);
        check(21, 72, 1003, 8, false, train);
        // A bias that ends within a pair, and rows that are padded.
        check(9, 64, 203, 9, true, train);
        // A classifier of pairs, and fewer logits than a vector in all.
        check(2, 64, 2, 2, true, train);
        check(1, 64, 101, 1, true, train);
    }
    // Rows that take a block several turns, and that shared memory does not hold.
    check(3, 64, 5003, 3, true, true);
    check(2, 16, 58_003, 2, false, true);
    if full {
        for vocab in [32_000, 50_257, 50_264, 128_256] {
            check(130, 256, vocab, 64, true, true);
        }
    }
    // Weight gradients in shares, whose sums of an odd number of biases end within a vector.
    let cut = Some(ProductCut::Portable { tile: 2, splits: 2 });
    let (rows, width, vocab, gemm) = (100, 64, 203, Gemm::Portable);
    let check = HeadLoss { rows, width, vocab, chunk: 100, bias: true, train: true, gemm, cut };
    v.check("head_loss", "100 × 64 → 203, k / 2".into(), &check);
}
