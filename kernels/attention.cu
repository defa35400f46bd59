// Attention, forward: o = softmax(q kᵀ / √D) v within each sequence, and the log of each row's sum.
//
//   s_ij = q_i · k_j / √D on the keys that i may see
//   lse_i = log Σ_j exp s_ij,  p_ij = exp(s_ij − lse_i),  o_i = Σ_j p̃_ij v_j
// with p̃ = p under dropout. qkv [N, 3C] packs q, k, v, each [H, D]; o [N, C]; lse [N, H], f32.
//
// The floor, for N = 65,536 tokens, H = 12, D = 64: two products, 4 C operations a pair (i, j), and
// qkv, o and lse once across memory, 406 MB = 0.09 ms at 4.3 TB/s.
//   bidirectional, 128 sequences of 512:  103 GFLOP = 0.13 ms at 790 TFLOP/s
//   causal, 64 sequences of 1,024:        103 GFLOP = 0.13 ms
// and 403 M exponentials, 16 a clock and SM: 0.11 ms. *Unmeasured on a GPU.*
//
// The fast kernel (after Dao 2023). A block takes a tile of queries of one head and goes through
// the tiles of keys that any of them sees, so scores never leave registers:
//   - online softmax: p is taken relative to about the largest score so far, and when that grows,
//     the sums so far shrink by exp of the difference. One FMA and one exp2 a score, as
//     log2(e)/√D is folded into the factor.
//   - q, and two stages of k and v, in shared memory by cp.async: the next tile arrives while this
//     one is worked on, with one barrier a tile.
//   - 32 queries a warp, 16 at D = 256: each fragment of k and v read from shared memory serves two products.
//     With 16, shared memory (128 bytes a clock) would take longer than the products.
//   - 32 keys a tile, so that a thread needs 168 registers and three blocks fit an SM: products of
//     one warp run under the exponentials of another.
//   - tiles outside the band are skipped, by the block and by each warp; only tiles on its edge, or
//     beyond the sequence's end, are masked element by element.
//   - dropout draws its mask again wherever it is needed: one Philox block a thread for a tile of
//     16 × 8.
// The order of all sums is fixed by the shape: same launch, same bits.
#include "attention.cuh"

using namespace attention;

namespace {

template <int D>
struct Forward {
    static constexpr int WARPS = 4, THREADS = 32 * WARPS;
    static constexpr int M = D <= 128 ? 2 : 1;  // 16-row tiles a warp
    static constexpr int QUERIES = WARPS * M * 16;
    static constexpr int KEYS = 32;
    // On an SM of 65,536 registers: 168 a thread, or 255.
    static constexpr int BLOCKS = D <= 64 ? 3 : 2;
};

// How far a row's largest score may pass its `top`, in powers of two: p stays below 2^SLACK, which
// neither f32 nor bf16 minds, and the sums need no scaling in nearly every tile.
constexpr float SLACK = 8.0f;

// What a warp knows of its rows so far.
template <int M, int D>
struct Running {
    float top[M][2];  // about the largest score
    float sum[M][2];  // this lane's share of Σ exp
    float o[M][D / 8][4];

    __device__ __forceinline__ Running() {
#pragma unroll
        for (int m = 0; m < M; m++) {
            top[m][0] = top[m][1] = -INFINITY;
            sum[m][0] = sum[m][1] = 0.0f;
#pragma unroll
            for (int n = 0; n < D / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) o[m][n][i] = 0.0f;
        }
    }

