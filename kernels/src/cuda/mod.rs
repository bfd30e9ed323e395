//! The CUDA device: the operations as kernels, through `stepscope-device`.
//!
//! [`Cuda`] owns a stream, in which everything happens in order, and the kernels it has compiled so far: NVRTC makes each from the
//! source beside the operation when it is first needed, and keeps it on disk. Activations, weights and the KV pool are stored in
//! one 16-bit type; sums are in `f32`.
//!
//! The same code runs on a GPU and on the emulated device.

mod backend;
pub mod catalog;
mod example;
mod memory;
#[cfg(test)]
pub(crate) mod testing;

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use stepscope_device::driver::{Arguments, Context, Driver, Kernel, Launch, Module, Stream};
use stepscope_device::nvrtc::{Arch, Cache, Compiled, Compiler, Program};

pub use backend::CudaGraph;
pub(crate) use memory::WORKSPACE;
pub use memory::{CudaBuffer, CudaIndices, CudaKvPool, CudaMatrix, CudaRopeTable, CudaVector};
pub use memory::{round, widen};

use crate::{DType, Error, Tuning};

/// What every kernel includes.
const PRELUDE: &str = include_str!("prelude.cuh");

/// The source of an operation's kernels.
#[derive(Debug)]
pub struct Source {
    /// The file's name.
    pub name: &'static str,
    /// CUDA C++, which includes `prelude.cuh`.
    pub text: &'static str,
}

