//! A data set: the documents of a training split and a held-out split, each over several shards.
//!
//! A folder of ours holds `dataset.json`, `tokenizer.json`, `train-NNNNN.wws`, `heldout-NNNNN.wws`.
//! `dataset.json` is written last, so a folder without it was cut short and is refused. A folder
//! of llm.c or nanoGPT files holds `*train*.bin` and perhaps `*val*.bin`; a single file will do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::formats;
use super::shard::{Shard, ShardError, Tokens};
use super::tokenizer::{Tokenizer, TokenizerError};

pub const MANIFEST: &str = "dataset.json";
const MANIFEST_VERSION: u32 = 1;

/// Why a data set does not open.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Shard(#[from] ShardError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(
        "{0}: shards but no dataset.json, so tokenizing them was interrupted; run `warpwright data \
         tokenize` again"
    )]
    Unfinished(PathBuf),
    #[error(
        "{0}: no data set here (dataset.json with its shards, or *train*.bin of llm.c or nanoGPT); \
         make one with `warpwright data tokenize`"
    )]
    NotFound(PathBuf),
    #[error("{path}: not a data set description: {reason}; tokenize again")]
    Manifest { path: PathBuf, reason: String },
    #[error("{path}: data set version {found}, this program reads {known}; update the program")]
    Version { path: PathBuf, found: u32, known: u32 },
    #[error("{0}: holds no documents; check the text that it was made from")]
    Empty(PathBuf),
    #[error(
        "{path}: made with another tokenizer (fingerprint {shard:016x}, the tokenizer's is \
         {tokenizer:016x}); use the tokenizer.json beside the shards, or tokenize again"
    )]
    OtherTokenizer { path: PathBuf, shard: u64, tokenizer: u64 },
}

/// `dataset.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub version: u32,
    /// Program version that wrote it.
    pub written_by: String,
    pub vocabulary: u64,
    /// The tokenizer's fingerprint, hexadecimal.
    pub fingerprint: String,
    /// Hash of the text and the settings, where the text is the program's own.
    pub recipe: Option<String>,
    pub train: Split,
    pub heldout: Split,
    pub sources: Vec<SourceEntry>,
}

/// One split's counts and files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    pub documents: u64,
    pub tokens: u64,
    /// Bytes of text.
    pub bytes: u64,
    /// File names in the folder, in order.
    pub shards: Vec<String>,
}

/// One input file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceEntry {
    pub path: String,
    /// Bytes as stored.
    pub bytes: u64,
    pub documents: u64,
}

impl Manifest {
    pub fn new(vocabulary: u64, fingerprint: u64) -> Self {
        Manifest {
            version: MANIFEST_VERSION,
            written_by: concat!("warpwright ", env!("CARGO_PKG_VERSION")).into(),
            vocabulary,
            fingerprint: format!("{fingerprint:016x}"),
            recipe: None,
            train: Split::default(),
            heldout: Split::default(),
            sources: Vec::new(),
        }
    }

    /// Reads `folder`'s `dataset.json`.
    pub fn read(folder: &Path) -> Result<Self, DatasetError> {
        let path = folder.join(MANIFEST);
        let text = std::fs::read(&path)
            .map_err(|source| DatasetError::Io { path: path.clone(), source })?;
        let unreadable = |e: serde_json::Error| DatasetError::Manifest {
            path: path.clone(),
            reason: e.to_string(),
        };
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(unreadable)?;
        let version = value.get("version").and_then(|v| v.as_u64()).unwrap_or(0) as u32;
        if version > MANIFEST_VERSION {
            return Err(DatasetError::Version { path, found: version, known: MANIFEST_VERSION });
        }
        serde_json::from_value(value).map_err(unreadable)
    }
}

/// The documents of one split, numbered through its shards.
#[derive(Debug)]
pub struct Corpus {
    shards: Vec<Shard>,
    /// `[shards + 1]` number of each shard's first document.
    first: Vec<u64>,
    tokens: u64,
}

impl Corpus {
    /// Opens shards of any known kind; `eot` as for [`formats::open`].
    pub fn open(paths: &[PathBuf], eot: Option<u32>) -> Result<Self, DatasetError> {
        Self::of(paths.iter().map(|path| formats::open(path, eot)).collect::<Result<_, _>>()?)
    }

    /// Of open shards, one at least.
    pub fn of(shards: Vec<Shard>) -> Result<Self, DatasetError> {
        let mut first = vec![0];
        for shard in &shards {
            first.push(first[first.len() - 1] + shard.document_count());
        }
        let mut corpus = Corpus { shards, first, tokens: 0 };
        corpus.tokens = corpus.lengths().sum();
        match corpus.shards.first() {
            Some(shard) if corpus.documents() == 0 => Err(DatasetError::Empty(shard.path().into())),
            _ => Ok(corpus),
        }
    }

    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    pub fn documents(&self) -> u64 {
        self.first[self.shards.len()]
    }

