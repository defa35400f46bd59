//! `warpwright pretrain`: text in, a trained model out.

use std::io::{Write, stderr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use half::bf16;

use super::{tell, tuned};
use crate::config::{Config, Dtype, Overrides, Where};
use crate::device::cpu::Cpu;
use crate::device::gpu::cuda::nvml::Nvml;
use crate::device::gpu::tuned::Tuned;
use crate::device::gpu::{self, Gemm, Gpu, Kernels};
use crate::device::meter::Meter;
use crate::device::{Class, Device};
use crate::plan::{self, Plan, PlanInput, Room, kernels};
use crate::predict::Predictor;
use crate::telemetry::format::duration;
use crate::telemetry::metrics::{RunRecord, Sample, SamplesRecord};
use crate::telemetry::{Record, report};
use crate::train::folder::RunFolder;
use crate::train::prepare::Prepared;
use crate::train::run::{End, Run, Session};
use crate::train::samples::samples;
use crate::train::step::Trainer;

/// Pretrain a language model; with no flags, a small one on the text that ships with the program
///
/// Trains the tokenizer and makes token shards where they are not given, prints the plan, trains
/// with held-out losses beside the unigram baseline, keeps checkpoints (each a Hugging Face model),
/// writes report.html, and shows what the model can do. Ctrl-C takes a checkpoint and stops.
///
/// --init goes on with a model that was trained before, by its own objective and with its own
/// tokenizer: domain adaptation. data.general=DIR (shards, or text) with data.general_share=0.2
/// mixes general data among the batches, against forgetting.
///
/// A run is described by one TOML table: the built-in defaults, then --config, then --set. The run
/// directory keeps the result as config.toml; see configs/ for commented recipes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    warpwright pretrain                       a masked model (ModernBERT-like), in minutes\n  \
    warpwright pretrain --objective causal    a GPT\n  \
    warpwright pretrain --resume              go on where a run was stopped\n  \
    warpwright pretrain --preset bert-tiny --set train.steps=300 --out runs/bert\n  \
    warpwright pretrain --config configs/gpt2-124m.toml --set data.shards=data/books\n  \
    warpwright pretrain --init bert-base/ --set 'data.text=[\"law/\"]' \\\n    \
    --set train.steps=2000 --set data.general=wiki/ --set data.general_share=0.2 --out runs/law")]
pub struct PretrainArgs {
    /// A recipe (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The model to start from; `warpwright plan --help` lists them
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Go on with the model of this folder (a run's, or Hugging Face's), on text of yours
    #[arg(long, value_name = "DIR", conflicts_with = "preset")]
    pub init: Option<PathBuf>,
    /// With --init: have the model read this tokenizer's tokens. Those that its own spells alike
    /// keep their rows, others begin at the mean of all
    #[arg(long, value_name = "DIR", requires = "init")]
    pub tokenizer: Option<PathBuf>,
    /// With --init: have the model take sequences of so many tokens. Learnt positions beyond its
    /// own begin as copies of these
    #[arg(long, value_name = "TOKENS", requires = "init")]
    pub positions: Option<usize>,
    /// What to learn [default: what the preset is for]
    #[arg(long, value_name = "KIND", value_parser = ["masked", "causal"])]
    pub objective: Option<String>,
    /// Change one setting, e.g. train.steps=500; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The run directory [default: runs/masked or runs/causal]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on with the run in the directory, by its own configuration
    #[arg(long, conflicts_with_all =
        ["config", "preset", "init", "set", "force", "dtype", "device", "gemm", "tuned"])]
    pub resume: bool,
    /// Replace the run in the directory
    #[arg(long)]
    pub force: bool,
    /// Where to train [default: the GPU if there is one that can, else the CPU]
    #[arg(long, value_enum)]
    pub device: Option<Where>,
    /// What activations and weights are stored as [default: bf16 on a GPU, f32 on the CPU]
    #[arg(long, value_enum)]
    pub dtype: Option<Dtype>,
    /// On a GPU: which kernels multiply [default: auto]
    #[arg(long, value_enum)]
    pub gemm: Option<Gemm>,
    /// On a GPU: cut products as `bench gemm --tune` found to be fastest, by what it wrote [default
    /// FILE: where it keeps it]. The run keeps a copy, products.json, and resumes by that
    #[arg(long, value_name = "FILE")]
    pub tuned: Option<Option<PathBuf>>,
    /// Threads [default: one a core]; the result is the same for any number
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

