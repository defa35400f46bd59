//! The commands, one file each: flags in, library calls, words for people out.

pub mod data;
pub mod report;
