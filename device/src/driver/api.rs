//! The functions of `libcuda`, and the driver as a whole.

use std::ffi::{CStr, c_char, c_int, c_uchar, c_uint, c_ulonglong, c_void};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{
    CUcontext, CUdevice, CUdevice_attribute, CUdeviceptr, CUevent, CUfunction,
    CUfunction_attribute, CUgraph, CUgraphExec, CUgraphExecUpdateResultInfo, CUgraphNode,
    CUjit_option, CUlaunchConfig, CUmodule, CUstream, CUstreamCaptureMode, CUstreamCaptureStatus,
    CUtensorMap, CUtensorMapDataType, CUtensorMapFloatOOBfill, CUtensorMapInterleave,
    CUtensorMapL2promotion, CUtensorMapSwizzle, CUuuid, cuuint32_t, cuuint64_t,
};

use crate::Error;
use crate::error::{Cause, Version};
use crate::library::{self, Found, Library, Origin, table::function_table};

/// The oldest driver that has everything the ordinary path calls: `cuLaunchKernelEx` came with it.
const OLDEST: Version = Version {
    major: 12,
    minor: 0,
};
const OLDEST_BRANCH: &str = "525";

const NO_DEVICE: u32 = 100;
const OUT_OF_MEMORY: u32 = 2;

