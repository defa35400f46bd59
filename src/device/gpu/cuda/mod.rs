//! A real GPU as a [`Driver`], through cudarc, which loads `libcuda.so` when the program asks: a
//! machine without one runs the same program ([`probe`]). One device (the first), its primary
//! context, one stream.
//!
//! cudarc's lower layer is used, so that nothing happens by itself: no events beside allocations,
//! no default stream (it cannot be recorded), no allocation at a launch. A [`Cuda`] stays on the
//! thread that made it, where its context is current; the raw pointers in it see to that.
//!
//! Held to a driver made for tests (`tests/cuda`); unmeasured on a GPU.

pub mod blas;
mod graph;
pub mod nvml;
pub mod probe;
mod staging;
mod words;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr::null_mut;

use cudarc::driver::result::{self, device, event, module, primary_ctx, stream};
use cudarc::driver::sys::{
    self, CUcontext, CUdevice, CUevent, CUevent_flags, CUfunction, CUfunction_attribute,
    CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue, CUlaunchConfig, CUmodule,
    CUstream,
};

use super::driver::{
    Address, Driver, DriverError, Fetch, Launch, Mark, Properties, Recording, Result, TensorMap,
    TileShape,
};
use super::module as kernels;
use super::work::Work;
use blas::Blas;
use graph::Graph;
use probe::Unavailable;
use staging::Staging;

/// Dynamic shared memory that a kernel may use without opting in [bytes].
const SHARED_BY_DEFAULT: u32 = 48 * 1024;
/// Blocks of a cluster that every GPU with clusters takes.
const PORTABLE_CLUSTER: u32 = 8;
/// Marks that can be told apart: the oldest is given anew after so many.
const MARKS: usize = 4096;
/// Launches that are named when something failed that no call can be blamed for.
const REMEMBERED: usize = 8;

/// The name of the module that holds a kernel, and the module's image, aligned to 16 bytes.
pub type FindKernel = fn(&str) -> Option<(&'static str, &'static [u8])>;

