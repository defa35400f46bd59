//! The configuration of a run: TOML in, a validated plan out.
//!
//! A run is described by one table. It starts as the defaults below, takes over what a recipe
//! (`configs/*.toml`) says, then each `--set key=value`; unknown keys are errors at every level.
//! The run directory keeps the resolved table, so a resumed run needs no flags.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::data::Objective;
use crate::device::gpu::{Gemm, Place};
use crate::hf::FloatType;
use crate::model::arch::{Arch, ArchError, Family};
use crate::model::families::{PRESETS, preset};
use crate::ops::optimizer::Rule;
use crate::train::schedule::Schedule;

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
    /// `preset`, and any switches of [`Arch`] that differ from it.
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

    /// The architecture, for a vocabulary of `vocab` entries (`None`: the preset's own).
    pub fn arch(&self, vocab: Option<usize>) -> Result<Arch, ConfigError> {
        let mut switches = self.model.clone();
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

/// Objective and preset each follow from the other where only one is given; constants of an
/// optimizer with no rule are AdamW's.
fn complete(table: &mut Table) -> Result<(), ConfigError> {
    let named = |table: &Table, outer: &str, inner: &str| {
        Some(table.get(outer)?.get(inner)?.as_str()?.to_string())
    };
    let causal = match (named(table, "objective", "kind"), named(table, "model", "preset")) {
        (Some(kind), _) => kind == "causal",
        (None, Some(name)) => preset(&name).is_some_and(|arch| arch.causal),
        (None, None) => false,
    };
    let kind = if causal { "causal" } else { "masked" };
    let model = if causal { "gpt2-tiny" } else { "modernbert-tiny" };
    if causal {
        // Every row of a causal batch passes the head: half the steps take the same two minutes.
        let half = TrainConfig::default().steps / 2;
        subtable(table, "train")?.entry("steps").or_insert(Value::Integer(half as i64));
    }
    subtable(table, "objective")?.entry("kind").or_insert(kind.into());
    subtable(table, "model")?.entry("preset").or_insert(model.into());
    if let Some(optimizer) = table.get_mut("optimizer").and_then(Value::as_table_mut) {
        optimizer.entry("rule").or_insert("adamw".into());
    }
    Ok(())
}

/// `base` with some switches changed.
fn with_switches(base: Arch, switches: Table) -> Result<Arch, ConfigError> {
    let wrong = |e: &dyn std::fmt::Display| ConfigError::Model(e.to_string());
    let mut table = Table::try_from(&base).map_err(|e| wrong(&e))?;
    let follows_width = base.embed_width == base.width && !switches.contains_key("embed_width");
    let follows_layers = base.groups == base.layers && !switches.contains_key("groups");
    let follows_blocks =
        base.head_activation == base.activation && !switches.contains_key("head_activation");
    let changed = !switches.is_empty();
    merge(&mut table, switches);
    let mut arch: Arch = table.try_into().map_err(|e| wrong(&e))?;
    if arch.task.is_some() {
        return Err(wrong(&"task: pretraining has a language model's head; leave it away"));
    }
    if follows_width {
        arch.embed_width = arch.width;
    }
    if follows_layers {
        arch.groups = arch.layers;
    }
    if follows_blocks && arch.family != Family::Roberta {
        arch.head_activation = arch.activation;
    }
    if changed && !crate::hf::fits_family(&arch) {
        arch.family = Family::Custom;
    }
    Ok(arch)
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn read_table(path: &Path) -> Result<Table, ConfigError> {
    let io = |source| ConfigError::Io { path: path.into(), source };
    let text = std::fs::read_to_string(path).map_err(io)?;
    let syntax = |e: toml::de::Error| ConfigError::Syntax {
        path: path.into(),
        message: e.to_string().trim_end().to_string(),
    };
    text.parse().map_err(syntax)
}

fn parse(table: Table) -> Result<Config, ConfigError> {
    table.try_into().map_err(|e: toml::de::Error| ConfigError::Shape(e.to_string()))
}

/// The table `model` or `objective`, made where it is not there.
fn subtable<'a>(table: &'a mut Table, key: &'static str) -> Result<&'a mut Table, ConfigError> {
    let example = if key == "model" { "preset=bert-tiny" } else { "kind=causal" };
    let entry = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
    entry.as_table_mut().ok_or(ConfigError::NeedsTable(key, example))
}

/// `a.b.c=value`: the value is TOML, or else a plain string.
fn set(table: &mut Table, assignment: &str) -> Result<(), ConfigError> {
    let Some((key, value)) = assignment.split_once('=') else {
        return Err(ConfigError::NotAnAssignment(assignment.into()));
    };
    let (key, value) = (key.trim(), value.trim());
    let parsed = format!("v = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    let value = parsed.unwrap_or_else(|| Value::String(value.into()));
    let mut path: Vec<&str> = key.split('.').collect();
    let last = path.pop().filter(|last| !last.is_empty());
    let last = last.ok_or_else(|| ConfigError::NotAnAssignment(assignment.into()))?;
    let mut at = table;
    for part in path {
        let entry = at.entry(part).or_insert_with(|| Value::Table(Table::new()));
        let not_a_table = || ConfigError::NotATable { key: key.into(), at: part.into() };
        at = entry.as_table_mut().ok_or_else(not_a_table)?;
    }
    at.insert(last.into(), value);
    Ok(())
}
