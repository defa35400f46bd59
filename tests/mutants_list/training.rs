//! Of what prepares a step and of what ends it: masks, the verdict on the gradient, the update.

use super::{Mutant, fifo, lifo};

#[rustfmt::skip]
pub const REDUCE: &[Mutant] = &[
    fifo("reduce", "reduce.cu", "no barrier before the sum",
        "partial[threadIdx.x] = value;\n    __syncthreads();", "partial[threadIdx.x] = value;"),
    fifo("reduce", "reduce.cu", "no barrier within the sum",
        "partial[threadIdx.x + half];\n        __syncthreads();",
        "partial[threadIdx.x + half];"),
    fifo("reduce", "reduce.cu", "tail of the gradients left out",
        "if (tail < length) total", "if (tail + 1 < length) total"),
    fifo("reduce", "reduce.cu", "the loss is not looked at",
        "isfinite(norm) && isfinite(loss)", "isfinite(loss)"),
];

#[rustfmt::skip]
pub const MASK: &[Mutant] = &[
    fifo("mask", "mask.cu", "a warp counts itself",
        "if (w < warp) place", "if (w <= warp) place"),
    fifo("mask", "mask.cu", "no barrier before the counts are read",
        "counts[warp] = __popc(votes);\n        __syncthreads();",
        "counts[warp] = __popc(votes);"),
    lifo("mask", "mask.cu", "counts written anew while they are read",
        "        __syncthreads();  // counts are written anew\n", ""),
    fifo("mask", "mask.cu", "spans one shorter",
        "uniform(w.w) < longer[j]", "uniform(w.w) < longer[j] * 0.8f"),
    fifo("mask", "mask.cu", "words reach back over special tokens",
        "!(flags[ids[row - 1]] & SPECIAL)", "true"),
    fifo("mask", "mask.cu", "rows of the passes before are not counted",
        "if (threadIdx.x == 0) *count += found;", "if (threadIdx.x == 0) *count = found;"),
];

#[rustfmt::skip]
pub const OPTIMIZER: &[Mutant] = &[
    fifo("optimizer", "optimizer.cu", "a step that is not finite is taken",
        "size_t i = (size_t(blockIdx.x) * THREADS + threadIdx.x) * 4;\n    \
         if (i >= length || control[1] == 0.0f) return;\n    Step step",
        "size_t i = (size_t(blockIdx.x) * THREADS + threadIdx.x) * 4;\n    \
         if (i >= length) return;\n    Step step"),
    fifo("optimizer", "optimizer.cu", "a group begins one element late",
        "if (groups[low + half].start <= i)", "if (groups[low + half].start < i)"),
    fifo("optimizer", "optimizer.cu", "moments corrected for the wrong decay",
        "expm1f(t * k.log_beta2)", "expm1f(t * k.log_beta1)"),
];
