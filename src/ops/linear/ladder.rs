//! The product as a ladder: y [N, n_out] = x Wᵀ, six times over, each rung with one idea more
//! (`kernels/ladder/`, and the page on products in `kernels/README.md`). For study, and measured
//! beside one another; no model runs on them.

use half::bf16;

use super::gpu::{Rows, places};
use super::hopper::Matrix;
use super::{Linear, LinearOps};
use crate::device::gpu::launch::Shape;
use crate::device::gpu::{Gemm, Gpu, Tensor};

/// A way to multiply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// A thread a result
    Naive,
    /// Tiles in shared memory
    Tiled,
    /// `mma.sync`, fed by `cp.async`
    TensorCores,
    /// One warpgroup of `wgmma`, fed by TMA
    Wgmma,
    /// A producer and two consumers
    Roles,
    /// `kernels/product_hopper.cu`: blocks that stay, clusters, results by TMA
    Final,
}

impl Rung {
    pub const ALL: [Rung; 6] =
        [Rung::Naive, Rung::Tiled, Rung::TensorCores, Rung::Wgmma, Rung::Roles, Rung::Final];

    pub fn name(self) -> &'static str {
        match self {
            Rung::Naive => "ladder naive",
            Rung::Tiled => "ladder tiled",
            Rung::TensorCores => "ladder mma",
            Rung::Wgmma => "ladder wgmma",
            Rung::Roles => "ladder roles",
            Rung::Final => "ladder final",
        }
    }

    /// Whether it is for sm_90a alone.
    pub fn needs_hopper(self) -> bool {
        matches!(self, Rung::Wgmma | Rung::Roles | Rung::Final)
    }
}

impl Gpu {
    /// The rungs that this device runs.
    pub fn rungs(&self) -> impl Iterator<Item = Rung> {
        let hopper = self.has_hopper();
        Rung::ALL.into_iter().filter(move |rung| hopper || !rung.needs_hopper())
    }

    /// y [rows, n_out] = x [rows, n_in] · Wᵀ, whatever bias `at` has; n_in and n_out
    /// are multiples of 8, for TMA.
    pub fn climb(
        &self,
        rung: Rung,
        y: &mut Tensor<bf16>,
        x: &Tensor<bf16>,
        params: &Tensor<bf16>,
        at: &Linear,
        rows: usize,
    ) {
        let (m, n, k) = (rows, at.n_out, at.n_in);
        assert!(k.is_multiple_of(8) && n.is_multiple_of(8), "ladder: {k} → {n}, not eights");
        let (to, from, (w, _)) = (Rows::of(y, m, n).at, Rows::of(x, m, k).at, places(params, at));
        let sizes = [m, n, k].map(|size| size.into());
        let [m_arg, n_arg, k_arg] = sizes;
        let plain = [to.into(), from.into(), w.into(), m_arg, n_arg, k_arg];
        let tiles = |rows: usize, columns: usize| [n.div_ceil(columns), m.div_ceil(rows), 1];
        // Panels of x and w by TMA: boxes of 64 k.
        let mapped = |rows: usize, columns: usize| {
            let x = self.matrix_map(Matrix::dense(from, m, k), rows, 64);
            let w = self.matrix_map(Matrix::dense(w, n, k), columns, 64);
            [x.into(), w.into(), to.into(), m_arg, n_arg, k_arg]
        };
        match rung {
            Rung::Naive => self.launch("ladder_naive", Shape::each(m * n, 256), &plain),
            Rung::Tiled => {
                let panels = 2 * 16 * 128 * size_of::<f32>();
                let shape = Shape::grid(tiles(128, 128), 256).shared(panels);
                self.launch("ladder_tiled", shape, &plain);
            }
            Rung::TensorCores => {
                let stages = 3 * 2 * 128 * 32 * size_of::<bf16>();
                let shape = Shape::grid(tiles(128, 128), 128).shared(stages);
                self.launch("ladder_tensor_cores", shape, &plain);
            }
            Rung::Wgmma => {
                let (stages, barriers) = (3 * 2 * 128 * 64 * size_of::<bf16>(), 3 * 8);
                let shape = Shape::grid(tiles(128, 128), 128).shared(stages + barriers);
                self.launch("ladder_wgmma", shape, &mapped(128, 128));
            }
            Rung::Roles => {
                let (stages, barriers) = (4 * (128 + 256) * 64 * size_of::<bf16>(), 2 * 4 * 8);
                let shape = Shape::grid(tiles(128, 256), 384).shared(stages + barriers);
                self.launch("ladder_roles", shape, &mapped(128, 256));
            }
            Rung::Final => {
                let before = self.gemm();
                self.use_gemm(Gemm::Hopper).expect("only rungs of the device are climbed");
                self.linear(y, x, params, &Linear { bias: None, ..*at }, rows);
                self.use_gemm(before).expect("it was chosen before");
            }
        }
    }
}
