//! A launch: which kernel, on how many threads, with what arguments. Nothing else launches.

use std::ffi::c_void;

use bytemuck::{Pod, Zeroable, bytes_of, bytes_of_mut};

use super::driver::{Address, DriverError, Launch, Result, TensorMap};
use super::work::{Params, Work};
use super::{Gpu, Tensor};
use crate::device::Memory;
use crate::ops::Dropout;

/// One argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub enum Arg {
    /// A pointer.
    Address(Address),
    /// `int`
    I32(i32),
    /// `unsigned`
    U32(u32),
    /// `unsigned long long`
    U64(u64),
    /// `float`
    F32(f32),
    /// A structure by value: so many bytes of these.
    Struct([u64; STRUCT_WORDS], usize),
    /// `CUtensorMap`
    Map(TensorMap),
}

/// Longest structure [8 bytes].
const STRUCT_WORDS: usize = 8;

/// `Dropout` of `kernels/common.cuh`: a dropout site as kernels take it.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct DropoutArg {
    seed: u64,
    step: u32,
    site: u32,
    /// An element is kept where its word is not below this.
    threshold: u32,
    /// 1/(1 − p)
    keep: f32,
}

impl From<Option<Dropout>> for Arg {
    /// `None` keeps everything: kernels skip the draws where the threshold is 0.
    fn from(dropout: Option<Dropout>) -> Arg {
        let Dropout { p, seed, step, site } = dropout.unwrap_or(Dropout::none());
        Arg::of(DropoutArg {
            seed,
            step,
            site,
            threshold: (p * 4_294_967_296.0) as u32,
            keep: (1.0 / (1.0 - p)) as f32,
        })
    }
}

impl<T> From<&Tensor<T>> for Arg {
    fn from(tensor: &Tensor<T>) -> Arg {
        Arg::Address(tensor.address())
    }
}

impl<T> From<&mut Tensor<T>> for Arg {
    fn from(tensor: &mut Tensor<T>) -> Arg {
        Arg::Address(tensor.address())
    }
}

impl From<Address> for Arg {
    fn from(address: Address) -> Arg {
        Arg::Address(address)
    }
}

/// A null pointer for what a kernel may go without.
impl From<Option<Address>> for Arg {
    fn from(address: Option<Address>) -> Arg {
        Arg::Address(address.unwrap_or(Address(0)))
    }
}

impl From<usize> for Arg {
    /// Sizes are `int` in kernels; the largest allowed configuration fits.
    fn from(size: usize) -> Arg {
        Arg::I32(i32::try_from(size).expect("a size of a kernel is below 2^31"))
    }
}

impl From<i32> for Arg {
    fn from(value: i32) -> Arg {
        Arg::I32(value)
    }
}

impl From<bool> for Arg {
    fn from(value: bool) -> Arg {
        Arg::I32(value.into())
    }
}

impl From<u32> for Arg {
    fn from(value: u32) -> Arg {
        Arg::U32(value)
    }
}

impl From<u64> for Arg {
    fn from(value: u64) -> Arg {
        Arg::U64(value)
    }
}

impl From<f32> for Arg {
    fn from(value: f32) -> Arg {
        Arg::F32(value)
    }
}

impl From<TensorMap> for Arg {
    fn from(map: TensorMap) -> Arg {
        Arg::Map(map)
    }
}

impl Arg {
    /// A structure by value, laid out as the kernel's.
    pub fn of<T: Pod>(value: T) -> Arg {
        let mut words = [0; STRUCT_WORDS];
        let bytes = bytes_of(&value);
        bytes_of_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Arg::Struct(words, bytes.len())
    }

    fn bytes(&self) -> &[u8] {
        let (value, bytes) = self.value();
        // SAFETY: the value lies in `self` and is so long; it has no padding.
        unsafe { std::slice::from_raw_parts(value.cast(), bytes) }
    }

