//! What a stream can be asked for, and a graph can hold.

use std::ffi::c_void;
use std::sync::Arc;

use super::copy::Copy;
use super::event::Event;
use super::fill::Fill;
use super::graph::GraphExec;
use super::launch::KernelLaunch;
use super::memory;
use super::status::Status;
use super::stream::Stream;

/// A piece of work.
#[derive(Clone)]
pub(super) enum Work {
    Kernel(KernelLaunch),
    Copy(Copy),
    Fill(Fill),
    Host(HostWork),
    /// A graph within a graph.
    Graph(Arc<GraphExec>),
    Empty,
    RecordEvent(Arc<Event>),
    WaitEvent(Arc<Event>),
    /// Memory that a captured allocation got when it was captured.
    Allocate,
    Free(u64),
}

/// A function of the host.
#[derive(Clone, Copy)]
pub(super) struct HostWork {
    pub(super) function: unsafe extern "C" fn(*mut c_void),
    pub(super) argument: *mut c_void,
}

// SAFETY: whoever gave the function to a stream or graph promised that any thread may call it with the argument, which nobody
// here looks behind.
unsafe impl Send for HostWork {}
// SAFETY: as above.
unsafe impl Sync for HostWork {}

impl HostWork {
    pub(super) fn new(
        function: unsafe extern "C" fn(*mut c_void),
        argument: *mut c_void,
    ) -> HostWork {
        HostWork { function, argument }
    }
}

impl Work {
    /// `CUgraphNodeType`.
    pub(super) fn kind(&self) -> u32 {
        match self {
            Work::Kernel(_) => 0,
            Work::Copy(_) => 1,
            Work::Fill(_) => 2,
            Work::Host(_) => 3,
            Work::Graph(_) => 4,
            Work::Empty => 5,
            Work::WaitEvent(_) => 6,
            Work::RecordEvent(_) => 7,
            Work::Allocate => 10,
            Work::Free(_) => 11,
        }
    }

    /// As what a node does from now on that did another of the kind.
    pub(super) fn in_place_of(self, other: &Self) -> Result<Self, Status> {
        Ok(match (self, other) {
            (Work::Kernel(launch), Work::Kernel(other)) => Work::Kernel(launch.in_place_of(other)?),
            (work, _) => work,
        })
    }

    /// Does it, in `stream`.
    pub(super) fn run(&self, stream: &Stream) -> Result<(), Status> {
        let device = &stream.context.gpu.device;
        match self {
            Work::Kernel(launch) => stream.in_turn(|| launch.run()),
            Work::Copy(copy) => stream.in_turn(|| copy.run(device)),
            Work::Fill(fill) => stream.in_turn(|| fill.run(device)),
            Work::Host(host) => {
                // SAFETY: whoever gave the function promised that it may be called with this argument.
                unsafe { (host.function)(host.argument) };
                Ok(())
            }
            Work::Graph(graph) => graph.run(stream),
            Work::RecordEvent(event) => {
                event.pass();
                Ok(())
            }
            Work::Free(address) => memory::free_in_graph(*address),
            Work::Empty | Work::WaitEvent(_) | Work::Allocate => Ok(()),
        }
    }
}
