// Micro-kernels for the wrappers that micro.cu and product.cu leave out, so that every one of ptx/
// has an answer to give, on the emulator and on a GPU.
#include <common.cuh>
#include <ptx/barrier.cuh>
#include <ptx/cluster.cuh>
#include <ptx/copy.cuh>
#include <ptx/math.cuh>
#include <ptx/matrix.cuh>
#include <ptx/memory.cuh>
#include <ptx/tma.cuh>
#include <ptx/wgmma.cuh>

// out [3, 32] = 2^x, 1 / x, tanh x.
extern "C" __global__ void micro_math(float* out, const float* x) {
    unsigned lane = threadIdx.x;
    out[lane] = ptx::exp2_approx(x[lane]);
    out[32 + lane] = ptx::rcp_approx(x[lane]);
    out[64 + lane] = ptx::tanh_approx(x[lane]);
}
EXPORT_KERNEL(micro_math, micro_math)

// out [2, 32] = x by each cache policy.
extern "C" __global__ void micro_policies(uint4* out, const uint4* x) {
    unsigned lane = threadIdx.x;
    ptx::store16_streaming(out + lane, ptx::load16_streaming(x + lane));
    ptx::store16_streaming(out + 32 + lane, ptx::load16_no_allocate(x + lane));
}
EXPORT_KERNEL(micro_policies, micro_policies)

// Two warps hand 32 values to and fro: out [l] = 2 (31 - l).
extern "C" __global__ void micro_named_barriers(float* out) {
    SHARED_ARRAY(float, slots, 32);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (warp == 0) {
        slots[lane] = float(lane);
        ptx::named_barrier_arrive(1, 64);
        ptx::named_barrier_sync(2, 64);
        out[lane] = slots[lane];
    } else {
        ptx::named_barrier_sync(1, 64);
        float value = slots[31 - lane];
        __syncwarp();
        slots[lane] = 2 * value;
        ptx::named_barrier_arrive(2, 64);
    }
}
EXPORT_KERNEL(micro_named_barriers, micro_named_barriers)

// An mbarrier that expects apart from arriving, is polled, and made anew: out [3, 32] = x, x
// reversed, x. What is copied was written by this block a moment before.
extern "C" __global__ void micro_mbarrier(float* out, float* scratch, const float* x) {
    SHARED_ARRAY(float4, tile4, 8);
    SHARED_ARRAY(uint64_t, bar, 1);
    auto* tile = reinterpret_cast<float*>(tile4);
    unsigned lane = threadIdx.x;
    scratch[lane] = x[lane];
    ptx::fence_proxy_async_global();
    if (lane == 0) {
        ptx::mbarrier_init(bar, 1);
        ptx::fence_mbarrier_init();
    }
    __syncwarp();
    if (lane == 0) {
        ptx::mbarrier_expect_tx(bar, 128);
        ptx::bulk_load(tile, scratch, 128, bar);
        ptx::mbarrier_arrive(bar);
    }
    while (!ptx::mbarrier_try_wait(bar, 0)) {
    }
    out[lane] = tile[lane];
    __syncwarp();
    if (lane == 0) {
        ptx::mbarrier_invalidate(bar);
        ptx::mbarrier_init(bar, 32);
    }
    __syncwarp();
    ptx::mbarrier_arrive(bar);
    ptx::mbarrier_wait(bar, 0);
    out[32 + lane] = tile[31 - lane];
    if (lane == 0) {
        ptx::bulk_store(out + 64, tile, 128);
        ptx::bulk_commit();
        ptx::bulk_wait_read<0>();
        ptx::bulk_wait<0>();
    }
}
EXPORT_KERNEL(micro_mbarrier, micro_mbarrier)

