//! The transformer: embeddings, blocks, and the way back.
//!
//! Every block is two branches, and each branch ends in a join, sum = residual + branch and
//! y = norm(sum). Pre- and post-norm differ only in what goes on as the residual, and in whose
//! norm a join takes:
//!   pre:  residual = sum; the join takes the norm of the branch that follows
//!   post: residual = y;   the join takes its own branch's norm
//! so one forward and one backward serve both.

use std::mem::swap;

use crate::device::{Buffer, Class, Device};
use crate::model::activations::{Activations, Flow, Join, LayerActs, StartActs};
use crate::model::arch::{Arch, ArchError, Placement, Positions, Task};
use crate::model::batch::DeviceBatch;
use crate::model::cache::Cache;
use crate::model::params::{Block, Init, Layout};
use crate::model::task::Weights;
use crate::ops::attention::{Attended, Attention, Packed};
use crate::ops::dropout::Dropout;
use crate::ops::linear::Linear;
use crate::ops::norm::{Norm, Normed, Residual};
use crate::ops::rope::{self, Rotation};
use crate::ops::{Into, Span};
use crate::rng::{Philox, Stream};

/// A model on a device: what it is, where its weights lie, and the weights as products read them.
pub struct Model<D: Device> {
    pub arch: Arch,
    pub layout: Layout,
    pub params: D::X,
    /// Tables [context, D] of global and of local layers.
    rope: Option<[D::Acc; 2]>,
    /// Of a task's outputs, in its loss.
    pub(super) weights: Option<Weights<D>>,
}

/// Which dropout masks a training pass draws; none when evaluating.
#[derive(Debug, Clone, Copy)]
pub struct DropoutKey {
    pub seed: u64,
    /// Counts micro-batches from the start of the run.
    pub micro: u32,
}

impl<D: Device> Model<D> {
    /// Takes the memory of the weights, all zero: see [`initial`] and the checkpoint's loader.
    pub fn new(dev: &D, arch: &Arch) -> Result<Self, ArchError> {
        arch.validate()?;
        let layout = Layout::new(arch);
        let params = dev.x(Class::Weights, layout.table.arena_len);
        let rope = match arch.positions {
            Positions::Learned { .. } => None,
            Positions::Rotary { theta, local_theta } => Some([theta, local_theta].map(|theta| {
                let angles = rope::table(arch.context, arch.head_dim(), theta);
                let mut table = dev.acc(Class::Weights, angles.len());
                table.write(0, &angles);
                table
            })),
        };
        let ones = |task: &Task| Weights::new(dev, vec![1.0; task.labels.len()]);
        let weights = arch.task.as_ref().map(ones);
        Ok(Model { arch: arch.clone(), layout, params, rope, weights })
    }

    /// Layer `l`'s attention, under the dropout of `key`.
    fn attention(&self, l: usize, key: Option<DropoutKey>) -> Attention {
        Attention {
            heads: self.arch.heads,
            head_dim: self.arch.head_dim(),
            causal: self.arch.causal,
            window: self.arch.window_of(l),
            dropout: site(key, self.arch.dropout.attention, 3 * l as u32 + 1),
        }
    }

    /// By which layer `l` rotates q and k, if it does.
    fn rotation<'a>(&'a self, l: usize, batch: &'a DeviceBatch<D>) -> Option<Rotation<'a, D>> {
        let local = self.arch.window_of(l).is_some();
        let (positions, head_dim) = (&batch.positions, self.arch.head_dim());
        let table = self.rope.as_ref().map(|tables| &tables[usize::from(local)]);
        table.map(|table| Rotation { table, positions, head_dim })
    }

    fn block(&self, l: usize) -> &Block {
        &self.layout.blocks[self.arch.block_of(l)]
    }

    /// The norms of layer `l`'s two joins.
    fn join_norms(&self, l: usize) -> [&Norm; 2] {
        let block = self.block(l);
        let last = l + 1 == self.arch.layers;
        match self.arch.placement {
            Placement::Post => [expect(&block.attn_norm), &block.mlp_norm],
            Placement::Pre if last => [&block.mlp_norm, expect(&self.layout.final_norm)],
            Placement::Pre => [&block.mlp_norm, expect(&self.block(l + 1).attn_norm)],
        }
    }

