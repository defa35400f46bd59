//! Copies between the host and the device, through two pinned buffers taken at the start: one is
//! filled while the other travels, and a caller's memory is free again when the call returns.

use std::slice::{from_raw_parts, from_raw_parts_mut};

use cudarc::driver::result::{self, DriverError, event, stream};
use cudarc::driver::sys::{CUdeviceptr, CUevent, CUevent_flags, CUstream};

type Result<T> = std::result::Result<T, DriverError>;

/// Long enough that the cost of a copy is the bytes.
const BYTES: usize = 8 << 20;

#[derive(Debug, Clone, Copy)]
struct Pinned {
    memory: *mut u8,
    /// Recorded when the buffer's last copy was issued.
    travelled: CUevent,
}

#[derive(Debug)]
pub struct Staging {
    buffers: [Pinned; 2],
    /// Which is filled next.
    next: usize,
}

impl Staging {
    /// Needs a current context.
    pub fn new() -> Result<Staging> {
        let pinned = || {
            // SAFETY: the memory is written before it is read; plain pinned memory (no flags), as
            // write-combined memory is slow to read back.
            let memory = unsafe { result::malloc_host(BYTES, 0) }?;
            let travelled = event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
            Ok(Pinned { memory: memory.cast(), travelled })
        };
        Ok(Staging { buffers: [pinned()?, pinned()?], next: 0 })
    }

    pub fn upload(&mut self, mut to: CUdeviceptr, bytes: &[u8], stream: CUstream) -> Result<()> {
        for chunk in bytes.chunks(BYTES) {
            let Pinned { memory, travelled } = self.buffers[self.next];
            self.next = 1 - self.next;
            // SAFETY: the buffer is BYTES long, and nobody reads it once its copy has travelled;
            // the caller owns the device memory.
            unsafe {
                event::synchronize(travelled)?;
                std::ptr::copy_nonoverlapping(chunk.as_ptr(), memory, chunk.len());
                result::memcpy_htod_async(to, from_raw_parts(memory, chunk.len()), stream)?;
                event::record(travelled, stream)?;
            }
            to += chunk.len() as u64;
        }
        Ok(())
    }

    /// Waits for all work of the stream.
    pub fn download(
        &mut self,
        mut from: CUdeviceptr,
        bytes: &mut [u8],
        stream: CUstream,
    ) -> Result<()> {
        let Pinned { memory, .. } = self.buffers[self.next];
        for chunk in bytes.chunks_mut(BYTES) {
            // SAFETY: the copy waits in the stream for what used the buffer before, and the host
            // for the copy; the caller owns the device memory.
            unsafe {
                let pinned = from_raw_parts_mut(memory, chunk.len());
                result::memcpy_dtoh_async(pinned, from, stream)?;
                stream::synchronize(stream)?;
                chunk.copy_from_slice(pinned);
            }
            from += chunk.len() as u64;
        }
        Ok(())
    }

    /// Gives everything back; the stream is idle.
    pub fn free(&mut self) {
        for Pinned { memory, travelled } in &self.buffers {
            // SAFETY: both came from `new`, and are freed once, by the driver's drop. A device
            // that was lost says so again, which helps nobody.
            let _ = unsafe { result::free_host(memory.cast()) };
            // SAFETY: as above.
            let _ = unsafe { event::destroy(*travelled) };
        }
    }
}
