//! The percentile bootstrap: how far a metric would move with other examples of the same kind.
//!
//! From N examples draw N with replacement, compute the metric, do so B times; the interval reaches
//! from the (1 − level)/2 quantile of these values to the (1 + level)/2 quantile, interpolated
//! between neighbours. (Efron and Tibshirani, "An introduction to the bootstrap", 1993, ch. 13.)
//!
//! Draw i of resample b is a function of (seed, b, i) alone: the interval is the same for any
//! number of threads, and two models given one seed are judged by the same resamples.

use rayon::prelude::*;

use crate::rng::{Philox, Stream, below};

/// How to resample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    pub seed: u64,
    /// B.
    pub resamples: u32,
    /// The share of resamples within the interval, in (0, 1).
    pub level: f64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Bootstrap { seed: 0, resamples: 1000, level: 0.95 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
    /// Resamples left out because the metric has no value for them.
    pub undefined: usize,
}

impl Bootstrap {
    /// The interval of `metric` over `examples` (fewer than 2^32). The metric is given the indices
    /// of a resample; `None` or NaN says that it has no value there. `None` if it has none at all,
    /// or there are no examples.
    pub fn interval<M>(&self, examples: usize, metric: M) -> Option<Interval>
    where
        M: Fn(&[usize]) -> Option<f64> + Sync,
    {
        assert!(self.level > 0.0 && self.level < 1.0, "bootstrap: a level of {}", self.level);
        if examples == 0 {
            return None;
        }
        let value = |picked: &mut Vec<usize>, resample| {
            self.pick(examples, resample, picked);
            metric(picked).filter(|value| !value.is_nan())
        };
        let resamples = (0..self.resamples).into_par_iter();
        let mut values: Vec<f64> = resamples.map_init(Vec::new, value).flatten().collect();
        values.sort_by(f64::total_cmp);
        let undefined = self.resamples as usize - values.len();
        let outside = (1.0 - self.level) / 2.0;
        Some(Interval {
            low: quantile(&values, outside)?,
            high: quantile(&values, 1.0 - outside)?,
            undefined,
        })
    }

    /// Makes `picked` the indices of a resample.
    fn pick(&self, examples: usize, resample: u32, picked: &mut Vec<usize>) {
        let bound = u32::try_from(examples).expect("bootstrap: fewer than 2^32 examples");
        let rng = Philox::new(self.seed);
        let blocks = examples.div_ceil(4) as u64;
        picked.clear();
        for block in 0..blocks {
            let words = rng.block(Stream::Resample, resample, block);
            picked.extend(words.map(|word| below(word, bound) as usize));
        }
        picked.truncate(examples);
    }
}

/// The `share` quantile of sorted values, between the two nearest; `None` of nothing.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    // Equal ends first: they may be infinite.
    Some(if low == high { low } else { low + (high - low) * place.fract() })
}
