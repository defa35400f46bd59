//! A model's loss on text.
//!
//! **Causal.** Each document by itself, as `s = <|endoftext|> document`; every token of the
//! document is predicted once. What is longer than the context is read in windows: the first
//! predicts as many tokens as the context holds, each further one the next `stride`, seeing before
//! them as much as the context holds. With a stride as long as the context these are
//! lm-evaluation-harness' rolling windows; a shorter one gives tokens more to go by.
//!
//! ```text
//! stride = context / 2      1 2 3 4 5 6 7 8
//! window 1                  └─────┘              predicts 1 2 3 4
//! window 2                      └─────┘          predicts 5 6, seeing 3 4
//! ```
//!
//! **Masked.** The batches of the data's held-out split that training would be validated on: the
//! same order, the same masks, each token in one sequence once ([`Loader::heldout`]).
//!
//! [`Loader::heldout`]: crate::data::Loader::heldout

use crate::data::{Batch, Corpus, IGNORE};
use crate::device::{Buffer, Class, Device};
use crate::model::activations::Activations;
use crate::model::batch::{Capacity, DeviceBatch};
use crate::model::heads::Sums;
use crate::model::transformer::Model;

use super::passes::{TOKENS, passes};

/// Losses of tokens. They add.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Losses {
    /// Σ −log p [nats].
    pub nll: f64,
    /// Tokens whose likeliest guess was right.
    pub right: f64,
    /// Tokens that were predicted.
    pub tokens: f64,
}

impl Losses {
    /// [nats a token]
    pub fn mean(&self) -> f64 {
        self.nll / self.tokens
    }

    /// Share of tokens predicted right.
    pub fn accuracy(&self) -> f64 {
        self.right / self.tokens
    }

    /// Of a text of so many bytes.
    pub fn bits_a_byte(&self, bytes: f64) -> f64 {
        self.nll / std::f64::consts::LN_2 / bytes
    }
}

/// Part of a document's `s` that passes the model at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    document: u64,
    /// Its first input, in `s`.
    begin: u64,
    /// Its first prediction that counts: of the token after input `from`.
    from: u64,
    /// One past its last input.
    end: u64,
}

/// A corpus as a causal model reads it.
pub struct Windows<'a> {
    corpus: &'a Corpus,
    /// What stands before a document, if anything.
    eot: Option<u32>,
    windows: Vec<Window>,
}

impl<'a> Windows<'a> {
    /// The first `documents` of a corpus. A stride is at least 1 and at most the context.
    pub fn new(
        corpus: &'a Corpus,
        documents: u64,
        eot: Option<u32>,
        context: u64,
        stride: u64,
    ) -> Self {
        assert!((1..=context).contains(&stride), "a stride of {stride} in {context}");
        let mut windows = Vec::new();
        for (document, length) in (0..documents).zip(corpus.lengths()) {
            let predictions = length - u64::from(eot.is_none());
            let mut from = 0;
            while from < predictions {
                let more = if from == 0 { context } else { stride };
                let end = predictions.min(from + more);
                windows.push(Window { document, begin: end.saturating_sub(context), from, end });
                from = end;
            }
        }
        Windows { corpus, eot, windows }
    }

    /// Neighbours together, as many as a pass takes.
    pub fn batches(&self) -> impl Iterator<Item = Batch> {
        let lengths = |w: &Window| (w.end - w.begin) as usize;
        let passes = passes(&self.windows.iter().map(lengths).collect::<Vec<_>>(), TOKENS);
        passes.into_iter().map(|pass| self.batch(&self.windows[pass]))
    }

    fn batch(&self, windows: &[Window]) -> Batch {
        let mut batch = Batch { cu_seqlens: vec![0], ..Batch::default() };
        for &Window { document, begin, from, end } in windows {
            // Inputs, and the target of the last.
            let mut ids = Vec::new();
            ids.extend(self.eot.filter(|_| begin == 0).map(|eot| eot as i32));
            let shift = u64::from(self.eot.is_some());
            let first = begin.saturating_sub(shift);
            self.corpus.document_part(document, first, end + 1 - shift - first).append_to(&mut ids);
            batch.targets.resize(batch.targets.len() + (from - begin) as usize, IGNORE);
            batch.targets.extend(&ids[(from - begin) as usize + 1..]);
            ids.pop();
            batch.positions.extend(0..ids.len() as i32);
            batch.ids.extend(ids);
            batch.cu_seqlens.push(batch.ids.len() as i32);
        }
        batch.types = vec![0; batch.ids.len()];
        batch
    }
}

