//! The fastest cut of a product: every one that fits is timed, the best at length.

use super::call::Call;
use super::measure::{Bench, facts};
use super::timing;
use crate::device::gpu::ProductCut;
use crate::device::gpu::driver::Result;
use crate::device::gpu::tuned::{Key, Op};

/// Cuts that are timed again, for the whole budget.
const FINALISTS: usize = 4;

/// The product that a call asks for.
pub fn key(call: &Call) -> Option<Key> {
    let (op, at, rows) = match call {
        Call::Linear { at, rows } => (Op::Linear, at, *rows),
        Call::LinearAct { at, rows, .. } => (Op::LinearAct, at, *rows),
        Call::LinearGate { at, rows, .. } => (Op::LinearGate, at, *rows),
        Call::LinearRope { at, rows, .. } => (Op::LinearRope, at, *rows),
        Call::LinearDx { at, rows, .. } => (Op::LinearDx, at, *rows),
        Call::LinearDxAct { at, rows, .. } => (Op::LinearDxAct, at, *rows),
        Call::LinearDxGate { at, rows, .. } => (Op::LinearDxGate, at, *rows),
        Call::LinearDw { at, rows } => (Op::LinearDw, at, *rows),
        _ => return None,
    };
    let (m, n, k) = match op {
        Op::Linear | Op::LinearAct | Op::LinearGate | Op::LinearRope => (rows, at.n_out, at.n_in),
        Op::LinearDx | Op::LinearDxAct | Op::LinearDxGate => (rows, at.n_in, at.n_out),
        Op::LinearDw => (at.n_out, at.n_in, rows),
    };
    Some(Key { op, m, n, k })
}

/// The fastest of `cuts` and its time, by `time`(cut, whether at length); none of none.
pub fn fastest(
    cuts: &[ProductCut],
    mut time: impl FnMut(ProductCut, bool) -> Result<f64>,
) -> Result<Option<(ProductCut, f64)>> {
    let mut timed = Vec::new();
    for &cut in cuts {
        timed.push((cut, time(cut, false)?));
    }
    timed.sort_by(|a, b| a.1.total_cmp(&b.1));
    timed.truncate(FINALISTS);
    for (cut, seconds) in &mut timed {
        *seconds = time(*cut, true)?;
    }
    Ok(timed.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)))
}

impl Bench<'_> {
    /// The fastest cut of a product, and its time [s].
    pub fn tune(&self, call: &Call, cuts: &[ProductCut]) -> Result<Option<(ProductCut, f64)>> {
        let mut copies = self.copies(facts(call).memory, |source| source.ready(call))?;
        let best = fastest(cuts, |cut, at_length| {
            self.gpu.fix_products(Some(cut));
            let budget = if at_length { self.budget } else { 0.0 };
            Ok(timing::time(self.gpu, &mut copies, budget)?.seconds)
        });
        self.gpu.fix_products(None);
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_at_length_wins() {
        let cut = |splits| ProductCut::Portable { tile: 0, splits };
        let cuts: Vec<_> = (1..=20).map(cut).collect();
        let mut long = 0;
        // Quick looks favour 7; at length its neighbour is faster.
        let best = fastest(&cuts, |cut, at_length| {
            let ProductCut::Portable { splits, .. } = cut else { unreachable!("all are") };
            long += usize::from(at_length);
            let off = splits.abs_diff(7) as f64;
            Ok(if at_length && splits == 8 { 0.5 } else { 1.0 + off })
        });
        assert_eq!(best.unwrap(), Some((cut(8), 0.5)));
        assert_eq!(long, FINALISTS);
        assert_eq!(fastest(&[], |_, _| Ok(1.0)).unwrap(), None);
    }
}
