//! The emulator as a [`Driver`]: the same kernel sources, compiled by the host's C++ compiler and
//! run on the CPU by `kernels/emulator`. Every launch runs to its end before it returns.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::slice::from_raw_parts;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use libloading::Library;

use super::driver::{
    Address, Driver, DriverError, FETCHED, FETCHES, Fetch, Launch, Mark, Properties, Recording,
    Result, TensorMap, TileShape,
};
use super::work::{Params, Work};

/// Which build of the kernels runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Build {
    /// As fast as it goes.
    #[default]
    Plain,
    /// Finds races, missing fences, uninitialised and stray accesses; counts bank conflicts and
    /// memory sectors.
    Check,
    /// AddressSanitizer; the process must be started with its library preloaded.
    Asan,
}

/// In which order threads that could all run are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Order {
    #[default]
    Fifo,
    Lifo,
    Random,
}

/// How the emulator runs kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Modes {
    pub build: Build,
    pub order: Order,
    /// Asynchronous copies and products land as late as the rules allow.
    pub lazy: bool,
    /// Count bank conflicts and sectors by source line; needs [`Build::Check`].
    pub counters: bool,
    /// Host threads that run blocks; 0 for as many as there are processors.
    pub threads: u32,
    /// Of [`Order::Random`].
    pub seed: u64,
}

/// `EmuModes` of `kernels/emulator/api.h`.
#[repr(C)]
struct EmuModes {
    order: u32,
    lazy: u32,
    check: u32,
    counters: u32,
    threads: u32,
    seed: u64,
}

/// `EmuLaunch` of `kernels/emulator/api.h`.
#[repr(C)]
struct EmuLaunch {
    kernel: *const c_char,
    grid: [u32; 3],
    block: [u32; 3],
    cluster: [u32; 3],
    shared_bytes: u32,
    cooperative: u32,
    overlaps: u32,
}

/// The library's functions, as `kernels/emulator/api.h` declares them.
#[derive(Debug)]
struct Api {
    configure: unsafe extern "C" fn(*const EmuModes),
    launch: unsafe extern "C" fn(*const EmuLaunch, *const *const c_void) -> c_int,
    error: unsafe extern "C" fn() -> *const c_char,
    kernel_count: unsafe extern "C" fn() -> u32,
    kernel_name: unsafe extern "C" fn(u32) -> *const c_char,
    kernel_params: unsafe extern "C" fn(u32, *mut *const u32) -> u32,
    alloc: unsafe extern "C" fn(usize, *const c_char) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
    tensor_map: TensorMapFn,
    counters: unsafe extern "C" fn() -> *const c_char,
    /// Keeps the functions above loaded.
    _library: Library,
}

type TensorMapFn = unsafe extern "C" fn(
    *mut TensorMap,
    u32,
    u32,
    *mut c_void,
    *const u64,
    *const u64,
    *const u32,
    u32,
) -> c_int;

impl Api {
    /// # Safety
    /// `library` is a build of kernels/emulator.
    unsafe fn of(library: Library) -> std::result::Result<Api, libloading::Error> {
        // SAFETY: by the caller's promise the symbols have the types that api.h declares.
        unsafe {
            Ok(Api {
                configure: *library.get(b"emu_configure")?,
                launch: *library.get(b"emu_launch")?,
                error: *library.get(b"emu_error")?,
                kernel_count: *library.get(b"emu_kernel_count")?,
                kernel_name: *library.get(b"emu_kernel_name")?,
                kernel_params: *library.get(b"emu_kernel_params")?,
                alloc: *library.get(b"emu_alloc")?,
                free: *library.get(b"emu_free")?,
                tensor_map: *library.get(b"emu_tensor_map")?,
                counters: *library.get(b"emu_counters")?,
                _library: library,
            })
        }
    }
}

/// The library keeps one set of modes, one error and one set of counters, so whoever calls it
/// holds this.
static CALLING: Mutex<()> = Mutex::new(());

/// Kernels run on the CPU.
#[derive(Debug)]
pub struct Emulator {
    api: Api,
    modes: Modes,
    properties: Properties,
    /// Parameter sizes of each kernel.
    kernels: BTreeMap<String, Vec<u32>>,
    marks: RefCell<Vec<Instant>>,
    recordings: RefCell<Vec<Vec<Work>>>,
    /// What was fetched, and how often.
    fetches: RefCell<([[u8; FETCHED]; FETCHES], usize)>,
}

/// Where the build left the library of each [`Build`]; empty where there was no C++ compiler.
fn built(build: Build) -> &'static str {
    let path = match build {
        Build::Plain => option_env!("WARPWRIGHT_EMULATOR_PLAIN"),
        Build::Check => option_env!("WARPWRIGHT_EMULATOR_CHECK"),
        Build::Asan => option_env!("WARPWRIGHT_EMULATOR_ASAN"),
    };
    path.unwrap_or("")
}

/// The names of the builds that were made.
pub fn builds() -> impl Iterator<Item = &'static str> {
    let all = [("plain", Build::Plain), ("check", Build::Check), ("asan", Build::Asan)];
    all.into_iter().filter(|(_, build)| !built(*build).is_empty()).map(|(name, _)| name)
}

