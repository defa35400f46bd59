// What the products of product.cu share: tiles, panels of operands in shared memory, the main loop
// on tensor cores, and the way of a tile of results through shared memory.
//
//   c [M, N] = sum over k < K of a(m, k) b(n, k)
// Both operands are named by their own index, m or n, the *outer* one, and by k. Either may be the
// contiguous one in memory: that is the operand's major.
//
// A block makes one tile of c; a warp makes WARP_M × WARP_N of it, 64 × 64 in the larger tiles: to
// multiply 16 k it reads 2 (64 + 64) 16 bytes, and 64 products m16n8k16 use them. That is what
// shared memory can feed: 8 warps read 32 KB for 256 KFMA, 256 of the 410 cycles that the products
// take on an H100 at the rate of mma.sync. Warps of 64 × 32 would be bound by shared memory.
#pragma once
#include <common.cuh>
#include <ptx/copy.cuh>
#include <ptx/matrix.cuh>

namespace product {

__device__ __forceinline__ float widen(bf16 x) { return __bfloat162float(x); }

enum class Major { K, OUTER };

// A matrix in global memory. Rows of memory start on 16 bytes: `stride` is a multiple of 8.
struct Operand {
    const bf16* gmem;
    size_t stride;    // elements from row to row of memory
    int outer;        // extent of its own index
    int partner = 0;  // of a paired panel: rows from the first of a pair to the second
};

// How a tile of c is shared out. BLOCKS of them are resident on a multiprocessor.
template <int M_, int N_, int WARPS_M_, int WARPS_N_, int BLOCKS_>
struct Tile {
    static constexpr int M = M_, N = N_, K = 32, STAGES = 4, BLOCKS = BLOCKS_;
    static constexpr int WARPS_M = WARPS_M_, WARPS_N = WARPS_N_, THREADS = WARPS_M * WARPS_N * 32;
    static constexpr int WARP_M = M / WARPS_M, WARP_N = N / WARPS_N;
    // Products of 16 × 8 by a warp.
    static constexpr int M_PRODUCTS = WARP_M / 16, N_PRODUCTS = WARP_N / 8;
};

// The host chooses: `Tile` in src/ops/linear/gpu.rs has the same numbers.
using Large = Tile<128, 256, 2, 4, 1>;
using Medium = Tile<128, 128, 2, 2, 2>;
using Small = Tile<64, 64, 2, 2, 4>;

// [OUTER, 32] of an operand in shared memory: the rows of memory, in 16-byte chunks. A chunk lies
// at its place XOR a number that its row gives, so that eight rows of one column, which is what
// ldmatrix reads at once, lie in different banks: rows of 64 bytes repeat the banks every two rows,
// rows of 128 bytes and more in each.
//
// PAIRED, a k-major panel's rows are pairs: of each PAIRED of them the second half are the partners
// of the first, and the panel at `outer` begins with row outer / 2 of the operand.
template <Major MAJOR, int OUTER, int PAIRED = 0>
struct Panel {
    static constexpr int K = 32, BYTES = OUTER * K * int(sizeof(bf16));
    static constexpr int ROWS = MAJOR == Major::K ? OUTER : K;
    static constexpr int ROW_CHUNKS = (MAJOR == Major::K ? K : OUTER) / 8;
    static constexpr int ROW_BYTES = ROW_CHUNKS * 16;

    __device__ __forceinline__ static int offset(int row, int chunk) {
        const int turn = MAJOR == Major::K ? row >> 1 & 3 : row & 7;
        return row * ROW_BYTES + (chunk ^ turn) * 16;
    }

