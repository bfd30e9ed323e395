//! An emulated device: its memory, its modules, and launches on it.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::check::{Checks, Finding};
use crate::count::{Counters, LineCounters};
use crate::error::{Error, ErrorKind};
use crate::exec;
use crate::memory::global::GlobalMemory;
use crate::program::{KernelCode, Parameter, module};
use crate::ptx;
use crate::tma::map::{TensorMap, TiledArguments};

/// What an emulated device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceOptions {
    /// Compute capability: 8.0, 8.6, 8.9 or 9.0. It decides the arithmetic of the tensor cores and what a launch may ask for.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors: how many blocks of a cooperative launch fit.
    pub multiprocessors: u32,
    /// Device memory. It is taken from the host as it is touched.
    pub memory_bytes: u64,
}

impl Default for DeviceOptions {
    /// As an H100, with 16 GiB.
    fn default() -> Self {
        Self {
            compute_capability: (9, 0),
            multiprocessors: 132,
            memory_bytes: 16 << 30,
        }
    }
}

/// An emulated device. Memory, modules and launches may be used from several threads.
#[derive(Debug, Clone)]
pub struct Device {
    options: DeviceOptions,
    memory: Arc<RwLock<GlobalMemory>>,
    pool: usize,
}

/// A loaded module: its kernels, and memory for its variables.
pub struct Module {
    kernels: Vec<Arc<KernelCode>>,
    globals: Vec<(String, u64, u64)>,
    memory: Arc<RwLock<GlobalMemory>>,
}

/// A kernel of a loaded module, which it keeps loaded.
#[derive(Clone)]
pub struct Kernel {
    pub(crate) code: Arc<KernelCode>,
    _module: Arc<Module>,
}

/// How a kernel is launched.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Blocks, by axis.
    pub grid: [u32; 3],
    /// Threads of a block, by axis.
    pub block: [u32; 3],
    /// Blocks of a cluster, by axis; `None` where the launch asks for none and the kernel requires none.
    pub cluster: Option<[u32; 3]>,
    /// Dynamic shared memory of a block.
    pub dynamic_shared_bytes: u32,
    /// All blocks must be on the device at once, so that they can wait for one another.
    pub cooperative: bool,
    /// What to look for.
    pub checks: Checks,
    /// When to give up.
    pub limits: Limits,
}

impl Launch {
    /// A launch of this many blocks and threads, with every check.
    pub fn new(grid: [u32; 3], block: [u32; 3]) -> Self {
        Self {
            grid,
            block,
            cluster: None,
            dynamic_shared_bytes: 0,
            cooperative: false,
            checks: Checks::ALL,
            limits: Limits::default(),
        }
    }
}

/// When a launch is given up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Instructions executed by warps, all together.
    pub warp_instructions: u64,
    /// Seconds on the clock.
    pub seconds: f64,
    /// Cores of the host; 0 means all of them. No result, finding or counter depends on it.
    pub cores: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            warp_instructions: u64::MAX,
            seconds: 3600.0,
            cores: 0,
        }
    }
}

/// What a launch did.
#[derive(Debug, Clone)]
pub struct Report {
    /// The kernel.
    pub kernel: String,
    /// Counters of the whole launch.
    pub counters: Counters,
    /// Counters by source line, in order of file and line.
    pub lines: Vec<LineCounters>,
    /// What was wrong, in order of class and place.
    pub findings: Vec<Finding>,
    /// What the kernel printed.
    pub output: String,
    /// Why the launch ended before its time: a trap, a deadlock, a limit, an access that no check made a finding.
    pub failure: Option<Error>,
}

impl Device {
    /// A device with memory of its own.
    pub fn new(options: DeviceOptions) -> Self {
        Self::in_memory(options, Arc::new(RwLock::new(GlobalMemory::new())))
    }

    /// Another device in this one's address space: each can use the other's memory.
    pub fn beside(&self, options: DeviceOptions) -> Self {
        Self::in_memory(options, Arc::clone(&self.memory))
    }

    fn in_memory(options: DeviceOptions, memory: Arc<RwLock<GlobalMemory>>) -> Self {
        let pool = write(&memory).add_pool(options.memory_bytes);
        Self {
            options,
            memory,
            pool,
        }
    }

    /// What it is.
    pub fn options(&self) -> &DeviceOptions {
        &self.options
    }

    /// Free and total bytes of its memory.
    pub fn memory_info(&self) -> (u64, u64) {
        read(&self.memory).room(self.pool)
    }

