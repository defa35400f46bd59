// Dropout as an op of its own, where no other kernel can take it: y[i] = x[i] · keep(i).
//
// The mask is a pure function of (seed, step, site, i); see `Dropout` in common.cuh. Floor: 4 bytes
// an element, and 25 integer operations for its share of a Philox block, which on Hopper take about
// as long. Unmeasured on a GPU.
#include <common.cuh>

namespace {
constexpr int THREADS = 256;
}

// A thread an element.
extern "C" __global__ void dropout_naive(bf16* y, const bf16* x, Dropout dropout, int length) {
    size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= length) return;
    float factors[4];
    dropout.factors(i / 4, factors);
    y[i] = __float2bfloat16_rn(__bfloat162float(x[i]) * factors[i % 4]);
}
EXPORT_KERNEL(dropout_naive, dropout_naive)

// A thread eight elements: two blocks of the mask.
extern "C" __global__ void __launch_bounds__(THREADS)
    dropout(bf16* y, const bf16* x, Dropout dropout, int length) {
    size_t first = (size_t(blockIdx.x) * THREADS + threadIdx.x) * 8;
    if (first >= length) return;
    float factors[8];
    dropout.factors(first / 4, factors);
    dropout.factors(first / 4 + 1, factors + 4);
    if (first + 8 <= length) {
        float values[8];
        Vec8::load(x + first).to_floats(values);
        for (int i = 0; i < 8; i++) values[i] *= factors[i];
        Vec8::from_floats(values).store(y + first);
    } else {
        for (int i = 0; first + i < length; i++)
            y[first + i] = __float2bfloat16_rn(__bfloat162float(x[first + i]) * factors[i]);
    }
}
EXPORT_KERNEL(dropout, dropout)
