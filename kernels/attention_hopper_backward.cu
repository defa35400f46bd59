// arch: sm_90a
// Attention, backward, by wgmma and TMA: the same results as attention_backward.cu, which has the
// maths, the naive kernels, and those of other chips and head widths.
//
//   p_ij = exp(s_ij − lse_i),  ds_ij = p_ij (dp_ij − δ_i),  dp_ij = (do_i · v_j) under dropout
//   dv_j = Σ_i p̃_ij do_i,  dk_j = Σ_i ds_ij q_i / √D,  dq_i = Σ_j ds_ij k_j / √D
// dqkv [N, 3C] = (as qkv), from qkv [N, 3C], do [N, C] and stats [H, N] = (lse log2 e, δ).
//
// The floor, for N = 65,536 tokens, H = 12, D = 64 (790 TFLOP/s, 4.3 TB/s):
//   length                       128     512     1024 causal   4096
//   products, 10 C operations    82 µs   326     326           2609
//   memory, 809 MB               188     188     188           188
// But at D = 64 operands cross shared memory so often that it takes as long as the products: 224 KB
// for a tile of 128 × 128, at 128 bytes a clock 1,800 clocks beside their 2,560, and 96 KB more for
// ds and the sums of dq. *Unmeasured on a GPU*; registers and predictions: LOG.md.
//
// One pass, five products. A block takes 128 keys of a head, 64 a consumer's warpgroup, and goes
// through the tiles of queries that see them. Scores are computed transposed, keys × queries, so
// that p̃ᵀ and dsᵀ are left operands of dv and dk as they lie in registers; dsᵀ alone goes through
// shared memory, from where all of it makes a tile of dq.
//
// dq is a sum over blocks. They add up in a fixed order, that of the keys: a word in global memory
// says whose turn it is, and the order of items is such that it nearly always is. The first block
// of a tile stores its part, in f32, the next add theirs in the L2 by TMA, and the last takes the
// sum back, adds its own and stores bf16: nothing is set to zero before, and nothing converted
// after. A tile that one block alone makes never leaves it. A warp of its own, the courier, waits
// for turns and copies. Same launch, same bits.
//
// Where q and k were rotated (rope.cu), dq and dk are rotated back before they are rounded. A pair
// of columns lies in one thread; but of dq at D = 128 in two warpgroups, which exchange them.
#include <ptx/memory.cuh>

#include "attention_hopper.cuh"

using namespace attention;
using hopper::Rotation;

namespace {

template <int D_, bool DROPOUT_>
struct Backward {
    static constexpr bool DROPOUT = DROPOUT_;
    // Whether a warpgroup leaves out tiles that its own keys do not see: where registers suffice.
    static constexpr bool SKIPS = D_ <= 64 && !DROPOUT;
    // Whether it reads rows' positions before it needs them: the same.
    static constexpr bool EARLY = SKIPS;
    static constexpr int D = D_, KEYS = 128, QUERIES = D <= 64 ? 128 : 64;
    static constexpr int SLOTS = D <= 64 ? 2 : 1;  // of items, with k and v
    static constexpr int STAGES = 2;               // of q and do, and of ds
    using Keys = Panels<KEYS, D>;
    using Queries = Panels<QUERIES, D>;
    using Scores = Panels<KEYS, QUERIES>;  // dsᵀ
    // A tile of dq in f32: panels of 64 columns; each consumer's warp has 16 rows of one.
    static constexpr int SUM_ROW = 256, SUMS_PANEL = QUERIES * SUM_ROW;
    static constexpr int SUMS_BYTES = D / 64 * SUMS_PANEL;
    static constexpr int STATS_BYTES = QUERIES * int(sizeof(float2));
    static constexpr int SUMS = 2 * SLOTS * Keys::BYTES + 2 * STAGES * Queries::BYTES +
                                STAGES * Scores::BYTES;
    static constexpr int STATS = SUMS + SUMS_BYTES;
    static constexpr int BARRIERS = STATS + STAGES * STATS_BYTES;
    static constexpr int ITEMS = BARRIERS + (2 * SLOTS + 2 * STAGES + 2) * 8;
    static_assert(ITEMS + SLOTS * int(sizeof(Item)) <= 227 * 1024, "fits the block");
};
constexpr int CONSUMER_WARPS = 8;
// Named barrier of the consumers: ds is there.
constexpr int SCORES_READY = 1;

// The block's shared memory.
template <class B>
struct Shared {
    unsigned char* smem;

