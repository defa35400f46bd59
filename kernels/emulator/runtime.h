// The runtime's own structures: fibers (CUDA threads), CTAs, and the worker that runs them.
//
// A worker is an OS thread with a *gang*: the CTAs that must make progress together, which is one
// CTA, one cluster, or the whole grid of a cooperative launch. A gang never leaves its worker, so
// nothing in here is shared but `Launch`.
#pragma once
#include <atomic>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "api.h"
#include "calls.h"
#include "export.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMU_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define EMU_ASAN 1
#endif
#ifndef EMU_ASAN
#define EMU_ASAN 0
#endif

namespace emu {

constexpr uint32_t SHARED_BASE = 1024;           // the first kilobyte is the system's, as on sm_90
constexpr uint32_t SHARED_WINDOW = 256 * 1024;   // addresses of one CTA
constexpr uint32_t SHARED_LIMIT = 227 * 1024;    // what a launch may ask for
constexpr uint32_t STATIC_LIMIT = 48 * 1024;     // of that, in arrays
constexpr uint32_t MAX_CTA_THREADS = 1024;
constexpr uint32_t MAX_GANG_THREADS = 16384;
constexpr uint32_t MAX_CHECKED_THREADS = 2048;  // the same with the checker's clocks
constexpr uint32_t MAX_CLUSTER = 8;
constexpr unsigned char POISON = 0xff;  // NaN as bf16, f16 and f32

struct Cta;

// What a fiber waits for.
enum class Wait : uint8_t { None, Warp, Barrier, Mbarrier, Warpgroup, Cluster, Memory };

struct CpAsync {
    unsigned char* shared;
    const unsigned char* global;
    uint32_t bytes, source_bytes;
};

struct TensorMap {  // the content of a CUtensorMap here
    uint32_t magic;
    uint8_t rank, element_bytes, swizzle;
    char* base;
    uint64_t strides[4];  // bytes, of dimensions 1 and on
    uint64_t dims[5];
    uint16_t box[5];
};
constexpr uint32_t TENSOR_MAP_MAGIC = 0x7a4d3e19;
static_assert(sizeof(TensorMap) <= 128, "as large as the driver's");

// One copy by the TMA unit: a tile or a run of bytes, in or out of shared memory.
struct Bulk {
    enum class Kind : uint8_t { Load, Store, Add } kind;
    bool tiled;
    TensorMap map;
    int coordinates[5];
    char* global;    // untiled
    uint32_t bytes;  // of shared memory
    Cta* cta;        // whose shared memory
    uint32_t shared;
    Cta* barrier_cta;
    uint32_t barrier;
    int agent;  // of the race checker
    Loc loc;
};

struct Fiber {
    void* stack_pointer = nullptr;
    char* stack = nullptr;
    size_t stack_bytes = 0;
    void* fake_stack = nullptr;  // AddressSanitizer's
    void* context = nullptr;     // where switching is ucontext's
    Cta* cta = nullptr;
    uint3 thread{};
    uint32_t index = 0;  // in its CTA
    uint32_t gang_index = 0;
    uint32_t warp = 0, lane = 0;
    bool done = false;

    Wait wait = Wait::None;
    const void* object = nullptr;
    uint32_t argument = 0;
    Loc loc{};

