//! Text, continued: one text as it is drawn, or many together.
//!
//! [`decoder`] computes, [`sampling`] and [`beams`] choose; here texts become tokens and back, and
//! end: at the token that ends a text, before a string that was named, or at the length asked for.

pub mod beams;
pub mod decoder;
pub mod sampling;

use std::ops::ControlFlow;

use rayon::prelude::*;
use serde::Serialize;

use crate::data::Tokenizer;
use crate::device::Device;
use crate::predict::{PredictError, Predictor};
use beams::{Beams, search};
use decoder::{Decoder, Sequence};
use sampling::Sampling;

/// How texts are continued.
#[derive(Debug, Clone, PartialEq)]
pub struct Continuing {
    /// Tokens at most.
    pub length: usize,
    /// A text ends before the first of these; none is empty.
    pub stops: Vec<String>,
    pub choice: Choice,
}

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice {
    Draw(Sampling),
    Search(Beams),
}

/// A continuation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Continued {
    pub text: String,
    /// Tokens chosen, with the one that ended it.
    pub tokens: usize,
    pub end: End,
    /// Of a search: Σ log p / tokens^penalty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

/// What ended a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The token that ends texts.
    Text,
    /// A string that was named.
    Stop,
    Length,
}

/// Draws up to `length` tokens after each of `prompts`, text numbers from `first` on, which with
/// the seed decide. After each token `ends(prompt, new tokens)` tells whether it was the last.
///
/// # Errors
/// Those of [`Decoder::logits`] and of `ends`.
pub fn draw<D: Device>(
    decoder: &mut Decoder<D>,
    prompts: Vec<Vec<u32>>,
    (first, length, sampling): (u32, usize, &Sampling),
    mut ends: impl FnMut(usize, &[u32]) -> Result<bool, PredictError>,
) -> Result<Vec<Vec<u32>>, PredictError> {
    let begin: Vec<usize> = prompts.iter().map(Vec::len).collect();
    let mut drawn = vec![Vec::new(); prompts.len()];
    let mut texts: Vec<usize> = (0..prompts.len()).collect();
    let mut sequences: Vec<Sequence> = prompts.into_iter().map(Sequence::new).collect();
    for step in 0..length {
        if sequences.is_empty() {
            break;
        }
        let logits = decoder.logits(&mut sequences)?;
        let v = logits.len() / sequences.len();
        let ids: Vec<u32> = texts
            .par_iter()
            .zip(logits.par_chunks_exact(v))
            .map(|(&text, logits)| sampling.draw(logits, first + text as u32, step as u64))
            .collect();
        let (mut left, mut live) = (Vec::new(), Vec::new());
        for ((text, mut sequence), id) in texts.into_iter().zip(sequences).zip(ids) {
            sequence.push(id);
            let new = &sequence.ids()[begin[text]..];
            if ends(text, new)? || step + 1 == length {
                drawn[text] = new.to_vec();
            } else {
                left.push(text);
                live.push(sequence);
            }
        }
        (texts, sequences) = (left, live);
    }
    Ok(drawn)
}

/// What ends texts, and what they say until then.
struct Endings<'a> {
    tokenizer: &'a Tokenizer,
    eot: Option<u32>,
    stops: &'a [String],
}

impl Endings<'_> {
    fn ends_text(&self, new: &[u32]) -> bool {
        self.eot.is_some_and(|eot| new.last() == Some(&eot))
    }

    /// What new tokens say, and what ended them, if anything did.
    fn read(&self, new: &[u32]) -> Result<(String, Option<End>), PredictError> {
        if self.ends_text(new) {
            return Ok((self.tokenizer.decode(&new[..new.len() - 1])?, Some(End::Text)));
        }
        let mut text = self.tokenizer.decode(new)?;
        match self.stops.iter().filter_map(|stop| text.find(stop)).min() {
            Some(at) => {
                text.truncate(at);
                Ok((text, Some(End::Stop)))
            }
            None => Ok((text, None)),
        }
    }

    fn ended(&self, new: &[u32]) -> Result<bool, PredictError> {
        if self.stops.is_empty() {
            return Ok(self.ends_text(new));
        }
        Ok(self.read(new)?.1.is_some())
    }

    fn continued(&self, new: &[u32], score: Option<f64>) -> Result<Continued, PredictError> {
        let (mut text, end) = self.read(new)?;
        // A character may be spread over tokens, and cut in two at the end.
        text.truncate(text.trim_end_matches('\u{fffd}').len());
        Ok(Continued { text, tokens: new.len(), end: end.unwrap_or(End::Length), score })
    }

    /// How much of a text that goes on is sure to stay: all but what may be half a character, or
    /// the beginning of a stop.
    fn sure(&self, text: &str) -> usize {
        let begins = |stop: &String| {
            let lengths = stop.char_indices().map(|(at, _)| at).skip(1);
            lengths.filter(|&at| text.ends_with(&stop[..at])).max().unwrap_or(0)
        };
        let held = self.stops.iter().map(begins).max().unwrap_or(0);
        text.trim_end_matches('\u{fffd}').len().min(text.len() - held)
    }
}

