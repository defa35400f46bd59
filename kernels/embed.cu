// Embeddings: y[n] = tokens[ids[n]] + positions[offset + pos[n]] + types[type[n]]; the backward
// adds dy[n] to the same rows of the gradients, without atomics.
//
// Floor, 65,536 tokens, width 768: forward 101 MB written, and each row of a table that occurs read
// once: at most 47 + 1 MB of 30,522 tokens, 0.035 ms at 4.3 TB/s. Backward: dy read once, 101 MB,
// and the rows that occur read and written in f32, at most 190 MB: 0.067 ms. Unmeasured on a GPU;
// the backward is predicted at half its floor's rate, as it reads dy two or three times.
//
// Forward: a row's address waits for an id, so a warp takes four tokens, reads their ids at once, and
// has all loads of a token (up to 1,024 columns of three tables) under way before the first is used.
//
// Backward: a row of a table may occur once or ten thousand times among the tokens ([MASK], "the",
// every position, type 0), and its sum must not depend on who comes first. So:
//   1. embed_keys lists (row, token) for tokens and positions, whose rows are numbered as of one
//      table, in the order of the tokens;
//   2. a stable radix sort by row, eight bits a pass: radix_count, radix_place. Equal rows stay in
//      the order of the tokens;
//   3. embed_sum cuts the sorted list into chunks of 64 entries. A warp walks a chunk, 256 columns
//      wide, eight rows of dy under way at a time, and adds up each run of one row. A run inside
//      the chunk is added to the gradient there and then: nobody else has that row. A run that
//      crosses the chunk's border leaves a partial sum: in `heads` if it began before, in `tails`
//      if it begins here and goes on;
//   4. embed_join: the warp in whose chunk such a run begins adds up its partial sums, in order.
// Every chunk is the same work however often a row occurs. dy is read twice (tokens, positions).
// There are few types, and each occurs everywhere, so they are not sorted: type_sums adds dy up by
// type in interleaved strands of tokens, two types at a time, and type_join adds the strands.
#include <common.cuh>
#include <partials.cuh>

namespace {

constexpr int THREADS = 256;

// ------------------------------------------------------------------ the sort

constexpr int RADIX = 256;
constexpr int SORT_THREADS = 256;  // RADIX of them: a thread a digit between the phases
constexpr int SORT_WARPS = SORT_THREADS / 32;
constexpr int ROUNDS = 16;  // entries that a thread takes
constexpr int SORT_TILE = SORT_THREADS * ROUNDS;

// An entry of the list: x is the row, y the token.
using Entry = uint2;

constexpr unsigned NO_ROW = ~0u;  // no table is that long

// Entry i; NO_ROW before the first and after the last.
__device__ __forceinline__ Entry entry_at(const Entry* sorted, int count, int i) {
    return i >= 0 && i < count ? sorted[i] : make_uint2(NO_ROW, 0);
}

__device__ __forceinline__ unsigned row_at(const Entry* sorted, int count, int i) {
    return entry_at(sorted, count, i).x;
}

__device__ __forceinline__ unsigned digit_of(Entry entry, int shift) {
    return entry.x >> shift & (RADIX - 1);
}

// The sum of `value` over the threads before this one.
__device__ __forceinline__ unsigned block_exclusive_sum(unsigned value) {
    SHARED_ARRAY(unsigned, warps, SORT_WARPS);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    unsigned inclusive = value;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        unsigned before = __shfl_up_sync(ALL_LANES, inclusive, distance);
        if (lane >= distance) inclusive += before;
    }
    if (lane == 31) warps[warp] = inclusive;
    __syncthreads();
    unsigned sum = inclusive - value;
    for (int w = 0; w < warp; w++) sum += warps[w];
    return sum;
}

// Where this block's first entry of digit threadIdx.x goes: after all entries of lower digits, and
// those of this digit in the blocks before. counts [blocks, RADIX].
__device__ __forceinline__ unsigned first_place(const unsigned* counts) {
    unsigned before = 0, total = 0;
#pragma unroll 8
    for (unsigned block = 0; block < gridDim.x; block++) {
        unsigned count = counts[size_t(block) * RADIX + threadIdx.x];
        total += count;
        before += block < blockIdx.x ? count : 0;
    }
    return block_exclusive_sum(total) + before;
}

