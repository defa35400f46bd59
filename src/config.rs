//! The configuration of a run: TOML in, a validated plan out.
//!
//! A run is described by one table. It starts as the defaults below, takes over what a recipe
//! (`configs/*.toml`) says, then each `--set key=value`; unknown keys are errors at every level.
//! The run directory keeps the resolved table, so a resumed run needs no flags.

mod resolve;

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::checkpoint::model_folder;
use crate::data::Objective;
use crate::device::gpu::{Gemm, Place};
use crate::hf::{FloatType, LoadError, ModelDir};
use crate::model::arch::{Arch, ArchError};
use crate::model::families::{PRESETS, preset};
use crate::ops::optimizer::Rule;
use crate::train::schedule::Schedule;
use resolve::{complete, parse, read_table, set, subtable, with_switches};

/// Everything that a run depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Key of every random draw: weights, order, masks, dropout.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Where it trains.
    #[serde(default)]
    pub device: Where,
    /// What activations and weights are stored as [default: bf16 on a GPU, f32 on the CPU].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Dtype>,
    #[serde(default)]
    pub data: DataConfig,
    #[serde(default)]
    pub batch: BatchConfig,
    #[serde(default)]
    pub train: TrainConfig,
    #[serde(default)]
    pub schedule: Schedule,
    #[serde(default)]
    pub optimizer: Rule,
    pub objective: Objective,
    /// `preset`, and any switches of [`Arch`] that differ from it; or `init`, a folder whose model
    /// goes on learning, and its `context` and `dropout` where they are to be others.
    pub model: Table,
}

/// Where a model trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Where {
    /// The GPU if there is one that can, else the CPU
    #[default]
    Auto,
    Cpu,
    Cuda,
    /// The GPU's kernels on the CPU: slow, for study
    Emulator,
}

impl Where {
    /// Where kernels run, if they do.
    pub fn place(self) -> Option<Place> {
        match self {
            Where::Cuda => Some(Place::Cuda),
            Where::Emulator => Some(Place::Emulator),
            Where::Auto | Where::Cpu => None,
        }
    }
}

/// What a device stores activations and weights as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Sums in f64 too: the reference
    F64,
    F32,
    /// Sums in f32
    Bf16,
}

impl Dtype {
    /// How sums, and so master weights, are stored.
    pub fn of_sums(self) -> FloatType {
        if self == Dtype::F64 { FloatType::F64 } else { FloatType::F32 }
    }
}

/// Where the tokens come from: `shards`, else `text`, else the text that ships with the program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// A folder that `data tokenize` made, or llm.c and nanoGPT `.bin` files in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<PathBuf>,
    /// Text files or folders to tokenize into the run directory first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub text: Vec<PathBuf>,
    /// Entries of the tokenizer trained on `text`.
    pub vocabulary: usize,
    /// A tokenizer for `text` instead. With `model.init` its own is taken, or the model made to
    /// read this one's tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// General data beside these, against forgetting: a folder as for `shards`, else text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub general: Option<PathBuf>,
    /// Their share of the batches.
    #[serde(skip_serializing_if = "is_none_of_it")]
    pub general_share: f64,
    /// Share of the documents of `text` held out.
    pub heldout: f64,
    /// The token that ends a text in `.bin` files [default: 50256, where the vocabulary has it].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_of_text: Option<u32>,
}

/// What one optimizer step sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Tokens an optimizer step.
    pub tokens: usize,
    /// Tokens a pass; a step accumulates `tokens / micro` passes. 0 for one pass a step.
    pub micro: usize,
    /// The longest sequence, special tokens included; longer documents are cut.
    pub context: usize,
}

