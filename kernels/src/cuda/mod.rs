//! The CUDA device: the operations as kernels, through `stepscope-device`.
//!
//! [`Cuda`] owns a stream, in which everything happens in order, and the kernels it has compiled so far: NVRTC makes each from the
//! source beside the operation when it is first needed, and keeps it on disk. Activations, weights and the KV pool are stored in
//! one 16-bit type; sums are in `f32`.
//!
//! The same code runs on a GPU and on the emulated device.

mod backend;
mod memory;
#[cfg(test)]
pub(crate) mod testing;

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use stepscope_device::driver::{Arguments, Context, Driver, Kernel, Launch, Module, Stream};
use stepscope_device::nvrtc::{Arch, Cache, Compiler, Options, Program};

pub use memory::{CudaBuffer, CudaIndices, CudaKvPool, CudaMatrix, CudaRopeTable, CudaVector};

use crate::{DType, Error};

/// What every kernel includes.
const PRELUDE: &str = include_str!("prelude.cuh");

/// The source of an operation's kernels.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

/// A source, and the numbers that tell its instances apart.
type Key = (&'static str, [u32; 4]);

/// A GPU, or the emulated device, that runs the operations of a step.
pub struct Cuda {
    context: Arc<Context>,
    stream: Arc<Stream>,
    compiler: Compiler,
    /// Where compiled kernels are kept; nowhere for a user without a home.
    cache: Option<Cache>,
    arch: Arch,
    dtype: DType,
    kernels: Mutex<HashMap<Key, Arc<dyn Any + Send + Sync>>>,
    workspace: memory::Workspace,
}

impl Cuda {
    /// The device with this ordinal, its activations, weights and keys and values stored as `dtype`.
    ///
    /// # Errors
    /// `dtype` is not a 16-bit type, there is no such device, its compute capability is below 8.0, or NVRTC is missing or does
    /// not know it.
    pub fn new(driver: &Arc<Driver>, ordinal: usize, dtype: DType) -> Result<Cuda, Error> {
        if !matches!(dtype, DType::BF16 | DType::F16) {
            return Err(Error::shape(format!(
                "the CUDA device stores bfloat16 or float16, not {dtype}"
            )));
        }
        let context = Context::new(driver, ordinal)?;
        let device = context.device();
        let [major, minor] = device.compute_capability;
        if major < 8 {
            return Err(Error::shape(format!(
                "{} has compute capability {major}.{minor}; the kernels need 8.0 (Ampere) or newer",
                device.name
            )));
        }
        let compiler = Compiler::open_for_driver(driver.version())?;
        let arch = compiler.arch_for(major, minor)?;
        let stream = Stream::new(&context)?;
        let workspace = memory::Workspace::new(&context)?;
        Ok(Cuda {
            context,
            stream,
            compiler,
            cache: Cache::for_this_user(),
            arch,
            dtype,
            kernels: Mutex::new(HashMap::new()),
            workspace,
        })
    }

    /// The context it works in.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The stream in which everything happens.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// The storage type's name in the kernels.
    pub(crate) fn element(&self) -> &'static str {
        if self.dtype == DType::F16 {
            "f16"
        } else {
            "bf16"
        }
    }

    /// Multiprocessors of the device: what tile choosers fill.
    pub(crate) fn multiprocessors(&self) -> usize {
        self.context.device().limits.multiprocessors as usize
    }

    /// The kernel that `expression` names, compiled and loaded when it is first asked for. `numbers` tell it apart from others
    /// of its source.
    pub(crate) fn kernel<A: Arguments + Send + Sync + 'static>(
        &self,
        source: &'static Source,
        numbers: [u32; 4],
        expression: impl FnOnce() -> String,
    ) -> Result<Arc<Kernel<A>>, Error> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = kernels.get(&(source.name, numbers)) {
            let kernel = Arc::clone(kernel).downcast::<Kernel<A>>();
            return kernel.map_err(|_| {
                Error::shape(format!(
                    "{}: two kernels have the numbers {numbers:?}",
                    source.name
                ))
            });
        }
        let expression = expression();
        let program = Program::new(source.name, source.text)
            .header("prelude.cuh", PRELUDE)
            .kernel(expression.clone())
            .options(Options {
                line_info: true,
                ..Options::default()
            });
        let compiled = match &self.cache {
            Some(cache) => self.compiler.compile_cached(&program, self.arch, cache)?,
            None => self.compiler.compile(&program, self.arch)?,
        };
        let module = Module::from_compiled(&self.context, &compiled)?;
        let function = module.function(compiled.lowered_name(&expression))?;
        let kernel = Arc::new(function.with_arguments::<A>()?);
        kernels.insert((source.name, numbers), Arc::<Kernel<A>>::clone(&kernel));
        Ok(kernel)
    }

    /// Puts a kernel into the stream.
    ///
    /// # Safety
    /// As [`Kernel::launch`].
    pub(crate) unsafe fn launch<A: Arguments>(
        &self,
        kernel: &Kernel<A>,
        launch: &Launch,
        arguments: &A,
    ) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { kernel.launch(&self.stream, launch, arguments)? };
        Ok(())
    }
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cuda")
            .field("device", &self.context.device().name)
            .field("arch", &self.arch)
            .field("dtype", &self.dtype)
            .finish_non_exhaustive()
    }
}
