// Clusters: up to eight CTAs that see one another's shared memory (PTX ISA, "barrier.cluster",
// "mapa", "ld", "st", "mbarrier.arrive" with .shared::cluster; sm_90).
//
// No CTA may exit while another may still touch its shared memory: end with cluster_arrive and
// cluster_wait.
#pragma once
#include <ptx/language.cuh>

namespace ptx {

__device__ __forceinline__ uint32_t cluster_rank() {
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

__device__ __forceinline__ uint32_t cluster_size() {
    uint32_t ctas;
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(ctas));
    return ctas;
}

// Release, by all threads of the cluster.
__device__ __forceinline__ void cluster_arrive() {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}

// Acquire.
__device__ __forceinline__ void cluster_wait() {
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// The address, for the functions below, of the CTA `rank`'s counterpart of `own_smem`.
__device__ __forceinline__ uint32_t map_address(const void* own_smem, uint32_t rank) {
    uint32_t address;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                 : "=r"(address)
                 : "r"(shared_address(own_smem)), "r"(rank));
    return address;
}

__device__ __forceinline__ float load_remote_f32(uint32_t address) {
    float value;
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(value) : "r"(address) : "memory");
    return value;
}

__device__ __forceinline__ uint4 load_remote_16(uint32_t address) {
    uint4 v;
    asm volatile("ld.shared::cluster.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(address)
                 : "memory");
    return v;
}

__device__ __forceinline__ void store_remote_f32(uint32_t address, float value) {
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(address), "f"(value) : "memory");
}

__device__ __forceinline__ void store_remote_16(uint32_t address, const uint4& value) {
    asm volatile("st.shared::cluster.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(value.x),
                 "r"(value.y), "r"(value.z), "r"(value.w)
                 : "memory");
}

// Arrives, with release, on another CTA's mbarrier.
__device__ __forceinline__ void mbarrier_arrive_remote(uint32_t bar_address) {
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(bar_address)
                 : "memory");
}

// The same for who has only read, panels that TMA may overwrite then: release at the scope of the
// CTA, which spares the memory barrier of the whole GPU that the wider one is compiled to.
__device__ __forceinline__ void mbarrier_arrive_remote_read(uint32_t bar_address) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(bar_address) : "memory");
}

}  // namespace ptx
