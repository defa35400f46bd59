//! Whole optimizer steps: how long one takes, where its time goes, and what it could be.
//!
//! Steps are timed twice: as they run in training, on the host's clock, from one outcome to the
//! next while the next step is already on its way; and again with marks around every op, which cost
//! time of their own, for where the time goes. What of a step's time no op accounts for is idle.
//!
//! MFU = model FLOPs a step / time / peak, with model FLOPs as `plan` defines them.

use std::time::Instant;

use anyhow::{Result, bail};

use super::batches::{self, DECAY};
use super::ceilings::Ceilings;
use super::measure::Bench;
use super::report::{Energy, Predicted, Row, StepFacts};
use super::timing::Timing;
use crate::data::Batch;
use crate::device::gpu::Gpu;
use crate::device::gpu::cuda::nvml::Nvml;
use crate::device::meter::{Meter, OpRecord};
use crate::device::{Class, Device};
use crate::model::arch::Arch;
use crate::model::batch::Capacity;
use crate::plan::{self, GpuPlan, Plan};
use crate::train::step::{Pending, StepKey, Trainer};

/// Steps before the first that counts.
const WARM_UP: u64 = 2;
/// Fewest and most steps that count.
const STEPS: (u64, u64) = (3, 1000);
/// Steps that are timed op by op.
const MARKED: u64 = 3;

/// What to time.
pub struct Job<'a> {
    pub arch: &'a Arch,
    /// The passes of a step.
    pub micros: &'a [Batch],
    /// What the step takes.
    pub plan: &'a Plan,
    /// The row's shape, in words.
    pub shape: String,
    /// Who tells of energy.
    pub nvml: Option<&'a Nvml>,
}

/// Times steps: the step's row, then one an op, the longest first.
///
/// # Errors
/// What stopped the device.
pub fn measure(bench: &Bench, job: &Job, ceilings: &Ceilings) -> Result<(Vec<Row>, StepFacts)> {
    let gpu = bench.gpu;
    let workspace = job.plan.memory.get(&Class::Workspace).copied().unwrap_or(0);
    gpu.reserve(workspace as usize);
    let (seconds, joules) = whole(bench, job)?;
    let (steps, over) = (seconds.len() as f64, seconds.iter().sum());
    let timing = Timing::of(seconds);
    let (records, sequence) = by_op(gpu, job)?;
    let sum = |of: fn(&OpRecord) -> f64| -> f64 { records[0].iter().map(of).sum() };
    let (flops, bytes) = (sum(|r| r.flops), sum(|r| r.bytes));
    let shape = job.shape.clone();
    let step = bench.account(("step".into(), shape, 1), timing, (flops, bytes), ceilings);
    let ops = ops(bench, &records, ceilings);
    // A step's floor is the sum of its calls' floors.
    let total = |of: fn(&Row) -> f64| ops.iter().map(of).sum::<f64>();
    let (floor, ceiling) = (total(|r| r.floor), total(|r| r.of_ceiling * r.seconds));
    let figures = (ceiling, floor, step.bound.as_str());
    let step = Row::new((step.op, step.shape, 1), timing, (flops, bytes), figures);
    let facts = facts(bench, job, ceilings, &step, total(|r| r.seconds));
    let per_token = |joules| joules / steps / facts.tokens as f64;
    let energy = joules.map(|joules| Energy { per_token: per_token(joules), over });
    let facts = StepFacts { sequence, energy, ..facts };
    Ok(([vec![step], ops].concat(), facts))
}

/// Seconds of each step, as in training, and what they took together [J].
fn whole(bench: &Bench, job: &Job) -> Result<(Vec<f64>, Option<f64>)> {
    let mut steps = Steps::new(bench.gpu, job)?;
    for _ in 0..WARM_UP {
        steps.take(bench.gpu)?;
    }
    let joules = || job.nvml.and_then(Nvml::energy);
    let (began, before) = (Instant::now(), joules());
    let mut seconds = Vec::new();
    let enough = |count: u64| {
        count >= STEPS.1 || (count >= STEPS.0 && began.elapsed().as_secs_f64() >= bench.budget)
    };
    while !enough(seconds.len() as u64) {
        let since = Instant::now();
        steps.take(bench.gpu)?;
        seconds.push(since.elapsed().as_secs_f64());
    }
    Ok((seconds, joules().zip(before).map(|(after, before)| after - before)))
}

