// The checker's state: who did what when, by vector clocks.
//
// Agents are the gang's threads (0 .. T - 1), the cp.async of each thread (T .. 2 T - 1), and a
// ring of asynchronous operations (TMA, wgmma). An agent's accesses bear its clock; a thread knows,
// for each agent, the latest clock that happened before its own next step. An access races with an
// earlier one, of which at least one writes, whose clock it does not know.
//
// A second vector holds what is known to have been *fenced*: asynchronous units may see a thread's
// own writes only after that thread's fence.proxy.async.
//
// Limits. A granule of 2 bytes remembers one writer and four readers. Clocks of a CTA that ended
// are kept as far as releases published them.
#pragma once
#include <map>
#include <unordered_map>

#include "check.h"
#include "counters.h"

namespace emu {

using Clock = uint32_t;
using Agent = uint16_t;
constexpr Agent NOBODY = 0xffff;
constexpr uint32_t ASYNC_AGENTS = 512, READERS = 4;
constexpr uint64_t MAX_FINDINGS = 100000;  // a launch that is wrong everywhere may end early

struct Clocks {
    std::vector<Clock> known, fenced;  // by agent; empty: nothing
};

struct SharedCell {  // 2 bytes of shared memory
    Clock write_clock = 0;
    Agent writer = NOBODY;
    uint16_t write_site = 0;
    bool atomic = false;
    Clock read_clocks[READERS] = {};
    Agent readers[READERS] = {NOBODY, NOBODY, NOBODY, NOBODY};
    uint16_t read_sites[READERS] = {};
};

struct MbarrierClocks {
    Clocks arrivals, done[2];  // by parity
    bool fenced = false;
    uint32_t owner = 0;
};

struct Access {  // to shared memory
    Agent agent;
    Clock clock;
    bool write, asynchronous, atomic;
    uint16_t site;
};

// What a release published: for each CTA, the clocks of its threads.
struct Snapshot {
    std::unordered_map<uint32_t, std::shared_ptr<const std::vector<Clock>>> ctas;
};
using Published = std::shared_ptr<const Snapshot>;

// `thread` acquired `snapshot` at its clock.
struct Acquired {
    uint32_t thread;
    Clock clock;
    Published snapshot;
};

struct Site {
    const void* pc;  // of an instrumented access, or null and a place
    Loc loc;
};

struct Checker {
    Worker* worker;
    bool races, counts;
    uint32_t threads = 0, agents = 0;
    std::vector<Clock> known, fenced;  // [threads, agents]
    Clock async_clocks[ASYNC_AGENTS] = {};
    uint32_t next_async = 0;
    std::vector<std::vector<SharedCell>> cells;  // by CTA of the gang
    std::vector<Clocks> barriers;                // CTA * 16 + id
    std::unordered_map<const Cluster*, Clocks> cluster_arrivals, cluster_done;
    std::unordered_map<uint64_t, MbarrierClocks> mbarriers;  // CTA << 32 | address
    std::vector<Acquired> acquired;
    std::vector<Published> fence_releases;             // by thread: at its last fence
    std::vector<std::vector<Published>> relaxed_reads;  // by thread: acquired by its next fence
    uint32_t random = 12345;

    std::vector<Site> sites;
    std::map<std::pair<const void*, int>, uint16_t> site_ids;
    struct Finding {
        std::string first;
        uint64_t times = 0;
    };
    std::map<std::string, Finding> findings;
    uint64_t found = 0;
    Counters counters;

    Clock* known_to(uint32_t thread) { return &known[size_t(thread) * agents]; }
    Clock* fenced_to(uint32_t thread) { return &fenced[size_t(thread) * agents]; }
    Agent async_agent(int slot) const { return Agent(2 * threads + uint32_t(slot)); }
};

// sites.cpp
uint16_t site_of(Checker& k, const void* pc);
uint16_t site_of(Checker& k, Loc loc);
std::string site_name(const Checker& k, uint16_t site);
std::string line_of(const void* pc);  // "file:line" of the kernel's source
void find(Checker& k, const std::string& what, const std::string& first);

// check_shared.cpp
void access_shared(Checker& k, uint32_t thread, const Cta& cta, uint32_t address, uint32_t bytes,
                   const Access& access);
void reset_cells(Checker& k);

// check_global.cpp
void access_global(Checker& k, Fiber* fiber, const void* p, uint32_t bytes, bool write, bool atomic,
                   uint16_t site);
void release_to(Checker& k, const void* p, const Published& snapshot);
Published publish(Checker& k, Fiber* fiber);
Published published_at(const void* p);
void acquire(Checker& k, Fiber* fiber, const Published& snapshot);
void forget_global_accesses();

inline uint32_t cta_index(const Checker& k, const Cta& cta) {
    return uint32_t(&cta - k.worker->ctas.data());
}

}  // namespace emu
