//! A trained model at work: masked words filled in, text continued.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::checkpoint::model_folder;
use crate::data::tokenizer::TokenizerError;
use crate::data::{Batch, Tokenizer};
use crate::device::{Buffer, Class, Device};
use crate::hf::{LoadError, ModelDir};
use crate::model::activations::Activations;
use crate::model::arch::ArchError;
use crate::model::batch::{Capacity, DeviceBatch};
use crate::model::transformer::Model;
use crate::rng::{Philox, Stream, uniform};

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
    #[error("the text has no [MASK]: put it where a word is to be guessed")]
    NoMask,
    #[error("the text is {tokens} tokens long, the model takes {context}: shorten it")]
    TooLong { tokens: usize, context: usize },
    #[error("{wanted} is what a {kind} model does; {path} is not one: use `warpwright {command}`")]
    WrongKind { wanted: &'static str, kind: &'static str, path: PathBuf, command: &'static str },
    #[error("id {id} is beyond the vocabulary of {vocab}: the tokenizer is not this model's")]
    Vocabulary { id: u32, vocab: usize },
}

/// A model and its tokenizer on a device.
pub struct Predictor<D: Device> {
    pub(crate) dev: D,
    pub model: Model<D>,
    pub tokenizer: Tokenizer,
    path: PathBuf,
}

/// A token and its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Guess {
    pub id: u32,
    pub token: String,
    pub probability: f64,
}

/// How the next token is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f64,
    /// Only the k likeliest; 0 for all.
    pub top_k: usize,
    /// Only the likeliest whose probabilities reach p together; 1 for all.
    pub top_p: f64,
    pub seed: u64,
}

impl<D: Device> Predictor<D> {
    /// Opens a Hugging Face directory, or a run's best checkpoint.
    pub fn open(dev: D, path: &Path) -> Result<Self, PredictError> {
        let (predictor, missing) = Self::open_body(dev, path)?;
        let of_pairs = ["pooler", "seq_relationship", "sop_classifier"];
        let needed = |name: &String| !of_pairs.iter().any(|part| name.contains(part));
        match missing.into_iter().find(needed) {
            Some(tensor) => Err(PredictError::NoHead { path: predictor.path, tensor }),
            None => Ok(predictor),
        }
    }

    /// The same where a head may be missing; and what is.
    pub fn open_body(dev: D, path: &Path) -> Result<(Self, Vec<String>), PredictError> {
        let folder = model_folder(path);
        let dir = ModelDir::open(&folder)?;
        if dir.arch.task.is_some() {
            return Err(PredictError::Task(folder));
        }
        let mut model = Model::new(&dev, &dir.arch)?;
        let params = &mut model.params;
        let report = dir.load(&model.layout.table, |param, start, values| {
            params.write(param.span.start + start, values);
        })?;
        let tokenizer = Tokenizer::load(&folder)?;
        Ok((Predictor { dev, model, tokenizer, path: folder }, report.missing))
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
            return Err(PredictError::NoMask);
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
        logits.iter().map(|logits| self.best(&softmax(logits, 1.0), k)).collect()
    }

