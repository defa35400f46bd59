// arch: sm_90a
// Attention, forward, by wgmma and TMA: the same results as attention.cu, which has the maths, the
// naive kernel, and those of other chips and head widths.
//
//   s_ij = q_i · k_j / √D,  lse_i = log Σ_j exp s_ij,  p_ij = exp(s_ij − lse_i)
//   o_i = Σ_j p̃_ij v_j
// qkv [N, 3C] packs q, k, v, each [H, D]; o [N, C]; lse [N, H], f32.
//
// The floor, for N = 65,536 tokens, H = 12, D = 64 (790 TFLOP/s, 4.3 TB/s, 16 exponentials a clock
// and SM at 1.7 GHz):
//   length                       128     512     1024 causal   4096
//   products, 4 C operations     33 µs   130     130           1044
//   memory, 406 MB               94      94      94            94
//   exponentials                 28      112     112           897
// Head width 64 is the hard one: exponentials take nearly as long as products, so both must run at
// once. *Unmeasured on a GPU*; registers and predictions: LOG.md.
//
// A block makes QUERIES rows of o, 64 a consumer's warpgroup. The producer's warp finds the items
// (attention_hopper.cuh) and brings q, for two items at a time, and k and v in stages. A consumer
// goes through the tiles of 128 keys:
//   - scores of the next tile are asked for before the sums over this one, so that the tensor cores
//     have both while the warpgroup computes exponentials of the former;
//   - warpgroups ask by turns: while one's products run, others compute exponentials;
//   - p goes from the accumulators of one product to the registers of the other;
//   - online softmax on a lazy maximum, as in attention.cu: o shrinks in few tiles.
// A window's tiles begin where the window does, not at a multiple of 128.
#include "attention_hopper.cuh"

using namespace attention;

namespace {

template <int D_, int GROUPS_, bool DROPOUT_>
struct Forward {
    static constexpr int D = D_, GROUPS = GROUPS_;
    static constexpr bool DROPOUT = DROPOUT_;
    // Whether a tile's dropout mask is drawn before its scores are there: if registers suffice.
    static constexpr bool EARLY = D <= 64;
    // Whether a warpgroup leaves out tiles that its own queries do not see: if registers suffice.
    static constexpr bool SKIPS = GROUPS == 2;
    static constexpr int QUERIES = GROUPS * 64, KEYS = 128, STAGES = D <= 64 ? 4 : 2;
    // Of 65,536, a thread: the launch's share goes from the producer to the consumers.
    static constexpr int PRODUCER = GROUPS == 2 ? 40 : 32, CONSUMER = GROUPS == 2 ? 232 : 160;
    using Queries = Panels<QUERIES, D>;
    using Keys = Panels<KEYS, D>;
    static constexpr int SLOTS = 2;  // of items
    static constexpr int TILES_BYTES = SLOTS * Queries::BYTES + 2 * STAGES * Keys::BYTES;
    static constexpr int BARRIERS = 2 * SLOTS + 4 * STAGES;
    static_assert(TILES_BYTES + BARRIERS * 8 + SLOTS * int(sizeof(Item)) <= 227 * 1024, "fits");
};

// The block's shared memory.
template <class F>
struct Shared {
    unsigned char* smem;

    __device__ __forceinline__ unsigned char* q(int slot) const {
        return smem + slot * F::Queries::BYTES;
    }
    __device__ __forceinline__ unsigned char* k(int stage) const {
        return smem + F::SLOTS * F::Queries::BYTES + stage * 2 * F::Keys::BYTES;
    }
    __device__ __forceinline__ unsigned char* v(int stage) const {
        return k(stage) + F::Keys::BYTES;
    }
    __device__ __forceinline__ uint64_t* q_full(int slot) const { return barriers() + slot; }
    __device__ __forceinline__ uint64_t* q_empty(int slot) const {
        return q_full(0) + F::SLOTS + slot;
    }
    // Of k; those of v follow.
    __device__ __forceinline__ uint64_t* full(int stage) const {
        return q_full(0) + 2 * F::SLOTS + stage * 2;
    }
    __device__ __forceinline__ uint64_t* empty(int stage) const {
        return full(0) + 2 * F::STAGES + stage * 2;
    }
    __device__ __forceinline__ Item& item(int slot) const {
        return reinterpret_cast<Item*>(barriers() + F::BARRIERS)[slot];
    }

