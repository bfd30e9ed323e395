//! Captures: work that streams are asked for is recorded into a graph instead of done.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, ThreadId};

use super::abi::functions;
use super::argument::{In, Out};
use super::context::Context;
use super::graph::{Graph, Node};
use super::registry::{Handle, lock};
use super::status::Status;
use super::stream::{Stream, stream};
use super::types::EdgeData;
use super::work::Work;

/// `CUstreamCaptureMode`: whose calls a capture forbids that could disturb it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Global,
    ThreadLocal,
    Relaxed,
}

impl Mode {
    fn of(number: u32) -> Result<Self, Status> {
        match number {
            0 => Ok(Mode::Global),
            1 => Ok(Mode::ThreadLocal),
            2 => Ok(Mode::Relaxed),
            _ => Err(Status::INVALID_VALUE),
        }
    }
}

/// A capture, from its beginning on.
pub(super) struct Capture {
    id: u64,
    mode: Mode,
    thread: ThreadId,
    /// The stream it began in.
    origin: u64,
    graph: Arc<Graph>,
    /// The graph was there before, and stays if the capture fails.
    is_into_given: bool,
    is_invalid: AtomicBool,
    is_running: AtomicBool,
    streams: Mutex<Vec<Branch>>,
    /// Lists that were given out and must stay where they are.
    lists: Mutex<Vec<Box<[Handle<Node>]>>>,
}

/// A stream of a capture, and the nodes that its next one will follow.
struct Branch {
    id: u64,
    stream: Weak<Stream>,
    tail: Vec<Handle<Node>>,
}

static RUNNING: Mutex<Vec<Arc<Capture>>> = Mutex::new(Vec::new());

thread_local! {
    /// What this thread said about itself by `cuThreadExchangeStreamCaptureMode`.
    static OF_THREAD: Cell<u32> = const { Cell::new(0) };
}

/// For calls that could disturb a capture: answers that they are not permitted, and breaks those captures that forbid them.
pub(super) fn refuse_while_capturing(_context: &Context) -> Result<(), Status> {
    let own = thread::current().id();
    let tolerant = Mode::of(OF_THREAD.get())?;
    let running = lock(&RUNNING).clone();
    let mut refused = false;
    for capture in running {
        let is_own = capture.thread == own;
        let forbids = match tolerant {
            Mode::Relaxed => false,
            Mode::ThreadLocal => is_own && capture.mode != Mode::Relaxed,
            Mode::Global => {
                capture.mode == Mode::Global || is_own && capture.mode == Mode::ThreadLocal
            }
        };
        if forbids {
            capture.invalidate();
            refused = true;
        }
    }
    if refused {
        return Err(Status::STREAM_CAPTURE_UNSUPPORTED);
    }
    Ok(())
}

/// For work in the legacy default stream, which would wait for blocking streams that are being captured.
pub(super) fn refuse_implicit(context: &Context) -> Result<(), Status> {
    let running = lock(&RUNNING).clone();
    for capture in running {
        let is_concerned = lock(&capture.streams).iter().any(|branch| {
            let stream = branch.stream.upgrade();
            stream.is_some_and(|s| s.is_blocking() && s.context.handle == context.handle)
        });
        if is_concerned {
            capture.invalidate();
            return Err(Status::STREAM_CAPTURE_IMPLICIT);
        }
    }
    Ok(())
}

