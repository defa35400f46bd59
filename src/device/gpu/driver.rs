//! What a GPU offers, in the dozen calls that we need, so that one launcher serves a real GPU
//! ([`super::cuda`]) and the emulator ([`super::emulator`]).
//!
//! Everything but [`Driver::download`], [`Driver::fetched`] and [`Driver::wait`] may return before
//! the device has done it; work is done in the order of the calls, as on one stream.

use std::ffi::c_void;
use std::fmt::Debug;

use super::cuda::blas::Blas;
use super::work::Work;

/// An address in device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub u64);

impl Address {
    /// `bytes` further on.
    pub fn offset(self, bytes: usize) -> Address {
        Address(self.0 + bytes as u64)
    }
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    pub name: String,
    /// Compute capability, e.g. (9, 0).
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub processors: u32,
    /// Global memory [bytes].
    pub memory: u64,
    /// Shared memory that one block may opt in to [bytes].
    pub shared_per_block: u32,
}

/// How a kernel is launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Its exported name.
    pub kernel: &'static str,
    /// Blocks, x, y, z.
    pub grid: [u32; 3],
    /// Threads a block.
    pub block: [u32; 3],
    /// Blocks a cluster; [1, 1, 1] for none.
    pub cluster: [u32; 3],
    /// Dynamic shared memory [bytes].
    pub shared: u32,
    /// All blocks are resident at once, so that they may wait for one another.
    pub cooperative: bool,
    /// It may begin before the work before it has ended, and waits for that itself (programmatic
    /// dependent launch), where the chip can.
    pub overlaps: bool,
}

/// A tile of a tensor in global memory, as TMA fetches it.
#[derive(Debug, Clone, Copy)]
pub struct TileShape<'a> {
    pub base: Address,
    pub element_bytes: u32,
    /// Elements along each dimension, the contiguous one first; 1 to 5 of them.
    pub dims: &'a [u64],
    /// Bytes from one index to the next of each dimension but the first; multiples of 16.
    pub strides: &'a [u64],
    /// Elements of a tile along each dimension.
    pub tile: &'a [u32],
    /// Width of the swizzle in shared memory [bytes]: 0, 32, 64 or 128.
    pub swizzle: u32,
}

/// CUDA's `CUtensorMap`, passed to kernels by value.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(128))]
pub struct TensorMap(pub [u64; 16]);

/// A point in a driver's stream; see [`Driver::mark`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(pub usize);

/// Recorded work; see [`Driver::record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recording(pub usize);

/// A small result on its way to the host; see [`Driver::fetch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch(pub usize);

/// The longest fetch [bytes].
pub const FETCHED: usize = 256;

/// Fetches that are kept; an older one is gone.
pub const FETCHES: usize = 16;

/// What went wrong on a device, in words that say what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DriverError(pub String);

pub type Result<T> = std::result::Result<T, DriverError>;

/// A device with one stream of work.
pub trait Driver: Debug {
    fn properties(&self) -> &Properties;

    /// Memory that is free now [bytes].
    fn free_memory(&self) -> Result<u64> {
        Ok(self.properties().memory)
    }

    /// `bytes` of memory, aligned to 256, not initialised. `label` says in errors what it was for.
    fn alloc(&self, bytes: usize, label: &'static str) -> Result<Address>;

    /// Gives memory back once the work before has used it.
    fn free(&self, address: Address);

    /// Copies to the device; `bytes` may be reused on return (it goes through pinned memory).
    fn upload(&self, to: Address, bytes: &[u8]) -> Result<()>;

    /// Waits for all work so far and copies to the host.
    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()>;

    /// Starts to copy up to [`FETCHED`] bytes to the host, after all work so far, and waits for
    /// nothing.
    fn fetch(&self, from: Address, bytes: usize) -> Result<Fetch>;

    /// Whether a fetch is there.
    fn arrived(&self, fetch: Fetch) -> bool;

    /// Waits for a fetch, one of the last [`FETCHES`]; `bytes` has its length.
    fn fetched(&self, fetch: Fetch, bytes: &mut [u8]) -> Result<()>;

    /// Copies within the device.
    fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<()>;

    /// Sets every byte.
    fn fill(&self, to: Address, byte: u8, bytes: usize) -> Result<()>;

    /// Launches a kernel.
    ///
    /// # Safety
    /// `params` points to one value for each of the kernel's parameters, of its type; addresses
    /// among them are of live memory as large as the kernel takes it to be.
    unsafe fn launch(&self, launch: &Launch, params: &[*const c_void]) -> Result<()>;

    /// Bytes of each parameter of a kernel, where the driver knows; an error if there is no such
    /// kernel.
    fn signature(&self, kernel: &str) -> Result<Option<Vec<u32>>>;

    fn tensor_map(&self, shape: &TileShape) -> Result<TensorMap>;

    /// Waits for all work so far.
    fn wait(&self) -> Result<()>;

    /// Marks this point of the stream.
    fn mark(&self) -> Result<Mark>;

    /// Seconds of device time between two marks; waits for the later one.
    fn elapsed(&self, from: Mark, to: Mark) -> Result<f64>;

    /// Takes down work, as a CUDA graph, without running it.
    ///
    /// # Safety
    /// What [`Driver::launch`] asks for holds of each launch whenever the recording is replayed.
    unsafe fn record(&self, work: &[Work]) -> Result<Recording>;

    /// Puts `work` in the place of what a recording has at `index`, from its next replay on; see
    /// [`Work::may_replace`]. After an error the recording is good for nothing.
    ///
    /// # Safety
    /// As of [`Driver::record`].
    unsafe fn revise(&self, recording: Recording, index: usize, work: &Work) -> Result<()>;

    /// Runs a recording.
    ///
    /// # Safety
    /// As promised to [`Driver::record`].
    unsafe fn replay(&self, recording: Recording) -> Result<()>;

    /// Gives a recording back.
    fn forget(&self, recording: Recording);

    /// cuBLASLt on this device's stream, which is loaded when it is first asked for.
    ///
    /// # Errors
    /// Why there is none.
    fn blas(&self) -> Result<&Blas> {
        Err(DriverError("cuBLASLt multiplies on an NVIDIA GPU alone: take --device cuda".into()))
    }

    /// What the driver has counted by source line since the last call, as a table; empty where it
    /// counts nothing.
    fn counters(&self) -> String {
        String::new()
    }
}
