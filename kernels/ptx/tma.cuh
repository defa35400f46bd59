// TMA: tiles between global and shared memory by tensor map, coordinates innermost first (PTX ISA,
// "cp.async.bulk.tensor", "cp.reduce.async.bulk.tensor"), and runs of bytes ("cp.async.bulk",
// "cp.reduce.async.bulk"); sm_90. One thread issues.
//
// A load completes on an mbarrier that expects its bytes: the whole box's, also where the box
// leaves the tensor and is filled with zeros. A store belongs to its thread's bulk groups.
#pragma once
#include <ptx/barrier.cuh>

namespace ptx {

__device__ __forceinline__ void tma_prefetch(const CUtensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// ------------------------------------------------------------------ tiles in
__device__ __forceinline__ void tma_load_2d(void* dst_smem, const CUtensorMap* map,
                                            uint64_t* bar_smem, int x, int y) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4}], [%2];" ::"r"(shared_address(dst_smem)),
        "l"(map), "r"(shared_address(bar_smem)), "r"(x), "r"(y)
        : "memory");
}

__device__ __forceinline__ void tma_load_3d(void* dst_smem, const CUtensorMap* map,
                                            uint64_t* bar_smem, int x, int y, int z) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(dst_smem)),
        "l"(map), "r"(shared_address(bar_smem)), "r"(x), "r"(y), "r"(z)
        : "memory");
}

__device__ __forceinline__ void tma_load_4d(void* dst_smem, const CUtensorMap* map,
                                            uint64_t* bar_smem, int x, int y, int z, int w) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(shared_address(dst_smem)),
        "l"(map), "r"(shared_address(bar_smem)), "r"(x), "r"(y), "r"(z), "r"(w)
        : "memory");
}

// To the same offsets, and with the same barrier's, in every CTA of the cluster whose bit is set in
// `ctas`.
__device__ __forceinline__ void tma_load_2d_multicast(void* dst_smem, const CUtensorMap* map,
                                                      uint64_t* bar_smem, uint16_t ctas, int x,
                                                      int y) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1, {%4, %5}], [%2], %3;" ::"r"(shared_address(dst_smem)),
        "l"(map), "r"(shared_address(bar_smem)), "h"(ctas), "r"(x), "r"(y)
        : "memory");
}

__device__ __forceinline__ void tma_load_3d_multicast(void* dst_smem, const CUtensorMap* map,
                                                      uint64_t* bar_smem, uint16_t ctas, int x,
                                                      int y, int z) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1, {%4, %5, %6}], [%2], %3;" ::"r"(shared_address(dst_smem)),
        "l"(map), "r"(shared_address(bar_smem)), "h"(ctas), "r"(x), "r"(y), "r"(z)
        : "memory");
}

__device__ __forceinline__ void tma_load_4d_multicast(void* dst_smem, const CUtensorMap* map,
                                                      uint64_t* bar_smem, uint16_t ctas, int x,
                                                      int y, int z, int w) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1, {%4, %5, %6, %7}], [%2], %3;" ::"r"(
            shared_address(dst_smem)),
        "l"(map), "r"(shared_address(bar_smem)), "h"(ctas), "r"(x), "r"(y), "r"(z), "r"(w)
        : "memory");
}

// ------------------------------------------------------------------ tiles out
__device__ __forceinline__ void tma_store_2d(const CUtensorMap* map, const void* src_smem, int x,
                                             int y) {
    asm volatile(
        "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group "
        "[%0, {%2, %3}], [%1];" ::"l"(map),
        "r"(shared_address(src_smem)), "r"(x), "r"(y)
        : "memory");
}

__device__ __forceinline__ void tma_store_3d(const CUtensorMap* map, const void* src_smem, int x,
                                             int y, int z) {
    asm volatile(
        "cp.async.bulk.tensor.3d.global.shared::cta.bulk_group "
        "[%0, {%2, %3, %4}], [%1];" ::"l"(map),
        "r"(shared_address(src_smem)), "r"(x), "r"(y), "r"(z)
        : "memory");
}

__device__ __forceinline__ void tma_store_4d(const CUtensorMap* map, const void* src_smem, int x,
                                             int y, int z, int w) {
    asm volatile(
        "cp.async.bulk.tensor.4d.global.shared::cta.bulk_group "
        "[%0, {%2, %3, %4, %5}], [%1];" ::"l"(map),
        "r"(shared_address(src_smem)), "r"(x), "r"(y), "r"(z), "r"(w)
        : "memory");
}

// global += shared, in the type of the tensor map.
__device__ __forceinline__ void tma_reduce_add_2d(const CUtensorMap* map, const void* src_smem,
                                                  int x, int y) {
    asm volatile(
        "cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.bulk_group "
        "[%0, {%2, %3}], [%1];" ::"l"(map),
        "r"(shared_address(src_smem)), "r"(x), "r"(y)
        : "memory");
}

__device__ __forceinline__ void tma_reduce_add_3d(const CUtensorMap* map, const void* src_smem,
                                                  int x, int y, int z) {
    asm volatile(
        "cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.bulk_group "
        "[%0, {%2, %3, %4}], [%1];" ::"l"(map),
        "r"(shared_address(src_smem)), "r"(x), "r"(y), "r"(z)
        : "memory");
}

__device__ __forceinline__ void tma_reduce_add_4d(const CUtensorMap* map, const void* src_smem,
                                                  int x, int y, int z, int w) {
    asm volatile(
        "cp.reduce.async.bulk.tensor.4d.global.shared::cta.add.bulk_group "
        "[%0, {%2, %3, %4, %5}], [%1];" ::"l"(map),
        "r"(shared_address(src_smem)), "r"(x), "r"(y), "r"(z), "r"(w)
        : "memory");
}

// ------------------------------------------------------------------ runs of bytes

// Addresses and `bytes` are multiples of 16.
__device__ __forceinline__ void bulk_load(void* dst_smem, const void* src_gmem, uint32_t bytes,
                                          uint64_t* bar_smem) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
        ::"r"(shared_address(dst_smem)),
        "l"(src_gmem), "r"(bytes), "r"(shared_address(bar_smem))
        : "memory");
}

__device__ __forceinline__ void bulk_store(void* dst_gmem, const void* src_smem, uint32_t bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(dst_gmem),
                 "r"(shared_address(src_smem)), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void bulk_reduce_add_f32(float* dst_gmem, const float* src_smem,
                                                    uint32_t bytes) {
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(
                     dst_gmem),
                 "r"(shared_address(src_smem)), "r"(bytes)
                 : "memory");
}

// Closes the group of this thread's stores.
__device__ __forceinline__ void bulk_commit() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// Until at most PENDING of this thread's groups are under way; `_read`: until the others have read
// their source, which may then be overwritten.
template <int PENDING>
__device__ __forceinline__ void bulk_wait() {
    asm volatile("cp.async.bulk.wait_group %0;" ::"n"(PENDING) : "memory");
}

template <int PENDING>
__device__ __forceinline__ void bulk_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(PENDING) : "memory");
}

}  // namespace ptx
