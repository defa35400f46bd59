//! Kernels held to the reference: every op of [`crate::ops`] on a GPU, or on the emulator, beside
//! the CPU.
//!
//! Each check draws random inputs that bf16 holds exactly, poisons the outputs with NaN, and runs
//! the op on `Cpu<f64>` (the truth r), on `Cpu<bf16>` (a plain bf16 computation p) and on the
//! kernels (y). With
//!   e(y) = max_i |y_i − r_i| / (|r_i| + rms(r))
//! a kernel passes if e(y) ≤ 2 e(p) + ε, ε an ulp: that of bf16 where the result is stored in it,
//! plus √K that of f32 where K terms are summed (the derivation is in `device/lockstep`). A flash
//! kernel rounds p and ds before their products, the plain computation does not: there ε is two
//! ulps, one for what is stored and one for its terms; and as an error is then of the size of its
//! row's terms, rms(r) is the row's where that is larger (early rows under a causal mask). NaN
//! never passes, whole numbers must be equal, and every run of the same launch must give the same
//! bits. A bound above a half fails too: then the plain computation is nonsense, or r is, and any
//! kernel would pass.

mod activation;
mod attention;
mod cache;
mod draw;
mod elementwise;
mod embed;
mod ladder;
mod linear;
mod loss;
mod mask;
mod norm;
mod report;
mod rope;
mod task;
mod training;

use crate::device::cpu::Cpu;
use crate::device::gpu::{Gemm, Gpu, ProductCut};
use crate::device::{Format, Memory};
use half::bf16;

pub use draw::{Angles, Draw};
pub use report::{Row, heading, summary};

/// What one run of a check gave.
pub struct Output {
    pub tensor: &'static str,
    pub values: Vec<f64>,
    pub kind: Kind,
}

/// How a result is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Stored in `X`, each a sum of so many terms.
    Stored(usize),
    /// The same of rows of `width`, where a kernel may round to `X` what a plain computation does
    /// not: the terms, the factors that it computes them from (p, for attention's o and by it for
    /// δ), beside the result an ulp each.
    StoredRows { terms: usize, width: usize },
    /// In `Acc`, each a sum of so many terms.
    Summed(usize),
    /// The same, in an order that is chance: runs need not agree to the bit.
    SummedAsTheyCome(usize),
    /// Equal, to the bit.
    Exact,
}

/// One op at one shape.
pub trait Check<D: Memory> {
    /// Runs it on `dev` on inputs from `draw`, which gives every device the same.
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output>;
}

/// A check that every device of a verification can run.
pub trait Checked: Check<Cpu<f64>> + Check<Cpu<bf16>> + Check<Gpu> {}

impl<C: Check<Cpu<f64>> + Check<Cpu<bf16>> + Check<Gpu>> Checked for C {}

/// Which shapes are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// What the emulator runs in minutes: every tail and every path, nothing large.
    Small,
    /// What training uses too.
    Full,
}

/// A verification in progress.
pub struct Verifier<'a> {
    gpu: &'a Gpu,
    /// `naive` or `fast`, for the table.
    kernels: &'static str,
    pub sizes: Sizes,
    /// Of the inputs.
    seed: u64,
    /// Runs of each launch that must agree to the bit.
    repeats: usize,
    /// The family asked for; all if none.
    only: Option<&'a str>,
    fail_fast: bool,
    rows: Vec<Row>,
    each: &'a mut dyn FnMut(&Row),
}

type Family = (&'static str, fn(&mut Verifier));

/// Families by the name of their module in `ops`, with their checks.
const FAMILIES: &[Family] = &[
    ("linear", linear::linear),
    ("ladder", ladder::ladder),
    ("loss", loss::loss),
    ("dropout", elementwise::dropout),
    ("gather", elementwise::gather),
    ("embed", embed::embed),
    ("norm", norm::norm),
    ("rope", rope::rope),
    ("activation", activation::activation),
    ("attention", attention::attention),
    ("cache", cache::cache),
    ("task", task::task),
    ("mask", mask::mask),
    ("reduce", training::reduce),
    ("optimizer", training::optimizer),
];

/// The names that [`verify`] takes as families.
pub fn families() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|(name, _)| *name)
}

/// What to verify.
pub struct Request<'a> {
    pub gpu: &'a Gpu,
    pub kernels: &'static str,
    pub sizes: Sizes,
    pub seed: u64,
    pub repeats: usize,
    pub only: Option<&'a str>,
    /// Stop at the first row that fails.
    pub fail_fast: bool,
}

/// Runs all checks, telling each row as it comes. A fault of the device fails its row and ends the
/// run.
pub fn verify(request: Request, each: &mut dyn FnMut(&Row)) -> Vec<Row> {
    let Request { gpu, kernels, sizes, seed, repeats, only, fail_fast } = request;
    let rows = Vec::new();
    let mut v = Verifier { gpu, kernels, sizes, seed, repeats, only, fail_fast, rows, each };
    for (name, checks) in FAMILIES {
        if v.only.is_none_or(|only| only == *name) {
            checks(&mut v);
        }
    }
    v.rows
}

