//! Launches the products of `kernels/product_hopper.cu` and `product_hopper_backward.cu`: how each
//! is cut, and the tensor maps by which TMA sees its matrices. For compute capability 9.0 alone;
//! where TMA does not take a matrix, the kernels of [`super::gpu`] do.
//!
//! Making a tensor map is arithmetic on the host, without a word to the device, and takes less than
//! the launch that it is for; a recorded step has them in its graph. So none is kept.

use bytemuck::{Pod, Zeroable};

use super::cuts::{self, MOST_SPLITS};
use super::gpu::Sums;
use crate::device::gpu::driver::{Address, TensorMap, TileShape};
use crate::device::gpu::launch::{Arg, Shape};
use crate::device::gpu::tuned::{Key, Op};
use crate::device::gpu::{Gemm, Gpu, ProductCut};
use crate::ops::Into;
use crate::ops::activation::Activation;

/// Who makes a tile: both consumers, or each its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Cooperative,
    PingPong,
}

/// A `Tile` of `kernels/product_hopper.cuh`.
#[derive(Debug)]
struct Tile {
    form: Form,
    m: usize,
    n: usize,
    stages: usize,
    /// Pieces of results a warp, on their way out.
    slots: usize,
}

const TILES: [Tile; 5] = [
    Tile { form: Form::Cooperative, m: 128, n: 256, stages: 4, slots: 2 },
    Tile { form: Form::Cooperative, m: 256, n: 128, stages: 4, slots: 2 },
    Tile { form: Form::PingPong, m: 128, n: 192, stages: 4, slots: 4 },
    Tile { form: Form::PingPong, m: 128, n: 128, stages: 5, slots: 4 },
    Tile { form: Form::Cooperative, m: 256, n: 160, stages: 3, slots: 4 },
];
/// The first of them have kernels for every epilogue, all of them those that only store or add.
const ALL_EPILOGUES: usize = 4;

/// Elements of k that a step takes, and of a tensor map's rows: 128 bytes.
const STEP: usize = 64;
/// Threads of a block: a producer's warpgroup and two consumers'.
const THREADS: u32 = 384;
/// Warps that hand out results, and bytes of the pieces in which they do.
const CONSUMER_WARPS: usize = 8;
const PIECE: usize = 2048;

impl Tile {
    /// Dynamic shared memory [bytes].
    fn shared(&self) -> usize {
        let barriers = 2 * self.stages + CONSUMER_WARPS * self.slots;
        self.stages * (self.m + self.n) * STEP * 2
            + CONSUMER_WARPS * self.slots * PIECE
            + barriers * 8
    }

    /// Columns of a box of an operand whose own index is contiguous, and of bf16 results.
    fn box_columns(&self) -> usize {
        if self.n.is_multiple_of(64) { 64 } else { 32 }
    }

    /// Rows of tiles that blocks of a cluster make at once, and columns, of c [m, n].
    fn counts(&self, m: usize, n: usize, cluster: usize) -> (usize, usize) {
        (m.div_ceil(self.m * cluster), n.div_ceil(self.n))
    }
}

// ------------------------------------------------------------------ the choice

/// What follows a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Epilogue {
    /// Rounded and stored.
    Store,
    /// The same of heads that are rotated first.
    Rope,
    /// As the first; k may be split, and partial results added up before.
    Gradient,
    /// With an activation or its slope, and one more matrix of the results' size.
    Activation,
    /// The two halves of a gate's input, and its result besides.
    Gate,
    /// A gate's gradient: two matrices of the results' size read, two written.
    GateGradient,
    /// Added to f32, by partial results where k is split.
    Sum,
    /// The same where they lie, in any order.
    Add,
}

impl Epilogue {
    /// Bytes that cross memory for an element of c, where k is not split.
    fn bytes(self) -> f64 {
        match self {
            Epilogue::Store | Epilogue::Rope | Epilogue::Gradient => 2.0,
            Epilogue::Activation => 4.0,
            Epilogue::Gate => 3.0,
            Epilogue::GateGradient | Epilogue::Sum | Epilogue::Add => 8.0,
        }
    }
}

/// A product, and what becomes of it.
#[derive(Debug, Clone, Copy)]
struct Product {
    key: Key,
    epilogue: Epilogue,
}

