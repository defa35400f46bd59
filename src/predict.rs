//! A trained model and its tokenizer; masked words filled in. `generate` continues texts.

use std::path::{Path, PathBuf};

use crate::checkpoint::model_folder;
use crate::data::Tokenizer;
use crate::data::tokenizer::TokenizerError;
use crate::device::Device;
use crate::eval::passes::{self, Row};
use crate::generate::sampling::likeliest;
use crate::hf::{LoadError, LoadReport, ModelDir};
use crate::logits::softmax;
use crate::model::arch::ArchError;
use crate::model::transformer::Model;

/// Why a model cannot be used so.
#[derive(Debug, thiserror::Error)]
pub enum PredictError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Arch(#[from] ArchError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(
        "{path} lacks the head of a language model ({tensor}): give a pretrained model, not a bare \
         encoder"
    )]
    NoHead { path: PathBuf, tensor: String },
    #[error("{0} has a task's head, not a language model's: give a pretrained model")]
    Task(PathBuf),
    #[error("the tokenizer has no {0} token, which this model's input needs")]
    NoSpecial(&'static str),
    #[error("the text has no {0}: put it where a word is to be guessed")]
    NoMask(String),
    #[error("the text is {tokens} tokens long, the model takes {context}: shorten it")]
    TooLong { tokens: usize, context: usize },
    #[error("{wanted} is what a {kind} model does; {path} is not one: use `warpwright {command}`")]
    WrongKind { wanted: &'static str, kind: &'static str, path: PathBuf, command: &'static str },
    #[error("id {id} is beyond the vocabulary of {vocab}: the tokenizer is not this model's")]
    Vocabulary { id: u32, vocab: usize },
    #[error("the device stopped: {0}")]
    Device(String),
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
}

/// That a model says what is no number.
#[derive(Debug, thiserror::Error)]
#[error(
    "the model's outputs are not finite numbers: its weights are damaged, or too large for the \
     precision that it is computed in (see --dtype)"
)]
pub struct NotFinite;

impl NotFinite {
    /// An error unless all of a model's outputs are finite.
    pub fn unless(mut outputs: impl Iterator<Item = f64>) -> Result<(), NotFinite> {
        if outputs.all(f64::is_finite) { Ok(()) } else { Err(NotFinite) }
    }
}

/// A model and its tokenizer on a device.
pub struct Predictor<D: Device> {
    pub(crate) dev: D,
    pub model: Model<D>,
    pub tokenizer: Tokenizer,
    /// What loading it left over.
    pub report: LoadReport,
    path: PathBuf,
}

/// A token and its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Guess {
    pub id: u32,
    pub token: String,
    pub probability: f64,
}

impl<D: Device> Predictor<D> {
    /// Opens a Hugging Face directory, or a run's best checkpoint.
    ///
    /// # Errors
    /// One that lacks a language model's head, too.
    pub fn open(dev: D, path: &Path) -> Result<Self, PredictError> {
        let folder = model_folder(path);
        let dir = ModelDir::open(&folder)?;
        if dir.arch.task.is_some() {
            return Err(PredictError::Task(folder));
        }
        let predictor = Self::of(dev, dir, folder)?;
        match predictor.report.without_pairs() {
            Some(tensor) => {
                Err(PredictError::NoHead { path: predictor.path, tensor: tensor.clone() })
            }
            None => Ok(predictor),
        }
    }

    /// The same where the head may be missing, or a task's, which is left out.
    pub fn open_body(dev: D, path: &Path) -> Result<Self, PredictError> {
        let folder = model_folder(path);
        let mut dir = ModelDir::open(&folder)?;
        dir.arch.task = None;
        Self::of(dev, dir, folder)
    }

    fn of(dev: D, dir: ModelDir, path: PathBuf) -> Result<Self, PredictError> {
        let (model, report) = dir.model::<_, PredictError>(&dev)?;
        let tokenizer = Tokenizer::load(&path)?;
        Ok(Predictor { dev, model, tokenizer, path, report })
    }

