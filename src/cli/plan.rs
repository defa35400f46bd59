//! `warpwright plan`: what a training step takes, before it is taken.

use std::io::{Write, stdout};

use anyhow::{Result, bail};

use super::say;
use crate::config::{Config, Overrides};
use crate::device::Format;
use crate::model::families::{PRESETS, preset};
use crate::plan::{self, GPUS, Gpu, PlanInput, gpus, kernels};

/// Work out memory, operations and the shortest possible time of a training step
///
/// Nothing is trained, and no GPU is needed: the code of a step runs on a device that only counts.
/// Floors are what the hardware cannot beat: for each op the longer of computing and moving bytes.
#[derive(Debug, clap::Args)]
#[command(after_help = after_help())]
pub struct PlanArgs {
    /// The model [default: the recipe's, or gpt2]
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// A recipe (TOML), as for pretrain
    #[arg(long, value_name = "FILE")]
    pub config: Option<std::path::PathBuf>,
    /// Tokens a sequence [default: the recipe's, or the model's context, at most 1024]
    #[arg(long, value_name = "TOKENS")]
    pub seq: Option<usize>,
    /// Tokens an optimizer step [default: the recipe's, or 65536]
    #[arg(long, value_name = "TOKENS")]
    pub tokens: Option<usize>,
    /// Tokens a pass; a step takes as many passes as it needs [default: all in one]
    #[arg(long, value_name = "TOKENS")]
    pub micro: Option<usize>,
    /// What to learn [default: what the preset is for]
    #[arg(long, value_name = "KIND", value_parser = ["masked", "causal"])]
    pub objective: Option<String>,
    /// Change one setting, e.g. model.layers=6; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// What activations and weights are stored as; the GPU kernels store bf16, so with f32 a plan
    /// for GPUs has no workspace
    #[arg(long, value_name = "TYPE", value_parser = ["bf16", "f32"], default_value = "bf16")]
    pub dtype: String,
    /// GPUs by name, with commas between, or all; none for the CPU
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "all")]
    pub gpu: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn after_help() -> String {
    let presets = PRESETS.map(|(name, what)| format!("  {name:<18}{what}")).join("\n");
    let gpus = GPUS.map(|gpu| gpu.name).join(", ");
    format!(
        "Presets:\n{presets}\n\nGPUs: {gpus}\n\nExamples:\n  \
         warpwright plan --preset bert-base --seq 512\n  \
         warpwright plan --preset gpt2-xl --micro 16384 --gpu H100,A100-80GB\n  \
         warpwright plan --preset gpt2 --set model.layers=24 --json"
    )
}

/// Prints the plan.
pub fn run(args: PlanArgs) -> Result<()> {
    let config = config(&args)?;
    let arch = config.arch(None)?;
    let x = if args.dtype == "bf16" { Format::BF16 } else { Format::F32 };
    let gpus = named(&args.gpu)?;
    // The first stands for all where memory is told by class; each tells its own sum.
    let kernels = gpus.first().filter(|_| x == Format::BF16).map(Gpu::properties);
    if kernels.is_some()
        && let Err(why) = kernels::supports(&arch)
    {
        bail!("{why}; or plan for the CPU, with --gpu none");
    }
    let input = PlanInput { kernels, gpus, ..PlanInput::of(&config, x, Format::F32) };
    let plan = plan::plan(&arch, &input);
    if args.json {
        return Ok(say(serde_json::to_string_pretty(&plan)?)?);
    }
    Ok(write!(stdout(), "{plan:#}")?)
}

/// The recipe, then this command's defaults where it is silent, then flags.
fn config(args: &PlanArgs) -> Result<Config> {
    let mut set = Vec::new();
    let mut name = args.preset.clone();
    if args.config.is_none() {
        let default =
            if args.objective.as_deref() == Some("masked") { "bert-base" } else { "gpt2" };
        let name = name.get_or_insert_with(|| default.into());
        let longest = preset(name).map_or(1024, |arch| arch.context.min(1024));
        set.push("batch.tokens=65536".to_string());
        set.push(format!("batch.context={longest}"));
    }
    set.extend(args.set.iter().cloned());
    for (key, value) in [("tokens", args.tokens), ("micro", args.micro), ("context", args.seq)] {
        set.extend(value.map(|value| format!("batch.{key}={value}")));
    }
    let (recipe, objective) = (args.config.clone(), args.objective.clone());
    Ok(Config::resolve(&Overrides { recipe, preset: name, init: None, objective, set })?)
}

fn named(names: &[String]) -> Result<Vec<Gpu>> {
    match names {
        [name] if name == "none" => return Ok(vec![]),
        names if names.iter().any(|name| name == "all") => return Ok(GPUS.to_vec()),
        _ => {}
    }
    let find = |name: &String| match gpus::gpu(name) {
        Some(gpu) => Ok(*gpu),
        None => bail!(
            "no GPU `{name}` is known: take all, none, or any of {}",
            GPUS.map(|g| g.name).join(", ")
        ),
    };
    names.iter().map(find).collect()
}
