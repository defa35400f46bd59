// What every kernel shares: bf16, 16-byte vectors, sums over a warp and a block, Philox, dropout.
#pragma once
#include <ptx/grid.cuh>
#include <ptx/language.cuh>

using bf16 = __nv_bfloat16;
using bf16x2 = __nv_bfloat162;

constexpr unsigned ALL_LANES = 0xffffffffu;

__host__ __device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// First in every kernel. Blocks of the next kernel take their places as those of this one leave, and
// wait here until all of it is done: what a launch costs, and a last wave that fills no chip, lie
// beside work.
__device__ __forceinline__ void begin_kernel() {
    ptx::griddepcontrol_launch_dependents();
    ptx::griddepcontrol_wait();
}

// ------------------------------------------------------------------ vectors

// Two bf16 in a register, the first in its low half. One conversion takes both; two, of which the
// compiler may see that they are taken apart again, would be at a quarter of its rate.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    const bf16x2 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
}

// Eight bf16: one 16-byte access. Pointers are 16-byte aligned.
struct Vec8 {
    uint4 words;

    __device__ __forceinline__ static Vec8 load(const bf16* p) {
        return {*reinterpret_cast<const uint4*>(p)};
    }
    __device__ __forceinline__ void store(bf16* p) const { *reinterpret_cast<uint4*>(p) = words; }

    // A word holds two bf16, the first in its low half; bf16 is the high half of an fp32.
    __device__ __forceinline__ void to_float(float (&x)[8]) const {
        const unsigned w[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            x[2 * i] = __uint_as_float(w[i] << 16);
            x[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
        }
    }
    __device__ __forceinline__ static Vec8 from_float(const float (&x)[8]) {
        return {make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]),
                           pack_bf16(x[6], x[7]))};
    }
};

// Four fp32: one 16-byte access. Pointers are 16-byte aligned.
struct Vec4f {
    float4 values;

    __device__ __forceinline__ static Vec4f load(const float* p) {
        return {*reinterpret_cast<const float4*>(p)};
    }
    __device__ __forceinline__ void store(float* p) const {
        *reinterpret_cast<float4*>(p) = values;
    }
    __device__ __forceinline__ void to_float(float (&x)[4]) const {
        x[0] = values.x, x[1] = values.y, x[2] = values.z, x[3] = values.w;
    }
    __device__ __forceinline__ static Vec4f from_float(const float (&x)[4]) {
        return {make_float4(x[0], x[1], x[2], x[3])};
    }
};

// Eight fp32: two 16-byte accesses. Pointers are 16-byte aligned.
struct Vec8f {
    float4 low, high;

    __device__ __forceinline__ static Vec8f load(const float* p) {
        return {*reinterpret_cast<const float4*>(p), *reinterpret_cast<const float4*>(p + 4)};
    }
    __device__ __forceinline__ void store(float* p) const {
        *reinterpret_cast<float4*>(p) = low;
        *reinterpret_cast<float4*>(p + 4) = high;
    }
    __device__ __forceinline__ void to_float(float (&x)[8]) const {
        x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
        x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
    }
    __device__ __forceinline__ static Vec8f from_float(const float (&x)[8]) {
        return {make_float4(x[0], x[1], x[2], x[3]), make_float4(x[4], x[5], x[6], x[7])};
    }
};

// ------------------------------------------------------------------ reductions

// The sum over the warp, bitwise the same in all lanes.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int bits = 16; bits; bits >>= 1) x += __shfl_xor_sync(ALL_LANES, x, bits);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int bits = 16; bits; bits >>= 1) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, bits));
    return x;
}

// The sum over a block of THREADS threads (whole warps), the same bits in all of them and every
// time. `scratch_smem` [THREADS / 32] may be reused after the next barrier.
template <int THREADS>
__device__ __forceinline__ float block_sum(float x, float* scratch_smem) {
    static_assert(THREADS % 32 == 0 && THREADS <= 1024, "whole warps");
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) scratch_smem[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (int warp = 0; warp < THREADS / 32; warp++) sum += scratch_smem[warp];
    return sum;
}

template <int THREADS>
__device__ __forceinline__ float block_max(float x, float* scratch_smem) {
    static_assert(THREADS % 32 == 0 && THREADS <= 1024, "whole warps");
    x = warp_max(x);
    if (threadIdx.x % 32 == 0) scratch_smem[threadIdx.x / 32] = x;
    __syncthreads();
    float largest = scratch_smem[0];
#pragma unroll
    for (int warp = 1; warp < THREADS / 32; warp++) largest = fmaxf(largest, scratch_smem[warp]);
    return largest;
}

// ------------------------------------------------------------------ random numbers

// Philox4x32-10, word for word that of src/rng.rs. Of a product's halves, asked for one by one, nvcc
// makes one wide product; of the product in 64 bits it makes that and an addition of zero. Only the
// latter form leaves attention_keys_64, which has no register to spare, without a spill: TIGHT.
template <bool TIGHT = false>
__device__ __forceinline__ uint4 philox4x32_10(uint4 counter, uint2 key) {
    constexpr uint32_t A = 0xD2511F53u, B = 0xCD9E8D57u;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        uint4 c = counter;
        if constexpr (TIGHT) {
            uint64_t a = uint64_t(A) * c.x, b = uint64_t(B) * c.z;
            counter = make_uint4(uint32_t(b >> 32) ^ c.y ^ key.x, uint32_t(b),
                                 uint32_t(a >> 32) ^ c.w ^ key.y, uint32_t(a));
        } else {
            counter = make_uint4(__umulhi(B, c.z) ^ c.y ^ key.x, B * c.z,
                                 __umulhi(A, c.x) ^ c.w ^ key.y, A * c.x);
        }
        key = make_uint2(key.x + 0x9E3779B9u, key.y + 0xBB67AE85u);
    }
    return counter;
}

// What a draw is for; numbers as in src/rng.rs.
constexpr uint32_t STREAM_MASK = 1, STREAM_DROPOUT = 3, STREAM_ROUNDING = 6;

// Four words for (stream | site << 8, step, index).
template <bool TIGHT = false>
__device__ __forceinline__ uint4 philox_block(uint64_t seed, uint32_t stream, uint32_t step,
                                              uint64_t index) {
    return philox4x32_10<TIGHT>(
        make_uint4(uint32_t(index), uint32_t(index >> 32), step, stream),
        make_uint2(uint32_t(seed), uint32_t(seed >> 32)));
}

// One dropout site at one step, as `Dropout` in src/ops/dropout.rs; the host computes
// threshold = p · 2^32 and keep = 1 / (1 - p). p = 0 has threshold 0: everything is kept.
struct Dropout {
    uint64_t seed;
    uint32_t step, site, threshold;
    float keep;
};

// Factors, 0 or 1 / (1 - p), of elements 4 · block to 4 · block + 3.
template <bool TIGHT = false>
__device__ __forceinline__ float4 dropout_factors(const Dropout& dropout, uint64_t block) {
    if (dropout.threshold == 0) return make_float4(1, 1, 1, 1);
    uint4 words = philox_block<TIGHT>(dropout.seed, STREAM_DROPOUT | dropout.site << 8,
                                      dropout.step, block);
    auto factor = [&](uint32_t word) { return word >= dropout.threshold ? dropout.keep : 0.0f; };
    return make_float4(factor(words.x), factor(words.y), factor(words.z), factor(words.w));
}
