//! Counting what the hardware does in each kernel.
//!
//! CUPTI's range profiler in its automatic mode: every launch is a range of its own, and where the counters do not suffice for all
//! metrics at once, CUPTI runs the kernel again for the rest, after putting memory back as the kernel found it (kernel replay). So
//! launches are counted one after another, each waited for: nothing of it is a time of the run, and a program whose kernels wait for
//! one another would hang.
//!
//! ```text
//!   cuptiProfilerInitialize, cuptiDeviceGetChipName        which chip it is
//!   host: ConfigAddMetrics, GetConfigImage                 what to count, and in how many passes
//!   Enable, GetCounterDataSize, CounterDataImageInitialize room for so many kernels
//!   SetConfig, Start … launches … Stop, DecodeData         the counters, as CUPTI's bytes
//!   host: EvaluateToGpuValues, for each range              the metrics
//!   Disable, cuptiProfilerDeInitialize
//! ```
//!
//! The order is that of NVIDIA's sample `range_profiling`.

use std::ffi::{CStr, CString, c_char};
use std::mem::{offset_of, size_of};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::cupti::sys::{
    CUpti_Device_GetChipName_Params as GetChipName,
    CUpti_Profiler_DeInitialize_Params as DeInitialize,
    CUpti_Profiler_Initialize_Params as Initialize, CUpti_ProfilerRange, CUpti_ProfilerReplayMode,
    CUpti_RangeProfiler_CounterData_GetRangeInfo_Params as GetRangeInfo,
    CUpti_RangeProfiler_CounterDataImage_Initialize_Params as InitializeImage,
    CUpti_RangeProfiler_DecodeData_Params as DecodeData,
    CUpti_RangeProfiler_Disable_Params as Disable, CUpti_RangeProfiler_Enable_Params as Enable,
    CUpti_RangeProfiler_GetCounterDataInfo_Params as GetCounterDataInfo,
    CUpti_RangeProfiler_GetCounterDataSize_Params as GetCounterDataSize,
    CUpti_RangeProfiler_Object, CUpti_RangeProfiler_SetConfig_Params as SetConfig,
    CUpti_RangeProfiler_Start_Params as Start, CUpti_RangeProfiler_Stop_Params as Stop,
};

use super::Cupti;
use super::host::{self, Host};
use crate::Error;
use crate::driver::Context;
use crate::library::Origin;

/// A count under way, of every kernel that is launched in its context.
///
/// It holds the context, and so ends before the context does.
#[derive(Debug)]
pub struct RangeProfiler {
    cupti: Arc<Cupti>,
    context: Arc<Context>,
    chip: String,
    metrics: Vec<CString>,
    passes: usize,
    object: *mut CUpti_RangeProfiler_Object,
    is_initialised: bool,
    is_running: bool,
    /// What the device is configured with, and where CUPTI puts what was counted. It is given both, and so they neither move nor
    /// go before [`Disable`].
    config: Box<[u8]>,
    image: Box<[u8]>,
    most_kernels: usize,
}

// SAFETY: CUPTI's functions may be called from any thread; the object is an opaque handle, which is used here only.
unsafe impl Send for RangeProfiler {}

/// What was counted, kernel by kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// The chip, as CUPTI calls it: `GH100`.
    pub chip: String,
    /// The metrics, as they were asked for.
    pub metrics: Vec<String>,
    /// How often each kernel ran.
    pub passes: usize,
    /// Of each launch, in their order, the value of each metric; not a number where the hardware did not tell.
    pub kernels: Vec<Vec<f64>>,
}

/// Whether there is a [`RangeProfiler`].
static IN_USE: AtomicBool = AtomicBool::new(false);

/// The size of a struct up to the end of a field, as CUPTI's `…_STRUCT_SIZE` have it: without the padding behind the last one.
macro_rules! size_up_to {
    ($struct:ty, $field:ident: $type:ty) => {
        offset_of!($struct, $field) + size_of::<$type>()
    };
}

impl RangeProfiler {
    /// The chip of the context's device, as CUPTI calls it, and how often each kernel would run for `metrics` to be counted.
    ///
    /// # Errors
    /// The device is an emulated one, CUPTI is too old (before 12.6), the chip does not have one of the metrics, or CUPTI refused.
    /// Whether counting is allowed shows when it starts.
    pub fn plan(
        cupti: &Arc<Cupti>,
        context: &Arc<Context>,
        metrics: &[&str],
    ) -> Result<(String, usize), Error> {
        let mut profiler = RangeProfiler::idle(cupti, context, 0)?;
        let planned = profiler.prepare(metrics);
        planned.map_err(|error| error.during("looking at the counters of CUPTI"))?;
        Ok((profiler.chip.clone(), profiler.passes))
    }

