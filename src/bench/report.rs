//! What a benchmark found: rows for people, and the same as JSON, which `bench compare` reads.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::ceilings::Ceilings;
use super::timing::Timing;
use crate::device::gpu::cuda::nvml::Reading;
use crate::plan;
use crate::telemetry::format::{commas, count, scientific};

/// One benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of this program.
    pub version: String,
    /// `ops`, `gemm`, `attention` or `step`
    pub kind: String,
    /// What was measured, in words.
    pub what: String,
    pub device: DeviceFacts,
    pub ceilings: Ceilings,
    /// Version of the library that products are compared with, or why there is none; empty on the
    /// emulator.
    #[serde(default)]
    pub cublaslt: String,
    pub readings: Readings,
    pub rows: Vec<Row>,
    #[serde(default)]
    pub skipped: Vec<Skipped>,
    #[serde(default)]
    pub step: Option<StepFacts>,
}

/// Where it ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceFacts {
    /// `cuda` or `emulator`
    pub place: String,
    pub name: String,
    pub capability: (u32, u32),
    pub processors: u32,
    /// [bytes]
    pub memory: u64,
    /// Of the L2 cache [bytes]; 0: unknown.
    pub l2: u64,
    /// Its name in `plan`, whose figures the floors divide by.
    pub known: Option<String>,
}

/// The GPU's state before the first row and after the last; None: NVML does not say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Readings {
    pub before: Option<Reading>,
    pub after: Option<Reading>,
}

/// One op at one shape. In a step: all calls of one op.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub op: String,
    pub shape: String,
    /// A step makes so many.
    pub calls: u64,
    /// Median, first and third quartile [s].
    pub seconds: f64,
    pub low: f64,
    pub high: f64,
    pub samples: usize,
    pub flops: f64,
    /// That must cross memory at least.
    pub bytes: f64,
    pub flops_per_s: f64,
    pub bytes_per_s: f64,
    /// `compute` or `memory`: which ceiling is nearer.
    pub bound: String,
    /// The shortest time by the ceilings of this run, over the time taken.
    pub of_ceiling: f64,
    /// The shortest time by the figures of `plan`, or else the same as by the ceilings [s].
    pub floor: f64,
    /// `floor` over the time taken.
    pub of_floor: f64,
    /// A product of the same shape by cuBLASLt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
}

/// The same product by cuBLASLt, bare.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Of its fastest algorithm: median, first and third quartile [s].
    pub seconds: f64,
    pub low: f64,
    pub high: f64,
    pub samples: usize,
    /// Algorithms that were tried.
    pub algorithms: usize,
}

impl Peer {
    pub fn new(timing: Timing, algorithms: usize) -> Peer {
        let Timing { seconds, low, high, samples } = timing;
        Peer { seconds, low, high, samples, algorithms }
    }
}

/// A row that could not be measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Skipped {
    pub op: String,
    pub shape: String,
    pub why: String,
}

/// What a whole step came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepFacts {
    /// Real ones, all counted; there is no padding.
    pub tokens: usize,
    pub sequences: usize,
    /// Of each sequence of a pass, where they differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lengths: Vec<usize>,
    /// Predicted.
    pub labelled: usize,
    /// Median, on the host's clock [s].
    pub seconds: f64,
    pub tokens_per_s: f64,
    pub sequences_per_s: f64,
    /// Products that the model needs, see `plan`.
    pub model_flops: f64,
    /// What MFU is a share of [FLOP/s], and where it is from.
    pub peak: f64,
    pub peak_of: String,
    pub mfu: f64,
    /// By class [bytes].
    pub memory: Vec<(String, u64)>,
    /// Device time in ops [s].
    pub in_ops: f64,
    /// The step's time that no op took [s]; 0 where ops timed one by one took longer.
    pub idle: f64,
    /// `idle` as a share of the step.
    #[serde(default)]
    pub idle_share: f64,
    /// The step's floor [s], see [`Row::floor`].
    pub floor: f64,
    /// What `plan` says; None where it does not know the GPU.
    #[serde(default)]
    pub predicted: Option<Predicted>,
    /// None where NVML does not say.
    #[serde(default)]
    pub energy: Option<Energy>,
    /// Every call of a step in its order, and what it took [s]; for the page alone.
    #[serde(skip)]
    pub sequence: Vec<(&'static str, f64)>,
}

