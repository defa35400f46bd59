//! Sequences that grow token by token, over a cache of what was computed of them.

use crate::data::{Batch, IGNORE};
use crate::device::{Buffer, Class, Device};
use crate::eval::passes::{TOKENS, passes};
use crate::model::activations::Activations;
use crate::model::batch::{Capacity, DeviceBatch};
use crate::model::cache::Cache;
use crate::model::transformer::Model;
use crate::predict::{NotFinite, PredictError};

/// A sequence of at least one token, and the rows of the cache that hold what was computed of it. A
/// copy shares them: two continuations of one beginning.
#[derive(Debug, Clone)]
pub struct Sequence {
    ids: Vec<u32>,
    rows: Vec<i32>,
}

impl Sequence {
    /// Asserts that there is a token.
    pub fn new(ids: Vec<u32>) -> Sequence {
        assert!(!ids.is_empty(), "a sequence of no tokens has no next one");
        Sequence { ids, rows: Vec::new() }
    }

    pub fn push(&mut self, id: u32) {
        self.ids.push(id);
    }

    pub fn ids(&self) -> &[u32] {
        &self.ids
    }
}

/// A causal model, its cache and the memory of its passes.
///
/// A sequence's first tokens take one pass, token-flat with other sequences', and each further one
/// a row of a step that all sequences share. Positions are a token's own, so a sequence that has
/// outgrown the context has no use for what is kept: the model sees the last tokens that fit, each
/// at another position with every step, and computes all of them anew.
pub struct Decoder<'a, D: Device> {
    dev: &'a D,
    model: &'a Model<D>,
    cache: Cache<D>,
    /// Rows of the cache, and how many of them are taken.
    rows: usize,
    taken: usize,
    room: Option<Room<D>>,
}

/// Memory of a pass; it grows when a larger one comes.
struct Room<D: Device> {
    capacity: Capacity,
    batch: DeviceBatch<D>,
    acts: Activations<D>,
    /// [M, V]
    logits: D::X,
    /// Of one step to the next.
    script: D::Script,
}

impl<'a, D: Device> Decoder<'a, D> {
    /// Memory to continue sequences of such lengths by up to `longer` tokens, each in `beams` ways.
    pub fn new(
        dev: &'a D,
        model: &'a Model<D>,
        lengths: &[usize],
        beams: usize,
        longer: usize,
    ) -> Self {
        let context = model.arch.context;
        let of_one = |&n: &usize| match context.checked_sub(n) {
            Some(left) => n + beams * longer.min(left),
            None => 0,
        };
        let rows = lengths.iter().map(of_one).sum();
        let sequences = lengths.len() * beams;
        let cache =
            Cache::new(dev, &model.arch, rows, TOKENS.max(context).max(sequences), sequences);
        Decoder { dev, model, cache, rows, taken: 0, room: None }
    }

    /// Logits [S, V] of the token that follows each of `sequences`.
    ///
    /// # Errors
    /// The device has stopped; logits that are not finite.
    pub fn logits(&mut self, sequences: &mut [Sequence]) -> Result<Vec<f64>, PredictError> {
        let (context, v) = (self.model.arch.context, self.model.arch.vocab);
        let mut logits = vec![0.0; sequences.len() * v];
        let is_step = |s: &Sequence| s.rows.len() + 1 == s.ids.len() && s.ids.len() <= context;
        let (steps, whole): (Vec<usize>, Vec<usize>) =
            (0..sequences.len()).partition(|&i| is_step(&sequences[i]));
        let lengths: Vec<usize> =
            whole.iter().map(|&i| sequences[i].ids.len().min(context)).collect();
        for pass in passes(&lengths, TOKENS) {
            self.whole(sequences, &whole[pass], &mut logits);
        }
        if !steps.is_empty() {
            self.step(sequences, &steps, &mut logits);
        }
        if let Some(fault) = self.dev.fault() {
            return Err(PredictError::Device(fault));
        }
        NotFinite::unless(logits.iter().copied())?;
        Ok(logits)
    }

    /// A pass over the whole of these.
    fn whole(&mut self, sequences: &mut [Sequence], these: &[usize], logits: &mut [f64]) {
        let context = self.model.arch.context;
        let mut batch = Batch { cu_seqlens: vec![0], ..Batch::default() };
        let (mut places, mut last) = (Vec::new(), Vec::new());
        for &i in these {
            let count = sequences[i].ids.len();
            sequences[i].rows = if count <= context { self.take(count) } else { vec![-1; context] };
            places.extend(&sequences[i].rows);
            let seen = &sequences[i].ids[count.saturating_sub(context)..];
            batch.ids.extend(seen.iter().map(|&id| id as i32));
            batch.positions.extend(0..seen.len() as i32);
            batch.cu_seqlens.push(batch.ids.len() as i32);
            last.push(batch.ids.len() as i32 - 1);
        }
        batch.rows = Some(last);
        self.cache.whole(&places);
        self.run(batch, these, logits);
    }

    /// A pass over the last token of each of these.
    fn step(&mut self, sequences: &mut [Sequence], these: &[usize], logits: &mut [f64]) {
        let mut batch = Batch::default();
        for (&i, row) in these.iter().zip(self.take(these.len())) {
            let Sequence { ids, rows } = &mut sequences[i];
            batch.ids.push(ids[rows.len()] as i32);
            batch.positions.push(rows.len() as i32);
            rows.push(row);
        }
        batch.cu_seqlens = (0..=these.len() as i32).collect();
        let rows: Vec<&[i32]> = these.iter().map(|&i| &*sequences[i].rows).collect();
        self.cache.step(&rows);
        self.run(batch, these, logits);
    }

    /// So many rows of the cache that nothing is kept in.
    fn take(&mut self, count: usize) -> Vec<i32> {
        let first = self.taken;
        self.taken += count;
        assert!(self.taken <= self.rows, "decoder: more tokens than it was made for");
        (first as i32..self.taken as i32).collect()
    }

    /// Runs a pass that the cache was told of, and puts its logits in their places.
    fn run(&mut self, mut batch: Batch, these: &[usize], logits: &mut [f64]) {
        let v = self.model.arch.vocab;
        batch.types = vec![0; batch.ids.len()];
        batch.targets = vec![IGNORE; these.len()];
        let needed = Capacity::of(&batch, false);
        let had = self.room.as_ref().map_or(needed, |room| room.capacity);
        let capacity = had.max(needed);
        let room = match self.room.take().filter(|room| room.capacity == capacity) {
            Some(room) => room,
            None => Room::new(self.dev, self.model, capacity),
        };
        let room = self.room.insert(room);
        room.batch.load(&batch, false);
        let (dev, model, cache) = (self.dev, self.model, &mut self.cache);
        let Room { batch, acts, logits: all, script, .. } = room;
        dev.repeat(script, &mut || {
            model.forward_kept(dev, acts, batch, cache);
            model.logits(dev, all, acts, batch);
        });
        for (row, &i) in these.iter().enumerate() {
            all.read(row * v, &mut logits[i * v..][..v]);
        }
    }
}

impl<D: Device> Room<D> {
    fn new(dev: &D, model: &Model<D>, capacity: Capacity) -> Self {
        Room {
            capacity,
            batch: DeviceBatch::new(dev, capacity, false),
            acts: Activations::new(dev, &model.arch, capacity, false),
            logits: dev.x(Class::Scratch, capacity.rows * model.arch.vocab),
            script: D::Script::default(),
        }
    }
}
