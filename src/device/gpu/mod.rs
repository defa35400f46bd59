//! A GPU: bf16 activations and weights, f32 sums, kernels from `kernels/`.
//!
//! [`Gpu`] runs over a [`driver::Driver`]: a real GPU ([`cuda`]) or the emulator ([`emulator`]),
//! with the same launch code, grids and argument order. Each family in [`crate::ops`] launches its
//! own kernels.
//!
//! Errors of a device come long after their cause and cannot be answered where they show, so they
//! are kept, as CUDA itself keeps them: after the first one nothing runs any more, reads give
//! zeros, and [`Memory::fault`] tells what happened. Whoever drives the device asks once a step.

pub mod cuda;
pub mod driver;
pub mod dry;
pub mod emulator;
pub mod launch;
pub(crate) mod limits;
pub mod module;
pub mod replay;
pub mod tuned;
pub mod work;

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use bytemuck::{Pod, cast_slice, cast_slice_mut};
use clap::ValueEnum;
use half::bf16;
use serde::{Deserialize, Serialize};

use crate::device::cpu::HostElement;
use crate::device::meter::Clock;
use crate::device::{Buffer, Class, Fetched, Format, Memory};
use cuda::blas::{Blas, Product};
use driver::{Address, Driver, DriverError, Fetch, Mark, Properties, Result, TensorMap, TileShape};
use tuned::Tuned;
use work::Work;

/// Which kernels run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kernels {
    /// One thread an element, as the maths reads.
    Naive,
    #[default]
    Fast,
}

/// Where kernels run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Place {
    /// An NVIDIA GPU
    Cuda,
    /// The CPU, as slow and as watchful as a debugger
    Emulator,
}

/// The GPU at a place; the error says why there is none.
pub fn open(place: Place, kernels: Kernels) -> Result<Gpu> {
    let driver: Box<dyn Driver> = match place {
        Place::Cuda => Box::new(cuda::Cuda::new()?),
        Place::Emulator => Box::new(emulator::Emulator::new(emulator::Modes::default())?),
    };
    Ok(Gpu::new(driver, kernels))
}

/// Whether there is a GPU that can train, and kernels for it.
pub fn available() -> bool {
    open(Place::Cuda, Kernels::Fast).is_ok()
}

/// The compute capability of H100 and H200, which some kernels are for.
const HOPPER: (u32, u32) = (9, 0);

/// A kernel that a program built for other chips alone has not got.
const A_HOPPER_KERNEL: &str = "linear_coop_128x256";

/// A GPU.
#[derive(Debug, Clone)]
pub struct Gpu {
    state: Rc<State>,
    kernels: Kernels,
}

/// Rows of logits that exist at a time. With 8,192 of them the traffic of dW is 8 V C bytes to the
/// logits' 10 V · 8,192: 8% at C = 768, where 1,024 rows had 60%. A wide vocabulary takes fewer, so
/// that the scratch stays below 1 GiB.
pub fn logit_rows(vocab: usize) -> usize {
    const SCRATCH: usize = 1 << 30;
    (SCRATCH / (vocab.max(1) * size_of::<bf16>())).clamp(1024, 8192)
}

/// What a GPU's tensors share with it.
#[derive(Debug)]
struct State {
    driver: Box<dyn Driver>,
    fault: RefCell<Option<String>>,
    /// What lives within one op: address and bytes.
    workspace: RefCell<(Address, usize)>,
    product_cut: Cell<Option<ProductCut>>,
    tuned: RefCell<Option<Tuned>>,
    attention_cut: Cell<Option<AttentionCut>>,
    /// Whether a kernel may begin before the one before it has ended.
    overlaps: Cell<bool>,
    /// Whether the same launches give the same bits.
    deterministic: Cell<bool>,
    /// Work that is taken down instead of being done; see [`replay`].
    noting: RefCell<Option<Vec<Work>>>,
    tables: RefCell<Tables>,
    gemm: Cell<Gemm>,
    /// Whether there are kernels for sm_90a; asked once.
    hopper: OnceCell<bool>,
}

