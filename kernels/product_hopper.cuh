// What the products of product_hopper.cu and product_hopper_backward.cu share, for sm_90a: tiles,
// the ring of stages, who does what in a block, and the main loop on wgmma.
//
//   c [M, N] = sum over k < K of a(m, k) b(n, k)
// Both operands are named by their own index, m or n, the *outer* one, and by k. Either may be the
// contiguous one in memory: that is the operand's major.
//
// A block is three warpgroups. One thread of the first, the producer, brings panels of both
// operands by TMA into a ring of stages, 64 k at a time; the other two, the consumers, multiply
// them by wgmma and hand results on (product_hopper_out.cuh). A stage is filled when its `full`
// barrier has got the panels' bytes, and free when its `empty` barrier has been told so by every
// warp that read it. Registers go from the producer to the consumers, whose accumulators fill most
// of theirs.
//
//   cooperative   the consumers halve the rows of each tile: large tiles, least traffic; while
//                 they store, nothing multiplies
//   ping-pong     each makes every other tile, and they multiply in turn: one stores while the
//                 other multiplies
// A block stays and makes tile after tile; the producer runs ahead into the next one meanwhile.
//
// Two blocks may form a cluster: they make tiles one above the other, so that b is the same for
// both. Each brings half of it and has TMA write that half into both: the L2 reads b once for two.
#pragma once
#include <ptx/cluster.cuh>
#include <ptx/registers.cuh>
#include <ptx/tma.cuh>
#include <ptx/wgmma.cuh>
#include <product_hopper_out.cuh>

namespace hopper {

enum class Major { K, OUTER };
enum class Form { COOPERATIVE, PING_PONG };

constexpr int CONSUMERS = 2;  // warpgroups
constexpr int THREADS = (1 + CONSUMERS) * 128;
constexpr int CONSUMER_WARPS = CONSUMERS * 4;

// How a tile of c is made. SLOTS of results a warp are under way to global memory.
template <Form FORM_, int M_, int N_, int STAGES_, int SLOTS_>
struct Tile {
    static constexpr Form FORM = FORM_;
    static constexpr int M = M_, N = N_, K = 64, STAGES = STAGES_, SLOTS = SLOTS_;
    // Rows of one consumer, in blocks of the 64 that a wgmma makes.
    static constexpr int GROUP_M = FORM == Form::COOPERATIVE ? M / CONSUMERS : M;
    static constexpr int BLOCKS = GROUP_M / 64;
    static constexpr int A_BYTES = M * ROW_BYTES, B_BYTES = N * ROW_BYTES;
    static constexpr int STAGE_BYTES = A_BYTES + B_BYTES;
    static constexpr int STAGES_BYTES = STAGES * STAGE_BYTES;
    static constexpr int SLOTS_BYTES = CONSUMER_WARPS * SLOTS * SLOT_BYTES;
    static constexpr int BARRIERS = 2 * STAGES + CONSUMER_WARPS * SLOTS;
    static_assert(GROUP_M % 64 == 0 && N % 32 == 0, "whole products");
    static_assert(STAGES_BYTES + SLOTS_BYTES + BARRIERS * 8 <= 227 * 1024, "fits the block");
};

// The host chooses: `TILES` in src/ops/linear/hopper.rs has the same numbers.
using Coop128x256 = Tile<Form::COOPERATIVE, 128, 256, 4, 2>;
using Coop256x128 = Tile<Form::COOPERATIVE, 256, 128, 4, 2>;
using Ping128x192 = Tile<Form::PING_PONG, 128, 192, 4, 4>;
using Ping128x128 = Tile<Form::PING_PONG, 128, 128, 5, 4>;
// For widths of 1,600; results without an activation only.
using Coop256x160 = Tile<Form::COOPERATIVE, 256, 160, 3, 4>;

// ------------------------------------------------------------------ operands in shared memory

// A panel [OUTER, 64 k] of an operand, as TMA writes it: rows whose 16-byte chunks are permuted by
// their place among 128 bytes, so that eight rows of one column of chunks meet all banks.
//   k-major      rows of 64 k
//   outer-major  boxes of [64 k, WIDTH outer], one after another; 32 wide where 64 do not fit
template <Major MAJOR, int OUTER>
struct Panel {
    static constexpr int WIDTH = MAJOR == Major::K || OUTER % 64 == 0 ? 64 : 32;
    static constexpr int ROW = WIDTH * 2, BOX_BYTES = 64 * ROW;  // bytes

