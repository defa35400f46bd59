// The gate of a gated MLP, both ways, and the backward of an activation that a product applied.
//
// With [a; b] a row of pre [N, 2F]:
//   y = act(a) ∘ b;   da = dy ∘ b ∘ act'(a), db = dy ∘ act(a)
//   act_backward: dpre = dy ∘ act'(pre)
// The functions are in activation.cuh, their maths at the head of src/ops/activation.rs.
//
// Floor, bytes an element of y: 6 for the gate, 10 for its backward, 6 for act_backward. 65,536
// tokens, F = 2,048: 0.81 GB and 0.19 ms, 1.34 GB and 0.31 ms at 4.3 TB/s. That leaves about 40
// (70) instructions an element before the arithmetic would be the limit; GELU takes 25 (32) in all.
// Unmeasured on a GPU.
//
// A thread takes eight neighbouring elements, 16 bytes of each tensor; the loads are independent,
// so a multiprocessor has enough bytes under way at any occupancy. The activation is a template
// parameter: one kernel each, none carries the registers of another.
#include <activation.cuh>
#include <common.cuh>

namespace {

constexpr int THREADS = 256;

// Where a vector of eight elements lies: y [rows, inner], and a in pre [rows, 2 inner].
struct Place {
    size_t y, a;
};

__device__ __forceinline__ Place place_of(unsigned vector, int inner) {
    unsigned vectors = inner / 8;  // of a row of y
    size_t row = vector / vectors, column = vector % vectors * 8;
    return {row * inner + column, row * 2 * inner + column};
}

template <Activation A>
__device__ __forceinline__ void gate8(bf16* y, const bf16* pre, int inner, int rows) {
    unsigned vector = blockIdx.x * THREADS + threadIdx.x;
    if (vector >= unsigned(rows) * (inner / 8)) return;
    Place at = place_of(vector, inner);
    float a[8], b[8];
    Vec8::load(pre + at.a).to_float(a);
    Vec8::load(pre + at.a + inner).to_float(b);
#pragma unroll
    for (int i = 0; i < 8; i++) a[i] = activate<A>(a[i]) * b[i];
    Vec8::from_float(a).store(y + at.y);
}

template <Activation A>
__device__ __forceinline__ void gate_backward8(bf16* dpre, const bf16* dy, const bf16* pre,
                                               int inner, int rows) {
    unsigned vector = blockIdx.x * THREADS + threadIdx.x;
    if (vector >= unsigned(rows) * (inner / 8)) return;
    Place at = place_of(vector, inner);
    float a[8], b[8], d[8];
    Vec8::load(pre + at.a).to_float(a);
    Vec8::load(pre + at.a + inner).to_float(b);
    Vec8::load(dy + at.y).to_float(d);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        ActivationAt act = activation_at<A>(a[i]);
        a[i] = d[i] * b[i] * act.slope;
        b[i] = d[i] * act.value;
    }
    Vec8::from_float(a).store(dpre + at.a);
    Vec8::from_float(b).store(dpre + at.a + inner);
}

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

// One thread an element of y [rows, inner]; pre [rows, 2 inner].
extern "C" __global__ void gate_naive(bf16* y, const bf16* pre, int inner, int rows,
                                      int activation) {
    begin_kernel();
    size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size_t(rows) * inner) return;
    const bf16* a = pre + i / inner * 2 * inner + i % inner;
    ActivationAt act = activation_at(Activation(activation), __bfloat162float(a[0]));
    y[i] = __float2bfloat16_rn(act.value * __bfloat162float(a[inner]));
}
EXPORT_KERNEL(gate_naive, gate_naive)

// One thread an element of dy [rows, inner]; dpre and pre [rows, 2 inner].
extern "C" __global__ void gate_backward_naive(bf16* dpre, const bf16* dy, const bf16* pre,
                                               int inner, int rows, int activation) {
    begin_kernel();
    size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size_t(rows) * inner) return;
    size_t a = i / inner * 2 * inner + i % inner;
    ActivationAt act = activation_at(Activation(activation), __bfloat162float(pre[a]));
    float d = __bfloat162float(dy[i]);
    dpre[a] = __float2bfloat16_rn(d * __bfloat162float(pre[a + inner]) * act.slope);
    dpre[a + inner] = __float2bfloat16_rn(d * act.value);
}
EXPORT_KERNEL(gate_backward_naive, gate_backward_naive)

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
#define GATE_KERNEL(name, A)                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                                    \
        name(bf16* y, const bf16* pre, int inner, int rows) {                                \
        begin_kernel();                                                                      \
        gate8<A>(y, pre, inner, rows);                                                       \
    }                                                                                        \
    EXPORT_KERNEL(name, name)
GATE_KERNEL(gate_gelu, Activation::GELU)
GATE_KERNEL(gate_gelu_tanh, Activation::GELU_TANH)
GATE_KERNEL(gate_silu, Activation::SILU)
GATE_KERNEL(gate_tanh, Activation::TANH)

#define GATE_BACKWARD_KERNEL(name, A)                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS)                                    \
        name(bf16* dpre, const bf16* dy, const bf16* pre, int inner, int rows) {             \
        begin_kernel();                                                                      \
        gate_backward8<A>(dpre, dy, pre, inner, rows);                                       \
    }                                                                                        \
    EXPORT_KERNEL(name, name)
GATE_BACKWARD_KERNEL(gate_backward_gelu, Activation::GELU)
GATE_BACKWARD_KERNEL(gate_backward_gelu_tanh, Activation::GELU_TANH)
GATE_BACKWARD_KERNEL(gate_backward_silu, Activation::SILU)
GATE_BACKWARD_KERNEL(gate_backward_tanh, Activation::TANH)

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