    // Starts to copy the panel at (outer, k); what lies outside the operand, or at `k_end` and
    // beyond, becomes zero.
    template <int THREADS>
    __device__ __forceinline__ static void load(unsigned char* panel_smem, const Operand& operand,
                                                int outer, int k, int k_end) {
        constexpr int ROWS_AT_ONCE = THREADS / ROW_CHUNKS;
        static_assert(THREADS % ROW_CHUNKS == 0 && ROWS % ROWS_AT_ONCE == 0, "an equal share each");
        const int chunk = threadIdx.x % ROW_CHUNKS, first = threadIdx.x / ROW_CHUNKS;
        const int first_row = (MAJOR == Major::K ? outer : k) + first;
        const int column = (MAJOR == Major::K ? k : outer) + chunk * 8;
        const int rows = MAJOR == Major::K ? operand.outer : k_end;
        const int columns = MAJOR == Major::K ? k_end : operand.outer;
        const int bytes = max(0, min(8, columns - column)) * int(sizeof(bf16));
        if constexpr (PAIRED > 0) {
            constexpr int HALF = PAIRED / 2;
#pragma unroll
            for (int i = 0; i < ROWS / ROWS_AT_ONCE; i++) {
                const int row = first + i * ROWS_AT_ONCE;
                const int pair = outer / 2 + row / PAIRED * HALF + row % HALF;
                const int from = pair + (row / HALF % 2 ? operand.partner : 0);
                ptx::cp_async16(panel_smem + offset(row, chunk),
                                operand.gmem + from * operand.stride + column,
                                from < rows ? bytes : 0);
            }
            return;
        }
        // Where nothing is read, the address does not matter.
        const bf16* from_gmem = operand.gmem + size_t(first_row) * operand.stride + column;
        const size_t step = ROWS_AT_ONCE * operand.stride;
#pragma unroll
        for (int i = 0; i < ROWS / ROWS_AT_ONCE; i++) {
            const int row = i * ROWS_AT_ONCE;
            ptx::cp_async16(panel_smem + offset(first + row, chunk), from_gmem + i * step,
                            first_row + row < rows ? bytes : 0);
        }
    }

    // What of a fragment's address the lane decides, in the panel of a warp that begins at `outer`.
    // The four 8 × 8 matrices of a fragment: (outer 0-7, k 0-7), (8-15, 0-7), (0-7, 8-15), (8-15,
    // 8-15); lanes 8 j to 8 j + 7 name the rows of matrix j.
    __device__ __forceinline__ static int lane_offset(int outer) {
        const int lane = threadIdx.x % 32;
        const int outer_in = lane / 8 % 2 * 8, k_in = lane / 16 * 8;
        return MAJOR == Major::K ? offset(outer + outer_in + lane % 8, k_in / 8)
                                 : offset(k_in + lane % 8, (outer + outer_in) / 8);
    }

