// The emulated twin of ptx/tma.cuh.
#pragma once
#include <ptx/barrier.cuh>

namespace ptx {

inline void tma_prefetch(const CUtensorMap* map, EMU_LOC) { emu::tma_prefetch(map, loc); }

// ------------------------------------------------------------------ tiles in
inline void tma_load_2d(void* dst_smem, const CUtensorMap* map, uint64_t* bar_smem, int x, int y,
                        EMU_LOC) {
    const int at[] = {x, y};
    emu::tma_load(shared_address(dst_smem), map, shared_address(bar_smem), at, 2, 0, loc);
}
inline void tma_load_3d(void* dst_smem, const CUtensorMap* map, uint64_t* bar_smem, int x, int y,
                        int z, EMU_LOC) {
    const int at[] = {x, y, z};
    emu::tma_load(shared_address(dst_smem), map, shared_address(bar_smem), at, 3, 0, loc);
}
inline void tma_load_4d(void* dst_smem, const CUtensorMap* map, uint64_t* bar_smem, int x, int y,
                        int z, int w, EMU_LOC) {
    const int at[] = {x, y, z, w};
    emu::tma_load(shared_address(dst_smem), map, shared_address(bar_smem), at, 4, 0, loc);
}

// To the same places in all CTAs of the mask.
inline void tma_load_2d_multicast(void* dst_smem, const CUtensorMap* map, uint64_t* bar_smem,
                                  uint16_t ctas, int x, int y, EMU_LOC) {
    const int at[] = {x, y};
    emu::tma_load(shared_address(dst_smem), map, shared_address(bar_smem), at, 2, ctas, loc);
}
inline void tma_load_3d_multicast(void* dst_smem, const CUtensorMap* map, uint64_t* bar_smem,
                                  uint16_t ctas, int x, int y, int z, EMU_LOC) {
    const int at[] = {x, y, z};
    emu::tma_load(shared_address(dst_smem), map, shared_address(bar_smem), at, 3, ctas, loc);
}
inline void tma_load_4d_multicast(void* dst_smem, const CUtensorMap* map, uint64_t* bar_smem,
                                  uint16_t ctas, int x, int y, int z, int w, EMU_LOC) {
    const int at[] = {x, y, z, w};
    emu::tma_load(shared_address(dst_smem), map, shared_address(bar_smem), at, 4, ctas, loc);
}

// ------------------------------------------------------------------ tiles out
inline void tma_store_2d(const CUtensorMap* map, const void* src_smem, int x, int y, EMU_LOC) {
    const int at[] = {x, y};
    emu::tma_store(map, shared_address(src_smem), at, 2, false, loc);
}
inline void tma_store_3d(const CUtensorMap* map, const void* src_smem, int x, int y, int z,
                         EMU_LOC) {
    const int at[] = {x, y, z};
    emu::tma_store(map, shared_address(src_smem), at, 3, false, loc);
}
inline void tma_store_4d(const CUtensorMap* map, const void* src_smem, int x, int y, int z,
                         int w, EMU_LOC) {
    const int at[] = {x, y, z, w};
    emu::tma_store(map, shared_address(src_smem), at, 4, false, loc);
}
inline void tma_reduce_add_2d(const CUtensorMap* map, const void* src_smem, int x, int y, EMU_LOC) {
    const int at[] = {x, y};
    emu::tma_store(map, shared_address(src_smem), at, 2, true, loc);
}
inline void tma_reduce_add_3d(const CUtensorMap* map, const void* src_smem, int x, int y, int z,
                              EMU_LOC) {
    const int at[] = {x, y, z};
    emu::tma_store(map, shared_address(src_smem), at, 3, true, loc);
}
inline void tma_reduce_add_4d(const CUtensorMap* map, const void* src_smem, int x, int y, int z,
                              int w, EMU_LOC) {
    const int at[] = {x, y, z, w};
    emu::tma_store(map, shared_address(src_smem), at, 4, true, loc);
}

// ------------------------------------------------------------------ runs of bytes

inline void bulk_load(void* dst_smem, const void* src_gmem, uint32_t bytes, uint64_t* bar_smem,
                      EMU_LOC) {
    emu::bulk_load(shared_address(dst_smem), src_gmem, bytes, shared_address(bar_smem), 0, loc);
}
inline void bulk_store(void* dst_gmem, const void* src_smem, uint32_t bytes, EMU_LOC) {
    emu::bulk_store(dst_gmem, shared_address(src_smem), bytes, false, loc);
}
inline void bulk_reduce_add_f32(float* dst_gmem, const float* src_smem, uint32_t bytes, EMU_LOC) {
    emu::bulk_store(dst_gmem, shared_address(src_smem), bytes, true, loc);
}
inline void bulk_commit() { emu::bulk_commit(); }
template <int PENDING>
inline void bulk_wait(EMU_LOC) {
    emu::bulk_wait(PENDING, false, loc);
}
template <int PENDING>
inline void bulk_wait_read(EMU_LOC) {
    emu::bulk_wait(PENDING, true, loc);
}

}  // namespace ptx
