//! Launches the products of `kernels/product.cu`: how each is cut into tiles and splits of its
//! inner dimension, and which kernel takes what it does not.

use half::bf16;

use super::cuts::{self, MOST_SPLITS};
use super::gate::Given;
use super::hopper::Matrix;
use super::{Linear, LinearOps};
use crate::device::Buffer;
use crate::device::gpu::driver::Address;
use crate::device::gpu::launch::{Arg, Shape};
use crate::device::gpu::limits::multiple;
use crate::device::gpu::tuned::{Key, Op};
use crate::device::gpu::{Gpu, ProductCut, Tensor};
use crate::ops::Into;
use crate::ops::activation::{Activation, launch_act_backward};
use crate::ops::rope::Rotation;

/// A tile of results that a block makes; `Large`, `Medium` and `Small` of `kernels/product.cuh`.
struct Tile {
    m: usize,
    n: usize,
    threads: u32,
    /// TFLOP/s that 132 multiprocessors reach while they do nothing else.
    rate: f64,
    /// What filling the pipeline and storing the results cost, in steps of k.
    overhead: f64,
}

/// Rates and overheads are predictions (LOG.md), not measured. Two medium tiles share a
/// multiprocessor, so one's stores hide behind the other's products; but each element that a
/// product needs is fetched more often, and so with the small ones.
const TILES: [Tile; 3] = [
    Tile { m: 128, n: 256, threads: 256, rate: 500.0, overhead: 7.0 },
    Tile { m: 128, n: 128, threads: 128, rate: 430.0, overhead: 4.0 },
    Tile { m: 64, n: 64, threads: 128, rate: 230.0, overhead: 4.0 },
];

/// Elements of k that a step takes, and steps in flight.
const STEP: usize = 32;
const STAGES: usize = 4;

impl Tile {
    /// Dynamic shared memory [bytes].
    fn shared(&self) -> usize {
        STAGES * (self.m + self.n) * STEP * size_of::<bf16>()
    }

    fn count(&self, m: usize, n: usize) -> usize {
        m.div_ceil(self.m) * n.div_ceil(self.n)
    }
}

/// How a product is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// Which of [`TILES`].
    tile: usize,
    /// Shares of k, each a block's.
    splits: usize,
    /// Elements of k in a share.
    share: usize,
}

impl Cut {
    /// `splits` shares of k, fewer if k has not as many steps.
    fn new(tile: usize, splits: usize, k: usize) -> Cut {
        let share = k.div_ceil(STEP).div_ceil(splits).max(1) * STEP;
        Cut { tile, splits: k.div_ceil(share).max(1), share }
    }
}

/// The cut of c [m, n] = Σ over k that should take the least time: whole waves of blocks, each as
/// long as its steps and the overhead. A split more evens out the last wave, and costs writing and
/// reading the results once more, in f32.
fn cut(m: usize, n: usize, k: usize, processors: usize, may_split: bool) -> Cut {
    /// Bytes a second, and what one more launch takes.
    const MEMORY: f64 = 4.0e12;
    const LAUNCH: f64 = 3e-6;
    let steps = k.div_ceil(STEP);
    let seconds = |tile: &Tile, splits: usize| {
        let waves = (tile.count(m, n) * splits).div_ceil(processors) as f64;
        let step = 2.0 * (tile.m * tile.n * STEP) as f64 / (tile.rate * 1e12 / 132.0);
        let product = waves * (steps.div_ceil(splits) as f64 + tile.overhead) * step;
        let partials = (2 * size_of::<f32>() * splits * m * n) as f64;
        product + if splits > 1 { partials / MEMORY + LAUNCH } else { 0.0 }
    };
    let most = if may_split { most_splits(k) } else { 1 };
    let all = (0..TILES.len()).flat_map(|tile| (1..=most).map(move |splits| (tile, splits)));
    let time = |&(tile, splits): &(usize, usize)| seconds(&TILES[tile], splits);
    let best = all.min_by(|a, b| time(a).total_cmp(&time(b)));
    let (tile, splits) = best.expect("there are tiles");
    Cut::new(tile, splits, k)
}

/// Shares of k that leave each a few steps.
fn most_splits(k: usize) -> usize {
    (k.div_ceil(STEP) / 4).clamp(1, MOST_SPLITS)
}

