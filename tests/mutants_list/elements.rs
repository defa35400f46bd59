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
