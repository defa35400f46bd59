//! How long the sequences of a synthetic batch are. A batch has no padding, so all its tokens are
//! real, whatever their sequences' lengths.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::data::Dataset;
use crate::rng::{Philox, Stream, below, below_u64};

/// A distribution of lengths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lengths {
    /// All as long as may be.
    Fixed,
    /// A quarter of them as long as may be, the others spread evenly below, with a mean of 254.5 of
    /// 512: the published mean of MLPerf's BERT data, in a shape of our own.
    Mlperf,
    /// As the documents of a data set's training split are, cut at the longest that may be.
    Like(Arc<Histogram>),
}

/// How many documents there are of each length.
#[derive(Debug, PartialEq, Eq)]
pub struct Histogram {
    /// The data set.
    path: PathBuf,
    /// Each length [tokens], ascending, and the number of documents up to it.
    upto: Vec<(u64, u64)>,
}

impl Histogram {
    /// Of the training split of the data set, or the token file, at `path`.
    ///
    /// # Errors
    /// That there is none, in words.
    pub fn read(path: &Path) -> Result<Histogram, String> {
        let dataset = Dataset::open(path, None).map_err(|why| {
            format!("{why}; or give fixed or mlperf in place of a data set's path")
        })?;
        Ok(Histogram::of(path, dataset.train.lengths()))
    }

    fn of(path: &Path, lengths: impl Iterator<Item = u64>) -> Histogram {
        let mut counts = BTreeMap::<u64, u64>::new();
        lengths.for_each(|length| *counts.entry(length).or_default() += 1);
        let mut documents = 0;
        let upto = counts.into_iter().map(|(length, count)| {
            documents += count;
            (length, documents)
        });
        Histogram { path: path.into(), upto: upto.collect() }
    }

    /// The length of a document drawn by two random words.
    fn draw(&self, words: [u32; 2]) -> u64 {
        let documents = self.upto.last().map_or(0, |&(_, documents)| documents);
        let document = below_u64(words, documents);
        self.upto[self.upto.partition_point(|&(_, upto)| upto <= document)].0
    }
}

impl FromStr for Lengths {
    type Err = String;

    fn from_str(text: &str) -> Result<Lengths, String> {
        Ok(match text {
            "fixed" => Lengths::Fixed,
            "mlperf" => Lengths::Mlperf,
            path => Lengths::Like(Arc::new(Histogram::read(Path::new(path))?)),
        })
    }
}

impl Lengths {
    /// Lengths of sequences of up to `longest` tokens that are `tokens` together; the last is cut.
    pub fn draw(&self, longest: usize, tokens: usize) -> Vec<usize> {
        let philox = Philox::new(1);
        // A quarter at 512 and the rest uniform on 1 to 336 have the mean 128 + 0.75 · 168.5.
        let shorter = (longest * 336).div_ceil(512).max(1);
        let draw = |i: u64| match (self, philox.block(Stream::Sample, 4, i)) {
            (Lengths::Fixed, _) => longest,
            (Lengths::Mlperf, [word, ..]) if word % 4 == 0 => longest,
            (Lengths::Mlperf, [_, word, ..]) => 1 + below(word, shorter as u32) as usize,
            (Lengths::Like(histogram), [a, b, ..]) => {
                histogram.draw([a, b]).min(longest as u64) as usize
            }
        };
        let (mut lengths, mut left) = (Vec::new(), tokens);
        while left > 0 {
            let len = draw(lengths.len() as u64).clamp(1, left);
            lengths.push(len);
            left -= len;
        }
        lengths
    }

    /// `sequences of up to 512, as long as the documents of data/books`
    pub fn words(&self, longest: usize) -> String {
        match self {
            Lengths::Fixed => format!("sequences of {longest}"),
            Lengths::Mlperf => format!("sequences of up to {longest} as in MLPerf's BERT"),
            Lengths::Like(histogram) => format!(
                "sequences of up to {longest}, as long as the documents of {}",
                histogram.path.display()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_add_up_and_keep_their_mean() {
        let found = Lengths::Mlperf.draw(512, 1 << 20);
        assert_eq!(found.iter().sum::<usize>(), 1 << 20);
        let mean = (1 << 20) as f64 / found.len() as f64;
        assert!((mean - 254.5).abs() < 8.0, "{mean}");
        assert_eq!(Lengths::Fixed.draw(48, 100), [48, 48, 4]);
    }

    /// Of 3, 3, 7 and 100 tokens: half are 3, and those of 100 are cut.
    #[test]
    fn lengths_are_drawn_as_documents_are() {
        let histogram = Histogram::of(Path::new("some"), [3, 100, 7, 3].into_iter());
        assert_eq!(histogram.upto, [(3, 2), (7, 3), (100, 4)]);
        let found = Lengths::Like(Arc::new(histogram)).draw(20, 100_000);
        assert_eq!(found.iter().sum::<usize>(), 100_000);
        let share = |len| {
            let count = found.iter().filter(|&&found| found == len).count();
            count as f64 / found.len() as f64
        };
        for (len, wanted) in [(3, 0.5), (7, 0.25), (20, 0.25)] {
            assert!((share(len) - wanted).abs() < 0.02, "{len}: {}", share(len));
        }
    }
}
