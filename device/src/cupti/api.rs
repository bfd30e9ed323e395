//! The functions of `libcupti`.

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cudarc::cupti::sys::{
    CUpti_Activity, CUpti_ActivityKind, CUpti_BuffersCallbackCompleteFunc,
    CUpti_BuffersCallbackRequestFunc, CUpti_CallbackFunc, CUpti_Device_GetChipName_Params,
    CUpti_ExternalCorrelationKind, CUpti_Profiler_DeInitialize_Params,
    CUpti_Profiler_Host_ConfigAddMetrics_Params, CUpti_Profiler_Host_Deinitialize_Params,
    CUpti_Profiler_Host_EvaluateToGpuValues_Params, CUpti_Profiler_Host_GetBaseMetrics_Params,
    CUpti_Profiler_Host_GetConfigImage_Params, CUpti_Profiler_Host_GetConfigImageSize_Params,
    CUpti_Profiler_Host_GetNumOfPasses_Params, CUpti_Profiler_Host_GetSupportedChips_Params,
    CUpti_Profiler_Host_Initialize_Params, CUpti_Profiler_Initialize_Params,
    CUpti_RangeProfiler_CounterData_GetRangeInfo_Params,
    CUpti_RangeProfiler_CounterDataImage_Initialize_Params, CUpti_RangeProfiler_DecodeData_Params,
    CUpti_RangeProfiler_Disable_Params, CUpti_RangeProfiler_Enable_Params,
    CUpti_RangeProfiler_GetCounterDataInfo_Params, CUpti_RangeProfiler_GetCounterDataSize_Params,
    CUpti_RangeProfiler_SetConfig_Params, CUpti_RangeProfiler_Start_Params,
    CUpti_RangeProfiler_Stop_Params, CUpti_SubscriberHandle,
};

use cudarc::driver::sys::CUcontext;

use super::status;
use crate::Error;
use crate::error::Cause;
use crate::library::{self, Library, Origin, table::function_table};

function_table! {
    /// What stepscope calls of CUPTI.
    struct Functions of cudarc::cupti::sys => CUptiResult {
        "5.0": cuptiGetVersion(version: *mut u32);
        "5.0": cuptiSubscribe(
            subscriber: *mut CUpti_SubscriberHandle,
            callback: CUpti_CallbackFunc,
            data: *mut c_void,
        );
        "5.0": cuptiUnsubscribe(subscriber: CUpti_SubscriberHandle);
        "5.0": cuptiGetTimestamp(nanoseconds: *mut u64);
        "6.0": cuptiActivityRegisterCallbacks(
            requested: CUpti_BuffersCallbackRequestFunc,
            completed: CUpti_BuffersCallbackCompleteFunc,
        );
        "5.0": cuptiActivityEnable(kind: CUpti_ActivityKind);
        "5.0": cuptiActivityDisable(kind: CUpti_ActivityKind);
        "6.0": cuptiActivityFlushAll(flag: u32);
        "5.0": cuptiActivityGetNextRecord(
            buffer: *mut u8,
            valid_bytes: usize,
            record: *mut *mut CUpti_Activity,
        );
        "5.0": cuptiActivityGetNumDroppedRecords(context: CUcontext, stream: u32, dropped: *mut usize);
        "8.0": cuptiActivityPushExternalCorrelationId(kind: CUpti_ExternalCorrelationKind, id: u64);
        "8.0": cuptiActivityPopExternalCorrelationId(kind: CUpti_ExternalCorrelationKind, id: *mut u64);
        "12.6": cuptiProfilerHostGetSupportedChips(
            parameters: *mut CUpti_Profiler_Host_GetSupportedChips_Params,
        );
        "12.6": cuptiProfilerHostInitialize(parameters: *mut CUpti_Profiler_Host_Initialize_Params);
        "12.6": cuptiProfilerHostDeinitialize(parameters: *mut CUpti_Profiler_Host_Deinitialize_Params);
        "12.6": cuptiProfilerHostGetBaseMetrics(
            parameters: *mut CUpti_Profiler_Host_GetBaseMetrics_Params,
        );
        "12.6": cuptiProfilerHostConfigAddMetrics(
            parameters: *mut CUpti_Profiler_Host_ConfigAddMetrics_Params,
        );
        "12.6": cuptiProfilerHostGetConfigImageSize(
            parameters: *mut CUpti_Profiler_Host_GetConfigImageSize_Params,
        );
        "12.6": cuptiProfilerHostGetConfigImage(
            parameters: *mut CUpti_Profiler_Host_GetConfigImage_Params,
        );
        "12.6": cuptiProfilerHostGetNumOfPasses(
            parameters: *mut CUpti_Profiler_Host_GetNumOfPasses_Params,
        );
        "12.6": cuptiProfilerHostEvaluateToGpuValues(
            parameters: *mut CUpti_Profiler_Host_EvaluateToGpuValues_Params,
        );
        "10.1": cuptiProfilerInitialize(parameters: *mut CUpti_Profiler_Initialize_Params);
        "10.1": cuptiProfilerDeInitialize(parameters: *mut CUpti_Profiler_DeInitialize_Params);
        "10.2": cuptiDeviceGetChipName(parameters: *mut CUpti_Device_GetChipName_Params);
        "12.6": cuptiRangeProfilerSetConfig(parameters: *mut CUpti_RangeProfiler_SetConfig_Params);
        "12.6": cuptiRangeProfilerEnable(parameters: *mut CUpti_RangeProfiler_Enable_Params);
        "12.6": cuptiRangeProfilerDisable(parameters: *mut CUpti_RangeProfiler_Disable_Params);
        "12.6": cuptiRangeProfilerStart(parameters: *mut CUpti_RangeProfiler_Start_Params);
        "12.6": cuptiRangeProfilerStop(parameters: *mut CUpti_RangeProfiler_Stop_Params);
        "12.6": cuptiRangeProfilerDecodeData(parameters: *mut CUpti_RangeProfiler_DecodeData_Params);
        "12.6": cuptiRangeProfilerGetCounterDataSize(parameters: *mut CUpti_RangeProfiler_GetCounterDataSize_Params);
        "12.6": cuptiRangeProfilerGetCounterDataInfo(parameters: *mut CUpti_RangeProfiler_GetCounterDataInfo_Params);
        "12.6": cuptiRangeProfilerCounterDataImageInitialize(
            parameters: *mut CUpti_RangeProfiler_CounterDataImage_Initialize_Params,
        );
        "12.6": cuptiRangeProfilerCounterDataGetRangeInfo(
            parameters: *mut CUpti_RangeProfiler_CounterData_GetRangeInfo_Params,
        );
    }
    implemented for Cupti, in its field functions
}