/// How long, and what to do on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    pub steps: u64,
    /// Weight decay λ of matrices and tables; norms and biases have none.
    pub decay: f64,
    /// Largest norm of the gradient; 0 for no clipping.
    pub clip: f64,
    /// Steps between held-out losses; 0 for none but at checkpoints.
    pub eval_every: u64,
    /// Held-out tokens of each.
    pub eval_tokens: u64,
    /// Steps between checkpoints; 0 for one at the end.
    pub checkpoint_every: u64,
    /// Checkpoints kept, besides the best.
    pub keep: usize,
    /// Steps in a row that may be not finite before the run stops.
    pub max_skipped: u64,
    /// Round the stored copy of the weights up or down by chance, instead of to nearest.
    pub stochastic_rounding: bool,
    /// On a GPU from sm_90 on, let a kernel's blocks take their places before the kernel before it
    /// has ended. Off until it has been measured.
    pub overlap: bool,
    /// On a GPU: which kernels multiply.
    pub gemm: Gemm,
    /// On a GPU: whether products are cut as `bench gemm --tune` measured to be fastest. The run
    /// directory keeps the cuts.
    pub tuned: bool,
    /// Same seed, same bits. Without it, on an H100 or H200, shares of weight gradients are added
    /// as they come, not in their order: faster, and a run does not repeat exactly.
    pub deterministic: bool,
}

impl Default for DataConfig {
    fn default() -> Self {
        DataConfig {
            shards: None,
            text: vec![],
            vocabulary: 2048,
            tokenizer: None,
            general: None,
            general_share: 0.0,
            heldout: 0.02,
            end_of_text: None,
        }
    }
}

impl Default for BatchConfig {
    fn default() -> Self {
        BatchConfig { tokens: 4096, micro: 0, context: 64 }
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        TrainConfig {
            steps: 800,
            decay: 0.1,
            clip: 1.0,
            eval_every: 200,
            eval_tokens: 65_536,
            checkpoint_every: 400,
            keep: 2,
            max_skipped: 20,
            stochastic_rounding: false,
            overlap: false,
            gemm: Gemm::Auto,
            tuned: false,
            deterministic: true,
        }
    }
}

/// The most tokens a step: beyond it indices would not fit their 32 bits with room to spare.
const MOST_TOKENS: usize = 1 << 28;

fn default_seed() -> u64 {
    1
}

fn is_none_of_it(share: &f64) -> bool {
    *share == 0.0
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Syntax { path: PathBuf, message: String },
    #[error("--set {0}: write it as key=value, e.g. --set train.steps=500")]
    NotAnAssignment(String),
    #[error("--set {key}: `{at}` is a value, not a table with keys of its own")]
    NotATable { key: String, at: String },
    #[error("`{0}` is a value, where a table is needed: write e.g. --set {0}.{1}")]
    NeedsTable(&'static str, &'static str),
    #[error("the configuration does not fit together: {0}")]
    Shape(String),
    #[error("the kernels store bf16, and dtype is {0:?}: leave it out, or take --device cpu")]
    KernelType(Dtype),
    #[error("there is no preset `{0}`; the presets are {1}")]
    NoPreset(String, String),
    #[error("model: {0}")]
    Model(String),
    #[error(transparent)]
    Arch(#[from] ArchError),
    #[error("model.init: {0}")]
    Init(#[from] LoadError),
    #[error(
        "the objective is {objective}, but this model attends {attends}: choose preset {preset}, \
         or --set model.causal={causal}"
    )]
    Objective {
        objective: &'static str,
        /// What the model attends to, in words.
        attends: &'static str,
        preset: &'static str,
        causal: bool,
    },
    #[error(
        "batch.context {context} is longer than the model's {longest} positions: lower it, or \
         --set model.context={context}"
    )]
    Context { context: usize, longest: usize },
    #[error(
        "batch.micro {micro} must divide batch.tokens {tokens}: choose another, or 0 for one pass \
         a step"
    )]
    Micro { micro: usize, tokens: usize },
    #[error("{key} is {value}: it must be {must}")]
    Range { key: &'static str, value: f64, must: &'static str },
}

/// What the command line says about a configuration.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    pub recipe: Option<PathBuf>,
    pub preset: Option<String>,
    /// A folder whose model goes on learning
    pub init: Option<PathBuf>,
    /// `masked` or `causal`
    pub objective: Option<String>,
    /// `key=value`, the key dotted
    pub set: Vec<String>,
}