impl Verifier<'_> {
    /// The products to check where the host chooses: all that were asked for and that the device
    /// has. Plain twins are of one kind.
    fn gemms(&self) -> &'static [Gemm] {
        match self.gpu.gemm() {
            _ if self.gpu.naive() => &[Gemm::Portable],
            Gemm::Auto if self.gpu.has_hopper() => &[Gemm::Portable, Gemm::Hopper],
            Gemm::Auto | Gemm::Portable => &[Gemm::Portable],
            Gemm::Hopper => &[Gemm::Hopper],
            Gemm::Cublaslt => &[Gemm::Cublaslt],
        }
    }

    /// Judges one check. `op` and `shape` name its row.
    pub fn check(&mut self, op: &'static str, shape: String, check: &impl Checked) {
        let failed = || self.rows.iter().any(|row| !row.passed());
        if self.gpu.fault().is_some() || (self.fail_fast && failed()) {
            return;
        }
        let draw = || Draw::new(self.seed, op, &shape);
        let truth = Check::<Cpu<f64>>::run(check, &Cpu::new(), &mut draw());
        let plain = Check::<Cpu<bf16>>::run(check, &Cpu::new(), &mut draw());
        let runs: Vec<Vec<Output>> = (0..self.repeats.max(1))
            .map(|_| Check::<Gpu>::run(check, self.gpu, &mut draw()))
            .collect();
        for (i, truth) in truth.iter().enumerate() {
            let bits = |run: &Vec<Output>| run[i].values.iter().map(|v| v.to_bits()).collect();
            let first: Vec<u64> = bits(&runs[0]);
            let may_differ = matches!(truth.kind, Kind::SummedAsTheyCome(_));
            let repeats = may_differ || runs.iter().all(|run| first == bits(run));
            let error = error(&runs[0][i], truth);
            let row = Row {
                op,
                kernels: self.kernels,
                tensor: truth.tensor,
                shape: shape.clone(),
                error,
                bound: bound(truth.kind, self::error(&plain[i], truth)),
                repeats,
                fault: self.gpu.fault(),
            };
            (self.each)(&row);
            self.rows.push(row);
        }
    }
}

/// max |y − r| / (|r| + rms); infinite if anything is not finite, as the inputs all are.
fn error(y: &Output, r: &Output) -> f64 {
    assert_eq!(y.values.len(), r.values.len(), "verify: results of different lengths");
    let whole = rms(&r.values);
    let width = match r.kind {
        Kind::StoredRows { width, .. } => width,
        _ => r.values.len().max(1),
    };
    let rows = y.values.chunks(width).zip(r.values.chunks(width));
    rows.map(|(y, r)| error_of_row(y, r, whole.max(rms(r)))).fold(0.0, f64::max)
}

fn error_of_row(y: &[f64], r: &[f64], rms: f64) -> f64 {
    let off = |(y, r): (&f64, &f64)| match (y - r).abs() {
        0.0 => 0.0,
        d if d.is_finite() => d / (r.abs() + rms),
        _ => f64::INFINITY,
    };
    y.iter().zip(r).map(off).fold(0.0, f64::max)
}

/// Runs `work` with products of one kind, cut so if the host is not to choose.
fn with_products<T>(gpu: &Gpu, gemm: Gemm, cut: Option<ProductCut>, work: impl FnOnce() -> T) -> T {
    let before = gpu.gemm();
    gpu.use_gemm(gemm).expect("only what the device has is checked");
    gpu.fix_products(cut);
    let deterministic = gpu.is_deterministic();
    gpu.deterministic(true);
    let out = work();
    gpu.deterministic(deterministic);
    gpu.fix_products(None);
    gpu.use_gemm(before).expect("it was chosen before");
    out
}

/// A kind of products, for the name of a check.
fn named(gemm: Gemm) -> &'static str {
    match gemm {
        Gemm::Auto | Gemm::Portable => "",
        Gemm::Hopper => ", hopper",
        Gemm::Cublaslt => ", cublaslt",
    }
}

fn rms(r: &[f64]) -> f64 {
    (r.iter().map(|r| r * r).sum::<f64>() / r.len().max(1) as f64).sqrt()
}

fn bound(kind: Kind, plain: f64) -> f64 {
    let summed = |terms: usize| (terms as f64).sqrt() * Format::F32.epsilon;
    match kind {
        Kind::Stored(terms) => 2.0 * plain + Format::BF16.epsilon + summed(terms),
        Kind::StoredRows { terms, .. } => 2.0 * plain + 3.0 * Format::BF16.epsilon + summed(terms),
        Kind::Summed(terms) | Kind::SummedAsTheyCome(terms) => 2.0 * plain + summed(terms),
        Kind::Exact => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXACT: Kind = Kind::Exact;

    #[test]
    fn what_is_not_finite_never_passes() {
        let output = |values: &[f64]| Output { tensor: "y", values: values.into(), kind: EXACT };
        let truth = output(&[1.0, 2.0]);
        for bad in [f64::NAN, f64::INFINITY] {
            assert_eq!(error(&output(&[1.0, bad]), &truth), f64::INFINITY);
        }
        assert_eq!(error(&truth, &truth), 0.0);
    }

    #[test]
    fn a_row_of_large_terms_is_judged_by_itself() {
        let kind = Kind::StoredRows { terms: 1, width: 2 };
        let output = |values: [f64; 8], kind| Output { tensor: "y", values: values.into(), kind };
        let truth = [0.0, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let off = [0.1, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let of = |kind| error(&output(off, kind), &output(truth, kind));
        assert_eq!(of(kind), 0.1 / 32f64.sqrt());
        assert_eq!(of(EXACT), 0.1 / 8f64.sqrt());
        // A quiet row by the whole result's.
        let off = output([0.0, 8.0, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0], kind);
        assert_eq!(error(&off, &output(truth, kind)), 0.1 / 8f64.sqrt());
    }

    #[test]
    fn the_bound_is_twice_a_plain_computation_and_an_ulp() {
        assert_eq!(bound(Kind::Exact, 0.3), 0.0);
        assert_eq!(bound(Kind::Stored(0), 0.01), 0.02 + Format::BF16.epsilon);
        assert_eq!(bound(Kind::Summed(4), 0.0), 2.0 * Format::F32.epsilon);
    }
}
