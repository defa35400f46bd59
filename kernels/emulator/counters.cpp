// Bank conflicts and memory sectors by source line. counters.h says what is counted.
#include "counters.h"

#include <algorithm>
#include <set>

#include "checker.h"

namespace emu {

constexpr uint32_t BANKS = 32, BANK_BYTES = 4, SECTOR = 32;

// Accesses of more than 4 bytes are served in groups of lanes that ask for 128 bytes together.
static void add_wavefronts(Cost& cost, const Instruction& instruction) {
    uint32_t group = cost.bytes <= BANK_BYTES ? 32 : 128 / cost.bytes;
    for (uint32_t first = 0; first < 32; first += group) {
        std::set<uint64_t> words[BANKS];
        bool any = false;
        for (uint32_t lane = first; lane < first + group; lane++) {
            if (!(instruction.mask >> lane & 1)) continue;
            any = true;
            uint64_t begin = instruction.addresses[lane] / BANK_BYTES;
            uint64_t end = (instruction.addresses[lane] + cost.bytes - 1) / BANK_BYTES;
            for (uint64_t word = begin; word <= end; word++) words[word % BANKS].insert(word);
        }
        if (!any) continue;
        size_t most = 0;
        for (auto& bank : words) most = std::max(most, bank.size());
        cost.wavefronts += most;
        cost.ideal++;
    }
}

static void add_sectors(Cost& cost, const Instruction& instruction) {
    std::set<uint64_t> sectors;
    uint64_t lanes = 0;
    for (uint32_t lane = 0; lane < 32; lane++) {
        if (!(instruction.mask >> lane & 1)) continue;
        lanes++;
        uint64_t begin = instruction.addresses[lane] / SECTOR;
        uint64_t end = (instruction.addresses[lane] + cost.bytes - 1) / SECTOR;
        for (uint64_t sector = begin; sector <= end; sector++) sectors.insert(sector);
    }
    cost.sectors += sectors.size();
    cost.ideal += (lanes * cost.bytes + SECTOR - 1) / SECTOR;
}

static void add_instruction(Cost& cost, const Instruction& instruction) {
    cost.instructions++;
    cost.lanes += uint64_t(__builtin_popcount(instruction.mask));
    if (cost.shared) add_wavefronts(cost, instruction);
    else add_sectors(cost, instruction);
}

static Cost& cost_of(Counters& counters, CountedPlace place, const Counters::Pending& pending) {
    Cost& cost = counters.costs[place];
    cost.bytes = pending.bytes;
    cost.shared = pending.shared;
    cost.write = pending.write;
    return cost;
}

void count_access(Counters& counters, const Fiber& fiber, CountedPlace place, uint64_t address,
                  uint32_t bytes, bool write, bool shared) {
    auto& pending = counters.pending[{fiber.gang_index / 32, place}];
    pending.bytes = bytes;
    pending.write = write;
    pending.shared = shared;
    uint64_t number = pending.seen[fiber.lane]++;  // this lane's n-th time here
    if (number < pending.first) return;
    if (number - pending.first >= pending.instructions.size())
        pending.instructions.resize(number - pending.first + 1);
    Instruction& instruction = pending.instructions[number - pending.first];
    instruction.mask |= 1u << fiber.lane;
    instruction.addresses[fiber.lane] = address;
    while (!pending.instructions.empty() && pending.instructions.front().mask == ~0u) {
        add_instruction(cost_of(counters, place, pending), pending.instructions.front());
        pending.instructions.pop_front();
        pending.first++;
    }
}

// The two sides of a cp.async share a place, so the shared one is kept under the next address.
void count_access(Counters& counters, const Fiber& fiber, Loc loc, uint64_t address,
                  uint32_t bytes, bool write, bool shared) {
    count_access(counters, fiber, CountedPlace(loc.file + shared, loc.line), address, bytes, write,
                 shared);
}

void count_matrix_row(Counters& counters, uint32_t address, int row, bool write, Loc loc) {
    Instruction& rows = counters.rows;
    if (row == 0) rows.mask = 0;
    rows.mask |= 1u << row;
    rows.addresses[row] = address;
    if (row < 7) return;
    Cost& cost = counters.costs[CountedPlace(loc.file + 1, loc.line)];
    cost.bytes = 16;
    cost.shared = cost.matrix = true;
    cost.write = write;
    add_instruction(cost, rows);
}

// ------------------------------------------------------------------ the table

static std::map<std::string, Cost> table;

static std::string title(CountedPlace place, const Cost& cost) {
    std::string name;
    if (place.second) {
        auto* file = static_cast<const char*>(place.first) - (cost.shared ? 1 : 0);
        name = base_name(file) + (":" + std::to_string(place.second));
    } else {
        name = line_of(place.first);
    }
    name += cost.shared ? " shared " : " global ";
    if (cost.matrix) return name + (cost.write ? "stmatrix" : "ldmatrix");
    return name + (cost.write ? "store " : "load ") + std::to_string(cost.bytes) + " B";
}

void collect_counters(Counters& counters) {
    for (auto& [key, pending] : counters.pending)
        for (auto& instruction : pending.instructions)
            if (instruction.mask)
                add_instruction(cost_of(counters, key.second, pending), instruction);
    for (auto& [place, cost] : counters.costs) {
        Cost& sum = table[title(place, cost)];
        sum.shared = cost.shared;
        sum.instructions += cost.instructions;
        sum.lanes += cost.lanes;
        sum.wavefronts += cost.wavefronts;
        sum.sectors += cost.sectors;
        sum.ideal += cost.ideal;
    }
}

extern "C" const char* emu_counters(void) {
    static std::string text;
    text.clear();
    if (!table.empty()) {
        char line[200];
        snprintf(line, sizeof line, "%-44s %9s %6s %22s %7s %6s\n", "line and access", "warp ops",
                 "lanes", "unit", "count", "/ideal");
        text += line;
        for (auto& [name, cost] : table) {
            uint64_t count = cost.shared ? cost.wavefronts : cost.sectors;
            snprintf(line, sizeof line, "%-44s %9llu %6.1f %22s %7llu %6.2f\n", name.c_str(),
                     (unsigned long long)cost.instructions,
                     double(cost.lanes) / double(cost.instructions),
                     cost.shared ? "wavefronts" : "32-byte sectors", (unsigned long long)count,
                     double(count) / double(std::max<uint64_t>(cost.ideal, 1)));
            text += line;
        }
    }
    table.clear();
    return text.c_str();
}

}  // namespace emu
