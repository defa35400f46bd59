// Attention of one new token a sequence over kept keys and values, and the keeping of them. The maths
// and the cache's layout are at the head of src/ops/cache/mod.rs, which is the reference.
//
// Floor: k and v of every token that is seen, once. 64 sequences of 512 tokens, 12 heads of 64:
// 101 MB, 23 µs at 4.3 TB/s; two products of 4 C operations a token are nothing beside it.
// Unmeasured on a GPU.
//
// A block takes PART tokens of one head of one sequence, and a group of lanes a token at a time, each
// lane eight columns: 16 bytes of k and of v, so that a head's row is read in whole sectors. UNROLL
// tokens a group are on their way at once: 128 bytes a lane, 16 kB a block. The rows of the cache
// that tokens lie in come first, and are four bytes to the 4 D of k and v. A group keeps its own
// running softmax; groups, warps and then parts are joined in an order fixed by their numbers alone,
// so a sequence's result does not depend on what is beside it: same sequence, same bits.
#include "attention.cuh"

using namespace attention;

namespace {

constexpr int THREADS = 128, WARPS = THREADS / 32;
constexpr int PART = 128;
constexpr int UNROLL = 4;

// How a head of width D lies over the lanes of a warp.
template <int D>
struct Lanes {
    // Lanes a token: a power of two, so that some have no column where D / 8 is none.
    static constexpr int GROUP = D <= 16 ? 2 : D <= 32 ? 4 : D <= 64 ? 8 : D <= 128 ? 16 : 32;
    static constexpr int TOKENS = 32 / GROUP;       // of a warp at a time
    static constexpr int STEP = WARPS * TOKENS;     // of a block
    static_assert(GROUP * 8 >= D, "every column has a lane");
};

// The softmax over some tokens, and eight columns of the values' sum.
struct Running {
    float top = -INFINITY;  // the largest score
    float sum = 0.0f;       // Σ exp2(score − top)
    float out[8] = {};      // Σ exp2(score − top) v

    // All that was summed is relative to `to` from now on, which is no smaller; −∞: there is nothing.
    __device__ __forceinline__ void raise(float to) {
        const float shrink = ptx::exp2_approx(top - finite(to));
        top = to;
        sum *= shrink;
#pragma unroll
        for (int c = 0; c < 8; c++) out[c] *= shrink;
    }
    __device__ __forceinline__ static float finite(float top) {
        return top == -INFINITY ? 0.0f : top;
    }

