//! Launches the product that makes qkv, and rotates q and k: in one kernel of
//! `kernels/product_hopper.cu` for heads of 64 columns, else the product, then `kernels/rope.cu`.

use half::bf16;

use super::Linear;
use super::gpu::{Rows, places};
use super::hopper::{Major, Matrix};
use crate::device::gpu::tuned::{Key, Op};
use crate::device::gpu::{Gpu, Tensor};
use crate::ops::rope::{Rotation, TURNED_IN_PLACE, Turn};

impl Gpu {
    /// [`linear_rope`](super::LinearOps::linear_rope)
    pub(super) fn launch_rope(
        &self,
        qkv: &mut Tensor<bf16>,
        x: &Tensor<bf16>,
        params: &Tensor<bf16>,
        at: &Linear,
        rotation: Rotation<Self>,
        rows: usize,
    ) {
        let (m, n, k) = (rows, at.n_out, at.n_in);
        let width = n / 3;
        let (y, from) = (Rows::of(qkv, m, n), Rows::of(x, m, k));
        let (weight, bias) = places(params, at);
        let seen =
            [Matrix::dense(y.at, m, n), Matrix::dense(from.at, m, k), Matrix::dense(weight, n, k)];
        let op = Op::LinearRope;
        if !self.naive()
            && rotation.head_dim == TURNED_IN_PLACE
            && let Some(cut) = self.hopper_cut(Key { op, m, n, k }, &seen)
        {
            let [y, x, w] = seen;
            let [a, b] = self.operand_maps(cut, (x, Major::K), (w, Major::K));
            let (y, angles) = (self.boxes_map(y, TURNED_IN_PLACE), Rotation::arg(Some(rotation)));
            let args = [a, b, y, bias.into(), m.into(), n.into(), angles, cut.schedule()];
            let kernels = [
                "linear_rope_coop_128x256",
                "linear_rope_coop_256x128",
                "linear_rope_ping_128x192",
                "linear_rope_ping_128x128",
            ];
            return self.launch_hopper(&kernels, cut, &args);
        }
        self.linear_rows(op, y, from.at, params, at, rows);
        self.rope(qkv, rotation, width, rows, Turn::Forward);
    }
}
