// Barriers and warp collectives under their CUDA names.
#pragma once
#include <type_traits>

#include "calls.h"

inline void __syncthreads(EMU_LOC) { emu::barrier_sync(0, emu::WHOLE_CTA, loc); }
inline void __syncwarp(unsigned mask = 0xffffffffu, EMU_LOC) {
    emu::warp_collective(mask, emu::Collective::Sync, nullptr, [](void**, uint32_t) {}, loc);
}

namespace emu {

// Calls `each` with every lane's argument.
template <class Argument, class Each>
inline void for_lanes(void** arguments, uint32_t mask, Each each) {
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
        int lane = __builtin_ctz(rest);
        each(*static_cast<Argument*>(arguments[lane]), lane);
    }
}

constexpr int OWN = -1;  // a source outside the segment: the lane keeps its own value

template <class T>
struct Shuffle {
    T in, out;
    int source;
    Loc loc;
};

template <class T>
T shuffle(uint32_t mask, T value, int source, Loc loc) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a register or two");
    Shuffle<T> argument{value, value, source, loc};
    warp_collective(mask, Collective::Shuffle, &argument, [](void** all, uint32_t mask) {
        for_lanes<Shuffle<T>>(all, mask, [&](Shuffle<T>& mine, int lane) {
            if (mine.source == OWN) return;
            if (!(mask >> mine.source & 1))
                fail(mine.loc, "shuffle: lane %d reads lane %d, which mask %08x leaves out", lane,
                     mine.source, mask);
            mine.out = static_cast<Shuffle<T>*>(all[mine.source])->in;
        });
    }, loc);
    return argument.out;
}

template <class T>
struct Reduction {
    T value, result;
    T (*combine)(T, T);
};

template <class T>
T reduce(uint32_t mask, T value, Collective kind, T (*combine)(T, T), Loc loc) {
    Reduction<T> argument{value, value, combine};
    warp_collective(mask, kind, &argument, [](void** all, uint32_t mask) {
        auto& first = *static_cast<Reduction<T>*>(all[__builtin_ctz(mask)]);
        T result = first.value;
        for_lanes<Reduction<T>>(all, mask & (mask - 1), [&](Reduction<T>& mine, int) {
            result = first.combine(result, mine.value);
        });
        for_lanes<Reduction<T>>(all, mask, [&](Reduction<T>& mine, int) { mine.result = result; });
    }, loc);
    return argument.result;
}

inline bool same_segment(int a, int b, int width) {
    return (a & ~(width - 1)) == (b & ~(width - 1));
}

}  // namespace emu

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMU_LOC) {
    int lane = emu::place->lane;
    return emu::shuffle(mask, value, (lane & ~(width - 1)) | (source & (width - 1)), loc);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, EMU_LOC) {
    int lane = emu::place->lane, source = lane ^ bits;
    return emu::shuffle(mask, value, emu::same_segment(lane, source, width) ? source : emu::OWN,
                        loc);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, int delta, int width = 32, EMU_LOC) {
    int lane = emu::place->lane, source = lane + delta;
    return emu::shuffle(mask, value, emu::same_segment(lane, source, width) ? source : emu::OWN,
                        loc);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, int delta, int width = 32, EMU_LOC) {
    int lane = emu::place->lane, source = lane - delta;
    return emu::shuffle(mask, value, source >= (lane & ~(width - 1)) ? source : emu::OWN, loc);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, EMU_LOC) {
    unsigned bit = predicate ? 1u << emu::place->lane : 0;
    auto combine = [](unsigned a, unsigned b) { return a | b; };
    return emu::reduce<unsigned>(mask, bit, emu::Collective::Vote, combine, loc);
}
inline int __any_sync(unsigned mask, int predicate, EMU_LOC) {
    return __ballot_sync(mask, predicate, loc) != 0;
}
inline int __all_sync(unsigned mask, int predicate, EMU_LOC) {
    return __ballot_sync(mask, predicate, loc) == mask;
}

#define EMU_REDUCE(NAME, T, EXPRESSION)                                         \
    inline T NAME(unsigned mask, T value, EMU_LOC) {                            \
        auto combine = [](T a, T b) -> T { return EXPRESSION; };                \
        return emu::reduce<T>(mask, value, emu::Collective::Reduce, combine, loc); \
    }
EMU_REDUCE(__reduce_add_sync, unsigned, a + b)
EMU_REDUCE(__reduce_add_sync, int, a + b)
EMU_REDUCE(__reduce_max_sync, unsigned, a > b ? a : b)
EMU_REDUCE(__reduce_max_sync, int, a > b ? a : b)
EMU_REDUCE(__reduce_min_sync, unsigned, a < b ? a : b)
EMU_REDUCE(__reduce_min_sync, int, a < b ? a : b)
EMU_REDUCE(__reduce_or_sync, unsigned, a | b)
EMU_REDUCE(__reduce_and_sync, unsigned, a & b)
#undef EMU_REDUCE

template <class T>
inline unsigned __match_any_sync(unsigned mask, T value, EMU_LOC) {
    struct Match {
        T value;
        unsigned result;
    } match{value, 0};
    emu::warp_collective(mask, emu::Collective::Match, &match, [](void** all, uint32_t mask) {
        emu::for_lanes<Match>(all, mask, [&](Match& mine, int) {
            emu::for_lanes<Match>(all, mask, [&](Match& other, int lane) {
                if (other.value == mine.value) mine.result |= 1u << lane;
            });
        });
    }, loc);
    return match.result;
}

namespace emu {
// A whole-CTA barrier that counts the threads whose predicate holds.
int barrier_count(int predicate, Loc loc);
}  // namespace emu
inline int __syncthreads_count(int p, EMU_LOC) { return emu::barrier_count(p, loc); }
inline int __syncthreads_or(int p, EMU_LOC) { return emu::barrier_count(p, loc) != 0; }
inline int __syncthreads_and(int p, EMU_LOC) { return emu::barrier_count(!p, loc) == 0; }
