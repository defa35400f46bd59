// The way of results out of the accumulators of product_hopper.cuh: through the epilogue and shared
// memory to global memory by TMA, which works while the warp goes on.
//
// Each warp is by itself. Of its 64-row block it holds 16 rows, and sends them in pieces of 16 rows
// × 128 bytes through slots of its own: it writes a slot, makes the writes visible to TMA, lets one
// lane start the store, and comes back to that slot SLOTS pieces later, when TMA has read it. What
// an epilogue needs from global memory in the same places (a saved input, a gradient to add to)
// comes into the slot by TMA first, SLOTS pieces ahead, and the result overwrites it there.
//
// Rows and columns beyond the results' ends are cut off by TMA.
#pragma once
#include <common.cuh>
#include <ptx/barrier.cuh>
#include <ptx/matrix.cuh>
#include <ptx/tma.cuh>

#include "activation.cuh"

namespace hopper {

constexpr int ROW_BYTES = 128;              // of all tiles in shared memory: one swizzle
constexpr int SLOT_BYTES = 16 * ROW_BYTES;  // [16 rows, 64 bf16 or 32 fp32]
constexpr int STRIP = 16;                   // columns that an epilogue works on at a time

// A consumer's part of c, as wgmma leaves it: ptx/wgmma.cuh says who holds what.
template <class T>
using Results = float[T::BLOCKS][T::N / 2];

// The first of a warp's results in its tile of c.
struct Corner {
    int row, column, split;
};

// ------------------------------------------------------------------ slots

// Of a warp. It keeps no addresses: they follow from the warp's number, and registers are few.
template <class Ring, int SLOTS>
class Outlet {
    const Ring& ring;
    uint32_t taken = 0;

    __device__ __forceinline__ static bool leads() { return threadIdx.x % 32 == 0; }
    __device__ __forceinline__ static int warp() { return threadIdx.x / 32 - 4; }
    __device__ __forceinline__ unsigned char* slot(uint32_t piece) const {
        return ring.slots_smem(warp()) + piece % SLOTS * SLOT_BYTES;
    }
    // Completes when TMA has filled the slot.
    __device__ __forceinline__ uint64_t* arrived(uint32_t piece) const {
        return ring.arrived(warp()) + piece % SLOTS;
    }

public:
    __device__ __forceinline__ explicit Outlet(const Ring& ring) : ring(ring) {}

    // The next COUNT slots, neighbours and free. All pieces of an epilogue take as many.
    template <int COUNT = 1>
    __device__ __forceinline__ unsigned char* take() {
        static_assert(SLOTS % COUNT == 0, "neighbours");
        if (leads()) ptx::bulk_wait_read<SLOTS / COUNT - 1>();
        __syncwarp();
        taken += COUNT;
        return slot(taken - COUNT);
    }

    // The next slot, with what `fetch` asked for.
    __device__ __forceinline__ unsigned char* receive() {
        ptx::mbarrier_wait(arrived(taken), taken / SLOTS & 1);
        return slot(taken++);
    }

    // Starts to fill the slot `ahead` of the next; all that was sent has been read.
    __device__ __forceinline__ void fetch(uint32_t ahead, const CUtensorMap* from, int x, int y) {
        if (!leads()) return;
        const uint32_t piece = taken + ahead;
        ptx::bulk_wait_read<0>();
        ptx::mbarrier_arrive_expect_tx(arrived(piece), SLOT_BYTES);
        ptx::tma_load_2d(slot(piece), from, arrived(piece), x, y);
    }

    // Sends what the warp wrote: one lane calls store().
    template <class Store>
    __device__ __forceinline__ void send(Store store) {
        ptx::fence_proxy_async();
        __syncwarp();
        if (!leads()) return;
        store();
        ptx::bulk_commit();
    }

