//! How long a call takes: device time between marks, over and over until a budget is spent.
//!
//! A call alone can be shorter than what the marks around it cost, so a sample is as many calls
//! as fill [`SAMPLE`], made in turn on copies of its tensors that together exceed the L2 cache
//! three times: what a call reads has left the cache since it was last used. Samples are queued
//! without waiting between them, so the device never idles inside one.

use crate::device::Memory;
use crate::device::gpu::Gpu;
use crate::device::gpu::driver::{DriverError, Mark, Result};

use super::prepare::Ready;

/// Device time that a sample should fill [s].
const SAMPLE: f64 = 1e-3;
/// Most calls of a sample.
const MOST_CALLS: usize = 1000;
/// Samples queued at a time.
const ROUND: usize = 32;
/// Fewest samples.
const FEWEST: usize = 5;

/// Most copies of a call's tensors.
const MOST_COPIES: u64 = 64;

/// What timing one call came to, per call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// Median [s].
    pub seconds: f64,
    /// First and third quartile [s].
    pub low: f64,
    pub high: f64,
    pub samples: usize,
}

impl Timing {
    /// Of so many seconds each; of none, NaN.
    pub fn of(mut seconds: Vec<f64>) -> Timing {
        seconds.sort_by(f64::total_cmp);
        let at = |q: f64| {
            let at = q * (seconds.len().max(1) - 1) as f64;
            let between = |i: f64| seconds.get(i as usize).copied().unwrap_or(f64::NAN);
            let (below, above) = (between(at.floor()), between(at.ceil()));
            below + (above - below) * at.fract()
        };
        Timing { seconds: at(0.5), low: at(0.25), high: at(0.75), samples: seconds.len() }
    }
}

/// How many copies of tensors of `bytes` together exceed a cache of `l2` bytes three times, where
/// there is `room` for them.
pub fn copies(bytes: u64, l2: u64, room: u64) -> usize {
    let bytes = bytes.max(1);
    let wanted = (3 * l2).div_ceil(bytes);
    wanted.min(room / bytes).clamp(1, MOST_COPIES) as usize
}

/// Times a call for about `budget` seconds, [`FEWEST`] samples at least; `copies` are the same
/// call on tensors of its own each.
///
/// # Errors
/// What the device says has stopped it.
pub fn time(gpu: &Gpu, copies: &mut [Ready<Gpu>], budget: f64) -> Result<Timing> {
    let mut turn = 0;
    let mut run = |count: usize| {
        for _ in 0..count {
            let next = turn % copies.len();
            copies[next](gpu);
            turn += 1;
        }
    };
    // The first call loads kernels and takes workspace; the second is timed.
    run(1);
    let first = samples(gpu, 1, || run(1))?[0].max(1e-7);
    let calls = ((SAMPLE / first).ceil() as usize).clamp(1, MOST_CALLS);
    let wanted = (budget / (calls as f64 * first)) as usize;
    let wanted = wanted.clamp(FEWEST, 100 * ROUND);
    let mut seconds = Vec::with_capacity(wanted);
    while seconds.len() < wanted {
        let round = ROUND.min(wanted - seconds.len());
        // A call before, so that the device is busy when the first mark is made.
        run(1);
        seconds.extend(samples(gpu, round, || run(calls))?);
    }
    Ok(Timing::of(seconds.into_iter().map(|s| s / calls as f64).collect()))
}

/// Device time of each of `count` runs of `work` [s].
fn samples(gpu: &Gpu, count: usize, mut work: impl FnMut()) -> Result<Vec<f64>> {
    let driver = gpu.driver();
    let mut marks: Vec<Mark> = vec![driver.mark()?];
    for _ in 0..count {
        work();
        marks.push(driver.mark()?);
    }
    let seconds: Result<Vec<f64>> =
        marks.windows(2).map(|pair| driver.elapsed(pair[0], pair[1])).collect();
    match gpu.fault() {
        Some(fault) => Err(DriverError(fault)),
        None => seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_samples() {
        let timing = Timing::of(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!((timing.low, timing.seconds, timing.high), (1.75, 2.5, 3.25));
        assert_eq!(Timing::of(vec![7.0]).high, 7.0);
        assert!(Timing::of(vec![]).seconds.is_nan());
    }

    #[test]
    fn copies_exceed_the_cache_three_times_where_there_is_room() {
        assert_eq!(copies(10, 0, 100), 1);
        assert_eq!(copies(10, 40, 1000), 12);
        assert_eq!(copies(10, 40, 50), 5);
        assert_eq!(copies(1000, 40, 1000), 1);
        assert_eq!(copies(1, 1 << 20, 1 << 30), 64);
    }
}
