//! Matrix multiplications of NVIDIA's cuBLASLt: the peer that our own GEMMs are compared with.
//!
//! [`CublasLt::open`] finds the library, a [`Handle`] is the library on one device, and a [`Matmul`] is one multiplication,
//! planned: the algorithms that cuBLASLt's heuristic suggests for it, best guess first, of which the caller times each and
//! keeps the fastest ([`Matmul::choose`]).
//!
//! cuBLASLt thinks in columns, stepscope in rows. A matrix of `r` rows of `c` elements, row after row, is to cuBLASLt one of
//! `c` rows and `r` columns with leading dimension `c`; so our `out[m, n] = x[m, k] · weight[n, k]ᵀ` is its
//! `D[n × m] = Aᵀ · B` with `A = weight [k × n]` and `B = x [k × m]`, and nothing is moved.
//!
//! **Invariant:** no forward pass calls it; what the engine runs are kernels of our own.

mod api;
mod matmul;

use std::ptr;
use std::sync::Arc;

use cudarc::cublaslt::sys::cublasLtHandle_t;

use crate::Error;
use crate::driver::Context;
use crate::library::Origin;
pub use api::CublasLt;
pub use matmul::{Algorithm, Element, Matmul, Problem};

/// cuBLASLt on one device.
#[derive(Debug)]
pub struct Handle {
    library: Arc<CublasLt>,
    context: Arc<Context>,
    raw: cublasLtHandle_t,
}

// SAFETY: cuBLASLt's handle may be used by any number of threads at once; it is opaque here.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    /// Makes cuBLASLt ready on the device of `context`.
    ///
    /// # Errors
    /// The device is an emulated one, whose memory the library cannot reach; or cuBLASLt refused.
    pub fn new(library: &Arc<CublasLt>, context: &Arc<Context>) -> Result<Handle, Error> {
        let device = context.device();
        // One that the program brings along knows what it works on.
        if device.is_emulated() && library.origin() != Origin::Program {
            return Err(Error::no_device(format!(
                "cuBLASLt runs on NVIDIA's GPUs only, and device {} is {}",
                device.ordinal, device.name
            )));
        }
        context.bound()?;
        let mut raw = ptr::null_mut();
        // SAFETY: the context is current; the pointer is to a handle that lives through the call.
        let created = unsafe { library.cublasLtCreate(&raw mut raw) };
        created.map_err(|error| {
            error.during(&format!(
                "making cuBLASLt ready on device {} ({})",
                device.ordinal, device.name
            ))
        })?;
        Ok(Handle {
            library: Arc::clone(library),
            context: Arc::clone(context),
            raw,
        })
    }

    /// The library.
    pub fn library(&self) -> &Arc<CublasLt> {
        &self.library
    }

    /// The context it was made for.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.context.bound().is_ok() {
            // SAFETY: the handle was made by `new` and is destroyed here only; every plan that uses it holds `self`.
            let _ = unsafe { self.library.cublasLtDestroy(self.raw) };
        }
    }
}

#[cfg(test)]
mod tests;
