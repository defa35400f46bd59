// Micro-kernels that each do one thing wrong. misuse.cpp says what must be reported.
#include <common.cuh>
#include <ptx/barrier.cuh>
#include <ptx/cluster.cuh>
#include <ptx/copy.cuh>
#include <ptx/matrix.cuh>
#include <ptx/memory.cuh>
#include <ptx/tma.cuh>
#include <ptx/wgmma.cuh>

extern "C" __global__ void bad_race(float* out) {
    SHARED_ARRAY(float, tile, 64);
    tile[threadIdx.x] = 1;
    out[threadIdx.x] = tile[63 - threadIdx.x];  // no __syncthreads
}
EXPORT_KERNEL(bad_race, bad_race)

extern "C" __global__ void bad_race_in_warp(float* out) {
    SHARED_ARRAY(float, tile, 32);
    tile[threadIdx.x] = 1;
    out[threadIdx.x] = tile[threadIdx.x ^ 1];  // no __syncwarp
}
EXPORT_KERNEL(bad_race_in_warp, bad_race_in_warp)

extern "C" __global__ void bad_uninitialised(float* out) {
    SHARED_ARRAY(float, tile, 64);
    if (threadIdx.x < 31) tile[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x];
}
EXPORT_KERNEL(bad_uninitialised, bad_uninitialised)

extern "C" __global__ void bad_bounds(float* out, int n) { out[n] = 1; }
EXPORT_KERNEL(bad_bounds, bad_bounds)

extern "C" __global__ void bad_read_bounds(float* out, const bf16* x) {
    out[0] = __bfloat162float(x[-1]);
}
EXPORT_KERNEL(bad_read_bounds, bad_read_bounds)

extern "C" __global__ void bad_alignment(float* out, const float* x) {
    *reinterpret_cast<float4*>(out) = *reinterpret_cast<const float4*>(x + 1);
}
EXPORT_KERNEL(bad_alignment, bad_alignment)

extern "C" __global__ void bad_blocks(float* out) {
    if (threadIdx.x == 0) out[blockIdx.x / 2] = 1;
}
EXPORT_KERNEL(bad_blocks, bad_blocks)

extern "C" __global__ void bad_global_in_block(float* out) {
    out[threadIdx.x] = 1;
    out[32 + threadIdx.x] = out[31 - threadIdx.x];
}
EXPORT_KERNEL(bad_global_in_block, bad_global_in_block)

// A turnstile whose turn is handed on without a release.
extern "C" __global__ void bad_turnstile(uint32_t* turn, float* sum) {
    while (ptx::load_acquire(turn) != blockIdx.x) {
    }
    *sum += 1;
    atomicExch(turn, blockIdx.x + 1);
}
EXPORT_KERNEL(bad_turnstile, bad_turnstile)

// Released by one thread before the others wrote.
extern "C" __global__ void bad_release(uint32_t* flag, float* out) {
    if (blockIdx.x == 0) {
        out[threadIdx.x] = 1;
        if (threadIdx.x == 0) ptx::store_release(flag, 1);  // no __syncthreads before
    } else {
        while (ptx::load_acquire(flag) != 1) {
        }
        out[64 + threadIdx.x] = out[threadIdx.x ^ 5];
    }
}
EXPORT_KERNEL(bad_release, bad_release)

__device__ void store_tile(float* out, bool proxy_fence, bool wait) {
    SHARED_ARRAY(float4, tile, 32);
    tile[threadIdx.x] = make_float4(1, 2, 3, 4);
    if (proxy_fence) ptx::fence_proxy_async();
    __syncwarp();
    if (threadIdx.x == 0) {
        ptx::bulk_store(out, tile, 512);
        ptx::bulk_commit();
        if (wait) ptx::bulk_wait<0>();
    }
}

extern "C" __global__ void bad_proxy(float* out) { store_tile(out, false, true); }
EXPORT_KERNEL(bad_proxy, bad_proxy)

extern "C" __global__ void bad_unwaited_store(float* out) { store_tile(out, true, false); }
EXPORT_KERNEL(bad_unwaited_store, bad_unwaited_store)