    __device__ __forceinline__ unsigned char* k(int slot) const {
        return smem + slot * 2 * B::Keys::BYTES;
    }
    __device__ __forceinline__ unsigned char* v(int slot) const {
        return k(slot) + B::Keys::BYTES;
    }
    __device__ __forceinline__ unsigned char* q(int stage) const {
        return k(B::SLOTS) + stage * 2 * B::Queries::BYTES;
    }
    __device__ __forceinline__ unsigned char* d_o(int stage) const {
        return q(stage) + B::Queries::BYTES;
    }
    __device__ __forceinline__ unsigned char* ds(int stage) const {
        return q(B::STAGES) + stage * B::Scores::BYTES;
    }
    __device__ __forceinline__ unsigned char* sums() const { return smem + B::SUMS; }
    __device__ __forceinline__ float2* stats(int stage) const {
        return reinterpret_cast<float2*>(smem + B::STATS + stage * B::STATS_BYTES);
    }
    __device__ __forceinline__ uint64_t* keys_full(int slot) const { return barriers() + slot; }
    __device__ __forceinline__ uint64_t* keys_empty(int slot) const {
        return keys_full(B::SLOTS) + slot;
    }
    __device__ __forceinline__ uint64_t* full(int stage) const {
        return keys_empty(B::SLOTS) + stage;
    }
    __device__ __forceinline__ uint64_t* empty(int stage) const {
        return full(B::STAGES) + stage;
    }
    // The sums' place is the consumers'; it holds their results.
    __device__ __forceinline__ uint64_t* sums_open() const { return empty(B::STAGES); }
    __device__ __forceinline__ uint64_t* sums_written() const { return sums_open() + 1; }
    __device__ __forceinline__ Item& item(int slot) const {
        return reinterpret_cast<Item*>(smem + B::ITEMS)[slot];
    }

    // By one thread.
    __device__ __forceinline__ void init() const {
        for (int slot = 0; slot < B::SLOTS; slot++) {
            ptx::mbarrier_init(keys_full(slot), 1);
            ptx::mbarrier_init(keys_empty(slot), CONSUMER_WARPS + 1);
        }
        for (int stage = 0; stage < B::STAGES; stage++) {
            ptx::mbarrier_init(full(stage), 1);
            ptx::mbarrier_init(empty(stage), CONSUMER_WARPS);
        }
        ptx::mbarrier_init(sums_open(), 1);
        ptx::mbarrier_init(sums_written(), CONSUMER_WARPS);
        ptx::fence_mbarrier_init();
    }

private:
    __device__ __forceinline__ uint64_t* barriers() const {
        return reinterpret_cast<uint64_t*>(smem + B::BARRIERS);
    }
};

// The tiles of queries that see an item's keys, from `first` to before `end`.
struct Tiles {
    int first, end;

    template <class B>
    __device__ __forceinline__ static Tiles of(const Item& item, Band band) {
        const int last_key = min(item.start + B::KEYS, item.length) - 1;
        const int last = min(last_key + band.behind, item.length - 1);
        return {max(item.start - band.ahead, 0) / B::QUERIES, last / B::QUERIES + 1};
    }
};

// An item's turn at a tile of dq: how many blocks come before it, and whether it is the last.
struct Turn {
    int before;
    bool last;

