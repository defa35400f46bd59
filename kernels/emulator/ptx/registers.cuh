// The emulated twin of ptx/registers.cuh: a fiber has all the registers it wants.
#pragma once
#include <ptx/language.cuh>

namespace ptx {

template <int REGISTERS>
inline void registers_increase() {
    static_assert(REGISTERS % 8 == 0 && REGISTERS >= 24 && REGISTERS <= 256, "8 n in 24..256");
}
template <int REGISTERS>
inline void registers_decrease() {
    static_assert(REGISTERS % 8 == 0 && REGISTERS >= 24 && REGISTERS <= 256, "8 n in 24..256");
}

}  // namespace ptx