impl PretrainArgs {
    /// The defaults, the recipe, then flags.
    fn config(&self) -> Result<Config> {
        let value = |key: &str, value: Option<PossibleValue>| {
            value.map(|value| format!("{key}={}", value.get_name()))
        };
        let dtype = value("dtype", self.dtype.and_then(|dtype| dtype.to_possible_value()));
        let device = value("device", self.device.and_then(|device| device.to_possible_value()));
        let gemm = value("train.gemm", self.gemm.and_then(|gemm| gemm.to_possible_value()));
        let tuned = self.tuned.as_ref().map(|_| "train.tuned=true".to_string());
        let context = self.positions.map(|positions| format!("model.context={positions}"));
        let quoted = |path: &PathBuf| format!("data.tokenizer={:?}", path.display().to_string());
        let tokenizer = self.tokenizer.as_ref().map(quoted);
        let flags = [dtype, device, gemm, tuned, context, tokenizer].into_iter().flatten();
        Ok(Config::resolve(&Overrides {
            recipe: self.config.clone(),
            preset: self.preset.clone(),
            init: self.init.clone(),
            objective: self.objective.clone(),
            set: self.set.iter().cloned().chain(flags).collect(),
        })?)
    }
}

/// Raised by Ctrl-C.
static STOP: AtomicBool = AtomicBool::new(false);

/// Trains, or goes on training.
pub fn run(args: PretrainArgs) -> Result<()> {
    let launched = Instant::now();
    if let Some(threads) = args.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    let causal = args.objective.as_deref() == Some("causal");
    let mut found = None;
    let (resumed, config) = if args.resume {
        let default = if causal { "runs/causal" } else { "runs/masked" };
        let out = args.out.clone().unwrap_or_else(|| default.into());
        let (folder, config) = RunFolder::resume(&out)?;
        (Some(folder), config)
    } else {
        let mut config = args.config()?;
        config.settle(|| {
            found = gpu::open(gpu::Place::Cuda, Kernels::Fast).ok();
            found.is_some()
        })?;
        (None, config)
    };
    // What cannot be is refused before the directory is touched and text is tokenized.
    let gpu = open(&config, found)?;
    if let (Some(gpu), true) = (&gpu, config.train.tuned) {
        gpu.use_tuned(Some(cuts(&args, gpu, resumed.as_ref())?));
    }
    let room = match &gpu {
        Some(gpu) if config.device == Where::Cuda => Room::gpu(gpu.driver().free_memory()?),
        _ => Room::host(),
    };
    room.check(plan::at_least(&config)?)?;
    let folder = match resumed {
        Some(folder) => folder,
        None => {
            let default = || format!("runs/{}", config.objective_name()).into();
            RunFolder::create(&args.out.clone().unwrap_or_else(default), &config, args.force)?
        }
    };
    let data = Prepared::open(&config, &folder.data())?;
    data.notes.iter().for_each(|text| note(text));
    ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed)).context("cannot catch Ctrl-C")?;
    let tuned = gpu.as_ref().and_then(Gpu::tuned);
    let job = Job { args: &args, config: &config, folder: &folder, data, room, tuned, launched };
    match (gpu, config.dtype()) {
        (Some(gpu), _) => job.train_on_gpu(gpu),
        (None, Dtype::F64) => job.train_on_cpu(Cpu::<f64>::new()),
        (None, Dtype::F32) => job.train_on_cpu(Cpu::<f32>::new()),
        (None, Dtype::Bf16) => job.train_on_cpu(Cpu::<bf16>::new()),
    }
}

