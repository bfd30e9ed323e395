use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;
use cudarc::driver::sys::CUdeviceptr;

use super::api::out_of_memory;
use super::{Context, DevicePointer, PinnedBuffer, Stream};
use crate::Error;

/// `len` elements of device memory.
#[derive(Debug)]
pub struct DeviceBuffer<T> {
    context: Arc<Context>,
    /// The stream in whose order it was allocated and is freed; none for plain memory.
    stream: Option<Arc<Stream>>,
    address: CUdeviceptr,
    len: usize,
    elements: PhantomData<fn() -> T>,
}

impl<T: Pod> DeviceBuffer<T> {
    /// Plain memory, whose contents are whatever was there. `what` says in an error what it was for.
    ///
    /// # Errors
    /// Memory ran out; the error says what asked for how much, and how much is free.
    pub fn new(context: &Arc<Context>, what: &str, len: usize) -> Result<DeviceBuffer<T>, Error> {
        let bytes = bytes_of::<T>(what, len)?;
        let mut address = 0;
        if bytes > 0 {
            // SAFETY: the context is current; the pointer is to an address that lives through the call.
            let allocated = unsafe { context.bound()?.cuMemAlloc_v2(&raw mut address, bytes) };
            allocated.map_err(|error| {
                out_of_memory(error, what, bytes, "device", context.memory().ok())
            })?;
        }
        Ok(DeviceBuffer {
            context: Arc::clone(context),
            stream: None,
            address,
            len,
            elements: PhantomData,
        })
    }

