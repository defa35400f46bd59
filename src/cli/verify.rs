//! `warpwright verify`: every kernel beside the reference.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Serialize;

use super::say;
use crate::device::gpu::emulator::{self, Build, Emulator, Modes, Order};
use crate::device::gpu::{self, Gemm, Gpu, Kernels, Place};
use crate::verify::{self, Request, Row, Sizes};

/// Hold every kernel to the CPU reference
///
/// Each op runs on random inputs, its outputs poisoned first, and must come within twice the error
/// of a plain bf16 computation, plus an ulp, of the result in f64; and give the same bits each
/// time. Without a GPU the kernels run on the emulator, which also finds races, missing fences,
/// deadlocks and stray accesses.
#[derive(Debug, clap::Args)]
#[command(after_help = after_help())]
pub struct VerifyArgs {
    /// Where the kernels run
    #[arg(long, value_enum, default_value = "emulator")]
    pub device: Place,
    /// One family of ops, e.g. attention
    #[arg(long, value_name = "FAMILY", value_parser = families())]
    pub op: Option<String>,
    /// The plain twins, the fast kernels, or both
    #[arg(long, value_enum, default_value = "both")]
    pub kernels: Which,
    /// Which kernels multiply, where a check leaves it open
    #[arg(long, value_enum, default_value = "auto")]
    pub gemm: Gemm,
    /// Shapes: small for the emulator, full for a GPU [default: what suits the device]
    #[arg(long, value_enum)]
    pub sizes: Option<SizesArg>,
    /// Emulator: how the kernels are compiled [default: plain, or check where that counts]
    #[arg(long, value_enum)]
    pub build: Option<BuildArg>,
    /// Emulator: which of the threads that can run runs next
    #[arg(long, value_enum, default_value = "fifo")]
    pub order: OrderArg,
    /// Emulator: asynchronous copies land as late as the rules allow
    #[arg(long)]
    pub lazy: bool,
    /// Emulator: count bank conflicts and memory sectors by source line
    #[arg(long)]
    pub counters: bool,
    /// GPU: let a kernel begin before the one before it has ended, as `train.overlap` does
    #[arg(long)]
    pub overlap: bool,
    /// Runs of each launch that must give the same bits
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub repeats: usize,
    /// Stop at the first result that is wrong
    #[arg(long)]
    pub fail_fast: bool,
    /// Of the random inputs [default: the time]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Emulator: another library of kernels, as tests/mutants.rs makes them
    #[arg(long, value_name = "FILE", hide = true)]
    pub library: Option<PathBuf>,
    /// Write the table as JSON too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Which {
    Naive,
    Fast,
    Both,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum SizesArg {
    Small,
    Full,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum BuildArg {
    Plain,
    /// With the race checker
    Check,
    /// With AddressSanitizer
    Asan,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum OrderArg {
    Fifo,
    Lifo,
    Random,
}

fn families() -> Vec<&'static str> {
    verify::families().collect()
}

fn after_help() -> String {
    let families: Vec<&str> = families();
    format!(
        "Families: {}\n\nExamples:\n  \
         warpwright verify\n  \
         warpwright verify --op norm --build check\n  \
         warpwright verify --op norm --kernels fast --counters\n  \
         warpwright verify --lazy --order random --seed 7\n  \
         warpwright verify --device cuda --json verified.json",
        families.join(", ")
    )
}

/// The table as JSON.
#[derive(Serialize)]
struct Report<'a> {
    seed: u64,
    rows: &'a [Row],
}

/// Verifies, printing each row; an error if any fails.
pub fn run(args: VerifyArgs) -> Result<()> {
    if let Some(library) = wants_preload(&args) {
        return again_with(&library);
    }
    let seed = args.seed.unwrap_or_else(time_seed);
    let sizes = match args.sizes {
        Some(SizesArg::Full) => Sizes::Full,
        Some(SizesArg::Small) => Sizes::Small,
        None if args.device == Place::Cuda => Sizes::Full,
        None => Sizes::Small,
    };
    say(format_args!("inputs from seed {seed}"))?;
    say(verify::heading())?;
    let mut rows = Vec::new();
    for (kernels, name) in [(Kernels::Naive, "naive"), (Kernels::Fast, "fast")] {
        let wanted = matches!(
            (args.kernels, kernels),
            (Which::Both, _) | (Which::Naive, Kernels::Naive) | (Which::Fast, Kernels::Fast)
        );
        if !wanted {
            continue;
        }
        let gpu = open(&args, kernels)?;
        gpu.use_gemm(args.gemm)?;
        let (only, repeats) = (args.op.as_deref(), args.repeats);
        let fail_fast = args.fail_fast;
        let request = Request { gpu: &gpu, kernels: name, sizes, seed, repeats, only, fail_fast };
        let mut told = Ok(());
        rows.extend(verify::verify(request, &mut |row| {
            if told.is_ok() {
                told = say(row.line());
            }
        }));
        told?;
        if args.counters {
            say(gpu.driver().counters())?;
        }
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&Report { seed, rows: &rows })?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    say(verify::summary(&rows))?;
    if rows.iter().any(|row| !row.passed()) {
        bail!("some kernels are wrong: run again with --seed {seed} --op FAMILY");
    }
    Ok(())
}

fn open(args: &VerifyArgs, kernels: Kernels) -> Result<Gpu> {
    if args.device == Place::Cuda {
        if modes(args) != (Modes { seed: modes(args).seed, ..Modes::default() }) {
            bail!("--build, --order, --lazy and --counters are the emulator's");
        }
        let gpu = gpu::open(Place::Cuda, kernels)?;
        gpu.overlap(args.overlap);
        return Ok(gpu);
    }
    if args.counters && build(args) != Build::Check {
        bail!("only the check build counts: leave --build away");
    }
    let emulator = match &args.library {
        Some(library) => Emulator::at(library, modes(args))?,
        None => Emulator::new(modes(args))?,
    };
    // It runs one kernel at a time, and makes sure that each could overlap with others.
    let gpu = Gpu::new(Box::new(emulator), kernels);
    gpu.overlap(true);
    Ok(gpu)
}

fn build(args: &VerifyArgs) -> Build {
    match args.build {
        Some(BuildArg::Check) => Build::Check,
        None if args.counters => Build::Check,
        None | Some(BuildArg::Plain) => Build::Plain,
        Some(BuildArg::Asan) => Build::Asan,
    }
}

fn modes(args: &VerifyArgs) -> Modes {
    Modes {
        build: build(args),
        order: match args.order {
            OrderArg::Fifo => Order::Fifo,
            OrderArg::Lifo => Order::Lifo,
            OrderArg::Random => Order::Random,
        },
        lazy: args.lazy,
        counters: args.counters,
        threads: 0,
        seed: args.seed.unwrap_or(1),
    }
}

/// AddressSanitizer's library, if this process must first be started anew with it.
fn wants_preload(args: &VerifyArgs) -> Option<OsString> {
    let library = OsString::from(emulator::asan_library()?);
    let asan = args.device == Place::Emulator && build(args) == Build::Asan;
    (asan && std::env::var_os("LD_PRELOAD").as_ref() != Some(&library)).then_some(library)
}

/// Runs this program with the same arguments under AddressSanitizer's library.
fn again_with(library: &OsString) -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let status = std::process::Command::new(program)
        .args(std::env::args_os().skip(1))
        .env("LD_PRELOAD", library)
        // Fibers have stacks of their own; what the program holds at its end is no leak.
        .env("ASAN_OPTIONS", "detect_stack_use_after_return=0:detect_leaks=0")
        .status()
        .context("cannot start this program again under AddressSanitizer")?;
    if !status.success() {
        bail!("verification under AddressSanitizer failed ({status})");
    }
    Ok(())
}

fn time_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |since| since.as_secs())
}