/// The GPU, or the emulator, that a run asks for, if its kernels take the model; `found` if it was
/// opened before.
fn open(config: &Config, found: Option<Gpu>) -> Result<Option<Gpu>> {
    let Some(place) = config.device.place() else { return Ok(None) };
    if let Err(why) = kernels::supports(&config.arch(None)?) {
        bail!("{why}; or train on the CPU, with --device cpu");
    }
    let gpu = found.map_or_else(|| gpu::open(place, Kernels::Fast), Ok)?;
    gpu.overlap(config.train.overlap);
    gpu.use_gemm(config.train.gemm)?;
    gpu.deterministic(config.train.deterministic);
    Ok(Some(gpu))
}

/// The cuts of products that a run trains by: a new one's as they were measured, a resumed one's as
/// it began, so that its sums go on in the same order.
fn cuts(args: &PretrainArgs, gpu: &Gpu, resumed: Option<&RunFolder>) -> Result<Tuned> {
    match resumed {
        Some(folder) => Tuned::read(&folder.products(), gpu.driver().properties()).context(
            "the run cannot go on in the same order of sums (bring its file back, or set \
             train.tuned = false in its config.toml to go on in another)",
        ),
        None => tuned(args.tuned.as_ref().and_then(|file| file.as_deref()), gpu),
    }
}

/// Steps of a run on a GPU whose ops are timed: few, since each is then waited for, and not the
/// first, which loads kernels.
const METERED: Range<u64> = 1..4;

struct Job<'a> {
    args: &'a PretrainArgs,
    config: &'a Config,
    folder: &'a RunFolder,
    data: Prepared,
    room: Room,
    /// The measured cuts of products that it trains by, if it does.
    tuned: Option<Tuned>,
    launched: Instant,
}

