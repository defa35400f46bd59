// Rotary positions, in place on the packed q and k.
//
// With the angles a of position p in `table` [context, D] (D/2 cosines, then D/2 sines), for each
// head of q and k and each i < D/2:
//   (x[i], x[i + D/2]) ← (x[i] cos a − x[i + D/2] sin a, x[i + D/2] cos a + x[i] sin a)
// The backward is the rotation by −a: `turn` is 1 or −1 and multiplies the sines.
//
// For heads of 64 on sm_90a nothing is launched from here: the product that makes q and k turns
// them on its way out (product_hopper_out.cuh), and attention's backward its gradients.
//
// Floor: q and k cross memory twice. 65,536 tokens, C = 768: 403 MB, 0.094 ms at 4.3 TB/s; three
// operations an element are nothing. Unmeasured on a GPU.
//
// A thread turns eight pairs (16 bytes from each half of a head) by the same angles in up to four
// heads, so the 64 bytes of cosines and sines, which come from the L2, are read once for 256 bytes
// of q and k that cross memory. Neighbouring threads take neighbouring pairs, then neighbouring
// heads, so each of the four steps of a warp covers whole rows of heads. All eight loads are
// under way before the first is used.
#include <common.cuh>

namespace {

constexpr int THREADS = 256;
constexpr int HEADS = 4;  // that a thread turns at most

// Where in [N, 3C] a thread works. A row has `groups` groups of heads, each turned by D/16 threads.
struct Place {
    size_t row;
    int group, column;
};

__device__ __forceinline__ Place place_of(unsigned item, int groups, int head_dim) {
    unsigned chunks = head_dim / 16;
    unsigned group = item / chunks;
    return {group / groups, int(group % groups), int(item % chunks * 8)};
}

// Eight rotations at once.
__device__ __forceinline__ void turn8(Vec8& low, Vec8& high, const float (&cos)[8],
                                      const float (&sin)[8]) {
    float a[8], b[8], c[8], d[8];
    low.to_float(a);
    high.to_float(b);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        c[i] = a[i] * cos[i] - b[i] * sin[i];
        d[i] = b[i] * cos[i] + a[i] * sin[i];
    }
    low = Vec8::from_float(c);
    high = Vec8::from_float(d);
}

}  // namespace

// One thread a pair; qkv [rows, 3 heads D], of which the first two thirds are turned.
extern "C" __global__ void rope_naive(bf16* qkv, const float* table, const int* positions,
                                      int heads, int head_dim, int rows, float turn) {
    begin_kernel();
    size_t pair = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    int half = head_dim / 2, pairs = 2 * heads * half;  // of a row
    if (pair >= size_t(rows) * pairs) return;
    size_t row = pair / pairs;
    int head = pair % pairs / half, i = pair % half;
    const float* angles = table + size_t(positions[row]) * head_dim;
    float cos = angles[i], sin = turn * angles[half + i];
    bf16* x = qkv + (row * 3 * heads + head) * head_dim;
    float a = __bfloat162float(x[i]), b = __bfloat162float(x[half + i]);
    x[i] = __float2bfloat16_rn(a * cos - b * sin);
    x[half + i] = __float2bfloat16_rn(b * cos + a * sin);
}
EXPORT_KERNEL(rope_naive, rope_naive)

// One thread eight pairs of heads group, group + groups, …, with groups = ceil(2 heads / HEADS).
extern "C" __global__ void __launch_bounds__(THREADS)
    rope(bf16* qkv, const float* table, const int* positions, int heads, int head_dim, int rows,
         float turn) {
    begin_kernel();
    int groups = (2 * heads + HEADS - 1) / HEADS;
    Place place = place_of(blockIdx.x * THREADS + threadIdx.x, groups, head_dim);
    if (place.row >= size_t(rows)) return;
    const float* angles = table + size_t(positions[place.row]) * head_dim + place.column;
    bf16* x = qkv + place.row * 3 * heads * head_dim + place.column;

    Vec8 low[HEADS], high[HEADS];
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        int head = place.group + h * groups;
        if (head < 2 * heads) {
            low[h] = Vec8::load(x + head * head_dim);
            high[h] = Vec8::load(x + head * head_dim + head_dim / 2);
        }
    }
    float cos[8], sin[8];
    Vec8f::load(angles).to_float(cos);
    Vec8f::load(angles + head_dim / 2).to_float(sin);
#pragma unroll
    for (int i = 0; i < 8; i++) sin[i] *= turn;
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        int head = place.group + h * groups;
        if (head < 2 * heads) {
            turn8(low[h], high[h], cos, sin);
            low[h].store(x + head * head_dim);
            high[h].store(x + head * head_dim + head_dim / 2);
        }
    }
}
EXPORT_KERNEL(rope, rope)
