//! LayerNorm and RMSNorm, with the residual sum before them fused in.
//!
//! Forward, a row x of width C:
//!   LayerNorm: μ = mean(x), r = 1/√(mean((x − μ)²) + ε), y = (x − μ) r ∘ γ + β
//!   RMSNorm:   μ = 0,       r = 1/√(mean(x²) + ε),       y = x r ∘ γ + β
//! Backward, with x̂ = (x − μ) r and g = dy ∘ γ:
//!   dx = r (g − mean(g) − x̂ mean(g ∘ x̂))   (RMSNorm: without mean(g))
//!   dγ += Σ dy ∘ x̂, dβ += Σ dy, over rows
//! (Ba, Kiros, Hinton 2016; Zhang, Sennrich 2019.) Statistics are held in `Acc`.

use half::bf16;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Cost, Dropout, Into, Span};
use crate::device::Memory;
use crate::device::cpu::{Cpu, Element, Float, rows_per_task, sum};
use crate::device::gpu::driver::Address;
use crate::device::gpu::launch::{Arg, Shape};
use crate::device::gpu::{Gpu, Tensor, limits};

/// Which norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormKind {
    Layer,
    Rms,
}

/// A norm and where its weights lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norm {
    pub kind: NormKind,
    /// γ [C]
    pub weight: Span,
    /// β [C]
    pub bias: Option<Span>,
    /// C
    pub width: usize,
    pub eps: f64,
}

/// The residual sum of two rows' worth of activations, the second under dropout.
pub struct Residual<'a, X> {
    /// [N, C]
    pub residual: &'a X,
    /// [N, C]
    pub branch: &'a X,
    pub dropout: Option<Dropout>,
}

/// What the backward of a norm needs of its forward.
pub struct Normed<'a, D: Memory> {
    /// [N, C], the norm's input
    pub x: &'a D::X,
    /// [N, 2]: μ and r of each row
    pub stats: &'a D::Acc,
    pub params: &'a D::X,
}

pub trait NormOps: Memory {
    /// y [N, C] = norm(x [N, C]); stats [N, 2] keeps μ and r.
    fn norm(
        &self,
        y: &mut Self::X,
        stats: &mut Self::Acc,
        x: &Self::X,
        params: &Self::X,
        at: &Norm,
        rows: usize,
    );

    /// sum [N, C] = residual + dropout(branch); y [N, C] = norm(sum), of the sum as stored.
    #[allow(clippy::too_many_arguments)]
    fn add_norm(
        &self,
        y: &mut Self::X,
        sum: &mut Self::X,
        stats: &mut Self::Acc,
        terms: Residual<Self::X>,
        params: &Self::X,
        at: &Norm,
        rows: usize,
    );

    /// dx [N, C] = or += the gradient of the norm's input; dγ and dβ += in `grads`.
    #[allow(clippy::too_many_arguments)]
    fn norm_backward(
        &self,
        dx: &mut Self::X,
        grads: &mut Self::Acc,
        dy: &Self::X,
        saved: Normed<Self>,
        at: &Norm,
        rows: usize,
        into: Into,
    ) where
        Self: Sized;
}

/// `streams` activations of [N, C] cross memory, each `size` bytes an element, and the statistics.
pub fn cost(at: &Norm, rows: usize, streams: usize, size: usize, acc: usize) -> Cost {
    let elements = rows * at.width;
    Cost {
        flops: 8.0 * elements as f64,
        bytes: (elements * streams * size + 2 * rows * acc) as f64,
    }
}

impl<E: Element> NormOps for Cpu<E> {
    fn norm(
        &self,
        y: &mut Vec<E>,
        stats: &mut Vec<E::Acc>,
        x: &Vec<E>,
        params: &Vec<E>,
        at: &Norm,
        rows: usize,
    ) {
        let c = at.width;
        let task = rows_per_task(rows);
        y[..rows * c]
            .par_chunks_mut(task * c)
            .zip(stats[..rows * 2].par_chunks_mut(task * 2))
            .zip(x[..rows * c].par_chunks(task * c))
            .for_each(|((y, stats), x)| norm_rows(y, stats, x, params, at));
    }

