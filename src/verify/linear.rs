//! Checks of the products: three layouts, every epilogue, every tile, splits of the inner sum.

use super::draw::{Angles, poisoned_x};
use super::{Check, Draw, Kind, Output, Sizes, Verifier, named, with_products};
use crate::device::Buffer;
use crate::device::cpu::{Cpu, Element};
use crate::device::gpu::{Gemm, Gpu, HOPPER_TILES, ProductCut};
use crate::ops::activation::Activation;
use crate::ops::linear::{Linear, LinearOps};
use crate::ops::{Into, Span};

const ACTIVATIONS: [Activation; 4] =
    [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Tanh];

/// A layer whose weights do not begin its arena, and how long the arena is.
pub fn layer(n_in: usize, n_out: usize, bias: bool) -> (Linear, usize) {
    let weight = Span { start: 64, len: n_in * n_out };
    let after = (64 + weight.len).next_multiple_of(64);
    let bias = bias.then_some(Span { start: after, len: n_out });
    (Linear { weight, bias, n_in, n_out }, after + n_out)
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    Forward,
    Act(Activation),
    Dx(Into),
    DxAct(Activation),
    /// A gate with as many pairs as there are outputs, or inputs.
    Gate(Activation),
    DxGate(Activation),
    /// q and k in heads of this width.
    Rope(usize),
    Dw,
    /// Its shares of k in any order.
    DwAsTheyCome,
}

#[derive(Clone, Copy)]
struct Product {
    rows: usize,
    n_in: usize,
    n_out: usize,
    bias: bool,
    what: What,
    gemm: Gemm,
    /// None: as the host chooses.
    cut: Option<ProductCut>,
}

impl<E: Element> Check<Cpu<E>> for Product {
    fn run(&self, dev: &Cpu<E>, draw: &mut Draw) -> Vec<Output> {
        self.run_on(dev, draw)
    }
}

impl Check<Gpu> for Product {
    fn run(&self, dev: &Gpu, draw: &mut Draw) -> Vec<Output> {
        with_products(dev, self.gemm, self.cut, || {
            dev.deterministic(self.what != What::DwAsTheyCome);
            self.run_on(dev, draw)
        })
    }
}

impl Product {
    fn run_on<D: LinearOps>(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let &Product { rows, n_in, n_out, bias, what, .. } = self;
        let (at, arena) = match what {
            What::Gate(_) => layer(n_in, 2 * n_out, bias),
            _ => layer(n_in, n_out, bias),
        };
        let stored = |tensor, y: &D::X, terms| {
            vec![Output { tensor, values: y.to_vec(), kind: Kind::Stored(terms) }]
        };
        // Results of about one, where activations bend.
        let x = draw.x(dev, rows * n_in, 1.0);
        let dy = draw.x(dev, rows * n_out, 1.0);
        let forward = !matches!(
            what,
            What::Dx(_) | What::DxAct(_) | What::DxGate(_) | What::Dw | What::DwAsTheyCome
        );
        let terms = if forward { n_in } else { n_out };
        let params = draw.x(dev, arena, 1.0 / (terms as f64).sqrt());
        let mut y = poisoned_x(dev, rows * n_out);
        let mut dx = match what {
            What::Dx(Into::Add) => draw.x(dev, rows * n_in, 1.0),
            _ => poisoned_x(dev, rows * n_in),
        };
        match what {
            What::Forward => {
                dev.linear(&mut y, &x, &params, &at, rows);
                stored("y", &y, n_in)
            }
            What::Act(activation) => {
                let mut pre = poisoned_x(dev, rows * n_out);
                dev.linear_act(&mut y, &mut pre, &x, &params, &at, activation, rows);
                [stored("y", &y, n_in), stored("pre", &pre, n_in)].into_iter().flatten().collect()
            }
            What::Gate(activation) => {
                let mut pre = poisoned_x(dev, 2 * rows * n_out);
                dev.linear_gate(&mut y, &mut pre, &x, &params, &at, activation, rows);
                [stored("y", &y, n_in), stored("pre", &pre, n_in)].into_iter().flatten().collect()
            }
            What::Rope(head_dim) => {
                let angles = Angles::new(dev, &positions(rows), CONTEXT, head_dim);
                dev.linear_rope(&mut y, &x, &params, &at, angles.rotation(), rows);
                stored("qkv", &y, n_in)
            }
            What::DxGate(activation) => {
                // Values that reach past where the activations saturate.
                let pre = draw.x(dev, 2 * rows * n_in, 3.0);
                let mut dpre = poisoned_x(dev, 2 * rows * n_in);
                dev.linear_dx_gate(&mut dpre, &dy, &pre, &params, &at, activation, rows);
                stored("dpre", &dpre, n_out)
            }
            What::Dx(into) => {
                dev.linear_dx(&mut dx, &dy, &params, &at, rows, into);
                stored("dx", &dx, n_out)
            }
            What::DxAct(activation) => {
                dev.linear_dx_act(&mut dx, &dy, &x, &params, &at, activation, rows);
                stored("dpre", &dx, n_out)
            }
            What::Dw | What::DwAsTheyCome => {
                let mut grads = draw.acc(dev, arena, 1.0);
                dev.linear_dw(&mut grads, &dy, &x, &at, rows);
                let kind = match what {
                    What::Dw => Kind::Summed(rows),
                    _ => Kind::SummedAsTheyCome(rows),
                };
                vec![Output { tensor: "dW, db", values: grads.to_vec(), kind }]
            }
        }
    }
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Forward => "linear",
            What::Act(Activation::Gelu) => "linear_act gelu",
            What::Act(Activation::GeluTanh) => "linear_act gelu_tanh",
            What::Act(Activation::Silu) => "linear_act silu",
            What::Act(Activation::Tanh) => "linear_act tanh",
            What::Dx(Into::Set) => "linear_dx =",
            What::Dx(Into::Add) => "linear_dx +=",
            What::DxAct(Activation::Gelu) => "linear_dx_act gelu",
            What::DxAct(Activation::GeluTanh) => "linear_dx_act gelu_tanh",
            What::DxAct(Activation::Silu) => "linear_dx_act silu",
            What::DxAct(Activation::Tanh) => "linear_dx_act tanh",
            What::Gate(Activation::Gelu) => "linear_gate gelu",
            What::Gate(Activation::GeluTanh) => "linear_gate gelu_tanh",
            What::Gate(Activation::Silu) => "linear_gate silu",
            What::Gate(Activation::Tanh) => "linear_gate tanh",
            What::DxGate(Activation::Gelu) => "linear_dx_gate gelu",
            What::DxGate(Activation::GeluTanh) => "linear_dx_gate gelu_tanh",
            What::DxGate(Activation::Silu) => "linear_dx_gate silu",
            What::DxGate(Activation::Tanh) => "linear_dx_gate tanh",
            What::Rope(64) => "linear_rope",
            What::Rope(_) => "linear_rope, other heads",
            What::Dw => "linear_dw",
            What::DwAsTheyCome => "linear_dw, any order",
        }
    }
}

