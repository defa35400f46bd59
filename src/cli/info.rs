//! `warpwright info`: what there is to compute on, and which kernels were built.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::thread::available_parallelism;

use anyhow::Result;
use serde::Serialize;

use super::say;
use crate::device::gpu::cuda::{Cuda, probe};
use crate::device::gpu::driver::{Driver, Properties};
use crate::device::gpu::emulator::{self, Emulator, Modes};
use crate::device::gpu::module::{self, Built, Form};
use crate::plan::{free_memory, size, total_memory};
use crate::telemetry::format::commas;

/// Say which devices are here, what they can do, and which kernels were built
///
/// Where a device cannot be used, it says why, and what would help.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    warpwright info\n  \
    warpwright info --kernels      registers and shared memory of every kernel, by chip\n  \
    warpwright info --json")]
pub struct InfoArgs {
    /// List the kernels that were compiled for GPUs
    #[arg(long)]
    pub kernels: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Everything that is told. Memory is in bytes.
#[derive(Serialize)]
struct Info {
    version: &'static str,
    cuda: CudaInfo,
    emulator: EmulatorInfo,
    cpu: CpuInfo,
    kernels: KernelsInfo,
}

#[derive(Serialize)]
struct CudaInfo {
    /// CUDA that the driver is for, e.g. `13.0`.
    driver: Option<String>,
    gpus: Vec<GpuInfo>,
    /// Why the first GPU cannot be used, and what would help; None: it can.
    unusable: Option<String>,
}

#[derive(Serialize)]
struct GpuInfo {
    name: String,
    capability: String,
    multiprocessors: u32,
    clock_hz: Option<f64>,
    shared_per_block: u32,
    l2: Option<u32>,
    memory: u64,
    /// Of the first GPU, where it can be used.
    free: Option<u64>,
    /// In which form it gets the kernels.
    kernels: String,
}

#[derive(Serialize)]
struct EmulatorInfo {
    builds: Vec<&'static str>,
    /// How many it has.
    kernels: usize,
    /// Why it cannot be used, and what would help; None: it can.
    unusable: Option<String>,
}

#[derive(Serialize)]
struct CpuInfo {
    name: Option<String>,
    /// That this process may use.
    cores: usize,
    features: Vec<&'static str>,
    memory: Option<u64>,
    free: Option<u64>,
}

/// What was compiled for GPUs.
#[derive(Serialize)]
struct KernelsInfo {
    /// Version; None: there was no nvcc, so nothing was compiled.
    nvcc: Option<&'static str>,
    chips: Vec<&'static str>,
    count: usize,
    /// With `--kernels`: each kernel on each chip.
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<Vec<Built>>,
}

/// Prints what there is.
pub fn run(args: InfoArgs) -> Result<()> {
    let info = Info {
        version: env!("CARGO_PKG_VERSION"),
        cuda: cuda(),
        emulator: emulator(),
        cpu: cpu(),
        kernels: kernels(args.kernels),
    };
    if args.json {
        return Ok(say(serde_json::to_string_pretty(&info)?)?);
    }
    say(&info)?;
    match &info.kernels.table {
        Some(table) if !table.is_empty() => Ok(say(format_args!("\n{}", table_text(table)))?),
        _ => Ok(()),
    }
}

fn cuda() -> CudaInfo {
    let driver = probe::driver_version().ok().map(|(major, minor)| format!("{major}.{minor}"));
    let devices = match probe::devices() {
        Ok(devices) => devices,
        Err(why) => return CudaInfo { driver, gpus: vec![], unusable: Some(why.to_string()) },
    };
    let mut gpus: Vec<GpuInfo> = devices.into_iter().map(gpu).collect();
    let unusable = match Cuda::new() {
        Ok(first) => {
            gpus[0].free = first.free_memory().ok();
            None
        }
        Err(why) => Some(why.to_string()),
    };
    CudaInfo { driver, gpus, unusable }
}

fn gpu(device: probe::Device) -> GpuInfo {
    let Properties { name, capability, processors, memory, shared_per_block } = device.properties;
    GpuInfo {
        name,
        capability: format!("{}.{}", capability.0, capability.1),
        multiprocessors: processors,
        clock_hz: device.clock,
        shared_per_block,
        l2: device.l2,
        memory,
        free: None,
        kernels: forms(capability),
    }
}

/// In which form a chip of a compute capability gets the kernels, in words.
fn forms(capability: (u32, u32)) -> String {
    let mut counts: BTreeMap<Form, usize> = BTreeMap::new();
    for chips in by_kernel(module::built()).values() {
        let chips = chips.iter().map(|built| built.arch);
        *counts.entry(Form::of(chips, capability)).or_default() += 1;
    }
    let words = |form: &Form| match form {
        Form::Code(chip) => format!("machine code for {chip}"),
        Form::Ptx => "PTX, which the driver compiles when it first loads them".into(),
        Form::Absent => "none: build again with WARPWRIGHT_CUDA_ARCH unset".into(),
    };
    match counts.iter().collect::<Vec<_>>()[..] {
        [] => "none were built".into(),
        [(form, _)] => words(form),
        ref several => {
            let part = |(form, count): &(&Form, &usize)| format!("{count} as {}", words(form));
            several.iter().map(part).collect::<Vec<_>>().join("; ")
        }
    }
}

/// Rows by file and kernel.
fn by_kernel(
    rows: impl Iterator<Item = Built>,
) -> BTreeMap<(&'static str, &'static str), Vec<Built>> {
    let mut kernels: BTreeMap<_, Vec<Built>> = BTreeMap::new();
    for row in rows {
        kernels.entry((row.module, row.kernel)).or_default().push(row);
    }
    kernels
}

fn emulator() -> EmulatorInfo {
    let builds = emulator::builds().collect();
    match Emulator::new(Modes::default()) {
        Ok(emulator) => {
            EmulatorInfo { builds, kernels: emulator.kernels().count(), unusable: None }
        }
        Err(why) => EmulatorInfo { builds, kernels: 0, unusable: Some(why.to_string()) },
    }
}

fn cpu() -> CpuInfo {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    CpuInfo {
        name: name.map(|(_, name)| name.trim().to_string()),
        cores: available_parallelism().map_or(1, |cores| cores.get()),
        features: features(),
        memory: total_memory(),
        free: free_memory(),
    }
}

/// Vector instructions that matter here: the program is compiled for the first two, and products
/// also use the wider ones where there are any.
fn features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("AVX2", is_x86_feature_detected!("avx2")),
        ("FMA", is_x86_feature_detected!("fma")),
        ("AVX-512", is_x86_feature_detected!("avx512f")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let found: [(&str, bool); 0] = [];
    found.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

fn kernels(with_table: bool) -> KernelsInfo {
    let mut chips: Vec<&str> = Vec::new();
    for built in module::built() {
        if !chips.contains(&built.arch) {
            chips.push(built.arch);
        }
    }
    KernelsInfo {
        nvcc: (!module::NVCC.is_empty()).then_some(module::NVCC),
        chips,
        count: by_kernel(module::built()).len(),
        table: with_table.then(|| module::built().collect()),
    }
}

/// A kernel a row, a chip a column.
fn table_text(table: &[Built]) -> String {
    let mut chips: Vec<&str> = table.iter().map(|built| built.arch).collect();
    chips.sort();
    chips.dedup();
    let mut text = format!("{:<25}{:<20}", "kernel", "file");
    // Writing to a String cannot fail.
    for chip in &chips {
        let _ = write!(text, "{chip:>12}");
    }
    for ((file, kernel), rows) in by_kernel(table.iter().copied()) {
        let _ = write!(text, "\n{kernel:<25}{file:<20}");
        for chip in &chips {
            let cell = match rows.iter().find(|row| row.arch == *chip) {
                Some(row) => format!("{} / {}", row.registers, row.shared),
                None => "-".into(),
            };
            let _ = write!(text, "{cell:>12}");
        }
    }
    text + "\n\nregisters a thread / static shared memory a block [bytes]"
}

/// A heading, and what is told under it.
fn row(f: &mut fmt::Formatter, heading: &str, text: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{heading:<10}{text}")
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        row(f, "program", format_args!("warpwright {}", self.version))?;
        for (i, gpu) in self.cuda.gpus.iter().enumerate() {
            row(f, &format!("GPU {i}"), gpu)?;
        }
        if let Some(driver) = &self.cuda.driver {
            row(f, "driver", format_args!("for CUDA {driver}"))?;
        }
        if let Some(why) = &self.cuda.unusable {
            row(f, "no GPU", why)?;
        }
        let kernels = &self.kernels;
        match kernels.nvcc {
            Some(nvcc) => {
                let (count, chips) = (kernels.count, kernels.chips.join(", "));
                row(f, "kernels", format_args!("{count}, by nvcc {nvcc} for {chips}"))?;
            }
            None => row(
                f,
                "kernels",
                "none for GPUs, for lack of nvcc: run scripts/cuda-toolkit.sh and build again",
            )?,
        }
        let emulator = &self.emulator;
        match &emulator.unusable {
            Some(why) => row(f, "emulator", why)?,
            None => {
                let (kernels, builds) = (emulator.kernels, emulator.builds.join(", "));
                row(f, "emulator", format_args!("{kernels} kernels, built {builds}"))?;
            }
        }
        row(f, "CPU", &self.cpu)?;
        let first = if self.cuda.unusable.is_none() { "GPU 0" } else { "the CPU" };
        write!(f, "{:<10}{first}, unless told otherwise by --device", "trains on")
    }
}

impl fmt::Display for GpuInfo {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}, compute capability {}", self.name, self.capability)?;
        write!(f, ", {} multiprocessors", self.multiprocessors)?;
        if let Some(clock) = self.clock_hz {
            write!(f, " at up to {:.2} GHz", clock / 1e9)?;
        }
        write!(f, "\n{:<10}memory {}", "", size(self.memory))?;
        if let Some(free) = self.free {
            write!(f, ", {} free", size(free))?;
        }
        if let Some(l2) = self.l2 {
            write!(f, "; L2 {}", size(l2.into()))?;
        }
        write!(f, "; shared memory a block {} bytes", commas(self.shared_per_block.into()))?;
        write!(f, "\n{:<10}kernels: {}", "", self.kernels)
    }
}

impl fmt::Display for CpuInfo {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("of unknown name");
        let plural = if self.cores == 1 { "" } else { "s" };
        write!(f, "{name}, {} core{plural}", self.cores)?;
        if !self.features.is_empty() {
            write!(f, ", with {}", self.features.join(", "))?;
        }
        if let (Some(memory), Some(free)) = (self.memory, self.free) {
            write!(f, "; memory {}, {} free", size(memory), size(free))?;
        }
        Ok(())
    }
}
