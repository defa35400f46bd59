//! One optimizer step: forward and backward over its micro-batches, then the update.
//!
//! All memory is taken when a [`Trainer`] is made. The losses are means over the labelled rows of
//! the whole step, so cutting a step into micro-batches does not change what is minimised.

use crate::data::Batch;
use crate::data::masking::Masker;
use crate::device::{Buffer, Class, Device, Fetched};
use crate::hf::{LoadError, LoadReport, ModelDir};
use crate::model::activations::Activations;
use crate::model::arch::{Arch, ArchError};
use crate::model::batch::{Capacity, DeviceBatch};
use crate::model::heads::{Labelled, Sums};
use crate::model::params::{Layout, Param};
use crate::model::transformer::{DropoutKey, Model, initial};
use crate::ops::mask::{Masked, Unmasked};
use crate::ops::optimizer::{Arenas, Group, Update};
use crate::ops::reduce::CONTROL;

/// The arenas that training keeps beside the weights, all of one length.
pub struct State<D: Device> {
    pub master: D::Acc,
    pub grads: D::Acc,
    pub m: D::Acc,
    pub v: D::Acc,
    /// See `ops/reduce.rs`.
    pub control: D::Acc,
}

/// A model in training.
pub struct Trainer<D: Device> {
    pub model: Model<D>,
    pub state: State<D>,
    acts: Activations<D>,
    /// One a pass of a step: all are brought before the first runs.
    batches: Vec<DeviceBatch<D>>,
    masking: Option<Masking<D>>,
    labelled: Labelled<D>,
    sums: Sums<D>,
    groups: Vec<Group>,
    script: D::Script,
}

/// What masks batches on the device.
struct Masking<D: Device> {
    masker: Masker,
    /// [V]
    flags: D::Int,
}

/// Learning rates by depth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layered {
    /// Layers from below that do not learn; with any, neither do the embeddings.
    pub frozen: usize,
    /// Factor of the rate from each layer to the one below it: the head learns at the full rate.
    pub decay: f64,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Mean over labelled tokens [nats].
    pub loss: f64,
    /// Share of labelled tokens predicted right.
    pub accuracy: f64,
    /// Labelled tokens.
    pub labelled: u64,
    /// Mean over labelled pairs [nats] and the share predicted right, with a pair head.
    pub pair: Option<(f64, f64)>,
    /// Of the gradient, before clipping; of evaluation, 0.
    pub norm: f64,
    /// Steps applied and steps skipped as not finite, since step 0.
    pub applied: u64,
    pub skipped: u64,
}

/// The outcome of a step, or an evaluation, on its way to the host.
pub struct Pending {
    tokens: Fetched<f64>,
    pairs: Fetched<f64>,
    control: Fetched<f64>,
    pair: bool,
}

impl Pending {
    /// Whether [`Pending::outcome`] would return at once.
    pub fn is_here(&self) -> bool {
        self.tokens.is_here() && self.pairs.is_here() && self.control.is_here()
    }

    /// Waits for it.
    pub fn outcome(self) -> Outcome {
        let [tokens, pairs, control] = [self.tokens, self.pairs, self.control].map(Fetched::wait);
        let mean = |sum: f64, count: f64| if count > 0.0 { sum / count } else { 0.0 };
        Outcome {
            loss: mean(tokens[0], tokens[2]),
            accuracy: mean(tokens[1], tokens[2]),
            labelled: tokens[2] as u64,
            pair: (self.pair).then(|| (mean(pairs[0], pairs[2]), mean(pairs[1], pairs[2]))),
            norm: control[0],
            applied: control[2] as u64,
            skipped: control[3] as u64,
        }
    }
}

/// Which step it is.
#[derive(Debug, Clone, Copy)]
pub struct StepKey {
    pub seed: u64,
    /// From 0.
    pub step: u64,
}

