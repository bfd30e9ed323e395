//! The functions of `libcublasLt`.

use std::ffi::{c_int, c_void};
use std::mem::{align_of, offset_of, size_of};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t, cublasLtMatmulHeuristicResult_t, cublasLtMatmulPreference_t,
    cublasLtMatmulPreferenceAttributes_t, cublasLtMatrixLayout_t, cudaDataType, cudaStream_t,
};

use crate::Error;
use crate::error::Cause;
use crate::library::{self, Library, Origin, table::function_table};

function_table! {
    /// What stepscope calls of cuBLASLt.
    struct Functions of cudarc::cublaslt::sys => cublasStatus_t {
        "10.1": cublasLtCreate(handle: *mut cublasLtHandle_t);
        "10.1": cublasLtDestroy(handle: cublasLtHandle_t);
        "11.0": cublasLtMatmulDescCreate(
            description: *mut cublasLtMatmulDesc_t,
            compute: cublasComputeType_t,
            scale: cudaDataType,
        );
        "10.1": cublasLtMatmulDescSetAttribute(
            description: cublasLtMatmulDesc_t,
            attribute: cublasLtMatmulDescAttributes_t,
            value: *const c_void,
            bytes: usize,
        );
        "10.1": cublasLtMatmulDescDestroy(description: cublasLtMatmulDesc_t);
        "10.1": cublasLtMatrixLayoutCreate(
            layout: *mut cublasLtMatrixLayout_t,
            element: cudaDataType,
            rows: u64,
            columns: u64,
            leading_dimension: i64,
        );
        "10.1": cublasLtMatrixLayoutDestroy(layout: cublasLtMatrixLayout_t);
        "10.1": cublasLtMatmulPreferenceCreate(preference: *mut cublasLtMatmulPreference_t);
        "10.1": cublasLtMatmulPreferenceSetAttribute(
            preference: cublasLtMatmulPreference_t,
            attribute: cublasLtMatmulPreferenceAttributes_t,
            value: *const c_void,
            bytes: usize,
        );
        "10.1": cublasLtMatmulPreferenceDestroy(preference: cublasLtMatmulPreference_t);
        "10.1": cublasLtMatmulAlgoGetHeuristic(
            handle: cublasLtHandle_t,
            description: cublasLtMatmulDesc_t,
            a: cublasLtMatrixLayout_t,
            b: cublasLtMatrixLayout_t,
            c: cublasLtMatrixLayout_t,
            d: cublasLtMatrixLayout_t,
            preference: cublasLtMatmulPreference_t,
            wanted: c_int,
            results: *mut cublasLtMatmulHeuristicResult_t,
            given: *mut c_int,
        );
        "10.1": cublasLtMatmul(
            handle: cublasLtHandle_t,
            description: cublasLtMatmulDesc_t,
            alpha: *const c_void,
            a: *const c_void,
            a_layout: cublasLtMatrixLayout_t,
            b: *const c_void,
            b_layout: cublasLtMatrixLayout_t,
            beta: *const c_void,
            c: *const c_void,
            c_layout: cublasLtMatrixLayout_t,
            d: *mut c_void,
            d_layout: cublasLtMatrixLayout_t,
            algorithm: *const cublasLtMatmulAlgo_t,
            workspace: *mut c_void,
            workspace_bytes: usize,
            stream: cudaStream_t,
        );
    }
    implemented for CublasLt, in its field functions
}

/// `cublasLtGetVersion`, which returns the version itself.
type GetVersion = unsafe extern "C" fn() -> usize;

/// One answer of the heuristic: `cublasLtMatmulHeuristicResult_t`, with its status as the integer it is, since a newer library
/// may answer with one that cudarc's enum does not know.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Suggestion {
    pub(super) algorithm: cublasLtMatmulAlgo_t,
    pub(super) workspace_bytes: usize,
    pub(super) status: u32,
    pub(super) waves: f32,
    pub(super) reserved: [c_int; 4],
}

impl Suggestion {
    /// A place for the heuristic to write one to.
    pub(super) const EMPTY: Suggestion = Suggestion {
        algorithm: cublasLtMatmulAlgo_t { data: [0; 8] },
        workspace_bytes: 0,
        status: 0,
        waves: 0.0,
        reserved: [0; 4],
    };
}

