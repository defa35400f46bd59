//! Beam search: the continuation that is likeliest as a whole, as far as a few beams can see.
//!
//! As transformers 5 has it (`num_beams`, `length_penalty`, `early_stopping` False or True). A
//! beam's score so far is Σ log p of its new tokens. In each step the 2B best continuations of all
//! B beams are looked at: of the B best among them, those that end are finished, with the score
//!   Σ log p / n^penalty    (n new tokens, the one that ends it among them)
//! and the B best that do not end go on. At the length asked for, all end. The B best finished ones
//! are kept, and once there are B, the search is over: at once if it is to stop early, else when
//! the best beam, were it to end now, would not be better than the worst of them.

use rayon::prelude::*;

use super::decoder::{Decoder, Sequence};
use super::sampling::likeliest;
use crate::device::Device;
use crate::logits::log_sum_exp;
use crate::predict::PredictError;

/// More take memory without end and find no better text.
pub const MOST: usize = 1000;

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Beams {
    /// B, at least 1
    pub count: usize,
    /// Above 0 favours long texts, below 0 short ones.
    pub length_penalty: f64,
    /// Whether to be content with the first B that are finished.
    pub early_stopping: bool,
}

/// A finished continuation.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// Its new tokens, with the one that ended it.
    pub ids: Vec<u32>,
    pub score: f64,
}

/// The search for one text.
struct Search {
    /// Tokens of the prompt.
    begin: usize,
    /// The best first; none when it is over.
    running: Vec<(Sequence, f64)>,
    /// The same.
    finished: Vec<Hypothesis>,
}

/// A beam, one token longer.
struct Longer {
    beam: usize,
    id: u32,
    score: f64,
}

/// Continues each of `prompts` by up to `length` tokens; the best first, B of each at most.
/// `ended(new tokens)` tells which end a text.
///
/// # Errors
/// Those of [`Decoder::logits`] and of `ended`.
pub fn search<D: Device>(
    decoder: &mut Decoder<D>,
    prompts: Vec<Vec<u32>>,
    beams: Beams,
    length: usize,
    ended: impl Fn(&[u32]) -> Result<bool, PredictError>,
) -> Result<Vec<Vec<Hypothesis>>, PredictError> {
    let new = |ids: Vec<u32>| Search {
        begin: ids.len(),
        running: vec![(Sequence::new(ids), 0.0)],
        finished: Vec::new(),
    };
    let mut searches: Vec<Search> = prompts.into_iter().map(new).collect();
    for step in 1..=length {
        let mut running: Vec<Sequence> = Vec::new();
        for search in &searches {
            running.extend(search.running.iter().map(|(sequence, _)| sequence.clone()));
        }
        if running.is_empty() {
            break;
        }
        let logits = decoder.logits(&mut running)?;
        let v = logits.len() / running.len();
        let (mut running, mut logits) = (running.into_iter(), &logits[..]);
        for search in &mut searches {
            let count = search.running.len();
            let (own, rest) = logits.split_at(count * v);
            logits = rest;
            for ((sequence, _), grown) in search.running.iter_mut().zip(&mut running) {
                *sequence = grown;
            }
            search.advance(own, v, beams, (step, length), &ended)?;
        }
    }
    Ok(searches.into_iter().map(|search| search.finished).collect())
}

impl Search {
    /// Goes on by a token, given the logits [beams, V].
    fn advance(
        &mut self,
        logits: &[f64],
        v: usize,
        beams: Beams,
        (step, length): (usize, usize),
        ended: impl Fn(&[u32]) -> Result<bool, PredictError>,
    ) -> Result<(), PredictError> {
        let worth = |score: f64| score / (step as f64).powf(beams.length_penalty);
        let mut running = Vec::new();
        for (rank, Longer { beam, id, score }) in
            self.longer(logits, v, 2 * beams.count).into_iter().enumerate()
        {
            let mut sequence = self.running[beam].0.clone();
            sequence.push(id);
            let new = &sequence.ids()[self.begin..];
            if step < length && !ended(new)? {
                running.push((sequence, score));
            } else if rank < beams.count {
                self.finished.push(Hypothesis { ids: new.to_vec(), score: worth(score) });
            }
        }
        running.truncate(beams.count);
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(beams.count);
        let worst = self.finished.get(beams.count - 1).map(|worst| worst.score);
        let over = |best: f64| worst.is_some_and(|w| beams.early_stopping || worth(best) <= w);
        if running.first().is_some_and(|(_, best)| over(*best)) {
            running.clear();
        }
        self.running = running;
        Ok(())
    }

    /// The `most` best continuations, best first.
    fn longer(&self, logits: &[f64], v: usize, most: usize) -> Vec<Longer> {
        let beams: Vec<(&[f64], f64)> =
            logits.chunks_exact(v).zip(self.running.iter().map(|(_, score)| *score)).collect();
        let of_beam = |(beam, &(logits, before)): (usize, &(&[f64], f64))| {
            let total = log_sum_exp(logits);
            let score = |id: u32| before + logits[id as usize] - total;
            let ids = likeliest(logits, most, f64::INFINITY).into_iter();
            ids.map(|id| Longer { beam, id, score: score(id) }).collect::<Vec<_>>()
        };
        let mut all: Vec<Longer> = beams
            .par_iter()
            .enumerate()
            .map(of_beam)
            .collect::<Vec<_>>()
            .into_iter()
            .flatten()
            .collect();
        all.sort_by(|a, b| b.score.total_cmp(&a.score));
        all.truncate(most);
        all
    }
}
