// arch: sm_90a
// Gradients of products with a weight matrix W [n_out, n_in] by wgmma and TMA:
//
//   dx [N, n_in] = or += dy W          linear_dx; linear_dx_act: (dy W) ∘ act'(pre)
//   dpre [N, 2 F] = d ∘ [g ∘ act'(a), act(a)], d = dy W, [a, g] = pre   linear_dx_gate, F = n_in
//   dW [n_out, n_in] += dyᵀ x, db += Σ dy over rows   linear_dw
// The same results as product.cu and product_gate.cu; the former's sums of partial results serve
// here too.
//
// No operand is transposed in memory: where k is not contiguous, wgmma reads the panel as TMA left
// it. dW over 65,536 rows is few tiles and long sums, so k is split over blocks in whole waves;
// each writes partial results that linear_dw_sum adds in the order of the splits. Without a split
// TMA adds to dW where it lies, in the L2 (`red`: sums that are subnormal become zero); so it does
// with one where a run need not repeat to the bit (`train.deterministic`). dx is split where rows
// are few and k is a vocabulary.
//
// The bias gradient takes the producer's idle warps: two of them add up the panels of dy that pass
// by, in the tiles of the first column. It costs shared memory's time, 16 KB a step in a sixth of
// which the tensor cores leave free, and no tensor core's.
//
// Floor and limits: as product_hopper.cu; n_out may be any where dy's rows start on 16 bytes.
#include "product_hopper.cuh"

namespace {

using namespace hopper;

// m = rows, n = n_in, k = n_out. Boxes: dy [64, M], w [64, 32], dx [64, 16]; for tiles 160 wide w
// [32, 32] and dx [32, 16], swizzled by 64 bytes.
template <class T>
__device__ __forceinline__ void linear_dx(const CUtensorMap* dy, const CUtensorMap* w,
                                          const CUtensorMap* dx, int add,
                                          const Schedule& schedule) {
    run<T, Major::K, Major::OUTER>(dy, w, schedule,
                                   GradientOut<PIECE_COLUMNS<T>>{dx, add != 0});
}

// The same where k is split: partial results [splits, M, n_in] in boxes [32, 16, 1].
template <class T>
__device__ __forceinline__ void linear_dx_split(const CUtensorMap* dy, const CUtensorMap* w,
                                                const CUtensorMap* partials,
                                                const Schedule& schedule) {
    run<T, Major::K, Major::OUTER>(dy, w, schedule, SumOut{partials, false});
}

template <class T>
__device__ __forceinline__ void linear_dx_act(const CUtensorMap* dy, const CUtensorMap* w,
                                              const CUtensorMap* dpre, const CUtensorMap* pre,
                                              int activation, const Schedule& schedule) {
    run<T, Major::K, Major::OUTER>(dy, w, schedule, ActivationGradientOut{dpre, pre, activation});
}

// pre and dpre in boxes [2, 16, 32], swizzled by 64 bytes.
template <class T>
__device__ __forceinline__ void linear_dx_gate(const CUtensorMap* dy, const CUtensorMap* w,
                                               const CUtensorMap* dpre, const CUtensorMap* pre,
                                               int activation, const Schedule& schedule) {
    run<T, Major::K, Major::OUTER>(dy, w, schedule, GateGradientOut{dpre, pre, activation});
}

// Sums over k of the rows of a, whose panels are outer-major: each warp has its share of the boxes
// of 64 rows, each lane two rows of a box.
struct RowSums {
    static constexpr int WARPS = 2, REGISTERS = 40;
    float* db;  // of the first split; null: not wanted
    size_t split_stride;
    int m;
    bool add;

