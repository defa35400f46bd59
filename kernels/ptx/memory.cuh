// Words of global memory by which CTAs wait for one another (PTX ISA, "ld", "st", "red", "atom",
// "fence", "nanosleep"): acquire and release at the scope of the GPU.
//
// Poll with load_acquire and nothing else: on the emulator it lets the other threads run.
#pragma once
#include <ptx/language.cuh>

namespace ptx {

__device__ __forceinline__ uint32_t load_relaxed(const uint32_t* p_gmem) {
    uint32_t value;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(p_gmem) : "memory");
    return value;
}

__device__ __forceinline__ uint32_t load_acquire(const uint32_t* p_gmem) {
    uint32_t value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(p_gmem) : "memory");
    return value;
}

__device__ __forceinline__ void store_release(uint32_t* p_gmem, uint32_t value) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p_gmem), "r"(value) : "memory");
}

__device__ __forceinline__ void red_add_release(uint32_t* p_gmem, uint32_t value) {
    asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(p_gmem), "r"(value) : "memory");
}

// The old value.
__device__ __forceinline__ uint32_t atom_add_acq_rel(uint32_t* p_gmem, uint32_t value) {
    uint32_t old;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;"
                 : "=r"(old)
                 : "l"(p_gmem), "r"(value)
                 : "memory");
    return old;
}

__device__ __forceinline__ uint32_t atom_cas_acquire(uint32_t* p_gmem, uint32_t compare,
                                                     uint32_t value) {
    uint32_t old;
    asm volatile("atom.acquire.gpu.global.cas.b32 %0, [%1], %2, %3;"
                 : "=r"(old)
                 : "l"(p_gmem), "r"(compare), "r"(value)
                 : "memory");
    return old;
}

__device__ __forceinline__ void fence_acq_rel_gpu() {
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

__device__ __forceinline__ void nanosleep(uint32_t nanoseconds) {
    asm volatile("nanosleep.u32 %0;" ::"r"(nanoseconds));
}

}  // namespace ptx
