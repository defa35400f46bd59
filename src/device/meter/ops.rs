//! Each op, with what its family's `cost` says of it.

use super::Meter;
use crate::data::masking::Masker;
use crate::device::{Buffer, Memory};
use crate::ops::activation::{self, Activation};
use crate::ops::attention::{self, Attended, Attention, AttentionOps, Packed};
use crate::ops::cache::{self, CacheOps, Kept};
use crate::ops::dropout::{self, Dropout, DropoutOps};
use crate::ops::embed::{self, Embed, EmbedOps, Tokens};
use crate::ops::gather::{self, GatherOps};
use crate::ops::linear::{self, Linear, LinearOps};
use crate::ops::loss::{self, LossGrads, LossInput, LossOps};
use crate::ops::mask::{self, MaskOps, Masked, Unmasked};
use crate::ops::norm::{self, Norm, NormOps, Normed, Residual};
use crate::ops::optimizer::{self, Arenas, Group, OptimizerOps, Update};
use crate::ops::reduce::{self, ReduceOps};
use crate::ops::rope::Rotation;
use crate::ops::task::{self, TaskOps, Truth};
use crate::ops::{Cost, Into};

impl<D: EmbedOps> EmbedOps for Meter<D> {
    fn embed(&self, y: &mut D::X, t: Tokens<Self>, params: &D::X, at: &Embed) {
        let (x, _) = self.sizes();
        let cost = embed::cost(at, t.rows, x, x);
        self.call("embed", cost, |d| d.embed(y, tokens(t), params, at));
    }

    fn embed_backward(&self, grads: &mut D::Acc, dy: &D::X, t: Tokens<Self>, at: &Embed) {
        let (x, acc) = self.sizes();
        let cost = embed::cost(at, t.rows, x, 2 * acc);
        self.call("embed_backward", cost, |d| d.embed_backward(grads, dy, tokens(t), at));
    }
}