    /// Tokens of all documents.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Tokens of each document, in order.
    pub fn lengths(&self) -> impl Iterator<Item = u64> + '_ {
        self.shards.iter().flat_map(|shard| {
            (0..shard.document_count()).map(|i| {
                let range = shard.document(i);
                range.end - range.start
            })
        })
    }

    /// Tokens of document `i`.
    pub fn length(&self, i: u64) -> u64 {
        let (shard, i) = self.locate(i);
        let range = shard.document(i);
        range.end - range.start
    }

    /// Tokens `begin..begin + len` of document `i`.
    pub fn document_part(&self, i: u64, begin: u64, len: u64) -> Tokens<'_> {
        let (shard, i) = self.locate(i);
        let range = shard.document(i);
        assert!(begin + len <= range.end - range.start, "{begin} + {len} in document {range:?}");
        shard.tokens(range.start + begin..range.start + begin + len)
    }

    pub fn document(&self, i: u64) -> Tokens<'_> {
        self.document_part(i, 0, self.length(i))
    }

    fn locate(&self, i: u64) -> (&Shard, u64) {
        let shard = self.first.partition_point(|&first| first <= i) - 1;
        (&self.shards[shard], i - self.first[shard])
    }

    /// How often each id below `vocabulary` occurs: `[vocabulary]`. Of a large corpus, in one block
    /// of a million tokens out of every so many, `blocks` in all at most.
    pub fn counts(&self, vocabulary: usize, blocks: usize) -> Vec<u64> {
        let block = 1 << 20;
        let all: u64 = self.shards.iter().map(|shard| shard.token_count().div_ceil(block)).sum();
        let every = (all as usize).div_ceil(blocks).max(1);
        let blocks = self.shards.iter().flat_map(|shard| {
            let tokens = shard.token_count();
            (0..tokens)
                .step_by(block as usize)
                .map(move |at| shard.tokens(at..tokens.min(at + block)))
        });
        let add = |mut counts: Vec<u64>, tokens: Tokens| {
            for token in (0..tokens.len()).map(|i| tokens.get(i) as usize) {
                counts.get_mut(token).into_iter().for_each(|count| *count += 1);
            }
            counts
        };
        let zero = || vec![0; vocabulary];
        blocks.step_by(every).par_bridge().fold(zero, add).reduce(zero, |mut a, b| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            a
        })
    }
}

/// A training split, perhaps a held-out one, and the tokenizer beside them.
pub struct Dataset {
    pub train: Arc<Corpus>,
    pub heldout: Option<Arc<Corpus>>,
    /// `None` for foreign files with no tokenizer beside them.
    pub tokenizer: Option<Tokenizer>,
}

impl Dataset {
    /// Opens a folder, or a single token file as the training split; `eot` as for
    /// [`formats::open`]. Checks headers, sizes, boundaries and the tokenizer's fingerprint;
    /// the tokens themselves are checked by [`Self::verify`].
    pub fn open(path: &Path, eot: Option<u32>) -> Result<Self, DatasetError> {
        let (train, heldout) = split_files(path)?;
        // The parent of a bare file name is an empty path.
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        let folder = if path.is_dir() { path } else { parent.unwrap_or(Path::new(".")) };
        let tokenizer = match Tokenizer::load(folder) {
            Ok(tokenizer) => Some(tokenizer),
            Err(TokenizerError::NotFound(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let train = Arc::new(Corpus::open(&train, eot)?);
        let heldout = match heldout.as_slice() {
            [] => None,
            paths => Some(Arc::new(Corpus::open(paths, eot)?)),
        };
        let dataset = Dataset { train, heldout, tokenizer };
        if let Some(tokenizer) = &dataset.tokenizer {
            dataset.check_tokenizer(tokenizer.fingerprint())?;
        }
        Ok(dataset)
    }

    /// All shards of both splits.
    pub fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.train.shards().iter().chain(self.heldout.iter().flat_map(|c| c.shards()))
    }

    /// Refuses shards that another tokenizer made.
    pub fn check_tokenizer(&self, tokenizer: u64) -> Result<(), DatasetError> {
        let made_by = |shard: &&Shard| shard.fingerprint().is_some_and(|f| f != tokenizer);
        match self.shards().find(made_by) {
            None => Ok(()),
            Some(shard) => Err(DatasetError::OtherTokenizer {
                path: shard.path().into(),
                shard: shard.fingerprint().unwrap_or_default(),
                tokenizer,
            }),
        }
    }

    /// Of all tokens.
    pub fn bytes(&self) -> u64 {
        self.shards().map(|shard| shard.token_count() * shard.width() as u64).sum()
    }

    /// Reads every token: checksums hold, and each is below `vocabulary` (the model's). Once a run.
    pub fn verify(&self, vocabulary: u64) -> Result<(), DatasetError> {
        let shards: Vec<&Shard> = self.shards().collect();
        Ok(shards.par_iter().try_for_each(|shard| shard.verify_below(vocabulary))?)
    }

    /// The same of the held-out split alone.
    pub fn verify_heldout(&self, vocabulary: u64) -> Result<(), DatasetError> {
        let mut shards = self.heldout.iter().flat_map(|corpus| corpus.shards());
        Ok(shards.try_for_each(|shard| shard.verify_below(vocabulary))?)
    }
}

/// The files of the training and the held-out split at `path`.
fn split_files(path: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), DatasetError> {
    if path.is_file() {
        return Ok((vec![path.into()], Vec::new()));
    }
    if path.join(MANIFEST).is_file() {
        let manifest = Manifest::read(path)?;
        let [train, heldout] = [&manifest.train, &manifest.heldout]
            .map(|split| split.shards.iter().map(|name| path.join(name)).collect::<Vec<_>>());
        return match train.is_empty() {
            true => Err(DatasetError::Empty(path.into())),
            false => Ok((train, heldout)),
        };
    }
    let entries = std::fs::read_dir(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => DatasetError::NotFound(path.into()),
        _ => DatasetError::Io { path: path.into(), source },
    })?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let named = |part: &str, extension: &str| -> Vec<PathBuf> {
        let matches = |file: &&PathBuf| {
            let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            stem.contains(part) && file.extension().is_some_and(|e| e == extension)
        };
        files.iter().filter(matches).cloned().collect()
    };
    if !named("", "wws").is_empty() {
        return Err(DatasetError::Unfinished(path.into()));
    }
    match named("train", "bin") {
        train if train.is_empty() => Err(DatasetError::NotFound(path.into())),
        train => Ok((train, named("val", "bin"))),
    }
}
