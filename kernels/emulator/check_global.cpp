// Races and strays in device memory within one launch.
//
// Two CTAs are ordered by nothing but a release of one that the other acquired, which is remembered
// as snapshots of clocks; threads of one gang also by its barriers. Checked launches have one
// worker, so nothing here is locked.
#include "checker.h"

namespace emu {

constexpr uintptr_t GRANULE = 2, PAGE = 4096;
constexpr size_t MAX_PAGES = 16384;  // kept from launch to launch
constexpr uint32_t NEVER = 0xffffffff;

struct GlobalAccess {
    uint32_t cta = NEVER;
    Clock clock = 0;
    uint16_t thread = 0, site = 0;
    bool atomic = false;
};

struct GlobalCell {
    // Readers: the last one, and the last from another CTA than that.
    GlobalAccess write, reads[2];
};

struct Page {
    uint32_t launch = 0;
    GlobalCell cells[PAGE / GRANULE];
};

static std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
static std::unordered_map<uintptr_t, Published> synchronised;  // by address of the word
static uint32_t launches;
static uintptr_t last_number;  // a neighbour is most often asked for
static Page* last_page;

void forget_global_accesses() {
    launches++;
    last_page = nullptr;
    synchronised.clear();
    if (pages.size() > MAX_PAGES) pages.clear();
}

static GlobalCell& cell_at(uintptr_t address) {
    uintptr_t number = address / PAGE;
    if (number != last_number || !last_page) {
        auto& page = pages[number];
        if (!page || page->launch != launches) {
            page = std::make_unique<Page>();
            page->launch = launches;
        }
        last_number = number;
        last_page = page.get();
    }
    return last_page->cells[address % PAGE / GRANULE];
}

// ------------------------------------------------------------------ release and acquire

static void merge(Snapshot& to, const Snapshot& from) {
    for (auto& [cta, clocks] : from.ctas) {
        auto& mine = to.ctas[cta];
        if (!mine || mine == clocks) {
            mine = clocks;
            continue;
        }
        auto both = std::make_shared<std::vector<Clock>>(*mine);
        for (size_t i = 0; i < both->size(); i++) (*both)[i] = std::max((*both)[i], (*clocks)[i]);
        mine = both;
    }
}

Published publish(Checker& k, Fiber* fiber) {
    auto snapshot = std::make_shared<Snapshot>();
    uint32_t own = fiber->gang_index, per_cta = k.worker->launch->threads;
    for (auto& event : k.acquired)
        if (event.clock <= k.known_to(own)[event.thread]) merge(*snapshot, *event.snapshot);
    Snapshot gang;
    for (auto& cta : k.worker->ctas) {
        const Clock* clocks = k.known_to(own) + cta_index(k, cta) * per_cta;
        gang.ctas[cta.linear] = std::make_shared<std::vector<Clock>>(clocks, clocks + per_cta);
    }
    merge(*snapshot, gang);
    k.known_to(own)[own]++;
    return snapshot;
}

void release_to(Checker&, const void* p, const Published& snapshot) {
    auto& word = synchronised[uintptr_t(p)];
    if (!word) {
        word = snapshot;
        return;
    }
    auto both = std::make_shared<Snapshot>(*word);
    merge(*both, *snapshot);
    word = both;
}

Published published_at(const void* p) {
    auto found = synchronised.find(uintptr_t(p));
    return found == synchronised.end() ? nullptr : found->second;
}

void acquire(Checker& k, Fiber* fiber, const Published& snapshot) {
    uint32_t own = fiber->gang_index, per_cta = k.worker->launch->threads;
    for (auto event = k.acquired.rbegin(); event != k.acquired.rend(); ++event)
        if (event->thread == own && event->snapshot == snapshot) return;
    Clock* known = k.known_to(own);
    for (auto& cta : k.worker->ctas) {
        auto found = snapshot->ctas.find(cta.linear);
        if (found == snapshot->ctas.end()) continue;
        Clock* threads = known + cta_index(k, cta) * per_cta;
        for (uint32_t i = 0; i < per_cta; i++)
            threads[i] = std::max(threads[i], (*found->second)[i]);
    }
    k.acquired.push_back({own, known[own], snapshot});
}

// ------------------------------------------------------------------ accesses

static const Cta* cta_of_gang(const Checker& k, uint32_t linear) {
    for (auto& cta : k.worker->ctas)
        if (cta.linear == linear) return &cta;
    return nullptr;
}

static bool happened_before(Checker& k, const GlobalAccess& earlier, Fiber* fiber) {
    const Clock* known = k.known_to(fiber->gang_index);
    if (const Cta* cta = cta_of_gang(k, earlier.cta)) {
        uint32_t thread = cta_index(k, *cta) * k.worker->launch->threads + earlier.thread;
        return earlier.clock <= known[thread];
    }
    for (auto& event : k.acquired) {
        if (event.clock > known[event.thread]) continue;
        auto found = event.snapshot->ctas.find(earlier.cta);
        if (found != event.snapshot->ctas.end() &&
            earlier.clock <= (*found->second)[earlier.thread])
            return true;
    }
    return false;
}

static std::string where_in(const Buffer& buffer, uintptr_t address) {
    char text[64];
    snprintf(text, sizeof text, " byte %lld of %llu", (long long)(address - buffer.begin),
             (unsigned long long)(buffer.end - buffer.begin));
    return "buffer '" + buffer.label + "'" + text;
}

static void conflict(Checker& k, Fiber* fiber, const Buffer& buffer, uintptr_t address, bool write,
                     uint16_t site, const GlobalAccess& other, bool other_writes) {
    bool same = other.cta == fiber->cta->linear;
    auto verb = [](bool write) { return write ? "write at " : "read at "; };
    std::string what = std::string(same ? "race in global memory: " : "race between blocks: ") +
                       verb(write) + site_name(k, site) + " against " + verb(other_writes) +
                       site_name(k, other.site);
    std::string first = where_in(buffer, address) + ", " + block_name(*fiber->cta) + " thread " +
                        std::to_string(fiber->index) + " against ";
    if (!same) first += "block " + std::to_string(other.cta) + " ";
    find(k, what, first + "thread " + std::to_string(other.thread));
}

void access_global(Checker& k, Fiber* fiber, const void* p, uint32_t bytes, bool write, bool atomic,
                   uint16_t site) {
    const Buffer* buffer = find_buffer(p);
    if (!buffer) return;  // no device memory: arguments, the host's tables
    auto address = uintptr_t(p);
    if (address < buffer->begin || address + bytes > buffer->end) {
        find(k, std::string("out of bounds: ") + (write ? "write at " : "read at ") +
                    site_name(k, site),
             where_in(*buffer, address) + ", " + block_name(*fiber->cta) + " thread " +
                 std::to_string(fiber->index));
        return;
    }
    if (k.worker->launch->request->overlaps && !fiber->earlier_awaited)
        find(k, std::string("before the kernels before have ended: ") +
                    (write ? "write at " : "read at ") + site_name(k, site),
             where_in(*buffer, address));
    if (bytes == 1) return;  // two bytes share a granule: neighbours would seem to race
    GlobalAccess now{fiber->cta->linear, k.known_to(fiber->gang_index)[fiber->gang_index],
                     uint16_t(fiber->index), site, atomic};
    for (uintptr_t at = address; at < address + bytes; at += GRANULE) {
        GlobalCell& cell = cell_at(at);
        auto races = [&](const GlobalAccess& other) {
            bool own = other.cta == now.cta && other.thread == now.thread;
            return other.cta != NEVER && !own && !(atomic && other.atomic) &&
                   !happened_before(k, other, fiber);
        };
        if (races(cell.write)) conflict(k, fiber, *buffer, at, write, site, cell.write, true);
        if (write) {
            for (auto& read : cell.reads)
                if (races(read)) conflict(k, fiber, *buffer, at, true, site, read, false);
            cell.write = now;
            cell.reads[0] = cell.reads[1] = GlobalAccess();
        } else {
            if (cell.reads[0].cta != now.cta) cell.reads[1] = cell.reads[0];
            cell.reads[0] = now;
        }
    }
}

}  // namespace emu
