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

// ------------------------------------------------------------------ rotary positions

// As rope.cu says, for heads of D columns: column i < D / 2 and column i + D / 2 are turned by the
// angle of their row's position.
struct Rotation {
    const float* table;    // [context, D]: D / 2 cosines, then the sines; null: nothing is turned
    const int* positions;  // [N]

    // Where the angles of the lane's rows of 16 are in the table, the first being `row` of N, of
    // which those before `end` have a position.
    struct Places {
        int offset[2];
    };
    template <int D>
    __device__ __forceinline__ Places places(int row, int end) const {
        Places places;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int at = row + 8 * h + threadIdx.x % 32 / 4;
            places.offset[h] = at < end ? positions[at] * D : 0;
        }
        return places;
    }
};

// Of a strip of the first half of heads of D columns, in the order of write_strip's values.
template <int D>
struct Angles {
    float cos[8], sin[8];

    __device__ __forceinline__ Angles(const Rotation& rotation, const Rotation::Places& places,
                                      int strip) {
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int column = strip * 16 + 8 * j + threadIdx.x % 4 * 2;
                const float* from = rotation.table + places.offset[h] + column;
                const float2 c = *reinterpret_cast<const float2*>(from);
                const float2 s = *reinterpret_cast<const float2*>(from + D / 2);
                const int i = 4 * j + 2 * h;
                cos[i] = c.x, cos[i + 1] = c.y;
                sin[i] = s.x, sin[i + 1] = s.y;
            }
    }

    // Turns the pair at value i; with its two exchanged, back.
    __device__ __forceinline__ void turn(int i, float& low, float& high) const {
        const float a = low, b = high;
        low = a * cos[i] - b * sin[i];
        high = b * cos[i] + a * sin[i];
    }
};

}  // namespace hopper
