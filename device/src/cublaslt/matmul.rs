//! One multiplication: described, planned, and put into a stream.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtEpilogue_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t as Attribute, cublasLtMatmulPreference_t,
    cublasLtMatmulPreferenceAttributes_t as Preference, cublasLtMatrixLayout_t, cudaDataType,
};

use super::api::{NOT_SUPPORTED, Suggestion, refused};
use super::{CublasLt, Handle};
use crate::Error;
use crate::driver::{DeviceBuffer, DevicePointer, Stream};

/// The most algorithms that the heuristic is asked for.
const ALGORITHMS: usize = 32;

/// What the heuristic takes every matrix to be aligned to: its default, and what the driver allocates at.
const ALIGNMENT: u64 = 256;

/// `CUBLAS_OP_N` and `CUBLAS_OP_T` of cublas_api.h.
const AS_IT_IS: u32 = 0;
const TRANSPOSED: u32 = 1;

/// The type of the elements of all three matrices; sums are in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
}

impl Element {
    fn data_type(self) -> cudaDataType {
        match self {
            Element::Bf16 => cudaDataType::CUDA_R_16BF,
            Element::F16 => cudaDataType::CUDA_R_16F,
        }
    }
}

/// What is to be computed: `out[m, n] = x[m, k] · weight[n, k]ᵀ (+ bias[n])`, each matrix row after row without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Problem {
    /// Rows of `x` and of `out`: tokens.
    pub m: usize,
    /// Rows of `weight`, columns of `out`.
    pub n: usize,
    /// Columns of `x` and of `weight`.
    pub k: usize,
    /// The type of all elements, those of the bias included.
    pub element: Element,
    /// A vector of `n` elements that is added to each row of `out`.
    pub bias: Option<DevicePointer>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let element = match self.element {
            Element::Bf16 => "bf16",
            Element::F16 => "f16",
        };
        let Problem { m, n, k, .. } = self;
        write!(f, "[{m}, {k}] · [{n}, {k}]ᵀ in {element}")?;
        if self.bias.is_some() {
            f.write_str(" with a bias")?;
        }
        Ok(())
    }
}

/// A way of computing one [`Problem`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Algorithm {
    algorithm: cublasLtMatmulAlgo_t,
    /// Bytes of workspace that it uses.
    pub workspace_bytes: usize,
    /// How many times the device is filled with blocks, as cuBLASLt estimates it.
    pub waves: f32,
}

/// One multiplication, planned.
#[derive(Debug)]
pub struct Matmul {
    description: Description,
    problem: Problem,
    algorithms: Vec<Algorithm>,
    chosen: usize,
    workspace: DeviceBuffer<u8>,
    handle: Arc<Handle>,
}

impl Matmul {
    /// Asks cuBLASLt how it would compute `problem` with at most `workspace_bytes` of scratch memory, which is allocated here.
    ///
    /// # Errors
    /// A dimension is 0 or too large, cuBLASLt has no algorithm for the problem, or memory ran out.
    pub fn new(
        handle: &Arc<Handle>,
        problem: &Problem,
        workspace_bytes: usize,
    ) -> Result<Matmul, Error> {
        handle.context.bound()?;
        if let Some(bias) = problem.bias {
            check_alignment("bias", bias)?;
        }
        let planned = Description::new(&handle.library, problem).and_then(|description| {
            let algorithms = suggestions(handle, &description, workspace_bytes)?;
            Ok((description, algorithms))
        });
        let (description, algorithms) =
            planned.map_err(|error| error.during(&format!("planning {problem}")))?;
        let needed = algorithms
            .iter()
            .map(|algorithm| algorithm.workspace_bytes)
            .max()
            .unwrap_or(0);
        Ok(Matmul {
            description,
            problem: *problem,
            algorithms,
            chosen: 0,
            workspace: DeviceBuffer::new(&handle.context, "cuBLASLt's workspace", needed)?,
            handle: Arc::clone(handle),
        })
    }

    /// What it computes.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The algorithms, the heuristic's best guess first. There is at least one.
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// Which of [`Matmul::algorithms`] is used: the first, until another is chosen.
    pub fn chosen(&self) -> usize {
        self.chosen
    }

    /// Uses another one of [`Matmul::algorithms`] from now on.
    ///
    /// # Errors
    /// There is none with this index.
    pub fn choose(&mut self, index: usize) -> Result<(), Error> {
        if index >= self.algorithms.len() {
            return Err(Error::arguments(format!(
                "algorithm {index} of {}, for {}",
                self.algorithms.len(),
                self.problem
            )));
        }
        self.chosen = index;
        Ok(())
    }