/// What `plan` predicts of a step on this GPU, all sequences taken for whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    /// Its name in `plan`.
    pub gpu: String,
    /// The sum of floors [s].
    pub seconds: f64,
    /// What these divide by [FLOP/s] and [bytes/s].
    pub flops_per_s: f64,
    pub bytes_per_s: f64,
}

/// What the GPU took, by its own account, over all steps that were timed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    /// [J]
    pub per_token: f64,
    /// The steps' time [s]; below a second or so the GPU's account is coarse.
    pub over: f64,
}

impl StepFacts {
    /// For people.
    pub fn told(&self) -> String {
        let ms = |seconds: f64| format!("{:.3} ms", 1e3 * seconds);
        let memory =
            self.memory.iter().map(|(class, bytes)| format!("{class} {}", plan::size(*bytes)));
        let mut lines = vec![
            format!(
                "a step     {}: {} tokens/s, {:.2} sequences/s ({} tokens, {} sequences, all real)",
                ms(self.seconds),
                count(self.tokens_per_s),
                self.sequences_per_s,
                commas(self.tokens as u64),
                commas(self.sequences as u64),
            ),
            format!(
                "MFU        {:.2}% = {} model FLOPs / {} / {} FLOP/s ({})",
                100.0 * self.mfu,
                count(self.model_flops),
                ms(self.seconds),
                count(self.peak),
                self.peak_of,
            ),
            [
                "           model FLOPs: 6 Σ rows · n_in · n_out (all weights) ",
                "+ 12 C Σ attended pairs",
            ]
            .concat(),
            format!(
                "time       {} in ops, {} idle ({:.1}% of the step); floor {} ({:.1}% of it \
                 reached)",
                ms(self.in_ops),
                ms(self.idle),
                100.0 * self.idle_share,
                ms(self.floor),
                100.0 * self.floor / self.seconds,
            ),
        ];
        if let Some(Predicted { gpu, seconds, flops_per_s, bytes_per_s }) = &self.predicted {
            lines.push(format!(
                "predicted  {} by `warpwright plan` for the {gpu} (floors at {} FLOP/s, {} B/s); \
                 measured {:.2} times that",
                ms(*seconds),
                count(*flops_per_s),
                count(*bytes_per_s),
                self.seconds / seconds,
            ));
        }
        if let Some(Energy { per_token, over }) = self.energy {
            let token = scientific(per_token);
            lines.push(format!("energy     {token} J a token, over {over:.1} s of steps"));
        }
        lines.push(format!("memory     {}", memory.collect::<Vec<_>>().join(", ")));
        lines.join("\n")
    }
}

impl Row {
    /// Of times, `(flops, bytes)`, and the shortest times by ceilings and plan, and what binds.
    pub fn new(
        (op, shape, calls): (String, String, u64),
        timing: Timing,
        (flops, bytes): (f64, f64),
        (ceiling, floor, bound): (f64, f64, &str),
    ) -> Row {
        let Timing { seconds, low, high, samples } = timing;
        // What takes no measurable time has no rate; JSON has no infinity.
        let over = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
        Row {
            op,
            shape,
            calls,
            seconds,
            low,
            high,
            samples,
            flops,
            bytes,
            flops_per_s: over(flops),
            bytes_per_s: over(bytes),
            bound: bound.into(),
            of_ceiling: over(ceiling),
            floor,
            of_floor: over(floor),
            peer: None,
        }
    }

    /// cuBLASLt's time over ours.
    pub fn ratio(&self) -> Option<f64> {
        self.peer.as_ref().map(|peer| peer.seconds / self.seconds)
    }

    /// The row as the table prints it.
    pub fn line(&self) -> String {
        let Row { op, shape, calls, seconds, low, high, .. } = self;
        let spread = if *seconds > 0.0 { 100.0 * (high - low) / seconds } else { 0.0 };
        let [us, tflops, tbytes] =
            [1e6 * seconds, self.flops_per_s / 1e12, self.bytes_per_s / 1e12].map(digits);
        let [ceiling, floor] = [self.of_ceiling, self.of_floor].map(|share| 100.0 * share);
        let bound = &self.bound;
        let peer = match (&self.peer, self.ratio()) {
            (Some(peer), Some(ratio)) => {
                format!("{:>11}{ratio:>7.2}", digits(1e6 * peer.seconds))
            }
            _ => String::new(),
        };
        format!(
            "{op:<19}{shape:<38}{calls:>5}{us:>10}{spread:>6.1}%{tflops:>9}{tbytes:>9}  \
             {bound:<7}{ceiling:>6.1}%{floor:>6.1}%{peer}"
        )
    }
}

