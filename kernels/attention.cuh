// What the kernels of attention share: where a tile lies, tiles in shared memory, products of a
// warp's tiles, the mask, the dropout mask.
//
// A warp's tile of scores [16 M, 8 N] lies in registers as mma.m16n8k16 leaves it: s[m][n][2h + e]
// is row 16m + 8h + g and column 8n + 2t + e, where g = lane / 4 and t = lane % 4. Two neighbouring
// n are, rounded to bf16, the left operand of the next product: nothing goes through shared memory
// between the products.
#pragma once
#include <common.cuh>
#include <ptx/copy.cuh>
#include <ptx/math.cuh>
#include <ptx/matrix.cuh>

namespace attention {

constexpr float LOG2E = 1.4426950408889634f;

// Query i sees the keys j with i - behind <= j <= i + ahead, of its own sequence. Of key j's
// queries the same holds with the two exchanged.
struct Band {
    int behind, ahead;
};

// A tile of one sequence: rows `start` and on of the `length` that begin at row `first` of the
// batch. What lies outside its sequence has no rows: start >= length.
struct Tile {
    int first, length, start;
};

// Tile number `tile` of all sequences cut into tiles of ROWS. Those of sequence s are numbered from
// cu_seqlens[s] / ROWS + s on, which leaves room for its tiles before those of s + 1: so a grid of
// N / ROWS + sequences blocks holds every tile, though the host knows no length, and at most one
// block a sequence finds nothing. A warp looks at 32 places at a time.
template <int ROWS>
__device__ __forceinline__ Tile find_tile(const int* cu_seqlens, int sequences, int tile) {
    const int lane = threadIdx.x % 32;
    int low = 0;
    for (int count = sequences; count > 1;) {
        const int step = (count + 31) / 32;
        const int probe = low + lane * step;
        const bool before = lane * step < count && cu_seqlens[probe] / ROWS + probe <= tile;
        const int last = __popc(__ballot_sync(ALL_LANES, before)) - 1;
        low += last * step;
        count = min(step, count - last * step);
    }
    const int first = cu_seqlens[low];
    return {first, cu_seqlens[low + 1] - first, (tile - first / ROWS - low) * ROWS};
}

// Elements from row to row of a tile [rows, D] in shared memory. D / 8 is even, so a row is an odd
// number of 16-byte chunks, and eight rows at one column lie in different banks.
template <int D>
constexpr int STRIDE = D + 8;

// Starts to copy a tile [ROWS, D] whose rows are `stride` apart in global memory; rows from `rows`
// on become zero.
template <int D, int ROWS, int THREADS>
__device__ __forceinline__ void load_tile(bf16* tile_smem, const bf16* gmem, int stride,
                                          int rows) {
    constexpr int CHUNKS = D / 8;
    // Where the threads cover whole rows at a time, a thread stays in its column.
    constexpr bool WHOLE_ROWS = THREADS % CHUNKS == 0;
    const int first_row = threadIdx.x / CHUNKS, first_column = threadIdx.x % CHUNKS * 8;
#pragma unroll
    for (int i = 0; i < ROWS * CHUNKS; i += THREADS) {
        const int chunk = threadIdx.x + i;
        if (ROWS * CHUNKS % THREADS != 0 && chunk >= ROWS * CHUNKS) break;
        const int row = WHOLE_ROWS ? first_row + i / CHUNKS : chunk / CHUNKS;
        const int column = WHOLE_ROWS ? first_column : chunk % CHUNKS * 8;
        const bool exists = row < rows;
        const int offset = WHOLE_ROWS ? first_row * stride + i / CHUNKS * stride : row * stride;
        ptx::cp_async16(tile_smem + row * STRIDE<D> + column,
                        gmem + (exists ? offset : 0) + column, exists ? 16 : 0);
    }
}

// The keys and values of one head of a sequence, on their way through two stages in shared memory.
template <int D, int KEYS, int THREADS>
struct KeyStages {
    bf16* smem;         // [2][k, v][KEYS, D]
    const bf16* k_gmem;
    size_t stride;      // from token to token
    int width, length;  // from k to v; of the sequence