    /// What a branch reads and what it is added to, before layer `l`.
    fn inputs<'a>(
        &self,
        l: usize,
        acts: &'a [LayerActs<D>],
        start: &'a StartActs<D>,
    ) -> [&'a D::X; 2] {
        match acts[..l].last() {
            Some(before) => self.onward(&before.mlp),
            None => {
                let first = start.first.as_ref().map(|(y, _)| y);
                [first.unwrap_or(start.residual()), start.residual()]
            }
        }
    }

    /// What the next branch reads and what it is added to, after a join.
    fn onward<'a>(&self, join: &'a Join<D>) -> [&'a D::X; 2] {
        match self.arch.placement {
            Placement::Pre => [&join.y, &join.sum],
            Placement::Post => [&join.y, &join.y],
        }
    }

    /// Whether layer `l`'s first branch reads the residual stream itself.
    fn reads_residual(&self, l: usize) -> bool {
        self.arch.placement == Placement::Post || (l == 0 && !self.arch.first_norm)
    }

    /// Runs a micro-batch through embeddings and blocks. The last hidden states, [M, C] for the
    /// rows that reach the head, are [`Model::hidden`].
    pub fn forward(
        &self,
        dev: &D,
        acts: &mut Activations<D>,
        batch: &DeviceBatch<D>,
        key: Option<DropoutKey>,
    ) {
        self.embed(dev, acts, batch, key);
        for l in 0..self.arch.layers {
            self.layer(dev, l, acts, batch, key, None);
        }
    }

    /// [`Model::forward`] of a causal model that keeps its tokens' keys and values, by what
    /// `cache` was told of the batch: a pass over whole sequences, or a step.
    pub fn forward_kept(
        &self,
        dev: &D,
        acts: &mut Activations<D>,
        batch: &DeviceBatch<D>,
        cache: &mut Cache<D>,
    ) {
        self.embed(dev, acts, batch, None);
        for l in 0..self.arch.layers {
            self.layer(dev, l, acts, batch, None, Some(cache));
        }
    }

    /// [M, C]
    pub fn hidden<'a>(&self, acts: &'a Activations<D>) -> &'a D::X {
        &acts.layers[self.arch.layers - 1].mlp.y
    }

    fn embed(
        &self,
        dev: &D,
        acts: &mut Activations<D>,
        batch: &DeviceBatch<D>,
        key: Option<DropoutKey>,
    ) {
        let (at, params, n) = (&self.layout, &self.params, batch.counts.tokens);
        let start = &mut acts.start;
        dev.embed(&mut start.sum, batch.tokens(), params, &at.embed);
        if let (Some(norm), Some((y, stats))) = (&at.embed_norm, &mut start.normed) {
            dev.norm(y, stats, &start.sum, params, norm, n);
        }
        if let Some(dropped) = &mut start.dropped {
            let x = start.normed.as_ref().map_or(&start.sum, |(y, _)| y);
            let dropout = site(key, self.arch.dropout.embed, 0).unwrap_or(Dropout::none());
            dev.dropout(dropped, x, dropout, n * self.arch.embed_width);
        }
        if let Some(mut projected) = start.projected.take() {
            let proj = expect(&at.embed_proj);
            dev.linear(&mut projected, start.embedded(), params, proj, n);
            start.projected = Some(projected);
        }
        if let Some((mut y, mut stats)) = start.first.take() {
            let norm = expect(&self.block(0).attn_norm);
            dev.norm(&mut y, &mut stats, start.residual(), params, norm, n);
            start.first = Some((y, stats));
        }
    }

    fn layer(
        &self,
        dev: &D,
        l: usize,
        acts: &mut Activations<D>,
        batch: &DeviceBatch<D>,
        key: Option<DropoutKey>,
        cache: Option<&mut Cache<D>>,
    ) {
        let Activations { start, layers, picked, branch, .. } = acts;
        let (block, params, arch) = (self.block(l), &self.params, &self.arch);
        let [attn_norm, mlp_norm] = self.join_norms(l);
        let (before, rest) = layers.split_at_mut(l);
        let (a, n) = (&mut rest[0], batch.counts.tokens);
        let attention = self.attention(l, key);

        let [h, mut residual] = self.inputs(l, before, start);
        match self.rotation(l, batch) {
            Some(rotation) => dev.linear_rope(&mut a.qkv, h, params, &block.qkv, rotation, n),
            None => dev.linear(&mut a.qkv, h, params, &block.qkv, n),
        }
        match cache {
            Some(cache) => cache.attend(dev, l, a, batch, &attention),
            None => dev.attention(&mut a.o, &mut a.lse, packed(&a.qkv, batch), &attention),
        }
        let (mut o, mut rows) = (&a.o, n);
        if let Some(m) = self.picked(l, batch) {
            dev.gather(&mut picked.o, o, &batch.rows, arch.width, m);
            dev.gather(&mut picked.residual, residual, &batch.rows, arch.width, m);
            (o, residual, rows) = (&picked.o, &picked.residual, m);
        }
        dev.linear(branch, o, params, &block.attn_out, rows);
        let [attn_drop, mlp_drop] = self.branch_dropouts(l, key);
        let terms = Residual { residual, branch: &*branch, dropout: attn_drop };
        let Join { sum, y, stats } = &mut a.attn;
        dev.add_norm(y, sum, stats, terms, params, attn_norm, rows);

        let [h, residual] = self.onward(&a.attn);
        let through = if arch.gated { D::linear_gate } else { D::linear_act };
        through(dev, &mut a.act, &mut a.pre, h, params, &block.fc, arch.activation, rows);
        dev.linear(branch, &a.act, params, &block.mlp_out, rows);
        let terms = Residual { residual, branch: &*branch, dropout: mlp_drop };
        let Join { sum, y, stats } = &mut a.mlp;
        dev.add_norm(y, sum, stats, terms, params, mlp_norm, rows);
    }

    /// The rows that go on after layer `l`'s attention, if not all.
    fn picked(&self, l: usize, batch: &DeviceBatch<D>) -> Option<usize> {
        batch.counts.picked.filter(|_| l + 1 == self.arch.layers)
    }

    /// The dropouts of layer `l`'s two branches.
    fn branch_dropouts(&self, l: usize, key: Option<DropoutKey>) -> [Option<Dropout>; 2] {
        [2, 3].map(|i| site(key, self.arch.dropout.hidden, 3 * l as u32 + i))
    }

    /// Adds to `grads` what flows back from `acts.flow.dh` [M, C], the gradient of
    /// [`Model::hidden`]; the other side of [`Model::forward`] with the same `key`.
    pub fn backward(
        &self,
        dev: &D,
        grads: &mut D::Acc,
        acts: &mut Activations<D>,
        batch: &DeviceBatch<D>,
        key: Option<DropoutKey>,
    ) {
        let mut flow = acts.flow.take().expect("activations taken for training");
        for l in (0..self.arch.layers).rev() {
            self.layer_backward(dev, l, grads, &mut flow, acts, batch, key);
        }
        self.embed_backward(dev, grads, &mut flow, acts, batch, key);
        acts.flow = Some(flow);
    }

    #[allow(clippy::too_many_arguments)]
    fn layer_backward(
        &self,
        dev: &D,
        l: usize,
        grads: &mut D::Acc,
        flow: &mut Flow<D>,
        acts: &Activations<D>,
        batch: &DeviceBatch<D>,
        key: Option<DropoutKey>,
    ) {
        let (block, params, arch) = (self.block(l), &self.params, &self.arch);
        let [attn_norm, mlp_norm] = self.join_norms(l);
        let [attn_drop, mlp_drop] = self.branch_dropouts(l, key);
        let (a, n, last) = (&acts.layers[l], batch.counts.tokens, l + 1 == arch.layers);
        let picked = self.picked(l, batch);
        let rows = picked.unwrap_or(n);
        let post = arch.placement == Placement::Post;

        // Nothing follows the last join on the residual stream.
        let onto = if last { Into::Set } else { Into::Add };
        self.join_backward(dev, grads, flow, &a.mlp, mlp_norm, rows, onto);
        let db = branch_grad(dev, flow, mlp_drop, rows * arch.width);
        dev.linear_dw(grads, db, &a.act, &block.mlp_out, rows);
        let db = if mlp_drop.is_some() { expect(&flow.dropped) } else { &flow.dr };
        let back = if arch.gated { D::linear_dx_gate } else { D::linear_dx_act };
        back(dev, &mut flow.dpre, db, &a.pre, params, &block.mlp_out, arch.activation, rows);
        let [h, _] = self.onward(&a.attn);
        dev.linear_dw(grads, &flow.dpre, h, &block.fc, rows);
        let Flow { dh, dr, dpre, .. } = flow;
        branch_input_grad(dev, dh, dr, dpre, params, &block.fc, rows, post);

        self.join_backward(dev, grads, flow, &a.attn, attn_norm, rows, Into::Add);
        let db = branch_grad(dev, flow, attn_drop, rows * arch.width);
        let o = if picked.is_some() { &acts.picked.o } else { &a.o };
        dev.linear_dw(grads, db, o, &block.attn_out, rows);
        self.attention_out_backward(dev, flow, block, attn_drop, batch, picked);

        let attention = self.attention(l, key);
        let saved = Attended { o: &a.o, lse: &a.lse };
        let packed = packed(&a.qkv, batch);
        let rotation = self.rotation(l, batch);
        dev.attention_backward(&mut flow.dqkv, &flow.d_o, saved, packed, &attention, rotation);
        let [h, _] = self.inputs(l, &acts.layers, &acts.start);
        dev.linear_dw(grads, &flow.dqkv, h, &block.qkv, n);
        let Flow { dh, dr, dqkv, .. } = flow;
        branch_input_grad(dev, dh, dr, dqkv, params, &block.qkv, n, self.reads_residual(l));
    }

    /// From the gradients of a join's two uses, `dh` and `dr`, to that of its sum, in `dr`.
    #[allow(clippy::too_many_arguments)]
    fn join_backward(
        &self,
        dev: &D,
        grads: &mut D::Acc,
        flow: &mut Flow<D>,
        join: &Join<D>,
        norm: &Norm,
        rows: usize,
        onto: Into,
    ) {
        // Post-norm: `dh` already holds both uses of y, and all of sum's gradient passes the norm.
        let into = if self.arch.placement == Placement::Post { Into::Set } else { onto };
        let saved = Normed { x: &join.sum, stats: &join.stats, params: &self.params };
        dev.norm_backward(&mut flow.dr, grads, &flow.dh, saved, norm, rows, into);
    }

    /// `d_o` [N, C] from the gradient of the branch's output; spreads picked rows back out.
    fn attention_out_backward(
        &self,
        dev: &D,
        flow: &mut Flow<D>,
        block: &Block,
        dropout: Option<Dropout>,
        batch: &DeviceBatch<D>,
        picked: Option<usize>,
    ) {
        let (c, n) = (self.arch.width, batch.counts.tokens);
        let Flow { dh, dr, dropped, d_o, d_o_picked, .. } = flow;
        let db = if dropout.is_some() { expect(dropped) } else { &*dr };
        let Some(m) = picked else {
            dev.linear_dx(d_o, db, &self.params, &block.attn_out, n, Into::Set);
            return;
        };
        dev.linear_dx(d_o_picked, db, &self.params, &block.attn_out, m, Into::Set);
        dev.zero_x(d_o, n * c);
        dev.scatter_add(d_o, d_o_picked, &batch.rows, c, m);
        // `dh` is free here: the M rows of dr pass through it to where they came from.
        swap(dh, dr);
        dev.zero_x(dr, n * c);
        dev.scatter_add(dr, dh, &batch.rows, c, m);
    }

    fn embed_backward(
        &self,
        dev: &D,
        grads: &mut D::Acc,
        flow: &mut Flow<D>,
        acts: &Activations<D>,
        batch: &DeviceBatch<D>,
        key: Option<DropoutKey>,
    ) {
        let (at, params, n) = (&self.layout, &self.params, batch.counts.tokens);
        let (start, arch) = (&acts.start, &self.arch);
        let Flow { dh, dr, de, .. } = flow;
        let [de_a, de_b, _] = de;
        if let Some((_, stats)) = &start.first {
            let norm = expect(&self.block(0).attn_norm);
            let saved = Normed { x: start.residual(), stats, params };
            dev.norm_backward(dr, grads, dh, saved, norm, n, Into::Add);
        } else {
            // The first branch read the residual stream: `dh` holds both uses.
            swap(dh, dr);
        }
        // From here on `d` is the gradient so far, and `spare` takes the next.
        let (mut d, mut spare) = (dr, de_a);
        if let Some(proj) = &at.embed_proj {
            dev.linear_dw(grads, d, start.embedded(), proj, n);
            dev.linear_dx(spare, d, params, proj, n, Into::Set);
            (d, spare) = (spare, de_b);
        }
        if let Some(dropout) = site(key, arch.dropout.embed, 0) {
            dev.dropout(spare, d, dropout, n * arch.embed_width);
            swap(&mut d, &mut spare);
        }
        if let (Some(norm), Some((_, stats))) = (&at.embed_norm, &start.normed) {
            let saved = Normed { x: &start.sum, stats, params };
            dev.norm_backward(spare, grads, d, saved, norm, n, Into::Set);
            swap(&mut d, &mut spare);
        }
        dev.embed_backward(grads, d, batch.tokens(), &at.embed);
    }

    /// [N, E]: the gradient of [`StartActs::embedded`], as [`Model::backward`] left it.
    pub fn embedded_gradient<'a>(&self, acts: &'a Activations<D>) -> &'a D::X {
        let Flow { dr, de: [after, ..], .. } =
            acts.flow.as_ref().expect("activations taken for training");
        if self.layout.embed_proj.is_some() { after } else { dr }
    }
}

