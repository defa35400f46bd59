//! The training loop: batches in, steps, held-out losses, checkpoints, and a clean way to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Instant;

use super::folder::RunFolder;
use super::prepare::Prepared;
use super::step::{Outcome, Pending, StepKey, Trainer};
use crate::checkpoint::{self, CheckpointError, Contents, Progress};
use crate::config::Config;
use crate::data::{Batch, DatasetError};
use crate::device::meter::Meter;
use crate::device::{Device, Memory};
use crate::hf::{FloatType, LoadError, LoadReport};
use crate::ops::optimizer::Update;
use crate::telemetry::metrics::{
    EnergyRecord, EvalRecord, NoteRecord, OpTime, OpsRecord, TrainRecord,
};
use crate::telemetry::{self, Record, Telemetry};

/// Steps of batches made ahead of the step that runs.
const AHEAD: usize = 2;

/// Everything that a run needs besides the device.
pub struct Run<'a> {
    pub config: &'a Config,
    pub folder: &'a RunFolder,
    pub data: &'a Prepared,
    /// How the device's `Acc` is stored.
    pub dtype: FloatType,
    /// Raised by Ctrl-C.
    pub stop: &'a AtomicBool,
    /// What the device has taken since some moment [J]; None: not told.
    pub energy: &'a dyn Fn() -> Option<f64>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    Done,
    /// After this step, with a checkpoint taken.
    Interrupted(u64),
}

/// What stops a run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Telemetry(#[from] telemetry::Error),
    #[error("{0}; the checkpoints are whole: go on with --resume")]
    Device(String),
    #[error("the training data are damaged: {0}. What was trained on them is in doubt")]
    Data(#[from] DatasetError),
    #[error(
        "{count} steps in a row had a loss or gradient that is not finite (the last at step \
         {step}); nothing was changed by them. In the run's config.toml lower schedule.peak, \
         lengthen schedule.warmup or set train.clip, then go on from the last checkpoint with \
         --resume; or start again"
    )]
    NotFinite { count: u64, step: u64 },
}

/// A run in progress.
pub struct Session<'a, D: Device> {
    dev: &'a Meter<D>,
    run: &'a Run<'a>,
    pub trainer: Trainer<Meter<D>>,
    /// Up to the last step whose outcome is known.
    progress: Progress,
    /// The step after it, if the device works on it, and its learning rate.
    running: Option<(Pending, f64)>,
    pub telemetry: Telemetry,
    /// When the step that runs began.
    since: Instant,
    /// When the program was launched; None once its first step is done.
    pub launched: Option<Instant>,
    /// The step of the newest checkpoint.
    saved: Option<u64>,
    /// What the device had taken [J] where this run had taken nothing yet.
    energy_before: Option<f64>,
    /// The step of the newest samples in the log.
    pub sampled: Option<u64>,
}

impl<'a, D: Device> Session<'a, D> {
    /// Starts anew: weights drawn from the seed, or those of a model that goes on learning.
    pub fn start(
        dev: &'a Meter<D>,
        run: &'a Run<'a>,
        mut trainer: Trainer<Meter<D>>,
    ) -> Result<Self, RunError> {
        trainer.initialise(dev, run.config.seed);
        let report =
            run.data.init.as_ref().map(|dir| trainer.take_weights(dev, dir)).transpose()?;
        let telemetry = Telemetry::start(&run.folder.path, run.config.train.steps)?;
        let mut session = Session::of(dev, run, trainer, Progress::default(), telemetry);
        if let Some(LoadReport { missing, leftover, .. }) = report {
            for (what, names) in [("drawn at random", missing), ("left out", leftover)] {
                if !names.is_empty() {
                    session.note(format!("of the model, {what}: {}", names.join(", ")))?;
                }
            }
        }
        Ok(session)
    }

    /// Goes on from the newest whole checkpoint, or anew where a run was stopped before its first.
    pub fn resume(
        dev: &'a Meter<D>,
        run: &'a Run<'a>,
        mut trainer: Trainer<Meter<D>>,
    ) -> Result<Self, RunError> {
        let checkpoints = run.folder.checkpoints();
        let found = match checkpoint::newest(&checkpoints) {
            Err(CheckpointError::None(_)) => None,
            Err(CheckpointError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                None
            }
            found => Some(found?),
        };
        let Some((dir, progress, passed_over)) = found else {
            return Session::start(dev, run, trainer);
        };
        let config = run.config;
        checkpoint::load(dev, &mut trainer, &dir, &progress, config.chance())?;
        checkpoint::settle(&checkpoints, &progress, config.train.keep)?;
        let steps = config.train.steps;
        let (telemetry, log) = Telemetry::resume(&run.folder.path, steps, progress.step)?;
        let taken = log.energy(progress.step);
        let mut session = Session::of(dev, run, trainer, progress, telemetry);
        session.energy_before = session.energy_before.zip(taken).map(|(now, taken)| now - taken);
        session.sampled = log.records.iter().rev().find_map(|record| match record {
            Record::Samples(samples) => Some(samples.step),
            _ => None,
        });
        for what in passed_over {
            session.note(format!("a checkpoint was passed over: {what}"))?;
        }
        session.note(format!("resumed from {}", dir.display()))?;
        Ok(session)
    }