    /// The `k` likeliest tokens for each `[MASK]` of `text`, best first.
    pub fn fill(&self, text: &str, k: usize) -> Result<Vec<Vec<Guess>>, PredictError> {
        if self.model.arch.causal {
            return Err(self.wrong_kind("filling in masked words", "masked", "generate"));
        }
        let mask_token = self.tokenizer.specials().mask;
        let mask = mask_token.ok_or(PredictError::NoSpecial("[MASK]"))?;
        let ids = self.framed(self.tokenizer.encode(text)?)?;
        let rows: Vec<usize> = (0..ids.len()).filter(|&i| ids[i] == mask).collect();
        if rows.is_empty() {
            return Err(PredictError::NoMask(self.tokenizer.token(mask).unwrap_or_default()));
        }
        self.guess(&ids, &rows, k)
    }

    /// The `k` likeliest tokens at each of `rows`, ascending, of one sequence, best first.
    pub fn guess(
        &self,
        ids: &[u32],
        rows: &[usize],
        k: usize,
    ) -> Result<Vec<Vec<Guess>>, PredictError> {
        let logits = self.logits(ids, rows)?;
        logits.iter().map(|logits| self.best(&softmax(logits), k)).collect()
    }

    /// Logits [rows.len()][V] of one sequence at `rows`, ascending.
    fn logits(&self, ids: &[u32], rows: &[usize]) -> Result<Vec<Vec<f64>>, PredictError> {
        let (n, arch) = (ids.len(), &self.model.arch);
        if n > arch.context {
            return Err(PredictError::TooLong { tokens: n, context: arch.context });
        }
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= arch.vocab) {
            return Err(PredictError::Vocabulary { id, vocab: arch.vocab });
        }
        let row = Row { ids: ids.to_vec(), rows: rows.to_vec() };
        let mut found = Vec::new();
        passes::run(&self.dev, &self.model, &[row], |_, acts, batch| {
            let own = |_, logits: &[f64]| logits.to_vec();
            found = passes::map_logits(&self.dev, &self.model, acts, batch, own);
        })?;
        NotFinite::unless(found.iter().flatten().copied())?;
        Ok(found)
    }

    /// A text's ids as in training: `[CLS] text [SEP]`, or after the token that ends a document.
    ///
    /// # Errors
    /// An id beyond the vocabulary; no such special token, in a masked model's tokenizer.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, PredictError> {
        let ids = self.tokenizer.encode(text)?;
        let ids = if self.model.arch.causal {
            self.tokenizer.specials().eot.into_iter().chain(ids).collect()
        } else {
            self.framed(ids)?
        };
        let vocab = self.model.arch.vocab;
        match ids.iter().find(|&&id| id as usize >= vocab) {
            Some(&id) => Err(PredictError::Vocabulary { id, vocab }),
            None => Ok(ids),
        }
    }

    /// `[CLS] text [SEP]`, as in training.
    fn framed(&self, text: Vec<u32>) -> Result<Vec<u32>, PredictError> {
        let specials = self.tokenizer.specials();
        let mut ids = vec![specials.cls.ok_or(PredictError::NoSpecial("[CLS]"))?];
        ids.extend(text);
        ids.push(specials.sep.ok_or(PredictError::NoSpecial("[SEP]"))?);
        Ok(ids)
    }

    fn best(&self, probabilities: &[f64], k: usize) -> Result<Vec<Guess>, PredictError> {
        let ids = likeliest(probabilities, k, f64::INFINITY);
        let guess = |&id: &u32| {
            let token = self.tokenizer.decode(&[id])?;
            Ok(Guess { id, token, probability: probabilities[id as usize] })
        };
        ids.iter().map(guess).collect()
    }

    pub(crate) fn wrong_kind(
        &self,
        wanted: &'static str,
        kind: &'static str,
        command: &'static str,
    ) -> PredictError {
        PredictError::WrongKind { wanted, kind, path: self.path.clone(), command }
    }
}
