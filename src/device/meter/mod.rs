//! A device that measures another: calls, seconds, floating-point operations and bytes per op.
//!
//! Operations and bytes are what the `cost` functions of the op families say must happen at least,
//! so a rate far below the machine's shows an op with room to grow. Seconds are those of the call;
//! a device that returns before it has finished is timed right only in sum, unless it has a
//! [`Clock`] of its own.

use std::fmt::{Debug, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::device::gpu::driver::Mark;
use crate::device::{Class, Format, Memory, Repeats};
use crate::ops::Cost;

mod ops;

/// The time of a device that works on after a call has returned.
pub trait Clock: Debug {
    /// A point in the device's work; None once it has stopped.
    fn mark(&self) -> Option<Mark>;

    /// Between two points [s]; waits for the later one.
    fn seconds(&self, from: Mark, to: Mark) -> f64;
}

/// Calls whose marks are kept unread: reading them waits for the device, and a driver keeps some
/// thousands.
const UNREAD: usize = 1000;

/// `D`, measured.
#[derive(Debug, Default)]
pub struct Meter<D> {
    device: D,
    /// None: the host's.
    clock: Option<Box<dyn Clock>>,
    /// Which of the stretches that are repeated are measured; None: all, and what lies between.
    sample: Option<Range<u64>>,
    /// Such stretches so far.
    repeats: AtomicU64,
    /// Whether one of the sample runs.
    sampling: AtomicBool,
    /// Calls, by their index among the next, whose marks are not read yet.
    unread: Mutex<Vec<(usize, Mark, Mark)>>,
    /// Of the device's clock: calls in their order, by index, and the seconds of each.
    sequence: Mutex<Vec<(usize, f64)>>,
    /// One an op and size, in the order of first calls.
    calls: Mutex<Vec<Calls>>,
}

/// Calls of one op at one size.
#[derive(Debug)]
struct Calls {
    op: &'static str,
    cost: Cost,
    calls: u64,
    seconds: f64,
}

/// What the calls of one op came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OpRecord {
    /// The method's name.
    pub op: &'static str,
    pub calls: u64,
    pub seconds: f64,
    /// Of all calls.
    pub flops: f64,
    /// Of all calls.
    pub bytes: f64,
}

impl<D> Meter<D> {
    pub fn new(device: D) -> Self {
        Meter {
            device,
            clock: None,
            sample: None,
            repeats: AtomicU64::default(),
            sampling: AtomicBool::default(),
            unread: Mutex::default(),
            sequence: Mutex::default(),
            calls: Mutex::default(),
        }
    }

    /// Timed by the device's own clock.
    pub fn by_clock(device: D, clock: Box<dyn Clock>) -> Self {
        Meter { clock: Some(clock), ..Meter::new(device) }
    }

    /// Timed by the device's own clock, in some of the steps. A step that is measured is done call
    /// by call, with marks between; the others run as they would without a meter.
    pub fn of_steps(device: D, clock: Box<dyn Clock>, steps: Range<u64>) -> Self {
        Meter { sample: Some(steps), ..Meter::by_clock(device, clock) }
    }

    /// How many of `steps` steps since the last [`Meter::reset`] were measured.
    pub fn measured(&self, steps: u64) -> u64 {
        let all = 0..steps;
        let sample = self.sample.as_ref().unwrap_or(&all);
        sample.end.min(steps).saturating_sub(sample.start)
    }

    pub fn device(&self) -> &D {
        &self.device
    }

    /// Forgets all calls so far.
    pub fn reset(&self) {
        self.repeats.store(0, Ordering::Relaxed);
        hold(&self.unread).clear();
        hold(&self.sequence).clear();
        self.lock().clear();
    }

    /// One record an op, the longest first.
    pub fn report(&self) -> Vec<OpRecord> {
        let mut ops: Vec<OpRecord> = Vec::new();
        for more in self.by_size() {
            match ops.iter_mut().find(|op| op.op == more.op) {
                Some(op) => {
                    op.calls += more.calls;
                    op.seconds += more.seconds;
                    op.flops += more.flops;
                    op.bytes += more.bytes;
                }
                None => ops.push(more),
            }
        }
        ops.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        ops
    }

    /// One record an op and size: where a floor is the larger of two costs, call by call.
    pub fn by_size(&self) -> Vec<OpRecord> {
        self.settle();
        self.lock().iter().map(Calls::record).collect()
    }

