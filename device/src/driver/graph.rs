use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{
    CUgraph, CUgraphExec, CUgraphExecUpdateResult, CUgraphExecUpdateResultInfo, CUstreamCaptureMode,
};

use super::{Context, Stream};
use crate::Error;

const GRAPH_EXEC_UPDATE_FAILURE: u32 = 910;

/// Work that was recorded instead of done.
#[derive(Debug)]
pub struct Graph {
    context: Arc<Context>,
    handle: CUgraph,
}

// SAFETY: a graph may be used from any thread, by one at a time; nothing here changes it behind a shared reference.
unsafe impl Send for Graph {}

/// A graph, made ready to be done again and again.
#[derive(Debug)]
pub struct GraphExec {
    context: Arc<Context>,
    handle: CUgraphExec,
}

// SAFETY: as for `Graph`.
unsafe impl Send for GraphExec {}

/// What became of a [`GraphExec::update`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// The next launch does the new work.
    Done,
    /// The new graph is of another shape: make a new [`GraphExec`] of it. The number is the driver's reason
    /// (`CUgraphExecUpdateResult`).
    ShapeChanged(u32),
}

impl Graph {
    /// Records what `work` puts into `stream`, and does none of it. Only this thread is kept from calls that a capture forbids.
    ///
    /// # Errors
    /// `work` failed, or put something into the stream that cannot be recorded, like waiting for it.
    pub fn capture(
        stream: &Stream,
        work: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Graph, Error> {
        let context = stream.context();
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive, and not the legacy default one.
        unsafe {
            context
                .bound()?
                .cuStreamBeginCapture_v2(stream.raw(), mode)?
        };
        // If `work` panics, the capture must end all the same, or the stream is of no use any more.
        let capture = Capture { stream };
        let done = work();
        let graph = capture.end();
        done?;
        graph.map_err(|error| error.during("recording a graph"))
    }

    /// How many kernels, copies and the like it holds.
    ///
    /// # Errors
    /// The driver refused.
    pub fn node_count(&self) -> Result<usize, Error> {
        let mut count = 0;
        // SAFETY: the graph is alive; without a list, the driver writes the number alone.
        unsafe {
            self.context
                .bound()?
                .cuGraphGetNodes(self.handle, ptr::null_mut(), &raw mut count)?
        };
        Ok(count)
    }

    /// Makes it ready.
    ///
    /// # Errors
    /// The driver refused.
    pub fn instantiate(&self) -> Result<GraphExec, Error> {
        let mut handle = ptr::null_mut();
        // SAFETY: the graph is alive; the pointer is to a handle that lives through the call.
        unsafe {
            self.context
                .bound()?
                .cuGraphInstantiateWithFlags(&raw mut handle, self.handle, 0)?
        };
        Ok(GraphExec {
            context: Arc::clone(&self.context),
            handle,
        })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if let Ok(driver) = self.context.bound() {
            // SAFETY: the handle came from the end of a capture and is destroyed here only.
            let _ = unsafe { driver.cuGraphDestroy(self.handle) };
        }
    }
}

/// A capture that has begun.
struct Capture<'a> {
    stream: &'a Stream,
}

impl Capture<'_> {
    fn end(self) -> Result<Graph, Error> {
        let graph = end_capture(self.stream);
        std::mem::forget(self);
        graph
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        let _ = end_capture(self.stream); // the panic under way says more
    }
}

fn end_capture(stream: &Stream) -> Result<Graph, Error> {
    let context = stream.context();
    let mut handle = ptr::null_mut();
    // SAFETY: the stream is alive, and its capture was begun by this thread; the pointer is to a handle.
    unsafe {
        context
            .bound()?
            .cuStreamEndCapture(stream.raw(), &raw mut handle)?
    };
    Ok(Graph {
        context: Arc::clone(context),
        handle,
    })
}

impl GraphExec {
    /// Brings it to the device, so that the first launch is not slower than the others.
    ///
    /// # Errors
    /// The driver refused.
    pub fn upload(&self, stream: &Stream) -> Result<(), Error> {
        // SAFETY: graph and stream are alive.
        unsafe {
            self.context
                .bound()?
                .cuGraphUpload(self.handle, stream.raw())
        }
    }

    /// Puts all of its work into `stream`.
    ///
    /// # Errors
    /// The driver refused.
    ///
    /// # Safety
    /// Everything that the work was recorded with — buffers, modules, tensor maps, pinned memory — must still be there and stay
    /// until it is done, and nothing else, the host included, may use that memory in the meantime.
    #[inline]
    pub unsafe fn launch(&self, stream: &Stream) -> Result<(), Error> {
        // SAFETY: graph and stream are alive; the rest is the caller's promise.
        unsafe {
            self.context
                .bound()?
                .cuGraphLaunch(self.handle, stream.raw())
        }
    }

    /// Takes over arguments and shapes of launches from `graph`, which must hold the same kernels in the same order.
    ///
    /// # Errors
    /// The driver refused for another reason than a changed shape.
    pub fn update(&mut self, graph: &Graph) -> Result<Update, Error> {
        let mut info = CUgraphExecUpdateResultInfo {
            result: CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_SUCCESS,
            errorNode: ptr::null_mut(),
            errorFromNode: ptr::null_mut(),
        };
        let driver = self.context.bound()?;
        // SAFETY: both graphs are alive; the pointer is to a structure that lives through the call.
        let updated =
            unsafe { driver.cuGraphExecUpdate_v2(self.handle, graph.handle, &raw mut info) };
        match updated {
            Ok(()) => Ok(Update::Done),
            Err(error) if error.code() == Some(GRAPH_EXEC_UPDATE_FAILURE) => {
                // Read as the integer it is: a newer driver may have more reasons than cudarc's enum.
                // SAFETY: the field lives, and is an enum of the size of an integer.
                let reason = unsafe { (&raw const info.result).cast::<u32>().read() };
                Ok(Update::ShapeChanged(reason))
            }
            Err(error) => Err(error.during("updating a graph")),
        }
    }
}

impl Drop for GraphExec {
    fn drop(&mut self) {
        if let Ok(driver) = self.context.bound() {
            // SAFETY: the handle was made by `instantiate` and is destroyed here only; a launch in flight goes on.
            let _ = unsafe { driver.cuGraphExecDestroy(self.handle) };
        }
    }
}
