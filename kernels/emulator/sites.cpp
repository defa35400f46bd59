// Places in a kernel, for reports: a call knows its file and line; an instrumented access has a
// program counter, which addr2line turns into them.
#include <dlfcn.h>

#include "checker.h"

namespace emu {

static uint16_t add_site(Checker& k, std::pair<const void*, int> key, Site site) {
    auto [entry, added] = k.site_ids.try_emplace(key, uint16_t(k.sites.size()));
    if (added) k.sites.push_back(site);
    return entry->second;
}

uint16_t site_of(Checker& k, const void* pc) { return add_site(k, {pc, 0}, {pc, {}}); }

uint16_t site_of(Checker& k, Loc loc) { return add_site(k, {loc.file, loc.line}, {nullptr, loc}); }

// Of the inlined frames, innermost first, the first in a kernel's own file; else the outermost.
static std::string kernel_frame(FILE* frames) {
    char line[1024];
    std::string last = "?";
    while (fgets(line, sizeof line, frames)) {
        std::string frame = line;
        frame.resize(frame.find_first_of(" \n"));
        last = base_name(frame.c_str());
        if (frame.find(".cu:") != frame.npos) break;
    }
    return last;
}

std::string line_of(const void* pc) {
    static std::map<const void*, std::string> known;
    auto [entry, added] = known.try_emplace(pc, "?");
    if (!added) return entry->second;
    Dl_info object{};
    if (!dladdr(const_cast<void*>(pc), &object) || !object.dli_fname) return entry->second;
    size_t offset = uintptr_t(pc) - 1 - uintptr_t(object.dli_fbase);
    char command[1024];
    snprintf(command, sizeof command, "addr2line -i -e '%s' 0x%zx 2>/dev/null", object.dli_fname,
             offset);
    if (FILE* frames = popen(command, "r")) {
        entry->second = kernel_frame(frames);
        pclose(frames);
    }
    if (entry->second == "?") {  // no addr2line, or no debug information
        snprintf(command, sizeof command, "%s+0x%zx", base_name(object.dli_fname), offset);
        entry->second = command;
    }
    return entry->second;
}

std::string site_name(const Checker& k, uint16_t site) {
    const Site& place = k.sites[site];
    if (place.pc) return line_of(place.pc);
    return base_name(place.loc.file) + (":" + std::to_string(place.loc.line));
}

void find(Checker& k, const std::string& what, const std::string& first) {
    auto& finding = k.findings[what];
    if (!finding.times++) finding.first = first;
    if (++k.found < MAX_FINDINGS) return;
    record_failure(k.worker, "check: stopped after " + std::to_string(MAX_FINDINGS) + " findings");
    leave_fibers(k.worker);
}

}  // namespace emu
