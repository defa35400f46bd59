// The emulated twin of ptx/copy.cuh.
#pragma once
#include <ptx/language.cuh>

namespace ptx {

inline void cp_async16(void* dst_smem, const void* src_gmem, uint32_t src_bytes = 16, EMU_LOC) {
    emu::cp_async(dst_smem, src_gmem, 16, src_bytes, loc);
}
inline void cp_async_commit() { emu::cp_async_commit(); }
template <int PENDING>
inline void cp_async_wait() {
    emu::cp_async_wait(PENDING);
}

inline uint4 load16_streaming(const void* src_gmem) {
    return *static_cast<const uint4*>(src_gmem);
}
inline uint4 load16_no_allocate(const void* src_gmem) {
    return *static_cast<const uint4*>(src_gmem);
}
inline void store16_streaming(void* dst_gmem, const uint4& value) {
    *static_cast<uint4*>(dst_gmem) = value;
}

}  // namespace ptx