    // Joins the lanes whose numbers differ in `bit`; both have the result.
    __device__ __forceinline__ void join(int bit) {
        raise(fmaxf(top, __shfl_xor_sync(ALL_LANES, top, bit)));
        sum += __shfl_xor_sync(ALL_LANES, sum, bit);
#pragma unroll
        for (int c = 0; c < 8; c++) out[c] += __shfl_xor_sync(ALL_LANES, out[c], bit);
    }
};

// sums [S H, parts, D + 2]: out, top and sum of each part, where there are several.
template <int D>
__device__ __forceinline__ void attend(bf16* __restrict__ o, float* __restrict__ sums,
                                       const bf16* __restrict__ qkv,
                                       const bf16* __restrict__ cache,
                                       const int* __restrict__ rows,
                                       const int* __restrict__ lengths, int stride, int heads,
                                       int behind, float scale) {
    using L = Lanes<D>;
    SHARED_ARRAY(float, out_smem, WARPS * D);
    SHARED_ARRAY(float, top_smem, WARPS);
    SHARED_ARRAY(float, sum_smem, WARPS);
    const int s = blockIdx.x / heads, head = blockIdx.x % heads, width = heads * D;
    const int length = lengths[s];
    const int begin = max(length - 1 - behind, 0) + blockIdx.y * PART;
    const int end = min(begin + PART, length);
    if (begin >= end) return;

    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int group = lane / L::GROUP, column = lane % L::GROUP * 8;
    const bool has_column = D % (L::GROUP * 8) == 0 || column < D;
    const Vec8 none = {make_uint4(0, 0, 0, 0)};
    float q[8];
    const bf16* q_gmem = qkv + size_t(s) * 3 * width + head * D + column;
    (has_column ? Vec8::load(q_gmem) : none).to_float(q);
#pragma unroll
    for (int c = 0; c < 8; c++) q[c] *= scale * LOG2E;
    const int* own_rows = rows + size_t(s) * stride;
    const bf16* k_gmem = cache + head * D + column;

    Running run;
    for (int first = begin + warp * L::TOKENS; first < end; first += UNROLL * L::STEP) {
        Vec8 k[UNROLL], v[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            // Beyond the part its last token is read again, and counts for nothing.
            const int row = own_rows[min(first + u * L::STEP + group, end - 1)];
            const bf16* at = k_gmem + size_t(row) * 2 * width;
            k[u] = has_column ? Vec8::load(at) : none;
            v[u] = has_column ? Vec8::load(at + width) : none;
        }
        float score[UNROLL], top = run.top;
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            float x[8], dot = 0.0f;
            k[u].to_float(x);
#pragma unroll
            for (int c = 0; c < 8; c++) dot = fmaf(q[c], x[c], dot);
#pragma unroll
            for (int bit = L::GROUP / 2; bit; bit /= 2) dot += __shfl_xor_sync(ALL_LANES, dot, bit);
            score[u] = first + u * L::STEP + group < end ? dot : -INFINITY;
            top = fmaxf(top, score[u]);
        }
        run.raise(top);
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            const float p = ptx::exp2_approx(score[u] - Running::finite(top));
            float x[8];
            v[u].to_float(x);
            run.sum += p;
#pragma unroll
            for (int c = 0; c < 8; c++) run.out[c] = fmaf(p, x[c], run.out[c]);
        }
    }
#pragma unroll
    for (int bit = L::GROUP; bit < 32; bit *= 2) run.join(bit);
    if (group == 0 && has_column) {
#pragma unroll
        for (int c = 0; c < 8; c++) out_smem[warp * D + column + c] = run.out[c];
    }
    if (lane == 0) {
        top_smem[warp] = run.top;
        sum_smem[warp] = run.sum;
    }
    __syncthreads();

    float top = top_smem[0];
#pragma unroll
    for (int w = 1; w < WARPS; w++) top = fmaxf(top, top_smem[w]);
    float* own = sums + (size_t(blockIdx.x) * gridDim.y + blockIdx.y) * (D + 2);
    for (int c = threadIdx.x; c < D; c += THREADS) {
        float sum = 0.0f, out = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            const float factor = ptx::exp2_approx(top_smem[w] - top);
            sum += sum_smem[w] * factor;
            out += out_smem[w * D + c] * factor;
        }
        if (gridDim.y == 1) {
            o[size_t(s) * width + head * D + c] = __float2bfloat16_rn(out / sum);
            continue;
        }
        own[c] = out;
        if (c == 0) own[D] = top, own[D + 1] = sum;
    }
}

}  // namespace

// cache [R, 2C] rows[i] = k and v of row i of qkv [count, 3C]; a thread eight elements.
extern "C" __global__ void __launch_bounds__(THREADS)
    keep(bf16* cache, const bf16* qkv, const int* rows, int width, int count) {
    begin_kernel();
    const size_t i = (size_t(blockIdx.x) * THREADS + threadIdx.x) * 8, kept = 2 * width;
    if (i >= count * kept) return;
    const size_t token = i / kept, column = i % kept;
    if (rows[token] < 0) return;
    Vec8::load(qkv + token * 3 * width + width + column).store(cache + rows[token] * kept + column);
}
EXPORT_KERNEL(keep, keep)

