// What the rungs on tensor cores share: the way out, which is the same for mma.sync and wgmma.
#pragma once
#include <common.cuh>

// A lane's part of 16 × 8 results: two neighbours of a row, and those eight rows below.
__device__ __forceinline__ void store_four(bf16* y_gmem, int m, int n, int row, int column,
                                           const float* values) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int to_row = row + i / 2 * 8, to_column = column + i % 2;
        if (to_row < m && to_column < n)
            y_gmem[size_t(to_row) * n + to_column] = __float2bfloat16_rn(values[i]);
    }
}