/// The lengths of sequences, over and over, and positions that there are.
const LENGTHS: [i32; 4] = [5, 1, 83, 40];
const CONTEXT: usize = 83;

/// Of so many rows, in their sequences.
fn positions(rows: usize) -> Vec<i32> {
    LENGTHS.into_iter().cycle().flat_map(|length| 0..length).take(rows).collect()
}

/// One of each epilogue that takes any width: what one shape is checked with.
const EACH: [What; 8] = [
    What::Forward,
    What::Act(Activation::GeluTanh),
    What::Dx(Into::Set),
    What::Dx(Into::Add),
    What::DxAct(Activation::Gelu),
    What::Gate(Activation::Gelu),
    What::DxGate(Activation::Silu),
    What::Dw,
];

struct ActBackward(usize, Activation);

impl<D: LinearOps> Check<D> for ActBackward {
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let &ActBackward(len, activation) = self;
        let (dy, pre) = (draw.x(dev, len, 1.0), draw.x(dev, len, 1.5));
        let mut dpre = poisoned_x(dev, len);
        dev.act_backward(&mut dpre, &dy, &pre, activation, len);
        vec![Output { tensor: "dpre", values: dpre.to_vec(), kind: Kind::Stored(1) }]
    }
}

/// Rows, inputs, outputs of products that are small, and meet every tail.
const SMALL: [[usize; 3]; 3] = [[1, 8, 8], [67, 72, 40], [130, 136, 200]];

/// The same for every tile and splits of k.
const TILED: [usize; 3] = [200, 136, 264];

/// For the kernels of sm_90a, whose blocks stay: three rows of tiles and a few columns on two
/// blocks, with tails of all three extents, and more steps of k than stages.
const STAYING: [usize; 3] = [331, 328, 264];

/// The same of rotated heads of 64: tiles that begin in k and end in v.
const ROTATED: [usize; 3] = [331, 328, 3 * 3 * 64];

/// What one check multiplies: rows, inputs, outputs, and whether there is a bias.
type Shape = ([usize; 3], bool);

