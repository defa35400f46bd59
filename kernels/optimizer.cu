// Optimizers over the flat arenas: master weights, moments and the bf16 copy in one launch.
//
// The rules are in src/ops/optimizer.rs. With g clipped by min(1, c / (norm + 1e-6)) and t steps
// applied, both read from `control` on the device, so the host waits for nothing; a step judged
// not finite writes nothing.
//
// Floor: AdamW reads g, m, v and w and writes m, v, w and the bf16 copy, 30 bytes a parameter:
// 124M parameters, 0.87 ms at 4.3 TB/s. A vector's 600 instructions, most of them one division and
// one root an element, are 0.7 of what can be issued meanwhile. Unmeasured on a GPU.
//
// A thread takes four neighbouring elements. Groups (runs of parameters with one decay and one
// factor of the learning rate) begin on multiples of four, so a vector lies in one group; it is
// found by bisection in a table of a few hundred entries, which stays in the L1.
#include <common.cuh>

namespace {

constexpr int THREADS = 256;

enum Rule { ADAMW, SGD, RMSPROP };

// One run of the arena, up to where the next begins; `GroupArg` of src/ops/optimizer.rs.
struct Group {
    unsigned long long start;
    float lr_scale;  // factor of η
    float decay;
};

// `RuleArg` of src/ops/optimizer.rs.
struct Constants {
    int rule;
    float clip;
    float beta1, beta2;          // AdamW; SGD: momentum, nesterov (1 or 0); RMSprop: α, momentum
    float rest1, rest2;          // 1 − β, which β in f32 would give with a large error
    float log_beta1, log_beta2;  // AdamW
    float epsilon;
    int stochastic;              // round the bf16 copy by chance
    unsigned long long seed;     // of that
};

// What all elements of a step share.
struct Step {
    float lr, clip, unbias1, unbias2;
    unsigned t;

    __device__ Step(const Constants& k, float lr, const float* control) : lr(lr) {
        clip = fminf(1.0f, k.clip / (control[0] + 1e-6f));
        t = unsigned(control[2]);
        // 1 − βᵗ, without the cancellation.
        unbias1 = k.rule == ADAMW ? 1.0f / -expm1f(t * k.log_beta1) : 0.0f;
        unbias2 = k.rule == ADAMW ? 1.0f / -expm1f(t * k.log_beta2) : 0.0f;
    }
};

// Updates one element.
__device__ __forceinline__ void update_element(const Constants& k, const Step& step, Group group,
                                               float g, float& w, float& m, float& v) {
    const float lr = step.lr * group.lr_scale;
    g *= step.clip;
    if (k.rule == ADAMW) {
        m = k.beta1 * m + k.rest1 * g;
        v = k.beta2 * v + k.rest2 * g * g;
        float step_size = lr * step.unbias1;
        w = w * (1.0f - lr * group.decay) -
            step_size * m / (sqrtf(v * step.unbias2) + k.epsilon);
        return;
    }
    g += group.decay * w;
    if (k.rule == SGD) {
        m = k.beta1 * m + g;
        w -= lr * (k.beta2 != 0.0f ? g + k.beta1 * m : m);
    } else {
        v = k.beta1 * v + k.rest1 * g * g;
        m = k.beta2 * m + g / (sqrtf(v) + k.epsilon);
        w -= lr * m;
    }
}

// The last of `count` groups that starts at or before element `i`.
__device__ __forceinline__ Group group_of(const Group* groups, int count, size_t i) {
    int low = 0;
    while (count > 1) {
        int half = count / 2;
        if (groups[low + half].start <= i) low += half;
        count -= half;
    }
    return groups[low];
}

// The bits of w as bf16: to nearest, or up with the probability that makes the mean w.
__device__ __forceinline__ unsigned rounded(float w, bool stochastic, unsigned word) {
    if (!stochastic || !isfinite(w)) return __bfloat16_as_ushort(__float2bfloat16_rn(w));
    return (__float_as_uint(w) + (word & 0xffff)) >> 16;
}

__device__ __forceinline__ uint4 rounding_words(const Constants& k, const Step& step, size_t i) {
    if (!k.stochastic) return make_uint4(0, 0, 0, 0);
    return philox_block(k.seed, STREAM_ROUNDING, step.t, i / 4);
}

}  // namespace

