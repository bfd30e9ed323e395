//! Streams. Work in a stream is done at the call that asks for it, and so in order; during a capture it is recorded.
//!
//! Threads that use different streams run their kernels side by side, which lets kernels of several devices wait for each other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::abi::functions;
use super::argument::Out;
pub(super) use super::capture::refuse_while_capturing;
use super::capture::{Capture, refuse_implicit};
use super::context::Context;
use super::event::{EXTERNAL, Event, Recorded};
use super::registry::{Handle, Object as _, lock, object};
use super::status::Status;
use super::types::{DeviceNumber, HostFunction, StreamCallback};
use super::work::{HostWork, Work};

/// Priorities go from 0 to this one.
pub(super) const GREATEST_PRIORITY: i32 = -5;
/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;
/// `CU_STREAM_LEGACY` and `CU_STREAM_PER_THREAD`.
const LEGACY: usize = 1;
const PER_THREAD: usize = 2;

/// A stream.
pub(super) struct Stream {
    /// Tells it from every other; 0 for a legacy default stream.
    pub(super) id: u64,
    handle: Handle<Stream>,
    pub(super) context: Arc<Context>,
    flags: u32,
    priority: i32,
    capturing: Mutex<Option<Arc<Capture>>>,
    /// Held while a piece of work is done, so that threads that share the stream take turns.
    turn: Mutex<()>,
}

object!(Stream);

thread_local! {
    /// This thread's default stream in each context.
    static OF_THREAD: RefCell<BTreeMap<usize, Arc<Stream>>> = const { RefCell::new(BTreeMap::new()) };
}

impl Stream {
    fn make(
        context: Arc<Context>,
        handle: Handle<Stream>,
        flags: u32,
        priority: i32,
    ) -> Arc<Stream> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let id = if handle.number() == LEGACY {
            0
        } else {
            IDS.fetch_add(1, Ordering::Relaxed)
        };
        Arc::new(Stream {
            id,
            handle,
            context,
            flags,
            priority,
            capturing: Mutex::new(None),
            turn: Mutex::new(()),
        })
    }

    /// The current context's legacy default stream. It has no state of its own: nothing is captured in it.
    pub(super) fn legacy() -> Result<Arc<Stream>, Status> {
        Ok(Stream::make(Context::current()?, Handle::of(LEGACY), 0, 0))
    }

    fn of_thread() -> Result<Arc<Stream>, Status> {
        let context = Context::current()?;
        OF_THREAD.with_borrow_mut(|streams| {
            let key = context.handle.number();
            if streams
                .get(&key)
                .is_none_or(|stream| stream.context.is_gone())
            {
                let stream = Stream::make(context, Handle::of(PER_THREAD), 0, 0);
                streams.insert(key, stream);
            }
            streams.get(&key).cloned().ok_or(Status::UNKNOWN)
        })
    }

    pub(super) fn is_legacy(&self) -> bool {
        self.id == 0
    }

    /// Whether it waits for the legacy default stream, and that one for it.
    pub(super) fn is_blocking(&self) -> bool {
        self.flags & NON_BLOCKING == 0
    }

    /// The capture that it is in, if any.
    pub(super) fn capture(&self) -> Result<Option<Arc<Capture>>, Status> {
        match &*lock(&self.capturing) {
            Some(capture) if capture.is_invalid() => Err(Status::STREAM_CAPTURE_INVALIDATED),
            other => Ok(other.clone()),
        }
    }

    pub(super) fn raw_capture(&self) -> Option<Arc<Capture>> {
        lock(&self.capturing).clone()
    }

    pub(super) fn set_capture(&self, capture: Option<Arc<Capture>>) {
        *lock(&self.capturing) = capture;
    }

    /// Does the work, or records it.
    pub(super) fn submit(self: &Arc<Self>, work: Work) -> Result<(), Status> {
        if let Some(capture) = self.capture()? {
            return capture.add(self, work).map(drop);
        }
        if self.is_legacy() {
            refuse_implicit(&self.context)?;
        }
        if self.context.works()? {
            work.run(self)?;
        }
        Ok(())
    }

    /// Runs `work` while no other thread's work in this stream runs.
    pub(super) fn in_turn<R>(&self, work: impl FnOnce() -> R) -> R {
        let _turn = lock(&self.turn);
        work()
    }

    /// What waits for the stream breaks a capture.
    fn wait(&self) -> Result<(), Status> {
        if let Some(capture) = self.raw_capture() {
            capture.invalidate();
            return Err(Status::STREAM_CAPTURE_UNSUPPORTED);
        }
        self.context.wait()
    }
}

/// The stream of a handle, in a thread with a context.
pub(super) fn stream(handle: Handle<Stream>) -> Result<Arc<Stream>, Status> {
    match handle.number() {
        0 | LEGACY => Stream::legacy(),
        PER_THREAD => Stream::of_thread(),
        _ => {
            Context::current()?;
            handle.get()
        }
    }
}

fn create(out: Out<Handle<Stream>>, flags: u32, priority: i32) -> Result<(), Status> {
    let context = Context::current()?;
    if out.is_null() || flags & !NON_BLOCKING != 0 {
        return Err(Status::INVALID_VALUE);
    }
    let handle = Handle::reserve();
    let priority = priority.clamp(GREATEST_PRIORITY, 0);
    let stream = Stream::make(context, handle, flags, priority);
    Stream::registry().add(handle, stream);
    out.set(handle)
}

