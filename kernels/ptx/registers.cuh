// Registers handed from one warpgroup to another (PTX ISA, "setmaxnreg"; sm_90a). Ignored, with
// warning C7508, unless the kernel's __launch_bounds__ names its CTAs a multiprocessor.
#pragma once
#include <ptx/language.cuh>

namespace ptx {

template <int REGISTERS>
__device__ __forceinline__ void registers_increase() {
    static_assert(REGISTERS % 8 == 0 && REGISTERS >= 24 && REGISTERS <= 256, "8 n in 24..256");
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

template <int REGISTERS>
__device__ __forceinline__ void registers_decrease() {
    static_assert(REGISTERS % 8 == 0 && REGISTERS >= 24 && REGISTERS <= 256, "8 n in 24..256");
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

}  // namespace ptx
