// Races, missing fences and uninitialised reads in shared memory, 2 bytes at a time.
#include "checker.h"

namespace emu {

constexpr uint32_t GRANULE = 2;

void reset_cells(Checker& k) {
    Worker* w = k.worker;
    uint32_t end = SHARED_BASE + w->launch->request->shared_bytes + 1024;
    if (!w->statics.empty()) end = std::max(end, w->static_end);
    k.cells.resize(w->ctas.size());
    for (auto& cells : k.cells) cells.assign(end / GRANULE + 1, SharedCell());
}

static std::string agent_name(const Checker& k, Agent agent) {
    if (agent >= 2 * k.threads) return "an asynchronous operation";
    std::string prefix = agent >= k.threads ? "cp.async of " : "";
    uint32_t thread = agent % k.threads;
    const Worker* w = k.worker;
    uint32_t per_cta = w->launch->threads;
    std::string name = prefix + "thread " + std::to_string(thread % per_cta);
    if (w->ctas.size() > 1) name += " of " + block_name(w->ctas[thread / per_cta]);
    return name;
}

struct Other {
    Agent agent;
    uint16_t site;
    bool write;
};

static void conflict(Checker& k, const char* kind, const Cta& cta, uint32_t address,
                     const Access& access, const Other& other) {
    auto verb = [](bool write) { return write ? "write at " : "read at "; };
    std::string what = std::string(kind) + ": " + verb(access.write) + site_name(k, access.site) +
                       " against " + verb(other.write) + site_name(k, other.site);
    char hex[16];
    snprintf(hex, sizeof hex, "0x%x", address);
    find(k, what, block_name(cta) + ", shared " + hex + ", " + agent_name(k, access.agent) +
                      " against " + agent_name(k, other.agent));
}

static void uninitialised(Checker& k, const Cta& cta, uint32_t address, const Access& access) {
    char hex[16];
    snprintf(hex, sizeof hex, "0x%x", address);
    find(k, "uninitialised shared memory: read at " + site_name(k, access.site),
         block_name(cta) + ", shared " + hex + ", " + agent_name(k, access.agent));
}

static void add_reader(Checker& k, SharedCell& cell, const Access& access) {
    uint32_t slot = READERS;
    for (uint32_t i = 0; i < READERS && slot == READERS; i++)
        if (cell.readers[i] == access.agent || cell.readers[i] == NOBODY) slot = i;
    if (slot == READERS) {
        k.random = k.random * 1664525 + 1013904223;
        slot = (k.random >> 16) % READERS;
    }
    cell.readers[slot] = access.agent;
    cell.read_clocks[slot] = access.clock;
    cell.read_sites[slot] = access.site;
}

static void set_writer(SharedCell& cell, const Access& access) {
    cell.writer = access.agent;
    cell.write_clock = access.clock;
    cell.write_site = access.site;
    cell.atomic = access.atomic;
    for (Agent& reader : cell.readers) reader = NOBODY;
}

static void check_writer(Checker& k, uint32_t thread, const Cta& cta, uint32_t address,
                         const SharedCell& cell, const Access& access) {
    if (cell.writer == NOBODY) {
        if (!access.write || access.atomic) uninitialised(k, cta, address, access);
        return;
    }
    if (cell.writer == access.agent || (cell.atomic && access.atomic)) return;
    Other writer{cell.writer, cell.write_site, true};
    if (cell.write_clock > k.known_to(thread)[cell.writer])
        conflict(k, "race", cta, address, access, writer);
    else if (access.asynchronous && cell.writer < 2 * k.threads &&
             cell.write_clock > k.fenced_to(thread)[cell.writer])
        conflict(k, "missing fence_proxy_async", cta, address, access, writer);
}

void access_shared(Checker& k, uint32_t thread, const Cta& cta, uint32_t address, uint32_t bytes,
                   const Access& access) {
    auto& cells = k.cells[cta_index(k, cta)];
    uint32_t last = (address + bytes - 1) / GRANULE;
    if (last >= cells.size()) cells.resize(last + 1024);  // an array seen for the first time
    for (uint32_t granule = address / GRANULE; granule <= last; granule++) {
        SharedCell& cell = cells[granule];
        check_writer(k, thread, cta, granule * GRANULE, cell, access);
        if (!access.write) {
            add_reader(k, cell, access);
            continue;
        }
        for (uint32_t i = 0; i < READERS; i++) {
            Agent reader = cell.readers[i];
            if (reader == NOBODY || reader == access.agent) continue;
            if (cell.read_clocks[i] > k.known_to(thread)[reader])
                conflict(k, "race", cta, granule * GRANULE, access,
                         {reader, cell.read_sites[i], false});
        }
        set_writer(cell, access);
    }
}

}  // namespace emu