fn destroy(handle: Handle<Stream>) -> Result<(), Status> {
    super::gpu::machine()?;
    let stream = Stream::registry()
        .remove(handle)
        .ok_or(Status::INVALID_HANDLE)?;
    if let Some(capture) = stream.raw_capture() {
        capture.invalidate();
    }
    Ok(())
}

/// Lets `stream` go on behind what `event` marks. Outside of captures that is done already.
fn wait_for(stream: &Arc<Stream>, event: &Arc<Event>, flags: u32) -> Result<(), Status> {
    let own = stream.capture()?;
    match (event.last(), own) {
        (Recorded::Captured(capture, nodes), own) => {
            if !capture.is_running() {
                return Err(Status::CAPTURED_EVENT);
            }
            if capture.is_invalid() {
                return Err(Status::STREAM_CAPTURE_INVALIDATED);
            }
            match own {
                None if stream.is_legacy() => {
                    capture.invalidate();
                    Err(Status::STREAM_CAPTURE_IMPLICIT)
                }
                Some(own) if !Arc::ptr_eq(&own, &capture) => {
                    own.invalidate();
                    capture.invalidate();
                    Err(Status::STREAM_CAPTURE_MERGE)
                }
                _ => {
                    capture.join(stream, nodes);
                    Ok(())
                }
            }
        }
        (_, Some(own)) if flags & EXTERNAL != 0 => own
            .add(stream, Work::WaitEvent(Arc::clone(event)))
            .map(drop),
        (_, Some(own)) => {
            own.invalidate();
            Err(Status::STREAM_CAPTURE_ISOLATION)
        }
        (_, None) => stream.context.works().map(drop),
    }
}

functions! {
    fn cuStreamCreate(stream: Out<Handle<Stream>>, flags: u32) {
        create(stream, flags, 0)
    }

    fn cuStreamCreateWithPriority(stream: Out<Handle<Stream>>, flags: u32, priority: i32) {
        create(stream, flags, priority)
    }

    fn cuStreamDestroy(stream: Handle<Stream>) {
        destroy(stream)
    }

    fn cuStreamDestroy_v2(stream: Handle<Stream>) {
        destroy(stream)
    }

    fn cuStreamSynchronize(handle: Handle<Stream>) {
        stream(handle)?.wait()
    }

    fn cuStreamQuery(handle: Handle<Stream>) {
        stream(handle)?.wait()
    }

    fn cuStreamWaitEvent(handle: Handle<Stream>, event: Handle<Event>, flags: u32) {
        let stream = stream(handle)?;
        let event = event.get()?;
        if flags & !EXTERNAL != 0 {
            return Err(Status::INVALID_VALUE);
        }
        wait_for(&stream, &event, flags)
    }

    fn cuStreamGetPriority(handle: Handle<Stream>, priority: Out<i32>) {
        priority.set(stream(handle)?.priority)
    }

    fn cuStreamGetFlags(handle: Handle<Stream>, flags: Out<u32>) {
        flags.set(stream(handle)?.flags)
    }

    fn cuStreamGetId(handle: Handle<Stream>, id: Out<u64>) {
        id.set(stream(handle)?.id)
    }

    fn cuStreamGetCtx(handle: Handle<Stream>, context: Out<Handle<Context>>) {
        context.set(stream(handle)?.context.handle)
    }

    fn cuStreamGetDevice(handle: Handle<Stream>, device: Out<DeviceNumber>) {
        device.set(stream(handle)?.context.gpu.ordinal as i32)
    }

    // Attributes of streams are hints about caches and scheduling, of which there are none here.
    fn cuStreamSetAttribute(handle: Handle<Stream>, _attribute: u32, _value: usize) {
        stream(handle).map(drop)
    }

    fn cuStreamCopyAttributes(to: Handle<Stream>, from: Handle<Stream>) {
        stream(to)?;
        stream(from).map(drop)
    }

    fn cuStreamAttachMemAsync(handle: Handle<Stream>, _address: u64, _bytes: usize, _flags: u32) {
        stream(handle).map(drop)
    }

    fn cuLaunchHostFunc(handle: Handle<Stream>, function: HostFunction, argument: *mut c_void) {
        let function = function.ok_or(Status::INVALID_VALUE)?;
        stream(handle)?.submit(Work::Host(HostWork::new(function, argument)))
    }

    fn cuStreamAddCallback(handle: Handle<Stream>, callback: StreamCallback, argument: *mut c_void, flags: u32) {
        let stream = stream(handle)?;
        let callback = callback.ok_or(Status::INVALID_VALUE)?;
        if flags != 0 {
            return Err(Status::INVALID_VALUE);
        }
        if let Some(capture) = stream.raw_capture() {
            capture.invalidate();
            return Err(Status::STREAM_CAPTURE_UNSUPPORTED);
        }
        let status = stream.context.wait().map_or_else(Status::code, |()| 0);
        // SAFETY: the caller gave the function for this call, with the argument it takes.
        unsafe { callback(stream.handle, status, argument) };
        Ok(())
    }
}