impl Product {
    /// `ordered`: shares of a weight gradient are added in their order.
    fn of(key: Key, ordered: bool) -> Product {
        let epilogue = match key.op {
            Op::Linear => Epilogue::Store,
            Op::LinearAct | Op::LinearDxAct => Epilogue::Activation,
            Op::LinearGate => Epilogue::Gate,
            Op::LinearRope => Epilogue::Rope,
            Op::LinearDx => Epilogue::Gradient,
            Op::LinearDxGate => Epilogue::GateGradient,
            Op::LinearDw if ordered => Epilogue::Sum,
            Op::LinearDw => Epilogue::Add,
        };
        Product { key, epilogue }
    }

    /// How many of [`TILES`] have a kernel for it.
    fn tiles(&self) -> usize {
        match self.epilogue {
            Epilogue::Store | Epilogue::Gradient | Epilogue::Sum | Epilogue::Add => TILES.len(),
            _ => ALL_EPILOGUES,
        }
    }

    /// Tiles that have a kernel for it, and clusters that its rows fill.
    fn forms(self) -> impl Iterator<Item = (usize, usize)> {
        let clusters = move |tile: usize| if self.key.m > TILES[tile].m { 1..=2 } else { 1..=1 };
        (0..self.tiles()).flat_map(move |tile| clusters(tile).map(move |cluster| (tile, cluster)))
    }
}

/// How a product is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// Which of [`TILES`].
    tile: usize,
    /// Blocks of a cluster.
    cluster: usize,
    splits: usize,
    /// Blocks in all.
    blocks: usize,
    schedule: Schedule,
}

/// `Schedule` of `kernels/product_hopper.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
struct Schedule {
    rows: i32,
    columns: i32,
    splits: i32,
    steps: i32,
    share: i32,
    cluster: i32,
}

impl Cut {
    /// `splits` shares of k, fewer if it has not as many steps, on at most `processors` blocks.
    fn new(tile: usize, cluster: usize, splits: usize, p: &Product, processors: usize) -> Cut {
        let (rows, columns) = TILES[tile].counts(p.key.m, p.key.n, cluster);
        let steps = p.key.k.div_ceil(STEP).max(1);
        let share = steps.div_ceil(splits);
        let splits = steps.div_ceil(share);
        let clusters = (rows * columns * splits).min((processors / cluster).max(1));
        let [rows, columns, shares, steps, share] =
            [rows, columns, splits, steps, share].map(|n| n as i32);
        let schedule =
            Schedule { rows, columns, splits: shares, steps, share, cluster: cluster as i32 };
        Cut { tile, cluster, splits, blocks: clusters * cluster, schedule }
    }

    /// As kernels take it.
    pub fn schedule(&self) -> Arg {
        Arg::of(self.schedule)
    }
}

/// What the choice assumes of an H200. Predictions, to be measured (LOG.md).
mod chip {
    /// Operations a second of one multiprocessor while it multiplies: 790 TFLOP/s over 132.
    pub const MULTIPLY: f64 = 790e12 / 132.0;
    /// Bytes a second that one multiprocessor gets from the L2 while all ask: 7 TB/s over 132.
    pub const L2: f64 = 7.0e12 / 132.0;
    /// Bytes a second of device memory, by all.
    pub const MEMORY: f64 = 4.3e12;
    /// Bytes a second that the L2 adds to what it holds: a guess.
    pub const ADD: f64 = 1.5e12;
    /// Elements a second that one multiprocessor hands out, one warpgroup alone at it, at 1.6 GHz:
    /// instructions an element and thread that an epilogue takes about, and half as many again as
    /// their results are waited for.
    pub const STORE: f64 = 1.6e9 * 128.0 / 8.0;
    pub const ROTATE: f64 = 1.6e9 * 128.0 / 16.0;
    pub const ACTIVATE: f64 = 1.6e9 * 128.0 / 40.0;
    pub const GATE: f64 = 1.6e9 * 128.0 / 30.0;
    pub const GATE_GRADIENT: f64 = 1.6e9 * 128.0 / 50.0;
    /// Until the first stage is there, and another launch [s].
    pub const FILL: f64 = 1.5e-6;
    pub const LAUNCH: f64 = 3e-6;
}