function_table! {
    /// What stepscope calls of the driver.
    struct Functions of cudarc::driver::sys => CUresult {
        "2.0": cuInit(flags: c_uint);
        "2.2": cuDriverGetVersion(version: *mut c_int);
        "2.0": cuDeviceGet(device: *mut CUdevice, ordinal: c_int);
        "2.0": cuDeviceGetCount(count: *mut c_int);
        "2.0": cuDeviceGetAttribute(value: *mut c_int, attribute: CUdevice_attribute, device: CUdevice);
        "2.0": cuDeviceGetName(name: *mut c_char, length: c_int, device: CUdevice);
        "11.4": cuDeviceGetUuid_v2(uuid: *mut CUuuid, device: CUdevice);
        "3.2": cuDeviceTotalMem_v2(bytes: *mut usize, device: CUdevice);
        "7.0": cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice);
        "11.0": cuDevicePrimaryCtxRelease_v2(device: CUdevice);
        "4.0": cuCtxSetCurrent(context: CUcontext);
        "2.0": cuCtxSynchronize();
        "5.5": cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int);
        "4.0": cuCtxEnablePeerAccess(peer: CUcontext, flags: c_uint);
        "4.0": cuDeviceCanAccessPeer(can: *mut c_int, device: CUdevice, peer: CUdevice);
        "3.2": cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
        "3.2": cuMemAlloc_v2(address: *mut CUdeviceptr, bytes: usize);
        "3.2": cuMemFree_v2(address: CUdeviceptr);
        "11.2": cuMemAllocAsync(address: *mut CUdeviceptr, bytes: usize, stream: CUstream);
        "11.2": cuMemFreeAsync(address: CUdeviceptr, stream: CUstream);
        "2.2": cuMemHostAlloc(memory: *mut *mut c_void, bytes: usize, flags: c_uint);
        "2.0": cuMemFreeHost(memory: *mut c_void);
        "3.2": cuMemcpyHtoDAsync_v2(to: CUdeviceptr, from: *const c_void, bytes: usize, stream: CUstream);
        "3.2": cuMemcpyDtoHAsync_v2(to: *mut c_void, from: CUdeviceptr, bytes: usize, stream: CUstream);
        "3.2": cuMemcpyDtoDAsync_v2(to: CUdeviceptr, from: CUdeviceptr, bytes: usize, stream: CUstream);
        "4.0": cuMemcpyPeerAsync(
            to: CUdeviceptr,
            to_context: CUcontext,
            from: CUdeviceptr,
            from_context: CUcontext,
            bytes: usize,
            stream: CUstream,
        );
        "3.2": cuMemsetD8Async(to: CUdeviceptr, value: c_uchar, bytes: usize, stream: CUstream);
        "5.5": cuStreamCreateWithPriority(stream: *mut CUstream, flags: c_uint, priority: c_int);
        "4.0": cuStreamDestroy_v2(stream: CUstream);
        "2.0": cuStreamSynchronize(stream: CUstream);
        "2.0": cuStreamQuery(stream: CUstream);
        "3.2": cuStreamWaitEvent(stream: CUstream, event: CUevent, flags: c_uint);
        "10.1": cuStreamBeginCapture_v2(stream: CUstream, mode: CUstreamCaptureMode);
        "10.0": cuStreamEndCapture(stream: CUstream, graph: *mut CUgraph);
        "10.0": cuStreamIsCapturing(stream: CUstream, status: *mut CUstreamCaptureStatus);
        "2.0": cuEventCreate(event: *mut CUevent, flags: c_uint);
        "4.0": cuEventDestroy_v2(event: CUevent);
        "2.0": cuEventRecord(event: CUevent, stream: CUstream);
        "2.0": cuEventQuery(event: CUevent);
        "2.0": cuEventSynchronize(event: CUevent);
        "12.8": cuEventElapsedTime_v2(milliseconds: *mut f32, start: CUevent, end: CUevent);
        "4.0": cuModuleLoadDataEx(
            module: *mut CUmodule,
            image: *const c_void,
            count: c_uint,
            options: *mut CUjit_option,
            values: *mut *mut c_void,
        );
        "2.0": cuModuleUnload(module: CUmodule);
        "2.0": cuModuleGetFunction(function: *mut CUfunction, module: CUmodule, name: *const c_char);
        "3.2": cuModuleGetGlobal_v2(
            address: *mut CUdeviceptr,
            bytes: *mut usize,
            module: CUmodule,
            name: *const c_char,
        );
        "2.2": cuFuncGetAttribute(value: *mut c_int, attribute: CUfunction_attribute, function: CUfunction);
        "9.0": cuFuncSetAttribute(function: CUfunction, attribute: CUfunction_attribute, value: c_int);
        "12.4": cuFuncGetParamInfo(function: CUfunction, index: usize, offset: *mut usize, bytes: *mut usize);
        "4.0": cuLaunchKernel(
            function: CUfunction,
            grid_x: c_uint,
            grid_y: c_uint,
            grid_z: c_uint,
            block_x: c_uint,
            block_y: c_uint,
            block_z: c_uint,
            shared_bytes: c_uint,
            stream: CUstream,
            parameters: *mut *mut c_void,
            extra: *mut *mut c_void,
        );
        "11.8": cuLaunchKernelEx(
            config: *const CUlaunchConfig,
            function: CUfunction,
            parameters: *mut *mut c_void,
            extra: *mut *mut c_void,
        );
        "7.0": cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
            blocks: *mut c_int,
            function: CUfunction,
            threads: c_int,
            shared_bytes: usize,
            flags: c_uint,
        );
        "11.8": cuOccupancyMaxActiveClusters(clusters: *mut c_int, function: CUfunction, config: *const CUlaunchConfig);
        "11.4": cuGraphInstantiateWithFlags(exec: *mut CUgraphExec, graph: CUgraph, flags: c_ulonglong);
        "10.0": cuGraphGetNodes(graph: CUgraph, nodes: *mut CUgraphNode, count: *mut usize);
        "10.0": cuGraphDestroy(graph: CUgraph);
        "10.0": cuGraphExecDestroy(exec: CUgraphExec);
        "10.0": cuGraphLaunch(exec: CUgraphExec, stream: CUstream);
        "11.1": cuGraphUpload(exec: CUgraphExec, stream: CUstream);
        "12.0": cuGraphExecUpdate_v2(exec: CUgraphExec, graph: CUgraph, result: *mut CUgraphExecUpdateResultInfo);
        "12.0": cuTensorMapEncodeTiled(
            map: *mut CUtensorMap,
            element: CUtensorMapDataType,
            rank: cuuint32_t,
            address: *mut c_void,
            extents: *const cuuint64_t,
            strides: *const cuuint64_t,
            tile: *const cuuint32_t,
            element_strides: *const cuuint32_t,
            interleave: CUtensorMapInterleave,
            swizzle: CUtensorMapSwizzle,
            promotion: CUtensorMapL2promotion,
            fill: CUtensorMapFloatOOBfill,
        );
    }
    implemented for Driver, in its field functions
}