impl<D: Device> Predictor<D> {
    /// `prompt` continued; `say` is given each piece of text as soon as it is sure, and may break
    /// off. A search says all at once.
    ///
    /// # Errors
    /// A model that is not causal; a tokenizer that is not the model's.
    pub fn generate(
        &self,
        prompt: &str,
        how: &Continuing,
        mut say: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Continued, PredictError> {
        let Choice::Draw(sampling) = &how.choice else {
            let found = self.generate_all(0, &[prompt.to_string()], how)?.remove(0);
            let _ = say(&found.text);
            return Ok(found);
        };
        let (prompts, endings) = self.prompts(&[prompt.to_string()], how)?;
        let mut decoder = self.decoder(&prompts, 1, how.length);
        let mut said = String::new();
        let settings = (0, how.length, sampling);
        let new = draw(&mut decoder, prompts, settings, |_, new| {
            let (text, end) = endings.read(new)?;
            let sure = if end.is_some() { text.len() } else { endings.sure(&text) };
            let flow = match text[..sure].strip_prefix(&*said) {
                Some(piece) if !piece.is_empty() => say(piece),
                _ => return Ok(end.is_some()),
            };
            said.replace_range(.., &text[..sure]);
            Ok(end.is_some() || flow.is_break())
        })?
        .remove(0);
        let found = endings.continued(&new, None)?;
        if let Some(rest) = found.text.strip_prefix(&*said).filter(|rest| !rest.is_empty()) {
            let _ = say(rest);
        }
        Ok(found)
    }

    /// Texts continued together: `prompts` are numbers `first` and on of all.
    ///
    /// # Errors
    /// As [`Predictor::generate`].
    pub fn generate_all(
        &self,
        first: u32,
        prompts: &[String],
        how: &Continuing,
    ) -> Result<Vec<Continued>, PredictError> {
        let (prompts, endings) = self.prompts(prompts, how)?;
        match how.choice {
            Choice::Draw(sampling) => {
                let mut decoder = self.decoder(&prompts, 1, how.length);
                let settings = (first, how.length, &sampling);
                let drawn = draw(&mut decoder, prompts, settings, |_, new| endings.ended(new))?;
                drawn.iter().map(|new| endings.continued(new, None)).collect()
            }
            Choice::Search(beams) => {
                let mut decoder = self.decoder(&prompts, beams.count, how.length);
                let ended = |new: &[u32]| endings.ended(new);
                let found = search(&mut decoder, prompts, beams, how.length, ended)?;
                let best = |found: &Vec<beams::Hypothesis>| match found.first() {
                    Some(best) => endings.continued(&best.ids, Some(best.score)),
                    // Of length 0.
                    None => endings.continued(&[], None),
                };
                found.iter().map(best).collect()
            }
        }
    }

    /// The prompts' ids, and what ends texts.
    fn prompts<'a>(
        &'a self,
        prompts: &[String],
        how: &'a Continuing,
    ) -> Result<(Vec<Vec<u32>>, Endings<'a>), PredictError> {
        if !self.model.arch.causal {
            return Err(self.wrong_kind("continuing text", "causal", "fill"));
        }
        let prompts: Vec<Vec<u32>> =
            prompts.iter().map(|prompt| self.encode(prompt)).collect::<Result<_, _>>()?;
        if prompts.iter().any(Vec::is_empty) {
            return Err(PredictError::NoSpecial("<|endoftext|>"));
        }
        let (tokenizer, eot) = (&self.tokenizer, self.tokenizer.specials().eot);
        Ok((prompts, Endings { tokenizer, eot, stops: &how.stops }))
    }

    fn decoder(&self, prompts: &[Vec<u32>], beams: usize, longer: usize) -> Decoder<'_, D> {
        let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
        Decoder::new(&self.dev, &self.model, &lengths, beams, longer)
    }
}