    /// Allocates memory, aligned to 256 bytes. What it holds counts as uninitialised.
    ///
    /// # Errors
    /// The size is 0, or more than is free.
    pub fn allocate(&self, bytes: u64) -> Result<u64, Error> {
        write(&self.memory).allocate(self.pool, bytes, 1)
    }

    /// Frees an allocation. Its addresses are not given out again.
    ///
    /// # Errors
    /// The address is not the start of an allocation.
    pub fn free(&self, address: u64) -> Result<(), Error> {
        write(&self.memory).free(address)
    }

    /// Start and size of the allocation that holds an address.
    pub fn allocation_of(&self, address: u64) -> Option<(u64, u64)> {
        read(&self.memory)
            .find(address, &mut 0)
            .map(|a| (a.base, a.bytes))
    }

    /// Lets kernels use host memory at its own address until [`Device::free`] is called with it.
    ///
    /// # Safety
    /// The memory must stay valid until then, and the host must not access it while a kernel runs.
    ///
    /// # Errors
    /// The address is not a multiple of 8, or overlaps what is registered.
    pub unsafe fn register_host(&self, address: usize, bytes: u64) -> Result<(), Error> {
        // SAFETY: the caller keeps the same promise.
        unsafe { write(&self.memory).add_host(self.pool, address, bytes) }
    }

    /// Copies to the device.
    ///
    /// # Errors
    /// The range is not within one allocation.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), Error> {
        read(&self.memory).write(address, data)
    }

    /// Copies from the device.
    ///
    /// # Errors
    /// The range is not within one allocation.
    pub fn read(&self, address: u64, data: &mut [u8]) -> Result<(), Error> {
        read(&self.memory).read(address, data)
    }

    /// Copies within the address space.
    ///
    /// # Errors
    /// A range is not within one allocation.
    pub fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), Error> {
        read(&self.memory).copy(to, from, bytes)
    }

    /// Fills with a pattern of 1, 2 or 4 bytes, `count` times.
    ///
    /// # Errors
    /// The range is not within one allocation.
    pub fn fill(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), Error> {
        read(&self.memory).fill(address, pattern, count)
    }

    /// Parses and decodes PTX, and allocates its variables.
    ///
    /// # Errors
    /// The text is not PTX, uses what is not supported (every such instruction is listed with its line), or its variables
    /// do not fit in memory.
    pub fn load_module(&self, text: &str) -> Result<Arc<Module>, Error> {
        let ast = ptx::parser::parse(text)?;
        let mut module = Module {
            kernels: Vec::new(),
            globals: Vec::new(),
            memory: Arc::clone(&self.memory),
        };
        let mut addresses = std::collections::HashMap::new();
        for global in module::globals(&ast)? {
            let mut memory = write(&self.memory);
            let base = memory.allocate(self.pool, global.bytes.max(1), u64::from(global.align))?;
            addresses.insert(global.name.clone(), base);
            module.globals.push((global.name, base, global.bytes));
        }
        for variable in &ast.variables {
            let Some(&base) = addresses.get(&variable.name) else {
                continue;
            };
            let bytes = variable.count.unwrap_or(0) * u64::from(variable.element);
            let mut contents = module::contents(variable, &addresses);
            contents.truncate(bytes as usize);
            let memory = write(&self.memory);
            memory.write(base, &contents)?;
            // The rest is zero, as memory is when it is allocated; it counts as written.
            memory.define(base + contents.len() as u64, bytes - contents.len() as u64)?;
            drop(memory);
            if variable.space == ptx::ast::Space::Const {
                write(&self.memory).set_read_only(base);
            }
        }
        module.kernels = module::build(&ast, &addresses)?;
        Ok(Arc::new(module))
    }

    /// Runs a kernel to its end. `arguments` are the bytes of its parameters, each at its offset.
    ///
    /// # Errors
    /// The launch is not one that this device can make. What goes wrong while the kernel runs is in the report.
    pub fn launch(
        &self,
        kernel: &Kernel,
        launch: &Launch,
        arguments: &[u8],
    ) -> Result<Report, Error> {
        exec::run(
            &kernel.code,
            &self.options,
            &read(&self.memory),
            launch,
            arguments,
        )
    }
}

