// A libcublasLt.so for tests: the calls that the program makes, as NVIDIA documents them, and a
// plain product on the CPU. Matrices are by columns: element (i, j) of one with leading dimension
// `ld` is at i + j·ld. Work goes through the queue of tests/cuda/driver.cpp, a millisecond a
// piece, so that algorithms take as long as it is decided here.
//
// FAKE_CUDA_LOG  gets a line for each product, and for each thing never given back
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>

#define API extern "C" __attribute__((visibility("default")))

// Codes of cublas_api.h and library_types.h.
enum { SUCCESS = 0, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { F32 = 0, BF16 = 14, SUMS_IN_F32 = 68 };

// What the algorithms of this library are: milliseconds, or what is wrong with them.
static const int UNFIT = -1, FAILS = -2;
static const int TAKES[] = {4, UNFIT, 7, FAILS, 2, 3};

struct Layout {
    int type;
    uint64_t rows, columns;
    int64_t ld;
    size_t bytes() const { return (type == F32 ? 4 : 2) * size_t(ld) * columns; }
    double at(const void* base, uint64_t i, uint64_t j) const {
        uint64_t index = i + j * uint64_t(ld);
        if (type == F32) return ((const float*)base)[index];
        uint32_t bits = uint32_t(((const uint16_t*)base)[index]) << 16;
        float value;
        memcpy(&value, &bits, 4);
        return value;
    }
    void set(void* base, uint64_t i, uint64_t j, float value) const {
        uint64_t index = i + j * uint64_t(ld);
        if (type == F32) {
            ((float*)base)[index] = value;
            return;
        }
        uint32_t bits;
        memcpy(&bits, &value, 4);
        ((uint16_t*)base)[index] = uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
};

struct Description {
    int sums, scale, transposed[2];
};

// Its number, and what its operands are aligned to.
struct Algorithm {
    uint64_t data[8];
};

// Bytes of workspace, and that A, B, C and D are aligned to.
struct Preference {
    uint64_t workspace;
    uint32_t alignment[4];
};

struct Heuristic {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

static std::map<std::string, long> live;

static void log_line(const std::string& line) {
    const char* path = getenv("FAKE_CUDA_LOG");
    if (!path) return;
    FILE* file = fopen(path, "a");
    fprintf(file, "%s\n", line.c_str());
    fclose(file);
}

template <class F>
static F* driver(const char* name) {
    static void* library = dlopen("libcuda.so", RTLD_NOW | RTLD_NOLOAD);
    void* found = library ? dlsym(library, name) : nullptr;
    if (!found) abort();
    return reinterpret_cast<F*>(found);
}

static void later(std::function<void()> work) {
    driver<void(std::function<void()>)>("fake_later")(std::move(work));
}

// Whether the device's memory has so many bytes at an address.
static bool has_room(const void* address, size_t bytes) {
    return driver<size_t(const void*)>("fake_room")(address) >= bytes;
}

API size_t cublasLtGetVersion() { return 130401; }
API int cublasLtCreate(void** handle) { return live["handles"]++, *handle = &live, SUCCESS; }
API int cublasLtDestroy(void* handle) {
    live["handles"]--;
    for (auto& [what, count] : live)
        if (count) log_line("left " + std::to_string(count) + " " + what);
    return handle == &live ? SUCCESS : INVALID_VALUE;
}

API int cublasLtMatrixLayoutCreate(Layout** made, int type, uint64_t rows, uint64_t columns,
                                   int64_t ld) {
    if (ld < int64_t(rows) || (type != F32 && type != BF16)) return INVALID_VALUE;
    live["layouts"]++;
    return *made = new Layout{type, rows, columns, ld}, SUCCESS;
}
API int cublasLtMatrixLayoutDestroy(Layout* layout) {
    return delete layout, live["layouts"]--, SUCCESS;
}

API int cublasLtMatmulDescCreate(Description** made, int sums, int scale) {
    live["descriptions"]++;
    return *made = new Description{sums, scale, {0, 0}}, SUCCESS;
}
API int cublasLtMatmulDescSetAttribute(Description* description, int attribute, const void* value,
                                       size_t bytes) {
    if ((attribute != 3 && attribute != 4) || bytes != 4) return INVALID_VALUE;
    return memcpy(&description->transposed[attribute - 3], value, 4), SUCCESS;
}
API int cublasLtMatmulDescDestroy(Description* description) {
    return delete description, live["descriptions"]--, SUCCESS;
}

API int cublasLtMatmulPreferenceCreate(Preference** made) {
    live["preferences"]++;
    return *made = new Preference{0, {256, 256, 256, 256}}, SUCCESS;
}
API int cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute,
                                             const void* value, size_t bytes) {
    if (attribute == 1 && bytes == 8) return memcpy(&preference->workspace, value, 8), SUCCESS;
    if (attribute < 5 || attribute > 8 || bytes != 4) return INVALID_VALUE;
    return memcpy(&preference->alignment[attribute - 5], value, 4), SUCCESS;
}
API int cublasLtMatmulPreferenceDestroy(Preference* preference) {
    return delete preference, live["preferences"]--, SUCCESS;
}

// m, n and k, where the matrices fit one another.
static bool sides(const Description& what, const Layout& a, const Layout& b, const Layout& d,
                  uint64_t (&mnk)[3]) {
    auto [m, k] = what.transposed[0] ? std::pair(a.columns, a.rows) : std::pair(a.rows, a.columns);
    auto [k_of_b, n] =
        what.transposed[1] ? std::pair(b.columns, b.rows) : std::pair(b.rows, b.columns);
    mnk[0] = m, mnk[1] = n, mnk[2] = k;
    return k == k_of_b && d.rows == m && d.columns == n && what.sums == SUMS_IN_F32 &&
           what.scale == F32;
}

API int cublasLtMatmulAlgoGetHeuristic(void* handle, Description* what, Layout* a, Layout* b,
                                       Layout* c, Layout* d, Preference* preference, int wanted,
                                       Heuristic* found, int* count) {
    uint64_t mnk[3];
    if (handle != &live || c != d || !sides(*what, *a, *b, *d, mnk)) return INVALID_VALUE;
    *count = 0;
    // Tensor cores take rows of whole 16 bytes.
    const uint32_t* aligned = preference->alignment;
    if (a->ld % 8 || b->ld % 8 || aligned[0] < 16 || aligned[1] < 16) return NOT_SUPPORTED;
    for (int i = 0; i < int(sizeof TAKES / sizeof *TAKES) && *count < wanted; i++) {
        Heuristic& here = found[(*count)++];
        here = {{{uint64_t(i), aligned[0], aligned[1], aligned[2], aligned[3]}},
                size_t(preference->workspace), SUCCESS, 1.0f, {}};
        if (TAKES[i] == UNFIT) here.state = NOT_SUPPORTED;
    }
    return SUCCESS;
}

API int cublasLtMatmul(void* handle, Description* what, const float* alpha, const void* a,
                       Layout* of_a, const void* b, Layout* of_b, const float* beta, const void* c,
                       Layout* of_c, void* d, Layout* of_d, const Algorithm* algorithm,
                       void* workspace, size_t workspace_bytes, void* stream) {
    uint64_t mnk[3];
    bool fits = handle == &live && stream && sides(*what, *of_a, *of_b, *of_d, mnk) && c == d &&
                of_c == of_d && has_room(a, of_a->bytes()) && has_room(b, of_b->bytes()) &&
                has_room(d, of_d->bytes()) && has_room(workspace, workspace_bytes) &&
                uintptr_t(workspace) % 256 == 0;
    const void* places[] = {a, b, c, d};
    for (int i = 0; i < 4; i++) fits &= uintptr_t(places[i]) % algorithm->data[1 + i] == 0;
    if (!fits) return INVALID_VALUE;
    int takes = TAKES[algorithm->data[0]];
    auto side = [](const Layout& of, bool transposed) {
        return std::to_string(of.rows) + "x" + std::to_string(of.columns) + " ld " +
               std::to_string(of.ld) + (transposed ? " T" : "");
    };
    log_line("matmul " + side(*of_a, what->transposed[0]) + ", " +
             side(*of_b, what->transposed[1]) + " -> " + side(*of_d, false) +
             (of_d->type == F32 ? " f32" : " bf16") + " beta " + std::to_string(int(*beta)) +
             " takes " + std::to_string(takes));
    if (takes < 0) return EXECUTION_FAILED;
    // Arguments are taken when the library is called.
    later([mnk, what = *what, A = *of_a, B = *of_b, D = *of_d, alpha = *alpha, beta = *beta, a, b,
           d] {
        for (uint64_t i = 0; i < mnk[0]; i++)
            for (uint64_t j = 0; j < mnk[1]; j++) {
                double sum = 0;
                for (uint64_t p = 0; p < mnk[2]; p++)
                    sum += (what.transposed[0] ? A.at(a, p, i) : A.at(a, i, p)) *
                           (what.transposed[1] ? B.at(b, j, p) : B.at(b, p, j));
                double before = beta == 0 ? 0 : beta * D.at(d, i, j);
                D.set(d, i, j, float(alpha * sum + before));
            }
    });
    for (int i = 1; i < takes; i++) later([] {});
    return SUCCESS;
}