    /// Starts counting `metrics` of every kernel that is launched in `context` from here on, up to `most_kernels`.
    ///
    /// Recording with a [`Session`](super::Session) must be paused meanwhile.
    ///
    /// # Errors
    /// The GPU, its driver or its administrator does not allow it, somebody else holds the counters, the chip does not have one of
    /// the metrics, or the device is an emulated one.
    pub fn start(
        cupti: &Arc<Cupti>,
        context: &Arc<Context>,
        metrics: &[&str],
        most_kernels: usize,
    ) -> Result<RangeProfiler, Error> {
        if metrics.is_empty() || most_kernels == 0 {
            return Err(Error::arguments(
                "counting takes at least one metric and one kernel",
            ));
        }
        let mut profiler = RangeProfiler::idle(cupti, context, most_kernels)?;
        // When it fails half-way, dropping it takes back what was done.
        let started = profiler.begin(metrics);
        started.map_err(|error| error.during("counting with CUPTI"))?;
        Ok(profiler)
    }

    /// One that has called nothing yet. There is one in a process at a time.
    fn idle(
        cupti: &Arc<Cupti>,
        context: &Arc<Context>,
        most_kernels: usize,
    ) -> Result<RangeProfiler, Error> {
        let device = context.device();
        // One that the program brings along knows what it counts.
        if device.is_emulated() && cupti.origin() != Origin::Program {
            return Err(Error::no_device(format!(
                "CUPTI counts on NVIDIA's GPUs only, and device {} is {}",
                device.ordinal, device.name
            )));
        }
        if IN_USE.swap(true, Ordering::Acquire) {
            return Err(Error::profiler(
                "this process counts already; end that first",
            ));
        }
        Ok(RangeProfiler {
            cupti: Arc::clone(cupti),
            context: Arc::clone(context),
            chip: String::new(),
            metrics: Vec::new(),
            passes: 0,
            object: ptr::null_mut(),
            is_initialised: false,
            is_running: false,
            config: Box::default(),
            image: Box::default(),
            most_kernels,
        })
    }

    /// What to count, and in how many passes.
    fn prepare(&mut self, metrics: &[&str]) -> Result<(), Error> {
        self.context.bound()?;
        let mut parameters = Initialize {
            structSize: size_up_to!(Initialize, pPriv: *mut std::ffi::c_void),
            pPriv: ptr::null_mut(),
        };
        // SAFETY: the parameters are CUPTI's struct and say how long they are.
        unsafe { self.cupti.cuptiProfilerInitialize(&raw mut parameters)? };
        self.is_initialised = true;
        self.chip = self.chip_name()?;
        self.metrics = metrics
            .iter()
            .map(|metric| host::text(metric))
            .collect::<Result<_, _>>()?;
        let mut config = Host::with(&self.cupti, &self.chip, metrics)?.config_image()?;
        self.passes = host::passes(&self.cupti, &mut config)?;
        self.config = config.into_boxed_slice();
        Ok(())
    }

    fn chip_name(&self) -> Result<String, Error> {
        let device = self.context.device();
        let mut parameters = GetChipName {
            structSize: size_up_to!(GetChipName, pChipName: *const c_char),
            pPriv: ptr::null_mut(),
            deviceIndex: device.ordinal,
            pChipName: ptr::null(),
        };
        // SAFETY: the parameters are CUPTI's struct and say how long they are.
        unsafe { self.cupti.cuptiDeviceGetChipName(&raw mut parameters)? };
        if parameters.pChipName.is_null() {
            return Err(Error::profiler(format!(
                "CUPTI has no name for the chip of device {} ({})",
                device.ordinal, device.name
            )));
        }
        // SAFETY: CUPTI gives a text, which it keeps.
        let name = unsafe { CStr::from_ptr(parameters.pChipName) };
        Ok(name.to_string_lossy().into_owned())
    }

    fn begin(&mut self, metrics: &[&str]) -> Result<(), Error> {
        self.prepare(metrics)?;
        self.enable()?;
        self.make_image()?;
        self.configure()?;
        let mut parameters = Start {
            structSize: size_up_to!(Start, pRangeProfilerObject: *mut CUpti_RangeProfiler_Object),
            pPriv: ptr::null_mut(),
            pRangeProfilerObject: self.object,
        };
        // SAFETY: the parameters are CUPTI's struct and say how long they are; the object is enabled and configured.
        unsafe { self.cupti.cuptiRangeProfilerStart(&raw mut parameters)? };
        self.is_running = true;
        Ok(())
    }

