//! `metrics.jsonl`: the whole story of a run, one JSON object a line, told apart by `"kind"`.
//!
//! Lines are appended whole, so a killed run leaves at most one torn line, its last; [`read`]
//! ignores it. Resuming from step k first drops every record of a later step, so the log of a
//! resumed run reads as if it had never stopped. JSON has no NaN or infinity: both are written as
//! null, and null reads back as NaN.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use super::{Error, Result};

/// The log's name in a run directory.
pub const FILE: &str = "metrics.jsonl";

/// How the masked word reads in [`Sample::Filled`]; the report shows it as a blank.
pub const BLANK: &str = "[MASK]";

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    Run(RunRecord),
    Train(TrainRecord),
    Eval(EvalRecord),
    Ops(OpsRecord),
    Energy(EnergyRecord),
    Note(NoteRecord),
    Samples(SamplesRecord),
}

/// What is being trained, and on what; written first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    pub preset: String,
    pub family: String,
    /// `masked` or `causal`, and the pair objective if there is one, e.g. `masked + order`.
    pub objective: String,
    pub parameters: u64,
    pub tokens_per_step: u64,
    /// Steps planned.
    pub steps: u64,
    pub device: String,
    pub threads: usize,
    /// Unix time in seconds.
    pub started: u64,
    pub version: String,
    /// Held-out loss of the unigram model [nats a token]: what knowing only word counts achieves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<f64>,
}

/// One optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainRecord {
    /// Steps taken so far, this one included: the first step is 1.
    pub step: u64,
    /// Loss of the language model alone [nats a predicted token].
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// Loss of the sentence-pair head [nats a pair].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair_loss: Option<f64>,
    #[serde(deserialize_with = "null_is_nan")]
    pub lr: f64,
    /// Global L2 norm before clipping.
    #[serde(deserialize_with = "null_is_nan")]
    pub grad_norm: f64,
    /// Tokens read since step 0.
    pub tokens: u64,
    #[serde(deserialize_with = "null_is_nan")]
    pub tokens_per_s: f64,
    /// Training time since step 0, resumes excluded.
    #[serde(deserialize_with = "null_is_nan")]
    pub seconds: f64,
    /// Steps since step 0 that changed nothing because loss or norm was not finite.
    pub skipped: u64,
}

/// One pass over held-out text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    pub step: u64,
    /// [nats a predicted token]
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// Share of predicted tokens whose likeliest guess was right, 0 to 1.
    #[serde(deserialize_with = "null_is_nan")]
    pub accuracy: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair_accuracy: Option<f64>,
    /// Tokens predicted.
    pub tokens: u64,
}

/// Time by op, summed over `steps` measured steps ending at `step`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpsRecord {
    pub step: u64,
    pub steps: u64,
    pub ops: Vec<OpTime>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpTime {
    pub op: String,
    pub calls: u64,
    #[serde(deserialize_with = "null_is_nan")]
    pub seconds: f64,
    pub flops: u64,
    /// Bytes that the op must read and write at the least.
    pub bytes: u64,
}

/// What the GPU took for all steps so far, held-out losses and checkpoints included; written after
/// a checkpoint, where it tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnergyRecord {
    pub step: u64,
    pub joules: f64,
}

/// An event in words: resumed, interrupted, a step skipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoteRecord {
    pub step: u64,
    pub text: String,
}

