//! How a function of the C ABI is made of a Rust one.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::status::Status;

/// Declares functions of the C ABI and, as `FUNCTIONS`, a table of them by name.
///
/// A body gives `Result<(), Status>`. None of them panics into C: a panic becomes `CUDA_ERROR_UNKNOWN`.
///
/// All of them are `unsafe`, and all have the same contract: pointers must be null or point to what cuda.h says.
macro_rules! functions {
    ($( $(#[$attribute:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block )*) => {
        $(
            $(#[$attribute])*
            #[allow(non_snake_case, reason = "the names are NVIDIA's")]
            #[allow(clippy::too_many_arguments, reason = "the signatures are NVIDIA's")]
            #[unsafe(no_mangle)]
            pub(super) unsafe extern "C" fn $name($($argument: $type),*) -> u32 {
                $crate::driver::abi::guarded(|| $body)
            }
        )*

        pub(super) static FUNCTIONS: $crate::driver::abi::Table = $crate::driver::abi::Table(&[
            $( (stringify!($name), $name as *const std::ffi::c_void) ),*
        ]);
    };
}
pub(super) use functions;

/// Functions by name.
pub(super) struct Table(pub(super) &'static [(&'static str, *const c_void)]);

// SAFETY: the pointers are to functions, which never change.
unsafe impl Sync for Table {}

/// Runs the body of a function.
pub(super) fn guarded(body: impl FnOnce() -> Result<(), Status>) -> u32 {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(status)) => status.code(),
        Err(_) => Status::UNKNOWN.code(),
    }
}
