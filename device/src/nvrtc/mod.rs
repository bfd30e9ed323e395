//! Compiling CUDA C++ at run time with NVRTC, and keeping what came out.
//!
//! A [`Program`] is source, headers, kernels to instantiate and options; a [`Compiler`] makes from it a [`Compiled`]:
//! machine code for the exact architecture, the PTX it was made from, the kernels' lowered names, and the report about
//! registers, spills and shared memory. A [`Cache`] on disk keeps all of it.
//!
//! NVRTC compiles one program at a time per process, however many threads ask; the cache is what saves time.

mod api;
mod arch;
mod cache;
mod diagnostics;
mod program;
mod report;

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Mutex;

use cudarc::nvrtc::sys::nvrtcProgram;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::error::{Cause, Version};
use crate::library::Origin;
use api::Api;
pub use arch::Arch;
pub use cache::{Cache, Usage};
pub use diagnostics::{Diagnostic, Severity};
pub use program::{Options, Program};
pub use report::{Advisory, KernelReport, Report};

/// NVRTC, opened and ready.
#[derive(Debug)]
pub struct Compiler {
    api: Api,
    version: Version,
    supported: Vec<u32>,
    /// The size of NVRTC's file: releases that share a version number differ in it.
    file_bytes: u64,
    /// NVRTC is serial anyway; waiting here keeps the waiting visible.
    turn: Mutex<()>,
}

/// What a program became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Machine code; empty if the architecture is a virtual one.
    pub cubin: Vec<u8>,
    /// The PTX it was made from.
    pub ptx: String,
    /// Everything else.
    pub facts: Facts,
}

/// What is known about a compiled program beside its code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The program's name: the source's path.
    pub program: String,
    /// The architecture, as `sm_90a`.
    pub arch: String,
    /// The NVRTC that compiled it.
    pub compiler: Version,
    /// From each of [`Program::expressions`] to the name to ask the module for.
    pub lowered_names: BTreeMap<String, String>,
    /// What the machine code uses.
    pub report: Report,
    /// The compiler's warnings.
    pub warnings: Vec<Diagnostic>,
}

impl Compiled {
    /// What the driver loads: the machine code, or the PTX where there is none.
    pub fn image(&self) -> &[u8] {
        if self.cubin.is_empty() {
            self.ptx.as_bytes()
        } else {
            &self.cubin
        }
    }

    /// The name under which the module knows the kernel that was asked for as `expression`; an `extern "C"` kernel has its own.
    pub fn lowered_name<'a>(&'a self, expression: &'a str) -> &'a str {
        self.facts
            .lowered_names
            .get(expression)
            .map_or(expression, String::as_str)
    }

    /// The report about the kernel that was asked for as `expression`.
    pub fn kernel(&self, expression: &str) -> Option<&KernelReport> {
        self.facts.report.kernel(self.lowered_name(expression))
    }
}

impl Compiler {
    /// Opens the newest NVRTC there is.
    ///
    /// # Errors
    /// There is none, or it cannot be used.
    pub fn open() -> Result<Compiler, Error> {
        Compiler::with(&["libnvrtc.so.13", "libnvrtc.so.12"])
    }

    /// Opens the newest NVRTC whose machine code a driver for CUDA `driver` loads: that of its own major version at most.
    ///
    /// # Errors
    /// There is none, or it cannot be used.
    pub fn open_for_driver(driver: Version) -> Result<Compiler, Error> {
        if driver.major >= 13 {
            Compiler::open()
        } else {
            Compiler::with(&["libnvrtc.so.12"])
        }
    }

    fn with(file_names: &[&str]) -> Result<Compiler, Error> {
        let api = Api::open(file_names)?;
        let file_bytes = std::fs::metadata(&api.path).map_or(0, |metadata| metadata.len());
        Ok(Compiler {
            version: api.version()?,
            supported: api.supported()?,
            file_bytes,
            api,
            turn: Mutex::new(()),
        })
    }

    /// NVRTC's version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The file it was opened from.
    pub fn path(&self) -> &Path {
        &self.api.path
    }

    /// What led to that file.
    pub fn origin(&self) -> Origin {
        self.api.origin
    }

    /// The compute capabilities it generates code for, as 90 for 9.0, ascending.
    pub fn supported(&self) -> &[u32] {
        &self.supported
    }

    /// What to compile for, on a device of compute capability `major.minor`: its exact architecture, or, if the device is newer
    /// than this NVRTC, the newest virtual one, whose PTX the driver compiles further.
    ///
    /// # Errors
    /// The device is older than anything this NVRTC compiles for.
    pub fn arch_for(&self, major: u32, minor: u32) -> Result<Arch, Error> {
        arch_for(&self.supported, self.version, major, minor)
    }

