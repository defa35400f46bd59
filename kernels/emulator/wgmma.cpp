// wgmma: 64 × N × 16 products of a warpgroup, asynchronous, in groups.
//
//   d [64, N] (+)= a [64, 16] · b [16, N]     a from registers or shared memory, b from shared
//
// In lazy mode the accumulators are poisoned at issue and the product is done, warp by warp, when
// its group is waited for; so reading them early, or reusing a tile that is still to be read, shows
// in the result.
#include <memory>

#include "check.h"
#include "runtime.h"

namespace emu {

constexpr int ROWS = 64, K = 16, MAX_N = 256;

uint32_t swizzled(uint32_t address, uint32_t swizzle_bytes);

static float widen(uint32_t half) {
    uint32_t bits = half << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

struct Descriptor {
    uint32_t address, leading, stride, swizzle;  // bytes
};

static Descriptor decode(uint64_t bits) {
    static const uint32_t SWIZZLES[4] = {0, 128, 64, 32};
    auto field = [&](int shift) { return uint32_t(bits >> shift & 0x3fff) << 4; };
    return {field(0), field(16), field(32), SWIZZLES[bits >> 62]};
}

// Where the 16 bytes lie that hold (mn, 8 chunk .. + 7) of an operand whose k runs fastest.
static uint32_t k_major(const Descriptor& d, int mn, int chunk) {
    uint32_t pitch = d.swizzle ? d.swizzle : 16;
    uint32_t step = d.swizzle ? 16 : d.leading;
    return swizzled(d.address + (mn >> 3) * d.stride + (mn & 7) * pitch + chunk * step, d.swizzle);
}

// Where the 16 bytes lie that hold (8 chunk .. + 7, k) of an operand whose m or n runs fastest.
static uint32_t mn_major(const Descriptor& d, int chunk, int k) {
    if (!d.swizzle) return d.address + chunk * d.stride + (k & 7) * 16 + (k >> 3) * d.leading;
    int chunks = int(d.swizzle / 16);
    return swizzled(d.address + chunk / chunks * d.leading + chunk % chunks * 16 +
                        (k & 7) * d.swizzle + (k >> 3) * d.stride,
                    d.swizzle);
}

// Calls `each(address, first, k)` for each 16-byte chunk of an operand of `extent` rows.
template <class Each>
static void for_chunks(const Descriptor& d, int extent, bool transposed, Each each) {
    if (transposed) {
        for (int chunk = 0; chunk < extent / 8; chunk++)
            for (int k = 0; k < K; k++) each(mn_major(d, chunk, k), chunk * 8, k);
    } else {
        for (int mn = 0; mn < extent; mn++)
            for (int chunk = 0; chunk < K / 8; chunk++) each(k_major(d, mn, chunk), mn, chunk * 8);
    }
}

// out [K, extent]
static void read_operand(Cta* cta, uint64_t descriptor, int extent, bool transposed, float* out,
                         Loc loc, const char* what) {
    for_chunks(decode(descriptor), extent, transposed, [&](uint32_t address, int mn, int k) {
        check_shared(cta, address, 16, loc, what);
        uint16_t values[8];
        memcpy(values, shared_pointer(cta, address), 16);
        for (int i = 0; i < 8; i++) {
            int row = transposed ? mn + i : mn, column = transposed ? k : k + i;
            out[column * extent + row] = widen(values[i]);
        }
    });
}

static void unpack_registers(const WgmmaOp& op, float* a) {
    for (int thread = 0; thread < 128; thread++)
        for (int i = 0; i < 4; i++) {
            uint32_t pair = op.a[size_t(thread * 4 + i)];
            int row = thread / 32 * 16 + thread % 32 / 4 + (i & 1) * 8;
            int k = thread % 4 * 2 + (i >> 1) * 8;
            a[k * ROWS + row] = widen(pair & 0xffff);
            a[(k + 1) * ROWS + row] = widen(pair >> 16);
        }
}

// Operands and one row of sums of the product that a worker is busy with.
struct Scratch {
    float a[K * ROWS], b[K * MAX_N], sums[MAX_N];
};

// Rows 16 first .. 16 last of the product, into the accumulators that `target` finds.
template <class Target>
static void multiply(const WgmmaOp& op, Cta* cta, int first, int last, Target target) {
    // On the heap: a library that is opened at run time gets little thread-local memory, and a
    // fiber's stack is small.
    static thread_local std::unique_ptr<Scratch> scratch = std::make_unique<Scratch>();
    float *a = scratch->a, *b = scratch->b, *sums = scratch->sums;
    int n = op.shape.n;
    if (op.registers_a) unpack_registers(op, a);
    else read_operand(cta, op.descriptor_a, ROWS, op.shape.transposed_a, a, op.loc, "wgmma A");
    read_operand(cta, op.descriptor_b, n, op.shape.transposed_b, b, op.loc, "wgmma B");
    for (int row = first * 16; row < last * 16; row++) {
        for (int j = 0; j < n; j++) sums[j] = 0;
        for (int k = 0; k < K; k++)
            for (int j = 0; j < n; j++) sums[j] += a[k * ROWS + row] * b[k * n + j];
        int thread = row / 16 * 32 + (row & 7) * 4, half = (row >> 3 & 1) * 2;
        for (int quad = 0; quad < 4; quad++) {
            float* d = target(thread + quad) + half;
            for (int i = 0; i < n / 8; i++)
                for (int e = 0; e < 2; e++) {
                    float sum = sums[i * 8 + quad * 2 + e];
                    d[i * 4 + e] = op.shape.accumulate ? d[i * 4 + e] + sum : sum;
                }
        }
    }
}

// ------------------------------------------------------------------ accumulators in flight

static Accumulator* find_accumulator(Warpgroup& group, const float* home) {
    for (auto& held : group.accumulators)
        if (held.home == home) return &held;
    return nullptr;
}

static void hold_accumulators(Warpgroup& group, const WgmmaOp& op) {
    int floats = op.shape.n / 2;
    for (float* home : op.d) {
        if (Accumulator* held = find_accumulator(group, home)) {
            held->users++;
            continue;
        }
        group.accumulators.push_back({home, floats, 1, {home, home + floats}});
        memset(home, POISON, size_t(floats) * 4);
    }
}

static void finish_warp(Warpgroup& group, WgmmaOp& op, Cta* cta, int warp) {
    multiply(op, cta, warp, warp + 1, [&](int thread) {
        return find_accumulator(group, op.d[thread])->value.data();
    });
    for (int thread = warp * 32; thread < warp * 32 + 32; thread++) {
        Accumulator* held = find_accumulator(group, op.d[thread]);
        if (--held->users) continue;
        memcpy(held->home, held->value.data(), size_t(held->floats) * 4);
        *held = std::move(group.accumulators.back());
        group.accumulators.pop_back();
    }
}

// ------------------------------------------------------------------ issue, commit, wait

static Warpgroup& warpgroup(Fiber* fiber, Loc loc) {
    uint32_t index = fiber->index / 128;
    if (index * 128 + 128 > fiber->cta->threads) fail(loc, "wgmma outside a full warpgroup");
    return fiber->cta->warpgroups[index];
}

static void check_operands(Worker* w, Fiber* fiber, WgmmaOp& op) {
    Fiber* first = fiber->cta->fibers + fiber->index / 128 * 128;
    for (int warp = 0; warp < 4; warp++) {
        Fiber* issuer = first + warp * 32;
        int agent = op.agents[warp] = check_async_begin(w);
        auto access = [&](uint32_t address, int, int) {
            check_shared(fiber->cta, address, 16, op.loc, "wgmma");
            check_async_access(w, agent, issuer, fiber->cta, address, 16, false, op.loc);
        };
        if (!op.registers_a)
            for_chunks(decode(op.descriptor_a), ROWS, op.shape.transposed_a, access);
        for_chunks(decode(op.descriptor_b), op.shape.n, op.shape.transposed_b, access);
    }
}

static bool same(const WgmmaShape& a, const WgmmaShape& b) {
    return a.n == b.n && a.accumulate == b.accumulate && a.transposed_a == b.transposed_a &&
           a.transposed_b == b.transposed_b;
}

// The last thread of the warpgroup to come issues for all.
static void issue(Worker* w, Fiber* fiber, Warpgroup& group) {
    WgmmaOp op{};
    op.shape = group.shape;
    op.descriptor_a = group.descriptor_a;
    op.descriptor_b = group.descriptor_b;
    op.loc = group.loc;
    memcpy(op.d, group.d, sizeof op.d);
    op.registers_a = group.a[0] != nullptr;
    if (op.registers_a) {
        op.a.resize(512);
        for (size_t i = 0; i < 128; i++) memcpy(&op.a[i * 4], group.a[i], 16);
    }
    if (w->checker) check_operands(w, fiber, op);
    if (lazy(w)) hold_accumulators(group, op);
    else multiply(op, fiber->cta, 0, 4, [&](int thread) { return op.d[thread]; });
    group.ops.push_back(std::move(op));
}

void wgmma(float* d, WgmmaShape shape, const uint32_t* a, uint64_t descriptor_a,
           uint64_t descriptor_b, Loc loc) {
    Worker* w = worker;
    Fiber* fiber = w->current;
    Warpgroup& group = warpgroup(fiber, loc);
    if (!fiber->wgmma_fenced) fail(loc, "wgmma without a wgmma.fence since the last commit");
    if (!group.arrived) {
        group.shape = shape;
        group.descriptor_a = descriptor_a;
        group.descriptor_b = descriptor_b;
        group.loc = loc;
    } else if (group.loc != loc || !same(group.shape, shape) ||
               group.descriptor_a != descriptor_a || group.descriptor_b != descriptor_b) {
        fail(loc, "wgmma: the threads of the warpgroup disagree in place, descriptors or scale-d; "
             "the first came to line %d", group.loc.line);
    }
    group.d[fiber->index % 128] = d;
    group.a[fiber->index % 128] = a;
    if (++group.arrived < 128) {
        group.waiting.push_back(fiber);
        block(w, Wait::Warpgroup, &group, 0, loc);
        return;
    }
    group.arrived = 0;
    issue(w, fiber, group);
    for (Fiber* other : group.waiting) make_ready(w, other);
    group.waiting.clear();
}

void wgmma_fence(Loc loc) {
    (void)loc;
    worker->current->wgmma_fenced = true;
}

void wgmma_commit(Loc loc) {
    Fiber* fiber = worker->current;
    Warpgroup& group = warpgroup(fiber, loc);
    fiber->wgmma_fenced = false;
    uint32_t number = ++fiber->wgmma_groups;
    for (WgmmaOp& op : group.ops)
        if (!op.group) op.group = number;
}

void wgmma_wait(uint32_t pending, Loc loc) {
    Worker* w = worker;
    Fiber* fiber = w->current;
    Warpgroup& group = warpgroup(fiber, loc);
    uint32_t warp = fiber->warp % 4;
    for (WgmmaOp& op : group.ops) {
        if (!op.group || op.group + pending > fiber->wgmma_groups) continue;
        if (w->checker) check_join(w, fiber, op.agents[warp]);
        if (op.warps_done >> warp & 1) continue;
        op.warps_done |= 1u << warp;
        if (lazy(w)) finish_warp(group, op, fiber->cta, int(warp));
    }
    // A checker's agent is joined by each thread: keep what some thread may still wait for.
    while (!group.ops.empty() && group.ops.front().warps_done == 15 &&
           (!w->checker || group.ops.size() > 64))
        group.ops.pop_front();
}

}  // namespace emu
