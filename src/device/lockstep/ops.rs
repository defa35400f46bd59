//! Each op on both devices, then its results compared, with the number of terms that each sums.

use super::Lockstep;
use crate::data::masking::Masker;
use crate::device::{Buffer, Memory};
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
use crate::ops::optimizer::{Arenas, Group, OptimizerOps, Update};
use crate::ops::reduce::{CONTROL, ReduceOps};
use crate::ops::rope::Rotation;
use crate::ops::task::{TaskOps, Truth};
use crate::ops::{Into, Span};

/// Elementary roundings on the way to one element where no sum is taken: an optimizer's rule.
const STEPS: usize = 16;

/// Each row of ds sums to zero, so what all keys have in common cancels out of Σ_j ds_ij k_j, but
/// not out of its rounding: the sums of attention's backward round as though this many times as
/// long.
const COMMON: usize = 16;

/// The bound of what must agree to the bit.
const EXACT: f64 = 0.0;

fn rows(rows: usize, width: usize) -> Span {
    Span::first(rows * width)
}

impl<A: EmbedOps, B: EmbedOps> EmbedOps for Lockstep<A, B> {
    fn embed(&self, y: &mut Self::X, t: Tokens<Self>, params: &Self::X, at: &Embed) {
        self.a.embed(&mut y.a, tokens_a(&t), &params.a, at);
        self.b.embed(&mut y.b, tokens_b(&t), &params.b, at);
        self.compare(("embed", "y"), y, rows(t.rows, at.width), at.width, self.stored(3));
    }

    fn embed_backward(&self, grads: &mut Self::Acc, dy: &Self::X, t: Tokens<Self>, at: &Embed) {
        self.a.embed_backward(&mut grads.a, &dy.a, tokens_a(&t), at);
        self.b.embed_backward(&mut grads.b, &dy.b, tokens_b(&t), at);
        let (width, bound) = (at.width, self.summed(t.rows));
        self.compare(("embed_backward", "tokens in grads"), grads, at.tokens, width, bound);
        if let Some(span) = at.positions {
            self.compare(("embed_backward", "positions in grads"), grads, span, width, bound);
        }
        if let Some(span) = at.types {
            self.compare(("embed_backward", "types in grads"), grads, span, width, bound);
        }
    }
}

fn tokens_a<'a, A: Memory, B: Memory>(t: &Tokens<'a, Lockstep<A, B>>) -> Tokens<'a, A> {
    Tokens { ids: &t.ids.a, positions: &t.positions.a, types: &t.types.a, rows: t.rows }
}

fn tokens_b<'a, A: Memory, B: Memory>(t: &Tokens<'a, Lockstep<A, B>>) -> Tokens<'a, B> {
    Tokens { ids: &t.ids.b, positions: &t.positions.b, types: &t.types.b, rows: t.rows }
}

impl<A: NormOps, B: NormOps> NormOps for Lockstep<A, B> {
    fn norm(
        &self,
        y: &mut Self::X,
        stats: &mut Self::Acc,
        x: &Self::X,
        params: &Self::X,
        at: &Norm,
        n: usize,
    ) {
        self.a.norm(&mut y.a, &mut stats.a, &x.a, &params.a, at, n);
        self.b.norm(&mut y.b, &mut stats.b, &x.b, &params.b, at, n);
        let c = at.width;
        self.compare(("norm", "stats"), stats, rows(n, 2), 2, self.summed(c));
        self.compare(("norm", "y"), y, rows(n, c), c, self.stored(c));
    }

    fn add_norm(
        &self,
        y: &mut Self::X,
        sum: &mut Self::X,
        stats: &mut Self::Acc,
        terms: Residual<Self::X>,
        params: &Self::X,
        at: &Norm,
        n: usize,
    ) {
        let Residual { residual, branch, dropout } = terms;
        let terms = Residual { residual: &residual.a, branch: &branch.a, dropout };
        self.a.add_norm(&mut y.a, &mut sum.a, &mut stats.a, terms, &params.a, at, n);
        let terms = Residual { residual: &residual.b, branch: &branch.b, dropout };
        self.b.add_norm(&mut y.b, &mut sum.b, &mut stats.b, terms, &params.b, at, n);
        let c = at.width;
        self.compare(("add_norm", "sum"), sum, rows(n, c), c, self.stored(2));
        // The norm is of the sum as stored, which A and B round differently.
        self.compare(("add_norm", "stats"), stats, rows(n, 2), 2, self.stored(c));
        self.compare(("add_norm", "y"), y, rows(n, c), c, self.stored(c));
    }

