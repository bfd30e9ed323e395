//! The functions that cust expects from `-lcuda`, which links against an empty archive here: each is forwarded to the driver that
//! cudarc has open, and is looked up when it is first called.
//!
//! A function that the driver lacks answers `CUDA_ERROR_NOT_FOUND`: cudarc's own bindings would panic, which ends a program that is
//! called from C.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use cudarc::driver::sys::culib;

/// `CUDA_ERROR_NOT_FOUND`.
const NOT_FOUND: u32 = 500;

/// Handles and addresses, all of which are as wide as a pointer.
type Handle = usize;

macro_rules! forward {
    ($( $name:ident($($argument:ident: $type:ty),* $(,)?); )*) => { $(
        /// # Safety
        /// As cuda.h demands of the function of this name.
        #[allow(non_snake_case, reason = "the names are NVIDIA's")]
        #[allow(clippy::too_many_arguments, reason = "the signatures are NVIDIA's")]
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name($($argument: $type),*) -> u32 {
            type Function = unsafe extern "C" fn($($type),*) -> u32;
            static FUNCTION: OnceLock<Option<Function>> = OnceLock::new();
            let function = FUNCTION.get_or_init(|| {
                // SAFETY: cudarc has the library open, which `launch` made sure of before anything of cust was called; the signature
                // is the one of cuda.h, with handles and enums as the numbers that they are passed as.
                unsafe { culib().get::<Function>(stringify!($name).as_bytes()) }.ok().map(|found| *found)
            });
            match function {
                // SAFETY: the caller keeps the function's contract.
                Some(function) => unsafe { function($($argument),*) },
                None => NOT_FOUND,
            }
        }
    )* };
}

forward! {
    cuInit(flags: c_uint);
    cuCtxSetCurrent(context: Handle);
    cuDeviceGet(device: *mut c_int, ordinal: c_int);
    cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int);
    cuDevicePrimaryCtxRelease_v2(device: c_int);
    cuDevicePrimaryCtxSetFlags_v2(device: c_int, flags: c_uint);
    cuGetErrorString(status: u32, text: *mut *const c_char);
    cuMemAlloc_v2(address: *mut Handle, bytes: usize);
    cuMemFree_v2(address: Handle);
    cuMemsetD8_v2(to: Handle, value: u8, bytes: usize);
    cuMemcpyDtoH_v2(to: *mut c_void, from: Handle, bytes: usize);
    cuMemcpyHtoD_v2(to: Handle, from: *const c_void, bytes: usize);
    cuModuleLoadDataEx(
        module: *mut Handle,
        image: *const c_void,
        count: c_uint,
        options: *mut c_int,
        values: *mut *mut c_void,
    );
    cuModuleUnload(module: Handle);
    cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char);
    cuStreamCreateWithPriority(stream: *mut Handle, flags: c_uint, priority: c_int);
    cuStreamDestroy_v2(stream: Handle);
    cuStreamSynchronize(stream: Handle);
    cuLaunchKernel(
        function: Handle,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared_bytes: c_uint,
        stream: Handle,
        parameters: *mut *mut c_void,
        extra: *mut *mut c_void,
    );
}
