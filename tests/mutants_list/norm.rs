//! Of the norms, and of the sums over partials that they share with the embeddings.

use super::{Mutant, check, fifo, lifo};

#[rustfmt::skip]
pub const NORM: &[Mutant] = &[
    lifo("norm", "norm.cu", "a team's sums overwritten while they are read",
        "        __syncthreads();  // the sums before these have been read\n", ""),
    fifo("norm", "norm.cu", "a team's sums read before they are all there",
        "= make_float2(a, b);\n        __syncthreads();", "= make_float2(a, b);"),
    fifo("norm", "norm.cu", "columns beyond the row count in the variance",
        "        if (Team<WARPS>::column(v) >= columns) break;\n", ""),
    fifo("norm", "dropout.cuh", "dropout of the second four is the first's",
        "dropout_factors(dropout, first / 4 + half)", "dropout_factors(dropout, first / 4)"),
    fifo("norm", "norm.cu", "teams add up their sums without waiting",
        "        if constexpr (!ALONE) __syncthreads();\n    }", "    }"),
    fifo("norm", "norm.cu", "a block's turns overlap",
        "size_t stride = size_t(gridDim.x) * TEAMS;", "size_t stride = size_t(gridDim.x);"),
    fifo("norm", "norm.cu", "teams without a row leave before the barriers",
        "    int columns = row < saved.rows ? saved.width : 0;",
        "    if (row >= saved.rows) return;\n    int columns = saved.width;"),
    check("norm", "norm.cu", "statistics of rows that are none",
        "if (columns > 0 && Team", "if (Team"),
    fifo("norm", "norm.cu", "rms has a mean",
        "saved.centred ? total.x / saved.width : 0.0f", "total.x / saved.width"),
    fifo("norm", "norm.cu", "dx read where it is not yet written",
        "saved.add ? columns : 0", "columns"),
    fifo("norm", "partials.cuh", "last partial left out",
        "row < count; row += WARPS", "row + 1 < count; row += WARPS"),
    fifo("norm", "partials.cuh", "warps' sums read before they are all there",
        "    __syncthreads();\n    if (warp != 0)", "    if (warp != 0)"),
    check("embed", "partials.cuh", "columns of the next row",
        "    if (column < columns) {", "    {"),
];
