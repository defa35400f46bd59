// What the runtime tells the checker (check.cpp): who accesses what, who waits for whom.
//
// All of it is called only where the worker has a checker.
#pragma once
#include "runtime.h"

namespace emu {

void check_start_launch();
void check_start_worker(Worker* w);
void check_end_worker(Worker* w);
void check_start_gang(Worker* w);

// Accesses of a thread, by the thread itself or by a unit that works for it.
void check_thread_access(Worker* w, Fiber* fiber, Cta* cta, uint32_t address, uint32_t bytes,
                         bool write, Loc loc);
void check_matrix_row(Worker* w, Fiber* lane, uint32_t address, int row, bool write, Loc loc);
void check_cp_async(Worker* w, Fiber* fiber, uint32_t address, uint32_t bytes, const void* global,
                    uint32_t source_bytes, Loc loc);
void check_cp_async_wait(Worker* w, Fiber* fiber, uint32_t pending);
// Asynchronous units are agents of their own, joined by those who wait for them.
int check_async_begin(Worker* w);
void check_async_access(Worker* w, int agent, Fiber* issuer, Cta* cta, uint32_t address,
                        uint32_t bytes, bool write, Loc loc);
int check_bulk(Worker* w, Fiber* issuer, const Bulk& bulk);
void check_join(Worker* w, Fiber* fiber, int agent);

// Synchronisation.
void check_warp_sync(Worker* w, Fiber* warp, uint32_t mask);
void check_barrier_arrive(Worker* w, Cta* cta, int id, Fiber* fiber);
void check_barrier_complete(Worker* w, Cta* cta, int id, const std::vector<Fiber*>& waiting,
                            Fiber* last);
void check_cluster_arrive(Worker* w, Cluster* cluster, Fiber* fiber);
void check_cluster_complete(Worker* w, Cluster* cluster);
void check_cluster_acquire(Worker* w, Cluster* cluster, Fiber* fiber);
void check_mbarrier_init(Worker* w, Cta* cta, uint32_t address, Loc loc);
void check_mbarrier_use(Worker* w, Cta* cta, uint32_t address, bool by_tma, Loc loc);
void check_mbarrier_arrive(Worker* w, Cta* cta, uint32_t address, Fiber* fiber);
void check_mbarrier_complete(Worker* w, Cta* cta, uint32_t address, int agent);
void check_mbarrier_phase(Worker* w, Cta* cta, uint32_t address, uint32_t parity);
void check_mbarrier_acquire(Worker* w, Cta* cta, uint32_t address, Fiber* fiber, uint32_t parity);
void check_fence_mbarrier_init(Worker* w, Fiber* fiber);
void check_fence_proxy(Worker* w, Fiber* fiber);
void check_fence(Worker* w, Fiber* fiber);
void check_atomic_before(Worker* w, const void* p, uint32_t bytes, Order order, bool write,
                         Loc loc);
void check_atomic_after(Worker* w, const void* p, Order order, bool write);

}  // namespace emu
