// LayerNorm and RMSNorm, the residual sum and its dropout before them fused in, and the backward.
//
// Forward, a row x of width C:
//   LayerNorm: μ = mean(x), r = 1/√(mean((x − μ)²) + ε), y = (x − μ) r ∘ γ + β
//   RMSNorm:   μ = 0,       r = 1/√(mean(x²) + ε),       y = x r ∘ γ + β
// add_norm: x = residual + dropout(branch), each of the two steps rounded to bf16, x kept.
// Backward, with x̂ = (x − μ) r and g = dy ∘ γ:
//   dx = or += r (g − mean(g) − x̂ mean(g ∘ x̂))   (RMSNorm: without mean(g))
//   dγ += Σ dy ∘ x̂, dβ += Σ dy, over rows
// Statistics, products and sums are f32; results are rounded once, when stored.
//
// Floor, bytes an element: norm 4, add_norm 8, backward 6 (8 where it adds to dx). 65,536 × 768:
// 0.20, 0.40, 0.30 (0.40) GB: 0.047, 0.094, 0.070 (0.094) ms at 4.3 TB/s. The arithmetic is some
// 10 operations an element, and 15 more where a dropout mask is drawn: three quarters of what can be
// issued meanwhile. Unmeasured on a GPU; predicted (scripts/memory.py) below 0.9 of the floor's rate
// is only the backward that overwrites dx, whose 16 warps a multiprocessor load and sum in turn.
//
// A team of WARPS warps takes a row, VECTORS vectors of eight columns a lane, held in registers:
// memory is crossed once, and the statistics come from a second and third look at registers. To
// width 2,048 a team is one warp and nobody waits for anybody; beyond, two or four warps, or too
// few would fit on a multiprocessor. γ and β come from the L1.
//
// The backward also sums dγ and dβ over its rows in registers, 16 floats a vector, so its teams
// grow earlier: at most three vectors a lane, four at width 8,192. All loads of a row are under way
// before its sums begin. Blocks stay and take rows in turn; each leaves one partial sum, and
// norm_weights adds those in order. How many blocks there are depends on the shape alone
// (src/ops/norm.rs), so the bits are the same on every GPU.
#include <common.cuh>
#include <dropout.cuh>
#include <partials.cuh>

namespace {

constexpr int THREADS = 256;

// Where a thread stands in its team.
template <int WARPS>
struct Team {
    static constexpr int SIZE = 32 * WARPS;
    static constexpr int COUNT = THREADS / SIZE;  // in a block
    static __device__ __forceinline__ int number() { return threadIdx.x / SIZE; }
    static __device__ __forceinline__ int thread() { return threadIdx.x % SIZE; }
    // The first column of the thread's vector v.
    static __device__ __forceinline__ int column(int v) { return (v * SIZE + thread()) * 8; }
};

// The sum of both values over the team. All threads of a block call it together.
template <int WARPS>
__device__ __forceinline__ float2 team_sum(float a, float b) {
    a = warp_sum(a);
    b = warp_sum(b);
    if constexpr (WARPS > 1) {
        SHARED_ARRAY(float2, sums, THREADS / 32);
        __syncthreads();  // the sums before these have been read
        if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = make_float2(a, b);
        __syncthreads();
        a = b = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            float2 sum = sums[Team<WARPS>::number() * WARPS + w];
            a += sum.x;
            b += sum.y;
        }
    }
    return make_float2(a, b);
}

template <int WARPS>
__device__ __forceinline__ float team_sum(float value) {
    return team_sum<WARPS>(value, 0.0f).x;
}

// A thread's part of a row: zeros from column `columns` on.
template <int WARPS, int VECTORS>
__device__ __forceinline__ void load_row(Vec8 (&x)[VECTORS], const bf16* row, int columns) {
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        int column = Team<WARPS>::column(v);
        x[v] = column < columns ? Vec8::load(row + column) : Vec8{make_uint4(0, 0, 0, 0)};
    }
}

struct Statistics {
    float mean, rstd;
};