    template <class B>
    __device__ __forceinline__ static Turn of(const Item& item, int tile, Band band) {
        const int query = tile * B::QUERIES, own = item.start / B::KEYS;
        const int last_query = min(query + B::QUERIES, item.length) - 1;
        const int last_key = min(last_query + band.ahead, item.length - 1);
        return {own - max(query - band.behind, 0) / B::KEYS, own == last_key / B::KEYS};
    }
};

// What the gradients of q lie in until they are whole: `sums` [H, D / 64, N, 64] f32, and a word of
// `turns` a tile and head, the number of blocks that have added to it: 0 at launch.
struct Parts {
    float* sums;
    unsigned* turns;
    int rows;
};

// ------------------------------------------------------------------ the producer

// One warp. Lane 0 fetches tiles; all copy stats, whose rows begin anywhere. Queries beyond the
// sequence's end get such stats that p = 0.
template <class B>
__device__ __forceinline__ void produce(const Shared<B>& shared, const CUtensorMap* kv_map,
                                        const CUtensorMap* q_map, const CUtensorMap* d_o_map,
                                        const float2* stats, const Batch& batch, int rows,
                                        Band band) {
    const int lane = threadIdx.x % 32, width = batch.heads * B::D;
    Cursor<B::SLOTS> slot;
    Cursor<B::STAGES> at;
    for_each_item<B::KEYS>(batch, false, [&](const Item& item) {
        uint64_t* keys_full = shared.keys_full(slot.stage);
        const int column = item.head * B::D;
        ptx::mbarrier_wait(shared.keys_empty(slot.stage), slot.parity ^ 1);
        if (lane == 0) {
            shared.item(slot.stage) = item;
            if (item.length == 0) {
                ptx::mbarrier_arrive(keys_full);
            } else {
                const int row = item.first + item.start;
                ptx::mbarrier_arrive_expect_tx(keys_full, 2 * B::Keys::BYTES);
                B::Keys::fetch(shared.k(slot.stage), kv_map, keys_full, width + column, row);
                B::Keys::fetch(shared.v(slot.stage), kv_map, keys_full, 2 * width + column, row);
            }
        }
        slot.next();
        if (item.length == 0) return;
        const float2* stats_gmem = stats + size_t(item.head) * rows + item.first;
        const Tiles tiles = Tiles::of<B>(item, band);
        for (int tile = tiles.first; tile < tiles.end; tile++, at.next()) {
            const int query = tile * B::QUERIES;
            ptx::mbarrier_wait(shared.empty(at.stage), at.parity ^ 1);
#pragma unroll
            for (int i = 0; i < B::QUERIES; i += 32) {
                const int row = query + i + lane;
                shared.stats(at.stage)[i + lane] =
                    row < item.length ? stats_gmem[row] : make_float2(INFINITY, 0.0f);
            }
            __syncwarp();
            if (lane == 0) {
                uint64_t* full = shared.full(at.stage);
                const int row = item.first + query;
                ptx::mbarrier_arrive_expect_tx(full, 2 * B::Queries::BYTES);
                B::Queries::fetch(shared.q(at.stage), q_map, full, column, row);
                B::Queries::fetch(shared.d_o(at.stage), d_o_map, full, column, row);
            }
        }
    });
}

// ------------------------------------------------------------------ the courier

__device__ __forceinline__ void wait_for_turn(const unsigned* turn, int before) {
    while (int(ptx::load_acquire(turn)) < before) {
    }
    // What others' TMA wrote is read or added to by ours.
    ptx::fence_proxy_async_global();
}

// One thread: takes parts of dq to where they are summed, and back.
template <class B>
__device__ __forceinline__ void carry(const Shared<B>& shared, const Parts& parts, int heads,
                                      Band band) {
    Cursor<B::SLOTS> slot;
    Cursor<1> at;
    for (;; slot.next()) {
        ptx::mbarrier_wait(shared.keys_full(slot.stage), slot.parity);
        const Item item = shared.item(slot.stage);
        if (item.length == 0) return;
        ptx::mbarrier_arrive(shared.keys_empty(slot.stage));
        const Tiles tiles = Tiles::of<B>(item, band);
        for (int tile = tiles.first; tile < tiles.end; tile++, at.next()) {
            const int query = tile * B::QUERIES, rows = min(B::QUERIES, item.length - query);
            const uint32_t bytes = rows * B::SUM_ROW;
            // Tiles of sequence s are numbered from first / QUERIES + s on: no two are the same.
            const int number = item.first / B::QUERIES + item.sequence + tile;
            unsigned* turn = parts.turns + size_t(number) * heads + item.head;
            const Turn own = Turn::of<B>(item, tile, band);
            const auto for_panels = [&](auto call) {
#pragma unroll
                for (int panel = 0; panel < B::D / 64; panel++) {
                    const size_t row = size_t(item.head * (B::D / 64) + panel) * parts.rows;
                    call(shared.sums() + panel * B::SUMS_PANEL,
                         parts.sums + (row + item.first + query) * 64);
                }
            };
            if (own.last && own.before > 0) {
                wait_for_turn(turn, own.before);
                ptx::mbarrier_arrive_expect_tx(shared.sums_open(), B::D / 64 * bytes);
                for_panels([&](unsigned char* smem, const float* gmem) {
                    ptx::bulk_load(smem, gmem, bytes, shared.sums_open());
                });
            } else {
                ptx::mbarrier_arrive(shared.sums_open());
            }
            ptx::mbarrier_wait(shared.sums_written(), at.parity);
            if (own.last) continue;
            if (own.before > 0) wait_for_turn(turn, own.before);
            for_panels([&](const unsigned char* smem, float* gmem) {
                const float* sums_smem = reinterpret_cast<const float*>(smem);
                if (own.before == 0) ptx::bulk_store(gmem, sums_smem, bytes);
                else ptx::bulk_reduce_add_f32(gmem, sums_smem, bytes);
            });
            ptx::bulk_commit();
            ptx::bulk_wait<0>();
            ptx::fence_proxy_async_global();
            ptx::store_release(turn, own.before + 1);
        }
    }
}

// ------------------------------------------------------------------ consumers

// Calls each(pair, i) for every two neighbours i, i + 1 of a warp's part of dq, or of its columns
// from 8 first to 8 last: 16 rows of 64 sums, whose pairs are permuted by the row's number, so that
// eight rows meet all banks.
template <class Each>
__device__ __forceinline__ void exchange(float* part_smem, Each each, int first = 0,
                                         int last = 8) {
    const int lane = threadIdx.x % 32, row = lane / 4;
#pragma unroll
    for (int n = first; n < last; n++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int pair = (n ^ row) * 4 + lane % 4;
            each(reinterpret_cast<float2*>(part_smem)[(row + 8 * h) * 32 + pair], 4 * n + 2 * h);
        }
}

// A head's gradient, a warp's 16 rows: turned the other way than the head was.
template <int D>
__device__ __forceinline__ void turn_back(float (&x)[D / 2], const Rotation& rotation,
                                          const Rotation::Places& places) {
#pragma unroll
    for (int strip = 0; strip < D / 32; strip++) {
        const hopper::Angles<D> angles(rotation, places, strip);
#pragma unroll
        for (int i = 8 * strip; i < 8 * strip + 8; i++) angles.turn(i % 8, x[D / 4 + i], x[i]);
    }
}

// The same of 128 columns of which a warp has half `half` in x, and its partner of the other
// warpgroup the other. They meet at the warp's own barrier, and exchange by way of their parts.
template <class B>
__device__ __forceinline__ void turn_back_half(float (&x)[32], float* part_smem, int half,
                                               const Rotation& rotation,
                                               const Rotation::Places& places) {
    constexpr int PANEL = B::SUMS_PANEL / int(sizeof(float));
    const int meeting = SCORES_READY + 1 + threadIdx.x / 32 % 4;
    exchange(part_smem, [&](float2& sum, int i) { sum = make_float2(x[i], x[i + 1]); });
    ptx::named_barrier_sync(meeting, 64);
    float* others_smem = part_smem + (half == 0 ? PANEL : -PANEL);
    const float sign = half == 0 ? 1.0f : -1.0f;
#pragma unroll
    for (int strip = 0; strip < 4; strip++) {
        const hopper::Angles<128> angles(rotation, places, strip);
        const auto turn = [&](float2& others, int i) {
            x[i] = x[i] * angles.cos[i % 8] + others.x * (angles.sin[i % 8] * sign);
            x[i + 1] = x[i + 1] * angles.cos[i % 8 + 1] + others.y * (angles.sin[i % 8 + 1] * sign);
        };
        exchange(others_smem, turn, 2 * strip, 2 * strip + 2);
    }
    ptx::named_barrier_sync(meeting, 64);
}

// A warp's part of dq, with what is summed up to it in `part_smem` if `add`, scaled to the first
// `rows` of 16 rows. It leaves by way of `part_smem`.
template <class B>
__device__ __forceinline__ void store_sum(bf16* gmem, size_t stride, int rows,
                                          const float (&dq)[32], float* part_smem, bool add,
                                          float scale, int half, const Rotation& rotation,
                                          const Rotation::Places& places) {
    float whole[32];
    exchange(part_smem, [&](float2& sum, int i) {
        const float2 before = add ? sum : make_float2(0.0f, 0.0f);
        whole[i] = before.x + dq[i];
        whole[i + 1] = before.y + dq[i + 1];
    });
    if (rotation.table) {
        if constexpr (B::D == 64) turn_back<64>(whole, rotation, places);
        else turn_back_half<B>(whole, part_smem, half, rotation, places);
    }
    __syncwarp();
    const float factor[2] = {scale, scale};
    unsigned char* rows_smem = reinterpret_cast<unsigned char*>(part_smem);
    Panels<16, 64>::write(rows_smem, 0, whole, factor);
    __syncwarp();
    Panels<16, 64>::store(gmem, stride, rows, rows_smem, 0);
}

// Calls each(s index, stat of its query's pair) for a lane's transposed scores. A pair of stats is
// (lse, δ) of an even query and of the next.
template <int R, class Each>
__device__ __forceinline__ void for_each_score(const float2* stats_smem, Each each) {
    stats_smem += threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < R / 4; n++) {
        const float4 stat = *reinterpret_cast<const float4*>(stats_smem + n * 8);
#pragma unroll
        for (int i = 0; i < 4; i++)
            each(4 * n + i, i % 2 ? make_float2(stat.z, stat.w) : make_float2(stat.x, stat.y));
    }
}