// ------------------------------------------------------------------ sums of runs

constexpr int CHUNK = 64;     // entries, two a lane
constexpr int SLICE = 256;    // columns of a warp, eight a lane
constexpr int UNDER_WAY = 8;  // rows of dy loaded at a time

// Where the gradients lie: row r is tokens[r] below `position_base`, positions[r − position_base]
// from there on.
struct Tables {
    float* tokens;
    float* positions;
    unsigned position_base;

    __device__ __forceinline__ float* row(unsigned r, int width) const {
        return r < position_base ? tokens + size_t(r) * width
                                 : positions + size_t(r - position_base) * width;
    }
};

// What a warp works on: a chunk and eight columns a lane.
struct Walk {
    int chunk, column;
    bool exists;  // a chunk; the columns may still lie beyond the row

    __device__ __forceinline__ Walk(int count, int width) {
        int slices = ceil_div(width, SLICE);
        int warp = (blockIdx.x * THREADS + threadIdx.x) / 32;
        chunk = warp / slices;
        column = warp % slices * SLICE + threadIdx.x % 32 * 8;
        exists = chunk < ceil_div(count, CHUNK);
    }
};

__device__ __forceinline__ void add8(float (&sum)[8], const float (&x)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i++) sum[i] += x[i];
}

// sum += x [8]
__device__ __forceinline__ void add_to8(float (&sum)[8], const float* x_gmem) {
    float x[8];
    Vec8f::load(x_gmem).to_float(x);
    add8(sum, x);
}

// to [8] += sum
__device__ __forceinline__ void add_to8(float* to, const float (&sum)[8]) {
    float x[8];
    Vec8f::load(to).to_float(x);
    add8(x, sum);
    Vec8f::from_float(x).store(to);
}

// Where the sums of a chunk's runs go.
struct Runs {
    Tables tables;
    float* heads;  // [chunks, E]
    float* tails;  // [chunks, E]
    unsigned row_before, row_after;  // of the entries beside the chunk

    __device__ __forceinline__ void put(const Walk& at, unsigned row, bool first, bool last,
                                        const float (&sum)[8], int width) const {
        if (row == NO_ROW || at.column >= width) return;
        size_t partial = size_t(at.chunk) * width + at.column;
        if (first && row == row_before)
            Vec8f::from_float(sum).store(heads + partial);
        else if (last && row == row_after)
            Vec8f::from_float(sum).store(tails + partial);
        else
            add_to8(tables.row(row, width) + at.column, sum);
    }
};

// ------------------------------------------------------------------ forward

constexpr int TOKENS = 4;   // that a warp takes
constexpr int VECTORS = 4;  // of a table's row that a lane loads at a time

__device__ __forceinline__ const bf16* row_of(const bf16* table, int row, int width) {
    return table != nullptr ? table + size_t(row) * width : nullptr;
}

// A lane's part of a table's row from column `first` on: zeros beyond, and where there is no table.
__device__ __forceinline__ void load_terms(Vec8 (&terms)[VECTORS], const bf16* row, int first,
                                           int width) {
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        int column = first + v * SLICE;
        terms[v] = row != nullptr && column < width ? Vec8::load(row + column)
                                                    : Vec8{make_uint4(0, 0, 0, 0)};
    }
}

// ------------------------------------------------------------------ types

constexpr int PAIR = 2;  // types that type_sums sums at a time

}  // namespace

// One thread an element of y [rows, width]. `positions` begins at the row of the first position;
// it and `types` may be null.
extern "C" __global__ void embed_naive(bf16* y, const int* ids, const int* position_ids,
                                       const int* type_ids, const bf16* tokens,
                                       const bf16* positions, const bf16* types, int width,
                                       int rows) {
    begin_kernel();
    size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size_t(rows) * width) return;
    size_t n = i / width, column = i % width;
    float sum = __bfloat162float(tokens[size_t(ids[n]) * width + column]);
    if (positions != nullptr)
        sum += __bfloat162float(positions[size_t(position_ids[n]) * width + column]);
    if (types != nullptr) sum += __bfloat162float(types[size_t(type_ids[n]) * width + column]);
    y[i] = __float2bfloat16_rn(sum);
}
EXPORT_KERNEL(embed_naive, embed_naive)