template <int WARPS, int VECTORS>
__device__ __forceinline__ Statistics statistics(const Vec8 (&x)[VECTORS], int columns, int width,
                                                 float epsilon, bool centred) {
    float mean = 0.0f;
    if (centred) {
        float sum = 0.0f;
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            float wide[8];
            x[v].to_float(wide);
#pragma unroll
            for (int i = 0; i < 8; i++) sum += wide[i];
        }
        mean = team_sum<WARPS>(sum) / width;
    }
    float squares = 0.0f;
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        if (Team<WARPS>::column(v) >= columns) break;
        float wide[8];
        x[v].to_float(wide);
#pragma unroll
        for (int i = 0; i < 8; i++) squares += (wide[i] - mean) * (wide[i] - mean);
    }
    float variance = team_sum<WARPS>(squares) / width;
    return {mean, 1.0f / sqrtf(variance + epsilon)};
}

// A norm's weights and form; beta may be null.
struct Weights {
    const bf16* gamma;
    const bf16* beta;
    int width;
    float epsilon;
    bool centred;  // LayerNorm
};

// y [C] = the norm of a row that its team holds. Rows beyond the last have no columns, but their
// threads go through the same barriers.
template <int WARPS, int VECTORS>
__device__ __forceinline__ void norm_row(bf16* y, float* stats, const Vec8 (&x)[VECTORS],
                                         const Weights& w, int columns) {
    Statistics s =
        statistics<WARPS, VECTORS>(x, columns, w.width, w.epsilon, w.centred);
    if (columns > 0 && Team<WARPS>::thread() == 0)
        *reinterpret_cast<float2*>(stats) = make_float2(s.mean, s.rstd);
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        int column = Team<WARPS>::column(v);
        if (column >= columns) break;
        float wide[8], gamma[8], beta[8] = {};
        x[v].to_float(wide);
        Vec8::load(w.gamma + column).to_float(gamma);
        if (w.beta != nullptr) Vec8::load(w.beta + column).to_float(beta);
#pragma unroll
        for (int i = 0; i < 8; i++) wide[i] = (wide[i] - s.mean) * s.rstd * gamma[i] + beta[i];
        Vec8::from_float(wide).store(y + column);
    }
}

// x under the mask of elements `first` to first + 7, rounded as the op dropout would store it.
__device__ __forceinline__ void drop_rounded8(float (&x)[8], const Dropout& dropout,
                                              size_t first) {
    if (dropout.threshold == 0) return;
    drop8(x, dropout, first);
    Vec8::from_float(x).to_float(x);
}

template <int WARPS, int VECTORS>
__device__ __forceinline__ void norm_rows(bf16* y, float* stats, const bf16* x, const Weights& w,
                                          size_t rows) {
    size_t row = size_t(blockIdx.x) * Team<WARPS>::COUNT + Team<WARPS>::number();
    int columns = row < rows ? w.width : 0;
    Vec8 held[VECTORS];
    load_row<WARPS>(held, x + row * w.width, columns);
    norm_row<WARPS>(y + row * w.width, stats + row * 2, held, w, columns);
}

template <int WARPS, int VECTORS>
__device__ __forceinline__ void add_norm_rows(bf16* y, bf16* sum, float* stats,
                                              const bf16* residual, const bf16* branch,
                                              const Weights& w, size_t rows,
                                              const Dropout& dropout) {
    size_t row = size_t(blockIdx.x) * Team<WARPS>::COUNT + Team<WARPS>::number();
    int columns = row < rows ? w.width : 0;
    size_t start = row * w.width;
    Vec8 held[VECTORS], other[VECTORS];
    load_row<WARPS>(held, residual + start, columns);
    load_row<WARPS>(other, branch + start, columns);
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        int column = Team<WARPS>::column(v);
        if (column >= columns) break;
        float a[8], b[8];
        held[v].to_float(a);
        other[v].to_float(b);
        drop_rounded8(b, dropout, start + column);
#pragma unroll
        for (int i = 0; i < 8; i++) a[i] += b[i];
        held[v] = Vec8::from_float(a);
        held[v].store(sum + start + column);
    }
    norm_row<WARPS>(y + start, stats + row * 2, held, w, columns);
}

// What a backward reads.
struct Saved {
    const bf16* dy;
    const bf16* x;
    const float* stats;
    const bf16* gamma;
    int width;
    size_t rows;
    bool centred, add;  // LayerNorm; whether dx is added to
};

// dγ and dβ of a thread's columns.
template <int VECTORS>
struct WeightSums {
    float dgamma[VECTORS][8] = {}, dbeta[VECTORS][8] = {};
};

