// The emulated twin of ptx/matrix.cuh.
#pragma once
#include <ptx/language.cuh>

namespace ptx {

inline void ldmatrix_x2(uint32_t (&r)[2], uint32_t row_smem, EMU_LOC) {
    emu::ldmatrix(r, 2, false, row_smem, loc);
}
inline void ldmatrix_x2_trans(uint32_t (&r)[2], uint32_t row_smem, EMU_LOC) {
    emu::ldmatrix(r, 2, true, row_smem, loc);
}
inline void ldmatrix_x4(uint32_t (&r)[4], uint32_t row_smem, EMU_LOC) {
    emu::ldmatrix(r, 4, false, row_smem, loc);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t row_smem, EMU_LOC) {
    emu::ldmatrix(r, 4, true, row_smem, loc);
}
inline void stmatrix_x2(uint32_t row_smem, const uint32_t (&r)[2], EMU_LOC) {
    emu::stmatrix(r, 2, false, row_smem, loc);
}
inline void stmatrix_x4(uint32_t row_smem, const uint32_t (&r)[4], EMU_LOC) {
    emu::stmatrix(r, 4, false, row_smem, loc);
}
inline void stmatrix_x4_trans(uint32_t row_smem, const uint32_t (&r)[4], EMU_LOC) {
    emu::stmatrix(r, 4, true, row_smem, loc);
}
inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, EMU_LOC) {
    const uint32_t b[2] = {b0, b1};
    emu::mma_m16n8k16(d, a, b, loc);
}

}  // namespace ptx
