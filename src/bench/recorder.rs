//! A device that computes nothing and notes what it is asked for: a step run on it tells every
//! call of a training step, at the shapes at which the model makes them.

use std::cell::RefCell;

use super::batches;
use super::call::{Arena, Call, still, still_if_any};
use crate::data::Batch;
use crate::data::masking::Masker;
use crate::device::null::{Hollow, Null};
use crate::device::{Buffer, Class, Format, Memory, Repeats};
use crate::model::arch::{Arch, ArchError};
use crate::model::batch::Capacity;
use crate::ops::Into;
use crate::ops::activation::Activation;
use crate::ops::attention::{Attended, Attention, AttentionOps, Packed};
use crate::ops::cache::{CacheOps, Kept};
use crate::ops::dropout::{Dropout, DropoutOps};
use crate::ops::embed::{Embed, EmbedOps, Tokens};
use crate::ops::gather::GatherOps;
use crate::ops::linear::{Linear, LinearOps};
use crate::ops::loss::{LossGrads, LossInput, LossOps};
use crate::ops::mask::{MaskOps, Masked, Unmasked};
use crate::ops::norm::{Norm, NormOps, Normed, Residual};
use crate::ops::optimizer::{Arenas, Group, OptimizerOps, Rule, Update};
use crate::ops::reduce::ReduceOps;
use crate::ops::rope::Rotation;
use crate::ops::task::{TaskOps, Truth};
use crate::train::step::{StepKey, Trainer};

/// Notes calls; its tensors are those of [`Null`].
struct Recorder {
    null: Null,
    /// Each call, and how often it was made, in the order of first calls.
    calls: RefCell<Vec<(Call, u64)>>,
}

/// Every distinct call of a step over one such batch, masked on the device if at all, and how often
/// the step makes it.
///
/// # Errors
/// If `arch` cannot be.
pub fn calls(arch: &Arch, batch: &Batch) -> Result<Vec<(Call, u64)>, ArchError> {
    let dev = Recorder { null: Null::gpu(), calls: RefCell::default() };
    let (batch, masker) = batches::unmasked(arch, std::slice::from_ref(batch));
    let capacity = Capacity::of(&batch[0], arch.pair);
    let mut trainer = Trainer::new(&dev, arch, capacity, 1, masker.as_ref(), batches::DECAY)?;
    let update = Update { rule: Rule::default(), ..batches::update() };
    trainer.step(&dev, &batch, StepKey { seed: 1, step: 0 }, &update);
    Ok(dev.calls.into_inner())
}

impl Recorder {
    fn note(&self, call: Call) {
        let mut calls = self.calls.borrow_mut();
        match calls.iter_mut().find(|(known, _)| *known == call) {
            Some((_, count)) => *count += 1,
            None => calls.push((call, 1)),
        }
    }
}

fn lone_norm(at: &Norm) -> Norm {
    Arena::default().norm(at)
}

fn lone_linear(at: &Linear) -> Linear {
    Arena::default().linear(at)
}

fn still_attention(at: &Attention) -> Attention {
    Attention { dropout: still_if_any(at.dropout), ..*at }
}

impl Memory for Recorder {
    type X = Hollow;
    type Acc = Hollow;
    type Int = Vec<i32>;

    fn x_format(&self) -> Format {
        self.null.x_format()
    }

    fn acc_format(&self) -> Format {
        self.null.acc_format()
    }

    fn x(&self, class: Class, len: usize) -> Hollow {
        self.null.x(class, len)
    }

    fn acc(&self, class: Class, len: usize) -> Hollow {
        self.null.acc(class, len)
    }

    fn int(&self, class: Class, len: usize) -> Vec<i32> {
        self.null.int(class, len)
    }

    fn logit_rows(&self, vocab: usize) -> usize {
        self.null.logit_rows(vocab)
    }
}

impl Repeats for Recorder {
    type Script = ();
}

type X = Hollow;
type Acc = Hollow;
type Int = Vec<i32>;