impl<D: Device> Trainer<D> {
    /// Takes the memory for `arch` and steps of so many `passes`, micro-batches within `capacity`;
    /// weights are zero until [`Trainer::initialise`] or a checkpoint fills them. With `masker`
    /// the device masks the batches that are [to be masked](crate::data::ToMask).
    pub fn new(
        dev: &D,
        arch: &Arch,
        capacity: Capacity,
        passes: usize,
        masker: Option<&Masker>,
        decay: f64,
    ) -> Result<Self, ArchError> {
        let model = Model::new(dev, arch)?;
        let len = model.layout.table.arena_len;
        let sums = || dev.acc(Class::Scratch, 3);
        let batch = |_| DeviceBatch::new(dev, capacity, masker.is_some());
        let masking = masker.map(|masker| {
            let mut flags = dev.int(Class::Batch, arch.vocab);
            flags.write(0, &masker.flags());
            Masking { masker: masker.clone(), flags }
        });
        Ok(Trainer {
            state: State {
                master: dev.acc(Class::Master, len),
                grads: dev.acc(Class::Gradients, len),
                m: dev.acc(Class::Moments, len),
                v: dev.acc(Class::Moments, len),
                control: dev.acc(Class::Scratch, CONTROL),
            },
            acts: Activations::new(dev, arch, capacity, true),
            batches: (0..passes).map(batch).collect(),
            masking,
            labelled: Labelled::new(dev),
            sums: Sums { tokens: sums(), pairs: sums() },
            groups: groups(&model.layout, decay),
            script: D::Script::default(),
            model,
        })
    }

    /// Sets learning rates by the depth of parameters. A block that several layers share counts as
    /// its lowest layer.
    pub fn scale_rates(&mut self, arch: &Arch, layered: &Layered) {
        let depth = |name: &str| {
            let block = name.strip_prefix("layers.").and_then(|rest| rest.split('.').next());
            match block.and_then(|block| block.parse::<usize>().ok()) {
                Some(block) => {
                    (0..arch.layers).position(|l| arch.block_of(l) == block).map_or(0, |l| l + 1)
                }
                None if name.starts_with("embed.") => 0,
                None => arch.layers + 1,
            }
        };
        let scale = |name: &str| match depth(name) {
            depth if layered.frozen > 0 && depth <= layered.frozen => 0.0,
            depth => layered.decay.powi((arch.layers + 1 - depth) as i32),
        };
        let params = &self.model.layout.table.params;
        let decay = self.groups.iter().map(|group| group.decay).fold(0.0, f64::max);
        self.groups = groups_of(params.iter().map(|param| (param, scale(&param.name))), decay);
    }

    /// Logits [M, K] of a batch by a model with a task; dropout is off.
    pub fn task_logits(&mut self, dev: &D, batch: &Batch) -> Vec<f64> {
        let Trainer { model, acts, batches, .. } = self;
        batches[0].load(batch, false);
        model.read_task_logits(dev, acts, &batches[0])
    }

    /// Whether batches may be [to be masked](crate::data::ToMask).
    pub fn masks(&self) -> bool {
        self.masking.is_some()
    }

    /// Draws the initial weights, a pure function of the seed.
    pub fn initialise(&mut self, dev: &D, seed: u64) {
        for index in 0..self.model.layout.table.params.len() {
            let (span, values) = initial(&self.model.layout, seed, index);
            self.state.master.write(span.start, &values);
        }
        dev.store(&mut self.model.params, &self.state.master);
    }

    /// Takes the weights of a folder's model for those that it has.
    ///
    /// # Errors
    /// Those of [`ModelDir::load_as`].
    pub fn take_weights(&mut self, dev: &D, dir: &ModelDir) -> Result<LoadReport, LoadError> {
        let (model, master) = (&mut self.model, &mut self.state.master);
        let report = dir.load_as(&model.arch, &model.layout.table, |param, start, values| {
            master.write(param.span.start + start, values);
        })?;
        dev.store(&mut model.params, master);
        Ok(report)
    }

