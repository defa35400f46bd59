// Shared memory: a window of 256 KB for each CTA of the gang, filled with NaN before it runs.
//
// Inside a window: one reserved kilobyte, dynamic memory, then arrays of SHARED_ARRAY, each with a
// gap after it. A window's addresses are the 32-bit shared addresses of the instructions; addresses
// made by `mapa` carry the CTA's rank + 1 above bit 24.
#include <sys/mman.h>

#include "check.h"
#include "runtime.h"
#if EMU_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace emu {

constexpr uint32_t GAP = 64;  // between arrays, so that a small overrun is no other array's
constexpr uint32_t RANK_SHIFT = 24;

static uint32_t dynamic_bytes(const Worker* w) { return w->launch->request->shared_bytes; }

static void reserve_arena(Worker* w, size_t bytes) {
    if (w->arena_bytes >= bytes) return;
    if (w->arena) munmap(w->arena, w->arena_bytes);
    // Aligned to a window, so that swizzles, which act on address bits, act as on the device.
    size_t mapped = bytes + SHARED_WINDOW;
    auto* memory = static_cast<unsigned char*>(mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory == MAP_FAILED) {
        perror("emulator: no memory for shared memory");
        abort();
    }
    uintptr_t aligned = (uintptr_t(memory) + SHARED_WINDOW - 1) & ~uintptr_t(SHARED_WINDOW - 1);
    size_t before = aligned - uintptr_t(memory);
    if (before) munmap(memory, before);
    if (before < SHARED_WINDOW) munmap(memory + before + bytes, SHARED_WINDOW - before);
    w->arena = reinterpret_cast<unsigned char*>(aligned);
    w->arena_bytes = bytes;
}

void reset_shared(Worker* w) {
    reserve_arena(w, w->ctas.size() * SHARED_WINDOW);
    // Keep the launch's arrays where its first gang had them.
    for (size_t i = 0; i < w->ctas.size(); i++) {
        unsigned char* window = w->arena + i * SHARED_WINDOW;
        w->ctas[i].shared = window;
        uint32_t end = SHARED_BASE + dynamic_bytes(w);
#if EMU_ASAN
        __asan_unpoison_memory_region(window, SHARED_WINDOW);
#endif
        memset(window + SHARED_BASE, POISON, end - SHARED_BASE);
        for (auto& array : w->statics) memset(window + array.address, POISON, array.bytes);
#if EMU_ASAN
        __asan_poison_memory_region(window, SHARED_BASE);
        __asan_poison_memory_region(window + end, SHARED_WINDOW - end);
        for (auto& array : w->statics)
            __asan_unpoison_memory_region(window + array.address, array.bytes);
#endif
    }
}

void* dynamic_shared() { return worker->current->cta->shared + SHARED_BASE; }

void* static_shared(const void* key, size_t bytes, size_t align) {
    Worker* w = worker;
    unsigned char* window = w->current->cta->shared;
    for (auto& array : w->statics)
        if (array.key == key) return window + array.address;
    if (align < 16) align = 16;
    if (w->statics.empty()) w->static_end = SHARED_BASE + ((dynamic_bytes(w) + 255) & ~255u) + GAP;
    size_t address = (w->static_end + align - 1) & ~(align - 1);
    size_t total = bytes;
    for (auto& array : w->statics) total += array.bytes;
    if (total > STATIC_LIMIT || total + dynamic_bytes(w) > SHARED_LIMIT)
        fail({"SHARED_ARRAY", 0}, "%zu bytes of shared arrays beside %u dynamic bytes: there are "
             "%u for arrays, %u in all", total, dynamic_bytes(w), STATIC_LIMIT, SHARED_LIMIT);
    w->statics.push_back({key, uint32_t(address), uint32_t(bytes)});
    w->static_end = uint32_t(address + bytes + GAP);
    for (auto& cta : w->ctas) {
#if EMU_ASAN
        __asan_unpoison_memory_region(cta.shared + address, bytes);
#endif
        memset(cta.shared + address, POISON, bytes);
    }
    return window + address;
}

uint32_t shared_address(const void* pointer) {
    auto* window = worker->current->cta->shared;
    auto offset = static_cast<const unsigned char*>(pointer) - window;
    if (offset < 0 || offset >= ptrdiff_t(SHARED_WINDOW))
        fail({"shared_address", 0}, "%p is not in this block's shared memory", pointer);
    return uint32_t(offset);
}

unsigned char* shared_pointer(Cta* cta, uint32_t address) { return cta->shared + address; }

void check_shared(Cta* cta, uint32_t address, uint32_t bytes, Loc loc, const char* what) {
    Worker* w = worker;
    uint64_t end = uint64_t(address) + bytes, dynamic_end = SHARED_BASE + dynamic_bytes(w);
    if (address >= SHARED_BASE && end <= dynamic_end) return;
    for (auto& array : w->statics)
        if (address >= array.address && end <= array.address + array.bytes) return;
    (void)cta;
    fail(loc, "%s touches shared [0x%x, 0x%llx), outside this launch's %u dynamic bytes (from "
         "0x%x) and its arrays", what, address, (unsigned long long)end, dynamic_bytes(w),
         SHARED_BASE);
}

uint32_t cluster_address(uint32_t address, uint32_t rank, Loc loc) {
    Cta* cta = worker->current->cta;
    uint32_t ctas = worker->launch->cluster_size;
    if (rank >= ctas) fail(loc, "mapa: rank %u of a cluster of %u blocks", rank, ctas);
    (void)cta;
    return (address & (SHARED_WINDOW - 1)) | (rank + 1) << RANK_SHIFT;
}

std::pair<Cta*, uint32_t> resolve(uint32_t address, Loc loc, const char* what) {
    Cta* own = worker->current->cta;
    uint32_t rank = address >> RANK_SHIFT, offset = address & ((1u << RANK_SHIFT) - 1);
    if (!rank) return {own, offset};
    if (rank > worker->launch->cluster_size || offset >= SHARED_WINDOW)
        fail(loc, "%s: 0x%x is no shared address of this cluster", what, address);
    Cta* cta = own->cluster_ctas + rank - 1;
    if (cta != own && !cta->live)
        fail(loc, "%s: the block of rank %u has exited, and its shared memory with it", what,
             rank - 1);
    return {cta, offset};
}

static unsigned char* remote(uint32_t address, uint32_t bytes, bool write, Loc loc) {
    const char* what = write ? "st.shared::cluster" : "ld.shared::cluster";
    auto [cta, offset] = resolve(address, loc, what);
    if (offset % bytes) fail(loc, "%s of %u bytes at 0x%x is misaligned", what, bytes, offset);
    check_shared(cta, offset, bytes, loc, what);
    Worker* w = worker;
    if (w->checker) check_thread_access(w, w->current, cta, offset, bytes, write, loc);
    return shared_pointer(cta, offset);
}

void load_remote(void* value, uint32_t address, uint32_t bytes, Loc loc) {
    memcpy(value, remote(address, bytes, false, loc), bytes);
}

void store_remote(uint32_t address, const void* value, uint32_t bytes, Loc loc) {
    memcpy(remote(address, bytes, true, loc), value, bytes);
}

}  // namespace emu