/// Every cut of a product by these kernels.
pub(super) fn cuts(key: Key) -> impl Iterator<Item = ProductCut> {
    let most = if key.op.may_split() { most_splits(key.k) } else { 1 };
    let steps = key.k.div_ceil(STEP);
    (0..TILES.len()).flat_map(move |tile| {
        cuts::splits(steps, most).map(move |splits| ProductCut::Portable { tile, splits })
    })
}

/// What the kernels take, or in words what they do not. A layer of few outputs, such as a
/// classifier, may have any number of them; so may the decoder, whose rows the loss pads.
pub fn supports(at: &Linear) -> Result<(), String> {
    const FEW: usize = 64;
    multiple("the number of a product's inputs", at.n_in, 8, usize::MAX)?;
    if at.n_out < FEW {
        return Ok(());
    }
    multiple("the number of a product's outputs", at.n_out, 8, usize::MAX)
}

/// Rows of a matrix in memory.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Rows {
    pub at: Address,
    /// Elements from one row to the next.
    pub stride: usize,
}

impl Rows {
    /// `count` rows of `width` from the start of `x`, one after another.
    pub fn of(x: &Tensor<bf16>, count: usize, width: usize) -> Rows {
        assert!(count * width <= x.len(), "linear: {count} rows of {width} in {}", x.len());
        Rows { at: x.at(0), stride: width }
    }

    /// Whether 16-byte loads of its rows are aligned.
    pub fn is_aligned(self) -> bool {
        self.stride.is_multiple_of(8)
    }
}

/// Gradients of a weight [m, n] and a bias [m].
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums {
    pub dw: Address,
    pub db: Option<Address>,
    pub m: usize,
    pub n: usize,
}

impl Sums {
    fn biases(&self) -> usize {
        if self.db.is_some() { self.m } else { 0 }
    }

    /// Elements from one split's partial results to the next: dW, then db.
    pub fn part(&self) -> usize {
        (self.m * self.n + self.biases()).next_multiple_of(4)
    }
}

/// Where a layer's weight and bias lie.
pub(super) fn places<T>(params: &Tensor<T>, at: &Linear) -> (Address, Option<Address>) {
    let place = |start: usize, len: usize| {
        params.at(start + len);
        params.at(start)
    };
    (place(at.weight.start, at.weight.len), at.bias.map(|bias| place(bias.start, bias.len)))
}

