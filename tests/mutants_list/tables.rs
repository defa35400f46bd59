//! Of what looks up rows: embeddings, gathered rows.

use super::{Mutant, check, fifo};

#[rustfmt::skip]
pub const EMBED: &[Mutant] = &[
    fifo("embed", "embed.cu", "digits counted before all are zero",
        "digits[threadIdx.x] = 0;\n    __syncthreads();", "digits[threadIdx.x] = 0;"),
    fifo("embed", "embed.cu", "digits stored before all are counted",
        "    __syncthreads();\n    counts[size_t(blockIdx.x)", "    counts[size_t(blockIdx.x)"),
    fifo("embed", "embed.cu", "sort drops the last entry",
        "i < min(tile + SORT_TILE, count)", "i < min(tile + SORT_TILE, count - 1)"),
    fifo("embed", "embed.cu", "ranks grow while they are read",
        "        __syncwarp();  // all have read\n", ""),
    check("embed", "embed.cu", "ranks read before they have grown",
        "mine[digit] += __popc(peers);\n        __syncwarp();", "mine[digit] += __popc(peers);"),
    fifo("embed", "embed.cu", "only the lanes that count meet",
        "if (exists && before == 0) mine[digit] += __popc(peers);\n        __syncwarp();",
        "if (exists && before == 0) {\n            mine[digit] += __popc(peers);\n            \
         __syncwarp();\n        }"),
    check("embed", "embed.cu", "ranks are not zero yet",
        "mine[d] = 0;\n    __syncwarp();", "mine[d] = 0;"),
    fifo("embed", "embed.cu", "places read before they are all there",
        "        place += found;\n    }\n    __syncthreads();", "        place += found;\n    }"),
    fifo("embed", "embed.cu", "warps' sums read before they are all there",
        "warps[warp] = inclusive;\n    __syncthreads();", "warps[warp] = inclusive;"),
    fifo("embed", "embed.cu", "sort is not stable",
        "peers & ((1u << lane) - 1)", "peers & ~((2u << lane) - 1)"),
    fifo("embed", "embed.cu", "blocks before count themselves",
        "block < blockIdx.x ? count", "block <= blockIdx.x ? count"),
    fifo("embed", "embed.cu", "two warps add to a row that their chunks share",
        "if (first && row == row_before)", "if (first && row == row_before && at.chunk % 2)"),
    fifo("embed", "embed.cu", "a run's last chunk left out",
        "ends != 0 ? __ffs(ends) : 32", "ends != 0 ? __ffs(ends) - 1 : 32"),
    check("embed", "embed.cu", "a type that is none is stored",
        "if (type + k >= types || !exists) break;", "if (!exists) break;"),
];

#[rustfmt::skip]
pub const GATHER: &[Mutant] = &[
    fifo("gather", "gather.cu", "last vector of each block left out",
        "exists = i < size_t(count) * width;", "exists = i + 8 < size_t(count) * width;"),
    fifo("gather", "gather.cu", "blocks overlap",
        "size_t i = (size_t(blockIdx.x) * THREADS + threadIdx.x) * 8;",
        "size_t i = (size_t(blockIdx.x) * (THREADS - 1) + threadIdx.x) * 8;"),
    fifo("gather", "gather.cu", "a row that is none is the first",
        "at.picked ? Vec8::load(x + at.spread) : Vec8{make_uint4(0, 0, 0, 0)};",
        "Vec8::load(x + at.spread);"),
    fifo("gather", "gather.cu", "what belongs nowhere is added to the first row",
        "if (!at.picked) return;", "if (!at.exists) return;"),
];