impl EmbedOps for Recorder {
    fn embed(&self, _: &mut X, t: Tokens<Self>, _: &X, at: &Embed) {
        self.note(Call::Embed { at: Arena::default().embed(at), rows: t.rows });
    }

    fn embed_backward(&self, _: &mut Acc, _: &X, t: Tokens<Self>, at: &Embed) {
        self.note(Call::EmbedBackward { at: Arena::default().embed(at), rows: t.rows });
    }
}

impl NormOps for Recorder {
    fn norm(&self, _: &mut X, _: &mut Acc, _: &X, _: &X, at: &Norm, rows: usize) {
        self.note(Call::Norm { at: lone_norm(at), rows });
    }

    fn add_norm(
        &self,
        _: &mut X,
        _: &mut X,
        _: &mut Acc,
        terms: Residual<X>,
        _: &X,
        at: &Norm,
        rows: usize,
    ) {
        let dropout = still_if_any(terms.dropout);
        self.note(Call::AddNorm { at: lone_norm(at), rows, dropout });
    }

    fn norm_backward(
        &self,
        _: &mut X,
        _: &mut Acc,
        _: &X,
        _: Normed<Self>,
        at: &Norm,
        rows: usize,
        into: Into,
    ) {
        self.note(Call::NormBackward { at: lone_norm(at), rows, into });
    }
}

impl LinearOps for Recorder {
    fn linear(&self, _: &mut X, _: &X, _: &X, at: &Linear, rows: usize) {
        self.note(Call::Linear { at: lone_linear(at), rows });
    }

    fn linear_act(
        &self,
        _: &mut X,
        _: &mut X,
        _: &X,
        _: &X,
        at: &Linear,
        activation: Activation,
        rows: usize,
    ) {
        self.note(Call::LinearAct { at: lone_linear(at), rows, activation });
    }

    fn linear_gate(
        &self,
        _: &mut X,
        _: &mut X,
        _: &X,
        _: &X,
        at: &Linear,
        activation: Activation,
        rows: usize,
    ) {
        self.note(Call::LinearGate { at: lone_linear(at), rows, activation });
    }

    fn linear_rope(&self, _: &mut X, _: &X, _: &X, at: &Linear, r: Rotation<Self>, rows: usize) {
        let (at, context) = (lone_linear(at), context(&r));
        self.note(Call::LinearRope { at, rows, head_dim: r.head_dim, context });
    }

    fn linear_dx(&self, _: &mut X, _: &X, _: &X, at: &Linear, rows: usize, into: Into) {
        self.note(Call::LinearDx { at: lone_linear(at), rows, into });
    }

    fn linear_dx_act(
        &self,
        _: &mut X,
        _: &X,
        _: &X,
        _: &X,
        at: &Linear,
        activation: Activation,
        rows: usize,
    ) {
        self.note(Call::LinearDxAct { at: lone_linear(at), rows, activation });
    }

    fn linear_dx_gate(
        &self,
        _: &mut X,
        _: &X,
        _: &X,
        _: &X,
        at: &Linear,
        activation: Activation,
        rows: usize,
    ) {
        self.note(Call::LinearDxGate { at: lone_linear(at), rows, activation });
    }

    fn linear_dw(&self, _: &mut Acc, _: &X, _: &X, at: &Linear, rows: usize) {
        self.note(Call::LinearDw { at: lone_linear(at), rows });
    }

    fn act_backward(&self, _: &mut X, _: &X, _: &X, activation: Activation, len: usize) {
        self.note(Call::ActBackward { activation, len });
    }
}

/// Positions that there are angles of.
fn context(rotation: &Rotation<Recorder>) -> usize {
    rotation.table.len() / rotation.head_dim
}

impl AttentionOps for Recorder {
    fn attention(&self, _: &mut X, _: &mut Acc, packed: Packed<Self>, at: &Attention) {
        let ends = packed.ends.to_vec();
        self.note(Call::Attention { at: still_attention(at), ends });
    }

