//! What criterion measures with: the host's clock, CUDA events, or CUPTI's records of the kernels themselves.
//!
//! criterion plans with the host's clock whatever the measurement is: `iters` follows from how long warming up took on the wall, and
//! `start` and `end` stand around all iterations of a sample, the gaps between launches included. So the groups sample flat
//! ([`SamplingMode::Flat`](criterion::SamplingMode::Flat)), and benchmarks of a device hand over the sum of the times of single
//! launches (`iter_custom`).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use criterion::measurement::{Measurement, ValueFormatter};
use stepscope_device::cupti::{Cupti, Graphs, Session};
use stepscope_device::driver::{Event, Stream};
use stepscope_profiler::Timer;

use super::format::Format;
use super::profile::{KernelSpan, Profile};
use super::roofs::Bound;
use crate::Error;

/// A clock for criterion. Its values are nanoseconds.
#[derive(Clone)]
pub struct Stopwatch {
    timer: Rc<Kind>,
    format: Format,
    /// What went wrong first. criterion's measurements cannot fail: the time is 0 then, of which it makes no estimate.
    failure: Failures,
}

/// What went wrong first in any benchmark.
#[derive(Debug, Clone, Default)]
pub(super) struct Failures(Rc<RefCell<Option<Error>>>);

impl Failures {
    /// The value; or 0, and a note of why.
    pub(super) fn note(&self, outcome: Result<f64, Error>) -> f64 {
        outcome.unwrap_or_else(|error| {
            self.0.borrow_mut().get_or_insert(error);
            0.0
        })
    }

    /// What went wrong since the last time this was asked.
    pub(super) fn take(&self) -> Option<Error> {
        self.0.borrow_mut().take()
    }
}

enum Kind {
    Host,
    Events(Arc<Stream>),
    Kernels(Box<dyn Kernels>),
}

/// Who knows how long kernels ran.
trait Kernels {
    /// Forgets what ran so far.
    fn forget(&self) -> Result<(), Error>;

    /// Nanoseconds in which kernels ran since then, one behind the other; waits for them.
    fn ran_ns(&self) -> Result<f64, Error>;
}

struct CuptiKernels {
    session: RefCell<Session>,
    stream: Arc<Stream>,
    /// Who may want to see them.
    profile: Rc<RefCell<Profile>>,
}

impl Kernels for CuptiKernels {
    fn forget(&self) -> Result<(), Error> {
        self.stream.synchronize()?;
        self.session.borrow_mut().take_all()?;
        Ok(())
    }

    fn ran_ns(&self) -> Result<f64, Error> {
        self.stream.synchronize()?;
        let activity = self.session.borrow_mut().take_all()?;
        if activity.dropped > 0 {
            return Err(Error::Unusable(format!(
                "CUPTI dropped {} records, so the times of kernels are not complete; measure fewer launches per sample (--measurement-time)",
                activity.dropped
            )));
        }
        let spans = activity.kernels.iter();
        let kept = spans.clone().map(|kernel| KernelSpan {
            name: Arc::clone(&kernel.name),
            stream: kernel.stream,
            start_ns: kernel.start_ns,
            end_ns: kernel.end_ns,
        });
        self.profile.borrow_mut().keep_kernels(kept);
        let total: u64 = spans
            .map(|kernel| kernel.end_ns.saturating_sub(kernel.start_ns))
            .sum();
        Ok(total as f64)
    }
}

impl Stopwatch {
    /// The host's monotonic clock.
    pub(super) fn host(format: Format, failure: Failures) -> Stopwatch {
        Stopwatch {
            timer: Rc::new(Kind::Host),
            format,
            failure,
        }
    }

    /// CUDA events in `stream`, in front of what is measured and behind it.
    pub(super) fn events(stream: &Arc<Stream>, format: Format, failure: Failures) -> Stopwatch {
        Stopwatch {
            timer: Rc::new(Kind::Events(Arc::clone(stream))),
            format,
            failure,
        }
    }

    /// CUPTI's record of each kernel: no gap between launches is in it.
    ///
    /// # Errors
    /// CUPTI is missing or refuses.
    pub(super) fn cupti(
        stream: &Arc<Stream>,
        profile: &Rc<RefCell<Profile>>,
        format: Format,
        failure: Failures,
    ) -> Result<Stopwatch, Error> {
        let session = Session::start(&Cupti::open()?, stream.context(), Graphs::Nodes)?;
        Ok(Stopwatch {
            timer: Rc::new(Kind::Kernels(Box::new(CuptiKernels {
                session: RefCell::new(session),
                stream: Arc::clone(stream),
                profile: Rc::clone(profile),
            }))),
            format,
            failure,
        })
    }

