use stepscope_kernels::Error;
use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::sm_clock::SmClock;
use stepscope_profiler::CycleClock;

/// The clock that a GPU's multiprocessors hold during a step, by a small kernel before it and one behind it
/// ([`stepscope_kernels::sm_clock`]).
#[derive(Debug)]
pub struct StepClock {
    clock: SmClock,
    /// The reading before the step was taken.
    is_read: bool,
}

impl StepClock {
    /// Where the clock comes from, as a record says it.
    pub const SOURCE: &str = "cycles of a multiprocessor (%clock64) over nanoseconds of the GPU's timer (%globaltimer), by a kernel before and one behind each step";

    /// Reads the clock in the stream of `cuda`.
    ///
    /// # Errors
    /// The kernel cannot be compiled or loaded, or memory ran out.
    pub fn new(cuda: &Cuda) -> Result<StepClock, Error> {
        Ok(StepClock {
            clock: SmClock::new(cuda, 2)?,
            is_read: false,
        })
    }
}

impl CycleClock for StepClock {
    fn before(&mut self) {
        self.is_read = self.clock.read_at(0).is_ok();
    }

    fn behind(&mut self) -> Option<f64> {
        // A step whose clock cannot be read has none; what is wrong with the device, its next call says.
        if !std::mem::take(&mut self.is_read) {
            return None;
        }
        self.clock.read_at(1).ok()?;
        self.clock.mhz(0, 1).ok()?
    }
}
