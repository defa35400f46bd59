//! Devices: where tensors live and who computes on them.
//!
//! [`Memory`] says what a device stores; each op family in [`crate::ops`] adds a trait over it; a
//! [`Device`] has them all. [`cpu::Cpu`] is the reference. [`lockstep::Lockstep`] and
//! [`meter::Meter`] decorate any device, and [`null::Null`] only counts: what `plan` runs on.

pub mod cpu;
pub mod gpu;
pub mod lockstep;
pub mod meter;
pub mod null;

use serde::Serialize;

use crate::ops::attention::AttentionOps;
use crate::ops::cache::CacheOps;
use crate::ops::dropout::DropoutOps;
use crate::ops::embed::EmbedOps;
use crate::ops::gather::GatherOps;
use crate::ops::linear::LinearOps;
use crate::ops::loss::LossOps;
use crate::ops::mask::MaskOps;
use crate::ops::norm::NormOps;
use crate::ops::optimizer::OptimizerOps;
use crate::ops::reduce::ReduceOps;
use crate::ops::task::TaskOps;

/// What memory is for; the plan counts bytes by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// The stored copy that products read.
    Weights,
    /// Master weights, which the optimizer updates.
    Master,
    Gradients,
    Moments,
    Activations,
    /// What lives within one op or one layer.
    Scratch,
    /// What lives within one op and is no tensor of the model's; of GPUs.
    Workspace,
    Batch,
}

impl Class {
    /// In words.
    pub fn label(self) -> &'static str {
        match self {
            Class::Weights => "weights",
            Class::Master => "master weights",
            Class::Gradients => "gradients",
            Class::Moments => "moments",
            Class::Activations => "activations",
            Class::Scratch => "scratch",
            Class::Workspace => "workspace",
            Class::Batch => "batch",
        }
    }
}

/// A flat tensor on a device. The host sees floating-point elements as f64, which holds every
/// storage type exactly, and indices as i32.
pub trait Buffer {
    type Host: Copy + Default;

    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies `out.len()` elements from `start` on to the host; asserts that they exist.
    fn read(&self, start: usize, out: &mut [Self::Host]);

    /// Copies `values` to `start` and on, rounding to the storage type.
    fn write(&mut self, start: usize, values: &[Self::Host]);

    /// All elements.
    fn to_vec(&self) -> Vec<Self::Host> {
        let mut out = vec![Self::Host::default(); self.len()];
        self.read(0, &mut out);
        out
    }

    /// Starts to bring the few elements of a small tensor to the host, after all work so far,
    /// without waiting for it.
    fn fetch(&self) -> Fetched<Self::Host> {
        Fetched::Here(self.to_vec())
    }
}

/// Elements on their way to the host; see [`Buffer::fetch`].
pub enum Fetched<T> {
    Here(Vec<T>),
    /// Whether they have come, and what waits for them.
    Coming(Box<dyn Fn() -> bool>, Box<dyn FnOnce() -> Vec<T>>),
}

impl<T> Fetched<T> {
    /// Whether [`Fetched::wait`] would return at once.
    pub fn is_here(&self) -> bool {
        match self {
            Fetched::Here(_) => true,
            Fetched::Coming(is_here, _) => is_here(),
        }
    }

    pub fn wait(self) -> Vec<T> {
        match self {
            Fetched::Here(values) => values,
            Fetched::Coming(_, wait) => wait(),
        }
    }
}

/// How a type of number is held.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Format {
    /// Of one element.
    pub bytes: usize,
    /// Distance from 1 to the next number.
    pub epsilon: f64,
}

impl Format {
    pub const F64: Format = Format { bytes: 8, epsilon: f64::EPSILON };
    pub const F32: Format = Format { bytes: 4, epsilon: f32::EPSILON as f64 };
    pub const BF16: Format = Format { bytes: 2, epsilon: 0.007_812_5 };
}

/// What [`Memory::logit_rows`] is where a device does not say.
pub const LOGIT_ROWS: usize = 1024;

/// What a device stores. Precision belongs to the device, not to the op.
pub trait Memory {
    /// Stored and multiplied: activations, their gradients, weights.
    type X: Buffer<Host = f64>;
    /// Summed: parameter gradients, master weights, moments, statistics.
    type Acc: Buffer<Host = f64>;
    /// Token ids, positions, row numbers.
    type Int: Buffer<Host = i32>;

    fn x_format(&self) -> Format;
    fn acc_format(&self) -> Format;

    /// A tensor of `len` zeros.
    fn x(&self, class: Class, len: usize) -> Self::X;
    fn acc(&self, class: Class, len: usize) -> Self::Acc;
    fn int(&self, class: Class, len: usize) -> Self::Int;

    /// Rows of logits over a vocabulary that exist at a time, at most. The head's weight gradient
    /// is read and written once for each such chunk, so more rows are less traffic, and more
    /// scratch. A device's results depend on it.
    fn logit_rows(&self, _vocab: usize) -> usize {
        LOGIT_ROWS
    }

    /// What has stopped the device, in words, if anything has: from then on it does nothing.
    fn fault(&self) -> Option<String> {
        None
    }
}

/// Work that is done over and over, as training steps are.
pub trait Repeats: Memory {
    /// What a device keeps from one time to the next.
    type Script: Default;

    /// Does `work`, which calls ops; the host neither reads nor writes tensors in it. A device may
    /// only note the calls, and then do them all at once; it may have `work` called again for that.
    fn repeat(&self, _script: &mut Self::Script, work: &mut dyn FnMut()) {
        work();
    }
}

/// Everything that a model, its training and its evaluation need.
pub trait Device:
    Memory
    + Repeats
    + EmbedOps
    + NormOps
    + LinearOps
    + AttentionOps
    + CacheOps
    + GatherOps
    + DropoutOps
    + LossOps
    + TaskOps
    + MaskOps
    + ReduceOps
    + OptimizerOps
{
}

impl<D> Device for D where
    D: Memory
        + Repeats
        + EmbedOps
        + NormOps
        + LinearOps
        + AttentionOps
        + CacheOps
        + GatherOps
        + DropoutOps
        + LossOps
        + TaskOps
        + MaskOps
        + ReduceOps
        + OptimizerOps
{
}