    // Until all is in global memory.
    __device__ __forceinline__ void finish() {
        if (leads()) ptx::bulk_wait<0>();
    }
};

// The lane's 16-byte chunk of a strip of bf16 in a slot, as ldmatrix and stmatrix take it: matrices
// (rows 0-7, columns 0-7), (8-15, 0-7), (0-7, 8-15), (8-15, 8-15). That is the accumulators' order.
__device__ __forceinline__ uint32_t strip_of_slot(const unsigned char* slot_smem, int strip) {
    const int row = threadIdx.x % 16, chunk = strip * 2 + threadIdx.x % 32 / 16;
    return ptx::shared_address(slot_smem) + row * ROW_BYTES + (chunk ^ row % 8) * 16;
}

__device__ __forceinline__ float low_bf16(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_bf16(uint32_t pair) {
    return __uint_as_float(pair & 0xffff0000u);
}

// values[4 j + 2 h + e]: row 8 h + lane / 4, column 8 j + 2 (lane % 4) + e of a strip.
__device__ __forceinline__ void write_strip(unsigned char* slot_smem, int strip,
                                            const float (&values)[8]) {
    uint32_t packed[4];
#pragma unroll
    for (int i = 0; i < 4; i++) packed[i] = pack_bf16(values[2 * i], values[2 * i + 1]);
    ptx::stmatrix_x4(strip_of_slot(slot_smem, strip), packed);
}

__device__ __forceinline__ void read_strip(float (&values)[8], const unsigned char* slot_smem,
                                           int strip) {
    uint32_t packed[4];
    ptx::ldmatrix_x4(packed, strip_of_slot(slot_smem, strip));
#pragma unroll
    for (int i = 0; i < 4; i++) {
        values[2 * i] = __uint_as_float(packed[i] << 16);
        values[2 * i + 1] = __uint_as_float(packed[i] & 0xffff0000u);
    }
}

// ------------------------------------------------------------------ epilogues
// COLUMNS of a piece. beside(): what `fetch` brings into the slots first, or null. For each piece
// open() gives its slot, or two; for each strip of it load(column) reads what is needed beside the
// values, one strip ahead, and put() writes the slot; then close() sends it.

struct Nothing {};

// Two neighbouring elements of a bias, in each of a strip's two halves.
struct BiasPairs {
    float low[2], high[2];
};

struct Bias {
    const bf16* gmem;  // may be null
    int columns;

    __device__ __forceinline__ BiasPairs load(int column) const {
        BiasPairs pairs = {};
        if (gmem == nullptr) return pairs;
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int at = column + 8 * j + threadIdx.x % 4 * 2;
            if (at + 1 < columns) {
                const uint32_t pair = *reinterpret_cast<const uint32_t*>(gmem + at);
                pairs.low[j] = __uint_as_float(pair << 16);
                pairs.high[j] = __uint_as_float(pair & 0xffff0000u);
            } else if (at < columns) {
                pairs.low[j] = __bfloat162float(gmem[at]);
            }
        }
        return pairs;
    }

    __device__ __forceinline__ static void add(float (&values)[8], const BiasPairs& pairs) {
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                values[4 * j + 2 * h] += pairs.low[j];
                values[4 * j + 2 * h + 1] += pairs.high[j];
            }
    }
};

// y = c + b
struct LinearOut {
    static constexpr int COLUMNS = 64;
    const CUtensorMap* y;
    Bias bias;

    __device__ __forceinline__ const CUtensorMap* beside() const { return nullptr; }
    template <class O>
    __device__ __forceinline__ unsigned char* open(O& outlet) const {
        return outlet.take();
    }
    __device__ __forceinline__ BiasPairs load(int column) const { return bias.load(column); }
    __device__ __forceinline__ void put(unsigned char* slot_smem, int strip, float (&values)[8],
                                        const BiasPairs& pairs) const {
        Bias::add(values, pairs);
        write_strip(slot_smem, strip, values);
    }
    template <class O>
    __device__ __forceinline__ void close(O& outlet, const unsigned char* slot_smem, int x, int row,
                                          int) const {
        outlet.send([&] { ptx::tma_store_2d(y, slot_smem, x, row); });
    }
};

// pre = c + b, y = act(pre): two slots a piece.
struct ActivationOut {
    static constexpr int COLUMNS = 64;
    const CUtensorMap *y, *pre;
    Bias bias;
    int activation;

