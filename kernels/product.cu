// Products with a weight matrix W [n_out, n_in], in the three layouts that a training step needs:
//
//   y [N, n_out] = x Wᵀ + b            linear; linear_act: pre = that, y = act(pre)
//   dx [N, n_in] = or += dy W          linear_dx; linear_dx_act: (dy W) ∘ act'(pre)
//   dW [n_out, n_in] += dyᵀ x, db += Σ dy over rows   linear_dw
// bf16 in, sums in f32, rounded once when stored; what follows a rounded value (y after pre) starts
// from it as rounded. src/ops/linear.rs has the reference.
//
// Floor, at 790 TFLOP/s and 4.3 TB/s: 2 N n_in n_out operations; operands and results cross memory
// once. 65,536 rows, 768 → 3,072 (GPT-2's first MLP product): 309 GFLOP, 0.391 ms; with pre 911 MB,
// 0.212 ms: the tensor cores bound it. mma.sync itself reaches about 62% of what wgmma does on an
// H100, so this path cannot come below 0.60 ms there. Unmeasured on a GPU; predictions: LOG.md.
//
// How it works. product.cuh multiplies: each block one tile of results, operands by cp.async four
// panels deep into swizzled shared memory, fragments by ldmatrix, transposed where k is not
// contiguous, products m16n8k16. The way out goes through shared memory, so that global memory sees
// 16 bytes a thread and whole 128-byte lines, and the epilogues work on eight neighbouring values.
// A large tile has the multiprocessor for itself and costs least L2 traffic; medium and small tiles
// fill the chip where large ones would not (the host chooses: src/ops/linear/gpu.rs).
//
// Where there are fewer tiles than multiprocessors and k is long, as in weight gradients, k is
// split over blocks, whole waves of them: each writes its partial results, and a second kernel adds
// those in the order of the splits, so results repeat to the bit. The bias gradient costs one more
// product in 32, with a column of ones, in the blocks of the first column of tiles only.
//
// Limits: n_in is a multiple of 8, and dy's rows start on multiples of 16 bytes. y may have any
// width; rows that are not whole vectors are stored element by element.
#include "activation.cuh"
#include "product.cuh"

namespace {

using namespace product;

constexpr int THREADS = 256;  // of the kernels that do not multiply by tiles

// ------------------------------------------------------------------ where results go

// y = c + b
struct LinearOut {
    using Fetched = Nothing;
    bf16* y;
    size_t stride;
    int columns;
    Biased biased;

    __device__ __forceinline__ Fetched fetch(int, int) const { return {}; }
    __device__ __forceinline__ void store(int row, int column, float (&values)[8], Fetched) const {
        const Vec8 result = biased.rounded(values);
        bf16* to = y + row * stride + column;
        if (stride % 8 == 0) {
            // Columns beyond the last are the padding of the row.
            result.store(to);
            return;
        }
        result.to_float(values);
#pragma unroll
        for (int e = 0; e < 8; e++)
            if (column + e < columns) to[e] = __float2bfloat16_rn(values[e]);
    }
};

// pre = c + b, y = act(pre)
struct ActivationOut {
    using Fetched = Nothing;
    bf16 *y, *pre;
    size_t stride;
    int activation;
    Biased biased;

    __device__ __forceinline__ Fetched fetch(int, int) const { return {}; }
    __device__ __forceinline__ void store(int row, int column, float (&values)[8], Fetched) const {
        const Vec8 before = biased.rounded(values);
        const size_t at = row * stride + column;
        before.store(pre + at);
        before.to_float(values);
        with_activation(activation, [&](auto act) {
#pragma unroll
            for (int e = 0; e < 8; e++) values[e] = act(values[e]).value;
        });
        Vec8::from_float(values).store(y + at);
    }
};

// dx = or += c
struct GradientOut {
    using Fetched = Vec8;
    bf16* dx;
    size_t stride;
    bool add;

