//! Of the ladder of products.

use super::{Mutant, fifo, late, lifo};

#[rustfmt::skip]
pub const LADDER: &[Mutant] = &[
    fifo("ladder", "ladder/2_tiled.cu", "panels read before all threads have brought theirs",
        "        load_panel(w_smem, w, n, k, first_column, k0);\n        __syncthreads();",
        "        load_panel(w_smem, w, n, k, first_column, k0);"),
    fifo("ladder", "ladder/2_tiled.cu", "panels overwritten while they are read",
        "        }\n        __syncthreads();\n    }", "        }\n    }"),
    fifo("ladder", "ladder/2_tiled.cu", "the second four columns beside the first",
        "c % 4 + c / 4 * 64", "c"),
    late("ladder", "ladder/3_tensor_cores.cu", "a step multiplied before its copies have come",
        "cp_async_wait<STAGES - 2>", "cp_async_wait<STAGES - 1>"),
    fifo("ladder", "ladder/3_tensor_cores.cu", "copies into the stage that is multiplied",
        "load(step + STAGES - 1);", "load(step + STAGES);"),
    fifo("ladder", "ladder/3_tensor_cores.cu", "k beyond the last not zero",
        "first + row < rows && k0 + chunk * 8 < k", "first + row < rows"),
    fifo("ladder", "ladder/4_wgmma.cu", "stage full when x's panel is there",
        "full + stage, 2 * PANEL_BYTES);", "full + stage, PANEL_BYTES);"),
    late("ladder", "ladder/4_wgmma.cu", "stage filled while it is multiplied",
        "ptx::wgmma_wait<1>();", "ptx::wgmma_wait<2>();"),
    fifo("ladder", "ladder/4_wgmma.cu", "the wrong round of a stage",
        "step / STAGES & 1);", "step & 1);"),
    fifo("ladder", "ladder/5_roles.cu", "producer waits for the wrong phase",
        "(step / STAGES & 1) ^ 1", "step / STAGES & 1"),
    lifo("ladder", "ladder/5_roles.cu", "stage free when one consumer is done",
        "empty + stage, 2);", "empty + stage, 1);"),
    fifo("ladder", "ladder/5_roles.cu", "both consumers make the upper half",
        "consumer * 64 * ROW_BYTES", "0"),
    late("ladder", "ladder/5_roles.cu", "accumulators read before the last products",
        "ptx::wgmma_wait<0>(acc);", "ptx::wgmma_wait<1>(acc);"),
];
