//! Subcommands, one file each.

pub mod data;
