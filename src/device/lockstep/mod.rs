//! Two devices in step: every op runs on both, and the first whose results differ by more than
//! rounding can explain stops the program, naming the op, the tensor, the element, both values
//! and the bound.
//!
//! A is the reference; B is judged, and is no more precise than A. After each op A takes over B's
//! values (widening is exact), so both enter the next op with the same inputs, and an op answers
//! for its own error alone: each link of the chain of trust changes one thing.
//!
//! The bound. A result y = Σ_k t_k of K terms goes wrong in two ways.
//!   1. Terms made of values rounded to storage, and y itself when it is stored, are off by ε_X
//!      of their size. These errors are independent, so those of a sum grow as the sum does: as
//!      √K |t|, which is about the RMS of y. Hence ε_X · scale, whatever K.
//!   2. The running sum is rounded K times in Acc, each time by ε_acc of its size then, √k |t|.
//!      Together √(Σ_k k) ε_acc |t| = K/√2 · ε_acc |t|. Hence √K · ε_acc · scale.
//!
//! So |a − b| ≤ C (ε_X [if stored] + √K ε_acc) · (|a| + rms), with B's epsilons. |a| admits an
//! outlier's own rounding; rms is the larger of that of the element's row and that of the whole
//! result, as a row may be exactly zero in theory (the query gradient of a sequence's first token)
//! and few rows may be anything but zero (the gradient of a table). C is `SLACK`: what the
//! statistics of the largest of many errors, and functions steeper than 1, need.
//! [`Lockstep::worst`] tells how much of its bound each op has used.
//!
//! NaN only agrees with NaN, and an infinity with itself. What an op should leave alone is not
//! looked at; a write out of place shows in the op that reads it.

mod ops;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::device::{Buffer, Class, Format, Memory, Repeats};
use crate::ops::Span;

/// C of the bound above.
const SLACK: f64 = 4.0;

/// A (the reference) and B (judged by it), in step.
#[derive(Debug)]
pub struct Lockstep<A, B> {
    a: A,
    b: B,
    worst: Mutex<BTreeMap<(&'static str, &'static str), f64>>,
}

/// The same tensor on both devices. A test may spoil one of them.
#[derive(Debug)]
pub struct Pair<P, Q> {
    pub a: P,
    pub b: Q,
}

impl<P: Buffer, Q: Buffer<Host = P::Host>> Buffer for Pair<P, Q> {
    type Host = P::Host;

    fn len(&self) -> usize {
        self.b.len()
    }

    fn read(&self, start: usize, out: &mut [P::Host]) {
        self.b.read(start, out);
    }

    /// Both get the values as B stores them.
    fn write(&mut self, start: usize, values: &[P::Host]) {
        self.b.write(start, values);
        let mut stored = vec![P::Host::default(); values.len()];
        self.b.read(start, &mut stored);
        self.a.write(start, &stored);
    }
}

impl<A: Memory, B: Memory> Lockstep<A, B> {
    /// Asserts that B's formats are no finer than A's, so that A can hold B's values.
    pub fn new(a: A, b: B) -> Self {
        let finer = |a: Format, b: Format| a.epsilon <= b.epsilon;
        assert!(
            finer(a.x_format(), b.x_format()) && finer(a.acc_format(), b.acc_format()),
            "lockstep: the reference must be the first, and at least as precise as the second"
        );
        Lockstep { a, b, worst: Mutex::default() }
    }

    /// For each op and result, the largest share of its bound that any element has used.
    pub fn worst(&self) -> BTreeMap<(&'static str, &'static str), f64> {
        self.worst.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Relative bound of stored results that sum `terms` terms, or of sums of stored ones.
    fn stored(&self, terms: usize) -> f64 {
        SLACK * self.b.x_format().epsilon + self.summed(terms)
    }

    /// Relative bound of results in Acc that sum `terms` terms of the inputs themselves.
    fn summed(&self, terms: usize) -> f64 {
        SLACK * (terms as f64).sqrt() * self.b.acc_format().epsilon
    }

    /// Compares rows of `width` in `span` of both and panics if they differ by more than
    /// `relative` of their scale; then A takes over B's.
    fn compare<P: Buffer<Host = f64>, Q: Buffer<Host = f64>>(
        &self,
        (op, tensor): (&'static str, &'static str),
        pair: &mut Pair<P, Q>,
        span: Span,
        width: usize,
        relative: f64,
    ) {
        let mut a = vec![0.0; span.len];
        let mut b = vec![0.0; span.len];
        pair.a.read(span.start, &mut a);
        pair.b.read(span.start, &mut b);
        let whole = rms(&a);
        let mut used = 0.0_f64;
        for (row, (ra, rb)) in a.chunks(width.max(1)).zip(b.chunks(width.max(1))).enumerate() {
            let rms = rms(ra).max(whole);
            for (col, (&a, &b)) in ra.iter().zip(rb).enumerate() {
                if a == b || (a.is_nan() && b.is_nan()) {
                    continue;
                }
                let bound = relative * (a.abs() + rms);
                let difference = (a - b).abs();
                // The finiteness test also stops NaN, and infinities, whose bound is infinite.
                assert!(
                    difference.is_finite() && difference <= bound,
                    "lockstep: {op}: {tensor}[{}] (row {row}, column {col}) is {a:e} on the \
                     reference and {b:e} on the other: they differ by {difference:.3e}, more than \
                     {bound:.3e}",
                    span.start + row * width + col,
                );
                used = used.max(difference / bound);
            }
        }
        pair.a.write(span.start, &b);
        let mut worst = self.worst.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = worst.entry((op, tensor)).or_default();
        *seen = seen.max(used);
    }
}

/// Over the finite elements.
fn rms(x: &[f64]) -> f64 {
    let finite = x.iter().filter(|x| x.is_finite());
    let (count, sum) = finite.fold((0, 0.0), |(n, sum), x| (n + 1, sum + x * x));
    (sum / f64::from(count.max(1))).sqrt()
}

impl<A: Memory, B: Memory> Memory for Lockstep<A, B> {
    type X = Pair<A::X, B::X>;
    type Acc = Pair<A::Acc, B::Acc>;
    type Int = Pair<A::Int, B::Int>;

    /// B's, as its values are the ones that stay.
    fn x_format(&self) -> Format {
        self.b.x_format()
    }

    fn acc_format(&self) -> Format {
        self.b.acc_format()
    }

    fn x(&self, class: Class, len: usize) -> Self::X {
        Pair { a: self.a.x(class, len), b: self.b.x(class, len) }
    }

    fn acc(&self, class: Class, len: usize) -> Self::Acc {
        Pair { a: self.a.acc(class, len), b: self.b.acc(class, len) }
    }

    fn int(&self, class: Class, len: usize) -> Self::Int {
        Pair { a: self.a.int(class, len), b: self.b.int(class, len) }
    }

    fn logit_rows(&self, vocab: usize) -> usize {
        self.b.logit_rows(vocab)
    }

    fn fault(&self) -> Option<String> {
        self.a.fault().or_else(|| self.b.fault())
    }
}

/// Op by op, whatever its devices do.
impl<A: Memory, B: Memory> Repeats for Lockstep<A, B> {
    type Script = ();
}
