//! The bare product of a call by cuBLASLt, timed as ours is: on operands in turn, between the same
//! marks, by the fastest of the algorithms that the library proposes.
//!
//! Bare: ours may have a bias or an activation besides, so a ratio never flatters ours.

use std::cell::Cell;
use std::rc::Rc;

use super::call::Call;
use super::measure::Bench;
use super::prepare::{self, Ready, Source};
use super::report::Peer;
use super::timing::{self, Timing};
use crate::device::Memory;
use crate::device::gpu::Gpu;
use crate::device::gpu::cuda::blas::{Blas, Kind, Operands, Prepared, Product};
use crate::device::gpu::driver::{DriverError, Result};
use crate::ops::Into;
use crate::ops::linear::Linear;

/// The product of a call, if it is one.
pub fn product(call: &Call) -> Option<Product> {
    let of = |at: &Linear, rows, kind, add| {
        Some(Product { kind, rows, n_in: at.n_in, n_out: at.n_out, add })
    };
    match call {
        Call::Linear { at, rows }
        | Call::LinearAct { at, rows, .. }
        | Call::LinearGate { at, rows, .. } => of(at, *rows, Kind::Y, false),
        Call::LinearDx { at, rows, into } => of(at, *rows, Kind::Dx, *into == Into::Add),
        Call::LinearDxAct { at, rows, .. } | Call::LinearDxGate { at, rows, .. } => {
            of(at, *rows, Kind::Dx, false)
        }
        Call::LinearDw { at, rows } => of(at, *rows, Kind::Dw, true),
        _ => None,
    }
}

/// Times `product`; None where the library cannot do it, or there is not the memory.
///
/// # Errors
/// What stopped the device.
pub fn time(bench: &Bench, blas: &Rc<Blas>, product: &Product) -> Result<Option<Peer>> {
    let Ok(prepared) = blas.prepare(product) else { return Ok(None) };
    let (memory, room) = (product.bytes(), bench.room()?);
    if memory > room {
        return Ok(None);
    }
    let ways = prepared.ways();
    let (way, refused) = Default::default();
    let contest = Rc::new(Contest { blas: Rc::clone(blas), prepared, way, refused });
    let block = prepare::block(memory as usize);
    let source = Source::new(bench.gpu, &block);
    let count = timing::copies(memory, bench.l2, room / 2);
    let mut copies: Vec<_> = (0..count).map(|_| contest.ready(source.operands(product))).collect();
    if let Some(fault) = bench.gpu.fault() {
        return Err(DriverError(fault));
    }
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
    blas: Rc<Blas>,
    prepared: Prepared,
    /// Whose turn it is.
    way: Cell<usize>,
    /// Whether it was refused.
    refused: Cell<bool>,
}

impl Contest {
    /// The product on these operands, by the way whose turn it is.
    fn ready(self: &Rc<Self>, mut operands: Operands) -> Ready<Gpu> {
        let this = Rc::clone(self);
        Box::new(move |_| {
            let done = this.blas.multiply(&this.prepared, this.way.get(), &mut operands);
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
