// The way of results out of the accumulators of product_hopper.cuh: through the epilogue and shared
// memory to global memory by TMA, which works while the warp goes on.
//
// Each warp is by itself. Of its 64-row block it holds 16 rows, and sends them in pieces of 16 rows
// × 128 bytes through slots of its own: it writes a slot, makes the writes visible to TMA, lets one
// lane start the store, and comes back to that slot SLOTS pieces later, when TMA has read it. What
// an epilogue needs from global memory in the same places (a saved input, a gradient to add to)
// comes into the slot by TMA first, SLOTS pieces ahead, and the result overwrites it there.
//
// A gate's input is two matrices side by side, [M, 2 F], that TMA sees as [2, M, F]: a box
// [2, 16 rows, 32 columns] has what belongs together, in one slot, 64 bytes a row.
//
// Rows and columns beyond the results' ends are cut off by TMA.
#pragma once
#include <ptx/tma.cuh>

#include "activation.cuh"
#include "hopper.cuh"

namespace hopper {

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

    // Starts to fill the slot `ahead` of the next, as Out wants it; all that was sent has been
    // read.
    template <class Out>
    __device__ __forceinline__ void fetch(uint32_t ahead, const CUtensorMap* from, int x, int y) {
        constexpr int BYTES = Out::MATRICES * 16 * Out::COLUMNS * int(sizeof(bf16));
        if (!leads()) return;
        const uint32_t piece = taken + ahead;
        ptx::bulk_wait_read<0>();
        ptx::mbarrier_arrive_expect_tx(arrived(piece), BYTES);
        if (Out::MATRICES == 1) ptx::tma_load_2d(slot(piece), from, arrived(piece), x, y);
        else ptx::tma_load_3d(slot(piece), from, arrived(piece), x, y, 0);
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

__device__ __forceinline__ float low_bf16(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_bf16(uint32_t pair) {
    return __uint_as_float(pair & 0xffff0000u);
}

// write_strip, and values as rounded: what follows starts from them.
template <int COLUMNS = 64>
__device__ __forceinline__ void write_rounded(unsigned char* slot_smem, int strip,
                                              float (&values)[8]) {
    uint32_t packed[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        packed[i] = pack_bf16(values[2 * i], values[2 * i + 1]);
        values[2 * i] = low_bf16(packed[i]);
        values[2 * i + 1] = high_bf16(packed[i]);
    }
    ptx::stmatrix_x4(strip_address<COLUMNS>(slot_smem, strip), packed);
}

template <int COLUMNS>
__device__ __forceinline__ void read_strip(float (&values)[8], const unsigned char* slot_smem,
                                           int strip) {
    uint32_t packed[4];
    ptx::ldmatrix_x4(packed, strip_address<COLUMNS>(slot_smem, strip));
#pragma unroll
    for (int i = 0; i < 4; i++) {
        values[2 * i] = low_bf16(packed[i]);
        values[2 * i + 1] = high_bf16(packed[i]);
    }
}

// ------------------------------------------------------------------ epilogues
// COLUMNS of a piece, of which EACH takes so many of c's. beside(): what `fetch` brings into the
// slots first, or null, and how many MATRICES that is. For each piece open() gives its slot, or
// two; for each strip of it load(row, column) reads what is needed beside the values, one strip
// ahead, and put() writes the slot; then close() sends it. Some take strips by twos (`APART`).

struct Nothing {};

// Columns of bf16 in a piece of a tile: 128 bytes, or 64 where the tile is not whole pieces of 128.
template <class T>
constexpr int PIECE_COLUMNS = T::N % 64 == 0 ? 64 : 32;

// Two neighbouring elements of a bias, in each of a strip's two halves; packed, as registers are
// few.
struct BiasPairs {
    uint32_t packed[2];
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
            if (at + 1 < columns)
                pairs.packed[j] = *reinterpret_cast<const uint32_t*>(gmem + at);
            else if (at < columns)
                pairs.packed[j] = pack_bf16(__bfloat162float(gmem[at]), 0.0f);
        }
        return pairs;
    }

    __device__ __forceinline__ static void add(float (&values)[8], const BiasPairs& pairs) {
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                values[4 * j + 2 * h] += low_bf16(pairs.packed[j]);
                values[4 * j + 2 * h + 1] += high_bf16(pairs.packed[j]);
            }
    }
};