    fn norm_backward(
        &self,
        dx: &mut Self::X,
        grads: &mut Self::Acc,
        dy: &Self::X,
        saved: Normed<Self>,
        at: &Norm,
        n: usize,
        into: Into,
    ) {
        let Normed { x, stats, params } = saved;
        let saved = Normed { x: &x.a, stats: &stats.a, params: &params.a };
        self.a.norm_backward(&mut dx.a, &mut grads.a, &dy.a, saved, at, n, into);
        let saved = Normed { x: &x.b, stats: &stats.b, params: &params.b };
        self.b.norm_backward(&mut dx.b, &mut grads.b, &dy.b, saved, at, n, into);
        let c = at.width;
        self.compare(("norm_backward", "dx"), dx, rows(n, c), c, self.stored(c));
        let bound = self.summed(n);
        self.compare(("norm_backward", "weight in grads"), grads, at.weight, c, bound);
        if let Some(bias) = at.bias {
            self.compare(("norm_backward", "bias in grads"), grads, bias, c, bound);
        }
    }
}

impl<A: LinearOps, B: LinearOps> LinearOps for Lockstep<A, B> {
    fn linear(&self, y: &mut Self::X, x: &Self::X, params: &Self::X, at: &Linear, n: usize) {
        self.a.linear(&mut y.a, &x.a, &params.a, at, n);
        self.b.linear(&mut y.b, &x.b, &params.b, at, n);
        self.compare(("linear", "y"), y, rows(n, at.n_out), at.n_out, self.stored(at.n_in));
    }

    fn linear_act(
        &self,
        y: &mut Self::X,
        pre: &mut Self::X,
        x: &Self::X,
        params: &Self::X,
        at: &Linear,
        act: Activation,
        n: usize,
    ) {
        self.a.linear_act(&mut y.a, &mut pre.a, &x.a, &params.a, at, act, n);
        self.b.linear_act(&mut y.b, &mut pre.b, &x.b, &params.b, at, act, n);
        let (span, width, bound) = (rows(n, at.n_out), at.n_out, self.stored(at.n_in));
        self.compare(("linear_act", "pre"), pre, span, width, bound);
        self.compare(("linear_act", "y"), y, span, width, bound);
    }

    fn linear_gate(
        &self,
        y: &mut Self::X,
        pre: &mut Self::X,
        x: &Self::X,
        params: &Self::X,
        at: &Linear,
        act: Activation,
        n: usize,
    ) {
        self.a.linear_gate(&mut y.a, &mut pre.a, &x.a, &params.a, at, act, n);
        self.b.linear_gate(&mut y.b, &mut pre.b, &x.b, &params.b, at, act, n);
        let (span, width, bound) = (rows(n, at.n_out), at.n_out, self.stored(at.n_in));
        self.compare(("linear_gate", "pre"), pre, span, width, bound);
        let inner = width / 2;
        self.compare(("linear_gate", "y"), y, rows(n, inner), inner, bound);
    }

    fn linear_rope(
        &self,
        qkv: &mut Self::X,
        x: &Self::X,
        params: &Self::X,
        at: &Linear,
        rotation: Rotation<Self>,
        n: usize,
    ) {
        self.a.linear_rope(&mut qkv.a, &x.a, &params.a, at, rotation_a(rotation), n);
        self.b.linear_rope(&mut qkv.b, &x.b, &params.b, at, rotation_b(rotation), n);
        let (width, bound) = (at.n_out, self.stored(at.n_in));
        self.compare(("linear_rope", "qkv"), qkv, rows(n, width), width, bound);
    }

    fn linear_dx(
        &self,
        dx: &mut Self::X,
        dy: &Self::X,
        params: &Self::X,
        at: &Linear,
        n: usize,
        into: Into,
    ) {
        self.a.linear_dx(&mut dx.a, &dy.a, &params.a, at, n, into);
        self.b.linear_dx(&mut dx.b, &dy.b, &params.b, at, n, into);
        self.compare(("linear_dx", "dx"), dx, rows(n, at.n_in), at.n_in, self.stored(at.n_out));
    }

