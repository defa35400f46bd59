//! What a run says about itself, four ways, from one stream of records.
//!
//! The training loop hands each [`Record`] to [`Telemetry::record`]; it goes to `metrics.jsonl`
//! (complete, the source of the report), to a TensorBoard event file (its scalars) and to the
//! terminal (the latest figures). [`report`] turns the finished or running log into one HTML page.
//!
//! Units throughout: losses in nats a token, times in seconds, `flops` counts operations.

pub mod format;
pub mod metrics;
pub mod progress;
pub mod report;
pub(crate) mod svg;
pub mod tensorboard;

use std::io;
use std::path::{Path, PathBuf};

pub use metrics::{Log, Metrics, Record};
pub use progress::Progress;
pub use tensorboard::EventWriter;

/// Why telemetry could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "there is no {}; name a run directory, such as `warpwright pretrain` writes",
        path.display()
    )]
    Missing { path: PathBuf },
    #[error("{} holds no records yet; try again when the run has taken a step", path.display())]
    Empty { path: PathBuf },
    #[error(
        "line {line} of {} is not a record that this version knows; remove that line, \
         or use the version that wrote it", path.display()
    )]
    Line { path: PathBuf, line: usize, source: serde_json::Error },
    #[error("cannot read {}; check its permissions", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "cannot write {}; check that the folder is writable and the disk has room",
        path.display()
    )]
    Write { path: PathBuf, source: io::Error },
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn read(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path: path.into() },
            _ => Self::Read { path: path.into(), source },
        }
    }

    fn write(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Write { path: path.into(), source }
    }
}

/// Everything a training loop needs to report: the log, the event file and the terminal.
pub struct Telemetry {
    metrics: Metrics,
    events: EventWriter,
    pub progress: Progress,
}

impl Telemetry {
    /// Begins the telemetry of a run of `steps` steps in the existing directory `dir`.
    /// A `metrics.jsonl` already there is replaced.
    pub fn start(dir: &Path, steps: u64) -> Result<Self> {
        let metrics = Metrics::create(&dir.join(metrics::FILE))?;
        let events = EventWriter::create(dir)?;
        Ok(Self { metrics, events, progress: Progress::new(steps, 0) })
    }

    /// Goes on with a run whose checkpoint was taken after step `step`: what was recorded of later
    /// steps is dropped, since they will be taken again. Also returns the records that remain, so
    /// that elapsed seconds and skipped steps can be counted on from [`Log::last_train`].
    pub fn resume(dir: &Path, steps: u64, step: u64) -> Result<(Self, Log)> {
        let (metrics, log) = Metrics::resume(&dir.join(metrics::FILE), step)?;
        let events = EventWriter::resume(dir, step)?;
        let mut progress = Progress::new(steps, step);
        progress.heldout = log.last_eval().map(|eval| eval.loss);
        Ok((Self { metrics, events, progress }, log))
    }

    /// Logs one record, and shows it if it is a step, an evaluation or a note.
    pub fn record(&mut self, record: &Record) -> Result<()> {
        self.metrics.append(record)?;
        match record {
            Record::Train(train) => {
                self.events.train(train)?;
                self.progress.step(train);
            }
            Record::Eval(eval) => {
                self.events.eval(eval)?;
                self.progress.eval(eval);
            }
            Record::Note(note) => self.progress.say(&format!("step {}: {}", note.step, note.text)),
            Record::Run(_) | Record::Ops(_) | Record::Energy(_) | Record::Samples(_) => {}
        }
        Ok(())
    }
}
