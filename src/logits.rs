//! What logits stand for, on the host.

/// The first of the largest; 0 of none.
pub fn argmax(logits: &[f64]) -> usize {
    let by = |&a: &usize, &b: &usize| logits[a].total_cmp(&logits[b]).then(b.cmp(&a));
    (0..logits.len()).max_by(by).unwrap_or(0)
}

/// log Σ exp; what is over it in a logit is its log-probability [nats].
pub fn log_sum_exp(logits: &[f64]) -> f64 {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    logits.iter().map(|z| (z - top).exp()).sum::<f64>().ln() + top
}

/// Probabilities of classes of which one is right.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let total = log_sum_exp(logits);
    logits.iter().map(|z| (z - total).exp()).collect()
}

/// Probabilities of labels each of which may be right.
pub fn sigmoid(logits: &[f64]) -> Vec<f64> {
    logits.iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_of_any_size_have_probabilities() {
        assert_eq!((argmax(&[1.0, 3.0, 3.0]), argmax(&[])), (1, 0));
        for shift in [0.0, 1e4, -1e4] {
            let logits = [1.0, 3.0, f64::NEG_INFINITY].map(|z| z + shift);
            let found = softmax(&logits);
            assert!((found[1] - 1.0 / (1.0 + (-2f64).exp())).abs() < 1e-11, "{found:?}");
            assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-11 && found[2] == 0.0);
        }
        assert_eq!(sigmoid(&[0.0, 1e4, -1e4]), [0.5, 1.0, 0.0]);
    }
}