    fn linear_dx_act(
        &self,
        dpre: &mut Self::X,
        dy: &Self::X,
        pre: &Self::X,
        params: &Self::X,
        at: &Linear,
        act: Activation,
        n: usize,
    ) {
        self.a.linear_dx_act(&mut dpre.a, &dy.a, &pre.a, &params.a, at, act, n);
        self.b.linear_dx_act(&mut dpre.b, &dy.b, &pre.b, &params.b, at, act, n);
        let (span, bound) = (rows(n, at.n_in), self.stored(at.n_out));
        self.compare(("linear_dx_act", "dpre"), dpre, span, at.n_in, bound);
    }

    fn linear_dx_gate(
        &self,
        dpre: &mut Self::X,
        dy: &Self::X,
        pre: &Self::X,
        params: &Self::X,
        at: &Linear,
        act: Activation,
        n: usize,
    ) {
        self.a.linear_dx_gate(&mut dpre.a, &dy.a, &pre.a, &params.a, at, act, n);
        self.b.linear_dx_gate(&mut dpre.b, &dy.b, &pre.b, &params.b, at, act, n);
        let (width, bound) = (2 * at.n_in, self.stored(at.n_out));
        self.compare(("linear_dx_gate", "dpre"), dpre, rows(n, width), width, bound);
    }

    fn linear_dw(&self, grads: &mut Self::Acc, dy: &Self::X, x: &Self::X, at: &Linear, n: usize) {
        self.a.linear_dw(&mut grads.a, &dy.a, &x.a, at, n);
        self.b.linear_dw(&mut grads.b, &dy.b, &x.b, at, n);
        let bound = self.summed(n);
        self.compare(("linear_dw", "weight in grads"), grads, at.weight, at.n_in, bound);
        if let Some(bias) = at.bias {
            self.compare(("linear_dw", "bias in grads"), grads, bias, at.n_out, bound);
        }
    }

    fn act_backward(
        &self,
        dpre: &mut Self::X,
        dy: &Self::X,
        pre: &Self::X,
        act: Activation,
        len: usize,
    ) {
        self.a.act_backward(&mut dpre.a, &dy.a, &pre.a, act, len);
        self.b.act_backward(&mut dpre.b, &dy.b, &pre.b, act, len);
        self.compare(("act_backward", "dpre"), dpre, Span::first(len), len, self.stored(STEPS));
    }
}

fn rotation_a<'a, A: Memory, B: Memory>(r: Rotation<'a, Lockstep<A, B>>) -> Rotation<'a, A> {
    Rotation { table: &r.table.a, positions: &r.positions.a, head_dim: r.head_dim }
}

fn rotation_b<'a, A: Memory, B: Memory>(r: Rotation<'a, Lockstep<A, B>>) -> Rotation<'a, B> {
    Rotation { table: &r.table.b, positions: &r.positions.b, head_dim: r.head_dim }
}

impl<A: AttentionOps, B: AttentionOps> Lockstep<A, B> {
    /// Tokens in all, and the most terms that any of an attention's sums has.
    fn attention_size(&self, packed: &Packed<Self>, at: &Attention) -> (usize, usize) {
        let longest = packed.ends.windows(2).map(|e| (e[1] - e[0]) as usize).max().unwrap_or(0);
        (packed.tokens(), longest.max(at.head_dim))
    }
}

impl<A: AttentionOps, B: AttentionOps> AttentionOps for Lockstep<A, B> {
    fn attention(
        &self,
        o: &mut Self::X,
        lse: &mut Self::Acc,
        packed: Packed<Self>,
        at: &Attention,
    ) {
        self.a.attention(&mut o.a, &mut lse.a, packed_a(&packed), at);
        self.b.attention(&mut o.b, &mut lse.b, packed_b(&packed), at);
        let (n, terms) = self.attention_size(&packed, at);
        let width = at.heads * at.head_dim;
        self.compare(("attention", "lse"), lse, rows(n, at.heads), at.heads, self.summed(terms));
        self.compare(("attention", "o"), o, rows(n, width), width, self.stored(terms));
    }

