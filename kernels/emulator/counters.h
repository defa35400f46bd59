// Counters for a learner: what each line of a kernel asks of the memories.
//
// Shared memory has 32 banks of 4 bytes: an access takes as many wavefronts as the most visited
// bank has different words, and ideally one for every 128 bytes. Device memory moves in sectors of
// 32 bytes: ideally as many as the bytes asked for fill.
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <string>

#include "calls.h"

namespace emu {

struct Fiber;

struct Instruction {  // one warp's execution of one access
    uint32_t mask = 0;
    uint64_t addresses[32];
};

struct Cost {
    uint64_t instructions = 0, lanes = 0, wavefronts = 0, sectors = 0, ideal = 0;
    uint32_t bytes = 0;
    bool shared = false, write = false, matrix = false;
};

// A place in the kernel: a call's, or with line 0 an instrumented access' program counter.
using CountedPlace = std::pair<const void*, int>;

struct Counters {
    // Lanes come one after another: instructions that still miss lanes, by warp and place.
    struct Pending {
        std::deque<Instruction> instructions;
        uint64_t first = 0, seen[32] = {};
        uint32_t bytes = 0;
        bool shared = false, write = false;
    };
    std::map<std::pair<uint32_t, CountedPlace>, Pending> pending;
    std::map<CountedPlace, Cost> costs;
    Instruction rows;  // of ldmatrix
};

void count_access(Counters& counters, const Fiber& fiber, CountedPlace place, uint64_t address,
                  uint32_t bytes, bool write, bool shared);
void count_access(Counters& counters, const Fiber& fiber, Loc loc, uint64_t address,
                  uint32_t bytes, bool write, bool shared);
void count_matrix_row(Counters& counters, uint32_t address, int row, bool write, Loc loc);
// Adds to the table that emu_counters prints.
void collect_counters(Counters& counters);

}  // namespace emu
