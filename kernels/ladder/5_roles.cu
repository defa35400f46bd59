// arch: sm_90a
// Rung 5: warps with roles.
//
// The idea: who loads does nothing else, and who multiplies waits for nothing but data. On the rung
// before all warps met once a step, for one of them to ask for more. Here a producer's warpgroup
// fills the ring, and stops only where a stage is not `empty`; two consumers' warpgroups multiply
// what is `full`. As the producer needs few registers it hands them over (setmaxnreg), and the
// consumers make a tile of 128 × 256, half of the rows each: 48 KB for 4.2 MFLOP, three quarters of
// the traffic.
//
// Predicted, 4096³ on an H200, unmeasured: 0.93 µs a step from the L2, 0.70 of products: 600
// TFLOP/s while it multiplies; 512 tiles on 132 places are 3.9 waves, of which 4 are paid, and each
// begins with an empty ring and ends with stores that nothing hides (1.5 and 2.6 µs beside 59):
// 540, 0.25 ms. What is left the final kernel takes (product_hopper.cuh): clusters halve what the
// L2 gives of w, a block stays for tile after tile, and results leave by TMA while the next tile is
// multiplied.
#include "ladder.cuh"
#include <ptx/registers.cuh>
#include <ptx/tma.cuh>
#include <ptx/wgmma.cuh>

namespace {

constexpr int TILE_M = 128, TILE_N = 256, STEP = 64, STAGES = 4, THREADS = 3 * 128;
constexpr int ROW_BYTES = STEP * 2, X_BYTES = TILE_M * ROW_BYTES, W_BYTES = TILE_N * ROW_BYTES;
constexpr int STAGE_BYTES = X_BYTES + W_BYTES;

__device__ __forceinline__ uint64_t descriptor(uint32_t rows_smem, int kk) {
    return ptx::matrix_descriptor(rows_smem + kk * 32, 16, 8 * ROW_BYTES, ptx::Swizzle::B128);
}

}  // namespace

// Boxes: x [64, 128], w [64, 256].
extern "C" __global__ void __launch_bounds__(THREADS, 1)
ladder_roles(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap w, bf16* y,
             int m, int n, int k) {
    begin_kernel();
    DYNAMIC_SHARED(smem);
    uint64_t* full = reinterpret_cast<uint64_t*>(smem + STAGES * STAGE_BYTES);
    uint64_t* empty = full + STAGES;
    const int first_row = blockIdx.y * TILE_M, first_column = blockIdx.x * TILE_N;
    const int steps = ceil_div(k, STEP);
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            ptx::mbarrier_init(full + stage, 1);
            ptx::mbarrier_init(empty + stage, 2);
        }
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        ptx::registers_decrease<40>();
        if (threadIdx.x != 0) return;
        for (int step = 0; step < steps; step++) {
            const int stage = step % STAGES;
            unsigned char* stage_smem = smem + stage * STAGE_BYTES;
            // Parity 1 of a fresh barrier is past: the first round waits for nobody.
            ptx::mbarrier_wait(empty + stage, (step / STAGES & 1) ^ 1);
            ptx::mbarrier_arrive_expect_tx(full + stage, STAGE_BYTES);
            ptx::tma_load_2d(stage_smem, &x, full + stage, step * STEP, first_row);
            ptx::tma_load_2d(stage_smem + X_BYTES, &w, full + stage, step * STEP, first_column);
        }
        return;
    }
    ptx::registers_increase<232>();
    const int consumer = threadIdx.x / 128 - 1, thread = threadIdx.x % 128;
    // Tells, once for all four warps, that this consumer reads a stage no more.
    auto release = [&](int step) {
        ptx::named_barrier_sync(1 + consumer, 128);
        if (thread == 0) ptx::mbarrier_arrive(empty + step % STAGES);
    };
    float acc[TILE_N / 2];
    for (int step = 0; step < steps; step++) {
        const int stage = step % STAGES;
        const uint32_t x_smem = ptx::shared_address(smem + stage * STAGE_BYTES);
        ptx::mbarrier_wait(full + stage, step / STAGES & 1);
        ptx::wgmma_fence();
#pragma unroll
        for (int kk = 0; kk < STEP / 16; kk++)
            ptx::wgmma_m64k16<TILE_N>(acc, descriptor(x_smem + consumer * 64 * ROW_BYTES, kk),
                                      descriptor(x_smem + X_BYTES, kk), (step | kk) != 0);
        ptx::wgmma_commit();
        ptx::wgmma_wait<1>();
        if (step > 0) release(step - 1);
    }
    ptx::wgmma_wait<0>(acc);
    const int row = first_row + consumer * 64 + thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
    for (int i = 0; i < TILE_N / 8; i++)
        store_four(y, m, n, row, first_column + i * 8 + thread % 4 * 2, acc + 4 * i);
}
EXPORT_KERNEL(ladder_roles, ladder_roles)
