// NVIDIA's management library as far as `src/bench/nvml.rs` asks it: one GPU, at 3B:00.0, that
// does not tell its power limit.

#include <cstring>

#define API extern "C" __attribute__((visibility("default"))) int

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6 };

static int gpu;

static int tell(void* device, unsigned* out, unsigned value) {
    if (device != &gpu) return INVALID_ARGUMENT;
    return *out = value, SUCCESS;
}

API nvmlInit_v2() { return SUCCESS; }
API nvmlShutdown() { return SUCCESS; }
API nvmlDeviceGetHandleByPciBusId_v2(const char* place, void** device) {
    if (strcmp(place, "00000000:3B:00.0")) return NOT_FOUND;
    return *device = &gpu, SUCCESS;
}
API nvmlDeviceGetClockInfo(void* device, unsigned kind, unsigned* mhz) {
    return kind == 1 ? tell(device, mhz, 1980) : INVALID_ARGUMENT;
}
API nvmlDeviceGetTemperature(void* device, unsigned sensor, unsigned* degrees) {
    return sensor == 0 ? tell(device, degrees, 71) : INVALID_ARGUMENT;
}
API nvmlDeviceGetPowerUsage(void* device, unsigned* milliwatts) {
    return tell(device, milliwatts, 699500);
}
API nvmlDeviceGetEnforcedPowerLimit(void*, unsigned*) { return NOT_SUPPORTED; }
API nvmlDeviceGetTotalEnergyConsumption(void* device, unsigned long long* millijoules) {
    if (device != &gpu) return INVALID_ARGUMENT;
    return *millijoules = 5000000123456, SUCCESS;
}
API nvmlDeviceGetCurrentClocksThrottleReasons(void* device, unsigned long long* reasons) {
    if (device != &gpu) return INVALID_ARGUMENT;
    return *reasons = 0x5, SUCCESS;
}