/// `cuGetErrorName`, which takes any number here: it must, to name errors that cudarc's enum does not know.
type GetErrorName = unsafe extern "C" fn(u32, *mut *const c_char) -> u32;

/// `cuEventElapsedTime` as drivers before CUDA 12.8 have it; the newer one takes the same. cudarc's bindings have the newer.
type ElapsedTime = unsafe extern "C" fn(*mut f32, CUevent, CUevent) -> u32;

/// The driver, found, opened and working. It stays loaded until the process ends.
///
/// It is NVIDIA's, or an emulated one with the same functions: see [`Device::is_emulated`](super::Device::is_emulated).
pub struct Driver {
    path: PathBuf,
    origin: Origin,
    version: Version,
    functions: Functions,
    get_error_name: Option<GetErrorName>,
    old_elapsed_time: Option<ElapsedTime>,
}

impl Driver {
    /// Stands in for the path of a driver that the program brings along.
    pub const IN_PROGRAM: &str = "emulated";

    /// Finds the driver's library, opens it and initialises it.
    ///
    /// # Errors
    /// It is nowhere, is older than CUDA 12.0, does not see any device, or does not work.
    pub fn open() -> Result<Arc<Driver>, Error> {
        Driver::start(Driver::find()?)
    }

    /// As [`Driver::open`], with the library at `path`, which must offer what `libcuda.so.1` does.
    ///
    /// # Errors
    /// As [`Driver::open`].
    pub fn open_file(path: &Path) -> Result<Arc<Driver>, Error> {
        Driver::start(Driver::of(library::open_at(Library::Driver, path)?))
    }

    /// The driver's library before anything is asked of it.
    pub(crate) fn find() -> Result<Driver, Error> {
        Ok(Driver::of(library::open(Library::Driver)?))
    }

    /// A driver that the program brings along: `find` gives its functions by name. Its path is [`Driver::IN_PROGRAM`].
    ///
    /// # Safety
    /// What `find` gives for a name must be a function with the signature and the meaning that cuda.h gives to that name, and stay
    /// there until the process ends.
    ///
    /// # Errors
    /// As [`Driver::open`].
    pub unsafe fn emulated(find: fn(&str) -> Option<*const c_void>) -> Result<Arc<Driver>, Error> {
        let path = PathBuf::from(Driver::IN_PROGRAM);
        // SAFETY: the caller vouches for the functions.
        Driver::start(unsafe { Driver::with_functions(path, Origin::Program, find) })
    }

    fn of(found: Found) -> Driver {
        let find = |name: &str| library::symbol(&found.handle, name);
        // SAFETY: the search made sure that the library has `cuInit`, and never unloads it.
        unsafe { Driver::with_functions(found.path.clone(), found.origin, find) }
    }

    /// # Safety
    /// As [`Driver::emulated`].
    unsafe fn with_functions(
        path: PathBuf,
        origin: Origin,
        find: impl Fn(&str) -> Option<*const c_void>,
    ) -> Driver {
        // SAFETY: the caller vouches for the functions; the two types are the signatures of cuda.h, with the status enum taken
        // as the integer it is.
        let (functions, get_error_name, old_elapsed_time) = unsafe {
            (
                Functions::load(&find),
                find("cuGetErrorName")
                    .map(|symbol| std::mem::transmute::<*const c_void, GetErrorName>(symbol)),
                find("cuEventElapsedTime")
                    .map(|symbol| std::mem::transmute::<*const c_void, ElapsedTime>(symbol)),
            )
        };
        Driver {
            path,
            origin,
            version: Version { major: 0, minor: 0 },
            functions,
            get_error_name,
            old_elapsed_time,
        }
    }

    fn start(mut driver: Driver) -> Result<Arc<Driver>, Error> {
        driver.version = driver.ask_version()?;
        if driver.version < OLDEST {
            return Err(Error::new(Cause::DriverTooOld {
                what: "stepscope".to_owned(),
                needs: OLDEST,
                branch: OLDEST_BRANCH,
                has: driver.version,
            }));
        }
        driver.initialise()?;
        Ok(Arc::new(driver))
    }