    /// Compiles `program` for `arch`, without looking into any cache.
    ///
    /// # Errors
    /// The source has mistakes: the message names the first one's file and line, [`Error::compiler_log`] has them all.
    pub fn compile(&self, program: &Program, arch: Arch) -> Result<Compiled, Error> {
        let _turn = self
            .turn
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let unit = Unit::create(&self.api, program)?;
        for expression in &program.expressions {
            unit.add_expression(expression)?;
        }
        let compiled = unit.compile(&program.options.arguments(arch));
        let log = unit.log().unwrap_or_default();
        if let Err(error) = compiled {
            let is_about_the_source = api::is_compilation(&error) || !log.trim().is_empty();
            return Err(if is_about_the_source {
                Error::new(Cause::Compile {
                    program: program.name.clone(),
                    arch: arch.to_string(),
                    first: diagnostics::headline(&log),
                    log,
                })
            } else {
                error.during(&format!("compiling {}", program.name))
            });
        }
        let mut lowered_names = BTreeMap::new();
        for expression in &program.expressions {
            lowered_names.insert(expression.clone(), unit.lowered_name(expression)?);
        }
        Ok(Compiled {
            cubin: if arch.is_real() {
                unit.cubin()?
            } else {
                Vec::new()
            },
            ptx: unit.ptx()?,
            facts: Facts {
                program: program.name.clone(),
                arch: arch.to_string(),
                compiler: self.version,
                lowered_names,
                report: Report::parse(&log),
                warnings: diagnostics::parse(&log),
            },
        })
    }

    /// Compiles `program` for `arch`, or takes what `cache` has of an earlier time.
    ///
    /// A program with [`Options::include_folders`] is always compiled, since nobody knows what those folders hold today. What
    /// cannot be written to the cache is no error: it is compiled again next time.
    ///
    /// # Errors
    /// As [`Compiler::compile`].
    pub fn compile_cached(
        &self,
        program: &Program,
        arch: Arch,
        cache: &Cache,
    ) -> Result<Compiled, Error> {
        if !program.options.include_folders.is_empty() {
            return self.compile(program, arch);
        }
        let key = cache::Key::of(program, arch, self.version, self.file_bytes);
        if let Some(compiled) = cache.get(&key) {
            return Ok(compiled);
        }
        let compiled = self.compile(program, arch)?;
        let _ = cache.put(&key, &compiled); // a read-only or full disk costs time only
        Ok(compiled)
    }
}

fn arch_for(supported: &[u32], version: Version, major: u32, minor: u32) -> Result<Arch, Error> {
    let device = Arch::of_device(major, minor);
    if supported.contains(&device.number()) {
        return Ok(device);
    }
    let below = supported
        .iter()
        .rev()
        .find(|&&number| number < device.number());
    below.map(|&number| Arch::virtual_of(number)).ok_or_else(|| {
        let oldest = supported.first().copied().unwrap_or(0);
        Error::arguments(format!(
            "NVRTC {version} compiles for compute capability {}.{} and newer, but this device has {major}.{minor}",
            oldest / 10,
            oldest % 10
        ))
    })
}

/// A program inside NVRTC.
struct Unit<'a> {
    api: &'a Api,
    handle: nvrtcProgram,
    name: &'a str,
}