/// Which kernels multiply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gemm {
    /// Those of the chip, where they take a shape
    #[default]
    Auto,
    /// kernels/product.cu, which run on every chip
    Portable,
    /// kernels/product_hopper.cu, for sm_90a; what they do not take, the portable ones do
    Hopper,
    /// NVIDIA's library, and kernels/library.cu around it, to compare with and to check against;
    /// what it does not take, the portable ones do
    Cublaslt,
}

impl Gemm {
    /// Whether its kernels make such a cut.
    pub fn makes(self, cut: &ProductCut) -> bool {
        match cut {
            ProductCut::Portable { .. } => self != Gemm::Hopper,
            ProductCut::Hopper { .. } => matches!(self, Gemm::Auto | Gemm::Hopper),
        }
    }
}

/// How products are cut where the choice is not left to the host: for checks, which must meet every
/// tile at any shape, and for sweeps that measure them. Splits are shares of the inner dimension,
/// where a kernel can split it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProductCut {
    /// Tile of `kernels/product.cuh`: 0 large, 1 medium, 2 small.
    Portable { tile: usize, splits: usize },
    /// Tile of `kernels/product_hopper.cuh`, in its order, blocks of a cluster, 1 or 2, and the
    /// most blocks in all.
    Hopper { tile: usize, cluster: usize, splits: usize, blocks: usize },
}

/// Tiles of the kernels of sm_90a; the last is for results without an activation.
pub const HOPPER_TILES: [&str; 5] =
    ["coop 128x256", "coop 256x128", "ping 128x192", "ping 128x128", "coop 256x160"];

/// E.g. `ping 128x192, cluster of 2, k / 11`.
impl fmt::Display for ProductCut {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            ProductCut::Portable { tile, splits } => {
                write!(f, "{} tile, k / {splits}", ["large", "medium", "small"][tile])
            }
            ProductCut::Hopper { tile, cluster, splits, .. } => {
                let tile = HOPPER_TILES[tile];
                write!(f, "{tile}, cluster of {cluster}, k / {splits}")
            }
        }
    }
}

/// Which kernels attend where the choice is not left to the host: for checks, which must meet all
/// of them at any shape, and for benches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionCut {
    /// kernels/attention.cu, which run on every chip.
    Portable,
    /// kernels/attention_hopper.cu, with so many queries a block of the forward and so many blocks
    /// at most.
    Hopper { queries: usize, blocks: usize },
}

/// Tables of constants that kernels read, each brought once; before them, words of zeros.
#[derive(Debug, Default)]
struct Tables {
    /// [`TABLES`] bytes, once there are any.
    memory: Option<Address>,
    /// One after the other, each from a multiple of 16.
    bytes: Vec<u8>,
    /// Of each, where it begins and its bytes.
    places: Vec<(usize, usize)>,
}

/// Room for all tables: the optimizer's, 16 bytes a group, is the only one so far.
const TABLES: usize = 64 << 10;

/// Bytes before them that are zero between launches; see [`Gpu::counter`].
const COUNTERS: usize = 16;

impl Tables {
    /// Where a table begins that is there.
    fn find(&self, table: &[u8]) -> Option<usize> {
        let mut places = self.places.iter();
        let found = places.find(|&&(start, len)| &self.bytes[start..start + len] == table);
        found.map(|&(start, _)| start)
    }

    fn place(&mut self, table: &[u8], driver: &dyn Driver) -> Result<Address> {
        let memory = self.take(driver)?;
        if let Some(start) = self.find(table) {
            return Ok(memory.offset(start));
        }
        let start = self.bytes.len().next_multiple_of(16);
        if start + table.len() > TABLES {
            return Err(DriverError(format!("tables of more than {TABLES} bytes")));
        }
        driver.upload(memory.offset(start), table)?;
        self.bytes.resize(start, 0);
        self.bytes.extend_from_slice(table);
        self.places.push((start, table.len()));
        Ok(memory.offset(start))
    }

    /// Where they lie.
    fn take(&mut self, driver: &dyn Driver) -> Result<Address> {
        if let Some(memory) = self.memory {
            return Ok(memory);
        }
        let memory = driver.alloc(TABLES, Class::Workspace.label())?;
        self.memory = Some(memory);
        self.bytes.resize(COUNTERS, 0);
        driver.fill(memory, 0, COUNTERS)?;
        Ok(memory)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let (address, bytes) = *self.workspace.borrow();
        if bytes > 0 {
            self.driver.free(address);
        }
        if let Some(address) = self.tables.get_mut().memory {
            self.driver.free(address);
        }
    }
}

