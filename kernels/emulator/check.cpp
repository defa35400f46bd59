// The checker: agents, clocks, and who waits for whom. checker.h says how it works.
#include "checker.h"

namespace emu {

void check_start_launch() { forget_global_accesses(); }

void check_start_worker(Worker* w) {
    auto* k = new Checker;
    k->worker = w;
    k->races = w->launch->modes.check;
    k->counts = w->launch->modes.counters;
    k->threads = w->launch->gang_ctas * w->launch->threads;
    k->agents = 2 * k->threads + ASYNC_AGENTS;
    w->checker = k;
    if (!k->races) return;
    k->known.resize(size_t(k->threads) * k->agents);
    k->fenced.resize(size_t(k->threads) * k->agents);
    k->fence_releases.resize(k->threads);
    k->relaxed_reads.resize(k->threads);
}

void check_start_gang(Worker* w) {
    Checker& k = *w->checker;
    if (!k.races) return;
    std::fill(k.known.begin(), k.known.end(), 0);
    std::fill(k.fenced.begin(), k.fenced.end(), 0);
    for (uint32_t t = 0; t < k.threads; t++) k.known_to(t)[t] = 1;
    std::fill(std::begin(k.async_clocks), std::end(k.async_clocks), 0);
    k.barriers.assign(w->ctas.size() * 16, {});
    k.cluster_arrivals.clear();
    k.cluster_done.clear();
    k.mbarriers.clear();
    k.acquired.clear();
    std::fill(k.fence_releases.begin(), k.fence_releases.end(), nullptr);
    for (auto& reads : k.relaxed_reads) reads.clear();
    reset_cells(k);
}

// The findings are the launch's failure, beside one that ended it early.
void check_end_worker(Worker* w) {
    Checker& k = *w->checker;
    std::string text;
    for (auto& [what, finding] : k.findings)
        text += "\n  " + what + "\n    first: " + finding.first + "; " +
                std::to_string(finding.times) + " times in all";
    if (!text.empty()) {
        if (w->failed) w->error += "\nand before that:" + text;
        else record_failure(w, "check:" + text);
        w->failed = true;
    }
    if (k.counts) collect_counters(k.counters);
    delete w->checker;
    w->checker = nullptr;
}

// ------------------------------------------------------------------ release and acquire

static void join(std::vector<Clock>& to, const Clock* from, size_t size) {
    if (to.empty()) to.assign(size, 0);
    for (size_t i = 0; i < size; i++) to[i] = to[i] > from[i] ? to[i] : from[i];
}

static void join(Clock* to, const std::vector<Clock>& from) {
    for (size_t i = 0; i < from.size(); i++) to[i] = to[i] > from[i] ? to[i] : from[i];
}

static void release(Checker& k, Clocks& to, uint32_t thread) {
    join(to.known, k.known_to(thread), k.agents);
    join(to.fenced, k.fenced_to(thread), k.agents);
    k.known_to(thread)[thread]++;
}

static void acquire(Checker& k, const Clocks& from, uint32_t thread) {
    join(k.known_to(thread), from.known);
    join(k.fenced_to(thread), from.fenced);
}

void check_warp_sync(Worker* w, Fiber* warp, uint32_t mask) {
    Checker& k = *w->checker;
    if (!k.races) return;
    Clocks all;
    for (uint32_t rest = mask; rest; rest &= rest - 1)
        release(k, all, warp[__builtin_ctz(rest)].gang_index);
    for (uint32_t rest = mask; rest; rest &= rest - 1)
        acquire(k, all, warp[__builtin_ctz(rest)].gang_index);
}

static Clocks& barrier_clocks(Checker& k, const Cta* cta, int id) {
    return k.barriers[cta_index(k, *cta) * 16 + uint32_t(id)];
}

void check_barrier_arrive(Worker* w, Cta* cta, int id, Fiber* fiber) {
    Checker& k = *w->checker;
    if (k.races) release(k, barrier_clocks(k, cta, id), fiber->gang_index);
}

void check_barrier_complete(Worker* w, Cta* cta, int id, const std::vector<Fiber*>& waiting,
                            Fiber* last) {
    Checker& k = *w->checker;
    if (!k.races) return;
    Clocks& clocks = barrier_clocks(k, cta, id);
    for (Fiber* fiber : waiting) acquire(k, clocks, fiber->gang_index);
    if (last) acquire(k, clocks, last->gang_index);
    clocks = {};
}

void check_cluster_arrive(Worker* w, Cluster* cluster, Fiber* fiber) {
    Checker& k = *w->checker;
    if (k.races) release(k, k.cluster_arrivals[cluster], fiber->gang_index);
}

void check_cluster_complete(Worker* w, Cluster* cluster) {
    Checker& k = *w->checker;
    if (k.races) k.cluster_done[cluster] = std::move(k.cluster_arrivals[cluster]);
    k.cluster_arrivals[cluster] = {};
}

void check_cluster_acquire(Worker* w, Cluster* cluster, Fiber* fiber) {
    Checker& k = *w->checker;
    if (k.races) acquire(k, k.cluster_done[cluster], fiber->gang_index);
}

// ------------------------------------------------------------------ mbarriers

static MbarrierClocks& mbarrier(Checker& k, const Cta* cta, uint32_t address) {
    return k.mbarriers[uint64_t(cta_index(k, *cta)) << 32 | address];
}

void check_mbarrier_init(Worker* w, Cta* cta, uint32_t address, Loc loc) {
    Checker& k = *w->checker;
    if (!k.races) return;
    check_thread_access(w, w->current, cta, address, 8, true, loc);
    MbarrierClocks fresh;
    fresh.owner = w->current->gang_index;
    mbarrier(k, cta, address) = fresh;
}

void check_mbarrier_use(Worker* w, Cta* cta, uint32_t address, bool by_tma, Loc loc) {
    Checker& k = *w->checker;
    if (!k.races) return;
    check_thread_access(w, w->current, cta, address, 8, false, loc);
    if (by_tma && !mbarrier(k, cta, address).fenced)
        find(k, "missing fence_mbarrier_init: an asynchronous copy uses the mbarrier at " +
                    site_name(k, site_of(k, loc)),
             block_name(*cta));
}

void check_mbarrier_arrive(Worker* w, Cta* cta, uint32_t address, Fiber* fiber) {
    Checker& k = *w->checker;
    if (k.races) release(k, mbarrier(k, cta, address).arrivals, fiber->gang_index);
}

void check_mbarrier_complete(Worker* w, Cta* cta, uint32_t address, int agent) {
    Checker& k = *w->checker;
    if (!k.races) return;
    Clocks& arrivals = mbarrier(k, cta, address).arrivals;
    if (arrivals.known.empty()) {
        arrivals.known.assign(k.agents, 0);
        arrivals.fenced.assign(k.agents, 0);
    }
    Clock& clock = arrivals.known[k.async_agent(agent)];
    clock = std::max(clock, k.async_clocks[agent]);
}

void check_mbarrier_phase(Worker* w, Cta* cta, uint32_t address, uint32_t parity) {
    Checker& k = *w->checker;
    if (!k.races) return;
    MbarrierClocks& clocks = mbarrier(k, cta, address);
    clocks.done[parity & 1] = clocks.arrivals;
}

void check_mbarrier_acquire(Worker* w, Cta* cta, uint32_t address, Fiber* fiber, uint32_t parity) {
    Checker& k = *w->checker;
    if (k.races) acquire(k, mbarrier(k, cta, address).done[parity & 1], fiber->gang_index);
}

// ------------------------------------------------------------------ fences

void check_fence_mbarrier_init(Worker* w, Fiber* fiber) {
    Checker& k = *w->checker;
    if (!k.races) return;
    for (auto& [where, clocks] : k.mbarriers)
        if (clocks.owner == fiber->gang_index) clocks.fenced = true;
}

void check_fence_proxy(Worker* w, Fiber* fiber) {
    Checker& k = *w->checker;
    if (!k.races) return;
    check_fence_mbarrier_init(w, fiber);
    uint32_t own = fiber->gang_index, copies = k.threads + own;
    k.fenced_to(own)[own] = k.known_to(own)[own]++;
    k.fenced_to(own)[copies] = k.known_to(own)[copies];
}

// A fence before a relaxed write releases; after a relaxed read it acquires.
void check_fence(Worker* w, Fiber* fiber) {
    Checker& k = *w->checker;
    if (!k.races) return;
    uint32_t own = fiber->gang_index;
    for (auto& snapshot : k.relaxed_reads[own]) acquire(k, fiber, snapshot);
    k.relaxed_reads[own].clear();
    k.fence_releases[own] = publish(k, fiber);
}

static bool releases(Order order) {
    return order == Order::Release || order == Order::AcquireRelease;
}
static bool acquires(Order order) {
    return order == Order::Acquire || order == Order::AcquireRelease;
}

static Cta* cta_of_shared(Worker* w, const void* p) {
    size_t offset = uintptr_t(p) - uintptr_t(w->arena);
    return offset < w->ctas.size() * SHARED_WINDOW ? &w->ctas[offset / SHARED_WINDOW] : nullptr;
}

void check_atomic_before(Worker* w, const void* p, uint32_t bytes, Order order, bool write,
                         Loc loc) {
    Checker& k = *w->checker;
    if (!k.races) return;
    Fiber* fiber = w->current;
    uint32_t own = fiber->gang_index;
    if (Cta* cta = cta_of_shared(w, p)) {
        Access access{Agent(own), k.known_to(own)[own], write, false, true, site_of(k, loc)};
        uint32_t address = uint32_t(uintptr_t(p) - uintptr_t(cta->shared));
        access_shared(k, own, *cta, address, bytes, access);
        return;
    }
    access_global(k, fiber, p, bytes, write, true, site_of(k, loc));
    if (!write) return;
    if (releases(order)) release_to(k, p, publish(k, fiber));
    else if (k.fence_releases[own]) release_to(k, p, k.fence_releases[own]);
}

void check_atomic_after(Worker* w, const void* p, Order order, bool write) {
    Checker& k = *w->checker;
    if (!k.races || cta_of_shared(w, p)) return;
    (void)write;
    Fiber* fiber = w->current;
    Published snapshot = published_at(p);
    if (!snapshot) return;
    if (acquires(order)) {
        acquire(k, fiber, snapshot);
        return;
    }
    auto& reads = k.relaxed_reads[fiber->gang_index];
    if (reads.empty() || reads.back() != snapshot) reads.push_back(snapshot);
}

// ------------------------------------------------------------------ accesses

void check_thread_access(Worker* w, Fiber* fiber, Cta* cta, uint32_t address, uint32_t bytes,
                         bool write, Loc loc) {
    Checker& k = *w->checker;
    if (!k.races) return;
    uint32_t own = fiber->gang_index;
    Access access{Agent(own), k.known_to(own)[own], write, false, false, site_of(k, loc)};
    access_shared(k, own, *cta, address, bytes, access);
}

void check_matrix_row(Worker* w, Fiber* lane, uint32_t address, int row, bool write, Loc loc) {
    check_thread_access(w, lane, lane->cta, address, 16, write, loc);
    Checker& k = *w->checker;
    if (k.counts) count_matrix_row(k.counters, address, row, write, loc);
}

void check_cp_async(Worker* w, Fiber* fiber, uint32_t address, uint32_t bytes, const void* global,
                    uint32_t source_bytes, Loc loc) {
    Checker& k = *w->checker;
    uint32_t own = fiber->gang_index;
    if (k.counts) count_access(k.counters, *fiber, loc, address, bytes, true, true);
    if (k.counts && source_bytes)
        count_access(k.counters, *fiber, loc, uintptr_t(global), source_bytes, false, false);
    if (!k.races) return;
    uint16_t site = site_of(k, loc);
    Access access{Agent(k.threads + own), fiber->copies_committed + 1, true, false, false, site};
    access_shared(k, own, *fiber->cta, address, bytes, access);
    if (source_bytes) access_global(k, fiber, global, source_bytes, false, false, site);
}

void check_cp_async_wait(Worker* w, Fiber* fiber, uint32_t pending) {
    Checker& k = *w->checker;
    if (!k.races || fiber->copies_committed <= pending) return;
    Clock& clock = k.known_to(fiber->gang_index)[k.threads + fiber->gang_index];
    clock = std::max(clock, fiber->copies_committed - pending);
}

int check_async_begin(Worker* w) {
    Checker& k = *w->checker;
    if (!k.races) return 0;
    int slot = int(k.next_async++ % ASYNC_AGENTS);
    k.async_clocks[slot]++;
    return slot;
}

void check_async_access(Worker* w, int agent, Fiber* issuer, Cta* cta, uint32_t address,
                        uint32_t bytes, bool write, Loc loc) {
    Checker& k = *w->checker;
    if (!k.races) return;
    Access access{k.async_agent(agent), k.async_clocks[agent], write, true, false,
                  site_of(k, loc)};
    access_shared(k, issuer->gang_index, *cta, address, bytes, access);
}

void check_join(Worker* w, Fiber* fiber, int agent) {
    Checker& k = *w->checker;
    if (!k.races) return;
    Clock& clock = k.known_to(fiber->gang_index)[k.async_agent(agent)];
    clock = std::max(clock, k.async_clocks[agent]);
}

int check_bulk(Worker* w, Fiber* issuer, const Bulk& bulk) {
    Checker& k = *w->checker;
    if (!k.races) return 0;
    int agent = check_async_begin(w);
    bool load = bulk.kind == Bulk::Kind::Load;
    check_async_access(w, agent, issuer, bulk.cta, bulk.shared, bulk.bytes, load, bulk.loc);
    uint16_t site = site_of(k, bulk.loc);
    for_global_runs(bulk, [&](const void* p, uint32_t bytes) {
        access_global(k, issuer, p, bytes, !load, bulk.kind == Bulk::Kind::Add, site);
    });
    return agent;
}

}  // namespace emu
