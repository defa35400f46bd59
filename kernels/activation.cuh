// Activations and their derivatives, for the kernels that apply them alone (activation.cu) and for
// the epilogues of products (product.cu). The maths is at the head of src/ops/activation.rs.
//
// Each function gives value and derivative together, since they share their expensive part; a
// caller that drops one of them does not pay for it, because everything is inlined.
//
// An activation alone has 10 to 14 instructions an element before issue is the limit (see the head
// of activation.cu), and in a product's epilogue nothing hides it. So each is made of one `ex2` and
// one `rcp` of the special-function unit, without a branch, and with relative errors of about 1e-5
// wherever the result is, far below bf16's 2e-3; tanhf alone is CUDA's, at full precision.
#pragma once
#include <ptx/language.cuh>
#include <ptx/math.cuh>

// Numbered as `Activation` in src/ops/activation.rs.
enum class Activation : int { GELU, GELU_TANH, SILU, TANH };

// An activation at a point.
struct ActivationAt {
    float value, slope;
};

constexpr float LOG2_E = 1.44269504088896341f;

// With Q the upper tail of the normal distribution and t = 1 / (1 + 0.31 |x|), Q(|x|) exp(x²/2) is a
// polynomial of t, within 5e-6 of itself to |x| = 13.5: fitted at Chebyshev's nodes, reweighted
// until the largest relative error was least. So Φ(x) does not cancel where x is negative, and
// shares its exponential with the density.
__device__ __forceinline__ ActivationAt gelu_at(float x) {
    constexpr float INV_SQRT_2PI = 0.39894228040143268f;
    float bell = ptx::exp2_approx(-0.5f * LOG2_E * x * x);
    float t = ptx::rcp_approx(1.0f + 0.31f * fabsf(x));
    float tail = fmaf(t, -0.0739291534f, 0.180450365f);
    tail = fmaf(t, tail, 0.0157447197f);
    tail = fmaf(t, tail, 0.133429751f);
    tail = fmaf(t, tail, 0.120441295f);
    tail = fmaf(t, tail, 0.123860702f) * t * bell;
    float cdf = x < 0.0f ? tail : 1.0f - tail;
    float density = INV_SQRT_2PI * bell;
    return {x * cdf, cdf + x * density};
}

// ½ (1 + tanh u) = 1 / (1 + exp(−2u)) = s, and ½ (1 − tanh² u) = 2 exp(−2u) s²: no cancellation.
__device__ __forceinline__ ActivationAt gelu_tanh_at(float x) {
    constexpr float SQRT_2_OVER_PI = 0.79788456080286536f;
    constexpr float CUBIC = 0.044715f;
    float square = x * x;
    float u = SQRT_2_OVER_PI * x * (1.0f + CUBIC * square);
    // Below 2^127, or its product with s² = 0 would be no number.
    float e = ptx::exp2_approx(fminf(-2.0f * LOG2_E * u, 126.0f));
    float s = ptx::rcp_approx(1.0f + e);
    float du = SQRT_2_OVER_PI * (1.0f + 3.0f * CUBIC * square);
    return {x * s, s + x * (2.0f * e * s * s) * du};
}

__device__ __forceinline__ ActivationAt silu_at(float x) {
    float sigmoid = ptx::rcp_approx(1.0f + ptx::exp2_approx(-LOG2_E * x));
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
