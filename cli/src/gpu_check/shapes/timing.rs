//! Graphs of many launches, replayed in turn between events.

use stepscope_device::driver::{DeviceBuffer, Event, Graph, GraphExec};
use stepscope_kernels::Backend;
use stepscope_kernels::cuda::{Cuda, CudaGraph};

use super::inputs::run;
use super::method::{Times, launches, rounds};
use crate::output::Failure;

/// A graph of launches of one side.
#[derive(Debug)]
pub(super) enum Launches {
    Ours(CudaGraph),
    /// Of a peer. What it was recorded with outlives it, which is the promise of whoever makes one.
    Peers(GraphExec),
}

impl Launches {
    /// Records what `work` puts into the stream of `cuda`, for a peer.
    ///
    /// # Safety
    /// Buffers, plans and workspaces that `work` uses must stay until the last replay is done.
    pub(super) unsafe fn of_peer(
        cuda: &Cuda,
        work: impl FnOnce() -> Result<(), stepscope_device::Error>,
    ) -> Result<Launches, Failure> {
        let graph = Graph::capture(cuda.stream(), work).map_err(run)?;
        let exec = graph.instantiate().map_err(run)?;
        exec.upload(cuda.stream()).map_err(run)?;
        Ok(Launches::Peers(exec))
    }

    /// Puts all of them into the stream.
    pub(super) fn replay(&self, cuda: &Cuda) -> Result<(), Failure> {
        match self {
            Launches::Ours(graph) => Ok(cuda.replay(graph)?),
            // SAFETY: what it was recorded with is there, as `of_peer` demands; everything else that uses it is in this
            // stream, in order.
            Launches::Peers(exec) => unsafe { exec.launch(cuda.stream()) }.map_err(run),
        }
    }
}

/// The time of one replay, µs, after one that is not counted.
fn replay_us(cuda: &Cuda, graph: &Launches) -> Result<f64, Failure> {
    let [times] = replays_us(cuda, [graph], 1)?;
    Ok(times.first().copied().unwrap_or(f64::NAN))
}

/// The times of `rounds` replays of each graph, in turn: A B A B. Another round goes before them, uncounted.
///
/// Everything is queued before it is waited for, so that the device never waits for the host between two events.
fn replays_us<const SIDES: usize>(
    cuda: &Cuda,
    graphs: [&Launches; SIDES],
    rounds: usize,
) -> Result<[Vec<f64>; SIDES], Failure> {
    let stream = cuda.stream();
    let events: Vec<Event> = (0..=rounds * SIDES)
        .map(|_| Event::with_time(cuda.context()))
        .collect::<Result<_, _>>()
        .map_err(run)?;
    for graph in graphs {
        graph.replay(cuda)?;
    }
    events[0].record(stream).map_err(run)?;
    for (index, event) in events.iter().enumerate().skip(1) {
        graphs[(index - 1) % SIDES].replay(cuda)?;
        event.record(stream).map_err(run)?;
    }
    cuda.synchronize()?;
    let mut times: [Vec<f64>; SIDES] = std::array::from_fn(|_| Vec::with_capacity(rounds));
    for (index, pair) in events.windows(2).enumerate() {
        let milliseconds = pair[1].elapsed_ms(&pair[0]).map_err(run)?;
        times[index % SIDES].push(1e3 * milliseconds);
    }
    Ok(times)
}

/// Of one shape: the times of ours, and of a peer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Measured {
    pub(super) launches: usize,
    pub(super) ours: Times,
    pub(super) theirs: Option<Times>,
}

/// Records graphs of launches with each side's `record`, which gets how many there are to be, and times their replays.
pub(super) fn measure(
    cuda: &Cuda,
    copies: usize,
    ours: &mut dyn FnMut(usize) -> Result<Launches, Failure>,
    theirs: Option<&mut dyn FnMut(usize) -> Result<Launches, Failure>>,
) -> Result<Measured, Failure> {
    let per_launch = |times: Vec<f64>, launches: usize| Times {
        samples: times.iter().map(|us| us / launches as f64).collect(),
    };
    // One round over the copies tells how many are enough.
    let graph = ours(copies)?;
    let mut launch_us = replay_us(cuda, &graph)? / copies as f64;
    drop(graph);
    let Some(theirs) = theirs else {
        let launches = launches(copies, launch_us);
        let graph = ours(launches)?;
        let rounds = rounds(launches as f64 * launch_us);
        let [times] = replays_us(cuda, [&graph], rounds)?;
        return Ok(Measured {
            launches,
            ours: per_launch(times, launches),
            theirs: None,
        });
    };
    let graph = theirs(copies)?;
    let their_us = replay_us(cuda, &graph)? / copies as f64;
    drop(graph);
    let both_us = launch_us + their_us;
    launch_us = launch_us.min(their_us);
    let launches = launches(copies, launch_us);
    let (graph, their_graph) = (ours(launches)?, theirs(launches)?);
    let rounds = rounds(launches as f64 * both_us);
    let [times, their_times] = replays_us(cuda, [&graph, &their_graph], rounds)?;
    Ok(Measured {
        launches,
        ours: per_launch(times, launches),
        theirs: Some(per_launch(their_times, launches)),
    })
}

/// What copies within the device's memory reach, read and written bytes together, in GB/s; nothing where memory is short.
pub(super) fn copy_gb_per_s(cuda: &Cuda) -> Result<Option<f64>, Failure> {
    const BYTES: usize = 512 << 20;
    const ROUNDS: usize = 10;
    let (free, _) = cuda.context().memory().map_err(run)?;
    if free < 4 * BYTES {
        return Ok(None);
    }
    let stream = cuda.stream();
    let buffer = |what| DeviceBuffer::<u8>::new(cuda.context(), what, BYTES).map_err(run);
    let (mut from, mut to) = (buffer("a copy's source")?, buffer("a copy's target")?);
    from.fill(stream, 0x3f).map_err(run)?;
    to.fill(stream, 0).map_err(run)?;
    let events: Vec<Event> = (0..=ROUNDS)
        .map(|_| Event::with_time(cuda.context()))
        .collect::<Result<_, _>>()
        .map_err(run)?;
    for event in &events {
        // The one before the first event is not counted.
        to.copy_from(stream, 0, &from, 0..BYTES).map_err(run)?;
        event.record(stream).map_err(run)?;
    }
    cuda.synchronize()?;
    let times: Vec<f64> = events
        .windows(2)
        .map(|pair| pair[1].elapsed_ms(&pair[0]))
        .collect::<Result<_, _>>()
        .map_err(run)?;
    let median = stepscope_profiler::stats::median(&times);
    Ok(median.map(|ms| 2.0 * BYTES as f64 / (ms * 1e6)))
}
