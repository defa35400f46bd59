//! How likely a model takes texts to be.
//!
//! A causal model: log p(text) = Σ log p(token | all before it). A masked model has no such p; its
//! *pseudo*-log-likelihood (Salazar, Liang, Nguyen, Kirchhoff 2020) masks each token in turn,
//! Σ log p(token | all others). Special tokens are given, never scored.

use serde::Serialize;

use super::passes::{self, Row};
use crate::device::Device;
use crate::predict::{PredictError, Predictor};

/// A text's score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    /// Tokens that were scored.
    pub tokens: usize,
    /// Σ log p [nats]; of a masked model the pseudo-log-likelihood.
    pub log_likelihood: f64,
    /// −that / tokens; null of a text without a token to score.
    pub mean_nll: Option<f64>,
    /// Each token and its log p.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each: Option<Vec<(String, f64)>>,
}

impl<D: Device> Predictor<D> {
    /// Scores one text; with `each`, token by token.
    ///
    /// # Errors
    /// A text longer than the model's context, a tokenizer that is not the model's or lacks a
    /// special token that the model needs.
    pub fn score(&self, text: &str, each: bool) -> Result<Score, PredictError> {
        let ids = self.encode(text)?;
        let context = self.model.arch.context;
        if ids.len() > context {
            return Err(PredictError::TooLong { tokens: ids.len(), context });
        }
        let (scored, sequences) =
            if self.model.arch.causal { self.one_pass(&ids) } else { self.masked(&ids)? };
        let v = self.model.arch.vocab;
        let mut found = Vec::new();
        passes::run(&self.dev, &self.model, &sequences, |_, acts, batch| {
            let logits = passes::logits(&self.dev, &self.model, acts, batch);
            for row in logits.chunks_exact(v) {
                found.push(log_softmax(row, scored[found.len()] as usize));
            }
        });
        let total: f64 = found.iter().sum();
        let named = || -> Result<Vec<(String, f64)>, PredictError> {
            let pairs = scored.iter().zip(&found);
            pairs.map(|(&id, &p)| Ok((self.tokenizer.decode(&[id])?, p))).collect()
        };
        Ok(Score {
            tokens: scored.len(),
            log_likelihood: total,
            mean_nll: (!scored.is_empty()).then(|| -total / scored.len() as f64),
            each: each.then(named).transpose()?,
        })
    }

    /// The tokens to score, and one sequence whose rows each tell of the next token.
    fn one_pass(&self, ids: &[u32]) -> (Vec<u32>, Vec<Row>) {
        let rows: Vec<usize> = (0..ids.len().saturating_sub(1)).collect();
        if rows.is_empty() {
            return (vec![], vec![]);
        }
        (ids[1..].to_vec(), vec![Row { ids: ids[..ids.len() - 1].to_vec(), rows }])
    }

    /// The tokens to score, and a sequence for each, in which it is masked.
    fn masked(&self, ids: &[u32]) -> Result<(Vec<u32>, Vec<Row>), PredictError> {
        let mask = self.tokenizer.specials().mask.ok_or(PredictError::NoSpecial("[MASK]"))?;
        let special = self.tokenizer.is_special();
        let is_special = |id: u32| special.get(id as usize).copied().unwrap_or(false);
        let places: Vec<usize> = (0..ids.len()).filter(|&i| !is_special(ids[i])).collect();
        let sequence = |&at: &usize| {
            let mut ids = ids.to_vec();
            ids[at] = mask;
            Row { ids, rows: vec![at] }
        };
        Ok((places.iter().map(|&at| ids[at]).collect(), places.iter().map(sequence).collect()))
    }
}

fn log_softmax(logits: &[f64], id: usize) -> f64 {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|z| (z - top).exp()).sum();
    logits[id] - top - total.ln()
}
