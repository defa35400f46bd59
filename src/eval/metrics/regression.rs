//! Regression: how well predicted numbers follow gold ones.
//!
//! ```text
//! mean squared error = Σ (x − y)² / N
//! Pearson            = Σ (x − x̄)(y − ȳ) / (‖x − x̄‖·‖y − ȳ‖)
//! Spearman           = Pearson of the ranks; those of equal values are their mean
//! ```
//!
//! A correlation has no value for fewer than two examples or where one side is constant, nor has
//! one of NaNs; infinities have ranks but no Pearson correlation. SciPy says NaN; here: `None`.

use super::mean;

/// In [0, ∞); `None` without examples. Not finite where an input is not.
pub fn mean_squared_error(x: &[f64], y: &[f64]) -> Option<f64> {
    assert_eq!(x.len(), y.len(), "mean_squared_error: examples");
    mean(x.iter().zip(y).map(|(x, y)| (x - y).powi(2)))
}

/// In [−1, 1], or `None` as above.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    assert_eq!(x.len(), y.len(), "pearson: examples");
    let (x, y) = (direction(x)?, direction(y)?);
    let cosine: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
    // Rounding may lead beyond the ends.
    (!cosine.is_nan()).then_some(cosine.clamp(-1.0, 1.0))
}

/// In [−1, 1], or `None` as above.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    assert_eq!(x.len(), y.len(), "spearman: examples");
    let is_ranked = !x.iter().chain(y).any(|value| value.is_nan());
    is_ranked.then(|| pearson(&ranks(x), &ranks(y))).flatten()
}

/// (x − x̄) / ‖x − x̄‖; `None` where x is constant.
fn direction(x: &[f64]) -> Option<Vec<f64>> {
    // Asked of the values themselves: their computed mean may differ from all of them.
    if x.iter().all(|value| *value == x[0]) {
        return None;
    }
    let mean = mean(x.iter().copied())?;
    let mut centred: Vec<f64> = x.iter().map(|value| value - mean).collect();
    // By the largest first: squares of very large or very small numbers are not floats.
    let largest = centred.iter().fold(0.0f64, |top, value| top.max(value.abs()));
    centred.iter_mut().for_each(|value| *value /= largest);
    let norm = centred.iter().map(|value| value * value).sum::<f64>().sqrt();
    centred.iter_mut().for_each(|value| *value /= norm);
    Some(centred)
}

/// The rank of each value, from 1; equal values share the mean of theirs. No NaNs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for ties in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (ties.len() + 1) as f64 / 2.0;
        ties.iter().for_each(|&i| ranks[i] = rank);
        before += ties.len();
    }
    ranks
}