// One row of dx, and its part of dγ and dβ.
template <int WARPS, int VECTORS>
__device__ __forceinline__ void backward_row(bf16* dx, WeightSums<VECTORS>& sums,
                                             const Saved& saved, size_t row) {
    int columns = row < saved.rows ? saved.width : 0;
    size_t start = row * saved.width;
    Vec8 held[VECTORS], held_dy[VECTORS], held_dx[VECTORS];
    load_row<WARPS>(held, saved.x + start, columns);
    load_row<WARPS>(held_dy, saved.dy + start, columns);
    // Early, so that no load waits for the sums below: zeros where dx is overwritten.
    load_row<WARPS>(held_dx, dx + start, saved.add ? columns : 0);
    float2 s = columns > 0 ? *reinterpret_cast<const float2*>(saved.stats + row * 2)
                           : make_float2(0.0f, 0.0f);
    float mean = s.x, rstd = s.y;

    float g_sum = 0.0f, gx_sum = 0.0f;
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        int column = Team<WARPS>::column(v);
        if (column >= columns) break;
        float x[8], dy[8], gamma[8];
        held[v].to_float(x);
        held_dy[v].to_float(dy);
        Vec8::load(saved.gamma + column).to_float(gamma);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float g = dy[i] * gamma[i];
            g_sum += g;
            gx_sum += g * (x[i] - mean);
        }
    }
    float2 total = team_sum<WARPS>(g_sum, gx_sum);
    float g_mean = saved.centred ? total.x / saved.width : 0.0f;
    float gx_mean = total.y * rstd / saved.width;

#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        int column = Team<WARPS>::column(v);
        if (column >= columns) break;
        float x[8], dy[8], gamma[8], d[8];
        held[v].to_float(x);
        held_dy[v].to_float(dy);
        held_dx[v].to_float(d);
        Vec8::load(saved.gamma + column).to_float(gamma);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float x_hat = (x[i] - mean) * rstd;
            d[i] += rstd * (dy[i] * gamma[i] - g_mean - x_hat * gx_mean);
            sums.dgamma[v][i] += dy[i] * x_hat;
            sums.dbeta[v][i] += dy[i];
        }
        Vec8::from_float(d).store(dx + start + column);
    }
}

// to [8] = or += sums
__device__ __forceinline__ void put8(float* to, const float (&sums)[8], bool first) {
    float total[8];
#pragma unroll
    for (int i = 0; i < 8; i++) total[i] = sums[i];
    if (!first) {
        float before[8];
        Vec8f::load(to).to_float(before);
#pragma unroll
        for (int i = 0; i < 8; i++) total[i] += before[i];
    }
    Vec8f::from_float(total).store(to);
}

// partial [2, C] = the teams' sums, added in the order of the teams.
template <int WARPS, int VECTORS>
__device__ __forceinline__ void store_partial(float* partial, const WeightSums<VECTORS>& sums,
                                              int width) {
    DYNAMIC_SHARED(shared);
    constexpr bool ALONE = Team<WARPS>::COUNT == 1;  // needs nobody's sums but its own
    float* total = ALONE ? partial : reinterpret_cast<float*>(shared);
    for (int team = 0; team < Team<WARPS>::COUNT; team++) {
        if (team == Team<WARPS>::number()) {
#pragma unroll
            for (int v = 0; v < VECTORS; v++) {
                int column = Team<WARPS>::column(v);
                if (column >= width) break;
                put8(total + column, sums.dgamma[v], team == 0);
                put8(total + width + column, sums.dbeta[v], team == 0);
            }
        }
        if constexpr (!ALONE) __syncthreads();
    }
    if constexpr (!ALONE) {
        for (int i = threadIdx.x; i < width / 2; i += THREADS)
            reinterpret_cast<float4*>(partial)[i] = reinterpret_cast<const float4*>(total)[i];
    }
}

template <int WARPS, int VECTORS>
__device__ __forceinline__ void backward_rows(bf16* dx, float* partials, const Saved& saved) {
    constexpr int TEAMS = Team<WARPS>::COUNT;
    WeightSums<VECTORS> sums;
    size_t stride = size_t(gridDim.x) * TEAMS;
    // Teams without a row still go along: there are barriers within.
    for (size_t first = size_t(blockIdx.x) * TEAMS; first < saved.rows; first += stride)
        backward_row<WARPS>(dx, sums, saved, first + Team<WARPS>::number());
    store_partial<WARPS>(partials + size_t(blockIdx.x) * 2 * saved.width, sums, saved.width);
}

