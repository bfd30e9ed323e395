//! Recording what a process does on its GPUs.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::cupti::sys::{
    CUpti_ActivityKind as Kind, CUpti_CallbackDomain, CUpti_CallbackId,
    CUpti_ExternalCorrelationKind as ExternalKind, CUpti_SubscriberHandle,
};

use cudarc::driver::sys::CUcontext;

use super::buffers::{self, Full};
use super::status::{MAX_LIMIT_REACHED, MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED};
use super::{Activity, Cupti};
use crate::Error;
use crate::driver::Context;
use crate::library::Origin;

/// `CUPTI_ACTIVITY_FLAG_FLUSH_FORCED`.
const FORCED: u32 = 1;

/// How replays of graphs are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Graphs {
    /// Every kernel in them, as a [`Kernel`](super::Kernel) with its node.
    Nodes,
    /// As a whole, which costs less: the kernels in them are not seen.
    Whole,
}

/// A recording. There is one in a process at a time, as CUPTI has it.
///
/// It holds the context, and so ends before the context does: a flush after that would wait for ever.
#[derive(Debug)]
pub struct Session {
    cupti: Arc<Cupti>,
    subscriber: CUpti_SubscriberHandle,
    enabled: Vec<Kind>,
    /// Names of kernels by address. They are the library's, and stay there as long as their module is loaded.
    names: HashMap<u64, Arc<str>>,
    context: Arc<Context>,
}

// SAFETY: CUPTI's functions may be called from any thread; the subscriber is an opaque handle, which is used here only.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

/// Whether there is a [`Session`].
static IN_USE: AtomicBool = AtomicBool::new(false);

/// What a subscription needs, and is never called: no callback is enabled.
unsafe extern "C" fn ignore(
    _data: *mut c_void,
    _domain: CUpti_CallbackDomain,
    _function: CUpti_CallbackId,
    _call: *const c_void,
) {
}

impl Session {
    /// Starts recording kernels, transfers, calls, overheads, and the spans that they belong to.
    ///
    /// # Errors
    /// Another profiler is at work, in this process or around it; the device is an emulated one; or CUPTI refused.
    pub fn start(
        cupti: &Arc<Cupti>,
        context: &Arc<Context>,
        graphs: Graphs,
    ) -> Result<Session, Error> {
        let device = context.device();
        // One that the program brings along knows what it records.
        if device.is_emulated() && cupti.origin() != Origin::Program {
            return Err(Error::no_device(format!(
                "CUPTI records NVIDIA's GPUs only, and device {} is {}",
                device.ordinal, device.name
            )));
        }
        if IN_USE.swap(true, Ordering::Acquire) {
            return Err(Error::profiler(
                "this process records its kernels already; end that recording first",
            ));
        }
        let mut session = Session {
            cupti: Arc::clone(cupti),
            subscriber: ptr::null_mut(),
            enabled: Vec::new(),
            names: HashMap::new(),
            context: Arc::clone(context),
        };
        // When it fails half-way, dropping the session takes back what was done.
        let started = session.begin(graphs);
        started.map_err(|error| error.during("recording kernels with CUPTI"))?;
        Ok(session)
    }

    fn begin(&mut self, graphs: Graphs) -> Result<(), Error> {
        self.context.bound()?;
        let cupti = &self.cupti;
        // SAFETY: the place is for a handle and lives through the call; the callback is part of this program.
        unsafe {
            cupti.cuptiSubscribe(&raw mut self.subscriber, Some(ignore), ptr::null_mut())?;
            cupti.cuptiActivityRegisterCallbacks(
                Some(buffers::requested),
                Some(buffers::completed),
            )?;
        }
        // What an earlier session left in a buffer is not of this one.
        drop(buffers::take());
        self.resume(graphs)
    }

    /// Records again after [`Session::pause`], or records graphs in another way.
    ///
    /// # Errors
    /// CUPTI refused.
    pub fn resume(&mut self, graphs: Graphs) -> Result<(), Error> {
        self.pause()?;
        let whole = (graphs == Graphs::Whole).then_some(Kind::CUPTI_ACTIVITY_KIND_GRAPH_TRACE);
        let kinds = [
            // Correlations come in front of the records of calls.
            Kind::CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION,
            Kind::CUPTI_ACTIVITY_KIND_DRIVER,
            Kind::CUPTI_ACTIVITY_KIND_RUNTIME,
            Kind::CUPTI_ACTIVITY_KIND_OVERHEAD,
            Kind::CUPTI_ACTIVITY_KIND_MEMCPY,
            Kind::CUPTI_ACTIVITY_KIND_MEMSET,
            // Not KIND_KERNEL, which runs one kernel at a time.
            Kind::CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,
        ];
        for kind in kinds.into_iter().chain(whole) {
            // SAFETY: the kind is one of those that every CUPTI knows.
            unsafe { self.cupti.cuptiActivityEnable(kind)? };
            self.enabled.push(kind);
        }
        Ok(())
    }

    /// Stops recording until [`Session::resume`]: nothing costs anything meanwhile.
    ///
    /// # Errors
    /// CUPTI refused.
    pub fn pause(&mut self) -> Result<(), Error> {
        while let Some(kind) = self.enabled.pop() {
            // SAFETY: the kind was enabled.
            unsafe { self.cupti.cuptiActivityDisable(kind)? };
        }
        Ok(())
    }