    __device__ __forceinline__ const CUtensorMap* beside() const { return nullptr; }
    template <class O>
    __device__ __forceinline__ unsigned char* open(O& outlet) const {
        return outlet.template take<2>();
    }
    __device__ __forceinline__ BiasPairs load(int column) const { return bias.load(column); }
    __device__ __forceinline__ void put(unsigned char* slot_smem, int strip, float (&values)[8],
                                        const BiasPairs& pairs) const {
        Bias::add(values, pairs);
        write_strip(slot_smem, strip, values);
        // What follows starts from the value as rounded.
#pragma unroll
        for (float& value : values) value = __bfloat162float(__float2bfloat16_rn(value));
        with_activation(activation, [&](auto act) {
#pragma unroll
            for (float& value : values) value = act(value).value;
        });
        write_strip(slot_smem + SLOT_BYTES, strip, values);
    }
    template <class O>
    __device__ __forceinline__ void close(O& outlet, const unsigned char* slot_smem, int x, int row,
                                          int) const {
        outlet.send([&] {
            ptx::tma_store_2d(pre, slot_smem, x, row);
            ptx::tma_store_2d(y, slot_smem + SLOT_BYTES, x, row);
        });
    }
};

// dx = or += c
struct GradientOut {
    static constexpr int COLUMNS = 64;
    const CUtensorMap* dx;
    bool add;

    __device__ __forceinline__ const CUtensorMap* beside() const { return add ? dx : nullptr; }
    template <class O>
    __device__ __forceinline__ unsigned char* open(O& outlet) const {
        return add ? outlet.receive() : outlet.take();
    }
    __device__ __forceinline__ Nothing load(int) const { return {}; }
    __device__ __forceinline__ void put(unsigned char* slot_smem, int strip, float (&values)[8],
                                        Nothing) const {
        if (add) {
            float before[8];
            read_strip(before, slot_smem, strip);
#pragma unroll
            for (int i = 0; i < 8; i++) values[i] = before[i] + values[i];
        }
        write_strip(slot_smem, strip, values);
    }
    template <class O>
    __device__ __forceinline__ void close(O& outlet, const unsigned char* slot_smem, int x, int row,
                                          int) const {
        outlet.send([&] { ptx::tma_store_2d(dx, slot_smem, x, row); });
    }
};

// dpre = c ∘ act'(pre)
struct ActivationGradientOut {
    static constexpr int COLUMNS = 64;
    const CUtensorMap *dpre, *pre;
    int activation;

    __device__ __forceinline__ const CUtensorMap* beside() const { return pre; }
    template <class O>
    __device__ __forceinline__ unsigned char* open(O& outlet) const {
        return outlet.receive();
    }
    __device__ __forceinline__ Nothing load(int) const { return {}; }
    __device__ __forceinline__ void put(unsigned char* slot_smem, int strip, float (&values)[8],
                                        Nothing) const {
        uint32_t packed[4];
        ptx::ldmatrix_x4(packed, strip_of_slot(slot_smem, strip));
        with_activation(activation, [&](auto act) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                values[2 * i] *= act(low_bf16(packed[i])).slope;
                values[2 * i + 1] *= act(high_bf16(packed[i])).slope;
                packed[i] = pack_bf16(values[2 * i], values[2 * i + 1]);
            }
        });
        ptx::stmatrix_x4(strip_of_slot(slot_smem, strip), packed);
    }
    template <class O>
    __device__ __forceinline__ void close(O& outlet, const unsigned char* slot_smem, int x, int row,
                                          int) const {
        outlet.send([&] { ptx::tma_store_2d(dpre, slot_smem, x, row); });
    }
};

// f32: sums [splits, M, N] = c, or sums [1, M, N] += c. Each element is added to once, by TMA in
// the L2, so nothing depends on an order.
struct SumOut {
    static constexpr int COLUMNS = 32;
    const CUtensorMap* sums;
    bool add;

