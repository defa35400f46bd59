// Means over sequences, and the losses of task heads, whose rows have few logits: a class a row, any
// of some labels, numbers, the ends of a span. The maths is at the head of src/ops/task/mod.rs, which
// is the reference.
//
// Floor: mean_rows reads [N, C] once, 65,536 × 768: 101 MB, 23 µs at 4.3 TB/s, and so does its
// backward write it. Losses have a few bytes a row. Unmeasured on a GPU.
//
// These are next to nothing in a step, so each is the plain kernel: for means a thread takes two
// columns of a sequence, and for losses a warp a row, or for spans a sequence. Results of rows go to
// memory, and one block adds them in an order fixed by their number: same launch, same bits.
#include <common.cuh>
#include <ptx/math.cuh>

namespace {

constexpr int THREADS = 256;
constexpr int IGNORE = -100;

struct Result {
    float loss, right, weight;
};

__device__ __forceinline__ int warp_of_grid() {
    return (blockIdx.x * blockDim.x + threadIdx.x) / 32;
}

__device__ __forceinline__ bool leads() { return threadIdx.x % 32 == 0; }

// The logits z[0], z[stride], … of a softmax, for a warp.
struct Softmax {
    bf16* z;
    int n, stride;
    float top, total;

    __device__ Softmax(bf16* z, int n, int stride) : z(z), n(n), stride(stride) {
        const int lane = threadIdx.x % 32;
        top = -INFINITY, total = 0;
        for (int i = lane; i < n; i += 32) top = fmaxf(top, at(i));
        top = warp_max(top);
        for (int i = lane; i < n; i += 32) total += expf(at(i) - top);
        total = warp_sum(total);
    }
    __device__ float at(int i) const { return __bfloat162float(z[size_t(i) * stride]); }
    __device__ float nll(int t) const { return logf(total) + top - at(t); }
    __device__ bool hits(int t) const { return at(t) == top; }

    // They become factor · (softmax − onehot of t).
    __device__ void slope(int t, float factor) const {
        for (int i = threadIdx.x % 32; i < n; i += 32) {
            const float p = expf(at(i) - top) / total;
            z[size_t(i) * stride] = __float2bfloat16_rn((p - (i == t ? 1.0f : 0.0f)) * factor);
        }
    }
    __device__ static void clear(bf16* z, int n) {
        for (int i = threadIdx.x % 32; i < n; i += 32) z[i] = __float2bfloat16_rn(0.0f);
    }
};

}  // namespace

// ------------------------------------------------------------------ means

// y [S, C], C even; blockIdx.y is the sequence.
extern "C" __global__ void __launch_bounds__(THREADS)
    mean_rows(bf16* y, const bf16* x, const int* cu_seqlens, int width) {
    begin_kernel();
    const int column = (blockIdx.x * THREADS + threadIdx.x) * 2, s = blockIdx.y;
    if (column >= width) return;
    const int first = cu_seqlens[s], end = cu_seqlens[s + 1];
    float2 sum = make_float2(0.0f, 0.0f);
#pragma unroll 4
    for (int row = first; row < end; row++) {
        const float2 pair = __bfloat1622float2(
            *reinterpret_cast<const __nv_bfloat162*>(x + size_t(row) * width + column));
        sum.x += pair.x;
        sum.y += pair.y;
    }
    const float share = 1.0f / float(max(end - first, 1));
    *reinterpret_cast<uint32_t*>(y + size_t(s) * width + column) =
        pack_bf16(sum.x * share, sum.y * share);
}
EXPORT_KERNEL(mean_rows, mean_rows)

// dx [N, C]
extern "C" __global__ void __launch_bounds__(THREADS)
    mean_rows_backward(bf16* dx, const bf16* dy, const int* cu_seqlens, int width) {
    begin_kernel();
    const int column = (blockIdx.x * THREADS + threadIdx.x) * 2, s = blockIdx.y;
    if (column >= width) return;
    const int first = cu_seqlens[s], end = cu_seqlens[s + 1];
    const float share = 1.0f / float(max(end - first, 1));
    const float2 pair = __bfloat1622float2(
        *reinterpret_cast<const __nv_bfloat162*>(dy + size_t(s) * width + column));
    const uint32_t part = pack_bf16(pair.x * share, pair.y * share);
    for (int row = first; row < end; row++)
        *reinterpret_cast<uint32_t*>(dx + size_t(row) * width + column) = part;
}
EXPORT_KERNEL(mean_rows_backward, mean_rows_backward)

// ------------------------------------------------------------------ losses
// results [rows]; with `total` [1], logits become the gradient of Σ loss / total.