// Four 8 x 8 tiles x [4, 8, 8] as ldmatrix leaves them in registers, fragments [12, 32]: x2, x2
// transposed, x4, x4 transposed; and as stmatrix stores them, stored [3, 256]: x2, x4, x4
// transposed of what x4 loaded.
extern "C" __global__ void micro_fragments(uint32_t* fragments, uint4* stored, const uint4* x) {
    SHARED_ARRAY(uint4, rows, 32);
    SHARED_ARRAY(uint4, copies, 3 * 32);
    int lane = threadIdx.x;
    rows[lane] = x[lane];
    copies[lane] = make_uint4(0, 0, 0, 0);
    __syncwarp();
    uint32_t two[2], four[4], kept[12];
    ptx::ldmatrix_x2(two, ptx::shared_address(rows + lane % 16));
    ptx::stmatrix_x2(ptx::shared_address(copies + lane % 16), two);
    for (int i = 0; i < 2; i++) kept[i] = two[i];
    ptx::ldmatrix_x2_trans(two, ptx::shared_address(rows + lane % 16));
    for (int i = 0; i < 2; i++) kept[2 + i] = two[i];
    ptx::ldmatrix_x4(four, ptx::shared_address(rows + lane));
    ptx::stmatrix_x4(ptx::shared_address(copies + 32 + lane), four);
    ptx::stmatrix_x4_trans(ptx::shared_address(copies + 64 + lane), four);
    for (int i = 0; i < 4; i++) kept[4 + i] = four[i];
    ptx::ldmatrix_x4_trans(four, ptx::shared_address(rows + lane));
    for (int i = 0; i < 4; i++) kept[8 + i] = four[i];
    __syncwarp();
    for (int i = 0; i < 12; i++) fragments[i * 32 + lane] = kept[i];
    for (int i = 0; i < 3; i++) stored[i * 32 + lane] = copies[i * 32 + lane];
}
EXPORT_KERNEL(micro_fragments, micro_fragments)

// Boxes of 32 x 4 (x 2 (x 2)) fp32 in, stored, and added to what was stored: y = 2 x, in 2, 3 and 4
// dimensions.
extern "C" __global__ void
micro_tiles(const __grid_constant__ CUtensorMap x2, const __grid_constant__ CUtensorMap y2,
            const __grid_constant__ CUtensorMap x3, const __grid_constant__ CUtensorMap y3,
            const __grid_constant__ CUtensorMap x4, const __grid_constant__ CUtensorMap y4) {
    DYNAMIC_SHARED(smem);
    constexpr uint32_t BOX = 32 * 4 * 4;
    unsigned char *tile2 = smem, *tile3 = smem + 1024, *tile4 = smem + 2048;
    auto* bar = reinterpret_cast<uint64_t*>(smem + 4096);
    if (threadIdx.x != 0) return;
    ptx::mbarrier_init(bar, 1);
    ptx::fence_mbarrier_init();
    ptx::mbarrier_arrive_expect_tx(bar, BOX + 2 * BOX + 4 * BOX);
    ptx::tma_load_2d(tile2, &x2, bar, 0, 4);
    ptx::tma_load_3d(tile3, &x3, bar, 0, 4, 2);
    ptx::tma_load_4d(tile4, &x4, bar, 0, 4, 0, 2);
    ptx::mbarrier_wait(bar, 0);
    ptx::tma_store_2d(&y2, tile2, 0, 4);
    ptx::tma_store_3d(&y3, tile3, 0, 4, 2);
    ptx::tma_store_4d(&y4, tile4, 0, 4, 0, 2);
    ptx::bulk_commit();
    ptx::bulk_wait<0>();
    ptx::tma_reduce_add_2d(&y2, tile2, 0, 4);
    ptx::tma_reduce_add_3d(&y3, tile3, 0, 4, 2);
    ptx::tma_reduce_add_4d(&y4, tile4, 0, 4, 0, 2);
    ptx::bulk_commit();
    ptx::bulk_wait<0>();
}
EXPORT_KERNEL(micro_tiles, micro_tiles)

