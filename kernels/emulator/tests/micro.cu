// Micro-kernels: each uses a few wrappers and has an answer that the host knows.
#include <common.cuh>
#include <ptx/barrier.cuh>
#include <ptx/cluster.cuh>
#include <ptx/copy.cuh>
#include <ptx/math.cuh>
#include <ptx/matrix.cuh>
#include <ptx/memory.cuh>
#include <ptx/registers.cuh>
#include <ptx/tma.cuh>
#include <ptx/wgmma.cuh>

// out [blocks] = sums of 1,024 values a block: shuffles, shared arrays, __syncthreads.
extern "C" __global__ void __launch_bounds__(256) micro_block_sum(float* out, const float* x) {
    SHARED_ARRAY(float, scratch, 8);
    float4 v = Vec4f::load(x + blockIdx.x * 1024 + threadIdx.x * 4).values;
    float sum = block_sum<256>(v.x + v.y + v.z + v.w, scratch);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}
EXPORT_KERNEL(micro_block_sum, micro_block_sum)

// out [5, 32]: votes and reductions of a warp.
extern "C" __global__ void micro_votes(unsigned* out) {
    unsigned lane = threadIdx.x;
    out[lane] = __ballot_sync(ALL_LANES, lane % 3 == 0);
    out[32 + lane] = __reduce_add_sync(ALL_LANES, lane);
    out[64 + lane] = __shfl_up_sync(ALL_LANES, lane, 1, 8);
    out[96 + lane] = __match_any_sync(ALL_LANES, lane / 4);
    out[128 + lane] = unsigned(__syncthreads_count(lane < 5));
}
EXPORT_KERNEL(micro_votes, micro_votes)

// counts [4] and total: atomics of every kind from many blocks.
extern "C" __global__ void micro_atomics(int* counts, float* total, unsigned* top) {
    atomicAdd(&counts[threadIdx.x % 4], 1);
    atomicAdd(total, 1.0f);
    atomicMax(top, blockIdx.x * blockDim.x + threadIdx.x);
}
EXPORT_KERNEL(micro_atomics, micro_atomics)

// Turnstile: block b adds its bits to *sum after block b - 1 did.
extern "C" __global__ void micro_turnstile(uint32_t* turn, float* sum) {
    if (threadIdx.x != 0) return;
    while (ptx::load_acquire(turn) != blockIdx.x) {
    }
    *sum = *sum * 0.5f + float(blockIdx.x);
    ptx::store_release(turn, blockIdx.x + 1);
}
EXPORT_KERNEL(micro_turnstile, micro_turnstile)

// The last block to come sums what all have written: fences around a relaxed atomic.
extern "C" __global__ void __launch_bounds__(64)
micro_last_block(float* out, float* partial, uint32_t* arrived) {
    SHARED_ARRAY(uint32_t, order, 1);
    partial[blockIdx.x * 64 + threadIdx.x] = float(blockIdx.x + threadIdx.x);
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        order[0] = atomicAdd(arrived, 1u);
        __threadfence();
    }
    __syncthreads();
    if (order[0] != gridDim.x - 1) return;
    float sum = 0;
    for (uint32_t b = 0; b < gridDim.x; b++) sum += partial[b * 64 + threadIdx.x];
    out[threadIdx.x] = sum;
}
EXPORT_KERNEL(micro_last_block, micro_last_block)

// All blocks wait for all: only a cooperative launch can do that.
extern "C" __global__ void micro_grid_barrier(uint32_t* arrived, uint32_t* values, uint32_t* out) {
    if (threadIdx.x == 0) {
        values[blockIdx.x] = blockIdx.x * blockIdx.x;
        ptx::red_add_release(arrived, 1);
        while (ptx::load_acquire(arrived) != gridDim.x) ptx::nanosleep(100);
    }
    __syncthreads();
    if (threadIdx.x == 0) out[blockIdx.x] = values[gridDim.x - 1 - blockIdx.x];
}
EXPORT_KERNEL(micro_grid_barrier, micro_grid_barrier)

extern "C" __global__ void micro_philox(uint4* out, uint4 counter, uint2 key) {
    *out = philox4x32_10(counter, key);
}
EXPORT_KERNEL(micro_philox, micro_philox)