    __device__ __forceinline__ Fetched fetch(int row, int column) const {
        return add ? Vec8::load(dx + row * stride + column) : Vec8{};
    }
    __device__ __forceinline__ void store(int row, int column, float (&values)[8],
                                          const Fetched& there) const {
        float before[8];
        there.to_float(before);
#pragma unroll
        for (int e = 0; e < 8; e++) values[e] = add ? before[e] + values[e] : values[e];
        Vec8::from_float(values).store(dx + row * stride + column);
    }
};

// dpre = c ∘ act'(pre)
struct ActivationGradientOut {
    using Fetched = Vec8;
    bf16* dpre;
    const bf16* pre;
    size_t stride;
    int activation;

    __device__ __forceinline__ Fetched fetch(int row, int column) const {
        return Vec8::load(pre + row * stride + column);
    }
    __device__ __forceinline__ void store(int row, int column, float (&values)[8],
                                          const Fetched& fetched) const {
        float x[8];
        fetched.to_float(x);
        with_activation(activation, [&](auto act) {
#pragma unroll
            for (int e = 0; e < 8; e++) values[e] *= act(x[e]).slope;
        });
        Vec8::from_float(values).store(dpre + row * stride + column);
    }
};

// f32, = or +=
struct SumOut {
    struct Fetched {
        Vec4f low, high;
    };
    float* sums;
    size_t stride;
    bool add;

    __device__ __forceinline__ Fetched fetch(int row, int column) const {
        if (!add) return {};
        const float* from = sums + row * stride + column;
        return {Vec4f::load(from), Vec4f::load(from + 4)};
    }
    __device__ __forceinline__ void store(int row, int column, float (&values)[8],
                                          const Fetched& there) const {
        float low[4], high[4];
        there.low.to_float(low);
        there.high.to_float(high);
#pragma unroll
        for (int e = 0; e < 4; e++) {
            low[e] = add ? low[e] + values[e] : values[e];
            high[e] = add ? high[e] + values[4 + e] : values[4 + e];
        }
        float* to = sums + row * stride + column;
        Vec4f::from_float(low).store(to);
        Vec4f::from_float(high).store(to + 4);
    }
};

// ------------------------------------------------------------------ fast kernels, for any tile

template <class T>
__device__ __forceinline__ void linear(bf16* y, const bf16* x, const bf16* w, const bf16* b, int m,
                                       int n, int k, int y_stride) {
    DYNAMIC_SHARED(smem);
    const Place place = place_of_block<T>(m, n, k, k);
    Results<T> c = {};
    NoRowSums none;
    Multiply<T, Major::K, Major::K>({x, size_t(k), m}, {w, size_t(k), n}, place, smem)
        .run(c, none);
    const Biased biased(b, column_of_lane<T>(place), n);
    store_results<T>(c, place, m, n, smem, LinearOut{y, size_t(y_stride), n, biased});
}

template <class T>
__device__ __forceinline__ void linear_act(bf16* y, bf16* pre, const bf16* x, const bf16* w,
                                           const bf16* b, int m, int n, int k, int activation) {
    DYNAMIC_SHARED(smem);
    const Place place = place_of_block<T>(m, n, k, k);
    Results<T> c = {};
    NoRowSums none;
    Multiply<T, Major::K, Major::K>({x, size_t(k), m}, {w, size_t(k), n}, place, smem)
        .run(c, none);
    const Biased biased(b, column_of_lane<T>(place), n);
    store_results<T>(c, place, m, n, smem, ActivationOut{y, pre, size_t(n), activation, biased});
}

// partials [splits, m, n], where k is split; they are f32 and not yet added.
template <class T>
__device__ __forceinline__ void linear_dx(bf16* dx, float* partials, const bf16* dy, const bf16* w,
                                          int m, int n, int k, int dy_stride, int add,
                                          int k_split) {
    DYNAMIC_SHARED(smem);
    const Place place = place_of_block<T>(m, n, k, k_split);
    Results<T> c = {};
    NoRowSums none;
    Multiply<T, Major::K, Major::OUTER>({dy, size_t(dy_stride), m}, {w, size_t(n), n}, place, smem)
        .run(c, none);
    if (partials) {
        float* part = partials + place.split * (size_t(m) * n);
        store_results<T>(c, place, m, n, smem, SumOut{part, size_t(n), false});
    } else {
        store_results<T>(c, place, m, n, smem, GradientOut{dx, size_t(n), add != 0});
    }
}

template <class T>
__device__ __forceinline__ void linear_dx_act(bf16* dpre, const bf16* dy, const bf16* pre,
                                              const bf16* w, int m, int n, int k, int activation) {
    DYNAMIC_SHARED(smem);
    const Place place = place_of_block<T>(m, n, k, k);
    Results<T> c = {};
    NoRowSums none;
    Multiply<T, Major::K, Major::OUTER>({dy, size_t(k), m}, {w, size_t(n), n}, place, smem)
        .run(c, none);
    store_results<T>(c, place, m, n, smem,
                     ActivationGradientOut{dpre, pre, size_t(n), activation});
}

// Elements from one split's partial results to the next: dW [n_out, n_in], db [n_out].
__host__ __device__ constexpr size_t partial_stride(size_t weights, size_t biases) {
    return (weights + biases + 3) / 4 * 4;
}

// The row sums of dyᵀ that this warp has, where they belong.
template <class T>
__device__ __forceinline__ void store_row_sums(const RowSums<T>& rows, const Place& place, int m,
                                               float* db, bool add) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < RowSums<T>::COUNT; i++) {
        const int product = i * T::WARPS_N + warp % T::WARPS_N;
        if (product >= T::M_PRODUCTS || lane % 4 != 0) continue;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int of_warp = product * 16 + h * 8 + lane / 4;
            const int row = place.m + warp / T::WARPS_N * T::WARP_M + of_warp;
            if (row < m) db[row] = (add ? db[row] : 0.0f) + rows.sums[i][2 * h];
        }
    }
}