    fn of(
        dev: &'a Meter<D>,
        run: &'a Run<'a>,
        trainer: Trainer<Meter<D>>,
        progress: Progress,
        mut telemetry: Telemetry,
    ) -> Self {
        telemetry.progress.baseline = run.data.baseline;
        let saved = (progress.step > 0).then_some(progress.step);
        Session {
            dev,
            run,
            trainer,
            progress,
            running: None,
            telemetry,
            since: Instant::now(),
            launched: None,
            saved,
            energy_before: (run.energy)(),
            sampled: None,
        }
    }

    /// Steps taken, those of earlier sessions included.
    pub fn step(&self) -> u64 {
        self.progress.step
    }

    /// The latest held-out loss [nats].
    pub fn heldout(&self) -> Option<f64> {
        self.progress.heldout
    }

    /// Takes all steps that are left, or those until `stop` is raised.
    pub fn train(&mut self) -> Result<End, RunError> {
        let config = self.run.config;
        let (first, steps) = (self.progress.step, config.train.steps);
        if first == 0 && !self.run.data.heldout.is_empty() {
            self.evaluate()?;
        }
        self.dev.reset();
        let micros = config.passes() as u64;
        let (loader, masks) = (&self.run.data.loader, self.trainer.masks());
        let batch = move |k| if masks { loader.unmasked(k) } else { loader.batch(k) };
        let vocabulary = self.run.data.arch.vocab as i32;
        let is_sound = move |batch: &Batch| batch.ids.iter().all(|&id| id < vocabulary);
        let end = thread::scope(|scope| -> Result<End, RunError> {
            let (sender, receiver) = sync_channel::<Vec<Batch>>(AHEAD);
            scope.spawn(move || {
                for step in first..steps {
                    let of_step = step * micros..(step + 1) * micros;
                    let batches: Vec<Batch> = of_step.map(batch).collect();
                    // The other end hangs up when the run stops early.
                    if !batches.iter().all(is_sound) || sender.send(batches).is_err() {
                        return;
                    }
                }
            });
            self.since = Instant::now();
            for batches in receiver {
                if self.run.stop.load(Ordering::Relaxed) {
                    self.settle()?;
                    return Ok(End::Interrupted(self.progress.step));
                }
                if let Some(damage) = self.run.data.damage() {
                    return Err(damage.into());
                }
                self.take_step(&batches)?;
            }
            self.settle()?;
            if self.progress.step < steps
                && let Some(damage) = self.run.data.all_damage()
            {
                return Err(damage.into());
            }
            Ok(End::Done)
        })?;
        if let End::Interrupted(step) = end {
            if step > 0 {
                self.checkpoint()?;
            }
            self.note("interrupted".into())?;
        }
        self.record_ops(self.dev.measured(self.progress.step - first))?;
        Ok(end)
    }

