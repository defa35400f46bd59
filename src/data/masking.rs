//! Dynamic masking: which tokens of a micro-batch the model must restore, and what it sees there.
//!
//! Everything at stream position p comes from the one Philox block w = (Mask, 0, p), so a GPU
//! thread a token computes the same bits with a short look back:
//!
//! | unit | token i at position p is selected if |
//! |---|---|
//! | token | `u(w₀[p])` < rate |
//! | word | `u(w₀[q])` < rate, q the position of its word's first token in this sequence |
//! | span | `u(w₀[p−j])` < s and `u(w₃[p−j])` < 0.8^j, for some j in 0..10 |
//!
//! u maps a word to [0, 1). A span starts at each position with probability s and has length ℓ with
//! P(ℓ > j) = 0.8^j, j < 10 (SpanBERT's geometric law, clipped at 10). Spans are laid over the
//! stream, whatever it carries there, and reach across the borders of sequences, where they are cut
//! off; so each token is covered with probability 1 − Π_j (1 − s·0.8^j), and s is solved to make
//! that the rate.
//!
//! A selected token keeps its id if u(w₁) < keep, becomes id ⌊w₂·V/2^32⌋ if u(w₁) < keep + random
//! (any id of the vocabulary, as in BERT), and `[MASK]` otherwise; each token by itself, also
//! within words and spans. Special tokens are never selected.

use crate::rng::{Philox, Stream, below, chance, uniform};

use super::objective::{Masking, Unit};

/// Longest span.
pub const MAX_SPAN: usize = 10;
/// 1 − p of the geometric law of span lengths.
const SPAN_CONTINUES: f64 = 0.8;

/// Flags of an id, `Masker::flags`.
pub const WORD_START: u8 = 1;
pub const SPECIAL: u8 = 2;

/// Applies one masking configuration.
#[derive(Clone, Debug)]
pub struct Masker {
    rng: Philox,
    masking: Masking,
    mask: i32,
    /// `[V]`: `WORD_START | SPECIAL`.
    flags: Vec<u8>,
    /// Probability that a span starts at a position.
    span_start: f32,
    /// Most rows of a micro-batch.
    capacity: usize,
}

impl Masker {
    /// `flags`: `[V]`; `tokens`: N of a micro-batch.
    pub fn new(rng: Philox, masking: Masking, mask: u32, flags: Vec<u8>, tokens: usize) -> Self {
        Masker {
            rng,
            masking,
            mask: mask as i32,
            flags,
            span_start: span_start(masking.rate),
            capacity: row_capacity(masking, tokens),
        }
    }

