use std::sync::Arc;

use cudarc::driver::sys::{CUevent, CUevent_flags};

use super::{Context, Stream};
use crate::Error;

/// The driver's answer where work is not done yet.
pub(super) const NOT_READY: u32 = 600;

/// A point in a stream's work. Made once and recorded again and again: making one costs more than recording it.
#[derive(Debug)]
pub struct Event {
    context: Arc<Context>,
    handle: CUevent,
    has_time: bool,
}

// SAFETY: the driver's functions on events may be called from any thread; `handle` is opaque.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// An event that notes the time; see [`Event::elapsed_ms`].
    ///
    /// # Errors
    /// The driver refused.
    pub fn with_time(context: &Arc<Context>) -> Result<Event, Error> {
        Event::new(context, CUevent_flags::CU_EVENT_DEFAULT, true)
    }

    /// An event for order alone, which is cheaper to wait for.
    ///
    /// # Errors
    /// The driver refused.
    pub fn without_time(context: &Arc<Context>) -> Result<Event, Error> {
        Event::new(context, CUevent_flags::CU_EVENT_DISABLE_TIMING, false)
    }

    fn new(context: &Arc<Context>, flags: CUevent_flags, has_time: bool) -> Result<Event, Error> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the context is current; the pointer is to a handle that lives through the call.
        unsafe {
            context
                .bound()?
                .cuEventCreate(&raw mut handle, flags as u32)?
        };
        Ok(Event {
            context: Arc::clone(context),
            handle,
            has_time,
        })
    }

    pub(super) fn raw(&self) -> CUevent {
        self.handle
    }

    /// Marks the point that `stream` has come to.
    ///
    /// # Errors
    /// The driver refused.
    #[inline]
    pub fn record(&self, stream: &Stream) -> Result<(), Error> {
        // SAFETY: event and stream are alive; the driver refuses a stream of another context.
        unsafe {
            self.context
                .bound()?
                .cuEventRecord(self.handle, stream.raw())
        }
    }

    /// Whether the stream has passed the point. An event that was never recorded counts as passed.
    ///
    /// # Errors
    /// A kernel before the point failed.
    pub fn has_passed(&self) -> Result<bool, Error> {
        // SAFETY: the event is alive.
        match unsafe { self.context.bound()?.cuEventQuery(self.handle) } {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Some(NOT_READY) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until the stream has passed the point.
    ///
    /// # Errors
    /// A kernel before the point failed.
    pub fn synchronize(&self) -> Result<(), Error> {
        // SAFETY: the event is alive.
        unsafe { self.context.bound()?.cuEventSynchronize(self.handle) }
    }

    /// The time from `start` to this event, both passed, in milliseconds. The driver's resolution is about half a microsecond.
    ///
    /// # Errors
    /// One of the two is without time, was never recorded, or is not passed yet.
    pub fn elapsed_ms(&self, start: &Event) -> Result<f64, Error> {
        if !(self.has_time && start.has_time) {
            return Err(Error::arguments(
                "an event without time was asked for the time; make it with Event::with_time",
            ));
        }
        let mut milliseconds = 0.0_f32;
        // SAFETY: both events are alive; the pointer is to a number that lives through the call.
        unsafe {
            self.context
                .bound()?
                .elapsed_time(&raw mut milliseconds, start.handle, self.handle)?;
        }
        Ok(f64::from(milliseconds))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Ok(driver) = self.context.bound() {
            // SAFETY: the handle was made by `new` and is destroyed here only. The driver waits for work that uses it.
            let _ = unsafe { driver.cuEventDestroy_v2(self.handle) };
        }
    }
}
