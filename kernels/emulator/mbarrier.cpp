// mbarriers: arrivals and transaction bytes complete phases, which alternate in parity.
//
// The state lives in the kernel's own eight bytes of shared memory, with a mark, so that a barrier
// that was never initialised or was overwritten is noticed.
#include "check.h"
#include "runtime.h"

namespace emu {

struct Word {
    uint64_t pending : 15, expected : 15, phase : 1, mark : 9;
    int64_t bytes : 24;
};
static_assert(sizeof(Word) == 8, "the size of an mbarrier");
constexpr uint64_t MARK = 0x15a;
constexpr uint32_t MAX_ARRIVALS = (1 << 15) - 1;
constexpr uint32_t MAX_BYTES = (1 << 20) - 1;

static Word* word(const Cta* cta, uint32_t address) {
    return reinterpret_cast<Word*>(cta->shared + address);
}

std::string describe_mbarrier(const Cta& cta, uint32_t address) {
    Word state = *word(&cta, address);
    char text[200];
    snprintf(text, sizeof text,
             "mbarrier 0x%x (in phase %u, %u of %u arrivals missing, %+ld bytes expected)", address,
             unsigned(state.phase), unsigned(state.pending), unsigned(state.expected),
             long(state.bytes));
    return text;
}

void require_mbarrier(Cta* cta, uint32_t address, Loc loc, const char* what, bool by_tma) {
    Worker* w = worker;
    if (address % 8) fail(loc, "%s: mbarrier 0x%x is not 8-byte aligned", what, address);
    check_shared(cta, address, 8, loc, what);
    if (w->checker) check_mbarrier_use(w, cta, address, by_tma, loc);
    if (word(cta, address)->mark != MARK)
        fail(loc, "%s: shared 0x%x holds no mbarrier: not initialised, or overwritten", what,
             address);
}

void mbarrier_init(uint32_t address, uint32_t count, Loc loc) {
    Worker* w = worker;
    Cta* cta = w->current->cta;
    if (address % 8) fail(loc, "mbarrier.init: 0x%x is not 8-byte aligned", address);
    check_shared(cta, address, 8, loc, "mbarrier.init");
    if (!count || count > MAX_ARRIVALS) fail(loc, "mbarrier.init: a count of %u", count);
    if (w->checker) check_mbarrier_init(w, cta, address, loc);
    Word state{count, count, 0, MARK, 0};
    memcpy(word(cta, address), &state, sizeof state);
    for (uint32_t known : cta->mbarriers)
        if (known == address) return;
    cta->mbarriers.push_back(address);
}

void mbarrier_invalidate(uint32_t address, Loc loc) {
    Worker* w = worker;
    Cta* cta = w->current->cta;
    require_mbarrier(cta, address, loc, "mbarrier.inval", false);
    memset(word(cta, address), POISON, 8);
    auto& known = cta->mbarriers;
    for (size_t i = 0; i < known.size(); i++)
        if (known[i] == address) known.erase(known.begin() + ptrdiff_t(i));
}

static const void* wait_object(uint32_t address) {
    return reinterpret_cast<const void*>(uintptr_t(address));
}

static void complete_phase_if_due(Worker* w, Cta* cta, uint32_t address) {
    Word* state = word(cta, address);
    if (state->pending || state->bytes) return;
    state->phase ^= 1;
    state->pending = state->expected;
    if (w->checker) check_mbarrier_phase(w, cta, address, state->phase ^ 1);
    auto& waiting = w->mbarrier_waiting;
    size_t kept = 0;
    for (Fiber* fiber : waiting) {
        bool wakes = fiber->cta == cta && fiber->object == wait_object(address) &&
                     fiber->argument != state->phase;
        if (!wakes) {
            waiting[kept++] = fiber;
            continue;
        }
        if (w->checker) check_mbarrier_acquire(w, cta, address, fiber, fiber->argument);
        make_ready(w, fiber);
    }
    waiting.resize(kept);
}

static void arrive(Worker* w, Cta* cta, uint32_t address, uint32_t count, Loc loc) {
    Word* state = word(cta, address);
    if (state->pending < count)
        fail(loc, "mbarrier.arrive: more than the %u arrivals of this phase of %s",
             unsigned(state->expected), describe_mbarrier(*cta, address).c_str());
    if (w->checker) check_mbarrier_arrive(w, cta, address, w->current);
    state->pending -= count;
    complete_phase_if_due(w, cta, address);
}

void mbarrier_arrive(uint32_t address, uint32_t count, Loc loc) {
    auto [cta, offset] = resolve(address, loc, "mbarrier.arrive");
    require_mbarrier(cta, offset, loc, "mbarrier.arrive", false);
    arrive(worker, cta, offset, count, loc);
}

void mbarrier_expect_tx(uint32_t address, uint32_t bytes, Loc loc) {
    auto [cta, offset] = resolve(address, loc, "mbarrier.expect_tx");
    require_mbarrier(cta, offset, loc, "mbarrier.expect_tx", false);
    if (bytes > MAX_BYTES) fail(loc, "mbarrier.expect_tx: %u bytes, at most %u", bytes, MAX_BYTES);
    word(cta, offset)->bytes += bytes;
    // Bytes that came before they were expected may be all that the phase waited for.
    if (!word(cta, offset)->pending) complete_phase_if_due(worker, cta, offset);
}

void mbarrier_complete_tx(Worker* w, Cta* cta, uint32_t address, uint32_t bytes, int agent,
                          Loc loc) {
    Word* state = word(cta, address);
    if (state->mark != MARK) {
        record_failure(w, std::string(base_name(loc.file)) + ":" + std::to_string(loc.line) +
                              ": the mbarrier of this copy was overwritten while it ran");
        leave_fibers(w);
    }
    state->bytes -= bytes;
    if (w->checker) check_mbarrier_complete(w, cta, address, agent);
    complete_phase_if_due(w, cta, address);
}

void mbarrier_wait(uint32_t address, uint32_t parity, Loc loc) {
    Worker* w = worker;
    Fiber* fiber = w->current;
    require_mbarrier(fiber->cta, address, loc, "mbarrier.try_wait", false);
    parity &= 1;
    if (word(fiber->cta, address)->phase != parity) {
        if (w->checker) check_mbarrier_acquire(w, fiber->cta, address, fiber, parity);
        return;
    }
    w->mbarrier_waiting.push_back(fiber);
    block(w, Wait::Mbarrier, wait_object(address), parity, loc);
}

bool mbarrier_try_wait(uint32_t address, uint32_t parity, Loc loc) {
    yield(loc);  // a loop around this must let the others run
    Worker* w = worker;
    Fiber* fiber = w->current;
    require_mbarrier(fiber->cta, address, loc, "mbarrier.test_wait", false);
    parity &= 1;
    if (word(fiber->cta, address)->phase == parity) return false;
    if (w->checker) check_mbarrier_acquire(w, fiber->cta, address, fiber, parity);
    return true;
}

void fence_mbarrier_init(Loc loc) {
    (void)loc;
    Worker* w = worker;
    if (w->checker) check_fence_mbarrier_init(w, w->current);
}

void fence_proxy_async(Loc loc) {
    (void)loc;
    Worker* w = worker;
    if (w->checker) check_fence_proxy(w, w->current);
}

void check_mbarriers_at_exit(Worker* w, const Cta& cta) {
    for (uint32_t address : cta.mbarriers) {
        Word state = *word(&cta, address);
        if (state.mark != MARK || (state.pending == state.expected && !state.bytes)) continue;
        record_failure(w, block_name(cta) + ": at the kernel's end, " +
                              describe_mbarrier(cta, address) +
                              " is in the middle of a phase: a count is wrong");
    }
}

}  // namespace emu
