// Which fiber runs next, what happens when none can, and how a failure leaves the fibers.
//
// Ready fibers wait in a ring and are taken in the order of the mode. A fiber that polls memory
// yields: it stands aside until every other fiber of the gang has run as far as it can.
//
// Deadlock is the state in which no fiber is ready, no asynchronous copy is under way and no fiber
// polls; or all fibers of all workers have done nothing but poll for some time.
#include <sched.h>

#include <cstdarg>
#include <cstdio>
#include <ctime>
#include <map>
#include <tuple>

#include "runtime.h"

namespace emu {

__thread Worker* worker;
__thread Place* place;

// Rounds of polling alone before a worker counts as idle.
constexpr uint32_t IDLE_ROUNDS = 256;
// How long all workers must be idle at once: a busy host may not have run one that could go on.
constexpr double IDLE_SECONDS = 5;

double seconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return double(now.tv_sec) + double(now.tv_nsec) * 1e-9;
}

static void set_idle(Worker* w, bool idle) {
    if (w->idle == idle) return;
    w->idle = idle;
    w->idle_since = seconds();
    w->launch->idle += idle ? 1 : -1;
}

void make_ready(Worker* w, Fiber* fiber) {
    fiber->wait = Wait::None;
    w->idle_rounds = 0;
    size_t slot = w->head + w->queued++;
    if (slot >= w->queue.size()) slot -= w->queue.size();
    w->queue[slot] = fiber;
}

static uint64_t next_random(Worker* w) {  // xorshift64
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random;
}

Fiber* take_ready(Worker* w) {
    if (!w->queued) return nullptr;
    size_t capacity = w->queue.size();
    uint32_t order = w->launch->modes.order;
    if (order == 1) return w->queue[(w->head + --w->queued) % capacity];
    if (order == 2) {
        size_t pick = (w->head + next_random(w) % w->queued) % capacity;
        std::swap(w->queue[pick], w->queue[w->head]);
    }
    Fiber* fiber = w->queue[w->head];
    w->head = w->head + 1 == capacity ? 0 : w->head + 1;
    w->queued--;
    return fiber;
}

// Lets the polling fibers look again. False when that is in vain.
static bool wake_polling(Worker* w) {
    if (w->yielded.empty()) return false;
    Launch& launch = *w->launch;
    if (++w->idle_rounds >= IDLE_ROUNDS) {
        set_idle(w, true);
        if (launch.failed) leave_fibers(w);
        bool all = launch.idle == launch.active;
        if (!all) w->idle_since = seconds();
        bool in_vain = w->alone || (all && seconds() - w->idle_since > IDLE_SECONDS);
        // What the others wrote before they ended is yet to be seen: one look more.
        w->alone = launch.active == 1;
        if (in_vain) return false;
        sched_yield();
    } else {
        set_idle(w, false);
    }
    uint32_t rounds = w->idle_rounds;
    for (Fiber* fiber : w->yielded) make_ready(w, fiber);
    w->idle_rounds = rounds;
    w->yielded.clear();
    return true;
}

void yield(Loc loc) {
    Worker* w = worker;
    w->yielded.push_back(w->current);
    block(w, Wait::Memory, nullptr, 0, loc);
}

static std::string thread_ranges(const std::vector<uint32_t>& threads) {
    std::string text;
    for (size_t i = 0; i < threads.size();) {
        size_t last = i;
        while (last + 1 < threads.size() && threads[last + 1] == threads[last] + 1) last++;
        if (!text.empty()) text += ", ";
        text += std::to_string(threads[i]);
        if (last > i) text += "-" + std::to_string(threads[last]);
        i = last + 1;
    }
    return text;
}

static std::string describe_wait(const Cta& cta, Wait wait, const void* object, uint32_t argument) {
    char text[200];
    switch (wait) {
        case Wait::Warp: {
            auto* meeting = static_cast<const Rendezvous*>(object);
            snprintf(text, sizeof text, "a warp collective: mask %08x, missing lanes %08x",
                     meeting->mask, meeting->mask & ~meeting->arrived);
            return text;
        }
        case Wait::Barrier: {
            auto* barrier = static_cast<const Barrier*>(object);
            snprintf(text, sizeof text, "barrier %u: %u of %u threads arrived", argument,
                     barrier->arrived, barrier->whole_cta ? cta.live : barrier->threads);
            return text;
        }
        case Wait::Mbarrier:
            return describe_mbarrier(cta, uint32_t(uintptr_t(object))) + ", for phase parity " +
                   std::to_string(argument);
        case Wait::Warpgroup:
            return "wgmma: not all 128 threads of the warpgroup came";
        case Wait::Cluster:
            snprintf(text, sizeof text, "the cluster barrier: %u of %u threads arrived",
                     cta.cluster->arrived, cta.cluster->live);
            return text;
        case Wait::Memory:
            return "a value in memory that nobody writes";
        case Wait::None:
            break;
    }
    return "nothing";
}

static std::string describe_cta(const Cta& cta) {
    std::map<std::tuple<Wait, const void*, uint32_t, const char*, int>, std::vector<uint32_t>> by;
    std::vector<uint32_t> exited;
    for (uint32_t i = 0; i < cta.threads; i++) {
        const Fiber& f = cta.fibers[i];
        if (f.done) exited.push_back(i);
        else by[{f.wait, f.object, f.argument, f.loc.file, f.loc.line}].push_back(i);
    }
    std::string text;
    for (auto& [key, threads] : by) {
        auto& [wait, object, argument, file, line] = key;
        text += "  " + block_name(cta) + " threads " + thread_ranges(threads) + " wait at " +
                base_name(file) + ":" + std::to_string(line) + " for " +
                describe_wait(cta, wait, object, argument) + "\n";
    }
    if (!exited.empty() && !by.empty())
        text += "  " + block_name(cta) + " threads " + thread_ranges(exited) + " have exited\n";
    return text;
}

static void report_deadlock(Worker* w) {
    std::string text = "deadlock: no thread can go on\n";
    int shown = 0;
    for (const Cta& cta : w->ctas)
        if (cta.live && shown++ < 8) text += describe_cta(cta);
    record_failure(w, text);
}

void run_next(Worker* w) {
    for (;;) {
        if (Fiber* fiber = take_ready(w)) {
            switch_fiber(w, fiber);
            return;
        }
        if (complete_a_load(w)) continue;
        if (wake_polling(w)) continue;
        if (w->live) report_deadlock(w);
        set_idle(w, false);
        leave_fibers(w);
    }
}

void block(Worker* w, Wait wait, const void* object, uint32_t argument, Loc loc) {
    Fiber* fiber = w->current;
    fiber->wait = wait;
    fiber->object = object;
    fiber->argument = argument;
    fiber->loc = loc;
    run_next(w);
}

const char* base_name(const char* path) {
    if (!path) return "?";
    const char* slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

std::string block_name(const Cta& cta) {
    return "block (" + std::to_string(cta.index.x) + ", " + std::to_string(cta.index.y) + ", " +
           std::to_string(cta.index.z) + ")";
}

void record_failure(Worker* w, const std::string& what) {
    if (!w->failed) w->error = what;
    w->failed = true;
}

void fail(Loc loc, const char* format, ...) {
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    Worker* w = worker;
    record_failure(w, std::string(base_name(loc.file)) + ":" + std::to_string(loc.line) + ": " +
                          block_name(*w->current->cta) + " thread " +
                          std::to_string(w->current->index) + ": " + text);
    set_idle(w, false);
    leave_fibers(w);
}

}  // namespace emu
