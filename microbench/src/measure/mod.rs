//! How a kernel is timed.

mod series;
mod settings;
mod subject;

pub use series::{CacheState, Measured, Sample, Series, Stopped};
pub use settings::{L2, Settings};
pub use subject::{Subject, Work};

use stepscope_device::driver::Event;
use stepscope_kernels::Backend as _;
use stepscope_kernels::cuda::Cuda;
use stepscope_profiler::Timer;

use crate::Error;

/// Why an emulated device has no times.
const EMULATED: &str = "an emulated device has no time";

/// A device to measure on.
#[derive(Debug)]
pub struct Bench<'a> {
    cuda: &'a Cuda,
}

impl<'a> Bench<'a> {
    /// Measures on `cuda`, in its stream.
    ///
    /// # Errors
    /// The device has no memory for what measuring needs.
    pub fn new(cuda: &'a Cuda) -> Result<Bench<'a>, Error> {
        Ok(Bench { cuda })
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

    /// Two in turn, A B A B: a change of clock or of temperature meets both.
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
        for subject in &mut subjects {
            for copy in 0..subject.copies() {
                subject.launch(copy)?;
            }
            self.cuda.synchronize()?;
            subject.check()?;
        }
        if self.cuda.context().device().is_emulated() {
            return Ok(std::array::from_fn(|_| Measured::Untimed(EMULATED)));
        }
        let context = self.cuda.context();
        let (start, end) = (Event::with_time(context)?, Event::with_time(context)?);
        let mut all: [Vec<Sample>; N] = std::array::from_fn(|_| Vec::new());
        for round in 0..settings.most_samples {
            for (subject, samples) in subjects.iter_mut().zip(&mut all) {
                start.record(self.cuda.stream())?;
                subject.launch(round % subject.copies())?;
                end.record(self.cuda.stream())?;
                end.synchronize()?;
                samples.push(Sample {
                    time_ns: 1e6 * end.elapsed_ms(&start)?,
                    sm_clock_hz: None,
                });
            }
        }
        Ok(all.map(|samples| Measured::Timed(Series::new(Timer::Event, 1, samples))))
    }
}