pub(super) fn packed<'a, D: Device>(qkv: &'a D::X, batch: &'a DeviceBatch<D>) -> Packed<'a, D> {
    let DeviceBatch { cu_seqlens, order, ends, .. } = batch;
    Packed { qkv, cu_seqlens, order, ends }
}

/// The dropout of a site, if there is any to do.
pub(super) fn site(key: Option<DropoutKey>, p: f64, site: u32) -> Option<Dropout> {
    key.filter(|_| p > 0.0).map(|key| Dropout { p, seed: key.seed, step: key.micro, site })
}

/// The gradient of a branch's output: that of the sum, under the branch's dropout.
fn branch_grad<'a, D: Device>(
    dev: &D,
    flow: &'a mut Flow<D>,
    dropout: Option<Dropout>,
    len: usize,
) -> &'a D::X {
    match (dropout, &mut flow.dropped) {
        (Some(dropout), Some(dropped)) => {
            dev.dropout(dropped, &flow.dr, dropout, len);
            dropped
        }
        _ => &flow.dr,
    }
}

/// The gradient of a branch's input into `dh`. Where the branch reads the residual stream itself,
/// `dh` collects both uses.
#[allow(clippy::too_many_arguments)]
fn branch_input_grad<D: Device>(
    dev: &D,
    dh: &mut D::X,
    dr: &mut D::X,
    dy: &D::X,
    params: &D::X,
    first: &Linear,
    rows: usize,
    reads_residual: bool,
) {
    if reads_residual {
        swap(dh, dr);
    }
    let into = if reads_residual { Into::Add } else { Into::Set };
    dev.linear_dx(dh, dy, params, first, rows, into);
}

/// A weight that `Arch::validate` and `Layout::new` promise for this arrangement.
fn expect<T>(part: &Option<T>) -> &T {
    part.as_ref().expect("the layout has every part that its arch names")
}

/// Fills one parameter with its initial values, a pure function of (seed, place in the table).
pub fn initial(layout: &Layout, seed: u64, index: usize) -> (Span, Vec<f64>) {
    let param = &layout.table.params[index];
    let len = param.span.len;
    let values = match param.init {
        Init::Zeros => vec![0.0; len],
        Init::Ones => vec![1.0; len],
        Init::Normal(std) => {
            let (philox, stream) = (Philox::new(seed), Stream::Init.site(index as u32));
            let blocks = 0..len.div_ceil(4) as u64;
            let draws = blocks.flat_map(|block| philox.normal(stream, 0, block));
            draws.take(len).map(|z| z * std).collect()
        }
    };
    (param.span, values)
}