/// Seconds that a product should take when cut so: the larger of what device memory takes and what
/// the busiest block does. Where consumers take turns, storing one tile hides behind multiplying
/// the next, but for the last.
fn seconds(cut: &Cut, p: &Product) -> f64 {
    let (tile, splits) = (&TILES[cut.tile], cut.splits as f64);
    let Schedule { rows, columns, splits: shares, share, .. } = cut.schedule;
    let clusters = cut.blocks / cut.cluster;
    let items = ((rows * columns * shares) as usize).div_ceil(clusters) as f64;
    let fetched = ((tile.m + tile.n / cut.cluster) * STEP * 2) as f64;
    let step = (2.0 * (tile.m * tile.n * STEP) as f64 / chip::MULTIPLY).max(fetched / chip::L2);
    let multiply = f64::from(share) * step;
    let rate = match p.epilogue {
        Epilogue::Activation => chip::ACTIVATE,
        Epilogue::Rope => chip::ROTATE,
        Epilogue::Gate => chip::GATE,
        Epilogue::GateGradient => chip::GATE_GRADIENT,
        _ => chip::STORE,
    };
    let alone = (tile.m * tile.n) as f64 / rate;
    let block = match tile.form {
        // Both consumers store their halves, at the same time.
        Form::Cooperative => items * (multiply + alone / 2.0),
        Form::PingPong => items * multiply.max((multiply + alone) / 2.0) + alone,
    };
    let [m, n, k] = [p.key.m, p.key.n, p.key.k].map(|extent| extent as f64);
    let results = match p.epilogue {
        Epilogue::Gradient | Epilogue::Sum if cut.splits > 1 => 4.0 * m * n * splits,
        _ => p.epilogue.bytes() * m * n,
    };
    let memory = (2.0 * (m + n) * k + results) / chip::MEMORY;
    let sum = match p.epilogue {
        Epilogue::Gradient | Epilogue::Sum if cut.splits > 1 => {
            4.0 * m * n * (splits + 2.0) / chip::MEMORY + chip::LAUNCH
        }
        _ => 0.0,
    };
    let added = if p.epilogue == Epilogue::Add { 4.0 * m * n * splits / chip::ADD } else { 0.0 };
    chip::FILL + block.max(memory).max(added) + sum
}

/// Most shares of k, each with steps enough to be worth it.
fn most_splits(key: Key) -> usize {
    const LEAST_SHARE: usize = 8;
    let shares = key.k.div_ceil(STEP) / LEAST_SHARE;
    if key.op.may_split() { shares.clamp(1, MOST_SPLITS) } else { 1 }
}

/// Every cut of a product by these kernels, on all processors.
pub(super) fn cuts(key: Key, processors: usize) -> impl Iterator<Item = ProductCut> {
    let p = Product::of(key, true);
    p.forms().flat_map(move |(tile, cluster)| {
        let blocks = (processors / cluster).max(1) * cluster;
        let cut = move |splits| ProductCut::Hopper { tile, cluster, splits, blocks };
        cuts::splits(key.k.div_ceil(STEP), most_splits(key)).map(cut)
    })
}

/// The cut that should take the least time. A tile that divides the results wastes nothing; large
/// ones cost least traffic, and two blocks of a cluster share theirs; taking turns hides the
/// epilogue, which decides where k is short; and a split more fills the last wave, for writing and
/// reading the results once more.
fn choose(p: &Product, processors: usize) -> Cut {
    let most = most_splits(p.key);
    let splits = |(tile, cluster)| (1..=most).map(move |splits| (tile, cluster, splits));
    let all = p.forms().flat_map(splits);
    let cuts = all.map(|(tile, cluster, splits)| Cut::new(tile, cluster, splits, p, processors));
    let best = cuts.min_by(|a, b| seconds(a, p).total_cmp(&seconds(b, p)));
    best.expect("there are tiles")
}

// ------------------------------------------------------------------ launches

/// A matrix of bf16 in memory, row after row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix {
    pub at: Address,
    pub rows: usize,
    pub columns: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

impl Matrix {
    /// Rows that follow one another.
    pub fn dense(at: Address, rows: usize, columns: usize) -> Matrix {
        Matrix { at, rows, columns, stride: columns }
    }

    /// Whether TMA takes it: all rows begin on 16 bytes.
    fn is_aligned(&self) -> bool {
        self.at.0.is_multiple_of(16) && self.stride.is_multiple_of(8)
    }
}

/// Which index of an operand is the contiguous one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Major {
    K,
    Outer,
}

/// How many rows of results a warp hands out at a time.
pub(super) const PIECE_ROWS: usize = 16;

