//! Checks of the ladder of products: every rung beside the reference's product.

use super::draw::poisoned_x;
use super::linear::layer;
use super::{Check, Draw, Kind, Output, Sizes, Verifier};
use crate::device::Buffer;
use crate::device::cpu::{Cpu, Element};
use crate::device::gpu::Gpu;
use crate::ops::linear::{Linear, LinearOps, Rung};

struct Product {
    rows: usize,
    n_in: usize,
    n_out: usize,
    rung: Rung,
}

impl Product {
    /// y by `multiply`(y, x, params, at).
    fn run_on<D: LinearOps>(
        &self,
        dev: &D,
        draw: &mut Draw,
        multiply: impl FnOnce(&mut D::X, &D::X, &D::X, &Linear),
    ) -> Vec<Output> {
        let &Product { rows, n_in, n_out, .. } = self;
        let (at, arena) = layer(n_in, n_out, false);
        let x = draw.x(dev, rows * n_in, 1.0);
        let params = draw.x(dev, arena, 1.0 / (n_in as f64).sqrt());
        let mut y = poisoned_x(dev, rows * n_out);
        multiply(&mut y, &x, &params, &at);
        vec![Output { tensor: "y", values: y.to_vec(), kind: Kind::Stored(n_in) }]
    }
}

impl<E: Element> Check<Cpu<E>> for Product {
    fn run(&self, dev: &Cpu<E>, draw: &mut Draw) -> Vec<Output> {
        self.run_on(dev, draw, |y, x, params, at| dev.linear(y, x, params, at, self.rows))
    }
}

impl Check<Gpu> for Product {
    fn run(&self, dev: &Gpu, draw: &mut Draw) -> Vec<Output> {
        let rung = self.rung;
        self.run_on(dev, draw, |y, x, params, at| dev.climb(rung, y, x, params, at, self.rows))
    }
}

/// Rows, inputs, outputs: one product, tails of every extent in several tiles, and more steps of k
/// than any ring has stages.
const SMALL: [[usize; 3]; 3] = [[1, 8, 8], [131, 72, 104], [260, 328, 264]];

pub fn ladder(v: &mut Verifier) {
    let full: &[[usize; 3]] = match v.sizes {
        Sizes::Small => &[],
        Sizes::Full => &[[4096, 736, 2048], [960, 4096, 1504]],
    };
    // The plain twin of all is the first rung.
    let naive = v.gpu.naive();
    for rung in v.gpu.rungs().filter(|rung| (*rung == Rung::Naive) == naive) {
        for &[rows, n_in, n_out] in SMALL.iter().chain(full) {
            let shape = format!("{rows} × {n_in} → {n_out}");
            v.check(rung.name(), shape, &Product { rows, n_in, n_out, rung });
        }
    }
}