    // What wgmma reads: from `outer`, a multiple of 64, 16 k from 16 kk.
    __device__ __forceinline__ static uint64_t descriptor(uint32_t panel_smem, int outer, int kk) {
        constexpr int EIGHT_ROWS = 8 * ROW;
        constexpr auto SWIZZLE = WIDTH == 64 ? ptx::Swizzle::B128 : ptx::Swizzle::B64;
        if constexpr (MAJOR == Major::K) {
            return ptx::matrix_descriptor(panel_smem + outer * ROW + kk * 32, 16, EIGHT_ROWS,
                                          SWIZZLE);
        } else {
            return ptx::matrix_descriptor(panel_smem + outer / WIDTH * BOX_BYTES + kk * 16 * ROW,
                                          BOX_BYTES, EIGHT_ROWS, SWIZZLE);
        }
    }

    // The panel at (outer, k): `load(bytes into the panel, x, y)` fetches a box, of [OUTER, 64 k]
    // or of [64 k, WIDTH outer].
    template <class Load>
    __device__ __forceinline__ static void fetch(int outer, int k, Load load) {
        if constexpr (MAJOR == Major::K) {
            load(0, k, outer);
        } else {
#pragma unroll
            for (int box = 0; box < OUTER / WIDTH; box++)
                load(box * BOX_BYTES, outer + box * WIDTH, k);
        }
    }

    // Half 0 or 1 of it: OUTER / 2 rows, of which the second half begins `apart` after the first,
    // or 32 k of each box.
    template <class Load>
    __device__ __forceinline__ static void fetch_half(int half, int outer, int apart, int k,
                                                      Load load) {
        if constexpr (MAJOR == Major::K) {
            load(half * (OUTER / 2) * ROW, k, outer + half * apart);
        } else {
            // The producer has 24 registers, which five boxes at once would not leave.
#pragma unroll(WIDTH == 64 ? OUTER / 64 : 1)
            for (int box = 0; box < OUTER / WIDTH; box++)
                load(box * BOX_BYTES + half * 32 * ROW, outer + box * WIDTH, k + half * 32);
        }
    }
};

// Which columns of b a tile [M, N] takes whose columns begin at n: N neighbours.
struct Neighbours {
    template <class T>
    __device__ __forceinline__ static int first(int n) {
        return n;
    }
    template <class T>
    __device__ __forceinline__ static int apart() {
        return T::N / 2;
    }
};

// N / 2 from n / 2 on, and the N / 2 that lie `distance` after them: of c [M, 2 distance] a tile
// has both that belong together, and a thread holds them in accumulators N / 4 apart.
struct Pairs {
    int distance;

    template <class T>
    __device__ __forceinline__ static int first(int n) {
        return n / 2;
    }
    template <class T>
    __device__ __forceinline__ int apart() const {
        return distance;
    }
};

// ------------------------------------------------------------------ what is to be done

// A tile of c and a share of k. `item` and `column` count.
struct Work {
    int item, m, n, column, split, k, steps;
};

// The tiles and shares of k of one launch, as the host cut it (src/ops/linear/hopper.rs): blocks
// find it among the kernel's arguments, where it costs no registers.
//
// The order in which blocks come to tiles: splits one after another, so that blocks at work at one
// time read the same rows; in each, groups of eight rows of tiles, rows first, so that they share
// panels, which then come from the L2.
struct Schedule {
    int rows;            // of tiles, as many at once as a cluster has blocks
    int columns, splits;
    int steps, share;    // of k, 64 each: in all, and in a split
    int cluster;         // blocks in one

    // Calls each(work) for what this block makes of tiles [M, N].
    template <class T, class Each>
    __device__ __forceinline__ void for_each(Each each) const {
        for (int item = blockIdx.x / cluster; item < items(); item += gridDim.x / cluster)
            each(at<T>(item));
    }

    // Whether the block has nothing after it.
    __device__ __forceinline__ bool is_last(int item) const {
        return item + int(gridDim.x) / cluster >= items();
    }

private:
    __device__ __forceinline__ int items() const { return rows * columns * splits; }

    template <class T>
    __device__ __forceinline__ Work at(int item) const {
        constexpr int GROUP = 8;
        const int split = item / (rows * columns), tile = item % (rows * columns);
        const int group = tile / (GROUP * columns), in_group = tile % (GROUP * columns);
        const int height = min(GROUP, rows - group * GROUP);
        const int row = group * GROUP + in_group % height, column = in_group / height;
        const int block_row = row * cluster + blockIdx.x % cluster;
        const int first = split * share;
        return {item,  block_row * T::M, column * T::N,           column,
                split, first * T::K,     min(share, steps - first)};
    }
};

// ------------------------------------------------------------------ the ring

// Shared memory: stages, each a's panel and b's; slots of results; barriers.
template <class T>
struct Ring {
    unsigned char* smem;

