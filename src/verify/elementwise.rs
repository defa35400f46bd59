//! Checks of the ops that move or scale elements: dropout, gather, scatter.

use super::draw::{int, poisoned_x};
use super::{Check, Draw, Kind, Output, Sizes, Verifier};
use crate::device::Buffer;
use crate::ops::Dropout;
use crate::ops::dropout::DropoutOps;
use crate::ops::gather::GatherOps;

struct DropoutCheck {
    len: usize,
    p: f64,
}

impl<D: DropoutOps> Check<D> for DropoutCheck {
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let x = draw.x(dev, self.len, 1.0);
        let mut y = poisoned_x(dev, self.len);
        let dropout = Dropout { p: self.p, seed: 7, step: 3, site: 5 };
        dev.dropout(&mut y, &x, dropout, self.len);
        vec![Output { tensor: "y", values: y.to_vec(), kind: Kind::Stored(1) }]
    }
}

pub fn dropout(v: &mut Verifier) {
    let long = if v.sizes == Sizes::Full { 1 << 22 } else { 4099 };
    for (len, p) in [(1, 0.5), (8, 0.1), (1003, 0.1), (long, 0.25), (64, 0.0)] {
        v.check("dropout", format!("{len}, p {p}"), &DropoutCheck { len, p });
    }
}

/// Gathers `count` of `rows` rows; with `scatter`, adds them back.
struct GatherCheck {
    rows: usize,
    count: usize,
    width: usize,
    scatter: bool,
}

impl<D: GatherOps> Check<D> for GatherCheck {
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let &GatherCheck { rows, count, width, scatter } = self;
        let mut big = draw.x(dev, rows * width, 1.0);
        // Ascending without repeats, as masked rows are.
        let mut picked: Vec<i32> = draw.below(count, rows / count.max(1));
        for (i, row) in picked.iter_mut().enumerate() {
            *row += (i * (rows / count)) as i32;
        }
        // Places that masking left free come last.
        picked[count - count / 8..].fill(-1);
        let picked = int(dev, &picked);
        if scatter {
            let small = draw.x(dev, count * width, 1.0);
            dev.scatter_add(&mut big, &small, &picked, width, count);
            return vec![Output { tensor: "dx", values: big.to_vec(), kind: Kind::Stored(2) }];
        }
        let mut y = poisoned_x(dev, count * width);
        dev.gather(&mut y, &big, &picked, width, count);
        vec![Output { tensor: "y", values: y.to_vec(), kind: Kind::Exact }]
    }
}

pub fn gather(v: &mut Verifier) {
    let mut shapes = vec![(1, 1, 8), (37, 5, 24), (64, 64, 768), (100, 15, 1600)];
    if v.sizes == Sizes::Full {
        shapes.push((65_536, 9830, 768));
    }
    for (rows, count, width) in shapes {
        for scatter in [false, true] {
            let op = if scatter { "scatter_add" } else { "gather" };
            let shape = format!("{count} of {rows} × {width}");
            v.check(op, shape, &GatherCheck { rows, count, width, scatter });
        }
    }
}
