// Dropout of a vector, for the kernels that have one at hand (norm.cu) and for dropout.cu.
#pragma once
#include <common.cuh>

// x under the mask of elements `first` to first + 7: two blocks of it, drawn side by side.
__device__ __forceinline__ void drop8(float (&x)[8], const Dropout& dropout, size_t first) {
    if (dropout.threshold == 0) return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float4 factors = dropout_factors(dropout, first / 4 + half);
        x[4 * half] *= factors.x;
        x[4 * half + 1] *= factors.y;
        x[4 * half + 2] *= factors.z;
        x[4 * half + 3] *= factors.w;
    }
}
