// Rung 2: tiles in shared memory.
//
// The idea: what is read once is used often. A block makes 128 × 128 results and brings, 16 k at a
// time, the panels of x and w that all of them need: each operand crosses from the L2 once for 128
// results. A thread makes 8 × 8 of them in registers, so a number from shared memory serves eight
// FMA. Panels lie k-major, so that a thread's four neighbours are one load of 16 bytes, and a
// thread's columns come in two groups of four, so that the loads of a warp meet no bank twice.
//
// Predicted, 4096³ on an H200, unmeasured: bound by FMA and shared memory alike. A warp's four
// loads of 16 bytes a thread take up to 16 cycles of it, and so do its 64 FMA; panels are waited
// for besides: half of 57 TFLOP/s, 5 ms.
//
// Limit: k is a multiple of 8; so on the rungs that follow.
#include <common.cuh>

namespace {

constexpr int TILE = 128, STEP = 16;

// Rows `first` to first + 127 of a [rows, k], columns from k0, as fp32 [STEP, TILE]: a thread
// brings eight. Outside there are zeros.
__device__ __forceinline__ void load_panel(float* panel_smem, const bf16* a_gmem, int rows, int k,
                                           int first, int k0) {
    const int row = threadIdx.x % TILE, column = threadIdx.x / TILE * 8;
    float values[8] = {};
    if (first + row < rows && k0 + column < k)
        Vec8::load(a_gmem + size_t(first + row) * k + k0 + column).to_float(values);
    for (int i = 0; i < 8; i++) panel_smem[(column + i) * TILE + row] = values[i];
}

// Four of a row of a panel from `at`, and four 64 further on.
__device__ __forceinline__ void load_eight(float (&values)[8], const float* row_smem, int at) {
    const float4 low = *reinterpret_cast<const float4*>(row_smem + at);
    const float4 high = *reinterpret_cast<const float4*>(row_smem + 64 + at);
    values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
    values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
ladder_tiled(bf16* y, const bf16* x, const bf16* w, int m, int n, int k) {
    begin_kernel();
    DYNAMIC_SHARED(smem);
    float *x_smem = reinterpret_cast<float*>(smem), *w_smem = x_smem + STEP * TILE;
    const int first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
    float sums[8][8] = {};
    for (int k0 = 0; k0 < k; k0 += STEP) {
        load_panel(x_smem, x, m, k, first_row, k0);
        load_panel(w_smem, w, n, k, first_column, k0);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < STEP; i++) {
            float a[8], b[8];
            load_eight(a, x_smem + i * TILE, row);
            load_eight(b, w_smem + i * TILE, column);
#pragma unroll
            for (int r = 0; r < 8; r++)
#pragma unroll
                for (int c = 0; c < 8; c++) sums[r][c] += a[r] * b[c];
        }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < 8; r++)
#pragma unroll
        for (int c = 0; c < 8; c++) {
            const int to_row = first_row + row + r % 4 + r / 4 * 64;
            const int to_column = first_column + column + c % 4 + c / 4 * 64;
            if (to_row < m && to_column < n)
                y[size_t(to_row) * n + to_column] = __float2bfloat16_rn(sums[r][c]);
        }
}
EXPORT_KERNEL(ladder_tiled, ladder_tiled)
