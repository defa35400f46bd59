// The emulated twin of ptx/barrier.cuh.
#pragma once
#include <ptx/language.cuh>

namespace ptx {

inline void named_barrier_sync(int id, int threads, EMU_LOC) {
    emu::barrier_sync(id, threads, loc);
}
inline void named_barrier_arrive(int id, int threads, EMU_LOC) {
    emu::barrier_arrive(id, threads, loc);
}

inline void mbarrier_init(uint64_t* bar_smem, uint32_t arrivals, EMU_LOC) {
    emu::mbarrier_init(shared_address(bar_smem), arrivals, loc);
}
inline void mbarrier_invalidate(uint64_t* bar_smem, EMU_LOC) {
    emu::mbarrier_invalidate(shared_address(bar_smem), loc);
}
inline void mbarrier_arrive(uint64_t* bar_smem, EMU_LOC) {
    emu::mbarrier_arrive(shared_address(bar_smem), 1, loc);
}
inline void mbarrier_expect_tx(uint64_t* bar_smem, uint32_t bytes, EMU_LOC) {
    emu::mbarrier_expect_tx(shared_address(bar_smem), bytes, loc);
}
inline void mbarrier_arrive_expect_tx(uint64_t* bar_smem, uint32_t bytes, EMU_LOC) {
    emu::mbarrier_expect_tx(shared_address(bar_smem), bytes, loc);
    emu::mbarrier_arrive(shared_address(bar_smem), 1, loc);
}
inline bool mbarrier_try_wait(uint64_t* bar_smem, uint32_t parity, EMU_LOC) {
    return emu::mbarrier_try_wait(shared_address(bar_smem), parity, loc);
}
inline void mbarrier_wait(uint64_t* bar_smem, uint32_t parity, EMU_LOC) {
    emu::mbarrier_wait(shared_address(bar_smem), parity, loc);
}

inline void fence_mbarrier_init(EMU_LOC) { emu::fence_mbarrier_init(loc); }
inline void fence_proxy_async(EMU_LOC) { emu::fence_proxy_async(loc); }
inline void fence_proxy_async_global(EMU_LOC) { emu::fence_proxy_async(loc); }

}  // namespace ptx
