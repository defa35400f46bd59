// Copies: cp.async (PTX ISA, "Data Movement: cp.async"), and 16-byte loads and stores with a cache
// policy ("ld", "ld.global.nc", "st").
#pragma once
#include <ptx/language.cuh>

namespace ptx {

// 16 bytes from global to shared memory, past the registers and L1; of the source only `src_bytes`
// (0 to 16) are read, the rest becomes zero.
__device__ __forceinline__ void cp_async16(void* dst_smem, const void* src_gmem,
                                           uint32_t src_bytes = 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(dst_smem)),
                 "l"(src_gmem), "r"(src_bytes)
                 : "memory");
}

// Closes the group of this thread's copies.
__device__ __forceinline__ void cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Until at most PENDING of this thread's groups are under way.
template <int PENDING>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Read once: evicted first.
__device__ __forceinline__ uint4 load16_streaming(const void* src_gmem) {
    uint4 v;
    asm volatile("ld.global.cs.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(src_gmem)
                 : "memory");
    return v;
}

// Memory that no thread writes during the kernel, not kept in L1.
__device__ __forceinline__ uint4 load16_no_allocate(const void* src_gmem) {
    uint4 v;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(src_gmem));
    return v;
}

__device__ __forceinline__ void store16_streaming(void* dst_gmem, const uint4& value) {
    asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(dst_gmem), "r"(value.x),
                 "r"(value.y), "r"(value.z), "r"(value.w)
                 : "memory");
}

}  // namespace ptx