__device__ void load_tile(float* out, const float* x, uint32_t expected, bool fence, bool init) {
    SHARED_ARRAY(float, tile, 128);
    SHARED_ARRAY(uint64_t, bar, 1);
    if (threadIdx.x == 0) {
        if (init) ptx::mbarrier_init(bar, 1);
        if (fence) ptx::fence_mbarrier_init();
        ptx::mbarrier_arrive_expect_tx(bar, expected);
        ptx::bulk_load(tile, x, 512, bar);
    }
    __syncwarp();
    ptx::mbarrier_wait(bar, 0);
    out[threadIdx.x] = tile[threadIdx.x];
}

extern "C" __global__ void bad_mbarrier_fence(float* out, const float* x) {
    load_tile(out, x, 512, false, true);
}
EXPORT_KERNEL(bad_mbarrier_fence, bad_mbarrier_fence)

extern "C" __global__ void bad_expect_more(float* out, const float* x) {
    load_tile(out, x, 528, true, true);
}
EXPORT_KERNEL(bad_expect_more, bad_expect_more)

extern "C" __global__ void bad_expect_less(float* out, const float* x) {
    load_tile(out, x, 256, true, true);
}
EXPORT_KERNEL(bad_expect_less, bad_expect_less)

extern "C" __global__ void bad_no_mbarrier(float* out, const float* x) {
    load_tile(out, x, 512, true, false);
}
EXPORT_KERNEL(bad_no_mbarrier, bad_no_mbarrier)

extern "C" __global__ void bad_arrivals() {
    SHARED_ARRAY(uint64_t, bar, 1);
    if (threadIdx.x == 0) ptx::mbarrier_init(bar, 33);
    __syncwarp();
    ptx::mbarrier_arrive(bar);
}
EXPORT_KERNEL(bad_arrivals, bad_arrivals)

extern "C" __global__ void bad_divergent_barrier(float* out) {
    if (threadIdx.x % 2) {
        __syncthreads();
        out[0] = 1;
    } else {
        __syncthreads();
    }
}
EXPORT_KERNEL(bad_divergent_barrier, bad_divergent_barrier)

extern "C" __global__ void bad_barrier_count() {
    if (threadIdx.x < 32) ptx::named_barrier_sync(3, 64);
}
EXPORT_KERNEL(bad_barrier_count, bad_barrier_count)

extern "C" __global__ void bad_half_warp() {
    if (threadIdx.x < 48) ptx::named_barrier_arrive(1, 32);
}
EXPORT_KERNEL(bad_half_warp, bad_half_warp)

extern "C" __global__ void bad_divergent_shuffle(float* out) {
    float x = float(threadIdx.x);
    if (threadIdx.x < 16) x = __shfl_xor_sync(ALL_LANES, x, 1);
    else x = __shfl_xor_sync(ALL_LANES, x, 2);
    out[threadIdx.x] = x;
}
EXPORT_KERNEL(bad_divergent_shuffle, bad_divergent_shuffle)

extern "C" __global__ void bad_shuffle_source(float* out) {
    if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 20);
}
EXPORT_KERNEL(bad_shuffle_source, bad_shuffle_source)

// Waits for the first of two groups and reads the second.
extern "C" __global__ void bad_copy_wait(float4* out, const float4* x) {
    SHARED_ARRAY(float4, tile, 64);
    for (int i = 0; i < 2; i++) {
        ptx::cp_async16(tile + i * 32 + threadIdx.x, x + i * 32 + threadIdx.x);
        ptx::cp_async_commit();
    }
    ptx::cp_async_wait<1>();
    out[threadIdx.x] = tile[32 + threadIdx.x];
}
EXPORT_KERNEL(bad_copy_wait, bad_copy_wait)

extern "C" __global__ void bad_ldmatrix_row(uint32_t* out) {
    SHARED_ARRAY(bf16, tile, 512);
    uint32_t r[4];
    ptx::ldmatrix_x4(r, ptx::shared_address(tile) + threadIdx.x * 20);
    out[threadIdx.x] = r[0];
}
EXPORT_KERNEL(bad_ldmatrix_row, bad_ldmatrix_row)

