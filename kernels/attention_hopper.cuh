// What attention_hopper.cu and attention_hopper_backward.cu share, for sm_90a: in which order a
// block comes to its work, tiles in shared memory as TMA and wgmma see them, the mask.
//
// A block is a producer's warpgroup, of which one warp works, and two or three of consumers. It
// stays: item after item it takes from a counter, so that no block idles while another has work
// left, whatever the sequences' lengths.
#pragma once
#include <ptx/registers.cuh>
#include <ptx/tma.cuh>
#include <ptx/wgmma.cuh>

#include "attention.cuh"
#include "hopper.cuh"

namespace attention {

using hopper::Cursor;
using hopper::release;
using hopper::ROW_BYTES;

// ------------------------------------------------------------------ items

// A tile of one head of a sequence: rows `start` and on of the `length` that begin at row `first`
// of the batch. `sequence` is its number. length 0: there is no more.
struct Item {
    int first, length, start, head, sequence;
};

// What the host says of a batch (src/ops/attention/hopper.rs).
struct Batch {
    const int* cu_seqlens;  // [S + 1]
    const int* order;       // [S]: sequences, longest first
    int sequences, heads;
    int section;            // sequences whose tiles are taken by turns, 32 at most
    int items;              // tiles of all heads
    int* counter;           // of items taken; 0 between launches
};

// The order of items. Sequences come in sections, longest first; in a section first every
// sequence's tile 0, of each head, then every tile 1, and so on: items of one level take the same
// time, the last ones are short, and what one head of a sequence reads is in the L2 while its tiles
// are at work. A warp walks: each lane holds one sequence of the section.
template <int ROWS>
class Walk {
    const Batch& batch;
    int section = 0;  // its first sequence in the order
    int items = 0;    // before the present level
    int level = 0;
    int sequence = 0, first = 0, length = 0, tiles = 0;  // of the lane

    __device__ __forceinline__ void open() {
        const int lane = threadIdx.x % 32, at = section + lane;
        tiles = level = 0;
        if (lane >= batch.section || at >= batch.sequences) return;
        sequence = batch.order[at];
        first = batch.cu_seqlens[sequence];
        length = batch.cu_seqlens[sequence + 1] - first;
        tiles = ceil_div(length, ROWS);
    }

public:
    __device__ __forceinline__ explicit Walk(const Batch& batch) : batch(batch) { open(); }

    // Item number `item`, which does not decrease from call to call. `late_first` numbers the tiles
    // of a sequence from its end.
    __device__ __forceinline__ Item find(int item, bool late_first) {
        int sequences;
        for (;;) {
            sequences = __popc(__ballot_sync(ALL_LANES, tiles > level));
            if (item < items + sequences * batch.heads) break;
            items += sequences * batch.heads;
            level++;
            if (sequences == 0) {
                section += batch.section;
                open();
            }
        }
        const int in_level = item - items, lane = in_level / batch.heads;
        const int tile = late_first ? tiles - 1 - level : level;
        return {__shfl_sync(ALL_LANES, first, lane), __shfl_sync(ALL_LANES, length, lane),
                __shfl_sync(ALL_LANES, tile, lane) * ROWS, in_level % batch.heads,
                __shfl_sync(ALL_LANES, sequence, lane)};
    }
};

// Calls each(item) for every item of this block, by all lanes of a warp, and once more without one.
template <int ROWS, class Each>
__device__ __forceinline__ void for_each_item(const Batch& batch, bool late_first, Each each) {
    Walk<ROWS> walk(batch);
    const bool draws = threadIdx.x % 32 == 0;
    int drawn = draws ? atomicAdd(batch.counter, 1) : 0;
    for (;;) {
        const int item = __shfl_sync(ALL_LANES, drawn, 0);
        if (item >= batch.items) break;
        // The next number comes while this item is seen to.
        if (draws) drawn = atomicAdd(batch.counter, 1);
        each(walk.find(item, late_first));
    }
    // Every block draws one number too many. Who draws the last one clears up.
    if (draws && drawn == batch.items + int(gridDim.x) - 1) *batch.counter = 0;
    each(Item{});
}

// ------------------------------------------------------------------ tiles in shared memory

// A tile [ROWS, D] of bf16 as TMA writes it: D / 64 panels [ROWS, 64], whose rows of 128 bytes are
// swizzled. It begins on a multiple of 1,024 bytes.
template <int ROWS, int D>
struct Panels {
    static constexpr int PANEL_BYTES = ROWS * ROW_BYTES, COUNT = D / 64;
    static constexpr int BYTES = COUNT * PANEL_BYTES;

    // As an operand whose k are the columns: rows from `row`, a multiple of 8, columns from 16 kk.
    __device__ __forceinline__ static uint64_t by_columns(uint32_t smem, int row, int kk) {
        return ptx::matrix_descriptor(
            smem + kk / 4 * PANEL_BYTES + row * ROW_BYTES + kk % 4 * 32, 16, 8 * ROW_BYTES,
            ptx::Swizzle::B128);
    }
    // As an operand whose k are the rows: rows from 16 kk, columns from 64 panel.
    __device__ __forceinline__ static uint64_t by_rows(uint32_t smem, int kk, int panel = 0) {
        return ptx::matrix_descriptor(smem + panel * PANEL_BYTES + kk * 16 * ROW_BYTES,
                                      PANEL_BYTES, 8 * ROW_BYTES, ptx::Swizzle::B128);
    }

