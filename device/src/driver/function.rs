use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::CUfunction_attribute as Attribute;
use cudarc::driver::sys::{CUfunction, CUfunction_attribute};

use super::{Arguments, Launch, Module, Stream};
use crate::{Error, Kind};

const INVALID_VALUE: u32 = 1;
const LAUNCH_OUT_OF_RESOURCES: u32 = 701;

/// A kernel, as its module has it.
#[derive(Debug, Clone)]
pub struct Function {
    module: Arc<Module>,
    handle: CUfunction,
    name: Arc<str>,
}

// SAFETY: the driver's functions on kernels may be called from any thread; `handle` is opaque, and belongs to the module.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

/// A kernel that takes the arguments `A`.
#[derive(Debug, Clone)]
pub struct Kernel<A> {
    function: Function,
    arguments: PhantomData<fn(A)>,
}

impl Function {
    pub(super) fn new(module: Arc<Module>, handle: CUfunction, name: &str) -> Function {
        Function {
            module,
            handle,
            name: name.into(),
        }
    }

    /// Its lowered name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Registers of a thread.
    ///
    /// # Errors
    /// The driver refused.
    pub fn registers(&self) -> Result<u32, Error> {
        self.attribute(Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)
    }

    /// Static shared memory of a block.
    ///
    /// # Errors
    /// The driver refused.
    pub fn shared_bytes(&self) -> Result<u32, Error> {
        self.attribute(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)
    }

    /// Local memory of a thread: arrays, and what did not fit into registers.
    ///
    /// # Errors
    /// The driver refused.
    pub fn local_bytes(&self) -> Result<u32, Error> {
        self.attribute(Attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)
    }

    /// The most threads that a block of this kernel can have.
    ///
    /// # Errors
    /// The driver refused.
    pub fn max_threads_per_block(&self) -> Result<u32, Error> {
        self.attribute(Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)
    }

    /// Allows launches with up to this much dynamic shared memory per block; without it, 48 KiB is the limit.
    ///
    /// # Errors
    /// The device does not have so much beside the kernel's static shared memory.
    pub fn allow_shared_bytes(&self, bytes: u32) -> Result<(), Error> {
        let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let value = i32::try_from(bytes).unwrap_or(i32::MAX);
        // SAFETY: the context is current, the kernel loaded.
        let allowed = unsafe {
            self.module
                .context()
                .bound()?
                .cuFuncSetAttribute(self.handle, attribute, value)
        };
        allowed.map_err(|error| {
            let limit = self.module.context().device().limits.shared_bytes_per_block_opt_in;
            error.during(&format!(
                "allowing {} {bytes} bytes of dynamic shared memory ({limit} per block is the most on this device)",
                self.name
            ))
        })
    }

