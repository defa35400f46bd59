// TMA: tiles by tensor map, runs of bytes, stores and additions.
//
// A load completes on an mbarrier: at once, or in lazy mode when no thread can go on without it,
// its destination poisoned until then. A store belongs to its thread's bulk groups; in lazy mode
// it reads its source when the group is waited for.
#include <algorithm>

#include "check.h"
#include "runtime.h"

namespace emu {

// The 16-byte chunks of a row are permuted by address bits 7 to 9.
uint32_t swizzled(uint32_t address, uint32_t swizzle_bytes) {
    uint32_t mask = swizzle_bytes ? swizzle_bytes / 16 - 1 : 0;
    return address ^ (address >> 7 & mask) << 4;
}

static uint32_t box_bytes(const TensorMap& map) {
    uint32_t bytes = map.element_bytes;
    for (int i = 0; i < map.rank; i++) bytes *= map.box[i];
    return bytes;
}

static uint16_t as_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return uint16_t((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

static float from_bf16(uint16_t half) {
    uint32_t bits = uint32_t(half) << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// global += shared, one element: fp32, or bf16 where an element has two bytes. Other workers may
// add to the same element.
static void add_element(char* global, const unsigned char* shared, uint32_t element_bytes) {
    if (element_bytes == 4) {
        uint32_t operand, old = __atomic_load_n(reinterpret_cast<uint32_t*>(global),
                                                __ATOMIC_RELAXED), sum;
        memcpy(&operand, shared, 4);
        do {
            float a, b;
            memcpy(&a, &old, 4);
            memcpy(&b, &operand, 4);
            a += b;
            memcpy(&sum, &a, 4);
        } while (!__atomic_compare_exchange_n(reinterpret_cast<uint32_t*>(global), &old, sum, false,
                                              __ATOMIC_RELAXED, __ATOMIC_RELAXED));
        return;
    }
    uint16_t operand, old = __atomic_load_n(reinterpret_cast<uint16_t*>(global), __ATOMIC_RELAXED);
    memcpy(&operand, shared, 2);
    while (!__atomic_compare_exchange_n(reinterpret_cast<uint16_t*>(global), &old,
                                        as_bf16(from_bf16(old) + from_bf16(operand)), false,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

static void move(const Bulk& bulk, char* global, unsigned char* shared, uint32_t bytes,
                 uint32_t element_bytes) {
    switch (bulk.kind) {
        case Bulk::Kind::Load: memcpy(shared, global, bytes); break;
        case Bulk::Kind::Store: memcpy(global, shared, bytes); break;
        case Bulk::Kind::Add:
            for (uint32_t at = 0; at < bytes; at += element_bytes)
                add_element(global + at, shared + at, element_bytes);
    }
}

// One row of the box, chunk by chunk: what lies outside the tensor reads as zero and is not
// written.
static void run_row(const Bulk& bulk, uint32_t row_address, char* global_row) {
    const TensorMap& map = bulk.map;
    uint32_t element = map.element_bytes, row_bytes = map.box[0] * element;
    for (uint32_t at = 0; at < row_bytes; at += element) {
        unsigned char* shared = bulk.cta->shared + swizzled(row_address + at, map.swizzle);
        int64_t x = int64_t(bulk.coordinates[0]) + at / element;
        bool inside = global_row && x >= 0 && x < int64_t(map.dims[0]);
        uint32_t chunk = element;
        bool whole = inside && at % 16 == 0 && x + 16 / int64_t(element) <= int64_t(map.dims[0]);
        if (whole) chunk = 16;
        if (inside) move(bulk, global_row + x * int64_t(element), shared, chunk, element);
        else if (bulk.kind == Bulk::Kind::Load) memset(shared, 0, chunk);
        at += chunk - element;
    }
}

// Where row `row` of the box begins at coordinate 0, or null outside the tensor.
static char* global_row(const Bulk& bulk, uint32_t row) {
    const TensorMap& map = bulk.map;
    bool inside = true;
    char* global = map.base;
    for (int i = 1; i < map.rank; i++) {
        int64_t at = int64_t(bulk.coordinates[i]) + row % map.box[i];
        row /= map.box[i];
        inside &= at >= 0 && at < int64_t(map.dims[i]);
        global += at * int64_t(map.strides[i - 1]);
    }
    return inside ? global : nullptr;
}

static void run_bulk(const Bulk& bulk) {
    if (!bulk.tiled) {
        move(bulk, bulk.global, bulk.cta->shared + bulk.shared, bulk.bytes, 4);
        return;
    }
    uint32_t row_bytes = bulk.map.box[0] * bulk.map.element_bytes;
    for (uint32_t row = 0; row < bulk.bytes / row_bytes; row++)
        run_row(bulk, bulk.shared + row * row_bytes, global_row(bulk, row));
}

void for_global_runs(const Bulk& bulk, const std::function<void(const void*, uint32_t)>& each) {
    if (!bulk.tiled) {
        each(bulk.global, bulk.bytes);
        return;
    }
    const TensorMap& map = bulk.map;
    uint32_t rows = bulk.bytes / (map.box[0] * map.element_bytes);
    int64_t first = std::max(bulk.coordinates[0], 0);
    int64_t last = std::min(int64_t(bulk.coordinates[0]) + map.box[0], int64_t(map.dims[0]));
    for (uint32_t row = 0; row < rows && first < last; row++)
        if (char* global = global_row(bulk, row))
            each(global + first * map.element_bytes, uint32_t(last - first) * map.element_bytes);
}

static const TensorMap& tensor_map(const void* map, int rank, const char* what, Loc loc) {
    auto* tensor = static_cast<const TensorMap*>(map);
    if (uintptr_t(map) % 64) fail(loc, "%s: the tensor map is not 64-byte aligned", what);
    if (tensor->magic != TENSOR_MAP_MAGIC) fail(loc, "%s: not a tensor map", what);
    if (rank && tensor->rank != rank)
        fail(loc, "%s: %d coordinates for a map of %u dimensions", what, rank, tensor->rank);
    return *tensor;
}

static Bulk tile(Bulk::Kind kind, const void* map, const int* coordinates, int rank, Cta* cta,
                 uint32_t shared, const char* what, Loc loc) {
    Bulk bulk{};
    bulk.kind = kind;
    bulk.tiled = true;
    bulk.map = tensor_map(map, rank, what, loc);
    for (int i = 0; i < rank; i++) bulk.coordinates[i] = coordinates[i];
    bulk.bytes = box_bytes(bulk.map);
    bulk.cta = cta;
    bulk.shared = shared;
    bulk.loc = loc;
    uint32_t swizzle = bulk.map.swizzle;
    if (shared % 128) fail(loc, "%s: shared 0x%x is not 128-byte aligned", what, shared);
    if (swizzle && shared % (swizzle * 8))
        fail(loc, "%s: shared 0x%x is not aligned to the %u bytes after which the %u-byte swizzle "
             "repeats: the pattern would be shifted", what, shared, swizzle * 8, swizzle);
    check_shared(cta, shared, bulk.bytes, loc, what);
    return bulk;
}

static Bulk run_of_bytes(Bulk::Kind kind, const void* global, uint32_t bytes, Cta* cta,
                         uint32_t shared, const char* what, Loc loc) {
    Bulk bulk{};
    bulk.kind = kind;
    bulk.global = static_cast<char*>(const_cast<void*>(global));
    bulk.bytes = bytes;
    bulk.cta = cta;
    bulk.shared = shared;
    bulk.loc = loc;
    if (shared % 16 || uintptr_t(global) % 16 || bytes % 16)
        fail(loc, "%s: shared 0x%x, global %p and %u bytes must be multiples of 16", what, shared,
             global, bytes);
    check_shared(cta, shared, bytes, loc, what);
    return bulk;
}

// ------------------------------------------------------------------ loads

static void finish_load(Worker* w, const Bulk& bulk) {
    run_bulk(bulk);
    mbarrier_complete_tx(w, bulk.barrier_cta, bulk.barrier, bulk.bytes, bulk.agent, bulk.loc);
}

static void start_load(Bulk bulk, Cta* barrier_cta, uint32_t barrier, const char* what) {
    Worker* w = worker;
    require_mbarrier(barrier_cta, barrier, bulk.loc, what, true);
    bulk.barrier_cta = barrier_cta;
    bulk.barrier = barrier;
    if (w->checker) bulk.agent = check_bulk(w, w->current, bulk);
    if (!lazy(w)) {
        finish_load(w, bulk);
        return;
    }
    memset(bulk.cta->shared + bulk.shared, POISON, bulk.bytes);
    w->loads.push_back(bulk);
}

// Calls `each` with the CTAs that a load reaches: those of the mask, at the same offsets in each.
template <class Each>
static void for_destinations(uint32_t shared, uint16_t cta_mask, Loc loc, const char* what,
                             Each each) {
    Cta* own = worker->current->cta;
    if (!cta_mask) {
        auto [cta, offset] = resolve(shared, loc, what);
        each(cta, offset);
        return;
    }
    uint32_t ctas = worker->launch->cluster_size;
    if (cta_mask >> ctas) fail(loc, "%s: mask %x in a cluster of %u blocks", what, cta_mask, ctas);
    for (uint32_t rank = 0; rank < ctas; rank++) {
        if (!(cta_mask >> rank & 1)) continue;
        Cta* cta = own->cluster_ctas + rank;
        if (!cta->live) fail(loc, "%s: the block of rank %u has exited", what, rank);
        each(cta, shared);
    }
}

void tma_load(uint32_t shared, const void* map, uint32_t barrier, const int* coordinates, int rank,
              uint16_t cta_mask, Loc loc) {
    const char* what = "TMA load";
    for_destinations(shared, cta_mask, loc, what, [&](Cta* cta, uint32_t offset) {
        auto [barrier_cta, barrier_offset] = resolve(barrier, loc, what);
        if (cta_mask) barrier_cta = cta;
        start_load(tile(Bulk::Kind::Load, map, coordinates, rank, cta, offset, what, loc),
                   barrier_cta, barrier_offset, what);
    });
}

void bulk_load(uint32_t shared, const void* global, uint32_t bytes, uint32_t barrier,
               uint16_t cta_mask, Loc loc) {
    const char* what = "bulk load";
    for_destinations(shared, cta_mask, loc, what, [&](Cta* cta, uint32_t offset) {
        auto [barrier_cta, barrier_offset] = resolve(barrier, loc, what);
        if (cta_mask) barrier_cta = cta;
        start_load(run_of_bytes(Bulk::Kind::Load, global, bytes, cta, offset, what, loc),
                   barrier_cta, barrier_offset, what);
    });
}

bool complete_a_load(Worker* w) {
    if (w->loads.empty()) return false;
    size_t pick = 0;
    if (w->launch->modes.order == 1) pick = w->loads.size() - 1;
    if (w->launch->modes.order == 2) {
        w->random = w->random * 6364136223846793005u + 1442695040888963407u;
        pick = (w->random >> 33) % w->loads.size();
    }
    Bulk bulk = w->loads[pick];
    w->loads.erase(w->loads.begin() + ptrdiff_t(pick));
    finish_load(w, bulk);
    return true;
}

void tma_prefetch(const void* map, Loc loc) { tensor_map(map, 0, "prefetch.tensormap", loc); }

// ------------------------------------------------------------------ stores

static void start_store(Bulk bulk) {
    Worker* w = worker;
    if (w->checker) bulk.agent = check_bulk(w, w->current, bulk);
    if (!lazy(w)) run_bulk(bulk);
    w->current->stores.push_back(bulk);
}

void tma_store(const void* map, uint32_t shared, const int* coordinates, int rank, bool add,
               Loc loc) {
    auto kind = add ? Bulk::Kind::Add : Bulk::Kind::Store;
    const char* what = add ? "TMA reduce-add" : "TMA store";
    start_store(tile(kind, map, coordinates, rank, worker->current->cta, shared, what, loc));
}

void bulk_store(void* global, uint32_t shared, uint32_t bytes, bool add_float, Loc loc) {
    auto kind = add_float ? Bulk::Kind::Add : Bulk::Kind::Store;
    const char* what = add_float ? "bulk reduce-add" : "bulk store";
    start_store(run_of_bytes(kind, global, bytes, worker->current->cta, shared, what, loc));
}

void bulk_commit() {
    Fiber* fiber = worker->current;
    fiber->store_groups.push_back(fiber->stores.size());
}

void bulk_wait(uint32_t pending, bool read_only, Loc loc) {
    (void)loc, (void)read_only;  // in lazy mode, reading and writing are one late step
    Worker* w = worker;
    Fiber* fiber = w->current;
    auto& groups = fiber->store_groups;
    if (groups.size() <= pending) return;
    size_t complete = groups.size() - pending, stores = groups[complete - 1];
    for (size_t i = 0; i < stores; i++) {
        if (lazy(w)) run_bulk(fiber->stores[i]);
        if (w->checker) check_join(w, fiber, fiber->stores[i].agent);
    }
    fiber->stores.erase(fiber->stores.begin(), fiber->stores.begin() + ptrdiff_t(stores));
    groups.erase(groups.begin(), groups.begin() + ptrdiff_t(complete));
    for (size_t& end : groups) end -= stores;
}

}  // namespace emu
