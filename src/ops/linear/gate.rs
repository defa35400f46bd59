//! Launches the products around a gate: those of `kernels/product_gate.cu`, and for sm_90a those of
//! `kernels/product_hopper.cu` and `product_hopper_backward.cu`.

use half::bf16;

use super::Linear;
use super::gpu::{Rows, places};
use super::hopper::{Major, Matrix, PIECE_ROWS};
use crate::device::gpu::driver::TileShape;
use crate::device::gpu::launch::{Arg, Shape};
use crate::device::gpu::tuned::{Key, Op};
use crate::device::gpu::{Gpu, Tensor};
use crate::ops::activation::{self, Activation};

/// Columns of each half that a warp hands out at a time.
const PIECE_COLUMNS: usize = 32;

/// What both directions are given beside their results.
pub(super) struct Given<'a> {
    /// x [N, n_in] or dy [N, n_out]
    pub from: &'a Tensor<bf16>,
    pub params: &'a Tensor<bf16>,
    pub at: &'a Linear,
    pub activation: Activation,
    pub rows: usize,
}

impl Gpu {
    /// Whether only the plain twins take pairs of `inner` and sums over k.
    fn gates_plainly(&self, inner: usize, k: usize) -> bool {
        self.naive() || !k.is_multiple_of(8) || activation::supports(inner).is_err()
    }

    /// [m, 2F] seen as [2, m, F]: a box has both halves of its columns.
    fn halves_map(&self, pre: Matrix) -> Arg {
        let inner = pre.columns / 2;
        let bytes = |elements: usize| (elements * size_of::<bf16>()) as u64;
        let map = self.tensor_map(&TileShape {
            base: pre.at,
            element_bytes: 2,
            dims: &[inner as u64, pre.rows as u64, 2],
            strides: &[bytes(pre.stride), bytes(inner)],
            tile: &[PIECE_COLUMNS as u32, PIECE_ROWS as u32, 2],
            swizzle: bytes(PIECE_COLUMNS) as u32,
        });
        map.into()
    }

    /// y [m, F] = act(a) ∘ g, [a, g] = pre [m, 2F] = x [m, k] Wᵀ + b
    pub(super) fn launch_gate(&self, y: &Tensor<bf16>, pre: &Tensor<bf16>, given: Given) {
        let Given { from, params, at, activation, rows: m } = given;
        let (n, inner, k) = (at.n_out, at.n_out / 2, at.n_in);
        let (y, pre, x) =
            (Rows::of(y, m, inner).at, Rows::of(pre, m, n).at, Rows::of(from, m, k).at);
        let (weight, bias) = places(params, at);
        let [m_arg, inner_arg, k_arg] = [m, inner, k].map(Arg::from);
        let number = Arg::from(activation as i32);
        let [y_arg, pre_arg, x_arg, w_arg] = [y, pre, x, weight].map(Arg::from);
        let b = Arg::from(bias);
        let args = [y_arg, pre_arg, x_arg, w_arg, b, m_arg, inner_arg, k_arg, number];
        if self.gates_plainly(inner, k) {
            return self.launch("linear_gate_naive", Shape::each(m * inner, 256), &args);
        }
        if self.library_gate([y, pre], x, weight, bias, [m, k, n], activation) {
            return;
        }
        let [y, pre] = [Matrix::dense(y, m, inner), Matrix::dense(pre, m, n)];
        let [x, w] = [Matrix::dense(x, m, k), Matrix::dense(weight, n, k)];
        let key = Key { op: Op::LinearGate, m, n, k };
        if let Some(cut) = self.hopper_cut(key, &[y, pre, x, w]) {
            let [a, b_map] = self.operand_maps(cut, (x, Major::K), (w, Major::K));
            let (y, pre) = (self.boxes_map(y, PIECE_COLUMNS), self.halves_map(pre));
            let args = [a, b_map, y, pre, b, inner_arg, number, cut.schedule()];
            let kernels = [
                "linear_gate_coop_128x256",
                "linear_gate_coop_256x128",
                "linear_gate_ping_128x192",
                "linear_gate_ping_128x128",
            ];
            return self.launch_hopper(&kernels, cut, &args);
        }
        let kernels = ["linear_gate_large", "linear_gate_medium", "linear_gate_small"];
        self.multiply(kernels, self.cut(key), m, n, &args);
    }

    /// dpre [m, 2F] = [d ∘ g ∘ act'(a), d ∘ act(a)], d = dy [m, k] W [k, F], [a, g] = pre [m, 2F]
    pub(super) fn launch_dx_gate(&self, dpre: &Tensor<bf16>, pre: &Tensor<bf16>, given: Given) {
        let Given { from, params, at, activation, rows: m } = given;
        let (inner, k) = (at.n_in, at.n_out);
        let [dpre, pre] = [dpre, pre].map(|pre| Rows::of(pre, m, 2 * inner).at);
        let (dy, (weight, _)) = (Rows::of(from, m, k).at, places(params, at));
        let [m_arg, inner_arg, k_arg] = [m, inner, k].map(Arg::from);
        let number = Arg::from(activation as i32);
        let [dpre_arg, dy_arg, pre_arg, w_arg] = [dpre, dy, pre, weight].map(Arg::from);
        let args = [dpre_arg, dy_arg, pre_arg, w_arg, m_arg, inner_arg, k_arg, number];
        if self.gates_plainly(inner, k) {
            return self.launch("linear_dx_gate_naive", Shape::each(m * inner, 256), &args);
        }
        let dy_rows = Rows::of(from, m, k);
        if self.library_dx_gate([dpre, pre], dy_rows, weight, [m, inner, k], activation) {
            return;
        }
        let [dpre, pre] = [dpre, pre].map(|at| Matrix::dense(at, m, 2 * inner));
        let [dy, w] = [Matrix::dense(dy, m, k), Matrix::dense(weight, k, inner)];
        let key = Key { op: Op::LinearDxGate, m, n: inner, k };
        if let Some(cut) = self.hopper_cut(key, &[dpre, pre, dy, w]) {
            let [a, b] = self.operand_maps(cut, (dy, Major::K), (w, Major::Outer));
            let [dpre, pre] = [dpre, pre].map(|matrix| self.halves_map(matrix));
            let args = [a, b, dpre, pre, number, cut.schedule()];
            let kernels = [
                "linear_dx_gate_coop_128x256",
                "linear_dx_gate_coop_256x128",
                "linear_dx_gate_ping_128x192",
                "linear_dx_gate_ping_128x128",
            ];
            return self.launch_hopper(&kernels, cut, &args);
        }
        let kernels = ["linear_dx_gate_large", "linear_dx_gate_medium", "linear_dx_gate_small"];
        self.multiply(kernels, self.cut(key), m, inner, &args);
    }
}
