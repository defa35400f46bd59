//! `warpwright bench`: what a device does with these kernels, and how two devices compare.

mod gemm;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::{say, tuned};
use crate::bench::batches;
use crate::bench::call::Call;
use crate::bench::ceilings;
use crate::bench::compare;
use crate::bench::lengths::Lengths;
use crate::bench::measure::Bench;
use crate::bench::report::{self, DeviceFacts, Readings, Report};
use crate::bench::{page, recorder, step, sweep};
use crate::config::{Config, Overrides};
use crate::data::Batch;
use crate::device::Format;
use crate::device::gpu::cuda::nvml::Nvml;
use crate::device::gpu::cuda::probe;
use crate::device::gpu::{self, AttentionCut, Gemm, Gpu, Kernels, Place};
use crate::model::arch::Arch;
use crate::model::families::preset;
use crate::plan::{self, PlanInput, Room, gpus, kernels};
use crate::telemetry::format::commas;
use crate::verify::{self, Request, Sizes};

#[derive(Debug, clap::Subcommand)]
pub enum BenchCommand {
    Ops(OpsArgs),
    Gemm(gemm::GemmArgs),
    Attention(AttentionArgs),
    Step(StepArgs),
    Compare(CompareArgs),
}

/// What every benchmark takes.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Where the kernels run
    #[arg(long, value_enum, default_value = "cuda")]
    pub device: Place,
    /// Which kernels multiply
    #[arg(long, value_enum, default_value = "auto")]
    pub gemm: Gemm,
    /// Cut products as `bench gemm --tune` found to be fastest, by what it wrote [default FILE:
    /// where it keeps it]
    #[arg(long, value_name = "FILE")]
    pub tuned: Option<Option<PathBuf>>,
    /// Time to spend on each row [s]
    #[arg(long, value_name = "SECONDS", default_value_t = 0.2, value_parser = seconds)]
    pub budget: f64,
    /// Do not verify the kernels first
    #[arg(long)]
    pub no_verify: bool,
    /// Write the table as JSON too, for `bench compare`
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with a roofline too, and of a step with its time line
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Which step the shapes are of.
#[derive(Debug, clap::Args)]
pub struct Model {
    /// The model [default: gpt2; on the emulator, gpt2-tiny]
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Change one setting, e.g. model.layers=6; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Tokens a sequence [default: the model's context, at most 1024]
    #[arg(long, value_name = "TOKENS")]
    pub seq: Option<usize>,
    /// Tokens a step [default: 65536; on the emulator, 128]
    #[arg(long, value_name = "TOKENS")]
    pub tokens: Option<usize>,
    /// How long sequences are: fixed (all as long as --seq), mlperf (up to --seq, with the mean of
    /// MLPerf's BERT data, 254.5 of 512), or a data set or token file whose documents' lengths are
    /// drawn, cut at --seq
    #[arg(long, value_name = "fixed|mlperf|PATH", default_value = "fixed")]
    pub lengths: Lengths,
}

/// Time every op of a training step, each at the shapes at which the model calls it
///
/// Each kernel is first verified. Inputs are random, and copies of them are used in turn, so that
/// none is in the L2 cache already. A row tells the median and spread (the quartiles' distance) of
/// the device's time, and its share of two ceilings measured in the same run: of memory by a copy,
/// of compute by a large product. Where the system's loader finds cuBLASLt (LD_LIBRARY_PATH counts)
/// that product is cuBLASLt's, and every product has a peer: the bare product of its shape, by the
/// fastest of cuBLASLt's algorithms. No library is used for anything else, but by --gemm cublaslt.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    warpwright bench ops --preset bert-base --seq 512 --json ops.json\n  \
    warpwright bench ops --op norm --budget 1\n  \
    warpwright bench ops --device emulator        to see how it works, without a GPU")]
pub struct OpsArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub model: Model,
    /// One family of ops, e.g. attention
    #[arg(long, value_name = "FAMILY", value_parser = verify::families().collect::<Vec<_>>())]
    pub op: Option<String>,
}

