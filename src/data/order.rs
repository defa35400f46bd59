//! The order of an epoch: a permutation of 0..n that is computed, not stored.
//!
//! A Feistel network over b = ⌈log2 n⌉ bits, its halves of ⌈b/2⌉ and ⌊b/2⌋ bits,
//!
//! ```text
//! low ^= F(0, high),  high ^= F(1, low),  low ^= F(2, high), …        ROUNDS times
//! ```
//!
//! is a bijection on 2^b whatever F is; F is one Philox word, keyed by the seed, at (epoch, round,
//! half). A result at or beyond n goes through again until it is below n ("cycle walking"): since
//! 2^b < 2n that takes less than two turns on average, and what remains is a bijection on 0..n. So
//! the i-th piece of any epoch is found at once, from the seed and two numbers.

use crate::rng::{Philox, Stream};

/// Four make a Feistel network pseudorandom (Luby and Rackoff); halves of a few bits need more.
const ROUNDS: u64 = 8;

/// A pseudorandom permutation of `0..n`, one for each (seed, epoch).
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    rng: Philox,
    epoch: u32,
    n: u64,
    low_bits: u32,
    high_bits: u32,
}

impl Permutation {
    pub fn new(rng: Philox, epoch: u32, n: u64) -> Self {
        assert!(n > 0, "a permutation of nothing");
        let bits = u64::BITS - (n - 1).leading_zeros();
        Permutation { rng, epoch, n, low_bits: bits.div_ceil(2), high_bits: bits / 2 }
    }

    /// Where `i < n` goes.
    pub fn at(&self, i: u64) -> u64 {
        assert!(i < self.n, "{i} in a permutation of {}", self.n);
        let mut x = self.network(i);
        while x >= self.n {
            x = self.network(x);
        }
        x
    }

    fn network(&self, x: u64) -> u64 {
        let (low_mask, high_mask) = ((1 << self.low_bits) - 1, (1 << self.high_bits) - 1);
        let (mut low, mut high) = (x & low_mask, x >> self.low_bits);
        for round in 0..ROUNDS {
            let (from, to, mask) = match round % 2 {
                0 => (high, &mut low, low_mask),
                _ => (low, &mut high, high_mask),
            };
            let word = self.rng.block(Stream::Order, self.epoch, round << 32 | from)[0];
            *to ^= u64::from(word) & mask;
        }
        high << self.low_bits | low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_a_permutation() {
        for n in (1..300).chain([1023, 1024, 1025, 100_003]) {
            let order = Permutation::new(Philox::new(5), 2, n);
            let mut seen = vec![false; n as usize];
            (0..n).for_each(|i| assert!(!std::mem::replace(&mut seen[order.at(i) as usize], true)));
        }
    }

    /// Over many epochs an element must land everywhere equally often: χ² with n − 1 degrees of
    /// freedom, held within five standard deviations of its mean.
    #[test]
    fn every_place_is_equally_likely() {
        for n in [3u64, 10, 37] {
            let epochs = 4000u32;
            let mut counts = vec![0f64; n as usize];
            for epoch in 0..epochs {
                counts[Permutation::new(Philox::new(1), epoch, n).at(1) as usize] += 1.0;
            }
            let expected = f64::from(epochs) / n as f64;
            let chi2: f64 = counts.iter().map(|c| (c - expected).powi(2) / expected).sum();
            let freedom = (n - 1) as f64;
            assert!((chi2 - freedom).abs() < 5.0 * (2.0 * freedom).sqrt(), "n {n}: χ² {chi2}");
        }
    }

    #[test]
    fn beyond_32_bits() {
        let n = 3 << 40;
        let order = Permutation::new(Philox::new(9), 0, n);
        let mut seen: Vec<u64> = (0..1000).map(|i| order.at(n - 1 - i)).collect();
        assert!(seen.iter().all(|&x| x < n) && seen.iter().any(|&x| x > 1 << 40));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
    }
}