    /// How many blocks of this many threads and this much dynamic shared memory a multiprocessor holds at the same time.
    ///
    /// # Errors
    /// The driver refused.
    pub fn blocks_per_multiprocessor(&self, threads: u32, shared_bytes: u32) -> Result<u32, Error> {
        let mut blocks = 0;
        let threads = i32::try_from(threads).unwrap_or(i32::MAX);
        // SAFETY: the context is current, the kernel loaded; the pointer is to an integer that lives through the call.
        unsafe {
            self.module
                .context()
                .bound()?
                .cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
                    &raw mut blocks,
                    self.handle,
                    threads,
                    shared_bytes as usize,
                    0,
                )?;
        }
        Ok(blocks.unsigned_abs())
    }

    /// How many clusters of this launch the device holds at the same time.
    ///
    /// # Errors
    /// The launch has no clusters, or the driver refused.
    pub fn clusters_per_device(&self, launch: &Launch) -> Result<u32, Error> {
        if launch.cluster.is_none() {
            return Err(Error::arguments(format!(
                "{}: a launch without clusters",
                self.name
            )));
        }
        let mut clusters = 0;
        let driver = self.module.context().bound()?;
        launch.with_config(ptr::null_mut(), |config| {
            // SAFETY: as above; the configuration lives through the call.
            unsafe { driver.cuOccupancyMaxActiveClusters(&raw mut clusters, self.handle, config) }
        })?;
        Ok(clusters.unsigned_abs())
    }

    /// Offset and bytes of each parameter, as the compiled kernel has them. Needs a driver for CUDA 12.4.
    ///
    /// # Errors
    /// The driver is older, or refused.
    pub fn parameters(&self) -> Result<Vec<(usize, usize)>, Error> {
        let driver = self.module.context().bound()?;
        let mut parameters = Vec::new();
        loop {
            let (mut offset, mut bytes) = (0, 0);
            let index = parameters.len();
            // SAFETY: the kernel is loaded; both pointers are to integers that live through the call.
            match unsafe {
                driver.cuFuncGetParamInfo(self.handle, index, &raw mut offset, &raw mut bytes)
            } {
                Ok(()) => parameters.push((offset, bytes)),
                // This is how the driver says that there are no more.
                Err(error) if error.code() == Some(INVALID_VALUE) => return Ok(parameters),
                Err(error) => return Err(error),
            }
        }
    }

    /// This kernel, launched with arguments of type `A`. In builds with debug assertions it is checked that the kernel's parameters
    /// are as many and as large, if the driver can tell.
    ///
    /// # Errors
    /// They are not.
    pub fn with_arguments<A: Arguments>(self) -> Result<Kernel<A>, Error> {
        if cfg!(debug_assertions) {
            self.check_parameters::<A>()?;
        }
        Ok(Kernel {
            function: self,
            arguments: PhantomData,
        })
    }

    /// Holds the parameters of `A` against the kernel's.
    ///
    /// # Errors
    /// They do not match; the message names the first that does not.
    pub fn check_parameters<A: Arguments>(&self) -> Result<(), Error> {
        let actual = match self.parameters() {
            Ok(actual) => actual,
            Err(error) if error.kind() == Kind::MissingFunction => return Ok(()),
            Err(error) => return Err(error),
        };
        if actual.len() != A::PARAMETERS.len() {
            return Err(Error::arguments(format!(
                "{} takes {} parameters, but {} are given",
                self.name,
                actual.len(),
                A::PARAMETERS.len()
            )));
        }
        for (index, (given, (_, bytes))) in A::PARAMETERS.iter().zip(actual).enumerate() {
            if given.bytes != bytes {
                return Err(Error::arguments(format!(
                    "parameter {index} of {} has {bytes} bytes, but `{}: {}` has {}",
                    self.name, given.name, given.type_name, given.bytes
                )));
            }
        }
        Ok(())
    }

    /// Puts the kernel into `stream` with arguments as bytes, one slice per parameter: for kernels that are known only when the
    /// program runs. The arguments are copied before this returns.
    ///
    /// # Errors
    /// The driver refused, or the arguments are not as many and as large as the kernel's parameters, where the driver tells.
    ///
    /// # Safety
    /// As [`Kernel::launch`].
    pub unsafe fn launch_with_bytes(
        &self,
        stream: &Stream,
        launch: &Launch,
        arguments: &[Vec<u8>],
    ) -> Result<(), Error> {
        match self.parameters() {
            Ok(parameters) => {
                let given: Vec<usize> = arguments.iter().map(Vec::len).collect();
                let takes: Vec<usize> = parameters.iter().map(|&(_, bytes)| bytes).collect();
                if given != takes {
                    return Err(Error::arguments(format!(
                        "{} takes parameters of {takes:?} bytes, but {given:?} are given",
                        self.name
                    )));
                }
            }
            Err(error) if error.kind() == Kind::MissingFunction => {}
            Err(error) => return Err(error),
        }
        // Parameters are aligned to their size, at most 64 bytes: a copy in words is aligned for all that the driver reads.
        let copies: Vec<Vec<u128>> = arguments
            .iter()
            .map(|bytes| {
                let mut words = vec![0_u128; bytes.len().div_ceil(16)];
                bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
                words
            })
            .collect();
        let mut addresses: Vec<*mut std::ffi::c_void> = copies
            .iter()
            .map(|words| words.as_ptr().cast_mut().cast())
            .collect();
        let driver = stream.context().bound()?;
        let launched = launch.with_config(stream.raw(), |config| {
            // SAFETY: the configuration and the addresses live through the call, and the addresses are those of as many and as
            // large parameters as the kernel's; the rest is the caller's promise.
            unsafe {
                driver.cuLaunchKernelEx(
                    config,
                    self.handle,
                    addresses.as_mut_ptr(),
                    ptr::null_mut(),
                )
            }
        });
        launched.map_err(|error| self.explain(error, launch))
    }

    /// Puts the kernel into `stream` by the oldest and barest of the driver's functions, `cuLaunchKernel`: nothing is looked at, no
    /// context is made current, and an error is not explained. What other ways of launching cost is measured against it.
    ///
    /// # Errors
    /// The driver refused, or the context is not the current one of this thread.
    ///
    /// # Safety
    /// As [`Kernel::launch`]; `addresses` must be those of arguments that are as many and as large as the kernel's parameters.
    #[inline]
    pub unsafe fn launch_raw(
        &self,
        stream: &Stream,
        [grid, block]: [[u32; 3]; 2],
        shared_bytes: u32,
        addresses: &mut [*mut std::ffi::c_void],
    ) -> Result<(), Error> {
        // SAFETY: the kernel is loaded and the stream alive; the rest is the caller's promise.
        unsafe {
            stream.context().driver().cuLaunchKernel(
                self.handle,
                grid[0],
                grid[1],
                grid[2],
                block[0],
                block[1],
                block[2],
                shared_bytes,
                stream.raw(),
                addresses.as_mut_ptr(),
                ptr::null_mut(),
            )
        }
    }

    fn attribute(&self, attribute: CUfunction_attribute) -> Result<u32, Error> {
        let mut value = 0;
        // SAFETY: the context is current, the kernel loaded; the pointer is to an integer that lives through the call.
        unsafe {
            self.module.context().bound()?.cuFuncGetAttribute(
                &raw mut value,
                attribute,
                self.handle,
            )?
        };
        Ok(value.unsigned_abs())
    }

    /// Says why the launch was refused, where it can be told.
    fn explain(&self, error: Error, launch: &Launch) -> Error {
        let what = format!("launching {}", self.name);
        if !matches!(error.code(), Some(INVALID_VALUE | LAUNCH_OUT_OF_RESOURCES)) {
            return error.during(&what);
        }
        let of_device = launch.complaint(self.module.context().device());
        match of_device.or_else(|| self.complaint(launch)) {
            Some(complaint) => error.during(&format!("{what} ({complaint})")),
            None => error.during(&what),
        }
    }

    /// Why the kernel cannot be launched like this, though the device could launch others.
    fn complaint(&self, launch: &Launch) -> Option<String> {
        let threads = launch.block_threads();
        let most = self.max_threads_per_block().ok()?;
        if threads > u64::from(most) {
            let registers = self.registers().ok()?;
            return Some(format!(
                "a block of {threads} threads, but with {registers} registers each this kernel allows {most}"
            ));
        }
        let allowed = self
            .attribute(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)
            .ok()?;
        (launch.shared_bytes > allowed).then(|| {
            format!(
                "{} bytes of dynamic shared memory per block, but {allowed} are allowed so far: Function::allow_shared_bytes",
                launch.shared_bytes
            )
        })
    }
}

impl<A: Arguments> Kernel<A> {
    /// The kernel itself.
    pub fn function(&self) -> &Function {
        &self.function
    }

    /// Puts the kernel into `stream`. The arguments are copied before this returns.
    ///
    /// # Errors
    /// The driver refused; what the kernel itself does wrong comes to light at whoever waits for the stream.
    ///
    /// # Safety
    /// The arguments must be what the kernel takes, in meaning too: its accesses must stay within memory that lives until it is
    /// done, and that nothing else uses in the meantime.
    #[inline]
    pub unsafe fn launch(
        &self,
        stream: &Stream,
        launch: &Launch,
        arguments: &A,
    ) -> Result<(), Error> {
        let function = &self.function;
        let driver = stream.context().bound()?;
        let launched = launch.with_config(stream.raw(), |config| {
            arguments.with_addresses(|addresses| {
                // SAFETY: the configuration and the addresses live through the call, and the addresses are those of the
                // kernel's parameters, as many and as large; the rest is the caller's promise.
                unsafe {
                    driver.cuLaunchKernelEx(
                        config,
                        function.handle,
                        addresses.as_mut_ptr(),
                        ptr::null_mut(),
                    )
                }
            })
        });
        launched.map_err(|error| function.explain(error, launch))
    }
}