extern "C" __global__ void bad_swizzle_base(const __grid_constant__ CUtensorMap x) {
    DYNAMIC_SHARED(smem);
    auto* bar = reinterpret_cast<uint64_t*>(smem);
    ptx::mbarrier_init(bar, 1);
    ptx::fence_mbarrier_init();
    ptx::tma_load_2d(smem + 512, &x, bar, 0, 0);
}
EXPORT_KERNEL(bad_swizzle_base, bad_swizzle_base)

// A product whose steps each leave out or move one thing.
__device__ void product(float* out, bool fence, bool proxy_fence, bool early) {
    DYNAMIC_SHARED(smem);
    auto* tile = reinterpret_cast<bf16*>(smem);
    for (int i = threadIdx.x; i < 64 * 64; i += 128) tile[i] = __float2bfloat16(1.0f);
    if (proxy_fence) ptx::fence_proxy_async();
    __syncthreads();
    float acc[32];
    uint64_t desc =
        ptx::matrix_descriptor(ptx::shared_address(smem), 16, 1024, ptx::Swizzle::B128);
    if (fence) ptx::wgmma_fence();
    ptx::wgmma_m64k16<64>(acc, desc, desc, 0);
    ptx::wgmma_commit();
    if (early) tile[threadIdx.x] = __float2bfloat16(2.0f);
    ptx::wgmma_wait<0>(acc);
    out[threadIdx.x] = acc[0];
}

extern "C" __global__ void bad_wgmma_fence(float* out) { product(out, false, true, false); }
EXPORT_KERNEL(bad_wgmma_fence, bad_wgmma_fence)

extern "C" __global__ void bad_wgmma_proxy(float* out) { product(out, true, false, false); }
EXPORT_KERNEL(bad_wgmma_proxy, bad_wgmma_proxy)

extern "C" __global__ void bad_wgmma_early(float* out) { product(out, true, true, true); }
EXPORT_KERNEL(bad_wgmma_early, bad_wgmma_early)

extern "C" __global__ void bad_spin(uint32_t* flag) {
    while (ptx::load_acquire(flag) == 0) {
    }
}
EXPORT_KERNEL(bad_spin, bad_spin)

extern "C" __global__ void bad_exited_block(float* out) {
    SHARED_ARRAY(float, value, 1);
    value[0] = 1;
    if (ptx::cluster_rank() == 1) return;
    for (int i = 0; i < 4; i++) ptx::nanosleep(100);
    out[0] = ptx::load_remote_f32(ptx::map_address(value, 1));
}
EXPORT_KERNEL(bad_exited_block, bad_exited_block)

extern "C" __global__ void bad_cluster_race(float* out) {
    SHARED_ARRAY(float, value, 1);
    value[0] = float(ptx::cluster_rank());
    out[blockIdx.x] = ptx::load_remote_f32(ptx::map_address(value, ptx::cluster_rank() ^ 1));
    ptx::cluster_arrive();
    ptx::cluster_wait();
}
EXPORT_KERNEL(bad_cluster_race, bad_cluster_race)

extern "C" __global__ void bad_shared_arrays(float* out) {
    SHARED_ARRAY(float, tile, 12 * 1024 + 1);
    tile[threadIdx.x] = 1;
    out[threadIdx.x] = tile[threadIdx.x];
}
EXPORT_KERNEL(bad_shared_arrays, bad_shared_arrays)

extern "C" __global__ void bad_shared_bounds(float* out) {
    SHARED_ARRAY(float, tile, 32);
    float* p = tile;
    p[threadIdx.x + 1] = 1;
    out[threadIdx.x] = tile[threadIdx.x];
}
EXPORT_KERNEL(bad_shared_bounds, bad_shared_bounds)

extern "C" __global__ void bad_overlap(float* out, const float* x) {
    float value = x[threadIdx.x];  // of a kernel that may still run
    begin_kernel();
    out[threadIdx.x] = value;
}
EXPORT_KERNEL(bad_overlap, bad_overlap)

extern "C" __global__ void bad_early_exit(float* out, const float*) {
    if (threadIdx.x >= 16) return;  // the kernel after this one waits for nobody else
    begin_kernel();
    out[threadIdx.x] = 1;
}
EXPORT_KERNEL(bad_early_exit, bad_early_exit)
