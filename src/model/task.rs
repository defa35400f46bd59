//! Heads of tasks: from the last hidden states to a few logits a sequence, or a token, and back.

use crate::data::{Batch, IGNORE};
use crate::device::{Buffer, Class, Device, Memory};
use crate::model::activations::Activations;
use crate::model::arch::{Arch, Pooling, Task, TaskForm, TaskKind};
use crate::model::batch::{Capacity, DeviceBatch};
use crate::model::heads::{Labelled, Sums};
use crate::model::params::TaskLayout;
use crate::model::transformer::{DropoutKey, Model, site};
use crate::ops::Into;
use crate::ops::dropout::Dropout;
use crate::ops::norm::Normed;
use crate::ops::task::Truth;

/// What each output counts in the loss.
pub struct Weights<D: Memory> {
    /// [K]
    host: Vec<f64>,
    device: D::Acc,
}

impl<D: Memory> Weights<D> {
    pub fn new(dev: &D, host: Vec<f64>) -> Self {
        let mut device = dev.acc(Class::Weights, host.len());
        device.write(0, &host);
        Weights { host, device }
    }
}

/// The head's activations; absent where its form has none.
pub struct TaskActs<D: Memory> {
    /// [S, C]: of means
    pooled: Option<D::X>,
    /// [M, C]
    dropped_first: Option<D::X>,
    /// Before and after the activation, [M, C] each
    dense: Option<[D::X; 2]>,
    /// [M, C] and its [M, 2]
    normed: Option<(D::X, D::Acc)>,
    /// [M, C]
    dropped: Option<D::X>,
    /// [M, K]; when training, then their gradient
    pub logits: D::X,
    /// [M, C]: gradients on their way
    flow: [D::X; 2],
}

impl<D: Device> TaskActs<D> {
    pub fn new(dev: &D, arch: &Arch, task: &Task, capacity: Capacity, training: bool) -> Self {
        let form = arch.task_form(task.kind);
        let (rows, c) = (
            if task.kind.is_of_sequences() { capacity.sequences } else { capacity.rows },
            arch.width,
        );
        let x = || dev.x(Class::Activations, rows * c);
        let scratch = || dev.x(Class::Scratch, if training { rows * c } else { 0 });
        let drops = training && task.dropout > 0.0;
        TaskActs {
            pooled: is_mean(task).then(x),
            dropped_first: (drops && form.drop_first).then(x),
            dense: form.dense.map(|_| [x(), x()]),
            normed: form.norm.then(|| (x(), dev.acc(Class::Activations, rows * 2))),
            dropped: drops.then(x),
            logits: dev.x(Class::Scratch, rows * task.labels.len()),
            flow: [scratch(), scratch()],
        }
    }
}

fn is_mean(task: &Task) -> bool {
    task.kind.is_of_sequences() && task.pooling == Pooling::Mean
}

impl Task {
    /// Targets that are whole numbers, of a batch of so many tokens and sequences.
    pub fn targets(&self, tokens: usize, sequences: usize) -> usize {
        match self.kind {
            TaskKind::Classes => sequences,
            TaskKind::Tokens => tokens,
            TaskKind::Spans => 2 * sequences,
            TaskKind::Flags | TaskKind::Values => 0,
        }
    }

    /// The rows of a batch that reach the head: `None` for all.
    pub fn rows(&self, cu_seqlens: &[i32]) -> Option<Vec<i32>> {
        let sequences = cu_seqlens.windows(2);
        match self.pooling {
            _ if !self.kind.is_of_sequences() => None,
            Pooling::Mean => None,
            Pooling::First => Some(sequences.map(|ends| ends[0]).collect()),
            Pooling::Last => Some(sequences.map(|ends| ends[1] - 1).collect()),
        }
    }
}

