// ldmatrix, stmatrix and mma.sync: a warp's lanes deposit registers and addresses, the last one to
// come does the work. Products of bf16 are exact in fp32; sums run over k in order.
#include "check.h"
#include "runtime.h"

namespace emu {

static float widen(uint32_t half) {
    uint32_t bits = half << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

struct Matrices {
    const uint32_t* in;
    uint32_t* out;
    int count;
    bool transposed;
    uint32_t address;
    Loc loc;
};

// Row `row` of matrix `i` lies where lane 8 i + row points.
static unsigned char* row_pointer(void** lanes, int i, int row, bool write) {
    auto& mine = *static_cast<Matrices*>(lanes[i * 8 + row]);
    Worker* w = worker;
    Cta* cta = w->current->cta;
    const char* what = write ? "stmatrix" : "ldmatrix";
    if (mine.address % 16)
        fail(mine.loc, "%s: lane %d's row 0x%x is not 16-byte aligned", what, i * 8 + row,
             mine.address);
    check_shared(cta, mine.address, 16, mine.loc, what);
    Fiber* lane = cta->fibers + w->current->warp * 32 + i * 8 + row;
    if (w->checker) check_matrix_row(w, lane, mine.address, row, write, mine.loc);
    return shared_pointer(cta, mine.address);
}

static void load_matrices(void** lanes, uint32_t) {
    auto& first = *static_cast<Matrices*>(lanes[0]);
    for (int i = 0; i < first.count; i++) {
        uint16_t matrix[8][8];
        for (int row = 0; row < 8; row++)
            memcpy(matrix[row], row_pointer(lanes, i, row, false), 16);
        for (int lane = 0; lane < 32; lane++) {
            int row = lane / 4, column = lane % 4 * 2;
            uint32_t low = first.transposed ? matrix[column][row] : matrix[row][column];
            uint32_t high = first.transposed ? matrix[column + 1][row] : matrix[row][column + 1];
            static_cast<Matrices*>(lanes[lane])->out[i] = low | high << 16;
        }
    }
}

static void store_matrices(void** lanes, uint32_t) {
    auto& first = *static_cast<Matrices*>(lanes[0]);
    for (int i = 0; i < first.count; i++) {
        uint16_t matrix[8][8];
        for (int lane = 0; lane < 32; lane++) {
            int row = lane / 4, column = lane % 4 * 2;
            uint32_t pair = static_cast<Matrices*>(lanes[lane])->in[i];
            (first.transposed ? matrix[column][row] : matrix[row][column]) = uint16_t(pair);
            (first.transposed ? matrix[column + 1][row] : matrix[row][column + 1]) =
                uint16_t(pair >> 16);
        }
        for (int row = 0; row < 8; row++)
            memcpy(row_pointer(lanes, i, row, true), matrix[row], 16);
    }
}

void ldmatrix(uint32_t* registers, int matrices, bool transposed, uint32_t address, Loc loc) {
    Matrices argument{nullptr, registers, matrices, transposed, address, loc};
    warp_collective(~0u, Collective::Ldmatrix, &argument, load_matrices, loc);
}

void stmatrix(const uint32_t* registers, int matrices, bool transposed, uint32_t address, Loc loc) {
    Matrices argument{registers, nullptr, matrices, transposed, address, loc};
    warp_collective(~0u, Collective::Stmatrix, &argument, store_matrices, loc);
}

struct Fragments {
    float* d;
    const uint32_t *a, *b;
};

static void multiply(void** lanes, uint32_t) {
    alignas(64) float a[16][16], b[16][8], c[16][8] = {};
    for (int lane = 0; lane < 32; lane++) {
        auto& mine = *static_cast<Fragments*>(lanes[lane]);
        int group = lane / 4, pair = lane % 4 * 2;
        for (int i = 0; i < 4; i++) {
            int row = group + (i & 1) * 8, k = pair + (i >> 1) * 8;
            a[row][k] = widen(mine.a[i] & 0xffff);
            a[row][k + 1] = widen(mine.a[i] >> 16);
        }
        for (int i = 0; i < 2; i++) {
            b[pair + i * 8][group] = widen(mine.b[i] & 0xffff);
            b[pair + i * 8 + 1][group] = widen(mine.b[i] >> 16);
        }
    }
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++) c[row][column] += a[row][k] * b[k][column];
    for (int lane = 0; lane < 32; lane++) {
        float* d = static_cast<Fragments*>(lanes[lane])->d;
        int row = lane / 4, column = lane % 4 * 2;
        d[0] += c[row][column];
        d[1] += c[row][column + 1];
        d[2] += c[row + 8][column];
        d[3] += c[row + 8][column + 1];
    }
}

void mma_m16n8k16(float* d, const uint32_t* a, const uint32_t* b, Loc loc) {
    Fragments argument{d, a, b};
    warp_collective(~0u, Collective::Mma, &argument, multiply, loc);
}

}  // namespace emu
