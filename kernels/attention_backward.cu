// Attention, backward: dqkv from do, with o and lse of the forward (attention.cu has its maths).
//
//   δ_i = do_i · o_i,  dp_ij = (do_i · v_j) under dropout,  ds_ij = p_ij (dp_ij − δ_i)
//   dv_j = Σ_i p̃_ij do_i,  dk_j = Σ_i ds_ij q_i / √D,  dq_i = Σ_j ds_ij k_j / √D
// dqkv [N, 3C] = (as qkv), from qkv [N, 3C], o and do [N, C], lse [N, H].
//
// The floor, for N = 65,536 tokens, H = 12, D = 64: five products, 10 C operations a pair (i, j),
// and qkv, dqkv, o, do, lse once across memory, 809 MB = 0.19 ms at 4.3 TB/s.
//   bidirectional, 128 sequences of 512:  258 GFLOP = 0.33 ms at 790 TFLOP/s
//   causal, 64 sequences of 1,024:        258 GFLOP = 0.33 ms
// *Unmeasured on a GPU.*
//
// Three kernels.
//   1. delta: stats [H, N] of (lse log2 e, δ), as the other two read them.
//   2. keys: a block takes a tile of keys and goes through the queries that see it. Scores are
//      computed transposed, keys × queries, so that p̃ᵀ and dsᵀ are left operands of dv and dk as
//      they lie in registers.
//   3. queries: a block takes a tile of queries and goes through its keys, for dq alone.
// Stages, bands and dropout as in the forward.
// The third computes the scores again: seven products in place of five. The alternative is to add
// dq in f32 in global memory from the second kernel, where equal bits need a fixed order, that is
// blocks that wait for one another, and N C floats that are set to zero, added to and converted.
// Here blocks share nothing: same launch, same bits.
#include "attention.cuh"

using namespace attention;

namespace {

// Sizes of both kernels: that for keys owns ROWS keys, that for queries ROWS queries.
template <int D>
struct Backward {
    static constexpr int WARPS = 4, THREADS = 32 * WARPS;
    static constexpr int M = D <= 64 ? 2 : 1;  // 16-row tiles a warp
    // Warps that share rows, each with 8 C of the columns: registers hold sums over no more than
    // 128, so at D = 256 two of them compute the same scores.
    static constexpr int SHARES = D <= 128 ? 1 : 2;
    static constexpr int C = D / 8 / SHARES;
    static constexpr int ROWS = WARPS / SHARES * M * 16;
    static constexpr int STEP = D <= 128 ? 32 : 16;  // rows of the tiles that it goes through
    static constexpr int BLOCKS = 2;
};

template <int M, int N>
__device__ __forceinline__ void clear(float (&acc)[M][N][4]) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) acc[m][n][i] = 0.0f;
}