    /// Memory out of the device's pool, there from this point of `stream` on, and until the point at which the buffer is dropped.
    /// Another stream that uses it must be ordered within the two.
    ///
    /// # Errors
    /// As [`DeviceBuffer::new`], and where the device has no pools.
    pub fn in_order_of(
        stream: &Arc<Stream>,
        what: &str,
        len: usize,
    ) -> Result<DeviceBuffer<T>, Error> {
        let bytes = bytes_of::<T>(what, len)?;
        let context = stream.context();
        let mut address = 0;
        if bytes > 0 {
            // SAFETY: the context is current, the stream alive; the pointer is to an address that lives through the call.
            let allocated = unsafe {
                context
                    .bound()?
                    .cuMemAllocAsync(&raw mut address, bytes, stream.raw())
            };
            allocated.map_err(|error| {
                out_of_memory(error, what, bytes, "device", context.memory().ok())
            })?;
        }
        Ok(DeviceBuffer {
            context: Arc::clone(context),
            stream: Some(Arc::clone(stream)),
            address,
            len,
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

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// Where it lies in device memory: what a kernel gets. It is valid as long as the buffer is.
    #[inline]
    pub fn pointer(&self) -> DevicePointer {
        DevicePointer(self.address)
    }

    /// Where the element `index` lies; `index` may be the length.
    ///
    /// # Errors
    /// It is beyond that.
    pub fn pointer_to(&self, index: usize) -> Result<DevicePointer, Error> {
        self.range(index..index)
    }

    /// The address of the first of `elements`, which must lie within the buffer.
    fn range(&self, elements: Range<usize>) -> Result<DevicePointer, Error> {
        if elements.start > elements.end || elements.end > self.len {
            return Err(Error::arguments(format!(
                "elements {}..{} of a device buffer of {}",
                elements.start, elements.end, self.len
            )));
        }
        Ok(DevicePointer(
            self.address + (elements.start * size_of::<T>()) as u64,
        ))
    }

    /// Fills it with the byte `value`, in the order of `stream`.
    ///
    /// # Errors
    /// The driver refused.
    pub fn fill(&mut self, stream: &Stream, value: u8) -> Result<(), Error> {
        if self.is_empty() {
            return Ok(());
        }
        // SAFETY: the memory is ours, and freed only behind work that uses it.
        unsafe {
            self.context
                .bound()?
                .cuMemsetD8Async(self.address, value, self.bytes(), stream.raw())
        }
    }

    /// Writes `data` at the element `at`, and waits for it.
    ///
    /// # Errors
    /// It does not fit, or something in `stream` failed.
    pub fn write(&mut self, stream: &Stream, at: usize, data: &[T]) -> Result<(), Error> {
        let to = self.range(at..at.saturating_add(data.len()))?;
        if data.is_empty() {
            return Ok(());
        }
        let bytes = size_of_val(data);
        // SAFETY: the range lies within our memory; `data` lives until the copy is done, since it is waited for.
        unsafe {
            self.context.bound()?.cuMemcpyHtoDAsync_v2(
                to.0,
                data.as_ptr().cast(),
                bytes,
                stream.raw(),
            )?
        };
        stream.synchronize()
    }

    /// Reads from the element `at` on into `data`, and waits for it.
    ///
    /// # Errors
    /// There are not so many, or something in `stream` failed.
    pub fn read(&self, stream: &Stream, at: usize, data: &mut [T]) -> Result<(), Error> {
        let from = self.range(at..at.saturating_add(data.len()))?;
        if data.is_empty() {
            return Ok(());
        }
        let bytes = size_of_val(data);
        // SAFETY: the range lies within our memory; `data` is borrowed until the copy is done, since it is waited for, and
        // any bytes are valid for its type.
        unsafe {
            self.context.bound()?.cuMemcpyDtoHAsync_v2(
                data.as_mut_ptr().cast(),
                from.0,
                bytes,
                stream.raw(),
            )?
        };
        stream.synchronize()
    }

    /// Copies the first `len` elements of `from` to the element `at`, in the order of `stream`, without waiting.
    ///
    /// # Errors
    /// They do not fit, or the driver refused.
    pub fn upload(
        &mut self,
        stream: &Stream,
        at: usize,
        from: &PinnedBuffer<T>,
        len: usize,
    ) -> Result<(), Error> {
        let to = self.range(at..at.saturating_add(len))?;
        let source = from.range_for_device(len, stream)?;
        if len == 0 {
            return Ok(());
        }
        // SAFETY: both ranges lie within their buffers. The pinned buffer neither goes away nor is lent to the host before
        // the copy is done: that is what its event is for.
        unsafe {
            let driver = self.context.bound()?;
            driver.cuMemcpyHtoDAsync_v2(to.0, source.cast(), len * size_of::<T>(), stream.raw())?;
        }
        from.used_in(stream)
    }

    /// Copies `len` elements from the element `at` on into `to`, in the order of `stream`, without waiting.
    ///
    /// # Errors
    /// There are not so many, or the driver refused.
    pub fn download(
        &self,
        stream: &Stream,
        at: usize,
        to: &mut PinnedBuffer<T>,
        len: usize,
    ) -> Result<(), Error> {
        let from = self.range(at..at.saturating_add(len))?;
        let target = to.range_for_device(len, stream)?;
        if len == 0 {
            return Ok(());
        }
        // SAFETY: as for `upload`; any bytes are valid for `T`.
        unsafe {
            let driver = self.context.bound()?;
            driver.cuMemcpyDtoHAsync_v2(
                target.cast(),
                from.0,
                len * size_of::<T>(),
                stream.raw(),
            )?;
        }
        to.used_in(stream)
    }

    /// Copies the elements `range` of `from` to the element `at`, in the order of `stream`, without waiting. The two may lie on
    /// different devices. Both must stay until the copy is done, as they do when they are not dropped before `stream` is waited for.
    ///
    /// # Errors
    /// They do not fit, or the driver refused.
    pub fn copy_from(
        &mut self,
        stream: &Stream,
        at: usize,
        from: &DeviceBuffer<T>,
        range: Range<usize>,
    ) -> Result<(), Error> {
        let len = range.len();
        let source = from.range(range)?;
        let to = self.range(at..at.saturating_add(len))?;
        if len == 0 {
            return Ok(());
        }
        let bytes = len * size_of::<T>();
        let driver = stream.context().bound()?;
        // SAFETY: both ranges lie within their buffers, whose memory is freed only behind work that uses it.
        unsafe {
            if Arc::ptr_eq(&self.context, &from.context) {
                driver.cuMemcpyDtoDAsync_v2(to.0, source.0, bytes, stream.raw())
            } else {
                let contexts = (self.context.raw(), from.context.raw());
                driver.cuMemcpyPeerAsync(
                    to.0,
                    contexts.0,
                    source.0,
                    contexts.1,
                    bytes,
                    stream.raw(),
                )
            }
        }
    }
}

impl<T> Drop for DeviceBuffer<T> {
    fn drop(&mut self) {
        if self.address == 0 {
            return;
        }
        if let Ok(driver) = self.context.bound() {
            // SAFETY: the memory was allocated by us and is freed here only. Plain memory is freed by the driver after
            // everything in flight on the device; memory of a pool in the order of its stream.
            let _ = unsafe {
                match &self.stream {
                    Some(stream) => driver.cuMemFreeAsync(self.address, stream.raw()),
                    None => driver.cuMemFree_v2(self.address),
                }
            };
        }
    }
}

/// The bytes of `len` elements.
pub(super) fn bytes_of<T>(what: &str, len: usize) -> Result<usize, Error> {
    let bytes = len.checked_mul(size_of::<T>());
    bytes.ok_or_else(|| {
        Error::arguments(format!(
            "{what}: {len} elements of {} bytes overflow",
            size_of::<T>()
        ))
    })
}