/// Time attention over head widths, lengths and masks, forward and backward
///
/// Causal, bidirectional, and in windows of ±64.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    warpwright bench attention --json attention.json\n  \
    warpwright bench attention --head-dim 64 --seq 512 --lengths mlperf\n  \
    warpwright bench attention --head-dim 64 --seq 512,8192 --width 1024 --portable")]
pub struct AttentionArgs {
    #[command(flatten)]
    pub common: Common,
    /// Tokens at a time [default: 65536; on the emulator, 128]
    #[arg(long, value_name = "TOKENS")]
    pub tokens: Option<usize>,
    /// Lengths of sequences, with commas between [default: 128,256,512,1024,2048,4096,8192; on
    /// the emulator, 64,128]
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    pub seq: Vec<usize>,
    /// How long sequences are: fixed (all as long as --seq), mlperf (up to --seq, with the mean of
    /// MLPerf's BERT data, 254.5 of 512), or a data set or token file whose documents' lengths are
    /// drawn, cut at --seq
    #[arg(long, value_name = "fixed|mlperf|PATH", default_value = "fixed")]
    pub lengths: Lengths,
    /// Time kernels/attention.cu, which run on every chip, where there are faster ones
    #[arg(long)]
    pub portable: bool,
    /// Widths of a head, with commas between
    #[arg(long, value_name = "D", value_delimiter = ',', default_value = "64,128")]
    pub head_dim: Vec<usize>,
    /// Of all heads together [default: 768; on the emulator, 128]
    #[arg(long, value_name = "C")]
    pub width: Option<usize>,
}

/// Time whole optimizer steps on random tokens
///
/// Tokens a second, model FLOPs utilisation (MFU), energy a token, the device's time by op, what of
/// a step is no op's, and beside it what `plan` predicts for this GPU, if it knows it: the sum of
/// the step's floors. All tokens are real: nothing is padded.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    warpwright bench step --preset gpt2 --seq 1024 --json step.json\n  \
    warpwright bench step --preset bert-large --seq 512 --lengths mlperf --budget 10\n  \
    warpwright bench step --preset bert-base --seq 512 --lengths data/books\n  \
    warpwright bench step --device emulator --preset bert-tiny --tokens 64")]
pub struct StepArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub model: Model,
    /// Tokens a pass; a step takes as many passes as it needs [default: all in one]
    #[arg(long, value_name = "TOKENS")]
    pub micro: Option<usize>,
}

/// Compare two benchmarks, row by row
///
/// A row is slower, or faster, if the quartiles of its samples do not overlap. Fails if any is
/// slower by more than a factor.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    warpwright bench compare before.json after.json\n  \
    warpwright bench compare h100.json h200.json --slower 1.2")]
pub struct CompareArgs {
    /// What `--json` wrote, the earlier or the reference
    pub a: PathBuf,
    pub b: PathBuf,
    /// Fail where B takes more than so many times what A takes, beyond spread
    #[arg(long, value_name = "FACTOR", default_value_t = 1.05)]
    pub slower: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds are a number from 0 to 3600".into()),
    }
}

pub fn run(command: &BenchCommand) -> Result<()> {
    match command {
        BenchCommand::Ops(args) => ops(args),
        BenchCommand::Gemm(args) => gemm::gemm(args),
        BenchCommand::Attention(args) => attention(args),
        BenchCommand::Step(args) => whole_step(args),
        BenchCommand::Compare(args) => side_by_side(args),
    }
}

impl Common {
    fn emulated(&self) -> bool {
        self.device == Place::Emulator
    }

    /// One thing on a GPU, another on the emulator.
    fn either<T>(&self, gpu: T, emulator: T) -> T {
        if self.emulated() { emulator } else { gpu }
    }

    fn tokens(&self, asked: Option<usize>) -> Result<usize> {
        match asked.unwrap_or(self.either(65536, 128)) {
            0 => bail!("--tokens is 0: give it at least 1"),
            tokens => Ok(tokens),
        }
    }
}

