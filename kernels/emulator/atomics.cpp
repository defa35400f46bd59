// Atomics, acquire and release, and fences. Words in global memory are shared with other workers,
// so the host's own atomics do the work.
//
// A failed compare-and-swap, an addition of nothing and every acquire load may be polling: they let
// other threads run first, or a lone spinning thread would never see its value arrive.
#include "check.h"
#include "runtime.h"

namespace emu {

static uint64_t read_word(const void* p, int bytes) {
    if (bytes == 2) return __atomic_load_n(static_cast<const uint16_t*>(p), __ATOMIC_SEQ_CST);
    if (bytes == 4) return __atomic_load_n(static_cast<const uint32_t*>(p), __ATOMIC_SEQ_CST);
    return __atomic_load_n(static_cast<const uint64_t*>(p), __ATOMIC_SEQ_CST);
}

static void write_word(void* p, int bytes, uint64_t value) {
    if (bytes == 2) __atomic_store_n(static_cast<uint16_t*>(p), uint16_t(value), __ATOMIC_SEQ_CST);
    else if (bytes == 4)
        __atomic_store_n(static_cast<uint32_t*>(p), uint32_t(value), __ATOMIC_SEQ_CST);
    else __atomic_store_n(static_cast<uint64_t*>(p), value, __ATOMIC_SEQ_CST);
}

template <class Bits>
static bool swap_if(void* p, uint64_t& expected, uint64_t value) {
    Bits narrow = Bits(expected);
    bool swapped = __atomic_compare_exchange_n(static_cast<Bits*>(p), &narrow, Bits(value), false,
                                               __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    expected = narrow;
    return swapped;
}

template <class Float, class Bits>
static uint64_t add_floats(uint64_t a, uint64_t b) {
    Bits narrow_a = Bits(a), narrow_b = Bits(b);
    Float x, y;
    memcpy(&x, &narrow_a, sizeof x);
    memcpy(&y, &narrow_b, sizeof y);
    x += y;
    memcpy(&narrow_a, &x, sizeof x);
    return narrow_a;
}

static int64_t as_signed(uint64_t word, int bytes) {
    return bytes == 4 ? int64_t(int32_t(uint32_t(word))) : int64_t(word);
}

static uint64_t apply(Rmw op, int bytes, uint64_t old, uint64_t operand, uint64_t compare) {
    switch (op) {
        case Rmw::Add: return old + operand;
        case Rmw::AddFloat:
            return bytes == 4 ? add_floats<float, uint32_t>(old, operand)
                              : add_floats<double, uint64_t>(old, operand);
        case Rmw::Min: return old < operand ? old : operand;
        case Rmw::Max: return old > operand ? old : operand;
        case Rmw::MinSigned:
            return as_signed(old, bytes) < as_signed(operand, bytes) ? old : operand;
        case Rmw::MaxSigned:
            return as_signed(old, bytes) > as_signed(operand, bytes) ? old : operand;
        case Rmw::Exchange: return operand;
        case Rmw::Compare: return old == compare ? operand : old;
        case Rmw::And: return old & operand;
        case Rmw::Or: return old | operand;
    }
    return old;
}

static void require_aligned(const void* p, int bytes, Loc loc) {
    if (uintptr_t(p) % uintptr_t(bytes))
        fail(loc, "an atomic of %d bytes at %p is misaligned", bytes, p);
}

uint64_t atomic(void* p, int bytes, Rmw op, uint64_t operand, uint64_t compare, Order order,
                Loc loc) {
    require_aligned(p, bytes, loc);
    Worker* w = worker;
    if (w->checker) check_atomic_before(w, p, uint32_t(bytes), order, true, loc);
    uint64_t old = read_word(p, bytes);
    for (;;) {
        uint64_t value = apply(op, bytes, old, operand, compare);
        if (bytes == 4 ? swap_if<uint32_t>(p, old, value) : swap_if<uint64_t>(p, old, value)) break;
    }
    if (w->checker) check_atomic_after(w, p, order, true);
    bool polling = op == Rmw::Compare ? old != compare : op == Rmw::Add && !operand;
    if (polling) yield(loc);
    else w->idle_rounds = 0;
    return old;
}

uint64_t load_atomic(const void* p, int bytes, Order order, Loc loc) {
    require_aligned(p, bytes, loc);
    yield(loc);
    Worker* w = worker;
    if (w->checker) check_atomic_before(w, p, uint32_t(bytes), order, false, loc);
    uint64_t value = read_word(p, bytes);
    if (w->checker) check_atomic_after(w, p, order, false);
    return value;
}

void store_atomic(void* p, int bytes, uint64_t value, Order order, Loc loc) {
    require_aligned(p, bytes, loc);
    Worker* w = worker;
    if (w->checker) check_atomic_before(w, p, uint32_t(bytes), order, true, loc);
    write_word(p, bytes, value);
    w->idle_rounds = 0;
}

void fence(Loc loc) {
    (void)loc;
    Worker* w = worker;
    if (w->checker) check_fence(w, w->current);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

}  // namespace emu