    fn enable(&mut self) -> Result<(), Error> {
        let mut parameters = Enable {
            structSize: size_up_to!(Enable, pRangeProfilerObject: *mut CUpti_RangeProfiler_Object),
            pPriv: ptr::null_mut(),
            ctx: self.context.raw(),
            pRangeProfilerObject: ptr::null_mut(),
        };
        // SAFETY: the parameters are CUPTI's struct and say how long they are; the context is alive.
        unsafe { self.cupti.cuptiRangeProfilerEnable(&raw mut parameters)? };
        self.object = parameters.pRangeProfilerObject;
        Ok(())
    }

    /// Room for what is counted of [`RangeProfiler::most_kernels`] kernels.
    fn make_image(&mut self) -> Result<(), Error> {
        let mut names: Vec<*const c_char> = self.metrics.iter().map(|m| m.as_ptr()).collect();
        let mut size = GetCounterDataSize {
            structSize: size_up_to!(GetCounterDataSize, counterDataSize: usize),
            pPriv: ptr::null_mut(),
            pRangeProfilerObject: self.object,
            pMetricNames: names.as_mut_ptr(),
            numMetrics: names.len(),
            maxNumOfRanges: self.most_kernels,
            maxNumRangeTreeNodes: u32::try_from(self.most_kernels).map_err(|_| {
                Error::arguments(format!(
                    "{} kernels are more than can be counted",
                    self.most_kernels
                ))
            })?,
            counterDataSize: 0,
        };
        // SAFETY: the parameters are CUPTI's struct and say how long they are; the names live through the call.
        unsafe {
            self.cupti
                .cuptiRangeProfilerGetCounterDataSize(&raw mut size)?
        };
        self.image = vec![0; size.counterDataSize].into_boxed_slice();
        let mut parameters = InitializeImage {
            structSize: size_up_to!(InitializeImage, pCounterData: *mut u8),
            pPriv: ptr::null_mut(),
            pRangeProfilerObject: self.object,
            counterDataSize: self.image.len(),
            pCounterData: self.image.as_mut_ptr(),
        };
        // SAFETY: as above; the image is as long as CUPTI said.
        unsafe {
            self.cupti
                .cuptiRangeProfilerCounterDataImageInitialize(&raw mut parameters)
        }
    }

    fn configure(&mut self) -> Result<(), Error> {
        let mut parameters = SetConfig {
            structSize: size_up_to!(SetConfig, targetNestingLevel: u16),
            pPriv: ptr::null_mut(),
            pRangeProfilerObject: self.object,
            configSize: self.config.len(),
            pConfig: self.config.as_ptr(),
            counterDataImageSize: self.image.len(),
            pCounterDataImage: self.image.as_mut_ptr(),
            range: CUpti_ProfilerRange::CUPTI_AutoRange,
            replayMode: CUpti_ProfilerReplayMode::CUPTI_KernelReplay,
            maxRangesPerPass: self.most_kernels,
            numNestingLevels: 1,
            minNestingLevel: 1,
            passIndex: 0,
            targetNestingLevel: 1,
        };
        // SAFETY: the parameters are CUPTI's struct and say how long they are; both images stay where they are until the object is
        // disabled.
        unsafe { self.cupti.cuptiRangeProfilerSetConfig(&raw mut parameters) }
    }

    /// How often each kernel runs.
    pub fn passes(&self) -> usize {
        self.passes
    }

    /// Ends counting: what was counted, in the order of the launches. Whoever wants all of it waits for the device first.
    ///
    /// # Errors
    /// CUPTI refused, or there were more kernels than room was made for.
    pub fn finish(mut self) -> Result<Counted, Error> {
        let counted = self.read();
        counted.map_err(|error| error.during("reading what CUPTI counted"))
    }

