//! Launches `kernels/task.cu`.

use half::bf16;

use super::{TaskOps, Truth};
use crate::device::gpu::launch::{Arg, Shape};
use crate::device::gpu::{Gpu, Tensor};

const THREADS: u32 = 256;

impl Gpu {
    fn over_sequences(&self, kernel: &'static str, args: &[Arg], width: usize, sequences: usize) {
        let blocks = (width / 2).div_ceil(THREADS as usize);
        self.launch(kernel, Shape::grid([blocks, sequences, 1], THREADS), args);
    }
}

impl TaskOps for Gpu {
    fn mean_rows(
        &self,
        y: &mut Tensor<bf16>,
        x: &Tensor<bf16>,
        cu_seqlens: &Tensor<i32>,
        width: usize,
        sequences: usize,
    ) {
        let args = [y.into(), x.into(), cu_seqlens.into(), width.into()];
        self.over_sequences("mean_rows", &args, width, sequences);
    }

    fn mean_rows_backward(
        &self,
        dx: &mut Tensor<bf16>,
        dy: &Tensor<bf16>,
        cu_seqlens: &Tensor<i32>,
        width: usize,
        sequences: usize,
    ) {
        let args = [dx.into(), dy.into(), cu_seqlens.into(), width.into()];
        self.over_sequences("mean_rows_backward", &args, width, sequences);
    }

    fn task_loss(
        &self,
        sums: &mut Tensor<f32>,
        logits: &mut Tensor<bf16>,
        truth: Truth<Self>,
        rows: usize,
        outputs: usize,
        total: Option<&Tensor<f32>>,
    ) {
        /// (loss, right, weight), f32.
        const RESULT: usize = 12;
        let lines = if let Truth::Spans { sequences, .. } = truth { sequences } else { rows };
        let results = self.workspace(lines * RESULT);
        let [lines_arg, outputs, total] =
            [lines.into(), outputs.into(), total.map(|total| total.at(0)).into()];
        let shape = Shape::each(lines * 32, THREADS);
        let (out, z) = (results.into(), logits.into());
        match truth {
            Truth::Classes { targets, weights } => {
                let args = [out, z, targets.into(), weights.into(), lines_arg, outputs, total];
                self.launch("classes_loss", shape, &args);
            }
            Truth::Flags { targets, weights } => {
                let args = [out, z, targets.into(), weights.into(), lines_arg, outputs, total];
                self.launch("flags_loss", shape, &args);
            }
            Truth::Values { targets } => {
                let args = [out, z, targets.into(), lines_arg, outputs, total];
                self.launch("values_loss", shape, &args);
            }
            Truth::Spans { targets, cu_seqlens, .. } => {
                let args = [out, z, targets.into(), cu_seqlens.into(), lines_arg, total];
                self.launch("spans_loss", shape, &args);
            }
        }
        self.launch("task_sum", Shape::new(1, THREADS), &[sums.into(), results.into(), lines_arg]);
    }
}
