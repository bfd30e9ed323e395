//! CUPTI's host interface: what is counted how, and what the bytes that come back mean. It needs no GPU.

use std::ffi::{CStr, CString, c_char};
use std::mem::{offset_of, size_of};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cudarc::cupti::sys::{
    CUpti_Profiler_Host_ConfigAddMetrics_Params as AddMetrics,
    CUpti_Profiler_Host_Deinitialize_Params as Deinitialize,
    CUpti_Profiler_Host_EvaluateToGpuValues_Params as Evaluate,
    CUpti_Profiler_Host_GetConfigImage_Params as GetConfigImage,
    CUpti_Profiler_Host_GetConfigImageSize_Params as GetConfigImageSize,
    CUpti_Profiler_Host_GetNumOfPasses_Params as GetNumOfPasses,
    CUpti_Profiler_Host_GetSupportedChips_Params as GetSupportedChips,
    CUpti_Profiler_Host_Initialize_Params as Initialize, CUpti_Profiler_Host_Object,
    CUpti_ProfilerType,
};

use super::Cupti;
use crate::Error;

/// `CUPTI_ERROR_INVALID_PARAMETER`: what the host interface answers to a name that it does not know.
const INVALID_PARAMETER: u32 = 1;

/// CUPTI's object for one chip. There is one at a time: two threads that ask at once get "unknown error".
pub(super) struct Host<'a> {
    cupti: &'a Cupti,
    object: *mut CUpti_Profiler_Host_Object,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

/// The chips that `cupti` knows, as it writes them.
pub(super) fn chips(cupti: &Cupti) -> Result<Vec<String>, Error> {
    let mut parameters = GetSupportedChips {
        structSize: size_of::<GetSupportedChips>(),
        pPriv: ptr::null_mut(),
        numChips: 0,
        ppChipNames: ptr::null(),
    };
    // SAFETY: the parameters are CUPTI's struct, and say how long they are.
    unsafe { cupti.cuptiProfilerHostGetSupportedChips(&raw mut parameters)? };
    // SAFETY: CUPTI gives so many names, which it keeps.
    Ok(unsafe { texts(parameters.ppChipNames, parameters.numChips) })
}

/// How often a kernel must run for what `image` configures.
pub(super) fn passes(cupti: &Cupti, image: &mut [u8]) -> Result<usize, Error> {
    let mut passes = GetNumOfPasses {
        structSize: size_of::<GetNumOfPasses>(),
        pPriv: ptr::null_mut(),
        configImageSize: image.len(),
        pConfigImage: image.as_mut_ptr(),
        numOfPasses: 0,
    };
    // SAFETY: the parameters are CUPTI's struct and say how long they and the image are.
    unsafe { cupti.cuptiProfilerHostGetNumOfPasses(&raw mut passes)? };
    Ok(passes.numOfPasses)
}

