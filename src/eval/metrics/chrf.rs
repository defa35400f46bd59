//! chrF2 of a corpus, as sacreBLEU computes it by default: n-grams of characters, white space left
//! out, of 1 to 6 characters.
//!
//! ```text
//! P, R  = the means over orders of Σ matches_n / Σ n-grams_n, of the hypothesis and the reference
//! chrF2 = 100·(1 + β²)·P·R / (β²·P + R)          β = 2; in [0, 100]
//! ```
//!
//! Only orders count of which both sides have n-grams; 0 where there is no such order or no match.
//! Of several references a sentence takes that with the best chrF2 of its own. (Popović, "chrF:
//! character n-gram F-score for automatic MT evaluation", 2015.)

use std::iter::Sum;
use std::ops::AddAssign;

use super::text::{is_space, ngrams, shared};
use super::{Tally, added};

/// The longest n-gram.
const ORDERS: usize = 6;
/// β²: how much more recall weighs than precision.
const WEIGHT: f64 = 4.0;

/// What a sentence, or a corpus, adds to chrF: n-grams by order. Counts add.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub [Tally; ORDERS]);

/// The settings in sacreBLEU's words, for this number of references a sentence; sacreBLEU 2.6.0
/// adds its version.
pub fn signature(references: usize) -> String {
    format!("nrefs:{references}|case:mixed|eff:yes|nc:6|nw:0|space:no")
}

/// The counts of one sentence, with at least one reference.
pub fn sentence<S: AsRef<str>>(hypothesis: &str, references: &[S]) -> Counts {
    let ours = characters(hypothesis);
    let counts = references.iter().map(|text| beside(&ours, &characters(text.as_ref())));
    let better = |best: Counts, next: Counts| if next.chrf() > best.chrf() { next } else { best };
    counts.reduce(better).expect("chrf: a sentence has a reference")
}

impl Counts {
    /// The corpus' score, from the sum of its sentences' counts.
    pub fn chrf(&self) -> f64 {
        let orders = || self.0.iter().filter(|tally| tally.predicted > 0 && tally.gold > 0);
        let count = orders().count().max(1) as f64;
        let precision = orders().map(|tally| tally.precision()).sum::<f64>() / count;
        let recall = orders().map(|tally| tally.recall()).sum::<f64>() / count;
        if precision + recall == 0.0 {
            return 0.0;
        }
        100.0 * (1.0 + WEIGHT) * precision * recall / (WEIGHT * precision + recall)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        for (sum, tally) in self.0.iter_mut().zip(other.0) {
            *sum += tally;
        }
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Counts>>(sentences: I) -> Counts {
        added(sentences)
    }
}

fn characters(text: &str) -> Vec<char> {
    text.chars().filter(|&c| !is_space(c)).collect()
}

fn beside(ours: &[char], theirs: &[char]) -> Counts {
    let mut counts = Counts::default();
    for (tally, n) in counts.0.iter_mut().zip(1..) {
        let [predicted, gold] = [ours, theirs].map(|c| (c.len() + 1).saturating_sub(n) as u64);
        // What has no n-gram in the reference is not held against the hypothesis.
        let predicted = if gold > 0 { predicted } else { 0 };
        let correct = shared(&ngrams(ours, n), &ngrams(theirs, n));
        *tally = Tally { gold, predicted, correct };
    }
    counts
}
