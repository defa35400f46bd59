// Approximate functions of the special-function unit (PTX ISA, "ex2", "rcp", "tanh"). Their errors:
// ex2 2 ulp, rcp 1 ulp, tanh 2^-11 relative; subnormals become zero in the first two.
#pragma once
#include <ptx/language.cuh>

namespace ptx {

__device__ __forceinline__ float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float rcp_approx(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float tanh_approx(float x) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

}  // namespace ptx
