//! What a training step takes, before it is taken: memory by class, operations and bytes by op,
//! and how long it must take at least on a GPU that need not be there.
//!
//! The figures come from the real code of a step run on `Meter<Null>`, so they cannot drift from
//! it. The floor of a call is the larger of operations over the compute rate and bytes over the
//! bandwidth, and the floor of a step their sum: launches, and what an op cannot overlap with
//! itself, come on top.
//!
//! Model FLOPs, of which MFU is the rate as a share of the peak, are the products that the model
//! needs, forward and twice that backward (Chowdhery et al. 2022); what is computed twice, like
//! attention's scores, counts once:
//!   6 Σ (rows · n_in · n_out) over all products with weights + 12 C Σ pairs over layers

pub mod gpus;
pub mod kernels;
pub mod rehearsal;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::config::{Config, ConfigError, Dtype};
use crate::data::{Batch, Objective};
use crate::device::gpu::driver::Properties;
use crate::device::gpu::tuned::Tuned;
use crate::device::meter::Meter;
use crate::device::null::Null;
use crate::device::{Class, Format};
use crate::model::arch::{Arch, Head};
use crate::model::batch::Capacity;
use crate::ops::attention::Attention;
use crate::ops::optimizer::{Rule, Update};
use crate::telemetry::format::{commas, count};
use crate::train::step::{StepKey, Trainer};
pub use gpus::{GPUS, Gpu};

/// What a GPU's driver and its libraries take for themselves [bytes].
const RESERVED: u64 = 1_000_000_000;

/// GPUs whose floors fit beside each other in a table.
const COLUMNS: usize = 4;

/// What to plan for.
#[derive(Debug, Clone)]
pub struct PlanInput {
    /// An optimizer step.
    pub tokens: usize,
    /// A pass; divides `tokens`.
    pub micro: usize,
    /// Tokens a sequence.
    pub context: usize,
    /// Share of the tokens to predict, for masked models; None: all.
    pub masked: Option<f64>,
    /// Storage of X and of Acc.
    pub x: Format,
    pub acc: Format,
    pub rule: Rule,
    /// What memory is taken for; None: just the passes above.
    pub capacity: Option<Capacity>,
    /// The GPU whose kernels run the step, as they store it (bf16 and f32); None: the CPU.
    pub kernels: Option<Properties>,
    /// The cuts of its products that were measured, if it takes them.
    pub tuned: Option<Tuned>,
    /// Whose floors, and room, are of interest.
    pub gpus: Vec<Gpu>,
}

/// What it takes.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    pub parameters: usize,
    pub tokens: usize,
    pub micro: usize,
    pub context: usize,
    /// Rows of a pass whose loss counts.
    pub rows: usize,
    /// Bytes by class.
    pub memory: BTreeMap<Class, u64>,
    /// Of a step.
    pub ops: Vec<OpPlan>,
    /// Of a step: products that the model needs.
    pub model_flops: f64,
    pub gpus: Vec<GpuPlan>,
}

/// One op's share of a step.
#[derive(Debug, Clone, Serialize)]
pub struct OpPlan {
    pub op: &'static str,
    pub calls: u64,
    pub flops: f64,
    pub bytes: f64,
    /// Seconds, for each of the plan's GPUs.
    pub floors: Vec<f64>,
}

/// A step on one GPU.
#[derive(Debug, Clone, Serialize)]
pub struct GpuPlan {
    pub gpu: Gpu,
    /// Seconds
    pub floor: f64,
    pub tokens_per_s: f64,
    /// Of the data-sheet peak, for the type that products run in.
    pub mfu: f64,
    /// All memory of the step, with the workspace of its kernels [bytes].
    pub bytes: u64,
    /// Whether it has room for them and for its driver.
    pub fits: bool,
    /// The largest pass that its memory holds [tokens]: whole sequences, 0 if not one.
    pub largest_micro: usize,
}

