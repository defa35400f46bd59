// Fibers: a stack each, and a switch from one to another in a dozen instructions.
//
// On x86-64 the switch is written by hand (10 ns; swapcontext makes two system calls and takes
// 180). Elsewhere it is swapcontext.
#include <pthread.h>
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include "runtime.h"
#if EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emu {

constexpr size_t STACK = (EMU_ASAN ? 256 : 64) * 1024;
constexpr size_t GUARD = 4096;

void make_stack(Fiber& fiber) {
    void* memory = mmap(nullptr, STACK + GUARD, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        perror("emulator: no memory for a fiber's stack");
        abort();
    }
    mprotect(memory, GUARD, PROT_NONE);
    fiber.stack = static_cast<char*>(memory) + GUARD;
    fiber.stack_bytes = STACK;
}

#if defined(__x86_64__)

// System V: rbx, rbp and r12 to r15 belong to the caller; the rest it has saved if it wants it.
extern "C" __attribute__((visibility("hidden"))) void emu_switch_stacks(void** save, void* load);
asm(R"(
.text
.p2align 4
.hidden emu_switch_stacks
.globl emu_switch_stacks
.type emu_switch_stacks, @function
emu_switch_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_switch_stacks, . - emu_switch_stacks
)");

void start_fiber(Fiber& fiber, void (*entry)()) {
    // Stacks that all begin at the same offset of a page fight for the same cache sets.
    size_t colour = fiber.lane * 192;
    uintptr_t top = (uintptr_t(fiber.stack) + fiber.stack_bytes - colour) & ~uintptr_t(63);
    void** slot = reinterpret_cast<void**>(top);
    *--slot = nullptr;  // where a debugger's backtrace ends
    *--slot = reinterpret_cast<void*>(entry);
    for (int saved = 0; saved < 6; saved++) *--slot = nullptr;
    fiber.stack_pointer = slot;
}

static inline void switch_stacks(Fiber* from, Fiber* to) {
    emu_switch_stacks(&from->stack_pointer, to->stack_pointer);
}

#else

static ucontext_t* context_of(Fiber* fiber) {
    if (!fiber->context) fiber->context = new ucontext_t;
    return static_cast<ucontext_t*>(fiber->context);
}

void start_fiber(Fiber& fiber, void (*entry)()) {
    ucontext_t* context = context_of(&fiber);
    getcontext(context);
    context->uc_stack.ss_sp = fiber.stack;
    context->uc_stack.ss_size = fiber.stack_bytes;
    context->uc_link = nullptr;
    makecontext(context, entry, 0);
}

static inline void switch_stacks(Fiber* from, Fiber* to) {
    swapcontext(context_of(from), context_of(to));
}

#endif

static inline void show_place(Worker* w, const Fiber& fiber) {
    w->place.thread = fiber.thread;
    w->place.lane = fiber.lane;
    w->place.block = fiber.cta->index;
    w->place.cluster_rank = fiber.cta->rank;
}

// AddressSanitizer must know which stack is live; a fiber that is done gives up its fake stack.
static inline void announce_switch(Fiber* from, Fiber* to) {
#if EMU_ASAN
    __sanitizer_start_switch_fiber(from->done ? nullptr : &from->fake_stack, to->stack,
                                   to->stack_bytes);
#else
    (void)from, (void)to;
#endif
}

static inline void confirm_switch(void* fake_stack) {
#if EMU_ASAN
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#else
    (void)fake_stack;
#endif
}

void switch_fiber(Worker* w, Fiber* to) {
    Fiber* from = w->current;
    if (from == to) return;
    w->current = to;
    show_place(w, *to);
    announce_switch(from, to);
    switch_stacks(from, to);
    confirm_switch(from->fake_stack);
}

void enter_fibers(Worker* w, Fiber* first) {
    if (!w->main.stack) {
        pthread_attr_t attributes;
        void* stack;
        pthread_getattr_np(pthread_self(), &attributes);
        pthread_attr_getstack(&attributes, &stack, &w->main.stack_bytes);
        pthread_attr_destroy(&attributes);
        w->main.stack = static_cast<char*>(stack);
    }
    w->current = first;
    show_place(w, *first);
    announce_switch(&w->main, first);
    switch_stacks(&w->main, first);
    confirm_switch(w->main.fake_stack);
}

void leave_fibers(Worker* w) {
    announce_switch(w->current, &w->main);
    switch_stacks(w->current, &w->main);
    __builtin_unreachable();
}

void fiber_entered() { confirm_switch(nullptr); }

void forget_frames(Worker* w, uint32_t fibers) {
#if EMU_ASAN
    // Frames that an earlier, failed launch left poisoned; or the last kernel's, near the top.
    for (uint32_t i = 0; i < fibers; i++) {
        Fiber& fiber = w->fibers[i];
        if (!fiber.stack) continue;
        size_t bytes = w->dirty ? fiber.stack_bytes : 16384;
        __asan_unpoison_memory_region(fiber.stack + fiber.stack_bytes - bytes, bytes);
    }
#else
    (void)w, (void)fibers;
#endif
}

}  // namespace emu