impl<'a> Unit<'a> {
    fn create(api: &'a Api, program: &'a Program) -> Result<Unit<'a>, Error> {
        let source = terminated(&program.source, &program.name)?;
        let name = terminated(&program.name, &program.name)?;
        let mut names = Vec::new();
        let mut texts = Vec::new();
        for (header, text) in &program.headers {
            names.push(terminated(header, &program.name)?);
            texts.push(terminated(text, header)?);
        }
        let name_pointers = pointers(&names);
        let text_pointers = pointers(&texts);
        let mut handle = ptr::null_mut();
        // SAFETY: every string is terminated and outlives the call, which copies them; both arrays have as many entries as
        // there are headers.
        unsafe {
            api.nvrtcCreateProgram(
                &raw mut handle,
                source.as_ptr(),
                name.as_ptr(),
                count(&names)?,
                text_pointers.as_ptr(),
                name_pointers.as_ptr(),
            )?;
        }
        Ok(Unit {
            api,
            handle,
            name: &program.name,
        })
    }

    fn add_expression(&self, expression: &str) -> Result<(), Error> {
        let text = terminated(expression, self.name)?;
        // SAFETY: `handle` is a program until `self` is dropped; the string outlives the call, which copies it.
        unsafe { self.api.nvrtcAddNameExpression(self.handle, text.as_ptr()) }
    }

    fn compile(&self, arguments: &[String]) -> Result<(), Error> {
        let arguments: Vec<CString> = arguments
            .iter()
            .map(|argument| terminated(argument, self.name))
            .collect::<Result<_, _>>()?;
        let pointers = pointers(&arguments);
        // SAFETY: as above; the options outlive the call.
        unsafe {
            self.api
                .nvrtcCompileProgram(self.handle, count(&arguments)?, pointers.as_ptr())
        }
    }

    fn log(&self) -> Result<String, Error> {
        let mut size = 0;
        // SAFETY: `handle` is a program; `size` lives through the call.
        unsafe {
            self.api
                .nvrtcGetProgramLogSize(self.handle, &raw mut size)?
        };
        // SAFETY: NVRTC writes `size` bytes, the final zero included.
        let bytes = filled(size, |text| unsafe {
            self.api.nvrtcGetProgramLog(self.handle, text)
        })?;
        Ok(text(bytes))
    }

    fn ptx(&self) -> Result<String, Error> {
        let mut size = 0;
        // SAFETY: `handle` is a program; `size` lives through the call.
        unsafe { self.api.nvrtcGetPTXSize(self.handle, &raw mut size)? };
        // SAFETY: NVRTC writes `size` bytes, the final zero included.
        let bytes = filled(size, |text| unsafe {
            self.api.nvrtcGetPTX(self.handle, text)
        })?;
        Ok(text(bytes))
    }

    fn cubin(&self) -> Result<Vec<u8>, Error> {
        let mut size = 0;
        // SAFETY: `handle` is a program; `size` lives through the call.
        unsafe { self.api.nvrtcGetCUBINSize(self.handle, &raw mut size)? };
        // SAFETY: NVRTC writes `size` bytes.
        filled(size, |bytes| unsafe {
            self.api.nvrtcGetCUBIN(self.handle, bytes)
        })
    }

    fn lowered_name(&self, expression: &str) -> Result<String, Error> {
        let text = terminated(expression, self.name)?;
        let mut name: *const c_char = ptr::null();
        // SAFETY: the program is compiled, and `expression` was added before.
        unsafe {
            self.api
                .nvrtcGetLoweredName(self.handle, text.as_ptr(), &raw mut name)?
        };
        if name.is_null() {
            return Err(Error::arguments(format!(
                "NVRTC gave no name for `{expression}` of {}",
                self.name
            )));
        }
        // SAFETY: the string belongs to the program and lives until it is destroyed; it is copied here.
        let name = unsafe { CStr::from_ptr(name) };
        Ok(name.to_string_lossy().into_owned())
    }
}

impl Drop for Unit<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle was made by `create` and is destroyed here only.
        let _ = unsafe { self.api.nvrtcDestroyProgram(&raw mut self.handle) };
    }
}

/// `text` with a zero behind it; `place` is where it came from.
fn terminated(text: &str, place: &str) -> Result<CString, Error> {
    CString::new(text)
        .map_err(|_| Error::arguments(format!("{place} holds a zero byte, which no source may")))
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).collect()
}

fn count(strings: &[CString]) -> Result<c_int, Error> {
    c_int::try_from(strings.len())
        .map_err(|_| Error::arguments("more than two thousand million strings for NVRTC"))
}

/// A buffer of `size` bytes that `fill` wrote.
fn filled(
    size: usize,
    fill: impl FnOnce(*mut c_char) -> Result<(), Error>,
) -> Result<Vec<u8>, Error> {
    // One more, so that the pointer is one to memory even for an empty result.
    let mut bytes = vec![0_u8; size + 1];
    fill(bytes.as_mut_ptr().cast())?;
    bytes.truncate(size);
    Ok(bytes)
}

/// The text before the final zero.
fn text(mut bytes: Vec<u8>) -> String {
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("path", &self.path)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// Where [`Cache::for_this_user`] keeps what was compiled: `$STEPSCOPE_CACHE`, `$XDG_CACHE_HOME/stepscope`, or
/// `~/.cache/stepscope`.
pub fn cache_folder() -> Option<PathBuf> {
    cache::folder(|name| std::env::var_os(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: Version = Version {
        major: 13,
        minor: 0,
    };

    #[test]
    fn a_device_newer_than_the_compiler_gets_ptx() {
        let supported = [75, 80, 90, 100];
        let arch =
            |major, minor| arch_for(&supported, VERSION, major, minor).map(|arch| arch.to_string());
        assert_eq!(arch(9, 0).unwrap(), "sm_90a");
        assert_eq!(arch(8, 6).unwrap(), "compute_80");
        assert_eq!(arch(13, 0).unwrap(), "compute_100");
        let error = arch(7, 0).unwrap_err().to_string();
        assert_eq!(
            error,
            "NVRTC 13.0 compiles for compute capability 7.5 and newer, but this device has 7.0"
        );
    }

    #[test]
    fn zero_bytes_in_a_source_are_refused() {
        let error = terminated("a\0b", "k.cu").unwrap_err();
        assert!(error.to_string().starts_with("k.cu holds a zero byte"));
    }
}
