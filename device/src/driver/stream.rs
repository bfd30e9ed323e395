use std::sync::Arc;

use cudarc::driver::sys::{CUstream, CUstream_flags, CUstreamCaptureStatus};

use super::event::NOT_READY;
use super::{Context, Event};
use crate::Error;

/// A queue of work, done in order. It does not wait for the legacy default stream.
#[derive(Debug)]
pub struct Stream {
    context: Arc<Context>,
    handle: CUstream,
}

// SAFETY: the driver's functions on streams may be called from any thread; `handle` is opaque.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    /// A stream of the ordinary priority.
    ///
    /// # Errors
    /// The driver refused.
    pub fn new(context: &Arc<Context>) -> Result<Arc<Stream>, Error> {
        Stream::with_priority(context, 0)
    }

    /// A stream whose kernels go before those of streams with a larger `priority` where both wait for room. The driver clamps it
    /// to the range it has, [`Stream::priorities`].
    ///
    /// # Errors
    /// The driver refused.
    pub fn with_priority(context: &Arc<Context>, priority: i32) -> Result<Arc<Stream>, Error> {
        let mut handle = std::ptr::null_mut();
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the context is current; the pointer is to a handle that lives through the call.
        unsafe {
            context
                .bound()?
                .cuStreamCreateWithPriority(&raw mut handle, flags, priority)?
        };
        Ok(Arc::new(Stream {
            context: Arc::clone(context),
            handle,
        }))
    }

    /// The least and the greatest priority, as numbers: the greatest is the smaller one.
    ///
    /// # Errors
    /// The driver refused.
    pub fn priorities(context: &Context) -> Result<(i32, i32), Error> {
        let (mut least, mut greatest) = (0, 0);
        // SAFETY: the context is current; both pointers are to integers that live through the call.
        unsafe {
            context
                .bound()?
                .cuCtxGetStreamPriorityRange(&raw mut least, &raw mut greatest)?
        };
        Ok((least, greatest))
    }

    /// The context it belongs to.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The driver's handle, for libraries of NVIDIA's that take one. It is valid as long as this stream is.
    pub fn raw(&self) -> CUstream {
        self.handle
    }

    /// Waits until everything in the stream is done.
    ///
    /// # Errors
    /// A kernel failed since the last time anybody waited, and which one is not known.
    pub fn synchronize(&self) -> Result<(), Error> {
        // SAFETY: the stream is alive.
        unsafe { self.context.bound()?.cuStreamSynchronize(self.handle) }
    }

    /// Whether everything in the stream is done.
    ///
    /// # Errors
    /// A kernel in it failed.
    pub fn is_done(&self) -> Result<bool, Error> {
        // SAFETY: the stream is alive.
        match unsafe { self.context.bound()?.cuStreamQuery(self.handle) } {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Some(NOT_READY) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets what comes next in this stream wait for the point that `event` marks in another one.
    ///
    /// # Errors
    /// The driver refused.
    pub fn wait_for(&self, event: &Event) -> Result<(), Error> {
        // SAFETY: stream and event are alive.
        unsafe {
            self.context
                .bound()?
                .cuStreamWaitEvent(self.handle, event.raw(), 0)
        }
    }

    /// Whether work is recorded into a graph instead of done.
    ///
    /// # Errors
    /// The driver refused.
    pub fn is_capturing(&self) -> Result<bool, Error> {
        let mut status = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        // SAFETY: the stream is alive; the pointer is to a status that lives through the call, and the three values that
        // it can take have been the same since captures exist.
        unsafe {
            self.context
                .bound()?
                .cuStreamIsCapturing(self.handle, &raw mut status)?
        };
        Ok(status != CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Ok(driver) = self.context.bound() {
            // SAFETY: the handle was made by `with_priority` and is destroyed here only; the driver finishes what is in it.
            let _ = unsafe { driver.cuStreamDestroy_v2(self.handle) };
        }
    }
}
