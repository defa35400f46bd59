//! Checks of the ops of task heads.

use super::draw::{acc, int, poisoned_x, x};
use super::{Check, Draw, Kind, Output, Sizes, Verifier};
use crate::data::IGNORE;
use crate::device::Buffer;
use crate::ops::task::{TaskOps, Truth};

/// Where sequences of such lengths begin.
fn starts(lengths: &[usize]) -> Vec<i32> {
    let ends = lengths.iter().scan(0, |end, length| {
        *end += *length as i32;
        Some(*end)
    });
    [0].into_iter().chain(ends).collect()
}

/// The mean of sequences' rows, and its gradient.
struct Means<'a> {
    lengths: &'a [usize],
    width: usize,
}

impl<D: TaskOps> Check<D> for Means<'_> {
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let &Means { lengths, width } = self;
        let (tokens, sequences) = (lengths.iter().sum::<usize>(), lengths.len());
        let cu_seqlens = int(dev, &starts(lengths));
        let (x, dy) = (draw.x(dev, tokens * width, 1.0), draw.x(dev, sequences * width, 1.0));
        let (mut y, mut dx) = (poisoned_x(dev, sequences * width), poisoned_x(dev, tokens * width));
        dev.mean_rows(&mut y, &x, &cu_seqlens, width, sequences);
        dev.mean_rows_backward(&mut dx, &dy, &cu_seqlens, width, sequences);
        let longest = *lengths.iter().max().expect("there are sequences");
        vec![
            Output { tensor: "y", values: y.to_vec(), kind: Kind::Stored(longest) },
            Output { tensor: "dx", values: dx.to_vec(), kind: Kind::Stored(1) },
        ]
    }
}

#[derive(Debug, Clone, Copy)]
enum Loss {
    Classes,
    Flags,
    Values,
    Spans,
}

struct TaskLoss<'a> {
    loss: Loss,
    /// Of spans' sequences; of other losses the sum is the rows.
    lengths: &'a [usize],
    outputs: usize,
    train: bool,
}

impl TaskLoss<'_> {
    /// Rows in turn have none, a class that is far the likeliest, and one that is far from it: so
    /// every device counts the same rows as right.
    fn target(row: usize, n: usize) -> i32 {
        if row % 5 == 3 { IGNORE } else { (row * 7 % n) as i32 }
    }
}

impl<D: TaskOps> Check<D> for TaskLoss<'_> {
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let &TaskLoss { loss, lengths, outputs, train } = self;
        let (rows, sequences) = (lengths.iter().sum::<usize>(), lengths.len());
        let mut z = draw.values(rows * outputs, 1.0);
        let own = |row: usize| if row.is_multiple_of(2) { 8.0 } else { -8.0 };
        let starts = starts(lengths);
        let ints: Vec<i32> = match loss {
            Loss::Spans => {
                let end = |i: usize| Self::target(i / 2, lengths[i / 2].max(1));
                (0..2 * sequences).map(end).collect()
            }
            _ => (0..rows).map(|row| Self::target(row, outputs)).collect(),
        };
        match loss {
            Loss::Classes => {
                for (row, &target) in ints.iter().enumerate().filter(|(_, t)| **t != IGNORE) {
                    z[row * outputs + target as usize] = own(row);
                }
            }
            Loss::Spans => {
                for (i, &end) in ints.iter().enumerate().filter(|(_, t)| **t != IGNORE) {
                    if lengths[i / 2] > 0 {
                        z[(starts[i / 2] + end) as usize * 2 + i % 2] = own(i / 2);
                    }
                }
            }
            Loss::Flags | Loss::Values => {}
        }
        let flags: Vec<f64> = z.iter().map(|z| f64::from(u8::from(*z > 0.5))).collect();
        let numbers = draw.values(rows * outputs, 2.0);
        let (mut logits, ints) = (x(dev, &z), int(dev, &ints));
        let (flags, numbers) = (acc(dev, &flags), acc(dev, &numbers));
        let weights = acc(dev, &(0..outputs).map(|k| 0.5 + k as f64).collect::<Vec<_>>());
        let cu_seqlens = int(dev, &starts);
        let truth = match loss {
            Loss::Classes => Truth::Classes { targets: &ints, weights: &weights },
            Loss::Flags => Truth::Flags { targets: &flags, weights: &weights },
            Loss::Values => Truth::Values { targets: &numbers },
            Loss::Spans => Truth::Spans { targets: &ints, cu_seqlens: &cu_seqlens, sequences },
        };
        let (total, mut sums) = (acc(dev, &[rows as f64]), acc(dev, &[3.0, 1.0, 2.0]));
        let total = train.then_some(&total);
        dev.task_loss(&mut sums, &mut logits, truth, rows, outputs, total);
        let sums = sums.to_vec();
        let mut out = vec![
            Output { tensor: "loss", values: sums[..1].to_vec(), kind: Kind::Summed(rows) },
            Output { tensor: "right, weight", values: sums[1..].to_vec(), kind: Kind::Exact },
        ];
        if train {
            let kind = Kind::Stored(outputs.max(rows));
            out.push(Output { tensor: "dz", values: logits.to_vec(), kind });
        }
        out
    }
}

pub fn task(v: &mut Verifier) {
    let full = v.sizes == Sizes::Full;
    let long: &[usize] = if full { &[512; 128] } else { &[40, 0, 3, 300] };
    for (lengths, width) in [(&[1][..], 8), (&[5, 0, 37], 72), (long, 768)] {
        let name = format!("{} sequences × {width}", lengths.len());
        v.check("mean_rows", name, &Means { lengths, width });
    }
    for train in [true, false] {
        let passes = if train { "" } else { ", no gradient" };
        for (loss, outputs) in [
            (Loss::Classes, 2),
            (Loss::Classes, 77),
            (Loss::Flags, 5),
            (Loss::Flags, 40),
            (Loss::Values, 1),
            (Loss::Values, 3),
            (Loss::Spans, 2),
        ] {
            for lengths in [&[1][..], &[5, 0, 37, 12, 64], long] {
                let rows: usize = lengths.iter().sum();
                let name = format!("{loss:?}, {rows} × {outputs}{passes}");
                v.check("task_loss", name, &TaskLoss { loss, lengths, outputs, train });
            }
        }
    }
}