    /// The most rows that [`Self::apply`] returns: the expected count and six standard deviations.
    /// Tokens selected beyond it are left as they are and not counted.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub fn masking(&self) -> Masking {
        self.masking
    }

    /// The id of `[MASK]`.
    pub fn mask(&self) -> i32 {
        self.mask
    }

    /// `[V]`, as kernels read them.
    pub fn flags(&self) -> Vec<i32> {
        self.flags.iter().map(|&flags| flags.into()).collect()
    }

    /// Of the generator.
    pub fn seed(&self) -> u64 {
        self.rng.seed()
    }

    /// Probability that a span starts at a position.
    pub fn span_start(&self) -> f32 {
        self.span_start
    }

    /// Masks `ids` `[N]` in place, N tokens from stream position `start` on, with sequences at
    /// `cu_seqlens` `[S+1]`; of them only the first `countable` may be selected. Returns the rows
    /// `[M]`, ascending, and the tokens that stood there `[M]`.
    pub fn apply(
        &self,
        start: u64,
        ids: &mut [i32],
        cu_seqlens: &[i32],
        countable: usize,
    ) -> (Vec<i32>, Vec<i32>) {
        let selected = match self.masking.unit {
            Unit::Token => self.select_tokens(start, ids),
            Unit::Word => self.select_words(start, ids, cu_seqlens),
            Unit::Span => self.select_spans(start, ids),
        };
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for (row, id) in ids.iter_mut().enumerate().take(countable) {
            if selected[row] && rows.len() < self.capacity {
                rows.push(row as i32);
                targets.push(*id);
                *id = self.replacement(start + row as u64, *id);
            }
        }
        (rows, targets)
    }

    /// A damaged file may have ids beyond the vocabulary: they are left alone.
    fn flags_of(&self, id: i32) -> u8 {
        self.flags.get(id as usize).copied().unwrap_or(SPECIAL)
    }

    fn is_special(&self, id: i32) -> bool {
        self.flags_of(id) & SPECIAL != 0
    }

    fn words(&self, position: u64) -> [u32; 4] {
        self.rng.block(Stream::Mask, 0, position)
    }

    fn select_tokens(&self, start: u64, ids: &[i32]) -> Vec<bool> {
        let draw = |row: usize| chance(self.words(start + row as u64)[0], self.masking.rate);
        ids.iter().enumerate().map(|(row, &id)| !self.is_special(id) && draw(row)).collect()
    }

    fn select_words(&self, start: u64, ids: &[i32], cu_seqlens: &[i32]) -> Vec<bool> {
        let mut selected = vec![false; ids.len()];
        for sequence in cu_seqlens.windows(2) {
            // A piece may begin inside a word: what is there of it counts as a word.
            let (mut word, mut open) = (false, false);
            for row in sequence[0] as usize..sequence[1] as usize {
                let flags = self.flags_of(ids[row]);
                if flags & SPECIAL != 0 {
                    open = false;
                    continue;
                }
                if !open || flags & WORD_START != 0 {
                    word = chance(self.words(start + row as u64)[0], self.masking.rate);
                    open = true;
                }
                selected[row] = word;
            }
        }
        selected
    }

    fn select_spans(&self, start: u64, ids: &[i32]) -> Vec<bool> {
        let first = start.saturating_sub(MAX_SPAN as u64 - 1);
        let mut left = 0; // tokens that spans begun so far still cover
        let mut selected = Vec::with_capacity(ids.len());
        for position in first..start + ids.len() as u64 {
            let words = self.words(position);
            if chance(words[0], self.span_start) {
                left = left.max(span_length(words[3]));
            }
            if position >= start {
                selected.push(left > 0 && !self.is_special(ids[(position - start) as usize]));
            }
            left = left.saturating_sub(1);
        }
        selected
    }

    fn replacement(&self, position: u64, id: i32) -> i32 {
        let [_, kind, token, _] = self.words(position);
        let Masking { keep, random, .. } = self.masking;
        match uniform(kind) {
            u if u < keep => id,
            u if u < keep + random => below(token, self.flags.len() as u32) as i32,
            _ => self.mask,
        }
    }
}

/// ℓ with P(ℓ > j) = 0.8^j for j < 10.
fn span_length(word: u32) -> usize {
    let u = uniform(word);
    (1..MAX_SPAN).take_while(|&j| u < SPAN_CONTINUES.powi(j as i32) as f32).count() + 1
}

/// Solves 1 − Π_j (1 − s·0.8^j) = rate for s by bisection: the left side grows from 0 to 1 with s.
fn span_start(rate: f32) -> f32 {
    let coverage = |s: f64| {
        let spared = |j| 1.0 - s * SPAN_CONTINUES.powi(j);
        1.0 - (0..MAX_SPAN as i32).map(spared).product::<f64>()
    };
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if coverage(middle) < f64::from(rate) { low = middle } else { high = middle }
    }
    low as f32
}

/// Mean plus six standard deviations of the number of selected tokens, at most all. What is
/// selected in runs varies as if there were fewer, independent ones: variance times the mean run,
/// about four tokens for spans, and no more for words.
fn row_capacity(masking: Masking, tokens: usize) -> usize {
    let run = if masking.unit == Unit::Token { 1.0 } else { 4.0 };
    let (n, rate) = (tokens as f64, f64::from(masking.rate));
    let deviation = (run * n * rate * (1.0 - rate)).sqrt();
    tokens.min((n * rate + 6.0 * deviation).ceil() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn span_start_covers_the_rate() {
        for rate in [0.05f32, 0.15, 0.4, 0.9] {
            let s = f64::from(span_start(rate));
            let spared: f64 = (0..10).map(|j| 1.0 - s * 0.8f64.powi(j)).product();
            assert!((1.0 - spared - f64::from(rate)).abs() < 1e-6);
        }
    }

    #[test]
    fn span_lengths_follow_the_law() {
        assert_eq!(span_length(0), MAX_SPAN);
        assert_eq!(span_length(u32::MAX), 1);
        let longer = (0..100_000u32).filter(|i| span_length(i.wrapping_mul(42_949)) > 3).count();
        assert!((longer as f64 / 1e5 - 0.512).abs() < 0.01, "{longer}");
    }
}
