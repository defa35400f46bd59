//! From a configuration to batches: finds or makes the tokens, and fits the model to them.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread::spawn;

use xxhash_rust::xxh3::xxh3_64;

use crate::config::{Config, ConfigError};
use crate::data::formats::GPT2_EOT;
use crate::data::ingest::{Ingest, IngestError, TokenizerFrom};
use crate::data::tokenizer::Specials;
use crate::data::{
    Batch, Dataset, DatasetError, Facts, Loader, LoaderError, Manifest, Tokenizer, shipped, sources,
};
use crate::hf::SpecialIds;
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
        let facts = match &tokenizer {
            Some(tokenizer) => Facts::from(tokenizer),
            None => {
                let known = (arch.vocab as u32 > GPT2_EOT).then_some(GPT2_EOT);
                Facts::bare(arch.vocab as u32, config.data.end_of_text.or(known))
            }
        };
        let specials = facts.specials;
        if let (Family::Roberta, Positions::Learned { offset }, Some(pad)) =
            (arch.family, &mut arch.positions, specials.pad)
        {
            // RoBERTa counts positions from one after the padding token's id.
            *offset = pad as usize + 1;
        }
        let (micro, context) = (config.micro(), config.batch.context);
        let loader = Loader::new(&dataset, &facts, &config.objective, micro, context, config.seed)?;
        let epoch = loader.epoch();
        notes.push(epoch.to_string());
        let checking = check(dataset, arch.vocab as u64, at_once)?;
        let (heldout, baseline, ids) = (Vec::new(), None, ids(&specials));
        Ok(Prepared { loader, tokenizer, arch, ids, heldout, baseline, notes, checking })
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
    if let Some(shards) = &data.shards {
        return Ok(Dataset::open(shards, data.end_of_text)?);
    }
    if data.text.is_empty() {
        let (manifest, made) = shipped::prepare(folder, data.vocabulary, data.heldout)?;
        let what = if made { "tokenized" } else { "already tokenized" };
        let documents = manifest.train.documents + manifest.heldout.documents;
        notes.push(format!("the text that ships with the program, {what}: {documents} documents"));
        return Ok(Dataset::open(folder, None)?);
    }
    // The settings that the tokens there were made with.
    let settings = toml::to_string(data).expect("a configuration serialises");
    let recipe = Some(format!("{:016x}", xxh3_64(settings.as_bytes())));
    let made = Manifest::read(folder).is_ok_and(|manifest| manifest.recipe == recipe);
    if !made || Dataset::open(folder, None).is_err() {
        let ingest = Ingest {
            inputs: sources::find(&data.text)?,
            tokenizer: TokenizerFrom::Train { vocabulary: data.vocabulary },
            heldout: data.heldout,
            replace: true,
            recipe,
            progress: true,
            ..Ingest::new(folder)
        };
        ingest.run()?;
    }
    Ok(Dataset::open(folder, None)?)
}

/// The special tokens as a `config.json` names them.
fn ids(specials: &Specials) -> SpecialIds {
    let id = |id: Option<u32>| id.map(|id| id as usize);
    SpecialIds {
        bos: id(specials.eot),
        eos: id(specials.eot),
        pad: id(specials.pad),
        cls: id(specials.cls),
        sep: id(specials.sep),
        mask: id(specials.mask),
    }
}