// One warp TOKENS tokens, eight columns a lane and vector. Lane t holds the ids of token t.
extern "C" __global__ void __launch_bounds__(THREADS)
    embed(bf16* y, const int* ids, const int* position_ids, const int* type_ids,
          const bf16* tokens, const bf16* positions, const bf16* types, int width, int rows) {
    begin_kernel();
    int lane = threadIdx.x % 32;
    int first_token = (blockIdx.x * (THREADS / 32) + threadIdx.x / 32) * TOKENS;
    int mine = min(first_token + lane % TOKENS, rows - 1);
    int id = ids[mine], position_id = 0, type_id = 0;
    if (positions != nullptr) position_id = position_ids[mine];
    if (types != nullptr) type_id = type_ids[mine];
#pragma unroll 1
    for (int t = 0; t < TOKENS; t++) {
        size_t n = first_token + t;
        const bf16* token = row_of(tokens, __shfl_sync(ALL_LANES, id, t), width);
        const bf16* position = row_of(positions, __shfl_sync(ALL_LANES, position_id, t), width);
        const bf16* type = row_of(types, __shfl_sync(ALL_LANES, type_id, t), width);
        if (n >= size_t(rows)) return;
        for (int first = lane * 8; first < width; first += VECTORS * SLICE) {
            Vec8 terms[3][VECTORS];
            load_terms(terms[0], token, first, width);
            load_terms(terms[1], position, first, width);
            load_terms(terms[2], type, first, width);
#pragma unroll
            for (int v = 0; v < VECTORS; v++) {
                int column = first + v * SLICE;
                if (column >= width) break;
                float sum[8], x[8];
                terms[0][v].to_float(sum);
                terms[1][v].to_float(x);
                add8(sum, x);
                terms[2][v].to_float(x);
                add8(sum, x);
                Vec8::from_float(sum).store(y + n * width + column);
            }
        }
    }
}
EXPORT_KERNEL(embed, embed)

// The gradient of one table. One thread a column of a token; if the token is the first of its row,
// it owns the row, and sums all tokens of it in their order.
extern "C" __global__ void embed_backward_naive(float* table, const int* ids, const bf16* dy,
                                                int width, int rows) {
    begin_kernel();
    size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size_t(rows) * width) return;
    int n = i / width, column = i % width;
    for (int before = 0; before < n; before++)
        if (ids[before] == ids[n]) return;
    float sum = 0.0f;
    for (int m = n; m < rows; m++)
        if (ids[m] == ids[n]) sum += __bfloat162float(dy[size_t(m) * width + column]);
    table[size_t(ids[n]) * width + column] += sum;
}
EXPORT_KERNEL(embed_backward_naive, embed_backward_naive)

// One thread a token: entries [rows], or [2 rows] with positions.
extern "C" __global__ void __launch_bounds__(THREADS)
    embed_keys(Entry* entries, const int* ids, const int* position_ids, unsigned position_base,
               int rows) {
    begin_kernel();
    int n = blockIdx.x * THREADS + threadIdx.x;
    if (n >= rows) return;
    entries[n] = make_uint2(ids[n], n);
    if (position_ids != nullptr)
        entries[size_t(rows) + n] = make_uint2(position_base + position_ids[n], n);
}
EXPORT_KERNEL(embed_keys, embed_keys)

// counts [gridDim.x, RADIX]: how often each digit occurs in each block's tile of entries [count].
extern "C" __global__ void __launch_bounds__(SORT_THREADS)
    radix_count(unsigned* counts, const Entry* entries, int count, int shift) {
    begin_kernel();
    SHARED_ARRAY(unsigned, digits, RADIX);
    digits[threadIdx.x] = 0;
    __syncthreads();
    int tile = blockIdx.x * SORT_TILE;
#pragma unroll 4
    for (int i = tile + threadIdx.x; i < min(tile + SORT_TILE, count); i += SORT_THREADS)
        atomicAdd(&digits[digit_of(entries[i], shift)], 1u);
    __syncthreads();
    counts[size_t(blockIdx.x) * RADIX + threadIdx.x] = digits[threadIdx.x];
}
EXPORT_KERNEL(radix_count, radix_count)

