// The answers of the emulator, or of a GPU (gpu.sh): each micro-kernel against what the host
// computes, in the modes given as arguments (lifo, random, lazy, check, counters, single).
// `record=FILE` keeps what the kernels gave, `replay=FILE` compares with what was kept.
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
    expect(worst < 3e-5, what + ": error " + std::to_string(worst));
}

static void products(size_t m, size_t n, size_t k) {
    auto a = random_bf16(m * k, 6), b = random_bf16(n * k, 7);
    Device<bf16> da(a, "a"), db(b, "b");
    Device<float> c(m * n, "c"), d(m * n, "d");
    Dim grid{uint32_t(n + 63) / 64, uint32_t(m + 63) / 64};
    int mi = int(m), ni = int(n), ki = int(k);
    Tolerance tolerance(3e-5);  // tensor cores truncate what they add
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

static void fragments() {
    auto values = random_bf16(256, 10);
    Device<bf16> x(values, "x"), stored(3 * 256, "stored");
    Device<uint32_t> kept(12 * 32, "fragments");
    if (!run("micro_fragments", {{1}, {32}}, kept.data, stored.data, x.data)) return;
    auto tile = [&](size_t t, size_t row, size_t column) -> uint32_t {
        return values[t * 64 + row * 8 + column].bits;
    };
    bool right = true;
    for (size_t l = 0; l < 32; l++) {
        size_t row = l / 4, column = l % 4 * 2;
        for (size_t t = 0; t < 4; t++) {
            uint32_t plain = tile(t, row, column) | tile(t, row, column + 1) << 16;
            uint32_t across = tile(t, column, row) | tile(t, column + 1, row) << 16;
            if (t < 2) right &= kept[t * 32 + l] == plain && kept[(2 + t) * 32 + l] == across;
            right &= kept[(4 + t) * 32 + l] == plain && kept[(8 + t) * 32 + l] == across;
        }
    }
    expect(right, "ldmatrix");
    right = true;
    for (size_t t = 0; t < 4; t++)
        for (size_t i = 0; i < 64; i++) {
            size_t at = t * 64 + i;
            right &= stored[at].bits == (t < 2 ? values[at].bits : 0);
            right &= stored[256 + at].bits == values[at].bits;
            right &= stored[512 + at].bits == tile(t, i % 8, i / 8);
        }
    expect(right, "stmatrix");
}

static void functions() {
    auto values = random_floats(32, 11);
    Device<float> x(values, "x"), out(3 * 32, "out");
    Tolerance tolerance(5e-4);  // of tanh
    if (!run("micro_math", {{1}, {32}}, out.data, x.data)) return;
    auto near = [](double y, double exact, double error) {
        return std::abs(y - exact) <= error * std::abs(exact);
    };
    bool right = true;
    for (size_t i = 0; i < 32; i++) {
        right &= near(out[i], std::exp2(double(values[i])), 2.4e-7);
        right &= near(out[32 + i], 1 / double(values[i]), 1.2e-7);
        right &= near(out[64 + i], std::tanh(double(values[i])), 4.9e-4);
    }
    expect(right, "2^x, 1 / x, tanh");
}

static void policies() {
    auto values = random_floats(128, 12);
    Device<float> x(values, "x"), out(2 * 128, "out");
    if (!run("micro_policies", {{1}, {32}}, out.data, x.data)) return;
    bool right = true;
    for (size_t i = 0; i < 256; i++) right &= out[i] == values[i % 128];
    expect(right, "cache policies");
}

static void barriers() {
    Device<float> turned(32, "turned");
    if (run("micro_named_barriers", {{1}, {64}}, turned.data))
        for (size_t i = 0; i < 32; i++) expect(turned[i] == float(62 - 2 * i), "named barriers");
    auto values = random_floats(32, 13);
    Device<float> x(values, "x"), scratch(32, "scratch"), out(3 * 32, "out");
    if (!run("micro_mbarrier", {{1}, {32}}, out.data, scratch.data, x.data)) return;
    bool right = true;
    for (size_t i = 0; i < 32; i++)
        right &= out[i] == values[i] && out[32 + i] == values[31 - i] && out[64 + i] == values[i];
    expect(right, "an mbarrier in parts, a bulk store");
}

static void tiles_in_and_out() {
    // A tensor [4, 2, 8, 32] seen in 2, 3 and 4 dimensions, of which one box is doubled.
    size_t size = 32 * 8 * 2 * 4;
    auto values = random_floats(size, 14);
    Device<float> x(values, "x"), zeros(std::vector<float>(size, 0), "y2");
    Device<float> y3(std::vector<float>(size, 0), "y3"), y4(std::vector<float>(size, 0), "y4");
    auto in_two = [&](void* at) { return tensor_map(4, at, {32, 64}, {32, 4}, 0); };
    auto in_three = [&](void* at) { return tensor_map(4, at, {32, 8, 8}, {32, 4, 2}, 0); };
    auto in_four = [&](void* at) { return tensor_map(4, at, {32, 8, 2, 4}, {32, 4, 2, 2}, 128); };
    if (!run("micro_tiles", {{1}, {32}, {}, 4104}, in_two(x.data), in_two(zeros.data),
             in_three(x.data), in_three(y3.data), in_four(x.data), in_four(y4.data)))
        return;
    bool right = true;
    for (size_t i = 0; i < size; i++) {
        size_t row = i / 32 % 8, matrix = i / 256;
        auto is = [&](float y, bool inside) { return y == (inside ? 2 * values[i] : 0); };
        bool lower = row >= 4;
        right &= is(zeros[i], matrix == 0 && lower);
        right &= is(y3[i], (matrix == 2 || matrix == 3) && lower);
        right &= is(y4[i], matrix >= 4 && lower);
    }
    expect(right, "tiles stored and added, in 2 to 4 dimensions");
}

static void clusters() {
    auto values = random_floats(32 * 2 * 2 * 2, 15);
    Device<float> x(values, "x"), out(2 * 2 * 32, "out");
    Map three = tensor_map(4, x.data, {32, 2, 4}, {32, 1, 1}, 0);
    Map four = tensor_map(4, x.data, {32, 2, 2, 2}, {32, 1, 1, 1}, 0);
    if (run("micro_multicast", {{2}, {32}, {2}, 264}, three, four, out.data)) {
        bool right = true;
        for (size_t i = 0; i < 128; i++) {
            size_t from = i % 64 < 32 ? 3 * 32 : 7 * 32;
            right &= out[i] == values[from + i % 32];
        }
        expect(right, "multicast in 3 and 4 dimensions");
    }
    Map rows = tensor_map(4, x.data, {32, 8}, {32, 1}, 0);
    Device<float> rounds(2 * 2 * 32, "rounds");
    if (run("micro_ring", {{2}, {32}, {2}, 144}, rows, rounds.data)) {
        bool right = true;
        for (size_t i = 0; i < 128; i++) right &= rounds[i] == values[i % 64];
        expect(right, "a ring that two CTAs read");
    }
    Device<float> seen(4 * 9 * 32, "seen");
    if (!run("micro_remote", {{4}, {32}, {4}}, seen.data)) return;
    bool right = true;
    for (size_t rank = 0; rank < 4; rank++)
        for (size_t i = 0; i < 9; i++)
            for (size_t lane = 0; lane < 32; lane++) {
                // What the inbox holds came from the CTA before, which read here.
                size_t owner = i < 5 ? (rank + 1) % 4 : rank;
                size_t part = i == 0 ? 0 : (i - 1) % 4;
                right &= seen[(rank * 9 + i) * 32 + lane] == float(owner * 1000 + lane * 4 + part);
            }
    expect(right, "a cluster's shared memory");
}

static void lock() {
    Device<uint32_t> words(std::vector<uint32_t>(3, 0), "words");
    Device<uint32_t> taken(std::vector<uint32_t>(16, 0), "taken");
    if (!run("micro_lock", {{16}, {32}}, words.data, taken.data)) return;
    expect(words[0] == 16 && words[1] == 0 && words[2] == 16, "a lock");
    for (size_t i = 0; i < 16; i++) expect(taken[i] == 1, "each ticket taken once");
}

// c = a · b over k = 64, where a lies [64, 64] or transposed, b [N, 64] or transposed. Small whole
// numbers make every sum exact.
static void one_tile(size_t n, bool a_across, bool b_across) {
    std::string name = "wgmma_" + std::to_string(n) + (a_across ? "_1" : "_0") +
                       (b_across ? "_1" : "_0");
    std::vector<bf16> a(64 * 64), b(n * 64);
    for (size_t i = 0; i < a.size(); i++) a[i] = __float2bfloat16_rn(float(i * 7 % 17) - 8);
    for (size_t i = 0; i < b.size(); i++) b[i] = __float2bfloat16_rn(float(i * 5 % 13) - 6);
    Device<bf16> da(a, "a"), db(b, "b");
    Device<float> c(std::vector<float>(2 * 64 * n, 0), "c");
    Map am = tensor_map(2, da.data, {64, 64}, {64, 64}, 128);
    Map bm = b_across ? tensor_map(2, db.data, {n, 64}, {64, 64}, 128)
                      : tensor_map(2, db.data, {64, n}, {64, uint32_t(n)}, 128);
    if (!run(name.c_str(), {{1}, {128}, {}, 5 * 8192 + 8}, c.data, da.data, am, bm)) return;
    bool right = true;
    for (size_t form = 0; form < (a_across ? 1u : 2u); form++)
        for (size_t i = 0; i < 64; i++)
            for (size_t j = 0; j < n; j++) {
                float sum = 0;
                for (size_t k = 0; k < 64; k++)
                    sum += __bfloat162float(a[a_across ? k * 64 + i : i * 64 + k]) *
                           __bfloat162float(b[b_across ? k * n + j : j * 64 + k]);
                right &= c[(form * 64 + i) * n + j] == sum;
            }
    expect(right, name);
}

// Small whole numbers again.
static void one_of_two_groups() {
    std::vector<bf16> a(64 * 128), b(64 * 128);
    for (size_t i = 0; i < a.size(); i++) {
        a[i] = __float2bfloat16_rn(float(i * 7 % 17) - 8);
        b[i] = __float2bfloat16_rn(float(i * 5 % 13) - 6);
    }
    Device<bf16> da(a, "a"), db(b, "b");
    Device<float> c(64 * 64, "c");
    Map am = tensor_map(2, da.data, {128, 64}, {64, 64}, 128);
    Map bm = tensor_map(2, db.data, {128, 64}, {64, 64}, 128);
    if (!run("wgmma_pending", {{1}, {128}, {}, 4 * 8192 + 8}, c.data, am, bm)) return;
    bool right = true;
    for (size_t i = 0; i < 64; i++)
        for (size_t j = 0; j < 64; j++) {
            float sum = 0;
            for (size_t k = 0; k < 128; k++)
                sum += __bfloat162float(a[i * 128 + k]) * __bfloat162float(b[j * 128 + k]);
            right &= c[i * 64 + j] == sum;
        }
    expect(right, "wgmma_pending");
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
    for (int i = 1; i < count; i++) {
        std::string word = words[i], task = word.substr(0, 7);
        if (task != "record=" && task != "replay=") continue;
        recording = task == "record=";
        golden = fopen(word.c_str() + 7, recording ? "wb" : "rb");
        if (!golden) return perror(word.c_str() + 7), 2;
    }
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
    products(40, 24, 128);  // small enough for the golden vectors
    product_from_registers();
    fragments();
    functions();
    policies();
    barriers();
    tiles_in_and_out();
    clusters();
    lock();
    for (size_t n : {64, 96, 128, 160, 192, 256})
        for (int majors = 0; majors < 4; majors++) one_tile(n, majors & 2, majors & 1);
    one_of_two_groups();
    if (std::string(emu_build()) != "gpu") refusals();
    if (golden && !recording) expect(fgetc(golden) == EOF, "golden vectors of more launches");
    if (golden && fclose(golden)) return perror("golden vectors"), 2;
    std::string table = emu_counters();
    if (!table.empty()) printf("%s", table.c_str());
    printf("%s build: %s\n", emu_build(), failures ? "FAILED" : "all values right");
    return failures != 0;
}