    __device__ __forceinline__ unsigned char* a_smem(int stage) const {
        return smem + stage * T::STAGE_BYTES;
    }
    __device__ __forceinline__ unsigned char* b_smem(int stage) const {
        return a_smem(stage) + T::A_BYTES;
    }
    __device__ __forceinline__ uint64_t* full(int stage) const { return barriers() + stage; }
    __device__ __forceinline__ uint64_t* empty(int stage) const {
        return barriers() + T::STAGES + stage;
    }
    // Of a consumer's warp: its slots, and a barrier for each.
    __device__ __forceinline__ unsigned char* slots_smem(int warp) const {
        return smem + T::STAGES_BYTES + warp * T::SLOTS * SLOT_BYTES;
    }
    __device__ __forceinline__ uint64_t* arrived(int warp) const {
        return barriers() + 2 * T::STAGES + warp * T::SLOTS;
    }

    // By one thread. A stage is read by the consumers that multiply it, in this block and, as b is
    // half the other's, in the cluster's; and by `others`.
    __device__ __forceinline__ void init(int cluster, int others) const {
        const int readers = T::FORM == Form::COOPERATIVE ? CONSUMER_WARPS : 4;
        for (int stage = 0; stage < T::STAGES; stage++) {
            ptx::mbarrier_init(full(stage), 1);
            ptx::mbarrier_init(empty(stage), readers * cluster + others);
        }
        for (int slot = 0; slot < CONSUMER_WARPS * T::SLOTS; slot++)
            ptx::mbarrier_init(arrived(0) + slot, 1);
        ptx::fence_mbarrier_init();
    }

    // By a consumer's warp that reads a stage no more: to all producers that write there.
    __device__ __forceinline__ void release(int stage, int cluster) const {
        const int lane = threadIdx.x % 32;
        if (lane < cluster)
            ptx::mbarrier_arrive_remote_read(ptx::map_address(empty(stage), lane));
    }

private:
    __device__ __forceinline__ uint64_t* barriers() const {
        return reinterpret_cast<uint64_t*>(smem + T::STAGES_BYTES + T::SLOTS_BYTES);
    }
};

// Dynamic shared memory of a kernel.
template <class T>
constexpr int SHARED_BYTES = T::STAGES_BYTES + T::SLOTS_BYTES + T::BARRIERS * 8;

// ------------------------------------------------------------------ the producer

// One thread: fills stage after stage as they become free.
template <class T, Major A, Major B, class Columns>
__device__ __forceinline__ void produce(const CUtensorMap* a, const CUtensorMap* b,
                                        const Ring<T>& ring, const Schedule& schedule,
                                        const Columns& columns) {
    const bool alone = schedule.cluster == 1;
    const uint16_t both = 3;
    const int rank = alone ? 0 : ptx::cluster_rank();
    ptx::tma_prefetch(a);
    ptx::tma_prefetch(b);
    Cursor<T::STAGES> at;
    schedule.for_each<T>([&](const Work& work) {
        for (int step = 0; step < work.steps; step++, at.next()) {
            const int k = work.k + step * T::K;
            uint64_t* full = ring.full(at.stage);
            unsigned char *a_smem = ring.a_smem(at.stage), *b_smem = ring.b_smem(at.stage);
            ptx::mbarrier_wait(ring.empty(at.stage), at.parity ^ 1);
            ptx::mbarrier_arrive_expect_tx(full, T::STAGE_BYTES);
            Panel<A, T::M>::fetch(work.m, k, [&](int to, int x, int y) {
                ptx::tma_load_2d(a_smem + to, a, full, x, y);
            });
            auto load_b = [&](int to, int x, int y) {
                if (alone) ptx::tma_load_2d(b_smem + to, b, full, x, y);
                else ptx::tma_load_2d_multicast(b_smem + to, b, full, both, x, y);
            };
            const int n = columns.template first<T>(work.n);
            const int apart = columns.template apart<T>();
            Panel<B, T::N>::fetch_half(rank, n, apart, k, load_b);
            if (alone) Panel<B, T::N>::fetch_half(1, n, apart, k, load_b);
        }
    });
}

// ------------------------------------------------------------------ the consumers

// The turns that consumers take in ping-pong. They keep the tensor cores with one tile at a time,
// and no one waits for a stage's next round but one: parity could not tell that from this round.
template <class T>
struct Turns {
    static constexpr bool TAKEN = T::FORM == Form::PING_PONG;
    int group;  // of the caller

