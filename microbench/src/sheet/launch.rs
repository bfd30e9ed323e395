//! What a launch takes, by path, of a kernel that does nothing.

use std::time::Instant;

use stepscope_device::arguments;
use stepscope_device::driver::{Event, Graph, GraphExec, Kernel, Launch};
use stepscope_device::nvrtc::Program;
use stepscope_kernels::Backend as _;
use stepscope_profiler::device_sheet::{Group, Quantity, RowTimer, Unit};

use super::context::{Claims, Context, Probe, Values};
use super::kernels::{Module, program as program_of};
use crate::Error;

arguments! {
    struct Empty {}
}

pub(super) fn program() -> Program {
    let names = ["empty", "timer_steps"].map(str::to_owned);
    program_of("launch.cu", include_str!("launch.cu"), &names)
}

fn probe(name: &str, title: &str, claim: &str, timer: RowTimer) -> Probe {
    Probe {
        group: Group::Launch,
        name: name.to_owned(),
        title: title.to_owned(),
        claim: claim.to_owned(),
        unit: Unit::Nanoseconds,
        timer,
        at: None,
    }
}

/// An empty kernel, and how often it is launched for one sample.
struct Empties {
    kernel: Kernel<Empty>,
    count: u32,
}

impl Empties {
    fn launch(&self, context: &Context<'_>) -> Result<(), Error> {
        // SAFETY: it takes no argument and touches no memory.
        unsafe {
            context
                .cuda()
                .launch(&self.kernel, &Launch::of_blocks(1, 32), &Empty {})?;
        };
        Ok(())
    }

    fn launch_all(&self, context: &Context<'_>) -> Result<(), Error> {
        (0..self.count).try_for_each(|_| self.launch(context))
    }

    /// A graph of `nodes` of them, one behind another.
    fn graph(&self, context: &Context<'_>, nodes: u32) -> Result<GraphExec, Error> {
        let stream = context.cuda().stream();
        let launch = Launch::of_blocks(1, 32);
        let graph = Graph::capture(stream, || {
            // SAFETY: as for `launch`.
            (0..nodes).try_for_each(|_| unsafe { self.kernel.launch(stream, &launch, &Empty {}) })
        })?;
        let found = graph.node_count()?;
        if found != nodes as usize {
            return Err(Error::Wrong(format!(
                "a graph of {nodes} launches has {found} nodes"
            )));
        }
        let exec = graph.instantiate()?;
        exec.upload(stream)?;
        context.cuda().synchronize()?;
        Ok(exec)
    }
}

fn replay(context: &Context<'_>, graph: &GraphExec) -> Result<(), Error> {
    // SAFETY: its kernels touch no memory.
    unsafe { graph.launch(context.cuda().stream())? };
    Ok(())
}

/// Nanoseconds of one of `count` by events around `work`, again and again after one that does not count.
fn by_events(
    context: &Context<'_>,
    count: u32,
    mut work: impl FnMut() -> Result<(), Error>,
) -> Result<Values, Error> {
    let cuda = context.cuda();
    if context.is_emulated() {
        work()?;
        cuda.synchronize()?;
        return Ok(Values::default());
    }
    let (start, end) = (
        Event::with_time(cuda.context())?,
        Event::with_time(cuda.context())?,
    );
    let mut values = Vec::new();
    for round in 0..=context.repetitions() {
        start.record(cuda.stream())?;
        work()?;
        end.record(cuda.stream())?;
        end.synchronize()?;
        if round > 0 {
            values.push(1e6 * end.elapsed_ms(&start)? / f64::from(count));
        }
    }
    Ok(Values::of(values))
}

/// The same by the host's clock; `work` waits, or not, as it wishes, and the device is idle when it begins.
fn by_host(
    context: &Context<'_>,
    count: u32,
    mut work: impl FnMut() -> Result<(), Error>,
) -> Result<Values, Error> {
    let cuda = context.cuda();
    if context.is_emulated() {
        work()?;
        cuda.synchronize()?;
        return Ok(Values::default());
    }
    let mut values = Vec::new();
    for round in 0..=context.repetitions() {
        cuda.synchronize()?;
        let begin = Instant::now();
        work()?;
        let taken = begin.elapsed();
        cuda.synchronize()?;
        if round > 0 {
            values.push(taken.as_secs_f64() * 1e9 / f64::from(count));
        }
    }
    Ok(Values::of(values))
}

pub(super) fn run(context: &mut Context<'_>) {
    let host = probe(
        "launch_host",
        "typed launch, host",
        "the host's time for a typed launch of an empty kernel (cuLaunchKernelEx), 200 of them into an idle stream",
        RowTimer::Wall,
    );
    let stream = probe(
        "launch_stream",
        "empty kernel in a stream",
        "time from one to the next of 1000 empty kernels in a stream: of the GPU or of the host, whichever is slower",
        RowTimer::Event,
    );
    let node = probe(
        "launch_graph_node",
        "empty kernel in a graph",
        "time from one to the next of 1000 empty kernels, one behind another in a CUDA graph",
        RowTimer::Event,
    );
    let graph_host = probe(
        "graph_host",
        "graph launch, host",
        "the host's time for cuGraphLaunch of a graph of one empty kernel, 200 of them into an idle stream",
        RowTimer::Wall,
    );
    let graph_launch = probe(
        "graph_launch",
        "graph launch in a stream",
        "time from one to the next of 200 launches of a graph of one empty kernel",
        RowTimer::Event,
    );
    let round_trip = probe(
        "launch_round_trip",
        "launch and wait",
        "the host's time from the launch of an empty kernel until it was waited for",
        RowTimer::Wall,
    );
    let all = [host, stream, node, graph_host, graph_launch, round_trip];
    let kernel =
        Module::load(context.cuda(), &program()).and_then(|module| module.kernel::<Empty>("empty"));
    let kernel = match kernel {
        Ok(kernel) => kernel,
        Err(error) => return context.without(&all, &error),
    };
    let few = Empties {
        kernel: kernel.clone(),
        count: context.sized(200, 5),
    };
    let many = Empties {
        kernel: kernel.clone(),
        count: context.sized(1000, 10),
    };
    let one = Empties { kernel, count: 1 };
    let launches = |count: u32| Claims::Sum(vec![(Quantity::Launches, u64::from(count))]);
    let [host, stream, node, graph_host, graph_launch, round_trip] = &all;
    context.probe(host, &launches(few.count), |context| {
        by_host(context, few.count, || few.launch_all(context))
    });
    context.probe(stream, &launches(many.count), |context| {
        by_events(context, many.count, || many.launch_all(context))
    });
    context.probe(node, &launches(many.count), |context| {
        let graph = many.graph(context, many.count)?;
        by_events(context, many.count, || replay(context, &graph))
    });
    context.probe(graph_host, &launches(few.count), |context| {
        let graph = one.graph(context, 1)?;
        let all = || (0..few.count).try_for_each(|_| replay(context, &graph));
        by_host(context, few.count, all)
    });
    context.probe(graph_launch, &launches(few.count), |context| {
        let graph = one.graph(context, 1)?;
        let all = || (0..few.count).try_for_each(|_| replay(context, &graph));
        by_events(context, few.count, all)
    });
    context.probe(round_trip, &launches(1), |context| {
        by_host(context, 1, || {
            one.launch(context)?;
            context.cuda().synchronize()?;
            Ok(())
        })
    });
}