// out = entries in the order of their digits, stable. A warp takes 32 ROUNDS neighbouring entries
// in turns of 32; an entry's rank among its warp's of the same digit is how many came in turns
// before, and in this turn in lanes before.
extern "C" __global__ void __launch_bounds__(SORT_THREADS)
    radix_place(Entry* out, const Entry* entries, const unsigned* counts, int count, int shift) {
    begin_kernel();
    SHARED_ARRAY(unsigned, places, SORT_WARPS * RADIX);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int first = blockIdx.x * SORT_TILE + warp * (32 * ROUNDS) + lane;
    unsigned* mine = places + warp * RADIX;
    for (int d = lane; d < RADIX; d += 32) mine[d] = 0;
    __syncwarp();

    Entry held[ROUNDS];
    unsigned rank[ROUNDS];
#pragma unroll
    for (int r = 0; r < ROUNDS; r++)
        held[r] = entry_at(entries, count, first + 32 * r);
#pragma unroll
    for (int r = 0; r < ROUNDS; r++) {
        bool exists = first + 32 * r < count;
        unsigned digit = exists ? digit_of(held[r], shift) : RADIX;
        unsigned peers = __match_any_sync(ALL_LANES, digit);
        unsigned before = __popc(peers & ((1u << lane) - 1));
        rank[r] = exists ? mine[digit] + before : 0;
        __syncwarp();  // all have read
        if (exists && before == 0) mine[digit] += __popc(peers);
        __syncwarp();
    }
    __syncthreads();

    unsigned place = first_place(counts);
    for (int w = 0; w < SORT_WARPS; w++) {
        unsigned* at = places + w * RADIX + threadIdx.x;
        unsigned found = *at;
        *at = place;
        place += found;
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < ROUNDS; r++)
        if (first + 32 * r < count) out[mine[digit_of(held[r], shift)] + rank[r]] = held[r];
}
EXPORT_KERNEL(radix_place, radix_place)

// One warp 256 columns of a chunk of `sorted` [count].
extern "C" __global__ void __launch_bounds__(THREADS)
    embed_sum(float* tokens, float* positions, unsigned position_base, float* heads, float* tails,
              const Entry* sorted, const bf16* dy, int count, int width) {
    begin_kernel();
    Walk at(count, width);
    if (!at.exists) return;
    int lane = threadIdx.x % 32, first = at.chunk * CHUNK;
    Runs runs = {{tokens, positions, position_base},
                 heads,
                 tails,
                 row_at(sorted, count, first - 1),
                 row_at(sorted, count, first + CHUNK)};

    // A lane holds two entries, and passes them on when it is their turn.
    Entry low = entry_at(sorted, count, first + lane);
    Entry high = entry_at(sorted, count, first + 32 + lane);
    unsigned row = NO_ROW;
    bool first_run = true;  // `row` begins the chunk
    float sum[8] = {};
#pragma unroll 1
    for (int start = 0; start < CHUNK; start += UNDER_WAY) {
        Vec8 under_way[UNDER_WAY];
        unsigned row_of[UNDER_WAY];
#pragma unroll
        for (int j = 0; j < UNDER_WAY; j++) {
            row_of[j] = __shfl_sync(ALL_LANES, start < 32 ? low.x : high.x, start % 32 + j);
            unsigned token = __shfl_sync(ALL_LANES, start < 32 ? low.y : high.y, start % 32 + j);
            bool wanted = row_of[j] != NO_ROW && at.column < width;
            under_way[j] = wanted ? Vec8::load(dy + size_t(token) * width + at.column)
                                  : Vec8{make_uint4(0, 0, 0, 0)};
        }
#pragma unroll
        for (int j = 0; j < UNDER_WAY; j++) {
            float x[8];
            under_way[j].to_float(x);
            if (row_of[j] != row) {
                runs.put(at, row, first_run, false, sum, width);
                first_run = row == NO_ROW;
                row = row_of[j];
#pragma unroll
                for (int k = 0; k < 8; k++) sum[k] = 0.0f;
            }
            add8(sum, x);
        }
    }
    runs.put(at, row, first_run, true, sum, width);
}
EXPORT_KERNEL(embed_sum, embed_sum)

