// cp.async: copies of a thread's own, in groups. In lazy mode a copy poisons its destination and
// happens when its group is waited for.
#include "check.h"
#include "runtime.h"

namespace emu {

static void copy_now(const CpAsync& copy) {
    memcpy(copy.shared, copy.global, copy.source_bytes);
    memset(copy.shared + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
}

void cp_async(void* shared, const void* global, uint32_t bytes, uint32_t source_bytes, Loc loc) {
    Worker* w = worker;
    Fiber* fiber = w->current;
    uint32_t address = shared_address(shared);
    check_shared(fiber->cta, address, bytes, loc, "cp.async");
    if (source_bytes > bytes) fail(loc, "cp.async of %u bytes reads %u", bytes, source_bytes);
    if (address % bytes || (source_bytes && uintptr_t(global) % bytes))
        fail(loc, "cp.async of %u bytes: shared 0x%x or global %p is misaligned", bytes, address,
             global);
    if (w->checker) check_cp_async(w, fiber, address, bytes, global, source_bytes, loc);
    CpAsync copy{static_cast<unsigned char*>(shared), static_cast<const unsigned char*>(global),
                 bytes, source_bytes};
    if (!lazy(w)) {
        copy_now(copy);
        return;
    }
    memset(shared, POISON, bytes);
    fiber->copies.push_back(copy);
}

void cp_async_commit() {
    Fiber* fiber = worker->current;
    fiber->copies_committed++;
    if (lazy(worker)) fiber->copy_groups.push_back(fiber->copies.size());
}

void finish_copies(Fiber* fiber, size_t count) {
    for (size_t i = 0; i < count; i++) copy_now(fiber->copies[i]);
    fiber->copies.erase(fiber->copies.begin(), fiber->copies.begin() + ptrdiff_t(count));
    for (size_t& end : fiber->copy_groups) end -= count;
}

void cp_async_wait(uint32_t pending) {
    Worker* w = worker;
    Fiber* fiber = w->current;
    if (w->checker) check_cp_async_wait(w, fiber, pending);
    auto& groups = fiber->copy_groups;
    if (groups.size() <= pending) return;
    size_t complete = groups.size() - pending;
    finish_copies(fiber, groups[complete - 1]);
    groups.erase(groups.begin(), groups.begin() + ptrdiff_t(complete));
}

}  // namespace emu