/// AddressSanitizer's library, which a process must preload to use [`Build::Asan`].
pub fn asan_library() -> Option<&'static str> {
    option_env!("WARPWRIGHT_EMULATOR_ASAN_RUNTIME").filter(|path| !path.is_empty())
}

impl Emulator {
    /// Loads the emulated kernels; the error says what to do when they are not there.
    pub fn new(modes: Modes) -> Result<Emulator> {
        let path = built(modes.build);
        if path.is_empty() {
            return Err(DriverError(
                "this program was built without the emulated kernels, for lack of a C++ compiler: \
                 install g++ or clang++ (or set CXX) and build it again"
                    .into(),
            ));
        }
        Emulator::at(Path::new(path), modes)
    }

    /// Loads the emulated kernels from a library, which must be of the build that `modes` names.
    pub fn at(path: &Path, modes: Modes) -> Result<Emulator> {
        let failed = |e: libloading::Error| {
            let why = e.source().map_or(e.to_string(), ToString::to_string);
            DriverError(format!(
                "cannot load the emulated kernels: {why}. They stay where they were built ({}): \
                 run the program from its source tree, or build it again",
                path.display()
            ))
        };
        // SAFETY: the library was built from kernels/emulator with this program, and its start-up
        // code only registers kernels.
        let library = unsafe { Library::new(path) }.map_err(failed)?;
        // SAFETY: it is a build of kernels/emulator.
        let api = unsafe { Api::of(library) }.map_err(failed)?;
        let kernels = kernels(&api);
        Ok(Emulator {
            api,
            modes,
            properties: properties(),
            kernels,
            marks: RefCell::default(),
            recordings: RefCell::default(),
            fetches: RefCell::new(([[0; FETCHED]; FETCHES], 0)),
        })
    }

    /// The names of all kernels.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.kernels.keys().map(String::as_str)
    }

    /// Takes the library, set to this emulator's modes.
    fn call(&self) -> MutexGuard<'static, ()> {
        let calling = CALLING.lock().unwrap_or_else(PoisonError::into_inner);
        let modes = EmuModes {
            order: self.modes.order as u32,
            lazy: self.modes.lazy.into(),
            check: (self.modes.build == Build::Check).into(),
            counters: self.modes.counters.into(),
            threads: self.modes.threads,
            seed: self.modes.seed,
        };
        // SAFETY: the library copies the modes.
        unsafe { (self.api.configure)(&modes) };
        calling
    }

    /// The library's verdict on a call; the caller still holds [`CALLING`].
    fn verdict(&self, status: c_int) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: after a failure the library keeps its words until the next call.
        Err(DriverError(unsafe { text((self.api.error)()) }))
    }
}

fn kernels(api: &Api) -> BTreeMap<String, Vec<u32>> {
    // SAFETY: kernels are numbered from 0 to the count; names and sizes are static.
    let kernel = |k| unsafe {
        let mut sizes = std::ptr::null();
        let count = (api.kernel_params)(k, &mut sizes);
        let sizes = if count == 0 { &[] } else { from_raw_parts(sizes, count as usize) };
        (text((api.kernel_name)(k)), sizes.to_vec())
    };
    // SAFETY: a plain getter.
    (0..unsafe { (api.kernel_count)() }).map(kernel).collect()
}

/// Those of an H200, whose rules the emulator enforces, with the host's memory.
fn properties() -> Properties {
    Properties {
        name: "emulator".into(),
        capability: (9, 0),
        processors: 132,
        memory: crate::plan::free_memory().unwrap_or(u64::MAX),
        shared_per_block: 227 * 1024,
    }
}

/// # Safety
/// `words` is a C string that lives through the call.
unsafe fn text(words: *const c_char) -> String {
    // SAFETY: by the caller's promise.
    unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned()
}

/// Arguments where emulated kernels read them: each aligned as the strictest type, a tensor map.
fn aligned(params: &Params) -> Vec<TensorMap> {
    let slot = |bytes: &[u8]| {
        let mut slot = TensorMap([0; 16]);
        bytemuck::bytes_of_mut(&mut slot.0)[..bytes.len()].copy_from_slice(bytes);
        slot
    };
    params.iter().map(slot).collect()
}

impl Driver for Emulator {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn alloc(&self, bytes: usize, label: &'static str) -> Result<Address> {
        let label = CString::new(label).expect("labels are words");
        let _calling = self.call();
        // SAFETY: the library copies the label.
        let memory = unsafe { (self.api.alloc)(bytes, label.as_ptr()) };
        if memory.is_null() {
            let label = label.to_string_lossy();
            return Err(DriverError(format!("no {bytes} bytes of memory left for {label}")));
        }
        Ok(Address(memory as u64))
    }

    fn free(&self, address: Address) {
        let _calling = self.call();
        // SAFETY: it came from `alloc`, and no launch outlives its call.
        unsafe { (self.api.free)(address.0 as *mut c_void) }
    }