// Two CTAs: rank 0 sends a box of 32 fp32 of three dimensions to both, rank 1 one of four:
// out [2, 2, 32].
extern "C" __global__ void micro_multicast(const __grid_constant__ CUtensorMap x3, const __grid_constant__ CUtensorMap x4,
                float* out) {
    DYNAMIC_SHARED(smem);
    auto* tile = reinterpret_cast<float*>(smem);
    auto* bar = reinterpret_cast<uint64_t*>(smem + 256);
    uint32_t rank = ptx::cluster_rank();
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(bar, 1);
        ptx::fence_mbarrier_init();
        ptx::mbarrier_arrive_expect_tx(bar, 256);
    }
    ptx::cluster_arrive();
    ptx::cluster_wait();
    if (threadIdx.x == 0 && rank == 0) ptx::tma_load_3d_multicast(tile, &x3, bar, 3, 0, 1, 1);
    if (threadIdx.x == 0 && rank == 1)
        ptx::tma_load_4d_multicast(tile + 32, &x4, bar, 3, 0, 1, 1, 1);
    ptx::mbarrier_wait(bar, 0);
    for (unsigned i = threadIdx.x; i < 64; i += 32) out[rank * 64 + i] = tile[i];
    ptx::cluster_arrive();
    ptx::cluster_wait();
}
EXPORT_KERNEL(micro_multicast, micro_multicast)

// A ring of one stage: rank 0 sends a row of x [2, 32] to both CTAs, and the next to the same place
// when both have told it that they read the first: out [2, 2, 32].
extern "C" __global__ void micro_ring(const __grid_constant__ CUtensorMap x, float* out) {
    DYNAMIC_SHARED(smem);
    auto* tile = reinterpret_cast<float*>(smem);
    auto* full = reinterpret_cast<uint64_t*>(smem + 128);
    uint64_t* empty = full + 1;
    uint32_t rank = ptx::cluster_rank(), lane = threadIdx.x;
    if (lane == 0) {
        ptx::mbarrier_init(full, 1);
        ptx::mbarrier_init(empty, 2);
        ptx::fence_mbarrier_init();
    }
    ptx::cluster_arrive();
    ptx::cluster_wait();
    for (int round = 0; round < 2; round++) {
        if (lane == 0) ptx::mbarrier_arrive_expect_tx(full, 128);
        if (lane == 0 && rank == 0) {
            ptx::mbarrier_wait(empty, round ^ 1);
            ptx::tma_load_2d_multicast(tile, &x, full, 3, 0, round);
        }
        ptx::mbarrier_wait(full, round);
        out[(rank * 2 + round) * 32 + lane] = tile[lane];
        __syncwarp();
        if (lane == 0) ptx::mbarrier_arrive_remote_read(ptx::map_address(empty, 0));
    }
    ptx::cluster_arrive();
    ptx::cluster_wait();
}
EXPORT_KERNEL(micro_ring, micro_ring)

// Each CTA of four reads 4 and 16 bytes of the next one's memory, and writes 16 into it:
// out [4, 9, 32].
extern "C" __global__ void micro_remote(float* out) {
    SHARED_ARRAY(float4, own, 32);
    SHARED_ARRAY(uint4, inbox, 32);
    uint32_t rank = ptx::cluster_rank(), lane = threadIdx.x;
    float first = float(rank * 1000 + lane * 4);
    own[lane] = make_float4(first, first + 1, first + 2, first + 3);
    ptx::cluster_arrive();
    ptx::cluster_wait();
    uint32_t next = (rank + 1) % ptx::cluster_size();
    float one = ptx::load_remote_f32(ptx::map_address(own + lane, next));
    uint4 all = ptx::load_remote_16(ptx::map_address(own + lane, next));
    ptx::store_remote_16(ptx::map_address(inbox + lane, next), all);
    ptx::cluster_arrive();
    ptx::cluster_wait();
    uint4 got = inbox[lane];
    float* to = out + rank * 9 * 32 + lane;
    to[0] = one;
    const uint32_t words[8] = {all.x, all.y, all.z, all.w, got.x, got.y, got.z, got.w};
    for (int i = 0; i < 8; i++) to[(1 + i) * 32] = __uint_as_float(words[i]);
}
EXPORT_KERNEL(micro_remote, micro_remote)

