//! The mutants: a kernel's file, what is wrong, the edit, and the family whose checks must notice.

pub struct Mutant {
    pub file: &'static str,
    pub what: &'static str,
    /// Stands once in the file.
    pub from: &'static str,
    pub to: &'static str,
    /// As `verify --op` names it.
    pub family: &'static str,
}

const fn mutant(
    family: &'static str,
    file: &'static str,
    what: &'static str,
    from: &'static str,
    to: &'static str,
) -> Mutant {
    Mutant { file, what, from, to, family }
}

#[rustfmt::skip]
pub const MUTANTS: &[Mutant] = &[
    mutant("dropout", "dropout.cu", "second block of the mask is the first",
        "dropout_factors(dropout, first / 4 + 1)", "dropout_factors(dropout, first / 4)"),
    mutant("dropout", "dropout.cu", "tail runs one element too far",
        "for (size_t i = first; i < size_t(length); i++)",
        "for (size_t i = first; i <= size_t(length); i++)"),
    mutant("gather", "gather.cu", "last vector of each block left out",
        "exists = i < size_t(count) * width;", "exists = i + 8 < size_t(count) * width;"),
    mutant("gather", "gather.cu", "blocks overlap",
        "size_t i = (size_t(blockIdx.x) * THREADS + threadIdx.x) * 8;",
        "size_t i = (size_t(blockIdx.x) * (THREADS - 1) + threadIdx.x) * 8;"),
    mutant("reduce", "reduce.cu", "no barrier before the sum",
        "partial[threadIdx.x] = value;\n    __syncthreads();", "partial[threadIdx.x] = value;"),
    mutant("reduce", "reduce.cu", "no barrier within the sum",
        "partial[threadIdx.x + half];\n        __syncthreads();",
        "partial[threadIdx.x + half];"),
    mutant("reduce", "reduce.cu", "tail of the gradients left out",
        "if (tail < length) total", "if (tail + 1 < length) total"),
    mutant("reduce", "reduce.cu", "the loss is not looked at",
        "isfinite(norm) && isfinite(loss)", "isfinite(loss)"),
    mutant("mask", "mask.cu", "a warp counts itself",
        "if (w < warp) place", "if (w <= warp) place"),
    mutant("mask", "mask.cu", "no barrier before the counts are read",
        "counts[warp] = __popc(votes);\n        __syncthreads();",
        "counts[warp] = __popc(votes);"),
    mutant("mask", "mask.cu", "counts written anew while they are read",
        "        __syncthreads();  // counts are written anew\n", ""),
    mutant("mask", "mask.cu", "spans one shorter",
        "uniform(w.w) < longer[j]", "uniform(w.w) < longer[j] * 0.8f"),
    mutant("mask", "mask.cu", "words reach back over special tokens",
        "!(flags[ids[row - 1]] & SPECIAL)", "true"),
    mutant("optimizer", "optimizer.cu", "a step that is not finite is taken",
        "size_t i = (size_t(blockIdx.x) * THREADS + threadIdx.x) * 4;\n    \
         if (i >= length || control[1] == 0.0f) return;\n    Step step",
        "size_t i = (size_t(blockIdx.x) * THREADS + threadIdx.x) * 4;\n    \
         if (i >= length) return;\n    Step step"),
    mutant("optimizer", "optimizer.cu", "a group begins one element late",
        "if (groups[low + half].start <= i)", "if (groups[low + half].start < i)"),
    mutant("optimizer", "optimizer.cu", "moments corrected for the wrong decay",
        "expm1f(t * k.log_beta2)", "expm1f(t * k.log_beta1)"),
];