    fn attention_backward(
        &self,
        dqkv: &mut Self::X,
        d_o: &Self::X,
        saved: Attended<Self>,
        packed: Packed<Self>,
        at: &Attention,
        rotation: Option<Rotation<Self>>,
    ) {
        let (turn_a, turn_b) = (rotation.map(rotation_a), rotation.map(rotation_b));
        let saved_a = Attended { o: &saved.o.a, lse: &saved.lse.a };
        self.a.attention_backward(&mut dqkv.a, &d_o.a, saved_a, packed_a(&packed), at, turn_a);
        let saved_b = Attended { o: &saved.o.b, lse: &saved.lse.b };
        self.b.attention_backward(&mut dqkv.b, &d_o.b, saved_b, packed_b(&packed), at, turn_b);
        let (n, terms) = self.attention_size(&packed, at);
        let width = 3 * at.heads * at.head_dim;
        let bound = self.stored(COMMON * terms);
        self.compare(("attention_backward", "dqkv"), dqkv, rows(n, width), width, bound);
    }
}

fn packed_a<'a, A: Memory, B: Memory>(p: &Packed<'a, Lockstep<A, B>>) -> Packed<'a, A> {
    let (cu_seqlens, order) = (&p.cu_seqlens.a, &p.order.a);
    Packed { qkv: &p.qkv.a, cu_seqlens, order, ends: p.ends }
}

fn packed_b<'a, A: Memory, B: Memory>(p: &Packed<'a, Lockstep<A, B>>) -> Packed<'a, B> {
    let (cu_seqlens, order) = (&p.cu_seqlens.b, &p.order.b);
    Packed { qkv: &p.qkv.b, cu_seqlens, order, ends: p.ends }
}

impl<A: CacheOps, B: CacheOps> CacheOps for Lockstep<A, B> {
    fn keep(&self, cache: &mut Self::X, qkv: &Self::X, at: &Self::Int, width: usize, count: usize) {
        self.a.keep(&mut cache.a, &qkv.a, &at.a, width, count);
        self.b.keep(&mut cache.b, &qkv.b, &at.b, width, count);
        self.compare(("keep", "cache"), cache, Span::first(cache.len()), 2 * width, EXACT);
    }

    fn attend(&self, o: &mut Self::X, qkv: &Self::X, kept: Kept<Self>, at: &Attention) {
        let Kept { cache, rows: of, stride, lengths, known } = kept;
        let (width, terms) = (at.heads * at.head_dim, kept.seen(at).max().unwrap_or(0));
        let kept = Kept { cache: &cache.a, rows: &of.a, stride, lengths: &lengths.a, known };
        self.a.attend(&mut o.a, &qkv.a, kept, at);
        let kept = Kept { cache: &cache.b, rows: &of.b, stride, lengths: &lengths.b, known };
        self.b.attend(&mut o.b, &qkv.b, kept, at);
        let bound = self.stored(terms.max(at.head_dim));
        self.compare(("attend", "o"), o, rows(known.len(), width), width, bound);
    }
}

impl<A: GatherOps, B: GatherOps> GatherOps for Lockstep<A, B> {
    fn gather(&self, y: &mut Self::X, x: &Self::X, at: &Self::Int, width: usize, count: usize) {
        self.a.gather(&mut y.a, &x.a, &at.a, width, count);
        self.b.gather(&mut y.b, &x.b, &at.b, width, count);
        self.compare(("gather", "y"), y, rows(count, width), width, EXACT);
    }

    fn scatter_add(
        &self,
        dx: &mut Self::X,
        dy: &Self::X,
        at: &Self::Int,
        width: usize,
        count: usize,
    ) {
        self.a.scatter_add(&mut dx.a, &dy.a, &at.a, width, count);
        self.b.scatter_add(&mut dx.b, &dy.b, &at.b, width, count);
        let all = Span::first(dx.len());
        self.compare(("scatter_add", "dx"), dx, all, width, self.stored(2));
    }
}

impl<A: TaskOps, B: TaskOps> TaskOps for Lockstep<A, B> {
    fn mean_rows(&self, y: &mut Self::X, x: &Self::X, cu: &Self::Int, width: usize, s: usize) {
        self.a.mean_rows(&mut y.a, &x.a, &cu.a, width, s);
        self.b.mean_rows(&mut y.b, &x.b, &cu.b, width, s);
        let longest = x.len() / width;
        self.compare(("mean_rows", "y"), y, rows(s, width), width, self.stored(longest));
    }

    fn mean_rows_backward(
        &self,
        dx: &mut Self::X,
        dy: &Self::X,
        cu: &Self::Int,
        width: usize,
        s: usize,
    ) {
        self.a.mean_rows_backward(&mut dx.a, &dy.a, &cu.a, width, s);
        self.b.mean_rows_backward(&mut dx.b, &dy.b, &cu.b, width, s);
        let mut end = [0];
        cu.a.read(s, &mut end);
        let span = rows(end[0] as usize, width);
        self.compare(("mean_rows_backward", "dx"), dx, span, width, self.stored(1));
    }