/// A step, as asked for.
struct Wanted {
    config: Config,
    arch: Arch,
    /// Share of rows predicted; None: all.
    masked: Option<f64>,
    name: String,
}

impl Wanted {
    fn of(
        common: &Common,
        name: Option<&str>,
        set: &[String],
        (seq, tokens, micro): (Option<usize>, usize, Option<usize>),
    ) -> Result<Wanted> {
        let name = name.unwrap_or(common.either("gpt2", "gpt2-tiny")).to_string();
        let longest = preset(&name).map_or(1024, |arch| arch.context.min(1024));
        let mut all: Vec<String> = set.to_vec();
        let seq = seq.unwrap_or(longest.min(tokens));
        if seq == 0 {
            bail!("--seq is 0: a sequence has at least 1 token");
        }
        all.extend([format!("batch.tokens={tokens}"), format!("batch.context={seq}")]);
        all.extend(micro.map(|micro| format!("batch.micro={micro}")));
        // A model that attends to the future fills in words, and the other way round.
        let causal = preset(&name).is_none_or(|arch| arch.causal);
        let objective = Some(if causal { "causal" } else { "masked" }.to_string());
        let recipe = None;
        let overrides =
            Overrides { recipe, preset: Some(name.clone()), init: None, objective, set: all };
        let config = Config::resolve(&overrides)?;
        let arch = config.arch(None)?;
        if let Err(why) = kernels::supports(&arch) {
            bail!("{why}");
        }
        let masked = PlanInput::of(&config, Format::BF16, Format::F32).masked;
        Ok(Wanted { config, arch, masked, name })
    }

    fn from(common: &Common, model: &Model, micro: Option<usize>) -> Result<Wanted> {
        let sizes = (model.seq, common.tokens(model.tokens)?, micro);
        Wanted::of(common, model.preset.as_deref(), &model.set, sizes)
    }

    /// A pass.
    fn batch(&self, lengths: &Lengths) -> Batch {
        let (context, micro) = (self.config.batch.context, self.config.micro());
        batches::batch(&self.arch, &lengths.draw(context, micro), self.masked)
    }

    /// `gpt2, 65536 of 1024`: tokens, in sequences of so many.
    fn shape(&self, lengths: &Lengths) -> String {
        let up_to = if *lengths == Lengths::Fixed { "" } else { "up to " };
        let (context, tokens) = (self.config.batch.context, self.config.batch.tokens);
        format!("{}, {tokens} of {up_to}{context}", self.name)
    }

    /// `gpt2, sequences of 1024, 65,536 tokens a step`
    fn words(&self, lengths: &Lengths) -> String {
        let (context, tokens) = (self.config.batch.context, self.config.batch.tokens);
        let (lengths, tokens) = (lengths.words(context), commas(tokens as u64));
        format!("{}, {lengths}, {tokens} tokens a step", self.name)
    }
}

fn ops(args: &OpsArgs) -> Result<()> {
    let wanted = Wanted::from(&args.common, &args.model, None)?;
    let lengths = &args.model.lengths;
    let mut calls = recorder::calls(&wanted.arch, &wanted.batch(lengths))?;
    if let Some(family) = &args.op {
        calls.retain(|(call, _)| call.family() == family);
        if calls.is_empty() {
            bail!("a step of {} has no op of the family {family}", wanted.name);
        }
    }
    Session::open(&args.common)?.rows("ops", wanted.words(lengths), &calls)
}

fn attention(args: &AttentionArgs) -> Result<()> {
    let common = &args.common;
    let tokens = common.tokens(args.tokens)?;
    let default: &[usize] = common.either(&[128, 256, 512, 1024, 2048, 4096, 8192], &[64, 128]);
    let lengths = if args.seq.is_empty() { default } else { &args.seq };
    let width = args.width.unwrap_or(common.either(768, 128));
    if lengths.contains(&0) {
        bail!("--seq has a 0: a sequence has at least 1 token");
    }
    if let Some(d) = args.head_dim.iter().find(|&&d| d == 0 || d > width) {
        bail!("--head-dim {d} fits no head into a width of {width}: take 1 to {width}");
    }
    let calls = sweep::attention(tokens, width, &args.head_dim, lengths, &args.lengths);
    for (call, _) in &calls {
        if let Call::Attention { at, .. } = call
            && let Err(why) = crate::ops::attention::supports(at)
        {
            bail!("{why}");
        }
    }
    let what = format!("attention of width {width}, {} tokens", commas(tokens as u64));
    let session = Session::open(common)?;
    session.gpu.fix_attention(args.portable.then_some(AttentionCut::Portable));
    session.rows("attention", what, &calls)
}

