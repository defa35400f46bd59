// CUDA as a host compiler sees it: qualifiers, built-in variables, types, intrinsics, and the
// macros through which kernels name shared memory and export themselves.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../atomics.h"
#include "../bfloat16.h"
#include "../calls.h"
#include "../collectives.h"
#include "../export.h"
#include "../intrinsics.h"
#include "../vectors.h"

// There is no __shared__: arrays in shared memory are made by SHARED_ARRAY.
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __grid_constant__
#define __constant__ static const
#define __align__(n) __attribute__((aligned(n)))

#define threadIdx (::emu::place->thread)
#define blockIdx (::emu::place->block)
#define blockDim (::emu::place->block_dim)
#define gridDim (::emu::place->grid_dim)
constexpr int warpSize = 32;

// 128 bytes, opaque, as the driver's; `emu_tensor_map` fills it.
struct alignas(128) CUtensorMap {
    uint64_t opaque[16];
};

// T name[N] in shared memory. The tag's address is the array's identity: one array for each place
// in the source and each instantiation, the same for all threads of a CTA.
#define SHARED_ARRAY(T, name, N)                                            \
    static const char name##_tag = 0;                                       \
    T(&name)[N] = *reinterpret_cast<T(*)[N]>(                               \
        ::emu::static_shared(&name##_tag, sizeof(T) * (N), alignof(T)))

// The launch's dynamic shared memory, 1,024-byte aligned, as `unsigned char* name`.
#define DYNAMIC_SHARED(name) \
    unsigned char* const name = static_cast<unsigned char*>(::emu::dynamic_shared())

#define EXPORT_KERNEL(name, function) \
    static const ::emu::Exported name##_exported { ::emu::Thunk<&function>::kernel(#name) };

namespace ptx {
inline uint32_t shared_address(const void* pointer) { return emu::shared_address(pointer); }
}  // namespace ptx
