//! The transformer, written once over the ops of a device.

pub mod activations;
pub mod arch;
pub mod batch;
pub mod cache;
pub mod families;
pub mod heads;
pub mod params;
pub mod task;
pub mod transformer;