impl Capture {
    fn begin(
        stream: &Arc<Stream>,
        mode: Mode,
        given: Option<(Arc<Graph>, Vec<Handle<Node>>)>,
    ) -> Result<(), Status> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        if stream.is_legacy() {
            return Err(Status::STREAM_CAPTURE_UNSUPPORTED);
        }
        if stream.raw_capture().is_some() {
            return Err(Status::ILLEGAL_STATE);
        }
        let is_into_given = given.is_some();
        let (graph, tail) = given.unwrap_or_else(|| (Graph::new(), Vec::new()));
        let capture = Arc::new(Capture {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            mode,
            thread: thread::current().id(),
            origin: stream.id,
            graph,
            is_into_given,
            is_invalid: AtomicBool::new(false),
            is_running: AtomicBool::new(true),
            streams: Mutex::new(vec![Branch {
                id: stream.id,
                stream: Arc::downgrade(stream),
                tail,
            }]),
            lists: Mutex::new(Vec::new()),
        });
        stream.set_capture(Some(Arc::clone(&capture)));
        lock(&RUNNING).push(capture);
        Ok(())
    }

    /// Ends the capture that `stream` began.
    fn end(stream: &Arc<Stream>) -> Result<Handle<Graph>, Status> {
        let capture = stream.raw_capture().ok_or(Status::ILLEGAL_STATE)?;
        if capture.origin != stream.id {
            capture.invalidate();
            return Err(Status::STREAM_CAPTURE_UNMATCHED);
        }
        if capture.mode != Mode::Relaxed && capture.thread != thread::current().id() {
            return Err(Status::STREAM_CAPTURE_WRONG_THREAD);
        }
        capture.is_running.store(false, Ordering::Relaxed);
        lock(&RUNNING).retain(|running| !Arc::ptr_eq(running, &capture));
        let branches = std::mem::take(&mut *lock(&capture.streams));
        for branch in &branches {
            if let Some(stream) = branch.stream.upgrade() {
                stream.set_capture(None);
            }
        }
        if capture.is_invalid() {
            return Err(Status::STREAM_CAPTURE_INVALIDATED);
        }
        let (origin, forks): (Vec<_>, Vec<_>) = branches
            .iter()
            .partition(|branch| branch.id == capture.origin);
        let joined = capture
            .graph
            .behind(origin.iter().flat_map(|branch| &branch.tail));
        let is_joined = forks
            .iter()
            .flat_map(|branch| &branch.tail)
            .all(|node| joined.contains(&node.number()));
        if !is_joined {
            return Err(Status::STREAM_CAPTURE_UNJOINED);
        }
        if capture.is_into_given {
            Ok(capture.graph.handle)
        } else {
            Ok(capture.graph.publish())
        }
    }

    /// Nothing can come of the capture any more.
    pub(super) fn invalidate(&self) {
        self.is_invalid.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_invalid(&self) -> bool {
        self.is_invalid.load(Ordering::Relaxed)
    }

    pub(super) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Relaxed)
    }

    pub(super) fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Records work of `stream`.
    pub(super) fn add(&self, stream: &Stream, work: Work) -> Result<Handle<Node>, Status> {
        let mut branches = lock(&self.streams);
        let branch = branches.iter_mut().find(|branch| branch.id == stream.id);
        let branch = branch.ok_or(Status::ILLEGAL_STATE)?;
        let node = self.graph.add(work, branch.tail.clone())?;
        branch.tail = vec![node];
        Ok(node)
    }

    /// The nodes that the next one of `stream` will follow.
    pub(super) fn position(&self, stream: &Stream) -> Vec<Handle<Node>> {
        let branches = lock(&self.streams);
        let branch = branches.iter().find(|branch| branch.id == stream.id);
        branch.map_or_else(Vec::new, |branch| branch.tail.clone())
    }

    /// Takes `stream` in, or lets it go on behind `nodes` too.
    pub(super) fn join(self: &Arc<Self>, stream: &Arc<Stream>, nodes: Vec<Handle<Node>>) {
        let mut branches = lock(&self.streams);
        if let Some(branch) = branches.iter_mut().find(|branch| branch.id == stream.id) {
            for node in nodes {
                if !branch.tail.contains(&node) {
                    branch.tail.push(node);
                }
            }
            return;
        }
        branches.push(Branch {
            id: stream.id,
            stream: Arc::downgrade(stream),
            tail: nodes,
        });
        stream.set_capture(Some(Arc::clone(self)));
    }

    fn set_position(&self, stream: &Stream, nodes: Vec<Handle<Node>>) {
        let mut branches = lock(&self.streams);
        if let Some(branch) = branches.iter_mut().find(|branch| branch.id == stream.id) {
            branch.tail = nodes;
        }
    }
}

/// `CUstreamCaptureStatus` of a stream.
fn state(stream: &Stream) -> (u32, Option<Arc<Capture>>) {
    match stream.raw_capture() {
        None => (0, None),
        Some(capture) if capture.is_invalid() => (2, None),
        Some(capture) => (1, Some(capture)),
    }
}

