// A CUDA driver for tests: the part of libcuda.so that the program calls, over the emulator.
//
// Work is put off as long as the rules allow: everything that goes to a stream is done when the
// host waits for it, and not before. So a staging buffer that is filled again too early, or a
// result that is read without waiting, shows. Graphs are kept lists of such work.
//
// FAKE_CUDA        what is wrong here: old, none, turing, busy, small, astray; or nothing
// FAKE_EMULATOR    the library that runs the kernels
// FAKE_CUDA_LOG    gets a line for each launch, each opt-in, and each thing never given back
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "../../kernels/emulator/api.h"

#define API extern "C" __attribute__((visibility("default"))) int

// Codes of cuda.h.
enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    DEVICE_UNAVAILABLE = 46,
    NO_DEVICE = 100,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    CAPTURE_INVALIDATED = 901,
};

using Work = std::function<int()>;

struct Event {
    uint64_t recorded = 0;  // how much work had been given to the stream
    double at = 0;
};

struct Node {
    Work work;
    EmuLaunch launch;  // of a kernel
};
struct Graph {
    std::vector<Node> nodes;
};

struct Function {
    std::string name;
    std::vector<uint32_t> sizes;
    uint32_t shared = 48 * 1024;
};

// cuda.h's CUlaunchAttribute and CUlaunchConfig.
struct Attribute {
    int id;
    char pad[4];
    union {
        char bytes[64];
        uint32_t cluster[3];
        int cooperative;
    };
};
struct Config {
    uint32_t grid[3], block[3], shared;
    void* stream;
    Attribute* attributes;
    uint32_t count;
};

static std::deque<Work> queue;      // given to the stream, not done yet
static uint64_t given, done;        // how much work in all
static Graph* recording;
static int broken;                  // once set, every answer
static std::map<std::string, long> live;
static std::map<void*, size_t> memory;
static size_t memory_used;

static bool is(const char* wrong) {
    const char* scenario = getenv("FAKE_CUDA");
    return scenario && !strcmp(scenario, wrong);
}

static void log_line(const std::string& line) {
    const char* path = getenv("FAKE_CUDA_LOG");
    if (!path) return;
    FILE* file = fopen(path, "a");
    fprintf(file, "%s\n", line.c_str());
    fclose(file);
}

template <class F>
static F* emulator(const char* name) {
    static void* library = dlopen(getenv("FAKE_EMULATOR"), RTLD_NOW | RTLD_LOCAL);
    void* found = library ? dlsym(library, name) : nullptr;
    if (!found) {
        fprintf(stderr, "fake driver: %s: %s\n", name, dlerror());
        abort();
    }
    return reinterpret_cast<F*>(found);
}

static size_t capacity() { return is("small") ? size_t(64) << 20 : size_t(8) << 30; }

static int give(Work work, const EmuLaunch& launch = {}) {
    if (broken) return broken;
    if (recording) recording->nodes.push_back({std::move(work), launch});
    else queue.push_back(std::move(work)), given++;
    return SUCCESS;
}

// Does the work up to the `until`th.
static int catch_up(uint64_t until) {
    if (recording) return CAPTURE_INVALIDATED;
    while (!broken && done < until) {
        int code = queue.front()();
        queue.pop_front();
        done++;
        if (code) broken = code;
    }
    return broken;
}

// ------------------------------------------------------------------ the driver and the device