    /// `prompt` continued by up to `length` tokens; `say` is given each piece of text as it comes,
    /// and may break off.
    pub fn generate(
        &self,
        prompt: &str,
        length: usize,
        sampling: &Sampling,
        mut say: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<String, PredictError> {
        if !self.model.arch.causal {
            return Err(self.wrong_kind("continuing text", "causal", "fill"));
        }
        let eot = self.tokenizer.specials().eot;
        let mut ids: Vec<u32> = eot.into_iter().collect();
        ids.extend(self.tokenizer.encode(prompt)?);
        if ids.is_empty() {
            return Err(PredictError::NoSpecial("<|endoftext|>"));
        }
        let begin = ids.len();
        let mut text = String::new();
        for drawn in 0..length {
            // Beyond the context the model sees the last tokens that fit.
            let seen = &ids[ids.len().saturating_sub(self.model.arch.context)..];
            let logits = self.logits(seen, &[seen.len() - 1])?;
            let id = sampling.draw(&logits[0], drawn as u64);
            if Some(id) == eot {
                break;
            }
            ids.push(id);
            // A character may be spread over tokens: what is not yet one waits.
            let whole = self.tokenizer.decode(&ids[begin..])?;
            if !whole.ends_with('\u{fffd}') && whole.starts_with(&text) {
                let flow = say(&whole[text.len()..]);
                text = whole;
                if flow.is_break() {
                    break;
                }
            }
        }
        Ok(text)
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
        let batch = Batch {
            ids: ids.iter().map(|&id| id as i32).collect(),
            positions: (0..n as i32).collect(),
            types: vec![0; n],
            cu_seqlens: vec![0, n as i32],
            rows: Some(rows.iter().map(|&row| row as i32).collect()),
            targets: vec![crate::data::IGNORE; rows.len()],
            ..Batch::default()
        };
        let capacity = Capacity::of(&batch, false);
        let (dev, v) = (&self.dev, arch.vocab);
        let mut loaded = DeviceBatch::new(dev, capacity, false);
        loaded.load(&batch, false);
        let mut acts = Activations::new(dev, arch, capacity, false);
        let mut logits = dev.x(Class::Scratch, rows.len() * v);
        self.model.forward(dev, &mut acts, &loaded, None);
        self.model.logits(dev, &mut logits, &mut acts, &loaded);
        Ok(logits.to_vec().chunks(v).map(<[f64]>::to_vec).collect())
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
        let ids = by_probability(probabilities);
        let guess = |&id: &u32| {
            let token = self.tokenizer.decode(&[id])?;
            Ok(Guess { id, token, probability: probabilities[id as usize] })
        };
        ids.iter().take(k).map(guess).collect()
    }

    fn wrong_kind(
        &self,
        wanted: &'static str,
        kind: &'static str,
        command: &'static str,
    ) -> PredictError {
        PredictError::WrongKind { wanted, kind, path: self.path.clone(), command }
    }
}

impl Sampling {
    /// A token drawn by `logits` [V]; the `drawn`-th of its text, which with the seed decides.
    pub fn draw(&self, logits: &[f64], drawn: u64) -> u32 {
        let greedy = self.temperature <= 0.0;
        let probabilities = softmax(logits, if greedy { 1.0 } else { self.temperature });
        let mut ids = by_probability(&probabilities);
        if greedy {
            return ids[0];
        }
        if self.top_k > 0 {
            ids.truncate(self.top_k);
        }
        let mut total = 0.0;
        let mut kept = 0;
        while kept < ids.len() && (kept == 0 || total < self.top_p) {
            total += probabilities[ids[kept] as usize];
            kept += 1;
        }
        let word = Philox::new(self.seed).block(Stream::Sample, 0, drawn)[0];
        let mut left = f64::from(uniform(word)) * total;
        for &id in &ids[..kept] {
            left -= probabilities[id as usize];
            if left < 0.0 {
                return id;
            }
        }
        ids[kept - 1]
    }
}

/// Ids, the likeliest first; equal ones in the order of ids.
fn by_probability(probabilities: &[f64]) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..probabilities.len() as u32).collect();
    ids.sort_by(|&a, &b| probabilities[b as usize].total_cmp(&probabilities[a as usize]));
    ids
}

fn softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> = logits.iter().map(|z| ((z - top) / temperature).exp()).collect();
    let total: f64 = exps.iter().sum();
    exps.iter().map(|e| e / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f64; 4] = [1.0, 3.0, 2.0, -5.0];

    fn drawn(sampling: Sampling) -> Vec<u32> {
        let mut ids: Vec<u32> = (0..2000).map(|i| sampling.draw(&LOGITS, i)).collect();
        ids.sort();
        ids.dedup();
        ids
    }

    #[test]
    fn sampling_keeps_to_its_limits_and_its_odds() {
        let all = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 3 };
        assert_eq!(drawn(Sampling { temperature: 0.0, ..all }), [1]);
        assert_eq!(drawn(Sampling { top_k: 2, ..all }), [1, 2]);
        // Probabilities 0.665, 0.245, 0.090, 0.0002.
        assert_eq!(drawn(Sampling { top_p: 0.5, ..all }), [1]);
        assert_eq!(drawn(Sampling { top_p: 0.7, ..all }), [1, 2]);
        let ones = (0..10_000).filter(|&i| all.draw(&LOGITS, i) == 1).count();
        // Within five standard deviations of 6,650.
        assert!(ones.abs_diff(6650) < 5 * 47, "{ones}");
    }
}