// dqkv's columns of k and v, for a tile of keys.
template <int D>
__device__ __forceinline__ void keys_backward(bf16* __restrict__ dqkv,
                                              const bf16* __restrict__ qkv,
                                              const bf16* __restrict__ d_o,
                                              const float2* __restrict__ stats,
                                              const int* __restrict__ cu_seqlens, int sequences,
                                              int rows, int heads, Band band, float scale,
                                              const Dropout& dropout) {
    using B = Backward<D>;
    constexpr int M = B::M, KEYS = B::ROWS, QUERIES = B::STEP, N = QUERIES / 8;
    DYNAMIC_SHARED(shared);
    bf16* k_smem = reinterpret_cast<bf16*>(shared);     // [KEYS, D]
    bf16* v_smem = k_smem + KEYS * STRIDE<D>;           // [KEYS, D]
    bf16* q_smem = v_smem + KEYS * STRIDE<D>;           // 2 stages of q and do [QUERIES, D]
    SHARED_ARRAY(float4, pairs_smem, QUERIES + 2);      // 2 stages of pairs of stats
    float2* stats_smem = reinterpret_cast<float2*>(pairs_smem);

    // Early tiles first: under a causal mask most queries see them.
    const Tile tile = find_tile<KEYS>(cu_seqlens, sequences, blockIdx.x);
    if (tile.start >= tile.length) return;
    const int head = blockIdx.y, width = heads * D, thread = threadIdx.x;
    const size_t stride = 3 * width;
    const bf16* q_gmem = qkv + tile.first * stride + head * D;
    const bf16* d_o_gmem = d_o + size_t(tile.first) * width + head * D;
    // Copied in pairs: where the first is odd, so is its place in shared memory.
    const float2* stats_gmem = stats + size_t(head) * rows + tile.first;
    const int odd = (size_t(head) * rows + tile.first) % 2;

    const int begin = max(tile.start - band.ahead, 0) / QUERIES * QUERIES;
    const int end = min(min(tile.start + KEYS, tile.length) + band.behind, tile.length);
    const auto load_queries = [&](int query) {
        const int stage = query / QUERIES % 2, left = tile.length - query;
        bf16* to = q_smem + stage * (2 * QUERIES * STRIDE<D>);
        load_tile<D, QUERIES, B::THREADS>(to, q_gmem + query * stride, stride, left);
        load_tile<D, QUERIES, B::THREADS>(to + QUERIES * STRIDE<D>,
                                          d_o_gmem + size_t(query) * width, width, left);
        const int pair = 2 * thread - odd, exist = min(max(left - pair, 0), 2);
        if (pair < QUERIES)
            ptx::cp_async16(stats_smem + stage * (QUERIES + 2) + 2 * thread,
                            stats_gmem + query + (exist > 0 ? pair : -odd), exist * 8);
        ptx::cp_async_commit();
    };
    const bf16* k_gmem = q_gmem + width + tile.start * stride;
    load_tile<D, KEYS, B::THREADS>(k_smem, k_gmem, stride, tile.length - tile.start);
    load_tile<D, KEYS, B::THREADS>(v_smem, k_gmem + width, stride, tile.length - tile.start);
    load_queries(begin);

    const int warp = thread / 32 / B::SHARES, lane = thread % 32;
    const int row = tile.start + warp * M * 16;  // the warp's first key
    const int own = warp * M * 16 * STRIDE<D>;
    const int column = thread / 32 % B::SHARES * B::C * 8;  // the first that it sums
    const Band queries = {band.ahead, band.behind};
    float dk[M][B::C][4], dv[M][B::C][4];
    clear(dk);
    clear(dv);
    for (int query = begin; query < end; query += QUERIES) {
        const int stage = query / QUERIES % 2;
        ptx::cp_async_wait<0>();
        __syncthreads();
        if (query + QUERIES < end) load_queries(query + QUERIES);
        const Overlap seen =
            overlap<M * 16, QUERIES>(row, query, queries, tile.length, tile.length);
        if (!seen.any) continue;
        const bf16* queries_smem = q_smem + stage * (2 * QUERIES * STRIDE<D>);
        const bf16* d_o_smem = queries_smem + QUERIES * STRIDE<D>;
        const float2* column_stats = stats_smem + stage * (QUERIES + 2) + odd + lane % 4 * 2;
        const unsigned mask_row = unsigned(tile.first + query) * heads + head;
        const unsigned kept = kept_of_tile<M, N, true>(dropout, mask_row, heads, row);

        float p[M][N][4], ds[M][N][4];  // keys × queries
        multiply_transposed<M, N, D>(p, k_smem + own, queries_smem);
        if (!seen.all) mask(p, row, query, queries, tile.length);
        multiply_transposed<M, N, D>(ds, v_smem + own, d_o_smem);
#pragma unroll
        for (int n = 0; n < N; n++) {
            const float2 stat[2] = {column_stats[n * 8], column_stats[n * 8 + 1]};
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float x = ptx::exp2_approx(fmaf(p[m][n][i], scale * LOG2E, -stat[i % 2].x));
                    const bool keep = kept >> (4 * (m * N + n) + i) & 1;
                    const float dp = keep ? ds[m][n][i] * dropout.keep : 0.0f;
                    p[m][n][i] = keep ? x : 0.0f;
                    ds[m][n][i] = x * (dp - stat[i % 2].y);
                }
        }
        multiply_add<M, N, D>(dv, p, d_o_smem + column);
        multiply_add<M, N, D>(dk, ds, queries_smem + column);
    }

    multiply(dk, scale);
    multiply(dv, dropout.keep);
    if (B::SHARES > 1) __syncthreads();  // who shares the rows has read them
    bf16* dk_gmem = dqkv + (tile.first + row) * stride + width + head * D + column;
    store_rows<M, D>(dk_gmem, stride, tile.length - row, k_smem + own + column, dk);
    store_rows<M, D>(dk_gmem + width, stride, tile.length - row, v_smem + own + column, dv);
}

