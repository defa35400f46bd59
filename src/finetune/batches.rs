//! Examples as token-flat batches, and the order in which training meets them.

use super::examples::{Example, Label};
use crate::data::Batch;
use crate::data::order::Permutation;
use crate::model::arch::Task;
use crate::rng::Philox;

/// Tokens that a pass takes, but for an example that is longer.
pub const TOKENS: usize = 4096;

/// One batch of some examples.
pub fn batch(task: &Task, examples: &[&Example]) -> Batch {
    let mut batch = Batch { cu_seqlens: vec![0], ..Batch::default() };
    for example in examples {
        batch.ids.extend(example.ids.iter().map(|&id| id as i32));
        batch.types.extend(&example.types);
        batch.positions.extend(0..example.ids.len() as i32);
        batch.cu_seqlens.push(batch.ids.len() as i32);
        match &example.label {
            Label::Class(class) => batch.targets.push(*class as i32),
            Label::Flags(flags) => {
                batch.reals.extend(flags.iter().map(|&f| f64::from(u8::from(f))))
            }
            Label::Value(value) => batch.reals.push(*value),
        }
    }
    batch.rows = task.rows(&batch.cu_seqlens);
    batch
}

/// Cuts examples of such lengths into passes: neighbours, as many as [`TOKENS`] hold.
pub fn passes(lengths: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let (mut passes, mut tokens) = (Vec::new(), 0);
    for length in lengths {
        match passes.last_mut().filter(|_| tokens + length <= TOKENS) {
            Some(count) => {
                *count += 1;
                tokens += length;
            }
            None => {
                passes.push(1);
                tokens = length;
            }
        }
    }
    passes
}

/// The examples of a step, each once an epoch, in an order of the epoch's own; the last step of an
/// epoch may have fewer.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    pub examples: usize,
    /// Examples a step.
    pub batch: usize,
    pub seed: u64,
}

impl Order {
    pub fn steps_an_epoch(&self) -> usize {
        self.examples.div_ceil(self.batch)
    }

    /// The numbers of the examples of step `step`, from 0 on.
    pub fn step(&self, step: usize) -> Vec<usize> {
        let (epoch, within) = (step / self.steps_an_epoch(), step % self.steps_an_epoch());
        let order = Permutation::new(Philox::new(self.seed), epoch as u32, self.examples as u64);
        let first = within * self.batch;
        (first..(first + self.batch).min(self.examples))
            .map(|i| order.at(i as u64) as usize)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_meets_each_example_once() {
        let order = Order { examples: 11, batch: 4, seed: 3 };
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

    #[test]
    fn passes_hold_what_fits() {
        assert_eq!(passes([4000, 96, 1, 9000, 5]), [2, 1, 1, 1]);
        assert!(passes([]).is_empty());
    }
}
