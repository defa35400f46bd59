//! `warpwright explain`: a prediction on one page.

use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};

use super::{may_write, remarks, say};
use crate::checkpoint::model_folder;
use crate::data::{Tokenizer, files};
use crate::device::cpu::Cpu;
use crate::eval::explain::page::{Told, render};
use crate::eval::explain::{Subject, Target, explain, logits, probabilities, span_probability};
use crate::finetune::examples::{Example, Sequence};
use crate::finetune::frame::Frame;
use crate::finetune::questions::{self, Decoding, Question, decode};
use crate::finetune::{rows, sentences};
use crate::hf::ModelDir;
use crate::model::arch::{Arch, TaskKind};
use crate::model::transformer::Model;
use crate::predict::NotFinite;

/// Show what a prediction rests on, as a page
///
/// Explains a masked model's guess for the first [MASK], a causal model's next token, or what a
/// finetuned model tells of a text, of a word in it, or answers to a question: by gradient × input,
/// which token speaks for it and which against, and by a map of each attention head. Neither is a
/// reason, both say where to look. The page needs nothing else, no network and no script. Runs on
/// the CPU.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    warpwright explain --model runs/masked \"To be, or not to[MASK].\" --out page.html\n  \
    warpwright explain --model gpt2 \"The capital of France is\" --of \" London\"\n  \
    warpwright explain --model runs/finetune \"A film to forget.\" --of good\n  \
    warpwright explain --model runs/words \"Ahab sails from Nantucket.\" --word Nantucket\n  \
    warpwright explain --model runs/answers \"Who sails?\" --pair \"Ahab sails from Nantucket.\"")]
pub struct ExplainArgs {
    /// A run directory (its best checkpoint), or a Hugging Face model's folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    pub text: String,
    /// A second text, for a model finetuned on pairs; the context, for one that answers questions
    #[arg(long, value_name = "TEXT")]
    pub pair: Option<String>,
    /// Explain this token, label or answer instead of the likeliest ("" for there being no answer)
    #[arg(long, value_name = "NAME")]
    pub of: Option<String>,
    /// Whose label is explained, for a model that labels words
    #[arg(long, value_name = "WORD")]
    pub word: Option<String>,
    /// Tokens that a page may have, special ones included: more are hard to read
    #[arg(long, value_name = "TOKENS", default_value_t = 96)]
    pub longest: usize,
    /// Where to write the page; an earlier one there is replaced
    #[arg(long, short, value_name = "FILE", default_value = "explain.html")]
    pub out: PathBuf,
}

/// Outputs that are told.
const TOLD: usize = 5;

/// Bytes of a page before which its kind is told, after the styles.
const NEAR: u64 = 1 << 16;

/// What a page is about.
struct Chosen {
    subject: Subject,
    /// Of the subject; see [`logits`].
    logits: Vec<f64>,
    target: Target,
    /// What the outputs are, in words.
    question: String,
    /// The likeliest first, and their probabilities (or values).
    outputs: Vec<(String, f64)>,
    /// Of them, the one that is explained.
    explained: usize,
}

/// Writes the page and says what it is about.
pub fn run(args: ExplainArgs) -> Result<()> {
    may_write(&args.out, is_page)?;
    let dev = Cpu::<f32>::new();
    let folder = model_folder(&args.model);
    let (model, tokenizer) = open(&dev, &folder)?;
    let kind = model.arch.task.as_ref().map(|task| task.kind);
    ensure!(!args.text.is_empty(), "there is no text: a prediction needs some to rest on");
    ensure!(
        args.word.is_none() || kind == Some(TaskKind::Tokens),
        "--word is for models that label words: this one does not"
    );
    let asking = Asking { args: &args, dev: &dev, model: &model, tokenizer: &tokenizer };
    let chosen = match kind {
        Some(TaskKind::Spans) => asking.answer()?,
        Some(TaskKind::Tokens) => asking.word()?,
        _ => asking.text()?,
    };
    let Chosen { subject, logits, target, question, outputs, explained } = chosen;
    NotFinite::unless(logits.iter().copied())?;
    let each = subject.ids.iter().map(|&id| Ok(tokenizer.decode(&[id])?));
    let tokens: Vec<String> = each.collect::<Result<_>>()?;
    let told = Told {
        model: &args.model.file_name().unwrap_or(args.model.as_os_str()).to_string_lossy(),
        kind: &format!("{:?}", model.arch.family).to_lowercase(),
        tokens: &tokens,
        outputs: &outputs,
        explained,
        question: &question,
        is_value: kind == Some(TaskKind::Values),
        found: &explain(&dev, &model, &subject, &logits, target),
    };
    let written = files::write(&args.out, render(&told).as_bytes());
    written.with_context(|| format!("{} cannot be written", args.out.display()))?;
    let (name, value) = &outputs[explained];
    say(format_args!("{question}: {name:?} ({value:.4}); wrote {}", args.out.display()))?;
    Ok(())
}

