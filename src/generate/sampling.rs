//! The next token, by its logits.

use crate::logits::softmax;
use crate::rng::{Philox, Stream, uniform};

/// How the next token is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f64,
    /// Only the k likeliest; 0 for all.
    pub top_k: usize,
    /// Only the likeliest whose probabilities reach p together; 1 for all.
    pub top_p: f64,
    pub seed: u64,
}

impl Sampling {
    /// A token drawn by `logits` [V]; the `drawn`-th of text number `text`, which with the seed
    /// decide.
    pub fn draw(&self, logits: &[f64], text: u32, drawn: u64) -> u32 {
        if self.temperature <= 0.0 {
            return likeliest(logits, 1, f64::INFINITY)[0];
        }
        // The largest is taken off first, so that no temperature makes an overflow of it.
        let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let tempered: Vec<f64> = logits.iter().map(|z| (z - top) / self.temperature).collect();
        let probabilities = softmax(&tempered);
        let most = if self.top_k == 0 { logits.len() } else { self.top_k };
        let ids = likeliest(&probabilities, most, self.top_p);
        let total: f64 = ids.iter().map(|&id| probabilities[id as usize]).sum();
        let word = Philox::new(self.seed).block(Stream::Sample, text, drawn)[0];
        let mut left = f64::from(uniform(word)) * total;
        for &id in &ids {
            left -= probabilities[id as usize];
            if left < 0.0 {
                return id;
            }
        }
        ids[ids.len() - 1]
    }
}

/// The ids of the largest of `values`, best first, equal ones in the order of ids: as few as reach
/// `share` together, `most` at most, one at least.
pub fn likeliest(values: &[f64], most: usize, share: f64) -> Vec<u32> {
    let by = |&a: &u32, &b: &u32| values[b as usize].total_cmp(&values[a as usize]).then(a.cmp(&b));
    let mut ids: Vec<u32> = (0..values.len() as u32).collect();
    // Sorting the whole vocabulary takes longer than a small model: as many as are asked for are.
    let (mut kept, mut sorted, mut total) = (0, 0, 0.0);
    while kept < most.min(ids.len()) && (kept == 0 || total < share) {
        if kept == sorted {
            sorted = (4 * sorted).max(64).min(ids.len());
            let rest = &mut ids[kept..];
            if sorted - kept < rest.len() {
                rest.select_nth_unstable_by(sorted - kept, by);
            }
            ids[kept..sorted].sort_unstable_by(by);
        }
        total += values[ids[kept] as usize];
        kept += 1;
    }
    ids.truncate(kept);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f64; 4] = [1.0, 3.0, 2.0, -5.0];

    fn drawn(sampling: Sampling) -> Vec<u32> {
        let mut ids: Vec<u32> = (0..2000).map(|i| sampling.draw(&LOGITS, 0, i)).collect();
        ids.sort();
        ids.dedup();
        ids
    }

    #[test]
    fn sampling_keeps_to_its_limits_and_its_odds() {
        let all = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 3 };
        assert_eq!(drawn(Sampling { temperature: 0.0, ..all }), [1]);
        assert_eq!(drawn(Sampling { top_k: 2, ..all }), [1, 2]);
        // Probabilities 0.665, 0.245, 0.090, 0.0002.
        assert_eq!(drawn(Sampling { top_p: 0.5, ..all }), [1]);
        assert_eq!(drawn(Sampling { top_p: 0.7, ..all }), [1, 2]);
        let ones = (0..10_000).filter(|&i| all.draw(&LOGITS, 0, i) == 1).count();
        // Within five standard deviations of 6,650.
        assert!(ones.abs_diff(6650) < 5 * 47, "{ones}");
        let of = |text: u32| (0..20).map(|i| all.draw(&LOGITS, text, i)).collect::<Vec<_>>();
        assert_ne!(of(0), of(1));
    }

    #[test]
    fn the_likeliest_are_those_of_a_whole_sort() {
        // Many equal values, and more than are sorted at first.
        let values: Vec<f64> = (0..1000).map(|i| f64::from(i * 7919 % 97) / 48_000.0).collect();
        let mut sorted: Vec<u32> = (0..1000).collect();
        sorted.sort_by(|&a, &b| values[b as usize].total_cmp(&values[a as usize]));
        for most in [1, 2, 63, 64, 65, 256, 999, 1000, 5000] {
            assert_eq!(likeliest(&values, most, f64::INFINITY), sorted[..most.min(1000)]);
        }
        let mut total = 0.0;
        let mut reach = |&id: &u32| {
            total += values[id as usize];
            total < 0.5
        };
        let few = sorted.iter().take_while(|id| reach(id)).count() + 1;
        assert_eq!(likeliest(&values, 1000, 0.5), sorted[..few]);
    }
}
