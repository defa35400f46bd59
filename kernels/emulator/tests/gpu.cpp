// The emulator's interface over a real GPU, so that values.cpp holds both to the same answers.
// `gpu.sh` builds it; the fatbins of the kernels are in the program. libcuda is loaded when it
// runs, so nothing but a driver is needed then. Modes are ignored.
#include <cuda.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "../api.h"

#define FATBIN(name)                                                                            \
    asm(".section .rodata\n.balign 16\n" #name "_image:\n.incbin \"" #name ".fatbin\"\n.text"); \
    extern "C" const char name##_image[];
FATBIN(micro)
FATBIN(product)
FATBIN(wrappers)

static std::string said;

// A function of the driver, by the name that cuda.h's macros give it.
#define DRIVER(name) reinterpret_cast<decltype(&name)>(find(NAME(name)))
#define NAME(name) #name

static void* find(const char* name) {
    static void* library = dlopen("libcuda.so.1", RTLD_NOW);
    void* function = library ? dlsym(library, name) : nullptr;
    if (!function) {
        fprintf(stderr, "no NVIDIA driver is here, or it lacks %s\n", name);
        exit(2);
    }
    return function;
}

// Whether it went well; if not, `said` tells what the driver says.
static bool well(CUresult result, const std::string& what) {
    if (result == CUDA_SUCCESS) return true;
    const char* words = nullptr;
    DRIVER(cuGetErrorString)(result, &words);
    said = what + ": " + (words ? words : "unknown error");
    return false;
}

static void must(CUresult result, const std::string& what) {
    if (well(result, what)) return;
    fprintf(stderr, "%s\n", said.c_str());
    exit(2);
}

static void start() {
    static bool started = false;
    if (started) return;
    started = true;
    CUdevice device;
    CUcontext context;
    must(DRIVER(cuInit)(0), "starting the driver");
    must(DRIVER(cuDeviceGet)(&device, 0), "the first GPU");
    must(DRIVER(cuDevicePrimaryCtxRetain)(&context, device), "its context");
    must(DRIVER(cuCtxSetCurrent)(context), "its context");
}

static CUfunction kernel(const std::string& name) {
    static std::map<std::string, CUfunction> known;
    static CUmodule modules[3];
    if (!modules[0]) {
        const char* images[] = {micro_image, product_image, wrappers_image};
        for (int i = 0; i < 3; i++)
            must(DRIVER(cuModuleLoadData)(&modules[i], images[i]), "loading kernels");
    }
    CUfunction& function = known[name];
    for (CUmodule module : modules)
        if (!function) (void)DRIVER(cuModuleGetFunction)(&function, module, name.c_str());
    return function;
}

void emu_configure(const EmuModes*) { start(); }
const char* emu_error() { return said.c_str(); }
const char* emu_build() { return "gpu"; }
const char* emu_counters() { return ""; }

// Managed memory: the host reads and writes it too, between launches.
void* emu_alloc(size_t bytes, const char* label) {
    start();
    CUdeviceptr address = 0;
    must(DRIVER(cuMemAllocManaged)(&address, bytes, CU_MEM_ATTACH_GLOBAL), label);
    memset(reinterpret_cast<void*>(address), 0xff, bytes);  // NaN, as on the emulator
    return reinterpret_cast<void*>(address);
}

void emu_free(void* memory) {
    DRIVER(cuMemFree)(reinterpret_cast<CUdeviceptr>(memory));
}

int emu_launch(const EmuLaunch* launch, void** params) {
    CUfunction function = kernel(launch->kernel);
    if (!function) return said = std::string(launch->kernel) + ": no such kernel", 1;
    DRIVER(cuFuncSetAttribute)
    (function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, int(launch->shared_bytes));
    CUlaunchConfig config = {};
    CUlaunchAttribute attributes[2] = {};
    config.attrs = attributes;
    if (launch->cooperative) {
        CUlaunchAttribute& cooperative = attributes[config.numAttrs++];
        cooperative.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
        cooperative.value.cooperative = 1;
    }
    if (launch->cluster[0] > 1) {
        CUlaunchAttribute& cluster = attributes[config.numAttrs++];
        cluster.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        cluster.value.clusterDim = {launch->cluster[0], 1, 1};
    }
    config.gridDimX = launch->grid[0], config.gridDimY = launch->grid[1];
    config.gridDimZ = launch->grid[2];
    config.blockDimX = launch->block[0], config.blockDimY = launch->block[1];
    config.blockDimZ = launch->block[2];
    config.sharedMemBytes = launch->shared_bytes;
    if (!well(DRIVER(cuLaunchKernelEx)(&config, function, params, nullptr), launch->kernel))
        return 1;
    return !well(DRIVER(cuCtxSynchronize)(), launch->kernel);
}

int emu_tensor_map(void* map128, uint32_t element_bytes, uint32_t rank, void* base,
                   const uint64_t* dims, const uint64_t* strides_bytes, const uint32_t* box,
                   uint32_t swizzle_bytes) {
    const cuuint32_t steps[5] = {1, 1, 1, 1, 1};
    auto type = element_bytes == 2 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                   : CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
    auto swizzle = swizzle_bytes == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
                   : swizzle_bytes == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                   : swizzle_bytes == 32 ? CU_TENSOR_MAP_SWIZZLE_32B
                                         : CU_TENSOR_MAP_SWIZZLE_NONE;
    return !well(DRIVER(cuTensorMapEncodeTiled)(
                     static_cast<CUtensorMap*>(map128), type, rank, base,
                     reinterpret_cast<const cuuint64_t*>(dims),
                     reinterpret_cast<const cuuint64_t*>(strides_bytes), box, steps,
                     CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_NONE,
                     CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
                 "tensor map");
}