    /// The newest CUDA that this driver supports. It may be asked before the driver is initialised.
    pub(crate) fn ask_version(&self) -> Result<Version, Error> {
        let mut number = 0;
        // SAFETY: the pointer is to an integer that lives through the call.
        unsafe { self.cuDriverGetVersion(&raw mut number)? };
        let number = number.unsigned_abs();
        Ok(Version {
            major: number / 1000,
            minor: number % 1000 / 10,
        })
    }

    pub(crate) fn initialise(&self) -> Result<(), Error> {
        // SAFETY: `cuInit` may be called at any time, and any number of times.
        unsafe { self.cuInit(0) }
    }

    /// The file it was opened from, or [`Driver::IN_PROGRAM`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What led to that file.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The newest CUDA that it supports.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The functions that stepscope calls and this driver does not have.
    pub fn missing_functions(&self) -> Vec<&'static str> {
        let functions = self.functions.functions();
        functions
            .into_iter()
            .filter(|(_, present)| !present)
            .map(|(name, _)| name)
            .collect()
    }

    /// How many devices there are.
    ///
    /// # Errors
    /// The driver refused.
    pub fn device_count(&self) -> Result<usize, Error> {
        let mut count = 0;
        // SAFETY: the pointer is to an integer that lives through the call.
        unsafe { self.cuDeviceGetCount(&raw mut count)? };
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// The milliseconds between two events.
    ///
    /// # Safety
    /// As `cuEventElapsedTime`: both events must be alive, and the pointer to a number.
    pub(super) unsafe fn elapsed_time(
        &self,
        milliseconds: *mut f32,
        start: CUevent,
        end: CUevent,
    ) -> Result<(), Error> {
        match (self.functions.cuEventElapsedTime_v2, self.old_elapsed_time) {
            (None, Some(old)) => {
                // SAFETY: the caller keeps the function's contract; the library is never unloaded.
                let status = unsafe { old(milliseconds, start, end) };
                if status == 0 {
                    Ok(())
                } else {
                    self.check("cuEventElapsedTime", status)
                }
            }
            // SAFETY: as above.
            _ => unsafe { self.cuEventElapsedTime_v2(milliseconds, start, end) },
        }
    }

    /// What a call that was answered with `status` comes to.
    pub(super) fn check(&self, function: &'static str, status: u32) -> Result<(), Error> {
        Err(Error::new(match status {
            NO_DEVICE => Cause::NoDevice(format!(
                "the driver ({}) sees no device; look at nvidia-smi and CUDA_VISIBLE_DEVICES",
                self.path.display()
            )),
            status => Cause::Driver {
                doing: String::new(),
                function,
                code: status,
                name: self.error_name(status),
            },
        }))
    }

    fn missing(&self, function: &'static str, since: &'static str) -> Error {
        Error::new(Cause::MissingFunction {
            path: self.path.clone(),
            function,
            since,
            way_out: "update the NVIDIA driver",
        })
    }

    fn error_name(&self, status: u32) -> String {
        let mut name: *const c_char = ptr::null();
        let Some(get_error_name) = self.get_error_name else {
            return "an error".to_owned();
        };
        // SAFETY: the pointer is to a pointer that lives through the call; the driver refuses numbers it does not know.
        let answer = unsafe { get_error_name(status, &raw mut name) };
        if answer != 0 || name.is_null() {
            return "an error without a name".to_owned();
        }
        // SAFETY: the driver's names are static, terminated strings.
        unsafe { CStr::from_ptr(name) }
            .to_string_lossy()
            .into_owned()
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("path", &self.path)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// Makes the driver's refusal of memory say who asked for how much.
pub(super) fn out_of_memory(
    error: Error,
    what: &str,
    bytes: usize,
    memory: &'static str,
    free: Option<(usize, usize)>,
) -> Error {
    if error.code() != Some(OUT_OF_MEMORY) {
        return error.during(&format!(
            "allocating {what} ({bytes} bytes of {memory} memory)"
        ));
    }
    Error::new(Cause::OutOfMemory {
        what: what.to_owned(),
        bytes,
        memory,
        free,
    })
}