    /// Starts a step, and does all that is due after it. What came of the step before is looked
    /// at only now, so that the device has work while the host does this.
    fn take_step(&mut self, batches: &[Batch]) -> Result<(), RunError> {
        let config = self.run.config;
        let train = &config.train;
        let step = self.progress.step + u64::from(self.running.is_some());
        let lr = config.schedule.at(step, train.steps);
        let clip = if train.clip > 0.0 { train.clip } else { f64::INFINITY };
        let update = Update { rule: config.optimizer, lr, clip, stochastic: config.chance() };
        self.trainer.step(self.dev, batches, StepKey { seed: config.seed, step }, &update);
        let pending = self.trainer.pending();
        self.settle()?;
        let here = pending.is_here();
        self.running = Some((pending, lr));

        let (step, last) = (step + 1, step + 1 == train.steps);
        let due = |every: u64| every > 0 && step % every == 0;
        let save = last || due(train.checkpoint_every);
        let evaluate = (save || due(train.eval_every)) && !self.run.data.heldout.is_empty();
        if here || save || evaluate {
            self.settle()?;
        }
        if evaluate {
            self.evaluate()?;
        }
        if save {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Waits for the step that runs, if one does, and records what came of it.
    fn settle(&mut self) -> Result<(), RunError> {
        let Some((pending, lr)) = self.running.take() else { return Ok(()) };
        let outcome = pending.outcome();
        self.alive()?;
        self.count(&outcome);
        let record = self.train_record(&outcome, lr);
        self.telemetry.record(&Record::Train(record))?;
        if let Some(launched) = self.launched.take() {
            let seconds = launched.elapsed().as_secs_f64();
            self.note(format!("{seconds:.2} s from launch to the end of the first step"))?;
        }
        let (count, step) = (self.progress.skipped_in_a_row, self.progress.step);
        if count > 0 {
            self.note("loss or gradient not finite: the step changed nothing".into())?;
            if count >= self.run.config.train.max_skipped.max(1) {
                return Err(RunError::NotFinite { count, step });
            }
        }
        Ok(())
    }

    /// An error if the device has stopped.
    fn alive(&self) -> Result<(), RunError> {
        self.dev.fault().map_or(Ok(()), |fault| Err(RunError::Device(fault)))
    }

    fn count(&mut self, outcome: &Outcome) {
        let skipped = outcome.skipped > self.progress.skipped;
        let progress = &mut self.progress;
        progress.step += 1;
        progress.applied = outcome.applied;
        progress.skipped = outcome.skipped;
        progress.skipped_in_a_row = if skipped { progress.skipped_in_a_row + 1 } else { 0 };
        progress.tokens += self.run.config.batch.tokens as u64;
        progress.seconds += self.since.elapsed().as_secs_f64();
        progress.heldout = None;
    }

    fn train_record(&mut self, outcome: &Outcome, lr: f64) -> TrainRecord {
        let seconds = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        TrainRecord {
            step: self.progress.step,
            loss: outcome.loss,
            pair_loss: outcome.pair.map(|(loss, _)| loss),
            lr,
            grad_norm: outcome.norm,
            tokens: self.progress.tokens,
            tokens_per_s: self.run.config.batch.tokens as f64 / seconds,
            seconds: self.progress.seconds,
            skipped: outcome.skipped,
        }
    }

    /// The held-out loss; its time counts as nobody's training time.
    fn evaluate(&mut self) -> Result<(), RunError> {
        let outcome = self.trainer.evaluate(self.dev, &self.run.data.heldout);
        self.alive()?;
        self.progress.heldout = Some(outcome.loss);
        self.telemetry.record(&Record::Eval(EvalRecord {
            step: self.progress.step,
            loss: outcome.loss,
            accuracy: outcome.accuracy,
            pair_accuracy: outcome.pair.map(|(_, accuracy)| accuracy),
            tokens: outcome.labelled,
        }))?;
        self.since = Instant::now();
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), RunError> {
        if self.saved == Some(self.progress.step) {
            return Ok(());
        }
        let progress = &mut self.progress;
        let best = progress.best.map_or(f64::INFINITY, |(_, loss)| loss);
        if let Some(loss) = progress.heldout.filter(|loss| *loss < best) {
            progress.best = Some((progress.step, loss));
        }
        let contents = Contents {
            progress,
            tokenizer: self.run.data.tokenizer.as_ref(),
            ids: self.run.data.ids,
            dtype: self.run.dtype,
        };
        let keep = self.run.config.train.keep;
        checkpoint::save(&self.run.folder.checkpoints(), &self.trainer, &contents, keep)?;
        self.saved = Some(self.progress.step);
        if let Some((now, before)) = (self.run.energy)().zip(self.energy_before) {
            let record = EnergyRecord { step: self.progress.step, joules: now - before };
            self.telemetry.record(&Record::Energy(record))?;
        }
        self.since = Instant::now();
        Ok(())
    }

    fn note(&mut self, text: String) -> Result<(), RunError> {
        let record = Record::Note(NoteRecord { step: self.progress.step, text });
        Ok(self.telemetry.record(&record)?)
    }

    fn record_ops(&mut self, steps: u64) -> Result<(), RunError> {
        let ops = self.dev.report().into_iter().map(|op| OpTime {
            op: op.op.to_string(),
            calls: op.calls,
            seconds: op.seconds,
            flops: op.flops as u64,
            bytes: op.bytes as u64,
        });
        let record = OpsRecord { step: self.progress.step, steps, ops: ops.collect() };
        Ok(self.telemetry.record(&Record::Ops(record))?)
    }
}