// One warp 256 columns of a chunk: if a run begins in it and goes on in the next, its sum.
extern "C" __global__ void __launch_bounds__(THREADS)
    embed_join(float* tokens, float* positions, unsigned position_base, const float* heads,
               const float* tails, const Entry* sorted, int count, int width) {
    begin_kernel();
    Walk at(count, width);
    if (!at.exists) return;
    int lane = threadIdx.x % 32, first = at.chunk * CHUNK;
    unsigned row = row_at(sorted, count, first + CHUNK - 1);
    bool begins = row_at(sorted, count, first) != row || row_at(sorted, count, first - 1) != row;
    if (row == NO_ROW || !begins || row_at(sorted, count, first + CHUNK) != row) return;

    bool exists = at.column < width;
    float sum[8] = {};
    if (exists) add_to8(sum, tails + size_t(at.chunk) * width + at.column);
    int chunk = at.chunk + 1;  // the run reaches into this one
    for (unsigned ends = 0; ends == 0;) {
        // The 32 chunks after it are looked up at once; the run ends in the first that another
        // row begins.
        ends = __ballot_sync(ALL_LANES, row_at(sorted, count, (chunk + 1 + lane) * CHUNK) != row);
        int stop = chunk + (ends != 0 ? __ffs(ends) : 32);
        const float* head = heads + at.column;
#pragma unroll 8
        for (; chunk < stop; chunk++)
            if (exists) add_to8(sum, head + size_t(chunk) * width);
    }
    Tables tables = {tokens, positions, position_base};
    if (exists) add_to8(tables.row(row, width) + at.column, sum);
}
EXPORT_KERNEL(embed_join, embed_join)

// One warp 256 columns of a strand: tokens s, s + strands, ...; partials [strands, types, width],
// of which it writes types 2 blockIdx.y and the next.
// Two blocks a multiprocessor are all there are; told so, ptxas takes the registers for all loads.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    type_sums(float* partials, const int* type_ids, const bf16* dy, int types, int width, int rows,
              int strands) {
    begin_kernel();
    int slices = ceil_div(width, SLICE);
    int warp = (blockIdx.x * THREADS + threadIdx.x) / 32;
    int strand = warp / slices, column = warp % slices * SLICE + threadIdx.x % 32 * 8;
    if (strand >= strands) return;
    bool exists = column < width;
    int type = blockIdx.y * PAIR;
    float sums[PAIR][8] = {};
    for (int first = strand; first < rows; first += UNDER_WAY * strands) {
        Vec8 under_way[UNDER_WAY];
        int which[UNDER_WAY];
#pragma unroll
        for (int j = 0; j < UNDER_WAY; j++) {
            int n = first + j * strands;
            which[j] = n < rows ? type_ids[n] - type : -1;
            under_way[j] = exists && n < rows ? Vec8::load(dy + size_t(n) * width + column)
                                              : Vec8{make_uint4(0, 0, 0, 0)};
        }
#pragma unroll
        for (int j = 0; j < UNDER_WAY; j++) {
            float x[8];
            under_way[j].to_float(x);
#pragma unroll
            for (int k = 0; k < PAIR; k++)
#pragma unroll
                for (int i = 0; i < 8; i++) sums[k][i] += which[j] == k ? x[i] : 0.0f;
        }
    }
#pragma unroll
    for (int k = 0; k < PAIR; k++) {
        if (type + k >= types || !exists) break;
        float* partial = partials + (size_t(strand) * types + type + k) * width;
        Vec8f::from_float(sums[k]).store(partial + column);
    }
}
EXPORT_KERNEL(type_sums, type_sums)

// table [columns] += the sum of partials [strands, columns].
extern "C" __global__ void __launch_bounds__(PARTIAL_THREADS)
    type_join(float* table, const float* partials, int columns, int strands) {
    begin_kernel();
    float sum = sum_partials(partials, columns, strands);
    int column = blockIdx.x * PARTIAL_COLUMNS + threadIdx.x;
    if (threadIdx.x < PARTIAL_COLUMNS && column < columns) table[column] += sum;
}
EXPORT_KERNEL(type_join, type_join)
