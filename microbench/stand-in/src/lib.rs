//! A `libcuda.so.1` that answers every call at once and does nothing.
//!
//! What a launch costs the host is the cost of the way to the driver plus that of the driver. Against this library only the first is
//! left: handles are made up, kernels do not run, events are recorded by nobody, and every answer is "success". The benches of
//! launches open it where there is no GPU; an emulated device would run the kernel within the call, and that would be measured.
//!
//! It has what one device, its context, streams, events, memory, modules, launches and captured graphs need, in the forms that
//! cudarc, cust and `stepscope-device` call. A function that is not here is missing, as it would be in an old driver.
//!
//! **Invariant:** nothing here computes, allocates device memory or waits; what is read back from it is zeroes.
//!
//! **Invariant:** it depends on nothing, so that what is measured against it is not it.
#![allow(non_snake_case, reason = "the names are NVIDIA's")]
#![allow(
    clippy::missing_safety_doc,
    reason = "the contract of each is cuda.h's"
)]
#![allow(missing_docs, reason = "what each function means stands in cuda.h")]

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

/// `CUDA_SUCCESS`.
const SUCCESS: u32 = 0;
/// `CUDA_ERROR_INVALID_VALUE`.
const INVALID_VALUE: u32 = 1;
/// CUDA 13.0.
const VERSION: c_int = 13_000;

/// Begins as the names of emulated devices do: nothing of it is a time.
const NAME: &[u8] = b"Emulated stand-in that runs nothing\0";

/// A handle is a number that is not zero, and a multiple of what a pointer's is.
fn set<T>(place: *mut T, value: T) -> u32 {
    if !place.is_null() {
        // SAFETY: cuda.h demands that the place is null or can be written.
        unsafe { place.write(value) };
    }
    SUCCESS
}

fn handle(place: *mut usize) -> u32 {
    static LAST: AtomicU64 = AtomicU64::new(0x1000);
    set(place, LAST.fetch_add(0x1000, Ordering::Relaxed) as usize)
}

/// Functions of the C ABI, one per line.
macro_rules! answers {
    ($( $name:ident($($argument:ident: $type:ty),* $(,)?) => $answer:expr; )*) => { $(
        #[unsafe(no_mangle)]
        #[allow(clippy::too_many_arguments, unused_variables, reason = "the signatures are NVIDIA's")]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> u32 {
            $answer
        }
    )* };
}

answers! {
    cuInit(flags: c_uint) => SUCCESS;
    cuDriverGetVersion(version: *mut c_int) => set(version, VERSION);
    cuGetErrorName(status: u32, name: *mut *const c_char) => set(name, c"CUDA_ERROR_OF_THE_STAND_IN".as_ptr());
    cuGetErrorString(status: u32, text: *mut *const c_char) => set(text, c"the stand-in refused".as_ptr());

    cuDeviceGetCount(count: *mut c_int) => set(count, 1);
    cuDeviceGet(device: *mut c_int, ordinal: c_int) => set(device, 0);
    cuDeviceGetName(name: *mut c_char, length: c_int, device: c_int) => device_name(name, length);
    cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, device: c_int) => set(value, attribute_of(attribute));
    cuDeviceGetUuid(uuid: *mut [u8; 16], device: c_int) => set(uuid, [0; 16]);
    cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: c_int) => set(uuid, [0; 16]);
    cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) => set(bytes, 1 << 34);
    cuDevicePrimaryCtxRetain(context: *mut usize, device: c_int) => set(context, 0x100);
    cuDevicePrimaryCtxRelease_v2(device: c_int) => SUCCESS;
    cuDevicePrimaryCtxSetFlags_v2(device: c_int, flags: c_uint) => SUCCESS;
    cuCtxSetCurrent(context: usize) => SUCCESS;
    cuCtxGetCurrent(context: *mut usize) => set(context, 0x100);
    cuCtxSynchronize() => SUCCESS;
    cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) => { set(least, 0); set(greatest, -5) };

    cuMemGetInfo_v2(free: *mut usize, total: *mut usize) => { set(free, 1 << 34); set(total, 1 << 34) };
    cuMemAlloc_v2(address: *mut usize, bytes: usize) => handle(address);
    cuMemFree_v2(address: usize) => SUCCESS;
    cuMemAllocAsync(address: *mut usize, bytes: usize, stream: usize) => handle(address);
    cuMemFreeAsync(address: usize, stream: usize) => SUCCESS;
    cuMemsetD8_v2(to: usize, value: u8, bytes: usize) => SUCCESS;
    cuMemsetD8Async(to: usize, value: u8, bytes: usize, stream: usize) => SUCCESS;
    cuMemcpyHtoD_v2(to: usize, from: *const c_void, bytes: usize) => SUCCESS;
    cuMemcpyDtoH_v2(to: *mut c_void, from: usize, bytes: usize) => zeroes(to, bytes);
    cuMemcpyHtoDAsync_v2(to: usize, from: *const c_void, bytes: usize, stream: usize) => SUCCESS;
    cuMemcpyDtoHAsync_v2(to: *mut c_void, from: usize, bytes: usize, stream: usize) => zeroes(to, bytes);

    cuStreamCreate(stream: *mut usize, flags: c_uint) => handle(stream);
    cuStreamCreateWithPriority(stream: *mut usize, flags: c_uint, priority: c_int) => handle(stream);
    cuStreamDestroy_v2(stream: usize) => SUCCESS;
    cuStreamSynchronize(stream: usize) => SUCCESS;
    cuStreamQuery(stream: usize) => SUCCESS;
    cuStreamWaitEvent(stream: usize, event: usize, flags: c_uint) => SUCCESS;
    cuStreamBeginCapture_v2(stream: usize, mode: c_uint) => SUCCESS;
    cuStreamEndCapture(stream: usize, graph: *mut usize) => handle(graph);
    cuStreamIsCapturing(stream: usize, status: *mut c_uint) => set(status, 0);
    cuEventCreate(event: *mut usize, flags: c_uint) => handle(event);
    cuEventDestroy_v2(event: usize) => SUCCESS;
    cuEventRecord(event: usize, stream: usize) => SUCCESS;
    cuEventQuery(event: usize) => SUCCESS;
    cuEventSynchronize(event: usize) => SUCCESS;

    cuModuleLoadData(module: *mut usize, image: *const c_void) => handle(module);
    cuModuleLoadDataEx(
        module: *mut usize,
        image: *const c_void,
        count: c_uint,
        options: *mut c_int,
        values: *mut *mut c_void,
    ) => handle(module);
    cuModuleUnload(module: usize) => SUCCESS;
    cuModuleGetFunction(function: *mut usize, module: usize, name: *const c_char) => handle(function);
    cuFuncGetAttribute(value: *mut c_int, attribute: c_uint, function: usize) => set(value, 1024);
    cuFuncSetAttribute(function: usize, attribute: c_uint, value: c_int) => SUCCESS;
    cuLaunchKernel(
        function: usize,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared_bytes: c_uint,
        stream: usize,
        parameters: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) => launched(function);
    cuLaunchKernelEx(
        config: *const c_void,
        function: usize,
        parameters: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) => launched(function);

    cuGraphInstantiateWithFlags(exec: *mut usize, graph: usize, flags: u64) => handle(exec);
    cuGraphUpload(exec: usize, stream: usize) => SUCCESS;
    cuGraphLaunch(exec: usize, stream: usize) => launched(exec);
    cuGraphExecDestroy(exec: usize) => SUCCESS;
    cuGraphDestroy(graph: usize) => SUCCESS;
}

