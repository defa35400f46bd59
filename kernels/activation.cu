// The backward of an activation that a product applied: dpre = dy ∘ act'(pre).
//
// The functions are in activation.cuh, their maths at the head of src/ops/activation.rs. Most
// activations, and all gates, are part of a product; this is for those whose gradient comes from
// elsewhere.
//
// Floor: 6 bytes an element; 9,830 rows of 768, a masked head's: 45 MB and 11 µs at 4.3 TB/s. That
// leaves about 40 instructions an element before the arithmetic would be the limit; GELU takes 20.
// Unmeasured on a GPU.
//
// A thread takes eight neighbouring elements, 16 bytes of each tensor; the loads are independent,
// so a multiprocessor has enough bytes under way at any occupancy. The activation is a template
// parameter: one kernel each, none carries the registers of another.
#include <activation.cuh>
#include <common.cuh>

namespace {

constexpr int THREADS = 256;

// The last thread takes the elements that fill no vector.
template <Activation A>
__device__ __forceinline__ void act_backward8(bf16* dpre, const bf16* dy, const bf16* pre,
                                              unsigned long long length) {
    size_t first = (size_t(blockIdx.x) * THREADS + threadIdx.x) * 8;
    if (first + 8 <= length) {
        float x[8], d[8];
        Vec8::load(pre + first).to_float(x);
        Vec8::load(dy + first).to_float(d);
#pragma unroll
        for (int i = 0; i < 8; i++) d[i] *= activation_slope<A>(x[i]);
        Vec8::from_float(d).store(dpre + first);
        return;
    }
#pragma unroll 1
    for (size_t i = first; i < length; i++) {
        float slope = activation_slope<A>(__bfloat162float(pre[i]));
        dpre[i] = __float2bfloat16_rn(__bfloat162float(dy[i]) * slope);
    }
}

}  // namespace

// One thread an element of dpre, dy and pre [length].
extern "C" __global__ void act_backward_naive(bf16* dpre, const bf16* dy, const bf16* pre,
                                              unsigned long long length, int activation) {
    begin_kernel();
    size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= length) return;
    ActivationAt act = activation_at(Activation(activation), __bfloat162float(pre[i]));
    dpre[i] = __float2bfloat16_rn(__bfloat162float(dy[i]) * act.slope);
}
EXPORT_KERNEL(act_backward_naive, act_backward_naive)

// One thread eight elements.
#define ACT_BACKWARD_KERNEL(name, A)                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS)                                    \
        name(bf16* dpre, const bf16* dy, const bf16* pre, unsigned long long length) {       \
        begin_kernel();                                                                      \
        act_backward8<A>(dpre, dy, pre, length);                                             \
    }                                                                                        \
    EXPORT_KERNEL(name, name)
ACT_BACKWARD_KERNEL(act_backward_gelu, Activation::GELU)
ACT_BACKWARD_KERNEL(act_backward_gelu_tanh, Activation::GELU_TANH)
ACT_BACKWARD_KERNEL(act_backward_silu, Activation::SILU)
ACT_BACKWARD_KERNEL(act_backward_tanh, Activation::TANH)
