//! Heads: from the last hidden states to losses and logits, and the gradient back.

use crate::data::{Batch, IGNORE};
use crate::device::{Buffer, Class, Device, Memory};
use crate::model::activations::{Activations, PairActs, TransformActs};
use crate::model::batch::DeviceBatch;
use crate::model::params::Pair;
use crate::model::transformer::{DropoutKey, Model};
use crate::ops::Into;
use crate::ops::activation::Activation;
use crate::ops::loss::{LossGrads, LossInput};
use crate::ops::norm::Normed;

/// Where losses are summed: [3] as in `ops/loss.rs`, of tokens and of sequence pairs.
pub struct Sums<D: Device> {
    pub tokens: D::Acc,
    pub pairs: D::Acc,
}

/// [1]: the labelled rows of the whole step, of tokens and of sequence pairs. On the device, since
/// it may be the device that picks them.
pub struct Labelled<D: Memory> {
    pub tokens: D::Int,
    pub pairs: D::Int,
    /// [1]: what a task's rows weigh.
    pub weight: D::Acc,
}

impl<D: Device> Labelled<D> {
    pub fn new(dev: &D) -> Self {
        let int = || dev.int(Class::Batch, 1);
        Labelled { tokens: int(), pairs: int(), weight: dev.acc(Class::Batch, 1) }
    }

    /// Counts what the host labelled, for `model`.
    pub fn count(&mut self, model: &Model<D>, batches: &[Batch]) {
        if let Some(task) = &model.arch.task {
            return model.weigh_batches(task, self, batches);
        }
        let count = |labels: fn(&Batch) -> &[i32]| {
            let labels = batches.iter().flat_map(labels);
            labels.filter(|&&label| label != IGNORE).count() as i32
        };
        self.tokens.write(0, &[count(|batch| &batch.targets)]);
        self.pairs.write(0, &[count(|batch| &batch.pairs)]);
    }
}

impl<D: Device> Model<D> {
    /// Adds the losses of what [`Model::forward`] left in `acts`, by the same `key`, to `sums`.
    pub fn loss(
        &self,
        dev: &D,
        sums: &mut Sums<D>,
        acts: &mut Activations<D>,
        batch: &DeviceBatch<D>,
        key: Option<DropoutKey>,
    ) {
        if self.arch.task.is_some() {
            self.task_logits(dev, acts, batch, key);
            return self.task_loss(dev, sums, acts, batch, None);
        }
        self.transform(dev, acts, batch.counts.loss_rows);
        let Activations { head, layers, .. } = acts;
        let hidden = &layers[self.arch.layers - 1].mlp.y;
        let x = head.transform.as_ref().map_or(hidden, |t| &t.y);
        let input = LossInput { x, targets: &batch.targets, rows: batch.counts.loss_rows };
        let (params, decoder) = (&self.params, &self.layout.decoder);
        dev.head_loss(&mut sums.tokens, None, &mut head.logits, input, params, decoder);
        if let (Some(pair), Some(acts)) = (&self.layout.pair, &mut head.pair) {
            self.pool(dev, acts, pair, hidden, batch);
            let (targets, rows) = (&batch.pair_targets, batch.counts.sequences);
            let input = LossInput { x: &acts.pooled, targets, rows };
            let at = &pair.classifier;
            dev.head_loss(&mut sums.pairs, None, &mut acts.logits, input, params, at);
        }
    }

