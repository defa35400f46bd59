//! Which of some completions a model prefers, by three measures of their likelihood.
//!
//! ```text
//! total       Σ log p                    lm-evaluation-harness' acc
//! per token   Σ log p / tokens           llm.c's acc_norm
//! per byte    Σ log p / bytes of text    the harness' acc_norm, but for letters beyond ASCII
//! ```

use serde::Serialize;

use super::likelihood::Likelihood;
use super::metrics::bootstrap::Bootstrap;
use super::results::Measured;

/// What a model makes of one question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// Σ log p of each completion [nats].
    pub totals: Vec<f64>,
    pub tokens: Vec<usize>,
    /// Of each completion's text, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Vec<usize>>,
    /// Which is right.
    pub right: usize,
}

impl Judged {
    pub fn new(found: &[Likelihood], bytes: Option<Vec<usize>>, right: usize) -> Judged {
        Judged {
            totals: found.iter().map(Likelihood::total).collect(),
            tokens: found.iter().map(|likelihood| likelihood.each.len()).collect(),
            bytes,
            right,
        }
    }

    /// Which is the likeliest by total.
    pub fn by_total(&self) -> usize {
        best(&self.totals, &vec![1; self.totals.len()])
    }

    /// Which is the likeliest a token.
    pub fn by_token(&self) -> usize {
        best(&self.totals, &self.tokens)
    }

    /// Which is the likeliest a byte.
    pub fn by_byte(&self) -> Option<usize> {
        self.bytes.as_ref().map(|bytes| best(&self.totals, bytes))
    }
}

/// The largest of totals / sizes; the first of equal ones.
fn best(totals: &[f64], sizes: &[usize]) -> usize {
    let norm = |i: usize| totals[i] / sizes[i].max(1) as f64;
    (0..totals.len()).max_by(|&a, &b| norm(a).total_cmp(&norm(b)).then(b.cmp(&a))).unwrap_or(0)
}

/// The accuracies of all questions, with intervals.
pub fn accuracies(judged: &[Judged], bootstrap: &Bootstrap) -> Vec<Measured> {
    let of = |name: &str, pick: fn(&Judged) -> Option<usize>| {
        let right: Option<Vec<f64>> =
            judged.iter().map(|j| pick(j).map(|said| f64::from(said == j.right))).collect();
        right.map(|right| Measured::mean(name, &right, bootstrap))
    };
    let all = [
        of("accuracy, total", |j| Some(j.by_total())),
        of("accuracy, per token", |j| Some(j.by_token())),
        of("accuracy, per byte", Judged::by_byte),
    ];
    all.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_measures_may_prefer_three_completions() {
        let judged = Judged {
            totals: vec![-2.0, -3.0, -6.0],
            tokens: vec![1, 3, 3],
            bytes: Some(vec![2, 4, 12]),
            right: 2,
        };
        assert_eq!((judged.by_total(), judged.by_token(), judged.by_byte()), (0, 1, Some(2)));
        let even = Judged { totals: vec![-1.0, -1.0], tokens: vec![1, 1], bytes: None, right: 1 };
        assert_eq!((even.by_total(), even.by_byte()), (0, None));
        let measured = accuracies(&[judged.clone(), judged], &Bootstrap::default());
        let values: Vec<Option<f64>> = measured.iter().map(|m| m.value).collect();
        assert_eq!(values, [Some(0.0), Some(0.0), Some(1.0)]);
        assert_eq!(accuracies(&[even], &Bootstrap::default()).len(), 2);
    }
}
