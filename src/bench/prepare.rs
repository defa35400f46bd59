//! A call made ready to run: its tensors, filled with random numbers, and the call over them.
//!
//! Zeros and repeats draw less power, and so run faster, than data: inputs are normal, rounded to
//! what bf16 holds. Big tensors repeat one block, copied on the device, whose length is no power
//! of two, so that neighbouring rows differ.

use half::bf16;

use super::batches;
use super::call::{Arena, Call};
use crate::data::IGNORE;
use crate::device::gpu::cuda::blas::{Kind, Product};
use crate::device::gpu::driver::Address;
use crate::device::gpu::{Gpu, Tensor};
use crate::device::meter::Meter;
use crate::device::null::Null;
use crate::device::{Buffer, Class, Device, Memory};
use crate::ops::attention::{Attended, Packed, longest_first};
use crate::ops::embed::{Embed, Tokens};
use crate::ops::linear::Rung;
use crate::ops::loss::{LossGrads, LossInput};
use crate::ops::mask::{Masked, Unmasked};
use crate::ops::norm::{Normed, Residual};
use crate::ops::optimizer::Arenas;
use crate::ops::reduce::CONTROL;
use crate::rng::{Philox, Stream, below};
use crate::verify::{Angles, Draw};

/// Random numbers that are made on the host; a multiple of 8, so that copies stay aligned.
const BLOCK: usize = (1 << 20) + 1000;
/// Standard deviation of weights, as models have them.
const WEIGHT: f64 = 0.02;

/// A call that can be made again and again.
pub type Ready<D> = Box<dyn FnMut(&D)>;

/// A device whose tensors can be filled quickly.
pub trait Fill: Device + 'static {
    /// Fills with `block`, over and over.
    fn fill_x(&self, x: &mut Self::X, block: &[f64]);
    fn fill_acc(&self, acc: &mut Self::Acc, block: &[f64]);
}

/// Nothing to fill.
impl Fill for Meter<Null> {
    fn fill_x(&self, _: &mut Self::X, _: &[f64]) {}
    fn fill_acc(&self, _: &mut Self::Acc, _: &[f64]) {}
}

impl Fill for Gpu {
    fn fill_x(&self, x: &mut Self::X, block: &[f64]) {
        repeat(x, block);
    }

    fn fill_acc(&self, acc: &mut Self::Acc, block: &[f64]) {
        repeat(acc, block);
    }
}

/// Writes `block` once, then doubles what is there by copies on the device.
fn repeat<T>(tensor: &mut Tensor<T>, block: &[f64])
where
    Tensor<T>: Buffer<Host = f64>,
{
    let len = tensor.len();
    let mut done = block.len().min(len);
    tensor.write(0, &block[..done]);
    while done < len {
        let more = done.min(len - done);
        tensor.copy_within(0, done, more);
        done += more;
    }
}

/// A, B and D of a product by cuBLASLt: for y they are W, x, y; for dx W, dy, dx; for dW x, dy, dW.
pub struct Operands {
    pub a: Tensor<bf16>,
    pub b: Tensor<bf16>,
    pub out: Out,
}

/// What comes out, in the precision of its kind.
pub enum Out {
    X(Tensor<bf16>),
    Acc(Tensor<f32>),
}

impl Operands {
    pub fn places(&self) -> [Address; 3] {
        let out = match &self.out {
            Out::X(out) => out.address(),
            Out::Acc(out) => out.address(),
        };
        [self.a.address(), self.b.address(), out]
    }
}

/// Makes tensors on a device.
pub struct Source<'a, D> {
    dev: &'a D,
    /// Normal, of deviation 1.
    unit: &'a [f64],
    /// The same, of deviation [`WEIGHT`].
    weights: Vec<f64>,
}

/// Enough random numbers for tensors of up to `len` elements, or to be repeated in longer ones.
pub fn block(len: usize) -> Vec<f64> {
    Draw::new(1, "bench", "").values(len.min(BLOCK), 1.0)
}

impl<'a, D: Fill> Source<'a, D> {
    pub fn new(dev: &'a D, unit: &'a [f64]) -> Self {
        Source { dev, unit, weights: unit.iter().map(|z| WEIGHT * z).collect() }
    }