    // By one thread. Every consumer's warp tells when it needs a tile no more.
    __device__ __forceinline__ void init() const {
        for (int slot = 0; slot < F::SLOTS; slot++) {
            ptx::mbarrier_init(q_full(slot), 1);
            ptx::mbarrier_init(q_empty(slot), F::GROUPS * 4);
        }
        for (int i = 0; i < 2 * F::STAGES; i++) {
            ptx::mbarrier_init(full(0) + i, 1);
            ptx::mbarrier_init(empty(0) + i, F::GROUPS * 4);
        }
        ptx::fence_mbarrier_init();
    }

private:
    __device__ __forceinline__ uint64_t* barriers() const {
        return reinterpret_cast<uint64_t*>(smem + F::TILES_BYTES);
    }
};

// The keys that an item's queries see: from a multiple of 8, so that a row's dropout mask begins
// with a whole block of it. In tiles, of which a warpgroup's own queries may see fewer: from
// `first` to before `last`.
struct Keys {
    int begin, tiles;
    int first, last;

    template <class F>
    __device__ __forceinline__ static Keys of(const Item& item, Band band) {
        const int begin = max(item.start - band.behind, 0) & ~7;
        const int end = min(min(item.start + F::QUERIES, item.length) + band.ahead, item.length);
        return {begin, ceil_div(end - begin, F::KEYS), 0, 0};
    }
    // With the tiles that the 64 queries from `row` see; none beyond the sequence.
    template <class F>
    __device__ __forceinline__ static Keys of_group(const Item& item, int row, Band band) {
        Keys keys = of<F>(item, band);
        if constexpr (!F::SKIPS) keys.last = keys.tiles;
        if (!F::SKIPS || row >= item.length) return keys;
        const int end = min(min(row + 64, item.length) + band.ahead, item.length);
        keys.first = max(row - band.behind - keys.begin, 0) / F::KEYS;
        keys.last = ceil_div(end - keys.begin, F::KEYS);
        return keys;
    }
};

// One warp: lane 0 fetches.
template <class F>
__device__ __forceinline__ void produce(const Shared<F>& shared, const CUtensorMap* q_map,
                                        const CUtensorMap* kv_map, const Batch& batch, Band band) {
    const bool leads = threadIdx.x % 32 == 0;
    const int width = batch.heads * F::D;
    Cursor<F::SLOTS> slot;
    Cursor<F::STAGES> at;
    for_each_item<F::QUERIES>(batch, true, [&](const Item& item) {
        if (leads) {
            uint64_t* full = shared.q_full(slot.stage);
            const int column = item.head * F::D, row = item.first + item.start;
            ptx::mbarrier_wait(shared.q_empty(slot.stage), slot.parity ^ 1);
            shared.item(slot.stage) = item;
            if (item.length == 0) {
                ptx::mbarrier_arrive(full);
                return;
            }
            ptx::mbarrier_arrive_expect_tx(full, F::Queries::BYTES);
            F::Queries::fetch(shared.q(slot.stage), q_map, full, column, row);
            const Keys keys = Keys::of<F>(item, band);
            for (int tile = 0; tile < keys.tiles; tile++, at.next()) {
                const int key = item.first + keys.begin + tile * F::KEYS;
#pragma unroll
                for (int v = 0; v < 2; v++) {
                    uint64_t* full = shared.full(at.stage) + v;
                    ptx::mbarrier_wait(shared.empty(at.stage) + v, at.parity ^ 1);
                    ptx::mbarrier_arrive_expect_tx(full, F::Keys::BYTES);
                    F::Keys::fetch(v ? shared.v(at.stage) : shared.k(at.stage), kv_map, full,
                                   (1 + v) * width + column, key);
                }
            }
        }
        slot.next();
    });
}

// ------------------------------------------------------------------ consumers

// Warpgroups ask for products in a fixed order.
template <class F>
struct Turns {
    int group;

    __device__ __forceinline__ explicit Turns(int group) : group(group) {
        if (group == F::GROUPS - 1) pass();
    }
    __device__ __forceinline__ void wait() const { ptx::named_barrier_sync(1 + group, 256); }
    __device__ __forceinline__ void pass() const {
        ptx::named_barrier_arrive(1 + (group + 1) % F::GROUPS, 256);
    }
    // The last to pass passes to the first.
    __device__ __forceinline__ void end() const {
        if (group == 0) wait();
    }
};

// How far a row's largest score may pass its `top`, in powers of two, before the sums shrink.
constexpr float SLACK = 8.0f;

// What a thread knows of its two rows of scores so far.
struct Softmax {
    float scale;  // log2(e) / √D
    float top[2] = {-INFINITY, -INFINITY};  // about the largest score
    float sum[2] = {};                      // this lane's share
    float shrink[2] = {1.0f, 1.0f};         // what became of the sums