    /// As with the head's loss, the count of hits is B's.
    fn task_loss(
        &self,
        sums: &mut Self::Acc,
        logits: &mut Self::X,
        truth: Truth<Self>,
        n: usize,
        outputs: usize,
        total: Option<&Self::Acc>,
    ) {
        let (truth_a, truth_b) = truths(&truth);
        let (total_a, total_b) = (total.map(|t| &t.a), total.map(|t| &t.b));
        self.a.task_loss(&mut sums.a, &mut logits.a, truth_a, n, outputs, total_a);
        self.b.task_loss(&mut sums.b, &mut logits.b, truth_b, n, outputs, total_b);
        let mut hits = [0.0];
        sums.b.read(1, &mut hits);
        sums.a.write(1, &hits);
        self.compare(("task_loss", "sums"), sums, Span::first(3), 1, self.stored(n + outputs));
        let (span, bound) = (rows(n, outputs), self.stored(n + outputs));
        self.compare(("task_loss", "logits"), logits, span, outputs, bound);
    }
}

fn truths<'a, A: Memory, B: Memory>(
    truth: &Truth<'a, Lockstep<A, B>>,
) -> (Truth<'a, A>, Truth<'a, B>) {
    match *truth {
        Truth::Classes { targets: t, weights: w } => (
            Truth::Classes { targets: &t.a, weights: &w.a },
            Truth::Classes { targets: &t.b, weights: &w.b },
        ),
        Truth::Flags { targets: t, weights: w } => (
            Truth::Flags { targets: &t.a, weights: &w.a },
            Truth::Flags { targets: &t.b, weights: &w.b },
        ),
        Truth::Values { targets: t } => {
            (Truth::Values { targets: &t.a }, Truth::Values { targets: &t.b })
        }
        Truth::Spans { targets: t, cu_seqlens: cu, sequences } => (
            Truth::Spans { targets: &t.a, cu_seqlens: &cu.a, sequences },
            Truth::Spans { targets: &t.b, cu_seqlens: &cu.b, sequences },
        ),
    }
}

impl<A: DropoutOps, B: DropoutOps> DropoutOps for Lockstep<A, B> {
    fn dropout(&self, y: &mut Self::X, x: &Self::X, dropout: Dropout, len: usize) {
        self.a.dropout(&mut y.a, &x.a, dropout, len);
        self.b.dropout(&mut y.b, &x.b, dropout, len);
        self.compare(("dropout", "y"), y, Span::first(len), len, self.stored(1));
    }
}

impl<A: LossOps, B: LossOps> LossOps for Lockstep<A, B> {
    /// The logits are scratch and are not compared. Nor is the count of hits: a rounding may turn
    /// a near tie, so it is B's.
    fn head_loss(
        &self,
        sums: &mut Self::Acc,
        mut train: Option<LossGrads<Self>>,
        logits: &mut Self::X,
        input: LossInput<Self>,
        params: &Self::X,
        at: &Linear,
    ) {
        let LossInput { x, targets, rows: n } = input;
        let input = LossInput { x: &x.a, targets: &targets.a, rows: n };
        let grads = train.as_mut().map(|t| LossGrads {
            dx: &mut t.dx.a,
            grads: &mut t.grads.a,
            labelled: &t.labelled.a,
        });
        self.a.head_loss(&mut sums.a, grads, &mut logits.a, input, &params.a, at);
        let input = LossInput { x: &x.b, targets: &targets.b, rows: n };
        let grads = train.as_mut().map(|t| LossGrads {
            dx: &mut t.dx.b,
            grads: &mut t.grads.b,
            labelled: &t.labelled.b,
        });
        self.b.head_loss(&mut sums.b, grads, &mut logits.b, input, &params.b, at);

        let (nll, hits) = (Span::first(1), Span { start: 1, len: 1 });
        let labelled = Span { start: 2, len: 1 };
        self.compare(("head_loss", "nll in sums"), sums, nll, 1, self.stored(n + at.n_out));
        let mut count = [0.0];
        sums.b.read(hits.start, &mut count);
        sums.a.write(hits.start, &count);
        self.compare(("head_loss", "labelled rows in sums"), sums, labelled, 1, EXACT);
        if let Some(LossGrads { dx, grads, .. }) = train {
            let (c, v) = (at.n_in, at.n_out);
            self.compare(("head_loss", "dx"), dx, rows(n, c), c, self.stored(v));
            // The logits' gradients that these sum were stored.
            let bound = self.stored(n);
            self.compare(("head_loss", "weight in grads"), grads, at.weight, c, bound);
            if let Some(bias) = at.bias {
                self.compare(("head_loss", "bias in grads"), grads, bias, v, bound);
            }
        }
    }
}