// m = n_out, n = n_in, k = rows. `partials` as the kernel above; db may be null.
template <class T>
__device__ __forceinline__ void linear_dw(float* dw, float* db, float* partials, const bf16* dy,
                                          const bf16* x, int m, int n, int k, int dy_stride,
                                          int k_split) {
    DYNAMIC_SHARED(smem);
    const Place place = place_of_block<T>(m, n, k, k_split);
    RowSums<T> rows = {db != nullptr && place.n == 0, {}};
    if (partials) {
        const size_t weights = size_t(m) * n;
        dw = partials + place.split * partial_stride(weights, db ? m : 0);
        db = dw + weights;
    }
    Results<T> c = {};
    Multiply<T, Major::OUTER, Major::OUTER>({dy, size_t(dy_stride), m}, {x, size_t(n), n}, place,
                                            smem)
        .run(c, rows);
    const bool add = partials == nullptr;
    if (rows.wanted) store_row_sums<T>(rows, place, m, db, add);
    store_results<T>(c, place, m, n, smem, SumOut{dw, size_t(n), add});
}

}  // namespace

// ------------------------------------------------------------------ exports
// One kernel a tile. The arguments are those of the function of the same name above.

#define PRODUCT_KERNEL(name, T) \
    extern "C" __global__ void __launch_bounds__(T::THREADS, T::BLOCKS) name

#define LINEAR(name, T)                                                                         \
    PRODUCT_KERNEL(name, T)                                                                     \
    (bf16 * y, const bf16* x, const bf16* w, const bf16* b, int m, int n, int k, int y_stride) { \
        begin_kernel();                                                                          \
        linear<T>(y, x, w, b, m, n, k, y_stride);                                               \
    }                                                                                           \
    EXPORT_KERNEL(name, name)
LINEAR(linear_large, Large)
LINEAR(linear_medium, Medium)
LINEAR(linear_small, Small)

#define LINEAR_ACT(name, T)                                                                    \
    PRODUCT_KERNEL(name, T)                                                                    \
    (bf16 * y, bf16 * pre, const bf16* x, const bf16* w, const bf16* b, int m, int n, int k,   \
     int activation) {                                                                         \
        begin_kernel();                                                                        \
        linear_act<T>(y, pre, x, w, b, m, n, k, activation);                                   \
    }                                                                                          \
    EXPORT_KERNEL(name, name)
