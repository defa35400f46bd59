//! Random inputs, the same for every device, and poisoned outputs.

use half::bf16;

use crate::device::{Buffer, Class, Memory};
use crate::ops::rope::{Rotation, table};
use crate::rng::{Philox, Stream, below};

/// A source of tensors.
pub struct Draw {
    rng: Philox,
    /// Blocks drawn so far.
    index: u64,
}

impl Draw {
    /// A pure function of the seed and of what is checked.
    pub fn new(seed: u64, op: &str, shape: &str) -> Draw {
        let name = xxhash_rust::xxh3::xxh3_64(format!("{op} {shape}").as_bytes());
        Draw { rng: Philox::new(seed ^ name), index: 0 }
    }

    /// `len` values of the normal distribution with deviation `scale`, as bf16 holds them.
    pub fn values(&mut self, len: usize, scale: f64) -> Vec<f64> {
        let mut values = Vec::with_capacity(len + 3);
        while values.len() < len {
            let normal = self.rng.normal(Stream::Sample, 1, self.index);
            self.index += 1;
            values.extend(normal.map(|z| bf16::from_f64(z * scale).to_f64()));
        }
        values.truncate(len);
        values
    }

    /// [len] in `X`.
    pub fn x<D: Memory>(&mut self, dev: &D, len: usize, scale: f64) -> D::X {
        let values = self.values(len, scale);
        x(dev, &values)
    }

    /// [len] in `Acc`.
    pub fn acc<D: Memory>(&mut self, dev: &D, len: usize, scale: f64) -> D::Acc {
        let values = self.values(len, scale);
        acc(dev, &values)
    }

    /// [len] integers below `n`.
    pub fn below(&mut self, len: usize, n: usize) -> Vec<i32> {
        let mut draw = || {
            self.index += 1;
            below(self.rng.block(Stream::Sample, 2, self.index)[0], n as u32) as i32
        };
        (0..len).map(|_| draw()).collect()
    }
}

/// A tensor with these values.
pub fn x<D: Memory>(dev: &D, values: &[f64]) -> D::X {
    let mut x = dev.x(Class::Scratch, values.len());
    x.write(0, values);
    x
}

/// A tensor with these values.
pub fn acc<D: Memory>(dev: &D, values: &[f64]) -> D::Acc {
    let mut acc = dev.acc(Class::Scratch, values.len());
    acc.write(0, values);
    acc
}

/// A tensor with these values.
pub fn int<D: Memory>(dev: &D, values: &[i32]) -> D::Int {
    let mut int = dev.int(Class::Scratch, values.len());
    int.write(0, values);
    int
}

/// An output full of NaN.
pub fn poisoned_x<D: Memory>(dev: &D, len: usize) -> D::X {
    x(dev, &vec![f64::NAN; len])
}

/// An output full of NaN.
pub fn poisoned_acc<D: Memory>(dev: &D, len: usize) -> D::Acc {
    acc(dev, &vec![f64::NAN; len])
}

/// What a [`Rotation`] borrows.
pub struct Angles<D: Memory> {
    table: D::Acc,
    positions: D::Int,
    head_dim: usize,
}

impl<D: Memory> Angles<D> {
    /// Of heads of `head_dim`, at positions below `context`.
    pub fn new(dev: &D, positions: &[i32], context: usize, head_dim: usize) -> Self {
        let table = acc(dev, &table(context, head_dim, 10_000.0));
        Angles { table, positions: int(dev, positions), head_dim }
    }

    pub fn rotation(&self) -> Rotation<'_, D> {
        Rotation { table: &self.table, positions: &self.positions, head_dim: self.head_dim }
    }
}