impl<D: Device> Model<D> {
    /// Gives each output of the task its weight in the loss: of a class, or of a label's presence.
    /// All weigh 1 until then.
    pub fn weigh(&mut self, dev: &D, weights: Vec<f64>) {
        assert_eq!(weights.len(), self.arch.outputs(), "a weight for each output");
        self.weights = Some(Weights::new(dev, weights));
    }

    /// Sets what the losses of a step's batches weigh together.
    pub(super) fn weigh_batches(&self, task: &Task, labelled: &mut Labelled<D>, batches: &[Batch]) {
        let weights = self.weights.as_ref().expect("a task's model has weights");
        let total: f64 = match task.kind {
            TaskKind::Classes | TaskKind::Tokens => {
                let targets = batches.iter().flat_map(|batch| &batch.targets);
                targets.filter(|&&t| t != IGNORE).map(|&t| weights.host[t as usize]).sum()
            }
            TaskKind::Flags | TaskKind::Values => {
                batches.iter().map(|batch| batch.sequences() as f64).sum()
            }
            TaskKind::Spans => {
                let spans = batches.iter().flat_map(|batch| batch.targets.chunks_exact(2));
                spans.filter(|ends| !ends.contains(&IGNORE)).count() as f64
            }
        };
        labelled.weight.write(0, &[if total > 0.0 { total } else { 1.0 }]);
    }

    /// Logits [M, K] of a batch; dropout is off.
    pub fn read_task_logits(
        &self,
        dev: &D,
        acts: &mut Activations<D>,
        batch: &DeviceBatch<D>,
    ) -> Vec<f64> {
        self.forward(dev, acts, batch, None);
        self.task_logits(dev, acts, batch, None);
        let (task, _, _, rows) = self.task_at(batch);
        let mut logits = vec![0.0; rows * task.labels.len()];
        acts.head.task.as_ref().expect("activations of a task").logits.read(0, &mut logits);
        logits
    }

    /// Leaves logits [M, K] in `acts.head.task`.
    pub fn task_logits(
        &self,
        dev: &D,
        acts: &mut Activations<D>,
        batch: &DeviceBatch<D>,
        key: Option<DropoutKey>,
    ) {
        let (task, form, at, rows) = self.task_at(batch);
        let Activations { head, layers, .. } = acts;
        let TaskActs { pooled, dropped_first, dense, normed, dropped, logits, .. } =
            head.task.as_mut().expect("activations of a task");
        let (c, params) = (self.arch.width, &self.params);
        let [before, after] = self.task_dropouts(task, key);

        let mut x = &layers[self.arch.layers - 1].mlp.y;
        if let Some(pooled) = pooled {
            dev.mean_rows(pooled, x, &batch.cu_seqlens, c, rows);
            x = pooled;
        }
        if let Some(dropped) = dropped_first {
            dev.dropout(dropped, x, before, rows * c);
            x = dropped;
        }
        if let (Some(dense), Some((activation, _)), Some([pre, act])) =
            (&at.dense, form.dense, dense)
        {
            dev.linear_act(act, pre, x, params, dense, activation, rows);
            x = act;
        }
        if let (Some(norm), Some((y, stats))) = (&at.norm, normed) {
            dev.norm(y, stats, x, params, norm, rows);
            x = y;
        }
        if let Some(dropped) = dropped {
            dev.dropout(dropped, x, after, rows * c);
            x = dropped;
        }
        dev.linear(logits, x, params, &self.layout.decoder, rows);
    }

    /// Adds the loss of `acts.head.task`'s logits to `sums`; with what the whole step weighs, they
    /// become their gradient.
    pub(super) fn task_loss(
        &self,
        dev: &D,
        sums: &mut Sums<D>,
        acts: &mut Activations<D>,
        batch: &DeviceBatch<D>,
        labelled: Option<&Labelled<D>>,
    ) {
        let (task, _, _, rows) = self.task_at(batch);
        let weights = &self.weights.as_ref().expect("a task's model has weights").device;
        let DeviceBatch { targets, reals, cu_seqlens, counts, .. } = batch;
        let truth = match task.kind {
            TaskKind::Classes | TaskKind::Tokens => Truth::Classes { targets, weights },
            TaskKind::Flags => Truth::Flags { targets: reals, weights },
            TaskKind::Values => Truth::Values { targets: reals },
            TaskKind::Spans => Truth::Spans { targets, cu_seqlens, sequences: counts.sequences },
        };
        let logits = &mut acts.head.task.as_mut().expect("activations of a task").logits;
        let total = labelled.map(|labelled| &labelled.weight);
        dev.task_loss(&mut sums.tokens, logits, truth, rows, task.labels.len(), total);
    }

