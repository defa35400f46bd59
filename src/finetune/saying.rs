//! What logits say, in words: a line of `predict`, and of a mistake.

use std::ops::Range;

use serde_json::{Map, Value, json};

use super::examples::{Example, Gold};
use super::questions::{Decoding, decode};
use crate::eval::metrics::entities::{self, entities};
use crate::logits::{argmax, sigmoid, softmax};
use crate::model::arch::{Task, TaskKind};

/// What a model says of a word.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Word {
    pub class: usize,
    pub probability: f64,
}

/// Of an example, by `logits` [rows, K] of all its sequences. Places count characters.
pub fn said(
    task: &Task,
    example: &Example,
    logits: &[f64],
    decoding: &Decoding,
) -> Map<String, Value> {
    let labels = &task.labels;
    let each = |of: &[f64]| -> Value {
        Value::Object(labels.iter().zip(of).map(|(l, &p)| (l.clone(), json!(p))).collect())
    };
    let pairs: Vec<(&str, Value)> = match task.kind {
        TaskKind::Classes => {
            let label = json!(labels[argmax(logits)]);
            vec![("label", label), ("probabilities", each(&softmax(logits)))]
        }
        TaskKind::Flags => {
            let named = labels.iter().zip(logits).filter(|(_, z)| **z > 0.0);
            let named: Vec<&String> = named.map(|(label, _)| label).collect();
            vec![("labels", json!(named)), ("probabilities", each(&sigmoid(logits)))]
        }
        TaskKind::Values if labels.len() == 1 => vec![("value", json!(logits[0]))],
        TaskKind::Values => vec![("values", each(logits))],
        TaskKind::Tokens => {
            let (name, list) = tokens(example, logits, labels);
            vec![(name, list)]
        }
        TaskKind::Spans => {
            let decoded = decode(&example.sequences, logits, decoding);
            let place = decoded.answer().map(|found| found.bytes.clone());
            let text = place.clone().map_or("", |place| &example.text[place]);
            let [start, end] = characters(&example.text, &place.unwrap_or(0..0));
            vec![
                ("answer", json!(text)),
                ("start", json!(start)),
                ("end", json!(end)),
                ("probability", json!(decoded.probability())),
                // Infinite, which JSON has not, where there was no span at all.
                ("doubt", json!(Some(decoded.doubt()).filter(|doubt| doubt.is_finite()))),
            ]
        }
    };
    pairs.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

/// The entities where labels are tags of such, else each word.
fn tokens(example: &Example, logits: &[f64], labels: &[String]) -> (&'static str, Value) {
    let Gold::Words(places, _) = &example.gold else { unreachable!("{:?}", example.gold) };
    let words = words(example, logits, labels.len());
    let shown = |label: &str, place: Range<usize>, of: Range<usize>| {
        let [start, end] = characters(&example.text, &place);
        let sure = words[of.clone()].iter().flatten().map(|word| word.probability);
        let probability = sure.sum::<f64>() / of.len() as f64;
        let text = &example.text[place];
        json!({"label": label, "text": text, "start": start, "end": end,
               "probability": probability})
    };
    let tags = tags(&words, labels);
    match entities(&tags).ok().filter(|_| are_tags(labels)) {
        Some(found) => {
            let entity = |entity: &entities::Entity| {
                let of = entity.tokens.clone();
                shown(entity.kind, places[of.start].start..places[of.end - 1].end, of)
            };
            ("entities", found.iter().map(entity).collect())
        }
        None => {
            let word = |i: usize| {
                let label = words[i].map(|word| labels[word.class].as_str());
                label.map(|label| shown(label, places[i].clone(), i..i + 1))
            };
            ("words", (0..words.len()).filter_map(word).collect())
        }
    }
}

/// Whether labels are tags of entities.
pub fn are_tags(labels: &[String]) -> bool {
    entities(labels).is_ok()
}

/// What is said of each word; nothing of one that has no token.
pub fn words(example: &Example, logits: &[f64], k: usize) -> Vec<Option<Word>> {
    let Gold::Words(places, _) = &example.gold else { unreachable!("{:?}", example.gold) };
    let mut said = vec![None; places.len()];
    let spans = example.sequences.iter().flat_map(|sequence| &sequence.spans);
    for (span, row) in spans.zip(logits.chunks_exact(k)) {
        let Some(span) = span else { continue };
        let word = places.partition_point(|place| place.end < span.end);
        let class = argmax(row);
        said[word] = Some(Word { class, probability: softmax(row)[class] });
    }
    said
}

/// The labels of words; of one that nothing is said of, that of no entity.
pub fn tags<'a>(words: &[Option<Word>], labels: &'a [String]) -> Vec<&'a str> {
    words.iter().map(|word| word.map_or("O", |word| labels[word.class].as_str())).collect()
}

/// The characters at which bytes of a text begin and end.
fn characters(text: &str, bytes: &Range<usize>) -> [usize; 2] {
    [bytes.start, bytes.end].map(|at| text[..at].chars().count())
}
