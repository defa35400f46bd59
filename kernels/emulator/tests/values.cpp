// The emulator's answers: each micro-kernel against what the host computes, in the modes given as
// arguments (fifo, lifo, random, lazy, check, counters).
#include "host.h"

static void block_sums() {
    auto values = random_floats(8 * 1024, 1);
    Device<float> x(values, "x"), out(8, "out");
    if (!run("micro_block_sum", {{8}, {256}, {}, 0}, out.data, x.data)) return;
    for (int b = 0; b < 8; b++) {
        double sum = 0;
        for (int i = 0; i < 1024; i++) sum += values[size_t(b * 1024 + i)];
        expect(std::abs(out[size_t(b)] - sum) < 1e-3, "block sum");
    }
}

static void votes() {
    Device<unsigned> out(5 * 32);
    if (!run("micro_votes", {{1}, {32}}, out.data)) return;
    for (unsigned lane = 0; lane < 32; lane++) {
        expect(out[lane] == 0x49249249u, "ballot of every third lane");
        expect(out[32 + lane] == 496, "reduce_add of lane numbers");
        expect(out[64 + lane] == (lane % 8 ? lane - 1 : lane), "shfl_up in segments of 8");
        expect(out[96 + lane] == 0xfu << lane / 4 * 4, "match_any of groups of 4");
        expect(out[128 + lane] == 5, "syncthreads_count");
    }
}

static void atomics() {
    Device<int> counts(std::vector<int>(4, 0));
    Device<float> total(std::vector<float>(1, 0));
    Device<unsigned> top(std::vector<unsigned>(1, 0));
    if (!run("micro_atomics", {{16}, {64}}, counts.data, total.data, top.data)) return;
    for (size_t i = 0; i < 4; i++) expect(counts[i] == 256, "atomicAdd of int");
    expect(total[0] == 1024, "atomicAdd of float");
    expect(top[0] == 1023, "atomicMax of unsigned");
}

static void turnstile() {
    Device<uint32_t> turn(std::vector<uint32_t>(1, 0));
    Device<float> sum(std::vector<float>(1, 0));
    if (!run("micro_turnstile", {{24}, {32}}, turn.data, sum.data)) return;
    float expected = 0;
    for (int b = 0; b < 24; b++) expected = expected * 0.5f + float(b);
    expect(sum[0] == expected, "turnstile in order");
}

static void last_block() {
    Device<uint32_t> arrived(std::vector<uint32_t>(1, 0));
    Device<float> partial(8 * 64), out(64);
    if (!run("micro_last_block", {{8}, {64}}, out.data, partial.data, arrived.data)) return;
    for (size_t i = 0; i < 64; i++) expect(out[i] == float(28 + 8 * i), "the last block's sum");
}

static void grid_barrier() {
    Device<uint32_t> arrived(std::vector<uint32_t>(1, 0)), values(24), out(24);
    Options options{{24}, {64}};
    options.cooperative = true;
    if (!run("micro_grid_barrier", options, arrived.data, values.data, out.data)) return;
    for (uint32_t b = 0; b < 24; b++) expect(out[b] == (23 - b) * (23 - b), "grid barrier");
}

struct Uint4 {
    uint32_t x, y, z, w;
};
struct Uint2 {
    uint32_t x, y;
};

static void philox() {  // the known answers of Random123
    Device<uint32_t> out(4);
    Uint4 counter{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344};
    if (!run("micro_philox", {}, out.data, counter, Uint2{0xa4093822, 0x299f31d0})) return;
    const uint32_t expected[4] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
    expect(!memcmp(out.data, expected, 16), "Philox4x32-10");
}

static void transpose() {
    auto values = random_bf16(256, 2);
    Device<bf16> x(values), out(256);
    if (!run("micro_transpose", {{1}, {32}}, out.data, x.data)) return;
    bool right = true;
    for (size_t tile = 0; tile < 4; tile++)
        for (size_t i = 0; i < 8; i++)
            for (size_t j = 0; j < 8; j++)
                right &= out[tile * 64 + i * 8 + j].bits == values[tile * 64 + j * 8 + i].bits;
    expect(right, "ldmatrix.trans, stmatrix");
}

static void tiles_of_four_dimensions() {
    // The last dimension is cut: 3 of 4 exist.
    size_t size = 32 * 8 * 2 * 3;
    auto values = random_floats(size, 3);
    Device<float> x(values), out(std::vector<float>(size, 1.0f));
    for (uint32_t swizzle : {0u, 128u}) {
        for (size_t i = 0; i < size; i++) out[i] = 1;
        Map from = tensor_map(4, x.data, {32, 8, 2, 3}, {32, 4, 2, 2}, swizzle);
        Map to = tensor_map(4, out.data, {32, 8, 2, 3}, {32, 4, 2, 2}, swizzle);
        if (!run("micro_tma_4d", {{2, 2}, {32}, {}, 2056}, from, to)) return;
        bool right = true;
        for (size_t i = 0; i < size; i++) right &= out[i] == values[i] + 1;
        expect(right, "TMA in four dimensions, swizzle " + std::to_string(swizzle));
    }
}