API cuGetErrorName(int code, const char** name) {
    static std::string kept;
    kept = "CUDA_ERROR_" + std::to_string(code);
    *name = kept.c_str();
    return SUCCESS;
}
API cuGetErrorString(int, const char** words) { return *words = "no words", SUCCESS; }
API cuInit(unsigned) { return is("none") ? NO_DEVICE : SUCCESS; }
API cuDriverGetVersion(int* version) { return *version = is("old") ? 12020 : 13000, SUCCESS; }
API cuDeviceGetCount(int* count) { return *count = 1, SUCCESS; }
API cuDeviceGet(int* device, int ordinal) { return *device = ordinal, SUCCESS; }
API cuDeviceGetName(char* name, int length, int) {
    return snprintf(name, size_t(length), "fake GPU"), SUCCESS;
}
API cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = capacity(), SUCCESS; }
API cuDeviceGetAttribute(int* value, int attribute, int) {
    switch (attribute) {
        case 16: *value = 132; break;                    // multiprocessors
        case 33: *value = 0x3b; break;                   // PCI bus
        case 34: *value = 0; break;                      // PCI device
        case 38: *value = 50 << 20; break;               // L2
        case 50: *value = 0; break;                      // PCI domain
        case 75: *value = is("turing") ? 7 : 9; break;   // compute capability, major
        case 76: *value = is("turing") ? 5 : 0; break;   // minor
        case 97: *value = 227 * 1024; break;             // shared memory a block, by opting in
        default: return INVALID_VALUE;
    }
    return SUCCESS;
}
API cuDevicePrimaryCtxRetain(void** context, int) {
    if (is("busy")) return DEVICE_UNAVAILABLE;
    live["contexts"]++;
    return *context = &live, SUCCESS;
}
API cuDevicePrimaryCtxRelease_v2(int) {
    live["contexts"]--;
    for (auto& [what, count] : live)
        if (count) log_line("left " + std::to_string(count) + " " + what);
    log_line("released");
    return SUCCESS;
}
API cuCtxSetCurrent(void*) { return SUCCESS; }

// ------------------------------------------------------------------ streams, events, graphs

API cuStreamCreate(void** stream, unsigned) {
    live["streams"]++;
    return *stream = &queue, SUCCESS;
}
API cuStreamSynchronize(void*) { return catch_up(given); }
API cuStreamDestroy_v2(void*) { return live["streams"]--, SUCCESS; }
API cuEventCreate(Event** event, unsigned) {
    live["events"]++;
    return *event = new Event, SUCCESS;
}
API cuEventRecord(Event* event, void*) {
    event->recorded = given;
    event->at = double(given);  // a millisecond for each piece of work
    return broken;
}
API cuEventQuery(Event* event) { return done < event->recorded ? 600 : broken; }
API cuEventSynchronize(Event* event) { return catch_up(event->recorded); }
API cuEventElapsedTime_v2(float* milliseconds, Event* from, Event* to) {
    if (done < to->recorded) return 600;
    return *milliseconds = float(to->at - from->at), broken;
}
API cuEventDestroy_v2(Event* event) { return delete event, live["events"]--, SUCCESS; }

API cuStreamBeginCapture_v2(void*, int) {
    live["graphs"]++;
    return recording = new Graph, broken;
}
API cuStreamEndCapture(void*, Graph** graph) {
    return *graph = recording, recording = nullptr, broken;
}
// A node is known by its number, from 1.
API cuStreamGetCaptureInfo_v3(void*, int*, uint64_t*, Graph**, void* const** last, void**,
                              size_t* count) {
    static void* node;
    node = reinterpret_cast<void*>(recording->nodes.size());
    return *last = &node, *count = 1, broken;
}
API cuGraphInstantiateWithFlags(Graph** run, Graph* graph, unsigned long long) {
    live["graphs"]++;
    log_line("graph recorded");
    return *run = new Graph(*graph), broken;
}
API cuGraphLaunch(Graph* run, void*) {
    for (const Node& node : run->nodes) give(node.work);
    return broken;
}
API cuGraphExecDestroy(Graph* run) { return delete run, live["graphs"]--, SUCCESS; }
API cuGraphDestroy(Graph* graph) { return delete graph, live["graphs"]--, SUCCESS; }

// ------------------------------------------------------------------ memory

API cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    if (memory_used + bytes > capacity()) return OUT_OF_MEMORY;
    void* place = emulator<void*(size_t, const char*)>("emu_alloc")(bytes, "device memory");
    memory[place] = bytes;
    memory_used += bytes;
    live["allocations"]++;
    return *address = uint64_t(uintptr_t(place)), broken;
}
API cuMemFree_v2(uint64_t address) {
    catch_up(given);
    void* place = reinterpret_cast<void*>(uintptr_t(address));
    auto found = memory.find(place);
    if (found == memory.end()) return INVALID_VALUE;
    memory_used -= found->second;
    memory.erase(found);
    emulator<void(void*)>("emu_free")(place);
    return live["allocations"]--, broken;
}
API cuMemGetInfo_v2(size_t* free, size_t* total) {
    return *total = capacity(), *free = capacity() - memory_used, SUCCESS;
}
API cuMemHostAlloc(void** place, size_t bytes, unsigned) {
    live["pinned buffers"]++;
    return *place = malloc(bytes), SUCCESS;
}
API cuMemFreeHost(void* place) { return free(place), live["pinned buffers"]--, SUCCESS; }

static void* at(uint64_t address) { return reinterpret_cast<void*>(uintptr_t(address)); }
API cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void*) {
    return give([=] { return memcpy(at(to), from, bytes), SUCCESS; });
}
API cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void*) {
    return give([=] { return memcpy(to, at(from), bytes), SUCCESS; });
}
API cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void*) {
    return give([=] { return memcpy(at(to), at(from), bytes), SUCCESS; });
}
static Work fill(uint64_t to, unsigned char byte, size_t bytes) {
    return [=] { return memset(at(to), byte, bytes), SUCCESS; };
}
API cuMemsetD8Async(uint64_t to, unsigned char byte, size_t bytes, void*) {
    return give(fill(to, byte, bytes));
}

// ------------------------------------------------------------------ kernels

API cuModuleLoadData(void** module, const void* image) {
    if (uintptr_t(image) % 16) return INVALID_VALUE;
    live["modules"]++;
    return *module = &live, SUCCESS;
}
API cuModuleUnload(void*) { return live["modules"]--, SUCCESS; }
API cuModuleGetFunction(Function** function, void*, const char* name) {
    auto* name_of = emulator<const char*(uint32_t)>("emu_kernel_name");
    auto* sizes_of = emulator<uint32_t(uint32_t, const uint32_t**)>("emu_kernel_params");
    for (uint32_t k = 0; k < emulator<uint32_t()>("emu_kernel_count")(); k++) {
        if (strcmp(name_of(k), name)) continue;
        const uint32_t* sizes = nullptr;
        uint32_t count = sizes_of(k, &sizes);
        // Functions live as long as their module: to the end.
        *function = new Function{name, {sizes, sizes + count}};
        return SUCCESS;
    }
    return NOT_FOUND;
}
API cuFuncGetParamInfo(Function* function, size_t index, size_t* offset, size_t* size) {
    if (index >= function->sizes.size()) return INVALID_VALUE;
    return *offset = 0, *size = function->sizes[index], SUCCESS;
}
API cuFuncSetAttribute(Function* function, int attribute, int value) {
    if (attribute == 8) function->shared = uint32_t(value);  // dynamic shared memory
    log_line("attribute " + function->name + " " + std::to_string(attribute) + " " +
             std::to_string(value));
    return SUCCESS;
}

// The work of a kernel. The driver takes the arguments when it is called; some are aligned to 128
// bytes.
static Work kernel(EmuLaunch launch, const Function& function, void** params) {
    struct alignas(128) Argument {
        char bytes[256];
    };
    std::vector<Argument> arguments(function.sizes.size());
    for (size_t i = 0; i < arguments.size(); i++)
        memcpy(arguments[i].bytes, params[i], function.sizes[i]);
    return [launch, arguments]() mutable -> int {
        if (is("astray")) return ILLEGAL_ADDRESS;
        std::vector<void*> places;
        for (Argument& argument : arguments) places.push_back(argument.bytes);
        if (!emulator<int(const EmuLaunch*, void**)>("emu_launch")(&launch, places.data()))
            return SUCCESS;
        fprintf(stderr, "fake driver: %s\n", emulator<const char*()>("emu_error")());
        return ILLEGAL_ADDRESS;
    };
}

