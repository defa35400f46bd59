//! What a trained model makes of held-out text, to be shown at the end of a run.

use std::ops::ControlFlow;

use super::prepare::Prepared;
use crate::data::{Batch, IGNORE, Tokenizer};
use crate::device::Device;
use crate::generate::sampling::Sampling;
use crate::generate::{Choice, Continuing};
use crate::predict::{PredictError, Predictor};
use crate::telemetry::metrics::{BLANK, Guess, Sample};

/// Samples shown, and guesses for each.
const SHOWN: usize = 5;
/// Sequences from one sample to the next, so that they come from different texts.
const STRIDE: usize = 37;
/// Tokens of context shown on either side of a masked word.
const AROUND: usize = 14;
/// Tokens of held-out text that a causal model continues, and tokens it then draws.
const PROMPT: usize = 12;
const DRAWN: usize = 100;

/// Masked words of held-out sentences filled in, or held-out beginnings continued.
pub fn samples<D: Device>(
    predictor: &Predictor<D>,
    data: &Prepared,
) -> Result<Vec<Sample>, PredictError> {
    let sequences = data.heldout.iter().flat_map(sequences);
    if predictor.model.arch.causal {
        return sequences.step_by(STRIDE).take(2).map(|ids| continued(predictor, &ids)).collect();
    }
    let word_starts = predictor.tokenizer.word_starts();
    let mut samples = Vec::new();
    for ids in sequences.step_by(STRIDE) {
        if let Some(at) = lone_word(&predictor.tokenizer, &word_starts, &ids) {
            samples.push(filled(predictor, &word_starts, ids, at)?);
        }
        if samples.len() == SHOWN {
            break;
        }
    }
    Ok(samples)
}

/// The sequences of a batch as they were before masking.
fn sequences(batch: &Batch) -> impl Iterator<Item = Vec<u32>> + use<> {
    let mut ids = batch.ids.clone();
    for (&row, &target) in batch.rows.iter().flatten().zip(&batch.targets) {
        if target != IGNORE {
            ids[row as usize] = target;
        }
    }
    let ends = batch.cu_seqlens.clone();
    (1..ends.len()).map(move |s| {
        ids[ends[s - 1] as usize..ends[s] as usize].iter().map(|&id| id as u32).collect()
    })
}

/// A word of four letters or more that is one token, near the middle of the sequence.
fn lone_word(tokenizer: &Tokenizer, word_starts: &[bool], ids: &[u32]) -> Option<usize> {
    let starts = |i: usize| word_starts[ids[i] as usize];
    let is_word = |i: &usize| {
        let text = tokenizer.decode(&ids[*i..=*i]).unwrap_or_default();
        let word = text.trim();
        let letters = word.len() >= 4 && word.chars().all(char::is_alphabetic);
        letters && starts(*i) && starts(*i + 1)
    };
    (ids.len() / 2..ids.len().saturating_sub(4)).find(is_word)
}

fn filled<D: Device>(
    predictor: &Predictor<D>,
    word_starts: &[bool],
    mut ids: Vec<u32>,
    at: usize,
) -> Result<Sample, PredictError> {
    let tokenizer = &predictor.tokenizer;
    let answer = tokenizer.decode(&ids[at..=at])?;
    let mask = tokenizer.specials().mask;
    ids[at] = mask.ok_or(PredictError::NoSpecial("[MASK]"))?;
    let guesses = predictor.guess(&ids, &[at], SHOWN)?.remove(0);
    // The frame's specials at either end are no text, and no word is shown cut.
    let from = at.saturating_sub(AROUND).max(1);
    let from = (from..at).find(|&i| word_starts[ids[i] as usize]).unwrap_or(at);
    let to = (at + AROUND).min(ids.len() - 1);
    let space = if answer.starts_with(' ') { " " } else { "" };
    let text = format!(
        "{}{space}{BLANK}{}",
        tokenizer.decode(&ids[from..at])?,
        tokenizer.decode(&ids[at + 1..to])?
    );
    let guess = |g: crate::predict::Guess| Guess {
        token: g.token.trim().to_string(),
        probability: g.probability,
    };
    Ok(Sample::Filled {
        text: text.split_whitespace().collect::<Vec<_>>().join(" "),
        answer: Some(answer.trim().to_string()),
        guesses: guesses.into_iter().map(guess).collect(),
    })
}

fn continued<D: Device>(predictor: &Predictor<D>, ids: &[u32]) -> Result<Sample, PredictError> {
    let begin = &ids[..ids.len().min(PROMPT)];
    let is_special = predictor.tokenizer.is_special();
    let words: Vec<u32> = begin.iter().copied().filter(|&id| !is_special[id as usize]).collect();
    let prompt = predictor.tokenizer.decode(&words)?;
    let sampling = Sampling { temperature: 0.8, top_k: 0, top_p: 0.95, seed: 1 };
    let how = Continuing { length: DRAWN, stops: vec![], choice: Choice::Draw(sampling) };
    let text = predictor.generate(&prompt, &how, |_| ControlFlow::Continue(()))?.text;
    Ok(Sample::Generated { prompt, text })
}