/// Not enough memory.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error(
    "this needs {need} of {place}, and {free} is free: lower batch.micro (a step then \
     takes more passes and stays the same), batch.context, or the model's width and layers",
    need = size(*.need), place = .place, free = size(*.free)
)]
pub struct TooLarge {
    /// [bytes]
    pub need: u64,
    pub free: u64,
    /// Whose memory, in words.
    pub place: &'static str,
}

impl PlanInput {
    /// The step that `config` describes, with nothing but itself to fit.
    pub fn of(config: &Config, x: Format, acc: Format) -> PlanInput {
        PlanInput {
            tokens: config.batch.tokens,
            micro: config.micro(),
            context: config.batch.context,
            masked: match config.objective {
                Objective::Causal => None,
                Objective::Masked { masking, .. } => Some(f64::from(masking.rate)),
            },
            x,
            acc,
            rule: config.optimizer,
            capacity: None,
            kernels: None,
            tuned: None,
            gpus: vec![],
        }
    }

    /// What counts in place of the device that the step runs on.
    fn device(&self) -> Null {
        match self.kernels {
            Some(_) => Null::gpu(),
            None => Null::new(self.x, self.acc),
        }
    }

    /// A pass of `tokens`, of sequences of `context` and a shorter last one.
    fn batch(&self, arch: &Arch, tokens: usize) -> Batch {
        let starts = (0..tokens).step_by(self.context).chain([tokens]);
        let cu_seqlens: Vec<i32> = starts.map(|start| start as i32).collect();
        let rows = self.masked.map(|rate| (rate * tokens as f64).round() as i32);
        Batch {
            ids: vec![0; tokens],
            positions: vec![0; tokens],
            types: vec![0; tokens],
            pairs: vec![0; if arch.pair { cu_seqlens.len() - 1 } else { 0 }],
            targets: vec![0; rows.map_or(tokens, |rows| rows as usize)],
            rows: rows.map(|rows| (0..rows).collect()),
            cu_seqlens,
            ..Batch::default()
        }
    }
}

/// Plans a step of `arch`, which must be valid (and have [kernels], if they are to run it), and
/// `input`, whose `micro` must divide `tokens`.
pub fn plan(arch: &Arch, input: &PlanInput) -> Plan {
    assert!(
        input.micro > 0 && input.tokens.is_multiple_of(input.micro),
        "plan: micro must divide tokens"
    );
    let dev = Meter::new(input.device());
    let batch = input.batch(arch, input.micro);
    let capacity = input.capacity.unwrap_or(Capacity::of(&batch, arch.pair));
    let passes = input.tokens / input.micro;
    let mut trainer = trainer(&dev, arch, capacity, passes);
    let (parameters, rows) = (trainer.model.layout.table.count(), batch.targets.len());
    let update = Update { rule: input.rule, lr: 0.0, clip: 1.0, stochastic: None };
    let model_flops = passes as f64 * model_flops(arch, &batch);
    trainer.step(&dev, &vec![batch; passes], StepKey { seed: 0, step: 0 }, &update);

    let ops = ops(&dev, input);
    let mut memory = dev.device().bytes();
    let tensors: u64 = memory.values().sum();
    let tuned = input.tuned.as_ref();
    if let Some(properties) = &input.kernels {
        let bytes = rehearsal::workspace(properties, tuned, arch, capacity) as u64;
        memory.insert(Class::Workspace, bytes);
    }
    let gpus = (0..).zip(&input.gpus).map(|(i, gpu)| {
        let workspace = |arch: &Arch, capacity| match &input.kernels {
            Some(_) => rehearsal::workspace(&gpu.properties(), tuned, arch, capacity) as u64,
            None => 0,
        };
        let bytes = tensors + workspace(arch, capacity);
        let limit = gpu.memory as u64 - RESERVED;
        let floor: f64 = ops.iter().map(|op| op.floors[i]).sum();
        GpuPlan {
            gpu: *gpu,
            floor,
            tokens_per_s: input.tokens as f64 / floor,
            mfu: model_flops / floor / (gpu.peak * rate(input.x)),
            bytes,
            fits: bytes <= limit,
            largest_micro: largest_micro(arch, input, limit, workspace),
        }
    });
    Plan {
        parameters,
        tokens: input.tokens,
        micro: input.micro,
        context: input.context,
        rows,
        gpus: gpus.collect(),
        memory,
        ops,
        model_flops,
    }
}

