// What nvcc needs: the CUDA headers, and the macros through which kernels name shared memory and
// export themselves. The emulator's twin of this file gives the same names to a host compiler.
#pragma once
#include <cuda.h>
#include <cuda_bf16.h>
#include <stdint.h>

// T name[N] in shared memory.
#define SHARED_ARRAY(T, name, N) __shared__ T name[N]

// The launch's dynamic shared memory, 1,024-byte aligned, as `unsigned char* name`.
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]

// `function` is an `extern "C" __global__` function named `name`: that is the name the driver
// finds. A template gets such a function of its own around each instantiation.
#define EXPORT_KERNEL(name, function) \
    static_assert(&name == &function, "a kernel is exported under its extern \"C\" name");

namespace ptx {
// The 32-bit address of a place in shared memory, as the instructions below want it.
__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}
}  // namespace ptx
