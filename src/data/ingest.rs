//! Text files to a data set: `tokenizer.json`, shards, `dataset.json`.
//!
//! Documents stream through in batches of some megabytes: while one is encoded by all cores, the
//! next is read. Shards are written in the order of the documents, so the same input gives the same
//! bytes on any machine. A document is held out if its hash falls in the fraction asked for; the
//! choice does not depend on the other documents, and copies of a document go the same way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::dataset::{DatasetError, MANIFEST, Manifest, SourceEntry, Split};
use super::files;
use super::shard::{ShardError, ShardWriter};
use super::sources::{Documents, Input, Part, Rules, SourceError};
use super::tokenizer::{Tokenizer, TokenizerError};

/// Text encoded at a time.
const BATCH_BYTES: usize = 8 << 20;

/// Text that a tokenizer is trained on at most; beyond it more text changes few merges.
const TRAINING_BYTES: u64 = 512 << 20;

/// Seed of the hash that samples documents for tokenizer training, apart from the held-out one.
const SAMPLE_SEED: u64 = 1;

/// Why a data set could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Shard(#[from] ShardError),
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{0}: holds a data set already; choose another folder, or replace it with --force")]
    Exists(PathBuf),
    #[error("{0}: the corpus is empty: no document has any text; check the input")]
    EmptyCorpus(PathBuf),
    #[error(
        "{0}: all documents were held out and none is left to train on; lower --heldout, or check \
         where documents end with --document-separator"
    )]
    NothingToTrainOn(PathBuf),
    #[error("a held-out fraction of {0} is outside [0, 1)")]
    HeldoutFraction(f64),
}

/// Where the tokenizer comes from.
#[derive(Clone, Debug)]
pub enum TokenizerFrom {
    /// A file or folder that [`Tokenizer::load`] reads.
    Path(PathBuf),
    /// Trained on the training documents: a byte-level BPE of this many entries.
    Train { vocabulary: usize },
}

/// What to tokenize, and how.
#[derive(Clone, Debug)]
pub struct Ingest {
    pub inputs: Vec<Input>,
    pub rules: Rules,
    pub tokenizer: TokenizerFrom,
    /// Share of documents held out, in [0, 1).
    pub heldout: f64,
    /// The folder to make.
    pub out: PathBuf,
    /// Replace a data set that is there.
    pub replace: bool,
    /// A shard is closed at the first document that ends at or beyond this many tokens.
    pub shard_tokens: u64,
    /// Kept in `dataset.json`.
    pub recipe: Option<String>,
    pub progress: bool,
}

impl Ingest {
    /// The defaults: a new vocabulary of 32,768, 1% held out, shards of 2^28 tokens, no bar.
    pub fn new(out: &Path) -> Self {
        Ingest {
            inputs: Vec::new(),
            rules: Rules::default(),
            tokenizer: TokenizerFrom::Train { vocabulary: 32_768 },
            heldout: 0.01,
            out: out.into(),
            replace: false,
            shard_tokens: 1 << 28,
            recipe: None,
            progress: false,
        }
    }

    /// Makes the data set. An error or a kill leaves no `dataset.json`, so nothing that opens.
    pub fn run(&self) -> Result<Manifest, IngestError> {
        if !(0.0..1.0).contains(&self.heldout) {
            return Err(IngestError::HeldoutFraction(self.heldout));
        }
        let sizes: Vec<u64> = self.inputs.iter().map(Input::size).collect::<Result<_, _>>()?;
        self.prepare_folder()?;
        let tokenizer = match &self.tokenizer {
            TokenizerFrom::Path(path) => Tokenizer::load(path)?,
            TokenizerFrom::Train { vocabulary } => self.train_tokenizer(*vocabulary, &sizes)?,
        };
        let mut manifest = Manifest::new(tokenizer.vocabulary() as u64, tokenizer.fingerprint());
        manifest.recipe = self.recipe.clone();
        let entry = |(input, bytes): (&Input, &u64)| SourceEntry {
            path: input.path().display().to_string(),
            bytes: *bytes,
            documents: 0,
        };
        manifest.sources = self.inputs.iter().zip(&sizes).map(entry).collect();
        tokenizer.save(&self.out)?;
        self.write_shards(&tokenizer, &mut manifest, sizes.iter().sum())?;
        let source = || self.inputs.first().map_or(self.out.clone(), |i| i.path().into());
        match (manifest.train.documents, manifest.heldout.documents) {
            (0, 0) => return Err(IngestError::EmptyCorpus(source())),
            (0, _) => return Err(IngestError::NothingToTrainOn(source())),
            _ => {}
        }
        let path = self.out.join(MANIFEST);
        let text = serde_json::to_vec_pretty(&manifest).expect("a manifest serialises");
        files::write(&path, &text).map_err(|source| IngestError::Io { path, source })?;
        Ok(manifest)
    }

    /// Makes the folder; removes the data set in it, its description first, if that is asked for.
    fn prepare_folder(&self) -> Result<(), IngestError> {
        let io = |path: &Path, source| IngestError::Io { path: path.into(), source };
        std::fs::create_dir_all(&self.out).map_err(|e| io(&self.out, e))?;
        let description = self.out.join(MANIFEST);
        if description.exists() {
            if !self.replace {
                return Err(IngestError::Exists(self.out.clone()));
            }
            std::fs::remove_file(&description).map_err(|e| io(&description, e))?;
        }
        for entry in std::fs::read_dir(&self.out).map_err(|e| io(&self.out, e))? {
            let path = entry.map_err(|e| io(&self.out, e))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let split = name.starts_with("train-") || name.starts_with("heldout-");
            if split && (name.ends_with(".wws") || name.ends_with(".wws.partial")) {
                std::fs::remove_file(&path).map_err(|e| io(&path, e))?;
            }
        }
        Ok(())
    }