impl State {
    /// Keeps the first error; what follows it is its consequence.
    fn fail(&self, op: &str, error: &DriverError) {
        self.fault.borrow_mut().get_or_insert_with(|| format!("{op}: {error}"));
    }

    /// Runs `call` unless there was a fault, and keeps its own.
    fn attempt<T>(&self, op: &str, call: impl FnOnce(&dyn Driver) -> Result<T>) -> Option<T> {
        if self.fault.borrow().is_some() {
            return None;
        }
        call(&*self.driver).map_err(|error| self.fail(op, &error)).ok()
    }

    /// [`State::attempt`] of what the host does with a tensor's elements: not while work is noted,
    /// since it would not come in its turn.
    fn exchange<T>(&self, op: &str, call: impl FnOnce(&dyn Driver) -> Result<T>) -> Option<T> {
        self.attempt(op, |driver| match *self.noting.borrow() {
            Some(_) => Err(DriverError("the host used a tensor within recorded work".into())),
            None => call(driver),
        })
    }

    /// Does `work`, which is what `call` does, or notes it.
    fn give(&self, op: &str, work: Work, call: impl FnOnce(&dyn Driver) -> Result<()>) {
        self.attempt(op, |driver| match &mut *self.noting.borrow_mut() {
            Some(noted) => {
                noted.push(work);
                Ok(())
            }
            None => call(driver),
        });
    }
}

impl Gpu {
    pub fn new(driver: Box<dyn Driver>, kernels: Kernels) -> Gpu {
        let workspace = RefCell::new((Address(0), 0));
        let state = State {
            driver,
            fault: RefCell::default(),
            workspace,
            product_cut: Cell::default(),
            tuned: RefCell::default(),
            attention_cut: Cell::default(),
            overlaps: Cell::default(),
            deterministic: Cell::new(true),
            noting: RefCell::default(),
            tables: RefCell::default(),
            gemm: Cell::default(),
            hopper: OnceCell::new(),
        };
        Gpu { state: Rc::new(state), kernels }
    }

    pub fn driver(&self) -> &dyn Driver {
        &*self.state.driver
    }

    /// Whether the plain kernels were asked for.
    pub(crate) fn naive(&self) -> bool {
        self.kernels == Kernels::Naive
    }

    /// Lets kernels begin before those before them have ended, or not.
    pub fn overlap(&self, overlaps: bool) {
        self.state.overlaps.set(overlaps);
    }

    /// Whether the same launches must give the same bits, as they do unless told otherwise. If not,
    /// shares of a weight's gradient are added as they come.
    pub fn deterministic(&self, deterministic: bool) {
        self.state.deterministic.set(deterministic);
    }

    pub(crate) fn is_deterministic(&self) -> bool {
        self.state.deterministic.get()
    }

    /// Multiplies by these kernels from now on; an error where the chip has not got them.
    pub fn use_gemm(&self, gemm: Gemm) -> Result<()> {
        if gemm == Gemm::Hopper && !self.has_hopper() {
            let Properties { name, capability: (major, minor), .. } = self.driver().properties();
            return Err(DriverError(format!(
                "the hopper products are for compute capability 9.0, compiled for sm_90a; {name} \
                 has {major}.{minor}: leave --gemm away"
            )));
        }
        if gemm == Gemm::Cublaslt {
            let told = |DriverError(why)| DriverError(format!("--gemm cublaslt: {why}"));
            self.driver().blas().map_err(told)?;
        }
        self.state.gemm.set(gemm);
        Ok(())
    }

    /// Whether there are kernels for sm_90a, and a chip that runs them.
    pub fn has_hopper(&self) -> bool {
        let has = || {
            let driver = self.driver();
            driver.properties().capability == HOPPER && driver.signature(A_HOPPER_KERNEL).is_ok()
        };
        *self.state.hopper.get_or_init(has)
    }

    pub(crate) fn gemm(&self) -> Gemm {
        self.state.gemm.get()
    }