    /// What takes its times, as records call it.
    pub(super) fn timer(&self) -> Timer {
        match *self.timer {
            Kind::Host => Timer::Wall,
            Kind::Events(_) => Timer::Event,
            Kind::Kernels(_) => Timer::Cupti,
        }
    }

    /// Shares are of this bound from here on, if it is one.
    pub(super) fn bound_by(&self, bound: Option<&Bound>) {
        if let Some(bound) = bound {
            self.format.0.borrow_mut().bound = Some(bound.clone());
        }
    }

    /// The time of `work`, nanoseconds.
    pub(super) fn time(&self, work: impl FnOnce() -> Result<(), Error>) -> Result<f64, Error> {
        let begun = self.begin()?;
        work()?;
        self.elapsed_ns(begun)
    }

    fn begin(&self) -> Result<Begun, Error> {
        match &*self.timer {
            Kind::Host => {}
            Kind::Events(stream) => {
                let event = Event::with_time(stream.context())?;
                event.record(stream)?;
                return Ok(Begun::Event(event));
            }
            Kind::Kernels(kernels) => {
                kernels.forget()?;
                return Ok(Begun::Kernels);
            }
        }
        Ok(Begun::At(Instant::now()))
    }

    fn elapsed_ns(&self, begun: Begun) -> Result<f64, Error> {
        match (&*self.timer, begun) {
            (_, Begun::At(start)) => Ok(start.elapsed().as_nanos() as f64),
            (Kind::Events(stream), Begun::Event(start)) => {
                let end = Event::with_time(stream.context())?;
                end.record(stream)?;
                end.synchronize()?;
                Ok(1e6 * end.elapsed_ms(&start)?)
            }
            (Kind::Kernels(kernels), Begun::Kernels) => kernels.ran_ns(),
            _ => Ok(0.0),
        }
    }
}

/// A measurement that has begun, or could not.
enum Begun {
    At(Instant),
    Event(Event),
    Kernels,
    Failed,
}

/// See [`Measurement::Intermediate`].
pub struct Started(Cell<Begun>);

impl Measurement for Stopwatch {
    type Intermediate = Started;
    type Value = f64;

    fn start(&self) -> Started {
        let begun = self.begin().unwrap_or_else(|error| {
            self.failure.note(Err(error));
            Begun::Failed
        });
        Started(Cell::new(begun))
    }

    fn end(&self, started: Started) -> f64 {
        self.failure.note(self.elapsed_ns(started.0.into_inner()))
    }

    fn add(&self, a: &f64, b: &f64) -> f64 {
        a + b
    }

    fn zero(&self) -> f64 {
        0.0
    }

    fn to_f64(&self, value: &f64) -> f64 {
        *value
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &self.format
    }
}

impl std::fmt::Debug for Stopwatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stopwatch")
            .field("timer", &self.timer())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Started").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kernels that ran for so long, until the records are lost.
    struct Recorded(RefCell<Vec<Option<f64>>>);

    impl Kernels for Recorded {
        fn forget(&self) -> Result<(), Error> {
            Ok(())
        }

        fn ran_ns(&self) -> Result<f64, Error> {
            let next = self.0.borrow_mut().remove(0);
            next.ok_or_else(|| Error::Unusable("records are lost".to_owned()))
        }
    }

    #[test]
    fn times_of_kernels_are_theirs_and_not_the_wall_clocks() {
        let failures = Failures::default();
        let watch = Stopwatch {
            timer: Rc::new(Kind::Kernels(Box::new(Recorded(RefCell::new(vec![
                Some(1234.0),
                Some(66.0),
                None,
            ]))))),
            format: Format::default(),
            failure: failures.clone(),
        };
        let first = watch.end(watch.start());
        let second = watch.end(watch.start());
        assert_eq!(watch.add(&first, &second), 1300.0);
        assert!(failures.take().is_none());
        assert_eq!(
            watch.end(watch.start()),
            0.0,
            "of a failure criterion makes no estimate"
        );
        assert_eq!(failures.take().unwrap().to_string(), "records are lost");
    }

    #[test]
    fn the_hosts_clock_goes_on() {
        let watch = Stopwatch::host(Format::default(), Failures::default());
        let started = watch.start();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(watch.end(started) >= 2e6);
        assert_eq!(watch.timer(), Timer::Wall);
    }
}
