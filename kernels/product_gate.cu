// Products around the gate of a gated MLP (GeGLU, SwiGLU), on every chip:
//
//   linear_gate      pre [N, 2 F] = x Wᵀ + b, y [N, F] = act(a) ∘ g       with [a, g] = pre
//   linear_dx_gate   d [N, F] = dy W;  dpre = [d ∘ g ∘ act'(a), d ∘ act(a)]
// W is as product.cu has it, the rows of a's weights before those of g's. bf16 in, sums in f32; y
// starts from pre as rounded, dpre from d in f32.
//
// Floor: as the products' own, in operations. Bytes, 65,536 tokens, 768 → 2 × 1,152 and back
// (ModernBERT): 0.56 and 0.71 GB, 0.13 and 0.16 ms at 4.3 TB/s. Apart, product and gate would move
// 0.86 and 1.01 GB, and nothing multiply during the gate. Unmeasured on a GPU; predictions: LOG.md.
//
// How it works. product.cuh multiplies. Forward, the panel of W has both rows of each pair: of the
// columns that a warp makes, the second half are the partners of the first (`PAIRED`), so its pass
// through shared memory finds both and W lies as it always does. Backward, the epilogue reads both
// halves of pre where it stores both of dpre.
//
// Limits: n_in of the first and F are multiples of 8, as are dy's columns.
#include "activation.cuh"
#include "product.cuh"

namespace {

using namespace product;

// pre = c + b, y = act(a) ∘ g
struct GateOut {
    using Fetched = Nothing;
    bf16 *y, *pre;
    int inner, activation;
    Biased a_biased, g_biased;

    __device__ __forceinline__ Fetched fetch(int, int) const { return {}; }
    __device__ __forceinline__ void store(int row, int column, float (&a)[8], float (&g)[8],
                                          Fetched) const {
        const Vec8 a_rounded = a_biased.rounded(a), g_rounded = g_biased.rounded(g);
        bf16* to = pre + size_t(row) * 2 * inner + column;
        a_rounded.store(to);
        g_rounded.store(to + inner);
        a_rounded.to_float(a);
        g_rounded.to_float(g);
        with_activation(activation, [&](auto act) {
#pragma unroll
            for (int e = 0; e < 8; e++) g[e] *= act(a[e]).value;
        });
        Vec8::from_float(g).store(y + size_t(row) * inner + column);
    }
};

// da = c ∘ g ∘ act'(a), dg = c ∘ act(a)
struct GateGradientOut {
    struct Fetched {
        Vec8 a, g;
    };
    bf16* dpre;
    const bf16* pre;
    int inner, activation;

    __device__ __forceinline__ Fetched fetch(int row, int column) const {
        const bf16* from = pre + size_t(row) * 2 * inner + column;
        return {Vec8::load(from), Vec8::load(from + inner)};
    }
    __device__ __forceinline__ void store(int row, int column, float (&d)[8],
                                          const Fetched& fetched) const {
        float a[8], g[8];
        fetched.a.to_float(a);
        fetched.g.to_float(g);
        with_activation(activation, [&](auto act) {
#pragma unroll
            for (int e = 0; e < 8; e++) {
                const ActivationAt at = act(a[e]);
                a[e] = d[e] * g[e] * at.slope;
                g[e] = d[e] * at.value;
            }
        });
        bf16* to = dpre + size_t(row) * 2 * inner + column;
        Vec8::from_float(a).store(to);
        Vec8::from_float(g).store(to + inner);
    }
};

template <class T>
__device__ __forceinline__ void linear_gate(bf16* y, bf16* pre, const bf16* x, const bf16* w,
                                            const bf16* b, int m, int inner, int k,
                                            int activation) {
    DYNAMIC_SHARED(smem);
    const Place place = place_of_block<T>(m, 2 * inner, k, k);
    Results<T> c = {};
    NoRowSums none;
    Multiply<T, Major::K, Major::K, T::WARP_N>(
        {x, size_t(k), m}, {w, size_t(k), 2 * inner, inner}, place, smem)
        .run(c, none);
    const int column = column_of_lane<T, 2>(place);
    const Biased a_biased(b, column, inner), g_biased(b ? b + inner : b, column, inner);
    store_results<T, 2>(c, place, m, inner, smem,
                        GateOut{y, pre, inner, activation, a_biased, g_biased});
}

// inner is n_in, k is n_out.
template <class T>
__device__ __forceinline__ void linear_dx_gate(bf16* dpre, const bf16* dy, const bf16* pre,
                                               const bf16* w, int m, int inner, int k,
                                               int activation) {
    DYNAMIC_SHARED(smem);
    const Place place = place_of_block<T>(m, inner, k, k);
    Results<T> c = {};
    NoRowSums none;
    Multiply<T, Major::K, Major::OUTER>({dy, size_t(k), m}, {w, size_t(inner), inner}, place, smem)
        .run(c, none);
    store_results<T>(c, place, m, inner, smem, GateGradientOut{dpre, pre, inner, activation});
}

}  // namespace