    /// Whether cuBLASLt is to do a product, and can.
    pub(crate) fn library_takes(&self, product: &Product) -> bool {
        let takes = |blas: &Blas| blas.known(product).is_some();
        self.gemm() == Gemm::Cublaslt && self.driver().blas().is_ok_and(takes)
    }

    /// Does it, of matrices at these places: A, B and D.
    pub(crate) fn multiply_by_library(&self, product: Product, places: [Address; 3]) {
        let work = Work::Multiply(product, places);
        self.state.give("a product", work, |driver| driver.blas()?.start(&product, places));
    }

    /// Cuts all products from now on so; `None` leaves it to the host again.
    pub fn fix_products(&self, cut: Option<ProductCut>) {
        self.state.product_cut.set(cut);
    }

    pub(crate) fn fixed_products(&self) -> Option<ProductCut> {
        self.state.product_cut.get()
    }

    /// Attends from now on so; `None` leaves it to the host again.
    pub fn fix_attention(&self, cut: Option<AttentionCut>) {
        self.state.attention_cut.set(cut);
    }

    pub(crate) fn fixed_attention(&self) -> Option<AttentionCut> {
        self.state.attention_cut.get()
    }

    fn fail(&self, op: &str, error: &DriverError) {
        self.state.fail(op, error);
    }

    /// Memory for what lives within one op: at least `bytes`, not initialised, the same at each
    /// call. It grows when it must, which a run takes care to have done before its first step.
    pub(crate) fn workspace(&self, bytes: usize) -> Address {
        let label = Class::Workspace.label();
        let mut workspace = self.state.workspace.borrow_mut();
        if workspace.1 < bytes {
            if workspace.1 > 0 {
                self.driver().free(workspace.0);
            }
            *workspace = (Address(0), 0);
            if let Some(address) = self.state.attempt(label, |d| d.alloc(bytes, label)) {
                *workspace = (address, bytes);
            }
        }
        workspace.0
    }

    /// Takes all memory that is no tensor's: a workspace for what a rehearsal found, and tables.
    pub fn reserve(&self, bytes: usize) {
        self.workspace(bytes);
        self.state.attempt("table", |driver| self.state.tables.borrow_mut().take(driver));
    }

    /// Bytes that [`Gpu::workspace`] has come to.
    pub fn workspace_bytes(&self) -> usize {
        self.state.workspace.borrow().1
    }

    /// Where a table of constants lies on the device. It is brought there when it is first asked
    /// for, and stays.
    pub(crate) fn table(&self, bytes: &[u8]) -> Address {
        let tables = &self.state.tables;
        let placed = self.state.attempt("table", |d| tables.borrow_mut().place(bytes, d));
        placed.unwrap_or(Address(0))
    }

    /// A word that is zero, for blocks of a kernel to count with; the last one sets it to zero
    /// again.
    pub(crate) fn counter(&self) -> Address {
        let tables = &self.state.tables;
        let taken = self.state.attempt("counter", |d| tables.borrow_mut().take(d));
        taken.unwrap_or(Address(0))
    }

    /// How TMA sees a tensor.
    pub(crate) fn tensor_map(&self, shape: &TileShape) -> TensorMap {
        let map = self.state.attempt("tensor map", |driver| driver.tensor_map(shape));
        map.unwrap_or(TensorMap([0; 16]))
    }

    /// Sets `bytes` of memory to zero.
    pub(crate) fn zero(&self, to: Address, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let fill = Work::Fill { to, byte: 0, bytes };
        self.state.give("zero", fill, |driver| driver.fill(to, 0, bytes));
    }

    fn tensor<T: Pod>(&self, class: Class, len: usize) -> Tensor<T> {
        let bytes = len * size_of::<T>();
        let label = class.label();
        let address = self.state.attempt(label, |driver| {
            let address = driver.alloc(bytes.max(1), label)?;
            driver.fill(address, 0, bytes)?;
            Ok(address)
        });
        Tensor { state: Rc::clone(&self.state), address, len, elements: PhantomData }
    }
}

/// A flat tensor in a GPU's memory.
#[derive(Debug)]
pub struct Tensor<T> {
    state: Rc<State>,
    /// None if memory ran out, which is the device's fault by then.
    address: Option<Address>,
    len: usize,
    elements: PhantomData<T>,
}

