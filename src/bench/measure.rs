//! Times calls on a device: what `ops`, `gemm` and `attention` have in common.

use super::call::Call;
use super::ceilings::{Ceilings, floor};
use super::peer;
use super::prepare::{self, Ready, Source};
use super::report::{Row, Skipped};
use super::timing::{self, Timing};
use crate::device::gpu::Gpu;
use crate::device::gpu::driver::{DriverError, Result};
use crate::device::meter::{Meter, OpRecord};
use crate::device::null::Null;
use crate::device::{Format, Memory};
use crate::ops::linear::Rung;
use crate::plan;

/// Memory that is left alone [bytes]: workspaces, and what the driver takes.
const SPARE: u64 = 2_000_000_000;

/// A device to measure.
pub struct Bench<'a> {
    pub gpu: &'a Gpu,
    pub emulated: bool,
    /// Of the L2 cache [bytes]; 0: nothing is rotated.
    pub l2: u64,
    /// To spend on each call [s].
    pub budget: f64,
    /// The device by its data sheet, if `plan` knows it.
    pub known: Option<&'static plan::Gpu>,
}

/// What a call is, before it is timed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Facts {
    pub op: &'static str,
    pub flops: f64,
    /// That must cross memory at least.
    pub bytes: f64,
    /// Of its tensors [bytes].
    pub memory: u64,
}

/// What `call` costs, by its op's own account.
pub fn facts(call: &Call) -> Facts {
    let dev = Meter::new(Null::gpu());
    let mut ready = Source::new(&dev, &[]).ready(call);
    let memory = dev.device().bytes().values().sum();
    // Making ready may have taken a forward pass.
    dev.reset();
    ready(&dev);
    let OpRecord { op, flops, bytes, .. } = dev.by_size()[0];
    Facts { op, flops, bytes, memory }
}

impl Bench<'_> {
    /// Times `call` on tensors of its own.
    ///
    /// # Errors
    /// What stopped the device; it then does nothing any more.
    pub fn time(&self, call: &Call) -> Result<Timing> {
        let mut copies = self.copies(facts(call).memory, |source| source.ready(call))?;
        timing::time(self.gpu, &mut copies, self.budget)
    }

    /// What `ready` makes on tensors of `memory` bytes, so often that none waits in the L2.
    pub(super) fn copies(
        &self,
        memory: u64,
        ready: impl Fn(&Source<Gpu>) -> Ready<Gpu>,
    ) -> Result<Vec<Ready<Gpu>>> {
        let block = prepare::block(memory as usize / Format::BF16.bytes);
        let source = Source::new(self.gpu, &block);
        let count = timing::copies(memory, self.l2, self.room()? / 2);
        let copies = (0..count).map(|_| ready(&source)).collect();
        self.gpu.fault().map_or(Ok(copies), |fault| Err(DriverError(fault)))
    }

    /// Times `call`, which a step makes `calls` times, beside the ceilings; or says why not.
    pub fn row(
        &self,
        call: &Call,
        calls: u64,
        ceilings: &Ceilings,
    ) -> Result<std::result::Result<Row, Skipped>> {
        let facts = facts(call);
        let (op, shape) = (facts.op.to_string(), call.shape());
        let room = self.room()?;
        if facts.memory > room {
            let (need, free) = (plan::size(facts.memory), plan::size(room));
            let why = format!("it takes {need}, and {free} is free: lower --tokens");
            return Ok(Err(Skipped { op, shape, why }));
        }
        let timing = self.time(call)?;
        let row = self.account((op, shape, calls), timing, (facts.flops, facts.bytes), ceilings);
        let peer = match peer::product(call) {
            Some(product) => peer::time(self, &product)?,
            None => None,
        };
        Ok(Ok(Row { peer, ..row }))
    }

    /// Times a bare product by a rung of the ladder, beside the ceilings.
    pub fn rung(&self, rung: Rung, product: &Call, ceilings: &Ceilings) -> Result<Row> {
        let Facts { flops, bytes, memory, .. } = facts(product);
        let mut copies = self.copies(memory, |source| source.rung(rung, product))?;
        let timing = timing::time(self.gpu, &mut copies, self.budget)?;
        let name = (rung.name().to_string(), product.shape(), 1);
        Ok(self.account(name, timing, (flops, bytes), ceilings))
    }

    /// A row of what was timed: rates, and shares of what is possible.
    pub fn account(
        &self,
        (op, shape, calls): (String, String, u64),
        timing: Timing,
        (flops, bytes): (f64, f64),
        ceilings: &Ceilings,
    ) -> Row {
        let (ceiling, bound) = ceilings.floor(flops, bytes);
        let floor = self.known.map_or(ceiling, |gpu| {
            let (floor, _) = floor(flops, bytes, gpu.flops, gpu.bandwidth);
            floor
        });
        Row::new((op, shape, calls), timing, (flops, bytes), (ceiling, floor, bound))
    }

    /// Memory for tensors [bytes].
    pub fn room(&self) -> Result<u64> {
        Ok(self.gpu.driver().free_memory()?.saturating_sub(if self.emulated { 0 } else { SPARE }))
    }
}
