//! The reference device: plain Rust over slices, rayon over rows.
//!
//! `Cpu<E>` stores activations and weights as `E` (f64, f32 or bf16) and computes and sums in
//! `E::Acc`. Work is cut by size alone, never by the number of threads, and every sum has a fixed
//! order, so results are bitwise equal however many threads run.

pub mod float;
#[cfg(target_arch = "x86_64")]
mod kernel;
pub mod product;

use std::marker::PhantomData;

use rayon::prelude::*;

use crate::device::{Buffer, Class, Format, Memory, Repeats};
pub use float::{Element, Float};

/// The CPU, storing `E`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu<E>(PhantomData<E>);

impl<E> Cpu<E> {
    pub fn new() -> Self {
        Cpu(PhantomData)
    }
}

impl<E: Element> Memory for Cpu<E> {
    type X = Vec<E>;
    type Acc = Vec<E::Acc>;
    type Int = Vec<i32>;

    fn x_format(&self) -> Format {
        E::FORMAT
    }

    fn acc_format(&self) -> Format {
        E::Acc::FORMAT
    }

    fn x(&self, _: Class, len: usize) -> Vec<E> {
        zeros(len)
    }

    fn acc(&self, _: Class, len: usize) -> Vec<E::Acc> {
        zeros(len)
    }

    fn int(&self, _: Class, len: usize) -> Vec<i32> {
        vec![0; len]
    }
}

impl<E: Element> Repeats for Cpu<E> {
    type Script = ();
}

/// Zeros, of large tensors in pages of 2 MiB where the system has them to give: rows of products
/// lie a page or more apart, and each look-up of a page that the TLB lacks costs a walk.
fn zeros<T: bytemuck::Zeroable>(len: usize) -> Vec<T> {
    let tensor: Vec<T> = bytemuck::zeroed_vec(len);
    #[cfg(target_os = "linux")]
    {
        const HUGE: usize = 2 << 20;
        let start = tensor.as_ptr().addr();
        let (first, end) =
            (start.next_multiple_of(HUGE), (start + size_of_val(&*tensor)) / HUGE * HUGE);
        if first < end {
            let at = tensor.as_ptr().with_addr(first) as *mut libc::c_void;
            // SAFETY: whole pages inside the tensor; the advice changes neither contents nor
            // validity. Where it is refused, small pages serve.
            unsafe { libc::madvise(at, end - first, libc::MADV_HUGEPAGE) };
        }
    }
    tensor
}

/// What one element of a CPU tensor looks like to the host.
pub trait HostElement: Copy {
    type Host: Copy + Default;
    fn to_host(self) -> Self::Host;
    fn from_host(value: Self::Host) -> Self;
}

impl HostElement for i32 {
    type Host = i32;

    fn to_host(self) -> i32 {
        self
    }

    fn from_host(value: i32) -> i32 {
        value
    }
}

impl<T: HostElement> Buffer for Vec<T> {
    type Host = T::Host;

    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn read(&self, start: usize, out: &mut [T::Host]) {
        let n = out.len();
        for (out, &value) in out.iter_mut().zip(&self[start..start + n]) {
            *out = value.to_host();
        }
    }

    fn write(&mut self, start: usize, values: &[T::Host]) {
        for (to, &value) in self[start..start + values.len()].iter_mut().zip(values) {
            *to = T::from_host(value);
        }
    }
}

/// Rows that one task takes: enough to be worth a task, few enough that a block of the widest
/// activations stays in a core's cache. A function of the size alone.
pub fn rows_per_task(rows: usize) -> usize {
    rows.div_ceil(8).clamp(8, 512)
}

/// `f(first row, rows of y)` over blocks of rows of `y` [rows, width], in parallel.
pub fn for_row_blocks<T: Send>(
    y: &mut [T],
    width: usize,
    f: impl Fn(usize, &mut [T]) + Sync + Send,
) {
    let block = rows_per_task(y.len() / width.max(1));
    y.par_chunks_mut(block * width).enumerate().for_each(|(i, y)| f(i * block, y));
}

/// Partial results that a reduction keeps side by side, so that it vectorises in a fixed order.
const LANES: usize = 16;

/// Sum of `f(i)` for i below `n`.
#[inline(always)]
pub fn sum<A: Float>(n: usize, f: impl Fn(usize) -> A) -> A {
    reduce(n, A::ZERO, f, |a, b| a + b)
}

/// Largest `f(i)` for i below `n`, NaN passed over; −∞ of none.
#[inline(always)]
pub fn largest<A: Float>(n: usize, f: impl Fn(usize) -> A) -> A {
    reduce(n, A::NEG_INFINITY, f, |a, b| if b > a { b } else { a })
}

#[inline(always)]
fn reduce<A: Float>(n: usize, start: A, f: impl Fn(usize) -> A, join: impl Fn(A, A) -> A) -> A {
    let mut lanes = [start; LANES];
    let whole = n - n % LANES;
    for i in (0..whole).step_by(LANES) {
        for (l, lane) in lanes.iter_mut().enumerate() {
            *lane = join(*lane, f(i + l));
        }
    }
    let total = lanes.into_iter().fold(start, &join);
    (whole..n).fold(total, |total, i| join(total, f(i)))
}