impl Gpu {
    /// Launches the kernel of the cut's tile on blocks for c [m, n].
    pub(super) fn multiply(
        &self,
        kernels: [&'static str; 3],
        cut: Cut,
        m: usize,
        n: usize,
        args: &[Arg],
    ) {
        let tile = &TILES[cut.tile];
        let shape = Shape::new(tile.count(m, n) * cut.splits, tile.threads).shared(tile.shared());
        self.launch(kernels[cut.tile], shape, args);
    }

    pub(super) fn cut(&self, key: Key) -> Cut {
        let (Key { m, n, k, .. }, may_split) = (key, key.op.may_split());
        if let Some(ProductCut::Portable { tile, splits }) = self.cut_of(&key) {
            return Cut::new(tile, if may_split { splits } else { 1 }, k);
        }
        cut(m, n, k, self.driver().properties().processors as usize, may_split)
    }

    /// [`LinearOps::linear`] on rows anywhere, for `op`.
    pub(in crate::ops) fn linear_rows(
        &self,
        op: Op,
        y: Rows,
        x: Address,
        params: &Tensor<bf16>,
        at: &Linear,
        rows: usize,
    ) {
        let (m, n, k) = (rows, at.n_out, at.n_in);
        let (weight, bias) = places(params, at);
        let args = [
            y.at.into(),
            x.into(),
            weight.into(),
            bias.into(),
            m.into(),
            n.into(),
            k.into(),
            y.stride.into(),
        ];
        if self.naive() || !k.is_multiple_of(8) {
            return self.launch("linear_naive", Shape::each(m * n, 256), &args);
        }
        if self.library_linear(y, x, weight, bias, [m, k, n]) {
            return;
        }
        let [y, x, w] = [
            Matrix { at: y.at, rows: m, columns: n, stride: y.stride },
            Matrix::dense(x, m, k),
            Matrix::dense(weight, n, k),
        ];
        let key = Key { op, m, n, k };
        if let Some(cut) = self.hopper_cut(key, &[y, x, w]) {
            return self.hopper_linear(cut, y, x, w, bias);
        }
        let kernels = ["linear_large", "linear_medium", "linear_small"];
        self.multiply(kernels, self.cut(key), m, n, &args);
    }

    /// [`LinearOps::linear_dx`] on rows anywhere.
    pub(in crate::ops) fn linear_dx_rows(
        &self,
        dx: Address,
        dy: Rows,
        params: &Tensor<bf16>,
        at: &Linear,
        rows: usize,
        into: Into,
    ) {
        let (m, n, k) = (rows, at.n_in, at.n_out);
        let (weight, _) = places(params, at);
        let add = into == Into::Add;
        if self.naive() || !dy.is_aligned() || !n.is_multiple_of(8) {
            let [dx, dy_at, weight] = [dx, dy.at, weight].map(Arg::from);
            let [m_arg, n_arg, k_arg, stride] = [m, n, k, dy.stride].map(Arg::from);
            let args = [dx, dy_at, weight, m_arg, n_arg, k_arg, stride, add.into()];
            return self.launch("linear_dx_naive", Shape::each(m * n, 256), &args);
        }
        if self.library_dx(dx, dy, weight, [m, n, k], into) {
            return;
        }
        let dy_seen = Matrix { at: dy.at, rows: m, columns: k, stride: dy.stride };
        let [dx_seen, w] = [Matrix::dense(dx, m, n), Matrix::dense(weight, k, n)];
        let key = Key { op: Op::LinearDx, m, n, k };
        if let Some(cut) = self.hopper_cut(key, &[dx_seen, dy_seen, w]) {
            return self.hopper_dx(cut, dx_seen, dy_seen, w, into);
        }
        let cut = self.cut(key);
        let partials =
            (cut.splits > 1).then(|| self.workspace(cut.splits * m * n * size_of::<f32>()));
        let args = [
            dx.into(),
            partials.into(),
            dy.at.into(),
            weight.into(),
            m.into(),
            n.into(),
            k.into(),
            dy.stride.into(),
            add.into(),
            cut.share.into(),
        ];
        let kernels = ["linear_dx_large", "linear_dx_medium", "linear_dx_small"];
        self.multiply(kernels, cut, m, n, &args);
        if let Some(partials) = partials {
            self.sum_dx_splits(dx, partials, m * n, cut.splits, into);
        }
    }

    /// dx [len] = or += the partial results of all splits, in their order.
    pub(super) fn sum_dx_splits(
        &self,
        dx: Address,
        partials: Address,
        len: usize,
        splits: usize,
        into: Into,
    ) {
        let (elements, add) = (len as u64, (into == Into::Add).into());
        let args = [dx.into(), partials.into(), elements.into(), splits.into(), add];
        self.launch("linear_dx_sum", Shape::each(len / 8, 256), &args);
    }

    /// [`LinearOps::linear_dw`] on rows anywhere.
    pub(in crate::ops) fn linear_dw_rows(
        &self,
        grads: &mut Tensor<f32>,
        dy: Rows,
        x: Address,
        at: &Linear,
        rows: usize,
    ) {
        if rows == 0 {
            return;
        }
        let (m, n, k) = (at.n_out, at.n_in, rows);
        let (dw, db) = places(grads, at);
        if self.naive() || !dy.is_aligned() || !n.is_multiple_of(8) {
            return self.linear_dw_naive(dw, db, dy, x, at, rows);
        }
        let dy_seen = Matrix { at: dy.at, rows: k, columns: m, stride: dy.stride };
        let (x_seen, sums) = (Matrix::dense(x, k, n), Sums { dw, db, m, n });
        if self.library_dw(sums, dy, x, rows) {
            return;
        }
        let key = Key { op: Op::LinearDw, m, n, k };
        if let Some(cut) = self.hopper_cut(key, &[dy_seen, x_seen]) {
            return self.hopper_dw(cut, sums, dy_seen, x_seen);
        }
        let cut = self.cut(key);
        let partials =
            (cut.splits > 1).then(|| self.workspace(cut.splits * sums.part() * size_of::<f32>()));
        let args = [
            dw.into(),
            db.into(),
            partials.into(),
            dy.at.into(),
            x.into(),
            m.into(),
            n.into(),
            k.into(),
            dy.stride.into(),
            cut.share.into(),
        ];
        let kernels = ["linear_dw_large", "linear_dw_medium", "linear_dw_small"];
        self.multiply(kernels, cut, m, n, &args);
        if let Some(partials) = partials {
            self.sum_splits(sums, partials, cut.splits);
        }
    }

    /// dW += and db += the partial results of all splits, in their order.
    pub(super) fn sum_splits(&self, sums: Sums, partials: Address, splits: usize) {
        let (weights, biases) = ((sums.m * sums.n) as u64, sums.biases());
        let args = [
            sums.dw.into(),
            sums.db.into(),
            partials.into(),
            weights.into(),
            biases.into(),
            splits.into(),
        ];
        self.launch("linear_dw_sum", Shape::each(sums.part() / 4, 256), &args);
    }

    fn linear_dw_naive(
        &self,
        dw: Address,
        db: Option<Address>,
        dy: Rows,
        x: Address,
        at: &Linear,
        rows: usize,
    ) {
        let [n_out, n_in, rows, stride] = [at.n_out, at.n_in, rows, dy.stride].map(Arg::from);
        let args = [dw.into(), dy.at.into(), x.into(), n_out, n_in, rows, stride];
        self.launch("linear_dw_naive", Shape::each(at.n_out * at.n_in, 256), &args);
        if let Some(db) = db {
            let args = [db.into(), dy.at.into(), n_out, rows, stride];
            self.launch("linear_db_naive", Shape::each(at.n_out, 256), &args);
        }
    }
}

impl LinearOps for Gpu {
    fn linear(
        &self,
        y: &mut Tensor<bf16>,
        x: &Tensor<bf16>,
        params: &Tensor<bf16>,
        at: &Linear,
        rows: usize,
    ) {
        let (y, x) = (Rows::of(y, rows, at.n_out), Rows::of(x, rows, at.n_in));
        self.linear_rows(Op::Linear, y, x.at, params, at, rows);
    }

