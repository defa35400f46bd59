//! Copies between the host and the device through pinned memory, taken at the start: a caller's
//! memory is free again when the call returns, and small results are brought without waiting.

use std::slice::{from_raw_parts, from_raw_parts_mut};

use cudarc::driver::result::{self, DriverError, event, stream};
use cudarc::driver::sys::{CUdeviceptr, CUevent, CUevent_flags, CUstream};

use crate::device::gpu::driver::{FETCHED, FETCHES, Fetch};

type Result<T> = std::result::Result<T, DriverError>;

/// Pinned memory for copies, in slots that are used in turn. An upload waits until the slot's last
/// copy has travelled, which in a stream is after the work before it; a step's few uploads must
/// not come round to those of the step that still runs, so there are many slots.
const SLOTS: usize = 64;
/// Long enough that the cost of a copy is its bytes.
const SLOT: usize = 256 << 10;

/// Pinned memory in equal parts, each with an event for the last copy that used it.
#[derive(Debug)]
struct Ring {
    memory: *mut u8,
    travelled: Vec<CUevent>,
    /// Parts used so far.
    used: usize,
}

impl Ring {
    fn new(parts: usize, part: usize) -> Result<Ring> {
        // SAFETY: the memory is written before it is read; plain pinned memory (no flags), as
        // write-combined memory is slow to read back.
        let memory = unsafe { result::malloc_host(parts * part, 0) }?;
        let event = || event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING);
        let travelled = (0..parts).map(|_| event()).collect::<Result<_>>()?;
        Ok(Ring { memory: memory.cast(), travelled, used: 0 })
    }

    /// The event of the part that was, or will be, used as number `use_`.
    fn event(&self, use_: usize) -> CUevent {
        self.travelled[use_ % self.travelled.len()]
    }

    /// Where that part begins.
    fn part(&self, use_: usize, part: usize) -> *mut u8 {
        // SAFETY: there are as many parts as events.
        unsafe { self.memory.add(use_ % self.travelled.len() * part) }
    }

    /// Gives everything back; the stream is idle.
    fn free(&mut self) {
        // SAFETY: both came from `new`, and are freed once, by the driver's drop. A device that was
        // lost says so again, which helps nobody.
        let _ = unsafe { result::free_host(self.memory.cast()) };
        for event in self.travelled.drain(..) {
            // SAFETY: as above.
            let _ = unsafe { event::destroy(event) };
        }
    }
}

#[derive(Debug)]
pub struct Staging {
    copies: Ring,
    fetches: Ring,
}

impl Staging {
    /// Needs a current context.
    pub fn new() -> Result<Staging> {
        Ok(Staging { copies: Ring::new(SLOTS, SLOT)?, fetches: Ring::new(FETCHES, FETCHED)? })
    }

    pub fn upload(&mut self, mut to: CUdeviceptr, bytes: &[u8], stream: CUstream) -> Result<()> {
        for chunk in bytes.chunks(SLOT) {
            let ring = &mut self.copies;
            let (slot, travelled) = (ring.part(ring.used, SLOT), ring.event(ring.used));
            ring.used += 1;
            // SAFETY: the slot is SLOT long, and nobody reads it once its copy has travelled; the
            // caller owns the device memory.
            unsafe {
                event::synchronize(travelled)?;
                std::ptr::copy_nonoverlapping(chunk.as_ptr(), slot, chunk.len());
                result::memcpy_htod_async(to, from_raw_parts(slot, chunk.len()), stream)?;
                event::record(travelled, stream)?;
            }
            to += chunk.len() as u64;
        }
        Ok(())
    }

    /// Waits for all work of the stream, and takes all slots at once: uploads have then travelled.
    pub fn download(
        &mut self,
        mut from: CUdeviceptr,
        bytes: &mut [u8],
        stream: CUstream,
    ) -> Result<()> {
        for chunk in bytes.chunks_mut(SLOTS * SLOT) {
            // SAFETY: the copy waits in the stream for what used the slots before, and the host
            // for the copy; the caller owns the device memory.
            unsafe {
                let pinned = from_raw_parts_mut(self.copies.memory, chunk.len());
                result::memcpy_dtoh_async(pinned, from, stream)?;
                stream::synchronize(stream)?;
                chunk.copy_from_slice(pinned);
            }
            from += chunk.len() as u64;
        }
        Ok(())
    }

    pub fn fetch(&mut self, from: CUdeviceptr, bytes: usize, stream: CUstream) -> Result<Fetch> {
        assert!(bytes <= FETCHED, "a fetch of {bytes} bytes");
        let ring = &mut self.fetches;
        let (part, event) = (ring.part(ring.used, FETCHED), ring.event(ring.used));
        // SAFETY: the part is FETCHED long and is read by nobody, as old fetches are given up; the
        // caller owns the device memory.
        unsafe {
            result::memcpy_dtoh_async(from_raw_parts_mut(part, bytes), from, stream)?;
            event::record(event, stream)?;
        }
        ring.used += 1;
        Ok(Fetch(ring.used - 1))
    }

    pub fn arrived(&self, fetch: Fetch) -> bool {
        // SAFETY: the event lives as long as `self`. An error shows when the fetch is taken.
        unsafe { event::query(self.fetches.event(fetch.0)) }.is_ok()
    }

    pub fn fetched(&self, fetch: Fetch, bytes: &mut [u8]) -> Result<()> {
        let ring = &self.fetches;
        assert!(fetch.0 + FETCHES >= ring.used, "a fetch that others have replaced");
        // SAFETY: the copy into this part has been made, and no later one uses it yet.
        unsafe {
            event::synchronize(ring.event(fetch.0))?;
            bytes.copy_from_slice(from_raw_parts(ring.part(fetch.0, FETCHED), bytes.len()));
        }
        Ok(())
    }

    /// Gives everything back; the stream is idle.
    pub fn free(&mut self) {
        self.copies.free();
        self.fetches.free();
    }
}
