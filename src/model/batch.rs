//! A micro-batch on the device. Capacities are fixed when it is made; only counts change.

use crate::data::{Batch, ToMask};
use crate::device::{Buffer, Class, Memory};
use crate::ops::attention::longest_first;
use crate::ops::embed::Tokens;

/// The most that a batch may hold; all memory is taken for it at the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// N
    pub tokens: usize,
    /// S
    pub sequences: usize,
    /// M: rows that pass the last layer's products and the head; N where none are picked.
    pub rows: usize,
    /// S · K of a task whose targets are numbers.
    pub reals: usize,
}

impl Capacity {
    /// What `batch` needs of a model with (or without) a pair head.
    pub fn of(batch: &Batch, pair: bool) -> Capacity {
        let sequences = batch.cu_seqlens.len() - 1;
        let masked = batch.to_mask.map(|to_mask| to_mask.rows);
        let rows = masked.or(batch.rows.as_ref().map(Vec::len));
        let picked = rows.map(|rows| rows + if pair { sequences } else { 0 });
        Capacity {
            tokens: batch.ids.len(),
            sequences,
            rows: picked.unwrap_or(batch.ids.len()),
            reals: batch.reals.len(),
        }
    }

    /// Room for either.
    pub fn max(self, other: Capacity) -> Capacity {
        Capacity {
            tokens: self.tokens.max(other.tokens),
            sequences: self.sequences.max(other.sequences),
            rows: self.rows.max(other.rows),
            reals: self.reals.max(other.reals),
        }
    }
}

/// A micro-batch as kernels read it.
pub struct DeviceBatch<D: Memory> {
    /// [N]
    pub ids: D::Int,
    /// [N]: before masking, where the device masks; else of no length.
    pub unmasked: D::Int,
    /// [N]
    pub positions: D::Int,
    /// [N]
    pub types: D::Int,
    /// [S + 1]
    pub cu_seqlens: D::Int,
    /// [S]: the sequences, longest first
    pub order: D::Int,
    /// `cu_seqlens` on the host.
    pub ends: Vec<i32>,
    /// [M]: the rows whose loss counts, then (with a pair head) the first row of each sequence.
    pub rows: D::Int,
    /// [M], or of spans [S, 2]
    pub targets: D::Int,
    /// [S, K]
    pub reals: D::Acc,
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
    /// What the device is to mask before it is read; the rows then are those that masking may
    /// pick at most.
    pub to_mask: Option<ToMask>,
}

impl Counts {
    /// Rows that reach the head.
    pub fn head_rows(&self) -> usize {
        self.picked.unwrap_or(self.tokens)
    }
}

impl<D: Memory> DeviceBatch<D> {
    /// Memory for batches within `capacity`, which the device masks or not.
    pub fn new(dev: &D, capacity: Capacity, masks: bool) -> Self {
        let int = |len| dev.int(Class::Batch, len);
        DeviceBatch {
            ids: int(capacity.tokens),
            unmasked: int(if masks { capacity.tokens } else { 0 }),
            positions: int(capacity.tokens),
            types: int(capacity.tokens),
            cu_seqlens: int(capacity.sequences + 1),
            order: int(capacity.sequences),
            ends: Vec::with_capacity(capacity.sequences + 1),
            rows: int(capacity.rows),
            targets: int(capacity.rows.max(2 * capacity.sequences)),
            reals: dev.acc(Class::Batch, capacity.reals),
            pair_rows: int(capacity.sequences),
            pair_targets: int(capacity.sequences),
            counts: Counts::default(),
        }
    }

    /// Takes over `batch`; asserts that it fits the capacity.
    pub fn load(&mut self, batch: &Batch, pair: bool) {
        let sequences = batch.cu_seqlens.len() - 1;
        let to_mask = batch.to_mask;
        let ids = if to_mask.is_some() { &mut self.unmasked } else { &mut self.ids };
        ids.write(0, &batch.ids);
        self.positions.write(0, &batch.positions);
        self.types.write(0, &batch.types);
        self.cu_seqlens.write(0, &batch.cu_seqlens);
        self.order.write(0, &longest_first(&batch.cu_seqlens));
        self.ends.clone_from(&batch.cu_seqlens);
        self.targets.write(0, &batch.targets);
        self.reals.write(0, &batch.reals);
        let firsts = &batch.cu_seqlens[..sequences];
        if let Some(rows) = &batch.rows {
            self.rows.write(0, rows);
        }
        let masked = to_mask.map(|to_mask| to_mask.rows);
        let given = batch.rows.as_ref().map_or(batch.targets.len(), Vec::len);
        let loss_rows = masked.unwrap_or(given);
        let picks = masked.is_some() || batch.rows.is_some();
        let picked = picks.then_some(loss_rows + if pair { sequences } else { 0 });
        if pair {
            if picks {
                self.rows.write(loss_rows, firsts);
            }
            let after = loss_rows as i32;
            let among: Vec<i32> = (after..after + sequences as i32).collect();
            self.pair_rows.write(0, if picks { &among } else { firsts });
            self.pair_targets.write(0, &batch.pairs);
        }
        self.counts = Counts { tokens: batch.ids.len(), sequences, loss_rows, picked, to_mask };
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