// Scores become p.
template <int R>
__device__ __forceinline__ void weigh(float (&s)[R], const float2* stats_smem, float scale) {
    for_each_score<R>(stats_smem, [&](int i, float2 stat) {
        s[i] = ptx::exp2_approx(fmaf(s[i], scale, -stat.x));
    });
}

// dp becomes ds, and p what the values were weighed by.
template <bool DROPOUT, int R>
__device__ __forceinline__ void slope(float (&dp)[R], float (&p)[R], const float2* stats_smem,
                                      const unsigned (&kept)[R / 32], float keep_scale) {
    for_each_score<R>(stats_smem, [&](int i, float2 stat) {
        const bool keep = !DROPOUT || kept[i / 32] >> i % 32 & 1;
        if constexpr (DROPOUT) dp[i] = keep ? dp[i] * keep_scale : 0.0f;
        dp[i] = p[i] * (dp[i] - stat.y);
        if (!keep) p[i] = 0.0f;
    });
}

// One warpgroup: 64 keys of every item.
template <class B>
__device__ __forceinline__ void consume(const Shared<B>& shared, bf16* dqkv, int heads, Band band,
                                        float scale, const Dropout& dropout,
                                        const Rotation& rotation) {
    constexpr int D = B::D, QUERIES = B::QUERIES, R = QUERIES / 2;
    constexpr bool DROPOUT = B::DROPOUT;
    using Keys = typename B::Keys;
    using Queries = typename B::Queries;
    using Scores = typename B::Scores;
    const int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4;
    const int own_row = group * 64 + warp * 16;
    const size_t width = heads * D, stride = 3 * width;
    const Band queries = {band.ahead, band.behind};
    Cursor<B::SLOTS> slot;
    Cursor<B::STAGES> at;
    Cursor<1> sums_at;
    for (;; slot.next()) {
        ptx::mbarrier_wait(shared.keys_full(slot.stage), slot.parity);
        const Item item = shared.item(slot.stage);
        if (item.length == 0) return;
        const Tiles tiles = Tiles::of<B>(item, band);
        const uint32_t k_smem = ptx::shared_address(shared.k(slot.stage));
        const uint32_t v_smem = ptx::shared_address(shared.v(slot.stage));
        const int group_row = item.start + group * 64, row = group_row + warp * 16;
        bf16* out = dqkv + item.first * stride + item.head * D;
        const auto places_of = [&](int row) {
            const int end = rotation.table ? item.first + item.length : 0;
            return rotation.template places<D>(item.first + row, end);
        };
        Rotation::Places places, key_places;
        if constexpr (B::EARLY) key_places = places_of(row);
        bool begun = false;
        float s[R], dp[R], dq[32], dk[D / 2], dv[D / 2];
        uint32_t p_operand[R / 2], ds_operand[R / 2];

        for (int tile = tiles.first; tile < tiles.end; tile++, at.next(), sums_at.next()) {
            const int query = tile * QUERIES;
            const Overlap seen =
                overlap<64, QUERIES>(group_row, query, queries, item.length, item.length);
            const bool sees = !B::SKIPS || seen.any;
            const uint32_t q_smem = ptx::shared_address(shared.q(at.stage));
            const uint32_t d_o_smem = ptx::shared_address(shared.d_o(at.stage));
            ptx::mbarrier_wait(shared.full(at.stage), at.parity);
            if (sees) {
                ptx::wgmma_fence();
                multiply_transposed<QUERIES, D, Keys, Queries>(s, k_smem, group * 64, q_smem);
                ptx::wgmma_commit();
                ptx::wgmma_fence();
                multiply_transposed<QUERIES, D, Keys, Queries>(dp, v_smem, group * 64, d_o_smem);
                ptx::wgmma_commit();
                unsigned kept[R / 32];
                if constexpr (DROPOUT) {
                    const unsigned mask_row = unsigned(item.first + query) * heads + item.head;
#pragma unroll
                    for (int i = 0; i < R / 32; i++)
                        kept[i] = kept_of_tile<1, 8, true>(dropout, mask_row + i * 64 * heads,
                                                           heads, row);
                }
                ptx::wgmma_wait<1>(s);
                if (!seen.all || group_row + 64 > item.length)
                    mask(s, row, query, queries, item.length);
                weigh(s, shared.stats(at.stage), scale * LOG2E);
                ptx::wgmma_wait<0>(dp);
                slope<DROPOUT>(dp, s, shared.stats(at.stage), kept, dropout.keep);
                to_operand(p_operand, s);
                to_operand(ds_operand, dp);
            } else {
#pragma unroll
                for (uint32_t& pair : ds_operand) pair = 0;
            }
            Scores::put(shared.ds(at.stage), own_row, ds_operand);
            ptx::fence_proxy_async();
            ptx::named_barrier_sync(SCORES_READY, CONSUMER_WARPS * 32);

            if (sees) {
                ptx::wgmma_fence();
                multiply<D, QUERIES, Queries>(dv, p_operand, d_o_smem, begun);
                ptx::wgmma_commit();
            }
            ptx::wgmma_fence();
            // dq: a warpgroup's 64 queries, or 64 of its columns.
            const uint32_t ds_smem = ptx::shared_address(shared.ds(at.stage));
#pragma unroll
            for (int kk = 0; kk < B::KEYS / 16; kk++)
                ptx::wgmma_m64k16<64, 1, 1>(dq, Scores::by_rows(ds_smem, kk, D == 64 ? group : 0),
                                            Keys::by_rows(k_smem, kk, D == 64 ? 0 : group), kk > 0);
            ptx::wgmma_commit();
            if constexpr (B::EARLY) places = places_of(query + own_row);
            if (sees) {
                ptx::wgmma_fence();
                multiply<D, QUERIES, Queries>(dk, ds_operand, q_smem, begun);
                ptx::wgmma_commit();
                begun = true;
                ptx::wgmma_wait<1>(dq);
            } else {
                ptx::wgmma_wait<0>(dq);
            }
            ptx::mbarrier_wait(shared.sums_open(), sums_at.parity);
            float* sums_smem = reinterpret_cast<float*>(shared.sums()) + own_row * 64;
            const Turn turn = Turn::of<B>(item, tile, band);
            if (turn.last) {
                const int first = query + (D == 64 ? own_row : warp * 16);
                if constexpr (!B::EARLY) places = places_of(first);
                store_sum<B>(out + first * stride + (D == 64 ? 0 : group * 64), stride,
                             item.length - first, dq, sums_smem, turn.before > 0, scale, group,
                             rotation, places);
            } else {
                exchange(sums_smem, [&](float2& sum, int i) {
                    sum = make_float2(dq[i], dq[i + 1]);
                });
            }
            ptx::fence_proxy_async();
            release(shared.sums_written());
            ptx::wgmma_wait<0>(dk);
            release(shared.empty(at.stage));
        }

        ptx::wgmma_wait<0>(dv);
        if constexpr (!B::EARLY) key_places = places_of(row);
        if (rotation.table) turn_back<D>(dk, rotation, key_places);
        // By way of the warpgroup's values: their last readers have met since.
        unsigned char* own_smem = shared.v(slot.stage);
        const float factors[2][2] = {{scale, scale}, {dropout.keep, dropout.keep}};
#pragma unroll
        for (int v = 0; v < 2; v++) {
            Keys::write(own_smem, own_row, v ? dv : dk, factors[v]);
            __syncwarp();
            Keys::store(out + row * stride + (1 + v) * width, stride, item.length - row, own_smem,
                        own_row);
            __syncwarp();
        }
        ptx::fence_proxy_async();
        release(shared.keys_empty(slot.stage));
    }
}

