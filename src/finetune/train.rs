//! The finetuning loop: a few epochs, the best weights kept.

use std::time::Instant;

use super::batches::{Order, batch, in_passes};
use super::examples::{Example, Gold, Sequence};
use super::outcome::{Metric, Predictions};
use super::questions::Decoding;
use crate::data::Batch;
use crate::device::{Buffer, Device};
use crate::eval::loss::Losses;
use crate::hf::{LoadError, LoadReport, ModelDir};
use crate::model::arch::{Arch, ArchError, Task};
use crate::model::batch::Capacity;
use crate::ops::optimizer::{Rule, Update};
use crate::train::schedule::Schedule;
use crate::train::step::{Layered, StepKey, Trainer};

/// How to train.
#[derive(Debug, Clone)]
pub struct Settings {
    pub epochs: usize,
    /// Sequences a step.
    pub batch: usize,
    pub rule: Rule,
    /// Its warm-up is in steps.
    pub schedule: Schedule,
    pub decay: f64,
    /// Largest norm of the gradient; infinite for no clipping.
    pub clip: f64,
    pub layered: Layered,
    /// Of outputs; empty for all alike.
    pub weights: Vec<f64>,
    /// Epochs in a row without a better metric after which to stop; 0 for never.
    pub patience: usize,
    pub metric: Metric,
    /// Of answers to questions.
    pub decoding: Decoding,
    pub seed: u64,
}

/// Why a model cannot be finetuned.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Arch(#[from] ArchError),
    #[error("{0}")]
    Device(String),
    #[error(
        "the loss, or what the model says, is not finite after step {0}: lower --lr, or look for \
         values in the data that are beyond reason"
    )]
    NotFinite(usize),
}

/// What is told on the way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epoch {
    /// From 1.
    pub number: usize,
    /// Of its steps, in the mean.
    pub loss: f64,
    /// On the held-out examples; none if it is undefined there.
    pub metric: Option<f64>,
    /// Training alone.
    pub samples_a_second: f64,
}

/// A model that was finetuned.
pub struct Finetuned {
    /// The best epoch's weights, in our layout.
    pub arena: Vec<f64>,
    pub predictions: Predictions,
    pub epochs: Vec<Epoch>,
    /// Of `epochs`, the best.
    pub best: usize,
    /// What ended the training before its time, an epoch later.
    pub stopped: Option<TrainError>,
    pub report: LoadReport,
}

/// Finetunes the model of `dir` as `arch`, which has a task or, for completions, none, on `train`;
/// chooses by `held`.
///
/// # Errors
/// A model that does not load, a device that fails; a loss that is not finite in the first epoch.
pub fn finetune<D: Device>(
    dev: &D,
    dir: &ModelDir,
    arch: &Arch,
    [train, held]: [&[Example]; 2],
    settings: &Settings,
    mut each: impl FnMut(Epoch),
) -> Result<Finetuned, TrainError> {
    let learnt: Vec<&Sequence> = train.iter().flat_map(|example| &example.sequences).collect();
    let judged: Vec<&Sequence> = held.iter().flat_map(|example| &example.sequences).collect();
    let order = Order { sequences: learnt.len(), batch: settings.batch, seed: settings.seed };
    let (steps, an_epoch) = (settings.epochs * order.steps_an_epoch(), order.steps_an_epoch());
    let micros = |step: usize| -> Vec<Batch> {
        let picked: Vec<&Sequence> = order.step(step).into_iter().map(|i| learnt[i]).collect();
        in_passes(&picked).map(|pass| batch(arch.task.as_ref(), pass)).collect()
    };
    let (capacity, most) = room(arch, (0..steps).map(micros), &judged);
    let mut trainer = Trainer::new(dev, arch, capacity, most, None, settings.decay)?;
    trainer.initialise(dev, settings.seed);
    let report = trainer.take_weights(dev, dir)?;
    trainer.scale_rates(arch, &settings.layered);
    if !settings.weights.is_empty() {
        trainer.model.weigh(dev, settings.weights.clone());
    }

    let mut epochs: Vec<Epoch> = Vec::new();
    let mut best: Option<(usize, Vec<f64>, Predictions)> = None;
    let mut stopped = None;
    for number in 1..=settings.epochs {
        let begun = Instant::now();
        let mut of_epoch = (number - 1) * an_epoch..number * an_epoch;
        let losses = of_epoch.try_fold(0.0, |sum, step| {
            Ok(sum + take(dev, &mut trainer, &micros(step), settings, [step, steps])?)
        });
        let seconds = begun.elapsed().as_secs_f64();
        let arena = trainer.state.master.to_vec();
        let learnt = losses.and_then(|loss| {
            let predictions = predict(dev, &mut trainer, held, settings);
            // The last step's loss says nothing of what it made of the weights.
            let mut values = arena.iter().chain(predictions.logits.iter().flatten());
            match values.all(|value| value.is_finite()) {
                true => Ok((loss, predictions)),
                false => Err(TrainError::NotFinite(number * an_epoch)),
            }
        });
        let (loss, predictions) = match learnt {
            Ok(learnt) => learnt,
            Err(error @ TrainError::NotFinite(_)) if best.is_some() => {
                stopped = Some(error);
                break;
            }
            Err(error) => return Err(error),
        };
        let epoch = Epoch {
            number,
            loss: loss / an_epoch as f64,
            metric: predictions.metric(settings.metric),
            samples_a_second: train.len() as f64 / seconds,
        };
        each(epoch);
        epochs.push(epoch);
        let worth = |at: usize| settings.metric.worth(epochs[at].metric);
        if best.as_ref().is_none_or(|(at, ..)| worth(number - 1) > worth(*at)) {
            best = Some((number - 1, arena, predictions));
        }
        let since = number - 1 - best.as_ref().map_or(0, |(at, ..)| *at);
        if settings.patience > 0 && since >= settings.patience {
            break;
        }
    }
    let (best, arena, predictions) = best.expect("there is an epoch");
    Ok(Finetuned { arena, predictions, epochs, best, stopped, report })
}

