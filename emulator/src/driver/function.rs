//! Kernels of modules and libraries, and what is to be known about them.

use std::ffi::{CString, c_char};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use super::abi::functions;
use super::argument::Out;
use super::module::{Library, Module};
use super::registry::{Handle, Object as _, object};
use super::status::Status;
use super::types::DeviceNumber;
use crate::Kernel;

/// A kernel of a module.
pub(super) struct Function {
    pub(super) handle: Handle<Function>,
    pub(super) module: Arc<Module>,
    pub(super) kernel: Kernel,
    /// Its name with a zero at the end, for those who ask.
    name: CString,
    max_dynamic_shared: AtomicU32,
    has_large_clusters: AtomicU32,
    carveout: AtomicI32,
}

/// A kernel of a library, which is a function in each context.
pub(super) struct LibraryKernel {
    pub(super) library: Arc<Library>,
    name: String,
}

object!(Function);
object!(LibraryKernel);

/// Shared memory that a block may have without opting in to more.
const SHARED_WITHOUT_OPT_IN: u32 = 48 << 10;

impl Function {
    pub(super) fn new(module: &Arc<Module>, kernel: Kernel) -> Handle<Function> {
        let handle = Handle::reserve();
        let free = SHARED_WITHOUT_OPT_IN.saturating_sub(kernel.static_shared_bytes());
        let function = Function {
            handle,
            module: Arc::clone(module),
            // PTX has no zeros in its names.
            name: CString::new(kernel.name()).unwrap_or_default(),
            kernel,
            max_dynamic_shared: AtomicU32::new(free),
            has_large_clusters: AtomicU32::new(0),
            carveout: AtomicI32::new(-1),
        };
        Function::registry().add(handle, Arc::new(function));
        handle
    }

    /// Dynamic shared memory that a launch may ask for.
    pub(super) fn max_dynamic_shared(&self) -> u32 {
        self.max_dynamic_shared.load(Ordering::Relaxed)
    }

    /// Whether clusters of more than 8 blocks were asked for.
    pub(super) fn has_large_clusters(&self) -> bool {
        self.has_large_clusters.load(Ordering::Relaxed) != 0
    }

    /// Threads that a block may have.
    pub(super) fn max_threads(&self) -> u32 {
        self.kernel.max_threads().unwrap_or(1024).min(1024)
    }

    /// Registers, as far as PTX tells: it has `.maxnreg` or nothing.
    pub(super) fn registers(&self) -> Option<u32> {
        self.kernel.max_registers()
    }

    /// The attribute of this number in `CUfunction_attribute`.
    fn attribute(&self, attribute: u32) -> Result<i32, Status> {
        let cluster = self.kernel.required_cluster();
        let of_cluster = |axis: usize| cluster.map_or(0, |cluster| cluster[axis] as i32);
        Ok(match attribute {
            0 => self.max_threads() as i32,
            1 => self.kernel.static_shared_bytes() as i32,
            2 => 0,
            3 => self.kernel.local_bytes() as i32,
            4 => self.registers().unwrap_or(0) as i32,
            5 => self.module.version as i32,
            6 => self.module.target as i32,
            7 => 0,
            8 => self.max_dynamic_shared() as i32,
            9 => self.carveout.load(Ordering::Relaxed),
            10 => i32::from(cluster.is_some()),
            11..=13 => of_cluster(attribute as usize - 11),
            14 => i32::from(self.has_large_clusters()),
            15 => 0,
            _ => return Err(Status::INVALID_VALUE),
        })
    }

    fn set_attribute(&self, attribute: u32, value: i32) -> Result<(), Status> {
        match attribute {
            8 => {
                let bytes = u32::try_from(value).map_err(|_| Status::INVALID_VALUE)?;
                let limit = self.module.context.gpu.capacity.shared_bytes_per_block;
                let all = bytes.saturating_add(self.kernel.static_shared_bytes());
                if all > limit {
                    return Err(Status::INVALID_VALUE);
                }
                self.max_dynamic_shared.store(bytes, Ordering::Relaxed);
                Ok(())
            }
            9 if (-1..=100).contains(&value) => {
                self.carveout.store(value, Ordering::Relaxed);
                Ok(())
            }
            14 if matches!(value, 0 | 1) => {
                self.has_large_clusters
                    .store(value as u32, Ordering::Relaxed);
                Ok(())
            }
            // Shapes of clusters can only be set at a launch here.
            15 => Ok(()),
            _ => Err(Status::INVALID_VALUE),
        }
    }