/// The heading of [`Row::line`]; `peers`: with cuBLASLt's time [µs], and its ratio to ours.
pub fn heading(peers: bool) -> String {
    let heading = format!(
        "{:<19}{:<38}{:>5}{:>10}{:>7}{:>9}{:>9}  {:<7}{:>7}{:>7}",
        "op", "shape", "calls", "µs", "spread", "TFLOP/s", "TB/s", "bound", "ceil.", "floor"
    );
    if peers { format!("{heading}{:>11}{:>7}", "cuBLASLt", "/ ours") } else { heading }
}

/// Three digits, or four: `1234`, `56.7`, `0.0456`, `7.8e-5`.
fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        v if v < 1e-3 => scientific(value),
        v if v < 0.1 => format!("{value:.4}"),
        v if v < 1.0 => format!("{value:.3}"),
        v if v < 10.0 => format!("{value:.2}"),
        v if v < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

impl Skipped {
    pub fn line(&self) -> String {
        format!("{:<19}{:<38}{}", self.op, self.shape, self.why)
    }
}

impl Report {
    /// An empty one, of a benchmark on this device.
    pub fn of(device: DeviceFacts) -> Report {
        Report {
            version: env!("CARGO_PKG_VERSION").into(),
            kind: String::new(),
            what: String::new(),
            device,
            ceilings: Ceilings::default(),
            cublaslt: String::new(),
            readings: Readings::default(),
            rows: Vec::new(),
            skipped: Vec::new(),
            step: None,
        }
    }

    /// Reads what `--json` wrote.
    pub fn read(path: &Path) -> Result<Report> {
        let what = || format!("cannot read {}", path.display());
        let text = std::fs::read_to_string(path).with_context(what)?;
        serde_json::from_str(&text).with_context(|| {
            format!("{} is not what `warpwright bench … --json` writes", path.display())
        })
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// What stands above the table.
    pub fn preamble(&self) -> String {
        let (device, ceilings) = (&self.device, &self.ceilings);
        let l2 = if device.l2 > 0 { plan::size(device.l2) } else { "unknown".into() };
        let mut text = format!(
            "device     {}: {} multiprocessors, compute capability {}.{}, memory {}, L2 {l2}\n",
            device.name,
            device.processors,
            device.capability.0,
            device.capability.1,
            plan::size(device.memory),
        );
        // Writing to a String cannot fail.
        if device.place == "emulator" {
            text +=
                "times      of the emulator, on this machine's CPU: they say nothing of a GPU\n";
        }
        let _ = writeln!(
            text,
            "ceilings   {} TB/s: a copy of {}, read and written\n           \
             {} TFLOP/s: a product of {}, {}",
            digits(ceilings.bytes_per_s / 1e12),
            plan::size(ceilings.copied as u64),
            digits(ceilings.flops_per_s / 1e12),
            ceilings.product_of,
            ceilings.product,
        );
        if !self.cublaslt.is_empty() {
            let _ = writeln!(text, "cuBLASLt   {}", self.cublaslt);
        }
        let _ = write!(
            text,
            "floors     by {}\nmeasured   {}",
            match &device.known {
                Some(name) => format!("the {name} of `warpwright plan`"),
                None => "the ceilings above".into(),
            },
            self.what,
        );
        text
    }

    /// What stands below it.
    pub fn closing(&self) -> String {
        let reading = |r: &Option<Reading>| r.as_ref().map_or("unknown".into(), Reading::to_string);
        let peers = self.peers().map_or(String::new(), |said| format!("cuBLASLt   {said}\n"));
        format!(
            "{peers}GPU        before: {}\n           after:  {}",
            reading(&self.readings.before),
            reading(&self.readings.after)
        )
    }

    /// How long cuBLASLt takes beside us, over all products; None where there are none.
    pub fn peers(&self) -> Option<String> {
        let ratios: Vec<f64> = self.rows.iter().filter_map(Row::ratio).collect();
        let extreme = |of: fn(f64, f64) -> f64| ratios.iter().copied().reduce(of);
        let (least, most) = (extreme(f64::min)?, extreme(f64::max)?);
        let mean = ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64;
        Some(format!(
            "takes {:.2} times our time for the bare products: geometric mean of {}, from \
             {least:.2} to {most:.2}",
            mean.exp(),
            ratios.len(),
        ))
    }
}
