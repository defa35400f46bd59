// Kernels by name, tensor maps, and the last error.
#include <algorithm>

#include "runtime.h"

#ifndef EMU_BUILD
#define EMU_BUILD "plain"
#endif

namespace emu {

// A function's static: kernels register before main, in any order of files.
static std::vector<Kernel>& kernels() {
    static std::vector<Kernel> all;
    return all;
}

void add_kernel(const Kernel& kernel) {
    auto& all = kernels();
    auto before = [](const Kernel& a, const Kernel& b) { return strcmp(a.name, b.name) < 0; };
    all.insert(std::lower_bound(all.begin(), all.end(), kernel, before), kernel);
}

const Kernel* find_kernel(const char* name) {
    for (const Kernel& kernel : kernels())
        if (!strcmp(kernel.name, name)) return &kernel;
    return nullptr;
}

static std::string last_error;

void set_error(const std::string& error) { last_error = error; }

extern "C" const char* emu_error(void) { return last_error.c_str(); }
extern "C" const char* emu_build(void) { return EMU_BUILD; }
extern "C" uint32_t emu_kernel_count(void) { return uint32_t(kernels().size()); }

extern "C" const char* emu_kernel_name(uint32_t kernel) {
    return kernel < kernels().size() ? kernels()[kernel].name : nullptr;
}

extern "C" uint32_t emu_kernel_params(uint32_t kernel, const uint32_t** sizes) {
    if (kernel >= kernels().size()) return 0;
    if (sizes) *sizes = kernels()[kernel].sizes;
    return kernels()[kernel].parameters;
}

static std::string wrong_tensor(uint32_t element_bytes, uint32_t rank, const void* base,
                                const uint64_t* dims, const uint64_t* strides, const uint32_t* box,
                                uint32_t swizzle) {
    auto at = [](const char* what, uint32_t i) { return what + std::to_string(i); };
    if (rank < 1 || rank > 5) return "rank " + std::to_string(rank) + " is not 1 to 5";
    if (uintptr_t(base) % 16) return "the base is not 16-byte aligned";
    if (element_bytes != 1 && element_bytes != 2 && element_bytes != 4 && element_bytes != 8)
        return "an element has 1, 2, 4 or 8 bytes";
    if (swizzle && swizzle != 32 && swizzle != 64 && swizzle != 128)
        return "the swizzle is 0, 32, 64 or 128 bytes";
    for (uint32_t i = 0; i < rank; i++) {
        if (!dims[i] || dims[i] > 1ull << 32) return at("bad extent of dimension ", i);
        if (!box[i] || box[i] > 256) return at("the box is not 1 to 256 wide in dimension ", i);
        if (i && (strides[i - 1] % 16 || strides[i - 1] >= 1ull << 40))
            return at("the stride is no multiple of 16 bytes, or too large, in dimension ", i);
    }
    if (box[0] * element_bytes % 16) return "the box's rows are no multiple of 16 bytes";
    if (swizzle && box[0] * element_bytes > swizzle) return "the box's rows exceed the swizzle";
    return "";
}

extern "C" int emu_tensor_map(void* map128, uint32_t element_bytes, uint32_t rank, void* base,
                              const uint64_t* dims, const uint64_t* strides_bytes,
                              const uint32_t* box, uint32_t swizzle_bytes) {
    std::string wrong =
        wrong_tensor(element_bytes, rank, base, dims, strides_bytes, box, swizzle_bytes);
    if (!wrong.empty()) {
        set_error("tensor map: " + wrong);
        return 1;
    }
    TensorMap map{};
    map.magic = TENSOR_MAP_MAGIC;
    map.rank = uint8_t(rank);
    map.element_bytes = uint8_t(element_bytes);
    map.swizzle = uint8_t(swizzle_bytes);
    map.base = static_cast<char*>(base);
    for (uint32_t i = 0; i < rank; i++) {
        map.dims[i] = dims[i];
        map.box[i] = uint16_t(box[i]);
        if (i) map.strides[i - 1] = strides_bytes[i - 1];
    }
    memset(map128, 0, 128);
    memcpy(map128, &map, sizeof map);
    return 0;
}

}  // namespace emu
