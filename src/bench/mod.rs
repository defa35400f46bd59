//! What a GPU does with these kernels, measured so that two GPUs can be compared.
//!
//! What is timed are the very calls of a training step: a [`recorder`] stands in for the device
//! while a step runs, and each distinct [`call`] is then made ready with random data and timed
//! alone ([`timing`]). Operations and bytes are what the ops' own `cost` functions say, by way of
//! [`Meter`](crate::device::meter::Meter), so no second description of the model exists here.
//! Rates are told as shares of two ceilings measured in the same run ([`ceilings`]), and products
//! beside those of cuBLASLt, where it is found ([`peer`]).

pub mod batches;
pub mod call;
pub mod ceilings;
pub mod compare;
pub mod lengths;
pub mod measure;
pub mod page;
pub mod peer;
pub mod prepare;
pub mod recorder;
pub mod report;
pub mod step;
pub mod sweep;
pub mod timing;
pub mod tune;
