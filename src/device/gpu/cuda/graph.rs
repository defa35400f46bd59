//! Recordings as CUDA graphs. The work is captured from the stream, piece after piece, so that what
//! a launch is, with clusters and all, is said in one place; after each piece the stream tells its
//! node, which is what a revision needs.

use std::ptr::{null, null_mut};

use cudarc::driver::result::{graph, stream};
use cudarc::driver::sys::{
    self, CUDA_KERNEL_NODE_PARAMS, CUDA_MEMSET_NODE_PARAMS, CUgraph, CUgraphEdgeData, CUgraphExec,
    CUgraphInstantiate_flags, CUgraphNode, CUstreamCaptureMode, CUstreamCaptureStatus,
};

use super::Cuda;
use crate::device::gpu::driver::{Address, Driver, DriverError, Launch, Result};
use crate::device::gpu::work::{Params, Work};

/// A captured graph and its runnable form.
#[derive(Debug)]
pub(super) struct Graph {
    /// Keeps the nodes.
    graph: CUgraph,
    pub run: CUgraphExec,
    /// One a piece of work.
    pub nodes: Vec<CUgraphNode>,
}

impl Graph {
    /// The driver keeps what a run still needs until that ends. An error is one that the device
    /// had before.
    pub fn destroy(self) {
        // SAFETY: both were made by `Cuda::graph`, and nothing else knows them.
        unsafe {
            let _ = graph::exec_destroy(self.run);
            let _ = graph::destroy(self.graph);
        }
    }
}

impl Cuda {
    /// # Safety
    /// As of [`Driver::record`].
    pub(super) unsafe fn graph(&self, work: &[Work]) -> Result<Graph> {
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as `self`.
        self.told(unsafe { stream::begin_capture(self.stream, mode) })?;
        // SAFETY: by the caller's promise.
        let nodes = work.iter().map(|piece| unsafe { self.capture(piece) });
        let nodes = nodes.collect::<Result<Vec<_>>>();
        // SAFETY: as above. Whatever happened, the stream must record nothing any more.
        let graph = self.told(unsafe { stream::end_capture(self.stream) });
        let (nodes, graph) = match (nodes, graph) {
            (Ok(nodes), graph) => (nodes, graph?),
            (Err(error), graph) => {
                // SAFETY: the graph was captured here, and nothing else knows it.
                let _ = graph.map(|graph| unsafe { graph::destroy(graph) });
                return Err(error);
            }
        };
        // SAFETY: the graph was just captured.
        let run = self.told(unsafe { graph::instantiate(graph, CUgraphInstantiate_flags(0)) });
        let run = run.inspect_err(|_| {
            // SAFETY: nothing else knows the graph.
            let _ = unsafe { graph::destroy(graph) };
        })?;
        Ok(Graph { graph, run, nodes })
    }

    /// Gives one piece of work to the stream that captures; its node.
    ///
    /// # Safety
    /// As of [`Driver::record`].
    unsafe fn capture(&self, work: &Work) -> Result<CUgraphNode> {
        match work {
            // SAFETY: by the caller's promise.
            Work::Launch(launch, params) => unsafe { self.launch(launch, &params.pointers()) }?,
            &Work::Copy { to, from, bytes } => self.copy(to, from, bytes)?,
            &Work::Fill { to, byte, bytes } => self.fill(to, byte, bytes)?,
            Work::Multiply(product, places) => self.blas()?.start(product, *places)?,
        }
        let mut status = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        let (mut last, mut count): (*const CUgraphNode, usize) = (null(), 0);
        // Asked for, or the driver refuses to tell of kernels that overlap.
        let mut edges: *const CUgraphEdgeData = null();
        // SAFETY: the driver writes what it is given places for; the nodes that it points to are
        // its own, until the next call for this stream.
        unsafe {
            let answer = sys::cuStreamGetCaptureInfo_v3(
                self.stream,
                &mut status,
                null_mut(),
                null_mut(),
                &mut last,
                &mut edges,
                &mut count,
            );
            self.told(answer.result())?;
            if count != 1 {
                return Err(DriverError(format!("a capture with {count} ends")));
            }
            Ok(*last)
        }
    }

    /// # Safety
    /// As of [`Driver::record`].
    pub(super) unsafe fn revise_launch(
        &self,
        run: CUgraphExec,
        node: CUgraphNode,
        launch: &Launch,
        params: &Params,
    ) -> Result<()> {
        self.load(launch.kernel)?;
        let functions = self.functions.borrow();
        let function = &functions[launch.kernel];
        self.permit(function, launch)?;
        let [grid, block] = [launch.grid, launch.block];
        let mut pointers = params.pointers();
        let node_params = CUDA_KERNEL_NODE_PARAMS {
            func: function.handle,
            gridDimX: grid[0],
            gridDimY: grid[1],
            gridDimZ: grid[2],
            blockDimX: block[0],
            blockDimY: block[1],
            blockDimZ: block[2],
            sharedMemBytes: launch.shared,
            // The driver copies the arguments and changes none.
            kernelParams: pointers.as_mut_ptr().cast(),
            extra: null_mut(),
            kern: null_mut(),
            ctx: null_mut(),
        };
        // SAFETY: the node is one of the graph that `run` was made of; and by the caller's promise.
        let answer = unsafe { sys::cuGraphExecKernelNodeSetParams_v2(run, node, &node_params) };
        self.told(answer.result())
    }

    pub(super) fn revise_fill(
        &self,
        run: CUgraphExec,
        node: CUgraphNode,
        to: Address,
        byte: u8,
        bytes: usize,
    ) -> Result<()> {
        let params = CUDA_MEMSET_NODE_PARAMS {
            dst: to.0,
            pitch: 0,
            value: byte.into(),
            elementSize: 1,
            width: bytes,
            height: 1,
        };
        // SAFETY: as for a launch; the context is the one that is current.
        let answer =
            unsafe { sys::cuGraphExecMemsetNodeSetParams(run, node, &params, self.context) };
        self.told(answer.result())
    }
}
