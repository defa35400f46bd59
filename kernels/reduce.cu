// Judging a step: the norm of its gradient, and whether it and the loss are finite.
//
//   control [4]: norm = √Σ g², finite (1 or 0), steps applied, steps skipped
// Floor: one pass over the gradients, 4 bytes an element: 124M parameters, 0.12 ms at 4.3 TB/s.
// Unmeasured on a GPU.
//
// Squares are summed in f32 within a thread's vector and in f64 across, in an order fixed by the
// size alone: blocks take equal shares in turn, and one block adds what they leave. Nothing is
// written, so loads alone must fill memory: a thread has four under way, and the blocks are as many
// as an H200 holds at once, eight on each of 132 multiprocessors.
#include <common.cuh>

namespace {

constexpr int THREADS = 256;
constexpr int UNDER_WAY = 4;  // vectors that a thread loads at a time

// Sums `value` over the block in a fixed order; thread 0 has it.
__device__ double block_sum(double value) {
    SHARED_ARRAY(double, partial, THREADS);
    partial[threadIdx.x] = value;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (int(threadIdx.x) < half) partial[threadIdx.x] += partial[threadIdx.x + half];
        __syncthreads();
    }
    return partial[0];
}

// Writes the verdict on a step whose gradient has this norm, and counts the step.
__device__ void conclude(float* control, float norm, float loss) {
    bool finite = isfinite(norm) && isfinite(loss);
    control[0] = norm;
    control[1] = finite ? 1.0f : 0.0f;
    control[finite ? 2 : 3] += 1.0f;
}

}  // namespace

// One thread, as the maths reads.
extern "C" __global__ void judge_naive(float* control, const float* grads, const float* sums,
                                       unsigned long long length) {
    begin_kernel();
    double total = 0;
    for (size_t i = 0; i < length; i++) total += double(grads[i]) * grads[i];
    conclude(control, float(sqrt(total)), sums[0]);
}
EXPORT_KERNEL(judge_naive, judge_naive)

// partials [gridDim.x]: each block's share of Σ g².
extern "C" __global__ void __launch_bounds__(THREADS)
    square_sums(double* partials, const float* grads, unsigned long long length) {
    begin_kernel();
    double total = 0;
    size_t stride = size_t(gridDim.x) * THREADS;
    size_t thread = size_t(blockIdx.x) * THREADS + threadIdx.x;
    const float4* vectors = reinterpret_cast<const float4*>(grads);
    for (size_t i = thread; i < length / 4; i += UNDER_WAY * stride) {
        float4 g[UNDER_WAY];
#pragma unroll
        for (int j = 0; j < UNDER_WAY; j++)
            g[j] = i + j * stride < length / 4 ? vectors[i + j * stride] : make_float4(0, 0, 0, 0);
#pragma unroll
        for (int j = 0; j < UNDER_WAY; j++)
            total += g[j].x * g[j].x + g[j].y * g[j].y + g[j].z * g[j].z + g[j].w * g[j].w;
    }
    size_t tail = length / 4 * 4 + thread;
    if (tail < length) total += double(grads[tail]) * grads[tail];
    total = block_sum(total);
    if (threadIdx.x == 0) partials[blockIdx.x] = total;
}
EXPORT_KERNEL(square_sums, square_sums)

// One block: adds `count` partials and concludes.
extern "C" __global__ void __launch_bounds__(THREADS)
    judge(float* control, const double* partials, const float* sums, int count) {
    begin_kernel();
    double total = 0;
    for (int i = threadIdx.x; i < count; i += THREADS) total += partials[i];
    total = block_sum(total);
    if (threadIdx.x == 0) conclude(control, float(sqrt(total)), sums[0]);
}
EXPORT_KERNEL(judge, judge)