/// A driver looks at the handle before anything else.
#[inline]
fn launched(handle: usize) -> u32 {
    if handle == 0 { INVALID_VALUE } else { SUCCESS }
}

/// What is read back is defined, and means nothing.
fn zeroes(to: *mut c_void, bytes: usize) -> u32 {
    if !to.is_null() {
        // SAFETY: cuda.h demands that so many bytes can be written there.
        unsafe { to.cast::<u8>().write_bytes(0, bytes) };
    }
    SUCCESS
}

fn device_name(name: *mut c_char, length: c_int) -> u32 {
    let length = usize::try_from(length).unwrap_or(0);
    if name.is_null() || length < NAME.len() {
        return INVALID_VALUE;
    }
    // SAFETY: cuda.h demands that the place has `length` bytes, and the name is no longer.
    unsafe { name.copy_from_nonoverlapping(NAME.as_ptr().cast(), NAME.len()) };
    SUCCESS
}

/// `CUdevice_attribute`: what is asked of a device before it is used. One that is none of these reads 1.
fn attribute_of(attribute: c_uint) -> c_int {
    match attribute {
        // Threads of a block; warp size; threads of a multiprocessor.
        1 => 1024,
        10 => 32,
        39 => 2048,
        // Shared memory: of a block, of a multiprocessor, of a block that opts in.
        8 => 49_152,
        81 => 233_472,
        97 => 232_448,
        // Registers of a block and of a multiprocessor.
        12 | 82 => 65_536,
        // Multiprocessors; the second-level cache.
        16 => 132,
        38 => 50 << 20,
        // Clocks, of which there are none.
        13 | 36 => 0,
        // Compute capability 9.0.
        75 => 9,
        76 => 0,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_device_that_says_it_is_emulated() {
        let mut name = [0; 64];
        // SAFETY: the places live through the calls and are as long as said.
        unsafe {
            assert_eq!(cuDeviceGetName(name.as_mut_ptr(), 64, 0), SUCCESS);
            assert_eq!(cuDeviceGetName(name.as_mut_ptr(), 4, 0), INVALID_VALUE);
            assert_eq!(cuDeviceGetName(std::ptr::null_mut(), 64, 0), INVALID_VALUE);
        }
        let name: Vec<u8> = name.iter().map(|&c| c as u8).collect();
        assert!(name.starts_with(b"Emulated "));
    }

    #[test]
    fn handles_are_told_apart_and_a_null_one_is_refused() {
        let (mut first, mut second) = (0, 0);
        // SAFETY: the places live through the calls.
        unsafe {
            assert_eq!(cuStreamCreate(&raw mut first, 0), SUCCESS);
            assert_eq!(cuEventCreate(&raw mut second, 0), SUCCESS);
            assert!(first != 0 && second != 0 && first != second);
            assert_eq!(cuGraphLaunch(0, first), INVALID_VALUE);
            assert_eq!(cuGraphLaunch(second, first), SUCCESS);
        }
    }
}
