// The emulated twin of ptx/math.cuh: exact where the device approximates.
#pragma once
#include <ptx/language.cuh>

namespace ptx {

inline float exp2_approx(float x) { return exp2f(x); }
inline float rcp_approx(float x) { return 1.0f / x; }
inline float tanh_approx(float x) { return tanhf(x); }

}  // namespace ptx
