//! Launches the loss: products of `kernels/product.cu` around the kernels of `kernels/loss.cu`, a
//! chunk of rows at a time.

use half::bf16;

use super::{LossGrads, LossInput, LossOps};
use crate::device::Buffer;
use crate::device::gpu::driver::Address;
use crate::device::gpu::launch::{Arg, Shape};
use crate::device::gpu::limits::multiple;
use crate::device::gpu::tuned::Op;
use crate::device::gpu::{Gpu, Tensor};
use crate::ops::Into;
use crate::ops::linear::{Linear, Rows};

/// What the kernels take, or in words what they do not. Any vocabulary is taken.
pub fn supports(at: &Linear) -> Result<(), String> {
    multiple("the width that the decoder reads", at.n_in, 8, usize::MAX)
}

/// How logits of `rows` rows lie in their scratch: elements from row to row, and rows at a time,
/// all chunks alike. Rows are padded to 16 bytes. Few logits are not: a pair classifier's two would
/// grow fourfold, and are quick in the naive kernels, which take any stride.
fn layout(scratch: usize, v: usize, rows: usize) -> (usize, usize) {
    const FEW: usize = 64;
    let padded = v.next_multiple_of(8);
    let stride = if v < FEW || scratch < padded { v } else { padded };
    let most = scratch / stride;
    assert!(most > 0, "head_loss: scratch holds not one row of {v} logits");
    (stride, rows.div_ceil(rows.div_ceil(most).max(1)).max(1))
}

/// Logits of some rows, and what they are held to.
struct Chunk<'a> {
    logits: Rows,
    targets: Address,
    rows: usize,
    v: usize,
    /// Where the number of labelled rows lies, when training.
    labelled: Option<Address>,
    sums: &'a mut Tensor<f32>,
}

impl Gpu {
    /// sums += (Σ nll, correct, labelled); when training, logits become their gradient.
    fn cross_entropy(&self, chunk: Chunk) {
        /// Of the kernels' own and the system's shared memory a block [bytes].
        const RESERVED: usize = 2048;
        let Chunk { logits, targets, rows, v, labelled, sums } = chunk;
        // (nll, hit) of each row.
        let results = self.workspace(rows * 2 * size_of::<f32>());
        let [rows_arg, v_arg, stride] = [rows, v, logits.stride].map(Arg::from);
        let args = [
            results.into(),
            logits.at.into(),
            targets.into(),
            rows_arg,
            v_arg,
            stride,
            labelled.into(),
        ];
        let naive = self.naive() || !logits.is_aligned();
        // Two rows at a time, or no copy would run beside the arithmetic.
        let shared = self.driver().properties().shared_per_block as usize;
        let row_bytes = v.next_multiple_of(8) * size_of::<bf16>();
        if naive {
            self.launch("cross_entropy_naive", Shape::each(rows, 256), &args);
        } else if 2 * (row_bytes + RESERVED) <= shared {
            self.launch("cross_entropy_staged", Shape::new(rows, 512).shared(row_bytes), &args);
        } else {
            self.launch("cross_entropy_reread", Shape::new(rows, 512), &args);
        }
        let args = [sums.into(), results.into(), targets.into(), rows_arg];
        if naive {
            self.launch("loss_sum_naive", Shape::new(1, 1), &args);
        } else {
            self.launch("loss_sum", Shape::new(1, 1024), &args);
        }
    }
}

impl LossOps for Gpu {
    fn head_loss(
        &self,
        sums: &mut Tensor<f32>,
        mut train: Option<LossGrads<Self>>,
        logits: &mut Tensor<bf16>,
        input: LossInput<Self>,
        params: &Tensor<bf16>,
        at: &Linear,
    ) {
        let (c, v) = (at.n_in, at.n_out);
        assert!(input.rows * c <= input.x.len() && input.rows <= input.targets.len());
        let (stride, chunk) = layout(logits.len(), v, input.rows);
        let logits = Rows { at: logits.at(0), stride };
        let labelled = train.as_ref().map(|t| t.labelled.at(0));
        for first in (0..input.rows).step_by(chunk) {
            let rows = chunk.min(input.rows - first);
            let x = input.x.at(first * c);
            self.linear_rows(Op::Linear, logits, x, params, at, rows);
            let targets = input.targets.at(first);
            let sums = &mut *sums;
            self.cross_entropy(Chunk { logits, targets, rows, v, labelled, sums });
            if let Some(train) = &mut train {
                let dx = train.dx.at(first * c);
                self.linear_dx_rows(dx, logits, params, at, rows, Into::Set);
                self.linear_dw_rows(train.grads, logits, x, at, rows);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::layout;

    #[test]
    fn rows_of_logits_are_padded_where_there_is_room() {
        assert_eq!(layout(50_304 * 8, 50_304, 8), (50_304, 8));
        assert_eq!(layout(50_257 * 8, 50_257, 8), (50_264, 4));
        assert_eq!(layout(50_257 * 8, 50_257, 20), (50_264, 7));
        assert_eq!(layout(50_257, 50_257, 3), (50_257, 1));
        assert_eq!(layout(2 * 9, 2, 9), (2, 9));
        assert_eq!(layout(2 * 9, 2, 0), (2, 1));
    }
}
