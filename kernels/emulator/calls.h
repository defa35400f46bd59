// What emulated kernels call: the runtime's side of threads, barriers, copies and matrix units.
//
// Kernels never include this file; <ptx/…> does. Every call that can fail, wait or race takes the
// place in the kernel that made it (`EMU_LOC`), so that a report names the kernel's line.
#pragma once
#include <cstddef>
#include <cstdint>

#include "vectors.h"

namespace emu {

struct Loc {
    const char* file;
    int line;
    static constexpr Loc here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
        return {file, line};
    }
    bool operator==(const Loc& other) const { return line == other.line && file == other.file; }
    bool operator!=(const Loc& other) const { return !(*this == other); }
};
#define EMU_LOC ::emu::Loc loc = ::emu::Loc::here()

// threadIdx and its kin. One a worker; the scheduler rewrites it when it switches threads.
struct Place {
    uint3 thread, block;
    dim3 block_dim, grid_dim, cluster_dim;
    uint32_t lane, cluster_rank;
};
// initial-exec: one load, even in a library that was opened at run time.
extern __thread Place* place __attribute__((tls_model("initial-exec")));

[[noreturn]] __attribute__((format(printf, 2, 3))) void fail(Loc loc, const char* format, ...);

// Lanes of `mask` deposit their arguments; the last to come runs `finish` for all of them.
using Finish = void (*)(void** arguments, uint32_t mask);
enum class Collective : uint8_t { Sync, Shuffle, Vote, Reduce, Match, Ldmatrix, Stmatrix, Mma };
void warp_collective(uint32_t mask, Collective kind, void* argument, Finish finish, Loc loc);

constexpr int WHOLE_CTA = -1;
void barrier_sync(int id, int threads, Loc loc);
void barrier_arrive(int id, int threads, Loc loc);
void earlier_kernels_awaited();
void cluster_arrive(Loc loc);
void cluster_wait(Loc loc);

// Shared memory: a window of addresses from 0 for each CTA; the CTA's rank + 1 stands in the bits
// from 24 up in an address that `mapa` made.
void* dynamic_shared();
void* static_shared(const void* key, size_t bytes, size_t align);
uint32_t shared_address(const void* pointer);
uint32_t cluster_address(uint32_t address, uint32_t rank, Loc loc);
void load_remote(void* value, uint32_t address, uint32_t bytes, Loc loc);
void store_remote(uint32_t address, const void* value, uint32_t bytes, Loc loc);

// Atomics: an operand and a result of `bytes` (4 or 8) in the low bits.
enum class Rmw : uint8_t {
    Add, AddFloat, Min, MinSigned, Max, MaxSigned, Exchange, Compare, And, Or
};
enum class Order : uint8_t { Relaxed, Acquire, Release, AcquireRelease };
uint64_t atomic(void* p, int bytes, Rmw op, uint64_t operand, uint64_t compare, Order order,
                Loc loc);
uint64_t load_atomic(const void* p, int bytes, Order order, Loc loc);
void store_atomic(void* p, int bytes, uint64_t value, Order order, Loc loc);
void fence(Loc loc);
void yield(Loc loc);

// Asynchronous copies.
void cp_async(void* shared, const void* global, uint32_t bytes, uint32_t source_bytes, Loc loc);
void cp_async_commit();
void cp_async_wait(uint32_t pending);

// Barriers in shared memory, by shared or cluster address.
void mbarrier_init(uint32_t address, uint32_t count, Loc loc);
void mbarrier_invalidate(uint32_t address, Loc loc);
void mbarrier_arrive(uint32_t address, uint32_t count, Loc loc);
void mbarrier_expect_tx(uint32_t address, uint32_t bytes, Loc loc);
void mbarrier_wait(uint32_t address, uint32_t parity, Loc loc);
bool mbarrier_try_wait(uint32_t address, uint32_t parity, Loc loc);
void fence_mbarrier_init(Loc loc);
void fence_proxy_async(Loc loc);

// TMA. `cta_mask` 0 means this CTA alone.
struct TensorMap;
void tma_load(uint32_t shared, const void* map, uint32_t barrier, const int* coordinates, int rank,
              uint16_t cta_mask, Loc loc);
void tma_store(const void* map, uint32_t shared, const int* coordinates, int rank, bool add,
               Loc loc);
void tma_prefetch(const void* map, Loc loc);
void bulk_load(uint32_t shared, const void* global, uint32_t bytes, uint32_t barrier,
               uint16_t cta_mask, Loc loc);
void bulk_store(void* global, uint32_t shared, uint32_t bytes, bool add_float, Loc loc);
void bulk_commit();
void bulk_wait(uint32_t pending, bool read_only, Loc loc);

// Matrix units.
void ldmatrix(uint32_t* registers, int matrices, bool transposed, uint32_t address, Loc loc);
void stmatrix(const uint32_t* registers, int matrices, bool transposed, uint32_t address, Loc loc);
void mma_m16n8k16(float* d, const uint32_t* a, const uint32_t* b, Loc loc);
struct WgmmaShape {
    int n;
    bool accumulate, transposed_a, transposed_b;
};
// `a` is null where A comes from shared memory by `descriptor_a`.
void wgmma(float* d, WgmmaShape shape, const uint32_t* a, uint64_t descriptor_a,
           uint64_t descriptor_b, Loc loc);
void wgmma_fence(Loc loc);
void wgmma_commit(Loc loc);
void wgmma_wait(uint32_t pending, Loc loc);

}  // namespace emu
