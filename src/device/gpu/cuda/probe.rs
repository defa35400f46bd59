//! Whether there is a GPU to use; the absence of one is a sentence, never a panic.

use cudarc::driver::result::{self, device};
use cudarc::driver::sys::{self, CUdevice, CUdevice_attribute as Attribute};

use super::words;
use crate::device::gpu::driver::{DriverError, Properties};

/// The oldest driver that loads the kernels: those of CUDA 13.0, since machine code runs on any
/// driver of its own major version.
const OLDEST_DRIVER: (i32, i32) = (13, 0);
/// Compute capability of the oldest chip with kernels.
pub const OLDEST_CHIP: (u32, u32) = (8, 0);

/// Why no GPU can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    #[error(
        "no NVIDIA driver is installed (libcuda.so is nowhere): install release 580 or newer, or \
         use the CPU"
    )]
    NoDriver,
    #[error(
        "the NVIDIA driver is for CUDA {0}.{1}, and the kernels need one for 13.0: install \
         release 580 or newer"
    )]
    OldDriver(i32, i32),
    #[error(
        "the NVIDIA driver finds no GPU: see what `nvidia-smi` lists, and whether \
         CUDA_VISIBLE_DEVICES hides it"
    )]
    NoDevice,
    #[error(
        "the {name} is of compute capability {}.{}, and the kernels need {}.{} (Ampere) or newer: \
         use another GPU or the CPU",
        .capability.0, .capability.1, OLDEST_CHIP.0, OLDEST_CHIP.1
    )]
    OldDevice { name: String, capability: (u32, u32) },
    #[error(
        "this program was built without kernels for GPUs, for lack of nvcc: run \
         scripts/cuda-toolkit.sh and build it again"
    )]
    NoKernels,
    /// What the driver said, e.g. that the GPU is busy.
    #[error("{0}")]
    Failed(String),
}

impl From<result::DriverError> for Unavailable {
    fn from(error: result::DriverError) -> Unavailable {
        match error.0 {
            sys::CUresult::CUDA_ERROR_NO_DEVICE => Unavailable::NoDevice,
            _ => Unavailable::Failed(words::sentence(error)),
        }
    }
}

impl From<Unavailable> for DriverError {
    fn from(why: Unavailable) -> DriverError {
        DriverError(why.to_string())
    }
}

/// A GPU, with what launches do not depend on; None where the driver does not say.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    pub properties: Properties,
    /// The highest of its multiprocessors [Hz].
    pub clock: Option<f64>,
    /// Of the L2 cache [bytes].
    pub l2: Option<u32>,
    /// Where it sits, as NVML names it: `00000000:3B:00.0`.
    pub pci: Option<String>,
}

/// All GPUs, in the driver's order; there is at least one.
pub fn devices() -> Result<Vec<Device>, Unavailable> {
    let device = |ordinal| {
        let device = device::get(ordinal)?;
        // SAFETY: the device came from `device::get`.
        let attribute = |which| unsafe { device::get_attribute(device, which) }.ok();
        let khz = attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE);
        let l2 = attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
        let (clock, l2) = (khz.map(|khz| 1e3 * f64::from(khz)), l2.map(|bytes| bytes as u32));
        let pci = || {
            let domain = attribute(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID)?;
            let bus = attribute(Attribute::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID)?;
            let slot = attribute(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID)?;
            Some(format!("{domain:08X}:{bus:02X}:{slot:02X}.0"))
        };
        Ok(Device { properties: properties(device)?, clock, l2, pci: pci() })
    };
    (0..start()?).map(device).collect()
}

/// The version of CUDA that the driver is for, e.g. (13, 0).
pub fn driver_version() -> Result<(i32, i32), Unavailable> {
    // SAFETY: loading libcuda.so runs its start-up code, as any program that uses a GPU does.
    // Every call below this check panics where the library is missing.
    if !unsafe { sys::is_culib_present() } {
        return Err(Unavailable::NoDriver);
    }
    // Before cuInit, which a broken driver may fail; any driver answers this one.
    let mut version = 0;
    // SAFETY: the driver writes one integer.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    Ok((version / 1000, version % 1000 / 10))
}

/// Starts the driver; the number of GPUs.
pub(super) fn start() -> Result<i32, Unavailable> {
    let version = driver_version()?;
    if version < OLDEST_DRIVER {
        return Err(Unavailable::OldDriver(version.0, version.1));
    }
    result::init()?;
    match device::get_count()? {
        0 => Err(Unavailable::NoDevice),
        count => Ok(count),
    }
}

pub(super) fn properties(device: CUdevice) -> Result<Properties, Unavailable> {
    // SAFETY: the device came from `device::get`.
    let attribute = |which| unsafe { device::get_attribute(device, which) }.map(|n| n as u32);
    Ok(Properties {
        name: device::get_name(device)?,
        capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        processors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        // SAFETY: as above.
        memory: unsafe { device::total_mem(device) }? as u64,
        shared_per_block: attribute(
            Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        )?,
    })
}
