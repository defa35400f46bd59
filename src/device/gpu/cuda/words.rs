//! Errors of the CUDA driver as sentences that say what to do.

use cudarc::driver::result::DriverError;
use cudarc::driver::sys::CUresult;

/// What an error means and what helps; the driver's own words where nothing better is known.
pub fn sentence(error: DriverError) -> String {
    let known = match error.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
            "the GPU's memory is exhausted: use a smaller micro-batch (`warpwright plan` shows \
             what fits), or stop what else runs on the GPU (see `nvidia-smi`)"
        }
        CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE => {
            "the GPU is busy: another process holds it for itself (see `nvidia-smi`); wait for it \
             or choose another with CUDA_VISIBLE_DEVICES"
        }
        CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU | CUresult::CUDA_ERROR_INVALID_IMAGE => {
            "the kernel was not built for this GPU: build again with WARPWRIGHT_CUDA_ARCH unset; \
             some kernels exist for sm_90a (Hopper) alone"
        }
        CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION | CUresult::CUDA_ERROR_INVALID_PTX => {
            "the kernel has no machine code for this GPU, and the driver is too old to compile \
             it: install the newest NVIDIA driver"
        }
        CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES => {
            "a block takes more registers or shared memory than the GPU has for one"
        }
        CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE => {
            "the blocks do not all fit on the GPU at once, as this kernel needs them to"
        }
        CUresult::CUDA_ERROR_LAUNCH_TIMEOUT => {
            "a kernel ran so long that the system stopped it: use a GPU that drives no display"
        }
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS => {
            "a kernel went astray in memory, which is a bug here: `warpwright verify` finds the \
             kernel, and compute-sanitizer the line"
        }
        CUresult::CUDA_ERROR_LAUNCH_FAILED
        | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | CUresult::CUDA_ERROR_INVALID_PC
        | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
        | CUresult::CUDA_ERROR_ASSERT => {
            "a kernel failed, which is a bug here: `warpwright verify` finds the kernel, and \
             compute-sanitizer the line"
        }
        CUresult::CUDA_ERROR_ECC_UNCORRECTABLE | CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE => {
            "the GPU reports broken memory or a broken link: reset it or use another, and resume \
             from the last checkpoint"
        }
        CUresult::CUDA_ERROR_EXTERNAL_DEVICE
        | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
        | CUresult::CUDA_ERROR_DEINITIALIZED => {
            "the GPU was lost (it fell off the bus, was reset, or its driver was stopped): see \
             `nvidia-smi` and the kernel's log, then resume from the last checkpoint"
        }
        CUresult::CUDA_ERROR_STUB_LIBRARY => {
            "the libcuda.so that was found is the toolkit's stub, not a driver: take its folder \
             out of LD_LIBRARY_PATH"
        }
        CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            "the driver's library and its kernel module are of different releases: restart the \
             machine, or the container with the host's driver"
        }
        CUresult::CUDA_ERROR_SYSTEM_NOT_READY => {
            "the GPUs are still starting (NVLink systems wait for the Fabric Manager service)"
        }
        CUresult::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => {
            "the forward-compatibility driver does not support this GPU: use the host's driver"
        }
        _ => return unknown(error),
    };
    known.to_string()
}

/// The driver's own name and words for an error.
fn unknown(error: DriverError) -> String {
    let text = |words: Result<&std::ffi::CStr, _>| {
        words.map_or_else(|_| "unknown".into(), |words| words.to_string_lossy().into_owned())
    };
    format!("the CUDA driver says: {} ({})", text(error.error_string()), text(error.error_name()))
}

/// Whether an error tells of work launched earlier, not of the call that returned it.
pub fn is_late(error: DriverError) -> bool {
    matches!(
        error.0,
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
            | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUresult::CUDA_ERROR_LAUNCH_FAILED
            | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
            | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUresult::CUDA_ERROR_INVALID_PC
            | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUresult::CUDA_ERROR_ASSERT
            | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
    )
}