    fn x(&self, len: usize) -> D::X {
        let mut x = self.dev.x(Class::Scratch, len);
        self.dev.fill_x(&mut x, self.unit);
        x
    }

    fn acc(&self, len: usize) -> D::Acc {
        let mut acc = self.dev.acc(Class::Scratch, len);
        self.dev.fill_acc(&mut acc, self.unit);
        acc
    }

    /// A weight arena.
    fn weights(&self, len: usize) -> D::X {
        let mut x = self.dev.x(Class::Scratch, len);
        self.dev.fill_x(&mut x, &self.weights);
        x
    }

    fn int(&self, values: &[i32]) -> D::Int {
        let mut int = self.dev.int(Class::Scratch, values.len());
        int.write(0, values);
        int
    }

    /// Integers below `n`.
    fn below(&self, len: usize, n: usize) -> D::Int {
        self.int(&numbers_below(len, n))
    }

    /// Of heads of `head_dim`, at any of `context` positions.
    fn angles(&self, rows: usize, head_dim: usize, context: usize) -> Angles<D> {
        Angles::new(self.dev, &numbers_below(rows, context), context, head_dim)
    }

    /// `count` rows out of `of`, ascending and none twice.
    fn rows(&self, count: usize, of: usize) -> D::Int {
        self.int(&(0..count).map(|i| (i * of / count) as i32).collect::<Vec<_>>())
    }

    /// Takes the tensors of `call` and fills them.
    pub fn ready(&self, call: &Call) -> Ready<D> {
        match call {
            Call::Embed { .. } | Call::EmbedBackward { .. } => self.embed(call),
            Call::Norm { .. } | Call::AddNorm { .. } | Call::NormBackward { .. } => self.norm(call),
            Call::Attention { .. } | Call::AttentionBackward { .. } => self.attention(call),
            Call::HeadLoss { .. } => self.loss(call),
            Call::Mask { .. } => self.mask(call),
            Call::Judge { .. } | Call::Update { .. } | Call::Store { .. } => self.training(call),
            Call::ZeroX { .. } | Call::ZeroAcc { .. } => self.training(call),
            Call::Gather { .. } | Call::ScatterAdd { .. } => self.elementwise(call),
            Call::ActBackward { .. } | Call::Dropout { .. } => self.elementwise(call),
            _ => self.linear(call),
        }
    }

