//! Products by cuBLASLt (`--gemm cublaslt`): the library multiplies, `kernels/library.cu` does what
//! our products do on their way out. To measure ours beside, and to check them; no model runs on it
//! unless it is asked to. What the library does not take, `kernels/product.cu` does.

use half::bf16;

use super::gpu::{Rows, Sums};
use crate::device::gpu::cuda::blas::{ALIGNED, Kind, Product};
use crate::device::gpu::driver::Address;
use crate::device::gpu::launch::Shape;
use crate::device::gpu::{Gemm, Gpu};
use crate::ops::Into;
use crate::ops::activation::{Activation, launch_act_backward};

/// Rows, inputs and outputs of a layer.
pub(super) type Sizes = [usize; 3];

impl Gpu {
    /// The product of matrices at `places`, if the library is to do it. Rows of y or dy are
    /// `stride` apart.
    fn library_product(
        &self,
        kind: Kind,
        [rows, n_in, n_out]: Sizes,
        stride: usize,
        add: bool,
        places: [Address; 3],
    ) -> Option<Product> {
        let lowest = places.iter().fold(u64::from(ALIGNED), |bits, place| bits | place.0);
        let alignment = 1 << lowest.trailing_zeros();
        let product = Product { kind, rows, n_in, n_out, stride, alignment, add };
        self.library_takes(&product).then_some(product)
    }

    /// y = x Wᵀ + b; false, and nothing done, where that is not the library's.
    pub(super) fn library_linear(
        &self,
        y: Rows,
        x: Address,
        weight: Address,
        bias: Option<Address>,
        sizes: Sizes,
    ) -> bool {
        let (places, add) = ([weight, x, y.at], bias.is_some());
        let Some(product) = self.library_product(Kind::Y, sizes, y.stride, add, places) else {
            return false;
        };
        if let Some(bias) = bias {
            let [rows, _, n] = sizes;
            let args = [y.at.into(), bias.into(), rows.into(), n.into(), y.stride.into()];
            self.launch("library_bias", Shape::each(rows * n, 256), &args);
        }
        self.multiply_by_library(product, places);
        true
    }

    /// pre = x Wᵀ + b, y = act(pre)
    pub(super) fn library_linear_act(
        &self,
        [y, pre]: [Rows; 2],
        x: Address,
        weight: Address,
        bias: Option<Address>,
        sizes: Sizes,
        activation: Activation,
    ) -> bool {
        let done = self.library_linear(pre, x, weight, bias, sizes);
        if done {
            let [rows, _, n] = sizes;
            let len = (rows * n) as u64;
            let args = [y.at.into(), pre.at.into(), len.into(), (activation as i32).into()];
            self.launch("library_act", Shape::each(rows * n, 256), &args);
        }
        done
    }

    /// dx = or += dy W
    pub(super) fn library_dx(
        &self,
        dx: Address,
        dy: Rows,
        weight: Address,
        sizes: Sizes,
        into: Into,
    ) -> bool {
        let (places, add) = ([weight, dy.at, dx], into == Into::Add);
        let product = self.library_product(Kind::Dx, sizes, dy.stride, add, places);
        product.map(|product| self.multiply_by_library(product, places)).is_some()
    }

    /// dpre = (dy W) ∘ act'(pre), rounded in between.
    pub(super) fn library_dx_act(
        &self,
        [dpre, pre]: [Address; 2],
        dy: Rows,
        weight: Address,
        sizes: Sizes,
        activation: Activation,
    ) -> bool {
        let done = self.library_dx(dpre, dy, weight, sizes, Into::Set);
        if done {
            let [rows, n_in, _] = sizes;
            launch_act_backward(self, [dpre, dpre, pre], activation, rows * n_in);
        }
        done
    }

    /// pre [rows, 2F] = x Wᵀ + b, y [rows, F] = act(a) ∘ g with [a, g] = pre
    pub(super) fn library_gate(
        &self,
        [y, pre]: [Address; 2],
        x: Address,
        weight: Address,
        bias: Option<Address>,
        sizes: Sizes,
        activation: Activation,
    ) -> bool {
        let [rows, _, n] = sizes;
        let done = self.library_linear(Rows { at: pre, stride: n }, x, weight, bias, sizes);
        if done {
            let number = (activation as i32).into();
            let args = [y.into(), pre.into(), rows.into(), (n / 2).into(), number];
            self.launch("library_gate", Shape::each(rows * n / 2, 256), &args);
        }
        done
    }

    /// dpre [rows, 2F] = [d ∘ g ∘ act'(a), d ∘ act(a)], d [rows, F] = dy W, rounded in between.
    pub(super) fn library_dx_gate(
        &self,
        [dpre, pre]: [Address; 2],
        dy: Rows,
        weight: Address,
        sizes: Sizes,
        activation: Activation,
    ) -> bool {
        if self.gemm() != Gemm::Cublaslt {
            return false;
        }
        let [rows, inner, _] = sizes;
        let d = self.workspace(rows * inner * size_of::<bf16>());
        let done = self.library_dx(d, dy, weight, sizes, Into::Set);
        if done {
            let number = (activation as i32).into();
            let args = [dpre.into(), d.into(), pre.into(), rows.into(), inner.into(), number];
            self.launch("library_gate_backward", Shape::each(rows * inner, 256), &args);
        }
        done
    }

    /// dW += dyᵀ x, db += Σ dy over rows
    pub(super) fn library_dw(&self, sums: Sums, dy: Rows, x: Address, rows: usize) -> bool {
        /// Rows that a thread adds up.
        const SHARE: usize = 1024;
        let Sums { dw, db, m: n_out, n: n_in } = sums;
        let (places, sizes) = ([x, dy.at, dw], [rows, n_in, n_out]);
        let Some(product) = self.library_product(Kind::Dw, sizes, dy.stride, true, places) else {
            return false;
        };
        self.multiply_by_library(product, places);
        if db.is_some() {
            let biases = Sums { n: 0, ..sums };
            let (splits, part) = (rows.div_ceil(SHARE), biases.part());
            let partials = self.workspace(splits * part * size_of::<f32>());
            let [n, rows, stride, share, part] = [n_out, rows, dy.stride, SHARE, part];
            let args = [
                partials.into(),
                dy.at.into(),
                n.into(),
                rows.into(),
                stride.into(),
                share.into(),
                part.into(),
            ];
            self.launch("library_db", Shape::grid([n.div_ceil(256), splits, 1], 256), &args);
            self.sum_splits(biases, partials, splits);
        }
        true
    }
}