impl Config {
    /// Reads a resolved configuration, as a run directory keeps it.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let config = parse(read_table(path)?)?;
        config.check()?;
        Ok(config)
    }

    /// Defaults, then the recipe, then flags.
    pub fn resolve(overrides: &Overrides) -> Result<Config, ConfigError> {
        let mut table = match &overrides.recipe {
            Some(path) => read_table(path)?,
            None => Table::new(),
        };
        for assignment in &overrides.set {
            set(&mut table, assignment)?;
        }
        if let Some(preset) = &overrides.preset {
            subtable(&mut table, "model")?.insert("preset".into(), preset.as_str().into());
        }
        if let Some(folder) = &overrides.init {
            let folder = folder.to_string_lossy().into_owned();
            subtable(&mut table, "model")?.insert("init".into(), folder.into());
        }
        if let Some(kind) = &overrides.objective {
            subtable(&mut table, "objective")?.insert("kind".into(), kind.as_str().into());
        }
        complete(&mut table)?;
        let config = parse(table)?;
        config.check()?;
        Ok(config)
    }

    /// Chooses the device where it was left open; see [`settle`].
    pub fn settle(&mut self, gpu: impl FnOnce() -> bool) -> Result<(), ConfigError> {
        (self.device, _) = settle(self.device, self.dtype, gpu)?;
        Ok(())
    }

    /// What the device stores, once [settled](Config::settle).
    pub fn dtype(&self) -> Dtype {
        let cpu = matches!(self.device, Where::Auto | Where::Cpu);
        self.dtype.unwrap_or(if cpu { Dtype::F32 } else { Dtype::Bf16 })
    }

    /// The seed of weights that are stored by chance, if they are.
    pub fn chance(&self) -> Option<u64> {
        self.train.stochastic_rounding.then_some(self.seed)
    }

    /// As TOML, to be read by [`Config::read`].
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration serialises")
    }

    /// The folder whose model goes on learning, if one does.
    pub fn init(&self) -> Option<PathBuf> {
        let folder = self.model.get("init")?.as_str()?;
        Some(model_folder(Path::new(folder)))
    }

    /// The architecture, for a vocabulary of `vocab` entries (`None`: the preset's own). A model
    /// that goes on learning has its own, unless `data.tokenizer` names another.
    pub fn arch(&self, vocab: Option<usize>) -> Result<Arch, ConfigError> {
        let mut switches = self.model.clone();
        if let Some(folder) = self.init() {
            let vocab = vocab.filter(|_| self.data.tokenizer.is_some());
            return self.going_on(&ModelDir::open(&folder)?.arch, switches, vocab);
        }
        let name = match switches.remove("preset") {
            Some(Value::String(name)) => name,
            _ => return Err(ConfigError::Model("`preset` names the model to start from".into())),
        };
        let names = || PRESETS.map(|(name, _)| name).join(", ");
        let base = preset(&name).ok_or_else(|| ConfigError::NoPreset(name, names()))?;
        let mut arch = with_switches(base, switches)?;
        if let Some(vocab) = vocab {
            arch.vocab = vocab;
        }
        if let Objective::Masked { pair: Some(_), .. } = self.objective {
            arch.pair = true;
        }
        arch.validate()?;
        self.check_model(&arch)?;
        Ok(arch)
    }

    /// The architecture of a model that goes on learning.
    fn going_on(
        &self,
        stored: &Arch,
        mut switches: Table,
        vocab: Option<usize>,
    ) -> Result<Arch, ConfigError> {
        let wrong = |why: &str| ConfigError::Model(why.into());
        switches.remove("init");
        if switches.contains_key("preset") {
            return Err(wrong(
                "`init` and `preset` both name a model to start from: leave one away",
            ));
        }
        let other = |key: &&String| !["context", "dropout"].contains(&key.as_str());
        if let Some(key) = switches.keys().find(other) {
            let why = format!("`{key}` is the model's of `init`: only context and dropout change");
            return Err(ConfigError::Model(why));
        }
        let pair = matches!(self.objective, Objective::Masked { pair: Some(_), .. });
        let base = Arch { task: None, pair, ..stored.clone() };
        let mut arch = with_switches(base, switches)?;
        arch.vocab = vocab.unwrap_or(arch.vocab);
        arch.validate()?;
        self.check_model(&arch)?;
        Ok(arch)
    }

    /// Tokens a pass.
    pub fn micro(&self) -> usize {
        if self.batch.micro == 0 { self.batch.tokens } else { self.batch.micro }
    }

    /// Micro-batches a step.
    pub fn passes(&self) -> usize {
        self.batch.tokens / self.micro()
    }

    /// `masked` or `causal`.
    pub fn objective_name(&self) -> &'static str {
        if self.objective == Objective::Causal { "causal" } else { "masked" }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let (micro, tokens) = (self.micro(), self.batch.tokens);
        let possible = (1..=MOST_TOKENS).contains(&tokens);
        range("batch.tokens", tokens as f64, possible, "1 to 2^28")?;
        if micro == 0 || tokens % micro != 0 {
            return Err(ConfigError::Micro { micro, tokens });
        }
        let positive = |key, value: f64| range(key, value, value > 0.0, "above 0");
        let share = |key, value: f64| range(key, value, (0.0..=1.0).contains(&value), "0 to 1");
        let sane = |key, value: f64| range(key, value, value >= 0.0, "0 or more");
        positive("train.steps", self.train.steps as f64)?;
        positive("schedule.peak", self.schedule.peak)?;
        share("schedule.floor", self.schedule.floor)?;
        share("schedule.decay", self.schedule.decay)?;
        sane("train.decay", self.train.decay)?;
        let general = self.data.general_share;
        let possible =
            (0.0..1.0).contains(&general) && (general > 0.0 || self.data.general.is_none());
        range("data.general_share", general, possible, "below 1, and above 0 with data.general")?;
        sane("train.clip", self.train.clip)?;
        let below_one =
            |key, value: f64| range(key, value, (0.0..1.0).contains(&value), "0 or more, below 1");
        match self.optimizer {
            Rule::AdamW { beta1, beta2, eps } => {
                below_one("optimizer.beta1", beta1)?;
                below_one("optimizer.beta2", beta2)?;
                positive("optimizer.eps", eps)
            }
            Rule::Sgd { momentum, .. } => below_one("optimizer.momentum", momentum),
            Rule::RmsProp { alpha, eps, momentum } => {
                below_one("optimizer.alpha", alpha)?;
                below_one("optimizer.momentum", momentum)?;
                positive("optimizer.eps", eps)
            }
        }
    }

    fn check_model(&self, arch: &Arch) -> Result<(), ConfigError> {
        let causal = self.objective == Objective::Causal;
        if causal != arch.causal {
            return Err(ConfigError::Objective {
                objective: self.objective_name(),
                attends: if arch.causal { "only to what came before" } else { "both ways" },
                preset: if causal { "gpt2-tiny" } else { "modernbert-tiny" },
                causal,
            });
        }
        if self.batch.context > arch.context {
            let (context, longest) = (self.batch.context, arch.context);
            return Err(ConfigError::Context { context, longest });
        }
        Ok(())
    }
}

/// The device and what it stores, where they were left open: a GPU if there is one that can train
/// (`gpu` is asked only if that matters), which stores bf16; another type asks for the CPU.
pub fn settle(
    device: Where,
    dtype: Option<Dtype>,
    gpu: impl FnOnce() -> bool,
) -> Result<(Where, Dtype), ConfigError> {
    let kernels = dtype.is_none_or(|dtype| dtype == Dtype::Bf16);
    let device = match device {
        Where::Auto if kernels && gpu() => Where::Cuda,
        Where::Auto => Where::Cpu,
        chosen => chosen,
    };
    match (device.place(), dtype) {
        (Some(_), Some(dtype)) if !kernels => Err(ConfigError::KernelType(dtype)),
        (Some(_), _) => Ok((device, Dtype::Bf16)),
        (None, dtype) => Ok((device, dtype.unwrap_or(Dtype::F32))),
    }
}

fn range(key: &'static str, value: f64, good: bool, must: &'static str) -> Result<(), ConfigError> {
    if good && value.is_finite() { Ok(()) } else { Err(ConfigError::Range { key, value, must }) }
}