/// Whether a file is a page of this command's, by what stands near its beginning.
fn is_page(file: impl Read) -> bool {
    let mut beginning = Vec::new();
    let read = file.take(NEAR).read_to_end(&mut beginning);
    let text = String::from_utf8_lossy(&beginning);
    read.is_ok() && text.starts_with("<!DOCTYPE html>") && text.contains("warpwright explain")
}

/// A model in front of what it is asked.
struct Asking<'a> {
    args: &'a ExplainArgs,
    dev: &'a Cpu<f32>,
    model: &'a Model<Cpu<f32>>,
    tokenizer: &'a Tokenizer,
}

impl Asking<'_> {
    /// What is told of a whole text, or of its mask or end.
    fn text(&self) -> Result<Chosen> {
        let kind = self.model.arch.task.as_ref().map(|task| task.kind);
        let subject = subject(self.args, &self.model.arch, self.tokenizer)?;
        self.output(subject, question(kind, self.model.arch.causal).into())
    }

    /// The label of a word.
    fn word(&self) -> Result<Chosen> {
        let &Asking { args, model, tokenizer, .. } = self;
        ensure!(args.pair.is_none(), "--pair is for models finetuned on pairs of texts");
        let frame = Frame::new(&model.arch, tokenizer, args.longest)?;
        let words = sentences::words(&frame.pieces(&args.text)?);
        let (example, cut) = sentences::example(&frame, 0, args.text.clone(), words, vec![])?;
        let sequence = self.whole(&example, cut > 0)?;
        let text = |span: &Option<Range<usize>>| span.clone().map(|span| &args.text[span]);
        let row = sequence
            .spans
            .iter()
            .position(|span| args.word.is_some() && text(span) == args.word.as_deref());
        let row = row.with_context(|| {
            let words: Vec<&str> = sequence.spans.iter().filter_map(text).collect();
            format!("the model labels words: name one of these with --word: {}", words.join(" "))
        })?;
        let (ids, types) = (sequence.ids.clone(), sequence.types.clone());
        let question = format!("Label of {:?}", text(&sequence.spans[row]).unwrap_or_default());
        self.output(Subject { ids, types, row }, question)
    }

    /// An output, by its name or as the likeliest.
    fn output(&self, subject: Subject, question: String) -> Result<Chosen> {
        let &Asking { args, dev, model, tokenizer } = self;
        let arch = &model.arch;
        let logits = logits(dev, model, &subject);
        let values = probabilities(arch.task.as_ref().map(|task| task.kind), &logits);
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        let target = match &args.of {
            Some(of) => named(of, arch, tokenizer)?,
            None => order[0],
        };
        order.truncate(TOLD);
        if !order.contains(&target) {
            order.push(target);
        }
        let explained = order.iter().position(|&i| i == target).expect("it is among them");
        let name = |i: usize| match &arch.task {
            Some(task) => Ok(task.labels[i].clone()),
            None => tokenizer.decode(&[i as u32]),
        };
        let outputs = order.iter().map(|&i| Ok((name(i)?, values[i]))).collect::<Result<_>>()?;
        let target = Target::Output(target);
        Ok(Chosen { subject, logits, target, question, outputs, explained })
    }

    /// A question's answer.
    fn answer(&self) -> Result<Chosen> {
        let &Asking { args, dev, model, tokenizer } = self;
        let context = args.pair.clone();
        let context = context.context("the model answers questions: give the context by --pair")?;
        let frame = Frame::new(&model.arch, tokenizer, args.longest)?;
        let asked = Question { line: 0, question: args.text.clone(), context, answers: vec![] };
        let (example, remark) = questions::example(&frame, asked, 0)?;
        let sequence = self.whole(&example, remark.cut)?;
        let (ids, types) = (sequence.ids.clone(), sequence.types.clone());
        let subject = Subject { ids, types, row: 0 };
        let logits = logits(dev, model, &subject);
        let ends = |place: &Range<usize>| questions::ends(sequence, place);
        let found = decode(&example.sequences, &logits, &Decoding::default());
        let mut spans: Vec<(&str, [usize; 2])> = Vec::new();
        for found in found.spans.iter().take(TOLD) {
            spans.extend(ends(&found.bytes).map(|e| (&example.text[found.bytes.clone()], e)));
        }
        let wanted = match args.of.as_deref() {
            None => spans.first().copied(),
            // The first token stands for none.
            Some("") => Some(("", [0, 0])),
            Some(of) => {
                let begin = example.text.find(of);
                let ends = begin.and_then(|begin| ends(&(begin..begin + of.len())));
                Some((of, ends.with_context(|| format!("--of {of:?} is not in the context"))?))
            }
        };
        let wanted = wanted.context("the model found no answer: name one of your own with --of")?;
        let at = spans.iter().position(|(_, ends)| *ends == wanted.1);
        let explained = at.unwrap_or(spans.len());
        if at.is_none() {
            spans.push(wanted);
        }
        let shown = |&(text, ends): &(&str, [usize; 2])| {
            let text = if text.is_empty() { "(no answer)" } else { text };
            (text.to_string(), span_probability(&logits, ends))
        };
        let outputs = spans.iter().map(shown).collect();
        let (target, question) = (Target::Span(wanted.1), "Answer".into());
        Ok(Chosen { subject, logits, target, question, outputs, explained })
    }

    /// The one sequence of an example.
    fn whole<'e>(&self, example: &'e Example, cut: bool) -> Result<&'e Sequence> {
        match &example.sequences[..] {
            [sequence] if !cut => Ok(sequence),
            _ => Err(too_long(self.args)),
        }
    }
}

