// arch: sm_90a
// Rung 4: TMA and wgmma.
//
// The idea: nobody touches an element between global memory and the accumulators. One thread asks
// for whole panels by tensor map (TMA computes addresses, swizzles, fills with zeros outside) and a
// barrier in shared memory counts the bytes that came. Four warps, a warpgroup, then multiply the
// panels from where they lie: wgmma takes both operands by a descriptor of shared memory, runs on
// its own, and is waited for. While the products of one step run, those of the next are issued;
// what was asked for takes the stage of the step before.
//
// Predicted, 4096³ on an H200, unmeasured: a tile of 128 × 128 fetches 32 KB for each 2.1 MFLOP,
// which the L2 gives a multiprocessor (7 TB/s over 132) in 0.62 µs and the tensor cores take 0.35
// for: bound by the L2, 450 TFLOP/s; with 3.9 waves, of which 4 are paid, and stores that hide
// behind the other block: 430, 0.32 ms. No faster than the rung before, but the warps have almost
// nothing to do; the next rung uses what is free.
#include "ladder.cuh"
#include <ptx/tma.cuh>
#include <ptx/wgmma.cuh>

namespace {

constexpr int TILE = 128, STEP = 64, STAGES = 3, THREADS = 128;
constexpr int ROW_BYTES = STEP * 2, PANEL_BYTES = TILE * ROW_BYTES;

// 64 or more rows of 128 bytes, 16 k from kk, as TMA left them: eight rows are 1,024 bytes.
__device__ __forceinline__ uint64_t descriptor(uint32_t rows_smem, int kk) {
    return ptx::matrix_descriptor(rows_smem + kk * 32, 16, 8 * ROW_BYTES, ptx::Swizzle::B128);
}

}  // namespace

// Boxes of both maps: [64, 128].
extern "C" __global__ void __launch_bounds__(THREADS, 2)
ladder_wgmma(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap w, bf16* y,
             int m, int n, int k) {
    begin_kernel();
    DYNAMIC_SHARED(smem);
    uint64_t* full = reinterpret_cast<uint64_t*>(smem + STAGES * 2 * PANEL_BYTES);
    const int first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    const int steps = ceil_div(k, STEP);
    auto load = [&](int step) {
        if (threadIdx.x != 0 || step >= steps) return;
        const int stage = step % STAGES;
        unsigned char* stage_smem = smem + stage * 2 * PANEL_BYTES;
        ptx::mbarrier_arrive_expect_tx(full + stage, 2 * PANEL_BYTES);
        ptx::tma_load_2d(stage_smem, &x, full + stage, step * STEP, first_row);
        ptx::tma_load_2d(stage_smem + PANEL_BYTES, &w, full + stage, step * STEP, first_column);
    };
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) ptx::mbarrier_init(full + stage, 1);
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    for (int step = 0; step < STAGES; step++) load(step);
    float acc[2][64];
    for (int step = 0; step < steps; step++) {
        const int stage = step % STAGES;
        const uint32_t x_smem = ptx::shared_address(smem + stage * 2 * PANEL_BYTES);
        const uint32_t w_smem = x_smem + PANEL_BYTES;
        ptx::mbarrier_wait(full + stage, step / STAGES & 1);
        ptx::wgmma_fence();
#pragma unroll
        for (int kk = 0; kk < STEP / 16; kk++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                ptx::wgmma_m64k16<TILE>(acc[half],
                                        descriptor(x_smem + half * 64 * ROW_BYTES, kk),
                                        descriptor(w_smem, kk), (step | kk) != 0);
        ptx::wgmma_commit();
        // The products of the step before are done, for all warps: its stage is free.
        ptx::wgmma_wait<1>();
        __syncthreads();
        if (step > 0) load(step - 1 + STAGES);
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        ptx::wgmma_wait<0>(acc[half]);
        const int row = first_row + half * 64 + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
#pragma unroll
        for (int i = 0; i < TILE / 8; i++)
            store_four(y, m, n, row, first_column + i * 8 + threadIdx.x % 4 * 2,
                       acc[half] + 4 * i);
    }
}
EXPORT_KERNEL(ladder_wgmma, ladder_wgmma)
