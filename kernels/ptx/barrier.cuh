// Barriers: the CTA's sixteen named ones (PTX ISA, "bar"), mbarriers in shared memory ("mbarrier";
// sm_90), and the fences that asynchronous units need ("membar, fence": proxies).
#pragma once
#include <ptx/language.cuh>

namespace ptx {

// `threads` counts whole warps. Barrier 0 is __syncthreads'.
__device__ __forceinline__ void named_barrier_sync(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// A phase completes after `arrivals` arrivals and all bytes that were expected. Phases alternate
// between parity 0 and 1; waiting for parity 1 on a fresh barrier returns at once.
__device__ __forceinline__ void mbarrier_init(uint64_t* bar_smem, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(bar_smem)),
                 "r"(arrivals)
                 : "memory");
}

__device__ __forceinline__ void mbarrier_invalidate(uint64_t* bar_smem) {
    asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(shared_address(bar_smem))
                 : "memory");
}

__device__ __forceinline__ void mbarrier_arrive(uint64_t* bar_smem) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(bar_smem))
                 : "memory");
}

__device__ __forceinline__ void mbarrier_expect_tx(uint64_t* bar_smem, uint32_t bytes) {
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(
                     shared_address(bar_smem)),
                 "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void mbarrier_arrive_expect_tx(uint64_t* bar_smem, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                     shared_address(bar_smem)),
                 "r"(bytes)
                 : "memory");
}

// Whether the phase of this parity is complete; may sleep a moment to see.
__device__ __forceinline__ bool mbarrier_try_wait(uint64_t* bar_smem, uint32_t parity) {
    uint32_t done;
    asm volatile(
        "{\n"
        " .reg .pred done;\n"
        " mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
        " selp.u32 %0, 1, 0, done;\n"
        "}"
        : "=r"(done)
        : "r"(shared_address(bar_smem)), "r"(parity)
        : "memory");
    return done;
}

__device__ __forceinline__ void mbarrier_wait(uint64_t* bar_smem, uint32_t parity) {
    while (!mbarrier_try_wait(bar_smem, parity)) {
    }
}

// Makes initialised mbarriers visible to the cluster and to asynchronous units.
__device__ __forceinline__ void fence_mbarrier_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Between a thread's own accesses to shared memory and those of TMA or wgmma: by each thread that
// wrote, before the barrier.
__device__ __forceinline__ void fence_proxy_async() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// The same for global memory that TMA reads or writes.
__device__ __forceinline__ void fence_proxy_async_global() {
    asm volatile("fence.proxy.async.global;" ::: "memory");
}

}  // namespace ptx