    fn linear_act(
        &self,
        y: &mut Tensor<bf16>,
        pre: &mut Tensor<bf16>,
        x: &Tensor<bf16>,
        params: &Tensor<bf16>,
        at: &Linear,
        activation: Activation,
        rows: usize,
    ) {
        let (m, n, k) = (rows, at.n_out, at.n_in);
        let (y, pre, x) = (Rows::of(y, m, n), Rows::of(pre, m, n), Rows::of(x, m, k));
        let (weight, bias) = places(params, at);
        let args = [
            y.at.into(),
            pre.at.into(),
            x.at.into(),
            weight.into(),
            bias.into(),
            m.into(),
            n.into(),
            k.into(),
            (activation as i32).into(),
        ];
        if self.naive() || !y.is_aligned() || !k.is_multiple_of(8) {
            return self.launch("linear_act_naive", Shape::each(m * n, 256), &args);
        }
        if self.library_linear_act([y, pre], x.at, weight, bias, [m, k, n], activation) {
            return;
        }
        let seen = [
            Matrix::dense(y.at, m, n),
            Matrix::dense(pre.at, m, n),
            Matrix::dense(x.at, m, k),
            Matrix::dense(weight, n, k),
        ];
        let key = Key { op: Op::LinearAct, m, n, k };
        if let Some(cut) = self.hopper_cut(key, &seen) {
            return self.hopper_linear_act(cut, seen, bias, activation);
        }
        let kernels = ["linear_act_large", "linear_act_medium", "linear_act_small"];
        self.multiply(kernels, self.cut(key), m, n, &args);
    }

    fn linear_gate(
        &self,
        y: &mut Tensor<bf16>,
        pre: &mut Tensor<bf16>,
        x: &Tensor<bf16>,
        params: &Tensor<bf16>,
        at: &Linear,
        activation: Activation,
        rows: usize,
    ) {
        self.launch_gate(y, pre, Given { from: x, params, at, activation, rows });
    }

    fn linear_rope(
        &self,
        qkv: &mut Tensor<bf16>,
        x: &Tensor<bf16>,
        params: &Tensor<bf16>,
        at: &Linear,
        rotation: Rotation<Self>,
        rows: usize,
    ) {
        self.launch_rope(qkv, x, params, at, rotation, rows);
    }

    fn linear_dx(
        &self,
        dx: &mut Tensor<bf16>,
        dy: &Tensor<bf16>,
        params: &Tensor<bf16>,
        at: &Linear,
        rows: usize,
        into: Into,
    ) {
        let (dx, dy) = (Rows::of(dx, rows, at.n_in), Rows::of(dy, rows, at.n_out));
        self.linear_dx_rows(dx.at, dy, params, at, rows, into);
    }