    template <class T>
    __device__ __forceinline__ void run(const Ring<T>& ring, const Schedule& schedule) const {
        constexpr int BOXES = T::M / 64 / WARPS, BOX_BYTES = Panel<Major::OUTER, T::M>::BOX_BYTES;
        const int first_box = (threadIdx.x / 32 - 1) * BOXES, lane = threadIdx.x % 32;
        Cursor<T::STAGES> at;
        schedule.for_each<T>([&](const Work& work) {
            const bool wanted = db != nullptr && work.column == 0;
            float sums[BOXES][2] = {};
            for (int step = 0; step < work.steps; step++, at.next()) {
                ptx::mbarrier_wait(ring.full(at.stage), at.parity);
                if (wanted) {
#pragma unroll
                    for (int i = 0; i < BOXES; i++)
                        add_box(sums[i], ring.a_smem(at.stage) +
                                             (first_box + i) * BOX_BYTES);
                }
                // A's panels are this block's own: no other writes them.
                __syncwarp();
                if (lane == 0) ptx::mbarrier_arrive(ring.empty(at.stage));
            }
            if (!wanted) return;
#pragma unroll
            for (int i = 0; i < BOXES; i++)
                store(sums[i], work.m + (first_box + i) * 64 + lane * 2, work.split);
        });
    }

private:
    // Eight rows of k at a time, added up apart: sums of many terms lose less.
    __device__ __forceinline__ static void add_box(float (&sums)[2],
                                                   const unsigned char* box_smem) {
        const int lane = threadIdx.x % 32;
        float low = 0, high = 0;
#pragma unroll 4
        for (int k = 0; k < 64; k++) {
            const int chunk = lane / 4 ^ k % 8;
            const uint32_t pair = *reinterpret_cast<const uint32_t*>(
                box_smem + k * ROW_BYTES + chunk * 16 + lane % 4 * 4);
            low += __uint_as_float(pair << 16);
            high += __uint_as_float(pair & 0xffff0000u);
        }
        sums[0] += low;
        sums[1] += high;
    }

    __device__ __forceinline__ void store(const float (&sums)[2], int row, int split) const {
        float* to = db + split * split_stride;
#pragma unroll
        for (int e = 0; e < 2; e++)
            if (row + e < m) {
                if (add) atomicAdd(to + row + e, sums[e]);
                else to[row + e] = sums[e];
            }
    }
};

// m = n_out, n = n_in, k = rows. Boxes: dy [64, 64], x [64, 32] or for tiles 160 wide [32, 32], dw
// [32, 16, 1], of dW itself, to be added to, or of the partial results [splits, n_out, n_in], whose
// sums db are `db_stride` apart.
template <class T>
__device__ __forceinline__ void linear_dw(const CUtensorMap* dy, const CUtensorMap* x,
                                          const CUtensorMap* dw, float* db, size_t db_stride,
                                          int m, int add, const Schedule& schedule) {
    run<T, Major::OUTER, Major::OUTER>(dy, x, schedule, SumOut{dw, add != 0},
                                       RowSums{db, db_stride, m, add != 0});
}

}  // namespace

// ------------------------------------------------------------------ exports
// One kernel a tile. The arguments are those of the function of the same name above.

#define CONSTANT(T) const __grid_constant__ T
#define HOPPER_KERNEL(name) extern "C" __global__ void __launch_bounds__(THREADS, 1) name

#define LINEAR_DX(name, T)                                                                     \
    HOPPER_KERNEL(name)                                                                        \
    (CONSTANT(CUtensorMap) dy, CONSTANT(CUtensorMap) w, CONSTANT(CUtensorMap) dx, int add,     \
     CONSTANT(Schedule) schedule) {                                                            \
        begin_kernel();                                                                        \
        linear_dx<T>(&dy, &w, &dx, add, schedule);                                             \
    }                                                                                          \
    EXPORT_KERNEL(name, name)
LINEAR_DX(linear_dx_coop_128x256, Coop128x256)
LINEAR_DX(linear_dx_coop_256x128, Coop256x128)
LINEAR_DX(linear_dx_ping_128x192, Ping128x192)
LINEAR_DX(linear_dx_ping_128x128, Ping128x128)
LINEAR_DX(linear_dx_coop_256x160, Coop256x160)

