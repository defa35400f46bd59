//! Prompts with their completions, for causal models: `{"prompt": …, "completion": …}`.
//!
//! ```text
//! <|endoftext|> prompt completion <|endoftext|>
//!                     ^ the loss is of these ^
//! ```
//! Both texts stand as they are written: a space or a line break between them belongs to one.

use super::examples::{Columns, Example, ExampleError, Gold, Sequence};
use super::frame::{Frame, ids};
use super::table::{Record, Table};
use crate::data::IGNORE;

/// The example of a row, and whether it was cut: of the prompt what comes first, down to a quarter
/// of the room, then of the completion what comes last, so that no end is there to be learnt.
///
/// # Errors
/// A missing column, a completion of no tokens; a tokenizer without `<|endoftext|>`, an id beyond
/// the vocabulary.
pub fn example(
    frame: &Frame,
    table: &Table,
    record: &Record,
    columns: &Columns,
    eot: Option<u32>,
) -> Result<(Example, bool), ExampleError> {
    let eot = eot.ok_or(ExampleError::Special("<|endoftext|>", "the end of a completion"))?;
    let prompt = table.text(record, &columns.text)?;
    let completion = table.text(record, &columns.label)?;
    let room = frame.longest.checked_sub(2).filter(|&room| room > 0);
    let room = room.ok_or(ExampleError::Longest(frame.longest))?;
    let mut said = ids(&frame.pieces(&completion)?);
    if said.is_empty() {
        return Err(table.wrong(record, format!("{} is empty", columns.label)).into());
    }
    let asked = ids(&frame.pieces(&prompt)?);
    let cut = asked.len() + said.len() > room;
    let kept = room - asked.len().min(room / 4);
    let end = if said.len() > kept { &[][..] } else { &[eot] };
    said.truncate(kept);
    let asked = &asked[asked.len().saturating_sub(room - said.len())..];
    let ids = [&[eot], asked, &said, end].concat();
    let mut targets = vec![IGNORE; ids.len()];
    let learnt = asked.len()..ids.len() - 1;
    for at in learnt {
        targets[at] = ids[at + 1] as i32;
    }
    let sequence = Sequence { types: vec![0; ids.len()], ids, targets, ..Sequence::default() };
    let (line, text) = (record.line, format!("{prompt}{completion}"));
    let sequences = vec![sequence];
    Ok((Example { line, text, question: None, sequences, gold: Gold::Completion }, cut))
}