/// The parts of `cuStreamGetCaptureInfo` that all of its versions have.
fn info(
    handle: Handle<Stream>,
    status: Out<u32>,
    id: Out<u64>,
    graph: Out<Handle<Graph>>,
    nodes: Out<*const Handle<Node>>,
    count: Out<usize>,
) -> Result<(), Status> {
    let stream = stream(handle)?;
    if stream.is_legacy() {
        super::capture::refuse_implicit(&stream.context)?;
    }
    let (number, capture) = state(&stream);
    status.set(number)?;
    let Some(capture) = capture else {
        return Ok(());
    };
    id.set_if_wanted(capture.id);
    graph.set_if_wanted(capture.graph.publish());
    let list = capture.position(&stream).into_boxed_slice();
    count.set_if_wanted(list.len());
    nodes.set_if_wanted(list.as_ptr());
    lock(&capture.lists).push(list);
    Ok(())
}

fn update(
    handle: Handle<Stream>,
    nodes: In<Handle<Node>>,
    count: usize,
    flags: u32,
) -> Result<(), Status> {
    let stream = stream(handle)?;
    let capture = stream.capture()?.ok_or(Status::ILLEGAL_STATE)?;
    let nodes = nodes.list(count)?;
    capture.graph.check(&nodes)?;
    match flags {
        0 => {
            capture.join(&stream, nodes);
            Ok(())
        }
        1 => {
            capture.set_position(&stream, nodes);
            Ok(())
        }
        _ => Err(Status::INVALID_VALUE),
    }
}

functions! {
    fn cuStreamBeginCapture_v2(handle: Handle<Stream>, mode: u32) {
        Capture::begin(&stream(handle)?, Mode::of(mode)?, None)
    }

    fn cuStreamBeginCaptureToGraph(
        handle: Handle<Stream>, graph: Handle<Graph>, nodes: In<Handle<Node>>, _edges: usize, count: usize, mode: u32,
    ) {
        let stream = stream(handle)?;
        let graph = graph.get()?;
        let nodes = nodes.list(count)?;
        graph.check(&nodes)?;
        Capture::begin(&stream, Mode::of(mode)?, Some((graph, nodes)))
    }

    fn cuStreamEndCapture(handle: Handle<Stream>, graph: Out<Handle<Graph>>) {
        let stream = stream(handle)?;
        graph.set(Handle::NULL)?;
        graph.set(Capture::end(&stream)?)
    }

    fn cuStreamIsCapturing(handle: Handle<Stream>, status: Out<u32>) {
        let stream = stream(handle)?;
        if stream.is_legacy() {
            refuse_implicit(&stream.context)?;
        }
        status.set(state(&stream).0)
    }

    fn cuStreamGetCaptureInfo(handle: Handle<Stream>, status: Out<u32>, id: Out<u64>) {
        let stream = stream(handle)?;
        let (number, capture) = state(&stream);
        status.set(number)?;
        if let Some(capture) = capture {
            id.set_if_wanted(capture.id);
        }
        Ok(())
    }

    fn cuStreamGetCaptureInfo_v2(
        handle: Handle<Stream>, status: Out<u32>, id: Out<u64>, graph: Out<Handle<Graph>>,
        nodes: Out<*const Handle<Node>>, count: Out<usize>,
    ) {
        info(handle, status, id, graph, nodes, count)
    }

    fn cuStreamGetCaptureInfo_v3(
        handle: Handle<Stream>, status: Out<u32>, id: Out<u64>, graph: Out<Handle<Graph>>,
        nodes: Out<*const Handle<Node>>, edges: Out<*const EdgeData>, count: Out<usize>,
    ) {
        edges.set_if_wanted(std::ptr::null());
        info(handle, status, id, graph, nodes, count)
    }

    fn cuStreamUpdateCaptureDependencies(handle: Handle<Stream>, nodes: In<Handle<Node>>, count: usize, flags: u32) {
        update(handle, nodes, count, flags)
    }

    fn cuStreamUpdateCaptureDependencies_v2(
        handle: Handle<Stream>, nodes: In<Handle<Node>>, _edges: usize, count: usize, flags: u32,
    ) {
        update(handle, nodes, count, flags)
    }

    fn cuThreadExchangeStreamCaptureMode(mode: Out<u32>) {
        let new = mode.get()?;
        Mode::of(new)?;
        mode.set(OF_THREAD.replace(new))
    }
}
