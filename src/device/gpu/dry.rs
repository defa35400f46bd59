//! A driver without a device: it counts what it is asked for and does nothing. A rehearsal of a
//! step on it tells what memory the step takes, and that its launches add up.

use std::cell::Cell;
use std::ffi::c_void;

use super::driver::{
    Address, Driver, Fetch, Launch, Mark, Properties, Recording, Result, TensorMap, TileShape,
};
use super::work::Work;

/// Counts.
#[derive(Debug)]
pub struct Dry {
    properties: Properties,
    next: Cell<u64>,
}

impl Dry {
    /// As though it were a device with these properties.
    pub fn new(properties: Properties) -> Dry {
        Dry { properties, next: Cell::new(256) }
    }
}

impl Driver for Dry {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn alloc(&self, bytes: usize, _: &'static str) -> Result<Address> {
        let address = self.next.get();
        self.next.set(address + bytes.next_multiple_of(256) as u64);
        Ok(Address(address))
    }

    fn free(&self, _: Address) {}

    fn upload(&self, _: Address, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn download(&self, _: Address, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(0);
        Ok(())
    }

    fn fetch(&self, _: Address, _: usize) -> Result<Fetch> {
        Ok(Fetch(0))
    }

    fn arrived(&self, _: Fetch) -> bool {
        true
    }

    fn fetched(&self, _: Fetch, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(0);
        Ok(())
    }

    fn copy(&self, _: Address, _: Address, _: usize) -> Result<()> {
        Ok(())
    }

    fn fill(&self, _: Address, _: u8, _: usize) -> Result<()> {
        Ok(())
    }

    unsafe fn launch(&self, _: &Launch, _: &[*const c_void]) -> Result<()> {
        Ok(())
    }

    fn signature(&self, _: &str) -> Result<Option<Vec<u32>>> {
        Ok(None)
    }

    fn tensor_map(&self, _: &TileShape) -> Result<TensorMap> {
        Ok(TensorMap([0; 16]))
    }

    fn wait(&self) -> Result<()> {
        Ok(())
    }

    fn mark(&self) -> Result<Mark> {
        Ok(Mark(0))
    }

    fn elapsed(&self, _: Mark, _: Mark) -> Result<f64> {
        Ok(0.0)
    }

    unsafe fn record(&self, _: &[Work]) -> Result<Recording> {
        Ok(Recording(0))
    }

    unsafe fn revise(&self, _: Recording, _: usize, _: &Work) -> Result<()> {
        Ok(())
    }

    unsafe fn replay(&self, _: Recording) -> Result<()> {
        Ok(())
    }

    fn forget(&self, _: Recording) {}
}