impl Module {
    /// The kernel of this name.
    ///
    /// # Errors
    /// There is none; the message names those there are.
    pub fn kernel(self: &Arc<Self>, name: &str) -> Result<Kernel, Error> {
        match self.kernels.iter().find(|kernel| kernel.name == name) {
            Some(code) => Ok(Kernel {
                code: Arc::clone(code),
                _module: Arc::clone(self),
            }),
            None => {
                let names = self.kernel_names().collect::<Vec<_>>().join(", ");
                Err(Error::new(
                    ErrorKind::NotFound,
                    format!("no kernel `{name}`; the module has: {names}"),
                ))
            }
        }
    }

    /// Names of its kernels.
    pub fn kernel_names(&self) -> impl Iterator<Item = &str> {
        self.kernels.iter().map(|kernel| kernel.name.as_str())
    }

    /// Name, address and bytes of its variables in global and constant memory.
    pub fn globals(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.globals
            .iter()
            .map(|(name, address, bytes)| (name.as_str(), *address, *bytes))
    }

    /// Address and bytes of a variable in global or constant memory.
    pub fn global(&self, name: &str) -> Option<(u64, u64)> {
        let (_, address, bytes) = self.globals.iter().find(|(own, ..)| own == name)?;
        Some((*address, *bytes))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        for (_, address, _) in &self.globals {
            // It was allocated by `load_module` and nobody else frees it.
            let _ = write(&self.memory).free(*address);
        }
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.kernel_names()).finish()
    }
}

impl Kernel {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.code.name
    }

    /// Offset and bytes of each parameter.
    pub fn parameters(&self) -> &[Parameter] {
        &self.code.parameters
    }

    /// Bytes of all parameters.
    pub fn parameter_bytes(&self) -> u32 {
        self.code.parameter_bytes
    }

    /// Shared memory that the kernel declares with a size.
    pub fn static_shared_bytes(&self) -> u32 {
        self.code.static_shared
    }

    /// Local memory of a thread.
    pub fn local_bytes(&self) -> u32 {
        self.code.code.local_bytes
    }

    /// `.maxntid`: threads of a block that it was compiled for at most.
    pub fn max_threads(&self) -> Option<u32> {
        let bound = self.code.required_threads.or(self.code.max_threads)?;
        Some(bound.iter().product())
    }

    /// `.reqnctapercluster`.
    pub fn required_cluster(&self) -> Option<[u32; 3]> {
        self.code.required_cluster
    }

    /// `.maxnreg`.
    pub fn max_registers(&self) -> Option<u32> {
        self.code.max_registers
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kernel").field(&self.code.name).finish()
    }
}

/// A tensor as `cuTensorMapEncodeTiled` describes it, with the numbers of that function's enums.
#[derive(Debug, Clone, Copy)]
pub struct TensorMapOptions<'a> {
    /// `CUtensorMapDataType`.
    pub data_type: u32,
    /// Where the tensor begins in device memory.
    pub address: u64,
    /// Elements of each dimension, the innermost first.
    pub extents: &'a [u64],
    /// Bytes from one element to the next of each dimension but the innermost.
    pub strides: &'a [u64],
    /// Elements of a tile, by dimension.
    pub tile: &'a [u32],
    /// Steps of the elements that are copied, by dimension.
    pub element_strides: &'a [u32],
    /// `CUtensorMapInterleave`.
    pub interleave: u32,
    /// `CUtensorMapSwizzle`.
    pub swizzle: u32,
    /// `CUtensorMapL2promotion`.
    pub promotion: u32,
    /// `CUtensorMapFloatOOBfill`.
    pub fill: u32,
}

/// The 128 bytes of a tensor map. Their layout is this device's own.
///
/// # Errors
/// Which argument breaks which rule.
pub fn encode_tensor_map(options: &TensorMapOptions<'_>) -> Result<[u64; 16], Error> {
    let arguments = TiledArguments {
        data_type: options.data_type,
        address: options.address,
        extents: options.extents,
        strides: options.strides,
        tile: options.tile,
        element_strides: options.element_strides,
        interleave: options.interleave,
        swizzle: options.swizzle,
        promotion: options.promotion,
        fill: options.fill,
    };
    match TensorMap::encode(&arguments) {
        Ok(map) => Ok(map.to_words()),
        Err(what) => Err(Error::new(ErrorKind::InvalidValue, what)),
    }
}

fn read(memory: &RwLock<GlobalMemory>) -> RwLockReadGuard<'_, GlobalMemory> {
    // A panic elsewhere leaves the table whole: each change is one push or remove.
    memory.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(memory: &RwLock<GlobalMemory>) -> RwLockWriteGuard<'_, GlobalMemory> {
    memory.write().unwrap_or_else(PoisonError::into_inner)
}
