//! What copies within the device's memory reach.

use stepscope_device::driver::DeviceBuffer;
use stepscope_kernels::cuda::Cuda;
use stepscope_microbench::{Bench, Error, Settings, Subject, Work};

const BYTES: usize = 512 << 20;

struct Copy<'a> {
    cuda: &'a Cuda,
    from: DeviceBuffer<u8>,
    to: DeviceBuffer<u8>,
}

impl Subject for Copy<'_> {
    fn launch(&mut self, _copy: usize) -> Result<(), Error> {
        let stream = self.cuda.stream();
        Ok(self
            .to
            .copy_from(stream, 0, &self.from, 0..self.from.len())?)
    }

    fn check(&mut self) -> Result<(), Error> {
        let mut last = [0];
        self.to
            .read(self.cuda.stream(), self.to.len() - 1, &mut last)?;
        match last {
            [0x3f] => Ok(()),
            [other] => Err(Error::Wrong(format!("a copy ends in {other:#x}, not 0x3f"))),
        }
    }

    fn work(&self) -> Work {
        Work {
            flops: 0,
            bytes: 2 * self.from.len() as u64,
        }
    }
}

/// Read and written bytes together, in GB/s; nothing of an emulated device, nor where memory is short.
pub(super) fn gb_per_s(bench: &Bench<'_>, settings: &Settings) -> Result<Option<f64>, Error> {
    let cuda = bench.cuda();
    let (free, _) = cuda.context().memory()?;
    if cuda.context().device().is_emulated() || free < 4 * BYTES {
        return Ok(None);
    }
    let mut copy = copy_of(cuda, BYTES)?;
    let bytes = copy.work().bytes;
    let measured = bench.measure(&mut copy, settings)?;
    let median = measured.series().and_then(|series| series.median_ns());
    Ok(median.map(|ns| bytes as f64 / ns))
}

fn copy_of(cuda: &Cuda, bytes: usize) -> Result<Copy<'_>, Error> {
    let buffer = |what| DeviceBuffer::<u8>::new(cuda.context(), what, bytes);
    let mut copy = Copy {
        cuda,
        from: buffer("a copy's source")?,
        to: buffer("a copy's target")?,
    };
    copy.from.fill(cuda.stream(), 0x3f)?;
    copy.to.fill(cuda.stream(), 0)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use stepscope_microbench::Measured;

    use super::super::tests::emulated;
    use super::*;

    #[test]
    fn a_copy_is_checked_and_has_no_time_where_there_is_none() {
        let Some(cuda) = emulated() else { return };
        let bench = Bench::new(&cuda).unwrap();
        assert_eq!(gb_per_s(&bench, &Settings::quick()).unwrap(), None);
        let mut copy = copy_of(&cuda, 1000).unwrap();
        assert!(matches!(copy.check(), Err(Error::Wrong(_))));
        let measured = bench.measure(&mut copy, &Settings::quick()).unwrap();
        assert!(matches!(measured, Measured::Untimed(_)));
        assert_eq!(copy.work().bytes, 2000);
    }
}