    __device__ __forceinline__ const CUtensorMap* beside() const { return nullptr; }
    template <class O>
    __device__ __forceinline__ unsigned char* open(O& outlet) const {
        return outlet.take();
    }
    __device__ __forceinline__ Nothing load(int) const { return {}; }
    __device__ __forceinline__ void put(unsigned char* slot_smem, int strip, float (&values)[8],
                                        Nothing) const {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int row = 8 * h + lane / 4, chunk = strip * 4 + 2 * j + lane % 4 / 2;
                unsigned char* to_smem =
                    slot_smem + row * ROW_BYTES + (chunk ^ row % 8) * 16 + lane % 2 * 8;
                *reinterpret_cast<float2*>(to_smem) =
                    make_float2(values[4 * j + 2 * h], values[4 * j + 2 * h + 1]);
            }
    }
    template <class O>
    __device__ __forceinline__ void close(O& outlet, const unsigned char* slot_smem, int x, int row,
                                          int split) const {
        outlet.send([&] {
            if (add) ptx::tma_reduce_add_3d(sums, slot_smem, x, row, split);
            else ptx::tma_store_3d(sums, slot_smem, x, row, split);
        });
    }
};

// ------------------------------------------------------------------ from the accumulators

// values = strip `strip` of COUNT from FIRST. Registers have no addresses, so each strip has code
// of its own, and halving finds it.
template <int FIRST, int COUNT, int BLOCKS, int R>
__device__ __forceinline__ void pick(float (&values)[8], const float (&acc)[BLOCKS][R],
                                     int strip) {
    if constexpr (COUNT == 1) {
        constexpr int PER_BLOCK = R / 8;
#pragma unroll
        for (int i = 0; i < 8; i++)
            values[i] = acc[FIRST / PER_BLOCK][FIRST % PER_BLOCK * 8 + i];
    } else {
        constexpr int HALF = COUNT / 2;
        if (strip < FIRST + HALF) pick<FIRST, HALF>(values, acc, strip);
        else pick<FIRST + HALF, COUNT - HALF>(values, acc, strip);
    }
}

// Where a warp's piece lies in global memory.
template <class T, class Out>
struct Piece {
    static constexpr int A_BLOCK = T::N / Out::COLUMNS, COUNT = T::BLOCKS * A_BLOCK;
    int x, row;

    __device__ __forceinline__ Piece(const Corner& corner, int piece)
        : x(corner.column + piece % A_BLOCK * Out::COLUMNS),
          row(corner.row + piece / A_BLOCK * 64) {}
};

// Before a tile is multiplied: starts to fetch what its epilogue needs.
template <class T, class O, class Out>
__device__ __forceinline__ void begin_results(O& outlet, const Out& out, const Corner& corner) {
    if (!out.beside()) return;
    for (int i = 0; i < min(T::SLOTS, Piece<T, Out>::COUNT); i++) {
        const Piece<T, Out> at(corner, i);
        outlet.fetch(i, out.beside(), at.x, at.row);
    }
}

// After: piece by piece, strip by strip.
template <class T, class O, class Out>
__device__ __forceinline__ void store_results(const Results<T>& acc, O& outlet, const Out& out,
                                              const Corner& corner) {
    constexpr int STRIPS = Out::COLUMNS / STRIP, ALL = T::BLOCKS * T::N / STRIP;
    auto next = out.load(corner.column);
#pragma unroll 1
    for (int piece = 0; piece < Piece<T, Out>::COUNT; piece++) {
        const Piece<T, Out> at(corner, piece);
        unsigned char* slot_smem = out.open(outlet);
#pragma unroll 1
        for (int strip = 0; strip < STRIPS; strip++) {
            const int number = piece * STRIPS + strip;
            const auto beside = next;
            next = out.load(corner.column + (number + 1) % (T::N / STRIP) * STRIP);
            float values[8];
            pick<0, ALL>(values, acc, number);
            out.put(slot_smem, strip, values, beside);
        }
        // The slot of the piece before has been read by now, or soon.
        if (out.beside() && piece > 0 && piece - 1 + T::SLOTS < Piece<T, Out>::COUNT) {
            const Piece<T, Out> later(corner, piece - 1 + T::SLOTS);
            outlet.fetch(T::SLOTS - 2, out.beside(), later.x, later.row);
        }
        out.close(outlet, slot_smem, at.x, at.row, corner.split);
    }
}

}  // namespace hopper
