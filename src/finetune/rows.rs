//! Rows with a class, labels, or a number.

use serde_json::Value;

use super::examples::{Columns, Example, ExampleError, Gold, Sequence};
use super::frame::{Frame, ids};
use super::table::{Record, Table, TableError};
use crate::model::arch::TaskKind;

/// Separates the labels of a row that may have several.
const BETWEEN: char = '|';

/// The labels of rows, each once: numbers in their order, then names in theirs.
///
/// # Errors
/// A row without the column, or with nothing in it; fewer than two classes.
pub fn labels(table: &Table, column: &str, kind: TaskKind) -> Result<Vec<String>, ExampleError> {
    let mut found: Vec<String> = Vec::new();
    for record in &table.records {
        match kind {
            TaskKind::Flags => found.extend(several(table, record, column)?),
            _ => found.push(class(table, record, column)?),
        }
    }
    match &in_order(found)[..] {
        [only] if kind == TaskKind::Classes => Err(ExampleError::OneLabel(only.clone())),
        labels => Ok(labels.to_vec()),
    }
}

/// Each label once: numbers in their order, then names in theirs.
pub fn in_order(mut labels: Vec<String>) -> Vec<String> {
    let number = |label: &String| label.parse::<f64>().unwrap_or(f64::INFINITY);
    labels.sort_by(|a, b| number(a).total_cmp(&number(b)).then_with(|| a.cmp(b)));
    labels.dedup();
    labels
}

/// The number of a label.
///
/// # Errors
/// One that the model does not have.
pub fn place(
    labels: &[String],
    name: &str,
    wrong: impl Fn(String) -> TableError,
) -> Result<usize, TableError> {
    labels.iter().position(|label| label == name).ok_or_else(|| {
        wrong(format!("label {name:?} is none of the model's: {}", labels.join(", ")))
    })
}

/// The name of a row's class.
fn class(table: &Table, record: &Record, column: &str) -> Result<String, TableError> {
    let name = table.text(record, column)?;
    match name.trim().is_empty() {
        true => {
            Err(table.wrong(record, format!("{column} is empty: name a class, or drop the row")))
        }
        false => Ok(name),
    }
}

/// Labels in a list, or in one text; there may be none.
fn several(table: &Table, record: &Record, column: &str) -> Result<Vec<String>, TableError> {
    match table.value(record, column)? {
        Value::Array(_) => table.labels(record, column),
        _ => {
            let text = table.text(record, column)?;
            let names = text.split(BETWEEN).map(str::trim).filter(|name| !name.is_empty());
            Ok(names.map(str::to_string).collect())
        }
    }
}

/// What rows become examples by.
pub struct Rows<'a> {
    pub frame: &'a Frame<'a>,
    pub columns: &'a Columns,
    pub kind: TaskKind,
    pub labels: &'a [String],
}

impl Rows<'_> {
    /// The example of a row, and whether it was cut to fit.
    ///
    /// # Errors
    /// A missing column, a label that is none of `labels` or no number, an id beyond the
    /// vocabulary; the row is named.
    pub fn example(&self, table: &Table, record: &Record) -> Result<(Example, bool), ExampleError> {
        let text = table.text(record, &self.columns.text)?;
        let pair = self.columns.pair.as_ref().map(|column| table.text(record, column));
        let pair = pair.transpose()?;
        let (mut sequence, cut) = sequence(self.frame, &text, pair.as_deref())?;
        let gold = self.gold(table, record)?;
        match &gold {
            Gold::Class(class) => sequence.targets = vec![*class as i32],
            Gold::Flags(flags) => {
                sequence.reals = flags.iter().map(|&flag| f64::from(u8::from(flag))).collect();
            }
            Gold::Value(value) => sequence.reals = vec![*value],
            other => unreachable!("a row's, not {other:?}"),
        }
        let text = pair.map_or(text.clone(), |pair| format!("{text} / {pair}"));
        let sequences = vec![sequence];
        Ok((Example { line: record.line, text, question: None, sequences, gold }, cut))
    }

    fn gold(&self, table: &Table, record: &Record) -> Result<Gold, ExampleError> {
        let column = &self.columns.label;
        let wrong = |why| table.wrong(record, why);
        Ok(match self.kind {
            TaskKind::Flags => {
                let mut flags = vec![false; self.labels.len()];
                for name in several(table, record, column)? {
                    flags[place(self.labels, &name, wrong)?] = true;
                }
                Gold::Flags(flags)
            }
            TaskKind::Values => {
                let text = table.text(record, column)?;
                let value = text.trim().parse().ok().filter(|v: &f64| v.is_finite());
                Gold::Value(value.ok_or_else(|| wrong(format!("{column} {text:?} is no number")))?)
            }
            _ => Gold::Class(place(self.labels, &class(table, record, column)?, wrong)?),
        })
    }
}

/// A text or two, cut to what a sequence holds, and whether they were.
///
/// # Errors
/// See [`Frame`].
pub fn sequence(
    frame: &Frame,
    text: &str,
    pair: Option<&str>,
) -> Result<(Sequence, bool), ExampleError> {
    let mut first = ids(&frame.pieces(text)?);
    let pair = pair.map(|pair| frame.pieces(pair)).transpose()?;
    let mut second = pair.map(|pair| ids(&pair));
    let room = frame.room(1 + usize::from(second.is_some()))?;
    let cut = shorten(&mut first, second.as_mut(), room);
    Ok((frame.sequence(&first, second.as_deref())?, cut))
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