    __device__ __forceinline__ bf16* k(int key) const {
        return smem + key / KEYS % 2 * (2 * KEYS * STRIDE<D>);
    }
    __device__ __forceinline__ bf16* v(int key) const { return k(key) + KEYS * STRIDE<D>; }
    // Starts to copy the tile from key `key` on.
    __device__ __forceinline__ void load(int key) const {
        const bf16* from = k_gmem + key * stride;
        load_tile<D, KEYS, THREADS>(k(key), from, stride, length - key);
        load_tile<D, KEYS, THREADS>(v(key), from + width, stride, length - key);
        ptx::cp_async_commit();
    }
};

// s [16 M, 8 N] = a bᵀ, where a [16 M, D] is the warp's and b [8 N, D] everyone's.
template <int M, int N, int D>
__device__ __forceinline__ void multiply_transposed(float (&s)[M][N][4], const bf16* a_smem,
                                                    const bf16* b_smem) {
    const int lane = threadIdx.x % 32;
    // The row and column of an 8 × 8 matrix that each lane names, of the four that a load takes.
    const uint32_t a_lane = ptx::shared_address(a_smem + lane % 16 * STRIDE<D> + lane / 16 * 8);
    const uint32_t b_lane = ptx::shared_address(
        b_smem + (lane % 8 + lane / 16 * 8) * STRIDE<D> + lane / 8 % 2 * 8);
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) s[m][n][i] = 0.0f;
#pragma unroll
    for (int k = 0; k < D; k += 16) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++)
            ptx::ldmatrix_x4(a[m], a_lane + (m * 16 * STRIDE<D> + k) * sizeof(bf16));
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            uint32_t b[4];
            ptx::ldmatrix_x4(b, b_lane + (n * 8 * STRIDE<D> + k) * sizeof(bf16));
