// A launch: gangs of CTAs, handed to workers in the order of their numbers.
//
// Rule. A CTA may wait for one of a lower number, for its cluster's, and in a cooperative launch
// for any: gangs start in ascending order and a started one runs to its end, polling or not, so
// what a lower number owes always comes. Waiting for a higher number may be a deadlock here, as it
// may be on a device whose multiprocessors are full.
#include <algorithm>
#include <thread>

#include "check.h"
#include "runtime.h"

namespace emu {

static EmuModes modes{};

extern "C" void emu_configure(const EmuModes* wanted) { modes = *wanted; }

void earlier_kernels_awaited() { worker->current->earlier_awaited = true; }

static void fiber_main() {
    fiber_entered();
    Worker* w = worker;
    w->launch->kernel->run(w->launch->arguments);
    w = worker;
    Fiber* fiber = w->current;
    finish_copies(fiber, fiber->copies.size());
    if (!fiber->stores.empty())
        fail(fiber->stores.front().loc, "the thread exits without waiting for this bulk store, "
             "which may still read shared memory");
    if (w->launch->request->overlaps && !fiber->earlier_awaited)
        fail(Loc::here(), "a thread exits without waiting for the kernels before: those after this "
             "one may then begin before they have ended");
    thread_exits(w, fiber);
    run_next(w);
    __builtin_unreachable();
}

static void reset_fiber(Fiber& fiber, Cta& cta, uint32_t index, uint32_t gang_index, dim3 block) {
    fiber.cta = &cta;
    fiber.index = index;
    fiber.gang_index = gang_index;
    fiber.warp = index / 32;
    fiber.lane = index % 32;
    fiber.thread = {index % block.x, index / block.x % block.y, index / block.x / block.y};
    fiber.done = false;
    fiber.wait = Wait::None;
    fiber.fake_stack = nullptr;
    fiber.copies.clear();
    fiber.copy_groups.clear();
    fiber.copies_committed = 0;
    fiber.stores.clear();
    fiber.store_groups.clear();
    fiber.wgmma_groups = 0;
    fiber.wgmma_fenced = false;
    fiber.cluster_arrived = false;
    fiber.earlier_awaited = false;
    if (!fiber.stack) make_stack(fiber);
    start_fiber(fiber, fiber_main);
}

static void reset_cta(Cta& cta, const Launch& launch) {
    uint32_t warps = (launch.threads + 31) / 32;
    cta.threads = cta.live = launch.threads;
    cta.votes = 0;
    cta.mbarriers.clear();
    cta.rendezvous.resize(warps * 32);
    for (auto& meeting : cta.rendezvous) meeting.arrived = 0;
    cta.warpgroups.clear();
    cta.warpgroups.resize((launch.threads + 127) / 128);
    for (auto& barrier : cta.barriers) {
        barrier.arrived = 0;
        barrier.waiting.clear();
        barrier.lanes.assign(warps, 0);
        barrier.places.resize(warps);
    }
}

// The CTAs of gang `gang`: neighbours of one cluster, or the whole grid, cluster after cluster.
static void place_ctas(Worker* w, uint64_t gang) {
    const Launch& launch = *w->launch;
    dim3 size = launch.cluster, grid = launch.grid;
    uint32_t x_clusters = grid.x / size.x, y_clusters = grid.y / size.y;
    for (uint32_t i = 0; i < launch.gang_ctas; i++) {
        uint64_t number = gang * launch.gang_ctas + i, cluster = number / launch.cluster_size;
        uint32_t rank = uint32_t(number % launch.cluster_size);
        Cta& cta = w->ctas[i];
        cta.rank = rank;
        cta.index.x = uint32_t(cluster % x_clusters) * size.x + rank % size.x;
        cta.index.y = uint32_t(cluster / x_clusters % y_clusters) * size.y + rank / size.x % size.y;
        cta.index.z =
            uint32_t(cluster / x_clusters / y_clusters) * size.z + rank / size.x / size.y;
        cta.linear = cta.index.x + grid.x * (cta.index.y + grid.y * cta.index.z);
        cta.cluster = &w->clusters[i / launch.cluster_size];
        cta.cluster_ctas = &w->ctas[i - rank];
    }
}

static void start_gang(Worker* w, uint64_t gang) {
    const Launch& launch = *w->launch;
    uint32_t fibers = launch.gang_ctas * launch.threads;
    forget_frames(w, fibers);
    for (auto& cluster : w->clusters) {
        cluster.arrived = 0;
        cluster.live = launch.cluster_size * launch.threads;
        cluster.waiting.clear();
    }
    place_ctas(w, gang);
    w->head = w->queued = 0;
    w->yielded.clear();
    w->mbarrier_waiting.clear();
    w->loads.clear();
    w->live = fibers;
    for (uint32_t i = 0; i < launch.gang_ctas; i++) {
        Cta& cta = w->ctas[i];
        cta.fibers = &w->fibers[i * launch.threads];
        reset_cta(cta, launch);
        for (uint32_t t = 0; t < launch.threads; t++) {
            reset_fiber(cta.fibers[t], cta, t, i * launch.threads + t, launch.block);
            make_ready(w, cta.fibers + t);
        }
    }
    reset_shared(w);
    if (w->checker) check_start_gang(w);
}

static void run_gang(Worker* w, uint64_t gang) {
    start_gang(w, gang);
    w->dirty = true;
    enter_fibers(w, take_ready(w));
    w->dirty = w->failed;
    for (const Cta& cta : w->ctas) {
        if (w->failed || w->launch->failed) return;
        check_barriers_at_exit(w, cta);
        check_mbarriers_at_exit(w, cta);
    }
}

// ------------------------------------------------------------------ workers

// Workers outlive launches: their stacks and windows are costly to map.
static std::vector<std::unique_ptr<Worker>> idle_workers;
static std::mutex idle_workers_mutex;

static std::unique_ptr<Worker> borrow_worker() {
    std::lock_guard<std::mutex> lock(idle_workers_mutex);
    if (idle_workers.empty()) return std::make_unique<Worker>();
    auto w = std::move(idle_workers.back());
    idle_workers.pop_back();
    return w;
}

static void prepare_worker(Worker* w, Launch& launch, uint32_t number) {
    uint32_t fibers = launch.gang_ctas * launch.threads;
    w->launch = &launch;
    w->main.stack = nullptr;  // another OS thread's, perhaps
    w->failed = false;
    w->error.clear();
    w->idle_rounds = 0;
    w->idle = w->alone = false;
    w->random = (launch.modes.seed + number) * 0x9e3779b97f4a7c15ull | 1;
    w->statics.clear();
    if (w->fibers.size() < fibers) w->fibers.resize(fibers);
    w->queue.resize(fibers + 1);
    w->ctas.resize(launch.gang_ctas);
    w->clusters.resize(launch.gang_ctas / launch.cluster_size);
    w->place.block_dim = launch.block;
    w->place.grid_dim = launch.grid;
    w->place.cluster_dim = launch.cluster;
}

static void work(Launch& launch, uint32_t number) {
    auto own = borrow_worker();
    Worker* w = own.get();
    worker = w;
    place = &w->place;
    prepare_worker(w, launch, number);
    if (launch.modes.check || launch.modes.counters) check_start_worker(w);
    launch.active++;
    uint64_t gang;
    while (!launch.failed && (gang = launch.next_gang++) < launch.gangs) {
        run_gang(w, gang);
        if (w->failed) launch.failed = true;
    }
    launch.active--;
    if (w->checker) check_end_worker(w);
    if (w->failed) {
        launch.failed = true;
        std::lock_guard<std::mutex> lock(launch.mutex);
        if (launch.error.empty()) launch.error = w->error;
    }
    worker = nullptr;
    std::lock_guard<std::mutex> lock(idle_workers_mutex);
    idle_workers.push_back(std::move(own));
}

static uint32_t worker_count(const Launch& launch) {
    uint32_t wanted = launch.modes.threads;
    // The checker compares clocks, not times: it needs no second worker to see a race.
    if (launch.modes.check || launch.modes.counters) return 1;
    if (!wanted) wanted = std::max(1u, std::thread::hardware_concurrency());
    return uint32_t(std::min<uint64_t>(wanted, launch.gangs));
}

// ------------------------------------------------------------------ the request

static dim3 dims(const uint32_t (&values)[3], uint32_t least) {
    return {std::max(values[0], least), std::max(values[1], least), std::max(values[2], least)};
}

static std::string wrong_request(const EmuLaunch& request, const Launch& launch) {
    dim3 g = launch.grid, b = launch.block, c = launch.cluster;
    uint64_t threads = uint64_t(b.x) * b.y * b.z;
    std::string kernel = std::string("launch of ") + request.kernel + ": ";
    if (!launch.kernel) return kernel + "this build has no such kernel";
    if (!g.x || !g.y || !g.z) return kernel + "a grid without blocks";
    if (!threads || threads > MAX_CTA_THREADS)
        return kernel + std::to_string(threads) + " threads in a block, which takes 1 to 1024";
    if (request.shared_bytes > SHARED_LIMIT)
        return kernel + std::to_string(request.shared_bytes) + " bytes of shared memory, of " +
               std::to_string(SHARED_LIMIT);
    if (uint64_t(c.x) * c.y * c.z > MAX_CLUSTER) return kernel + "a cluster of more than 8 blocks";
    if (g.x % c.x || g.y % c.y || g.z % c.z) return kernel + "the grid is no multiple of clusters";
    if (request.cooperative && uint64_t(g.x) * g.y * g.z * threads > MAX_GANG_THREADS)
        return kernel + "more than " + std::to_string(MAX_GANG_THREADS) +
               " threads in a cooperative launch, too many to be resident at once here";
    uint64_t gang = request.cooperative ? uint64_t(g.x) * g.y * g.z : uint64_t(c.x) * c.y * c.z;
    if (modes.check && gang * threads > MAX_CHECKED_THREADS)
        return kernel + "the checker takes " + std::to_string(MAX_CHECKED_THREADS) +
               " threads in a cluster or a cooperative launch";
    if ((modes.check || modes.counters) && strcmp(emu_build(), "check"))
        return kernel + "checks and counters need the check build, this is " + emu_build();
    return "";
}

extern "C" int emu_launch(const EmuLaunch* request, void** params) {
    static std::mutex one_at_a_time;
    std::lock_guard<std::mutex> lock(one_at_a_time);
    Launch launch;
    launch.request = request;
    launch.modes = modes;
    launch.kernel = find_kernel(request->kernel);
    launch.arguments = params;
    launch.grid = dims(request->grid, 0);
    launch.block = dims(request->block, 0);
    launch.cluster = dims(request->cluster, 1);
    launch.error = wrong_request(*request, launch);
    if (launch.error.empty()) {
        uint64_t ctas = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
        launch.threads = launch.block.x * launch.block.y * launch.block.z;
        launch.cluster_size = launch.cluster.x * launch.cluster.y * launch.cluster.z;
        launch.gang_ctas = request->cooperative ? uint32_t(ctas) : launch.cluster_size;
        launch.gangs = ctas / launch.gang_ctas;
        if (launch.modes.check) check_start_launch();
        std::vector<std::thread> threads;
        for (uint32_t i = 1; i < worker_count(launch); i++)
            threads.emplace_back(work, std::ref(launch), i);
        work(launch, 0);
        for (auto& thread : threads) thread.join();
        if (!launch.error.empty()) launch.error = request->kernel + (": " + launch.error);
    }
    set_error(launch.error);
    return launch.error.empty() ? 0 : 1;
}

}  // namespace emu