    /// Puts the multiplication into `stream`, and does not wait for it.
    ///
    /// # Safety
    /// `x` is `[m, k]`, `weight` `[n, k]`, `out` `[m, n]` elements of device memory, which stay there until the stream has done
    /// this, as the bias and `self` do; nothing else writes to them, or reads `out`, meanwhile. Two runs of one plan share its
    /// workspace: they must be in one stream, or ordered.
    ///
    /// # Errors
    /// A pointer is not a multiple of 256, the stream belongs to another context, or cuBLASLt refused.
    pub unsafe fn run(
        &self,
        stream: &Stream,
        x: DevicePointer,
        weight: DevicePointer,
        out: DevicePointer,
    ) -> Result<(), Error> {
        for (what, pointer) in [("x", x), ("weight", weight), ("out", out)] {
            check_alignment(what, pointer)?;
        }
        if !Arc::ptr_eq(stream.context(), &self.handle.context) {
            return Err(Error::arguments(format!(
                "{} was planned in another context than the stream's",
                self.problem
            )));
        }
        self.handle.context.bound()?;
        let (one, zero) = (1.0_f32, 0.0_f32);
        let algorithm = &self.algorithms[self.chosen];
        let description = &self.description;
        // SAFETY: handle, description, layouts and algorithm are alive and belong together; the two factors are f32, as the
        // description says, and read before the call returns; the caller vouches for the matrices. With the factor 0, C is
        // not read, and may be D.
        let done = unsafe {
            self.handle.library.cublasLtMatmul(
                self.handle.raw,
                description.operation,
                (&raw const one).cast(),
                address(weight),
                description.weight,
                address(x),
                description.x,
                (&raw const zero).cast(),
                address(out),
                description.out,
                address(out),
                description.out,
                &raw const algorithm.algorithm,
                address(self.workspace.pointer()),
                algorithm.workspace_bytes,
                stream.raw().cast(),
            )
        };
        done.map_err(|error| error.during(&format!("computing {}", self.problem)))
    }
}

/// The device's address as cuBLASLt takes it.
fn address(pointer: DevicePointer) -> *mut c_void {
    ptr::without_provenance_mut(usize::try_from(pointer.0).unwrap_or(usize::MAX))
}

fn check_alignment(what: &str, pointer: DevicePointer) -> Result<(), Error> {
    if pointer.0.is_multiple_of(ALIGNMENT) {
        return Ok(());
    }
    Err(Error::arguments(format!(
        "{what} lies at {:#x}, but cuBLASLt's algorithms are chosen for multiples of {ALIGNMENT}",
        pointer.0
    )))
}

/// The operation and the layouts of its matrices, as cuBLASLt knows them. What is not made yet is null.
#[derive(Debug)]
pub(super) struct Description {
    library: Arc<CublasLt>,
    operation: cublasLtMatmulDesc_t,
    weight: cublasLtMatrixLayout_t,
    x: cublasLtMatrixLayout_t,
    out: cublasLtMatrixLayout_t,
}

impl Description {
    pub(super) fn new(library: &Arc<CublasLt>, problem: &Problem) -> Result<Description, Error> {
        let mut description = Description {
            library: Arc::clone(library),
            operation: ptr::null_mut(),
            weight: ptr::null_mut(),
            x: ptr::null_mut(),
            out: ptr::null_mut(),
        };
        // SAFETY: the pointer is to a handle that lives through the call.
        unsafe {
            library.cublasLtMatmulDescCreate(
                &raw mut description.operation,
                cublasComputeType_t::CUBLAS_COMPUTE_32F,
                cudaDataType::CUDA_R_32F,
            )?;
        }
        description.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &TRANSPOSED)?;
        description.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &AS_IT_IS)?;
        if let Some(bias) = problem.bias {
            let epilogue = cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            description.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            description.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias.0)?;
        }
        let Problem { m, n, k, .. } = *problem;
        let element = problem.element;
        description.weight = layout(library, "weight", element, n, k)?;
        description.x = layout(library, "x", element, m, k)?;
        description.out = layout(library, "out", element, m, n)?;
        Ok(description)
    }

    fn set<T: bytemuck::Pod>(&self, attribute: Attribute, value: &T) -> Result<(), Error> {
        // SAFETY: the operation is alive; cuBLASLt copies as many bytes as the value has, and refuses a wrong number.
        unsafe {
            self.library.cublasLtMatmulDescSetAttribute(
                self.operation,
                attribute,
                ptr::from_ref(value).cast(),
                size_of::<T>(),
            )
        }
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        for layout in [self.weight, self.x, self.out] {
            if !layout.is_null() {
                // SAFETY: it was made by `new` and is destroyed here only; cuBLASLt reads it within its calls only.
                let _ = unsafe { self.library.cublasLtMatrixLayoutDestroy(layout) };
            }
        }
        if !self.operation.is_null() {
            // SAFETY: as above.
            let _ = unsafe { self.library.cublasLtMatmulDescDestroy(self.operation) };
        }
    }
}