__device__ __forceinline__ float wide(bf16 x) { return __bfloat162float(x); }

}  // namespace

// One thread a row. Without a branch, x is `residual` and `sum` is not written.
extern "C" __global__ void norm_naive(bf16* y, bf16* sum, float* stats, const bf16* residual,
                                      const bf16* branch, const bf16* gamma, const bf16* beta,
                                      int width, int rows, float epsilon, int centred,
                                      Dropout dropout) {
    begin_kernel();
    size_t row = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (row >= size_t(rows)) return;
    const bf16* x = residual + row * width;
    y += row * width;
    if (branch != nullptr) {
        sum += row * width;
        for (int c = 0; c < width; c += 8) {
            float b[8];
            for (int i = 0; i < 8; i++) b[i] = wide(branch[row * width + c + i]);
            drop_rounded8(b, dropout, row * width + c);
            for (int i = 0; i < 8; i++) sum[c + i] = __float2bfloat16_rn(wide(x[c + i]) + b[i]);
        }
        x = sum;
    }
    float mean = 0.0f, variance = 0.0f;
    if (centred) {
        for (int c = 0; c < width; c++) mean += wide(x[c]);
        mean /= width;
    }
    for (int c = 0; c < width; c++) variance += (wide(x[c]) - mean) * (wide(x[c]) - mean);
    float rstd = 1.0f / sqrtf(variance / width + epsilon);
    stats[row * 2] = mean;
    stats[row * 2 + 1] = rstd;
    for (int c = 0; c < width; c++) {
        float bias = beta != nullptr ? wide(beta[c]) : 0.0f;
        y[c] = __float2bfloat16_rn((wide(x[c]) - mean) * rstd * wide(gamma[c]) + bias);
    }
}
EXPORT_KERNEL(norm_naive, norm_naive)

// One thread a row of dx.
extern "C" __global__ void norm_backward_naive(bf16* dx, const bf16* dy, const bf16* x,
                                               const float* stats, const bf16* gamma, int width,
                                               int rows, int centred, int add) {
    begin_kernel();
    size_t row = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (row >= size_t(rows)) return;
    dx += row * width;
    dy += row * width;
    x += row * width;
    float mean = stats[row * 2], rstd = stats[row * 2 + 1];
    float g_mean = 0.0f, gx_mean = 0.0f;
    for (int c = 0; c < width; c++) {
        float g = wide(dy[c]) * wide(gamma[c]);
        g_mean += g;
        gx_mean += g * (wide(x[c]) - mean);
    }
    g_mean = centred ? g_mean / width : 0.0f;
    gx_mean *= rstd / width;
    for (int c = 0; c < width; c++) {
        float g = wide(dy[c]) * wide(gamma[c]), x_hat = (wide(x[c]) - mean) * rstd;
        float d = rstd * (g - g_mean - x_hat * gx_mean);
        dx[c] = __float2bfloat16_rn(add ? wide(dx[c]) + d : d);
    }
}
EXPORT_KERNEL(norm_backward_naive, norm_backward_naive)

// One thread a column of dγ and dβ; dbeta may be null.
extern "C" __global__ void norm_weights_naive(float* dgamma, float* dbeta, const bf16* dy,
                                              const bf16* x, const float* stats, int width,
                                              int rows) {
    begin_kernel();
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= width) return;
    float gamma_sum = 0.0f, beta_sum = 0.0f;
    for (size_t row = 0; row < size_t(rows); row++) {
        float d = wide(dy[row * width + c]);
        gamma_sum += d * (wide(x[row * width + c]) - stats[row * 2]) * stats[row * 2 + 1];
        beta_sum += d;
    }
    dgamma[c] += gamma_sum;
    if (dbeta != nullptr) dbeta[c] += beta_sum;
}
EXPORT_KERNEL(norm_weights_naive, norm_weights_naive)