impl<T> Tensor<T> {
    pub(crate) fn address(&self) -> Address {
        self.address.unwrap_or(Address(0))
    }

    /// The address of element `index`.
    pub(crate) fn at(&self, index: usize) -> Address {
        assert!(index <= self.len, "element {index} of a tensor of {}", self.len);
        self.address().offset(index * size_of::<T>())
    }

    /// Copies `len` elements from one place of the tensor to another, on the device; the two must
    /// not overlap.
    pub(crate) fn copy_within(&mut self, from: usize, to: usize, len: usize) {
        assert!(from.max(to) + len <= self.len, "copy beyond a tensor of {}", self.len);
        let (to, from) = (self.at(to), self.at(from));
        let bytes = len * size_of::<T>();
        if bytes == 0 {
            return;
        }
        let copy = Work::Copy { to, from, bytes };
        self.state.give("copy", copy, |driver| driver.copy(to, from, bytes));
    }
}

impl<T> Drop for Tensor<T> {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            self.state.driver.free(address);
        }
    }
}

impl<T: Pod + HostElement> Buffer for Tensor<T> {
    type Host = T::Host;

    fn len(&self) -> usize {
        self.len
    }

    fn read(&self, start: usize, out: &mut [T::Host]) {
        assert!(start + out.len() <= self.len, "read beyond a tensor of {}", self.len);
        let mut stored = vec![T::zeroed(); out.len()];
        let bytes = cast_slice_mut(&mut stored);
        self.state.exchange("read", |driver| driver.download(self.at(start), bytes));
        for (out, stored) in out.iter_mut().zip(stored) {
            *out = stored.to_host();
        }
    }

    fn write(&mut self, start: usize, values: &[T::Host]) {
        assert!(start + values.len() <= self.len, "write beyond a tensor of {}", self.len);
        let stored: Vec<T> = values.iter().map(|&value| T::from_host(value)).collect();
        let to = self.at(start);
        self.state.exchange("write", |driver| driver.upload(to, cast_slice(&stored)));
    }

    fn fetch(&self) -> Fetched<T::Host> {
        let (len, bytes) = (self.len, self.len * size_of::<T>());
        let started = self.state.exchange("read", |driver| driver.fetch(self.at(0), bytes));
        let Some(fetch) = started else { return Fetched::Here(vec![T::Host::default(); len]) };
        let (asked, taken) = (Rc::clone(&self.state), Rc::clone(&self.state));
        Fetched::Coming(
            Box::new(move || asked.driver.arrived(fetch)),
            Box::new(move || fetched::<T>(&taken, fetch, len)),
        )
    }
}

/// What was fetched, as the host sees it; zeros after a fault.
fn fetched<T: Pod + HostElement>(state: &State, fetch: Fetch, len: usize) -> Vec<T::Host> {
    let mut stored = vec![T::zeroed(); len];
    let bytes = cast_slice_mut(&mut stored);
    state.attempt("read", |driver| driver.fetched(fetch, bytes));
    stored.into_iter().map(T::to_host).collect()
}

impl Memory for Gpu {
    type X = Tensor<bf16>;
    type Acc = Tensor<f32>;
    type Int = Tensor<i32>;

    fn x_format(&self) -> Format {
        Format::BF16
    }

    fn acc_format(&self) -> Format {
        Format::F32
    }

    fn x(&self, class: Class, len: usize) -> Tensor<bf16> {
        self.tensor(class, len)
    }

    fn acc(&self, class: Class, len: usize) -> Tensor<f32> {
        self.tensor(class, len)
    }

    fn int(&self, class: Class, len: usize) -> Tensor<i32> {
        self.tensor(class, len)
    }

    fn logit_rows(&self, vocab: usize) -> usize {
        logit_rows(vocab)
    }

    fn fault(&self) -> Option<String> {
        self.state.fault.borrow().clone()
    }
}

impl Clock for Gpu {
    fn mark(&self) -> Option<Mark> {
        self.driver().mark().ok().filter(|_| self.fault().is_none())
    }

    fn seconds(&self, from: Mark, to: Mark) -> f64 {
        self.driver().elapsed(from, to).unwrap_or(f64::NAN)
    }
}