API cuLaunchKernelEx(const Config* config, Function* function, void** params, void**) {
    if (config->shared > function->shared) return INVALID_VALUE;
    EmuLaunch launch = {};
    launch.kernel = function->name.c_str();
    memcpy(launch.grid, config->grid, sizeof launch.grid);
    memcpy(launch.block, config->block, sizeof launch.block);
    for (uint32_t& side : launch.cluster) side = 1;
    launch.shared_bytes = config->shared;
    for (uint32_t i = 0; i < config->count; i++) {
        const Attribute& attribute = config->attributes[i];
        if (attribute.id == 4) memcpy(launch.cluster, attribute.cluster, sizeof launch.cluster);
        else if (attribute.id == 2) launch.cooperative = uint32_t(attribute.cooperative);
        else if (attribute.id == 6) launch.overlaps = uint32_t(attribute.cooperative);
        else return INVALID_VALUE;
    }
    const uint32_t* cluster = launch.cluster;
    log_line("launch " + function->name + " shared " + std::to_string(config->shared) +
             " cluster " + std::to_string(cluster[0] * cluster[1] * cluster[2]) +
             " cooperative " + std::to_string(launch.cooperative));
    return give(kernel(launch, *function, params), launch);
}

// cuda.h's CUDA_KERNEL_NODE_PARAMS and CUDA_MEMSET_NODE_PARAMS.
struct KernelNode {
    Function* function;
    uint32_t grid[3], block[3], shared;
    void **params, **extra, *kernel, *context;
};
struct MemsetNode {
    uint64_t to;
    size_t pitch;
    uint32_t value, element;
    size_t width, height;
};
static Node& node_of(Graph* run, void* node) { return run->nodes[size_t(node) - 1]; }
API cuGraphExecKernelNodeSetParams_v2(Graph* run, void* node, const KernelNode* params) {
    if (params->shared > params->function->shared || params->extra) return INVALID_VALUE;
    EmuLaunch& launch = node_of(run, node).launch;  // clusters and cooperation stay
    launch.kernel = params->function->name.c_str();
    memcpy(launch.grid, params->grid, sizeof launch.grid);
    memcpy(launch.block, params->block, sizeof launch.block);
    launch.shared_bytes = params->shared;
    log_line("revised " + params->function->name);
    node_of(run, node).work = kernel(launch, *params->function, params->params);
    return broken;
}
API cuGraphExecMemsetNodeSetParams(Graph* run, void* node, const MemsetNode* params, void*) {
    if (params->element != 1 || params->height != 1) return INVALID_VALUE;
    log_line("revised a fill");
    node_of(run, node).work = fill(params->to, (unsigned char)params->value, params->width);
    return broken;
}

API cuTensorMapEncodeTiled(void* map, int type, uint32_t rank, void* base, const uint64_t* dims,
                           const uint64_t* strides, const uint32_t* box, const uint32_t*, int,
                           int swizzle, int, int) {
    uint32_t bytes = type == 0 ? 1 : type == 9 ? 2 : 4, width = swizzle ? 16u << swizzle : 0;
    if (uintptr_t(map) % 128) return INVALID_VALUE;
    auto* encode = emulator<decltype(emu_tensor_map)>("emu_tensor_map");
    return encode(map, bytes, rank, base, dims, strides, box, width) ? INVALID_VALUE : SUCCESS;
}

// ------------------------------------------------------------------ for tests/cuda/blas.cpp

extern "C" __attribute__((visibility("default"))) void fake_later(std::function<void()> work) {
    give([work] { return work(), SUCCESS; });
}
extern "C" __attribute__((visibility("default"))) size_t fake_room(const void* address) {
    auto above = memory.upper_bound(const_cast<void*>(address));
    if (above == memory.begin()) return 0;
    auto [start, bytes] = *--above;
    size_t into = size_t((const char*)address - (const char*)start);
    return into < bytes ? bytes - into : 0;
}
