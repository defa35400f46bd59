//! Classification: one class of C for each example, or any set of L labels.
//!
//! ```text
//! accuracy  = correct / N
//! Matthews  = (c·N − Σ_k p_k·t_k) / √((N² − Σ p_k²)·(N² − Σ t_k²))
//!             c correct; p_k predicted as k, t_k truly k
//! ```
//!
//! (Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient", 2004;
//! for two classes it is Matthews' φ.) Undefined cases as scikit-learn has them: a ratio without a
//! denominator is 0, and so is the correlation where gold or predictions are all of one class.

use super::{Scores, Tally, mean};

/// The share of examples whose prediction equals gold, in [0, 1]; `None` without examples.
pub fn accuracy<T: PartialEq>(gold: &[T], predicted: &[T]) -> Option<f64> {
    assert_eq!(gold.len(), predicted.len(), "accuracy: examples");
    mean(gold.iter().zip(predicted).map(|(g, p)| f64::from(g == p)))
}

/// How often each class was predicted as each, `[gold][predicted]`; both are below `classes`.
pub fn confusion(classes: usize, gold: &[usize], predicted: &[usize]) -> Vec<Vec<u64>> {
    assert_eq!(gold.len(), predicted.len(), "confusion: examples");
    let mut counts = vec![vec![0; classes]; classes];
    gold.iter().zip(predicted).for_each(|(&g, &p)| counts[g][p] += 1);
    counts
}

/// Each class against all others: what all metrics of single labels are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByClass {
    examples: u64,
    /// By class. A binary metric is its positive class's.
    pub tallies: Vec<Tally>,
}

impl ByClass {
    /// `gold` and `predicted` are below `classes`, or this panics.
    pub fn new(classes: usize, gold: &[usize], predicted: &[usize]) -> ByClass {
        assert_eq!(gold.len(), predicted.len(), "by class: examples");
        let mut tallies = vec![Tally::default(); classes];
        for (&g, &p) in gold.iter().zip(predicted) {
            tallies[g].gold += 1;
            tallies[p].predicted += 1;
            tallies[g].correct += u64::from(g == p);
        }
        ByClass { examples: gold.len() as u64, tallies }
    }

    /// As [`accuracy`].
    pub fn accuracy(&self) -> Option<f64> {
        (self.examples > 0).then(|| self.correct() as f64 / self.examples as f64)
    }

    /// Of all classes together: with one label an example, precision = recall = F1 = accuracy.
    pub fn micro(&self) -> Scores {
        Scores::micro(&self.tallies)
    }

    /// The mean over the classes that occur, in gold or predicted: scikit-learn's, which does not
    /// know of others.
    pub fn macro_mean(&self) -> Scores {
        let mut tallies = self.tallies.clone();
        tallies.retain(|tally| tally.gold + tally.predicted > 0);
        Scores::macro_mean(&tallies)
    }

    /// Matthews correlation, in [−1, 1]; 0 where either side knows one class only.
    pub fn matthews(&self) -> f64 {
        // Whole numbers: the differences would cancel in f64.
        let sum = |term: fn(&Tally) -> u128| self.tallies.iter().map(term).sum::<u128>();
        let total = u128::from(self.examples);
        let predicted = total * total - sum(|t| u128::from(t.predicted).pow(2));
        let gold = total * total - sum(|t| u128::from(t.gold).pow(2));
        if predicted == 0 || gold == 0 {
            return 0.0;
        }
        let agreed = (u128::from(self.correct()) * total) as i128;
        let by_chance = sum(|t| u128::from(t.predicted) * u128::from(t.gold)) as i128;
        (agreed - by_chance) as f64 / (predicted as f64).sqrt() / (gold as f64).sqrt()
    }

    fn correct(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.correct).sum()
    }
}

/// Sets of labels, `gold` and `predicted` `[N, labels]`: the tally of each label, for
/// [`Scores::micro`] and [`Scores::macro_mean`], which here counts labels that never occur too (as
/// scikit-learn does with indicator matrices).
pub fn multi_label(labels: usize, gold: &[bool], predicted: &[bool]) -> Vec<Tally> {
    assert_eq!(gold.len(), predicted.len(), "multi_label: examples × labels");
    assert!(labels > 0 && gold.len().is_multiple_of(labels), "multi_label: [N, {labels}]");
    let mut tallies = vec![Tally::default(); labels];
    for (i, (&g, &p)) in gold.iter().zip(predicted).enumerate() {
        let [gold, predicted, correct] = [g, p, g && p].map(u64::from);
        tallies[i % labels] += Tally { gold, predicted, correct };
    }
    tallies
}