// The heuristic writes NVIDIA's struct where ours lies.
const _: () = {
    type Theirs = cublasLtMatmulHeuristicResult_t;
    assert!(size_of::<Suggestion>() == size_of::<Theirs>());
    assert!(align_of::<Suggestion>() == align_of::<Theirs>());
    assert!(offset_of!(Suggestion, algorithm) == offset_of!(Theirs, algo));
    assert!(offset_of!(Suggestion, workspace_bytes) == offset_of!(Theirs, workspaceSize));
    assert!(offset_of!(Suggestion, status) == offset_of!(Theirs, state));
    assert!(offset_of!(Suggestion, waves) == offset_of!(Theirs, wavesCount));
};

/// cuBLASLt, found and opened. It stays loaded until the process ends.
pub struct CublasLt {
    path: PathBuf,
    origin: Origin,
    version: [usize; 3],
    functions: Functions,
}

impl CublasLt {
    /// Finds the newest cuBLASLt and opens it. That needs no GPU.
    ///
    /// # Errors
    /// It is nowhere, or cannot be opened.
    pub fn open() -> Result<Arc<CublasLt>, Error> {
        let found = library::open(Library::CublasLt)?;
        let find = |name: &str| library::symbol(&found.handle, name);
        // SAFETY: the search made sure that this is a cuBLASLt, and never unloads it.
        unsafe { CublasLt::with_functions(found.path.clone(), found.origin, find) }
    }

    /// # Safety
    /// What `find` gives for a name must be a function with the signature and the meaning that cublasLt.h gives to that name,
    /// and stay there until the process ends.
    pub(super) unsafe fn with_functions(
        path: PathBuf,
        origin: Origin,
        find: impl Fn(&str) -> Option<*const c_void>,
    ) -> Result<Arc<CublasLt>, Error> {
        // SAFETY: the caller vouches for the functions; `GetVersion` is the signature of cublasLt.h.
        let (functions, get_version) = unsafe {
            (
                Functions::load(&find),
                find("cublasLtGetVersion")
                    .map(|symbol| std::mem::transmute::<*const c_void, GetVersion>(symbol)),
            )
        };
        let mut library = CublasLt {
            path,
            origin,
            version: [0; 3],
            functions,
        };
        let Some(get_version) = get_version else {
            return Err(library.missing("cublasLtGetVersion", "10.1"));
        };
        // SAFETY: it takes nothing, and may be called at any time.
        let number = unsafe { get_version() };
        library.version = [number / 10_000, number % 10_000 / 100, number % 100];
        Ok(Arc::new(library))
    }

    /// The file it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What led to that file.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Its own version, as 13.1.0; it is not CUDA's.
    pub fn version(&self) -> String {
        self.version.map(|part| part.to_string()).join(".")
    }

    fn check(&self, function: &'static str, status: u32) -> Result<(), Error> {
        Err(refused(function, status))
    }

    fn missing(&self, function: &'static str, since: &'static str) -> Error {
        Error::new(Cause::MissingFunction {
            path: self.path.clone(),
            function,
            since,
            way_out: Library::CublasLt.way_out(),
        })
    }
}

impl std::fmt::Debug for CublasLt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CublasLt")
            .field("path", &self.path)
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

pub(super) const NOT_SUPPORTED: u32 = 15;

/// The error of a call that was answered with `status`.
pub(super) fn refused(function: &'static str, status: u32) -> Error {
    Error::new(Cause::Blas {
        doing: String::new(),
        function,
        code: status,
        name: status_name(status),
    })
}

/// The names of `cublasStatus_t` in cublas_api.h of CUDA 12 and 13.
fn status_name(status: u32) -> &'static str {
    match status {
        1 => "CUBLAS_STATUS_NOT_INITIALIZED",
        3 => "CUBLAS_STATUS_ALLOC_FAILED",
        7 => "CUBLAS_STATUS_INVALID_VALUE",
        8 => "CUBLAS_STATUS_ARCH_MISMATCH",
        11 => "CUBLAS_STATUS_MAPPING_ERROR",
        13 => "CUBLAS_STATUS_EXECUTION_FAILED",
        14 => "CUBLAS_STATUS_INTERNAL_ERROR",
        NOT_SUPPORTED => "CUBLAS_STATUS_NOT_SUPPORTED",
        16 => "CUBLAS_STATUS_LICENSE_ERROR",
        _ => "an error that this version of stepscope does not know",
    }
}
