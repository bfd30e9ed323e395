//! The CUDA kernel's launcher.

use std::fmt;
use std::sync::Arc;

use stepscope_device::arguments;
use stepscope_device::driver::{DeviceBuffer, DevicePointer, Kernel, Launch, Stream};

use super::{Reading, mhz};
use crate::Error;
use crate::cuda::{Cuda, Source};

static SOURCE: Source = Source {
    name: "sm_clock.cu",
    text: include_str!("sm_clock.cu"),
};

arguments! {
    struct ReadClocks {
        out: DevicePointer,
        blocks: u32,
    }
}

/// Places for readings of the multiprocessors' clocks, and the kernel that takes them in the stream of the [`Cuda`] that it was
/// made for.
///
/// Its launches are not counted among those of [`Backend::launches`](crate::Backend::launches): they belong to no operation.
pub struct SmClock {
    kernel: Arc<Kernel<ReadClocks>>,
    stream: Arc<Stream>,
    /// `[places, 3, blocks]`.
    readings: DeviceBuffer<u64>,
    places: usize,
    blocks: usize,
    is_emulated: bool,
}

impl SmClock {
    /// Places for `places` readings.
    ///
    /// # Errors
    /// The kernel cannot be compiled or loaded, or memory ran out.
    pub fn new(cuda: &Cuda, places: usize) -> Result<SmClock, Error> {
        SmClock::of_blocks(cuda, places, cuda.multiprocessors())
    }

    fn of_blocks(cuda: &Cuda, places: usize, blocks: usize) -> Result<SmClock, Error> {
        let kernel = cuda.kernel::<ReadClocks>(&SOURCE, [0; 4], expression)?;
        let what = "readings of the multiprocessors' clocks";
        let mut readings = DeviceBuffer::new(cuda.context(), what, places * 3 * blocks)?;
        readings.fill(cuda.stream(), 0)?;
        Ok(SmClock {
            kernel,
            stream: Arc::clone(cuda.stream()),
            readings,
            places,
            blocks,
            is_emulated: cuda.context().device().is_emulated(),
        })
    }

    /// How many readings can be kept.
    pub fn places(&self) -> usize {
        self.places
    }

    /// Takes a reading at this point of the stream, into `place`; nothing is waited for.
    ///
    /// # Errors
    /// There is no such place, or the driver refused the launch.
    pub fn read_at(&mut self, place: usize) -> Result<(), Error> {
        let first = self.first(place)?;
        let arguments = ReadClocks {
            out: self.readings.pointer_to(first)?,
            blocks: self.blocks as u32,
        };
        // SAFETY: the place has three numbers for each block, and the buffer goes away only with this, behind its stream's work.
        unsafe {
            self.kernel
                .launch(&self.stream, &geometry(self.blocks), &arguments)?;
        }
        Ok(())
    }

    /// What was read into `place`, once the stream has come to its end.
    ///
    /// # Errors
    /// There is no such place, or something in the stream failed.
    pub fn readings(&self, place: usize) -> Result<Vec<Reading>, Error> {
        let mut numbers = vec![0; 3 * self.blocks];
        self.readings
            .read(&self.stream, self.first(place)?, &mut numbers)?;
        let [multiprocessors, cycles, ns] = [0, 1, 2].map(|row| &numbers[row * self.blocks..]);
        let of_block = |block: usize| Reading {
            multiprocessor: multiprocessors[block] as u32,
            cycles: cycles[block],
            ns: ns[block],
        };
        Ok((0..self.blocks).map(of_block).collect())
    }

    /// The clock in MHz between two readings, which is waited for; `None` on an emulated device, and where the readings do not tell
    /// ([`mhz`]).
    ///
    /// # Errors
    /// As [`SmClock::readings`].
    pub fn mhz(&self, from: usize, to: usize) -> Result<Option<f64>, Error> {
        let (before, after) = (self.readings(from)?, self.readings(to)?);
        if self.is_emulated {
            return Ok(None);
        }
        Ok(mhz(&before, &after))
    }

    /// Where a place begins.
    fn first(&self, place: usize) -> Result<usize, Error> {
        if place >= self.places {
            return Err(Error::shape(format!(
                "place {place} of the clock's readings: there are {}",
                self.places
            )));
        }
        Ok(place * 3 * self.blocks)
    }
}

impl fmt::Debug for SmClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmClock")
            .field("places", &self.places)
            .field("blocks", &self.blocks)
            .finish_non_exhaustive()
    }
}

fn expression() -> String {
    "sm_clock".to_owned()
}

fn geometry(blocks: usize) -> Launch {
    Launch::of_blocks(blocks as u32, 1)
}

pub(crate) mod catalog;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::cuda::testing::emulated;

    #[test]
    fn every_multiprocessor_is_read_and_counts_on() {
        let Some(cuda) = emulated(DType::BF16) else {
            return;
        };
        let launches = crate::Backend::launches(&*cuda).unwrap();
        let before = launches.load(std::sync::atomic::Ordering::Relaxed);
        let mut clock = SmClock::new(&cuda, 3).unwrap();
        for place in [2, 0] {
            clock.read_at(place).unwrap();
        }
        assert_eq!(cuda.reports().len(), 2);
        let [first, second] = [2, 0].map(|place| clock.readings(place).unwrap());
        assert_eq!(first.len(), cuda.multiprocessors());
        for (block, (a, b)) in first.iter().zip(&second).enumerate() {
            // The emulated device gives its blocks to multiprocessors in order.
            assert_eq!([a.multiprocessor, b.multiprocessor], [block as u32; 2]);
            assert!(a.cycles > 0 && a.ns >= a.cycles, "{a:?}");
        }
        // The place between them is as it was.
        assert!(clock.readings(1).unwrap().iter().all(|r| r.cycles == 0));
        // An emulated device has no clock.
        assert_eq!(clock.mhz(2, 0).unwrap(), None);
        assert_eq!(launches.load(std::sync::atomic::Ordering::Relaxed), before);
    }

    #[test]
    fn a_place_that_is_not_there_is_refused() {
        let Some(cuda) = emulated(DType::BF16) else {
            return;
        };
        let mut clock = SmClock::new(&cuda, 2).unwrap();
        let expected = "place 2 of the clock's readings: there are 2";
        let errors = [
            clock.read_at(2).unwrap_err(),
            clock.readings(2).unwrap_err(),
            clock.mhz(0, 2).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.to_string(), expected);
        }
    }
}