    // Scores become p, on the scale of `top`; `scale` holds log2(e). Where a row's largest score
    // has outgrown its `top`, all that the warp's rows have summed so far shrinks.
    template <int N>
    __device__ __forceinline__ void softmax(float (&s)[M][N][4], float scale) {
        float largest[M][2];
        bool outgrown = false;
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float x = -INFINITY;
#pragma unroll
                for (int n = 0; n < N; n++)
                    x = fmaxf(x, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
                largest[m][h] = quad_max(x);
                outgrown |= largest[m][h] * scale > top[m][h] * scale + SLACK;
            }
        if (__any_sync(ALL_LANES, outgrown)) grow(largest, scale);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float offset = top[m][h] == -INFINITY ? 0.0f : top[m][h] * scale;
#pragma unroll
                for (int n = 0; n < N; n++)
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        float& p = s[m][n][2 * h + e];
                        p = ptx::exp2_approx(fmaf(p, scale, -offset));
                        sum[m][h] += p;
                    }
            }
    }

    __device__ __forceinline__ void grow(const float (&largest)[M][2], float scale) {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float to = fmaxf(top[m][h], largest[m][h]);
                const float shrink =
                    to == -INFINITY ? 1.0f : ptx::exp2_approx((top[m][h] - to) * scale);
                top[m][h] = to;
                sum[m][h] *= shrink;
#pragma unroll
                for (int n = 0; n < D / 8; n++) {
                    o[m][n][2 * h] *= shrink;
                    o[m][n][2 * h + 1] *= shrink;
                }
            }
    }
};

// p = 0 where the mask drops it; what is kept is scaled at the end.
template <int M, int N>
__device__ __forceinline__ void drop(float (&p)[M][N][4], unsigned kept) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (!(kept >> (4 * (m * N + n) + i) & 1)) p[m][n][i] = 0.0f;
}

template <int D>
__device__ __forceinline__ void forward(bf16* __restrict__ o, float* __restrict__ lse,
                                        const bf16* __restrict__ qkv,
                                        const int* __restrict__ cu_seqlens, int sequences,
                                        int heads, Band band, float scale,
                                        const Dropout& dropout) {
    using F = Forward<D>;
    constexpr int M = F::M, N = F::KEYS / 8, QUERIES = F::QUERIES, KEYS = F::KEYS;
    DYNAMIC_SHARED(shared);
    bf16* q_smem = reinterpret_cast<bf16*>(shared);       // [QUERIES, D]
    bf16* kv_smem = q_smem + QUERIES * STRIDE<D>;         // 2 stages of k and v [KEYS, D]

    // Late tiles first: under a causal mask they take longest.
    const Tile tile = find_tile<QUERIES>(cu_seqlens, sequences, gridDim.x - 1 - blockIdx.x);
    if (tile.start >= tile.length) return;
    const int head = blockIdx.y, width = heads * D;
    const size_t stride = 3 * width;
    const bf16* q_gmem = qkv + tile.first * stride + head * D;
    const KeyStages<D, KEYS, F::THREADS> keys = {kv_smem, q_gmem + width, stride, width,
                                                 tile.length};
    const int left = tile.length - tile.start;
    const int begin = max(tile.start - band.behind, 0) / KEYS * KEYS;
    const int end = min(tile.start + min(QUERIES, left) + band.ahead, tile.length);
    load_tile<D, QUERIES, F::THREADS>(q_smem, q_gmem + tile.start * stride, stride, left);
    keys.load(begin);

    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int row = tile.start + warp * M * 16;  // the warp's first query
    bf16* own_smem = q_smem + warp * M * 16 * STRIDE<D>;
    const unsigned mask_row = unsigned(tile.first + row) * heads + head;
    Running<M, D> run;
    for (int key = begin; key < end; key += KEYS) {
        ptx::cp_async_wait<0>();
        __syncthreads();
        if (key + KEYS < end) keys.load(key + KEYS);
        const Overlap seen = overlap<M * 16, KEYS>(row, key, band, tile.length, tile.length);
        if (!seen.any) continue;
        const unsigned kept = kept_of_tile<M, N, false>(dropout, mask_row, heads, key);
        float p[M][N][4];
        multiply_transposed<M, N, D>(p, own_smem, keys.k(key));
        if (!seen.all) mask(p, row, key, band, tile.length);
        run.softmax(p, scale * LOG2E);
        if (dropout.threshold != 0) drop(p, kept);
        multiply_add<M, N, D>(run.o, p, keys.v(key));
    }

#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float sum = quad_sum(run.sum[m][h]);
            const int i = row + m * 16 + h * 8 + lane / 4;
            if (i < tile.length && lane % 4 == 0)
                lse[size_t(tile.first + i) * heads + head] = run.top[m][h] * scale + logf(sum);
            const float factor = dropout.keep / sum;
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                run.o[m][n][2 * h] *= factor;
                run.o[m][n][2 * h + 1] *= factor;
            }
        }
    store_rows<M, D>(o + size_t(tile.first + row) * width + head * D, width, tile.length - row,
                     own_smem, run.o);
}

}  // namespace