impl Job<'_> {
    fn train_on_cpu<D: Device>(self, dev: D) -> Result<()> {
        self.show_plan(&dev, None)?;
        self.train(Meter::new(dev))
    }

    /// With all memory taken before the first step.
    fn train_on_gpu(self, dev: Gpu) -> Result<()> {
        let plan = self.show_plan(&dev, Some(&dev))?;
        dev.reserve(plan.memory[&Class::Workspace] as usize);
        let clock = Box::new(dev.clone());
        self.train(Meter::of_steps(dev, clock, METERED))
    }

    /// Trains. The plan comes before: what it refuses needs no batches.
    fn train<D: Device>(mut self, dev: Meter<D>) -> Result<()> {
        if let Some(text) = self.data.hold_out(self.config)? {
            note(&text);
        }
        let (config, data) = (self.config, &self.data);
        let capacity = data.capacity(config.micro());
        // A processor has better to do: it would compute all rows that masking may pick at most.
        let masker = config.device.place().and_then(|_| data.loader.masker());
        let (passes, decay) = (config.passes(), config.train.decay);
        let trainer = Trainer::new(&dev, &data.arch, capacity, passes, masker, decay)?;
        let parameters = trainer.model.layout.table.count() as u64;
        let dtype = config.dtype().of_sums();
        let nvml = (config.device == Where::Cuda).then(Nvml::of_first).flatten();
        let energy = || nvml.as_ref()?.energy();
        let run = Run { config, folder: self.folder, data, dtype, stop: &STOP, energy: &energy };
        let mut session = if self.args.resume {
            Session::resume(&dev, &run, trainer)?
        } else {
            self.folder.begin(config)?;
            if let Some(tuned) = &self.tuned {
                let path = self.folder.products();
                tuned.write(&path).with_context(|| format!("cannot write {}", path.display()))?;
            }
            Session::start(&dev, &run, trainer)?
        };
        session.launched = Some(self.launched);
        if session.step() == 0 {
            session.telemetry.record(&Record::Run(self.facts(parameters)))?;
        }
        let end = session.train()?;
        if end == End::Done && !data.heldout.is_empty() && data.tokenizer.is_some() {
            let predictor = Predictor::open(Cpu::<f32>::new(), &self.folder.path)?;
            let items = samples(&predictor, data)?;
            show(&items);
            let step = session.step();
            if session.sampled != Some(step) {
                session.telemetry.record(&Record::Samples(SamplesRecord { step, items }))?;
            }
        }
        session.telemetry.progress.finish();
        let report = report::write(&self.folder.path, None)?;
        self.say_what_next(&end, session.heldout(), &report);
        Ok(())
    }

    /// Prints what a step takes, with the kernels of a GPU or not, and refuses what does not fit.
    fn show_plan<D: Device>(&self, dev: &D, gpu: Option<&Gpu>) -> Result<Plan> {
        let input = PlanInput {
            kernels: gpu.map(|gpu| gpu.driver().properties().clone()),
            tuned: self.tuned.clone(),
            capacity: Some(self.data.capacity(self.config.micro())),
            ..PlanInput::of(self.config, dev.x_format(), dev.acc_format())
        };
        let plan = plan::plan(&self.data.arch, &input);
        tell(&plan);
        self.room.check(plan.bytes())?;
        Ok(plan)
    }

    fn facts(&self, parameters: u64) -> RunRecord {
        let config = self.config;
        let from = config.model.get("preset").or(config.model.get("init"));
        let preset = from.and_then(|name| name.as_str());
        let pair = if self.data.arch.pair { " + pairs" } else { "" };
        RunRecord {
            preset: preset.unwrap_or_default().to_string(),
            family: format!("{:?}", self.data.arch.family).to_lowercase(),
            objective: format!("{}{pair}", config.objective_name()),
            parameters,
            tokens_per_step: config.batch.tokens as u64,
            steps: config.train.steps,
            device: format!("{:?}, {:?}", config.device, config.dtype()).to_lowercase(),
            threads: rayon::current_num_threads(),
            started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs()),
            version: env!("CARGO_PKG_VERSION").to_string(),
            baseline: self.data.baseline,
        }
    }

    /// What was made, and what can be done with it.
    fn say_what_next(&self, end: &End, heldout: Option<f64>, report: &Path) {
        let run = self.folder.path.display();
        let seconds = self.launched.elapsed().as_secs_f64();
        if let End::Interrupted(step) = end {
            tell(format_args!("\nstopped after step {step}; to go on:"));
            tell(format_args!("  warpwright pretrain --resume --out {run}"));
            return;
        }
        if let (Some(loss), Some(unigram)) = (heldout, self.data.baseline) {
            tell(format_args!(
                "\nheld-out loss {loss:.3} nats; unigram, by word counts alone, {unigram:.3}"
            ));
        }
        tell(format_args!("\nin {}: wrote", duration(seconds)));
        tell(format_args!("  {run}/checkpoints/best    the model, a Hugging Face directory"));
        tell(format_args!("  {}    loss, throughput, time by op", report.display()));
        tell(format_args!(
            "  {run}/metrics.jsonl, {run}/events.out.tfevents.*    the log; TensorBoard's"
        ));
        tell(format_args!("  {run}/config.toml    everything that the run depends on"));
        tell("next:");
        if self.data.tokenizer.is_none() {
            tell(format_args!("  cp tokenizer.json {run}/checkpoints/best/    to generate text"));
        } else if self.data.arch.causal {
            tell(format_args!("  warpwright generate --model {run} --prompt \"Call me\""));
        } else {
            tell(format_args!(
                "  warpwright fill --model {run} \"To be, or not to[MASK], that is\""
            ));
        }
        tell(format_args!("  warpwright pretrain --help    other models, other text"));
    }
}

/// Prints a line beside what is told.
fn note(text: &str) {
    // As with what is told.
    let _ = writeln!(stderr(), "{text}");
}

/// Filled-in words, or continued text, for people.
fn show(samples: &[Sample]) {
    tell("");
    for sample in samples {
        match sample {
            Sample::Filled { text, answer, guesses } => {
                tell(format_args!("{text}"));
                let shown = guesses.iter().map(|g| {
                    let is_answer = answer.as_deref() == Some(g.token.as_str());
                    let mark = if is_answer { "*" } else { "" };
                    format!("{mark}{} {:.1}%", g.token, 100.0 * g.probability)
                });
                tell(format_args!("    {}", shown.collect::<Vec<_>>().join("  ")));
                tell(format_args!("    (it was: {})", answer.as_deref().unwrap_or("unknown")));
            }
            Sample::Generated { prompt, text } => tell(format_args!("{prompt} ▸ {text}\n")),
        }
    }
}