/// The layout of `rows` rows of `columns` elements: to cuBLASLt, as many columns of as many rows.
fn layout(
    library: &CublasLt,
    what: &str,
    element: Element,
    rows: usize,
    columns: usize,
) -> Result<cublasLtMatrixLayout_t, Error> {
    // Many of the library's kernels count rows and columns with 32 bits.
    let dimension = |size: usize| i32::try_from(size).ok().filter(|&size| size > 0);
    let (Some(width), Some(height)) = (dimension(columns), dimension(rows)) else {
        return Err(Error::arguments(format!(
            "{what} has {rows} rows of {columns} elements; cuBLASLt takes 1 to {}",
            i32::MAX
        )));
    };
    let mut layout = ptr::null_mut();
    // SAFETY: the pointer is to a handle that lives through the call.
    unsafe {
        library.cublasLtMatrixLayoutCreate(
            &raw mut layout,
            element.data_type(),
            u64::from(width.unsigned_abs()),
            u64::from(height.unsigned_abs()),
            i64::from(width),
        )?;
    }
    Ok(layout)
}

/// What the heuristic is told beside the problem.
pub(super) struct Preferences<'a> {
    library: &'a CublasLt,
    raw: cublasLtMatmulPreference_t,
}

impl<'a> Preferences<'a> {
    pub(super) fn new(
        library: &'a CublasLt,
        workspace_bytes: usize,
    ) -> Result<Preferences<'a>, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: the pointer is to a handle that lives through the call.
        unsafe { library.cublasLtMatmulPreferenceCreate(&raw mut raw)? };
        let preferences = Preferences { library, raw };
        let workspace = workspace_bytes as u64;
        // SAFETY: the preferences are alive; cuBLASLt copies the eight bytes of the number.
        unsafe {
            library.cublasLtMatmulPreferenceSetAttribute(
                raw,
                Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const workspace).cast(),
                size_of::<u64>(),
            )?;
        }
        Ok(preferences)
    }
}

impl Drop for Preferences<'_> {
    fn drop(&mut self) {
        // SAFETY: they were made by `new` and are destroyed here only.
        let _ = unsafe { self.library.cublasLtMatmulPreferenceDestroy(self.raw) };
    }
}

/// The algorithms that cuBLASLt suggests, of which there is at least one.
fn suggestions(
    handle: &Handle,
    description: &Description,
    workspace_bytes: usize,
) -> Result<Vec<Algorithm>, Error> {
    let preferences = Preferences::new(&handle.library, workspace_bytes)?;
    let mut suggestions = [Suggestion::EMPTY; ALGORITHMS];
    let mut given: c_int = 0;
    // SAFETY: everything is alive; cuBLASLt writes at most as many suggestions as there is room for, each of the layout that is
    // checked where the type is declared.
    unsafe {
        handle.library.cublasLtMatmulAlgoGetHeuristic(
            handle.raw,
            description.operation,
            description.weight,
            description.x,
            description.out,
            description.out,
            preferences.raw,
            ALGORITHMS as c_int,
            suggestions.as_mut_ptr().cast(),
            &raw mut given,
        )?;
    }
    let given = usize::try_from(given).unwrap_or(0);
    let usable = |suggestion: &&Suggestion| {
        suggestion.status == 0 && suggestion.workspace_bytes <= workspace_bytes
    };
    let algorithms: Vec<Algorithm> = suggestions
        .iter()
        .take(given)
        .filter(usable)
        .map(|suggestion| Algorithm {
            algorithm: suggestion.algorithm,
            workspace_bytes: suggestion.workspace_bytes,
            waves: suggestion.waves,
        })
        .collect();
    if algorithms.is_empty() {
        return Err(refused("cublasLtMatmulAlgoGetHeuristic", NOT_SUPPORTED));
    }
    Ok(algorithms)
}
