// Activations and their derivatives, for the kernels that apply them alone (activation.cu) and for
// the epilogues of products (product.cu). The maths is at the head of src/ops/activation.rs.
//
// Each function gives value and derivative together, since they share their expensive part; a
// caller that drops one of them does not pay for it, because everything is inlined.
//
// erff, tanhf and expf are CUDA's at full precision (errors of one or two ulp of f32, far below
// what bf16 keeps). Leads, all for a GPU to judge: `tanh.approx.f32` (one instruction, 2^-11
// relative error, so about bf16's own rounding) for GELU_TANH and TANH; `__expf` and a fast
// reciprocal for SILU; for GELU a polynomial of erf over the range where bf16 can tell it from ±1.
#pragma once
#include <ptx/language.cuh>

// Numbered as `Activation` in src/ops/activation.rs.
enum class Activation : int { GELU, GELU_TANH, SILU, TANH };

// An activation at a point.
struct ActivationAt {
    float value, slope;
};

__device__ __forceinline__ ActivationAt gelu_at(float x) {
    constexpr float SQRT_HALF = 0.70710678118654752f;
    constexpr float INV_SQRT_2PI = 0.39894228040143268f;
    float cdf = 0.5f * (1.0f + erff(x * SQRT_HALF));
    float density = INV_SQRT_2PI * expf(-0.5f * x * x);
    return {x * cdf, cdf + x * density};
}

__device__ __forceinline__ ActivationAt gelu_tanh_at(float x) {
    constexpr float SQRT_2_OVER_PI = 0.79788456080286536f;
    constexpr float CUBIC = 0.044715f;
    float square = x * x;
    float t = tanhf(SQRT_2_OVER_PI * x * (1.0f + CUBIC * square));
    float half_sum = 0.5f * (1.0f + t);
    float du = SQRT_2_OVER_PI * (1.0f + 3.0f * CUBIC * square);
    return {x * half_sum, half_sum + 0.5f * x * (1.0f - t * t) * du};
}

__device__ __forceinline__ ActivationAt silu_at(float x) {
    float sigmoid = 1.0f / (1.0f + expf(-x));
    return {x * sigmoid, sigmoid * (1.0f + x * (1.0f - sigmoid))};
}

__device__ __forceinline__ ActivationAt tanh_at(float x) {
    float t = tanhf(x);
    return {t, 1.0f - t * t};
}

template <Activation A>
__device__ __forceinline__ ActivationAt activation_at(float x) {
    if constexpr (A == Activation::GELU) {
        return gelu_at(x);
    } else if constexpr (A == Activation::GELU_TANH) {
        return gelu_tanh_at(x);
    } else if constexpr (A == Activation::SILU) {
        return silu_at(x);
    } else {
        return tanh_at(x);
    }
}

// The same where the activation is an argument of the kernel.
__device__ __forceinline__ ActivationAt activation_at(Activation activation, float x) {
    switch (activation) {
        case Activation::GELU: return gelu_at(x);
        case Activation::GELU_TANH: return gelu_tanh_at(x);
        case Activation::SILU: return silu_at(x);
        default: return tanh_at(x);
    }
}

template <Activation A>
__device__ __forceinline__ float activate(float x) {
    return activation_at<A>(x).value;
}

template <Activation A>
__device__ __forceinline__ float activation_slope(float x) {
    return activation_at<A>(x).slope;
}

// Calls f(an activation known at compile time).
template <class F>
__device__ __forceinline__ void with_activation(int activation, F f) {
    switch (Activation(activation)) {
        case Activation::GELU: return f([](float x) { return gelu_at(x); });
        case Activation::GELU_TANH: return f([](float x) { return gelu_tanh_at(x); });
        case Activation::SILU: return f([](float x) { return silu_at(x); });
        default: return f([](float x) { return tanh_at(x); });
    }
}