fn tokens<D: Memory>(t: Tokens<'_, Meter<D>>) -> Tokens<'_, D> {
    Tokens { ids: t.ids, positions: t.positions, types: t.types, rows: t.rows }
}

impl<D: NormOps> NormOps for Meter<D> {
    fn norm(
        &self,
        y: &mut D::X,
        stats: &mut D::Acc,
        x: &D::X,
        params: &D::X,
        at: &Norm,
        rows: usize,
    ) {
        let (size, acc) = self.sizes();
        let cost = norm::cost(at, rows, 2, size, acc);
        self.call("norm", cost, |d| d.norm(y, stats, x, params, at, rows));
    }

    fn add_norm(
        &self,
        y: &mut D::X,
        sum: &mut D::X,
        stats: &mut D::Acc,
        terms: Residual<D::X>,
        params: &D::X,
        at: &Norm,
        rows: usize,
    ) {
        let (x, acc) = self.sizes();
        let cost = norm::cost(at, rows, 4, x, acc);
        self.call("add_norm", cost, |d| d.add_norm(y, sum, stats, terms, params, at, rows));
    }

    fn norm_backward(
        &self,
        dx: &mut D::X,
        grads: &mut D::Acc,
        dy: &D::X,
        saved: Normed<Self>,
        at: &Norm,
        rows: usize,
        into: Into,
    ) {
        let (x, acc) = self.sizes();
        let cost = norm::cost(at, rows, if into == Into::Add { 4 } else { 3 }, x, acc);
        let saved = Normed { x: saved.x, stats: saved.stats, params: saved.params };
        self.call("norm_backward", cost, |d| {
            d.norm_backward(dx, grads, dy, saved, at, rows, into);
        });
    }
}

impl<D: LinearOps> LinearOps for Meter<D> {
    fn linear(&self, y: &mut D::X, x: &D::X, params: &D::X, at: &Linear, rows: usize) {
        let (size, _) = self.sizes();
        let cost = linear::cost(at, rows, 0, size);
        self.call("linear", cost, |d| d.linear(y, x, params, at, rows));
    }

    fn linear_act(
        &self,
        y: &mut D::X,
        pre: &mut D::X,
        x: &D::X,
        params: &D::X,
        at: &Linear,
        activation: Activation,
        rows: usize,
    ) {
        let (size, _) = self.sizes();
        let cost = linear::cost(at, rows, at.n_out, size);
        self.call("linear_act", cost, |d| d.linear_act(y, pre, x, params, at, activation, rows));
    }

    fn linear_gate(
        &self,
        y: &mut D::X,
        pre: &mut D::X,
        x: &D::X,
        params: &D::X,
        at: &Linear,
        activation: Activation,
        rows: usize,
    ) {
        let (size, _) = self.sizes();
        let cost = linear::cost(at, rows, at.n_out / 2, size);
        self.call("linear_gate", cost, |d| d.linear_gate(y, pre, x, params, at, activation, rows));
    }

    fn linear_rope(
        &self,
        qkv: &mut D::X,
        x: &D::X,
        params: &D::X,
        at: &Linear,
        rotation: Rotation<Self>,
        rows: usize,
    ) {
        let (size, _) = self.sizes();
        let cost = linear::cost(at, rows, 0, size);
        let rotation = unwrap_rotation(rotation);
        self.call("linear_rope", cost, |d| d.linear_rope(qkv, x, params, at, rotation, rows));
    }

    fn linear_dx(
        &self,
        dx: &mut D::X,
        dy: &D::X,
        params: &D::X,
        at: &Linear,
        rows: usize,
        into: Into,
    ) {
        let (size, _) = self.sizes();
        let cost = linear::cost(at, rows, if into == Into::Add { at.n_in } else { 0 }, size);
        self.call("linear_dx", cost, |d| d.linear_dx(dx, dy, params, at, rows, into));
    }

    fn linear_dx_act(
        &self,
        dpre: &mut D::X,
        dy: &D::X,
        pre: &D::X,
        params: &D::X,
        at: &Linear,
        activation: Activation,
        rows: usize,
    ) {
        let (size, _) = self.sizes();
        let cost = linear::cost(at, rows, at.n_in, size);
        self.call("linear_dx_act", cost, |d| {
            d.linear_dx_act(dpre, dy, pre, params, at, activation, rows);
        });
    }

    fn linear_dx_gate(
        &self,
        dpre: &mut D::X,
        dy: &D::X,
        pre: &D::X,
        params: &D::X,
        at: &Linear,
        activation: Activation,
        rows: usize,
    ) {
        let (size, _) = self.sizes();
        let cost = linear::cost(at, rows, 3 * at.n_in, size);
        self.call("linear_dx_gate", cost, |d| {
            d.linear_dx_gate(dpre, dy, pre, params, at, activation, rows);
        });
    }

    fn linear_dw(&self, grads: &mut D::Acc, dy: &D::X, x: &D::X, at: &Linear, rows: usize) {
        let (size, acc) = self.sizes();
        let cost = linear::cost_dw(at, rows, size, acc);
        self.call("linear_dw", cost, |d| d.linear_dw(grads, dy, x, at, rows));
    }

    fn act_backward(
        &self,
        dpre: &mut D::X,
        dy: &D::X,
        pre: &D::X,
        activation: Activation,
        len: usize,
    ) {
        let (size, _) = self.sizes();
        let cost = activation::cost(len, size);
        self.call("act_backward", cost, |d| d.act_backward(dpre, dy, pre, activation, len));
    }
}

fn unwrap_rotation<D: Memory>(r: Rotation<'_, Meter<D>>) -> Rotation<'_, D> {
    Rotation { table: r.table, positions: r.positions, head_dim: r.head_dim }
}

impl<D: AttentionOps> Meter<D> {
    fn attention_cost(&self, p: &Packed<Self>, at: &Attention, backward: bool) -> Cost {
        let pairs = p.ends.windows(2).map(|ends| at.pairs((ends[1] - ends[0]) as usize)).sum();
        let rows = p.tokens();
        let (x, acc) = self.sizes();
        attention::cost(at, rows, pairs, backward, x, acc)
    }
}

impl<D: AttentionOps> AttentionOps for Meter<D> {
    fn attention(&self, o: &mut D::X, lse: &mut D::Acc, packed: Packed<Self>, at: &Attention) {
        let cost = self.attention_cost(&packed, at, false);
        self.call("attention", cost, |d| d.attention(o, lse, unwrap(packed), at));
    }

    fn attention_backward(
        &self,
        dqkv: &mut D::X,
        d_o: &D::X,
        saved: Attended<Self>,
        packed: Packed<Self>,
        at: &Attention,
        rotation: Option<Rotation<Self>>,
    ) {
        let cost = self.attention_cost(&packed, at, true);
        let rotation = rotation.map(unwrap_rotation);
        let saved = Attended { o: saved.o, lse: saved.lse };
        self.call("attention_backward", cost, |d| {
            d.attention_backward(dqkv, d_o, saved, unwrap(packed), at, rotation);
        });
    }
}

fn unwrap<D: Memory>(p: Packed<'_, Meter<D>>) -> Packed<'_, D> {
    Packed { qkv: p.qkv, cu_seqlens: p.cu_seqlens, order: p.order, ends: p.ends }
}

impl<D: CacheOps> CacheOps for Meter<D> {
    fn keep(&self, to: &mut D::X, qkv: &D::X, rows: &D::Int, width: usize, count: usize) {
        let (size, _) = self.sizes();
        let cost = cache::cost_keep(width, count, size);
        self.call("keep", cost, |d| d.keep(to, qkv, rows, width, count));
    }

    fn attend(&self, o: &mut D::X, qkv: &D::X, kept: Kept<Self>, at: &Attention) {
        let (size, _) = self.sizes();
        let cost = cache::cost_attend(at, kept.known.len(), kept.seen(at).sum(), size);
        let Kept { cache, rows, stride, lengths, known } = kept;
        let kept = Kept { cache, rows, stride, lengths, known };
        self.call("attend", cost, |d| d.attend(o, qkv, kept, at));
    }
}

impl<D: GatherOps> GatherOps for Meter<D> {
    fn gather(&self, y: &mut D::X, x: &D::X, rows: &D::Int, width: usize, count: usize) {
        let (size, _) = self.sizes();
        let cost = gather::cost(width, count, 2, size);
        self.call("gather", cost, |d| d.gather(y, x, rows, width, count));
    }

    fn scatter_add(&self, dx: &mut D::X, dy: &D::X, rows: &D::Int, width: usize, count: usize) {
        let (size, _) = self.sizes();
        let cost = gather::cost(width, count, 3, size);
        self.call("scatter_add", cost, |d| d.scatter_add(dx, dy, rows, width, count));
    }
}

impl<D: DropoutOps> DropoutOps for Meter<D> {
    fn dropout(&self, y: &mut D::X, x: &D::X, dropout: Dropout, len: usize) {
        let (size, _) = self.sizes();
        let cost = dropout::cost(len, size);
        self.call("dropout", cost, |d| d.dropout(y, x, dropout, len));
    }
}

impl<D: LossOps> LossOps for Meter<D> {
    fn head_loss(
        &self,
        sums: &mut D::Acc,
        train: Option<LossGrads<Self>>,
        logits: &mut D::X,
        input: LossInput<Self>,
        params: &D::X,
        at: &Linear,
    ) {
        let (size, acc) = self.sizes();
        let cost = loss::cost(at, input.rows, train.is_some(), size, acc);
        let train = train.map(|t| LossGrads { dx: t.dx, grads: t.grads, labelled: t.labelled });
        let input = LossInput { x: input.x, targets: input.targets, rows: input.rows };
        self.call("head_loss", cost, |d| d.head_loss(sums, train, logits, input, params, at));
    }
}

impl<D: TaskOps> TaskOps for Meter<D> {
    fn mean_rows(&self, y: &mut D::X, x: &D::X, cu: &D::Int, width: usize, sequences: usize) {
        let (size, _) = self.sizes();
        let cost = task::cost_mean(width, x.len() / width, sequences, size);
        self.call("mean_rows", cost, |d| d.mean_rows(y, x, cu, width, sequences));
    }

    fn mean_rows_backward(
        &self,
        dx: &mut D::X,
        dy: &D::X,
        cu: &D::Int,
        width: usize,
        sequences: usize,
    ) {
        let (size, _) = self.sizes();
        let cost = task::cost_mean(width, dx.len() / width, sequences, size);
        self.call("mean_rows_backward", cost, |d| {
            d.mean_rows_backward(dx, dy, cu, width, sequences);
        });
    }

    fn task_loss(
        &self,
        sums: &mut D::Acc,
        logits: &mut D::X,
        truth: Truth<Self>,
        rows: usize,
        outputs: usize,
        total: Option<&D::Acc>,
    ) {
        let (size, _) = self.sizes();
        let cost = task::cost_loss(rows, outputs, total.is_some(), size);
        let truth = match truth {
            Truth::Classes { targets, weights } => Truth::Classes { targets, weights },
            Truth::Flags { targets, weights } => Truth::Flags { targets, weights },
            Truth::Values { targets } => Truth::Values { targets },
            Truth::Spans { targets, cu_seqlens, sequences } => {
                Truth::Spans { targets, cu_seqlens, sequences }
            }
        };
        self.call("task_loss", cost, |d| d.task_loss(sums, logits, truth, rows, outputs, total));
    }
}

impl<D: MaskOps> MaskOps for Meter<D> {
    fn mask(&self, out: Masked<Self>, input: Unmasked<Self>, masker: &Masker) {
        let Masked { ids, rows, targets, count } = out;
        let out = Masked { ids, rows, targets, count };
        let Unmasked { ids, positions, flags, start, tokens, countable } = input;
        let input = Unmasked { ids, positions, flags, start, tokens, countable };
        self.call("mask", mask::cost(tokens), |d| d.mask(out, input, masker));
    }
}

impl<D: ReduceOps> ReduceOps for Meter<D> {
    fn zero_x(&self, x: &mut D::X, len: usize) {
        let (size, _) = self.sizes();
        let cost = Cost { flops: 0.0, ..reduce::cost(len, size) };
        self.call("zero_x", cost, |d| d.zero_x(x, len));
    }

    fn zero_acc(&self, acc: &mut D::Acc) {
        let (_, size) = self.sizes();
        let cost = Cost { flops: 0.0, ..reduce::cost(acc.len(), size) };
        self.call("zero_acc", cost, |d| d.zero_acc(acc));
    }

    fn judge(&self, control: &mut D::Acc, grads: &D::Acc, sums: &D::Acc) {
        let (_, size) = self.sizes();
        let cost = reduce::cost(grads.len(), size);
        self.call("judge", cost, |d| d.judge(control, grads, sums));
    }
}

impl<D: OptimizerOps> OptimizerOps for Meter<D> {
    fn update(
        &self,
        arenas: Arenas<Self>,
        grads: &D::Acc,
        control: &D::Acc,
        update: &Update,
        groups: &[Group],
    ) {
        let (x, acc) = self.sizes();
        let len = groups.iter().map(|g| g.span.len).sum();
        let cost = optimizer::cost(&update.rule, len, x, acc);
        let Arenas { params, master, m, v } = arenas;
        let arenas = Arenas { params, master, m, v };
        self.call("update", cost, |d| d.update(arenas, grads, control, update, groups));
    }

    fn store(&self, params: &mut D::X, master: &D::Acc) {
        let (x, acc) = self.sizes();
        let cost = Cost { flops: 0.0, bytes: (master.len() * (x + acc)) as f64 };
        self.call("store", cost, |d| d.store(params, master));
    }
}