// dqkv's columns of q, for a tile of queries.
template <int D>
__device__ __forceinline__ void queries_backward(bf16* __restrict__ dqkv,
                                                 const bf16* __restrict__ qkv,
                                                 const bf16* __restrict__ d_o,
                                                 const float2* __restrict__ stats,
                                                 const int* __restrict__ cu_seqlens,
                                                 int sequences, int rows, int heads, Band band,
                                                 float scale, const Dropout& dropout) {
    using B = Backward<D>;
    constexpr int M = B::M, KEYS = B::STEP, QUERIES = B::ROWS, N = KEYS / 8;
    DYNAMIC_SHARED(shared);
    bf16* q_smem = reinterpret_cast<bf16*>(shared);     // [QUERIES, D]
    bf16* d_o_smem = q_smem + QUERIES * STRIDE<D>;      // [QUERIES, D]
    bf16* kv_smem = d_o_smem + QUERIES * STRIDE<D>;     // 2 stages of k and v [KEYS, D]

    const Tile tile = find_tile<QUERIES>(cu_seqlens, sequences, gridDim.x - 1 - blockIdx.x);
    if (tile.start >= tile.length) return;
    const int head = blockIdx.y, width = heads * D;
    const size_t stride = 3 * width, first = tile.first + tile.start;
    const bf16* q_gmem = qkv + first * stride + head * D;
    const KeyStages<D, KEYS, B::THREADS> keys = {
        kv_smem, qkv + tile.first * stride + width + head * D, stride, width, tile.length};
    const int left = tile.length - tile.start;
    const int begin = max(tile.start - band.behind, 0) / KEYS * KEYS;
    const int end = min(tile.start + min(QUERIES, left) + band.ahead, tile.length);
    load_tile<D, QUERIES, B::THREADS>(q_smem, q_gmem, stride, left);
    load_tile<D, QUERIES, B::THREADS>(d_o_smem, d_o + first * width + head * D, width, left);
    keys.load(begin);

    const int warp = threadIdx.x / 32 / B::SHARES, lane = threadIdx.x % 32;
    const int row = tile.start + warp * M * 16;  // the warp's first query
    const int own = warp * M * 16 * STRIDE<D>;
    const int column = threadIdx.x / 32 % B::SHARES * B::C * 8;  // the first that it sums
    const unsigned mask_row = unsigned(tile.first + row) * heads + head;
    float2 stat[M][2];
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int i = row + m * 16 + h * 8 + lane / 4;
            stat[m][h] = i < tile.length ? stats[size_t(head) * rows + tile.first + i]
                                         : make_float2(INFINITY, 0.0f);
        }
    float dq[M][B::C][4];
    clear(dq);
    for (int key = begin; key < end; key += KEYS) {
        ptx::cp_async_wait<0>();
        __syncthreads();
        if (key + KEYS < end) keys.load(key + KEYS);
        const Overlap seen = overlap<M * 16, KEYS>(row, key, band, tile.length, tile.length);
        if (!seen.any) continue;
        const unsigned kept = kept_of_tile<M, N, false>(dropout, mask_row, heads, key);
        float p[M][N][4], ds[M][N][4];
        multiply_transposed<M, N, D>(p, q_smem + own, keys.k(key));
        if (!seen.all) mask(p, row, key, band, tile.length);
        multiply_transposed<M, N, D>(ds, d_o_smem + own, keys.v(key));
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float2 s = stat[m][i / 2];
                    const bool keep = kept >> (4 * (m * N + n) + i) & 1;
                    const float x = ptx::exp2_approx(fmaf(p[m][n][i], scale * LOG2E, -s.x));
                    const float dp = keep ? ds[m][n][i] * dropout.keep : 0.0f;
                    ds[m][n][i] = x * (dp - s.y);
                }
        multiply_add<M, N, D>(dq, ds, keys.k(key) + column);
    }
    multiply(dq, scale);
    if (B::SHARES > 1) __syncthreads();  // who shares the rows has read them
    store_rows<M, D>(dqkv + (first + warp * M * 16) * stride + head * D + column, stride,
                     tile.length - row, q_smem + own + column, dq);
}

}  // namespace

