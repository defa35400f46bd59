// The emulated twin of ptx/memory.cuh.
#pragma once
#include <ptx/language.cuh>

namespace ptx {

inline uint32_t load_relaxed(const uint32_t* p_gmem, EMU_LOC) {
    return uint32_t(emu::load_atomic(p_gmem, 4, emu::Order::Relaxed, loc));
}
inline uint32_t load_acquire(const uint32_t* p_gmem, EMU_LOC) {
    return uint32_t(emu::load_atomic(p_gmem, 4, emu::Order::Acquire, loc));
}
inline void store_release(uint32_t* p_gmem, uint32_t value, EMU_LOC) {
    emu::store_atomic(p_gmem, 4, value, emu::Order::Release, loc);
}
inline void red_add_release(uint32_t* p_gmem, uint32_t value, EMU_LOC) {
    emu::atomic(p_gmem, 4, emu::Rmw::Add, value, 0, emu::Order::Release, loc);
}
inline uint32_t atom_add_acq_rel(uint32_t* p_gmem, uint32_t value, EMU_LOC) {
    return uint32_t(
        emu::atomic(p_gmem, 4, emu::Rmw::Add, value, 0, emu::Order::AcquireRelease, loc));
}
inline uint32_t atom_cas_acquire(uint32_t* p_gmem, uint32_t compare, uint32_t value, EMU_LOC) {
    return uint32_t(
        emu::atomic(p_gmem, 4, emu::Rmw::Compare, value, compare, emu::Order::Acquire, loc));
}
inline void fence_acq_rel_gpu(EMU_LOC) { emu::fence(loc); }
inline void nanosleep(uint32_t, EMU_LOC) { emu::yield(loc); }

}  // namespace ptx
