// Each misuse of misuse.cu must be reported, in words that name it: by the checks that every build
// makes, and by the checker where it is there. With an argument, runs that kernel alone.
#include "host.h"

struct Misuse {
    const char* kernel;
    uint32_t blocks, threads, cluster, shared;
    bool checker;  // found by the checker only
    const char* report;
    const char* place;  // further words of the report
};

static const Misuse MISUSES[] = {
    {"bad_race", 1, 64, 1, 0, true, "race: ", "misuse.cu:14"},
    {"bad_race_in_warp", 1, 32, 1, 0, true, "race: ", "misuse.cu:21"},
    {"bad_uninitialised", 1, 32, 1, 0, true, "uninitialised shared memory", "thread 31"},
    {"bad_bounds", 1, 1, 1, 0, true, "out of bounds: write", "'out' byte 1024 of 1024"},
    {"bad_read_bounds", 1, 1, 1, 0, true, "out of bounds: read", "'x' byte -2"},
    {"bad_alignment", 1, 1, 1, 0, true, "misaligned access of 16 bytes", "misuse.cu:42"},
    {"bad_blocks", 4, 32, 1, 0, true, "race between blocks", "'out' byte 0"},
    {"bad_global_in_block", 1, 32, 1, 0, true, "race in global memory", ""},
    {"bad_turnstile", 4, 1, 1, 0, true, "race between blocks", ""},
    {"bad_release", 2, 64, 1, 0, true, "race between blocks", ""},
    {"bad_proxy", 1, 32, 1, 0, true, "missing fence_proxy_async", ""},
    {"bad_unwaited_store", 1, 32, 1, 0, false, "exits without waiting", ""},
    {"bad_mbarrier_fence", 1, 32, 1, 0, true, "missing fence_mbarrier_init", ""},
    {"bad_expect_more", 1, 32, 1, 0, false, "deadlock", "+16 bytes expected"},
    {"bad_expect_less", 1, 32, 1, 0, false, "deadlock", "-256 bytes expected"},
    {"bad_no_mbarrier", 1, 32, 1, 0, false, "holds no mbarrier", ""},
    {"bad_arrivals", 1, 32, 1, 0, false, "in the middle of a phase", "1 of 33 arrivals"},
    {"bad_divergent_barrier", 1, 32, 1, 0, false, "divergent", ""},
    {"bad_barrier_count", 1, 64, 1, 0, false, "deadlock", "barrier 3: 32 of 64 threads"},
    {"bad_half_warp", 1, 64, 1, 0, false, "has 16 of 32 threads", ""},
    {"bad_divergent_shuffle", 1, 32, 1, 0, false, "diverged", ""},
    {"bad_shuffle_source", 1, 32, 1, 0, false, "which mask 0000ffff leaves out", ""},
    {"bad_copy_wait", 1, 32, 1, 0, true, "race: ", "cp.async of thread"},
    {"bad_ldmatrix_row", 1, 32, 1, 0, false, "not 16-byte aligned", ""},
    {"bad_swizzle_base", 1, 1, 1, 9216, false, "the pattern would be shifted", ""},
    {"bad_wgmma_fence", 1, 128, 1, 8192, false, "without a wgmma.fence", ""},
    {"bad_wgmma_proxy", 1, 128, 1, 8192, true, "missing fence_proxy_async", ""},
    {"bad_wgmma_early", 1, 128, 1, 8192, true, "race: ", "an asynchronous operation"},
    {"bad_spin", 2, 32, 1, 0, false, "a value in memory that nobody writes", ""},
    {"bad_exited_block", 2, 1, 2, 0, false, "has exited", ""},
    {"bad_cluster_race", 2, 1, 2, 0, true, "race: ", ""},
    {"bad_shared_arrays", 1, 32, 1, 0, false, "shared arrays", ""},
    {"bad_shared_bounds", 1, 32, 1, 0, true, "", ""},
    {"bad_overlap", 1, 32, 1, 0, true, "before the kernels before have ended: read", "'x' byte 0"},
    {"bad_early_exit", 1, 32, 1, 0, false, "exits without waiting for the kernels before", ""},
};

// Buffers that serve every misuse: `out`, and `x` or a map or a size as the kernel has it.
static std::string commit(const Misuse& misuse) {
    Device<float> out(std::vector<float>(256, 0), "out"), x(random_floats(256, 1), "x");
    Device<uint32_t> word(std::vector<uint32_t>(1, 0), "word");
    Device<bf16> matrix(random_bf16(64 * 64, 2), "matrix");
    Options options{{misuse.blocks}, {misuse.threads}, {misuse.cluster}, misuse.shared};
    std::string kernel = misuse.kernel;
    options.overlaps = kernel == "bad_overlap" || kernel == "bad_early_exit";
    if (kernel == "bad_bounds") return launch(misuse.kernel, options, out.data, 256);
    if (kernel == "bad_turnstile" || kernel == "bad_release")
        return launch(misuse.kernel, options, word.data, out.data);
    if (kernel == "bad_spin") return launch(misuse.kernel, options, word.data);
    if (kernel == "bad_swizzle_base")
        return launch(misuse.kernel, options,
                      tensor_map(2, matrix.data, {64, 64}, {64, 64}, 128));
    return launch(misuse.kernel, options, out.data, x.data);
}

int main(int count, char** words) {
    EmuModes modes{};
    modes.check = std::string(emu_build()) == "check";
    modes.threads = 1;
    emu_configure(&modes);
    int reported = 0;
    for (const Misuse& misuse : MISUSES) {
        if (count > 1 && std::string(words[1]) != misuse.kernel) continue;
        if (count == 1 && misuse.checker && !modes.check) continue;
        std::string error = commit(misuse);
        bool found = !error.empty() && error.find(misuse.report) != error.npos &&
                     error.find(misuse.place) != error.npos;
        expect(found, std::string(misuse.kernel) + ": wanted '" + misuse.report + "' and '" +
                          misuse.place + "', was told:\n" + error);
        reported += found;
        if (count > 1) printf("%s\n", error.c_str());
    }
    printf("%s build: %d misuses reported, %d not\n", emu_build(), reported, failures);
    return failures != 0;
}