    fn parameter(&self, index: usize, offset: Out<usize>, bytes: Out<usize>) -> Result<(), Status> {
        let found = self.kernel.parameters().get(index);
        let parameter = found.ok_or(Status::INVALID_VALUE)?;
        offset.set(parameter.offset as usize)?;
        bytes.set_if_wanted(parameter.bytes as usize);
        Ok(())
    }
}

impl LibraryKernel {
    pub(super) fn add(library: &Arc<Library>, name: &str) -> Handle<LibraryKernel> {
        let handle = Handle::reserve();
        let kernel = LibraryKernel {
            library: Arc::clone(library),
            name: name.to_owned(),
        };
        LibraryKernel::registry().add(handle, Arc::new(kernel));
        handle
    }

    /// The function that it is in the current context.
    fn function(&self) -> Result<Arc<Function>, Status> {
        self.library.module()?.function(&self.name)?.get()
    }
}

/// What can be launched: a function, or a kernel of a library, which cuda.h lets take a function's place.
pub(super) fn function(handle: Handle<Function>) -> Result<Arc<Function>, Status> {
    super::gpu::machine()?;
    match handle.find() {
        Some(function) => Ok(function),
        None => handle.cast::<LibraryKernel>().get()?.function(),
    }
}

functions! {
    fn cuFuncGetAttribute(value: Out<i32>, attribute: u32, handle: Handle<Function>) {
        value.set(function(handle)?.attribute(attribute)?)
    }

    fn cuFuncSetAttribute(handle: Handle<Function>, attribute: u32, value: i32) {
        function(handle)?.set_attribute(attribute, value)
    }

    // What the caches prefer changes nothing that is counted here.
    fn cuFuncSetCacheConfig(handle: Handle<Function>, _config: u32) {
        function(handle).map(drop)
    }

    fn cuFuncSetSharedMemConfig(handle: Handle<Function>, _config: u32) {
        function(handle).map(drop)
    }

    fn cuFuncGetModule(module: Out<Handle<Module>>, handle: Handle<Function>) {
        module.set(function(handle)?.module.handle)
    }

    // The text belongs to the function, and goes with its module.
    fn cuFuncGetName(name: Out<*const c_char>, handle: Handle<Function>) {
        name.set(function(handle)?.name.as_ptr())
    }

    fn cuFuncGetParamInfo(handle: Handle<Function>, index: usize, offset: Out<usize>, bytes: Out<usize>) {
        function(handle)?.parameter(index, offset, bytes)
    }

    fn cuFuncGetParamCount(handle: Handle<Function>, count: Out<usize>) {
        count.set(function(handle)?.kernel.parameters().len())
    }

    fn cuFuncIsLoaded(state: Out<u32>, handle: Handle<Function>) {
        function(handle)?;
        state.set(1)
    }

    fn cuFuncLoad(handle: Handle<Function>) {
        function(handle).map(drop)
    }

    fn cuKernelGetFunction(out: Out<Handle<Function>>, kernel: Handle<LibraryKernel>) {
        out.set(kernel.get()?.function()?.handle)
    }

    fn cuKernelGetLibrary(out: Out<usize>, kernel: Handle<LibraryKernel>) {
        out.set(kernel.get()?.library.number())
    }

    fn cuKernelGetName(name: Out<*const c_char>, kernel: Handle<LibraryKernel>) {
        name.set(kernel.get()?.function()?.name.as_ptr())
    }

    fn cuKernelGetParamInfo(kernel: Handle<LibraryKernel>, index: usize, offset: Out<usize>, bytes: Out<usize>) {
        kernel.get()?.function()?.parameter(index, offset, bytes)
    }

    // Attributes are those in the current context; the device says the same.
    fn cuKernelGetAttribute(value: Out<i32>, attribute: u32, kernel: Handle<LibraryKernel>, _device: DeviceNumber) {
        value.set(kernel.get()?.function()?.attribute(attribute)?)
    }

    fn cuKernelSetAttribute(attribute: u32, value: i32, kernel: Handle<LibraryKernel>, _device: DeviceNumber) {
        kernel.get()?.function()?.set_attribute(attribute, value)
    }

    fn cuKernelSetCacheConfig(kernel: Handle<LibraryKernel>, _config: u32, _device: DeviceNumber) {
        kernel.get().map(drop)
    }
}
