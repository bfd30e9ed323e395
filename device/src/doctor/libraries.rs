//! Each library: where it is, and which version.

use std::ffi::c_int;
use std::path::PathBuf;

use serde::Serialize;

use crate::library::{self, Found, Library, Origin};

/// One of NVIDIA's libraries on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LibraryReport {
    /// Which one.
    pub library: Library,
    /// What it is called in messages.
    pub title: &'static str,
    /// The file it was opened from.
    pub path: Option<PathBuf>,
    /// What led to that file.
    pub origin: Option<Origin>,
    /// Its version, as it tells it.
    pub version: Option<String>,
    /// Why it cannot be used.
    pub problem: Option<String>,
    /// Where it was looked for, if it is nowhere.
    pub tried: Vec<String>,
    /// The environment variable that chooses another file.
    pub variable: &'static str,
}

impl LibraryReport {
    pub(super) fn absent(library: Library, problem: String) -> LibraryReport {
        LibraryReport {
            library,
            title: library.title(),
            path: None,
            origin: None,
            version: None,
            problem: Some(problem),
            tried: Vec::new(),
            variable: library.variable(),
        }
    }
}

/// Looks for every library.
pub(super) fn examine() -> Vec<LibraryReport> {
    Library::ALL.into_iter().map(look_for).collect()
}

/// What cannot be done without `library`.
pub(super) fn needed_for(library: Library) -> &'static str {
    match library {
        Library::Driver => "running anything on a GPU",
        Library::Nvml => "knowing the GPU's clocks, power and throttling",
        Library::Nvrtc => "compiling the CUDA kernels",
        Library::Cupti => "exact times and hardware counters of single kernels",
        Library::CublasLt => "comparing matrix multiplications with NVIDIA's",
        Library::Nccl => "tensor parallelism over several GPUs",
    }
}

fn look_for(library: Library) -> LibraryReport {
    match library::open(library) {
        Ok(found) => LibraryReport {
            version: version(library, &found),
            path: Some(found.path),
            origin: Some(found.origin),
            problem: None,
            ..LibraryReport::absent(library, String::new())
        },
        Err(error) => LibraryReport {
            tried: error.tried().to_vec(),
            ..LibraryReport::absent(library, error.to_string())
        },
    }
}

/// What the library says of its version, if it can be asked before anything is initialised.
fn version(library: Library, found: &Found) -> Option<String> {
    match library {
        Library::Driver => {
            let number = ask(found, b"cuDriverGetVersion\0")?;
            Some(format!("CUDA {}.{}", number / 1000, number % 1000 / 10))
        }
        Library::Nvrtc => {
            // SAFETY: this is the function's signature in nvrtc.h, with the status enum as an integer.
            let symbol = unsafe {
                found
                    .handle
                    .get::<unsafe extern "C" fn(*mut c_int, *mut c_int) -> u32>(b"nvrtcVersion\0")
            };
            let (mut major, mut minor) = (0, 0);
            // SAFETY: both pointers are to integers that live through the call.
            let status = unsafe { symbol.ok()?(&raw mut major, &raw mut minor) };
            (status == 0).then(|| format!("{major}.{minor}"))
        }
        Library::Cupti => {
            let number = ask(found, b"cuptiGetVersion\0")?;
            Some(crate::cupti::cuda_version(number))
        }
        Library::CublasLt => {
            // SAFETY: this is the function's signature in cublasLt.h.
            let symbol = unsafe {
                found
                    .handle
                    .get::<unsafe extern "C" fn() -> usize>(b"cublasLtGetVersion\0")
            };
            // SAFETY: it takes nothing, and may be called at any time.
            let number = unsafe { symbol.ok()?() };
            Some(format!(
                "{}.{}.{}",
                number / 10_000,
                number % 10_000 / 100,
                number % 100
            ))
        }
        Library::Nccl => {
            let number = ask(found, b"ncclGetVersion\0")?;
            Some(format!(
                "{}.{}.{}",
                number / 10_000,
                number % 10_000 / 100,
                number % 100
            ))
        }
        // It must be initialised first, which needs a driver; the GPUs' part does that.
        Library::Nvml => None,
    }
}

/// The number that a function writes which takes one pointer to an integer and returns a status.
fn ask(found: &Found, function: &[u8]) -> Option<u32> {
    // SAFETY: the functions asked for here have this signature in cuda.h, cupti_version.h and nccl.h, with the status enum
    // as an integer and signed or unsigned integers of 32 bits.
    let symbol = unsafe {
        found
            .handle
            .get::<unsafe extern "C" fn(*mut u32) -> u32>(function)
    }
    .ok()?;
    let mut number = 0;
    // SAFETY: the pointer is to an integer that lives through the call.
    let status = unsafe { symbol(&raw mut number) };
    (status == 0).then_some(number)
}
