//! What a step takes on a GPU beyond its tensors: a rehearsal through the real launch code.

use crate::data::Batch;
use crate::device::gpu::driver::Properties;
use crate::device::gpu::dry::Dry;
use crate::device::gpu::tuned::Tuned;
use crate::device::gpu::{Gemm, Gpu, Kernels};
use crate::model::arch::Arch;
use crate::model::batch::Capacity;
use crate::ops::optimizer::{Rule, Update};
use crate::train::step::{StepKey, Trainer};

/// Bytes of workspace that a step and an evaluation take on such a device, for micro-batches of
/// up to `capacity`, whichever kernels multiply, cut as `tuned` says.
pub fn workspace(
    properties: &Properties,
    tuned: Option<&Tuned>,
    arch: &Arch,
    capacity: Capacity,
) -> usize {
    let all = [Gemm::Portable, Gemm::Auto].map(|gemm| {
        let dev = Gpu::new(Box::new(Dry::new(properties.clone())), Kernels::Fast);
        dev.use_gemm(gemm).expect("every device has these");
        dev.use_tuned(tuned.cloned());
        rehearse(dev, arch, capacity)
    });
    all.into_iter().max().unwrap_or(0)
}

fn rehearse(dev: Gpu, arch: &Arch, capacity: Capacity) -> usize {
    let mut trainer = Trainer::new(&dev, arch, capacity, 1, None, 0.0)
        .expect("rehearsal: the architecture is valid");
    let batch = [full(arch, capacity)];
    let update = Update { rule: Rule::default(), lr: 0.0, clip: 1.0, stochastic: None };
    trainer.step(&dev, &batch, StepKey { seed: 0, step: 0 }, &update);
    trainer.evaluate(&dev, &batch);
    dev.workspace_bytes()
}

/// A batch of `capacity`, in sequences of one length.
fn full(arch: &Arch, capacity: Capacity) -> Batch {
    let Capacity { tokens, sequences, rows, reals } = capacity;
    let borders = (0..=sequences).map(|s| (s * tokens / sequences.max(1)) as i32);
    let cu_seqlens: Vec<i32> = borders.collect();
    let picked = rows - if arch.pair { sequences } else { 0 };
    let (rows, targets) = match &arch.task {
        Some(task) => (task.rows(&cu_seqlens), task.targets(tokens, sequences)),
        None if arch.causal => (None, tokens),
        None => (Some((0..picked as i32).collect()), picked),
    };
    Batch {
        ids: vec![0; tokens],
        positions: vec![0; tokens],
        types: vec![0; tokens],
        cu_seqlens,
        rows,
        targets: vec![0; targets],
        reals: vec![0.0; reals],
        pairs: vec![0; if arch.pair { sequences } else { 0 }],
        ..Batch::default()
    }
}