/// One step of so many; its loss.
fn take<D: Device>(
    dev: &D,
    trainer: &mut Trainer<D>,
    micros: &[Batch],
    settings: &Settings,
    [step, steps]: [usize; 2],
) -> Result<f64, TrainError> {
    let update = Update {
        rule: settings.rule,
        lr: settings.schedule.at(step as u64, steps as u64),
        clip: settings.clip,
        stochastic: None,
    };
    let key = StepKey { seed: settings.seed, step: step as u64 };
    trainer.step(dev, micros, key, &update);
    let outcome = trainer.outcome();
    match dev.fault() {
        Some(fault) => Err(TrainError::Device(fault)),
        None if !outcome.loss.is_finite() => Err(TrainError::NotFinite(step + 1)),
        None => Ok(outcome.loss),
    }
}

/// What the model says of examples.
fn predict<D: Device>(
    dev: &D,
    trainer: &mut Trainer<D>,
    examples: &[Example],
    settings: &Settings,
) -> Predictions {
    let Some(task) = trainer.model.arch.task.clone() else {
        // One by one, so that each has its own loss, and logits of all rows never exist.
        let sequences = examples.iter().flat_map(|example| &example.sequences);
        let continued = sequences.map(|sequence| {
            let outcome = trainer.evaluate(dev, &[batch(None, &[sequence])]);
            let tokens = outcome.labelled as f64;
            Losses { nll: outcome.loss * tokens, right: outcome.accuracy * tokens, tokens }
        });
        return Predictions::of_completions(continued.collect());
    };
    let logits = logits(&task, examples, |batch| trainer.task_logits(dev, batch));
    Predictions::of_task(&task, examples, logits, &settings.decoding)
}

/// By example, the logits [rows, K] of all its sequences, `of` each batch.
pub fn logits(
    task: &Task,
    examples: &[Example],
    mut of: impl FnMut(&Batch) -> Vec<f64>,
) -> Vec<Vec<f64>> {
    let all: Vec<&Sequence> = examples.iter().flat_map(|example| &example.sequences).collect();
    let batches = in_passes(&all).map(|pass| batch(Some(task), pass));
    let flat: Vec<f64> = batches.flat_map(|batch| of(&batch)).collect();
    let mut rest = &flat[..];
    let of_example = |example: &Example| {
        let rows: usize = match task.kind.is_of_sequences() {
            true => example.sequences.len(),
            false => example.sequences.iter().map(|sequence| sequence.ids.len()).sum(),
        };
        let (own, after) = rest.split_at(rows * task.labels.len());
        rest = after;
        own.to_vec()
    };
    examples.iter().map(of_example).collect()
}

/// Room for every pass of all steps and of the held-out sequences, and the passes of a step at
/// most.
fn room(
    arch: &Arch,
    steps: impl Iterator<Item = Vec<Batch>>,
    held: &[&Sequence],
) -> (Capacity, usize) {
    let mut capacity = Capacity::default();
    let mut most = 1;
    for micros in steps {
        most = most.max(micros.len());
        capacity = micros.iter().map(of).fold(capacity, Capacity::max);
    }
    let held = in_passes(held).map(|pass| batch(arch.task.as_ref(), pass));
    (held.map(|batch| of(&batch)).fold(capacity, Capacity::max), most)
}

/// What a batch needs; its rows may reach the head one by one.
fn of(batch: &Batch) -> Capacity {
    Capacity { rows: batch.ids.len(), ..Capacity::of(batch, false) }
}

/// Weights that make up for how often classes occur: N / (K n_k), as scikit-learn's "balanced",
/// over sequences or words; 1 of a class that does not.
pub fn balanced(examples: &[Example], outputs: usize) -> Vec<f64> {
    let of = |example: &Example| match &example.gold {
        Gold::Words(_, classes) => classes.len(),
        _ => 1,
    };
    let all: usize = examples.iter().map(of).sum();
    let share = |count: usize| match count {
        0 => 1.0,
        _ => all as f64 / (outputs * count) as f64,
    };
    counts(examples, outputs).into_iter().map(share).collect()
}

/// By output, the sequences or words that have it.
pub fn counts(examples: &[Example], outputs: usize) -> Vec<usize> {
    let mut counts = vec![0; outputs];
    for example in examples {
        match &example.gold {
            Gold::Class(class) => counts[*class] += 1,
            Gold::Flags(flags) => {
                let each = flags.iter().zip(&mut counts);
                each.for_each(|(&flag, count)| *count += usize::from(flag));
            }
            Gold::Words(_, classes) => classes.iter().for_each(|&class| counts[class] += 1),
            Gold::Value(_) | Gold::Answers(_) | Gold::Completion => {}
        }
    }
    counts
}