fn check(v: &mut Verifier, (shape, bias): Shape, what: What, gemm: Gemm, cut: Option<ProductCut>) {
    if !v.gemms().contains(&gemm) {
        return;
    }
    let [rows, n_in, n_out] = shape;
    let no_bias = if bias { "" } else { ", no bias" };
    let cut_so = cut.map_or(named(gemm).into(), |cut| format!(", {cut}"));
    let name = format!("{rows} × {n_in} → {n_out}{no_bias}{cut_so}");
    v.check(what.name(), name, &Product { rows, n_in, n_out, bias, what, gemm, cut });
}

/// As the host cuts it, by all kernels that were asked for.
fn check_uncut(v: &mut Verifier, shape: [usize; 3], bias: bool, what: What) {
    for &gemm in v.gemms() {
        check(v, (shape, bias), what, gemm, None);
    }
}

fn check_portable_tiles(v: &mut Verifier, shape: [usize; 3], what: What) {
    let may_split = matches!(what, What::Dx(_) | What::Dw);
    for tile in 0..3 {
        let cut = |splits| Some(ProductCut::Portable { tile, splits });
        check(v, (shape, true), what, Gemm::Portable, cut(1));
        if may_split {
            check(v, (shape, what == What::Dw), what, Gemm::Portable, cut(3));
        }
    }
}

/// All tiles, alone and in clusters; for most epilogues one of the two where time matters.
fn check_hopper_tiles(v: &mut Verifier, shape: [usize; 3], what: What, blocks: usize) {
    let both = v.sizes == Sizes::Full || matches!(what, What::Forward | What::Dw);
    let turn = EACH.iter().position(|each| *each == what).unwrap_or(0);
    let wanted = |tile: usize, cluster: usize| both || (tile + turn) % 2 + 1 == cluster;
    let plain = matches!(what, What::Forward | What::Dx(_) | What::Dw | What::DwAsTheyCome);
    let tiles = if plain { HOPPER_TILES.len() } else { HOPPER_TILES.len() - 1 };
    let all = (0..tiles).flat_map(|tile| [(tile, 1), (tile, 2)]);
    for (tile, cluster) in all.filter(|&(tile, cluster)| wanted(tile, cluster)) {
        let cut = |splits| Some(ProductCut::Hopper { tile, cluster, splits, blocks });
        if what != What::DwAsTheyCome {
            check(v, (shape, true), what, Gemm::Hopper, cut(1));
        }
        if matches!(what, What::Dx(_) | What::Dw | What::DwAsTheyCome) {
            check(v, (shape, tile % 2 == 0), what, Gemm::Hopper, cut(3));
        }
    }
}

pub fn linear(v: &mut Verifier) {
    for what in EACH {
        SMALL.into_iter().for_each(|shape| check_uncut(v, shape, true, what));
        // Outputs that are not whole vectors: rows of y begin anywhere.
        check_uncut(v, [37, 64, 101], true, what);
        check_uncut(v, [5, 64, 2], false, what);
        check_portable_tiles(v, TILED, what);
        check_hopper_tiles(v, STAYING, what, 2);
    }
    check_hopper_tiles(v, STAYING, What::DwAsTheyCome, 4);
    for (rows, n_in, heads, d) in [(1, 8, 1, 64), (67, 72, 2, 64), (37, 40, 1, 16), (70, 72, 2, 80)]
    {
        check_uncut(v, [rows, n_in, 3 * heads * d], heads > 1, What::Rope(d));
    }
    check_portable_tiles(v, ROTATED, What::Rope(64));
    check_hopper_tiles(v, ROTATED, What::Rope(64), 2);
    for activation in ACTIVATIONS {
        check_uncut(v, [33, 16, 24], true, What::Act(activation));
        check_uncut(v, [33, 16, 24], true, What::DxAct(activation));
        check_uncut(v, [33, 16, 24], true, What::Gate(activation));
        check_uncut(v, [33, 16, 24], true, What::DxGate(activation));
    }
    if v.sizes == Sizes::Full {
        let shapes = [[960, 736, 1504], [960, 1024, 2048], [960, 4096, 1504], [4096, 736, 2048]];
        for shape in shapes.into_iter().chain([[8192, 768, 3072], [8192, 3072, 768]]) {
            EACH.into_iter().for_each(|what| check_uncut(v, shape, true, what));
        }
        EACH.into_iter().for_each(|what| check_hopper_tiles(v, [4099, 744, 2040], what, 132));
        check_uncut(v, [8192, 768, 2304], false, What::Rope(64));
        check_uncut(v, [4096, 1024, 3072], true, What::Rope(128));
        check_hopper_tiles(v, [4099, 744, 1728], What::Rope(64), 132);
    }
    for activation in ACTIVATIONS {
        for len in [8, 1000, 4104] {
            let name = format!("{activation:?}, {len}");
            v.check("act_backward", name, &ActBackward(len, activation));
        }
    }
}
