// The second half of a sum over many rows: blocks or warps have left a partial sum each, and they
// are added in an order fixed by their number alone, so the result repeats to the bit.
#pragma once
#include <common.cuh>

// Threads of a block that adds partials: 32 columns, and eight warps that share the partials.
constexpr int PARTIAL_THREADS = 256;
constexpr int PARTIAL_COLUMNS = 32;

// The sum over `count` rows of partials [count, columns] in column blockIdx.x · 32 + lane. Warp w
// adds rows w, w + 8, …, then warp 0 the warps' sums: only its lanes get the result.
__device__ __forceinline__ float sum_partials(const float* partials, int columns, int count) {
    constexpr int WARPS = PARTIAL_THREADS / 32;
    SHARED_ARRAY(float, sums, PARTIAL_THREADS);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int column = blockIdx.x * PARTIAL_COLUMNS + lane;
    float sum = 0.0f;
    if (column < columns) {
#pragma unroll 8
        for (int row = warp; row < count; row += WARPS)
            sum += partials[size_t(row) * columns + column];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (warp != 0) return 0.0f;
#pragma unroll
    for (int w = 1; w < WARPS; w++) sum += sums[w * 32 + lane];
    return sum;
}