// y = c + b
template <int COLUMNS_>
struct LinearOut {
    static constexpr int COLUMNS = COLUMNS_, EACH = 1, MATRICES = 1;
    const CUtensorMap* y;
    Bias bias;

    __device__ __forceinline__ const CUtensorMap* beside() const { return nullptr; }
    template <class O>
    __device__ __forceinline__ unsigned char* open(O& outlet) const {
        return outlet.take();
    }
    __device__ __forceinline__ BiasPairs load(int, int column) const {
        return bias.load(column);
    }
    __device__ __forceinline__ void put(unsigned char* slot_smem, int strip, float (&values)[8],
                                        const BiasPairs& pairs) const {
        Bias::add(values, pairs);
        write_strip<COLUMNS>(slot_smem, strip, values);
    }
    template <class O>
    __device__ __forceinline__ void close(O& outlet, const unsigned char* slot_smem, int x, int row,
                                          int) const {
        outlet.send([&] { ptx::tma_store_2d(y, slot_smem, x, row); });
    }
};

// pre = c + b, y = act(pre): two slots a piece.
struct ActivationOut {
    static constexpr int COLUMNS = 64, EACH = 1, MATRICES = 1;
    const CUtensorMap *y, *pre;
    Bias bias;
    int activation;

    __device__ __forceinline__ const CUtensorMap* beside() const { return nullptr; }
    template <class O>
    __device__ __forceinline__ unsigned char* open(O& outlet) const {
        return outlet.template take<2>();
    }
    __device__ __forceinline__ BiasPairs load(int, int column) const {
        return bias.load(column);
    }
    __device__ __forceinline__ void put(unsigned char* slot_smem, int strip, float (&values)[8],
                                        const BiasPairs& pairs) const {
        Bias::add(values, pairs);
        write_rounded(slot_smem, strip, values);
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

// qkv [M, 3 C] = c + b, of which q and k are then turned. A piece is a head. Of what it needs
// beside the values only places come a strip ahead: angles and biases are too many registers.
struct RopeOut {
    static constexpr int COLUMNS = 64, EACH = 1, MATRICES = 1;
    struct Beside {
        Rotation::Places places;
        int column;
    };
    const CUtensorMap* qkv;
    Bias bias;
    Rotation rotation;
    int rows;

    __device__ __forceinline__ const CUtensorMap* beside() const { return nullptr; }
    template <class O>
    __device__ __forceinline__ unsigned char* open(O& outlet) const {
        return outlet.take();
    }
    __device__ __forceinline__ Beside load(int row, int column) const {
        return {rotation.places<64>(row, rows), column};
    }
    __device__ __forceinline__ void put(unsigned char* slot_smem, int strip, float (&low)[8],
                                        float (&high)[8], const Beside& beside) const {
        Bias::add(low, bias.load(beside.column));
        Bias::add(high, bias.load(beside.column + 32));
        if (beside.column < bias.columns / 3 * 2) {
            const Angles<64> angles(rotation, beside.places, strip);
#pragma unroll
            for (int i = 0; i < 8; i++) angles.turn(i, low[i], high[i]);
        }
        write_strip(slot_smem, strip, low);
        write_strip(slot_smem, strip + 2, high);
    }
    template <class O>
    __device__ __forceinline__ void close(O& outlet, const unsigned char* slot_smem, int x, int row,
                                          int) const {
        outlet.send([&] { ptx::tma_store_2d(qkv, slot_smem, x, row); });
    }
};

// dx = or += c
template <int COLUMNS_>
struct GradientOut {
    static constexpr int COLUMNS = COLUMNS_, EACH = 1, MATRICES = 1;
    const CUtensorMap* dx;
    bool add;

    __device__ __forceinline__ const CUtensorMap* beside() const { return add ? dx : nullptr; }
    template <class O>
    __device__ __forceinline__ unsigned char* open(O& outlet) const {
        return add ? outlet.receive() : outlet.take();
    }
    __device__ __forceinline__ Nothing load(int, int) const { return {}; }
    __device__ __forceinline__ void put(unsigned char* slot_smem, int strip, float (&values)[8],
                                        Nothing) const {
        if (add) {
            float before[8];
            read_strip<COLUMNS>(before, slot_smem, strip);
#pragma unroll
            for (int i = 0; i < 8; i++) values[i] = before[i] + values[i];
        }
        write_strip<COLUMNS>(slot_smem, strip, values);
    }
    template <class O>
    __device__ __forceinline__ void close(O& outlet, const unsigned char* slot_smem, int x, int row,
                                          int) const {
        outlet.send([&] { ptx::tma_store_2d(dx, slot_smem, x, row); });
    }
};

// dpre = c ∘ act'(pre)
struct ActivationGradientOut {
    static constexpr int COLUMNS = 64, EACH = 1, MATRICES = 1;
    const CUtensorMap *dpre, *pre;
    int activation;

    __device__ __forceinline__ const CUtensorMap* beside() const { return pre; }
    template <class O>
    __device__ __forceinline__ unsigned char* open(O& outlet) const {
        return outlet.receive();
    }
    __device__ __forceinline__ Nothing load(int, int) const { return {}; }
    __device__ __forceinline__ void put(unsigned char* slot_smem, int strip, float (&values)[8],
                                        Nothing) const {
        uint32_t packed[4];
        ptx::ldmatrix_x4(packed, strip_address(slot_smem, strip));
        with_activation(activation, [&](auto act) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                values[2 * i] *= act(low_bf16(packed[i])).slope;
                values[2 * i + 1] *= act(high_bf16(packed[i])).slope;
                packed[i] = pack_bf16(values[2 * i], values[2 * i + 1]);
            }
        });
        ptx::stmatrix_x4(strip_address(slot_smem, strip), packed);
    }
    template <class O>
    __device__ __forceinline__ void close(O& outlet, const unsigned char* slot_smem, int x, int row,
                                          int) const {
        outlet.send([&] { ptx::tma_store_2d(dpre, slot_smem, x, row); });
    }
};

