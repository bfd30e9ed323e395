//! The functions of `libnvrtc`.

use std::ffi::{c_char, c_int};
use std::path::PathBuf;

use cudarc::nvrtc::sys::nvrtcProgram;

use crate::error::{Cause, Version};
use crate::library::{self, Library, Origin, table::function_table};
use crate::{Error, Kind};

function_table! {
    /// What stepscope calls of NVRTC.
    struct Functions of cudarc::nvrtc::sys => nvrtcResult {
        "7.0": nvrtcVersion(major: *mut c_int, minor: *mut c_int);
        "7.0": nvrtcCreateProgram(
            program: *mut nvrtcProgram,
            source: *const c_char,
            name: *const c_char,
            headers: c_int,
            texts: *const *const c_char,
            names: *const *const c_char,
        );
        "7.0": nvrtcDestroyProgram(program: *mut nvrtcProgram);
        "7.0": nvrtcCompileProgram(program: nvrtcProgram, count: c_int, options: *const *const c_char);
        "7.0": nvrtcGetProgramLogSize(program: nvrtcProgram, size: *mut usize);
        "7.0": nvrtcGetProgramLog(program: nvrtcProgram, log: *mut c_char);
        "7.0": nvrtcGetPTXSize(program: nvrtcProgram, size: *mut usize);
        "7.0": nvrtcGetPTX(program: nvrtcProgram, ptx: *mut c_char);
        "8.0": nvrtcAddNameExpression(program: nvrtcProgram, expression: *const c_char);
        "8.0": nvrtcGetLoweredName(program: nvrtcProgram, expression: *const c_char, name: *mut *const c_char);
        "11.1": nvrtcGetCUBINSize(program: nvrtcProgram, size: *mut usize);
        "11.1": nvrtcGetCUBIN(program: nvrtcProgram, cubin: *mut c_char);
        "11.2": nvrtcGetNumSupportedArchs(count: *mut c_int);
        "11.2": nvrtcGetSupportedArchs(archs: *mut c_int);
    }
    implemented for Api, in its field functions
}

/// NVRTC, opened.
pub(super) struct Api {
    pub(super) path: PathBuf,
    pub(super) origin: Origin,
    functions: Functions,
}

impl Api {
    /// Opens the first NVRTC of `file_names` that the search finds.
    pub(super) fn open(file_names: &[&str]) -> Result<Api, Error> {
        let found = library::open_among(Library::Nvrtc, file_names)?;
        // SAFETY: `library` made sure that this is an NVRTC, and never unloads it.
        let functions = unsafe { Functions::load(|name| library::symbol(&found.handle, name)) };
        Ok(Api {
            path: found.path,
            origin: found.origin,
            functions,
        })
    }

    pub(super) fn version(&self) -> Result<Version, Error> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both pointers are to integers that live through the call.
        unsafe { self.nvrtcVersion(&raw mut major, &raw mut minor)? };
        Ok(Version {
            major: major.unsigned_abs(),
            minor: minor.unsigned_abs(),
        })
    }

    /// The compute capabilities that code can be generated for, as 90 for 9.0, ascending.
    pub(super) fn supported(&self) -> Result<Vec<u32>, Error> {
        let mut count = 0;
        // SAFETY: the pointer is to an integer that lives through the call.
        unsafe { self.nvrtcGetNumSupportedArchs(&raw mut count)? };
        let mut archs: Vec<c_int> = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: NVRTC writes as many integers as it said there are.
        unsafe { self.nvrtcGetSupportedArchs(archs.as_mut_ptr())? };
        archs.sort_unstable();
        Ok(archs.into_iter().map(c_int::unsigned_abs).collect())
    }

    fn check(&self, function: &'static str, status: u32) -> Result<(), Error> {
        Err(Error::new(Cause::Compiler {
            doing: String::new(),
            function,
            code: status,
            name: status_name(status),
        }))
    }

    fn missing(&self, function: &'static str, since: &'static str) -> Error {
        Error::new(Cause::MissingFunction {
            path: self.path.clone(),
            function,
            since,
            way_out: Library::Nvrtc.way_out(),
        })
    }
}

/// Whether a call failed because the source has mistakes.
pub(super) fn is_compilation(error: &Error) -> bool {
    error.kind() == Kind::Compiler && error.code() == Some(6)
}

/// The names of `nvrtcResult` in nvrtc.h of CUDA 13.0.
fn status_name(status: u32) -> &'static str {
    match status {
        1 => "NVRTC_ERROR_OUT_OF_MEMORY",
        2 => "NVRTC_ERROR_PROGRAM_CREATION_FAILURE",
        3 => "NVRTC_ERROR_INVALID_INPUT",
        4 => "NVRTC_ERROR_INVALID_PROGRAM",
        5 => "NVRTC_ERROR_INVALID_OPTION",
        6 => "NVRTC_ERROR_COMPILATION",
        7 => "NVRTC_ERROR_BUILTIN_OPERATION_FAILURE",
        8 => "NVRTC_ERROR_NO_NAME_EXPRESSIONS_AFTER_COMPILATION",
        9 => "NVRTC_ERROR_NO_LOWERED_NAMES_BEFORE_COMPILATION",
        10 => "NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID",
        11 => "NVRTC_ERROR_INTERNAL_ERROR",
        12 => "NVRTC_ERROR_TIME_FILE_WRITE_FAILED",
        13 => "NVRTC_ERROR_NO_PCH_CREATE_ATTEMPTED",
        14 => "NVRTC_ERROR_PCH_CREATE_HEAP_EXHAUSTED",
        15 => "NVRTC_ERROR_PCH_CREATE",
        16 => "NVRTC_ERROR_CANCELLED",
        17 => "NVRTC_ERROR_TIME_TRACE_FILE_WRITE_FAILED",
        _ => "an error that this version of stepscope does not know",
    }
}
