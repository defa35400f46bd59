//! Rows as tokens and labels.

use serde_json::Value;

use super::table::{Record, Table, TableError};
use crate::data::Tokenizer;
use crate::data::tokenizer::TokenizerError;
use crate::model::arch::{Arch, Family, TaskKind};

/// Which columns hold what.
#[derive(Debug, Clone)]
pub struct Columns {
    pub text: String,
    /// The second of two texts.
    pub pair: Option<String>,
    pub label: String,
}

/// What is right for an example.
#[derive(Debug, Clone, PartialEq)]
pub enum Label {
    Class(usize),
    Flags(Vec<bool>),
    Value(f64),
}

/// A row, ready for the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    pub ids: Vec<u32>,
    /// Token types, as many as `ids`.
    pub types: Vec<i32>,
    pub label: Label,
    /// For people: the row's text, and where it stands.
    pub text: String,
    pub line: u64,
}

/// Why rows cannot become examples.
#[derive(Debug, thiserror::Error)]
pub enum ExampleError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error("the tokenizer has no {0} token, which {1} needs: give a model with its own tokenizer")]
    Special(&'static str, &'static str),
    #[error("id {id} is beyond the vocabulary of {vocab}: the tokenizer is not this model's")]
    Vocabulary { id: u32, vocab: usize },
    #[error("--longest {0} leaves no room for text: give more")]
    Longest(usize),
    #[error("the rows have one label alone, {0:?}: there is nothing to learn")]
    OneLabel(String),
}

/// Separates the labels of a row that may have several.
const BETWEEN: char = '|';

/// The labels of rows, each once: numbers in their order, then names in theirs.
///
/// # Errors
/// A row without the column; fewer than two classes.
pub fn labels(table: &Table, column: &str, kind: TaskKind) -> Result<Vec<String>, ExampleError> {
    let mut found: Vec<String> = Vec::new();
    for record in &table.records {
        match kind {
            TaskKind::Flags => found.extend(several(table, record, column)?),
            _ => found.push(table.text(record, column)?),
        }
    }
    let number = |label: &String| label.parse::<f64>().unwrap_or(f64::INFINITY);
    found.sort_by(|a, b| number(a).total_cmp(&number(b)).then_with(|| a.cmp(b)));
    found.dedup();
    match &found[..] {
        [only] if kind == TaskKind::Classes => Err(ExampleError::OneLabel(only.clone())),
        _ => Ok(found),
    }
}

/// Labels in a list, or in one text.
fn several(table: &Table, record: &Record, column: &str) -> Result<Vec<String>, TableError> {
    match table.value(record, column)? {
        Value::Array(list) => {
            let name = |value: &Value| value.as_str().map(str::to_string);
            let names: Option<Vec<String>> = list.iter().map(name).collect();
            names.ok_or_else(|| table.wrong(record, format!("{column} is not a list of names")))
        }
        _ => {
            let text = table.text(record, column)?;
            let names = text.split(BETWEEN).map(str::trim).filter(|name| !name.is_empty());
            Ok(names.map(str::to_string).collect())
        }
    }
}

/// How rows become examples of a model.
pub struct Reader<'a> {
    pub arch: &'a Arch,
    pub tokenizer: &'a Tokenizer,
    pub columns: &'a Columns,
    /// Tokens of an example, special ones included.
    pub longest: usize,
}

/// Examples, and how many were cut to fit.
pub struct Examples {
    pub examples: Vec<Example>,
    pub cut: usize,
}

