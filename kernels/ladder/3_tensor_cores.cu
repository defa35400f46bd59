// Rung 3: tensor cores, fed by copies that run ahead.
//
// The idea: a warp multiplies 16 × 8 × 16 by one instruction, 2,048 FMA where the rung before took
// 64. That is so fast that the panels must be under way before they are needed: cp.async brings
// bf16 as it is into a ring of three stages, two steps ahead, and no register holds it between.
// ldmatrix then deals 8 × 8 matrices to the lanes as mma.sync wants them. Its eight rows must lie in
// different banks: a row's 16-byte chunks are permuted by the row's number (a swizzle).
//
// Four warps make 128 × 128 results, 64 × 64 each; two blocks share a multiprocessor, and one
// multiplies while the other waits or stores.
//
// Predicted, 4096³ on an H200, unmeasured: mma.sync reaches 62% of wgmma's rate at best, 490
// TFLOP/s; 1,024 tiles on 264 places are 3.9 waves, of which 4 are paid: 430, 0.32 ms. product.cu
// is this rung with its epilogues, splits and three tiles.
#include "ladder.cuh"
#include <ptx/copy.cuh>
#include <ptx/matrix.cuh>

namespace {

constexpr int TILE = 128, STEP = 32, STAGES = 3, THREADS = 128;
constexpr int ROW_BYTES = STEP * 2, PANEL_BYTES = TILE * ROW_BYTES;

// A panel is [128, 32] in rows of four chunks; rows of 64 bytes meet the same banks every two.
__device__ __forceinline__ int chunk_offset(int row, int chunk) {
    return row * ROW_BYTES + (chunk ^ (row / 2 % 4)) * 16;
}

// Starts to copy rows from `first` and columns from k0; outside there are zeros.
__device__ __forceinline__ void load_panel(unsigned char* panel_smem, const bf16* a_gmem, int rows,
                                           int k, int first, int k0) {
    for (int i = threadIdx.x; i < TILE * 4; i += THREADS) {
        const int row = i / 4, chunk = i % 4;
        const bool inside = first + row < rows && k0 + chunk * 8 < k;
        const bf16* from_gmem = a_gmem + size_t(first + row) * k + k0 + chunk * 8;
        ptx::cp_async16(panel_smem + chunk_offset(row, chunk), from_gmem, inside ? 16 : 0);
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS, 2)
ladder_tensor_cores(bf16* y, const bf16* x, const bf16* w, int m, int n, int k) {
    begin_kernel();
    DYNAMIC_SHARED(smem);
    const int first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    const int steps = ceil_div(k, STEP), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int warp_row = warp / 2 * 64, warp_column = warp % 2 * 64;
    auto load = [&](int step) {
        unsigned char* stage_smem = smem + step % STAGES * 2 * PANEL_BYTES;
        load_panel(stage_smem, x, m, k, first_row, step * STEP);
        load_panel(stage_smem + PANEL_BYTES, w, n, k, first_column, step * STEP);
        ptx::cp_async_commit();
    };
    float acc[4][8][4] = {};
    for (int step = 0; step < STAGES - 1; step++) load(step);
    for (int step = 0; step < steps; step++) {
        // This step's panels are there, for all threads; and all are done with the step before,
        // whose stage the next copies take.
        ptx::cp_async_wait<STAGES - 2>();
        __syncthreads();
        load(step + STAGES - 1);
        const uint32_t x_smem = ptx::shared_address(smem + step % STAGES * 2 * PANEL_BYTES);
        const uint32_t w_smem = x_smem + PANEL_BYTES;
#pragma unroll
        for (int kk = 0; kk < STEP / 16; kk++) {
            uint32_t a[4][4], b[4][4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = warp_row + i * 16 + lane % 16;
                ptx::ldmatrix_x4(a[i], x_smem + chunk_offset(row, kk * 2 + lane / 16));
                const int column = warp_column + i * 16 + lane % 8 + lane / 16 * 8;
                ptx::ldmatrix_x4(b[i], w_smem + chunk_offset(column, kk * 2 + lane / 8 % 2));
            }
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    const uint32_t* of_b = b[j / 2] + j % 2 * 2;
                    ptx::mma_m16n8k16(acc[i][j], a[i], of_b[0], of_b[1]);
                }
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 8; j++)
            store_four(y, m, n, first_row + warp_row + i * 16 + lane / 4,
                       first_column + warp_column + j * 8 + lane % 4 * 2, acc[i][j]);
}
EXPORT_KERNEL(ladder_tensor_cores, ladder_tensor_cores)