    // Fragment [16, 16] number `i` of the warp at k = 16 kk. Steps that stay within the bits of the
    // XOR are XORs themselves.
    __device__ __forceinline__ static void fragment(uint32_t (&fragment_rmem)[4],
                                                    uint32_t panel_smem, int lane_offset, int i,
                                                    int kk) {
        if constexpr (MAJOR == Major::K) {
            const int offset = (lane_offset ^ kk * 32) + i * 16 * ROW_BYTES;
            ptx::ldmatrix_x4(fragment_rmem, panel_smem + offset);
        } else {
            const int offset = (lane_offset ^ i * 32) + kk * 16 * ROW_BYTES;
            ptx::ldmatrix_x4_trans(fragment_rmem, panel_smem + offset);
        }
    }
};

// Rows and columns of results that a warp passes through shared memory at once, f32; the padding
// puts what eight lanes access at once into different banks, writing pairs and reading fours.
constexpr int PASS_ROWS = 32;
template <class T>
constexpr int PASS_STRIDE = T::WARP_N + 8;

// Dynamic shared memory of a kernel; the panels make way for the results.
template <class T>
constexpr int SHARED_BYTES = T::STAGES * (T::M + T::N) * T::K * int(sizeof(bf16));

// Where a block works: its tile of c and its share of k.
struct Place {
    int m, n, split, k, k_end;
};

// Tiles in groups of eight rows of tiles, rows first: blocks that run at one time share the panels
// of few rows and columns, which then come from the L2. Splits of k follow one another.
template <class T>
__device__ __forceinline__ Place place_of_block(int m, int n, int k, int k_split) {
    constexpr int GROUP = 8;
    const int rows = ceil_div(m, T::M), columns = ceil_div(n, T::N);
    const int split = blockIdx.x / (rows * columns), tile = blockIdx.x % (rows * columns);
    const int group = tile / (GROUP * columns), in_group = tile % (GROUP * columns);
    const int height = min(GROUP, rows - group * GROUP);
    const int row = group * GROUP + in_group % height, column = in_group / height;
    const int first = split * k_split;
    return {row * T::M, column * T::N, split, first, min(k, first + k_split)};
}

// A warp's part of c: c[i][j][2 h + e] is row 16 i + 8 h + lane / 4, column 8 j + 2 (lane % 4) + e.
template <class T>
using Results = float[T::M_PRODUCTS][T::N_PRODUCTS][4];

// Sums over k of the rows of a, for the bias gradient: each warp of a row of warps takes its share
// of the row's fragments. sums[i][0] is row 16 (i WARPS_N + warp's column) + lane / 4, [2] 8 below.
template <class T>
struct RowSums {
    static constexpr int COUNT = ceil_div(T::M_PRODUCTS, T::WARPS_N);
    bool wanted;  // by this block
    float sums[COUNT][4];

    // A product with ones: every column of the result is the sum of the rows.
    __device__ __forceinline__ void add(const uint32_t (&a)[T::M_PRODUCTS][4]) {
        constexpr uint32_t ONES = 0x3f803f80;
        const int mine = threadIdx.x / 32 % T::WARPS_N;
#pragma unroll
        for (int i = 0; i < T::M_PRODUCTS; i++)
            if (wanted && i % T::WARPS_N == mine)
                ptx::mma_m16n8k16(sums[i / T::WARPS_N], a[i], ONES, ONES);
    }
};

// No sums.
struct NoRowSums {
    template <class A>
    __device__ __forceinline__ void add(const A&) {}
};

// The main loop of one block. Copies run STAGES - 1 panels ahead, fragments one product ahead:
// those of the next 16 k are loaded before the products of these, across the barrier too.
template <class T, Major A, Major B, int PAIRED = 0>
class Multiply {
    using PanelA = Panel<A, T::M>;
    using PanelB = Panel<B, T::N, PAIRED>;
    static constexpr int STAGE_BYTES = PanelA::BYTES + PanelB::BYTES;
    static constexpr int KK = T::K / 16;
    static_assert(SHARED_BYTES<T> == T::STAGES * STAGE_BYTES, "panels and nothing else");

    struct Fragments {
        uint32_t a[T::M_PRODUCTS][4], b[T::N_PRODUCTS / 2][4];
    };

    const Operand &a, &b;
    const Place& place;
    unsigned char* smem;
    int a_lane, b_lane;

public:
    __device__ __forceinline__ Multiply(const Operand& a, const Operand& b, const Place& place,
                                        unsigned char* smem)
        : a(a), b(b), place(place), smem(smem) {
        const int warp = threadIdx.x / 32;
        a_lane = PanelA::lane_offset(warp / T::WARPS_N * T::WARP_M);
        b_lane = PanelB::lane_offset(warp % T::WARPS_N * T::WARP_N);
    }