impl Reader<'_> {
    /// All rows of a table; with `labels`, the names of the outputs.
    ///
    /// # Errors
    /// A missing column, a label that is none of `labels` or no number, an id beyond the
    /// vocabulary, a special token that the tokenizer lacks; the row is named.
    pub fn read(&self, table: &Table, labels: &[String]) -> Result<Examples, ExampleError> {
        let mut cut = 0;
        let mut examples = Vec::with_capacity(table.records.len());
        for record in &table.records {
            let text = table.text(record, &self.columns.text)?;
            let pair = self.columns.pair.as_ref().map(|column| table.text(record, column));
            let pair = pair.transpose()?;
            let label = self.label(table, record, labels)?;
            let (ids, types, was_cut) = self.encode(&text, pair.as_deref())?;
            cut += usize::from(was_cut);
            let text = pair.map_or(text.clone(), |pair| format!("{text} / {pair}"));
            examples.push(Example { ids, types, label, text, line: record.line });
        }
        Ok(Examples { examples, cut })
    }

    fn label(
        &self,
        table: &Table,
        record: &Record,
        labels: &[String],
    ) -> Result<Label, ExampleError> {
        let column = &self.columns.label;
        let place = |name: &String| {
            labels.iter().position(|label| label == name).ok_or_else(|| {
                let known = labels.join(", ");
                table.wrong(record, format!("label {name:?} is none of the model's: {known}"))
            })
        };
        match self.arch.task.as_ref().map(|task| task.kind) {
            Some(TaskKind::Flags) => {
                let mut flags = vec![false; labels.len()];
                for name in several(table, record, column)? {
                    flags[place(&name)?] = true;
                }
                Ok(Label::Flags(flags))
            }
            Some(TaskKind::Values) => {
                let text = table.text(record, column)?;
                let value = text.trim().parse().ok().filter(|v: &f64| v.is_finite());
                let wrong = || table.wrong(record, format!("{column} {text:?} is no number"));
                Ok(Label::Value(value.ok_or_else(wrong)?))
            }
            _ => Ok(Label::Class(place(&table.text(record, column)?)?)),
        }
    }

    /// Ids and types of a text or two, as the family frames them, and whether they were cut.
    ///
    /// # Errors
    /// See [`Reader::read`].
    pub fn encode(
        &self,
        text: &str,
        pair: Option<&str>,
    ) -> Result<(Vec<u32>, Vec<i32>, bool), ExampleError> {
        let mut first = self.tokenizer.encode(text)?;
        let mut second = pair.map(|pair| self.tokenizer.encode(pair)).transpose()?;
        let specials = self.tokenizer.specials();
        let roberta = self.arch.family == Family::Roberta;
        let (begin, between, end): (Vec<u32>, Vec<u32>, Vec<u32>) = if self.arch.causal {
            let eot = specials.eot.into_iter().collect();
            (vec![], eot, vec![])
        } else {
            let missing = |name| ExampleError::Special(name, "an encoder's input");
            let cls = specials.cls.ok_or_else(|| missing("[CLS]"))?;
            let sep = specials.sep.ok_or_else(|| missing("[SEP]"))?;
            (vec![cls], if roberta { vec![sep, sep] } else { vec![sep] }, vec![sep])
        };
        let framed = begin.len() + end.len() + second.as_ref().map_or(0, |_| between.len());
        let longest = self.longest.min(self.arch.context);
        let room = longest.checked_sub(framed).filter(|&room| room > 0);
        let room = room.ok_or(ExampleError::Longest(self.longest))?;
        let cut = shorten(&mut first, second.as_mut(), room);
        let mut ids = begin;
        ids.extend(first);
        let mut types = Vec::new();
        if let Some(second) = second {
            ids.extend(between);
            types.resize(ids.len(), 0);
            ids.extend(second);
        }
        ids.extend(end);
        let of_second = i32::from(self.arch.token_types > 1 && !types.is_empty());
        types.resize(ids.len(), of_second);
        // An empty text of a causal model: nothing would stand for it.
        if ids.is_empty() {
            ids.push(specials.eot.ok_or(ExampleError::Special("<|endoftext|>", "an empty text"))?);
            types.push(0);
        }
        let vocab = self.arch.vocab;
        match ids.iter().find(|&&id| id as usize >= vocab) {
            Some(&id) => Err(ExampleError::Vocabulary { id, vocab }),
            None => Ok((ids, types, cut)),
        }
    }
}

/// Cuts the longer of two texts until both fit.
fn shorten(first: &mut Vec<u32>, second: Option<&mut Vec<u32>>, room: usize) -> bool {
    let Some(second) = second else {
        let cut = first.len() > room;
        first.truncate(room);
        return cut;
    };
    let (a, b) = (first.len(), second.len());
    let half = room / 2;
    let keep =
        (a.min(room.saturating_sub(b.min(half))), b.min(room.saturating_sub(a.min(room - half))));
    first.truncate(keep.0);
    second.truncate(keep.1);
    a + b > room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_of_two_texts_is_cut() {
        for ([a, b], room, kept) in [
            ([3, 4], 10, [3, 4]),
            ([30, 4], 10, [6, 4]),
            ([3, 40], 10, [3, 7]),
            ([30, 40], 10, [5, 5]),
            ([30, 40], 11, [6, 5]),
            ([30, 0], 10, [10, 0]),
        ] {
            let (mut first, mut second) = (vec![1; a], vec![2; b]);
            let cut = shorten(&mut first, Some(&mut second), room);
            assert_eq!([first.len(), second.len()], kept, "{a} {b} {room}");
            assert_eq!(cut, a + b > room);
        }
    }
}
