//! Rows picked out of a tensor, and put back: only the rows whose loss counts go through the last
//! layer's products and the head.

use half::bf16;
use rayon::prelude::*;

use super::Cost;
use crate::device::Memory;
use crate::device::cpu::{Cpu, Element, Float, for_row_blocks, rows_per_task};
use crate::device::gpu::launch::{Arg, Shape};
use crate::device::gpu::{Gpu, Tensor};

pub trait GatherOps: Memory {
    /// y [M, C] = x[rows[i]], zeros where a row is −1
    fn gather(&self, y: &mut Self::X, x: &Self::X, rows: &Self::Int, width: usize, count: usize);

    /// dx[rows[i]] += dy[i], dy [M, C]; the rows differ, but for −1, which is none.
    fn scatter_add(
        &self,
        dx: &mut Self::X,
        dy: &Self::X,
        rows: &Self::Int,
        width: usize,
        count: usize,
    );
}

/// `count` rows cross memory `streams` times: 2 to gather, 3 to add to what is there.
pub fn cost(width: usize, count: usize, streams: usize, size: usize) -> Cost {
    Cost { flops: 0.0, bytes: (streams * width * count * size) as f64 }
}

impl<E: Element> GatherOps for Cpu<E> {
    fn gather(&self, y: &mut Vec<E>, x: &Vec<E>, rows: &Vec<i32>, width: usize, count: usize) {
        for_row_blocks(&mut y[..count * width], width, |first, y| {
            for (y, &row) in y.chunks_exact_mut(width).zip(&rows[first..]) {
                match usize::try_from(row) {
                    Ok(row) => y.copy_from_slice(&x[row * width..][..width]),
                    Err(_) => y.fill(E::round(E::Acc::ZERO)),
                }
            }
        });
    }

    fn scatter_add(
        &self,
        dx: &mut Vec<E>,
        dy: &Vec<E>,
        rows: &Vec<i32>,
        width: usize,
        count: usize,
    ) {
        let task = rows_per_task(dx.len() / width);
        dx.par_chunks_mut(task * width).enumerate().for_each(|(t, dx)| {
            let owned = t * task..t * task + dx.len() / width;
            for (&row, dy) in rows[..count].iter().zip(dy.chunks_exact(width)) {
                if let Some(row) = usize::try_from(row).ok().filter(|row| owned.contains(row)) {
                    let dx = &mut dx[(row - owned.start) * width..][..width];
                    for (dx, dy) in dx.iter_mut().zip(dy) {
                        *dx = E::round(dx.wide() + dy.wide());
                    }
                }
            }
        });
    }
}

impl GatherOps for Gpu {
    fn gather(
        &self,
        y: &mut Tensor<bf16>,
        x: &Tensor<bf16>,
        rows: &Tensor<i32>,
        width: usize,
        count: usize,
    ) {
        let args = [y.into(), x.into(), rows.into(), width.into(), count.into()];
        self.move_rows(["gather_naive", "gather"], &args, width, count);
    }

    fn scatter_add(
        &self,
        dx: &mut Tensor<bf16>,
        dy: &Tensor<bf16>,
        rows: &Tensor<i32>,
        width: usize,
        count: usize,
    ) {
        let args = [dx.into(), dy.into(), rows.into(), width.into(), count.into()];
        self.move_rows(["scatter_add_naive", "scatter_add"], &args, width, count);
    }
}

impl Gpu {
    /// The naive kernel takes a thread an element, the fast one a thread eight.
    fn move_rows(&self, kernels: [&'static str; 2], args: &[Arg], width: usize, count: usize) {
        if self.naive() {
            self.launch(kernels[0], Shape::each(count * width, 256), args);
        } else {
            self.launch(kernels[1], Shape::each(count * width / 8, 256), args);
        }
    }
}
