// The emulated twin of ptx/cluster.cuh.
#pragma once
#include <ptx/language.cuh>

namespace ptx {

inline uint32_t cluster_rank() { return emu::place->cluster_rank; }
inline uint32_t cluster_size() {
    return emu::place->cluster_dim.x * emu::place->cluster_dim.y * emu::place->cluster_dim.z;
}
inline void cluster_arrive(EMU_LOC) { emu::cluster_arrive(loc); }
inline void cluster_wait(EMU_LOC) { emu::cluster_wait(loc); }

inline uint32_t map_address(const void* own_smem, uint32_t rank, EMU_LOC) {
    return emu::cluster_address(shared_address(own_smem), rank, loc);
}
inline float load_remote_f32(uint32_t address, EMU_LOC) {
    float value;
    emu::load_remote(&value, address, 4, loc);
    return value;
}
inline uint4 load_remote_16(uint32_t address, EMU_LOC) {
    uint4 value;
    emu::load_remote(&value, address, 16, loc);
    return value;
}
inline void store_remote_f32(uint32_t address, float value, EMU_LOC) {
    emu::store_remote(address, &value, 4, loc);
}
inline void store_remote_16(uint32_t address, const uint4& value, EMU_LOC) {
    emu::store_remote(address, &value, 16, loc);
}
inline void mbarrier_arrive_remote(uint32_t bar_address, EMU_LOC) {
    emu::mbarrier_arrive(bar_address, 1, loc);
}
inline void mbarrier_arrive_remote_read(uint32_t bar_address, EMU_LOC) {
    emu::mbarrier_arrive(bar_address, 1, loc);
}

}  // namespace ptx
