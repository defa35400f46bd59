//! A device that measures another: calls, seconds, floating-point operations and bytes per op.
//!
//! Operations and bytes are what the `cost` functions of the op families say must happen at least,
//! so a rate far below the machine's shows an op with room to grow. Seconds are those of the call;
//! a device that returns before it has finished is timed right only in sum, unless it has a
//! [`Clock`] of its own.

use std::fmt::{Debug, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::data::masking::Masker;
use crate::device::gpu::driver::Mark;
use crate::device::{Buffer, Class, Format, Memory, Repeats};
use crate::ops::activation::{self, Activation, ActivationOps};
use crate::ops::attention::{self, Attended, Attention, AttentionOps, Packed};
use crate::ops::dropout::{self, Dropout, DropoutOps};
use crate::ops::embed::{self, Embed, EmbedOps, Tokens};
use crate::ops::gather::{self, GatherOps};
use crate::ops::linear::{self, Linear, LinearOps};
use crate::ops::loss::{self, LossGrads, LossInput, LossOps};
use crate::ops::mask::{self, MaskOps, Masked, Unmasked};
use crate::ops::norm::{self, Norm, NormOps, Normed, Residual};
use crate::ops::optimizer::{self, Arenas, Group, OptimizerOps, Update};
use crate::ops::reduce::{self, ReduceOps};
use crate::ops::rope::{self, RopeOps, Turn};
use crate::ops::{Cost, Into};

/// The time of a device that works on after a call has returned.
pub trait Clock: Debug {
    /// A point in the device's work; None once it has stopped.
    fn mark(&self) -> Option<Mark>;

    /// Between two points [s]; waits for the later one.
    fn seconds(&self, from: Mark, to: Mark) -> f64;
}

/// Calls whose marks are kept unread: reading them waits for the device, and a driver keeps some
/// thousands.
const UNREAD: usize = 1000;

/// `D`, measured.
#[derive(Debug, Default)]
pub struct Meter<D> {
    device: D,
    /// None: the host's.
    clock: Option<Box<dyn Clock>>,
    /// Calls, by their index among the next, whose marks are not read yet.
    unread: Mutex<Vec<(usize, Mark, Mark)>>,
    /// Of the device's clock: calls in their order, by index, and the seconds of each.
    sequence: Mutex<Vec<(usize, f64)>>,
    /// One an op and size, in the order of first calls.
    calls: Mutex<Vec<Calls>>,
}

/// Calls of one op at one size.
#[derive(Debug)]
struct Calls {
    op: &'static str,
    cost: Cost,
    calls: u64,
    seconds: f64,
}

/// What the calls of one op came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OpRecord {
    /// The method's name.
    pub op: &'static str,
    pub calls: u64,
    pub seconds: f64,
    /// Of all calls.
    pub flops: f64,
    /// Of all calls.
    pub bytes: f64,
}

impl<D> Meter<D> {
    pub fn new(device: D) -> Self {
        let (unread, sequence) = (Mutex::default(), Mutex::default());
        Meter { device, clock: None, unread, sequence, calls: Mutex::default() }
    }

    /// Timed by the device's own clock.
    pub fn by_clock(device: D, clock: Box<dyn Clock>) -> Self {
        Meter { clock: Some(clock), ..Meter::new(device) }
    }

    pub fn device(&self) -> &D {
        &self.device
    }

    /// Forgets all calls so far.
    pub fn reset(&self) {
        hold(&self.unread).clear();
        hold(&self.sequence).clear();
        self.lock().clear();
    }

    /// One record an op, the longest first.
    pub fn report(&self) -> Vec<OpRecord> {
        let mut ops: Vec<OpRecord> = Vec::new();
        for more in self.by_size() {
            match ops.iter_mut().find(|op| op.op == more.op) {
                Some(op) => {
                    op.calls += more.calls;
                    op.seconds += more.seconds;
                    op.flops += more.flops;
                    op.bytes += more.bytes;
                }
                None => ops.push(more),
            }
        }
        ops.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        ops
    }

    /// One record an op and size: where a floor is the larger of two costs, call by call.
    pub fn by_size(&self) -> Vec<OpRecord> {
        self.settle();
        self.lock().iter().map(Calls::record).collect()
    }