// Half of a slot, or of two: a piece of 32 columns of bf16.
constexpr int HALF_SLOT = SLOT_BYTES / 2;

// pre [M, 2 F] = c + b, y [M, F] = act(a) ∘ g, with [a, g] a row of pre: two slots a piece.
struct GateOut {
    static constexpr int COLUMNS = 32, EACH = 2, MATRICES = 2;
    struct Biases {
        BiasPairs a, g;
    };
    const CUtensorMap *y, *pre;
    Bias bias;
    int inner, activation;

    __device__ __forceinline__ const CUtensorMap* beside() const { return nullptr; }
    template <class O>
    __device__ __forceinline__ unsigned char* open(O& outlet) const {
        return outlet.template take<2>();
    }
    __device__ __forceinline__ Biases load(int, int column) const {
        return {bias.load(column), bias.load(inner + column)};
    }
    __device__ __forceinline__ void put(unsigned char* slot_smem, int strip, float (&a)[8],
                                        float (&g)[8], const Biases& biases) const {
        Bias::add(a, biases.a);
        Bias::add(g, biases.g);
        write_rounded<COLUMNS>(slot_smem, strip, a);
        write_rounded<COLUMNS>(slot_smem + HALF_SLOT, strip, g);
        with_activation(activation, [&](auto act) {
#pragma unroll
            for (int i = 0; i < 8; i++) g[i] *= act(a[i]).value;
        });
        write_strip<COLUMNS>(slot_smem + SLOT_BYTES, strip, g);
    }
    template <class O>
    __device__ __forceinline__ void close(O& outlet, const unsigned char* slot_smem, int x, int row,
                                          int) const {
        outlet.send([&] {
            ptx::tma_store_3d(pre, slot_smem, x, row, 0);
            ptx::tma_store_2d(y, slot_smem + SLOT_BYTES, x, row);
        });
    }
};

// The gradient of a gate's input, with d = c that of its output: da = d ∘ g ∘ act'(a),
// dg = d ∘ act(a).
struct GateGradientOut {
    static constexpr int COLUMNS = 32, EACH = 1, MATRICES = 2;
    const CUtensorMap *dpre, *pre;
    int activation;

