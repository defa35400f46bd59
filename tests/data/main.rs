//! The data side, from files to batches: round trips, what packing and masking promise, and every
//! way an input can be wrong.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;
use warpwright::data::dataset::{Corpus, Dataset, DatasetError, MANIFEST};
use warpwright::data::ingest::{Ingest, IngestError, TokenizerFrom};
use warpwright::data::loader::{Facts, Loader, LoaderError};
use warpwright::data::packing::{Frame, Packing};
use warpwright::data::shard::{Shard, ShardError, ShardWriter};
use warpwright::data::sources::{self, Input, Rules, Separator, SourceError};
use warpwright::data::tokenizer::{MIN_VOCABULARY, Specials, Tokenizer, TokenizerError};
use warpwright::data::{Batch, IGNORE, Masking, Objective, Pair, Unit, formats, shipped};
use warpwright::model::families;
use warpwright::rng::Philox;
use xxhash_rust::xxh3::xxh3_64;

mod batches;
mod commands;
mod configuration;
mod foreign_files;
mod ingest;
mod masks;
mod packing;
mod pairs;
mod reading;
mod shard_format;
mod tokenizers;

const VOCABULARY: u32 = 1000;
const CLS: u32 = 2;
const SEP: u32 = 3;
const MASK: u32 = 4;
const EOT: u32 = 5;
/// Ids from here on are text in the synthetic corpora.
const TEXT: u32 = 10;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).expect("a file in a temporary folder");
    path
}

fn write_shard(path: &Path, documents: &[Vec<u32>], vocabulary: u32) {
    let mut writer = ShardWriter::create(path, u64::from(vocabulary), 7).unwrap();
    for document in documents {
        writer.push(document).unwrap();
        writer.end_document();
    }
    writer.finish().unwrap();
}

/// Documents of these lengths whose tokens never repeat within 990.
fn documents(lengths: &[usize]) -> Vec<Vec<u32>> {
    let mut ids = (0..).map(|i| TEXT + i % (VOCABULARY - TEXT));
    lengths.iter().map(|&len| ids.by_ref().take(len).collect()).collect()
}

fn corpus(folder: &Path, documents: &[Vec<u32>]) -> Arc<Corpus> {
    let path = folder.join("train-00000.wws");
    write_shard(&path, documents, VOCABULARY);
    Arc::new(Corpus::open(&[path], None).unwrap())
}

fn dataset(folder: &Path, documents: &[Vec<u32>]) -> Dataset {
    let train = corpus(folder, documents);
    Dataset { heldout: Some(train.clone()), train, tokenizer: None }
}

/// Every third id begins a word; ids below `TEXT` are special.
fn facts() -> Facts {
    let (cls, sep, mask, eot) = (Some(CLS), Some(SEP), Some(MASK), Some(EOT));
    Facts {
        vocabulary: VOCABULARY,
        specials: Specials { cls, sep, mask, eot, ..Specials::default() },
        word_starts: (0..VOCABULARY).map(|id| id < TEXT || id % 3 == 0).collect(),
        special: (0..VOCABULARY).map(|id| id < TEXT).collect(),
    }
}

fn masked(unit: Unit, rate: f32) -> Objective {
    Objective::Masked { masking: Masking { rate, unit, ..Masking::default() }, pair: None }
}

fn paired(pair: Pair) -> Objective {
    Objective::Masked { masking: Masking::default(), pair: Some(pair) }
}

/// The batch with its masked tokens put back.
fn restored(batch: &Batch) -> Vec<i32> {
    let mut ids = batch.ids.clone();
    for (row, target) in batch.rows.iter().flatten().zip(&batch.targets) {
        ids[*row as usize] = *target;
    }
    ids
}
