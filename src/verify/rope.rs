//! Checks of the rotary positions.

use super::draw::{acc, int, x};
use super::{Check, Draw, Kind, Output, Sizes, Verifier};
use crate::device::Buffer;
use crate::ops::attention::Attention;
use crate::ops::rope::{RopeOps, Turn, table};

struct Rope {
    rows: usize,
    heads: usize,
    head_dim: usize,
    turn: Turn,
}

/// Positions that there are.
const CONTEXT: usize = 300;

impl<D: RopeOps> Check<D> for Rope {
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let &Rope { rows, heads, head_dim, turn } = self;
        let width = heads * head_dim;
        let mut qkv = x(dev, &draw.values(rows * 3 * width, 1.0));
        let angles = acc(dev, &table(CONTEXT, head_dim, 10_000.0));
        let positions = int(dev, &draw.below(rows, CONTEXT));
        let at = Attention { heads, head_dim, causal: true, window: None, dropout: None };
        dev.rope(&mut qkv, &angles, &positions, &at, rows, turn);
        let (mut turned, mut kept) = (Vec::new(), Vec::new());
        for row in qkv.to_vec().chunks_exact(3 * width) {
            turned.extend_from_slice(&row[..2 * width]);
            kept.extend_from_slice(&row[2 * width..]);
        }
        vec![
            Output { tensor: "q and k", values: turned, kind: Kind::Stored(2) },
            Output { tensor: "v", values: kept, kind: Kind::Exact },
        ]
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