    /// The losses and, in one pass, their gradients: into `grads`, and into `acts.flow.dh`. `key`
    /// is that of [`Model::forward`].
    #[allow(clippy::too_many_arguments)]
    pub fn loss_backward(
        &self,
        dev: &D,
        sums: &mut Sums<D>,
        grads: &mut D::Acc,
        acts: &mut Activations<D>,
        batch: &DeviceBatch<D>,
        labelled: &Labelled<D>,
        key: Option<DropoutKey>,
    ) {
        if self.arch.task.is_some() {
            self.task_logits(dev, acts, batch, key);
            self.task_loss(dev, sums, acts, batch, Some(labelled));
            return self.task_backward(dev, grads, acts, batch, key);
        }
        let (rows, loss_rows) = (batch.counts.head_rows(), batch.counts.loss_rows);
        self.transform(dev, acts, loss_rows);
        let Activations { head, layers, flow, .. } = acts;
        let flow = flow.as_mut().expect("activations taken for training");
        let hidden = &layers[self.arch.layers - 1].mlp.y;
        let (params, at) = (&self.params, &self.layout);
        if rows > loss_rows {
            dev.zero_x(&mut flow.dh, rows * self.arch.width);
        }
        let [d_y, d_act, d_pre] = &mut flow.de;
        let targets = &batch.targets;
        if let (Some(t), Some(kept)) = (&at.transform, &head.transform) {
            let TransformActs { pre, act, y, stats } = kept;
            let train = Some(LossGrads { dx: d_y, grads, labelled: &labelled.tokens });
            let input = LossInput { x: y, targets, rows: loss_rows };
            dev.head_loss(&mut sums.tokens, train, &mut head.logits, input, params, &at.decoder);
            let saved = Normed { x: act, stats, params };
            dev.norm_backward(d_act, grads, d_y, saved, &t.norm, loss_rows, Into::Set);
            let (len, act_of_head) = (loss_rows * self.arch.embed_width, self.arch.head_activation);
            dev.act_backward(d_pre, d_act, pre, act_of_head, len);
            dev.linear_dw(grads, d_pre, hidden, &t.dense, loss_rows);
            dev.linear_dx(&mut flow.dh, d_pre, params, &t.dense, loss_rows, Into::Set);
        } else {
            let dx = &mut flow.dh;
            let train = Some(LossGrads { dx, grads, labelled: &labelled.tokens });
            let input = LossInput { x: hidden, targets, rows: loss_rows };
            dev.head_loss(&mut sums.tokens, train, &mut head.logits, input, params, &at.decoder);
        }
        if let (Some(pair), Some(acts)) = (&at.pair, &mut head.pair) {
            let s = batch.counts.sequences;
            self.pool(dev, acts, pair, hidden, batch);
            let dx = &mut acts.d_pooled;
            let train = Some(LossGrads { dx, grads, labelled: &labelled.pairs });
            let input = LossInput { x: &acts.pooled, targets: &batch.pair_targets, rows: s };
            let logits = &mut acts.logits;
            dev.head_loss(&mut sums.pairs, train, logits, input, params, &pair.classifier);
            let (c, tanh) = (self.arch.width, Activation::Tanh);
            dev.act_backward(&mut acts.d_pre, &acts.d_pooled, &acts.pre, tanh, s * c);
            dev.linear_dw(grads, &acts.d_pre, &acts.first, &pair.pooler, s);
            let (d_first, d_pre) = (&mut acts.d_pooled, &acts.d_pre);
            dev.linear_dx(d_first, d_pre, params, &pair.pooler, s, Into::Set);
            dev.scatter_add(&mut flow.dh, d_first, &batch.pair_rows, c, s);
        }
    }

    /// logits [M, V] of all rows that [`Model::forward`] let through to the head; of a language
    /// model. A task's are [M, K], left in `acts.head.task` by [`Model::task_logits`].
    pub fn logits(
        &self,
        dev: &D,
        logits: &mut D::X,
        acts: &mut Activations<D>,
        batch: &DeviceBatch<D>,
    ) {
        let rows = batch.counts.head_rows();
        self.transform(dev, acts, rows);
        let hidden = self.hidden(acts);
        let x = acts.head.transform.as_ref().map_or(hidden, |t| &t.y);
        dev.linear(logits, x, &self.params, &self.layout.decoder, rows);
    }

    /// logits [S, 2] of the pair head, if there is one.
    pub fn pair_logits(
        &self,
        dev: &D,
        acts: &mut Activations<D>,
        batch: &DeviceBatch<D>,
    ) -> Option<D::X> {
        let Activations { head, layers, .. } = acts;
        let hidden = &layers[self.arch.layers - 1].mlp.y;
        let (pair, acts) = (self.layout.pair.as_ref()?, head.pair.as_mut()?);
        self.pool(dev, acts, pair, hidden, batch);
        let s = batch.counts.sequences;
        let mut logits = dev.x(Class::Scratch, 2 * s);
        dev.linear(&mut logits, &acts.pooled, &self.params, &pair.classifier, s);
        Some(logits)
    }

    /// y [M, E] = norm(act(dense(hidden))), where there is a transform.
    fn transform(&self, dev: &D, acts: &mut Activations<D>, rows: usize) {
        let Activations { head, layers, .. } = acts;
        let hidden = &layers[self.arch.layers - 1].mlp.y;
        if let (Some(t), Some(kept)) = (&self.layout.transform, &mut head.transform) {
            let TransformActs { pre, act, y, stats } = kept;
            let act_of_head = self.arch.head_activation;
            dev.linear_act(act, pre, hidden, &self.params, &t.dense, act_of_head, rows);
            dev.norm(y, stats, act, &self.params, &t.norm, rows);
        }
    }

    /// pooled [S, C] = tanh(pooler(hidden of each sequence's first token))
    fn pool(
        &self,
        dev: &D,
        acts: &mut PairActs<D>,
        pair: &Pair,
        hidden: &D::X,
        batch: &DeviceBatch<D>,
    ) {
        let (s, tanh) = (batch.counts.sequences, Activation::Tanh);
        let PairActs { first, pre, pooled, .. } = acts;
        dev.gather(first, hidden, &batch.pair_rows, self.arch.width, s);
        dev.linear_act(pooled, pre, first, &self.params, &pair.pooler, tanh, s);
    }
}