#define LINEAR_DX_SPLIT(name, T)                                                               \
    HOPPER_KERNEL(name)                                                                        \
    (CONSTANT(CUtensorMap) dy, CONSTANT(CUtensorMap) w, CONSTANT(CUtensorMap) partials,        \
     CONSTANT(Schedule) schedule) {                                                            \
        begin_kernel();                                                                        \
        linear_dx_split<T>(&dy, &w, &partials, schedule);                                      \
    }                                                                                          \
    EXPORT_KERNEL(name, name)
LINEAR_DX_SPLIT(linear_dx_split_coop_128x256, Coop128x256)
LINEAR_DX_SPLIT(linear_dx_split_coop_256x128, Coop256x128)
LINEAR_DX_SPLIT(linear_dx_split_ping_128x192, Ping128x192)
LINEAR_DX_SPLIT(linear_dx_split_ping_128x128, Ping128x128)
LINEAR_DX_SPLIT(linear_dx_split_coop_256x160, Coop256x160)

#define LINEAR_DX_ACT(name, T)                                                                 \
    HOPPER_KERNEL(name)                                                                        \
    (CONSTANT(CUtensorMap) dy, CONSTANT(CUtensorMap) w, CONSTANT(CUtensorMap) dpre,            \
     CONSTANT(CUtensorMap) pre, int activation, CONSTANT(Schedule) schedule) {                 \
        begin_kernel();                                                                        \
        linear_dx_act<T>(&dy, &w, &dpre, &pre, activation, schedule);                          \
    }                                                                                          \
    EXPORT_KERNEL(name, name)
LINEAR_DX_ACT(linear_dx_act_coop_128x256, Coop128x256)
LINEAR_DX_ACT(linear_dx_act_coop_256x128, Coop256x128)
LINEAR_DX_ACT(linear_dx_act_ping_128x192, Ping128x192)
LINEAR_DX_ACT(linear_dx_act_ping_128x128, Ping128x128)

#define LINEAR_DX_GATE(name, T)                                                                \
    HOPPER_KERNEL(name)                                                                        \
    (CONSTANT(CUtensorMap) dy, CONSTANT(CUtensorMap) w, CONSTANT(CUtensorMap) dpre,            \
     CONSTANT(CUtensorMap) pre, int activation, CONSTANT(Schedule) schedule) {                 \
        begin_kernel();                                                                        \
        linear_dx_gate<T>(&dy, &w, &dpre, &pre, activation, schedule);                         \
    }                                                                                          \
    EXPORT_KERNEL(name, name)
LINEAR_DX_GATE(linear_dx_gate_coop_128x256, Coop128x256)
LINEAR_DX_GATE(linear_dx_gate_coop_256x128, Coop256x128)
LINEAR_DX_GATE(linear_dx_gate_ping_128x192, Ping128x192)
LINEAR_DX_GATE(linear_dx_gate_ping_128x128, Ping128x128)

#define LINEAR_DW(name, T)                                                                     \
    HOPPER_KERNEL(name)                                                                        \
    (CONSTANT(CUtensorMap) dy, CONSTANT(CUtensorMap) x, CONSTANT(CUtensorMap) dw, float* db,   \
     unsigned long long db_stride, int m, int add, CONSTANT(Schedule) schedule) {              \
        begin_kernel();                                                                        \
        linear_dw<T>(&dy, &x, &dw, db, db_stride, m, add, schedule);                           \
    }                                                                                          \
    EXPORT_KERNEL(name, name)
LINEAR_DW(linear_dw_coop_128x256, Coop128x256)
LINEAR_DW(linear_dw_coop_256x128, Coop256x128)
LINEAR_DW(linear_dw_ping_128x192, Ping128x192)
LINEAR_DW(linear_dw_ping_128x128, Ping128x128)
LINEAR_DW(linear_dw_coop_256x160, Coop256x160)