fn whole_step(args: &StepArgs) -> Result<()> {
    let wanted = Wanted::from(&args.common, &args.model, args.micro)?;
    let lengths = &args.model.lengths;
    let passes = wanted.config.batch.tokens / wanted.config.micro();
    let micros = vec![wanted.batch(lengths); passes];
    let mut session = Session::open(&args.common)?;
    let properties = session.gpu.driver().properties().clone();
    let input = PlanInput {
        capacity: Some(step::capacity(&wanted.arch, &batches::unmasked(&wanted.arch, &micros).0)),
        gpus: gpus::of(&properties).copied().into_iter().collect(),
        kernels: Some(properties),
        tuned: session.gpu.tuned(),
        ..PlanInput::of(&wanted.config, Format::BF16, Format::F32)
    };
    let plan = plan::plan(&wanted.arch, &input);
    let free = session.gpu.driver().free_memory()?;
    let room = if args.common.emulated() { Room::host() } else { Room::gpu(free) };
    room.check(plan.bytes())?;
    session.gpu.overlap(wanted.config.train.overlap);
    session.gpu.deterministic(wanted.config.train.deterministic);
    let families = verify::families().collect::<Vec<_>>();
    session.start("step", wanted.words(lengths), &families)?;
    let shape = wanted.shape(lengths);
    let nvml = session.nvml.as_ref();
    let job = step::Job { arch: &wanted.arch, micros: &micros, plan: &plan, shape, nvml };
    let (rows, facts) = step::measure(&session.bench(), &job, &session.report.ceilings)?;
    for row in &rows {
        say(row.line())?;
    }
    session.report.rows = rows;
    say(format_args!("\n{}", facts.told()))?;
    session.report.step = Some(facts);
    session.finish()
}

fn side_by_side(args: &CompareArgs) -> Result<()> {
    let (a, b) = (Report::read(&args.a)?, Report::read(&args.b)?);
    let who = |report: &Report| format!("{}: {}", report.device.name, report.what);
    say(format_args!("A  {}\nB  {}\n{}", who(&a), who(&b), compare::heading()))?;
    let (pairs, alone) = compare::compare(&a, &b);
    pairs.iter().try_for_each(|pair| say(pair.line()))?;
    alone.iter().try_for_each(say)?;
    if pairs.is_empty() {
        bail!("the two have no row in common: measure the same model, tokens and sequences");
    }
    let slower = pairs.iter().filter(|pair| pair.fails(args.slower)).count();
    if slower > 0 {
        bail!("{slower} of {} rows are slower by more than {}", pairs.len(), args.slower);
    }
    Ok(say(format_args!("none of {} rows is slower by more than {}", pairs.len(), args.slower))?)
}

/// A benchmark that runs.
struct Session<'a> {
    common: &'a Common,
    gpu: Gpu,
    nvml: Option<Nvml>,
    report: Report,
}

