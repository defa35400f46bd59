//! The bare product of a call by cuBLASLt, timed as ours is: on operands in turn, between the same
//! marks, by the fastest of the algorithms that the library proposes.
//!
//! Bare: ours may have a bias or an activation besides, so a ratio never flatters ours.

use std::cell::Cell;
use std::rc::Rc;

use super::call::Call;
use super::measure::Bench;
use super::prepare::{Operands, Ready};
use super::report::Peer;
use super::timing::{self, Timing};
use crate::device::gpu::Gpu;
use crate::device::gpu::cuda::blas::{ALIGNED, Blas, Kind, Prepared, Product};
use crate::device::gpu::driver::Result;
use crate::ops::Into;
use crate::ops::linear::Linear;

/// The product of a call, if it is one.
pub fn product(call: &Call) -> Option<Product> {
    let of = |at: &Linear, rows, kind, add| {
        let (n_in, n_out) = (at.n_in, at.n_out);
        Some(Product { kind, rows, n_in, n_out, stride: n_out, alignment: ALIGNED, add })
    };
    match call {
        Call::Linear { at, rows }
        | Call::LinearAct { at, rows, .. }
        | Call::LinearRope { at, rows, .. }
        | Call::LinearGate { at, rows, .. } => of(at, *rows, Kind::Y, false),
        Call::LinearDx { at, rows, into } => of(at, *rows, Kind::Dx, *into == Into::Add),
        Call::LinearDxAct { at, rows, .. } | Call::LinearDxGate { at, rows, .. } => {
            of(at, *rows, Kind::Dx, false)
        }
        Call::LinearDw { at, rows } => of(at, *rows, Kind::Dw, true),
        _ => None,
    }
}

/// Times `product`; None where there is no library, or it cannot do it, or there is not the memory.
///
/// # Errors
/// What stopped the device.
pub fn time(bench: &Bench, product: &Product) -> Result<Option<Peer>> {
    let blas = bench.gpu.driver().blas().ok();
    let Some(prepared) = blas.and_then(|blas| blas.known(product)) else { return Ok(None) };
    let (memory, room) = (product.bytes(), bench.room()?);
    if memory > room {
        return Ok(None);
    }
    let ways = prepared.ways();
    let (way, refused) = Default::default();
    let contest = Rc::new(Contest { prepared, way, refused });
    let mut copies = bench.copies(memory, |source| contest.ready(source.operands(product)))?;
    let mut fastest = None;
    for way in 0..ways {
        let Some(Timing { seconds, .. }) = contest.time(bench, &mut copies, way, 0.0)? else {
            continue;
        };
        fastest = fastest.filter(|&(_, best)| best <= seconds).or(Some((way, seconds)));
    }
    let Some((way, _)) = fastest else { return Ok(None) };
    let timing = contest.time(bench, &mut copies, way, bench.budget)?;
    Ok(timing.map(|timing| Peer::new(timing, ways)))
}

/// Ways to do the same, which take turns.
struct Contest {
    prepared: Rc<Prepared>,
    /// Whose turn it is.
    way: Cell<usize>,
    /// Whether it was refused.
    refused: Cell<bool>,
}

impl Contest {
    /// The product on these operands, by the way whose turn it is.
    fn ready(self: &Rc<Self>, operands: Operands) -> Ready<Gpu> {
        let this = Rc::clone(self);
        Box::new(move |gpu| {
            let multiply =
                |blas: &Blas| blas.multiply(&this.prepared, this.way.get(), operands.places());
            let done = gpu.driver().blas().and_then(multiply);
            this.refused.set(this.refused.get() || done.is_err());
        })
    }

    /// Times one way; None if it is refused.
    fn time(
        &self,
        bench: &Bench,
        copies: &mut [Ready<Gpu>],
        way: usize,
        budget: f64,
    ) -> Result<Option<Timing>> {
        self.way.set(way);
        self.refused.set(false);
        let timing = timing::time(bench.gpu, copies, budget)?;
        Ok((!self.refused.get()).then_some(timing))
    }
}