    fn embed(&self, call: &Call) -> Ready<D> {
        let (Call::Embed { at, rows } | Call::EmbedBackward { at, rows }) = call else {
            unreachable!("sorted by `ready`")
        };
        let (at, rows) = (*at, *rows);
        let of = |span: Option<crate::ops::Span>| span.map_or(1, |s| s.len / at.width);
        let ids = self.below(rows, of(Some(at.tokens)));
        let positions = self.below(rows, of(at.positions).saturating_sub(at.offset));
        let types = self.below(rows, of(at.types));
        let len = arena_of_embed(&at);
        fn tokens<'a, D: Memory>(
            [ids, positions, types]: [&'a D::Int; 3],
            rows: usize,
        ) -> Tokens<'a, D> {
            Tokens { ids, positions, types, rows }
        }
        if matches!(call, Call::Embed { .. }) {
            let (mut y, params) = (self.x(rows * at.width), self.weights(len));
            return Box::new(move |dev| {
                dev.embed(&mut y, tokens([&ids, &positions, &types], rows), &params, &at);
            });
        }
        let (mut grads, dy) = (self.acc(len), self.x(rows * at.width));
        Box::new(move |dev| {
            dev.embed_backward(&mut grads, &dy, tokens([&ids, &positions, &types], rows), &at);
        })
    }

    fn norm(&self, call: &Call) -> Ready<D> {
        let (at, rows) = match call {
            Call::Norm { at, rows } => (*at, *rows),
            Call::AddNorm { at, rows, .. } | Call::NormBackward { at, rows, .. } => (*at, *rows),
            _ => unreachable!("sorted by `ready`"),
        };
        let mut arena = Arena::default();
        arena.norm(&at);
        let (len, arena) = (rows * at.width, arena.len);
        let (mut y, mut stats, params) = (self.x(len), self.acc(2 * rows), self.weights(arena));
        let x = self.x(len);
        match *call {
            Call::AddNorm { dropout, .. } => {
                let (mut sum, branch) = (self.x(len), self.x(len));
                Box::new(move |dev| {
                    let terms = Residual { residual: &x, branch: &branch, dropout };
                    dev.add_norm(&mut y, &mut sum, &mut stats, terms, &params, &at, rows);
                })
            }
            Call::NormBackward { into, .. } => {
                // The statistics of `x`, as the forward leaves them.
                self.dev.norm(&mut y, &mut stats, &x, &params, &at, rows);
                let (mut dx, mut grads) = (self.x(len), self.acc(arena));
                Box::new(move |dev| {
                    let saved = Normed { x: &x, stats: &stats, params: &params };
                    dev.norm_backward(&mut dx, &mut grads, &y, saved, &at, rows, into);
                })
            }
            _ => Box::new(move |dev| dev.norm(&mut y, &mut stats, &x, &params, &at, rows)),
        }
    }

    fn linear(&self, call: &Call) -> Ready<D> {
        let (at, rows) = match call {
            Call::Linear { at, rows } | Call::LinearDw { at, rows } => (*at, *rows),
            Call::LinearAct { at, rows, .. } | Call::LinearDxAct { at, rows, .. } => (*at, *rows),
            Call::LinearGate { at, rows, .. } | Call::LinearDxGate { at, rows, .. } => (*at, *rows),
            Call::LinearRope { at, rows, .. } | Call::LinearDx { at, rows, .. } => (*at, *rows),
            _ => unreachable!("sorted by `ready`"),
        };
        let mut arena = Arena::default();
        arena.linear(&at);
        // [rows, n_in] and [rows, n_out]: x and y forward, dx and dy backward.
        let (mut narrow, mut wide) = (self.x(rows * at.n_in), self.x(rows * at.n_out));
        if matches!(call, Call::LinearDw { .. }) {
            let mut grads = self.acc(arena.len);
            return Box::new(move |dev| dev.linear_dw(&mut grads, &wide, &narrow, &at, rows));
        }
        let params = self.weights(arena.len);
        match *call {
            Call::LinearAct { activation, .. } => {
                let mut pre = self.x(rows * at.n_out);
                Box::new(move |dev| {
                    let (y, pre) = (&mut wide, &mut pre);
                    dev.linear_act(y, pre, &narrow, &params, &at, activation, rows);
                })
            }
            Call::LinearDx { into, .. } => Box::new(move |dev| {
                dev.linear_dx(&mut narrow, &wide, &params, &at, rows, into);
            }),
            Call::LinearDxAct { activation, .. } => {
                let pre = self.x(rows * at.n_in);
                Box::new(move |dev| {
                    let (dpre, dy) = (&mut narrow, &wide);
                    dev.linear_dx_act(dpre, dy, &pre, &params, &at, activation, rows);
                })
            }
            Call::LinearGate { activation, .. } => {
                let (mut y, mut pre) = (self.x(rows * at.n_out / 2), wide);
                Box::new(move |dev| {
                    let (y, pre) = (&mut y, &mut pre);
                    dev.linear_gate(y, pre, &narrow, &params, &at, activation, rows);
                })
            }
            Call::LinearRope { head_dim, context, .. } => {
                let angles = self.angles(rows, head_dim, context);
                Box::new(move |dev| {
                    let rotation = angles.rotation();
                    dev.linear_rope(&mut wide, &narrow, &params, &at, rotation, rows);
                })
            }
            Call::LinearDxGate { activation, .. } => {
                let len = 2 * rows * at.n_in;
                let (mut dpre, pre) = (self.x(len), self.x(len));
                Box::new(move |dev| {
                    let (dpre, dy) = (&mut dpre, &wide);
                    dev.linear_dx_gate(dpre, dy, &pre, &params, &at, activation, rows);
                })
            }
            _ => Box::new(move |dev| dev.linear(&mut wide, &narrow, &params, &at, rows)),
        }
    }

    fn attention(&self, call: &Call) -> Ready<D> {
        let (Call::Attention { at, ends } | Call::AttentionBackward { at, ends, .. }) = call else {
            unreachable!("sorted by `ready`")
        };
        let (at, ends) = (*at, ends.clone());
        let rows = ends[ends.len() - 1] as usize;
        let width = at.heads * at.head_dim;
        let (qkv, cu_seqlens) = (self.x(3 * rows * width), self.int(&ends));
        let order = self.int(&longest_first(&ends));
        let (mut o, mut lse) = (self.x(rows * width), self.acc(rows * at.heads));
        if matches!(call, Call::Attention { .. }) {
            return Box::new(move |dev| {
                let packed =
                    Packed { qkv: &qkv, cu_seqlens: &cu_seqlens, order: &order, ends: &ends };
                dev.attention(&mut o, &mut lse, packed, &at);
            });
        }
        // What the forward leaves: with any other the probabilities would be none.
        let packed = Packed { qkv: &qkv, cu_seqlens: &cu_seqlens, order: &order, ends: &ends };
        self.dev.attention(&mut o, &mut lse, packed, &at);
        let (mut dqkv, d_o) = (self.x(3 * rows * width), self.x(rows * width));
        let rotary = match call {
            Call::AttentionBackward { rotary, .. } => *rotary,
            _ => None,
        };
        let angles = rotary.map(|context| self.angles(rows, at.head_dim, context));
        Box::new(move |dev| {
            let packed = Packed { qkv: &qkv, cu_seqlens: &cu_seqlens, order: &order, ends: &ends };
            let saved = Attended { o: &o, lse: &lse };
            let rotation = angles.as_ref().map(Angles::rotation);
            dev.attention_backward(&mut dqkv, &d_o, saved, packed, &at, rotation);
        })
    }

    fn elementwise(&self, call: &Call) -> Ready<D> {
        match *call {
            Call::ActBackward { activation, len } => {
                let (mut dpre, dy, pre) = (self.x(len), self.x(len), self.x(len));
                Box::new(move |dev| dev.act_backward(&mut dpre, &dy, &pre, activation, len))
            }
            Call::Gather { width, count, of } => {
                let (mut y, x) = (self.x(count * width), self.x(of * width));
                let rows = self.rows(count, of);
                Box::new(move |dev| dev.gather(&mut y, &x, &rows, width, count))
            }
            Call::ScatterAdd { width, count, of } => {
                let (mut dx, dy) = (self.x(of * width), self.x(count * width));
                let rows = self.rows(count, of);
                Box::new(move |dev| dev.scatter_add(&mut dx, &dy, &rows, width, count))
            }
            Call::Dropout { dropout, len } => {
                let (mut y, x) = (self.x(len), self.x(len));
                Box::new(move |dev| dev.dropout(&mut y, &x, dropout, len))
            }
            _ => unreachable!("sorted by `ready`"),
        }
    }

    fn loss(&self, call: &Call) -> Ready<D> {
        let Call::HeadLoss { at, rows, chunk, train } = *call else {
            unreachable!("sorted by `ready`")
        };
        let mut arena = Arena::default();
        arena.linear(&at);
        let (x, params) = (self.x(rows * at.n_in), self.weights(arena.len));
        let mut logits = self.x(chunk * at.n_out);
        let mut sums = self.dev.acc(Class::Scratch, 3);
        let mut targets = self.below(rows, at.n_out);
        if rows > 1 {
            // As in every batch, not every row counts.
            targets.write(rows / 2, &[IGNORE]);
        }
        let gradients = if train { (rows * at.n_in, arena.len) } else { (0, 0) };
        let (mut dx, mut grads) = (self.x(gradients.0), self.acc(gradients.1));
        let mut labelled = self.dev.int(Class::Batch, 1);
        labelled.write(0, &[rows as i32]);
        Box::new(move |dev| {
            let gradients = LossGrads { dx: &mut dx, grads: &mut grads, labelled: &labelled };
            let input = LossInput { x: &x, targets: &targets, rows };
            let train = train.then_some(gradients);
            dev.head_loss(&mut sums, train, &mut logits, input, &params, &at);
        })
    }

    fn mask(&self, call: &Call) -> Ready<D> {
        let Call::Mask { masking, vocab, tokens } = *call else {
            unreachable!("sorted by `ready`")
        };
        let masker = batches::masker(vocab, tokens, masking);
        let (unmasked, flags) = (self.below(tokens, vocab), self.int(&masker.flags()));
        let int = |len| self.dev.int(Class::Batch, len);
        let (positions, mut ids, mut count) = (int(tokens), int(tokens), int(1));
        let (mut rows, mut targets) = (int(masker.capacity()), int(masker.capacity()));
        Box::new(move |dev| {
            let out =
                Masked { ids: &mut ids, rows: &mut rows, targets: &mut targets, count: &mut count };
            let input = Unmasked {
                ids: &unmasked,
                positions: &positions,
                flags: &flags,
                start: 0,
                tokens,
                countable: tokens,
            };
            dev.mask(out, input, &masker);
        })
    }

    fn training(&self, call: &Call) -> Ready<D> {
        let mut control = self.dev.acc(Class::Scratch, CONTROL);
        let sums = self.dev.acc(Class::Scratch, 3);
        match call {
            &Call::ZeroX { len } => {
                let mut x = self.x(len);
                Box::new(move |dev| dev.zero_x(&mut x, len))
            }
            &Call::ZeroAcc { len } => {
                let mut acc = self.acc(len);
                Box::new(move |dev| dev.zero_acc(&mut acc))
            }
            &Call::Judge { len } => {
                let grads = self.acc(len);
                Box::new(move |dev| dev.judge(&mut control, &grads, &sums))
            }
            &Call::Store { len } => {
                let (mut params, master) = (self.x(len), self.acc(len));
                Box::new(move |dev| dev.store(&mut params, &master))
            }
            Call::Update { update, groups, len } => {
                let (len, update, groups) = (*len, *update, groups.clone());
                let (grads, mut params, mut master) = (self.acc(len), self.x(len), self.acc(len));
                let moment = || self.dev.acc(Class::Scratch, len);
                let (mut m, mut v) = (moment(), moment());
                // An update asks first whether the step was finite.
                self.dev.judge(&mut control, &grads, &sums);
                Box::new(move |dev| {
                    let (params, master) = (&mut params, &mut master);
                    let arenas = Arenas { params, master, m: &mut m, v: &mut v };
                    dev.update(arenas, &grads, &control, &update, &groups);
                })
            }
            _ => unreachable!("sorted by `ready`"),
        }
    }
}

