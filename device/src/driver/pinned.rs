use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

use bytemuck::Pod;

use super::api::out_of_memory;
use super::memory::bytes_of;
use super::{Context, Event, Stream};
use crate::Error;

/// `CU_MEMHOSTALLOC_WRITECOMBINED` of cuda.h.
const WRITE_COMBINED: u32 = 4;

/// Host memory that the device copies to and from without stopping the host.
///
/// The host gets at it by [`PinnedBuffer::host`] and [`PinnedBuffer::host_mut`] only, which wait for the copies that use it.
/// That does not cover copies inside a replayed [`GraphExec`](super::GraphExec), whose launch says so.
#[derive(Debug)]
pub struct PinnedBuffer<T> {
    context: Arc<Context>,
    memory: *mut T,
    len: usize,
    /// Behind the last copy that uses the memory.
    last_use: Event,
    elements: PhantomData<T>,
}

// SAFETY: the memory is plain memory of this process, owned by the buffer and lent out under Rust's rules.
unsafe impl<T: Send> Send for PinnedBuffer<T> {}
// Not `Sync`: two threads that start copies at once could each leave the event behind the other's copy.

impl<T: Pod> PinnedBuffer<T> {
    /// Zeroed memory that the host reads as fast as any other. `what` says in an error what it was for.
    ///
    /// # Errors
    /// Memory ran out.
    pub fn new(context: &Arc<Context>, what: &str, len: usize) -> Result<PinnedBuffer<T>, Error> {
        PinnedBuffer::with_flags(context, what, len, 0)
    }

    /// Zeroed memory that the host only ever writes, front to back: reading it is slower by an order of magnitude, since it goes
    /// past the caches.
    ///
    /// # Errors
    /// Memory ran out.
    pub fn write_combined(
        context: &Arc<Context>,
        what: &str,
        len: usize,
    ) -> Result<PinnedBuffer<T>, Error> {
        PinnedBuffer::with_flags(context, what, len, WRITE_COMBINED)
    }

    fn with_flags(
        context: &Arc<Context>,
        what: &str,
        len: usize,
        flags: u32,
    ) -> Result<PinnedBuffer<T>, Error> {
        let bytes = bytes_of::<T>(what, len)?;
        let last_use = Event::without_time(context)?;
        let mut memory: *mut c_void = ptr::null_mut();
        if bytes > 0 {
            // SAFETY: the context is current; the pointer is to a pointer that lives through the call.
            let allocated = unsafe {
                context
                    .bound()?
                    .cuMemHostAlloc(&raw mut memory, bytes, flags)
            };
            allocated.map_err(|error| out_of_memory(error, what, bytes, "pinned host", None))?;
            // SAFETY: the driver gave `bytes` bytes.
            unsafe { ptr::write_bytes(memory.cast::<u8>(), 0, bytes) };
        }
        Ok(PinnedBuffer {
            context: Arc::clone(context),
            memory: memory.cast(),
            len,
            last_use,
            elements: PhantomData,
        })
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The contents, once the copies that write them are done.
    ///
    /// # Errors
    /// Something before those copies failed.
    pub fn host(&self) -> Result<&[T], Error> {
        if self.is_empty() {
            return Ok(&[]);
        }
        self.last_use.synchronize()?;
        // SAFETY: the memory holds `len` elements of a type for which any bytes are valid, aligned to a page; no copy is in
        // flight, and none can be started that writes it while it is borrowed.
        Ok(unsafe { std::slice::from_raw_parts(self.memory, self.len) })
    }

    /// The contents, to be changed, once the copies that use them are done.
    ///
    /// # Errors
    /// Something before those copies failed.
    pub fn host_mut(&mut self) -> Result<&mut [T], Error> {
        if self.is_empty() {
            return Ok(&mut []);
        }
        self.last_use.synchronize()?;
        // SAFETY: as for `host`; none can be started while it is borrowed, reading or writing.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.memory, self.len) })
    }

    /// The memory, for a copy of `len` elements in `stream`, behind which [`PinnedBuffer::used_in`] must be called. The stream
    /// first waits for the copies before, of other streams too, so that the one event stands behind all of them.
    pub(super) fn range_for_device(&self, len: usize, stream: &Stream) -> Result<*mut T, Error> {
        if len > self.len {
            return Err(Error::arguments(format!(
                "a copy of {len} elements with a pinned buffer of {}",
                self.len
            )));
        }
        if !stream.is_capturing()? {
            stream.wait_for(&self.last_use)?;
        }
        Ok(self.memory)
    }

    /// Notes that a copy that uses the memory was just put into `stream`.
    pub(super) fn used_in(&self, stream: &Stream) -> Result<(), Error> {
        // Inside a capture the copy is not done now but when the graph runs, and an event would become part of the graph.
        if stream.is_capturing()? {
            return Ok(());
        }
        self.last_use.record(stream)
    }
}

impl<T> Drop for PinnedBuffer<T> {
    fn drop(&mut self) {
        if self.memory.is_null() {
            return;
        }
        let _ = self.last_use.synchronize(); // what failed there is reported to whoever waits for the stream
        if let Ok(driver) = self.context.bound() {
            // SAFETY: the memory was allocated by us and is freed here only; no copy uses it any more.
            let _ = unsafe { driver.cuMemFreeHost(self.memory.cast()) };
        }
    }
}