/// The losses of batches; `tick` is told after each how many of its tokens were predicted.
pub fn losses<D: Device>(
    dev: &D,
    model: &Model<D>,
    batches: impl Iterator<Item = Batch>,
    mut tick: impl FnMut(&Losses),
) -> Losses {
    let mut places: Option<(Capacity, DeviceBatch<D>, Activations<D>)> = None;
    let sums = || dev.acc(Class::Scratch, 3);
    let mut sums = Sums { tokens: sums(), pairs: sums() };
    let mut all = Losses::default();
    // Where masks picked no token there is no row for the head.
    for batch in batches.filter(|batch| batch.labelled() > 0) {
        let pair = model.arch.pair;
        let unlabelled = if pair && batch.pairs.is_empty() { batch.sequences() } else { 0 };
        let pairs = [batch.pairs, vec![IGNORE; unlabelled]].concat();
        let batch = Batch { pairs, ..batch };
        // Passes differ little in size: one that is larger than any before takes new memory.
        let needed = Capacity::of(&batch, pair);
        let capacity = places.as_ref().map_or(needed, |(held, ..)| held.max(needed));
        let held = places.take().filter(|(held, ..)| *held == capacity);
        let (_, mut loaded, mut acts) = held.unwrap_or_else(|| {
            let acts = Activations::new(dev, &model.arch, capacity, false);
            (capacity, DeviceBatch::new(dev, capacity, false), acts)
        });
        loaded.load(&batch, pair);
        dev.zero_acc(&mut sums.tokens);
        model.forward(dev, &mut acts, &loaded, None);
        model.loss(dev, &mut sums, &mut acts, &loaded, None);
        let found = sums.tokens.to_vec();
        all.nll += found[0];
        all.right += found[1];
        all.tokens += found[2];
        tick(&all);
        places = Some((capacity, loaded, acts));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::shard::Shard;
    use std::path::Path;

    fn corpus(documents: &[&[u32]]) -> Corpus {
        let documents: Vec<Vec<u32>> = documents.iter().map(|ids| ids.to_vec()).collect();
        Corpus::of(vec![Shard::of_documents(Path::new("memory"), &documents).unwrap()]).unwrap()
    }

    fn batch(documents: &[&[u32]], eot: Option<u32>, context: u64, stride: u64) -> Batch {
        let corpus = corpus(documents);
        let windows = Windows::new(&corpus, corpus.documents(), eot, context, stride);
        let mut batches: Vec<Batch> = windows.batches().collect();
        assert_eq!(batches.len(), 1);
        batches.remove(0)
    }

    #[test]
    fn each_token_is_predicted_once_whatever_the_stride() {
        let ids: Vec<u32> = (1..=9).collect();
        for eot in [None, Some(0)] {
            for stride in 1..=4 {
                let batch = batch(&[&ids, &[20]], eot, 4, stride);
                let mut counted: Vec<i32> = batch.targets.clone();
                counted.retain(|&target| target != IGNORE);
                let first = if eot.is_some() { 1 } else { 2 };
                let last = if eot.is_some() { &[20][..] } else { &[] };
                assert_eq!(counted, (first..=9).chain(last.iter().copied()).collect::<Vec<_>>());
                // A target is the token after its input.
                for (i, &target) in batch.targets.iter().enumerate() {
                    let after = if batch.ids[i] == 0 { 1 } else { batch.ids[i] + 1 };
                    assert!([IGNORE, after, 20].contains(&target), "{batch:?}");
                }
            }
        }
    }

    #[test]
    fn a_window_reaches_back_as_far_as_the_context() {
        let ids: Vec<u32> = (1..=7).collect();
        let batch = batch(&[&ids], Some(0), 4, 2);
        assert_eq!(batch.ids, [0, 1, 2, 3, 2, 3, 4, 5, 3, 4, 5, 6]);
        let i = IGNORE;
        assert_eq!(batch.targets, [1, 2, 3, 4, i, i, 5, 6, i, i, i, 7]);
        assert_eq!(batch.cu_seqlens, [0, 4, 8, 12]);
    }
}