    // Scores become p, relative to `top`. True: o has to shrink before it is added to.
    template <int R>
    __device__ __forceinline__ bool update(float (&s)[R]) {
        float largest[2];
        bool outgrown = false;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float x = -INFINITY;
#pragma unroll
            for (int n = 0; n < R / 4; n++)
                x = fmaxf(x, fmaxf(s[4 * n + 2 * h], s[4 * n + 2 * h + 1]));
            largest[h] = quad_max(x);
            outgrown |= largest[h] * scale > top[h] * scale + SLACK;
        }
        outgrown = __any_sync(ALL_LANES, outgrown);
        if (outgrown) grow(largest);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float offset = top[h] == -INFINITY ? 0.0f : top[h] * scale;
#pragma unroll
            for (int n = 0; n < R / 4; n++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float& p = s[4 * n + 2 * h + e];
                    p = ptx::exp2_approx(fmaf(p, scale, -offset));
                    sum[h] += p;
                }
        }
        return outgrown;
    }

private:
    __device__ __forceinline__ void grow(const float (&largest)[2]) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float to = fmaxf(top[h], largest[h]);
            shrink[h] = to == -INFINITY ? 1.0f : ptx::exp2_approx((top[h] - to) * scale);
            top[h] = to;
            sum[h] *= shrink[h];
        }
    }
};

// p = 0 where the mask drops it, of a half of the columns; what is kept is scaled at the end.
__device__ __forceinline__ void drop(float (&p)[64], int half, unsigned kept) {
#pragma unroll
    for (int i = 0; i < 32; i++)
        if (!(kept >> i & 1)) p[half * 32 + i] = 0.0f;
}

// One warpgroup: 64 queries of every item.
template <class F>
__device__ __forceinline__ void consume(const Shared<F>& shared, bf16* o_gmem, float* lse_gmem,
                                        int heads, Band band, float scale,
                                        const Dropout& dropout) {
    constexpr int D = F::D, KEYS = F::KEYS;
    constexpr bool DROPOUT = F::DROPOUT;
    const int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const Turns<F> turns(group);
    Cursor<F::SLOTS> slot;
    Cursor<F::STAGES> at;
    for (;; slot.next()) {
        ptx::mbarrier_wait(shared.q_full(slot.stage), slot.parity);
        const Item item = shared.item(slot.stage);
        if (item.length == 0) break;
        const int group_row = item.start + group * 64, row = group_row + warp * 16;
        const Keys keys = Keys::of_group<F>(item, group_row, band);
        const uint32_t q_smem = ptx::shared_address(shared.q(slot.stage));
        Softmax softmax = {scale * LOG2E};
        float s[KEYS / 2], o[D / 2];
        uint32_t p[KEYS / 4];
        unsigned kept[2];

        const auto ask_scores = [&](int stage) {
            ptx::wgmma_fence();
            multiply_transposed<KEYS, D, typename F::Queries, typename F::Keys>(
                s, q_smem, group * 64, ptx::shared_address(shared.k(stage)));
            ptx::wgmma_commit();
        };
        const auto ask_sums = [&](int stage, bool add) {
            ptx::wgmma_fence();
            multiply<D, KEYS, typename F::Keys>(o, p, ptx::shared_address(shared.v(stage)), add);
            ptx::wgmma_commit();
        };
        // The dropout mask of a half of tile `tile`.
        const auto draw = [&](int tile, int half) {
            const unsigned mask_row = unsigned(item.first + row) * heads + item.head;
            const int key = keys.begin + tile * KEYS + half * 64;
            unsigned bits = 0;
#pragma unroll(F::EARLY ? 4 : 2)
            for (int part = 0; part < 4; part++)
                bits |= kept_of_tile<1, 2, false>(dropout, mask_row, heads, key + part * 16)
                        << part * 8;
            return bits;
        };
        const auto draw_early = [&](int tile) {
            if constexpr (DROPOUT && F::EARLY) kept[0] = draw(tile, 0), kept[1] = draw(tile, 1);
        };
        // Scores of tile `tile` become p.
        const auto weigh = [&](int tile) {
            const int key = keys.begin + tile * KEYS;
            if (!overlap<64, KEYS>(group_row, key, band, item.length, item.length).all)
                mask(s, row, key, band, item.length);
            return softmax.update(s);
        };
        const auto put_operand = [&](int tile) {
#pragma unroll
            for (int half = 0; half < 2 * DROPOUT; half++)
                drop(s, half, F::EARLY ? kept[half] : draw(tile, half));
            to_operand(p, s);
        };

        // Tiles that the others need.
        const auto pass = [&](int tiles) {
            for (int tile = 0; tile < tiles; tile++, at.next()) {
                turns.wait();
                turns.pass();
#pragma unroll
                for (int v = 0; v < 2; v++) {
                    ptx::mbarrier_wait(shared.full(at.stage) + v, at.parity);
                    release(shared.empty(at.stage) + v);
                }
            }
        };

        // A warp's 16 rows of o and lse. They leave by way of the warpgroup's queries, once all its
        // warps have done with them.
        const auto finish = [&] {
            float factor[2];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float sum = quad_sum(softmax.sum[h]);
                const int i = row + h * 8 + lane / 4;
                if (i < item.length && lane % 4 == 0)
                    lse_gmem[size_t(item.first + i) * heads + item.head] =
                        softmax.top[h] * scale + logf(sum);
                factor[h] = dropout.keep / sum;
            }
            ptx::named_barrier_sync(1 + F::GROUPS + group, 128);
            unsigned char* own_smem = shared.q(slot.stage);
            const int own_row = group * 64 + warp * 16, width = heads * D;
            F::Queries::write(own_smem, own_row, o, factor);
            __syncwarp();
            F::Queries::store(o_gmem + size_t(item.first + row) * width + item.head * D, width,
                              item.length - row, own_smem, own_row);
            ptx::fence_proxy_async();
        };

        if constexpr (F::SKIPS) {
            pass(keys.first);
            if (keys.first == keys.last) {
                pass(keys.tiles);
                release(shared.q_empty(slot.stage));
                continue;
            }
        }
        ptx::mbarrier_wait(shared.full(at.stage), at.parity);
        turns.wait();
        ask_scores(at.stage);
        turns.pass();
        draw_early(keys.first);
        ptx::wgmma_wait<0>(s);
        release(shared.empty(at.stage));
        weigh(keys.first);
        put_operand(keys.first);
        for (int tile = keys.first + 1; tile < keys.last; tile++) {
            const Cursor<F::STAGES> before = at;
            at.next();
            ptx::mbarrier_wait(shared.full(at.stage), at.parity);
            ptx::mbarrier_wait(shared.full(before.stage) + 1, before.parity);
            turns.wait();
            ask_scores(at.stage);
            ask_sums(before.stage, tile > keys.first + 1);
            turns.pass();
            draw_early(tile);
            ptx::wgmma_wait<1>(s);
            release(shared.empty(at.stage));
            const bool outgrown = weigh(tile);
            ptx::wgmma_wait<0>(o);
            release(shared.empty(before.stage) + 1);
            if (outgrown) {
#pragma unroll
                for (int i = 0; i < D / 2; i++) o[i] *= softmax.shrink[i / 2 % 2];
            }
            put_operand(tile);
        }
        ptx::mbarrier_wait(shared.full(at.stage) + 1, at.parity);
        ask_sums(at.stage, keys.last > keys.first + 1);
        ptx::wgmma_wait<0>(o);
        release(shared.empty(at.stage) + 1);
        at.next();
        if constexpr (F::SKIPS) pass(keys.tiles - keys.last);
        finish();
        release(shared.q_empty(slot.stage));
    }
    turns.end();
}