/// CUPTI, found and opened. It stays loaded until the process ends.
pub struct Cupti {
    path: PathBuf,
    origin: Origin,
    number: u32,
    functions: Functions,
}

impl Cupti {
    /// Finds the newest CUPTI and opens it. That needs no GPU.
    ///
    /// # Errors
    /// It is nowhere, or cannot be opened.
    pub fn open() -> Result<Arc<Cupti>, Error> {
        Cupti::of(library::open(Library::Cupti)?)
    }

    /// Opens the CUPTI in the file at `path`, and looks nowhere else. That needs no GPU.
    ///
    /// # Errors
    /// The file is not there, or is no CUPTI.
    pub fn open_at(path: &Path) -> Result<Arc<Cupti>, Error> {
        Cupti::of(library::open_at(Library::Cupti, path)?)
    }

    fn of(found: library::Found) -> Result<Arc<Cupti>, Error> {
        let find = |name: &str| library::symbol(&found.handle, name);
        // SAFETY: the search made sure that this is a CUPTI, and never unloads it.
        unsafe { Cupti::with_functions(found.path.clone(), found.origin, find) }
    }

    /// # Safety
    /// What `find` gives for a name must be a function with the signature and the meaning that NVIDIA's headers of CUPTI give to
    /// that name, and stay there until the process ends.
    pub(super) unsafe fn with_functions(
        path: PathBuf,
        origin: Origin,
        find: impl Fn(&str) -> Option<*const c_void>,
    ) -> Result<Arc<Cupti>, Error> {
        let mut library = Cupti {
            path,
            origin,
            number: 0,
            // SAFETY: the caller vouches for the functions.
            functions: unsafe { Functions::load(find) },
        };
        let mut number = 0;
        // SAFETY: the pointer is to an integer that lives through the call, which may be made at any time.
        unsafe { library.cuptiGetVersion(&raw mut number)? };
        library.number = number;
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

    /// The version of CUDA it came with, as `12.9` or `13.0 Update 1`.
    pub fn version(&self) -> String {
        status::cuda_version(self.number)
    }

    /// What `cuptiGetVersion` gives: small numbers up to CUDA 12.9, `xxyyzz` from 13.0 on.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The name of every function that is called, with whether the library has it.
    #[cfg(test)]
    pub(super) fn functions(&self) -> Vec<(&'static str, bool)> {
        self.functions.functions()
    }

    fn check(&self, function: &'static str, status: u32) -> Result<(), Error> {
        Err(status::refused(function, status))
    }

    fn missing(&self, function: &'static str, since: &'static str) -> Error {
        Error::new(Cause::MissingFunction {
            path: self.path.clone(),
            function,
            since,
            way_out: Library::Cupti.way_out(),
        })
    }
}

impl std::fmt::Debug for Cupti {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cupti")
            .field("path", &self.path)
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}