/// A GPU.
#[derive(Debug)]
pub struct Cuda {
    properties: Properties,
    device: CUdevice,
    context: CUcontext,
    stream: CUstream,
    kernels: FindKernel,
    modules: RefCell<HashMap<&'static str, CUmodule>>,
    functions: RefCell<HashMap<String, Function>>,
    staging: RefCell<Staging>,
    /// The events of the last marks, and how many were ever made.
    marks: RefCell<(Vec<CUevent>, usize)>,
    recordings: RefCell<Vec<Option<Graph>>>,
    /// The last launches, as a ring.
    launched: Cell<([&'static str; REMEMBERED], usize)>,
    /// cuBLASLt, or why there is none, once it was asked for.
    blas: OnceCell<Result<Blas>>,
}

/// A kernel that was found.
#[derive(Debug)]
struct Function {
    handle: CUfunction,
    /// Bytes of each parameter.
    sizes: Vec<u32>,
    /// Dynamic shared memory that it was opted in for [bytes].
    shared: Cell<u32>,
    /// Whether it waits for the kernels before it.
    waits: bool,
    /// Whether it was opted in for clusters of more than [`PORTABLE_CLUSTER`] blocks.
    wide: Cell<bool>,
}

impl Cuda {
    /// Takes the first GPU, with the kernels of this program; the error says why there is none to
    /// use.
    pub fn new() -> std::result::Result<Cuda, Unavailable> {
        probe::start()?;
        if kernels::MODULES.is_empty() {
            return Err(Unavailable::NoKernels);
        }
        Cuda::with_kernels(kernels::of_kernel)
    }

    /// Takes the first GPU, with kernels from elsewhere.
    pub fn with_kernels(kernels: FindKernel) -> std::result::Result<Cuda, Unavailable> {
        probe::start()?;
        let device = device::get(0)?;
        let properties = probe::properties(device)?;
        let Properties { name, capability, .. } = properties.clone();
        if capability < probe::OLDEST_CHIP {
            return Err(Unavailable::OldDevice { name, capability });
        }
        // SAFETY: the device came from the driver; `drop` releases the context.
        let context = unsafe { primary_ctx::retain(device) }?;
        // SAFETY: the context was just retained, and stays so while this thread has a `Cuda`.
        unsafe { result::ctx::set_current(context) }?;
        Ok(Cuda {
            properties,
            device,
            context,
            stream: stream::create(stream::StreamKind::NonBlocking)?,
            kernels,
            modules: RefCell::default(),
            functions: RefCell::default(),
            staging: RefCell::new(Staging::new()?),
            marks: RefCell::default(),
            recordings: RefCell::default(),
            launched: Cell::new(([""; REMEMBERED], 0)),
            blas: OnceCell::new(),
        })
    }

    /// Puts what the driver answered into words; a failure of earlier work names what ran.
    fn told<T>(&self, answer: std::result::Result<T, result::DriverError>) -> Result<T> {
        answer.map_err(|error| {
            let said = words::sentence(error);
            let (ring, count) = self.launched.get();
            if !words::is_late(error) || count == 0 {
                return DriverError(said);
            }
            let last = (count.saturating_sub(REMEMBERED)..count).map(|i| ring[i % REMEMBERED]);
            let last: Vec<&str> = last.collect();
            DriverError(format!(
                "{said}. The last launches were {} (with CUDA_LAUNCH_BLOCKING=1 the failing one \
                 is named)",
                last.join(", ")
            ))
        })
    }

    fn remember(&self, launched: &'static str) {
        let (mut ring, count) = self.launched.get();
        ring[count % REMEMBERED] = launched;
        self.launched.set((ring, count + 1));
    }

    /// Loads a kernel, with its module, when it is first asked for.
    fn load(&self, kernel: &str) -> Result<()> {
        if self.functions.borrow().contains_key(kernel) {
            return Ok(());
        }
        let (name, image) = (self.kernels)(kernel)
            .ok_or_else(|| DriverError(format!("there is no kernel `{kernel}` in this program")))?;
        let known = self.modules.borrow().get(name).copied();
        let module = match known {
            Some(module) => module,
            None => {
                // SAFETY: the image is a fatbin that nvcc wrote, aligned for the driver.
                let module = self.told(unsafe { module::load_data(image.as_ptr().cast()) })?;
                self.modules.borrow_mut().insert(name, module);
                module
            }
        };
        let symbol = CString::new(kernel).expect("kernel names are words");
        // SAFETY: the module is loaded, until `drop`.
        let handle = self.told(unsafe { module::get_function(module, symbol) })?;
        let function = Function {
            handle,
            sizes: parameters(handle),
            shared: Cell::new(SHARED_BY_DEFAULT),
            waits: kernels::waits(kernel, self.properties.capability),
            wide: Cell::new(false),
        };
        self.functions.borrow_mut().insert(kernel.to_string(), function);
        Ok(())
    }

    /// Opts a kernel in to what this launch takes beyond the default.
    fn permit(&self, function: &Function, launch: &Launch) -> Result<()> {
        let most = self.properties.shared_per_block;
        if launch.shared > most {
            return Err(DriverError(format!(
                "a block takes {} bytes of shared memory, and this GPU has {most} for one",
                launch.shared
            )));
        }
        let set = |attribute, value| {
            // SAFETY: the function is loaded.
            self.told(unsafe {
                result::function::set_function_attribute(function.handle, attribute, value)
            })
        };
        if launch.shared > function.shared.get() {
            let which = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            set(which, launch.shared as i32)?;
            function.shared.set(launch.shared);
        }
        if launch.cluster.iter().product::<u32>() > PORTABLE_CLUSTER && !function.wide.get() {
            let which = CUfunction_attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED;
            set(which, 1)?;
            function.wide.set(true);
        }
        Ok(())
    }
}

/// Bytes of each parameter of a kernel: the driver answers until there is none left.
fn parameters(function: CUfunction) -> Vec<u32> {
    let size = |index| {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the function is loaded; the driver writes two numbers.
        let answer = unsafe { sys::cuFuncGetParamInfo(function, index, &mut offset, &mut size) };
        answer.result().ok().map(|()| size as u32)
    };
    (0..).map_while(size).collect()
}

impl Driver for Cuda {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn free_memory(&self) -> Result<u64> {
        self.told(result::mem_get_info()).map(|(free, _)| free as u64)
    }

    fn alloc(&self, bytes: usize, label: &'static str) -> Result<Address> {
        // SAFETY: the memory is not initialised, as `alloc` says.
        let memory = unsafe { result::malloc_sync(bytes) };
        let free = || self.free_memory().unwrap_or(0);
        self.told(memory).map(Address).map_err(|DriverError(said)| {
            DriverError(format!("{bytes} bytes for {label}, with {} free: {said}", free()))
        })
    }

    fn free(&self, address: Address) {
        // SAFETY: it came from `alloc`, and is given back once; the driver waits for work that
        // uses it. An error is one that the device had before and told then.
        let _ = unsafe { result::free_sync(address.0) };
    }

    fn upload(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.told(self.staging.borrow_mut().upload(to.0, bytes, self.stream))
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        if bytes.is_empty() {
            return self.wait();
        }
        self.told(self.staging.borrow_mut().download(from.0, bytes, self.stream))
    }

    fn fetch(&self, from: Address, bytes: usize) -> Result<Fetch> {
        self.told(self.staging.borrow_mut().fetch(from.0, bytes, self.stream))
    }

    fn arrived(&self, fetch: Fetch) -> bool {
        self.staging.borrow().arrived(fetch)
    }

    fn fetched(&self, fetch: Fetch, bytes: &mut [u8]) -> Result<()> {
        self.told(self.staging.borrow().fetched(fetch, bytes))
    }

    fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller owns both places.
        self.told(unsafe { result::memcpy_dtod_async(to.0, from.0, bytes, self.stream) })
    }

    fn fill(&self, to: Address, byte: u8, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller owns the place.
        self.told(unsafe { result::memset_d8_async(to.0, byte, bytes, self.stream) })
    }

    unsafe fn launch(&self, launch: &Launch, params: &[*const c_void]) -> Result<()> {
        self.load(launch.kernel)?;
        let functions = self.functions.borrow();
        let function = &functions[launch.kernel];
        self.permit(function, launch)?;
        let (mut attributes, count) = attributes(launch, launch.overlaps && function.waits);
        let [grid, block] = [launch.grid, launch.block];
        let config = CUlaunchConfig {
            gridDimX: grid[0],
            gridDimY: grid[1],
            gridDimZ: grid[2],
            blockDimX: block[0],
            blockDimY: block[1],
            blockDimZ: block[2],
            sharedMemBytes: launch.shared,
            hStream: self.stream,
            attrs: attributes.as_mut_ptr(),
            numAttrs: count,
        };
        self.remember(launch.kernel);
        // The driver copies the arguments and changes none.
        let params = params.as_ptr().cast_mut().cast();
        // SAFETY: by the caller's promise; configuration and attributes live through the call.
        self.told(unsafe {
            sys::cuLaunchKernelEx(&config, function.handle, params, null_mut()).result()
        })
    }

    fn signature(&self, kernel: &str) -> Result<Option<Vec<u32>>> {
        self.load(kernel)?;
        Ok(Some(self.functions.borrow()[kernel].sizes.clone()))
    }

    fn tensor_map(&self, shape: &TileShape) -> Result<TensorMap> {
        use sys::CUtensorMapDataType as Type;
        use sys::CUtensorMapSwizzle as Swizzle;
        let rank = shape.dims.len();
        assert!(shape.tile.len() == rank && shape.strides.len() + 1 == rank, "one entry a dim");
        // A reduction adds in this type.
        let element = match shape.element_bytes {
            1 => Type::CU_TENSOR_MAP_DATA_TYPE_UINT8,
            2 => Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            4 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
            bytes => panic!("a tensor map of elements of {bytes} bytes"),
        };
        let swizzle = match shape.swizzle {
            0 => Swizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
            32 => Swizzle::CU_TENSOR_MAP_SWIZZLE_32B,
            64 => Swizzle::CU_TENSOR_MAP_SWIZZLE_64B,
            128 => Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            bytes => panic!("a tensor map swizzled by {bytes} bytes"),
        };
        let steps = [1u32; 5];
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: the arrays have `rank` entries, 5 at most; the driver checks what they say.
        let encoded = unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                element,
                rank as u32,
                shape.base.0 as *mut c_void,
                shape.dims.as_ptr(),
                shape.strides.as_ptr(),
                shape.tile.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                swizzle,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        self.told(encoded.result())
            .map_err(|DriverError(said)| DriverError(format!("tensor map of {shape:?}: {said}")))?;
        Ok(TensorMap(map.opaque))
    }

    fn wait(&self) -> Result<()> {
        // SAFETY: the stream lives as long as `self`.
        self.told(unsafe { stream::synchronize(self.stream) })
    }

    fn mark(&self) -> Result<Mark> {
        let (events, count) = &mut *self.marks.borrow_mut();
        if events.len() < MARKS && *count == events.len() {
            events.push(self.told(event::create(CUevent_flags::CU_EVENT_DEFAULT))?);
        }
        // SAFETY: event and stream live as long as `self`.
        self.told(unsafe { event::record(events[*count % MARKS], self.stream) })?;
        *count += 1;
        Ok(Mark(*count - 1))
    }

    fn elapsed(&self, from: Mark, to: Mark) -> Result<f64> {
        let (events, count) = &*self.marks.borrow();
        assert!(from.0 + MARKS >= *count && from.0 <= to.0 && to.0 < *count, "marks in order");
        let [from, to] = [from, to].map(|mark| events[mark.0 % MARKS]);
        // SAFETY: both events were recorded in this stream.
        self.told(unsafe { event::synchronize(to).and_then(|()| event::elapsed(from, to)) })
            .map(|milliseconds| f64::from(milliseconds) * 1e-3)
    }

    unsafe fn record(&self, work: &[Work]) -> Result<Recording> {
        // SAFETY: by the caller's promise.
        let recorded = unsafe { self.graph(work) }?;
        let mut recordings = self.recordings.borrow_mut();
        recordings.push(Some(recorded));
        Ok(Recording(recordings.len() - 1))
    }

    unsafe fn revise(&self, recording: Recording, index: usize, work: &Work) -> Result<()> {
        let recordings = self.recordings.borrow();
        let Graph { run, nodes, .. } = recordings[recording.0].as_ref().expect("a live recording");
        match work {
            // SAFETY: by the caller's promise.
            Work::Launch(launch, params) => unsafe {
                self.revise_launch(*run, nodes[index], launch, params)
            },
            &Work::Fill { to, byte, bytes } => {
                self.revise_fill(*run, nodes[index], to, byte, bytes)
            }
            Work::Copy { .. } | Work::Multiply(..) => {
                Err(DriverError("a recorded copy or product of cuBLASLt stays as it is".into()))
            }
        }
    }

    unsafe fn replay(&self, recording: Recording) -> Result<()> {
        let recordings = self.recordings.borrow();
        let Graph { run, .. } = recordings[recording.0].as_ref().expect("a live recording");
        self.remember("a recording");
        // SAFETY: graph and stream live as long as `self`; and by the caller's promise.
        self.told(unsafe { result::graph::launch(*run, self.stream) })
    }

    fn forget(&self, recording: Recording) {
        if let Some(graph) = self.recordings.borrow_mut()[recording.0].take() {
            graph.destroy();
        }
    }

    fn blas(&self) -> Result<&Blas> {
        self.blas.get_or_init(|| Blas::open(self.stream.cast())).as_ref().map_err(Clone::clone)
    }
}

/// What a launch asks for beyond grid and block: the attributes, and how many of them count.
fn attributes(launch: &Launch, overlaps: bool) -> ([CUlaunchAttribute; 3], u32) {
    let attribute = |id, value| CUlaunchAttribute { id, pad: [0; 4], value };
    let ignored = CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_IGNORE;
    let mut attributes = [attribute(ignored, CUlaunchAttributeValue { pad: [0; 64] }); 3];
    let mut count = 0;
    let mut add = |id, value| {
        attributes[count] = attribute(id, value);
        count += 1;
    };
    if launch.cluster.iter().product::<u32>() > 1 {
        let mut value = CUlaunchAttributeValue { pad: [0; 64] };
        let [x, y, z] = launch.cluster;
        value.clusterDim = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x, y, z };
        add(CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, value);
    }
    if launch.cooperative {
        let value = CUlaunchAttributeValue { cooperative: 1 };
        add(CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_COOPERATIVE, value);
    }
    if overlaps {
        let value = CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 };
        add(CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, value);
    }
    (attributes, count as u32)
}

impl Drop for Cuda {
    /// Gives everything back. Errors are not told: a device that fails here failed before.
    fn drop(&mut self) {
        // SAFETY: what is destroyed was made by `self`, is destroyed once, and idle.
        unsafe {
            let _ = stream::synchronize(self.stream);
            self.blas.take();
            self.recordings.get_mut().drain(..).flatten().for_each(Graph::destroy);
            for event in self.marks.get_mut().0.drain(..) {
                let _ = event::destroy(event);
            }
            self.staging.get_mut().free();
            for (_, module) in self.modules.get_mut().drain() {
                let _ = module::unload(module);
            }
            let _ = stream::destroy(self.stream);
            let _ = primary_ctx::release(self.device);
        }
    }
}
