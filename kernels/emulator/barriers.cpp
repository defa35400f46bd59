// Warp collectives, the CTA's sixteen barriers, and the cluster's.
#include "check.h"
#include "runtime.h"

namespace emu {

void warp_collective(uint32_t mask, Collective kind, void* argument, Finish finish, Loc loc) {
    Worker* w = worker;
    Fiber* fiber = w->current;
    if (!(mask >> fiber->lane & 1))
        fail(loc, "lane %u calls a warp collective whose mask %08x leaves it out", fiber->lane,
             mask);
    Cta* cta = fiber->cta;
    Rendezvous& meeting = cta->rendezvous[fiber->warp * 32 + __builtin_ctz(mask)];
    if (!meeting.arrived) {
        meeting.mask = mask;
        meeting.kind = kind;
        meeting.loc = loc;
    } else if (meeting.mask != mask || meeting.kind != kind || meeting.loc != loc) {
        fail(loc, "warp %u diverged: lane %u is here (mask %08x), lanes %08x wait at line %d "
             "(mask %08x)", fiber->warp, fiber->lane, mask, meeting.arrived, meeting.loc.line,
             meeting.mask);
    }
    meeting.arrived |= 1u << fiber->lane;
    meeting.arguments[fiber->lane] = argument;
    if (meeting.arrived != meeting.mask) {
        block(w, Wait::Warp, &meeting, 0, loc);
        return;
    }
    finish(meeting.arguments, mask);
    meeting.arrived = 0;
    Fiber* warp = cta->fibers + fiber->warp * 32;
    // Of the collectives, __syncwarp alone orders memory.
    if (w->checker && kind == Collective::Sync) check_warp_sync(w, warp, mask);
    for (uint32_t rest = mask & ~(1u << fiber->lane); rest; rest &= rest - 1)
        make_ready(w, warp + __builtin_ctz(rest));
}

// ------------------------------------------------------------------ barriers of the CTA

static uint32_t lanes_of(const Cta& cta, uint32_t warp) {
    uint32_t lanes = 0;
    for (uint32_t i = warp * 32; i < cta.threads && i < warp * 32 + 32; i++)
        lanes += !cta.fibers[i].done;
    return lanes;
}

static void require_whole_warps(const Cta& cta, int id, const Barrier& barrier, Loc loc) {
    for (uint32_t warp = 0; warp < barrier.lanes.size(); warp++) {
        // Lanes that arrived without waiting may have exited since.
        uint32_t arrived = barrier.lanes[warp], live = lanes_of(cta, warp);
        if (arrived && arrived < live)
            fail(loc, "barrier %d completes while %u lanes of warp %u are elsewhere: all threads "
                 "of a warp must arrive together", id, live - arrived, warp);
    }
}

static void complete_barrier(Worker* w, Cta* cta, int id, Fiber* last, Loc loc) {
    Barrier& barrier = cta->barriers[id];
    require_whole_warps(*cta, id, barrier, loc);
    if (w->checker) check_barrier_complete(w, cta, id, barrier.waiting, last);
    if (barrier.whole_cta) {
        cta->votes_result = cta->votes;
        cta->votes = 0;
    }
    barrier.arrived = 0;
    std::fill(barrier.lanes.begin(), barrier.lanes.end(), 0);
    for (Fiber* fiber : barrier.waiting) make_ready(w, fiber);
    barrier.waiting.clear();
}

// Counts the caller in. True when the barrier is complete.
static bool arrive(Worker* w, int id, int threads, Loc loc) {
    Fiber* fiber = w->current;
    Cta* cta = fiber->cta;
    if (id < 0 || id > 15) fail(loc, "barrier %d: there are barriers 0 to 15", id);
    bool whole = threads == WHOLE_CTA;
    if (!whole && (threads <= 0 || threads % 32))
        fail(loc, "barrier %d of %d threads: a count is a multiple of 32", id, threads);
    Barrier& barrier = cta->barriers[id];
    if (!barrier.arrived) {
        barrier.whole_cta = whole;
        barrier.threads = uint32_t(threads);
    } else if (barrier.whole_cta != whole || (!whole && barrier.threads != uint32_t(threads))) {
        fail(loc, "barrier %d is waited for with another count of threads at the same time", id);
    }
    if (barrier.lanes[fiber->warp]++ == 0) barrier.places[fiber->warp] = loc;
    else if (barrier.places[fiber->warp] != loc)
        fail(loc, "barrier %d in divergent code: other lanes of warp %u arrive at line %d", id,
             fiber->warp, barrier.places[fiber->warp].line);
    barrier.arrived++;
    if (w->checker) check_barrier_arrive(w, cta, id, fiber);
    return barrier.arrived == (whole ? cta->live : barrier.threads);
}

void barrier_sync(int id, int threads, Loc loc) {
    Worker* w = worker;
    Cta* cta = w->current->cta;
    if (arrive(w, id, threads, loc)) {
        complete_barrier(w, cta, id, w->current, loc);
        return;
    }
    cta->barriers[id].waiting.push_back(w->current);
    block(w, Wait::Barrier, &cta->barriers[id], uint32_t(id), loc);
}

void barrier_arrive(int id, int threads, Loc loc) {
    Worker* w = worker;
    if (arrive(w, id, threads, loc)) complete_barrier(w, w->current->cta, id, nullptr, loc);
}

int barrier_count(int predicate, Loc loc) {
    Cta* cta = worker->current->cta;
    cta->votes += predicate != 0;
    barrier_sync(0, WHOLE_CTA, loc);
    return cta->votes_result;
}

void check_barriers_at_exit(Worker* w, const Cta& cta) {
    for (int id = 0; id < 16; id++) {
        const Barrier& barrier = cta.barriers[id];
        if (barrier.arrived)
            record_failure(w, block_name(cta) + ": at the kernel's end, barrier " +
                                  std::to_string(id) + " has " + std::to_string(barrier.arrived) +
                                  " of " + std::to_string(barrier.threads) +
                                  " threads: an arrival that nobody waits for");
    }
}

// ------------------------------------------------------------------ the cluster's barrier

static void complete_cluster(Worker* w, Cluster* cluster) {
    if (w->checker) check_cluster_complete(w, cluster);
    cluster->arrived = 0;
    cluster->phase++;
    for (Fiber* fiber : cluster->waiting) {
        if (w->checker) check_cluster_acquire(w, cluster, fiber);
        make_ready(w, fiber);
    }
    cluster->waiting.clear();
}

void cluster_arrive(Loc loc) {
    Worker* w = worker;
    Fiber* fiber = w->current;
    Cluster* cluster = fiber->cta->cluster;
    if (fiber->cluster_arrived) fail(loc, "barrier.cluster.arrive twice without a wait between");
    fiber->cluster_arrived = true;
    fiber->cluster_phase = cluster->phase;
    if (w->checker) check_cluster_arrive(w, cluster, fiber);
    if (++cluster->arrived == cluster->live) complete_cluster(w, cluster);
}

void cluster_wait(Loc loc) {
    Worker* w = worker;
    Fiber* fiber = w->current;
    Cluster* cluster = fiber->cta->cluster;
    if (!fiber->cluster_arrived) fail(loc, "barrier.cluster.wait without an arrive");
    fiber->cluster_arrived = false;
    if (cluster->phase != fiber->cluster_phase) {
        if (w->checker) check_cluster_acquire(w, cluster, fiber);
        return;
    }
    cluster->waiting.push_back(fiber);
    block(w, Wait::Cluster, cluster, 0, loc);
}

// Barriers of the whole CTA or cluster wait for the threads that have not exited.
void thread_exits(Worker* w, Fiber* fiber) {
    Cta* cta = fiber->cta;
    fiber->done = true;
    w->live--;
    cta->live--;
    cta->cluster->live--;
    for (int id = 0; id < 16; id++) {
        Barrier& barrier = cta->barriers[id];
        if (barrier.arrived && barrier.whole_cta && barrier.arrived == cta->live)
            complete_barrier(w, cta, id, nullptr, barrier.waiting.front()->loc);
    }
    Cluster* cluster = cta->cluster;
    if (cluster->arrived && cluster->arrived == cluster->live) complete_cluster(w, cluster);
}

}  // namespace emu