    /// By the device's clock: every call in its order, and its seconds.
    pub fn sequence(&self) -> Vec<(&'static str, f64)> {
        self.settle();
        let all = self.lock();
        hold(&self.sequence).iter().map(|&(index, seconds)| (all[index].op, seconds)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Calls>> {
        hold(&self.calls)
    }

    /// Runs and records one call.
    fn call(&self, op: &'static str, cost: Cost, run: impl FnOnce(&D)) {
        if self.sample.is_some() && !self.sampling.load(Ordering::Relaxed) {
            return run(&self.device);
        }
        let mark = || self.clock.as_ref().and_then(|clock| clock.mark());
        let (start, from) = (Instant::now(), mark());
        run(&self.device);
        let to = mark();
        let seconds = if self.clock.is_some() { 0.0 } else { start.elapsed().as_secs_f64() };
        let mut all = self.lock();
        let index = match all.iter().position(|c| c.op == op && c.cost == cost) {
            Some(index) => index,
            None => {
                all.push(Calls { op, cost, calls: 0, seconds: 0.0 });
                all.len() - 1
            }
        };
        all[index].calls += 1;
        all[index].seconds += seconds;
        drop(all);
        if let (Some(from), Some(to)) = (from, to) {
            let mut unread = hold(&self.unread);
            unread.push((index, from, to));
            let many = unread.len() >= UNREAD;
            drop(unread);
            if many {
                self.settle();
            }
        }
    }

    /// Reads the marks of the device's clock.
    fn settle(&self) {
        let Some(clock) = &self.clock else { return };
        let mut all = self.lock();
        for (index, from, to) in hold(&self.unread).drain(..) {
            let seconds = clock.seconds(from, to);
            all[index].seconds += seconds;
            hold(&self.sequence).push((index, seconds));
        }
    }
}

/// What is in it, whatever happened to others who held it.
fn hold<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Calls {
    fn record(&self) -> OpRecord {
        let Calls { op, cost, calls, seconds } = *self;
        let n = calls as f64;
        OpRecord { op, calls, seconds, flops: n * cost.flops, bytes: n * cost.bytes }
    }
}

/// The records as a table for people: time, its share, and the rates reached.
pub fn table(records: &[OpRecord]) -> String {
    let total: f64 = records.iter().map(|r| r.seconds).sum();
    let mut text = format!(
        "{:<20}{:>8}{:>12}{:>8}{:>12}{:>10}\n",
        "op", "calls", "ms", "share", "GFLOP/s", "GB/s"
    );
    for r in records {
        let share = 100.0 * r.seconds / total;
        let [gflops, gbytes] = [r.flops, r.bytes].map(|x| x / r.seconds / 1e9);
        let ms = 1e3 * r.seconds;
        let (op, calls) = (r.op, r.calls);
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "{op:<20}{calls:>8}{ms:>12.3}{share:>7.1}%{gflops:>12.1}{gbytes:>10.1}");
    }
    text
}

impl<D: Memory> Meter<D> {
    /// Bytes of an element of X and of Acc.
    fn sizes(&self) -> (usize, usize) {
        (self.device.x_format().bytes, self.device.acc_format().bytes)
    }
}

impl<D: Memory> Memory for Meter<D> {
    type X = D::X;
    type Acc = D::Acc;
    type Int = D::Int;

    fn x_format(&self) -> Format {
        self.device.x_format()
    }

    fn acc_format(&self) -> Format {
        self.device.acc_format()
    }

    fn x(&self, class: Class, len: usize) -> D::X {
        self.device.x(class, len)
    }

    fn acc(&self, class: Class, len: usize) -> D::Acc {
        self.device.acc(class, len)
    }

    fn int(&self, class: Class, len: usize) -> D::Int {
        self.device.int(class, len)
    }

    fn logit_rows(&self, vocab: usize) -> usize {
        self.device.logit_rows(vocab)
    }

    fn fault(&self) -> Option<String> {
        self.device.fault()
    }
}

impl<D: Repeats> Repeats for Meter<D> {
    type Script = D::Script;

    /// By the device's clock an op must be done when it is called: then there is time to measure.
    fn repeat(&self, script: &mut D::Script, work: &mut dyn FnMut()) {
        let number = self.repeats.fetch_add(1, Ordering::Relaxed);
        let sampled = self.sample.as_ref().is_none_or(|sample| sample.contains(&number));
        if self.clock.is_none() || !sampled {
            return self.device.repeat(script, work);
        }
        self.sampling.store(true, Ordering::Relaxed);
        work();
        self.sampling.store(false, Ordering::Relaxed);
    }
}
