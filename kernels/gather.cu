// Rows picked out of a tensor and added back: y[i] = x[rows[i]], dx[rows[i]] += dy[i]. A row of −1
// is none: zeros, and nothing added.
//
// Floor: every picked row crosses memory twice to gather, three times to add. 9,830 rows of 768
// (15% of 64k tokens): 30 MB, 7 µs at 4.3 TB/s. Unmeasured on a GPU.
//
// A thread moves eight neighbouring elements, 16 bytes. The rows differ, so each element of dx has
// one owner and nothing is atomic.
#include <common.cuh>

namespace {

constexpr int THREADS = 256;

// Which eight elements a thread has: at `packed` in [count, C], at `spread` in the big tensor.
struct Place {
    size_t packed, spread;
    bool exists, picked;  // in y; in x too

    __device__ Place(const int* rows, int width, int count) {
        size_t i = (size_t(blockIdx.x) * THREADS + threadIdx.x) * 8;
        exists = i < size_t(count) * width;
        packed = i;
        const int row = exists ? rows[i / width] : -1;
        picked = row >= 0;
        spread = picked ? size_t(row) * width + i % width : 0;
    }
};

}  // namespace

// y [count, C] = x[rows]; a thread an element.
extern "C" __global__ void gather_naive(bf16* y, const bf16* x, const int* rows, int width,
                                        int count) {
    begin_kernel();
    size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size_t(count) * width) return;
    const int row = rows[i / width];
    y[i] = row < 0 ? __float2bfloat16_rn(0.0f) : x[size_t(row) * width + i % width];
}
EXPORT_KERNEL(gather_naive, gather_naive)

extern "C" __global__ void __launch_bounds__(THREADS)
    gather(bf16* y, const bf16* x, const int* rows, int width, int count) {
    begin_kernel();
    Place at(rows, width, count);
    if (!at.exists) return;
    const Vec8 row = at.picked ? Vec8::load(x + at.spread) : Vec8{make_uint4(0, 0, 0, 0)};
    row.store(y + at.packed);
}
EXPORT_KERNEL(gather, gather)

// dx[rows] += dy [count, C]; a thread an element.
extern "C" __global__ void scatter_add_naive(bf16* dx, const bf16* dy, const int* rows, int width,
                                             int count) {
    begin_kernel();
    size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size_t(count) * width || rows[i / width] < 0) return;
    bf16& to = dx[size_t(rows[i / width]) * width + i % width];
    to = __float2bfloat16_rn(__bfloat162float(to) + __bfloat162float(dy[i]));
}
EXPORT_KERNEL(scatter_add_naive, scatter_add_naive)

extern "C" __global__ void __launch_bounds__(THREADS)
    scatter_add(bf16* dx, const bf16* dy, const int* rows, int width, int count) {
    begin_kernel();
    Place at(rows, width, count);
    if (!at.picked) return;
    float sum[8], add[8];
    Vec8::load(dx + at.spread).to_float(sum);
    Vec8::load(dy + at.packed).to_float(add);
    for (int i = 0; i < 8; i++) sum[i] += add[i];
    Vec8::from_float(sum).store(dx + at.spread);
}
EXPORT_KERNEL(scatter_add, scatter_add)
