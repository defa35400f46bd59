//! Where a model runs: flags of the commands that put one to work.

use std::path::Path;

use anyhow::{Result, bail};
use half::bf16;

use crate::checkpoint::model_folder;
use crate::config::{Dtype, Where, settle};
use crate::device::cpu::Cpu;
use crate::device::gpu::cuda::nvml::Nvml;
use crate::device::gpu::{self, Kernels};
use crate::device::{Device, Memory};
use crate::hf::ModelDir;
use crate::model::arch::Arch;
use crate::plan::kernels;

#[derive(Debug, Clone, Copy, clap::Args)]
pub struct DeviceArgs {
    #[arg(long, value_enum, default_value = "auto", value_name = "DEVICE")]
    pub device: Where,
    /// The precision to compute in [default: bf16 on a GPU, f32 on the CPU]
    #[arg(long, value_enum)]
    pub dtype: Option<Dtype>,
}

/// What a command does on a device.
pub trait OnDevice {
    type Done;
    fn run_on<D: Device>(self, dev: D) -> Result<Self::Done>;
}

impl DeviceArgs {
    /// What the GPU, if that is the device, can be asked.
    pub fn nvml(self) -> Result<Option<Nvml>> {
        let (device, _) = settle(self.device, self.dtype, gpu::available)?;
        Ok((device == Where::Cuda).then(Nvml::of_first).flatten())
    }

    /// Runs `command`, which works with the model in `folder`, on the device that was asked for.
    pub fn run<C: OnDevice>(self, folder: &Path, command: C) -> Result<C::Done> {
        self.run_with(|| Ok(ModelDir::open(&model_folder(folder))?.arch), command)
    }

    /// The same where the command says what `arch` its model has.
    pub fn run_with<C: OnDevice>(
        self,
        arch: impl FnOnce() -> Result<Arch>,
        command: C,
    ) -> Result<C::Done> {
        let (device, dtype) = settle(self.device, self.dtype, gpu::available)?;
        if let Some(place) = device.place() {
            if let Err(why) = kernels::supports(&arch()?) {
                bail!("{why}; or use the CPU, with --device cpu");
            }
            let gpu = gpu::open(place, Kernels::Fast)?;
            let done = command.run_on(gpu.clone());
            return gpu.fault().map_or(done, |fault| bail!("the device stopped: {fault}"));
        }
        match dtype {
            Dtype::F64 => command.run_on(Cpu::<f64>::new()),
            Dtype::F32 => command.run_on(Cpu::<f32>::new()),
            Dtype::Bf16 => command.run_on(Cpu::<bf16>::new()),
        }
    }
}