// out [8, 32] = x transposed tile by tile by ldmatrix.trans and stmatrix: 4 tiles of 8 x 8.
extern "C" __global__ void micro_transpose(bf16* out, const bf16* x) {
    SHARED_ARRAY(uint4, rows, 32);
    auto* tile = reinterpret_cast<bf16*>(rows);
    int lane = threadIdx.x;
    ptx::cp_async16(tile + lane * 8, x + lane * 8);
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    __syncwarp();
    uint32_t r[4];
    ptx::ldmatrix_x4_trans(r, ptx::shared_address(tile + lane * 8));
    __syncwarp();
    ptx::stmatrix_x4(ptx::shared_address(tile + lane * 8), r);
    __syncwarp();
    Vec8::load(tile + lane * 8).store(out + lane * 8);
}
EXPORT_KERNEL(micro_transpose, micro_transpose)

// Tiles [4, 8, 16, 32] of a tensor of four dimensions come in and go out again, added: out += x.
extern "C" __global__ void micro_tma_4d(const __grid_constant__ CUtensorMap x,
                                        const __grid_constant__ CUtensorMap out) {
    DYNAMIC_SHARED(smem);
    constexpr uint32_t BYTES = 32 * 4 * 2 * 2 * 4;
    auto* bar = reinterpret_cast<uint64_t*>(smem + BYTES);
    if (threadIdx.x == 0) {
        ptx::tma_prefetch(&x);
        ptx::mbarrier_init(bar, 1);
        ptx::fence_mbarrier_init();
        ptx::mbarrier_arrive_expect_tx(bar, BYTES);
        ptx::tma_load_4d(smem, &x, bar, 0, int(blockIdx.x) * 4, 0, int(blockIdx.y) * 2);
        ptx::mbarrier_wait(bar, 0);
        ptx::tma_reduce_add_4d(&out, smem, 0, int(blockIdx.x) * 4, 0, int(blockIdx.y) * 2);
        ptx::bulk_commit();
        ptx::bulk_wait<0>();
    }
}
EXPORT_KERNEL(micro_tma_4d, micro_tma_4d)

// A run of bytes in, doubled, and added to out in bulk.
extern "C" __global__ void micro_bulk(float* out, const float* x) {
    SHARED_ARRAY(float4, tile, 32);
    SHARED_ARRAY(uint64_t, bar, 1);
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(bar, 1);
        ptx::fence_mbarrier_init();
        ptx::mbarrier_arrive_expect_tx(bar, 512);
        ptx::bulk_load(tile, x + blockIdx.x * 128, 512, bar);
    }
    __syncwarp();
    ptx::mbarrier_wait(bar, 0);
    float4 v = tile[threadIdx.x];
    tile[threadIdx.x] = make_float4(2 * v.x, 2 * v.y, 2 * v.z, 2 * v.w);
    ptx::fence_proxy_async();
    __syncwarp();
    if (threadIdx.x == 0) {
        ptx::bulk_reduce_add_f32(out, &tile[0].x, 512);
        ptx::bulk_commit();
        ptx::bulk_wait<0>();
    }
}
EXPORT_KERNEL(micro_bulk, micro_bulk)

// Two CTAs: rank 0 multicasts a tile to both, each adds its rank and sends it to the other.
extern "C" __global__ void micro_cluster(const __grid_constant__ CUtensorMap x, float* out) {
    DYNAMIC_SHARED(smem);
    auto* tile = reinterpret_cast<float*>(smem);              // [32]
    auto* inbox = reinterpret_cast<float*>(smem + 128);       // [32]
    auto* bar = reinterpret_cast<uint64_t*>(smem + 256);
    auto* mail = bar + 1;
    uint32_t rank = ptx::cluster_rank();
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(bar, 1);
        ptx::mbarrier_init(mail, 32);
        ptx::fence_mbarrier_init();
        ptx::mbarrier_arrive_expect_tx(bar, 128);
    }
    ptx::cluster_arrive();
    ptx::cluster_wait();
    if (threadIdx.x == 0 && rank == 0)
        ptx::tma_load_2d_multicast(tile, &x, bar, 3, 0, int(blockIdx.x) / 2);
    ptx::mbarrier_wait(bar, 0);
    uint32_t other = ptx::map_address(inbox + threadIdx.x, rank ^ 1);
    ptx::store_remote_f32(other, tile[threadIdx.x] + float(rank));
    ptx::mbarrier_arrive_remote(ptx::map_address(mail, rank ^ 1));
    ptx::mbarrier_wait(mail, 0);
    out[blockIdx.x * 32 + threadIdx.x] = inbox[threadIdx.x];
    ptx::cluster_arrive();
    ptx::cluster_wait();
}
EXPORT_KERNEL(micro_cluster, micro_cluster)
