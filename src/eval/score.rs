//! How likely a model takes texts to be.
//!
//! A causal model: log p(text) = Σ log p(token | all before it). A masked model has no such p; its
//! *pseudo*-log-likelihood (Salazar, Liang, Nguyen, Kirchhoff 2020) masks each token in turn,
//! Σ log p(token | all others). Special tokens are given, never scored.

use serde::Serialize;

use super::likelihood::{Asked, likelihoods};
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
        let mut scored = self.plain(&ids);
        // Nothing is before the first token.
        scored.retain(|&at| at > 0 || !self.model.arch.causal);
        let mask = self.tokenizer.specials().mask;
        let asked = [Asked { ids, scored }];
        let found = likelihoods(&self.dev, &self.model, mask, &asked, |_| {})?;
        let [Asked { ids, scored }] = &asked;
        let (found, total) = (&found[0].each, found[0].total());
        let named = || -> Result<Vec<(String, f64)>, PredictError> {
            let pairs = scored.iter().zip(found);
            pairs.map(|(&at, &p)| Ok((self.tokenizer.decode(&ids[at..=at])?, p))).collect()
        };
        Ok(Score {
            tokens: scored.len(),
            log_likelihood: total,
            mean_nll: (!scored.is_empty()).then(|| -total / scored.len() as f64),
            each: each.then(named).transpose()?,
        })
    }

    /// The places of tokens that are not special.
    fn plain(&self, ids: &[u32]) -> Vec<usize> {
        let special = self.tokenizer.is_special();
        let is_special = |id: u32| special.get(id as usize).copied().unwrap_or(false);
        (0..ids.len()).filter(|&i| !is_special(ids[i])).collect()
    }
}