    fn add_norm(
        &self,
        y: &mut Vec<E>,
        sum: &mut Vec<E>,
        stats: &mut Vec<E::Acc>,
        terms: Residual<Vec<E>>,
        params: &Vec<E>,
        at: &Norm,
        rows: usize,
    ) {
        let c = at.width;
        let task = rows_per_task(rows);
        y[..rows * c]
            .par_chunks_mut(task * c)
            .zip(sum[..rows * c].par_chunks_mut(task * c))
            .zip(stats[..rows * 2].par_chunks_mut(task * 2))
            .enumerate()
            .for_each(|(t, ((y, sum), stats))| {
                let at_row = t * task * c;
                let residual = &terms.residual[at_row..at_row + sum.len()];
                let branch = &terms.branch[at_row..at_row + sum.len()];
                match &terms.dropout {
                    None => sum.copy_from_slice(branch),
                    Some(dropout) => dropout.apply(sum, branch, at_row),
                }
                for (sum, &r) in sum.iter_mut().zip(residual) {
                    *sum = E::round(r.wide() + sum.wide());
                }
                norm_rows(y, stats, sum, params, at);
            });
    }

    fn norm_backward(
        &self,
        dx: &mut Vec<E>,
        grads: &mut Vec<E::Acc>,
        dy: &Vec<E>,
        saved: Normed<Self>,
        at: &Norm,
        rows: usize,
        into: Into,
    ) {
        let c = at.width;
        let task = rows_per_task(rows);
        // Each task leaves partial sums of dγ and dβ; they are added in the order of the rows.
        let partials: Vec<Vec<E::Acc>> = dx[..rows * c]
            .par_chunks_mut(task * c)
            .zip(dy[..rows * c].par_chunks(task * c))
            .zip(saved.x[..rows * c].par_chunks(task * c))
            .zip(saved.stats[..rows * 2].par_chunks(task * 2))
            .map(|(((dx, dy), x), stats)| {
                let gamma = &saved.params[at.weight.range()];
                norm_rows_backward(dx, dy, x, stats, gamma, at, into)
            })
            .collect();
        for partial in &partials {
            let (dgamma, dbeta) = partial.split_at(c);
            add_to(&mut grads[at.weight.range()], dgamma);
            if let Some(bias) = at.bias {
                add_to(&mut grads[bias.range()], dbeta);
            }
        }
    }
}

fn add_to<A: Float>(to: &mut [A], from: &[A]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to += from;
    }
}

#[inline(always)]
fn norm_rows<E: Element>(y: &mut [E], stats: &mut [E::Acc], x: &[E], params: &[E], at: &Norm) {
    let c = at.width;
    let n = E::Acc::of(c as f64);
    let gamma = &params[at.weight.range()][..c];
    let beta = at.bias.map(|b| &params[b.range()][..c]);
    for ((y, stats), x) in
        y.chunks_exact_mut(c).zip(stats.chunks_exact_mut(2)).zip(x.chunks_exact(c))
    {
        let mean = match at.kind {
            NormKind::Layer => sum(c, |i| x[i].wide()) / n,
            NormKind::Rms => E::Acc::ZERO,
        };
        let variance = sum(c, |i| {
            let d = x[i].wide() - mean;
            d * d
        }) / n;
        let rstd = E::Acc::ONE / (variance + E::Acc::of(at.eps)).sqrt();
        stats[0] = mean;
        stats[1] = rstd;
        for i in 0..c {
            y[i] = E::round((x[i].wide() - mean) * rstd * gamma[i].wide());
        }
        if let Some(beta) = beta {
            for i in 0..c {
                y[i] = E::round((x[i].wide() - mean) * rstd * gamma[i].wide() + beta[i].wide());
            }
        }
    }
}

/// Returns the rows' sums of dγ and dβ, [2, C].
#[inline(always)]
fn norm_rows_backward<E: Element>(
    dx: &mut [E],
    dy: &[E],
    x: &[E],
    stats: &[E::Acc],
    gamma: &[E],
    at: &Norm,
    into: Into,
) -> Vec<E::Acc> {
    let c = at.width;
    let n = E::Acc::of(c as f64);
    let mut partial = vec![E::Acc::ZERO; 2 * c];
    let (dgamma, dbeta) = partial.split_at_mut(c);
    let (gamma, dbeta) = (&gamma[..c], &mut dbeta[..c]);
    for (((dx, dy), x), stats) in dx
        .chunks_exact_mut(c)
        .zip(dy.chunks_exact(c))
        .zip(x.chunks_exact(c))
        .zip(stats.chunks_exact(2))
    {
        let (mean, rstd) = (stats[0], stats[1]);
        let g_mean = match at.kind {
            NormKind::Layer => sum(c, |i| dy[i].wide() * gamma[i].wide()) / n,
            NormKind::Rms => E::Acc::ZERO,
        };
        let gx_mean = sum(c, |i| dy[i].wide() * gamma[i].wide() * (x[i].wide() - mean)) * rstd / n;
        for i in 0..c {
            let x_hat = (x[i].wide() - mean) * rstd;
            let dy = dy[i].wide();
            let d = rstd * (dy * gamma[i].wide() - g_mean - x_hat * gx_mean);
            dx[i] = E::round(match into {
                Into::Set => d,
                Into::Add => dx[i].wide() + d,
            });
            dgamma[i] += dy * x_hat;
            dbeta[i] += dy;
        }
    }
    partial
}