    // Starts to fetch it: row `row` and on, column `column` and on.
    __device__ __forceinline__ static void fetch(unsigned char* smem, const CUtensorMap* map,
                                                 uint64_t* full, int column, int row) {
#pragma unroll
        for (int panel = 0; panel < COUNT; panel++)
            ptx::tma_load_2d(smem + panel * PANEL_BYTES, map, full, column + panel * 64, row);
    }

    // A warp's 16 rows from `row` become acc · factor, where `row_factor[h]` is of rows 8 h and on.
    __device__ __forceinline__ static void write(unsigned char* smem, int row,
                                                 const float (&acc)[D / 2],
                                                 const float (&factor)[2]) {
#pragma unroll
        for (int strip = 0; strip < D / 16; strip++) {
            float values[8];
#pragma unroll
            for (int i = 0; i < 8; i++) values[i] = acc[strip * 8 + i] * factor[i / 2 % 2];
            hopper::write_strip(rows(smem, row, strip), strip % 4, values);
        }
    }

    // The same of an operand's registers.
    __device__ __forceinline__ static void put(unsigned char* smem, int row,
                                               const uint32_t (&a)[D / 4]) {
#pragma unroll
        for (int strip = 0; strip < D / 16; strip++) {
            const uint32_t packed[4] = {a[strip * 4], a[strip * 4 + 1], a[strip * 4 + 2],
                                        a[strip * 4 + 3]};
            ptx::stmatrix_x4(hopper::strip_address(rows(smem, row, strip), strip % 4), packed);
        }
    }

    // Stores the first `rows` of a warp's 16 rows from `row`, 16 bytes a lane, `stride` elements
    // apart.
    __device__ __forceinline__ static void store(bf16* gmem, size_t stride, int rows,
                                                 const unsigned char* smem, int row) {
        constexpr int CHUNKS = D / 8;
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < 16 * CHUNKS; i += 32) {
            const int r = (lane + i) / CHUNKS, chunk = (lane + i) % CHUNKS;
            const unsigned char* from = smem + chunk / 8 * PANEL_BYTES + (row + r) * ROW_BYTES +
                                        (chunk % 8 ^ r % 8) * 16;
            if (r < rows)
                *reinterpret_cast<uint4*>(gmem + r * stride + chunk * 8) =
                    *reinterpret_cast<const uint4*>(from);
        }
    }

private:
    __device__ __forceinline__ static unsigned char* rows(unsigned char* smem, int row, int strip) {
        return smem + strip / 4 * PANEL_BYTES + row * ROW_BYTES;
    }
};

// ------------------------------------------------------------------ a warpgroup's scores
//
// [64, 2 R] in accumulators: s[4 n + 2 h + e] is row 16 w + 8 h + g and column 8 n + 2 t + e of
// warp w, with g = lane / 4 and t = lane % 4.

// s = -inf outside the band and from row and column `length` on; `row` is the warp's first.
template <int R>
__device__ __forceinline__ void mask(float (&s)[R], int row, int column, Band band, int length) {
    const int lane = threadIdx.x % 32;
    column += lane % 4 * 2;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int i = row + lane / 4 + 8 * h;
        const int low = i - band.behind - column;
        const int high = i < length ? min(i + band.ahead, length - 1) - column : -1;
#pragma unroll
        for (int n = 0; n < R / 4; n++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                if (n * 8 + e < low || n * 8 + e > high) s[4 * n + 2 * h + e] = -INFINITY;
    }
}

// The same values rounded to bf16, as the left operand of products over the columns.
template <int R>
__device__ __forceinline__ void to_operand(uint32_t (&a)[R / 2], const float (&s)[R]) {
#pragma unroll
    for (int i = 0; i < R / 2; i++) a[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
}

// d [64, N] = or += a b over K: a in registers, k the rows of b [K, N].
template <int N, int K, class Tile>
__device__ __forceinline__ void multiply(float (&d)[N / 2], const uint32_t (&a)[K / 4],
                                         uint32_t b_smem, bool add) {
#pragma unroll
    for (int kk = 0; kk < K / 16; kk++) {
        const uint32_t fragment[4] = {a[4 * kk], a[4 * kk + 1], a[4 * kk + 2], a[4 * kk + 3]};
        ptx::wgmma_m64k16_rs<N, 1>(d, fragment, Tile::by_rows(b_smem, kk), add || kk > 0);
    }
}

// d [64, N] = a bᵀ over D columns: rows of a from `row`, all of b.
template <int N, int D, class A, class B>
__device__ __forceinline__ void multiply_transposed(float (&d)[N / 2], uint32_t a_smem, int row,
                                                    uint32_t b_smem) {
#pragma unroll
    for (int kk = 0; kk < D / 16; kk++)
        ptx::wgmma_m64k16<N>(d, A::by_columns(a_smem, row, kk), B::by_columns(b_smem, 0, kk),
                             kk > 0);
}

}  // namespace attention