// ------------------------------------------------------------------ exports
// One kernel a tile. The arguments are those of the function of the same name above.

#define PRODUCT_KERNEL(name, T)                                                                \
    extern "C" __global__ void __launch_bounds__(T::THREADS, T::BLOCKS) name

#define LINEAR_GATE(name, T)                                                                     \
    PRODUCT_KERNEL(name, T)                                                                      \
    (bf16 * y, bf16 * pre, const bf16* x, const bf16* w, const bf16* b, int m, int inner, int k, \
     int activation) {                                                                           \
        begin_kernel();                                                                          \
        linear_gate<T>(y, pre, x, w, b, m, inner, k, activation);                                \
    }                                                                                            \
    EXPORT_KERNEL(name, name)
LINEAR_GATE(linear_gate_large, Large)
LINEAR_GATE(linear_gate_medium, Medium)
LINEAR_GATE(linear_gate_small, Small)

#define LINEAR_DX_GATE(name, T)                                                                \
    PRODUCT_KERNEL(name, T)                                                                    \
    (bf16 * dpre, const bf16* dy, const bf16* pre, const bf16* w, int m, int inner, int k,     \
     int activation) {                                                                         \
        begin_kernel();                                                                        \
        linear_dx_gate<T>(dpre, dy, pre, w, m, inner, k, activation);                          \
    }                                                                                          \
    EXPORT_KERNEL(name, name)
LINEAR_DX_GATE(linear_dx_gate_large, Large)
LINEAR_DX_GATE(linear_dx_gate_medium, Medium)
LINEAR_DX_GATE(linear_dx_gate_small, Small)

// ------------------------------------------------------------------ naive twins
// One thread a pair.

extern "C" __global__ void linear_gate_naive(bf16* y, bf16* pre, const bf16* x, const bf16* w,
                                             const bf16* b, int rows, int inner, int n_in,
                                             int activation) {
    begin_kernel();
    int row, i;
    if (!my_element(rows, inner, row, i)) return;
    bf16* to = pre + size_t(row) * 2 * inner + i;
    for (int half = 0; half < 2; half++) {
        const int o = half * inner + i;
        float sum = dot(x + size_t(row) * n_in, 1, w + size_t(o) * n_in, 1, n_in);
        to[half * inner] = __float2bfloat16_rn(sum + (b ? widen(b[o]) : 0.0f));
    }
    float act = activation_at(Activation(activation), widen(to[0])).value;
    y[size_t(row) * inner + i] = __float2bfloat16_rn(act * widen(to[inner]));
}
EXPORT_KERNEL(linear_gate_naive, linear_gate_naive)

extern "C" __global__ void linear_dx_gate_naive(bf16* dpre, const bf16* dy, const bf16* pre,
                                                const bf16* w, int rows, int inner, int n_out,
                                                int activation) {
    begin_kernel();
    int row, i;
    if (!my_element(rows, inner, row, i)) return;
    float d = dot(dy + size_t(row) * n_out, 1, w + i, inner, n_out);
    const size_t a = size_t(row) * 2 * inner + i;
    ActivationAt act = activation_at(Activation(activation), widen(pre[a]));
    dpre[a] = __float2bfloat16_rn(d * widen(pre[a + inner]) * act.slope);
    dpre[a + inner] = __float2bfloat16_rn(d * act.value);
}
EXPORT_KERNEL(linear_dx_gate_naive, linear_dx_gate_naive)