/// The widest row that the kernels hold.
const WIDEST: usize = 8192;

/// Whether the kernels take rows of this width.
pub fn supports(width: usize) -> Result<(), String> {
    limits::multiple("a norm's width", width, 8, WIDEST)
}

const THREADS: u32 = 256;

/// The kernels for rows of up to so many columns, and how many warps share a row.
struct Forward {
    columns: usize,
    warps: usize,
    norm: &'static str,
    add_norm: &'static str,
}

/// The narrowest that a row fits runs it: memory sets the time, so what counts is that a lane
/// holds few registers, and that warps wait for one another only where they must.
#[rustfmt::skip]
const FORWARD: [Forward; 9] = [
    Forward { columns: 256, warps: 1, norm: "norm_256", add_norm: "add_norm_256" },
    Forward { columns: 512, warps: 1, norm: "norm_512", add_norm: "add_norm_512" },
    Forward { columns: 768, warps: 1, norm: "norm_768", add_norm: "add_norm_768" },
    Forward { columns: 1024, warps: 1, norm: "norm_1024", add_norm: "add_norm_1024" },
    Forward { columns: 1536, warps: 1, norm: "norm_1536", add_norm: "add_norm_1536" },
    Forward { columns: 2048, warps: 1, norm: "norm_2048", add_norm: "add_norm_2048" },
    Forward { columns: 3072, warps: 2, norm: "norm_3072", add_norm: "add_norm_3072" },
    Forward { columns: 4096, warps: 4, norm: "norm_4096", add_norm: "add_norm_4096" },
    Forward { columns: 8192, warps: 4, norm: "norm_8192", add_norm: "add_norm_8192" },
];

impl Forward {
    fn of(width: usize) -> &'static Forward {
        assert_eq!(supports(width), Ok(()), "norm");
        FORWARD.iter().find(|f| width <= f.columns).expect("supported widths fit")
    }

    fn shape(&self, rows: usize) -> Shape {
        Shape::new(rows.div_ceil(teams(self.warps)), THREADS)
    }
}

/// The same of the backward, and how many blocks of it a multiprocessor holds.
struct Backward {
    columns: usize,
    warps: usize,
    resident: usize,
    kernel: &'static str,
}

#[rustfmt::skip]
const BACKWARD: [Backward; 10] = [
    Backward { columns: 256, warps: 1, resident: 4, kernel: "norm_backward_256" },
    Backward { columns: 512, warps: 1, resident: 3, kernel: "norm_backward_512" },
    Backward { columns: 768, warps: 1, resident: 2, kernel: "norm_backward_768" },
    Backward { columns: 1024, warps: 2, resident: 3, kernel: "norm_backward_1024" },
    Backward { columns: 1536, warps: 2, resident: 2, kernel: "norm_backward_1536" },
    Backward { columns: 2048, warps: 4, resident: 3, kernel: "norm_backward_2048" },
    Backward { columns: 3072, warps: 4, resident: 2, kernel: "norm_backward_3072" },
    Backward { columns: 4096, warps: 8, resident: 3, kernel: "norm_backward_4096" },
    Backward { columns: 6144, warps: 8, resident: 2, kernel: "norm_backward_6144" },
    Backward { columns: 8192, warps: 8, resident: 1, kernel: "norm_backward_8192" },
];

impl Backward {
    /// Multiprocessors that the blocks are counted for: an H200's, everywhere, so that sums come
    /// out the same everywhere.
    const PROCESSORS: usize = 132;

    fn of(width: usize) -> &'static Backward {
        assert_eq!(supports(width), Ok(()), "norm_backward");
        BACKWARD.iter().find(|b| width <= b.columns).expect("supported widths fit")
    }

    /// One partial sum of dγ and dβ each.
    fn blocks(&self, rows: usize) -> usize {
        rows.div_ceil(teams(self.warps)).min(Self::PROCESSORS * self.resident)
    }

    /// Shared memory in which the teams of a block add up [bytes]; one team needs none.
    fn shared(&self, width: usize) -> usize {
        if teams(self.warps) > 1 { 2 * width * size_of::<f32>() } else { 0 }
    }
}