// A block a query and head, as the maths reads. Grid: N + S, H; D <= 256 threads have an output.
extern "C" __global__ void __launch_bounds__(NAIVE_THREADS)
    attention_naive(bf16* o, float* lse, const bf16* qkv, const int* cu_seqlens, int sequences,
                    int heads, int head_dim, int behind, int ahead, float scale,
                    Dropout dropout) {
    begin_kernel();
    SHARED_ARRAY(float, p_smem, NAIVE_THREADS);
    SHARED_ARRAY(float, scratch_smem, NAIVE_THREADS / 32);
    const Tile row = find_tile<1>(cu_seqlens, sequences, blockIdx.x);
    if (row.start >= row.length) return;
    const int head = blockIdx.y, thread = threadIdx.x, width = heads * head_dim;
    const size_t stride = 3 * width, token = row.first + row.start;
    const bf16* k_gmem = qkv + row.first * stride + width + head * head_dim;
    const bf16* q_gmem = qkv + token * stride + head * head_dim;
    const auto score = [&](int j) { return dot(q_gmem, k_gmem + j * stride, head_dim) * scale; };
    const int begin = max(row.start - behind, 0), end = min(row.start + ahead + 1, row.length);

    float top = -INFINITY, sum = 0.0f;
    for (int j = begin + thread; j < end; j += NAIVE_THREADS) top = fmaxf(top, score(j));
    top = block_max<NAIVE_THREADS>(top, scratch_smem);
    for (int j = begin + thread; j < end; j += NAIVE_THREADS) sum += expf(score(j) - top);
    __syncthreads();
    const float log_sum = top + logf(block_sum<NAIVE_THREADS>(sum, scratch_smem));

    float out = 0.0f;
    for (int first = begin; first < end; first += NAIVE_THREADS) {
        const int j = first + thread, count = min(end - first, NAIVE_THREADS);
        __syncthreads();
        if (j < end)
            p_smem[thread] = expf(score(j) - log_sum) * factor(dropout, token * heads + head, j);
        __syncthreads();
        const bf16* v_gmem = k_gmem + width + first * stride + thread;
        for (int c = 0; c < count && thread < head_dim; c++)
            out += p_smem[c] * __bfloat162float(v_gmem[c * stride]);
    }
    if (thread < head_dim) o[token * width + head * head_dim + thread] = __float2bfloat16_rn(out);
    if (thread == 0) lse[token * heads + head] = log_sum;
}
EXPORT_KERNEL(attention_naive, attention_naive)

#define ATTENTION(NAME, D)                                                                       \
    extern "C" __global__ void __launch_bounds__(Forward<D>::THREADS, Forward<D>::BLOCKS)        \
        NAME(bf16* o, float* lse, const bf16* qkv, const int* cu_seqlens, int sequences,         \
             int heads, int behind, int ahead, float scale, Dropout dropout) {                   \
        begin_kernel();                                                                          \
        forward<D>(o, lse, qkv, cu_seqlens, sequences, heads, {behind, ahead}, scale, dropout);  \
    }                                                                                            \
    EXPORT_KERNEL(NAME, NAME)

ATTENTION(attention_16, 16)
ATTENTION(attention_32, 32)
ATTENTION(attention_48, 48)
ATTENTION(attention_64, 64)
ATTENTION(attention_80, 80)
ATTENTION(attention_96, 96)
ATTENTION(attention_128, 128)
ATTENTION(attention_256, 256)