// Every block takes a ticket, then a lock under which it counts: words = tickets, lock, count, and
// taken [blocks] how often each ticket was.
extern "C" __global__ void micro_lock(uint32_t* words, uint32_t* taken) {
    if (threadIdx.x != 0) return;
    uint32_t ticket = ptx::atom_add_acq_rel(words, 1);
    taken[ticket] += 1;
    while (ptx::atom_cas_acquire(words + 1, 0, 1) != 0) ptx::nanosleep(20);
    words[2] = ptx::load_relaxed(words + 2) + 1;
    ptx::fence_acq_rel_gpu();
    ptx::store_release(words + 1, 0);
}
EXPORT_KERNEL(micro_lock, micro_lock)

namespace {

// c [64, N] = a · b over k = 64, one warpgroup, with a from shared memory, then, where it is
// k-major, from registers: c [2, 64, N]. TRANS says that an operand lies [k, m] or [k, n] in
// memory, and not [m, k] or [n, k]. Boxes of TMA are 64 elements wide, so n-major b comes in
// several.
template <int N, int TRANS_A, int TRANS_B>
__device__ __forceinline__ void one_tile(float* c, const bf16* a, const CUtensorMap* a_map,
                                         const CUtensorMap* b_map) {
    constexpr uint32_t A_BYTES = 64 * 128, B_BYTES = (TRANS_B ? (N + 63) / 64 * 64 : N) * 128;
    DYNAMIC_SHARED(smem);
    auto* bar = reinterpret_cast<uint64_t*>(smem + A_BYTES + 4 * A_BYTES);
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(bar, 1);
        ptx::fence_mbarrier_init();
        ptx::mbarrier_arrive_expect_tx(bar, A_BYTES + B_BYTES);
        ptx::tma_load_2d(smem, a_map, bar, 0, 0);
        for (uint32_t i = 0; i < (TRANS_B ? B_BYTES / A_BYTES : 1); i++)
            ptx::tma_load_2d(smem + A_BYTES + i * A_BYTES, b_map, bar, int(i) * 64, 0);
    }
    __syncthreads();
    ptx::mbarrier_wait(bar, 0);
    uint32_t a_tile = ptx::shared_address(smem), b_tile = a_tile + A_BYTES;
    int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
    auto b_at = [&](int kk) {
        uint32_t step = TRANS_B ? 16 * 128 : 32;
        return ptx::matrix_descriptor(b_tile + kk * step, TRANS_B ? A_BYTES : 16, 1024,
                                      ptx::Swizzle::B128);
    };
    auto store = [&](const float(&acc)[N / 2], float* to) {
        for (int i = 0; i < N / 8; i++)
            for (int e = 0; e < 4; e++)
                to[(row + e / 2 * 8) * N + i * 8 + column + e % 2] = acc[i * 4 + e];
    };
    float acc[N / 2];
    ptx::wgmma_fence();
    for (int kk = 0; kk < 4; kk++) {
        uint32_t step = TRANS_A ? 16 * 128 : 32;
        uint64_t a_at = ptx::matrix_descriptor(a_tile + kk * step, TRANS_A ? A_BYTES : 16, 1024,
                                               ptx::Swizzle::B128);
        ptx::wgmma_m64k16<N, TRANS_A, TRANS_B>(acc, a_at, b_at(kk), kk != 0);
    }
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>(acc);
    store(acc, c);
    if constexpr (TRANS_A == 0) {
        uint32_t fragments[4][4];
        for (int kk = 0; kk < 4; kk++)
            for (int i = 0; i < 4; i++)
                fragments[kk][i] = *reinterpret_cast<const uint32_t*>(
                    a + (row + i % 2 * 8) * 64 + kk * 16 + column + i / 2 * 8);
        ptx::wgmma_fence();
        for (int kk = 0; kk < 4; kk++)
            ptx::wgmma_m64k16_rs<N, TRANS_B>(acc, fragments[kk], b_at(kk), kk != 0);
        ptx::wgmma_commit();
        ptx::wgmma_wait<0>(acc);
        store(acc, c + 64 * N);
    }
}

}  // namespace

