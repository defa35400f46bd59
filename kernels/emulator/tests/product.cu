// c [M, N] = a [M, K] · b [N, K]ᵀ twice over: by mma.sync with cp.async, and by wgmma with TMA.
#include <common.cuh>
#include <ptx/barrier.cuh>
#include <ptx/copy.cuh>
#include <ptx/matrix.cuh>
#include <ptx/registers.cuh>
#include <ptx/tma.cuh>
#include <ptx/wgmma.cuh>

namespace {

constexpr int TILE = 64, STAGES = 3;

// Four warps, 2 x 2, of 32 x 32 each.
constexpr int MMA_K = 32;
constexpr int ROW_BYTES = MMA_K * 2;
constexpr int STAGE_BYTES = TILE * ROW_BYTES;

// Chunks of 16 bytes permuted so that eight rows of one column of chunks meet no bank twice.
__device__ __forceinline__ int chunk_offset(int row, int chunk) {
    return row * ROW_BYTES + (chunk ^ (row >> 1 & 3)) * 16;
}

__device__ void load_tile(unsigned char* tile_smem, const bf16* x, int rows, int k, int row0,
                          int k0) {
    for (int i = threadIdx.x; i < TILE * MMA_K / 8; i += 128) {
        int row = i / 4, chunk = i % 4;
        const bf16* src = x + size_t(row0 + row) * k + k0 + chunk * 8;
        bool inside = row0 + row < rows;
        ptx::cp_async16(tile_smem + chunk_offset(row, chunk), inside ? src : x, inside ? 16 : 0);
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(128)
product_mma(float* c, const bf16* a, const bf16* b, int m, int n, int k) {
    DYNAMIC_SHARED(smem);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE, steps = k / MMA_K;
    unsigned char *a_smem = smem, *b_smem = smem + STAGES * STAGE_BYTES;
    auto load = [&](int step) {
        int stage = step % STAGES;
        load_tile(a_smem + stage * STAGE_BYTES, a, m, k, m0, step * MMA_K);
        load_tile(b_smem + stage * STAGE_BYTES, b, n, k, n0, step * MMA_K);
    };
    float acc[2][4][4] = {};
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps) load(step);
        ptx::cp_async_commit();
    }
    for (int step = 0; step < steps; step++) {
        ptx::cp_async_wait<STAGES - 2>();
        __syncthreads();
        uint32_t a_tile = ptx::shared_address(a_smem + step % STAGES * STAGE_BYTES);
        uint32_t b_tile = ptx::shared_address(b_smem + step % STAGES * STAGE_BYTES);
        for (int kk = 0; kk < 2; kk++) {
            uint32_t a_rmem[2][4], b_rmem[2][4];
            for (int i = 0; i < 2; i++) {
                int row = warp / 2 * 32 + i * 16 + lane % 16;
                ptx::ldmatrix_x4(a_rmem[i], a_tile + chunk_offset(row, kk * 2 + lane / 16));
            }
            for (int j = 0; j < 2; j++) {
                int row = warp % 2 * 32 + j * 16 + lane % 8 + lane / 16 * 8;
                ptx::ldmatrix_x4(b_rmem[j], b_tile + chunk_offset(row, kk * 2 + lane / 8 % 2));
            }
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 4; j++)
                    ptx::mma_m16n8k16(acc[i][j], a_rmem[i], b_rmem[j / 2][j % 2 * 2],
                                      b_rmem[j / 2][j % 2 * 2 + 1]);
        }
        if (step + STAGES - 1 < steps) load(step + STAGES - 1);
        ptx::cp_async_commit();
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++)
            for (int half = 0; half < 2; half++) {
                int row = m0 + warp / 2 * 32 + i * 16 + lane / 4 + half * 8;
                int column = n0 + warp % 2 * 32 + j * 8 + lane % 4 * 2;
                if (row < m && column < n)
                    *reinterpret_cast<float2*>(c + size_t(row) * n + column) =
                        make_float2(acc[i][j][half * 2], acc[i][j][half * 2 + 1]);
            }
}
EXPORT_KERNEL(product_mma, product_mma)

