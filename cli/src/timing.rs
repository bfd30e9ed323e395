//! Which timer takes the times of a run on a GPU, and who watches the GPU meanwhile.

use std::sync::Arc;

use stepscope_device::cupti::{self, Cupti, Graphs, Session};
use stepscope_device::driver::{Context, Stream};
use stepscope_device::nvml::Monitor;
use stepscope_device::{Error, Kind};
use stepscope_profiler::gpu_watch::{PERIOD, Sampler};
use stepscope_profiler::{Clock, CuptiCounters, CuptiTracer, EventClock, Timer, Timing};

use crate::args::timers::TimerChoice;
use crate::device::Gpu;
use crate::output::Failure;

/// The clock of a run in `stream`, and what the record says of it. A person who names a timer gets that one or an error; `auto` gets
/// the best there is, and the reason why it is not a better one.
pub(crate) fn choose(
    choice: TimerChoice,
    stream: &Arc<Stream>,
) -> Result<(Clock, Timing), Failure> {
    let timing = |timer: Timer, reason: Option<&str>| Timing {
        timer,
        cupti: None,
        reason: reason.map(str::to_owned),
        overhead: Vec::new(),
        sm_clock: None,
    };
    match choice {
        TimerChoice::Wall => {
            let reason = Some("--timer wall was asked for");
            Ok((Clock::HostOfQueue, timing(Timer::None, reason)))
        }
        TimerChoice::Events => {
            let reason = Some("--timer events was asked for");
            Ok((events(stream), timing(Timer::Event, reason)))
        }
        TimerChoice::Graph => {
            let reason = Some("--timer graph was asked for");
            Ok((events(stream), timing(Timer::Graph, reason)))
        }
        TimerChoice::Cupti => traced(stream).map_err(|error| {
            let way_out = match cupti::is_other_profiler(&error) {
                true => "",
                false => "; --timer events does without it",
            };
            Failure::run(format!(
                "--timer cupti is not possible here: {error}{way_out}"
            ))
        }),
        TimerChoice::Auto => Ok(match traced(stream) {
            Ok(traced) => traced,
            Err(error) => {
                let reason = format!("CUPTI was not available: {error}");
                (events(stream), timing(Timer::Event, Some(&reason)))
            }
        }),
    }
}

fn events(stream: &Arc<Stream>) -> Clock {
    Clock::Device(Box::new(EventClock::new(stream)))
}

fn traced(stream: &Arc<Stream>) -> Result<(Clock, Timing), Error> {
    let library = Cupti::open()?;
    let session = Session::start(&library, stream.context(), Graphs::Nodes)?;
    let timing = Timing {
        timer: Timer::Cupti,
        cupti: Some(library.version()),
        reason: library.known_problem().map(str::to_owned),
        overhead: Vec::new(),
        sm_clock: None,
    };
    Ok((Clock::Traced(Box::new(CuptiTracer::new(session))), timing))
}

/// Why there are no hardware counters whatever a machine allows.
pub(crate) fn why_no_counters(gpu: Option<&Gpu>) -> Option<&'static str> {
    match gpu {
        None => Some(
            "--counters: there are none, since they are those of a GPU and the CPU device runs these steps; use --device cuda",
        ),
        Some(gpu) if gpu.is_emulated() => Some(
            "--counters: there are none, since an emulated device has no hardware; what it counts itself stands in the tables",
        ),
        Some(_) => None,
    }
}

/// What counts `metrics`, by default those of [`cupti::COUNTERS`], of the kernels in `context`; or why nothing can, in a sentence.
///
/// # Errors
/// A metric that this chip does not have.
pub(crate) fn counters(
    metrics: &[String],
    context: &Arc<Context>,
) -> Result<Result<CuptiCounters, String>, Failure> {
    let metrics = match metrics {
        [] => cupti::COUNTERS.map(str::to_owned).to_vec(),
        given => given.to_vec(),
    };
    match Cupti::open().and_then(|cupti| CuptiCounters::new(&cupti, context, &metrics)) {
        Ok(counters) => Ok(Ok(counters)),
        // Not CUPTI's refusal: a name that is not known.
        Err(error) if error.kind() == Kind::Profiler && error.code().is_none() => {
            Err(Failure::input(format!("--counters: {error}")))
        }
        Err(error) => Ok(Err(error.to_string())),
    }
}

/// Watches the GPU with this UUID in the background.
///
/// # Errors
/// Why nobody can, in a sentence.
pub(crate) fn watch(uuid: &str) -> Result<Sampler, String> {
    let mut monitor = Monitor::open(uuid).map_err(|error| error.to_string())?;
    Sampler::start(Box::new(move || monitor.sample()), PERIOD)
        .map_err(|error| format!("the system gives no thread for it: {error}"))
}
