//! Events. Work is done by the time its call returns, so an event has passed once it is recorded; its time is the host's.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::abi::functions;
use super::argument::Out;
use super::capture::Capture;
use super::context::Context;
use super::graph::Node;
use super::registry::{Handle, Object as _, lock, object};
use super::status::Status;
use super::stream::{Stream, stream};
use super::work::Work;

/// `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: u32 = 2;
/// `CU_EVENT_INTERPROCESS`.
const INTERPROCESS: u32 = 4;
/// `CU_EVENT_RECORD_EXTERNAL` and `CU_EVENT_WAIT_EXTERNAL`.
pub(super) const EXTERNAL: u32 = 1;

/// An event.
pub(super) struct Event {
    pub(super) handle: Handle<Event>,
    pub(super) context: Arc<Context>,
    has_time: bool,
    last: Mutex<Recorded>,
}

object!(Event);

/// What an event was recorded in last.
#[derive(Clone)]
pub(super) enum Recorded {
    Never,
    At(Instant),
    /// In a capture, behind these nodes.
    Captured(Arc<Capture>, Vec<Handle<Node>>),
}

impl Event {
    /// Records it now.
    pub(super) fn pass(&self) {
        *lock(&self.last) = Recorded::At(Instant::now());
    }

    pub(super) fn set_captured(&self, capture: Arc<Capture>, nodes: Vec<Handle<Node>>) {
        *lock(&self.last) = Recorded::Captured(capture, nodes);
    }

    pub(super) fn last(&self) -> Recorded {
        lock(&self.last).clone()
    }

    /// For questions about time and progress, which a captured event has no answer to.
    fn time(&self) -> Result<Option<Instant>, Status> {
        match &*lock(&self.last) {
            Recorded::Never => Ok(None),
            Recorded::At(time) => Ok(Some(*time)),
            Recorded::Captured(capture, _) => {
                capture.invalidate();
                Err(Status::CAPTURED_EVENT)
            }
        }
    }
}

fn elapsed(milliseconds: Out<f32>, start: Handle<Event>, end: Handle<Event>) -> Result<(), Status> {
    Context::current()?;
    let (start, end) = (start.get()?, end.get()?);
    if !(start.has_time && end.has_time) {
        return Err(Status::INVALID_HANDLE);
    }
    let times = (start.time()?, end.time()?);
    end.context.wait()?;
    let (Some(from), Some(to)) = times else {
        return Err(Status::INVALID_HANDLE);
    };
    let seconds = match to.checked_duration_since(from) {
        Some(forward) => forward.as_secs_f32(),
        None => -from.duration_since(to).as_secs_f32(),
    };
    milliseconds.set(seconds * 1e3)
}

fn record(event: Handle<Event>, to: Handle<Stream>, flags: u32) -> Result<(), Status> {
    let to = stream(to)?;
    let event = event.get()?;
    if flags & !EXTERNAL != 0 {
        return Err(Status::INVALID_VALUE);
    }
    if event.context.handle != to.context.handle {
        return Err(Status::INVALID_HANDLE);
    }
    match to.capture()? {
        Some(capture) if flags & EXTERNAL != 0 => {
            capture.add(&to, Work::RecordEvent(event)).map(drop)
        }
        Some(capture) => {
            let nodes = capture.position(&to);
            event.set_captured(capture, nodes);
            Ok(())
        }
        None => {
            if to.context.works()? {
                event.pass();
            }
            Ok(())
        }
    }
}

functions! {
    fn cuEventCreate(event: Out<Handle<Event>>, flags: u32) {
        let context = Context::current()?;
        if event.is_null() || flags > 7 || flags & INTERPROCESS != 0 && flags & DISABLE_TIMING == 0 {
            return Err(Status::INVALID_VALUE);
        }
        if flags & INTERPROCESS != 0 {
            return Err(Status::NOT_SUPPORTED);
        }
        let handle = Handle::reserve();
        Event::registry().add(handle, Arc::new(Event {
            handle,
            context,
            has_time: flags & DISABLE_TIMING == 0,
            last: Mutex::new(Recorded::Never),
        }));
        event.set(handle)
    }

    fn cuEventDestroy(event: Handle<Event>) {
        super::gpu::machine()?;
        Event::registry().remove(event).map(drop).ok_or(Status::INVALID_HANDLE)
    }

    fn cuEventDestroy_v2(event: Handle<Event>) {
        super::gpu::machine()?;
        Event::registry().remove(event).map(drop).ok_or(Status::INVALID_HANDLE)
    }

    fn cuEventRecord(event: Handle<Event>, stream: Handle<Stream>) {
        record(event, stream, 0)
    }

    fn cuEventRecordWithFlags(event: Handle<Event>, stream: Handle<Stream>, flags: u32) {
        record(event, stream, flags)
    }

    fn cuEventQuery(event: Handle<Event>) {
        Context::current()?;
        let event = event.get()?;
        event.time()?;
        event.context.wait()
    }

    fn cuEventSynchronize(event: Handle<Event>) {
        Context::current()?;
        let event = event.get()?;
        event.time()?;
        event.context.wait()
    }

    fn cuEventElapsedTime(milliseconds: Out<f32>, start: Handle<Event>, end: Handle<Event>) {
        elapsed(milliseconds, start, end)
    }

    fn cuEventElapsedTime_v2(milliseconds: Out<f32>, start: Handle<Event>, end: Handle<Event>) {
        elapsed(milliseconds, start, end)
    }
}