impl Session<'_> {
    fn open(common: &Common) -> Result<Session<'_>> {
        let gpu = gpu::open(common.device, Kernels::Fast).map_err(|why| match common.device {
            Place::Cuda => anyhow::anyhow!("{why}; or try it out with --device emulator"),
            Place::Emulator => why.into(),
        })?;
        gpu.use_gemm(common.gemm)?;
        if let Some(named) = &common.tuned {
            gpu.use_tuned(Some(tuned(named.as_deref(), &gpu)?));
        }
        let first = match common.device {
            Place::Cuda => probe::devices().ok().and_then(|all| all.into_iter().next()),
            Place::Emulator => None,
        };
        let l2 = first.as_ref().and_then(|device| device.l2).unwrap_or(0);
        let nvml = first.and_then(|device| Nvml::open(&device.pci?));
        let properties = gpu.driver().properties();
        let device = DeviceFacts {
            place: common.either("cuda", "emulator").into(),
            name: properties.name.clone(),
            capability: properties.capability,
            processors: properties.processors,
            memory: properties.memory,
            l2: l2.into(),
            known: gpus::of(properties).map(|gpu| gpu.name.into()),
        };
        let mut report = Report::of(device);
        report.cublaslt = match gpu.driver().blas() {
            _ if common.emulated() => String::new(),
            Ok(blas) => blas.version(),
            Err(why) => format!("none to compare with: {why}"),
        };
        Ok(Session { common, gpu, nvml, report })
    }

    fn bench(&self) -> Bench<'_> {
        Bench {
            gpu: &self.gpu,
            emulated: self.common.emulated(),
            l2: self.report.device.l2,
            budget: self.common.budget,
            known: gpus::of(self.gpu.driver().properties()),
        }
    }

    /// Verifies, measures the ceilings, and prints what stands above the table.
    fn start(&mut self, kind: &str, what: String, families: &[&str]) -> Result<()> {
        if !self.common.no_verify {
            families.iter().try_for_each(|family| self.verify(family))?;
        }
        self.report.kind = kind.into();
        let gemm = match self.common.gemm {
            Gemm::Auto => "",
            Gemm::Portable => ", portable products",
            Gemm::Hopper => ", hopper products",
            Gemm::Cublaslt => ", products by cuBLASLt",
        };
        let tuned = if self.common.tuned.is_some() { ", tuned" } else { "" };
        self.report.what = what + gemm + tuned;
        self.report.readings.before = self.nvml.as_ref().map(Nvml::read);
        self.report.ceilings = ceilings::measure(&self.bench())?;
        say(self.report.preamble())?;
        let peers = self.gpu.driver().blas().is_ok();
        Ok(say(format_args!("\n{}", report::heading(peers && kind != "step")))?)
    }

    /// Refuses to measure what computes something else.
    fn verify(&self, family: &str) -> Result<()> {
        let request = Request {
            gpu: &self.gpu,
            kernels: "fast",
            sizes: Sizes::Small,
            seed: 1,
            repeats: 1,
            only: Some(family),
            fail_fast: true,
        };
        let rows = verify::verify(request, &mut |_| ());
        match rows.iter().find(|row| !row.passed()) {
            None => Ok(()),
            Some(row) => bail!(
                "a kernel is wrong, so its time means nothing (see `warpwright verify --op \
                 {family}`, or add --no-verify):\n{}",
                row.line()
            ),
        }
    }

    /// Times `calls`, printing each as it comes.
    fn rows(mut self, kind: &str, what: String, calls: &[(Call, u64)]) -> Result<()> {
        let mut families: Vec<&str> = calls.iter().map(|(call, _)| call.family()).collect();
        families.sort();
        families.dedup();
        self.start(kind, what, &families)?;
        for (call, count) in calls {
            let measured = self.bench().row(call, *count, &self.report.ceilings);
            let name = || format!("{} {}", call.family(), call.shape());
            match measured.with_context(name)? {
                Ok(row) => {
                    say(row.line())?;
                    self.report.rows.push(row);
                }
                Err(skipped) => {
                    say(skipped.line())?;
                    self.report.skipped.push(skipped);
                }
            }
        }
        self.finish()
    }

    /// Prints what stands below the table, and writes it.
    fn finish(mut self) -> Result<()> {
        self.report.readings = Readings {
            after: self.nvml.as_ref().map(Nvml::read),
            before: self.report.readings.before.take(),
        };
        say(format_args!("\n{}", self.report.closing()))?;
        if let Some(path) = &self.common.json {
            self.report.write(path)?;
        }
        if let Some(path) = &self.common.html {
            std::fs::write(path, page::render(&self.report))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}