/// Rows that a block works on at a time.
fn teams(warps: usize) -> usize {
    THREADS as usize / 32 / warps
}

impl Norm {
    fn centred(&self) -> bool {
        self.kind == NormKind::Layer
    }

    /// γ and β in an arena.
    fn weights<T>(&self, arena: &Tensor<T>) -> (Address, Option<Address>) {
        (arena.at(self.weight.start), self.bias.map(|b| arena.at(b.start)))
    }
}

impl NormOps for Gpu {
    fn norm(
        &self,
        y: &mut Tensor<bf16>,
        stats: &mut Tensor<f32>,
        x: &Tensor<bf16>,
        params: &Tensor<bf16>,
        at: &Norm,
        rows: usize,
    ) {
        let (gamma, beta) = at.weights(params);
        let (c, n): (Arg, Arg) = (at.width.into(), rows.into());
        let (eps, centred): (Arg, Arg) = ((at.eps as f32).into(), at.centred().into());
        let (y, stats, x): (Arg, Arg, Arg) = (y.into(), stats.into(), x.into());
        let (gamma, beta): (Arg, Arg) = (gamma.into(), beta.into());
        if self.naive() {
            let (no_branch, all) = (Arg::from(None::<Address>), Arg::from(None::<Dropout>));
            let args = [y, no_branch, stats, x, no_branch, gamma, beta, c, n, eps, centred, all];
            return self.launch("norm_naive", Shape::each(rows, THREADS), &args);
        }
        let f = Forward::of(at.width);
        let args = [y, stats, x, gamma, beta, c, n, eps, centred];
        self.launch(f.norm, f.shape(rows), &args);
    }

    fn add_norm(
        &self,
        y: &mut Tensor<bf16>,
        sum: &mut Tensor<bf16>,
        stats: &mut Tensor<f32>,
        terms: Residual<Tensor<bf16>>,
        params: &Tensor<bf16>,
        at: &Norm,
        rows: usize,
    ) {
        let (gamma, beta) = at.weights(params);
        let args = [
            y.into(),
            sum.into(),
            stats.into(),
            terms.residual.into(),
            terms.branch.into(),
            gamma.into(),
            beta.into(),
            at.width.into(),
            rows.into(),
            (at.eps as f32).into(),
            at.centred().into(),
            terms.dropout.into(),
        ];
        if self.naive() {
            return self.launch("norm_naive", Shape::each(rows, THREADS), &args);
        }
        let f = Forward::of(at.width);
        self.launch(f.add_norm, f.shape(rows), &args);
    }

    fn norm_backward(
        &self,
        dx: &mut Tensor<bf16>,
        grads: &mut Tensor<f32>,
        dy: &Tensor<bf16>,
        saved: Normed<Self>,
        at: &Norm,
        rows: usize,
        into: Into,
    ) {
        let (c, n): (Arg, Arg) = (at.width.into(), rows.into());
        let (centred, add): (Arg, Arg) = (at.centred().into(), (into == Into::Add).into());
        let (x, stats): (Arg, Arg) = (saved.x.into(), saved.stats.into());
        let gamma: Arg = saved.params.at(at.weight.start).into();
        let (dgamma, dbeta) = at.weights(grads);
        let (dx, dy): (Arg, Arg) = (dx.into(), dy.into());
        if self.naive() {
            let args = [dx, dy, x, stats, gamma, c, n, centred, add];
            self.launch("norm_backward_naive", Shape::each(rows, THREADS), &args);
            let args = [dgamma.into(), dbeta.into(), dy, x, stats, c, n];
            return self.launch("norm_weights_naive", Shape::each(at.width, THREADS), &args);
        }
        let b = Backward::of(at.width);
        let blocks = b.blocks(rows);
        let partials = self.workspace(blocks * 2 * at.width * size_of::<f32>());
        let args = [dx, partials.into(), dy, x, stats, gamma, c, n, centred, add];
        let shape = Shape::new(blocks, THREADS).shared(b.shared(at.width));
        self.launch(b.kernel, shape, &args);
        let args = [dgamma.into(), dbeta.into(), partials.into(), c, blocks.into()];
        self.launch("norm_weights", partials_shape(2 * at.width), &args);
    }
}

/// For a kernel that adds up partial sums of so many columns: see `kernels/partials.cuh`.
pub(crate) fn partials_shape(columns: usize) -> Shape {
    Shape::new(columns.div_ceil(32), 256)
}
