//! How a kernel is timed.
//!
//! `collect` is the loop: rounds of one sample of each subject, in turn, until `stopping` says that there are enough; `clock_filter`
//! sets aside what was taken while the clock was held down; `plan` makes samples of launches (rotated copies, graphs of short ones).
//! All of that is numbers, and is tested on streams of numbers. `device` takes one sample: it flushes the L2 cache, holds the stream
//! until all is queued, and reads events and clocks. docs/measuring.md has each rule with its number and why.

mod clock_filter;
mod collect;
mod device;
mod entropy;
mod pair;
mod plan;
mod series;
mod settings;
#[cfg(test)]
mod simulated;
mod stopping;
mod subject;

pub use pair::verdict;
pub use plan::copies;
pub use series::{CacheState, Measured, Sample, Series, Stopped};
pub use settings::{L2, Rule, Settings};
pub use subject::{Subject, Work};

use std::fmt;
use std::sync::{Mutex, PoisonError};

use stepscope_kernels::Backend as _;
use stepscope_kernels::cuda::Cuda;
use stepscope_profiler::Timer;

use self::collect::{Source as _, collect};
pub(crate) use self::device::program;
use self::device::{Rig, Samples};
use crate::Error;

/// Why an emulated device has no times.
const EMULATED: &str = "an emulated device has no time";

/// A device to measure on.
pub struct Bench<'a> {
    cuda: &'a Cuda,
    /// Made when something is first timed: an emulated device never needs it.
    rig: Mutex<Option<Rig>>,
}

impl fmt::Debug for Bench<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench")
            .field("cuda", self.cuda)
            .finish_non_exhaustive()
    }
}

impl<'a> Bench<'a> {
    /// Measures on `cuda`, in its stream.
    ///
    /// # Errors
    /// The device has no memory for what measuring needs, or its kernels do not compile.
    pub fn new(cuda: &'a Cuda) -> Result<Bench<'a>, Error> {
        let rig = match cuda.context().device().is_emulated() {
            true => None,
            false => Some(Rig::new(cuda)?),
        };
        Ok(Bench {
            cuda,
            rig: Mutex::new(rig),
        })
    }

    /// The device.
    pub fn cuda(&self) -> &'a Cuda {
        self.cuda
    }

    /// Launches `subject` on each copy of its inputs, checks the results, and then times it.
    ///
    /// # Errors
    /// The results are wrong ([`Error::Wrong`]), or the device failed.
    pub fn measure(
        &self,
        subject: &mut dyn Subject,
        settings: &Settings,
    ) -> Result<Measured, Error> {
        let [measured] = self.measure_in_turn([subject], settings)?;
        Ok(measured)
    }

    /// Two in turn, A B A B: a change of clock or of temperature meets both. [`verdict`] says which is faster.
    ///
    /// # Errors
    /// As [`Bench::measure`].
    pub fn measure_pair(
        &self,
        pair: [&mut dyn Subject; 2],
        settings: &Settings,
    ) -> Result<[Measured; 2], Error> {
        self.measure_in_turn(pair, settings)
    }

    fn measure_in_turn<const N: usize>(
        &self,
        mut subjects: [&mut dyn Subject; N],
        settings: &Settings,
    ) -> Result<[Measured; N], Error> {
        self.check(&mut subjects)?;
        if self.cuda.context().device().is_emulated() {
            return Ok(std::array::from_fn(|_| Measured::Untimed(EMULATED)));
        }
        Ok(self.time(&mut subjects, settings)?.map(Measured::Timed))
    }

    /// Launches every copy of each, which also loads what they need, and holds the results against their references.
    fn check<const N: usize>(&self, subjects: &mut [&mut dyn Subject; N]) -> Result<(), Error> {
        for subject in subjects {
            for copy in 0..subject.copies().max(1) {
                subject.launch(copy)?;
            }
            self.cuda.synchronize()?;
            subject.check()?;
        }
        Ok(())
    }

    /// Times subjects that were checked. On an emulated device the numbers mean nothing: only tests of how it is done ask for them.
    fn time<const N: usize>(
        &self,
        subjects: &mut [&mut dyn Subject; N],
        settings: &Settings,
    ) -> Result<[Series; N], Error> {
        let mut rig = self.rig.lock().unwrap_or_else(PoisonError::into_inner);
        let rig = match &mut *rig {
            Some(rig) => rig,
            none => none.insert(Rig::new(self.cuda)?),
        };
        let default_khz = self.cuda.context().device().limits.clock_khz;
        let default_hz = Some(1e3 * f64::from(default_khz));
        let mut samples = Samples::new(self.cuda, rig, subjects, settings)?;
        let mut collected = collect::<N>(&mut samples, settings, default_hz)?.into_iter();
        let mut side = 0;
        Ok([(); N].map(|()| {
            let mut series = Series::new(Timer::Event, samples.launches(side), Vec::new());
            series.l2 = Some(samples.l2(side));
            series.launch_hidden = samples.is_held();
            if let Some(of) = collected.next() {
                series.samples = of.samples;
                series.set_aside = of.set_aside;
                series.stopped = Some(of.stopped);
            }
            side += 1;
            series
        }))
    }
}