    __device__ __forceinline__ const CUtensorMap* beside() const { return pre; }
    template <class O>
    __device__ __forceinline__ unsigned char* open(O& outlet) const {
        return outlet.receive();
    }
    __device__ __forceinline__ Nothing load(int, int) const { return {}; }
    __device__ __forceinline__ void put(unsigned char* slot_smem, int strip, float (&values)[8],
                                        Nothing) const {
        const uint32_t a_smem = strip_address<COLUMNS>(slot_smem, strip);
        const uint32_t g_smem = a_smem + HALF_SLOT;
        uint32_t a[4], g[4];
        ptx::ldmatrix_x4(a, a_smem);
        ptx::ldmatrix_x4(g, g_smem);
        with_activation(activation, [&](auto act) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const ActivationAt low = act(low_bf16(a[i])), high = act(high_bf16(a[i]));
                const float d[2] = {values[2 * i], values[2 * i + 1]};
                a[i] = pack_bf16(d[0] * low_bf16(g[i]) * low.slope,
                                 d[1] * high_bf16(g[i]) * high.slope);
                g[i] = pack_bf16(d[0] * low.value, d[1] * high.value);
            }
        });
        ptx::stmatrix_x4(a_smem, a);
        ptx::stmatrix_x4(g_smem, g);
    }
    template <class O>
    __device__ __forceinline__ void close(O& outlet, const unsigned char* slot_smem, int x, int row,
                                          int) const {
        outlet.send([&] { ptx::tma_store_3d(dpre, slot_smem, x, row, 0); });
    }
};

// f32: sums [splits, M, N] = c, or sums [1, M, N] += c, by TMA in the L2. Without a split each
// element is added to once, so nothing depends on an order; with one, the order is chance.
struct SumOut {
    static constexpr int COLUMNS = 32, EACH = 1, MATRICES = 1;
    const CUtensorMap* sums;
    bool add;

    __device__ __forceinline__ const CUtensorMap* beside() const { return nullptr; }
    template <class O>
    __device__ __forceinline__ unsigned char* open(O& outlet) const {
        return outlet.take();
    }
    __device__ __forceinline__ Nothing load(int, int) const { return {}; }
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
            if (add) ptx::tma_reduce_add_3d(sums, slot_smem, x, row, 0);
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

// Strips from one that put() takes to the other that it takes with it; 0: it takes one. Of a gate,
// a block's accumulators are those of the first of each pair, then of the second.
template <class T, class Out>
constexpr int APART = Out::EACH == 2 ? T::N / 2 / STRIP : 0;
template <class T>
constexpr int APART<T, RopeOut> = 2;

// Where a warp's piece lies in global memory.
template <class T, class Out>
struct Piece {
    static constexpr int A_BLOCK = T::N / Out::EACH / Out::COLUMNS;
    static constexpr int COUNT = T::BLOCKS * A_BLOCK;
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
        outlet.template fetch<Out>(i, out.beside(), at.x, at.row);
    }
}

// After: piece by piece, strip by strip.
template <class T, class O, class Out>
__device__ __forceinline__ void store_results(const Results<T>& acc, O& outlet, const Out& out,
                                              const Corner& corner) {
    constexpr int IN_BLOCK = T::N / STRIP, ALL = T::BLOCKS * IN_BLOCK, BY_TWOS = APART<T, Out>;
    constexpr int STRIPS = ALL / (BY_TWOS ? 2 : 1) / Piece<T, Out>::COUNT;
    const auto first = [](int number) {
        if constexpr (BY_TWOS) return number + number / BY_TWOS * BY_TWOS;
        else return number;
    };
    const auto load = [&](int number) {
        const int strip = first(number);
        return out.load(corner.row + strip / IN_BLOCK * 64,
                        corner.column + strip % (IN_BLOCK / Out::EACH) * STRIP);
    };
    auto next = load(0);
#pragma unroll 1
    for (int piece = 0; piece < Piece<T, Out>::COUNT; piece++) {
        const Piece<T, Out> at(corner, piece);
        unsigned char* slot_smem = out.open(outlet);
#pragma unroll 1
        for (int strip = 0; strip < STRIPS; strip++) {
            const int number = piece * STRIPS + strip;
            const auto beside = next;
            next = load(number + 1);
            float values[8];
            pick<0, ALL>(values, acc, first(number));
            if constexpr (BY_TWOS) {
                float second[8];
                pick<0, ALL>(second, acc, first(number) + BY_TWOS);
                out.put(slot_smem, strip, values, second, beside);
            } else {
                out.put(slot_smem, strip, values, beside);
            }
        }
        // The slot of the piece before has been read by now, or soon.
        if (out.beside() && piece > 0 && piece - 1 + T::SLOTS < Piece<T, Out>::COUNT) {
            const Piece<T, Out> later(corner, piece - 1 + T::SLOTS);
            outlet.template fetch<Out>(T::SLOTS - 2, out.beside(), later.x, later.row);
        }
        out.close(outlet, slot_smem, at.x, at.row, corner.split);
    }
}

}  // namespace hopper