    /// Trains on the training documents, or on a sample of them if they are many.
    fn train_tokenizer(&self, vocabulary: usize, sizes: &[u64]) -> Result<Tokenizer, IngestError> {
        let total: u64 = sizes.iter().sum();
        let keep = TRAINING_BYTES as f64 / total.max(1) as f64;
        let bar = self.bar(total, "learning the vocabulary");
        let mut failure = None;
        let (mut budget, mut kept) = (TRAINING_BYTES, false);
        let mut documents = Documents::new(&self.inputs, &self.rules, bar.clone());
        let texts = std::iter::from_fn(|| {
            loop {
                let part = match documents.next()? {
                    Ok(part) => part,
                    Err(error) => {
                        failure = Some(error);
                        return None;
                    }
                };
                if part.first {
                    let text = part.text.as_bytes();
                    let sampled = fraction(xxh3_64_with_seed(text, SAMPLE_SEED)) < keep;
                    kept = sampled && !self.is_heldout(&part);
                }
                if kept {
                    budget = budget.checked_sub(part.text.len() as u64)?;
                    return Some(part.text);
                }
            }
        });
        let tokenizer = Tokenizer::train(texts, vocabulary);
        bar.finish_and_clear();
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(tokenizer?),
        }
    }

    fn is_heldout(&self, first_part: &Part) -> bool {
        fraction(xxh3_64(first_part.text.as_bytes())) < self.heldout
    }

    fn write_shards(
        &self,
        tokenizer: &Tokenizer,
        manifest: &mut Manifest,
        total: u64,
    ) -> Result<(), IngestError> {
        let fingerprint = tokenizer.fingerprint();
        let writer = |name| SplitWriter::new(self, name, manifest.vocabulary, fingerprint);
        let (mut train, mut heldout) = (writer("train"), writer("heldout"));
        let bar = self.bar(total, "tokenizing");
        let mut documents = Documents::new(&self.inputs, &self.rules, bar.clone());
        let mut batch = next_batch(&mut documents)?;
        let mut to_heldout = false;
        while !batch.is_empty() {
            let encode = || -> Result<Vec<Vec<u32>>, TokenizerError> {
                batch.par_iter().map(|part| tokenizer.encode_document(&part.text)).collect()
            };
            let (ids, next) = rayon::join(encode, || next_batch(&mut documents));
            for (part, ids) in batch.iter().zip(ids?) {
                if part.first {
                    to_heldout = self.is_heldout(part);
                    manifest.sources[part.input].documents += 1;
                }
                let split = if to_heldout { &mut heldout } else { &mut train };
                split.write(part, &ids)?;
            }
            batch = next?;
        }
        bar.finish_and_clear();
        (manifest.train, manifest.heldout) = (train.finish()?, heldout.finish()?);
        Ok(())
    }

    fn bar(&self, bytes: u64, what: &'static str) -> ProgressBar {
        if !self.progress {
            return ProgressBar::hidden();
        }
        let template = "{msg:24} {bar:32} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
        let style = ProgressStyle::with_template(template).expect("a literal template");
        let bar = ProgressBar::new(bytes).with_style(style).with_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}

/// A hash as a number in [0, 1).
fn fraction(hash: u64) -> f64 {
    (hash >> 11) as f64 * 2f64.powi(-53)
}

/// Some megabytes of documents; empty at the end of the input.
fn next_batch(documents: &mut Documents) -> Result<Vec<Part>, SourceError> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for part in documents.by_ref() {
        let part = part?;
        bytes += part.text.len();
        batch.push(part);
        if bytes >= BATCH_BYTES {
            break;
        }
    }
    Ok(batch)
}

/// One split's shards: opened when there is something to write, closed when full.
struct SplitWriter<'a> {
    ingest: &'a Ingest,
    name: &'static str,
    vocabulary: u64,
    fingerprint: u64,
    shard: Option<ShardWriter>,
    split: Split,
}

impl<'a> SplitWriter<'a> {
    fn new(ingest: &'a Ingest, name: &'static str, vocabulary: u64, fingerprint: u64) -> Self {
        SplitWriter { ingest, name, vocabulary, fingerprint, shard: None, split: Split::default() }
    }

    fn write(&mut self, part: &Part, ids: &[u32]) -> Result<(), ShardError> {
        if self.shard.is_none() && !ids.is_empty() {
            let name = format!("{}-{:05}.wws", self.name, self.split.shards.len());
            let path = self.ingest.out.join(&name);
            self.shard = Some(ShardWriter::create(&path, self.vocabulary, self.fingerprint)?);
            self.split.shards.push(name);
        }
        // Nothing is open only if nothing has been written: a text without tokens leaves no trace.
        let Some(shard) = &mut self.shard else { return Ok(()) };
        shard.push(ids)?;
        self.split.bytes += part.text.len() as u64;
        if part.last {
            shard.end_document();
            if shard.token_count() >= self.ingest.shard_tokens {
                self.close()?;
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), ShardError> {
        if let Some(shard) = self.shard.take() {
            self.split.documents += shard.document_count();
            self.split.tokens += shard.token_count();
            shard.finish()?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Split, ShardError> {
        self.close()?;
        Ok(self.split)
    }
}
