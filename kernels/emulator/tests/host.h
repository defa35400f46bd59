// What the emulator's tests share: launches, buffers, and how a test fails.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "../api.h"
#include "../bfloat16.h"

using bf16 = __nv_bfloat16;

inline int failures = 0;

inline void expect(bool condition, const std::string& what) {
    if (condition) return;
    failures++;
    printf("FAILED %s\n", what.c_str());
}

// A device buffer that a test can read and write as an array.
template <class T>
struct Device {
    T* data;
    size_t size;
    explicit Device(size_t size, const char* label = "buffer")
        : data(static_cast<T*>(emu_alloc(size * sizeof(T), label))), size(size) {}
    Device(const std::vector<T>& values, const char* label = "buffer")
        : Device(values.size(), label) {
        for (size_t i = 0; i < size; i++) data[i] = values[i];
    }
    ~Device() { emu_free(data); }
    Device(const Device&) = delete;
    T& operator[](size_t i) { return data[i]; }
};

struct Dim {
    uint32_t x = 1, y = 1, z = 1;
};

struct Options {
    Dim grid{}, block{}, cluster{};
    uint32_t shared = 0;
    bool cooperative = false;
};

// Arguments by value, as the kernel declares them. Empty, or what went wrong.
template <class... A>
std::string launch(const char* kernel, const Options& o, A... arguments) {
    void* pointers[] = {static_cast<void*>(&arguments)..., nullptr};
    EmuLaunch request{kernel,
                      {o.grid.x, o.grid.y, o.grid.z},
                      {o.block.x, o.block.y, o.block.z},
                      {o.cluster.x, o.cluster.y, o.cluster.z},
                      o.shared,
                      o.cooperative};
    return emu_launch(&request, pointers) ? emu_error() : "";
}

// Launches and expects it to go well.
template <class... A>
bool run(const char* kernel, const Options& options, A... arguments) {
    std::string error = launch(kernel, options, arguments...);
    expect(error.empty(), std::string(kernel) + "\n" + error);
    return error.empty();
}

struct alignas(128) Map {
    unsigned char bytes[128];
};

inline Map tensor_map(uint32_t element_bytes, void* base, std::vector<uint64_t> dims,
                      std::vector<uint32_t> box, uint32_t swizzle) {
    Map map;
    std::vector<uint64_t> strides;
    uint64_t stride = element_bytes;
    for (size_t i = 0; i + 1 < dims.size(); i++) strides.push_back(stride *= dims[i]);
    int wrong = emu_tensor_map(&map, element_bytes, uint32_t(dims.size()), base, dims.data(),
                               strides.data(), box.data(), swizzle);
    expect(!wrong, std::string("tensor map: ") + (wrong ? emu_error() : ""));
    return map;
}

inline std::vector<bf16> random_bf16(size_t size, uint32_t seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    std::vector<bf16> values(size);
    for (auto& value : values) value = __float2bfloat16_rn(normal(generator));
    return values;
}

inline std::vector<float> random_floats(size_t size, uint32_t seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(size);
    for (auto& value : values) value = normal(generator);
    return values;
}