template <class B>
__device__ __forceinline__ void backward(const CUtensorMap* kv_map, const CUtensorMap* q_map,
                                         const CUtensorMap* d_o_map, bf16* dqkv,
                                         const float2* stats, const Parts& parts,
                                         const Batch& batch, Band band, float scale,
                                         const Dropout& dropout, const Rotation& rotation) {
    DYNAMIC_SHARED(smem);
    const Shared<B> shared = {smem};
    if (threadIdx.x == 0) shared.init();
    __syncthreads();
    if (threadIdx.x < 128) {
        ptx::registers_decrease<40>();
        if (threadIdx.x < 32)
            produce<B>(shared, kv_map, q_map, d_o_map, stats, batch, parts.rows, band);
        if (threadIdx.x == 32) carry<B>(shared, parts, batch.heads, band);
    } else {
        ptx::registers_increase<232>();
        consume<B>(shared, dqkv, batch.heads, band, scale, dropout, rotation);
    }
}

}  // namespace

// Boxes of the maps, swizzled by 128 bytes: of qkv [64, 128] and [64, QUERIES], of do the latter.
#define ATTENTION_BACKWARD(name, D, DROPOUT)                                                     \
    extern "C" __global__ void __launch_bounds__(384, 1)                                         \
        name(const __grid_constant__ CUtensorMap kv_map,                                         \
             const __grid_constant__ CUtensorMap q_map,                                          \
             const __grid_constant__ CUtensorMap d_o_map, bf16* dqkv, const float2* stats,       \
             const __grid_constant__ Parts parts, const __grid_constant__ Batch batch,           \
             const __grid_constant__ Band band, float scale,                                     \
             const __grid_constant__ Dropout dropout,                                            \
             const __grid_constant__ Rotation rotation) {                                        \
        begin_kernel();                                                                          \
        backward<Backward<D, DROPOUT>>(&kv_map, &q_map, &d_o_map, dqkv, stats, parts, batch,     \
                                       band, scale, dropout, rotation);                          \
    }                                                                                            \
    EXPORT_KERNEL(name, name)

ATTENTION_BACKWARD(attention_hopper_backward_64, 64, false)
ATTENTION_BACKWARD(attention_hopper_backward_128, 128, false)
ATTENTION_BACKWARD(attention_hopper_backward_64_dropout, 64, true)
ATTENTION_BACKWARD(attention_hopper_backward_128_dropout, 128, true)