impl Gpu {
    /// How these kernels cut a product of such matrices; none if it is not theirs.
    pub(super) fn hopper_cut(&self, key: Key, matrices: &[Matrix]) -> Option<Cut> {
        let p = Product::of(key, self.is_deterministic());
        let aligned = matrices.iter().all(Matrix::is_aligned);
        let takes = self.has_hopper() && key.m > 0 && key.n > 0 && aligned;
        let processors = self.driver().properties().processors as usize;
        match self.cut_of(&key) {
            _ if !takes => None,
            Some(ProductCut::Portable { .. }) => None,
            Some(ProductCut::Hopper { tile, cluster, splits, blocks }) if tile < p.tiles() => {
                let splits = if key.op.may_split() { splits } else { 1 };
                Some(Cut::new(tile, cluster, splits, &p, blocks))
            }
            None if matches!(self.gemm(), Gemm::Portable | Gemm::Cublaslt) => None,
            _ => Some(choose(&p, processors)),
        }
    }

    /// A matrix in boxes of [rows, columns], 64 or 32 of these, swizzled by a row's bytes.
    pub(super) fn matrix_map(&self, x: Matrix, rows: usize, columns: usize) -> TensorMap {
        self.tensor_map(&TileShape {
            base: x.at,
            element_bytes: 2,
            dims: &[x.columns as u64, x.rows as u64],
            strides: &[x.stride as u64 * 2],
            tile: &[columns as u32, rows as u32],
            swizzle: columns as u32 * 2,
        })
    }

    /// Maps of a and b, whose panels are [M, 64 k] and, half by half, [N, 64 k].
    pub(super) fn operand_maps(
        &self,
        cut: Cut,
        a: (Matrix, Major),
        b: (Matrix, Major),
    ) -> [Arg; 2] {
        let tile = &TILES[cut.tile];
        let a = match a.1 {
            Major::K => self.matrix_map(a.0, tile.m, STEP),
            Major::Outer => self.matrix_map(a.0, STEP, 64),
        };
        let b = match b.1 {
            Major::K => self.matrix_map(b.0, tile.n / 2, STEP),
            Major::Outer => self.matrix_map(b.0, STEP / 2, tile.box_columns()),
        };
        [a.into(), b.into()]
    }

    /// In the pieces that a warp hands out.
    pub(super) fn boxes_map(&self, c: Matrix, columns: usize) -> Arg {
        self.matrix_map(c, PIECE_ROWS, columns).into()
    }

    fn results_map(&self, cut: Cut, c: Matrix) -> Arg {
        self.boxes_map(c, TILES[cut.tile].box_columns())
    }

    /// f32 [splits, m, n], the splits `part` elements apart.
    fn sums_map(&self, base: Address, [n, m, splits]: [usize; 3], part: usize) -> Arg {
        let bytes = size_of::<f32>();
        let map = self.tensor_map(&TileShape {
            base,
            element_bytes: bytes as u32,
            dims: &[n as u64, m as u64, splits as u64],
            strides: &[n * bytes, part * bytes].map(|stride| stride as u64),
            tile: &[32, PIECE_ROWS as u32, 1],
            swizzle: 128,
        });
        map.into()
    }

