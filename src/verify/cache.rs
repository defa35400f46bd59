//! Checks of attention over kept keys and values.

use super::draw::{int, poisoned_x};
use super::{Check, Draw, Kind, Output, Sizes, Verifier};
use crate::device::Buffer;
use crate::ops::attention::Attention;
use crate::ops::cache::{CacheOps, Kept};

/// Rows of the cache that are no token's: they stay NaN, so nothing that reads one passes.
const SPARE: usize = 5;

/// Sequences of which every second one begins as the one before it does, as beams do; their tokens
/// lie about the cache in no order.
struct Cached<'a> {
    lengths: &'a [usize],
    at: Attention,
    /// Deviation of q, k and v.
    spread: f64,
}

impl Cached<'_> {
    /// The cache's rows of each sequence, and how many rows there are in all.
    fn rows(&self) -> (Vec<Vec<i32>>, usize) {
        let tokens = self.lengths.iter().sum::<usize>();
        let all = (tokens + SPARE).next_multiple_of(2) + 1;
        // 2 has no factor in common with `all`: a permutation.
        let mut free = (0..tokens).map(|i| (i * 2 % all) as i32);
        let mut rows: Vec<Vec<i32>> = Vec::new();
        for (s, &length) in self.lengths.iter().enumerate() {
            let before = rows.last().filter(|_| s % 2 == 1);
            let shared = before.map_or(0, |before| before.len().min(length - 1));
            let mut own: Vec<i32> = before.map_or(vec![], |before| before[..shared].to_vec());
            own.extend(free.by_ref().take(length - shared));
            rows.push(own);
        }
        (rows, all)
    }
}

impl<D: CacheOps> Check<D> for Cached<'_> {
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let &Cached { lengths, at, spread } = self;
        let (width, sequences) = (at.heads * at.head_dim, lengths.len());
        let (rows, all) = self.rows();
        let longest = *lengths.iter().max().expect("there are sequences");
        let mut cache = poisoned_x(dev, all * 2 * width);
        // A pass over the tokens before the last, of which one is not to be kept; then the last.
        let mut before: Vec<i32> =
            rows.iter().flat_map(|rows| &rows[..rows.len() - 1]).copied().collect();
        before.sort();
        before.dedup();
        before.push(-1);
        let qkv = draw.x(dev, before.len() * 3 * width, spread);
        dev.keep(&mut cache, &qkv, &int(dev, &before), width, before.len());
        let last: Vec<i32> = rows.iter().map(|rows| rows[rows.len() - 1]).collect();
        let qkv = draw.x(dev, sequences * 3 * width, spread);
        dev.keep(&mut cache, &qkv, &int(dev, &last), width, sequences);

        let stride = longest + 3;
        let mut table = Vec::new();
        for rows in &rows {
            table.extend(rows);
            table.resize(table.len().next_multiple_of(stride), -1);
        }
        let known: Vec<i32> = lengths.iter().map(|&n| n as i32).collect();
        let (table, counts) = (int(dev, &table), int(dev, &known));
        let kept = Kept { cache: &cache, rows: &table, stride, lengths: &counts, known: &known };
        let terms = kept.seen(&at).max().expect("there are sequences").max(at.head_dim);
        let mut o = poisoned_x(dev, sequences * width);
        dev.attend(&mut o, &qkv, kept, &at);
        // What no token wrote is still NaN.
        let number = |x: f64| if x.is_nan() { f64::MAX } else { x };
        let cache = cache.to_vec().into_iter().map(number).collect();
        vec![
            Output { tensor: "cache", values: cache, kind: Kind::Exact },
            Output { tensor: "o", values: o.to_vec(), kind: Kind::Stored(terms) },
        ]
    }
}

fn check(v: &mut Verifier, lengths: &[usize], heads: usize, d: usize, window: Option<usize>) {
    check_as(v, lengths, heads, d, window, 1.0);
}

fn check_as(
    v: &mut Verifier,
    lengths: &[usize],
    heads: usize,
    head_dim: usize,
    window: Option<usize>,
    spread: f64,
) {
    let at = Attention { heads, head_dim, causal: true, window, dropout: None };
    let mut name = match lengths {
        [] | [_] | [_, _] | [_, _, _] => format!("{lengths:?}"),
        [first, .., last] => format!("[{first} .. {last}]×{}", lengths.len()),
    };
    name += &format!(" {heads}×{head_dim}");
    if let Some(w) = window {
        name += &format!(" ±{w}");
    }
    if spread != 1.0 {
        name += &format!(" spread {spread}");
    }
    v.check("attend", name, &Cached { lengths, at, spread });
}

pub fn cache(v: &mut Verifier) {
    for d in [16, 32, 48, 64, 80, 96, 128] {
        // Within a part, and over several, of which some sequences have fewer.
        check(v, &[1, 7, 100], 2, d, None);
        check(v, &[129, 300, 1, 128], 3, d, None);
        check(v, &[33, 300], 1, d, Some(140));
    }
    check(v, &[2, 40, 200], 2, 64, Some(0));
    check(v, &[300, 256], 1, 64, Some(127));
    // Scores so far apart that what is summed shrinks when a larger one comes.
    check_as(v, &[90, 260], 2, 64, None, 3.0);
    if v.sizes == Sizes::Full {
        for d in [48, 64, 80, 128] {
            let ragged: Vec<usize> = (0..64).map(|i: usize| 1 + i * 7919 % 1024).collect();
            check(v, &ragged, 12, d, None);
            check(v, &[4096], 12, d, None);
            check(v, &ragged, 12, d, Some(64));
        }
    }
}
