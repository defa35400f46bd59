//! Sequences as token-flat batches, and the order in which training meets them.

use super::examples::Sequence;
use crate::data::order::Permutation;
use crate::data::{Batch, IGNORE};
use crate::eval::passes::passes;
use crate::model::arch::Task;
use crate::rng::Philox;

/// Tokens that a pass takes, but for a sequence that is longer.
pub const TOKENS: usize = 4096;

/// One batch of some sequences, for a task or, without one, a language model.
pub fn batch(task: Option<&Task>, sequences: &[&Sequence]) -> Batch {
    let mut batch = Batch { cu_seqlens: vec![0], ..Batch::default() };
    for sequence in sequences {
        batch.ids.extend(sequence.ids.iter().map(|&id| id as i32));
        batch.types.extend(&sequence.types);
        batch.positions.extend(0..sequence.ids.len() as i32);
        batch.cu_seqlens.push(batch.ids.len() as i32);
        batch.targets.extend(&sequence.targets);
        batch.reals.extend(&sequence.reals);
    }
    batch.rows = match task {
        Some(task) => task.rows(&batch.cu_seqlens),
        None => {
            // Only rows whose loss counts need to reach the head.
            let counts = |row: &usize| batch.targets[*row] != IGNORE;
            let rows: Vec<i32> =
                (0..batch.targets.len()).filter(counts).map(|row| row as i32).collect();
            batch.targets.retain(|&target| target != IGNORE);
            Some(rows)
        }
    };
    batch
}

/// Neighbouring sequences, as many at a time as a pass takes.
pub fn in_passes<'a, 'b>(
    sequences: &'b [&'a Sequence],
) -> impl Iterator<Item = &'b [&'a Sequence]> {
    let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.ids.len()).collect();
    passes(&lengths, TOKENS).into_iter().map(move |pass| &sequences[pass])
}

/// The sequences of a step, each once an epoch, in an order of the epoch's own; the last step of
/// an epoch may have fewer.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    pub sequences: usize,
    /// Sequences a step.
    pub batch: usize,
    pub seed: u64,
}

impl Order {
    pub fn steps_an_epoch(&self) -> usize {
        self.sequences.div_ceil(self.batch)
    }

    /// The numbers of the sequences of step `step`, from 0 on.
    pub fn step(&self, step: usize) -> Vec<usize> {
        let (epoch, within) = (step / self.steps_an_epoch(), step % self.steps_an_epoch());
        let order = Permutation::new(Philox::new(self.seed), epoch as u32, self.sequences as u64);
        let first = within * self.batch;
        (first..(first + self.batch).min(self.sequences))
            .map(|i| order.at(i as u64) as usize)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_meets_each_sequence_once() {
        let order = Order { sequences: 11, batch: 4, seed: 3 };
        let epoch =
            |e: usize| -> Vec<usize> { (0..3).flat_map(|step| order.step(e * 3 + step)).collect() };
        assert_eq!(order.step(2).len(), 3);
        let (first, second) = (epoch(0), epoch(1));
        assert_ne!(first, second);
        for mut epoch in [first, second] {
            epoch.sort();
            assert_eq!(epoch, (0..11).collect::<Vec<_>>());
        }
    }
}
