//! A micro-batch on the device. Capacities are fixed when it is made; only counts change.

use crate::data::Batch;
use crate::device::{Buffer, Class, Memory};
use crate::ops::embed::Tokens;

/// The most that a batch may hold; all memory is taken for it at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// N
    pub tokens: usize,
    /// S
    pub sequences: usize,
    /// M: rows that pass the last layer's products and the head; N where none are picked.
    pub rows: usize,
}

impl Capacity {
    /// What `batch` needs of a model with (or without) a pair head.
    pub fn of(batch: &Batch, pair: bool) -> Capacity {
        let sequences = batch.cu_seqlens.len() - 1;
        let picked = batch.rows.as_ref().map(|r| r.len() + if pair { sequences } else { 0 });
        Capacity { tokens: batch.ids.len(), sequences, rows: picked.unwrap_or(batch.ids.len()) }
    }
}

/// A micro-batch as kernels read it.
pub struct DeviceBatch<D: Memory> {
    /// [N]
    pub ids: D::Int,
    /// [N]
    pub positions: D::Int,
    /// [N]
    pub types: D::Int,
    /// [S + 1]
    pub cu_seqlens: D::Int,
    /// The same on the host.
    pub ends: Vec<i32>,
    /// [M]: the rows whose loss counts, then (with a pair head) the first row of each sequence.
    pub rows: D::Int,
    /// [M]
    pub targets: D::Int,
    /// [S]: where the first tokens stand among the rows that reach the head.
    pub pair_rows: D::Int,
    /// [S]
    pub pair_targets: D::Int,
    pub counts: Counts,
}

/// How much of each tensor is in use.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// N
    pub tokens: usize,
    /// S
    pub sequences: usize,
    /// Rows whose loss counts.
    pub loss_rows: usize,
    /// Rows picked before the last layer's products, if not all.
    pub picked: Option<usize>,
}

impl Counts {
    /// Rows that reach the head.
    pub fn head_rows(&self) -> usize {
        self.picked.unwrap_or(self.tokens)
    }
}

impl<D: Memory> DeviceBatch<D> {
    pub fn new(dev: &D, capacity: Capacity) -> Self {
        let int = |len| dev.int(Class::Batch, len);
        DeviceBatch {
            ids: int(capacity.tokens),
            positions: int(capacity.tokens),
            types: int(capacity.tokens),
            cu_seqlens: int(capacity.sequences + 1),
            ends: Vec::with_capacity(capacity.sequences + 1),
            rows: int(capacity.rows),
            targets: int(capacity.rows),
            pair_rows: int(capacity.sequences),
            pair_targets: int(capacity.sequences),
            counts: Counts::default(),
        }
    }

    /// Takes over `batch`; asserts that it fits the capacity.
    pub fn load(&mut self, batch: &Batch, pair: bool) {
        let sequences = batch.cu_seqlens.len() - 1;
        self.ids.write(0, &batch.ids);
        self.positions.write(0, &batch.positions);
        self.types.write(0, &batch.types);
        self.cu_seqlens.write(0, &batch.cu_seqlens);
        self.ends.clone_from(&batch.cu_seqlens);
        self.targets.write(0, &batch.targets);
        let firsts = &batch.cu_seqlens[..sequences];
        let mut picked = None;
        if let Some(rows) = &batch.rows {
            self.rows.write(0, rows);
            let mut count = rows.len();
            if pair {
                self.rows.write(count, firsts);
                count += sequences;
            }
            picked = Some(count);
        }
        if pair {
            let after = batch.targets.len() as i32;
            let among: Vec<i32> = (after..after + sequences as i32).collect();
            self.pair_rows.write(0, if picked.is_some() { &among } else { firsts });
            self.pair_targets.write(0, &batch.pairs);
        }
        self.counts =
            Counts { tokens: batch.ids.len(), sequences, loss_rows: batch.targets.len(), picked };
    }

    /// The tokens, as the embedding reads them.
    pub fn tokens(&self) -> Tokens<'_, D> {
        Tokens {
            ids: &self.ids,
            positions: &self.positions,
            types: &self.types,
            rows: self.counts.tokens,
        }
    }
}
