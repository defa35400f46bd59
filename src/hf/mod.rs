//! Hugging Face directories: the model part of a checkpoint is one, and any of the five families'
//! loads here.
//!
//! `config` turns `config.json` into an [`Arch`](crate::model::arch::Arch) and back, by the keys
//! in `families`; `names` says
//! which stored tensors make up each of our parameters; `safe` reads and writes safetensors files;
//! `load` and `save` join them, a piece at a time, so that the largest model needs no second copy.

pub mod config;
mod families;
mod keys;
pub mod load;
pub mod names;
mod resize;
pub mod safe;
pub mod save;
mod task;

pub use config::{ConfigError, SpecialIds, fits_family, read_config, read_ids, write_config};
pub use load::{LoadError, LoadReport, ModelDir};
pub use names::{Piece, pieces};
pub(crate) use safe::write_error;
pub use safe::{Entry, FloatType, SafeError, SafeFile, TensorWriter, write_safetensors};
pub use save::{SaveError, put_piece, save_model};
pub use task::classifier_dropout;
