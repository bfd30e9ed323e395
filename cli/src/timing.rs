//! Which timer takes the times of a run on a GPU, and who watches the GPU meanwhile.

use std::sync::Arc;

use stepscope_device::Error;
use stepscope_device::cupti::{self, Cupti, Graphs, Session};
use stepscope_device::driver::Stream;
use stepscope_device::nvml::Monitor;
use stepscope_profiler::gpu_watch::{PERIOD, Sampler};
use stepscope_profiler::{Clock, CuptiTracer, EventClock, Timer, Timing};

use crate::args::TimerChoice;
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
    };
    Ok((Clock::Traced(Box::new(CuptiTracer::new(session))), timing))
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
