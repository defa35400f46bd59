// Kernels that overlap (PTX ISA, "griddepcontrol"): programmatic dependent launch, for chips from
// sm_90 on; older ones end a kernel before they begin the next.
#pragma once
#include <ptx/language.cuh>

namespace ptx {

// The next kernel may begin once every block of this one has come here, or ended.
__device__ __forceinline__ void griddepcontrol_launch_dependents() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Waits until the kernels before have ended, and what they wrote can be read.
__device__ __forceinline__ void griddepcontrol_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace ptx