    /// From the logits' gradient to that of the hidden states, in `acts.flow.dh`.
    pub(super) fn task_backward(
        &self,
        dev: &D,
        grads: &mut D::Acc,
        acts: &mut Activations<D>,
        batch: &DeviceBatch<D>,
        key: Option<DropoutKey>,
    ) {
        let (task, form, at, rows) = self.task_at(batch);
        let Activations { head, layers, flow, .. } = acts;
        let dh = &mut flow.as_mut().expect("activations taken for training").dh;
        let TaskActs { pooled, dropped_first, dense, normed, dropped, logits, flow } =
            head.task.as_mut().expect("activations of a task");
        let (len, params) = (rows * self.arch.width, &self.params);
        let [before, after] = self.task_dropouts(task, key);
        let hidden = &layers[self.arch.layers - 1].mlp.y;
        let first = dropped_first.as_ref().or(pooled.as_ref()).unwrap_or(hidden);
        let activated = dense.as_ref().map_or(first, |[_, act]| act);
        let read = normed.as_ref().map_or(activated, |(y, _)| y);
        let read = dropped.as_ref().unwrap_or(read);

        // From here on `d` is the gradient so far, and `spare` takes the next.
        let [d, spare] = flow;
        let (mut d, mut spare) = (d, spare);
        dev.linear_dw(grads, logits, read, &self.layout.decoder, rows);
        dev.linear_dx(d, logits, params, &self.layout.decoder, rows, Into::Set);
        if dropped.is_some() {
            dev.dropout(spare, d, after, len);
            std::mem::swap(&mut d, &mut spare);
        }
        if let (Some(norm), Some((_, stats))) = (&at.norm, normed) {
            let saved = Normed { x: activated, stats, params };
            dev.norm_backward(spare, grads, d, saved, norm, rows, Into::Set);
            std::mem::swap(&mut d, &mut spare);
        }
        if let (Some(at), Some((activation, _)), Some([pre, _])) = (&at.dense, form.dense, dense) {
            dev.act_backward(spare, d, pre, activation, len);
            dev.linear_dw(grads, spare, first, at, rows);
            dev.linear_dx(d, spare, params, at, rows, Into::Set);
        }
        let before = if dropped_first.is_some() { before } else { Dropout::none() };
        if pooled.is_some() {
            dev.dropout(spare, d, before, len);
            dev.mean_rows_backward(dh, spare, &batch.cu_seqlens, self.arch.width, rows);
        } else {
            dev.dropout(dh, d, before, len);
        }
    }

    /// The task, its form and layout, and how many rows it has logits for.
    fn task_at(&self, batch: &DeviceBatch<D>) -> (&Task, TaskForm, &TaskLayout, usize) {
        let task = self.arch.task.as_ref().expect("a model with a task");
        let at = self.layout.task.as_ref().expect("the layout has its head");
        let counts = &batch.counts;
        let rows = if task.kind.is_of_sequences() { counts.sequences } else { counts.tokens };
        (task, self.arch.task_form(task.kind), at, rows)
    }

    /// Before the dense product and before the classifier.
    fn task_dropouts(&self, task: &Task, key: Option<DropoutKey>) -> [Dropout; 2] {
        let sites = [4, 5].map(|i| 3 * self.arch.layers as u32 + i);
        sites.map(|at| site(key, task.dropout, at).unwrap_or(Dropout::none()))
    }
}
