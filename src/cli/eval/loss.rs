//! `warpwright eval loss`: a model's loss on text.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::{Job, ModelArgs, OutArgs, bar, conclude, on_device};
use crate::config::Config;
use crate::data::dataset::{MANIFEST, Split};
use crate::data::shard::Shard;
use crate::data::sources::{self, Documents, Rules, Separator};
use crate::data::{Batch, Corpus, Dataset, Facts, Loader, Manifest, Masking, Objective, Tokenizer};
use crate::device::Device;
use crate::eval::TOKENS;
use crate::eval::loss::{Losses, Windows, losses};
use crate::eval::results::{Measured, Results};
use crate::predict::{NotFinite, Predictor};

/// Loss, perplexity and, of a causal model, bits a byte of text
///
/// Causal: each document after <|endoftext|>, every token predicted once, in windows as long as the
/// context that move on by --stride. With a stride as long as the context these are
/// lm-evaluation-harness' rolling windows; a shorter one shows the model more of what came before,
/// at the price of reading it again.
///
/// Masked: the mean loss of masked tokens (15%; 80% [MASK], 10% random, 10% kept) under the fixed
/// masks and order of validation. Of a run with its own data this is the loss that its log has as
/// held-out. It is no perplexity of the text: see `score` for pseudo-log-likelihoods.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    warpwright eval loss --model runs/masked\n  \
    warpwright eval loss --model gpt2 --text book.txt --stride 512\n  \
    warpwright eval loss --model gpt2 --shards fineweb_val_000000.bin --tokens 1000000")]
pub struct LossArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Text files or folders, as `data tokenize` reads them
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "shards")]
    pub text: Vec<PathBuf>,
    /// Where a document ends in a .txt file, as for `data tokenize`
    #[arg(long, value_name = "RULE", default_value = "blanks")]
    pub document_separator: String,
    /// A folder that `data tokenize` made, or a token file [default: of a run, its own data]
    #[arg(long, value_name = "PATH")]
    pub shards: Option<PathBuf>,
    /// Which part of shards [default: held-out, where there is one]
    #[arg(long, value_enum)]
    pub split: Option<Part>,
    /// The longest sequence [default: of a run, what it was trained with; else the model's]
    #[arg(long, value_name = "TOKENS")]
    pub context: Option<usize>,
    /// Of a causal model: how far windows move on [default: the context]
    #[arg(long, value_name = "TOKENS")]
    pub stride: Option<usize>,
    /// Only the first documents, or batches, that have so many tokens
    #[arg(long, value_name = "N")]
    pub tokens: Option<u64>,
    #[command(flatten)]
    pub out: OutArgs,
}

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
pub enum Part {
    Train,
    Heldout,
}

/// Measures and tells.
pub fn run(args: &LossArgs) -> Result<()> {
    ensure!(args.tokens != Some(0), "--tokens 0 leaves nothing to read");
    conclude(&on_device(&args.model, args)?, &args.out)
}

/// What there is to read.
struct Read {
    corpus: Arc<Corpus>,
    /// Of text, where that is known.
    bytes_a_token: Option<f64>,
    name: String,
}

/// How it is read.
struct How {
    objective: Objective,
    context: usize,
    /// Tokens of a masked batch.
    batch: usize,
}

impl Job for LossArgs {
    fn run<D: Device>(&self, predictor: &Predictor<D>) -> Result<Results> {
        let arch = &predictor.model.arch;
        let file = self.model.model.join("config.toml");
        let config = if file.exists() { Some(Config::read(&file)?) } else { None };
        let read = self.read(&predictor.tokenizer, config.as_ref())?;
        for shard in read.corpus.shards() {
            shard.verify_below(arch.vocab as u64)?;
        }
        let trained = config.as_ref().map(|config| config.batch.context);
        let context = self.context.or(trained).unwrap_or(arch.context);
        ensure!(
            (2..=arch.context).contains(&context),
            "--context {context}: the model takes 2 to {}",
            arch.context
        );
        let masked = Objective::Masked { masking: Masking::default(), pair: None };
        let objective = config.as_ref().map_or(masked, |config| config.objective);
        let batch = config.as_ref().map_or(TOKENS, Config::micro).max(context);
        let how = How { objective, context, batch };
        let (found, settings) = match arch.causal {
            true => self.windows(predictor, &read, &how)?,
            false => self.masks(predictor, &read, &how)?,
        };
        ensure!(found.tokens > 0.0, "{}: no token to predict", read.name);
        NotFinite::unless([found.nll].into_iter())?;
        let mut metrics = vec![
            Measured::plain("loss [nats a token]", found.mean()),
            Measured::plain("perplexity", found.mean().exp()),
            Measured::plain("accuracy", found.accuracy()),
        ];
        // Of a part's bytes nothing is known.
        let whole = settings["documents"] == read.corpus.lengths().count();
        if let (Some(bytes), true) = (read.bytes_a_token, whole) {
            metrics.push(Measured::plain("bits a byte", found.bits_a_byte(bytes * found.tokens)));
        }
        Ok(Results {
            task: "loss",
            model: Some(self.model.model.display().to_string()),
            data: read.name,
            examples: found.tokens as usize,
            unit: "tokens",
            metrics,
            settings,
            rows: vec![],
        })
    }
}

