// What is left to do around a product of cuBLASLt (`--gemm cublaslt`), which multiplies and no more:
//
//   y [N, n] = b           library_bias, and then y += x Wᵀ: a biased result is rounded once
//   y = act(pre)           library_act
//   y = act(a) ∘ g, [a, g] = pre [N, 2 F]   library_gate
//   dpre = [d ∘ g ∘ act'(a), d ∘ act(a)]    library_gate_backward, after d = dy W
//   db [n] += Σ dy over rows   library_db leaves partial sums, linear_dw_sum adds them in order
// The gradient through an activation is activation.cu's. Our own products do all of this on their
// way out; here it is there to measure and to check them, so each is the plain kernel.
//
// Floor, bytes an element of y, d or dy: 2, 4, 6, 10 and 2. 65,536 rows of 3,072: 0.09, 0.19, 0.28,
// 0.47 and 0.09 ms at 4.3 TB/s.
// Threads take one element, 64 bytes a warp. Unmeasured on a GPU.
#include <activation.cuh>
#include <common.cuh>

// One thread an element of y [rows, n], whose rows are `stride` apart.
extern "C" __global__ void library_bias(bf16* y, const bf16* b, int rows, int n, int stride) {
    begin_kernel();
    const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const int row = int(i / n), column = int(i % n);
    if (row < rows) y[size_t(row) * stride + column] = b[column];
}
EXPORT_KERNEL(library_bias, library_bias)

// One thread an element of y and pre [length].
extern "C" __global__ void library_act(bf16* y, const bf16* pre, unsigned long long length,
                                       int activation) {
    begin_kernel();
    const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= length) return;
    const float x = __bfloat162float(pre[i]);
    y[i] = __float2bfloat16_rn(activation_at(Activation(activation), x).value);
}
EXPORT_KERNEL(library_act, library_act)

// One thread an element of y [rows, inner]; pre [rows, 2 inner].
extern "C" __global__ void library_gate(bf16* y, const bf16* pre, int rows, int inner,
                                        int activation) {
    begin_kernel();
    const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t row = i / inner, column = i % inner;
    if (row >= size_t(rows)) return;
    pre += row * 2 * inner + column;
    const float a = __bfloat162float(pre[0]), g = __bfloat162float(pre[inner]);
    y[i] = __float2bfloat16_rn(activation_at(Activation(activation), a).value * g);
}
EXPORT_KERNEL(library_gate, library_gate)

// One thread an element of d [rows, inner]; dpre and pre [rows, 2 inner].
extern "C" __global__ void library_gate_backward(bf16* dpre, const bf16* d, const bf16* pre,
                                                 int rows, int inner, int activation) {
    begin_kernel();
    const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t row = i / inner, column = i % inner;
    if (row >= size_t(rows)) return;
    const size_t pair = row * 2 * inner + column;
    const float a = __bfloat162float(pre[pair]), g = __bfloat162float(pre[pair + inner]);
    const ActivationAt at = activation_at(Activation(activation), a);
    const float slope = __bfloat162float(d[i]);
    dpre[pair] = __float2bfloat16_rn(slope * g * at.slope);
    dpre[pair + inner] = __float2bfloat16_rn(slope * at.value);
}
EXPORT_KERNEL(library_gate_backward, library_gate_backward)

// One thread a column of dy [rows, n], over `share` rows: partials [gridDim.y], `part` apart.
extern "C" __global__ void __launch_bounds__(256)
library_db(float* partials, const bf16* dy, int n, int rows, int stride, int share, int part) {
    begin_kernel();
    const int column = blockIdx.x * 256 + threadIdx.x;
    if (column >= n) return;
    const int first = blockIdx.y * share, last = min(first + share, rows);
    float sum = 0;
#pragma unroll 8
    for (int row = first; row < last; row++)
        sum += __bfloat162float(dy[size_t(row) * stride + column]);
    partials[size_t(blockIdx.y) * part + column] = sum;
}
EXPORT_KERNEL(library_db, library_db)