// c [64, 64] = a · b over k = 128, in two groups; the operands of the first are set to zero while
// the second may still be under way.
extern "C" __global__ void __launch_bounds__(128, 1)
    wgmma_pending(float* c, const __grid_constant__ CUtensorMap a_map,
                  const __grid_constant__ CUtensorMap b_map) {
    constexpr uint32_t PANEL = 64 * 128;
    DYNAMIC_SHARED(smem);
    auto* bar = reinterpret_cast<uint64_t*>(smem + 4 * PANEL);
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(bar, 1);
        ptx::fence_mbarrier_init();
        ptx::mbarrier_arrive_expect_tx(bar, 4 * PANEL);
        for (int step = 0; step < 2; step++) {
            ptx::tma_load_2d(smem + 2 * step * PANEL, &a_map, bar, step * 64, 0);
            ptx::tma_load_2d(smem + (2 * step + 1) * PANEL, &b_map, bar, step * 64, 0);
        }
    }
    __syncthreads();
    ptx::mbarrier_wait(bar, 0);
    auto at = [](uint32_t address) {
        return ptx::matrix_descriptor(address, 16, 1024, ptx::Swizzle::B128);
    };
    float acc[32];
    for (int step = 0; step < 2; step++) {
        const uint32_t a_smem = ptx::shared_address(smem) + 2 * step * PANEL;
        ptx::wgmma_fence();
        for (int kk = 0; kk < 4; kk++)
            ptx::wgmma_m64k16<64>(acc, at(a_smem + kk * 32), at(a_smem + PANEL + kk * 32),
                                  (step | kk) != 0);
        ptx::wgmma_commit();
    }
    ptx::wgmma_wait<1>();
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < 2 * PANEL / 16; i += 128)
        reinterpret_cast<uint4*>(smem)[i] = make_uint4(0, 0, 0, 0);
    ptx::wgmma_wait<0>(acc);
    int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
    for (int i = 0; i < 32; i++)
        c[(row + i / 2 % 2 * 8) * 64 + i / 4 * 8 + column + i % 2] = acc[i];
}
EXPORT_KERNEL(wgmma_pending, wgmma_pending)

#define ONE_TILE(N, TRANS_A, TRANS_B)                                                           \
    extern "C" __global__ void __launch_bounds__(128, 1) wgmma_##N##_##TRANS_A##_##TRANS_B(     \
        float* c, const bf16* a, const __grid_constant__ CUtensorMap a_map,                     \
        const __grid_constant__ CUtensorMap b_map) {                                            \
        one_tile<N, TRANS_A, TRANS_B>(c, a, &a_map, &b_map);                                    \
    }                                                                                           \
    EXPORT_KERNEL(wgmma_##N##_##TRANS_A##_##TRANS_B, wgmma_##N##_##TRANS_A##_##TRANS_B)
#define ONE_TILE_MAJORS(N) \
    ONE_TILE(N, 0, 0)      \
    ONE_TILE(N, 0, 1)      \
    ONE_TILE(N, 1, 0)      \
    ONE_TILE(N, 1, 1)
ONE_TILE_MAJORS(64)
ONE_TILE_MAJORS(96)
ONE_TILE_MAJORS(128)
ONE_TILE_MAJORS(160)
ONE_TILE_MAJORS(192)
ONE_TILE_MAJORS(256)