LINEAR_ACT(linear_act_large, Large)
LINEAR_ACT(linear_act_medium, Medium)
LINEAR_ACT(linear_act_small, Small)

#define LINEAR_DX(name, T)                                                                     \
    PRODUCT_KERNEL(name, T)                                                                    \
    (bf16 * dx, float* partials, const bf16* dy, const bf16* w, int m, int n, int k,           \
     int dy_stride, int add, int k_split) {                                                    \
        begin_kernel();                                                                        \
        linear_dx<T>(dx, partials, dy, w, m, n, k, dy_stride, add, k_split);                   \
    }                                                                                          \
    EXPORT_KERNEL(name, name)
LINEAR_DX(linear_dx_large, Large)
LINEAR_DX(linear_dx_medium, Medium)
LINEAR_DX(linear_dx_small, Small)

#define LINEAR_DX_ACT(name, T)                                                                 \
    PRODUCT_KERNEL(name, T)                                                                    \
    (bf16 * dpre, const bf16* dy, const bf16* pre, const bf16* w, int m, int n, int k,         \
     int activation) {                                                                         \
        begin_kernel();                                                                        \
        linear_dx_act<T>(dpre, dy, pre, w, m, n, k, activation);                               \
    }                                                                                          \
    EXPORT_KERNEL(name, name)
LINEAR_DX_ACT(linear_dx_act_large, Large)
LINEAR_DX_ACT(linear_dx_act_medium, Medium)
LINEAR_DX_ACT(linear_dx_act_small, Small)

#define LINEAR_DW(name, T)                                                                     \
    PRODUCT_KERNEL(name, T)                                                                    \
    (float* dw, float* db, float* partials, const bf16* dy, const bf16* x, int m, int n,       \
     int k, int dy_stride, int k_split) {                                                      \
        begin_kernel();                                                                        \
        linear_dw<T>(dw, db, partials, dy, x, m, n, k, dy_stride, k_split);                    \
    }                                                                                          \
    EXPORT_KERNEL(name, name)
LINEAR_DW(linear_dw_large, Large)
LINEAR_DW(linear_dw_medium, Medium)
LINEAR_DW(linear_dw_small, Small)

// ------------------------------------------------------------------ partial results
// Floor: `splits` + 1 or 2 times the results, which the products have just left in the L2.

// dx = or += Σ over splits of partials [splits, length]; one thread eight elements.
extern "C" __global__ void __launch_bounds__(THREADS)
    linear_dx_sum(bf16* dx, const float* partials, unsigned long long length, int splits, int add) {
    begin_kernel();
    const size_t i = (size_t(blockIdx.x) * THREADS + threadIdx.x) * 8;
    if (i >= length) return;
    float total[8] = {};
    for (int split = 0; split < splits; split++) {
#pragma unroll
        for (int half = 0; half < 8; half += 4) {
            float part[4];
            Vec4f::load(partials + split * length + i + half).to_float(part);
#pragma unroll
            for (int e = 0; e < 4; e++) total[half + e] += part[e];
        }
    }
    float before[8] = {};
    if (add) Vec8::load(dx + i).to_float(before);
#pragma unroll
    for (int e = 0; e < 8; e++) total[e] += before[e];
    Vec8::from_float(total).store(dx + i);
}
EXPORT_KERNEL(linear_dx_sum, linear_dx_sum)

// dW += and db += the same of what linear_dw left; one thread four elements. weights is a multiple
// of 8, so that four neighbours are all of one kind.
extern "C" __global__ void __launch_bounds__(THREADS)
    linear_dw_sum(float* dw, float* db, const float* partials, unsigned long long weights,
                  int biases, int splits) {
    begin_kernel();
    const size_t i = (size_t(blockIdx.x) * THREADS + threadIdx.x) * 4;
    if (i >= weights + biases) return;
    const size_t stride = partial_stride(weights, biases);
    float total[4] = {};
    for (int split = 0; split < splits; split++) {
        float part[4];
        Vec4f::load(partials + split * stride + i).to_float(part);
#pragma unroll
        for (int e = 0; e < 4; e++) total[e] += part[e];
    }
    if (i < weights) {
        float before[4];
        Vec4f::load(dw + i).to_float(before);
#pragma unroll
        for (int e = 0; e < 4; e++) total[e] += before[e];
        Vec4f::from_float(total).store(dw + i);
        return;
    }
#pragma unroll
    for (int e = 0; e < 4; e++)
        if (i + e < weights + biases) db[i + e - weights] += total[e];
}
EXPORT_KERNEL(linear_dw_sum, linear_dw_sum)