// dγ and dβ [C] += the sum of partials [count, 2, C]; dbeta may be null.
extern "C" __global__ void __launch_bounds__(PARTIAL_THREADS)
    norm_weights(float* dgamma, float* dbeta, const float* partials, int width, int count) {
    begin_kernel();
    float sum = sum_partials(partials, 2 * width, count);
    int column = blockIdx.x * PARTIAL_COLUMNS + threadIdx.x;
    if (threadIdx.x >= PARTIAL_COLUMNS || column >= 2 * width) return;
    if (column < width)
        dgamma[column] += sum;
    else if (dbeta != nullptr)
        dbeta[column - width] += sum;
}
EXPORT_KERNEL(norm_weights, norm_weights)

// A team of WARPS warps a row, to width 256 · WARPS · VECTORS.
#define NORM_KERNELS(norm_name, add_norm_name, WARPS, VECTORS, ADD_BLOCKS)                     \
    extern "C" __global__ void __launch_bounds__(THREADS)                                      \
        norm_name(bf16* y, float* stats, const bf16* x, const bf16* gamma, const bf16* beta,   \
                  int width, int rows, float epsilon, int centred) {                           \
        begin_kernel();                                                                        \
        Weights w = {gamma, beta, width, epsilon, centred != 0};                               \
        norm_rows<WARPS, VECTORS>(y, stats, x, w, rows);                                       \
    }                                                                                          \
    EXPORT_KERNEL(norm_name, norm_name)                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS, ADD_BLOCKS)                          \
        add_norm_name(bf16* y, bf16* sum, float* stats, const bf16* residual,                  \
                      const bf16* branch, const bf16* gamma, const bf16* beta, int width,      \
                      int rows, float epsilon, int centred, Dropout dropout) {                 \
        begin_kernel();                                                                        \
        Weights w = {gamma, beta, width, epsilon, centred != 0};                               \
        add_norm_rows<WARPS, VECTORS>(y, sum, stats, residual, branch, w, rows, dropout);      \
    }                                                                                          \
    EXPORT_KERNEL(add_norm_name, add_norm_name)
NORM_KERNELS(norm_256, add_norm_256, 1, 1, 5)
NORM_KERNELS(norm_512, add_norm_512, 1, 2, 4)
NORM_KERNELS(norm_768, add_norm_768, 1, 3, 3)
NORM_KERNELS(norm_1024, add_norm_1024, 1, 4, 3)
NORM_KERNELS(norm_1536, add_norm_1536, 1, 6, 2)
NORM_KERNELS(norm_2048, add_norm_2048, 1, 8, 2)
NORM_KERNELS(norm_3072, add_norm_3072, 2, 6, 2)
NORM_KERNELS(norm_4096, add_norm_4096, 4, 4, 3)
NORM_KERNELS(norm_8192, add_norm_8192, 4, 8, 2)

// The same of the backward; partials [gridDim.x, 2, C]. Shared: [2, C] floats for several teams.
#define NORM_BACKWARD_KERNEL(name, WARPS, VECTORS, BLOCKS)                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                              \
        name(bf16* dx, float* partials, const bf16* dy, const bf16* x, const float* stats,     \
             const bf16* gamma, int width, int rows, int centred, int add) {                   \
        begin_kernel();                                                                        \
        Saved saved = {dy, x, stats, gamma, width, size_t(rows), centred != 0, add != 0};      \
        backward_rows<WARPS, VECTORS>(dx, partials, saved);                                    \
    }                                                                                          \
    EXPORT_KERNEL(name, name)
NORM_BACKWARD_KERNEL(norm_backward_256, 1, 1, 4)
NORM_BACKWARD_KERNEL(norm_backward_512, 1, 2, 3)
NORM_BACKWARD_KERNEL(norm_backward_768, 1, 3, 2)
NORM_BACKWARD_KERNEL(norm_backward_1024, 2, 2, 3)
NORM_BACKWARD_KERNEL(norm_backward_1536, 2, 3, 2)
NORM_BACKWARD_KERNEL(norm_backward_2048, 4, 2, 3)
NORM_BACKWARD_KERNEL(norm_backward_3072, 4, 3, 2)
NORM_BACKWARD_KERNEL(norm_backward_4096, 8, 2, 3)
NORM_BACKWARD_KERNEL(norm_backward_6144, 8, 3, 2)
NORM_BACKWARD_KERNEL(norm_backward_8192, 8, 4, 1)
