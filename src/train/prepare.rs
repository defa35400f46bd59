//! From a configuration to batches: finds or makes the tokens, and fits the model to them.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::thread::spawn;

use xxhash_rust::xxh3::xxh3_64;

use crate::config::{Config, ConfigError};
use crate::data::formats::GPT2_EOT;
use crate::data::ingest::{Ingest, IngestError, TokenizerFrom};
use crate::data::tokenizer::TokenizerError;
use crate::data::{
    Batch, Dataset, DatasetError, Facts, Loader, LoaderError, Manifest, Tokenizer, shipped, sources,
};
use crate::hf::{LoadError, ModelDir, SpecialIds};
use crate::model::arch::{Arch, Family, Positions};
use crate::model::batch::Capacity;

/// The data of a run, and the model that fits it.
pub struct Prepared {
    pub loader: Loader,
    pub tokenizer: Option<Tokenizer>,
    pub arch: Arch,
    pub ids: SpecialIds,
    /// Held-out batches; none where the data has no held-out part.
    pub heldout: Vec<Batch>,
    /// Held-out loss of the unigram model [nats].
    pub baseline: Option<f64>,
    /// What the user should hear about the data.
    pub notes: Vec<String>,
    /// The model that goes on learning, at the sizes of `arch`.
    pub init: Option<ModelDir>,
    /// The verdict on data that are too many to be checked before the first step.
    checking: Option<Receiver<Result<(), DatasetError>>>,
}

/// Tokens that are checked at once [bytes], in a fraction of a second.
const AT_ONCE: u64 = 256 << 20;

/// Why a run cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error(transparent)]
    Sources(#[from] sources::SourceError),
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    #[error(transparent)]
    Loader(#[from] LoaderError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(
        "model.init goes on with text of yours: --set data.text=[\"FILE\"], or data.shards=DIR of \
         `data tokenize --tokenizer MODEL`"
    )]
    NoText,
    #[error(
        "{path}: these shards are not of the tokenizer of {tokenizer}: make them with `data \
         tokenize --tokenizer {tokenizer}`, or have the model read their tokens with --tokenizer \
         {path}"
    )]
    OtherTokenizer { path: PathBuf, tokenizer: PathBuf },
}

impl Prepared {
    /// [`Prepared::open`], then [`Prepared::hold_out`].
    pub fn new(config: &Config, folder: &Path) -> Result<Prepared, PrepareError> {
        let mut data = Prepared::open(config, folder)?;
        let note = data.hold_out(config)?;
        data.notes.extend(note);
        Ok(data)
    }

    /// Opens (or, for text, first makes) the data that `config` names. `folder` is where tokens of
    /// text are kept. Makes no batch yet.
    pub fn open(config: &Config, folder: &Path) -> Result<Prepared, PrepareError> {
        Prepared::checked(config, folder, AT_ONCE)
    }

    /// The same, with training tokens of more than `at_once` bytes checked beside the run.
    pub fn checked(config: &Config, folder: &Path, at_once: u64) -> Result<Prepared, PrepareError> {
        let mut notes = Vec::new();
        let mut dataset = dataset(config, folder, &mut notes)?;
        let tokenizer = dataset.tokenizer.take();
        let mut arch = config.arch(tokenizer.as_ref().map(Tokenizer::vocabulary))?;
        let init = config.init().map(|from| init(config, &from, &arch, &mut notes)).transpose()?;
        let facts = match &tokenizer {
            Some(tokenizer) => Facts::from(tokenizer),
            None => {
                let known = (arch.vocab as u32 > GPT2_EOT).then_some(GPT2_EOT);
                Facts::bare(arch.vocab as u32, config.data.end_of_text.or(known))
            }
        };
        let specials = facts.specials;
        if let Some(init) = &init {
            arch.positions = init.arch.positions;
        } else if let (Family::Roberta, Positions::Learned { offset }, Some(pad)) =
            (arch.family, &mut arch.positions, specials.pad)
        {
            // RoBERTa counts positions from one after the padding token's id.
            *offset = pad as usize + 1;
        }
        let (micro, context) = (config.micro(), config.batch.context);
        let mut loader =
            Loader::new(&dataset, &facts, &config.objective, micro, context, config.seed)?;
        if let Some(path) = &config.data.general {
            let general = general(config, path, folder, tokenizer.as_ref())?;
            loader.mix(&general.train, config.data.general_share);
            let (documents, share) = (general.train.documents(), 100.0 * config.data.general_share);
            notes.push(format!("general data: {documents} documents, {share}% of the batches"));
            general.verify(arch.vocab as u64)?;
        }
        let epoch = loader.epoch();
        notes.push(epoch.to_string());
        let checking = check(dataset, arch.vocab as u64, at_once)?;
        let (heldout, baseline) = (Vec::new(), None);
        let ids = init.as_ref().map_or(SpecialIds::from(&specials), |init| init.ids);
        Ok(Prepared { loader, tokenizer, arch, ids, heldout, baseline, notes, init, checking })
    }

    /// What is known to be wrong with the tokens by now.
    pub fn damage(&self) -> Option<DatasetError> {
        self.checking.as_ref().and_then(|verdict| verdict.try_recv().ok()?.err())
    }

    /// What is wrong with the tokens; waits until all are checked.
    pub fn all_damage(&self) -> Option<DatasetError> {
        self.checking.as_ref().and_then(|verdict| verdict.recv().ok()?.err())
    }