    fn read(&mut self) -> Result<Counted, Error> {
        self.context.bound()?;
        if !self.stop()? {
            return Err(Error::profiler(
                "CUPTI did not run every kernel as often as its counters need",
            ));
        }
        let mut decode = DecodeData {
            structSize: size_up_to!(DecodeData, numOfRangeDropped: usize),
            pPriv: ptr::null_mut(),
            pRangeProfilerObject: self.object,
            numOfRangeDropped: 0,
        };
        // SAFETY: the parameters are CUPTI's struct and say how long they are; the image that was set is where it was.
        unsafe { self.cupti.cuptiRangeProfilerDecodeData(&raw mut decode)? };
        if decode.numOfRangeDropped > 0 {
            return Err(Error::profiler(format!(
                "{} kernels were not counted: there was room for {}",
                decode.numOfRangeDropped, self.most_kernels
            )));
        }
        let host = Host::new(&self.cupti, &self.chip)?;
        let mut kernels = Vec::new();
        for range in 0..self.ranges()? {
            // SAFETY: CUPTI initialised the image, decoded into it, and says that it has so many ranges.
            let values = unsafe { host.evaluate(&self.image, range, &self.metrics)? };
            kernels.push((self.number_of(range)?, values));
        }
        drop(host);
        // CUPTI numbers the launches, and does not say in which order it keeps them.
        kernels.sort_by_key(|(number, _)| *number);
        Ok(Counted {
            chip: self.chip.clone(),
            metrics: self
                .metrics
                .iter()
                .map(|metric| metric.to_string_lossy().into_owned())
                .collect(),
            passes: self.passes,
            kernels: kernels.into_iter().map(|(_, values)| values).collect(),
        })
    }

    /// Stops counting; whether every pass was made.
    fn stop(&mut self) -> Result<bool, Error> {
        let mut parameters = Stop {
            structSize: size_up_to!(Stop, isAllPassSubmitted: u8),
            pPriv: ptr::null_mut(),
            pRangeProfilerObject: self.object,
            passIndex: 0,
            targetNestingLevel: 0,
            isAllPassSubmitted: 0,
        };
        self.is_running = false;
        // SAFETY: the parameters are CUPTI's struct and say how long they are; the object was started.
        unsafe { self.cupti.cuptiRangeProfilerStop(&raw mut parameters)? };
        Ok(parameters.isAllPassSubmitted != 0)
    }

    /// Kernels in the image.
    fn ranges(&self) -> Result<usize, Error> {
        let mut parameters = GetCounterDataInfo {
            structSize: size_up_to!(GetCounterDataInfo, numTotalRanges: usize),
            pPriv: ptr::null_mut(),
            pCounterDataImage: self.image.as_ptr(),
            counterDataImageSize: self.image.len(),
            numTotalRanges: 0,
        };
        // SAFETY: the parameters are CUPTI's struct and say how long they and the image are.
        unsafe {
            self.cupti
                .cuptiRangeProfilerGetCounterDataInfo(&raw mut parameters)?
        };
        Ok(parameters.numTotalRanges)
    }

    /// Which launch a range of the image is: CUPTI names automatic ranges `0`, `1`, `2`.
    fn number_of(&self, range: usize) -> Result<usize, Error> {
        let mut parameters = GetRangeInfo {
            structSize: size_up_to!(GetRangeInfo, rangeName: *const c_char),
            pPriv: ptr::null_mut(),
            pCounterDataImage: self.image.as_ptr(),
            counterDataImageSize: self.image.len(),
            rangeIndex: range,
            rangeDelimiter: c"/".as_ptr(),
            rangeName: ptr::null(),
        };
        // SAFETY: as above.
        unsafe {
            self.cupti
                .cuptiRangeProfilerCounterDataGetRangeInfo(&raw mut parameters)?
        };
        if parameters.rangeName.is_null() {
            return Ok(range);
        }
        // SAFETY: CUPTI gives a text, which lives at least until the next call.
        let name = unsafe { CStr::from_ptr(parameters.rangeName) }.to_string_lossy();
        let number = name.rsplit('/').next().and_then(|last| last.parse().ok());
        number.ok_or_else(|| {
            Error::profiler(format!(
                "CUPTI calls a kernel {name:?} where a number was expected: which launch it was is not known"
            ))
        })
    }
}

impl Drop for RangeProfiler {
    fn drop(&mut self) {
        // Nothing more can be done about a refusal here.
        if self.is_running {
            let _ = self.stop();
        }
        if !self.object.is_null() {
            let mut parameters = Disable {
                structSize: size_up_to!(Disable, pRangeProfilerObject: *mut CUpti_RangeProfiler_Object),
                pPriv: ptr::null_mut(),
                pRangeProfilerObject: self.object,
            };
            // SAFETY: the object was enabled, and is disabled here only.
            let _ = unsafe { self.cupti.cuptiRangeProfilerDisable(&raw mut parameters) };
        }
        if self.is_initialised {
            let mut parameters = DeInitialize {
                structSize: size_up_to!(DeInitialize, pPriv: *mut std::ffi::c_void),
                pPriv: ptr::null_mut(),
            };
            // SAFETY: the parameters are CUPTI's struct and say how long they are.
            let _ = unsafe { self.cupti.cuptiProfilerDeInitialize(&raw mut parameters) };
        }
        IN_USE.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
