//! Checks of the kernel that rotates q and k where no product and no attention does; those that do
//! are checked with their families.

use super::draw::{Angles, x};
use super::{Check, Draw, Kind, Output, Sizes, Verifier};
use crate::device::Buffer;
use crate::device::cpu::{Cpu, Element};
use crate::device::gpu::Gpu;
use crate::ops::rope::Turn;

struct Rope {
    rows: usize,
    heads: usize,
    head_dim: usize,
    turn: Turn,
}

/// Positions that there are.
const CONTEXT: usize = 300;

impl Rope {
    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// qkv [N, 3C]
    fn draw(&self, draw: &mut Draw) -> (Vec<f64>, Vec<i32>) {
        let qkv = draw.values(self.rows * 3 * self.width(), 1.0);
        (qkv, draw.below(self.rows, CONTEXT))
    }

    fn outputs(&self, qkv: &[f64]) -> Vec<Output> {
        let (mut turned, mut kept) = (Vec::new(), Vec::new());
        for row in qkv.chunks_exact(3 * self.width()) {
            turned.extend_from_slice(&row[..2 * self.width()]);
            kept.extend_from_slice(&row[2 * self.width()..]);
        }
        vec![
            Output { tensor: "q and k", values: turned, kind: Kind::Stored(2) },
            Output { tensor: "v", values: kept, kind: Kind::Exact },
        ]
    }
}

impl<E: Element> Check<Cpu<E>> for Rope {
    fn run(&self, dev: &Cpu<E>, draw: &mut Draw) -> Vec<Output> {
        let (qkv, positions) = self.draw(draw);
        let mut qkv = x(dev, &qkv);
        let angles = Angles::new(dev, &positions, CONTEXT, self.head_dim);
        E::with_wide(&mut qkv, |qkv| {
            angles.rotation().turn_rows(qkv, 0, self.width(), self.turn);
        });
        self.outputs(&qkv.to_vec())
    }
}

impl Check<Gpu> for Rope {
    fn run(&self, dev: &Gpu, draw: &mut Draw) -> Vec<Output> {
        let (qkv, positions) = self.draw(draw);
        let mut qkv = x(dev, &qkv);
        let angles = Angles::new(dev, &positions, CONTEXT, self.head_dim);
        dev.rope(&mut qkv, angles.rotation(), self.width(), self.rows, self.turn);
        self.outputs(&qkv.to_vec())
    }
}

pub fn rope(v: &mut Verifier) {
    let mut shapes = vec![(1, 1, 16), (37, 3, 64), (199, 12, 64), (50, 2, 128), (5, 25, 80)];
    if v.sizes == Sizes::Full {
        shapes.extend([(4096, 12, 64), (65_536, 12, 64), (4096, 32, 128)]);
    }
    for (rows, heads, head_dim) in shapes {
        for (turn, how) in [(Turn::Forward, "forward"), (Turn::Backward, "backward")] {
            let shape = format!("{rows} × {heads} × {head_dim}, {how}");
            v.check("rope", shape, &Rope { rows, heads, head_dim, turn });
        }
    }
}
