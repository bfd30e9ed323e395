//! The ways of cudarc's safe layer.

use std::sync::Arc;

use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, DriverError, LaunchConfig, PushKernelArg, sys,
};
use cudarc::nvrtc::Ptx;
use stepscope_device::driver::Device;

use super::{KERNEL, PTX, THREADS, Way};
use crate::Error;

fn failed(error: DriverError) -> Error {
    Error::Unusable(format!("cudarc: {error}"))
}

/// Whether cudarc's own loader comes to the driver of `device`: it takes the first `libcuda.so.1` of the process, or of the loader's
/// path, whatever else was opened; and panics where there is none.
pub(super) fn usable(device: &Device) -> Result<(), String> {
    // SAFETY: it opens the library, and closes it again.
    if !unsafe { sys::is_culib_present() } {
        return Err("cudarc's loader finds no libcuda".to_owned());
    }
    let context = CudaContext::new(device.ordinal).map_err(|error| format!("cudarc: {error}"))?;
    let name = context.name().map_err(|error| format!("cudarc: {error}"))?;
    match name == device.name {
        true => Ok(()),
        false => Err(format!(
            "cudarc's loader opened the driver of {name}, and the others run on {}",
            device.name
        )),
    }
}

/// `launch_builder`, with six arguments pushed.
pub(super) struct Builder {
    stream: Arc<CudaStream>,
    function: CudaFunction,
    counter: CudaSlice<u64>,
    a: CudaSlice<f32>,
    b: CudaSlice<f32>,
    c: CudaSlice<f32>,
}

impl Builder {
    /// With `tracks`, as cudarc does by itself: slices carry events, for which each launch waits and which it records.
    pub(super) fn new(ordinal: usize, tracks: bool) -> Result<Builder, Error> {
        let context = CudaContext::new(ordinal).map_err(failed)?;
        if !tracks {
            // SAFETY: nothing is allocated in this context yet, and one stream is used.
            unsafe { context.disable_event_tracking() };
        }
        let module = context.load_module(Ptx::from_src(PTX)).map_err(failed)?;
        let stream = context.new_stream().map_err(failed)?;
        let numbers = || stream.alloc_zeros::<f32>(32).map_err(failed);
        Ok(Builder {
            function: module.load_function(KERNEL).map_err(failed)?,
            counter: stream.alloc_zeros(1).map_err(failed)?,
            a: numbers()?,
            b: numbers()?,
            c: numbers()?,
            stream,
        })
    }
}

impl Way for Builder {
    fn launch(&mut self, count: usize) -> Result<(), Error> {
        let config = LaunchConfig {
            grid_dim: (1, 1, 1),
            block_dim: (THREADS, 1, 1),
            shared_mem_bytes: 0,
        };
        for _ in 0..count {
            let mut launch = self.stream.launch_builder(&self.function);
            launch
                .arg(&mut self.counter)
                .arg(&self.a)
                .arg(&self.b)
                .arg(&mut self.c)
                .arg(&1_u32)
                .arg(&0.5_f32);
            // SAFETY: these are the kernel's six parameters, and it writes to the counter alone.
            unsafe { launch.launch(config) }.map_err(failed)?;
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<u64, Error> {
        let count = self.stream.clone_dtoh(&self.counter).map_err(failed)?;
        self.stream.synchronize().map_err(failed)?;
        count
            .first()
            .copied()
            .ok_or_else(|| Error::Unusable("no counter came back".to_owned()))
    }
}