    __device__ __forceinline__ explicit Turns(int group) : group(group) {
        if (TAKEN && group == 1) pass();
    }
    __device__ __forceinline__ void wait() const {
        if (TAKEN) ptx::named_barrier_sync(1 + group, CONSUMERS * 128);
    }
    __device__ __forceinline__ void pass() const {
        if (TAKEN) ptx::named_barrier_arrive(2 - group, CONSUMERS * 128);
    }
};

// acc = the product of a tile: rows from `row` of a's panels, for this warpgroup. The products of
// one step run while the next are issued; then the step before is free. issued() is called when
// the last are on their way.
template <class T, Major A, Major B, class Issued>
__device__ __forceinline__ void multiply(Results<T>& acc, const Ring<T>& ring,
                                         Cursor<T::STAGES>& at, int row, int steps, int cluster,
                                         Issued issued) {
    int before = 0;
    for (int step = 0; step < steps; step++, at.next()) {
        const uint32_t a_smem = ptx::shared_address(ring.a_smem(at.stage));
        const uint32_t b_smem = a_smem + T::A_BYTES;
        ptx::mbarrier_wait(ring.full(at.stage), at.parity);
        ptx::wgmma_fence();
#pragma unroll
        for (int kk = 0; kk < T::K / 16; kk++) {
            const uint64_t b = Panel<B, T::N>::descriptor(b_smem, 0, kk);
#pragma unroll
            for (int block = 0; block < T::BLOCKS; block++)
                ptx::wgmma_m64k16<T::N, A == Major::OUTER, B == Major::OUTER>(
                    acc[block], Panel<A, T::M>::descriptor(a_smem, row + block * 64, kk), b,
                    (step | kk) != 0);
        }
        ptx::wgmma_commit();
        ptx::wgmma_wait<1>();
        if (step > 0) ring.release(before, cluster);
        before = at.stage;
    }
    issued();
#pragma unroll
    for (int block = 0; block < T::BLOCKS; block++) ptx::wgmma_wait<0>(acc[block]);
    ring.release(before, cluster);
}

// One consumer's warpgroup: its tiles, each multiplied and handed to `out`
// (product_hopper_out.cuh).
template <class T, Major A, Major B, class Out>
__device__ __forceinline__ void consume(const Ring<T>& ring, const Schedule& schedule,
                                        const Out& out) {
    constexpr bool PING_PONG = T::FORM == Form::PING_PONG;
    const int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 - 4;
    const int row = PING_PONG ? 0 : group * T::GROUP_M;
    Outlet<Ring<T>, T::SLOTS> outlet(ring);
    Cursor<T::STAGES> at;
    const Turns<T> turns(group);
    bool others = PING_PONG && group == 1;
    schedule.for_each<T>([&](const Work& work) {
        if (others) {
            others = false;
            at.skip(work.steps);
            return;
        }
        others = PING_PONG;
        const Corner corner = {work.m + row + warp % 4 * 16, work.n / Out::EACH, work.split};
        begin_results<T>(outlet, out, corner);
        Results<T> acc;
        turns.wait();
        multiply<T, A, B>(acc, ring, at, row, work.steps, schedule.cluster, [&] {
            if (!schedule.is_last(work.item)) turns.pass();
        });
        store_results<T>(acc, outlet, out, corner);
    });
    outlet.finish();
}

// ------------------------------------------------------------------ a block

// For kernels whose producer's other warps have nothing to do.
struct Nobody {
    static constexpr int WARPS = 0, REGISTERS = 24;
    template <class T>
    __device__ __forceinline__ void run(const Ring<T>&, const Schedule&) const {}
};

// A block, by all its threads. `others` are warps beside the producer that read stages too.
template <class T, Major A, Major B, class Out, class Others = Nobody, class Columns = Neighbours>
__device__ __forceinline__ void run(const CUtensorMap* a, const CUtensorMap* b,
                                    const Schedule& schedule, const Out& out,
                                    const Others& others = {}, const Columns& columns = {}) {
    DYNAMIC_SHARED(smem);
    const Ring<T> ring = {smem};
    const int warp = threadIdx.x / 32;
    if (threadIdx.x == 0) ring.init(schedule.cluster, Others::WARPS);
    // Both blocks' barriers are there before either is used.
    ptx::cluster_arrive();
    ptx::cluster_wait();
    if (warp < 4) {
        ptx::registers_decrease<Others::REGISTERS>();
        if (threadIdx.x == 0) produce<T, A, B>(a, b, ring, schedule, columns);
        if (warp > 0 && warp <= Others::WARPS) others.run(ring, schedule);
    } else {
        // What the block was launched with, 168 for each thread, is shared out anew.
        ptx::registers_increase<Others::REGISTERS == 24 ? 240 : 232>();
        consume<T, A, B>(ring, schedule, out);
    }
    // Neither block exits while the other may still tell its barriers something.
    __syncwarp();
    ptx::cluster_arrive();
    ptx::cluster_wait();
}

}  // namespace hopper