/// Ops in the order of their calls, and the seconds of each call.
type Sequence = Vec<(&'static str, f64)>;

/// What each op and size took, of each of some steps; and the last step, call by call.
fn by_op(gpu: &Gpu, job: &Job) -> Result<(Vec<Vec<OpRecord>>, Sequence)> {
    let dev = Meter::by_clock(gpu.clone(), Box::new(gpu.clone()));
    let mut steps = Steps::new(&dev, job)?;
    steps.take(&dev)?;
    let mut records = Vec::new();
    for _ in 0..MARKED {
        dev.reset();
        steps.take(&dev)?;
        records.push(dev.by_size());
    }
    Ok((records, dev.sequence()))
}

/// A trainer with its batches, and the step that it is at.
struct Steps<D: Device> {
    trainer: Trainer<D>,
    micros: Vec<Batch>,
    step: u64,
    /// What comes of the last.
    pending: Option<Pending>,
}

impl<D: Device> Steps<D> {
    fn new(dev: &D, job: &Job) -> Result<Self> {
        let (micros, masker) = batches::unmasked(job.arch, job.micros);
        let (capacity, passes) = (capacity(job.arch, &micros), micros.len());
        let mut trainer = Trainer::new(dev, job.arch, capacity, passes, masker.as_ref(), DECAY)?;
        trainer.initialise(dev, 1);
        Ok(Steps { trainer, micros, step: 0, pending: None })
    }

    /// Starts a step, and waits for the end of the one before.
    fn take(&mut self, dev: &D) -> Result<()> {
        let key = StepKey { seed: 1, step: self.step };
        self.trainer.step(dev, &self.micros, key, &batches::update());
        self.step += 1;
        let Some(before) = self.pending.replace(self.trainer.pending()) else { return Ok(()) };
        let outcome = before.outcome();
        if let Some(fault) = dev.fault() {
            bail!("{fault}");
        }
        if outcome.skipped > 0 {
            bail!(
                "step {}: loss or gradient not finite, so this time would mean nothing",
                self.step
            );
        }
        Ok(())
    }
}

/// Room for each of the passes.
pub fn capacity(arch: &Arch, micros: &[Batch]) -> Capacity {
    let each = micros.iter().map(|batch| Capacity::of(batch, arch.pair));
    each.reduce(Capacity::max).unwrap_or_default()
}

/// One row an op: the median and spread of its time a step.
fn ops(bench: &Bench, steps: &[Vec<OpRecord>], ceilings: &Ceilings) -> Vec<Row> {
    let mut names: Vec<&str> = Vec::new();
    for record in &steps[0] {
        if !names.contains(&record.op) {
            names.push(record.op);
        }
    }
    let row = |op: &&str| {
        let of_op = |records: &'_ [OpRecord]| -> Vec<OpRecord> {
            records.iter().filter(|r| r.op == *op).copied().collect()
        };
        let seconds = steps.iter().map(|step| of_op(step).iter().map(|r| r.seconds).sum());
        let timing = Timing::of(seconds.collect());
        let sizes = of_op(&steps[0]);
        // Floors are taken call by call: sizes of one op may be bound by different things.
        let each = |r: &OpRecord| {
            let one = bench.account(
                (String::new(), String::new(), r.calls),
                timing,
                (r.flops, r.bytes),
                ceilings,
            );
            (one.of_ceiling * one.seconds, one.floor)
        };
        let (ceiling, floor) =
            sizes.iter().map(each).fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
        let (flops, bytes) =
            sizes.iter().fold((0.0, 0.0), |sum, r| (sum.0 + r.flops, sum.1 + r.bytes));
        let (_, bound) = ceilings.floor(flops, bytes);
        let calls = sizes.iter().map(|r| r.calls).sum();
        let name = (op.to_string(), "all of a step".to_string(), calls);
        Row::new(name, timing, (flops, bytes), (ceiling, floor, bound))
    };
    let mut rows: Vec<Row> = names.iter().map(row).collect();
    rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    rows
}

/// Of a pass's sequences, where they differ.
fn lengths(batch: &Batch) -> Vec<usize> {
    let ends = batch.cu_seqlens.windows(2);
    let lengths: Vec<usize> = ends.map(|ends| (ends[1] - ends[0]) as usize).collect();
    if lengths.iter().all(|len| *len == lengths[0]) { Vec::new() } else { lengths }
}

/// What a plan says of a GPU.
fn predicted(plan: &GpuPlan) -> Predicted {
    let GpuPlan { gpu, floor, .. } = plan;
    Predicted {
        gpu: gpu.name.into(),
        seconds: *floor,
        flops_per_s: gpu.flops,
        bytes_per_s: gpu.bandwidth,
    }
}

fn facts(bench: &Bench, job: &Job, ceilings: &Ceilings, step: &Row, in_ops: f64) -> StepFacts {
    let count = |of: fn(&Batch) -> usize| job.micros.iter().map(of).sum::<usize>();
    let (tokens, sequences) = (count(|b| b.ids.len()), count(Batch::sequences));
    let model_flops = job.micros.iter().map(|batch| plan::model_flops(job.arch, batch)).sum();
    let (peak, peak_of) = match bench.known {
        Some(gpu) => (gpu.peak, format!("{}: {}", gpu.name, gpu.source)),
        None => (ceilings.flops_per_s, "the product measured above".into()),
    };
    let seconds = step.seconds;
    let idle = (seconds - in_ops).max(0.0);
    let memory = job.plan.memory.iter();
    StepFacts {
        tokens,
        sequences,
        lengths: job.micros.first().map_or(Vec::new(), lengths),
        labelled: count(Batch::labelled),
        seconds,
        tokens_per_s: tokens as f64 / seconds,
        sequences_per_s: sequences as f64 / seconds,
        model_flops,
        peak,
        peak_of,
        mfu: model_flops / seconds / peak,
        memory: memory.map(|(class, bytes)| (class.label().into(), *bytes)).collect(),
        in_ops,
        idle,
        idle_share: idle / seconds,
        floor: step.floor,
        predicted: job.plan.gpus.first().map(predicted),
        energy: None,
        sequence: Vec::new(),
    }
}