// One thread an element.
extern "C" __global__ void update_naive(bf16* params, float* master, float* m, float* v,
                                        const float* grads, const float* control,
                                        const Group* groups, int group_count, Constants k,
                                        float lr, unsigned long long length) {
    begin_kernel();
    size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= length || control[1] == 0.0f) return;
    Step step(k, lr, control);
    Group group = group_of(groups, group_count, i);
    update_element(k, step, group, grads[i], master[i], m[i], v[i]);
    uint4 words = rounding_words(k, step, i);
    unsigned word = i % 4 == 0 ? words.x : i % 4 == 1 ? words.y : i % 4 == 2 ? words.z : words.w;
    params[i] = __ushort_as_bfloat16((unsigned short)rounded(master[i], k.stochastic, word));
}
EXPORT_KERNEL(update_naive, update_naive)

// One thread four elements; `length` is a multiple of four, as arenas are.
extern "C" __global__ void __launch_bounds__(THREADS)
    update(bf16* params, float* master, float* m, float* v, const float* grads,
           const float* control, const Group* groups, int group_count, Constants k,
           float lr, unsigned long long length) {
    begin_kernel();
    size_t i = (size_t(blockIdx.x) * THREADS + threadIdx.x) * 4;
    if (i >= length || control[1] == 0.0f) return;
    Step step(k, lr, control);
    Group group = group_of(groups, group_count, i);
    float4 g = *reinterpret_cast<const float4*>(grads + i);
    float4 w4 = *reinterpret_cast<const float4*>(master + i);
    float4 m4 = *reinterpret_cast<const float4*>(m + i);
    float4 v4 = *reinterpret_cast<const float4*>(v + i);
    update_element(k, step, group, g.x, w4.x, m4.x, v4.x);
    update_element(k, step, group, g.y, w4.y, m4.y, v4.y);
    update_element(k, step, group, g.z, w4.z, m4.z, v4.z);
    update_element(k, step, group, g.w, w4.w, m4.w, v4.w);
    *reinterpret_cast<float4*>(master + i) = w4;
    *reinterpret_cast<float4*>(m + i) = m4;
    if (k.rule != SGD) *reinterpret_cast<float4*>(v + i) = v4;
    uint4 words = rounding_words(k, step, i);
    unsigned low = rounded(w4.x, k.stochastic, words.x) |
                   rounded(w4.y, k.stochastic, words.y) << 16;
    unsigned high = rounded(w4.z, k.stochastic, words.z) |
                    rounded(w4.w, k.stochastic, words.w) << 16;
    *reinterpret_cast<uint2*>(params + i) = make_uint2(low, high);
}
EXPORT_KERNEL(update, update)

// params = master, rounded; one thread four elements.
extern "C" __global__ void __launch_bounds__(THREADS)
    store(bf16* params, const float* master, unsigned long long length) {
    begin_kernel();
    size_t i = (size_t(blockIdx.x) * THREADS + threadIdx.x) * 4;
    if (i >= length) return;
    float4 w = *reinterpret_cast<const float4*>(master + i);
    uint2 packed = make_uint2(pack_bf16(w.x, w.y), pack_bf16(w.z, w.w));
    *reinterpret_cast<uint2*>(params + i) = packed;
}
EXPORT_KERNEL(store, store)

extern "C" __global__ void store_naive(bf16* params, const float* master,
                                       unsigned long long length) {
    begin_kernel();
    size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < length) params[i] = __float2bfloat16_rn(master[i]);
}
EXPORT_KERNEL(store_naive, store_naive)
