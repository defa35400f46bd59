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

const TILES: [Tile; 4] = [
    Tile { form: Form::Cooperative, m: 128, n: 256, stages: 4, slots: 2 },
    Tile { form: Form::Cooperative, m: 256, n: 128, stages: 4, slots: 2 },
    Tile { form: Form::PingPong, m: 128, n: 192, stages: 4, slots: 4 },
    Tile { form: Form::PingPong, m: 128, n: 128, stages: 5, slots: 4 },
];

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
    /// With an activation or its slope, and one more matrix of the results' size.
    Activation,
    /// Added to f32; k may be split.
    Sum,
}

/// c [m, n] = Σ over k, and what becomes of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    m: usize,
    n: usize,
    k: usize,
    epilogue: Epilogue,
}

impl Product {
    pub fn stored(m: usize, n: usize, k: usize) -> Product {
        Product { m, n, k, epilogue: Epilogue::Store }
    }

    pub fn activated(m: usize, n: usize, k: usize) -> Product {
        Product { m, n, k, epilogue: Epilogue::Activation }
    }

    pub fn summed(m: usize, n: usize, k: usize) -> Product {
        Product { m, n, k, epilogue: Epilogue::Sum }
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
        let (rows, columns) = TILES[tile].counts(p.m, p.n, cluster);
        let steps = p.k.div_ceil(STEP).max(1);
        let share = steps.div_ceil(splits);
        let splits = steps.div_ceil(share);
        let clusters = (rows * columns * splits).min((processors / cluster).max(1));
        let [rows, columns, shares, steps, share] =
            [rows, columns, splits, steps, share].map(|n| n as i32);
        let schedule =
            Schedule { rows, columns, splits: shares, steps, share, cluster: cluster as i32 };
        Cut { tile, cluster, splits, blocks: clusters * cluster, schedule }
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
    /// Elements a second that one multiprocessor hands out, one warpgroup alone at it: an epilogue
    /// takes about 8 instructions an element and thread, with an activation 40, at 1.6 GHz.
    pub const STORE: f64 = 1.6e9 * 128.0 / 8.0;
    pub const ACTIVATE: f64 = 1.6e9 * 128.0 / 40.0;
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
        Epilogue::Store | Epilogue::Sum => chip::STORE,
    };
    let alone = (tile.m * tile.n) as f64 / rate;
    let block = match tile.form {
        // Both consumers store their halves, at the same time.
        Form::Cooperative => items * (multiply + alone / 2.0),
        Form::PingPong => items * multiply.max((multiply + alone) / 2.0) + alone,
    };
    let (m, n, k) = (p.m as f64, p.n as f64, p.k as f64);
    let results = match p.epilogue {
        Epilogue::Store => 2.0 * m * n,
        Epilogue::Activation => 4.0 * m * n,
        Epilogue::Sum if cut.splits > 1 => 4.0 * m * n * splits,
        Epilogue::Sum => 8.0 * m * n,
    };
    let memory = (2.0 * (m + n) * k + results) / chip::MEMORY;
    let sum = 4.0 * m * n * (splits + 2.0) / chip::MEMORY + chip::LAUNCH;
    chip::FILL + block.max(memory) + if cut.splits > 1 { sum } else { 0.0 }
}

/// Shares of k that leave each enough steps to be worth it.
fn most_splits(k: usize) -> usize {
    const LEAST_SHARE: usize = 8;
    (k.div_ceil(STEP) / LEAST_SHARE).clamp(1, MOST_SPLITS)
}

/// Tiles, and clusters that `m` rows fill.
fn forms(m: usize) -> impl Iterator<Item = (usize, usize)> {
    let clusters = move |tile: usize| if m > TILES[tile].m { 1..=2 } else { 1..=1 };
    (0..TILES.len()).flat_map(move |tile| clusters(tile).map(move |cluster| (tile, cluster)))
}

