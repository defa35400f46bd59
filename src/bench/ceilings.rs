//! What this device can do at most, measured in the same run: bytes by a copy, operations by a
//! large product, of cuBLASLt where it is found and else of our own kernels; the report says which.
//!
//! Our own product is a ceiling of these kernels, not of the chip: shares of it say how far a shape
//! falls behind the best shape. The data-sheet peak of a GPU that `plan` knows stands beside it.

use serde::{Deserialize, Serialize};

use super::call::Call;
use super::measure::{self, Bench};
use super::peer;
use super::prepare::Ready;
use super::sweep;
use super::timing::{self, Timing};
use crate::device::gpu::driver::Result;
use crate::device::{Class, Memory};

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Bytes read and written a second by a copy within the device.
    pub bytes_per_s: f64,
    /// Of that copy [bytes].
    pub copied: f64,
    /// Operations a second of a product.
    pub flops_per_s: f64,
    /// Its shape.
    pub product: String,
    /// Whose it is.
    #[serde(default)]
    pub product_of: String,
}

impl Ceilings {
    /// The shortest time [s] of so many operations and bytes, and which of the two binds.
    pub fn floor(&self, flops: f64, bytes: f64) -> (f64, &'static str) {
        floor(flops, bytes, self.flops_per_s, self.bytes_per_s)
    }
}

/// The longer of computing and moving bytes [s], and its name.
pub fn floor(flops: f64, bytes: f64, flops_per_s: f64, bytes_per_s: f64) -> (f64, &'static str) {
    let (compute, memory) = (flops / flops_per_s, bytes / bytes_per_s);
    if compute > memory { (compute, "compute") } else { (memory, "memory") }
}

/// Measures both: on a GPU 256 MiB (or four times the L2) and 8192³, on the emulator what it can
/// do in a moment.
pub fn measure(bench: &Bench) -> Result<Ceilings> {
    let (bytes, side) = match bench.emulated {
        true => (4 << 20, 128),
        false => ((4 * bench.l2).max(256 << 20) as usize, 8192),
    };
    let copy = copy(bench, bytes)?;
    let product = sweep::product(side, side, side);
    let flops = measure::facts(&product).flops;
    let (seconds, product_of) = match by_library(bench, &product)? {
        Some(seconds) => (seconds, "cuBLASLt"),
        None => (bench.time(&product)?.seconds, "our own kernels"),
    };
    Ok(Ceilings {
        bytes_per_s: 2.0 * bytes as f64 / copy.seconds,
        copied: bytes as f64,
        flops_per_s: flops / seconds,
        product: product.shape(),
        product_of: product_of.into(),
    })
}

/// What a product takes by cuBLASLt [s], where it is there.
fn by_library(bench: &Bench, product: &Call) -> Result<Option<f64>> {
    let Some(product) = peer::product(product) else { return Ok(None) };
    Ok(peer::time(bench, &product)?.map(|peer| peer.seconds))
}

/// Copies one half of a tensor to the other.
fn copy(bench: &Bench, bytes: usize) -> Result<Timing> {
    let half = bytes / size_of::<f32>();
    let mut tensor = bench.gpu.acc(Class::Scratch, 2 * half);
    let copy: Ready<_> = Box::new(move |_| tensor.copy_within(0, half, half));
    timing::time(bench.gpu, &mut [copy], bench.budget)
}
