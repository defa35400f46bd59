//! What named GPUs can do, to plan for without having one.
//!
//! Peaks are dense bf16 products with f32 sums, as NVIDIA's data sheets give them (halved where
//! the sheet counts 2:4 sparsity). A real product reaches 70–90% of such a peak, so a floor from
//! peaks is a bound, not a forecast; where ceilings were measured, they are used instead.

use serde::Serialize;

use crate::device::gpu::driver::Properties;

/// One GPU.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Gpu {
    pub name: &'static str,
    /// Compute capability, e.g. (9, 0).
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub processors: u32,
    /// [bytes]
    pub memory: f64,
    /// Dense bf16 products by the data sheet [FLOP/s]: what MFU is a share of.
    pub peak: f64,
    /// What floors divide by [FLOP/s]: measured, or else the peak.
    pub flops: f64,
    /// What floors divide by [bytes/s], read and written together.
    pub bandwidth: f64,
    /// Whether `flops` and `bandwidth` were measured.
    pub measured: bool,
    pub source: &'static str,
}

impl Gpu {
    /// What its driver would say, as far as it decides how kernels are launched.
    pub fn properties(&self) -> Properties {
        // Shared memory that a block may opt in to: CUDA C++ Programming Guide, technical
        // specifications per compute capability.
        let shared_kib = match self.capability {
            (8, 0) => 163,
            (8, _) => 99,
            _ => 227,
        };
        Properties {
            name: self.name.into(),
            capability: self.capability,
            processors: self.processors,
            memory: self.memory as u64,
            shared_per_block: shared_kib * 1024,
        }
    }
}

/// A GPU by its data sheet: compute capability, multiprocessors, memory [GB], peak [TFLOP/s],
/// bandwidth [TB/s].
const fn sheet(
    name: &'static str,
    (capability, processors): ((u32, u32), u32),
    memory: f64,
    peak: f64,
    bandwidth: f64,
    source: &'static str,
) -> Gpu {
    let peak = peak * 1e12;
    let (memory, bandwidth) = (memory * 1e9, bandwidth * 1e12);
    let measured = false;
    Gpu { name, capability, processors, memory, peak, flops: peak, bandwidth, measured, source }
}

/// The GPUs that `plan` knows.
#[rustfmt::skip]
pub const GPUS: [Gpu; 12] = [
    Gpu {
        flops: 790e12,
        bandwidth: 4.3e12,
        measured: true,
        ..sheet("H200", ((9, 0), 132), 141.0, 989.0, 4.8,
            "measured: bf16 products on random data, copies")
    },
    sheet("H100", ((9, 0), 132), 80.0, 989.0, 3.35, "H100 data sheet, SXM5"),
    sheet("A100-80GB", ((8, 0), 108), 80.0, 312.0, 2.039, "A100 data sheet, SXM4 80 GB"),
    sheet("RTX4090", ((8, 9), 128), 24.0, 165.2, 1.008, "Ada architecture white paper"),
    sheet("B200", ((10, 0), 148), 180.0, 2250.0, 8.0, "DGX B200 data sheet, an eighth"),
    sheet("H100-PCIe", ((9, 0), 114), 80.0, 756.0, 2.0, "H100 data sheet, PCIe"),
    sheet("A100-40GB", ((8, 0), 108), 40.0, 312.0, 1.555, "A100 data sheet, SXM4 40 GB"),
    sheet("L40S", ((8, 9), 142), 48.0, 362.0, 0.864, "L40S data sheet"),
    sheet("L4", ((8, 9), 58), 24.0, 121.0, 0.3, "L4 data sheet"),
    sheet("A10", ((8, 6), 72), 24.0, 125.0, 0.6, "A10 data sheet"),
    sheet("A40", ((8, 6), 84), 48.0, 149.7, 0.696, "A40 data sheet"),
    sheet("RTX3090", ((8, 6), 82), 24.0, 71.0, 0.936, "GA102 architecture white paper"),
];

/// The GPU that a driver has told of, if it is one of these: of its chip, size and name.
pub fn of(properties: &Properties) -> Option<&'static Gpu> {
    let told = properties.name.replace(' ', "");
    GPUS.iter().find(|gpu| {
        // Drivers count memory to the byte, data sheets in round figures.
        let memory = properties.memory as f64 / gpu.memory;
        let name = gpu.name.split('-').next().unwrap_or(gpu.name);
        let chip = (gpu.capability, gpu.processors);
        chip == (properties.capability, properties.processors)
            && (0.85..1.15).contains(&memory)
            && told.contains(name)
    })
}

/// The GPU of this name, in any case.
pub fn gpu(name: &str) -> Option<&'static Gpu> {
    GPUS.iter().find(|gpu| gpu.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drivers_tell_is_recognised() {
        let told = |name: &str, capability, processors, memory| Properties {
            name: name.into(),
            capability,
            processors,
            memory,
            shared_per_block: 0,
        };
        let found = |properties| of(&properties).map(|gpu| gpu.name);
        assert_eq!(found(told("NVIDIA H200", (9, 0), 132, 150_110_011_392)), Some("H200"));
        assert_eq!(found(told("NVIDIA H100 80GB HBM3", (9, 0), 132, 85_029_158_912)), Some("H100"));
        let (a100, geforce) = ("NVIDIA A100-SXM4-40GB", "NVIDIA GeForce RTX 4090");
        assert_eq!(found(told(a100, (8, 0), 108, 42_298_834_944)), Some("A100-40GB"));
        assert_eq!(found(told(geforce, (8, 9), 128, 25_757_220_864)), Some("RTX4090"));
        assert_eq!(found(told("emulator", (9, 0), 132, 150_110_011_392)), None);
    }
}