template <class F>
__device__ __forceinline__ void forward(const CUtensorMap* q_map, const CUtensorMap* kv_map,
                                        bf16* o, float* lse, const Batch& batch, Band band,
                                        float scale, const Dropout& dropout) {
    DYNAMIC_SHARED(smem);
    const Shared<F> shared = {smem};
    if (threadIdx.x == 0) shared.init();
    __syncthreads();
    if (threadIdx.x < 128) {
        ptx::registers_decrease<F::PRODUCER>();
        if (threadIdx.x < 32) produce<F>(shared, q_map, kv_map, batch, band);
    } else {
        ptx::registers_increase<F::CONSUMER>();
        consume<F>(shared, o, lse, batch.heads, band, scale, dropout);
    }
}

}  // namespace

// Boxes of the maps of qkv [N, 3C], swizzled by 128 bytes: [64, QUERIES] and [64, 128].
#define ATTENTION(name, D, GROUPS, DROPOUT)                                                      \
    extern "C" __global__ void __launch_bounds__((1 + GROUPS) * 128, 1)                          \
        name(const __grid_constant__ CUtensorMap q_map,                                          \
             const __grid_constant__ CUtensorMap kv_map, bf16* o, float* lse,                    \
             const __grid_constant__ Batch batch, const __grid_constant__ Band band,             \
             float scale, const __grid_constant__ Dropout dropout) {                             \
        begin_kernel();                                                                          \
        forward<Forward<D, GROUPS, DROPOUT>>(&q_map, &kv_map, o, lse, batch, band, scale,        \
                                             dropout);                                           \
    }                                                                                            \
    EXPORT_KERNEL(name, name)

ATTENTION(attention_hopper_64x128, 64, 2, false)
ATTENTION(attention_hopper_64x192, 64, 3, false)
ATTENTION(attention_hopper_128x128, 128, 2, false)
ATTENTION(attention_hopper_64x128_dropout, 64, 2, true)
ATTENTION(attention_hopper_128x128_dropout, 128, 2, true)
