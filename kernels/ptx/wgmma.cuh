// wgmma: a warpgroup's asynchronous product (PTX ISA, "wgmma.mma_async"; sm_90a).
//
//   d [64, N] = (accumulate ? d : 0) + a [64, 16] · b [16, N]     bf16, sums in fp32
//
// a comes from shared memory (`wgmma_m64k16`) or registers (`_rs`, laid out as a of mma_m16n8k16,
// warp w holding rows 16 w to 16 w + 15), b from shared memory; TRANS 1 says that the operand is
// m- or n-major. Thread t of the warpgroup holds, for column block i of 8, row
// 16 (t / 32) + (t % 32) / 4 in d[4 i], d[4 i + 1] and the row 8 below in the next two, columns
// 8 i + 2 (t % 4) and + 1.
//
// Order: wgmma_fence, products, wgmma_commit, wgmma_wait. Between the first and the last the
// accumulators belong to the tensor core.
#pragma once
#include <ptx/descriptor.cuh>

namespace ptx {

__device__ __forceinline__ void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Until at most PENDING of this thread's groups are under way. The accumulators are operands, or
// the compiler might read them before the wait.
template <int PENDING, int R>
__device__ __forceinline__ void wgmma_wait(float (&d)[R]) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
#pragma unroll
    for (int i = 0; i < R; i++) asm volatile("" : "+f"(d[i])::"memory");
}

// The same where no accumulator is read before the next wait: groups go on.
template <int PENDING>
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

template <int N, int TRANS_A, int TRANS_B>
struct Wgmma;
template <int N, int TRANS_B>
struct WgmmaRs;

// ---- the accumulators of an instruction: as operands, and as places in its text
#define WGMMA_D8(i) \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
    "+f"(d[i + 6]), "+f"(d[i + 7])
#define WGMMA_D16(i) WGMMA_D8(i), WGMMA_D8(i + 8)
#define WGMMA_D32(i) WGMMA_D16(i), WGMMA_D16(i + 16)
#define WGMMA_D64(i) WGMMA_D32(i), WGMMA_D32(i + 32)
#define WGMMA_TEXT_32 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
    "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WGMMA_TEXT_48 \
    WGMMA_TEXT_32 ", " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define WGMMA_TEXT_64 \
    WGMMA_TEXT_48 ", " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA_TEXT_80 \
    WGMMA_TEXT_64 ", " \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define WGMMA_TEXT_96 \
    WGMMA_TEXT_80 ", " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define WGMMA_TEXT_128 \
    WGMMA_TEXT_96 ", " \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, " \
    "%111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, " \
    "%126, %127"

// ---- both forms for one N: R = N / 2 accumulators are operands 0 to R - 1, and the operands that
// follow are numbered by the caller. D is the list of accumulators in parentheses.
#define WGMMA_LIST(...) __VA_ARGS__
#define WGMMA_FORMS(N, R, D, O0, O1, O2, O3, O4, O5, O6)                                        \
    template <int TRANS_A, int TRANS_B>                                                         \
    struct Wgmma<N, TRANS_A, TRANS_B> {                                                         \
        __device__ static __forceinline__ void run(float (&d)[R], uint64_t a, uint64_t b,       \
                                                   int accumulate) {                            \
            asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %" #O2 ", 0;\n"                    \
                         " wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 "           \
                         "{" WGMMA_TEXT_##R "}, %" #O0 ", %" #O1 ", p, 1, 1, %" #O3 ", %" #O4   \
                         ";\n}"                                                                 \
                         : WGMMA_LIST D                                                         \
                         : "l"(a), "l"(b), "r"(accumulate), "n"(TRANS_A), "n"(TRANS_B));        \
        }                                                                                       \
    };                                                                                          \
    template <int TRANS_B>                                                                      \
    struct WgmmaRs<N, TRANS_B> {                                                                \
        __device__ static __forceinline__ void run(float (&d)[R], const uint32_t (&a)[4],       \
                                                   uint64_t b, int accumulate) {                \
            asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %" #O5 ", 0;\n"                    \
                         " wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 "           \
                         "{" WGMMA_TEXT_##R "}, {%" #O0 ", %" #O1 ", %" #O2 ", %" #O3 "}, %" #O4 \
                         ", p, 1, 1, %" #O6 ";\n}"                                              \
                         : WGMMA_LIST D                                                         \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), \
                           "n"(TRANS_B));                                                       \
        }                                                                                       \
    };

WGMMA_FORMS(64, 32, (WGMMA_D32(0)), 32, 33, 34, 35, 36, 37, 38)
WGMMA_FORMS(96, 48, (WGMMA_D32(0), WGMMA_D16(32)), 48, 49, 50, 51, 52, 53, 54)
WGMMA_FORMS(128, 64, (WGMMA_D64(0)), 64, 65, 66, 67, 68, 69, 70)
WGMMA_FORMS(160, 80, (WGMMA_D64(0), WGMMA_D16(64)), 80, 81, 82, 83, 84, 85, 86)
WGMMA_FORMS(192, 96, (WGMMA_D64(0), WGMMA_D32(64)), 96, 97, 98, 99, 100, 101, 102)
WGMMA_FORMS(256, 128, (WGMMA_D64(0), WGMMA_D64(64)), 128, 129, 130, 131, 132, 133, 134)

#undef WGMMA_FORMS

template <int N, int TRANS_A = 0, int TRANS_B = 0>
__device__ __forceinline__ void wgmma_m64k16(float (&d)[N / 2], uint64_t a_desc, uint64_t b_desc,
                                             int accumulate) {
    Wgmma<N, TRANS_A, TRANS_B>::run(d, a_desc, b_desc, accumulate);
}

template <int N, int TRANS_B = 0>
__device__ __forceinline__ void wgmma_m64k16_rs(float (&d)[N / 2], const uint32_t (&a)[4],
                                                uint64_t b_desc, int accumulate) {
    WgmmaRs<N, TRANS_B>::run(d, a, b_desc, accumulate);
}

}  // namespace ptx
