// The emulated twin of ptx/grid.cuh: one kernel runs at a time, and one that might overlap must have
// waited for the others before it touches device memory.
#pragma once
#include <ptx/language.cuh>

namespace ptx {

inline void griddepcontrol_launch_dependents() {}
inline void griddepcontrol_wait() { emu::earlier_kernels_awaited(); }

}  // namespace ptx
