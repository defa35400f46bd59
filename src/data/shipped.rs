//! The text that ships with the program: 6.2 MB of Shakespeare and Moby Dick, in the public domain
//! (`corpus/README.md`). It is part of the binary, so `warpwright pretrain` needs nothing else.

use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use super::dataset::{Dataset, Manifest};
use super::ingest::{Ingest, IngestError, TokenizerFrom};
use super::sources::{Input, Rules};

static TEXT: &[u8] = include_bytes!("../../corpus/shakespeare-moby.txt.zst");
const NAME: &str = "shakespeare-moby.txt.zst";

/// To be raised when the same text and settings would give other shards.
const RECIPE: u64 = 1;

/// The shipped text as an input of `ingest`.
pub fn input() -> Input {
    Input::Memory { name: NAME, bytes: TEXT }
}

/// Tokenizes the shipped text into `folder` with a new byte-level BPE of `vocabulary` entries,
/// holding out the share `heldout` of the documents; a folder that already holds exactly this is
/// left as it is. Returns its description, and whether it had to be made.
pub fn prepare(
    folder: &Path,
    vocabulary: usize,
    heldout: f64,
) -> Result<(Manifest, bool), IngestError> {
    let mut hash = Xxh3::new();
    hash.update(TEXT);
    for word in [RECIPE, vocabulary as u64, heldout.to_bits()] {
        hash.update(&word.to_le_bytes());
    }
    let recipe = format!("{:016x}", hash.digest());
    if let Ok(manifest) = Manifest::read(folder) {
        let made = manifest.recipe.as_ref() == Some(&recipe);
        if made && Dataset::open(folder, None).is_ok_and(|data| data.verify(u64::MAX).is_ok()) {
            return Ok((manifest, false));
        }
    }
    let ingest = Ingest {
        inputs: vec![input()],
        rules: Rules::default(),
        tokenizer: TokenizerFrom::Train { vocabulary },
        heldout,
        recipe: Some(recipe),
        replace: true,
        ..Ingest::new(folder)
    };
    Ok((ingest.run()?, true))
}
