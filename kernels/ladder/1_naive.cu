// The product as a ladder, rung 1: a thread a result.
//
//   y [m, n] = x [m, k] · w [n, k]ᵀ      bf16, sums in fp32; so on every rung
//
// The idea: none yet, this is the maths. Each operation of two FLOP loads two operands, and the
// threads of a warp, whose results are neighbours in a row, read 32 rows of w: 32 cache lines for
// 32 FMA. A multiprocessor looks up about one line a cycle, so it does one FMA a cycle, of 128.
//
// Predicted, 4096³ on an H200, unmeasured: 137 GFLOP at 132 · 1.7e9 · 2 a second: 0.31 s.
#include <common.cuh>

extern "C" __global__ void __launch_bounds__(256)
ladder_naive(bf16* y, const bf16* x, const bf16* w, int m, int n, int k) {
    begin_kernel();
    const size_t result = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const int row = int(result / n), column = int(result % n);
    if (row >= m) return;
    const bf16 *x_row = x + size_t(row) * k, *w_row = w + size_t(column) * k;
    float sum = 0;
    for (int i = 0; i < k; i++) sum += __bfloat162float(x_row[i]) * __bfloat162float(w_row[i]);
    y[result] = __float2bfloat16_rn(sum);
}
EXPORT_KERNEL(ladder_naive, ladder_naive)