impl<'a> Host<'a> {
    /// The object for `chip`, counting nothing yet.
    pub(super) fn new(cupti: &'a Cupti, chip: &str) -> Result<Host<'a>, Error> {
        // In capitals, or it is not known.
        let name = text(&chip.to_uppercase())?;
        let mut parameters = Initialize {
            structSize: offset_of!(Initialize, pHostObject)
                + size_of::<*mut CUpti_Profiler_Host_Object>(),
            pPriv: ptr::null_mut(),
            profilerType: CUpti_ProfilerType::CUPTI_PROFILER_TYPE_RANGE_PROFILER,
            pChipName: name.as_ptr(),
            pCounterAvailabilityImage: ptr::null(),
            pHostObject: ptr::null_mut(),
        };
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the parameters are CUPTI's struct and say how long they are; the name lives through the call.
        let initialised = unsafe { cupti.cuptiProfilerHostInitialize(&raw mut parameters) };
        match initialised {
            Ok(()) => Ok(Host {
                cupti,
                object: parameters.pHostObject,
                _turn: turn,
            }),
            Err(error) if error.code() == Some(INVALID_PARAMETER) => Err(Error::profiler(format!(
                "CUPTI of CUDA {} does not know the chip {chip}; it knows {}",
                cupti.version(),
                chips(cupti)?.join(", ")
            ))),
            Err(error) => Err(error.during(&format!("asking for the metrics of {chip}"))),
        }
    }

    /// The object for `chip` that counts `metrics`.
    ///
    /// # Errors
    /// CUPTI does not know the chip or one of the metrics; the message says which.
    pub(super) fn with(cupti: &'a Cupti, chip: &str, metrics: &[&str]) -> Result<Host<'a>, Error> {
        let host = Host::new(cupti, chip)?;
        let Err(error) = host.add(metrics) else {
            return Ok(host);
        };
        if error.code() != Some(INVALID_PARAMETER) {
            return Err(error);
        }
        drop(host);
        // Which one it is, CUPTI does not say.
        let is_unknown = |metric: &&&str| {
            Host::new(cupti, chip).is_ok_and(|host| host.add(&[**metric]).is_err())
        };
        let unknown: Vec<&str> = metrics.iter().filter(is_unknown).copied().collect();
        Err(Error::profiler(format!(
            "{chip} does not have the metrics {}; the names differ from chip to chip",
            match unknown.as_slice() {
                [] => metrics.join(", "),
                unknown => unknown.join(", "),
            }
        )))
    }

    /// CUPTI's handle, which lives as long as this.
    pub(super) fn object(&self) -> *mut CUpti_Profiler_Host_Object {
        self.object
    }

    fn add(&self, metrics: &[&str]) -> Result<(), Error> {
        let names: Vec<CString> = metrics
            .iter()
            .map(|metric| text(metric))
            .collect::<Result<_, _>>()?;
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let mut parameters = AddMetrics {
            structSize: size_of::<AddMetrics>(),
            pPriv: ptr::null_mut(),
            pHostObject: self.object,
            ppMetricNames: pointers.as_mut_ptr(),
            numMetrics: pointers.len(),
        };
        // SAFETY: the parameters are CUPTI's struct and say how long they are; the names live through the call.
        unsafe {
            self.cupti
                .cuptiProfilerHostConfigAddMetrics(&raw mut parameters)
        }
    }

    /// What the device is configured with to count the metrics.
    pub(super) fn config_image(&self) -> Result<Vec<u8>, Error> {
        let mut size = GetConfigImageSize {
            structSize: size_of::<GetConfigImageSize>(),
            pPriv: ptr::null_mut(),
            pHostObject: self.object,
            configImageSize: 0,
        };
        // SAFETY: as in `add`.
        unsafe {
            self.cupti
                .cuptiProfilerHostGetConfigImageSize(&raw mut size)?
        };
        let mut image = vec![0_u8; size.configImageSize];
        let mut config = GetConfigImage {
            structSize: size_of::<GetConfigImage>(),
            pPriv: ptr::null_mut(),
            pHostObject: self.object,
            configImageSize: image.len(),
            pConfigImage: image.as_mut_ptr(),
        };
        // SAFETY: as in `add`; the image is as long as CUPTI said.
        unsafe {
            self.cupti
                .cuptiProfilerHostGetConfigImage(&raw mut config)?
        };
        Ok(image)
    }

    /// The values of `metrics` in a range of what was counted: what `image` holds after the device's data was decoded into it. One
    /// that was not counted is not a number.
    ///
    /// # Safety
    /// The range profiler made `image`, and has so many ranges in it: CUPTI 12.9 crashes over bytes that are none of its own.
    pub(super) unsafe fn evaluate(
        &self,
        image: &[u8],
        range: usize,
        metrics: &[CString],
    ) -> Result<Vec<f64>, Error> {
        let mut pointers: Vec<*const c_char> = metrics.iter().map(|name| name.as_ptr()).collect();
        let mut values = vec![f64::NAN; metrics.len()];
        let mut parameters = Evaluate {
            structSize: size_of::<Evaluate>(),
            pPriv: ptr::null_mut(),
            pHostObject: self.object,
            pCounterDataImage: image.as_ptr(),
            counterDataImageSize: image.len(),
            rangeIndex: range,
            ppMetricNames: pointers.as_mut_ptr(),
            numMetrics: pointers.len(),
            pMetricValues: values.as_mut_ptr(),
        };
        // SAFETY: the parameters are CUPTI's struct and say how long they are; there is a value for each of the names, and they and
        // the image live through the call. What is in the image is the caller's promise.
        unsafe {
            self.cupti
                .cuptiProfilerHostEvaluateToGpuValues(&raw mut parameters)?
        };
        Ok(values)
    }
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        let mut parameters = Deinitialize {
            structSize: size_of::<Deinitialize>(),
            pPriv: ptr::null_mut(),
            pHostObject: self.object,
        };
        // SAFETY: the object was made by `new` and is destroyed here only.
        let _ = unsafe {
            self.cupti
                .cuptiProfilerHostDeinitialize(&raw mut parameters)
        };
    }
}

/// A name as CUPTI takes it.
pub(super) fn text(name: &str) -> Result<CString, Error> {
    CString::new(name)
        .map_err(|_| Error::arguments(format!("{name:?} is no name: it holds a zero")))
}

/// # Safety
/// There are `count` texts at `list`, or it is null.
pub(super) unsafe fn texts(list: *const *const c_char, count: usize) -> Vec<String> {
    if list.is_null() {
        return Vec::new();
    }
    (0..count)
        .map(|index| {
            // SAFETY: as the caller says.
            let text = unsafe { CStr::from_ptr(*list.add(index)) };
            text.to_string_lossy().into_owned()
        })
        .collect()
}