    fn upload(&self, to: Address, bytes: &[u8]) -> Result<()> {
        // SAFETY: emulated device memory is the process's own; the caller owns this part of it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.0 as *mut u8, bytes.len()) };
        Ok(())
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: as in `upload`.
        unsafe {
            std::ptr::copy_nonoverlapping(from.0 as *const u8, bytes.as_mut_ptr(), bytes.len())
        };
        Ok(())
    }

    fn fetch(&self, from: Address, bytes: usize) -> Result<Fetch> {
        let (kept, count) = &mut *self.fetches.borrow_mut();
        self.download(from, &mut kept[*count % FETCHES][..bytes])?;
        *count += 1;
        Ok(Fetch(*count - 1))
    }

    fn arrived(&self, _: Fetch) -> bool {
        true
    }

    fn fetched(&self, fetch: Fetch, bytes: &mut [u8]) -> Result<()> {
        bytes.copy_from_slice(&self.fetches.borrow().0[fetch.0 % FETCHES][..bytes.len()]);
        Ok(())
    }

    fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<()> {
        // SAFETY: as in `upload`.
        unsafe { std::ptr::copy(from.0 as *const u8, to.0 as *mut u8, bytes) };
        Ok(())
    }

    fn fill(&self, to: Address, byte: u8, bytes: usize) -> Result<()> {
        // SAFETY: as in `upload`.
        unsafe { std::ptr::write_bytes(to.0 as *mut u8, byte, bytes) };
        Ok(())
    }

    unsafe fn launch(&self, launch: &Launch, params: &[*const c_void]) -> Result<()> {
        let kernel = CString::new(launch.kernel).expect("kernel names are words");
        let request = EmuLaunch {
            kernel: kernel.as_ptr(),
            grid: launch.grid,
            block: launch.block,
            cluster: launch.cluster,
            shared_bytes: launch.shared,
            cooperative: launch.cooperative.into(),
            overlaps: launch.overlaps.into(),
        };
        let _calling = self.call();
        // SAFETY: by the caller's promise.
        self.verdict(unsafe { (self.api.launch)(&request, params.as_ptr()) })
    }

    fn signature(&self, kernel: &str) -> Result<Option<Vec<u32>>> {
        match self.kernels.get(kernel) {
            Some(sizes) => Ok(Some(sizes.clone())),
            None => Err(DriverError(format!("there is no kernel `{kernel}` in the emulator"))),
        }
    }

    fn tensor_map(&self, shape: &TileShape) -> Result<TensorMap> {
        let rank = shape.dims.len();
        assert!(shape.tile.len() == rank && shape.strides.len() + 1 == rank, "one entry a dim");
        let mut map = TensorMap([0; 16]);
        let _calling = self.call();
        // SAFETY: the arrays hold what `rank` says; the map is 128 bytes.
        self.verdict(unsafe {
            (self.api.tensor_map)(
                &mut map,
                shape.element_bytes,
                rank as u32,
                shape.base.0 as *mut c_void,
                shape.dims.as_ptr(),
                shape.strides.as_ptr(),
                shape.tile.as_ptr(),
                shape.swizzle,
            )
        })?;
        Ok(map)
    }

    fn wait(&self) -> Result<()> {
        Ok(())
    }

    fn mark(&self) -> Result<Mark> {
        let mut marks = self.marks.borrow_mut();
        marks.push(Instant::now());
        Ok(Mark(marks.len() - 1))
    }

    fn elapsed(&self, from: Mark, to: Mark) -> Result<f64> {
        let marks = self.marks.borrow();
        Ok(marks[to.0].duration_since(marks[from.0]).as_secs_f64())
    }

    unsafe fn record(&self, work: &[Work]) -> Result<Recording> {
        let mut recordings = self.recordings.borrow_mut();
        recordings.push(work.to_vec());
        Ok(Recording(recordings.len() - 1))
    }

    unsafe fn revise(&self, recording: Recording, index: usize, work: &Work) -> Result<()> {
        self.recordings.borrow_mut()[recording.0][index] = work.clone();
        Ok(())
    }

    unsafe fn replay(&self, recording: Recording) -> Result<()> {
        for work in &self.recordings.borrow()[recording.0] {
            match work {
                Work::Launch(launch, params) => {
                    let params = aligned(params);
                    let params: Vec<*const c_void> =
                        params.iter().map(|param| std::ptr::from_ref(param).cast()).collect();
                    // SAFETY: by the caller's promise.
                    unsafe { self.launch(launch, &params) }.map_err(|DriverError(said)| {
                        DriverError(format!("kernel {}: {said}", launch.kernel))
                    })?;
                }
                &Work::Copy { to, from, bytes } => self.copy(to, from, bytes)?,
                &Work::Fill { to, byte, bytes } => self.fill(to, byte, bytes)?,
                Work::Multiply(product, places) => self.blas()?.start(product, *places)?,
            }
        }
        Ok(())
    }

    fn forget(&self, recording: Recording) {
        self.recordings.borrow_mut()[recording.0] = Vec::new();
    }

    fn counters(&self) -> String {
        let _calling = self.call();
        // SAFETY: the text lives until the next call, which the lock holds off.
        unsafe { text((self.api.counters)()) }
    }
}