impl Source<'_, Gpu> {
    /// The operands of a bare product.
    pub fn operands(&self, product: &Product) -> Operands {
        let [a, b, out] = product.lens();
        // The first is a weight, but for the gradient of one.
        let (a, out) = match product.kind {
            Kind::Dw => (self.x(a), Out::Acc(self.acc(out))),
            _ => (self.weights(a), Out::X(self.x(out))),
        };
        Operands { a, b: self.x(b), out }
    }

    /// A product by a rung of the ladder.
    pub fn rung(&self, rung: Rung, product: &Call) -> Ready<Gpu> {
        let &Call::Linear { at, rows } = product else { unreachable!("a product forward") };
        let (mut y, x) = (self.x(rows * at.n_out), self.x(rows * at.n_in));
        let params = self.weights(at.weight.start + at.weight.len);
        Box::new(move |gpu| gpu.climb(rung, &mut y, &x, &params, &at, rows))
    }
}

fn numbers_below(len: usize, n: usize) -> Vec<i32> {
    let words = |i: usize| Philox::new(1).block(Stream::Sample, 3, i as u64 / 4)[i % 4];
    (0..len).map(|i| below(words(i), n.max(1) as u32) as i32).collect()
}

fn arena_of_embed(at: &Embed) -> usize {
    let mut arena = Arena::default();
    arena.embed(at);
    arena.len
}
