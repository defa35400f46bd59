// Cross-entropy of rows of logits z [rows, V], in place: logits become their own gradient.
//
//   nll = log Σ exp z − z[t],  hit = z[t] is the largest,  dz = (softmax(z) − onehot(t)) / labelled
// A target of −100 is ignored: no loss, gradient zero. src/ops/loss.rs has the reference.
//
// Floor: each logit read and written once. GPT-2 at 64k tokens: 65,536 × 50,304, 13.2 GB, 3.07 ms
// at 4.3 TB/s; two exponentials a logit, 6.6 G, are 1.8 ms of 132 × 16 special-function units at
// 1.7 GHz.
// Unmeasured on a GPU.
//
// A block takes a row. Its maximum and sum must be known before the first gradient, so a row is
// read twice, but from memory only once: where two rows fit a multiprocessor (V to 57,000 on an
// H100, to 24,000 on an RTX), cp.async brings each into shared memory at one go, and while one is
// on its way the other is computed; longer rows are read again, and come from the L2. Each thread
// reads back what it copied itself, in four parts, so the only barriers are those of the two
// reductions. A thread's maximum and sum are online: the sum is scaled when the maximum moves, at
// most once in eight logits.
//
// Two rows a multiprocessor are few: what a row waits for, the other must fill. So a logit has few
// instructions (an exponential is one multiplication-addition and one `ex2`), and 0.58 of the
// special-function units' rate is what binds after memory.
//
// Rows are taken last first: the product before has just written the last ones, which the L2 still
// holds, and the products after begin with the first, which are then in the L2. Results of rows go
// to memory, and one block adds them in an order fixed by their number.
//
// Rows are `stride` apart, a multiple of 8 that is at least V; their padding is overwritten.
#include <float.h>

#include <common.cuh>
#include <ptx/copy.cuh>
#include <ptx/math.cuh>

namespace {

constexpr int THREADS = 512, SUM_THREADS = 1024;
constexpr int IGNORE = -100;
constexpr float LOG2E = 1.44269504088896341f;

// exp(x), x ≤ 0, within 2 ulp and 1e-7 |x|.
__device__ __forceinline__ float exp_below(float x) { return ptx::exp2_approx(x * LOG2E); }

// The largest of some logits, and Σ exp(z − top).
struct Online {
    float top = -FLT_MAX / 2, total = 0;  // halved, as a multiple of it must be finite below

    __device__ __forceinline__ void add(const float (&z)[8]) {
        float new_top = top;
#pragma unroll
        for (int e = 0; e < 8; e++) new_top = fmaxf(new_top, z[e]);
        if (new_top > top) total *= exp_below(top - new_top);
        top = new_top;
        const float shift = -top * LOG2E;
#pragma unroll
        for (int e = 0; e < 8; e++) total += ptx::exp2_approx(fmaf(z[e], LOG2E, shift));
    }
};

// Eight logits from column `i` on; those beyond the last are -inf.
__device__ __forceinline__ void load(float (&z)[8], const bf16* from, int i, int v) {
    Vec8::load(from + i).to_float(z);
    if (i + 8 <= v) return;
#pragma unroll
    for (int e = 0; e < 8; e++)
        if (i + e >= v) z[e] = -INFINITY;
}

__device__ __forceinline__ void fill_zero(bf16* row, int v) {
    const Vec8 zeros{make_uint4(0, 0, 0, 0)};
    for (int i = threadIdx.x * 8; i < v; i += THREADS * 8) zeros.store(row + i);
}

// The weight of a row in a mean over [1] rows.
__device__ __forceinline__ float mean_of(const int* labelled) {
    return 1.0f / float(max(*labelled, 1));
}

// Adds a thread's logits from column `first` to before `end`.
__device__ __forceinline__ void add_columns(Online& sum, const bf16* z, int first, int end, int v) {
    float x[8];
#pragma unroll 1
    for (int i = first; i < end; i += THREADS * 8) {
        load(x, z, i, v);
        sum.add(x);
    }
}

// A row comes in PARTS parts of so many columns; the first are added up while the last travel.
constexpr int PARTS = 4;

__device__ __forceinline__ int part_of(int v) {
    return ceil_div(v, PARTS * THREADS * 8) * THREADS * 8;
}

__device__ __forceinline__ int end_of(int part, int v) { return min((part + 1) * part_of(v), v); }

// Adds the parts from PART on, each when it is there.
template <int PART>
__device__ __forceinline__ void add_parts(Online& sum, const bf16* z, int first, int v) {
    if constexpr (PART < PARTS) {
        ptx::cp_async_wait<PARTS - 1 - PART>();
        add_columns(sum, z, first + PART * part_of(v), end_of(PART, v), v);
        add_parts<PART + 1>(sum, z, first, v);
    }
}

// results [rows]: nll, hit. With `labelled` [1], the rows that the mean is over, logits become their
// gradient.
template <bool STAGED>
__device__ __forceinline__ void cross_entropy(float2* results, bf16* logits, const int* targets,
                                              int rows, int v, int stride, const int* labelled) {
    SHARED_ARRAY(float, tops, THREADS / 32);
    SHARED_ARRAY(float, totals, THREADS / 32);
    DYNAMIC_SHARED(smem);
    const bool train = labelled != nullptr;
    const int row = rows - 1 - blockIdx.x, target = targets[row];
    bf16* row_gmem = logits + size_t(row) * stride;
    if (target == IGNORE) {
        if (train) fill_zero(row_gmem, v);
        if (threadIdx.x == 0) results[row] = make_float2(0, 0);
        return;
    }
    const int first = threadIdx.x * 8;
    const bf16* z = row_gmem;
    if constexpr (STAGED) {
        bf16* row_smem = reinterpret_cast<bf16*>(smem);
#pragma unroll 1
        for (int part = 0; part < PARTS; part++) {
#pragma unroll 1
            for (int i = first + part * part_of(v); i < end_of(part, v); i += THREADS * 8)
                ptx::cp_async16(row_smem + i, row_gmem + i);  // maybe of the padding too
            ptx::cp_async_commit();
        }
        z = row_smem;
    }
    // Read by all before the barriers below, overwritten by one after.
    const float target_z = __bfloat162float(row_gmem[target]);

    Online mine;
    if constexpr (STAGED)
        add_parts<0>(mine, z, first, v);
    else
        add_columns(mine, z, first, v, v);
    float x[8];
    const float top = block_max<THREADS>(mine.top, tops);
    const float total = block_sum<THREADS>(mine.total * exp_below(mine.top - top), totals);
    if (threadIdx.x == 0) {
        const float nll = logf(total) + (top - target_z);
        results[row] = make_float2(nll, target_z == top ? 1.0f : 0.0f);
    }
    if (!train) return;

    // scale · exp(z − top) / total = 2^(z log2 e − shift)
    const float scale = mean_of(labelled), shift = fmaf(top, LOG2E, log2f(total / scale));
#pragma unroll 1
    for (int i = first; i < v; i += THREADS * 8) {
        load(x, z, i, v);
#pragma unroll
        for (int e = 0; e < 8; e++) x[e] = ptx::exp2_approx(fmaf(x[e], LOG2E, -shift));
        Vec8::from_float(x).store(row_gmem + i);
    }
    if (int(threadIdx.x) == target / 8 % THREADS)  // who stored it just now
        row_gmem[target] = __float2bfloat16_rn(
            ptx::exp2_approx(fmaf(target_z, LOG2E, -shift)) - scale);
}

}  // namespace