fn too_long(args: &ExplainArgs) -> Error {
    let longest = args.longest;
    anyhow!(
        "the text is longer than {longest} tokens, or than the model takes: shorten it, or see \
         --longest"
    )
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
    let (model, report) = dir.model::<_, anyhow::Error>(dev)?;
    let missing = match dir.arch.task {
        Some(_) => report.missing.first(),
        None => report.without_pairs(),
    };
    if let Some(name) = missing {
        bail!("{} lacks {name}: give a model with its head", folder.display());
    }
    let tokenizer = Tokenizer::load(folder)?;
    remarks(&report, &tokenizer, &model.arch);
    Ok((model, tokenizer))
}

/// The text as the model reads it, and which prediction it is about.
fn subject(args: &ExplainArgs, arch: &Arch, tokenizer: &Tokenizer) -> Result<Subject> {
    ensure!(
        args.pair.is_none() || arch.task.is_some(),
        "--pair is for models finetuned on pairs of texts: this one is none"
    );
    // The token that ends a document begins the next, for a causal language model.
    let specials = tokenizer.specials();
    let first = specials.eot.filter(|_| arch.causal && arch.task.is_none());
    let longest = args.longest.min(arch.context).saturating_sub(first.iter().count());
    let frame = Frame::new(arch, tokenizer, longest)?;
    let (sequence, cut) = rows::sequence(&frame, &args.text, args.pair.as_deref())?;
    ensure!(!cut, too_long(args));
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