    fn linear_dx_act(
        &self,
        dpre: &mut Tensor<bf16>,
        dy: &Tensor<bf16>,
        pre: &Tensor<bf16>,
        params: &Tensor<bf16>,
        at: &Linear,
        activation: Activation,
        rows: usize,
    ) {
        let (m, n, k) = (rows, at.n_in, at.n_out);
        let (dpre, dy, pre) = (Rows::of(dpre, m, n), Rows::of(dy, m, k), Rows::of(pre, m, n));
        let (weight, _) = places(params, at);
        let args = [
            dpre.at.into(),
            dy.at.into(),
            pre.at.into(),
            weight.into(),
            m.into(),
            n.into(),
            k.into(),
            (activation as i32).into(),
        ];
        if self.naive() || !dy.is_aligned() || !dpre.is_aligned() {
            return self.launch("linear_dx_act_naive", Shape::each(m * n, 256), &args);
        }
        if self.library_dx_act([dpre.at, pre.at], dy, weight, [m, n, k], activation) {
            return;
        }
        let seen = [
            Matrix::dense(dpre.at, m, n),
            Matrix::dense(pre.at, m, n),
            Matrix::dense(dy.at, m, k),
            Matrix::dense(weight, k, n),
        ];
        let key = Key { op: Op::LinearDxAct, m, n, k };
        if let Some(cut) = self.hopper_cut(key, &seen) {
            return self.hopper_dx_act(cut, seen, activation);
        }
        let kernels = ["linear_dx_act_large", "linear_dx_act_medium", "linear_dx_act_small"];
        self.multiply(kernels, self.cut(key), m, n, &args);
    }

    fn linear_dx_gate(
        &self,
        dpre: &mut Tensor<bf16>,
        dy: &Tensor<bf16>,
        pre: &Tensor<bf16>,
        params: &Tensor<bf16>,
        at: &Linear,
        activation: Activation,
        rows: usize,
    ) {
        self.launch_dx_gate(dpre, pre, Given { from: dy, params, at, activation, rows });
    }

    fn linear_dw(
        &self,
        grads: &mut Tensor<f32>,
        dy: &Tensor<bf16>,
        x: &Tensor<bf16>,
        at: &Linear,
        rows: usize,
    ) {
        let (dy, x) = (Rows::of(dy, rows, at.n_out), Rows::of(x, rows, at.n_in));
        self.linear_dw_rows(grads, dy, x.at, at, rows);
    }

    fn act_backward(
        &self,
        dpre: &mut Tensor<bf16>,
        dy: &Tensor<bf16>,
        pre: &Tensor<bf16>,
        activation: Activation,
        len: usize,
    ) {
        launch_act_backward(self, [dpre.at(0), dy.at(0), pre.at(0)], activation, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Span;

    const LARGE: usize = 0;
    const SMALL: usize = 2;

    #[test]
    fn large_products_take_large_tiles_and_weight_gradients_split_k() {
        let whole = Cut { tile: LARGE, splits: 1, share: 768 };
        assert_eq!(cut(65_536, 768, 768, 132, true), whole);
        assert_eq!(cut(65_536, 3072, 768, 132, false), whole);
        for (n_out, n_in) in [(768, 768), (2304, 768), (3072, 768), (768, 3072)] {
            let cut = cut(n_out, n_in, 65_536, 132, true);
            let blocks = TILES[cut.tile].count(n_out, n_in) * cut.splits;
            let waves = blocks.div_ceil(132);
            assert!(blocks as f64 > 0.93 * (waves * 132) as f64, "{cut:?} leaves many idle");
        }
        assert_eq!(cut(3, 24, 40, 132, true).tile, SMALL);
    }

    #[test]
    fn shares_cover_k_and_none_is_empty() {
        for k in [1, 31, 32, 33, 200, 4096, 65_537] {
            for splits in 1..70 {
                let Cut { splits, share, .. } = Cut::new(0, splits, k);
                assert!(share.is_multiple_of(STEP) && (splits - 1) * share < k);
                assert!(splits * share >= k);
            }
        }
    }

    #[test]
    fn a_width_that_kernels_do_not_take_is_refused() {
        let at =
            |n_in, n_out| Linear { weight: Span::first(n_in * n_out), bias: None, n_in, n_out };
        assert_eq!(supports(&at(768, 2304)), Ok(()));
        assert_eq!(supports(&at(768, 2)), Ok(()));
        assert!(supports(&at(20, 64)).unwrap_err().contains("24 works"));
        assert!(supports(&at(24, 101)).unwrap_err().contains("104 works"));
    }
}
