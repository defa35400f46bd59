// The callbacks that -fsanitize=thread puts before every access of a kernel. They are the whole of
// that sanitizer's runtime here: libtsan is not linked.
#include "checker.h"

namespace emu {

// A GPU stops at a vector that does not lie on a multiple of its size; a CPU may not notice.
static void misaligned(Checker& k, Fiber* fiber, const void* p, size_t bytes, const void* pc) {
    char address[32];
    snprintf(address, sizeof address, "%p", p);
    find(k, "misaligned access of " + std::to_string(bytes) + " bytes: " +
                site_name(k, site_of(k, pc)),
         std::string("address ") + address + ", " + block_name(*fiber->cta) + " thread " +
             std::to_string(fiber->index));
}

// An access by plain code, which must lie on a multiple of `align`. Most are to the thread's own
// stack and are dropped first.
static inline void access(const void* p, size_t bytes, bool write, const void* pc,
                          size_t align = 1) {
    Worker* w = worker;
    if (!w || !w->checker) return;
    Fiber* fiber = w->current;
    auto address = uintptr_t(p);
    if (address - uintptr_t(fiber->stack) < fiber->stack_bytes) return;
    if (address - uintptr_t(w) < sizeof *w) return;
    Checker& k = *w->checker;
    if (address % align) misaligned(k, fiber, p, bytes, pc);
    size_t offset = address - uintptr_t(w->arena);
    if (offset < w->ctas.size() * SHARED_WINDOW) {
        Cta& cta = w->ctas[offset / SHARED_WINDOW];
        uint32_t own = fiber->gang_index, at = uint32_t(offset % SHARED_WINDOW);
        if (k.races) {
            Access access{Agent(own), k.known_to(own)[own], write, false, false, site_of(k, pc)};
            access_shared(k, own, cta, at, uint32_t(bytes), access);
        }
        if (k.counts) count_access(k.counters, *fiber, {pc, 0}, at, uint32_t(bytes), write, true);
        return;
    }
    if (k.races) access_global(k, fiber, p, uint32_t(bytes), write, false, site_of(k, pc));
    if (k.counts && find_buffer(p))
        count_access(k.counters, *fiber, {pc, 0}, address, uint32_t(bytes), write, false);
}

}  // namespace emu

#define CALLER __builtin_return_address(0)
#define EMU_ACCESS(NAME, BYTES, WRITE, ALIGN) \
    extern "C" void __tsan_##NAME(void* p) { emu::access(p, BYTES, WRITE, CALLER, ALIGN); }
#define EMU_ACCESSES(BYTES)                                \
    EMU_ACCESS(read##BYTES, BYTES, false, BYTES)           \
    EMU_ACCESS(write##BYTES, BYTES, true, BYTES)           \
    EMU_ACCESS(unaligned_read##BYTES, BYTES, false, 1)     \
    EMU_ACCESS(unaligned_write##BYTES, BYTES, true, 1)     \
    EMU_ACCESS(volatile_read##BYTES, BYTES, false, BYTES)  \
    EMU_ACCESS(volatile_write##BYTES, BYTES, true, BYTES)
EMU_ACCESSES(1)
EMU_ACCESSES(2)
EMU_ACCESSES(4)
EMU_ACCESSES(8)
EMU_ACCESSES(16)

extern "C" void __tsan_read_range(void* p, size_t bytes) { emu::access(p, bytes, false, CALLER); }
extern "C" void __tsan_write_range(void* p, size_t bytes) { emu::access(p, bytes, true, CALLER); }

// clang calls these instead of the functions.
extern "C" void* __tsan_memset(void* to, int value, size_t bytes) {
    emu::access(to, bytes, true, CALLER);
    return memset(to, value, bytes);
}
extern "C" void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
    emu::access(from, bytes, false, CALLER);
    emu::access(to, bytes, true, CALLER);
    return memcpy(to, from, bytes);
}
extern "C" void* __tsan_memmove(void* to, const void* from, size_t bytes) {
    emu::access(from, bytes, false, CALLER);
    emu::access(to, bytes, true, CALLER);
    return memmove(to, from, bytes);
}

extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_vptr_update(void**, void*) {}
extern "C" void __tsan_vptr_read(void**) {}