    std::vector<CpAsync> copies;
    std::vector<size_t> copy_groups;  // end of each group in `copies`
    uint32_t copies_committed = 0;    // groups, for the checker
    std::vector<Bulk> stores;
    std::vector<size_t> store_groups;
    uint32_t wgmma_groups = 0;
    bool wgmma_fenced = false;
    uint32_t cluster_phase = 0;
    bool cluster_arrived = false;
    bool earlier_awaited = false;  // the kernels before this one
};

// A warp collective in the making.
struct Rendezvous {
    uint32_t mask = 0, arrived = 0;
    Collective kind{};
    Loc loc{};
    void* arguments[32];
};

struct Barrier {
    bool whole_cta = false;
    uint32_t threads = 0, arrived = 0;
    std::vector<Fiber*> waiting;
    std::vector<uint8_t> lanes;  // by warp: how many arrived
    std::vector<Loc> places;     // by warp: where
};

struct WgmmaOp {
    WgmmaShape shape;
    uint64_t descriptor_a, descriptor_b;
    bool registers_a;
    std::vector<uint32_t> a;  // [128][4]
    float* d[128];
    uint32_t group = 0;  // 0 while not committed
    uint32_t warps_done = 0;
    int agents[4];
    Loc loc;
};

// Accumulators whose registers are in flight: poisoned at home, kept here.
struct Accumulator {
    float* home;
    int floats, users;
    std::vector<float> value;
};

struct Warpgroup {
    uint32_t arrived = 0;
    float* d[128];
    const uint32_t* a[128];
    WgmmaShape shape{};
    uint64_t descriptor_a = 0, descriptor_b = 0;
    Loc loc{};
    std::vector<Fiber*> waiting;
    std::deque<WgmmaOp> ops;
    std::vector<Accumulator> accumulators;
};

struct Cluster {
    uint32_t arrived = 0, phase = 0, live = 0;
    std::vector<Fiber*> waiting;
};

struct Cta {
    uint3 index{};
    uint32_t rank = 0;  // in its cluster
    uint32_t linear = 0;
    Cluster* cluster = nullptr;
    Cta* cluster_ctas = nullptr;  // the cluster's first
    Fiber* fibers = nullptr;
    uint32_t threads = 0, live = 0;
    unsigned char* shared = nullptr;
    Barrier barriers[16];
    std::vector<Rendezvous> rendezvous;  // warp * 32 + lowest lane of the mask
    std::vector<Warpgroup> warpgroups;
    std::vector<uint32_t> mbarriers;  // where
    int votes = 0, votes_result = 0;
};

// What the workers of one launch share.
struct Launch {
    const EmuLaunch* request;
    EmuModes modes;
    const Kernel* kernel;
    void** arguments;
    uint32_t threads, cluster_size, gang_ctas;
    uint64_t gangs;
    dim3 grid, block, cluster;
    std::atomic<uint64_t> next_gang{0};
    std::atomic<bool> failed{false};
    std::atomic<uint32_t> active{0}, idle{0};
    std::mutex mutex;
    std::string error;
};

struct Checker;

struct Worker {
    Place place;
    Fiber* current = nullptr;
    Launch* launch = nullptr;
    Fiber main;  // the OS thread's own context
    std::vector<Fiber> fibers;  // grows between gangs only
    std::vector<Cta> ctas;
    std::vector<Cluster> clusters;
    uint32_t live = 0;

    std::vector<Fiber*> queue;  // a ring
    size_t head = 0, queued = 0;
    std::vector<Fiber*> yielded;
    uint64_t random = 1;
    uint32_t idle_rounds = 0;
    bool idle = false, alone = false;  // alone: every other worker has ended
    double idle_since = 0;

    unsigned char* arena = nullptr;
    size_t arena_bytes = 0;
    struct Static {
        const void* key;
        uint32_t address, bytes;
    };
    std::vector<Static> statics;
    uint32_t static_end = 0;

    std::vector<Fiber*> mbarrier_waiting;
    std::deque<Bulk> loads;
    bool failed = false, dirty = false;
    std::string error;
    Checker* checker = nullptr;
};

extern __thread Worker* worker __attribute__((tls_model("initial-exec")));

inline bool lazy(const Worker* w) { return w->launch->modes.lazy; }

// fiber.cpp
void make_stack(Fiber& fiber);
void start_fiber(Fiber& fiber, void (*entry)());
void switch_fiber(Worker* w, Fiber* to);
void enter_fibers(Worker* w, Fiber* first);  // returns when some fiber leaves
[[noreturn]] void leave_fibers(Worker* w);
void fiber_entered();
void forget_frames(Worker* w, uint32_t fibers);

// schedule.cpp
void make_ready(Worker* w, Fiber* fiber);
Fiber* take_ready(Worker* w);
void run_next(Worker* w);
void block(Worker* w, Wait wait, const void* object, uint32_t argument, Loc loc);
void record_failure(Worker* w, const std::string& what);
std::string block_name(const Cta& cta);
const char* base_name(const char* path);
double seconds();

// barriers.cpp
void thread_exits(Worker* w, Fiber* fiber);
void check_barriers_at_exit(Worker* w, const Cta& cta);

// shared.cpp
unsigned char* shared_pointer(Cta* cta, uint32_t address);
void check_shared(Cta* cta, uint32_t address, uint32_t bytes, Loc loc, const char* what);
std::pair<Cta*, uint32_t> resolve(uint32_t address, Loc loc, const char* what);
void reset_shared(Worker* w);

// copies.cpp
void finish_copies(Fiber* fiber, size_t count);

// mbarrier.cpp
void mbarrier_complete_tx(Worker* w, Cta* cta, uint32_t address, uint32_t bytes, int agent,
                          Loc loc);
void require_mbarrier(Cta* cta, uint32_t address, Loc loc, const char* what, bool by_tma);
std::string describe_mbarrier(const Cta& cta, uint32_t address);
void check_mbarriers_at_exit(Worker* w, const Cta& cta);

// tma.cpp
bool complete_a_load(Worker* w);
// The runs of global memory that a copy touches.
void for_global_runs(const Bulk& bulk, const std::function<void(const void*, uint32_t)>& each);

// buffers.cpp
struct Buffer {
    uintptr_t begin, end;
    std::string label;
};
// The buffer that holds `p`, or whose margins do.
const Buffer* find_buffer(const void* p);

// registry.cpp
const Kernel* find_kernel(const char* name);
void set_error(const std::string& error);

}  // namespace emu
