//! Sequences through a model, as many at a time as a pass takes.

use std::ops::Range;

use rayon::prelude::*;

use crate::data::{Batch, IGNORE};
use crate::device::{Buffer, Class, Device};
use crate::model::activations::Activations;
use crate::model::batch::{Capacity, DeviceBatch};
use crate::model::transformer::Model;
use crate::predict::PredictError;

/// Tokens that a pass takes, but for a sequence that is longer.
pub const TOKENS: usize = 2048;

/// Neighbouring sequences of such lengths, as many as a pass of `limit` tokens takes.
pub fn passes(lengths: &[usize], limit: usize) -> Vec<Range<usize>> {
    let mut passes: Vec<Range<usize>> = Vec::new();
    let mut tokens = 0;
    for (i, length) in lengths.iter().enumerate() {
        tokens += length;
        match passes.last_mut().filter(|_| tokens <= limit) {
            Some(pass) => pass.end = i + 1,
            None => {
                passes.push(i..i + 1);
                tokens = *length;
            }
        }
    }
    passes
}

/// A sequence and which of its rows matter, ascending; all, where there are none.
pub struct Row {
    pub ids: Vec<u32>,
    pub rows: Vec<usize>,
}

/// Runs `sequences` through `model` and calls `each(first, acts, batch)` after each pass, `first`
/// the number of its first sequence. Either all or none name rows.
///
/// # Errors
/// The device has stopped.
pub fn run<D: Device>(
    dev: &D,
    model: &Model<D>,
    sequences: &[Row],
    mut each: impl FnMut(usize, &mut Activations<D>, &DeviceBatch<D>),
) -> Result<(), PredictError> {
    let lengths: Vec<usize> = sequences.iter().map(|s| s.ids.len()).collect();
    let batches: Vec<(usize, Batch)> =
        passes(&lengths, TOKENS).into_iter().map(|p| (p.start, batch(&sequences[p]))).collect();
    let capacity = batches.iter().map(|(_, batch)| Capacity::of(batch, false));
    let Some(capacity) = capacity.reduce(Capacity::max) else { return Ok(()) };
    let mut loaded = DeviceBatch::new(dev, capacity, false);
    let mut acts = Activations::new(dev, &model.arch, capacity, false);
    for (first, batch) in batches {
        loaded.load(&batch, false);
        model.forward(dev, &mut acts, &loaded, None);
        each(first, &mut acts, &loaded);
        if let Some(fault) = dev.fault() {
            return Err(PredictError::Device(fault));
        }
    }
    Ok(())
}

fn batch(sequences: &[Row]) -> Batch {
    let mut batch = Batch { cu_seqlens: vec![0], ..Batch::default() };
    let mut rows = Vec::new();
    for sequence in sequences {
        let first = batch.ids.len();
        rows.extend(sequence.rows.iter().map(|row| (first + row) as i32));
        batch.ids.extend(sequence.ids.iter().map(|&id| id as i32));
        batch.positions.extend(0..sequence.ids.len() as i32);
        batch.cu_seqlens.push(batch.ids.len() as i32);
    }
    batch.types = vec![0; batch.ids.len()];
    let all = if rows.is_empty() { batch.ids.len() } else { rows.len() };
    batch.targets = vec![IGNORE; all];
    batch.rows = Some(rows).filter(|rows| !rows.is_empty());
    batch
}

/// Rows of logits that the host holds at a time.
const ROWS: usize = 64;

/// What `of` makes of the logits [V] of each row of a pass, told the row's number.
pub fn map_logits<D: Device, T: Send>(
    dev: &D,
    model: &Model<D>,
    acts: &mut Activations<D>,
    batch: &DeviceBatch<D>,
    of: impl Fn(usize, &[f64]) -> T + Sync,
) -> Vec<T> {
    let (rows, v) = (batch.counts.head_rows(), model.arch.vocab);
    let mut logits = dev.x(Class::Scratch, rows * v);
    model.logits(dev, &mut logits, acts, batch);
    let mut found = Vec::with_capacity(rows);
    for first in (0..rows).step_by(ROWS) {
        let mut some = vec![0.0; ROWS.min(rows - first) * v];
        logits.read(first * v, &mut some);
        let each = some.par_chunks_exact(v).enumerate().map(|(i, row)| of(first + i, row));
        found.extend(each.collect::<Vec<T>>());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_hold_all_and_no_more_than_fits() {
        assert!(passes(&[], 2048).is_empty());
        assert_eq!(passes(&[9, 3000, 1000, 1048, 1], 2048), [0..1, 1..2, 2..4, 4..5]);
    }
}
