//! `warpwright explain`: a prediction on one page.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::say;
use crate::checkpoint::model_folder;
use crate::data::{Tokenizer, files};
use crate::device::cpu::Cpu;
use crate::eval::explain::page::{Told, render};
use crate::eval::explain::{Subject, explain, logits, probabilities};
use crate::finetune::frame::Frame;
use crate::finetune::rows;
use crate::hf::ModelDir;
use crate::model::arch::{Arch, TaskKind};
use crate::model::transformer::Model;

/// Show what a prediction rests on, as a page
///
/// Explains a masked model's guess for the first [MASK], a causal model's next token, or what a
/// finetuned model tells of a text: by gradient × input, which token speaks for it and which
/// against, and by a map of each attention head. Neither is a reason, both say where to look. The
/// page needs nothing else, no network and no script. Runs on the CPU.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    warpwright explain --model runs/masked \"To be, or not to[MASK].\" --out page.html\n  \
    warpwright explain --model gpt2 \"The capital of France is\" --of \" London\"\n  \
    warpwright explain --model runs/finetune \"A film to forget.\" --of good")]
pub struct ExplainArgs {
    /// A run directory (its best checkpoint), or a Hugging Face model's folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    pub text: String,
    /// A second text, for a model finetuned on pairs
    #[arg(long, value_name = "TEXT")]
    pub pair: Option<String>,
    /// Explain this token, or label, instead of the likeliest
    #[arg(long, value_name = "NAME")]
    pub of: Option<String>,
    /// Tokens that a page may have, special ones included: more are hard to read
    #[arg(long, value_name = "TOKENS", default_value_t = 96)]
    pub longest: usize,
    /// Where to write the page
    #[arg(long, short, value_name = "FILE", default_value = "explain.html")]
    pub out: PathBuf,
}

/// Outputs that are told.
const TOLD: usize = 5;

/// Writes the page and says what it is about.
pub fn run(args: ExplainArgs) -> Result<()> {
    let dev = Cpu::<f32>::new();
    let folder = model_folder(&args.model);
    let (model, tokenizer) = open(&dev, &folder)?;
    let arch = &model.arch;
    let subject = subject(&args, arch, &tokenizer)?;
    let found = logits(&dev, &model, &subject);
    let kind = arch.task.as_ref().map(|task| task.kind);
    let values = probabilities(kind, &found);
    let name = |i: usize| -> Result<String> {
        match &arch.task {
            Some(task) => Ok(task.labels[i].clone()),
            None => Ok(tokenizer.decode(&[i as u32])?),
        }
    };
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    let target = match &args.of {
        Some(of) => named(of, arch, &tokenizer)?,
        None => order[0],
    };
    order.truncate(TOLD);
    if !order.contains(&target) {
        order.push(target);
    }
    let outputs: Vec<(String, f64)> =
        order.iter().map(|&i| Ok((name(i)?, values[i]))).collect::<Result<_>>()?;
    let each = subject.ids.iter().map(|&id| Ok(tokenizer.decode(&[id])?));
    let tokens: Vec<String> = each.collect::<Result<_>>()?;
    let explained = name(target)?;
    let told = Told {
        model: &args.model.file_name().unwrap_or(args.model.as_os_str()).to_string_lossy(),
        kind: &format!("{:?}", arch.family).to_lowercase(),
        tokens: &tokens,
        outputs: &outputs,
        explained: &explained,
        question: question(kind, arch.causal),
        is_value: kind == Some(TaskKind::Values),
        found: &explain(&dev, &model, &subject, &found, target),
    };
    let written = files::write(&args.out, render(&told).as_bytes());
    written.with_context(|| format!("{} cannot be written", args.out.display()))?;
    let (what, value) = (told.question, values[target]);
    say(format_args!("{what}: {explained:?} ({value:.4}); wrote {}", args.out.display()))?;
    Ok(())
}

fn question(kind: Option<TaskKind>, causal: bool) -> &'static str {
    match kind {
        Some(TaskKind::Values) => "Value",
        Some(TaskKind::Flags) => "Labels",
        Some(_) => "Class",
        None if causal => "Next token",
        None => "Masked token",
    }
}

/// A model with its head, and its tokenizer.
fn open(dev: &Cpu<f32>, folder: &Path) -> Result<(Model<Cpu<f32>>, Tokenizer)> {
    let dir = ModelDir::open(folder)?;
    if let Some(task) = &dir.arch.task {
        let told = task.kind.is_of_sequences();
        ensure!(
            told,
            "{} labels tokens: only what is told of whole texts is explained",
            folder.display()
        );
    }
    let (model, report) = dir.model::<_, anyhow::Error>(dev)?;
    // A pair head explains nothing here.
    let of_pairs = ["pooler", "seq_relationship", "sop_classifier"];
    let needed = |name: &&String| {
        dir.arch.task.is_some() || !of_pairs.iter().any(|part| name.contains(part))
    };
    if let Some(name) = report.missing.iter().find(needed) {
        bail!("{} lacks {name}: give a model with its head", folder.display());
    }
    Ok((model, Tokenizer::load(folder)?))
}

/// The text as the model reads it, and which prediction it is about.
fn subject(args: &ExplainArgs, arch: &Arch, tokenizer: &Tokenizer) -> Result<Subject> {
    ensure!(
        args.pair.is_none() || arch.task.is_some(),
        "--pair is for models finetuned on pairs of texts: this one is none"
    );
    ensure!(!args.text.is_empty(), "there is no text: a prediction needs some to rest on");
    // The token that ends a document begins the next, for a causal language model.
    let specials = tokenizer.specials();
    let first = specials.eot.filter(|_| arch.causal && arch.task.is_none());
    let longest = args.longest.min(arch.context).saturating_sub(first.iter().count());
    let frame = Frame::new(arch, tokenizer, longest)?;
    let (sequence, cut) = rows::sequence(&frame, &args.text, args.pair.as_deref())?;
    ensure!(
        !cut,
        "the text is longer than {} tokens, or than the model takes: shorten it, or see --longest",
        args.longest
    );
    let types = [vec![0; first.iter().count()], sequence.types].concat();
    let ids: Vec<u32> = first.into_iter().chain(sequence.ids).collect();
    let row = match (arch.causal, &arch.task) {
        (_, Some(_)) => 0,
        (true, None) => ids.len() - 1,
        (false, None) => {
            let mask = specials.mask.and_then(|mask| ids.iter().position(|&id| id == mask));
            mask.context("the text has no [MASK]: put it where a word is to be guessed")?
        }
    };
    Ok(Subject { ids, types, row })
}

/// The output of this name.
fn named(name: &str, arch: &Arch, tokenizer: &Tokenizer) -> Result<usize> {
    if let Some(task) = &arch.task {
        let found = task.labels.iter().position(|label| label == name);
        return found.with_context(|| {
            format!("--of {name:?} is none of the labels: {}", task.labels.join(", "))
        });
    }
    match tokenizer.encode(name)?[..] {
        [id] => Ok(id as usize),
        ref ids => {
            bail!("--of {name:?} is {} tokens: give one (a blank before it counts)", ids.len())
        }
    }
}
