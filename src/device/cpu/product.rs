//! Matrix products on the CPU, one block a task: f32 by our own kernel where it suits the machine
//! (`kernel.rs`), else by the gemm crate.

use super::{Element, Float};
use crate::ops::Into;

/// A matrix inside a slice: element (i, j) at `i · row + j · col`.
#[derive(Clone, Copy)]
pub struct Mat<'a, E> {
    pub(super) data: &'a [E],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row: usize,
    pub(super) col: usize,
}

impl<'a, E: Element> Mat<'a, E> {
    /// [rows, cols], row-major, over the whole slice.
    pub fn new(data: &'a [E], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// [rows, cols] with `stride` elements from row to row.
    pub fn strided(data: &'a [E], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(cols <= stride && (rows == 0 || (rows - 1) * stride + cols <= data.len()));
        Mat { data, rows, cols, row: stride, col: 1 }
    }

    /// The transpose: [cols, rows].
    pub fn t(self) -> Self {
        Mat { rows: self.cols, cols: self.rows, row: self.col, col: self.row, ..self }
    }
}

/// y = a b or y += a b, with y row-major [a.rows, b.cols], on the calling thread.
pub fn product<A, E, F>(y: &mut [A], a: Mat<E>, b: Mat<F>, into: Into)
where
    A: Float,
    E: Element<Acc = A>,
    F: Element<Acc = A>,
{
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(k, b.rows, "product: inner sizes differ");
    assert!(m * n <= y.len(), "product: the output is too small");
    if m * n == 0 {
        return;
    }
    if k == 0 {
        if into == Into::Set {
            y[..m * n].fill(A::ZERO);
        }
        return;
    }
    A::product(y, a, b, into);
}

/// [`product`] by the gemm crate, in any precision.
pub fn product_by_crate<A, E, F>(y: &mut [A], a: Mat<E>, b: Mat<F>, into: Into)
where
    A: Float,
    E: Element<Acc = A>,
    F: Element<Acc = A>,
{
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert!(k == b.rows && m * n <= y.len());
    let (a_data, b_data) = (E::widen(a.data), F::widen(b.data));
    // SAFETY: `Mat` and the assertion above keep every index that gemm touches, (m−1)·row +
    // (n−1)·col and the like, inside its slice; y is borrowed mutably, so nothing aliases it.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y.as_mut_ptr(),
            1,
            n as isize,
            into == Into::Add,
            a_data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b_data.as_ptr(),
            b.col as isize,
            b.row as isize,
            A::ONE,
            A::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::device::cpu::HostElement;
    use crate::rng::{Philox, Stream};

    const SIZES: [usize; 10] = [1, 5, 6, 7, 15, 16, 17, 100, 145, 390];

    /// `len` draws that bf16 holds exactly.
    fn draws<E: Element>(len: usize, stream: u32) -> Vec<E> {
        let philox = Philox::new(5);
        let words =
            (0..len.div_ceil(4)).flat_map(|i| philox.block(Stream::Sample, stream, i as u64));
        words.take(len).map(|word| E::from_host(f64::from(word % 255) / 128.0 - 1.0)).collect()
    }

    /// The matrix in `layout`: row-major, transposed, or with a gap between rows.
    fn matrix<E: Element>(data: &[E], rows: usize, cols: usize, layout: usize) -> Mat<'_, E> {
        match layout {
            0 => Mat::new(&data[..rows * cols], rows, cols),
            1 => Mat::new(&data[..rows * cols], cols, rows).t(),
            2 => Mat::strided(data, rows, cols, cols + 3),
            _ => Mat::strided(data, cols, rows, rows + 3).t(),
        }
    }

    /// Products of every size and layout against plain sums in f64, with a margin around y.
    fn check<E: Element>() {
        let largest = SIZES[SIZES.len() - 1];
        let of = |stream| draws::<E>(largest * (largest + 3), stream);
        let (a_data, b_data, start) = (of(0), of(1), draws::<E::Acc>(largest * largest, 2));
        let eps = if E::NAME == "f64" { f64::EPSILON } else { f32::EPSILON.into() };
        let mut case = 0;
        for m in SIZES {
            for n in SIZES {
                for k in SIZES {
                    // Of the large products a few, of the small ones all.
                    case += 1;
                    if m * n * k > 500_000 && case % 5 > 0 {
                        continue;
                    }
                    let (a_layout, b_layout) = (case % 4, case / 4 % 4);
                    let a = matrix(&a_data, m, k, a_layout);
                    let b = matrix(&b_data, k, n, b_layout);
                    let into = if case % 3 == 0 { Into::Set } else { Into::Add };
                    let mut y = start.clone();
                    product(&mut y, a, b, into);
                    let value =
                        |x: &Mat<E>, i: usize, j: usize| x.data[i * x.row + j * x.col].to_host();
                    for i in 0..m {
                        for j in 0..n {
                            let sum: f64 = (0..k).map(|p| value(&a, i, p) * value(&b, p, j)).sum();
                            let old = start[i * n + j].to_host();
                            let want = sum + if into == Into::Add { old } else { 0.0 };
                            let error = (y[i * n + j].to_host() - want).abs();
                            // Terms below 1 in size; sums of k of them, √k in the mean.
                            let bound = 8.0 * eps * ((k + 1) as f64).sqrt() * (1.0 + want.abs());
                            assert!(error <= bound, "{m}×{n}×{k}, {a_layout} {b_layout}: {error}");
                        }
                    }
                    assert!(y[m * n..] == start[m * n..], "{m}×{n}×{k}: wrote beyond y");
                }
            }
        }
    }

    #[test]
    fn products_of_awkward_sizes_equal_plain_sums() {
        check::<f32>();
        check::<f64>();
        check::<bf16>();
    }
}
