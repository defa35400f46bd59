// Device memory: 256-byte aligned, NaN all over, in a list that the checks look addresses up in.
//
// Each buffer lies between margins that belong to nobody, so that a small overrun hits no other
// buffer and is recognised by the address alone.
#include <algorithm>
#include <cstdlib>

#include "runtime.h"
#if EMU_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace emu {

constexpr size_t MARGIN = 4096;

static std::vector<Buffer> buffers;  // by address
static std::mutex buffers_mutex;

const Buffer* find_buffer(const void* p) {
    auto address = uintptr_t(p);
    auto after = std::upper_bound(
        buffers.begin(), buffers.end(), address,
        [](uintptr_t a, const Buffer& b) { return a < b.begin - MARGIN; });
    if (after == buffers.begin()) return nullptr;
    const Buffer& buffer = *(after - 1);
    return address < buffer.end + MARGIN ? &buffer : nullptr;
}

static size_t padded(size_t bytes) { return (bytes + 255) / 256 * 256; }

extern "C" void* emu_alloc(size_t bytes, const char* label) {
    auto* memory = static_cast<unsigned char*>(
        aligned_alloc(MARGIN, (2 * MARGIN + padded(bytes) + MARGIN - 1) / MARGIN * MARGIN));
    if (!memory) {
        set_error("emulator: out of host memory for " + std::to_string(bytes) + " bytes");
        return nullptr;
    }
    unsigned char* begin = memory + MARGIN;
    memset(begin, POISON, bytes);
#if EMU_ASAN
    __asan_poison_memory_region(memory, MARGIN);
    __asan_poison_memory_region(begin + bytes, padded(bytes) - bytes + MARGIN);
#endif
    std::lock_guard<std::mutex> lock(buffers_mutex);
    Buffer buffer{uintptr_t(begin), uintptr_t(begin) + bytes, label ? label : "unnamed"};
    auto at = std::upper_bound(buffers.begin(), buffers.end(), buffer.begin,
                               [](uintptr_t a, const Buffer& b) { return a < b.begin; });
    buffers.insert(at, buffer);
    return begin;
}

extern "C" void emu_free(void* begin) {
    if (!begin) return;
    std::lock_guard<std::mutex> lock(buffers_mutex);
    for (size_t i = 0; i < buffers.size(); i++) {
        if (buffers[i].begin != uintptr_t(begin)) continue;
        unsigned char* memory = static_cast<unsigned char*>(begin) - MARGIN;
#if EMU_ASAN
        size_t bytes = buffers[i].end - buffers[i].begin;
        __asan_unpoison_memory_region(memory, 2 * MARGIN + padded(bytes));
#endif
        buffers.erase(buffers.begin() + ptrdiff_t(i));
        free(memory);
        return;
    }
    set_error("emulator: free of memory that emu_alloc did not give");
}

}  // namespace emu
