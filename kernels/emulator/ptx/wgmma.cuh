// The emulated twin of ptx/wgmma.cuh.
#pragma once
#include <ptx/descriptor.cuh>

namespace ptx {

inline void wgmma_fence(EMU_LOC) { emu::wgmma_fence(loc); }
inline void wgmma_commit(EMU_LOC) { emu::wgmma_commit(loc); }

template <int PENDING, int R>
inline void wgmma_wait(float (&)[R], EMU_LOC) {
    emu::wgmma_wait(PENDING, loc);
}

template <int PENDING>
inline void wgmma_wait(EMU_LOC) {
    emu::wgmma_wait(PENDING, loc);
}

template <int N, int TRANS_A = 0, int TRANS_B = 0>
inline void wgmma_m64k16(float (&d)[N / 2], uint64_t a_desc, uint64_t b_desc, int accumulate,
                         EMU_LOC) {
    static_assert(N == 64 || N == 96 || N == 128 || N == 160 || N == 192 || N == 256, "as in ptx/");
    emu::wgmma(d, {N, accumulate != 0, TRANS_A != 0, TRANS_B != 0}, nullptr, a_desc, b_desc, loc);
}

template <int N, int TRANS_B = 0>
inline void wgmma_m64k16_rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b_desc,
                            int accumulate, EMU_LOC) {
    static_assert(N == 64 || N == 96 || N == 128 || N == 160 || N == 192 || N == 256, "as in ptx/");
    emu::wgmma(d, {N, accumulate != 0, false, TRANS_B != 0}, a, 0, b_desc, loc);
}

}  // namespace ptx