    /// One step over `micros`. [`Trainer::pending`] asks what came of it.
    pub fn step(&mut self, dev: &D, micros: &[Batch], key: StepKey, update: &Update) {
        assert!(micros.len() <= self.batches.len(), "a step of {} passes", micros.len());
        for (batch, micro) in self.batches.iter_mut().zip(micros) {
            batch.load(micro, self.model.arch.pair);
        }
        self.labelled.count(&self.model, micros);
        let first = key.step * micros.len() as u64;
        let Trainer { model, state, acts, batches, masking, labelled, sums, groups, script } = self;
        let batches = &mut batches[..micros.len()];
        let State { master, grads, m, v, control } = state;
        dev.repeat(script, &mut || {
            dev.zero_acc(grads);
            dev.zero_acc(&mut sums.tokens);
            dev.zero_acc(&mut sums.pairs);
            // A gradient is one of the mean over all passes, so all are masked before the first.
            for batch in batches.iter_mut() {
                mask(dev, batch, masking.as_ref(), &mut labelled.tokens);
            }
            for (micro, batch) in (first..).zip(batches.iter()) {
                let dropout = Some(DropoutKey { seed: key.seed, micro: micro as u32 });
                model.forward(dev, acts, batch, dropout);
                model.loss_backward(dev, sums, grads, acts, batch, labelled, dropout);
                model.backward(dev, grads, acts, batch, dropout);
            }
            dev.judge(control, grads, &sums.tokens);
            let arenas = Arenas { params: &mut model.params, master, m, v };
            dev.update(arenas, grads, control, update, groups);
        });
    }

    /// Losses of `batches` without a step; dropout is off.
    pub fn evaluate(&mut self, dev: &D, batches: &[Batch]) -> Outcome {
        let Trainer { model, acts, batches: places, sums, .. } = self;
        dev.zero_acc(&mut sums.tokens);
        dev.zero_acc(&mut sums.pairs);
        let batch = &mut places[0];
        for held in batches {
            batch.load(held, model.arch.pair);
            model.forward(dev, acts, batch, None);
            model.loss(dev, sums, acts, batch, None);
        }
        Outcome { norm: 0.0, ..self.outcome() }
    }

    /// Starts to bring what the last step, or evaluation, comes to.
    pub fn pending(&self) -> Pending {
        Pending {
            tokens: self.sums.tokens.fetch(),
            pairs: self.sums.pairs.fetch(),
            control: self.state.control.fetch(),
            pair: self.model.arch.pair,
        }
    }

    /// What the last step, or evaluation, came to; waits for it.
    pub fn outcome(&self) -> Outcome {
        self.pending().outcome()
    }
}

/// Masks what of a batch is to be masked, and counts it.
fn mask<D: Device>(
    dev: &D,
    batch: &mut DeviceBatch<D>,
    masking: Option<&Masking<D>>,
    labelled: &mut D::Int,
) {
    let (Some(to_mask), Some(Masking { masker, flags })) = (batch.counts.to_mask, masking) else {
        return;
    };
    let DeviceBatch { ids, unmasked, positions, rows, targets, counts, .. } = batch;
    let input = Unmasked {
        ids: unmasked,
        positions,
        flags,
        start: to_mask.start,
        tokens: counts.tokens,
        countable: to_mask.countable,
    };
    dev.mask(Masked { ids, rows, targets, count: labelled }, input, masker);
}

/// Runs of neighbouring parameters with the same treatment.
fn groups(layout: &Layout, decay: f64) -> Vec<Group> {
    groups_of(layout.table.params.iter().map(|param| (param, 1.0)), decay)
}

/// The same of parameters each with its factor of the learning rate.
fn groups_of<'a>(params: impl Iterator<Item = (&'a Param, f64)>, decay: f64) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (param, lr_scale) in params {
        let decay = if param.decay { decay } else { 0.0 };
        let alike = |last: &&mut Group| (last.decay, last.lr_scale) == (decay, lr_scale);
        match groups.last_mut().filter(alike) {
            Some(last) => last.span.len = param.span.start + param.span.len - last.span.start,
            None => groups.push(Group { span: param.span, lr_scale, decay }),
        }
    }
    groups
}
