// What the emulator's tests share: launches, buffers, and how a test fails.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <type_traits>
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

// ---- Golden vectors: what a GPU left in each small buffer that a launch changed, in order. They are
// recorded there and replayed on the emulator, where only rounding may differ.
struct Buffer {
    const void* data;
    size_t bytes;
    bool floats;
};
inline std::vector<Buffer> buffers;  // those that live now
inline FILE* golden = nullptr;
inline bool recording = false;
inline double tolerance = 0;  // relative, of floats

// Allows a difference while it lives.
struct Tolerance {
    explicit Tolerance(double relative) { tolerance = relative; }
    ~Tolerance() { tolerance = 0; }
};

inline void record_or_compare(const char* kernel, const Buffer& buffer) {
    std::string head = std::string(kernel) + " " + std::to_string(buffer.bytes) + "\n";
    if (recording) {
        fwrite(head.data(), 1, head.size(), golden);
        fwrite(buffer.data, 1, buffer.bytes, golden);
        return;
    }
    char line[128] = "";
    std::vector<char> kept(buffer.bytes);
    bool there = fgets(line, sizeof line, golden) && head == line &&
                 fread(kept.data(), 1, kept.size(), golden) == kept.size();
    bool same = there && !memcmp(kept.data(), buffer.data, kept.size());
    if (there && !same && buffer.floats) {
        same = true;
        for (size_t i = 0; i < kept.size() / 4; i++) {
            float a = reinterpret_cast<const float*>(kept.data())[i];
            float b = static_cast<const float*>(buffer.data)[i];
            same &= std::abs(a - b) <= tolerance * (1 + std::abs(a));
        }
    }
    expect(same, std::string(kernel) + (there ? ": not what a GPU gave"
                                              : ": the golden vectors are of other launches"));
}

// A device buffer that a test can read and write as an array.
template <class T>
struct Device {
    T* data;
    size_t size;
    explicit Device(size_t size, const char* label = "buffer")
        : data(static_cast<T*>(emu_alloc(size * sizeof(T), label))), size(size) {
        buffers.push_back({data, size * sizeof(T), std::is_same<T, float>::value});
    }
    Device(const std::vector<T>& values, const char* label = "buffer")
        : Device(values.size(), label) {
        for (size_t i = 0; i < size; i++) data[i] = values[i];
    }
    ~Device() {
        auto own = [&](const Buffer& buffer) { return buffer.data == data; };
        buffers.erase(std::find_if(buffers.begin(), buffers.end(), own));
        emu_free(data);
    }
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
    bool overlaps = false;
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
                      o.cooperative,
                      o.overlaps};
    return emu_launch(&request, pointers) ? emu_error() : "";
}

// Launches and expects it to go well, and as it went on a GPU.
template <class... A>
bool run(const char* kernel, const Options& options, A... arguments) {
    constexpr size_t SMALL = 8192;
    std::vector<std::string> before;
    for (const Buffer& b : buffers)
        before.emplace_back(static_cast<const char*>(b.data), b.bytes);
    std::string error = launch(kernel, options, arguments...);
    expect(error.empty(), std::string(kernel) + "\n" + error);
    if (!error.empty()) return false;
    for (size_t i = 0; golden && i < buffers.size(); i++)
        if (buffers[i].bytes <= SMALL && memcmp(before[i].data(), buffers[i].data, before[i].size()))
            record_or_compare(kernel, buffers[i]);
    return true;
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

// Between -2 and 2, the same on any compiler: the standard fixes the generator, and all is exact.
inline std::vector<float> random_floats(size_t size, uint32_t seed) {
    std::mt19937 generator(seed);
    std::vector<float> values(size);
    for (auto& value : values) value = float(int32_t(generator()) / 256) / float(1 << 22);
    return values;
}

inline std::vector<bf16> random_bf16(size_t size, uint32_t seed) {
    std::vector<bf16> values(size);
    std::vector<float> exact = random_floats(size, seed);
    std::transform(exact.begin(), exact.end(), values.begin(), __float2bfloat16_rn);
    return values;
}