static void bulk() {
    auto values = random_floats(4 * 128, 4);
    Device<float> x(values), out(std::vector<float>(128, 0));
    if (!run("micro_bulk", {{4}, {32}}, out.data, x.data)) return;
    for (size_t i = 0; i < 128; i++) {
        float sum = 0;
        for (size_t b = 0; b < 4; b++) sum += 2 * values[b * 128 + i];
        expect(std::abs(out[i] - sum) < 1e-4, "bulk copies");
    }
}

static void cluster() {
    auto values = random_floats(32 * 4, 5);
    Device<float> x(values), out(8 * 32);
    Map map = tensor_map(4, x.data, {32, 4}, {32, 1}, 0);
    if (!run("micro_cluster", {{8}, {32}, {2}, 272}, map, out.data)) return;
    bool right = true;
    for (size_t b = 0; b < 8; b++)
        for (size_t i = 0; i < 32; i++)
            right &= out[b * 32 + i] == values[b / 2 * 32 + i] + float(b % 2 ^ 1);
    expect(right, "multicast and remote stores in a cluster");
}

static void hold(const std::string& what, const std::vector<bf16>& a, const std::vector<bf16>& b,
                 Device<float>& c, size_t m, size_t n, size_t k, bool b_is_k_by_n) {
    double worst = 0;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = 0;
            for (size_t l = 0; l < k; l++)
                sum += double(__bfloat162float(a[i * k + l])) *
                       __bfloat162float(b[b_is_k_by_n ? l * n + j : j * k + l]);
            double error = std::abs(sum - c[i * n + j]) / std::sqrt(double(k));
            if (!(error <= worst)) worst = error;  // NaN too
        }
    expect(worst < 1e-5, what + ": error " + std::to_string(worst));
}

static void products(size_t m, size_t n, size_t k) {
    auto a = random_bf16(m * k, 6), b = random_bf16(n * k, 7);
    Device<bf16> da(a, "a"), db(b, "b");
    Device<float> c(m * n, "c"), d(m * n, "d");
    Dim grid{uint32_t(n + 63) / 64, uint32_t(m + 63) / 64};
    int mi = int(m), ni = int(n), ki = int(k);
    if (run("product_mma", {grid, {128}, {}, 3 * 2 * 4096}, c.data, da.data, db.data, mi, ni, ki))
        hold("product_mma", a, b, c, m, n, k, false);
    Map am = tensor_map(2, da.data, {k, m}, {64, 64}, 128);
    Map bm = tensor_map(2, db.data, {k, n}, {64, 64}, 128);
    if (run("product_wgmma", {grid, {256}, {}, 3 * 2 * 8192 + 48}, am, bm, d.data, mi, ni, ki))
        hold("product_wgmma", a, b, d, m, n, k, false);
}

static void product_from_registers() {
    auto a = random_bf16(64 * 64, 8), b = random_bf16(64 * 128, 9);
    Device<bf16> da(a), db(b);
    Device<float> c(64 * 128);
    Map map = tensor_map(2, db.data, {128, 64}, {64, 64}, 128);
    if (run("product_registers", {{1}, {128}, {}, 2 * 8192 + 8}, c.data, da.data, map))
        hold("product_registers", a, b, c, 64, 128, 64, true);
}

static void refusals() {
    auto refused = [](const char* kernel, const Options& options, const char* why) {
        uint32_t* none = nullptr;
        std::string error = launch(kernel, options, none, none, none);
        expect(error.find(why) != error.npos, "refusal '" + std::string(why) + "': " + error);
    };
    refused("no_such_kernel", {}, "no such kernel");
    refused("micro_votes", {{0}, {32}}, "a grid without blocks");
    refused("micro_votes", {{1}, {1025}}, "threads in a block");
    refused("micro_votes", {{1}, {32}, {}, 227 * 1024 + 1}, "shared memory");
    refused("micro_votes", {{3}, {32}, {2}}, "multiple of clusters");
}

int main(int count, char** words) {
    EmuModes modes{};
    for (int i = 1; i < count; i++) {
        std::string word = words[i];
        if (word == "lifo") modes.order = 1;
        if (word == "random") modes.order = 2;
        if (word == "lazy") modes.lazy = 1;
        if (word == "check") modes.check = 1;
        if (word == "counters") modes.counters = 1;
        if (word == "single") modes.threads = 1;
    }
    modes.seed = 7;
    emu_configure(&modes);
    block_sums();
    votes();
    atomics();
    turnstile();
    last_block();
    grid_barrier();
    philox();
    transpose();
    tiles_of_four_dimensions();
    bulk();
    cluster();
    products(256, 256, 256);
    products(100, 72, 128);
    product_from_registers();
    refusals();
    std::string table = emu_counters();
    if (!table.empty()) printf("%s", table.c_str());
    printf("%s build: %s\n", emu_build(), failures ? "FAILED" : "all values right");
    return failures != 0;
}
