/* The C interface of the emulator: the host opens the library and launches kernels by name, with
 * the same grid, block, shared bytes and array of argument pointers as the driver's launch.
 *
 * The runtime is compiled at -O3. The kernels' flags name the build:
 *   plain  -O2
 *   check  -O1 -fsanitize=thread -fno-tree-vectorize, linked without libtsan: races, fences, bounds
 *   asan   -O1 -fsanitize=address (runtime too), AddressSanitizer loaded first by the host program
 * and all need -std=c++17 -fPIC -fno-strict-aliasing -Wno-psabi -Wno-unknown-pragmas. Link objects,
 * or whole archives: kernels register themselves, and nothing refers to them by name. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const char* kernel;
    uint32_t grid[3], block[3], cluster[3]; /* cluster: zeros or ones for none */
    uint32_t shared_bytes;
    uint32_t cooperative; /* all CTAs co-resident */
    uint32_t overlaps;    /* may begin before the kernels before it have ended */
} EmuLaunch;

typedef struct {
    uint32_t order; /* of threads: 0 fifo, 1 lifo, 2 random */
    uint32_t lazy;  /* asynchronous work completes as late as it may */
    uint32_t check, counters; /* need the check build */
    uint32_t threads;         /* of the host, 0 for one a core */
    uint64_t seed;            /* of the random order */
} EmuModes;

void emu_configure(const EmuModes* modes);

/* Runs a launch to its end. 0, or 1 and emu_error(). */
int emu_launch(const EmuLaunch* launch, void** params);
const char* emu_error(void);

uint32_t emu_kernel_count(void);
const char* emu_kernel_name(uint32_t kernel);
/* The number of parameters, and the size in bytes of each. */
uint32_t emu_kernel_params(uint32_t kernel, const uint32_t** sizes);

/* Device memory: 256-byte aligned, known to the checks by `label`, filled with NaN bytes. */
void* emu_alloc(size_t bytes, const char* label);
void emu_free(void* memory);

/* As cuTensorMapEncodeTiled: dims and box innermost first, strides_bytes [rank - 1]; swizzle 0, 32,
 * 64 or 128 bytes. 0, or 1 and emu_error(). */
int emu_tensor_map(void* map128, uint32_t element_bytes, uint32_t rank, void* base,
                   const uint64_t* dims, const uint64_t* strides_bytes, const uint32_t* box,
                   uint32_t swizzle_bytes);

const char* emu_counters(void); /* a table of what ran since the last call */
const char* emu_build(void);    /* "plain", "check" or "asan" */

#ifdef __cplusplus
}
#endif