    // c += the product, and rows the sums of a's rows.
    template <class Rows>
    __device__ __forceinline__ void run(Results<T>& c, Rows& rows) {
        const int steps = ceil_div(place.k_end - place.k, T::K);
        for (int step = 0; step < T::STAGES - 1; step++) load(step, steps);
        ptx::cp_async_wait<T::STAGES - 2>();
        __syncthreads();

        Fragments fragments[2];
        read(fragments[0], 0, 0);
        for (int step = 0; step < steps; step++) {
#pragma unroll
            for (int kk = 0; kk < KK; kk++) {
                if (kk == KK - 1) {
                    // The next panels are there for all, and no one reads these any more.
                    ptx::cp_async_wait<T::STAGES - 2>();
                    __syncthreads();
                    if (step + 1 < steps) read(fragments[(kk + 1) % 2], step + 1, 0);
                } else {
                    read(fragments[(kk + 1) % 2], step, kk + 1);
                }
                if (kk == 0) load(step + T::STAGES - 1, steps);
                multiply(c, fragments[kk % 2]);
                rows.add(fragments[kk % 2].a);
            }
        }
        // Shared memory is free for other use.
        ptx::cp_async_wait<0>();
        __syncthreads();
    }

private:
    // Starts to copy the panels of a step; past the last an empty group, so that counts stay right.
    __device__ __forceinline__ void load(int step, int steps) {
        if (step < steps) {
            unsigned char* stage_smem = smem + step % T::STAGES * STAGE_BYTES;
            const int k = place.k + step * T::K;
            PanelA::template load<T::THREADS>(stage_smem, a, place.m, k, place.k_end);
            PanelB::template load<T::THREADS>(stage_smem + PanelA::BYTES, b, place.n, k,
                                              place.k_end);
        }
        ptx::cp_async_commit();
    }

    __device__ __forceinline__ void read(Fragments& to, int step, int kk) {
        const uint32_t a_smem = ptx::shared_address(smem) + step % T::STAGES * STAGE_BYTES;
        const uint32_t b_smem = a_smem + PanelA::BYTES;
#pragma unroll
        for (int i = 0; i < T::M_PRODUCTS; i++) PanelA::fragment(to.a[i], a_smem, a_lane, i, kk);
#pragma unroll
        for (int j = 0; j < T::N_PRODUCTS / 2; j++)
            PanelB::fragment(to.b[j], b_smem, b_lane, j, kk);
    }

