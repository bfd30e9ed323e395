//! The way of cust's `launch!`.

use cust::context::Context;
use cust::error::CudaError;
use cust::launch;
use cust::memory::{CopyDestination as _, DeviceBuffer};
use cust::module::Module;
use cust::stream::{Stream, StreamFlags};
use stepscope_microbench::Error;
use stepscope_microbench::benches::launch::{KERNEL, PTX, THREADS, Way};

/// What cust's kernel needs. The fields go in this order, the context last.
pub(crate) struct Cust {
    counter: DeviceBuffer<u64>,
    numbers: DeviceBuffer<f32>,
    stream: Stream,
    module: Module,
    _context: Context,
}

fn failed(error: CudaError) -> Error {
    Error::Unusable(format!("cust: {error}"))
}

impl Cust {
    /// In the primary context of the first device, which all ways share.
    pub(crate) fn make() -> Result<Box<dyn Way>, Error> {
        let context = cust::quick_init().map_err(failed)?;
        Ok(Box::new(Cust {
            module: Module::from_ptx(PTX, &[]).map_err(failed)?,
            stream: Stream::new(StreamFlags::NON_BLOCKING, None).map_err(failed)?,
            counter: DeviceBuffer::zeroed(1).map_err(failed)?,
            numbers: DeviceBuffer::zeroed(32).map_err(failed)?,
            _context: context,
        }))
    }
}

impl Way for Cust {
    fn launch(&mut self, count: usize) -> Result<(), Error> {
        let function = self.module.get_function(KERNEL).map_err(failed)?;
        let stream = &self.stream;
        let numbers = self.numbers.as_device_ptr();
        for _ in 0..count {
            // SAFETY: these are the kernel's six parameters, and it writes to the counter alone.
            unsafe {
                launch!(function<<<1, THREADS, 0, stream>>>(
                    self.counter.as_device_ptr(),
                    numbers,
                    numbers,
                    numbers,
                    1_u32,
                    0.5_f32
                ))
            }
            .map_err(failed)?;
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<u64, Error> {
        self.stream.synchronize().map_err(failed)?;
        let mut count = [0];
        self.counter.copy_to(&mut count).map_err(failed)?;
        Ok(count[0])
    }
}