    /// By the device's clock: every call in its order, and its seconds.
    pub fn sequence(&self) -> Vec<(&'static str, f64)> {
        self.settle();
        let all = self.lock();
        hold(&self.sequence).iter().map(|&(index, seconds)| (all[index].op, seconds)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Calls>> {
        hold(&self.calls)
    }

    /// Runs and records one call.
    fn call(&self, op: &'static str, cost: Cost, run: impl FnOnce(&D)) {
        let mark = || self.clock.as_ref().and_then(|clock| clock.mark());
        let (start, from) = (Instant::now(), mark());
        run(&self.device);
        let to = mark();
        let seconds = if self.clock.is_some() { 0.0 } else { start.elapsed().as_secs_f64() };
        let mut all = self.lock();
        let index = match all.iter().position(|c| c.op == op && c.cost == cost) {
            Some(index) => index,
            None => {
                all.push(Calls { op, cost, calls: 0, seconds: 0.0 });
                all.len() - 1
            }
        };
        all[index].calls += 1;
        all[index].seconds += seconds;
        drop(all);
        if let (Some(from), Some(to)) = (from, to) {
            let mut unread = hold(&self.unread);
            unread.push((index, from, to));
            let many = unread.len() >= UNREAD;
            drop(unread);
            if many {
                self.settle();
            }
        }
    }

    /// Reads the marks of the device's clock.
    fn settle(&self) {
        let Some(clock) = &self.clock else { return };
        let mut all = self.lock();
        for (index, from, to) in hold(&self.unread).drain(..) {
            let seconds = clock.seconds(from, to);
            all[index].seconds += seconds;
            hold(&self.sequence).push((index, seconds));
        }
    }
}

/// What is in it, whatever happened to others who held it.
fn hold<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Calls {
    fn record(&self) -> OpRecord {
        let Calls { op, cost, calls, seconds } = *self;
        let n = calls as f64;
        OpRecord { op, calls, seconds, flops: n * cost.flops, bytes: n * cost.bytes }
    }
}

/// The records as a table for people: time, its share, and the rates reached.
pub fn table(records: &[OpRecord]) -> String {
    let total: f64 = records.iter().map(|r| r.seconds).sum();
    let mut text = format!(
        "{:<20}{:>8}{:>12}{:>8}{:>12}{:>10}\n",
        "op", "calls", "ms", "share", "GFLOP/s", "GB/s"
    );
    for r in records {
        let share = 100.0 * r.seconds / total;
        let [gflops, gbytes] = [r.flops, r.bytes].map(|x| x / r.seconds / 1e9);
        let ms = 1e3 * r.seconds;
        let (op, calls) = (r.op, r.calls);
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "{op:<20}{calls:>8}{ms:>12.3}{share:>7.1}%{gflops:>12.1}{gbytes:>10.1}");
    }
    text
}

impl<D: Memory> Meter<D> {
    /// Bytes of an element of X and of Acc.
    fn sizes(&self) -> (usize, usize) {
        (self.device.x_format().bytes, self.device.acc_format().bytes)
    }
}

impl<D: Memory> Memory for Meter<D> {
    type X = D::X;
    type Acc = D::Acc;
    type Int = D::Int;

    fn x_format(&self) -> Format {
        self.device.x_format()
    }

    fn acc_format(&self) -> Format {
        self.device.acc_format()
    }

    fn x(&self, class: Class, len: usize) -> D::X {
        self.device.x(class, len)
    }

    fn acc(&self, class: Class, len: usize) -> D::Acc {
        self.device.acc(class, len)
    }

    fn int(&self, class: Class, len: usize) -> D::Int {
        self.device.int(class, len)
    }

    fn logit_rows(&self, vocab: usize) -> usize {
        self.device.logit_rows(vocab)
    }

    fn fault(&self) -> Option<String> {
        self.device.fault()
    }
}

impl<D: Repeats> Repeats for Meter<D> {
    type Script = D::Script;

    /// By the device's clock each op is done when it is called, so that there is time to measure.
    fn repeat(&self, script: &mut D::Script, work: &mut dyn FnMut()) {
        if self.clock.is_some() { work() } else { self.device.repeat(script, work) }
    }
}

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
        let cost = activation::cost(len, 3, size);
        self.call("act_backward", cost, |d| d.act_backward(dpre, dy, pre, activation, len));
    }
}

impl<D: RopeOps> RopeOps for Meter<D> {
    fn rope(
        &self,
        qkv: &mut D::X,
        table: &D::Acc,
        positions: &D::Int,
        at: &Attention,
        rows: usize,
        turn: Turn,
    ) {
        let (size, _) = self.sizes();
        let cost = rope::cost(at, rows, size);
        self.call("rope", cost, |d| d.rope(qkv, table, positions, at, rows, turn));
    }
}

impl<D: AttentionOps> Meter<D> {
    fn attention_cost(&self, p: &Packed<Self>, at: &Attention, backward: bool) -> Cost {
        let pairs = p.ends.windows(2).map(|ends| at.pairs((ends[1] - ends[0]) as usize)).sum();
        let rows = p.ends[p.sequences()] as usize;
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
    ) {
        let cost = self.attention_cost(&packed, at, true);
        let saved = Attended { o: saved.o, lse: saved.lse };
        self.call("attention_backward", cost, |d| {
            d.attention_backward(dqkv, d_o, saved, unwrap(packed), at);
        });
    }
}

fn unwrap<D: Memory>(p: Packed<'_, Meter<D>>) -> Packed<'_, D> {
    Packed { qkv: p.qkv, cu_seqlens: p.cu_seqlens, ends: p.ends }
}

impl<D: ActivationOps> ActivationOps for Meter<D> {
    fn gate(&self, y: &mut D::X, pre: &D::X, activation: Activation, inner: usize, rows: usize) {
        let (size, _) = self.sizes();
        let cost = activation::cost(rows * inner, 3, size);
        self.call("gate", cost, |d| d.gate(y, pre, activation, inner, rows));
    }

    fn gate_backward(
        &self,
        dpre: &mut D::X,
        dy: &D::X,
        pre: &D::X,
        activation: Activation,
        inner: usize,
        rows: usize,
    ) {
        let (size, _) = self.sizes();
        let cost = activation::cost(rows * inner, 5, size);
        self.call("gate_backward", cost, |d| {
            d.gate_backward(dpre, dy, pre, activation, inner, rows);
        });
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
