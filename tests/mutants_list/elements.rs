//! Of what works element by element: rotary positions, activations, dropout.

use super::{Mutant, check, fifo};

#[rustfmt::skip]
pub const ROPE: &[Mutant] = &[
    fifo("rope", "rope.cu", "second half turned by the turned first",
        "d[i] = b[i] * cos[i] + a[i] * sin[i];", "d[i] = b[i] * cos[i] + c[i] * sin[i];"),
    fifo("rope", "rope.cu", "backward turns forward",
        "for (int i = 0; i < 8; i++) sin[i] *= turn;", ""),
    fifo("rope", "rope.cu", "values are turned",
        "        if (head < 2 * heads) {\n            turn8",
        "        if (head < 3 * heads) {\n            turn8"),
    fifo("rope", "rope.cu", "heads of the last group left out",
        "(2 * heads + HEADS - 1) / HEADS;", "max(2 * heads / HEADS, 1);"),
    fifo("rope", "rope.cu", "threads write a row after the last",
        "if (place.row >= size_t(rows)) return;", "if (place.row > size_t(rows)) return;"),
    fifo("rope", "rope.cu", "two threads turn the same pairs",
        "unsigned chunks = head_dim / 16;", "unsigned chunks = head_dim / 16 + 1;"),
    fifo("rope", "rope.cu", "may begin before the kernels before have ended",
        "    begin_kernel();\n    int groups", "    int groups"),
];

/// Where it is part of a product and of attention's backward.
#[rustfmt::skip]
pub const ROTATION: &[Mutant] = &[
    fifo("linear", "product_hopper_out.cuh", "values are turned",
        "if (beside.column < bias.columns / 3 * 2) {", "if (beside.column < bias.columns) {"),
    fifo("linear", "product_hopper_out.cuh", "bias of second halves forgotten",
        "        Bias::add(high, bias.load(beside.column + 32));\n", ""),
    fifo("linear", "product_hopper_out.cuh", "neighbouring strips are a pair",
        "constexpr int APART<T, RopeOut> = 2;", "constexpr int APART<T, RopeOut> = 1;"),
    fifo("linear", "product_hopper_out.cuh", "second block at the first one's positions",
        "out.load(corner.row + strip / IN_BLOCK * 64,", "out.load(corner.row,"),
    fifo("linear", "hopper.cuh", "rows 8 and on at the positions of the first",
        "row + 8 * h + threadIdx.x % 32 / 4;", "row + threadIdx.x % 32 / 4;"),
    fifo("linear", "hopper.cuh", "angles of the first strip",
        "strip * 16 + 8 * j + threadIdx.x % 4 * 2;", "8 * j + threadIdx.x % 4 * 2;"),
    check("linear", "hopper.cuh", "rows beyond the last have positions",
        "at < end ? positions[at] * D : 0;", "positions[at] * D;"),
    fifo("attention", "attention_hopper_backward.cu", "gradients turned forward",
        "angles.turn(i % 8, x[D / 4 + i], x[i]);", "angles.turn(i % 8, x[i], x[D / 4 + i]);"),
    fifo("attention", "attention_hopper_backward.cu", "dq at the positions of keys",
        "if constexpr (B::EARLY) places = places_of(query + own_row);",
        "if constexpr (B::EARLY) places = places_of(row);"),
    fifo("attention", "attention_hopper_backward.cu", "positions counted from the batch's first",
        "places<D>(item.first + row, end);", "places<D>(row, end);"),
    fifo("attention", "attention_hopper_backward.cu", "dk under dropout at its tile's first rows",
        "if constexpr (!B::EARLY) key_places = places_of(row);",
        "if constexpr (!B::EARLY) key_places = places_of(own_row);"),
];

#[rustfmt::skip]
pub const ACTIVATION: &[Mutant] = &[
    fifo("activation", "activation.cuh", "slope of the cubic forgotten",
        "1.0f + 3.0f * CUBIC * square", "1.0f + CUBIC * square"),
    fifo("activation", "activation.cuh", "gelu's slope without the density",
        "cdf + x * density", "cdf"),
    fifo("linear", "activation.cuh", "silu's slope of minus x",
        "(1.0f + x * (1.0f - sigmoid))", "(1.0f - x * (1.0f - sigmoid))"),
    check("activation", "activation.cu", "tail taken for a whole vector",
        "if (first + 8 <= length) {", "if (first < length) {"),
    fifo("activation", "activation.cu", "tail left out",
        "for (size_t i = first; i < length; i++)", "for (size_t i = first + 1; i < length; i++)"),
];

#[rustfmt::skip]
pub const DROPOUT: &[Mutant] = &[
    fifo("dropout", "dropout.cuh", "second block of the mask is the first",
        "dropout_factors(dropout, first / 4 + half)", "dropout_factors(dropout, first / 4)"),
    check("dropout", "dropout.cu", "tail runs one element too far",
        "if (first + i < end) y[first + i]", "if (first + i <= end) y[first + i]"),
];