fn trainer(
    dev: &Meter<Null>,
    arch: &Arch,
    capacity: Capacity,
    passes: usize,
) -> Trainer<Meter<Null>> {
    Trainer::new(dev, arch, capacity, passes, None, 0.0).expect("plan: the architecture is valid")
}

/// Products of f32 run as TF32, on all of these GPUs at half the rate of bf16.
fn rate(x: Format) -> f64 {
    if x.bytes > 2 { 0.5 } else { 1.0 }
}

/// One an op, in the order of first calls; a floor is taken call by call, then summed.
fn ops(dev: &Meter<Null>, input: &PlanInput) -> Vec<OpPlan> {
    let mut ops: Vec<OpPlan> = Vec::new();
    for r in dev.by_size() {
        let floors = input
            .gpus
            .iter()
            .map(|gpu| (r.flops / (gpu.flops * rate(input.x))).max(r.bytes / gpu.bandwidth));
        match ops.iter_mut().find(|op| op.op == r.op) {
            Some(op) => {
                op.calls += r.calls;
                op.flops += r.flops;
                op.bytes += r.bytes;
                op.floors.iter_mut().zip(floors).for_each(|(sum, floor)| *sum += floor);
            }
            None => ops.push(OpPlan {
                op: r.op,
                calls: r.calls,
                flops: r.flops,
                bytes: r.bytes,
                floors: floors.collect(),
            }),
        }
    }
    ops
}

/// Products that the model needs to train on `batch`, see above. Rows that are not predicted skip
/// what follows the last layer's attention.
pub fn model_flops(arch: &Arch, batch: &Batch) -> f64 {
    let (c, e, f) = (arch.width, arch.embed_width, arch.inner);
    let (n, s) = (batch.ids.len(), batch.cu_seqlens.len() - 1);
    let firsts = if arch.pair { s } else { 0 };
    let loss_rows = batch.targets.len();
    let picked = batch.rows.as_ref().map_or(n, |rows| rows.len() + firsts);
    let wide = if arch.gated { 2 * f } else { f };
    let transform = if arch.head == Head::Transform { c * e } else { 0 };
    let decoder = if arch.head == Head::Transform { e } else { c } * arch.vocab;
    let weights = [
        (n * arch.layers, 3 * c * c),
        (n * (arch.layers - 1) + picked, c * c + c * wide + f * c),
        (loss_rows, transform + decoder),
        (n, if e == c { 0 } else { e * c }),
        (firsts, c * c + 2 * c),
    ];
    let products: f64 = weights.iter().map(|&(rows, size)| rows as f64 * size as f64).sum();
    let lengths = batch.cu_seqlens.windows(2).map(|ends| (ends[1] - ends[0]) as usize);
    let pairs: usize = (0..arch.layers)
        .map(|l| Attention {
            heads: arch.heads,
            head_dim: arch.head_dim(),
            causal: arch.causal,
            window: arch.window_of(l),
            dropout: None,
        })
        .map(|at| lengths.clone().map(|len| at.pairs(len)).sum::<usize>())
        .sum();
    6.0 * products + 12.0 * (c * pairs) as f64
}

