// Dynamic masking of a micro-batch, to the bit what src/data/masking.rs does.
//
// Token i at stream position p has the Philox block w = (Mask, 0, p), and is selected by token,
// word or span as that file's table says. Selected tokens are kept, replaced or masked; their rows
// and what stood there are listed in ascending order, up to a capacity.
//
// Floor: 12 bytes a token, under a microsecond for 64k tokens; the draws are what takes time, 60
// integer operations a block, ten blocks a token for spans. Unmeasured on a GPU.
//
// One block of threads takes 1,024 tokens at a time. A token's place in the list is the number of
// selected tokens before it: in its warp by a vote, in its block by the warps' counts, and from the
// chunks before by a running total. Deterministic, and small beside a step, beside which it runs.
#include <common.cuh>

namespace {

constexpr int THREADS = 1024;
constexpr int WORD_START = 1, SPECIAL = 2;
constexpr int IGNORE = -100, NO_ROW = -1;
constexpr int MAX_SPAN = 10;

enum Unit { TOKEN, WORD, SPAN };

// `MaskingArg` of src/ops/mask.rs.
struct Masking {
    unsigned long long seed;
    unsigned long long start;  // stream position of the first token
    float rate, keep, keep_or_random, span_start;
    int unit, mask, vocab, capacity;
    int tokens, countable;  // N, and how many of them may be selected
};

__device__ uint4 words(const Masking& k, unsigned long long position) {
    return philox_block(k.seed, STREAM_MASK, 0, position);
}

// In [0, 1), exact.
__device__ float uniform(unsigned word) { return (word >> 8) * (1.0f / 16777216.0f); }

// The row whose draw decides for the word that `row` belongs to: where the word, or what is there
// of it, begins.
__device__ int word_start(const int* ids, const int* positions, const int* flags, int row) {
    while (positions[row] != 0 && !(flags[ids[row]] & WORD_START) &&
           !(flags[ids[row - 1]] & SPECIAL))
        row--;
    return row;
}

// Whether a span that starts at this position or up to nine before it covers the position.
__device__ bool in_span(const Masking& k, unsigned long long position) {
    constexpr float longer[MAX_SPAN] = {1.0f,     0.8f,      0.64f,      0.512f,      0.4096f,
                                        0.32768f, 0.262144f, 0.2097152f, 0.16777216f, 0.134217728f};
    for (int j = 0; j < MAX_SPAN && unsigned(j) <= position; j++) {
        uint4 w = words(k, position - j);
        if (uniform(w.x) < k.span_start && uniform(w.w) < longer[j]) return true;
    }
    return false;
}

__device__ bool selected(const Masking& k, const int* ids, const int* positions, const int* flags,
                         int row) {
    if (row >= k.countable || flags[ids[row]] & SPECIAL) return false;
    if (k.unit == SPAN) return in_span(k, k.start + row);
    if (k.unit == WORD) row = word_start(ids, positions, flags, row);
    return uniform(words(k, k.start + row).x) < k.rate;
}

// What a selected token becomes.
__device__ int replacement(const Masking& k, int row, int id) {
    uint4 w = words(k, k.start + row);
    float kind = uniform(w.y);
    if (kind < k.keep) return id;
    return kind < k.keep_or_random ? int(__umulhi(w.z, k.vocab)) : k.mask;
}

}  // namespace

// One thread, token after token. masked [N], rows and targets [capacity], count [1] +=; ids
// and positions [N], flags [V]. Beyond the count rows are −1 and targets −100.
extern "C" __global__ void mask_naive(int* masked, int* rows, int* targets, int* count,
                                      const int* ids, const int* positions, const int* flags,
                                      Masking k) {
    begin_kernel();
    int found = 0;
    for (int row = 0; row < k.tokens; row++) {
        masked[row] = ids[row];
        if (found < k.capacity && selected(k, ids, positions, flags, row)) {
            rows[found] = row;
            targets[found++] = ids[row];
            masked[row] = replacement(k, row, ids[row]);
        }
    }
    *count += found;
    for (int i = found; i < k.capacity; i++) {
        rows[i] = NO_ROW;
        targets[i] = IGNORE;
    }
}
EXPORT_KERNEL(mask_naive, mask_naive)

extern "C" __global__ void __launch_bounds__(THREADS)
    mask(int* masked, int* rows, int* targets, int* count, const int* ids, const int* positions,
         const int* flags, Masking k) {
    begin_kernel();
    SHARED_ARRAY(int, counts, THREADS / 32);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int before = 0;  // selected in the chunks before this one
    for (int first = 0; first < k.tokens; first += THREADS) {
        int row = first + int(threadIdx.x);
        bool hit = row < k.tokens && selected(k, ids, positions, flags, row);
        unsigned votes = __ballot_sync(0xffffffffu, hit);
        if (lane == 0) counts[warp] = __popc(votes);
        __syncthreads();
        int place = before + __popc(votes & ((1u << lane) - 1));
        for (int w = 0; w < THREADS / 32; w++) {
            if (w < warp) place += counts[w];
            before += counts[w];
        }
        if (row < k.tokens) {
            bool taken = hit && place < k.capacity;
            masked[row] = taken ? replacement(k, row, ids[row]) : ids[row];
            if (taken) {
                rows[place] = row;
                targets[place] = ids[row];
            }
        }
        __syncthreads();  // counts are written anew
    }
    int found = min(before, k.capacity);
    if (threadIdx.x == 0) *count += found;
    for (int i = found + int(threadIdx.x); i < k.capacity; i += THREADS) {
        rows[i] = NO_ROW;
        targets[i] = IGNORE;
    }
}
EXPORT_KERNEL(mask, mask)