    pub(super) fn launch_hopper(&self, kernels: &[&'static str], cut: Cut, args: &[Arg]) {
        let shape = Shape::new(cut.blocks, THREADS).cluster(cut.cluster);
        self.launch(kernels[cut.tile], shape.shared(TILES[cut.tile].shared()), args);
    }

    /// y [m, n] = x [m, k] Wᵀ + b
    pub(super) fn hopper_linear(
        &self,
        cut: Cut,
        y: Matrix,
        x: Matrix,
        w: Matrix,
        bias: Option<Address>,
    ) {
        let [a, b] = self.operand_maps(cut, (x, Major::K), (w, Major::K));
        let (columns, schedule) = (y.columns.into(), cut.schedule());
        let args = [a, b, self.results_map(cut, y), bias.into(), columns, schedule];
        let kernels = [
            "linear_coop_128x256",
            "linear_coop_256x128",
            "linear_ping_128x192",
            "linear_ping_128x128",
            "linear_coop_256x160",
        ];
        self.launch_hopper(&kernels, cut, &args);
    }

    /// pre [m, n] = x [m, k] Wᵀ + b, y = act(pre)
    pub(super) fn hopper_linear_act(
        &self,
        cut: Cut,
        [y, pre, x, w]: [Matrix; 4],
        bias: Option<Address>,
        activation: Activation,
    ) {
        let [a, b] = self.operand_maps(cut, (x, Major::K), (w, Major::K));
        let [y_map, pre] = [y, pre].map(|c| self.results_map(cut, c));
        let (columns, activation) = (y.columns.into(), (activation as i32).into());
        let schedule = cut.schedule();
        let args = [a, b, y_map, pre, bias.into(), columns, activation, schedule];
        let kernels = [
            "linear_act_coop_128x256",
            "linear_act_coop_256x128",
            "linear_act_ping_128x192",
            "linear_act_ping_128x128",
        ];
        self.launch_hopper(&kernels, cut, &args);
    }

    /// dx [m, n] = or += dy [m, k] W [k, n]
    pub(super) fn hopper_dx(&self, cut: Cut, dx: Matrix, dy: Matrix, w: Matrix, into: Into) {
        let [a, b] = self.operand_maps(cut, (dy, Major::K), (w, Major::Outer));
        if cut.splits > 1 {
            let (m, n) = (dx.rows, dx.columns);
            let partials = self.workspace(cut.splits * m * n * size_of::<f32>());
            let map = self.sums_map(partials, [n, m, cut.splits], m * n);
            let kernels = [
                "linear_dx_split_coop_128x256",
                "linear_dx_split_coop_256x128",
                "linear_dx_split_ping_128x192",
                "linear_dx_split_ping_128x128",
                "linear_dx_split_coop_256x160",
            ];
            self.launch_hopper(&kernels, cut, &[a, b, map, cut.schedule()]);
            return self.sum_dx_splits(dx.at, partials, m * n, cut.splits, into);
        }
        let (add, schedule) = ((into == Into::Add).into(), cut.schedule());
        let args = [a, b, self.results_map(cut, dx), add, schedule];
        let kernels = [
            "linear_dx_coop_128x256",
            "linear_dx_coop_256x128",
            "linear_dx_ping_128x192",
            "linear_dx_ping_128x128",
            "linear_dx_coop_256x160",
        ];
        self.launch_hopper(&kernels, cut, &args);
    }

    /// dpre [m, n] = (dy [m, k] W [k, n]) ∘ act'(pre)
    pub(super) fn hopper_dx_act(
        &self,
        cut: Cut,
        [dpre, pre, dy, w]: [Matrix; 4],
        activation: Activation,
    ) {
        let [a, b] = self.operand_maps(cut, (dy, Major::K), (w, Major::Outer));
        let [dpre, pre] = [dpre, pre].map(|c| self.results_map(cut, c));
        let args = [a, b, dpre, pre, (activation as i32).into(), cut.schedule()];
        let kernels = [
            "linear_dx_act_coop_128x256",
            "linear_dx_act_coop_256x128",
            "linear_dx_act_ping_128x192",
            "linear_dx_act_ping_128x128",
        ];
        self.launch_hopper(&kernels, cut, &args);
    }

    /// dW [m, n] += dyᵀ x, db [m] += Σ dy over rows; dy [k, m], x [k, n].
    pub(super) fn hopper_dw(&self, cut: Cut, sums: Sums, dy: Matrix, x: Matrix) {
        let (m, n, part) = (sums.m, sums.n, sums.part());
        let bytes = size_of::<f32>();
        // In any order, all are added to dW and db themselves.
        let split = cut.splits > 1 && self.is_deterministic();
        let parts = if split { cut.splits } else { 1 };
        let partials = split.then(|| self.workspace(cut.splits * part * bytes));
        let dw = self.sums_map(partials.unwrap_or(sums.dw), [n, m, parts], part);
        let db = sums.db.map(|db| partials.map_or(db, |partials| partials.offset(m * n * bytes)));
        let [a, b] = self.operand_maps(cut, (dy, Major::Outer), (x, Major::Outer));
        let part = if split { part as u64 } else { 0 };
        let (stride, add) = (part.into(), (!split).into());
        let args = [a, b, dw, db.into(), stride, m.into(), add, cut.schedule()];
        let kernels = [
            "linear_dw_coop_128x256",
            "linear_dw_coop_256x128",
            "linear_dw_ping_128x192",
            "linear_dw_ping_128x128",
            "linear_dw_coop_256x160",
        ];
        self.launch_hopper(&kernels, cut, &args);
        if let Some(partials) = partials {
            self.sum_splits(sums, partials, cut.splits);
        }
    }
}

#[cfg(test)]
mod tests;
