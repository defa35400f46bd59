//! warpwright: a from-scratch transformer training engine. The modules, in the order data flows.

pub mod cli;
pub mod config;

pub mod data;
pub mod rng;

pub mod device;
pub mod ops;

pub mod model;

pub mod checkpoint;
pub mod hf;
pub mod plan;
pub mod train;

pub mod bench;
pub mod card;
pub mod eval;
pub mod finetune;
pub mod generate;
pub mod logits;
pub mod predict;
pub mod telemetry;
pub mod trace;
pub mod verify;