// Dynamic shared memory: the row, 2 V bytes rounded up to 16.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    cross_entropy_staged(float2* results, bf16* logits, const int* targets, int rows, int v,
                         int stride, const int* labelled) {
    begin_kernel();
    cross_entropy<true>(results, logits, targets, rows, v, stride, labelled);
}
EXPORT_KERNEL(cross_entropy_staged, cross_entropy_staged)

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    cross_entropy_reread(float2* results, bf16* logits, const int* targets, int rows, int v,
                         int stride, const int* labelled) {
    begin_kernel();
    cross_entropy<false>(results, logits, targets, rows, v, stride, labelled);
}
EXPORT_KERNEL(cross_entropy_reread, cross_entropy_reread)

// sums [3] += (Σ nll, correct, labelled); one block.
extern "C" __global__ void __launch_bounds__(SUM_THREADS)
    loss_sum(float* sums, const float2* results, const int* targets, int rows) {
    begin_kernel();
    SHARED_ARRAY(float, scratch, 3 * SUM_THREADS / 32);
    float nll = 0, hits = 0, labelled = 0;
    for (int row = threadIdx.x; row < rows; row += SUM_THREADS) {
        nll += results[row].x;
        hits += results[row].y;
        labelled += targets[row] == IGNORE ? 0.0f : 1.0f;
    }
    nll = block_sum<SUM_THREADS>(nll, scratch);
    hits = block_sum<SUM_THREADS>(hits, scratch + SUM_THREADS / 32);
    labelled = block_sum<SUM_THREADS>(labelled, scratch + 2 * SUM_THREADS / 32);
    if (threadIdx.x > 0) return;
    sums[0] += nll;
    sums[1] += hits;
    sums[2] += labelled;
}
EXPORT_KERNEL(loss_sum, loss_sum)

// ------------------------------------------------------------------ naive twins

// One thread a row. Rows may lie at any stride.
extern "C" __global__ void cross_entropy_naive(float2* results, bf16* logits, const int* targets,
                                               int rows, int v, int stride,
                                               const int* labelled) {
    begin_kernel();
    const bool train = labelled != nullptr;
    const float scale = train ? mean_of(labelled) : 0.0f;
    const int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    bf16* z = logits + size_t(row) * stride;
    const int target = targets[row];
    results[row] = make_float2(0, 0);
    if (target == IGNORE) {
        for (int i = 0; train && i < v; i++) z[i] = __float2bfloat16_rn(0.0f);
        return;
    }
    float top = -INFINITY, total = 0;
    for (int i = 0; i < v; i++) top = fmaxf(top, __bfloat162float(z[i]));
    for (int i = 0; i < v; i++) total += expf(__bfloat162float(z[i]) - top);
    const float target_z = __bfloat162float(z[target]);
    results[row] = make_float2(logf(total) + top - target_z, target_z == top ? 1.0f : 0.0f);
    for (int i = 0; train && i < v; i++) {
        const float p = expf(__bfloat162float(z[i]) - top) / total;
        z[i] = __float2bfloat16_rn(scale * p - (i == target ? scale : 0.0f));
    }
}
EXPORT_KERNEL(cross_entropy_naive, cross_entropy_naive)

// One thread.
extern "C" __global__ void loss_sum_naive(float* sums, const float2* results, const int* targets,
                                          int rows) {
    begin_kernel();
    for (int row = 0; row < rows; row++) {
        sums[0] += results[row].x;
        sums[1] += results[row].y;
        if (targets[row] != IGNORE) sums[2] += 1.0f;
    }
}
EXPORT_KERNEL(loss_sum_naive, loss_sum_naive)
