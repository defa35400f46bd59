// What products and attention share for sm_90a: rings of stages between those who fetch and those
// who multiply, and the way of accumulators into swizzled shared memory.
#pragma once
#include <common.cuh>
#include <ptx/barrier.cuh>
#include <ptx/matrix.cuh>

namespace hopper {

constexpr int ROW_BYTES = 128;  // of all tiles in shared memory: one swizzle

// Where a role stands in a ring of stages: every role passes all steps of all its block's work in
// order.
template <int STAGES>
struct Cursor {
    int stage = 0;
    uint32_t parity = 0;  // of the round

    __device__ __forceinline__ void next() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
    __device__ __forceinline__ void skip(int steps) {
        const int to = stage + steps;
        stage = to % STAGES;
        parity ^= to / STAGES & 1;
    }
};

// By a warp that reads a stage no more.
__device__ __forceinline__ void release(uint64_t* empty) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(empty);
}

// The lane's 16-byte chunk of a strip of 16 columns in 16 rows of COLUMNS bf16, as ldmatrix and
// stmatrix take it: matrices (rows 0-7, columns 0-7), (8-15, 0-7), (0-7, 8-15), (8-15, 8-15). That
// is the accumulators' order. TMA swizzles a row within its own bytes, by its place among 128.
template <int COLUMNS = 64>
__device__ __forceinline__ uint32_t strip_address(const unsigned char* rows_smem, int strip) {
    constexpr int BYTES = COLUMNS * 2;
    const int row = threadIdx.x % 16, chunk = strip * 2 + threadIdx.x % 32 / 16;
    const int turn = row * BYTES / ROW_BYTES % (BYTES / 16);
    return ptx::shared_address(rows_smem) + row * BYTES + (chunk ^ turn) * 16;
}

// values[4 j + 2 h + e]: row 8 h + lane / 4, column 8 j + 2 (lane % 4) + e of a strip.
template <int COLUMNS = 64>
__device__ __forceinline__ void write_strip(unsigned char* rows_smem, int strip,
                                            const float (&values)[8]) {
    uint32_t packed[4];
#pragma unroll
    for (int i = 0; i < 4; i++) packed[i] = pack_bf16(values[2 * i], values[2 * i + 1]);
    ptx::stmatrix_x4(strip_address<COLUMNS>(rows_smem, strip), packed);
}

}  // namespace hopper