extern "C" __global__ void __launch_bounds__(THREADS)
    classes_loss(Result* results, bf16* logits, const int* targets, const float* weights,
                 int rows, int outputs, const float* total) {
    begin_kernel();
    const int row = warp_of_grid();
    if (row >= rows) return;
    bf16* z = logits + size_t(row) * outputs;
    const int target = targets[row];
    if (target == IGNORE) {
        if (total != nullptr) Softmax::clear(z, outputs);
        if (leads()) results[row] = {0.0f, 0.0f, 0.0f};
        return;
    }
    const Softmax softmax(z, outputs, 1);
    const float weight = weights[target];
    if (leads())
        results[row] = {softmax.nll(target) * weight, softmax.hits(target) ? weight : 0.0f, weight};
    __syncwarp();
    if (total != nullptr) softmax.slope(target, weight / *total);
}
EXPORT_KERNEL(classes_loss, classes_loss)

extern "C" __global__ void __launch_bounds__(THREADS)
    flags_loss(Result* results, bf16* logits, const float* targets, const float* weights,
               int rows, int outputs, const float* total) {
    begin_kernel();
    const int row = warp_of_grid();
    if (row >= rows) return;
    bf16* z = logits + size_t(row) * outputs;
    targets += size_t(row) * outputs;
    const float share = 1.0f / outputs;
    float loss = 0.0f, wrong = 0.0f;
    for (int k = threadIdx.x % 32; k < outputs; k += 32) {
        const float x = __bfloat162float(z[k]), y = targets[k], w = weights[k];
        const float e = expf(-fabsf(x)), softplus = fmaxf(x, 0.0f) + log1pf(e);
        loss += (w * y * (softplus - x) + (1.0f - y) * softplus) * share;
        if ((x > 0.0f) != (y > 0.5f)) wrong = 1.0f;
        if (total == nullptr) continue;
        const float p = (x > 0.0f ? 1.0f : e) / (1.0f + e);
        z[k] = __float2bfloat16_rn(((1.0f - y) * p - w * y * (1.0f - p)) * share / *total);
    }
    loss = warp_sum(loss);
    wrong = warp_max(wrong);
    if (leads()) results[row] = {loss, 1.0f - wrong, 1.0f};
}
EXPORT_KERNEL(flags_loss, flags_loss)

extern "C" __global__ void __launch_bounds__(THREADS)
    values_loss(Result* results, bf16* logits, const float* targets, int rows, int outputs,
                const float* total) {
    begin_kernel();
    const int row = warp_of_grid();
    if (row >= rows) return;
    bf16* z = logits + size_t(row) * outputs;
    targets += size_t(row) * outputs;
    const float share = 1.0f / outputs;
    float loss = 0.0f;
    for (int k = threadIdx.x % 32; k < outputs; k += 32) {
        const float off = __bfloat162float(z[k]) - targets[k];
        loss += off * off * share;
        if (total != nullptr) z[k] = __float2bfloat16_rn(2.0f * off * share / *total);
    }
    loss = warp_sum(loss);
    if (leads()) results[row] = {loss, 0.0f, 1.0f};
}
EXPORT_KERNEL(values_loss, values_loss)

// targets [S, 2], results [S].
extern "C" __global__ void __launch_bounds__(THREADS)
    spans_loss(Result* results, bf16* logits, const int* targets, const int* cu_seqlens,
               int sequences, const float* total) {
    begin_kernel();
    const int s = warp_of_grid();
    if (s >= sequences) return;
    const int first = cu_seqlens[s], length = cu_seqlens[s + 1] - first;
    bf16* z = logits + size_t(first) * 2;
    const int ends[2] = {targets[2 * s], targets[2 * s + 1]};
    const auto inside = [&](int end) { return end >= 0 && end < length; };
    if (!inside(ends[0]) || !inside(ends[1])) {
        if (total != nullptr) Softmax::clear(z, 2 * length);
        if (leads()) results[s] = {0.0f, 0.0f, 0.0f};
        return;
    }
    Result result = {0.0f, 1.0f, 1.0f};
#pragma unroll
    for (int end = 0; end < 2; end++) {
        const Softmax softmax(z + end, length, 2);
        result.loss += 0.5f * softmax.nll(ends[end]);
        if (!softmax.hits(ends[end])) result.right = 0.0f;
        __syncwarp();
        if (total != nullptr) softmax.slope(ends[end], 0.5f / *total);
    }
    if (leads()) results[s] = result;
}
EXPORT_KERNEL(spans_loss, spans_loss)

// sums [3] += results [rows]; one block.
extern "C" __global__ void __launch_bounds__(THREADS)
    task_sum(float* sums, const Result* results, int rows) {
    begin_kernel();
    SHARED_ARRAY(float, scratch, 3 * THREADS / 32);
    Result sum = {0.0f, 0.0f, 0.0f};
    for (int row = threadIdx.x; row < rows; row += THREADS) {
        sum.loss += results[row].loss;
        sum.right += results[row].right;
        sum.weight += results[row].weight;
    }
    sum.loss = block_sum<THREADS>(sum.loss, scratch);
    sum.right = block_sum<THREADS>(sum.right, scratch + THREADS / 32);
    sum.weight = block_sum<THREADS>(sum.weight, scratch + 2 * THREADS / 32);
    if (threadIdx.x > 0) return;
    sums[0] += sum.loss;
    sums[1] += sum.right;
    sums[2] += sum.weight;
}
EXPORT_KERNEL(task_sum, task_sum)