/// What the model makes of text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplesRecord {
    pub step: u64,
    pub items: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Sample {
    /// A sentence in which [`BLANK`] stands for one word, and the likeliest words, best first.
    Filled {
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<String>,
        guesses: Vec<Guess>,
    },
    /// What the model wrote after `prompt` (which `text` does not repeat).
    Generated { prompt: String, text: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guess {
    pub token: String,
    #[serde(deserialize_with = "null_is_nan")]
    pub probability: f64,
}

fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

impl Record {
    /// The step that the record tells of; none for the run as a whole.
    pub fn step(&self) -> Option<u64> {
        match self {
            Self::Run(_) => None,
            Self::Train(TrainRecord { step, .. })
            | Self::Eval(EvalRecord { step, .. })
            | Self::Ops(OpsRecord { step, .. })
            | Self::Energy(EnergyRecord { step, .. })
            | Self::Note(NoteRecord { step, .. })
            | Self::Samples(SamplesRecord { step, .. }) => Some(*step),
        }
    }
}

/// What a log holds.
#[derive(Debug, Default)]
pub struct Log {
    pub records: Vec<Record>,
    /// The last line was cut short and left out: the writer was killed, or is at it now.
    pub torn: bool,
}

impl Log {
    pub fn last_train(&self) -> Option<&TrainRecord> {
        self.records.iter().rev().find_map(|record| match record {
            Record::Train(train) => Some(train),
            _ => None,
        })
    }

    pub fn last_eval(&self) -> Option<&EvalRecord> {
        self.records.iter().rev().find_map(|record| match record {
            Record::Eval(eval) => Some(eval),
            _ => None,
        })
    }

    /// What all steps to this one have taken [J].
    pub fn energy(&self, step: u64) -> Option<f64> {
        self.records.iter().rev().find_map(|record| match record {
            Record::Energy(energy) if energy.step == step => Some(energy.joules),
            _ => None,
        })
    }
}

/// Reads a log, tolerating a torn last line.
///
/// # Errors
/// [`Error::Missing`], [`Error::Read`], and [`Error::Line`] for any other line that is no record.
pub fn read(path: &Path) -> Result<Log> {
    let bytes = fs::read(path).map_err(Error::read(path))?;
    let mut log = Log::default();
    for_each_line(path, &bytes, |line| match line {
        Some((_, record)) => log.records.push(record),
        None => log.torn = true,
    })?;
    Ok(log)
}

/// Calls `each` with every line and its record, and with `None` for a torn last line.
fn for_each_line(
    path: &Path,
    bytes: &[u8],
    mut each: impl FnMut(Option<(&[u8], Record)>),
) -> Result<()> {
    for (i, line) in bytes.split_inclusive(|&b| b == b'\n').enumerate() {
        match serde_json::from_slice(line) {
            Ok(record) => each(Some((line.trim_ascii_end(), record))),
            Err(_) if !line.ends_with(b"\n") => each(None),
            Err(source) => return Err(Error::Line { path: path.into(), line: i + 1, source }),
        }
    }
    Ok(())
}

/// Appends records to a log.
pub struct Metrics {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    len: u64,
}

impl Metrics {
    /// Starts an empty log, replacing any that is there.
    pub fn create(path: &Path) -> Result<Self> {
        fs::write(path, []).map_err(Error::write(path))?;
        let file = OpenOptions::new().append(true).open(path).map_err(Error::write(path))?;
        Ok(Self { path: path.into(), file, len: 0 })
    }

    /// Goes on with a log after step `step`, having dropped the records of later steps; returns
    /// those that stay. The shorter log is written beside the old one, which it then replaces.
    /// A missing log is begun anew: it is not worth losing a checkpoint over.
    pub fn resume(path: &Path, step: u64) -> Result<(Self, Log)> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            result => result.map_err(Error::read(path))?,
        };
        let (mut kept, mut log) = (Vec::with_capacity(bytes.len()), Log::default());
        for_each_line(path, &bytes, |line| match line {
            Some((line, record)) if record.step().is_none_or(|s| s <= step) => {
                kept.extend_from_slice(line);
                kept.push(b'\n');
                log.records.push(record);
            }
            Some(_) => {}
            None => log.torn = true,
        })?;
        replace(path, &kept).map_err(Error::write(path))?;
        let file = OpenOptions::new().append(true).open(path).map_err(Error::write(path))?;
        Ok((Self { path: path.into(), file, len: kept.len() as u64 }, log))
    }

    /// Writes one line, with a single call, so that readers see all of it or its torn beginning.
    /// After a failure (a full disk) the log still ends in a whole line.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_vec(record).expect("a record is always representable");
        line.push(b'\n');
        let written = self.file.write_all(&line);
        if written.is_err() {
            // Best effort: what matters is the error being returned.
            let _ = self.file.set_len(self.len);
        }
        written.map_err(Error::write(&self.path))?;
        self.len += line.len() as u64;
        Ok(())
    }
}

/// Replaces a file's contents so that a crash leaves either the old or the new, never a mixture.
fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("jsonl.partial");
    let mut file = File::create(&beside)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