// ------------------------------------------------------------------ naive twins
// One thread a result. Rows of y and dy are `stride` apart.

extern "C" __global__ void linear_naive(bf16* y, const bf16* x, const bf16* w, const bf16* b,
                                        int rows, int n_out, int n_in, int stride) {
    begin_kernel();
    int row, o;
    if (!my_element(rows, n_out, row, o)) return;
    float sum = dot(x + size_t(row) * n_in, 1, w + size_t(o) * n_in, 1, n_in);
    y[size_t(row) * stride + o] = __float2bfloat16_rn(sum + (b ? widen(b[o]) : 0.0f));
}
EXPORT_KERNEL(linear_naive, linear_naive)

extern "C" __global__ void linear_act_naive(bf16* y, bf16* pre, const bf16* x, const bf16* w,
                                            const bf16* b, int rows, int n_out, int n_in,
                                            int activation) {
    begin_kernel();
    int row, o;
    if (!my_element(rows, n_out, row, o)) return;
    float sum = dot(x + size_t(row) * n_in, 1, w + size_t(o) * n_in, 1, n_in);
    const size_t at = size_t(row) * n_out + o;
    pre[at] = __float2bfloat16_rn(sum + (b ? widen(b[o]) : 0.0f));
    y[at] = __float2bfloat16_rn(activation_at(Activation(activation), widen(pre[at])).value);
}
EXPORT_KERNEL(linear_act_naive, linear_act_naive)

extern "C" __global__ void linear_dx_naive(bf16* dx, const bf16* dy, const bf16* w, int rows,
                                           int n_in, int n_out, int stride, int add) {
    begin_kernel();
    int row, i;
    if (!my_element(rows, n_in, row, i)) return;
    float sum = dot(dy + size_t(row) * stride, 1, w + i, n_in, n_out);
    const size_t at = size_t(row) * n_in + i;
    dx[at] = __float2bfloat16_rn(add ? widen(dx[at]) + sum : sum);
}
EXPORT_KERNEL(linear_dx_naive, linear_dx_naive)

extern "C" __global__ void linear_dx_act_naive(bf16* dpre, const bf16* dy, const bf16* pre,
                                               const bf16* w, int rows, int n_in, int n_out,
                                               int activation) {
    begin_kernel();
    int row, i;
    if (!my_element(rows, n_in, row, i)) return;
    float sum = dot(dy + size_t(row) * n_out, 1, w + i, n_in, n_out);
    const size_t at = size_t(row) * n_in + i;
    float slope = activation_at(Activation(activation), widen(pre[at])).slope;
    dpre[at] = __float2bfloat16_rn(sum * slope);
}
EXPORT_KERNEL(linear_dx_act_naive, linear_dx_act_naive)

extern "C" __global__ void linear_dw_naive(float* dw, const bf16* dy, const bf16* x, int n_out,
                                           int n_in, int rows, int stride) {
    begin_kernel();
    int o, i;
    if (!my_element(n_out, n_in, o, i)) return;
    dw[size_t(o) * n_in + i] += dot(dy + o, stride, x + i, n_in, rows);
}
EXPORT_KERNEL(linear_dw_naive, linear_dw_naive)

extern "C" __global__ void linear_db_naive(float* db, const bf16* dy, int n_out, int rows,
                                           int stride) {
    begin_kernel();
    const int o = blockIdx.x * blockDim.x + threadIdx.x;
    if (o >= n_out) return;
    float sum = 0;
    for (int row = 0; row < rows; row++) sum += widen(dy[size_t(row) * stride + o]);
    db[o] += sum;
}
EXPORT_KERNEL(linear_db_naive, linear_db_naive)
