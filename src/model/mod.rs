//! The transformer, written once over the ops of a device.

pub mod arch;
pub mod families;
pub mod params;
