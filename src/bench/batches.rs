//! Synthetic batches: random tokens in sequences of given lengths.

use crate::data::masking::{Masker, WORD_START};
use crate::data::{Batch, Masking};
use crate::model::arch::Arch;
use crate::ops::optimizer::{Rule, Update};
use crate::rng::{Philox, Stream, below};

/// Weight decay of the steps that are timed.
pub const DECAY: f64 = 0.1;

/// How long sequences are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Lengths {
    /// All as long as --seq
    Fixed,
    /// A quarter of them as long as --seq, the others spread evenly below, with a mean of 254.5 of
    /// 512: the published mean of MLPerf's BERT data, in a shape of our own
    Mlperf,
}

/// The update that is timed; a learning rate that leaves random weights finite for hours.
pub fn update() -> Update {
    Update { rule: Rule::default(), lr: 1e-5, clip: 1.0, stochastic: None }
}

/// Lengths of sequences of up to `longest` tokens that are `tokens` together; the last is cut.
pub fn lengths(kind: Lengths, longest: usize, tokens: usize) -> Vec<usize> {
    let philox = Philox::new(1);
    // A quarter at 512 and the rest uniform on 1 to 336 have the mean 128 + 0.75 · 168.5 = 254.4.
    let shorter = (longest * 336).div_ceil(512).max(1);
    let draw = |i: u64| match (kind, philox.block(Stream::Sample, 4, i)) {
        (Lengths::Fixed, _) => longest,
        (Lengths::Mlperf, [word, ..]) if word % 4 == 0 => longest,
        (Lengths::Mlperf, [_, word, ..]) => 1 + below(word, shorter as u32) as usize,
    };
    let (mut lengths, mut left) = (Vec::new(), tokens);
    while left > 0 {
        let len = draw(lengths.len() as u64).clamp(1, left);
        lengths.push(len);
        left -= len;
    }
    lengths
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
        to_mask: None,
    }
}

/// What masks such batches on the device: any token of the vocabulary may be selected.
pub fn masker(vocab: usize, tokens: usize, masking: Masking) -> Masker {
    Masker::new(Philox::new(2), masking, 0, vec![WORD_START; vocab], tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_add_up_and_keep_their_mean() {
        let found = lengths(Lengths::Mlperf, 512, 1 << 20);
        assert_eq!(found.iter().sum::<usize>(), 1 << 20);
        let mean = (1 << 20) as f64 / found.len() as f64;
        assert!((mean - 254.5).abs() < 8.0, "{mean}");
        assert_eq!(lengths(Lengths::Fixed, 48, 100), [48, 48, 4]);
    }
}