/// The most tokens, in whole sequences, whose training fits `limit` bytes with its workspace.
fn largest_micro(
    arch: &Arch,
    input: &PlanInput,
    limit: u64,
    workspace: impl Fn(&Arch, Capacity) -> u64,
) -> usize {
    let capacity = |sequences: usize| {
        let tokens = sequences * input.context;
        let rows = input.masked.map_or(tokens, |rate| (rate * tokens as f64).round() as usize);
        let rows = rows + if arch.pair && input.masked.is_some() { sequences } else { 0 };
        Capacity { tokens, sequences, rows, reals: 0 }
    };
    let bytes = |arch: &Arch, sequences: usize| {
        let dev = Meter::new(input.device());
        let passes = input.tokens.div_ceil(sequences * input.context);
        trainer(&dev, arch, capacity(sequences), passes);
        dev.device().bytes().values().sum::<u64>()
    };
    // Tables of positions are as large for any pass, and slow to fill: they are counted once.
    let bare = Arch { context: 1, ..arch.clone() };
    let tables = bytes(arch, 1) - bytes(&bare, 1);
    let fits = |sequences: usize| {
        let left = limit.checked_sub(bytes(&bare, sequences) + tables);
        left.is_some_and(|left| workspace(&bare, capacity(sequences)) <= left)
    };
    let mut too_many = 1;
    while fits(too_many) {
        too_many *= 2;
    }
    let mut held = too_many / 2;
    while held + 1 < too_many {
        let middle = held + (too_many - held) / 2;
        if fits(middle) {
            held = middle;
        } else {
            too_many = middle;
        }
    }
    held * input.context
}

/// Less memory than any run of `config` takes [bytes]: parameters with their gradients and moments,
/// and of each layer of a pass the five tensors q, k, v, what attention makes of them, and what the
/// MLP reads. Found without data, and without counting past 2^64, so that the impossible is refused
/// before work begins; [`plan`] then says it exactly.
pub fn at_least(config: &Config) -> Result<u64, ConfigError> {
    let arch = config.arch(None)?;
    let of = |n: usize| n as f64;
    let block = of(arch.width) * (4.0 * of(arch.width) + 2.0 * of(arch.inner));
    let parameters = of(arch.blocks()) * block + of(arch.embed_width) * of(arch.vocab);
    let layer = 5.0 * of(arch.width);
    let pass = of(config.micro()) * of(arch.layers) * layer;
    let x = match config.dtype() {
        Dtype::F64 => 8.0,
        Dtype::F32 => 4.0,
        Dtype::Bf16 => 2.0,
    };
    Ok((16.0 * parameters + x * pass) as u64)
}

/// Memory to train in.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// [bytes]
    free: u64,
    /// Whose, in words.
    place: &'static str,
}

impl Room {
    /// This machine's; any amount, where it does not say.
    pub fn host() -> Room {
        Room { free: free_memory().unwrap_or(u64::MAX), place: "memory" }
    }

    /// A GPU's, of which so many bytes are free.
    pub fn gpu(free: u64) -> Room {
        Room { free, place: "the GPU's memory" }
    }

    /// Whether `need` bytes fit.
    pub fn check(self, need: u64) -> Result<(), TooLarge> {
        let Room { free, place } = self;
        if need <= free { Ok(()) } else { Err(TooLarge { need, free, place }) }
    }
}

