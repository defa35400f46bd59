//! Of the means and losses of task heads.

use super::{Mutant, fifo, lifo};

#[rustfmt::skip]
pub const TASK: &[Mutant] = &[
    fifo("task", "task.cu", "the last row of a sequence left out of its mean",
        "for (int row = first; row < end; row++) {",
        "for (int row = first; row < end - 1; row++) {"),
    fifo("task", "task.cu", "an empty sequence divides by zero",
        "const float share = 1.0f / float(max(end - first, 1));\n    *reinterpret_cast",
        "const float share = 1.0f / float(end - first);\n    *reinterpret_cast"),
    fifo("task", "task.cu", "a mean's gradient is not shared out",
        "pack_bf16(pair.x * share, pair.y * share)", "pack_bf16(pair.x, pair.y)"),
    fifo("task", "task.cu", "only one lane's maximum",
        "top = warp_max(top);", ";"),
    fifo("task", "task.cu", "only one lane's sum",
        "total = warp_sum(total);", ";"),
    fifo("task", "task.cu", "an ignored row keeps its logits",
        "if (total != nullptr) Softmax::clear(z, outputs);", ";"),
    lifo("task", "task.cu", "logits overwritten while the loss is read",
        "    __syncwarp();\n    if (total != nullptr) softmax.slope(target",
        "    if (total != nullptr) softmax.slope(target"),
    fifo("task", "task.cu", "a class' weight left out of its gradient",
        "softmax.slope(target, weight / *total)", "softmax.slope(target, 1.0f / *total)"),
    fifo("task", "task.cu", "a label's weight counts for its absence too",
        "(1.0f - y) * softplus) * share", "w * (1.0f - y) * softplus) * share"),
    fifo("task", "task.cu", "one wrong flag of many passes",
        "wrong = warp_max(wrong);", ";"),
    fifo("task", "task.cu", "half of a square's slope",
        "2.0f * off * share", "off * share"),
    fifo("task", "task.cu", "a span's end read from its beginnings",
        "softmax(z + end, length, 2)", "softmax(z, length, 2)"),
    fifo("task", "task.cu", "a span beyond its sequence",
        "end >= 0 && end < length", "end >= 0"),
    fifo("task", "task.cu", "rows beyond the first block's left out of the sums",
        "row < rows; row += THREADS) {", "row < min(rows, THREADS); row += THREADS) {"),
];