    /// Makes the held-out batches and their baseline; says so where there are none.
    pub fn hold_out(&mut self, config: &Config) -> Result<Option<String>, PrepareError> {
        self.heldout = match self.loader.heldout(config.train.eval_tokens) {
            Ok(batches) => batches,
            Err(LoaderError::NoHeldout) => {
                let note = "no held-out documents: held-out losses are left out";
                return Ok(Some(note.into()));
            }
            Err(error) => return Err(error.into()),
        };
        let some = !self.heldout.is_empty();
        self.baseline = some.then(|| self.loader.unigram_nll(&self.heldout));
        Ok(None)
    }

    /// The most that a micro-batch of these data holds.
    pub fn capacity(&self, micro: usize) -> Capacity {
        let sequences = self.loader.sequence_capacity();
        let firsts = if self.arch.pair { sequences } else { 0 };
        let rows = (self.loader.row_capacity() + firsts).min(micro + firsts);
        Capacity { tokens: micro, sequences, rows, reals: 0 }
    }
}

/// Checks every token: now, or those for training beside the run if there are more than `at_once`
/// bytes.
fn check(
    dataset: Dataset,
    vocabulary: u64,
    at_once: u64,
) -> Result<Option<Receiver<Result<(), DatasetError>>>, DatasetError> {
    if dataset.bytes() <= at_once {
        dataset.verify(vocabulary)?;
        return Ok(None);
    }
    dataset.verify_heldout(vocabulary)?;
    let (sender, receiver) = channel();
    // A run that ends first needs no verdict.
    spawn(move || drop(sender.send(dataset.verify(vocabulary))));
    Ok(Some(receiver))
}

fn dataset(
    config: &Config,
    folder: &Path,
    notes: &mut Vec<String>,
) -> Result<Dataset, PrepareError> {
    let data = &config.data;
    // The tokenizer that the model's is, or is to be.
    let tokenizer = data.tokenizer.clone().or(config.init());
    if let Some(shards) = &data.shards {
        let mut dataset = Dataset::open(shards, data.end_of_text)?;
        if let Some(path) = tokenizer {
            let wanted = Tokenizer::load(&path)?;
            if dataset.check_tokenizer(wanted.fingerprint()).is_err() {
                return Err(PrepareError::OtherTokenizer { path: shards.clone(), tokenizer: path });
            }
            dataset.tokenizer = Some(wanted);
        }
        return Ok(dataset);
    }
    if data.text.is_empty() && config.init().is_some() {
        return Err(PrepareError::NoText);
    }
    if data.text.is_empty() {
        let (manifest, made) = shipped::prepare(folder, data.vocabulary, data.heldout)?;
        let what = if made { "tokenized" } else { "already tokenized" };
        let documents = manifest.train.documents + manifest.heldout.documents;
        notes.push(format!("the text that ships with the program, {what}: {documents} documents"));
        return Ok(Dataset::open(folder, None)?);
    }
    let tokenizer = match tokenizer {
        Some(path) => TokenizerFrom::Path(path),
        None => TokenizerFrom::Train { vocabulary: data.vocabulary },
    };
    tokenized(config, &data.text, tokenizer, data.heldout, folder)
}

/// Text as tokens in `folder`, made unless they are there.
fn tokenized(
    config: &Config,
    text: &[PathBuf],
    tokenizer: TokenizerFrom,
    heldout: f64,
    folder: &Path,
) -> Result<Dataset, PrepareError> {
    // The settings that the tokens there were made with.
    let settings = toml::to_string(&config.data).expect("a configuration serialises");
    let from = format!("{settings}{tokenizer:?}");
    let recipe = Some(format!("{:016x}", xxh3_64(from.as_bytes())));
    let made = Manifest::read(folder).is_ok_and(|manifest| manifest.recipe == recipe);
    if !made || Dataset::open(folder, None).is_err() {
        let ingest = Ingest {
            inputs: sources::find(text)?,
            tokenizer,
            heldout,
            replace: true,
            recipe,
            progress: true,
            ..Ingest::new(folder)
        };
        ingest.run()?;
    }
    Ok(Dataset::open(folder, None)?)
}

/// The data that are mixed among those of a run, with the same tokenizer; text becomes tokens
/// beside the run's own.
fn general(
    config: &Config,
    path: &Path,
    folder: &Path,
    tokenizer: Option<&Tokenizer>,
) -> Result<Dataset, PrepareError> {
    let of_tokens = path.extension().is_some_and(|e| e == "wws" || e == "bin");
    if of_tokens || !path.is_file() {
        match Dataset::open(path, config.data.end_of_text) {
            Err(DatasetError::NotFound(_)) => {}
            found => {
                let (found, tokenizer) = (found?, tokenizer.map(Tokenizer::fingerprint));
                tokenizer.map_or(Ok(()), |tokenizer| found.check_tokenizer(tokenizer))?;
                return Ok(found);
            }
        }
    }
    let from = config.data.tokenizer.clone().or(config.init()).or(config.data.shards.clone());
    let from = TokenizerFrom::Path(from.unwrap_or(folder.into()));
    tokenized(config, &[path.into()], from, 0.0, &folder.join("general"))
}

/// Opens the model that goes on learning and gives it the sizes of `arch`.
fn init(
    config: &Config,
    from: &Path,
    arch: &Arch,
    notes: &mut Vec<String>,
) -> Result<ModelDir, PrepareError> {
    let mut dir = ModelDir::open(from)?;
    dir.set_positions(arch.context);
    if let Some(path) = &config.data.tokenizer {
        let other = Tokenizer::load(path)?;
        let known = dir.set_tokenizer(&Tokenizer::load(from)?, &other);
        let new = other.vocabulary() - known;
        let path = path.display();
        notes.push(format!("{path}: the model knew {known} of its tokens; {new} are new to it"));
    }
    Ok(dir)
}