    /// Where the value lies, and its size in bytes.
    fn value(&self) -> (*const c_void, usize) {
        fn of<T>(value: &T) -> (*const c_void, usize) {
            (std::ptr::from_ref(value).cast(), size_of::<T>())
        }
        match self {
            Arg::Address(value) => of(value),
            Arg::I32(value) => of(value),
            Arg::U32(value) => of(value),
            Arg::U64(value) => of(value),
            Arg::F32(value) => of(value),
            Arg::Struct(words, bytes) => (words.as_ptr().cast(), *bytes),
            Arg::Map(value) => of(value),
        }
    }
}

/// How many threads run a kernel.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    grid: [u32; 3],
    block: u32,
    shared: u32,
    cluster: u32,
    cooperative: bool,
}

impl Shape {
    /// `blocks` blocks of `threads`.
    pub fn new(blocks: usize, threads: u32) -> Shape {
        Shape::grid([blocks, 1, 1], threads)
    }

    /// Enough blocks of `threads` for one thread an item.
    pub fn each(items: usize, threads: u32) -> Shape {
        Shape::new(items.div_ceil(threads as usize), threads)
    }

    pub fn grid(blocks: [usize; 3], threads: u32) -> Shape {
        let grid = blocks.map(|n| u32::try_from(n).expect("a grid's side is below 2^32"));
        Shape { grid, block: threads, shared: 0, cluster: 1, cooperative: false }
    }

    /// With dynamic shared memory [bytes].
    pub fn shared(self, bytes: usize) -> Shape {
        Shape { shared: bytes as u32, ..self }
    }

    /// In clusters of `blocks`.
    pub fn cluster(self, blocks: usize) -> Shape {
        Shape { cluster: blocks as u32, ..self }
    }

    /// With all blocks resident at once.
    pub fn cooperative(self) -> Shape {
        Shape { cooperative: true, ..self }
    }
}

/// Most arguments of a kernel.
const ARGS: usize = 24;

impl Gpu {
    /// Launches `kernel`; of an empty grid, nothing. After a fault nothing runs any more.
    pub(crate) fn launch(&self, kernel: &'static str, shape: Shape, args: &[Arg]) {
        if shape.grid.contains(&0) || self.fault().is_some() {
            return;
        }
        if let Err(error) = self.try_launch(kernel, shape, args) {
            self.fail(&format!("kernel {kernel}"), &error);
        }
    }

    fn try_launch(&self, kernel: &'static str, shape: Shape, args: &[Arg]) -> Result<()> {
        if let Some(want) = self.driver().signature(kernel)? {
            let got: Vec<u32> = args.iter().map(|arg| arg.value().1 as u32).collect();
            if got != want {
                return Err(DriverError(format!(
                    "it takes arguments of {want:?} bytes and was given {got:?}"
                )));
            }
        }
        let launch = Launch {
            kernel,
            grid: shape.grid,
            block: [shape.block, 1, 1],
            cluster: [shape.cluster, 1, 1],
            shared: shape.shared,
            cooperative: shape.cooperative,
            overlaps: self.state.overlaps.get() && !shape.cooperative,
        };
        if let Some(noted) = &mut *self.state.noting.borrow_mut() {
            let mut params = Params::default();
            args.iter().for_each(|arg| params.push(arg.bytes()));
            noted.push(Work::Launch(launch, params));
            return Ok(());
        }
        let mut params = [std::ptr::null(); ARGS];
        for (param, arg) in params.iter_mut().zip(args) {
            *param = arg.value().0;
        }
        assert!(args.len() <= ARGS, "kernel {kernel} takes too many arguments");
        // SAFETY: where the driver knows the kernel's parameters, they were compared; elsewhere
        // the same code has passed that comparison on the emulator. Tensors outlive the launch,
        // as memory is given back in the order of the stream.
        unsafe { self.driver().launch(&launch, &params[..args.len()]) }
    }
}
