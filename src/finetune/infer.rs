//! A finetuned model at work on new text.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::examples::{Example, ExampleError, Gold, Sequence};
use super::frame::Frame;
use super::outcome::Predictions;
use super::questions::{self, Decoding, Question};
use super::saying::said;
use super::train::logits;
use super::{rows, sentences};
use crate::checkpoint::model_folder;
use crate::data::tokenizer::TokenizerError;
use crate::data::{Batch, Tokenizer};
use crate::device::Device;
use crate::hf::{LoadError, LoadReport, ModelDir};
use crate::model::activations::Activations;
use crate::model::arch::{ArchError, Task, TaskKind};
use crate::model::batch::{Capacity, DeviceBatch};
use crate::model::transformer::Model;
use crate::predict::NotFinite;

/// Why a model cannot label text.
#[derive(Debug, thiserror::Error)]
pub enum InferError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Arch(#[from] ArchError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Example(#[from] ExampleError),
    #[error(
        "{0} has no task's head: make one with `warpwright finetune`, or use `fill`, `generate` or \
         `score` with a language model"
    )]
    NoTask(PathBuf),
    #[error("{path} lacks {tensor} of its task's head: finetune it first")]
    NoHead { path: PathBuf, tensor: String },
    #[error(
        "the model answers questions: give their context with --with, or --input FILE of rows with \
         both"
    )]
    NoContext,
    #[error("{0}")]
    Device(String),
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
}

/// What is to be labelled.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// A text, or two.
    Text(String, Option<String>),
    /// The words of a sentence.
    Words(Vec<String>),
}

/// A model with a task's head, and its tokenizer, on a device.
pub struct Labeller<D: Device> {
    dev: D,
    pub model: Model<D>,
    pub task: Task,
    /// What loading it left over.
    pub report: LoadReport,
    pub tokenizer: Tokenizer,
}

/// How text is read, and answers are found in it.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Tokens of a sequence at most.
    pub longest: usize,
    /// Tokens that neighbouring windows of a context share.
    pub stride: usize,
    pub decoding: Decoding,
}

impl<D: Device> Labeller<D> {
    /// Opens a Hugging Face directory whose class has a task's head.
    ///
    /// # Errors
    /// One that has none, that lacks its tensors, or that does not load.
    pub fn open(dev: D, path: &Path) -> Result<Self, InferError> {
        let folder = model_folder(path);
        let dir = ModelDir::open(&folder)?;
        let task = dir.arch.task.clone().ok_or_else(|| InferError::NoTask(folder.clone()))?;
        let (model, report) = dir.model::<_, InferError>(&dev)?;
        if let Some(tensor) = report.missing.first() {
            return Err(InferError::NoHead { path: folder, tensor: tensor.clone() });
        }
        let tokenizer = Tokenizer::load(&folder)?;
        Ok(Labeller { dev, model, task, tokenizer, report })
    }

    /// What the model says of each, and how many had to be cut.
    ///
    /// # Errors
    /// An id beyond the vocabulary, no room for text, a device that fails, logits that are not
    /// finite.
    pub fn label(
        &self,
        asked: &[Ask],
        how: &Reading,
    ) -> Result<(Vec<Map<String, Value>>, usize), InferError> {
        let frame = Frame::new(&self.model.arch, &self.tokenizer, how.longest)?;
        let mut cut = 0;
        let mut examples = Vec::with_capacity(asked.len());
        for ask in asked {
            let (example, was_cut) = self.example(&frame, ask, how)?;
            cut += usize::from(was_cut);
            examples.push(example);
        }
        let logits = self.logits(&examples, |_| {})?;
        let pairs = examples.iter().zip(&logits);
        Ok((pairs.map(|(e, z)| said(&self.task, e, z, &how.decoding)).collect(), cut))
    }

    /// What the model makes of examples, beside what is right; `tick` is given the tokens of each
    /// pass, when it is done.
    ///
    /// # Errors
    /// A device that fails, logits that are not finite.
    pub fn judge(
        &self,
        examples: &[Example],
        decoding: &Decoding,
        tick: impl FnMut(usize),
    ) -> Result<Predictions, InferError> {
        let logits = self.logits(examples, tick)?;
        Ok(Predictions::of_task(&self.task, examples, logits, decoding))
    }

    fn example(
        &self,
        frame: &Frame,
        ask: &Ask,
        how: &Reading,
    ) -> Result<(Example, bool), InferError> {
        let unlearnt = |text: &str, sequences: Vec<Sequence>| Example {
            line: 0,
            text: text.to_string(),
            question: None,
            sequences,
            gold: Gold::Completion,
        };
        match (self.task.kind, ask) {
            (TaskKind::Tokens, ask) => {
                let (text, words) = match ask {
                    Ask::Words(words) => sentences::joined(words),
                    Ask::Text(text, _) => (text.clone(), sentences::words(&frame.pieces(text)?)),
                };
                let (example, cut) = sentences::example(frame, 0, text, words, vec![])?;
                Ok((example, cut > 0))
            }
            (TaskKind::Spans, Ask::Text(question, Some(context))) => {
                let (question, context) = (question.clone(), context.clone());
                let asked = Question { line: 0, question, context, answers: vec![] };
                let (example, remark) = questions::example(frame, asked, how.stride)?;
                Ok((example, remark.cut))
            }
            (TaskKind::Spans, _) => Err(InferError::NoContext),
            (_, Ask::Text(text, pair)) => {
                let (sequence, cut) = rows::sequence(frame, text, pair.as_deref())?;
                Ok((unlearnt(text, vec![sequence]), cut))
            }
            (_, Ask::Words(words)) => {
                let text = words.join(" ");
                let (sequence, cut) = rows::sequence(frame, &text, None)?;
                Ok((unlearnt(&text, vec![sequence]), cut))
            }
        }
    }

    /// By example, logits [rows, K] of its sequences.
    fn logits(
        &self,
        examples: &[Example],
        mut tick: impl FnMut(usize),
    ) -> Result<Vec<Vec<f64>>, InferError> {
        let Labeller { dev, model, task, .. } = self;
        let logits = logits(task, examples, |batch: &Batch| {
            let capacity = Capacity::of(batch, false);
            let mut loaded = DeviceBatch::new(dev, capacity, false);
            loaded.load(batch, false);
            let mut acts = Activations::new(dev, &model.arch, capacity, false);
            let read = model.read_task_logits(dev, &mut acts, &loaded);
            tick(batch.ids.len());
            read
        });
        if let Some(fault) = dev.fault() {
            return Err(InferError::Device(fault));
        }
        NotFinite::unless(logits.iter().flatten().copied())?;
        Ok(logits)
    }
}