/// A source, and the numbers that tell its instances apart.
type Key = (&'static str, [u32; 4]);

/// A GPU, or the emulated device, that runs the operations of a step.
pub struct Cuda {
    context: Arc<Context>,
    stream: Arc<Stream>,
    /// NVRTC; a machine without it runs what was compiled elsewhere.
    compiler: Result<Compiler, stepscope_device::Error>,
    /// Kernels that were compiled elsewhere.
    prebuilt: Option<Cache>,
    /// Where compiled kernels are kept; nowhere for a user without a home.
    cache: Option<Cache>,
    arch: Arch,
    dtype: DType,
    kernels: Mutex<HashMap<Key, Arc<dyn Any + Send + Sync>>>,
    workspace: memory::Workspace,
    staging: Mutex<Option<memory::Staging>>,
    /// Why the context is lost.
    lost: OnceLock<String>,
    /// Kernels put into the stream.
    launches: Arc<AtomicU64>,
    /// Kernels are compiled and loaded, but not launched.
    only_loads: AtomicBool,
    /// The instance that each lowered name stands for, of the kernels compiled so far.
    expressions: Mutex<HashMap<String, String>>,
    /// The launches since somebody began to watch; nobody does most of the time.
    watched: Mutex<Vec<Launched>>,
    is_watched: AtomicBool,
    /// Kernels are built with the events of `timeline.cuh`.
    writes_events: AtomicBool,
    /// The kernels that were, by their instance.
    event_modules: Mutex<Vec<(String, Arc<Module>)>>,
    /// What takes the place of the choosers for some shapes.
    tuning: RwLock<Option<Arc<Tuning>>>,
    /// What `launches` was when the stream was last waited for.
    synchronized: AtomicU64,
}

impl Cuda {
    /// The device with this ordinal, its activations, weights and keys and values stored as `dtype`.
    ///
    /// # Errors
    /// `dtype` is not a 16-bit type, there is no such device, its compute capability is below 8.0, or NVRTC does not know it, or
    /// is missing where there are no prebuilt kernels either.
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
        let prebuilt = prebuilt_folder().map(Cache::in_folder);
        let compiler = match (Compiler::open_for_driver(driver.version()), &prebuilt) {
            (Err(error), None) => return Err(error.into()),
            (compiler, _) => compiler,
        };
        let arch = match &compiler {
            Ok(compiler) => compiler.arch_for(major, minor)?,
            Err(_) => Arch::of_device(major, minor),
        };
        let stream = Stream::new(&context)?;
        let workspace = memory::Workspace::new(&context)?;
        Ok(Cuda {
            context,
            stream,
            compiler,
            prebuilt,
            cache: Cache::for_this_user(),
            arch,
            dtype,
            kernels: Mutex::new(HashMap::new()),
            workspace,
            staging: Mutex::new(None),
            lost: OnceLock::new(),
            launches: Arc::default(),
            only_loads: AtomicBool::new(false),
            expressions: Mutex::default(),
            watched: Mutex::default(),
            is_watched: AtomicBool::new(false),
            writes_events: AtomicBool::new(false),
            event_modules: Mutex::default(),
            tuning: RwLock::default(),
            synchronized: AtomicU64::new(0),
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
        catalog::element(self.dtype)
    }

    /// The storage type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// What launches are planned for.
    pub fn target(&self) -> catalog::Target {
        catalog::Target {
            capability: self.context.device().compute_capability,
            multiprocessors: self.multiprocessors(),
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
        let mut kernels = lock(&self.kernels);
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
        debug_assert!(
            catalog::family_of(&expression, self.dtype).is_some(),
            "{expression} is not in the catalogue"
        );
        let mut program = catalog::program(source).kernel(expression.clone());
        let compiled = if self.writes_events.load(Ordering::Relaxed) {
            let define = ("STEPSCOPE_TIMELINE".to_owned(), None);
            program.options.defines.push(define);
            self.compile_now(&program, &expression)?
        } else {
            self.compile(&program, &expression)?
        };
        let module = Module::from_compiled(&self.context, &compiled)?;
        if self.writes_events.load(Ordering::Relaxed) {
            lock(&self.event_modules).push((expression.clone(), Arc::clone(&module)));
        }
        let function = module.function(compiled.lowered_name(&expression))?;
        lock(&self.expressions).insert(function.name().to_owned(), expression);
        let kernel = Arc::new(function.with_arguments::<A>()?);
        kernels.insert((source.name, numbers), Arc::<Kernel<A>>::clone(&kernel));
        Ok(kernel)
    }

    /// A program that is none of the catalogue's: as it lies compiled beside this program, or compiled now, and loaded.
    ///
    /// # Errors
    /// It does not compile, NVRTC is missing where it was not compiled before, or the driver refuses it.
    pub fn load(&self, program: &Program) -> Result<(Arc<Module>, Compiled), Error> {
        let prebuilt = match &self.prebuilt {
            Some(cache) if !self.context.device().is_emulated() => {
                cache.prebuilt(program, self.arch)
            }
            _ => None,
        };
        let compiled = match prebuilt {
            Some(compiled) => compiled,
            None => self.compile_now(program, &program.name)?,
        };
        let module = Module::from_compiled(&self.context, &compiled)?;
        Ok((module, compiled))
    }

    /// What an instance of the catalogue became for this device: machine code, PTX, and what it uses.
    ///
    /// # Errors
    /// It is no instance of the catalogue, or cannot be compiled.
    pub fn compiled(&self, expression: &str) -> Result<Compiled, Error> {
        let family = catalog::family_of(expression, self.dtype)
            .ok_or_else(|| Error::shape(format!("{expression} is not in the catalogue")))?;
        self.compile(&family.program([expression.to_owned()]), expression)
    }

    /// From now on kernels are built to write the events of `timeline.cuh`, where they have any: for a device that is to be looked
    /// into, and not timed. Kernels that it has loaded already stay as they are.
    pub fn write_events(&self) {
        self.writes_events.store(true, Ordering::Relaxed);
    }

    /// The kernels that were loaded since then, each with its instance.
    pub fn event_modules(&self) -> Vec<(String, Arc<Module>)> {
        lock(&self.event_modules).clone()
    }

    /// From now on `tuning` says, for the shapes that it has, which variant of a kernel runs; for others, and for all where it is
    /// `None`, the choosers do.
    pub fn set_tuning(&self, tuning: Option<Tuning>) {
        let mut place = self.tuning.write().unwrap_or_else(PoisonError::into_inner);
        *place = tuning.map(Arc::new);
    }

    /// What was set last.
    pub fn tuning(&self) -> Option<Arc<Tuning>> {
        let tuning = self.tuning.read().unwrap_or_else(PoisonError::into_inner);
        tuning.clone()
    }

    /// What compiles kernels on this machine, where there is something.
    pub fn compiler(&self) -> Option<&Compiler> {
        self.compiler.as_ref().ok()
    }

    /// What kernels are compiled for.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Does `work`, and says which kernels of the catalogue it put into the stream.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn watch<R>(
        &self,
        work: impl FnOnce() -> Result<R, Error>,
    ) -> Result<(R, Vec<Launched>), Error> {
        lock(&self.watched).clear();
        self.is_watched.store(true, Ordering::Relaxed);
        let done = work();
        self.is_watched.store(false, Ordering::Relaxed);
        Ok((done?, std::mem::take(&mut *lock(&self.watched))))
    }

    /// What `program`, with the kernel `expression`, became: by a machine before, by NVRTC earlier, or by NVRTC now.
    fn compile(&self, program: &Program, expression: &str) -> Result<Compiled, Error> {
        if let Some(compiled) = self.prebuilt(expression) {
            return Ok(compiled);
        }
        self.compile_now(program, expression)
    }

    /// By NVRTC, earlier or now; `what` names it in errors.
    fn compile_now(&self, program: &Program, what: &str) -> Result<Compiled, Error> {
        match (&self.compiler, &self.cache) {
            (Ok(compiler), Some(cache)) => Ok(compiler.compile_cached(program, self.arch, cache)?),
            (Ok(compiler), None) => Ok(compiler.compile(program, self.arch)?),
            (Err(error), _) => Err(Error::failed(format!(
                "{what} is not among the prebuilt kernels for {}, and cannot be compiled: {error}",
                self.arch
            ))),
        }
    }

    /// The kernel as it lies compiled beside the program.
    fn prebuilt(&self, expression: &str) -> Option<Compiled> {
        if self.context.device().is_emulated() {
            return None; // it runs PTX, which is not there
        }
        let cache = self.prebuilt.as_ref()?;
        let family = catalog::family_of(expression, self.dtype)?;
        cache.prebuilt(&family.all(self.dtype), self.arch)
    }

    /// That no kernel crashed so far.
    fn usable(&self) -> Result<(), Error> {
        match self.lost.get() {
            None => Ok(()),
            Some(why) => Err(Error::failed(format!(
                "the device is not used any more, since a kernel crashed: {why}"
            ))),
        }
    }

    /// Remembers an error after which the context is of no use.
    fn note(&self, error: &stepscope_device::Error, message: &str) {
        if error.loses_context() {
            let _ = self.lost.set(message.to_owned()); // the first one says what happened
        }
    }

    /// Puts a kernel into the stream.
    ///
    /// # Errors
    /// The driver refused it, or a kernel crashed before.
    ///
    /// # Safety
    /// As [`Kernel::launch`].
    pub unsafe fn launch<A: Arguments>(
        &self,
        kernel: &Kernel<A>,
        launch: &Launch,
        arguments: &A,
    ) -> Result<(), Error> {
        if self.only_loads.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.usable()?;
        // SAFETY: the caller's promise.
        let launched = unsafe { kernel.launch(&self.stream, launch, arguments) };
        launched.map_err(|error| {
            let (name, grid, block) = (kernel.function().name(), launch.grid, launch.block);
            let message = format!("{name} (grid {grid:?}, block {block:?}): {error}");
            self.note(&error, &message);
            Error::failed(message)
        })?;
        self.launches.fetch_add(1, Ordering::Relaxed);
        if self.is_watched.load(Ordering::Relaxed) {
            let name = kernel.function().name();
            let expression = lock(&self.expressions).get(name).cloned();
            lock(&self.watched).push(Launched {
                expression: expression.unwrap_or_else(|| name.to_owned()),
                launch: *launch,
            });
        }
        Ok(())
    }
}

/// A kernel that was put into the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    /// The instance, as C++ writes it.
    pub expression: String,
    /// Blocks, threads and dynamic shared memory.
    pub launch: Launch,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where kernels lie that were compiled elsewhere: in `$STEPSCOPE_CUBINS`, or in the folder `cubins` beside the program.
fn prebuilt_folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("STEPSCOPE_CUBINS") {
        return Some(folder.into());
    }
    let beside = std::env::current_exe().ok()?.parent()?.join("cubins");
    beside.is_dir().then_some(beside)
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