// stats [H, N] = (lse log2 e, δ) of o and do [N, C], lse [N, H]. Eight threads read a row of a
// head, eight elements at a time. `turns` [tiles, H] = 0, for attention_hopper_backward.cu.
// Grid: N / 32, H.
extern "C" __global__ void __launch_bounds__(256)
    attention_delta(float2* stats, const bf16* o, const bf16* d_o, const float* lse,
                    const int* cu_seqlens, int sequences, int rows, int heads, int head_dim,
                    unsigned* turns, int tiles) {
    begin_kernel();
    constexpr int LANES = 8;
    const int thread = blockIdx.x * 256 + threadIdx.x;
    const int row = thread / LANES, head = blockIdx.y;
    for (int tile = thread; tile < tiles; tile += gridDim.x * 256) turns[tile * heads + head] = 0;
    const int lane = threadIdx.x % LANES;
    const bool there = row < cu_seqlens[sequences];
    const size_t head_row = size_t(row) * heads + head;
    float delta = 0.0f;
#pragma unroll 1
    for (int column = lane * 8; there && column < head_dim; column += LANES * 8) {
        float a[8], b[8];
        Vec8::load(o + head_row * head_dim + column).to_float(a);
        Vec8::load(d_o + head_row * head_dim + column).to_float(b);
#pragma unroll
        for (int i = 0; i < 8; i++) delta = fmaf(a[i], b[i], delta);
    }
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2)
        delta += __shfl_xor_sync(ALL_LANES, delta, step);
    if (there && lane == 0)
        stats[size_t(head) * rows + row] = make_float2(lse[head_row] * LOG2E, delta);
}
EXPORT_KERNEL(attention_delta, attention_delta)

namespace {

// What the naive kernels know of one head of one sequence.
struct NaiveHead {
    const bf16 *q, *k, *v, *o, *d_o;  // rows of the sequence, at the head's columns
    const float* lse;
    size_t stride;                    // of q, k, v; of the rest a third of it
    int head_dim, heads;
    unsigned mask_row;                // of query 0
    float scale;

    __device__ NaiveHead(const bf16* qkv, const bf16* o, const bf16* d_o, const float* lse,
                         const Tile& row, int heads, int head_dim, int head, float scale)
        : stride(3 * heads * head_dim), head_dim(head_dim), heads(heads), scale(scale) {
        const size_t width = heads * head_dim, column = head * head_dim;
        q = qkv + row.first * stride + column;
        k = q + width;
        v = k + width;
        this->o = o + row.first * width + column;
        this->d_o = d_o + row.first * width + column;
        this->lse = lse + size_t(row.first) * heads + head;
        mask_row = unsigned(row.first) * heads + head;
    }
    // p̃ and ds of query i and key j.
    __device__ float2 gradient(int i, int j, const Dropout& dropout) const {
        const size_t query = i * (stride / 3);
        const float s = dot(q + i * stride, k + j * stride, head_dim) * scale;
        const float p = expf(s - lse[size_t(i) * heads]);
        const float drop = factor(dropout, mask_row + i * heads, j);
        const float dp = dot(d_o + query, v + j * stride, head_dim) * drop;
        const float delta = dot(d_o + query, o + query, head_dim);
        return make_float2(p * drop, p * (dp - delta));
    }
};

}  // namespace

// A block a query and head: dq. Grid: N + S, H; D <= 256 threads have an output.
extern "C" __global__ void __launch_bounds__(NAIVE_THREADS)
    attention_queries_naive(bf16* dqkv, const bf16* qkv, const bf16* o, const bf16* d_o,
                            const float* lse, const int* cu_seqlens, int sequences, int heads,
                            int head_dim, int behind, int ahead, float scale, Dropout dropout) {
    begin_kernel();
    SHARED_ARRAY(float, ds_smem, NAIVE_THREADS);
    const Tile row = find_tile<1>(cu_seqlens, sequences, blockIdx.x);
    if (row.start >= row.length) return;
    const int i = row.start, thread = threadIdx.x;
    const NaiveHead head(qkv, o, d_o, lse, row, heads, head_dim, blockIdx.y, scale);
    const int begin = max(i - behind, 0), end = min(i + ahead + 1, row.length);
    float dq = 0.0f;
    for (int first = begin; first < end; first += NAIVE_THREADS) {
        const int count = min(end - first, NAIVE_THREADS);
        __syncthreads();
        if (thread < count) ds_smem[thread] = head.gradient(i, first + thread, dropout).y;
        __syncthreads();
        const bf16* k_gmem = head.k + first * head.stride + thread;
        for (int c = 0; c < count && thread < head_dim; c++)
            dq += ds_smem[c] * __bfloat162float(k_gmem[c * head.stride]);
    }
    const size_t at = (row.first + i) * head.stride + blockIdx.y * head_dim + thread;
    if (thread < head_dim) dqkv[at] = __float2bfloat16_rn(dq * scale);
}
EXPORT_KERNEL(attention_queries_naive, attention_queries_naive)

