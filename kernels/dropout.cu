// Dropout as an op of its own, where no other kernel can take it: y[i] = x[i] · factor(i).
//
// The mask is a pure function of (seed, step, site, i); see `Dropout` in common.cuh. Floor: 4 bytes
// an element, 0.047 ms for 65,536 × 768 at 4.3 TB/s. In that time a multiprocessor issues 27
// instructions an element, and the mask alone takes 14 of them; so memory and arithmetic must run
// beside one another, and what is not the mask must be short. Unmeasured on a GPU.
//
// A thread takes two vectors, a block apart, whose loads are under way before the mask is drawn.
#include <dropout.cuh>

namespace {

constexpr int THREADS = 256;
constexpr int VECTORS = 2;  // that a thread takes

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

// A thread two vectors of eight elements, each two blocks of the mask.
extern "C" __global__ void __launch_bounds__(THREADS)
    dropout(bf16* y, const bf16* x, Dropout dropout, int length) {
    begin_kernel();
    size_t place = (size_t(blockIdx.x) * VECTORS * THREADS + threadIdx.x) * 8, end = length;
    Vec8 held[VECTORS];
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        size_t first = place + v * THREADS * 8;
        if (first + 8 <= end) held[v] = Vec8::load(x + first);
    }
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        size_t first = place + v * THREADS * 8;
        if (first >= end) return;
        float z[8];
        if (first + 8 <= end) {
            held[v].to_float(z);
        } else {
#pragma unroll
            for (int i = 0; i < 8; i++)
                z[i] = first + i < end ? __bfloat162float(x[first + i]) : 0.0f;
        }
        drop8(z, dropout, first);
        if (first + 8 <= end) {
            Vec8::from_float(z).store(y + first);
        } else {
#pragma unroll
            for (int i = 0; i < 8; i++)
                if (first + i < end) y[first + i] = __float2bfloat16_rn(z[i]);
        }
    }
}
EXPORT_KERNEL(dropout, dropout)
