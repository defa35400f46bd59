//! How likely a model takes some tokens of a sequence to be, given what it may see of the others.
//!
//! ```text
//! causal   log p(token | all before it)    of all tokens in one pass
//! masked   log p(token | all others)       each masked in turn, a sequence a token (Salazar, 2020)
//! ```
//!
//! Sequences are laid end to end, as many as a pass takes, and only the rows that are asked about
//! pass the last layer's products and the head.

use super::passes::{self, Row};
use crate::device::Device;
use crate::logits::{argmax, log_sum_exp};
use crate::model::transformer::Model;
use crate::predict::{NotFinite, PredictError};

/// A sequence, and the places of the tokens in question, ascending; a causal model's from 1 on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub ids: Vec<u32>,
    pub scored: Vec<usize>,
}

/// What a model makes of a sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Likelihood {
    /// log p of each token in question [nats].
    pub each: Vec<f64>,
    /// Whether each of them is the likeliest in its place: what greedy decoding would write.
    pub greedy: bool,
}

impl Likelihood {
    /// Σ log p [nats].
    pub fn total(&self) -> f64 {
        self.each.iter().sum()
    }
}

/// The likelihoods of sequences, each within the model's context. `tick` is told after each pass
/// how many tokens in question are done.
///
/// # Errors
/// An id beyond the vocabulary; a masked model without a `mask`; logits that are not finite; a
/// device that has stopped.
pub fn likelihoods<D: Device>(
    dev: &D,
    model: &Model<D>,
    mask: Option<u32>,
    asked: &[Asked],
    mut tick: impl FnMut(usize),
) -> Result<Vec<Likelihood>, PredictError> {
    let vocab = model.arch.vocab;
    if let Some(&id) = asked.iter().flat_map(|a| &a.ids).find(|&&id| id as usize >= vocab) {
        return Err(PredictError::Vocabulary { id, vocab });
    }
    // In the order of rows: whose token, and which.
    let (mut targets, mut sequences) = (Vec::new(), Vec::new());
    for (i, Asked { ids, scored }) in asked.iter().enumerate() {
        targets.extend(scored.iter().map(|&at| (i, ids[at])));
        match scored.last() {
            None => {}
            Some(&last) if model.arch.causal => {
                let rows = scored.iter().map(|at| at - 1).collect();
                sequences.push(Row { ids: ids[..last].to_vec(), rows });
            }
            Some(_) => {
                let mask = mask.ok_or(PredictError::NoSpecial("[MASK]"))?;
                sequences.extend(scored.iter().map(|&at| {
                    let mut ids = ids.clone();
                    ids[at] = mask;
                    Row { ids, rows: vec![at] }
                }));
            }
        }
    }
    let mut found = vec![Likelihood { each: vec![], greedy: true }; asked.len()];
    let mut done = 0;
    passes::run(dev, model, &sequences, |_, acts, batch| {
        let of = |row: usize, logits: &[f64]| judge(logits, targets[done + row].1 as usize);
        let judged = passes::map_logits(dev, model, acts, batch, of);
        for ((log_p, likeliest), (i, _)) in judged.into_iter().zip(&targets[done..]) {
            found[*i].each.push(log_p);
            found[*i].greedy &= likeliest;
            done += 1;
        }
        tick(done);
    })?;
    NotFinite::unless(found.iter().flat_map(|found| &found.each).copied())?;
    Ok(found)
}

/// log softmax(logits)[id], and whether that is the largest; of equal ones the first is.
fn judge(logits: &[f64], id: usize) -> (f64, bool) {
    (logits[id] - log_sum_exp(logits), argmax(logits) == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_largest_is_greedy() {
        let (log_p, likeliest) = judge(&[1.0, 1.0, f64::NEG_INFINITY], 0);
        assert!((log_p + 2f64.ln()).abs() < 1e-15 && likeliest);
        assert!(!judge(&[1.0, 1.0, 0.0], 1).1);
    }
}
