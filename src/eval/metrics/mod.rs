//! Metrics: pure functions over slices of answers, in f64.
//!
//! | file | what | equal to |
//! |---|---|---|
//! | `classification` | accuracy, precision, recall, F1, Matthews correlation | scikit-learn |
//! | `regression` | Pearson, Spearman, mean squared error | SciPy, scikit-learn |
//! | `entities` | precision, recall and F1 of whole entities | seqeval, default mode |
//! | `squad` | exact match and F1 of answers | the scripts of SQuAD v1.1 and v2.0 |
//! | `bleu`, `chrf` | translations beside references | sacreBLEU 2.6.0, defaults |
//! | `bootstrap` | a confidence interval of any of these | |
//!
//! Equal means to 1e-9 on the cases of `tests/golden/metrics.json`. A metric without a value is
//! `None`, which [`shown`] writes as "undefined". Slices that belong together have equal lengths;
//! otherwise the functions panic.
//!
//! What is a ratio of sums comes in two steps, counts of one example (a sentence) and a score of
//! their sum, so that a bootstrap counts once and then only adds.

pub mod bleu;
pub mod bootstrap;
pub mod chrf;
pub mod classification;
pub mod entities;
pub mod regression;
pub mod squad;

mod text;

use std::iter::Sum;
use std::ops::AddAssign;

/// A metric in words: four decimals, or "undefined".
pub fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "undefined".into(), |value| format!("{value:.4}"))
}

/// The counts behind precision, recall and F1: how many things there are, how many were claimed,
/// and how many of those claims are right. Tallies add.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub gold: u64,
    pub predicted: u64,
    pub correct: u64,
}

impl Tally {
    /// correct / predicted, in [0, 1]; 0 where nothing was predicted.
    pub fn precision(self) -> f64 {
        ratio(self.correct, self.predicted)
    }

    /// correct / gold, in [0, 1]; 0 where there is nothing to find.
    pub fn recall(self) -> f64 {
        ratio(self.correct, self.gold)
    }

    /// The harmonic mean of precision and recall, 2·correct / (gold + predicted), in [0, 1]; 0
    /// where there is nothing to find and nothing predicted.
    pub fn f1(self) -> f64 {
        ratio(2 * self.correct, self.gold + self.predicted)
    }

    pub fn scores(self) -> Scores {
        Scores { precision: self.precision(), recall: self.recall(), f1: self.f1() }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.gold += other.gold;
        self.predicted += other.predicted;
        self.correct += other.correct;
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Tally>>(tallies: I) -> Tally {
        added(tallies)
    }
}

/// Precision, recall and F1, each in [0, 1].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
}

impl Scores {
    /// Of all counts together, so that frequent classes count more.
    pub fn micro(tallies: &[Tally]) -> Scores {
        tallies.iter().copied().sum::<Tally>().scores()
    }

    /// The mean of the classes' scores, so that all classes count alike; 0 without any (seqeval
    /// says NaN). Its F1 is the mean of F1s, not that of the mean precision and recall.
    pub fn macro_mean(tallies: &[Tally]) -> Scores {
        let mean = |score: fn(Tally) -> f64| {
            tallies.iter().map(|&t| score(t)).sum::<f64>() / tallies.len().max(1) as f64
        };
        Scores {
            precision: mean(Tally::precision),
            recall: mean(Tally::recall),
            f1: mean(Tally::f1),
        }
    }
}

/// part / whole, or 0 where there is no whole (scikit-learn's `zero_division=0`).
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// `None` of nothing.
fn mean(values: impl ExactSizeIterator<Item = f64>) -> Option<f64> {
    let count = values.len();
    (count > 0).then(|| values.sum::<f64>() / count as f64)
}

fn added<T: Default + AddAssign>(items: impl Iterator<Item = T>) -> T {
    items.fold(T::default(), |mut sum, item| {
        sum += item;
        sum
    })
}