/// Memory of this machine that is free [bytes], where it says.
pub fn free_memory() -> Option<u64> {
    amount(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// Memory of this machine [bytes], where it says.
pub fn total_memory() -> Option<u64> {
    amount(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

/// A line of /proc/meminfo [bytes].
fn amount(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// `1.50 GB`: decimal, as GPUs are sold.
pub fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    let (unit, name) = if bytes < 1e9 { (1e6, "MB") } else { (1e9, "GB") };
    format!("{:.2} {name}", bytes / unit)
}

impl Plan {
    /// Of all memory.
    pub fn bytes(&self) -> u64 {
        self.memory.values().sum()
    }

    /// Operations of a step, recomputation and all.
    pub fn flops(&self) -> f64 {
        self.ops.iter().map(|op| op.flops).sum()
    }

    fn write_ops(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let shown = &self.gpus[..self.gpus.len().min(COLUMNS)];
        write!(f, "{:<20}{:>8}{:>10}{:>10}", "op", "calls", "GFLOP", "GB")?;
        for gpu in shown {
            write!(f, "{:>13}", format!("{} ms", gpu.gpu.name))?;
        }
        let bytes = self.ops.iter().map(|op| op.bytes).sum();
        let floors = self.gpus.iter().map(|gpu| gpu.floor).collect();
        let calls = self.ops.iter().map(|op| op.calls).sum();
        let total = OpPlan { op: "a step", calls, flops: self.flops(), bytes, floors };
        for op in self.ops.iter().chain([&total]) {
            let (gflop, gb) = (op.flops / 1e9, op.bytes / 1e9);
            write!(f, "\n{:<20}{:>8}{:>10.1}{:>10.2}", op.op, op.calls, gflop, gb)?;
            for floor in &op.floors[..shown.len()] {
                write!(f, "{:>13.2}", 1e3 * floor)?;
            }
        }
        writeln!(f)
    }

    fn write_gpus(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(
            f,
            "\n{:<11}{:>10}{:>7}{:>12}{:>11}{:>8}{:>6}{:>15}  ceilings",
            "GPU", "TFLOP/s", "TB/s", "ms a step", "tokens/s", "MFU", "fits", "largest pass"
        )?;
        for GpuPlan { gpu, floor, tokens_per_s, mfu, fits, largest_micro, .. } in &self.gpus {
            writeln!(
                f,
                "{:<11}{:>10.0}{:>7.2}{:>12.2}{:>11}{:>7.1}%{:>6}{:>15}  {}",
                gpu.name,
                gpu.flops / 1e12,
                gpu.bandwidth / 1e12,
                1e3 * floor,
                count(*tokens_per_s),
                100.0 * mfu,
                if *fits { "yes" } else { "no" },
                commas(*largest_micro as u64),
                if gpu.measured { "measured" } else { "data sheet" },
            )?;
        }
        writeln!(
            f,
            "\nA step's floor is the sum over calls of max(FLOP / (FLOP/s), bytes / (bytes/s));\n\
             ms and tokens/s are that floor's: no launch, no overlap lost. Data-sheet peaks are\n\
             not reached in practice. MFU = {} model FLOPs a step / floor / data-sheet peak,\n\
             model FLOPs being 6 Σ rows · n_in · n_out (all weights) + 12 C Σ attended pairs.\n\
             Whether a pass fits, and the largest that does [tokens], leaves {} to the driver.",
            count(self.model_flops),
            size(RESERVED),
        )
    }
}

/// `{}` is a summary, `{:#}` has every op and GPU.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let whole = |n: usize| commas(n as u64);
        writeln!(f, "{:<15}{}", "parameters", whole(self.parameters))?;
        let passes = self.tokens / self.micro;
        writeln!(
            f,
            "{:<15}{} tokens: {passes} pass{} of {}, sequences of {}, {} rows to predict",
            "step",
            whole(self.tokens),
            if passes == 1 { "" } else { "es" },
            whole(self.micro),
            whole(self.context),
            whole(self.rows),
        )?;
        let classes = self.memory.iter().map(|(class, bytes)| {
            format!("{} {}", format!("{class:?}").to_lowercase(), size(*bytes))
        });
        let classes: Vec<String> = classes.collect();
        writeln!(f, "{:<15}{}: {}", "memory", size(self.bytes()), classes.join(", "))?;
        let bytes: f64 = self.ops.iter().map(|op| op.bytes).sum();
        let (flops, moved) = (self.flops() / 1e9, size(bytes as u64));
        write!(f, "{:<15}{flops:.1} GFLOP a step, {moved} moved", "operations")?;
        if !f.alternate() {
            return Ok(());
        }
        writeln!(f, "\n")?;
        self.write_ops(f)?;
        if self.gpus.is_empty() { Ok(()) } else { self.write_gpus(f) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read() {
        let name = "MemAvailable:";
        assert_eq!(amount("MemTotal: 9 kB\nMemAvailable:    1024 kB\n", name), Some(1 << 20));
        assert_eq!(amount("MemTotal: 9 kB\n", name), None);
    }
}