// A block a key and head: dk and dv. Grid as above.
extern "C" __global__ void __launch_bounds__(NAIVE_THREADS)
    attention_keys_naive(bf16* dqkv, const bf16* qkv, const bf16* o, const bf16* d_o,
                         const float* lse, const int* cu_seqlens, int sequences, int heads,
                         int head_dim, int behind, int ahead, float scale, Dropout dropout) {
    begin_kernel();
    SHARED_ARRAY(float2, pds_smem, NAIVE_THREADS);  // p̃ and ds
    const Tile row = find_tile<1>(cu_seqlens, sequences, blockIdx.x);
    if (row.start >= row.length) return;
    const int j = row.start, thread = threadIdx.x, width = heads * head_dim;
    const NaiveHead head(qkv, o, d_o, lse, row, heads, head_dim, blockIdx.y, scale);
    const int begin = max(j - ahead, 0), end = min(j + behind + 1, row.length);
    float dk = 0.0f, dv = 0.0f;
    for (int first = begin; first < end; first += NAIVE_THREADS) {
        const int count = min(end - first, NAIVE_THREADS);
        __syncthreads();
        if (thread < count) pds_smem[thread] = head.gradient(first + thread, j, dropout);
        __syncthreads();
        const bf16* q_gmem = head.q + first * head.stride + thread;
        const bf16* d_o_gmem = head.d_o + size_t(first) * width + thread;
        for (int c = 0; c < count && thread < head_dim; c++) {
            dv += pds_smem[c].x * __bfloat162float(d_o_gmem[size_t(c) * width]);
            dk += pds_smem[c].y * __bfloat162float(q_gmem[c * head.stride]);
        }
    }
    bf16* out = dqkv + (row.first + j) * head.stride + width + blockIdx.y * head_dim + thread;
    if (thread < head_dim) {
        out[0] = __float2bfloat16_rn(dk * scale);
        out[width] = __float2bfloat16_rn(dv);
    }
}
EXPORT_KERNEL(attention_keys_naive, attention_keys_naive)

#define ATTENTION_BACKWARD(KEYS, QUERIES, D)                                                     \
    extern "C" __global__ void __launch_bounds__(Backward<D>::THREADS, Backward<D>::BLOCKS)      \
        KEYS(bf16* dqkv, const bf16* qkv, const bf16* d_o, const float2* stats,                  \
             const int* cu_seqlens, int sequences, int rows, int heads, int behind, int ahead,   \
             float scale, Dropout dropout) {                                                     \
        begin_kernel();                                                                          \
        keys_backward<D>(dqkv, qkv, d_o, stats, cu_seqlens, sequences, rows, heads,              \
                         {behind, ahead}, scale, dropout);                                       \
    }                                                                                            \
    EXPORT_KERNEL(KEYS, KEYS)                                                                    \
    extern "C" __global__ void __launch_bounds__(Backward<D>::THREADS, Backward<D>::BLOCKS)      \
        QUERIES(bf16* dqkv, const bf16* qkv, const bf16* d_o, const float2* stats,               \
                const int* cu_seqlens, int sequences, int rows, int heads, int behind,           \
                int ahead, float scale, Dropout dropout) {                                       \
        begin_kernel();                                                                          \
        queries_backward<D>(dqkv, qkv, d_o, stats, cu_seqlens, sequences, rows, heads,           \
                            {behind, ahead}, scale, dropout);                                    \
    }                                                                                            \
    EXPORT_KERNEL(QUERIES, QUERIES)

ATTENTION_BACKWARD(attention_keys_16, attention_queries_16, 16)
ATTENTION_BACKWARD(attention_keys_32, attention_queries_32, 32)
ATTENTION_BACKWARD(attention_keys_48, attention_queries_48, 48)
ATTENTION_BACKWARD(attention_keys_64, attention_queries_64, 64)
ATTENTION_BACKWARD(attention_keys_80, attention_queries_80, 80)
ATTENTION_BACKWARD(attention_keys_96, attention_queries_96, 96)
ATTENTION_BACKWARD(attention_keys_128, attention_queries_128, 128)
ATTENTION_BACKWARD(attention_keys_256, attention_queries_256, 256)
