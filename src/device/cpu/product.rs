//! Matrix products on the CPU: the gemm crate on one block a task.

use super::Float;
use crate::ops::Into;

/// A matrix inside a slice: element (i, j) at `i · row + j · col`.
#[derive(Clone, Copy)]
pub struct Mat<'a, A> {
    data: &'a [A],
    rows: usize,
    cols: usize,
    row: usize,
    col: usize,
}

impl<'a, A: Float> Mat<'a, A> {
    /// [rows, cols], row-major, over the whole slice.
    pub fn new(data: &'a [A], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// [rows, cols] with `stride` elements from row to row.
    pub fn strided(data: &'a [A], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(cols <= stride && (rows == 0 || (rows - 1) * stride + cols <= data.len()));
        Mat { data, rows, cols, row: stride, col: 1 }
    }

    /// The transpose: [cols, rows].
    pub fn t(self) -> Self {
        Mat { rows: self.cols, cols: self.rows, row: self.col, col: self.row, ..self }
    }
}

/// y = a b or y += a b, with y row-major [a.rows, b.cols], on the calling thread.
pub fn product<A: Float>(y: &mut [A], a: Mat<A>, b: Mat<A>, into: Into) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(k, b.rows, "product: inner sizes differ");
    assert!(m * n <= y.len(), "product: the output is too small");
    if m == 0 || n == 0 {
        return;
    }
    // SAFETY: `Mat` and the assertions above keep every index that gemm touches, (m−1)·row +
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
            a.data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr(),
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
