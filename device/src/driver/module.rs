use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

use bytemuck::Pod;
use cudarc::driver::sys::{CUjit_option, CUmodule};

use super::{Context, DevicePointer, Function, Stream};
use crate::Error;
use crate::error::{Cause, Version};
use crate::nvrtc::Compiled;

const NO_BINARY_FOR_GPU: u32 = 209;
const INVALID_PTX: u32 = 218;
const UNSUPPORTED_PTX_VERSION: u32 = 222;
const INVALID_SOURCE: u32 = 300;
const NOT_FOUND: u32 = 500;
/// What the driver's compiler may say about PTX; more is cut off.
const LOG_BYTES: usize = 16 * 1024;

/// Code on a device.
#[derive(Debug)]
pub struct Module {
    context: Arc<Context>,
    handle: CUmodule,
    name: String,
}

// SAFETY: the driver's functions on modules may be called from any thread; `handle` is opaque.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    /// Loads what NVRTC made: the machine code, or the PTX where the device is emulated.
    ///
    /// # Errors
    /// The driver is older than the NVRTC, or the code is for another architecture.
    pub fn from_compiled(
        context: &Arc<Context>,
        compiled: &Compiled,
    ) -> Result<Arc<Module>, Error> {
        let program = &compiled.facts.program;
        let image = if context.device().is_emulated() {
            compiled.ptx.as_bytes()
        } else {
            compiled.image()
        };
        Module::load(context, program, image).map_err(|error| {
            let needs = compiled.facts.compiler;
            let has = context.driver().version();
            let is_about_versions = matches!(
                error.code(),
                Some(NO_BINARY_FOR_GPU | UNSUPPORTED_PTX_VERSION | INVALID_SOURCE)
            );
            if is_about_versions && has.major < needs.major {
                Error::new(Cause::DriverTooOld {
                    what: format!("{program}, compiled by NVRTC {needs},"),
                    needs: Version {
                        major: needs.major,
                        minor: 0,
                    },
                    branch: if needs.major >= 13 { "580" } else { "525" },
                    has,
                })
            } else {
                error
            }
        })
    }

    /// Loads `image`: a cubin, or PTX, which the driver compiles. `name` says in errors what it is.
    ///
    /// # Errors
    /// The driver cannot use it; what its compiler says about PTX is in the message.
    pub fn load(context: &Arc<Context>, name: &str, image: &[u8]) -> Result<Arc<Module>, Error> {
        // PTX is a terminated text; behind a cubin, a zero does no harm.
        let mut terminated = Vec::with_capacity(image.len() + 1);
        terminated.extend_from_slice(image);
        terminated.push(0);
        let mut log = vec![0_u8; LOG_BYTES];
        let mut options = [
            CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
            CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        // The driver takes numbers in place of pointers.
        let mut values = [
            log.as_mut_ptr().cast::<c_void>(),
            std::ptr::without_provenance_mut(LOG_BYTES),
        ];
        let mut handle = std::ptr::null_mut();
        // SAFETY: the context is current; the image is terminated; both arrays have two entries, of the kinds that the two
        // options ask for; all of it lives through the call.
        let loaded = unsafe {
            context.bound()?.cuModuleLoadDataEx(
                &raw mut handle,
                terminated.as_ptr().cast(),
                2,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        if let Err(error) = loaded {
            let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
            let said = String::from_utf8_lossy(&log[..end]);
            let said = said
                .lines()
                .map(str::trim)
                .find(|line| !line.is_empty())
                .unwrap_or_default();
            let is_source = matches!(
                error.code(),
                Some(NO_BINARY_FOR_GPU | INVALID_PTX | INVALID_SOURCE)
            );
            let what = if is_source && !said.is_empty() {
                format!("loading {name} ({said})")
            } else {
                format!("loading {name}")
            };
            return Err(error.during(&what));
        }
        Ok(Arc::new(Module {
            context: Arc::clone(context),
            handle,
            name: name.to_owned(),
        }))
    }

    /// The context it was loaded into.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// What it was called when it was loaded.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kernel with this lowered name.
    ///
    /// # Errors
    /// There is none.
    pub fn function(self: &Arc<Module>, name: &str) -> Result<Function, Error> {
        let text = self.symbol(name)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the context is current, the module loaded; the name is terminated; the pointer is to a handle.
        let found = unsafe {
            let driver = self.context.bound()?;
            driver.cuModuleGetFunction(&raw mut handle, self.handle, text.as_ptr().cast::<c_char>())
        };
        found.map_err(|error| self.not_found(error, "kernel", name))?;
        Ok(Function::new(Arc::clone(self), handle, name))
    }

    /// Where the global variable with this name lies, and its bytes.
    ///
    /// # Errors
    /// There is none.
    pub fn global(&self, name: &str) -> Result<(DevicePointer, usize), Error> {
        let text = self.symbol(name)?;
        let (mut address, mut bytes) = (0, 0);
        // SAFETY: as for `function`.
        let found = unsafe {
            let driver = self.context.bound()?;
            driver.cuModuleGetGlobal_v2(
                &raw mut address,
                &raw mut bytes,
                self.handle,
                text.as_ptr(),
            )
        };
        found.map_err(|error| self.not_found(error, "variable", name))?;
        Ok((DevicePointer(address), bytes))
    }

    /// Reads the front of a global variable into `data`, after all work in `stream` so far.
    ///
    /// # Errors
    /// There is none, it is smaller, or something in the stream failed.
    pub fn read_global<T: Pod>(
        &self,
        stream: &Stream,
        name: &str,
        data: &mut [T],
    ) -> Result<(), Error> {
        let from = self.whole_of(name, size_of_val(data))?;
        if data.is_empty() {
            return Ok(());
        }
        // SAFETY: the variable has as many bytes, and lives as long as the module; `data` is borrowed until the copy is done, since
        // it is waited for, and any bytes are valid for its type.
        unsafe {
            self.context.bound()?.cuMemcpyDtoHAsync_v2(
                data.as_mut_ptr().cast(),
                from.0,
                size_of_val(data),
                stream.raw(),
            )?
        };
        stream.synchronize()
    }

    /// Writes `data` to the front of a global variable, and waits for it.
    ///
    /// # Errors
    /// As [`Module::read_global`].
    pub fn write_global<T: Pod>(
        &self,
        stream: &Stream,
        name: &str,
        data: &[T],
    ) -> Result<(), Error> {
        let to = self.whole_of(name, size_of_val(data))?;
        if data.is_empty() {
            return Ok(());
        }
        // SAFETY: as above; `data` lives until the copy is done.
        unsafe {
            self.context.bound()?.cuMemcpyHtoDAsync_v2(
                to.0,
                data.as_ptr().cast(),
                size_of_val(data),
                stream.raw(),
            )?
        };
        stream.synchronize()
    }

    /// Where the variable lies, which must have so many bytes.
    fn whole_of(&self, name: &str, bytes: usize) -> Result<DevicePointer, Error> {
        let (address, has) = self.global(name)?;
        if has < bytes {
            return Err(Error::arguments(format!(
                "{bytes} bytes of the variable `{name}` of {}, which has {has}",
                self.name
            )));
        }
        Ok(address)
    }

    fn symbol(&self, name: &str) -> Result<CString, Error> {
        CString::new(name)
            .map_err(|_| Error::arguments(format!("{}: {name:?} is no name", self.name)))
    }

    fn not_found(&self, error: Error, sort: &str, name: &str) -> Error {
        if error.code() == Some(NOT_FOUND) {
            Error::arguments(format!("{} has no {sort} `{name}`", self.name))
        } else {
            error.during(&format!("looking up {sort} `{name}` of {}", self.name))
        }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if let Ok(driver) = self.context.bound() {
            // SAFETY: the handle was made by `load` and is unloaded here only; functions hold the module.
            let _ = unsafe { driver.cuModuleUnload(self.handle) };
        }
    }
}