// A block a new token and head, as the maths reads. Grid: S H; D <= 256 threads have an output.
extern "C" __global__ void __launch_bounds__(NAIVE_THREADS)
    attend_naive(bf16* o, const bf16* qkv, const bf16* cache, const int* rows, const int* lengths,
                 int head_dim, int stride, int heads, int behind, float scale) {
    begin_kernel();
    SHARED_ARRAY(float, p_smem, NAIVE_THREADS);
    SHARED_ARRAY(float, scratch_smem, NAIVE_THREADS / 32);
    const int s = blockIdx.x / heads, head = blockIdx.x % heads, thread = threadIdx.x;
    const int width = heads * head_dim, end = lengths[s], begin = max(end - 1 - behind, 0);
    const int* own_rows = rows + size_t(s) * stride;
    const bf16* q_gmem = qkv + size_t(s) * 3 * width + head * head_dim;
    const auto key = [&](int j) {
        return cache + size_t(own_rows[j]) * 2 * width + head * head_dim;
    };
    const auto score = [&](int j) { return dot(q_gmem, key(j), head_dim) * scale; };

    float top = -INFINITY, sum = 0.0f, out = 0.0f;
    for (int j = begin + thread; j < end; j += NAIVE_THREADS) top = fmaxf(top, score(j));
    top = block_max<NAIVE_THREADS>(top, scratch_smem);
    for (int j = begin + thread; j < end; j += NAIVE_THREADS) sum += expf(score(j) - top);
    __syncthreads();
    sum = block_sum<NAIVE_THREADS>(sum, scratch_smem);
    for (int first = begin; first < end; first += NAIVE_THREADS) {
        __syncthreads();
        if (first + thread < end) p_smem[thread] = expf(score(first + thread) - top);
        __syncthreads();
        for (int j = first; j < min(first + NAIVE_THREADS, end) && thread < head_dim; j++)
            out += p_smem[j - first] * __bfloat162float(key(j)[width + thread]);
    }
    if (thread < head_dim)
        o[size_t(s) * width + head * head_dim + thread] = __float2bfloat16_rn(out / sum);
}
EXPORT_KERNEL(attend_naive, attend_naive)

// o from what the blocks of `parts` parts left; `all` is S H. A thread a column.
extern "C" __global__ void __launch_bounds__(THREADS)
    attend_join(bf16* o, const float* sums, const int* lengths, int all, int heads, int head_dim,
                int behind, int parts) {
    begin_kernel();
    const int i = blockIdx.x * THREADS + threadIdx.x, block = i / head_dim;
    if (block >= all) return;
    const int seen = min(lengths[block / heads] - 1, behind) + 1;
    const float* own = sums + size_t(block) * parts * (head_dim + 2);
    float top = -INFINITY, sum = 0.0f, out = 0.0f;
    for (int p = 0; p < ceil_div(seen, PART); p++)
        top = fmaxf(top, own[p * (head_dim + 2) + head_dim]);
    for (int p = 0; p < ceil_div(seen, PART); p++) {
        const float* part = own + p * (head_dim + 2);
        const float factor = ptx::exp2_approx(part[head_dim] - top);
        sum += part[head_dim + 1] * factor;
        out += part[i % head_dim] * factor;
    }
    o[i] = __float2bfloat16_rn(out / sum);
}
EXPORT_KERNEL(attend_join, attend_join)

#define ATTEND(NAME, D)                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS, 4)                                     \
        NAME(bf16* o, float* sums, const bf16* qkv, const bf16* cache, const int* rows,          \
             const int* lengths, int stride, int heads, int behind, float scale) {               \
        begin_kernel();                                                                          \
        attend<D>(o, sums, qkv, cache, rows, lengths, stride, heads, behind, scale);             \
    }                                                                                            \
    EXPORT_KERNEL(NAME, NAME)

ATTEND(attend_16, 16)
ATTEND(attend_32, 32)
ATTEND(attend_48, 48)
ATTEND(attend_64, 64)
ATTEND(attend_80, 80)
ATTEND(attend_96, 96)
ATTEND(attend_128, 128)
ATTEND(attend_256, 256)
