// Atomics under their CUDA names: relaxed, device scope, on global or shared memory.
#pragma once
#include <type_traits>

#include "intrinsics.h"

namespace emu {
template <class T>
inline T rmw(T* p, Rmw op, T operand, T compare, Loc loc) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a word or two");
    using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
    uint64_t old = atomic(p, sizeof(T), op, bit_cast<Bits>(operand), bit_cast<Bits>(compare),
                          Order::Relaxed, loc);
    return bit_cast<T>(Bits(old));
}
}  // namespace emu

template <class T>
inline T atomicAdd(T* p, T value, EMU_LOC) {
    auto op = std::is_integral_v<T> ? emu::Rmw::Add : emu::Rmw::AddFloat;
    return emu::rmw(p, op, value, T(), loc);
}
template <class T>
inline T atomicSub(T* p, T value, EMU_LOC) {
    static_assert(std::is_integral_v<T>, "integers only");
    return emu::rmw(p, emu::Rmw::Add, T(0 - value), T(), loc);
}
template <class T>
inline T atomicMax(T* p, T value, EMU_LOC) {
    static_assert(std::is_integral_v<T>, "integers only");
    auto op = std::is_signed_v<T> ? emu::Rmw::MaxSigned : emu::Rmw::Max;
    return emu::rmw(p, op, value, T(), loc);
}
template <class T>
inline T atomicMin(T* p, T value, EMU_LOC) {
    static_assert(std::is_integral_v<T>, "integers only");
    auto op = std::is_signed_v<T> ? emu::Rmw::MinSigned : emu::Rmw::Min;
    return emu::rmw(p, op, value, T(), loc);
}
template <class T>
inline T atomicExch(T* p, T value, EMU_LOC) {
    return emu::rmw(p, emu::Rmw::Exchange, value, T(), loc);
}
template <class T>
inline T atomicCAS(T* p, T compare, T value, EMU_LOC) {
    static_assert(std::is_integral_v<T>, "integers only");
    return emu::rmw(p, emu::Rmw::Compare, value, compare, loc);
}
template <class T>
inline T atomicAnd(T* p, T value, EMU_LOC) {
    return emu::rmw(p, emu::Rmw::And, value, T(), loc);
}
template <class T>
inline T atomicOr(T* p, T value, EMU_LOC) {
    return emu::rmw(p, emu::Rmw::Or, value, T(), loc);
}

inline void __threadfence(EMU_LOC) { emu::fence(loc); }
inline void __threadfence_block(EMU_LOC) { emu::fence(loc); }
inline void __threadfence_system(EMU_LOC) { emu::fence(loc); }