impl LossArgs {
    fn windows<D: Device>(
        &self,
        predictor: &Predictor<D>,
        read: &Read,
        how: &How,
    ) -> Result<(Losses, Value)> {
        let (context, stride) = (how.context, self.stride.unwrap_or(how.context));
        ensure!(
            (1..=context).contains(&stride),
            "--stride {stride}: give 1 to {context}, the context"
        );
        let (corpus, mut documents, mut tokens) = (&read.corpus, 0, 0);
        for length in corpus.lengths() {
            if tokens >= self.tokens.unwrap_or(u64::MAX) {
                break;
            }
            (documents, tokens) = (documents + 1, tokens + length);
        }
        let eot = predictor.tokenizer.specials().eot;
        let windows = Windows::new(corpus, documents, eot, context as u64, stride as u64);
        let settings = json!({
            "method": "windows",
            "context": context,
            "stride": stride,
            "documents": documents,
            "end_of_text_first": eot.is_some(),
        });
        Ok((measured(predictor, windows.batches(), tokens), settings))
    }

    fn masks<D: Device>(
        &self,
        predictor: &Predictor<D>,
        read: &Read,
        how: &How,
    ) -> Result<(Losses, Value)> {
        ensure!(
            self.stride.is_none(),
            "--stride is for causal models: a masked one has no windows"
        );
        let Objective::Masked { masking, pair } = how.objective else {
            bail!("the run's objective is causal, its model is not");
        };
        let (train, heldout) = (read.corpus.clone(), Some(read.corpus.clone()));
        let dataset = Dataset { train, heldout, tokenizer: None };
        let facts = Facts::from(&predictor.tokenizer);
        let loader = Loader::new(&dataset, &facts, &how.objective, how.batch, how.context, 0)?;
        let batches = loader.heldout(self.tokens.unwrap_or(u64::MAX))?;
        let settings = json!({
            "method": "masks",
            "context": how.context,
            "batch": how.batch,
            "masking": masking,
            "pair": pair,
        });
        let tokens = batches.iter().map(|batch| batch.labelled() as u64).sum();
        Ok((measured(predictor, batches.into_iter(), tokens), settings))
    }

    /// Text as tokens, or tokens as they lie.
    fn read(&self, tokenizer: &Tokenizer, config: Option<&Config>) -> Result<Read> {
        if !self.text.is_empty() {
            return self.tokenized(tokenizer);
        }
        let own = || {
            let data = &config?.data;
            Some(data.shards.clone().unwrap_or_else(|| self.model.model.join("data")))
        };
        let path = self.shards.clone().or_else(own);
        let path =
            path.context("give --text FILE or --shards PATH: a model's folder has no data")?;
        let Dataset { train, heldout, .. } = self.open(&path, tokenizer, config)?;
        let manifest = match path.join(MANIFEST).exists() {
            true => Some(Manifest::read(&path)?),
            false => None,
        };
        let (corpus, split, part) = match (self.split, heldout) {
            (Some(Part::Heldout), None) => {
                bail!("{} has no held-out part: leave out --split", path.display())
            }
            (None | Some(Part::Heldout), Some(heldout)) => {
                (heldout, manifest.map(|m| m.heldout), "held-out")
            }
            _ => (train, manifest.map(|m| m.train), "training"),
        };
        let ratio = |split: Split| split.bytes as f64 / split.tokens as f64;
        let name = format!("{} ({part})", path.display());
        Ok(Read { corpus, bytes_a_token: split.map(ratio), name })
    }

    fn open(&self, path: &Path, tokenizer: &Tokenizer, config: Option<&Config>) -> Result<Dataset> {
        let eot = config.and_then(|config| config.data.end_of_text);
        let dataset = Dataset::open(path, eot)?;
        dataset.check_tokenizer(tokenizer.fingerprint())?;
        Ok(dataset)
    }

    fn tokenized(&self, tokenizer: &Tokenizer) -> Result<Read> {
        let inputs = sources::find(&self.text)?;
        let separator: Separator = self.document_separator.parse()?;
        let rules = Rules { separator, ..Rules::default() };
        let (mut documents, mut bytes): (Vec<Vec<u32>>, _) = (vec![], 0);
        for part in Documents::new(&inputs, &rules, ProgressBar::hidden()) {
            let part = part?;
            let ids = tokenizer.encode_document(&part.text)?;
            bytes += part.text.len();
            match documents.last_mut().filter(|_| !part.first) {
                Some(document) => document.extend(ids),
                None => documents.push(ids),
            }
        }
        documents.retain(|ids| !ids.is_empty());
        let names: Vec<String> = self.text.iter().map(|path| path.display().to_string()).collect();
        let name = names.join(", ");
        let corpus = Corpus::of(vec![Shard::of_documents(Path::new(&name), &documents)?])?;
        let bytes_a_token = Some(bytes as f64 / corpus.tokens() as f64);
        Ok(Read { corpus: Arc::new(corpus), bytes_a_token, name })
    }
}

/// The losses, with a bar.
fn measured<D: Device>(
    predictor: &Predictor<D>,
    batches: impl Iterator<Item = Batch>,
    tokens: u64,
) -> Losses {
    let bar = bar(tokens);
    let found = losses(&predictor.dev, &predictor.model, batches, |so_far| {
        bar.set_position(so_far.tokens as u64);
        bar.set_message(format!("loss {:.4}", so_far.mean()));
    });
    bar.finish_and_clear();
    found
}