    __device__ __forceinline__ void multiply(Results<T>& c, const Fragments& from) {
#pragma unroll
        for (int i = 0; i < T::M_PRODUCTS; i++)
#pragma unroll
            for (int j = 0; j < T::N_PRODUCTS / 2; j++) {
                const uint32_t(&b)[4] = from.b[j];
                ptx::mma_m16n8k16(c[i][2 * j], from.a[i], b[0], b[2]);
                ptx::mma_m16n8k16(c[i][2 * j + 1], from.a[i], b[1], b[3]);
            }
    }
};

// The first of the eight columns that the calling lane hands out.
template <class T, int EACH = 1>
__device__ __forceinline__ int column_of_lane(const Place& place) {
    constexpr int WIDTH = T::WARP_N / EACH;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    return place.n / EACH + warp % T::WARPS_N * WIDTH + lane % (WIDTH / 8) * 8;
}

// The second four first, where `swap`.
__device__ __forceinline__ void load_eight(float (&values)[8], const float* from_smem, int swap) {
    float first[4], second[4];
    Vec4f::load(from_smem + 4 * swap).to_float(first);
    Vec4f::load(from_smem + 4 - 4 * swap).to_float(second);
#pragma unroll
    for (int e = 0; e < 4; e++) {
        values[e] = swap ? second[e] : first[e];
        values[4 + e] = swap ? first[e] : second[e];
    }
}

// Hands a warp's results to `out`, eight neighbouring columns of a row at a time: registers hold
// them in pairs, so they go through the warp's own part of shared memory. For each eight that
// exist, out.fetch(row, column) reads what is needed beside them, one turn ahead, and
// out.store(row, column, values, fetched) does the rest. Of a paired panel (EACH 2) n counts pairs
// of columns, and store() gets the eight of the first half and the eight of the second.
template <class T, int EACH = 1, class Out>
__device__ __forceinline__ void store_results(const Results<T>& c, const Place& place, int m, int n,
                                              unsigned char* smem, const Out& out) {
    constexpr int LANES = T::WARP_N / EACH / 8, TURN_ROWS = 32 / LANES;
    constexpr int STRIDE = PASS_STRIDE<T>;
    constexpr int TURNS = PASS_ROWS / TURN_ROWS;
    static_assert(T::THREADS / 32 * PASS_ROWS * STRIDE * 4 <= SHARED_BYTES<T>, "room for all");
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float* pass_smem = reinterpret_cast<float*>(smem) + warp * PASS_ROWS * STRIDE;
    const int first_row = place.m + warp / T::WARPS_N * T::WARP_M + lane / LANES;
    const int in_pass = lane % LANES * 8;
    const int column = column_of_lane<T, EACH>(place);
    // Lanes 4 to 7 of eight read their two halves in the other order, and all banks are busy.
    const int swap = lane / 4 % 2;

#pragma unroll
    for (int pass = 0; pass < T::WARP_M / PASS_ROWS; pass++) {
        __syncwarp();
#pragma unroll
        for (int i = 0; i < PASS_ROWS / 16; i++)
#pragma unroll
            for (int j = 0; j < T::N_PRODUCTS; j++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const float(&pair)[4] = c[pass * (PASS_ROWS / 16) + i][j];
                    float* to_smem = pass_smem + (i * 16 + h * 8 + lane / 4) * STRIDE + j * 8;
                    *reinterpret_cast<float2*>(to_smem + lane % 4 * 2) =
                        make_float2(pair[2 * h], pair[2 * h + 1]);
                }
        __syncwarp();
        const int pass_row = first_row + pass * PASS_ROWS;
        const bool exists = column < n;
        typename Out::Fetched next{};
        if (exists && pass_row < m) next = out.fetch(pass_row, column);
#pragma unroll 1
        for (int turn = 0; turn < TURNS; turn++) {
            const int row = pass_row + turn * TURN_ROWS;
            if (!exists || row >= m) break;
            const typename Out::Fetched fetched = next;
            if (turn + 1 < TURNS && row + TURN_ROWS < m)
                next = out.fetch(row + TURN_ROWS, column);
            const float* from_smem =
                pass_smem + (turn * TURN_ROWS + lane / LANES) * STRIDE + in_pass;
            float values[EACH][8];
#pragma unroll
            for (int half = 0; half < EACH; half++)
                load_eight(values[half], from_smem + half * (T::WARP_N / 2), swap);
            if constexpr (EACH == 1) out.store(row, column, values[0], fetched);
            else out.store(row, column, values[0], values[1], fetched);
        }
    }
}

// ------------------------------------------------------------------ epilogues

struct Nothing {};

// + b, rounded.
struct Biased {
    float bias[8];

    __device__ __forceinline__ Biased(const bf16* b, int column, int columns) : bias{} {
        if (b == nullptr || column >= columns) return;
        if (column + 8 <= columns) {
            Vec8::load(b + column).to_float(bias);
        } else {
#pragma unroll
            for (int e = 0; e < 8; e++)
                if (column + e < columns) bias[e] = widen(b[column + e]);
        }
    }

    __device__ __forceinline__ Vec8 rounded(float (&values)[8]) const {
#pragma unroll
        for (int e = 0; e < 8; e++) values[e] += bias[e];
        return Vec8::from_float(values);
    }
};

// ------------------------------------------------------------------ naive twins

// This thread's element of [m, n]; false beyond the last.
__device__ __forceinline__ bool my_element(int m, int n, int& row, int& column) {
    const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    row = int(i / n), column = int(i % n);
    return row < m;
}

// Σ over i < count of a[i a_step] b[i b_step]
__device__ __forceinline__ float dot(const bf16* a, size_t a_step, const bf16* b, size_t b_step,
                                     int count) {
    float sum = 0;
    for (int i = 0; i < count; i++) sum += widen(a[i * a_step]) * widen(b[i * b_step]);
    return sum;
}

}  // namespace product