    fn attention_backward(
        &self,
        _: &mut X,
        _: &X,
        _: Attended<Self>,
        packed: Packed<Self>,
        at: &Attention,
        rotation: Option<Rotation<Self>>,
    ) {
        let (ends, rotary) = (packed.ends.to_vec(), rotation.as_ref().map(context));
        self.note(Call::AttentionBackward { at: still_attention(at), ends, rotary });
    }
}

/// Of generation, which is no part of a step.
impl CacheOps for Recorder {
    fn keep(&self, _: &mut X, _: &X, _: &Int, _: usize, _: usize) {}
    fn attend(&self, _: &mut X, _: &X, _: Kept<Self>, _: &Attention) {}
}

impl GatherOps for Recorder {
    fn gather(&self, _: &mut X, x: &X, _: &Int, width: usize, count: usize) {
        self.note(Call::Gather { width, count, of: x.len() / width });
    }

    fn scatter_add(&self, dx: &mut X, _: &X, _: &Int, width: usize, count: usize) {
        self.note(Call::ScatterAdd { width, count, of: dx.len() / width });
    }
}

/// Of models with a task's head, which are not pretrained and so not recorded.
impl TaskOps for Recorder {
    fn mean_rows(&self, _: &mut X, _: &X, _: &Int, _: usize, _: usize) {}
    fn mean_rows_backward(&self, _: &mut X, _: &X, _: &Int, _: usize, _: usize) {}
    fn task_loss(
        &self,
        _: &mut Acc,
        _: &mut X,
        _: Truth<Self>,
        _: usize,
        _: usize,
        _: Option<&Acc>,
    ) {
    }
}

impl DropoutOps for Recorder {
    fn dropout(&self, _: &mut X, _: &X, dropout: Dropout, len: usize) {
        self.note(Call::Dropout { dropout: still(dropout), len });
    }
}

impl LossOps for Recorder {
    fn head_loss(
        &self,
        _: &mut Acc,
        train: Option<LossGrads<Self>>,
        logits: &mut X,
        input: LossInput<Self>,
        _: &X,
        at: &Linear,
    ) {
        let (rows, chunk, train) = (input.rows, logits.len() / at.n_out, train.is_some());
        self.note(Call::HeadLoss { at: lone_linear(at), rows, chunk, train });
    }
}

impl MaskOps for Recorder {
    fn mask(&self, _: Masked<Self>, input: Unmasked<Self>, masker: &Masker) {
        let (masking, vocab, tokens) = (masker.masking(), input.flags.len(), input.tokens);
        self.note(Call::Mask { masking, vocab, tokens });
    }
}

impl ReduceOps for Recorder {
    fn zero_x(&self, _: &mut X, len: usize) {
        self.note(Call::ZeroX { len });
    }

    fn zero_acc(&self, acc: &mut Acc) {
        self.note(Call::ZeroAcc { len: acc.len() });
    }

    fn judge(&self, _: &mut Acc, grads: &Acc, _: &Acc) {
        self.note(Call::Judge { len: grads.len() });
    }
}

impl OptimizerOps for Recorder {
    fn update(&self, _: Arenas<Self>, grads: &Acc, _: &Acc, update: &Update, groups: &[Group]) {
        let (groups, len) = (groups.to_vec(), grads.len());
        self.note(Call::Update { update: *update, groups, len });
    }

    fn store(&self, params: &mut X, _: &Acc) {
        self.note(Call::Store { len: params.len() });
    }
}

/// Only the first of two layers' calls is kept: spans are laid anew, from 0.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::families::preset;
    use crate::ops::Span;

    #[test]
    fn layers_of_one_shape_make_one_call() {
        let arch = preset("gpt2-tiny").unwrap();
        let batch = batches::batch(&arch, &[32, 32], None);
        let found = calls(&arch, &batch).unwrap();
        let span = Span::first(3 * arch.width * arch.width);
        let qkv = found.iter().filter(|(call, _)| match call {
            Call::Linear { at, .. } => at.weight == span,
            _ => false,
        });
        let counts: Vec<u64> = qkv.map(|(_, count)| *count).collect();
        assert_eq!(counts, [arch.layers as u64]);
    }
}