/// Every cut of a product by these kernels, on all processors.
pub(super) fn cuts(key: &Key, processors: usize) -> impl Iterator<Item = ProductCut> {
    let most = if key.op == Op::LinearDw { most_splits(key.k) } else { 1 };
    let steps = key.k.div_ceil(STEP);
    forms(key.m).flat_map(move |(tile, cluster)| {
        let blocks = (processors / cluster).max(1) * cluster;
        let cut = move |splits| ProductCut::Hopper { tile, cluster, splits, blocks };
        cuts::splits(steps, most).map(cut)
    })
}

/// The cut that should take the least time. A tile that divides the results wastes nothing; large
/// ones cost least traffic, and two blocks of a cluster share theirs; taking turns hides the
/// epilogue, which decides where k is short; and a split more fills the last wave, for writing and
/// reading the results once more.
fn choose(p: &Product, processors: usize) -> Cut {
    let most = if p.epilogue == Epilogue::Sum { most_splits(p.k) } else { 1 };
    let all = forms(p.m);
    let all = all.flat_map(|(tile, cluster)| (1..=most).map(move |splits| (tile, cluster, splits)));
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
enum Major {
    K,
    Outer,
}

/// How many rows of results a warp hands out at a time.
const PIECE_ROWS: usize = 16;

impl Gpu {
    /// How these kernels cut a product of such matrices; none if it is not theirs.
    pub(super) fn hopper_cut(&self, op: Op, p: &Product, matrices: &[Matrix]) -> Option<Cut> {
        let takes =
            self.has_hopper() && p.m > 0 && p.n > 0 && matrices.iter().all(Matrix::is_aligned);
        let processors = self.driver().properties().processors as usize;
        match self.cut_of(&Key { op, m: p.m, n: p.n, k: p.k }) {
            _ if !takes => None,
            Some(ProductCut::Portable { .. }) => None,
            Some(ProductCut::Hopper { tile, cluster, splits, blocks }) => {
                let splits = if p.epilogue == Epilogue::Sum { splits } else { 1 };
                Some(Cut::new(tile, cluster, splits, p, blocks))
            }
            None if matches!(self.gemm(), Gemm::Portable | Gemm::Cublaslt) => None,
            None => Some(choose(p, processors)),
        }
    }

    /// A matrix in boxes of [rows, columns], swizzled by 128 bytes.
    pub(super) fn matrix_map(&self, x: Matrix, rows: usize, columns: usize) -> TensorMap {
        self.tensor_map(&TileShape {
            base: x.at,
            element_bytes: 2,
            dims: &[x.columns as u64, x.rows as u64],
            strides: &[x.stride as u64 * 2],
            tile: &[columns as u32, rows as u32],
            swizzle: 128,
        })
    }

    /// Maps of a and b, whose panels are [M, 64 k] and, half by half, [N, 64 k].
    fn operand_maps(&self, cut: Cut, a: (Matrix, Major), b: (Matrix, Major)) -> [Arg; 2] {
        let tile = &TILES[cut.tile];
        let a = match a.1 {
            Major::K => self.matrix_map(a.0, tile.m, STEP),
            Major::Outer => self.matrix_map(a.0, STEP, 64),
        };
        let b = match b.1 {
            Major::K => self.matrix_map(b.0, tile.n / 2, STEP),
            Major::Outer => self.matrix_map(b.0, STEP / 2, 64),
        };
        [a.into(), b.into()]
    }

    fn results_map(&self, c: Matrix) -> Arg {
        self.matrix_map(c, PIECE_ROWS, 64).into()
    }

    fn launch_hopper(&self, kernels: [&'static str; 4], cut: Cut, args: &[Arg]) {
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
        let (columns, schedule) = (y.columns.into(), Arg::of(cut.schedule));
        let args = [a, b, self.results_map(y), bias.into(), columns, schedule];
        let kernels = [
            "linear_coop_128x256",
            "linear_coop_256x128",
            "linear_ping_128x192",
            "linear_ping_128x128",
        ];
        self.launch_hopper(kernels, cut, &args);
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
        let [y_map, pre] = [y, pre].map(|c| self.results_map(c));
        let (columns, activation) = (y.columns.into(), (activation as i32).into());
        let schedule = Arg::of(cut.schedule);
        let args = [a, b, y_map, pre, bias.into(), columns, activation, schedule];
        let kernels = [
            "linear_act_coop_128x256",
            "linear_act_coop_256x128",
            "linear_act_ping_128x192",
            "linear_act_ping_128x128",
        ];
        self.launch_hopper(kernels, cut, &args);
    }

    /// dx [m, n] = or += dy [m, k] W [k, n]
    pub(super) fn hopper_dx(&self, cut: Cut, dx: Matrix, dy: Matrix, w: Matrix, into: Into) {
        let [a, b] = self.operand_maps(cut, (dy, Major::K), (w, Major::Outer));
        let (add, schedule) = ((into == Into::Add).into(), Arg::of(cut.schedule));
        let args = [a, b, self.results_map(dx), add, schedule];
        let kernels = [
            "linear_dx_coop_128x256",
            "linear_dx_coop_256x128",
            "linear_dx_ping_128x192",
            "linear_dx_ping_128x128",
        ];
        self.launch_hopper(kernels, cut, &args);
    }

    /// dpre [m, n] = (dy [m, k] W [k, n]) ∘ act'(pre)
    pub(super) fn hopper_dx_act(
        &self,
        cut: Cut,
        [dpre, pre, dy, w]: [Matrix; 4],
        activation: Activation,
    ) {
        let [a, b] = self.operand_maps(cut, (dy, Major::K), (w, Major::Outer));
        let [dpre, pre] = [dpre, pre].map(|c| self.results_map(c));
        let args = [a, b, dpre, pre, (activation as i32).into(), Arg::of(cut.schedule)];
        let kernels = [
            "linear_dx_act_coop_128x256",
            "linear_dx_act_coop_256x128",
            "linear_dx_act_ping_128x192",
            "linear_dx_act_ping_128x128",
        ];
        self.launch_hopper(kernels, cut, &args);
    }

    /// dW [m, n] += dyᵀ x, db [m] += Σ dy over rows; dy [k, m], x [k, n].
    pub(super) fn hopper_dw(&self, cut: Cut, sums: Sums, dy: Matrix, x: Matrix) {
        let (m, n, part) = (sums.m, sums.n, sums.part());
        let bytes = size_of::<f32>();
        let split = cut.splits > 1;
        let partials = split.then(|| self.workspace(cut.splits * part * bytes));
        let dw = self.tensor_map(&TileShape {
            base: partials.unwrap_or(sums.dw),
            element_bytes: bytes as u32,
            dims: &[n as u64, m as u64, cut.splits as u64],
            strides: &[n * bytes, part * bytes].map(|stride| stride as u64),
            tile: &[32, PIECE_ROWS as u32, 1],
            swizzle: 128,
        });
        let db = sums.db.map(|db| partials.map_or(db, |partials| partials.offset(m * n * bytes)));
        let [a, b] = self.operand_maps(cut, (dy, Major::Outer), (x, Major::Outer));
        let (stride, add, schedule) = ((part as u64).into(), (!split).into(), cut.schedule);
        let args = [a, b, dw.into(), db.into(), stride, m.into(), add, Arg::of(schedule)];
        let kernels = [
            "linear_dw_coop_128x256",
            "linear_dw_coop_256x128",
            "linear_dw_ping_128x192",
            "linear_dw_ping_128x128",
        ];
        self.launch_hopper(kernels, cut, &args);
        if let Some(partials) = partials {
            self.sum_splits(sums, partials, cut.splits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENS: usize = 65_536;

    #[test]
    fn tiles_fit_a_block() {
        for tile in &TILES {
            assert!(tile.shared() <= 227 * 1024, "{tile:?}: {} bytes", tile.shared());
        }
    }

    #[test]
    fn short_sums_take_turns_and_weight_gradients_fill_whole_waves() {
        let forward = choose(&Product::activated(TOKENS, 3072, 768), 132);
        assert_eq!(TILES[forward.tile].form, Form::PingPong);
        assert_eq!((forward.cluster, forward.splits, forward.blocks), (2, 1, 132));
        for (n_out, n_in) in [(768, 768), (2304, 768), (3072, 768), (768, 3072), (1024, 1024)] {
            let cut = choose(&Product::summed(n_out, n_in, TOKENS), 132);
            let Schedule { rows, columns, splits, .. } = cut.schedule;
            let items = (rows * columns * splits) as usize * cut.cluster;
            let waves = items.div_ceil(132);
            assert!(items as f64 > 0.93 * (waves * 132) as f64, "{cut:?} leaves many idle");
        }
    }

    #[test]
    fn shares_cover_k_and_none_is_empty() {
        for k in [1, 64, 65, 200, 4096, TOKENS] {
            for splits in 1..70 {
                let cut = Cut::new(0, 1, splits, &Product::summed(300, 300, k), 132);
                let (steps, share) = (cut.schedule.steps, cut.schedule.share);
                assert_eq!(steps as usize, k.div_ceil(STEP));
                let before = (cut.splits as i32 - 1) * share;
                assert!(before < steps && steps <= before + share, "{k} / {splits}: {cut:?}");
            }
        }
    }

    #[test]
    fn blocks_are_whole_clusters_and_none_is_idle() {
        let cut = Cut::new(0, 2, 1, &Product::stored(200, 300, 64), 132);
        assert_eq!((cut.schedule.rows, cut.schedule.columns, cut.blocks), (1, 2, 4));
        let cut = Cut::new(2, 2, 1, &Product::stored(TOKENS, 768, 768), 131);
        assert_eq!(cut.blocks, 130);
    }

    /// benches/results/products-predicted.md:
    /// `cargo test --release --lib hopper::tests::predictions -- --ignored --nocapture`
    #[test]
    #[ignore = "prints a table"]
    fn predictions() {
        println!(
            "| model | product | m × n × k | tile | stages | shared B | blocks × waves | k / \
                  | GB | TFLOP | floor µs | predicted µs | floor / predicted |"
        );
        println!("|{}", "---|".repeat(13));
        for (model, c) in [("d = 768", 768), ("d = 1024", 1024), ("d = 1600", 1600)] {
            let layers = [("qkv", c, 3 * c), ("out", c, c), ("fc", c, 4 * c), ("proj", 4 * c, c)];
            for (layer, n_in, n_out) in layers {
                let stored = (Product::stored as fn(usize, usize, usize) -> Product, "");
                let activated = (Product::activated as fn(usize, usize, usize) -> Product, ", act");
                let forward = if layer == "fc" { activated } else { stored };
                let dx = if layer == "proj" { activated } else { stored };
                for (what, p) in [
                    (format!("y{}", forward.1), forward.0(TOKENS, n_out, n_in)),
                    (format!("dx{}", dx.1), dx.0(TOKENS, n_in, n_out)),
                    ("dW, db".into(), Product::summed(n_out, n_in, TOKENS)),
                ] {
                    println!("| {model} | {layer} {what} {}", row(&p));
                }
            }
        }
    }

    fn row(p: &Product) -> String {
        let cut = choose(p, 132);
        let tile = &TILES[cut.tile];
        let form = if tile.form == Form::PingPong { "ping" } else { "coop" };
        let Schedule { rows, columns, splits, .. } = cut.schedule;
        let items = (rows * columns * splits) as f64 * cut.cluster as f64;
        let (m, n, k) = (p.m as f64, p.n as f64, p.k as f64);
        let results = match p.epilogue {
            Epilogue::Store => 2.0,
            Epilogue::Activation => 4.0,
            Epilogue::Sum => 8.0,
        };
        let (bytes, flops) = (2.0 * (m + n) * k + results * m * n, 2.0 * m * n * k);
        let floor = (flops / 790e12).max(bytes / chip::MEMORY);
        let time = seconds(&cut, p);
        let tile_words = format!("{form} {} × {}", tile.m, tile.n);
        let blocks = format!("{} × {:.2}", cut.blocks, items / cut.blocks as f64);
        let work = format!("{:.2} | {:.3}", bytes / 1e9, flops / 1e12);
        let times = format!("{:.0} | {:.0} | {:.2}", floor * 1e6, time * 1e6, floor / time);
        format!(
            "| {} × {} × {} | {tile_words} | {} | {} | {blocks} | {} | {work} | {times} |",
            p.m,
            p.n,
            p.k,
            tile.stages,
            tile.shared(),
            cut.splits
        )
    }
}
