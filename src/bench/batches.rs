//! Synthetic batches: random tokens in sequences of given lengths.

use crate::data::masking::{Masker, WORD_START};
use crate::data::{Batch, Masking, ToMask};
use crate::model::arch::Arch;
use crate::ops::optimizer::{Rule, Update};
use crate::rng::{Philox, Stream, below};

/// Weight decay of the steps that are timed.
pub const DECAY: f64 = 0.1;

/// The update that is timed; a learning rate that leaves random weights finite for hours.
pub fn update() -> Update {
    Update { rule: Rule::default(), lr: 1e-5, clip: 1.0, stochastic: None }
}

/// Random tokens in sequences of these lengths; all rows predicted, or a share `masked` of them.
pub fn batch(arch: &Arch, lengths: &[usize], masked: Option<f64>) -> Batch {
    let tokens: usize = lengths.iter().sum();
    let philox = Philox::new(2);
    let draw = |word: usize, count: usize, n: usize| -> Vec<i32> {
        let draw = |i| below(philox.block(Stream::Sample, 5, i)[word], n as u32) as i32;
        (0..count as u64).map(draw).collect()
    };
    let mut cu_seqlens = vec![0];
    let mut positions = Vec::with_capacity(tokens);
    for &len in lengths {
        positions.extend(0..len as i32);
        cu_seqlens.push(positions.len() as i32);
    }
    let count = masked.map(|rate| ((rate * tokens as f64).round() as usize).clamp(1, tokens));
    Batch {
        ids: draw(0, tokens, arch.vocab),
        types: draw(1, tokens, arch.token_types.max(1)),
        targets: draw(2, count.unwrap_or(tokens), arch.vocab),
        rows: count.map(|count| (0..count).map(|i| (i * tokens / count) as i32).collect()),
        pairs: draw(3, if arch.pair { lengths.len() } else { 0 }, 2),
        positions,
        cu_seqlens,
        ..Batch::default()
    }
}

/// What masks such batches on the device: any token of the vocabulary may be selected.
pub fn masker(vocab: usize, tokens: usize, masking: Masking) -> Masker {
    Masker::new(Philox::new(2), masking, 0, vec![WORD_START; vocab], tokens)
}

/// Batches as they come to a GPU: the same tokens with as large a share of rows still to be masked,
/// and what masks them. All have as many tokens; those of which all rows are predicted stay.
pub fn unmasked(arch: &Arch, batches: &[Batch]) -> (Vec<Batch>, Option<Masker>) {
    let (tokens, rows) = (batches[0].ids.len(), &batches[0].rows);
    let Some(rows) = rows else { return (batches.to_vec(), None) };
    let rate = rows.len() as f32 / tokens as f32;
    let masker = masker(arch.vocab, tokens, Masking { rate, ..Masking::default() });
    let to_mask = ToMask { start: 0, countable: tokens, rows: masker.capacity() };
    let unmask = |batch: &Batch| Batch {
        rows: None,
        targets: Vec::new(),
        to_mask: Some(to_mask),
        ..batch.clone()
    };
    (batches.iter().map(unmask).collect(), Some(masker))
}
