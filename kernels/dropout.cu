// Dropout as an op of its own, where no other kernel can take it: y[i] = x[i] · factor(i).
//
// The mask is a pure function of (seed, step, site, i); see `Dropout` in common.cuh. Floor: 4 bytes
// an element, and 25 integer operations for its share of a Philox block, which on Hopper take about
// as long. Unmeasured on a GPU.
#include <common.cuh>

namespace {

constexpr int THREADS = 256;

__device__ __forceinline__ float element(float4 factors, size_t i) {
    return i % 4 == 0 ? factors.x : i % 4 == 1 ? factors.y : i % 4 == 2 ? factors.z : factors.w;
}

}  // namespace

// A thread an element.
extern "C" __global__ void dropout_naive(bf16* y, const bf16* x, Dropout dropout, int length) {
    begin_kernel();
    size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size_t(length)) return;
    float factor = element(dropout_factors(dropout, i / 4), i);
    y[i] = __float2bfloat16_rn(__bfloat162float(x[i]) * factor);
}
EXPORT_KERNEL(dropout_naive, dropout_naive)

// A thread eight elements: two blocks of the mask.
extern "C" __global__ void __launch_bounds__(THREADS)
    dropout(bf16* y, const bf16* x, Dropout dropout, int length) {
    begin_kernel();
    size_t first = (size_t(blockIdx.x) * THREADS + threadIdx.x) * 8;
    if (first >= size_t(length)) return;
    float4 low = dropout_factors(dropout, first / 4), high = dropout_factors(dropout, first / 4 + 1);
    if (first + 8 <= size_t(length)) {
        float v[8];
        Vec8::load(x + first).to_float(v);
        v[0] *= low.x, v[1] *= low.y, v[2] *= low.z, v[3] *= low.w;
        v[4] *= high.x, v[5] *= high.y, v[6] *= high.z, v[7] *= high.w;
        Vec8::from_float(v).store(y + first);
    } else {
        for (size_t i = first; i < size_t(length); i++) {
            float factor = element(i < first + 4 ? low : high, i);
            y[i] = __float2bfloat16_rn(__bfloat162float(x[i]) * factor);
        }
    }
}
EXPORT_KERNEL(dropout, dropout)