impl<A: MaskOps, B: MaskOps> MaskOps for Lockstep<A, B> {
    /// All of it is integers, so there is nothing to bound.
    fn mask(&self, out: Masked<Self>, input: Unmasked<Self>, masker: &Masker) {
        let Masked { ids, rows, targets, count } = out;
        let Unmasked { start, tokens, countable, .. } = input;
        let a = Unmasked {
            ids: &input.ids.a,
            positions: &input.positions.a,
            flags: &input.flags.a,
            start,
            tokens,
            countable,
        };
        let b = Unmasked {
            ids: &input.ids.b,
            positions: &input.positions.b,
            flags: &input.flags.b,
            start,
            tokens,
            countable,
        };
        let out = Masked {
            ids: &mut ids.a,
            rows: &mut rows.a,
            targets: &mut targets.a,
            count: &mut count.a,
        };
        self.a.mask(out, a, masker);
        let out = Masked {
            ids: &mut ids.b,
            rows: &mut rows.b,
            targets: &mut targets.b,
            count: &mut count.b,
        };
        self.b.mask(out, b, masker);
        for (name, tensor) in [("ids", ids), ("rows", rows), ("targets", targets), ("count", count)]
        {
            assert_eq!(tensor.a.to_vec(), tensor.b.to_vec(), "mask: {name}");
        }
    }
}

impl<A: ReduceOps, B: ReduceOps> ReduceOps for Lockstep<A, B> {
    fn zero_x(&self, x: &mut Self::X, len: usize) {
        self.a.zero_x(&mut x.a, len);
        self.b.zero_x(&mut x.b, len);
        self.compare(("zero_x", "x"), x, Span::first(len), len, EXACT);
    }

    fn zero_acc(&self, acc: &mut Self::Acc) {
        self.a.zero_acc(&mut acc.a);
        self.b.zero_acc(&mut acc.b);
        let len = acc.len();
        self.compare(("zero_acc", "acc"), acc, Span::first(len), len, EXACT);
    }

    fn judge(&self, control: &mut Self::Acc, grads: &Self::Acc, sums: &Self::Acc) {
        self.a.judge(&mut control.a, &grads.a, &sums.a);
        self.b.judge(&mut control.b, &grads.b, &sums.b);
        let (norm, counts) = (Span::first(1), Span { start: 1, len: CONTROL - 1 });
        self.compare(("judge", "norm"), control, norm, 1, self.summed(grads.len()));
        self.compare(("judge", "verdict and counts"), control, counts, 1, EXACT);
    }
}

impl<A: OptimizerOps, B: OptimizerOps> OptimizerOps for Lockstep<A, B> {
    fn update(
        &self,
        arenas: Arenas<Self>,
        grads: &Self::Acc,
        control: &Self::Acc,
        update: &Update,
        groups: &[Group],
    ) {
        let Arenas { params: p, master: w, m, v } = arenas;
        let of_a = Arenas { params: &mut p.a, master: &mut w.a, m: &mut m.a, v: &mut v.a };
        self.a.update(of_a, &grads.a, &control.a, update, groups);
        let of_b = Arenas { params: &mut p.b, master: &mut w.b, m: &mut m.b, v: &mut v.b };
        self.b.update(of_b, &grads.b, &control.b, update, groups);
        let (all, bound) = (Span::first(w.len()), self.summed(STEPS));
        self.compare(("update", "m"), m, all, all.len, bound);
        self.compare(("update", "v"), v, all, all.len, bound);
        self.compare(("update", "master"), w, all, all.len, bound);
        self.compare(("update", "params"), p, all, all.len, self.stored(STEPS));
    }

    fn store(&self, params: &mut Self::X, master: &Self::Acc) {
        self.a.store(&mut params.a, &master.a);
        self.b.store(&mut params.b, &master.b);
        let len = master.len();
        self.compare(("store", "params"), params, Span::first(len), len, self.stored(1));
    }
}