namespace {

constexpr int WG_K = 64;
constexpr uint32_t WG_TILE_BYTES = TILE * WG_K * 2;

// Fills the ring: one thread.
__device__ void produce(const CUtensorMap* a, const CUtensorMap* b, unsigned char* smem,
                        uint64_t* full, uint64_t* empty, int m0, int n0, int steps) {
    for (int step = 0; step < steps; step++) {
        int stage = step % STAGES;
        unsigned char* a_smem = smem + stage * WG_TILE_BYTES;
        ptx::mbarrier_wait(empty + stage, (step / STAGES & 1) ^ 1);
        ptx::mbarrier_arrive_expect_tx(full + stage, 2 * WG_TILE_BYTES);
        ptx::tma_load_2d(a_smem, a, full + stage, step * WG_K, m0);
        ptx::tma_load_2d(a_smem + STAGES * WG_TILE_BYTES, b, full + stage, step * WG_K, n0);
    }
}

__device__ void consume(float (&acc)[32], unsigned char* smem, uint64_t* full, uint64_t* empty,
                        int steps) {
    for (int step = 0; step < steps; step++) {
        int stage = step % STAGES;
        ptx::mbarrier_wait(full + stage, step / STAGES & 1);
        uint32_t a_tile = ptx::shared_address(smem + stage * WG_TILE_BYTES);
        uint32_t b_tile = a_tile + STAGES * WG_TILE_BYTES;
        ptx::wgmma_fence();
        for (int kk = 0; kk < WG_K / 16; kk++)
            ptx::wgmma_m64k16<64>(
                acc, ptx::matrix_descriptor(a_tile + kk * 32, 16, 1024, ptx::Swizzle::B128),
                ptx::matrix_descriptor(b_tile + kk * 32, 16, 1024, ptx::Swizzle::B128),
                (step | kk) != 0);
        ptx::wgmma_commit();
        ptx::wgmma_wait<0>(acc);
        ptx::mbarrier_arrive(empty + stage);
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256, 1)
product_wgmma(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b,
              float* c, int m, int n, int k) {
    DYNAMIC_SHARED(smem);
    auto* full = reinterpret_cast<uint64_t*>(smem + 2 * STAGES * WG_TILE_BYTES);
    uint64_t* empty = full + STAGES;
    int m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE, steps = k / WG_K;
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            ptx::mbarrier_init(full + stage, 1);
            ptx::mbarrier_init(empty + stage, 128);
        }
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        ptx::registers_decrease<40>();
        if (threadIdx.x == 0) produce(&a, &b, smem, full, empty, m0, n0, steps);
        return;
    }
    ptx::registers_increase<232>();
    float acc[32];
    consume(acc, smem, full, empty, steps);
    int thread = threadIdx.x - 128;
    int row = m0 + thread / 32 * 16 + thread % 32 / 4;
    for (int i = 0; i < 8; i++)
        for (int half = 0; half < 2; half++) {
            int r = row + half * 8, column = n0 + i * 8 + thread % 4 * 2;
            if (r < m && column < n)
                *reinterpret_cast<float2*>(c + size_t(r) * n + column) =
                    make_float2(acc[i * 4 + half * 2], acc[i * 4 + half * 2 + 1]);
        }
}
EXPORT_KERNEL(product_wgmma, product_wgmma)

// One warpgroup, one tile: c [64, 128] = a [64, 64] · b, with a from registers, and b [64, 128]
// n-major in shared memory, as TMA writes it: two boxes of 64 columns.
extern "C" __global__ void __launch_bounds__(128)
product_registers(float* c, const bf16* a, const __grid_constant__ CUtensorMap b) {
    DYNAMIC_SHARED(smem);
    constexpr uint32_t HALF = 64 * 64 * 2;
    auto* bar = reinterpret_cast<uint64_t*>(smem + 2 * HALF);
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(bar, 1);
        ptx::fence_mbarrier_init();
        ptx::mbarrier_arrive_expect_tx(bar, 2 * HALF);
        ptx::tma_load_2d(smem, &b, bar, 0, 0);
        ptx::tma_load_2d(smem + HALF, &b, bar, 64, 0);
    }
    __syncthreads();
    ptx::mbarrier_wait(bar, 0);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = warp * 16 + lane / 4;
    float acc[64];
    ptx::wgmma_fence();
    for (int kk = 0; kk < 4; kk++) {
        uint32_t a_rmem[4];
        for (int i = 0; i < 4; i++) {
            const bf16* p = a + (row + i % 2 * 8) * 64 + kk * 16 + lane % 4 * 2 + i / 2 * 8;
            a_rmem[i] = *reinterpret_cast<const uint32_t*>(p);
        }
        uint32_t b_tile = ptx::shared_address(smem) + kk * 16 * 128;
        ptx::wgmma_m64k16_rs<128, 1>(
            acc, a_rmem, ptx::matrix_descriptor(b_tile, HALF, 1024, ptx::Swizzle::B128), kk != 0);
    }
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>(acc);
    for (int i = 0; i < 16; i++)
        for (int e = 0; e < 4; e++)
            c[(row + e / 2 * 8) * 128 + i * 8 + lane % 4 * 2 + e % 2] = acc[i * 4 + e];
}
EXPORT_KERNEL(product_registers, product_registers)
