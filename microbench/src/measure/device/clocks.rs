//! The clock of the multiprocessors around a launch, from the device's own counters: no permission is needed, and nothing is sampled.

use std::sync::Arc;

use stepscope_device::arguments;
use stepscope_device::driver::{DeviceBuffer, DevicePointer, Kernel, Launch, Module};
use stepscope_kernels::cuda::Cuda;

use crate::Error;

arguments! {
    /// `read_clocks(ulonglong2 *out)`
    struct ReadArguments {
        out: DevicePointer,
    }
}

/// Two readings of a multiprocessor's clocks, before and after a launch.
#[derive(Debug)]
pub(super) struct Clocks {
    kernel: Kernel<ReadArguments>,
    /// Nanoseconds and cycles, twice.
    readings: DeviceBuffer<u64>,
    blocks: u32,
    last_ns: u64,
}

/// Which reading.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reading {
    Before,
    After,
}

impl Clocks {
    pub(super) fn new(cuda: &Cuda, module: &Arc<Module>) -> Result<Clocks, Error> {
        let mut readings = DeviceBuffer::new(cuda.context(), "readings of the clocks", 4)?;
        readings.fill(cuda.stream(), 0)?;
        Ok(Clocks {
            kernel: module.function("read_clocks")?.with_arguments()?,
            readings,
            blocks: cuda.context().device().limits.multiprocessors.max(1),
            last_ns: 0,
        })
    }

    /// Puts a reading into the stream.
    pub(super) fn read(&self, cuda: &Cuda, reading: Reading) -> Result<(), Error> {
        let out = self.readings.pointer_to(2 * reading as usize)?;
        let launch = Launch::of_blocks(self.blocks, 1);
        // SAFETY: a reading is two numbers, which lie within the buffer, aligned as it is; nothing else uses them in this stream, and
        // the buffer is freed behind everything in flight.
        unsafe { cuda.launch(&self.kernel, &launch, &ReadArguments { out })? };
        Ok(())
    }

    /// Both readings.
    #[cfg(test)]
    pub(super) fn readings(&self, cuda: &Cuda) -> [u64; 4] {
        let mut readings = [0; 4];
        self.readings.read(cuda.stream(), 0, &mut readings).unwrap();
        readings
    }

    /// The clock between the two readings, Hz, when the stream was waited for. None where a reading did not come: no block ran on
    /// multiprocessor 0, as it may be where others share the device.
    pub(super) fn clock_hz(&mut self, cuda: &Cuda) -> Result<Option<f64>, Error> {
        let mut readings = [0; 4];
        self.readings.read(cuda.stream(), 0, &mut readings)?;
        let clock = clock_hz(readings, self.last_ns);
        self.last_ns = readings[2];
        Ok(clock)
    }
}

/// Of `[ns, cycles]` before and after, where the readings before ended at `last_ns`.
fn clock_hz([from_ns, from, to_ns, to]: [u64; 4], last_ns: u64) -> Option<f64> {
    let is_new = from_ns > last_ns;
    let nanoseconds = to_ns.checked_sub(from_ns).filter(|ns| *ns > 0)?;
    let cycles = to.checked_sub(from).filter(|cycles| *cycles > 0)?;
    is_new.then(|| 1e9 * cycles as f64 / nanoseconds as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_cycles_by_time() {
        assert_eq!(clock_hz([1000, 500, 11_000, 18_000], 0), Some(1.75e9));
        // A reading that did not come leaves what was there.
        assert_eq!(clock_hz([1000, 500, 11_000, 18_000], 11_000), None);
        assert_eq!(clock_hz([11_000, 18_000, 1000, 500], 0), None);
        assert_eq!(clock_hz([1000, 500, 1000, 18_000], 0), None);
        assert_eq!(clock_hz([1000, 18_000, 2000, 500], 0), None);
    }
}
