//! warpwright: a from-scratch transformer training engine. The modules, in the order data flows.

pub mod data;
pub mod device;
pub mod hf;
pub mod model;
pub mod ops;
pub mod rng;
pub mod telemetry;
