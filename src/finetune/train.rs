//! The finetuning loop: a few epochs, the best weights kept.

use std::time::Instant;

use super::batches::{Order, batch, passes};
use super::examples::{Example, Label};
use super::outcome::{Metric, Predictions};
use crate::device::{Buffer, Device};
use crate::hf::{LoadError, LoadReport, ModelDir};
use crate::model::arch::{Arch, ArchError, Task, TaskKind};
use crate::model::batch::Capacity;
use crate::ops::optimizer::{Rule, Update};
use crate::train::schedule::Schedule;
use crate::train::step::{Layered, StepKey, Trainer};

/// How to train.
#[derive(Debug, Clone)]
pub struct Settings {
    pub epochs: usize,
    /// Examples a step.
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
        "the loss of step {0} is not finite: lower --lr, or look for values in the data that are \
         beyond reason"
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
    pub report: LoadReport,
}

/// Finetunes the model of `dir` as `arch`, which has a task, on `train`; chooses by `held`.
///
/// # Errors
/// A model that does not load, a device that fails, a loss that is not finite.
pub fn finetune<D: Device>(
    dev: &D,
    dir: &ModelDir,
    arch: &Arch,
    [train, held]: [&[Example]; 2],
    settings: &Settings,
    mut each: impl FnMut(Epoch),
) -> Result<Finetuned, TrainError> {
    let task = arch.task.as_ref().expect("the arch of a task");
    let order = Order { examples: train.len(), batch: settings.batch, seed: settings.seed };
    let (steps, an_epoch) = (settings.epochs * order.steps_an_epoch(), order.steps_an_epoch());
    let (capacity, most) = room(task, train, held, &order, steps);
    let mut trainer = Trainer::new(dev, arch, capacity, most, None, settings.decay)?;
    trainer.initialise(dev, settings.seed);
    let master = &mut trainer.state.master;
    let report = dir.load_as(arch, &trainer.model.layout.table, |param, start, values| {
        master.write(param.span.start + start, values);
    })?;
    dev.store(&mut trainer.model.params, &trainer.state.master);
    trainer.scale_rates(arch, &settings.layered);
    if !settings.weights.is_empty() {
        trainer.model.weigh(dev, settings.weights.clone());
    }

    let mut epochs: Vec<Epoch> = Vec::new();
    let mut best: Option<(usize, Vec<f64>, Predictions)> = None;
    for number in 1..=settings.epochs {
        let (begun, mut loss) = (Instant::now(), 0.0);
        for step in (number - 1) * an_epoch..number * an_epoch {
            loss += take(dev, &mut trainer, task, train, &order, settings, (step, steps))?;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let predictions = predict(dev, &mut trainer, task, held);
        let epoch = Epoch {
            number,
            loss: loss / an_epoch as f64,
            metric: predictions.metric(settings.metric),
            samples_a_second: train.len() as f64 / seconds,
        };
        each(epoch);
        epochs.push(epoch);
        let value = |at: usize| epochs[at].metric.unwrap_or(f64::NEG_INFINITY);
        if best.as_ref().is_none_or(|(at, ..)| value(number - 1) > value(*at)) {
            best = Some((number - 1, trainer.state.master.to_vec(), predictions));
        }
        let since = number - 1 - best.as_ref().map_or(0, |(at, ..)| *at);
        if settings.patience > 0 && since >= settings.patience {
            break;
        }
    }
    let (best, arena, predictions) = best.expect("there is an epoch");
    Ok(Finetuned { arena, predictions, epochs, best, report })
}

/// One step; its loss.
fn take<D: Device>(
    dev: &D,
    trainer: &mut Trainer<D>,
    task: &Task,
    train: &[Example],
    order: &Order,
    settings: &Settings,
    (step, steps): (usize, usize),
) -> Result<f64, TrainError> {
    let picked: Vec<&Example> = order.step(step).into_iter().map(|i| &train[i]).collect();
    let mut rest = &picked[..];
    let mut micros = Vec::new();
    for count in passes(picked.iter().map(|example| example.ids.len())) {
        let (now, after) = rest.split_at(count);
        micros.push(batch(task, now));
        rest = after;
    }
    let update = Update {
        rule: settings.rule,
        lr: settings.schedule.at(step as u64, steps as u64),
        clip: settings.clip,
        stochastic: None,
    };
    let key = StepKey { seed: settings.seed, step: step as u64 };
    trainer.step(dev, &micros, key, &update);
    let outcome = trainer.outcome();
    match dev.fault() {
        Some(fault) => Err(TrainError::Device(fault)),
        None if !outcome.loss.is_finite() => Err(TrainError::NotFinite(step + 1)),
        None => Ok(outcome.loss),
    }
}

/// The model's outputs for examples.
pub fn predict<D: Device>(
    dev: &D,
    trainer: &mut Trainer<D>,
    task: &Task,
    examples: &[Example],
) -> Predictions {
    let all: Vec<&Example> = examples.iter().collect();
    let mut logits = Vec::with_capacity(examples.len() * task.labels.len());
    let mut rest = &all[..];
    for count in passes(examples.iter().map(|example| example.ids.len())) {
        let (now, after) = rest.split_at(count);
        logits.extend(trainer.task_logits(dev, &batch(task, now)));
        rest = after;
    }
    let labels = examples.iter().map(|example| example.label.clone()).collect();
    Predictions { kind: task.kind, outputs: task.labels.len(), logits, labels }
}

/// Room for every pass of all steps and of the held-out examples, and the passes of a step at most.
fn room(
    task: &Task,
    train: &[Example],
    held: &[Example],
    order: &Order,
    steps: usize,
) -> (Capacity, usize) {
    let reals = matches!(task.kind, TaskKind::Flags | TaskKind::Values);
    let labels = if reals { task.labels.len() } else { 0 };
    let mut capacity = Capacity::default();
    let mut see = |lengths: &[usize]| {
        let counts = passes(lengths.iter().copied());
        let (passes, mut rest) = (counts.len(), lengths);
        for count in counts {
            let (now, after) = rest.split_at(count);
            let tokens = now.iter().sum();
            capacity = capacity.max(Capacity {
                tokens,
                sequences: count,
                rows: tokens,
                reals: count * labels,
            });
            rest = after;
        }
        passes
    };
    let mut most = 1;
    for step in 0..steps {
        let lengths: Vec<usize> = order.step(step).iter().map(|&i| train[i].ids.len()).collect();
        most = most.max(see(&lengths));
    }
    see(&held.iter().map(|example| example.ids.len()).collect::<Vec<_>>());
    (capacity, most)
}

/// Weights that make up for how often classes occur: N / (K n_k), as scikit-learn's "balanced";
/// 1 of a class that does not.
pub fn balanced(examples: &[Example], outputs: usize) -> Vec<f64> {
    let mut counts = vec![0usize; outputs];
    for example in examples {
        match &example.label {
            Label::Class(class) => counts[*class] += 1,
            Label::Flags(flags) => {
                flags
                    .iter()
                    .zip(&mut counts)
                    .for_each(|(&flag, count)| *count += usize::from(flag));
            }
            Label::Value(_) => {}
        }
    }
    let share = |&count: &usize| match count {
        0 => 1.0,
        _ => examples.len() as f64 / (outputs * count) as f64,
    };
    counts.iter().map(share).collect()
}