#pragma unroll
            for (int m = 0; m < M; m++) {
                ptx::mma_m16n8k16(s[m][n], a[m], b[0], b[1]);
                ptx::mma_m16n8k16(s[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

__device__ __forceinline__ uint32_t pack(float low, float high) {
    const bf16x2 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
}

// acc [16 M, 8 C] += p b, with p [16 M, 8 N] rounded to bf16 and b [8 N, 8 C], part of rows of D.
template <int M, int N, int D, int C>
__device__ __forceinline__ void multiply_add(float (&acc)[M][C][4], const float (&p)[M][N][4],
                                             const bf16* b_smem) {
    const int lane = threadIdx.x % 32;
    const uint32_t b_lane =
        ptx::shared_address(b_smem + lane % 16 * STRIDE<D> + lane / 16 * 8);
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float* from = &p[m][2 * k + i / 2][i % 2 * 2];
                a[m][i] = pack(from[0], from[1]);
            }
#pragma unroll
        for (int n = 0; n < C; n += 2) {
            uint32_t b[4];
            ptx::ldmatrix_x4_trans(b, b_lane + (k * 16 * STRIDE<D> + n * 8) * sizeof(bf16));
#pragma unroll
            for (int m = 0; m < M; m++) {
                ptx::mma_m16n8k16(acc[m][n], a[m], b[0], b[1]);
                ptx::mma_m16n8k16(acc[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// How a tile whose first row and column are `row` and `column` lies to the band.
struct Overlap {
    bool any, all;
};
template <int ROWS, int COLUMNS>
__device__ __forceinline__ Overlap overlap(int row, int column, Band band, int rows, int columns) {
    const int last_row = min(row + ROWS, rows) - 1, last_column = column + COLUMNS - 1;
    return {row <= last_row && row - band.behind <= last_column && column <= last_row + band.ahead,
            last_row - band.behind <= column && last_column <= row + band.ahead &&
                last_column < columns};
}

// s = -inf outside the band and from column `columns` on.
template <int M, int N>
__device__ __forceinline__ void mask(float (&s)[M][N][4], int row, int column, Band band,
                                     int columns) {
    const int lane = threadIdx.x % 32;
    row += lane / 4;
    column += lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int i = row + m * 16 + h * 8;
            const int low = i - band.behind, high = min(i + band.ahead, columns - 1);
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const int j = column + n * 8 + e;
                    if (j < low || j > high) s[m][n][2 * h + e] = -INFINITY;
                }
        }
}

// ------------------------------------------------------------------ dropout
//
// Element (i, j) of a head takes word j % 4 of block j / 4 of the mask's row i H + head, i counted
// over the batch. A warp draws its tile's share before it computes the scores, so that registers
// are free: bit 4 (m N + n) + i says whether register i of s[m][n] is kept.

// Bit i: whether element i of four is kept.
__device__ __forceinline__ unsigned kept(const Dropout& dropout, unsigned row, unsigned block) {
    const float4 factors = dropout_factors<true>(dropout, uint64_t(row) << 32 | block);
    return unsigned(factors.x != 0.0f) | unsigned(factors.y != 0.0f) << 1 |
           unsigned(factors.z != 0.0f) << 2 | unsigned(factors.w != 0.0f) << 3;
}

// Of a 16 × 8 tile, queries × keys. Its first query has row `row` of the mask and the next ones
// follow `heads` apart. Two lanes share a block of four keys, for two queries: each draws one and
// sends the other its half.
__device__ __forceinline__ unsigned kept_16x8(const Dropout& dropout, unsigned row, int heads,
                                              int key) {
    const int lane = threadIdx.x % 32;
    const bool odd = lane % 2 == 1;
    const unsigned query = lane / 4 + (odd ? 8 : 0);
    const unsigned bits = kept(dropout, row + query * heads, key / 4 + lane % 4 / 2);
    const unsigned low = bits & 3, high = bits >> 2;
    const unsigned other = __shfl_xor_sync(ALL_LANES, odd ? low : high, 1);
    return odd ? other | high << 2 : low | other << 2;
}

// The same of a transposed tile, 16 keys × 8 queries. Four lanes share a block, for two queries and
// two sets of keys: each draws one of the four.
__device__ __forceinline__ unsigned kept_transposed(const Dropout& dropout, unsigned row,
                                                    int heads, int key) {
    const int lane = threadIdx.x % 32;
    const int g = lane / 4, drawn = g % 4;  // for register `drawn` of all four lanes
    const unsigned query = lane % 4 * 2 + drawn % 2;
    unsigned bits = kept(dropout, row + query * heads, key / 4 + drawn / 2 * 2 + g / 4);
    bits <<= drawn * 4;
    bits |= __shfl_xor_sync(ALL_LANES, bits, 4);
    bits |= __shfl_xor_sync(ALL_LANES, bits, 8);
    bits >>= g % 4;
    return (bits & 1) | (bits >> 3 & 2) | (bits >> 6 & 4) | (bits >> 9 & 8);
}

// Of a warp's tile [16 M, 8 N] from query and key on, or of the transposed one.
template <int M, int N, bool TRANSPOSED>
__device__ __forceinline__ unsigned kept_of_tile(const Dropout& dropout, unsigned row, int heads,
                                                 int key) {
    static_assert(M * N <= 8, "four bits each of 32");
    if (dropout.threshold == 0) return ~0u;
    unsigned bits = 0;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++) {
            const unsigned tile =
                TRANSPOSED ? kept_transposed(dropout, row + n * 8 * heads, heads, key + m * 16)
                           : kept_16x8(dropout, row + m * 16 * heads, heads, key + n * 8);
            bits |= tile << 4 * (m * N + n);
        }
    return bits;
}

// What the mask multiplies element `column` of its row `row` by.
__device__ __forceinline__ float factor(const Dropout& dropout, unsigned row, unsigned column) {
    return kept(dropout, row, column / 4) >> column % 4 & 1 ? dropout.keep : 0.0f;
}

// Threads of a block of the naive kernels: the largest head width.
constexpr int NAIVE_THREADS = 256;

__device__ __forceinline__ float dot(const bf16* a, const bf16* b, int length) {
    float sum = 0.0f;
    for (int i = 0; i < length; i++) sum += __bfloat162float(a[i]) * __bfloat162float(b[i]);
    return sum;
}

// ------------------------------------------------------------------ small things

// Sum and maximum over the four lanes that share rows.
__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}
__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

template <int M, int N>
__device__ __forceinline__ void multiply(float (&acc)[M][N][4], float factor) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) acc[m][n][i] *= factor;
}

// Stores the first `rows` rows of a warp's accumulators [16 M, 8 C] as bf16, `stride` apart, 16 bytes
// at a time by way of shared memory, rows of D, that the warp alone uses.
template <int M, int D, int C>
__device__ __forceinline__ void store_rows(bf16* gmem, size_t stride, int rows, bf16* smem,
                                           const float (&acc)[M][C][4]) {
    const int lane = threadIdx.x % 32;
    bf16* lane_smem = smem + lane / 4 * STRIDE<D> + lane % 4 * 2;
    __syncwarp();
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int n = 0; n < C; n++)
                *reinterpret_cast<uint32_t*>(lane_smem + (m * 16 + h * 8) * STRIDE<D> + n * 8) =
                    pack(acc[m][n][2 * h], acc[m][n][2 * h + 1]);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < M * 16 * C; i += 32) {
        const int chunk = lane + i, row = chunk / C, column = chunk % C * 8;
        if (row < rows)
            *reinterpret_cast<uint4*>(gmem + row * stride + column) =
                *reinterpret_cast<const uint4*>(smem + row * STRIDE<D> + column);
    }
}

}  // namespace attention