    /// What this thread calls from here on, until [`Session::leave`], belongs to `span`. Spans nest; the innermost counts.
    ///
    /// # Errors
    /// CUPTI refused.
    pub fn enter(&self, span: u64) -> Result<(), Error> {
        let kind = ExternalKind::CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0;
        // SAFETY: it takes numbers.
        unsafe {
            self.cupti
                .cuptiActivityPushExternalCorrelationId(kind, span)
        }
    }

    /// The end of the innermost span; the number it had.
    ///
    /// # Errors
    /// This thread is in no span, or CUPTI refused.
    pub fn leave(&self) -> Result<u64, Error> {
        let kind = ExternalKind::CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0;
        let mut span = 0;
        // SAFETY: the pointer is to an integer that lives through the call.
        unsafe {
            self.cupti
                .cuptiActivityPopExternalCorrelationId(kind, &raw mut span)?
        };
        Ok(span)
    }

    /// Now, in nanoseconds of the clock that records carry.
    ///
    /// # Errors
    /// CUPTI refused.
    pub fn now_ns(&self) -> Result<u64, Error> {
        let mut nanoseconds = 0;
        // SAFETY: the pointer is to an integer that lives through the call.
        unsafe { self.cupti.cuptiGetTimestamp(&raw mut nanoseconds)? };
        Ok(nanoseconds)
    }

    /// Everything recorded since it was last asked. Whoever wants whole records waits for the device first; what has not
    /// ended by then comes with a later call.
    ///
    /// # Errors
    /// CUPTI refused.
    pub fn take(&mut self) -> Result<Activity, Error> {
        self.flush(0)
    }

    /// As [`Session::take`], with records that are not complete: the last resort when some are missing.
    ///
    /// # Errors
    /// CUPTI refused.
    pub fn take_all(&mut self) -> Result<Activity, Error> {
        self.flush(FORCED)
    }

    fn flush(&mut self, flag: u32) -> Result<Activity, Error> {
        self.context.bound()?;
        // SAFETY: the callbacks are registered, and the context is alive.
        unsafe { self.cupti.cuptiActivityFlushAll(flag) }
            .map_err(|error| error.during("collecting CUPTI's records"))?;
        let mut activity = Activity::default();
        let mut queues = BTreeSet::from([(0, 0)]);
        for buffer in buffers::take() {
            let (context, stream) = buffer.queue();
            queues.insert((context as usize, stream));
            self.read(&buffer, &mut activity)?;
        }
        for (context, stream) in queues {
            let mut dropped = 0;
            // SAFETY: the queue is one that CUPTI named, or the one of all records; the pointer is to a number that lives
            // through the call.
            unsafe {
                self.cupti.cuptiActivityGetNumDroppedRecords(
                    context as CUcontext,
                    stream,
                    &raw mut dropped,
                )?
            };
            activity.dropped = activity.dropped.saturating_add(dropped as u64);
        }
        Ok(activity)
    }

    fn read(&mut self, buffer: &Full, activity: &mut Activity) -> Result<(), Error> {
        let (data, bytes) = buffer.data();
        // No record is shorter than 8 bytes: a library that goes on for ever is stopped.
        let most = bytes / 8;
        let mut starts = Vec::new();
        let mut record = ptr::null_mut();
        while starts.len() < most {
            // SAFETY: the buffer came from CUPTI with this many bytes, and `record` is what it gave last.
            let next = unsafe {
                self.cupti
                    .cuptiActivityGetNextRecord(data, bytes, &raw mut record)
            };
            match next {
                Ok(()) => starts.push((record as usize).wrapping_sub(data as usize)),
                Err(error) if error.code() == Some(MAX_LIMIT_REACHED) => break,
                Err(error) => return Err(error.during("reading CUPTI's records")),
            }
        }
        // SAFETY: CUPTI filled so many bytes, of memory that was zeroed, and does not touch them any more.
        let bytes = unsafe { std::slice::from_raw_parts(data, bytes) };
        let names = &mut self.names;
        activity.add(bytes, &starts, |address| {
            let name = names.entry(address).or_insert_with(|| {
                if address == 0 {
                    return Arc::from("");
                }
                // SAFETY: CUPTI writes the address of the name there, which it keeps.
                let name = unsafe { CStr::from_ptr(address as *const c_char) };
                Arc::from(name.to_string_lossy())
            });
            Arc::clone(name)
        });
        Ok(())
    }

    /// The library.
    pub fn cupti(&self) -> &Arc<Cupti> {
        &self.cupti
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What goes wrong here is not a reason to end a program. `cuptiFinalize` is not called: it crashes where there are
        // graphs (pytorch #112507).
        let _ = self.pause();
        if !self.subscriber.is_null() {
            if self.context.bound().is_ok() {
                // SAFETY: the context is alive, as `self` holds it.
                let _ = unsafe { self.cupti.cuptiActivityFlushAll(FORCED) };
            }
            // SAFETY: the subscriber is `begin`'s.
            let _ = unsafe { self.cupti.cuptiUnsubscribe(self.subscriber) };
        }
        drop(buffers::take());
        IN_USE.store(false, Ordering::Release);
    }
}

/// Whether `error` says that another profiler is at work.
pub fn is_other_profiler(error: &Error) -> bool {
    error.code() == Some(MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED)
}
