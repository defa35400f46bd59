// arch: sm_90a
// Products with a weight matrix W [n_out, n_in] by wgmma and TMA, the forward ones:
//
//   y [N, n_out] = x Wᵀ + b            linear; linear_act: pre = that, y = act(pre)
//   pre [N, 2 F] = x Wᵀ + b, y [N, F] = act(pre[:, ..F]) ∘ pre[:, F..]   linear_gate
//   qkv [N, 3 C] = x Wᵀ + b, q and k turned by their rows' positions     linear_rope
// The same results as product.cu, product_gate.cu and rope.cu, which say the maths, have the naive
// twins and serve all other chips; product_hopper_backward.cu has the gradients.
//
// Floor, at 790 TFLOP/s and 4.3 TB/s: as there; here it can be reached, since wgmma takes both
// operands from shared memory at the tensor cores' full rate. Unmeasured on a GPU; registers, waves
// and predicted times, shape by shape: LOG.md.
//
// Read product_hopper.cuh from its end (`run`), then product_hopper_out.cuh.
//
// Limits: n_in is a multiple of 8, and all rows start on multiples of 16 bytes, as TMA wants; the
// other extents are any; F is a multiple of 8.
#include "product_hopper.cuh"

namespace {

using namespace hopper;

// m = rows, n = n_out, k = n_in. Boxes of the maps, innermost first, swizzled by 128 bytes:
// x [64, M], w [64, N / 2], y and pre [64, 16], y of tiles 160 wide [32, 16], by 64 bytes.
template <class T>
__device__ __forceinline__ void linear(const CUtensorMap* x, const CUtensorMap* w,
                                       const CUtensorMap* y, const bf16* b, int n,
                                       const Schedule& schedule) {
    run<T, Major::K, Major::K>(x, w, schedule, LinearOut<PIECE_COLUMNS<T>>{y, {b, n}});
}

template <class T>
__device__ __forceinline__ void linear_act(const CUtensorMap* x, const CUtensorMap* w,
                                           const CUtensorMap* y, const CUtensorMap* pre,
                                           const bf16* b, int n, int activation,
                                           const Schedule& schedule) {
    run<T, Major::K, Major::K>(x, w, schedule, ActivationOut{y, pre, {b, n}, activation});
}

// m = rows of qkv, n = 3 C; heads of 64 columns.
template <class T>
__device__ __forceinline__ void linear_rope(const CUtensorMap* x, const CUtensorMap* w,
                                            const CUtensorMap* qkv, const bf16* b, int m, int n,
                                            const Rotation& rotation, const Schedule& schedule) {
    run<T, Major::K, Major::K>(x, w, schedule, RopeOut{qkv, {b, n}, rotation, m});
}

// inner = n_out / 2; pre and y in boxes [2, 16, 32] and [16, 32], swizzled by 64 bytes.
template <class T>
__device__ __forceinline__ void linear_gate(const CUtensorMap* x, const CUtensorMap* w,
                                            const CUtensorMap* y, const CUtensorMap* pre,
                                            const bf16* b, int inner, int activation,
                                            const Schedule& schedule) {
    run<T, Major::K, Major::K>(x, w, schedule,
                               GateOut{y, pre, {b, 2 * inner}, inner, activation}, Nobody{},
                               Pairs{inner});
}

}  // namespace

// ------------------------------------------------------------------ exports
// One kernel a tile. The arguments are those of the function of the same name above.

#define CONSTANT(T) const __grid_constant__ T
#define HOPPER_KERNEL(name) extern "C" __global__ void __launch_bounds__(THREADS, 1) name

#define LINEAR(name, T)                                                                        \
    HOPPER_KERNEL(name)                                                                        \
    (CONSTANT(CUtensorMap) x, CONSTANT(CUtensorMap) w, CONSTANT(CUtensorMap) y, const bf16* b, \
     int n, CONSTANT(Schedule) schedule) {                                                     \
        begin_kernel();                                                                        \
        linear<T>(&x, &w, &y, b, n, schedule);                                                 \
    }                                                                                          \
    EXPORT_KERNEL(name, name)
LINEAR(linear_coop_128x256, Coop128x256)
LINEAR(linear_coop_256x128, Coop256x128)
LINEAR(linear_ping_128x192, Ping128x192)
LINEAR(linear_ping_128x128, Ping128x128)
LINEAR(linear_coop_256x160, Coop256x160)

#define LINEAR_ACT(name, T)                                                                    \
    HOPPER_KERNEL(name)                                                                        \
    (CONSTANT(CUtensorMap) x, CONSTANT(CUtensorMap) w, CONSTANT(CUtensorMap) y,                \
     CONSTANT(CUtensorMap) pre, const bf16* b, int n, int activation,                          \
     CONSTANT(Schedule) schedule) {                                                            \
        begin_kernel();                                                                        \
        linear_act<T>(&x, &w, &y, &pre, b, n, activation, schedule);                           \
    }                                                                                          \
    EXPORT_KERNEL(name, name)
LINEAR_ACT(linear_act_coop_128x256, Coop128x256)
LINEAR_ACT(linear_act_coop_256x128, Coop256x128)
LINEAR_ACT(linear_act_ping_128x192, Ping128x192)
LINEAR_ACT(linear_act_ping_128x128, Ping128x128)

#define LINEAR_GATE(name, T)                                                                   \
    HOPPER_KERNEL(name)                                                                        \
    (CONSTANT(CUtensorMap) x, CONSTANT(CUtensorMap) w, CONSTANT(CUtensorMap) y,                \
     CONSTANT(CUtensorMap) pre, const bf16* b, int inner, int activation,                      \
     CONSTANT(Schedule) schedule) {                                                            \
        begin_kernel();                                                                        \
        linear_gate<T>(&x, &w, &y, &pre, b, inner, activation, schedule);                      \
    }                                                                                          \
    EXPORT_KERNEL(name, name)
LINEAR_GATE(linear_gate_coop_128x256, Coop128x256)
LINEAR_GATE(linear_gate_coop_256x128, Coop256x128)
LINEAR_GATE(linear_gate_ping_128x192, Ping128x192)
LINEAR_GATE(linear_gate_ping_128x128, Ping128x128)

#define LINEAR_ROPE(name, T)                                                                   \
    HOPPER_KERNEL(name)                                                                        \
    (CONSTANT(CUtensorMap) x, CONSTANT(CUtensorMap) w, CONSTANT(CUtensorMap) qkv,              \
     const bf16* b, int m, int n, CONSTANT(Rotation) rotation, CONSTANT(Schedule) schedule) {  \
        begin_kernel();                                                                        \
        linear_rope<T>(&x, &w, &qkv, b, m, n, rotation, schedule);                             \
    }                                                                                          \
    EXPORT_KERNEL(name, name)
LINEAR_ROPE(linear_rope_coop_128x256, Coop128x256)
LINEAR_ROPE(linear_rope_coop_256x128, Coop256x128)
LINEAR_ROPE(linear_rope_ping_128x192, Ping128x192)
LINEAR_ROPE(linear_rope_ping_128x128, Ping128x128)
