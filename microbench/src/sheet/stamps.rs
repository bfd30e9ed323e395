//! What kernels say of their own time.

use stepscope_device::driver::{DeviceBuffer, DevicePointer};
use stepscope_kernels::cuda::Cuda;

use crate::Error;

/// 64-bit words of a block's stamp: cycles and nanoseconds at begin and end, and the multiprocessor. `put_stamp` of `prelude.cuh`
/// writes them.
const WORDS: usize = 5;

/// Memory for the stamps of the blocks of a launch.
pub(super) struct Stamps {
    buffer: DeviceBuffer<u64>,
}

/// A block's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) cycles: u64,
    pub(super) ns: u64,
    pub(super) multiprocessor: u64,
}

/// What a launch took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Took {
    /// Cycles of a block, on average.
    pub(super) cycles: f64,
    /// The clock meanwhile, where the timer moved at all.
    pub(super) clock_hz: Option<f64>,
}

impl Stamps {
    pub(super) fn new(cuda: &Cuda, blocks: usize) -> Result<Stamps, Error> {
        let buffer = DeviceBuffer::new(cuda.context(), "times of blocks", WORDS * blocks)?;
        Ok(Stamps { buffer })
    }

    pub(super) fn pointer(&self) -> DevicePointer {
        self.buffer.pointer()
    }

    fn read(&self, cuda: &Cuda) -> Result<Vec<Stamp>, Error> {
        let mut words = vec![0; self.buffer.len()];
        self.buffer.read(cuda.stream(), 0, &mut words)?;
        let stamps = words.chunks_exact(WORDS).map(|word| Stamp {
            cycles: word[1].saturating_sub(word[0]),
            ns: word[3].saturating_sub(word[2]),
            multiprocessor: word[4],
        });
        Ok(stamps.collect())
    }

    /// What the last launch took, each block alone on its multiprocessor.
    ///
    /// # Errors
    /// Two blocks shared a multiprocessor.
    pub(super) fn took(&self, cuda: &Cuda) -> Result<Took, Error> {
        took(&self.read(cuda)?)
    }
}

fn took(stamps: &[Stamp]) -> Result<Took, Error> {
    let mut places: Vec<u64> = stamps.iter().map(|stamp| stamp.multiprocessor).collect();
    places.sort_unstable();
    if let Some(pair) = places.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::Unusable(format!(
            "two blocks ran on multiprocessor {}, so that neither had it to itself; is something else running on this GPU?",
            pair[0]
        )));
    }
    let sum = |of: fn(&Stamp) -> u64| stamps.iter().map(|stamp| of(stamp) as f64).sum::<f64>();
    let (cycles, ns) = (sum(|s| s.cycles), sum(|s| s.ns));
    Ok(Took {
        cycles: cycles / stamps.len().max(1) as f64,
        clock_hz: (ns > 0.0).then(|| 1e9 * cycles / ns),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(cycles: u64, ns: u64, multiprocessor: u64) -> Stamp {
        Stamp {
            cycles,
            ns,
            multiprocessor,
        }
    }

    #[test]
    fn a_launch_takes_what_its_blocks_take_on_average() {
        let took = took(&[stamp(1000, 500, 0), stamp(3000, 1500, 1)]).unwrap();
        assert_eq!((took.cycles, took.clock_hz), (2000.0, Some(2e9)));
    }

    #[test]
    fn a_timer_that_stands_still_gives_no_clock() {
        assert_eq!(took(&[stamp(100, 0, 0)]).unwrap().clock_hz, None);
    }

    #[test]
    fn blocks_that_share_a_multiprocessor_are_no_measurement() {
        let error = took(&[stamp(1, 1, 7), stamp(1, 1, 7)]).unwrap_err();
        assert!(error.to_string().contains("multiprocessor 7"), "{error}");
    }
}
