//! What a causal model keeps of the tokens it has seen, so that a new one costs one row of work.
//!
//! Keys are kept as attention reads them, rotated where the model rotates: a token's place does not
//! change while its sequence grows.

use crate::device::{Buffer, Class, Device, Memory};
use crate::model::activations::LayerActs;
use crate::model::arch::Arch;
use crate::model::batch::DeviceBatch;
use crate::model::transformer::packed;
use crate::ops::attention::Attention;
use crate::ops::cache::Kept;

/// Keys and values of tokens, layer by layer, and which of them a pass writes and sees.
pub struct Cache<D: Memory> {
    /// [R, 2C] each
    layers: Vec<D::X>,
    /// [N]: the rows in which a pass keeps its tokens
    places: D::Int,
    /// [S, stride]: the rows of the sequences of a step
    rows: D::Int,
    stride: usize,
    /// [S]
    lengths: D::Int,
    /// The same on the host; none where a pass is over whole sequences.
    known: Vec<i32>,
}

impl<D: Device> Cache<D> {
    /// Memory for `rows` tokens, written by passes of at most `tokens`, and steps of at most
    /// `sequences`.
    pub fn new(dev: &D, arch: &Arch, rows: usize, tokens: usize, sequences: usize) -> Self {
        let int = |len| dev.int(Class::Batch, len);
        let layer = |_| dev.x(Class::Activations, rows * 2 * arch.width);
        Cache {
            layers: (0..arch.layers).map(layer).collect(),
            places: int(tokens),
            rows: int(sequences * arch.context),
            stride: 0,
            lengths: int(sequences),
            known: Vec::with_capacity(sequences),
        }
    }

    /// The next pass is over whole sequences, whose tokens are kept in the rows `places`; −1: in
    /// none.
    pub fn whole(&mut self, places: &[i32]) {
        self.places.write(0, places);
        self.known.clear();
    }

    /// The next pass is a step: a token each of sequences that lie in these rows, the new token's
    /// the last.
    pub fn step(&mut self, sequences: &[&[i32]]) {
        self.stride = sequences.iter().map(|rows| rows.len()).max().unwrap_or(0);
        let mut table = vec![-1; sequences.len() * self.stride];
        for (to, rows) in table.chunks_exact_mut(self.stride.max(1)).zip(sequences) {
            to[..rows.len()].copy_from_slice(rows);
        }
        let last: Vec<i32> = sequences.iter().map(|rows| rows[rows.len() - 1]).collect();
        self.known.clear();
        self.known.extend(sequences.iter().map(|rows| rows.len() as i32));
        self.rows.write(0, &table);
        self.places.write(0, &last);
        self.lengths.write(0, &self.known);
    }

    /// Layer `l`'s o, from the pass' own tokens or from all that its sequences have kept.
    pub(super) fn attend(
        &mut self,
        dev: &D,
        l: usize,
        a: &mut LayerActs<D>,
        batch: &DeviceBatch<D>,
        at: &Attention,
    ) {
        let Cache { layers, places, rows, lengths, known, .. } = self;
        let width = at.heads * at.head_dim;
        dev.keep(&mut layers[l], &a.qkv, places, width, batch.counts.tokens);
        if known.is_empty() {
            return dev.attention(&mut a.o, &mut a.lse, packed(&a.qkv, batch), at);
        }
        let kept = Kept { cache: &layers[l], rows, stride: self.stride, lengths, known };
        dev.attend(&mut a.o, &a.qkv, kept, at);
    }
}
