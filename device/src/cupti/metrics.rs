//! The hardware counters of each chip, and what it costs to count them.
//!
//! A GPU has few counters and many things to count: what does not fit at once is counted by running the same kernel again, in so many
//! passes. CUPTI knows for every chip which metrics there are and how many passes a set of them takes; it needs no GPU for that, and
//! CUPTI 12 no driver either (CUPTI 13 answers "unknown error" without one). So a set is checked before a run on another machine
//! fails over it.

use std::ffi::{CStr, CString, c_char};
use std::mem::{offset_of, size_of};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::cupti::sys::{
    CUpti_MetricType, CUpti_Profiler_Host_ConfigAddMetrics_Params as AddMetrics,
    CUpti_Profiler_Host_Deinitialize_Params as Deinitialize,
    CUpti_Profiler_Host_GetBaseMetrics_Params as GetBaseMetrics,
    CUpti_Profiler_Host_GetConfigImage_Params as GetConfigImage,
    CUpti_Profiler_Host_GetConfigImageSize_Params as GetConfigImageSize,
    CUpti_Profiler_Host_GetNumOfPasses_Params as GetNumOfPasses,
    CUpti_Profiler_Host_GetSupportedChips_Params as GetSupportedChips,
    CUpti_Profiler_Host_Initialize_Params as Initialize, CUpti_Profiler_Host_Object,
    CUpti_ProfilerType,
};

use super::Cupti;
use crate::Error;

/// Time, bytes of device memory and instructions of the tensor cores: what a roofline of a kernel needs. It takes one pass on every
/// chip that the tests look at.
pub const ROOFLINE: [&str; 4] = [
    "gpu__time_duration.sum",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "sm__inst_executed_pipe_tensor.sum",
];

/// Share of accesses that L2 served, percent. It takes a second pass on data-centre chips.
pub const L2_HIT_RATE: &str = "lts__t_sector_hit_rate.pct";

/// What a metric is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricType {
    /// A number of events, with a rollup such as `.sum`.
    Counter,
    /// One counter over another.
    Ratio,
    /// The greatest of several shares of a peak.
    Throughput,
}

/// What CUPTI knows of chips and their metrics.
#[derive(Debug)]
pub struct Metrics {
    cupti: Arc<Cupti>,
}

impl Metrics {
    /// What `cupti` knows.
    pub fn new(cupti: &Arc<Cupti>) -> Metrics {
        Metrics {
            cupti: Arc::clone(cupti),
        }
    }

    /// The chips it knows, as it writes them: `GH100`.
    ///
    /// # Errors
    /// It is too old to be asked, or refused.
    pub fn chips(&self) -> Result<Vec<String>, Error> {
        let mut parameters = GetSupportedChips {
            structSize: size_of::<GetSupportedChips>(),
            pPriv: ptr::null_mut(),
            numChips: 0,
            ppChipNames: ptr::null(),
        };
        // SAFETY: the parameters are CUPTI's struct, and say how long they are.
        unsafe {
            self.cupti
                .cuptiProfilerHostGetSupportedChips(&raw mut parameters)?
        };
        // SAFETY: CUPTI gives so many names, which it keeps.
        Ok(unsafe { texts(parameters.ppChipNames, parameters.numChips) })
    }

    /// The metrics of `chip` of one type, without rollups.
    ///
    /// # Errors
    /// CUPTI does not know the chip, or refused.
    pub fn names(&self, chip: &str, metric_type: MetricType) -> Result<Vec<String>, Error> {
        let host = Host::new(self, chip)?;
        let mut parameters = GetBaseMetrics {
            structSize: size_of::<GetBaseMetrics>(),
            pPriv: ptr::null_mut(),
            pHostObject: host.object,
            metricType: match metric_type {
                MetricType::Counter => CUpti_MetricType::CUPTI_METRIC_TYPE_COUNTER,
                MetricType::Ratio => CUpti_MetricType::CUPTI_METRIC_TYPE_RATIO,
                MetricType::Throughput => CUpti_MetricType::CUPTI_METRIC_TYPE_THROUGHPUT,
            },
            ppMetricNames: ptr::null_mut(),
            numMetrics: 0,
        };
        // SAFETY: the parameters are CUPTI's struct and say how long they are; the object is alive.
        unsafe {
            self.cupti
                .cuptiProfilerHostGetBaseMetrics(&raw mut parameters)?
        };
        // SAFETY: CUPTI gives so many names, which live as long as the object.
        Ok(unsafe { texts(parameters.ppMetricNames.cast_const(), parameters.numMetrics) })
    }

    /// How often a kernel must run for `metrics` to be counted on `chip`.
    ///
    /// # Errors
    /// CUPTI does not know the chip or one of the metrics; the message says which.
    pub fn passes(&self, chip: &str, metrics: &[&str]) -> Result<usize, Error> {
        let host = Host::new(self, chip)?;
        if let Err(error) = host.add(metrics) {
            if error.code() != Some(INVALID_PARAMETER) {
                return Err(error);
            }
            drop(host);
            // Which one it is, CUPTI does not say.
            let is_unknown = |metric: &&&str| {
                Host::new(self, chip).is_ok_and(|host| host.add(&[**metric]).is_err())
            };
            let unknown: Vec<&str> = metrics.iter().filter(is_unknown).copied().collect();
            return Err(Error::profiler(format!(
                "{chip} does not have the metrics {}; the names differ from chip to chip",
                match unknown.as_slice() {
                    [] => metrics.join(", "),
                    unknown => unknown.join(", "),
                }
            )));
        }
        host.passes()
    }
}

/// `CUPTI_ERROR_INVALID_PARAMETER`: what the host interface answers to a name that it does not know.
const INVALID_PARAMETER: u32 = 1;

/// CUPTI's object for one chip. There is one at a time: two threads that ask at once get "unknown error".
struct Host<'a> {
    cupti: &'a Cupti,
    object: *mut CUpti_Profiler_Host_Object,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Host<'_> {
    fn new<'a>(metrics: &'a Metrics, chip: &str) -> Result<Host<'a>, Error> {
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
        let cupti = &*metrics.cupti;
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
                metrics.chips()?.join(", ")
            ))),
            Err(error) => Err(error.during(&format!("asking for the metrics of {chip}"))),
        }
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

    fn passes(&self) -> Result<usize, Error> {
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
        let mut passes = GetNumOfPasses {
            structSize: size_of::<GetNumOfPasses>(),
            pPriv: ptr::null_mut(),
            configImageSize: image.len(),
            pConfigImage: image.as_mut_ptr(),
            numOfPasses: 0,
        };
        // SAFETY: as above.
        unsafe {
            self.cupti
                .cuptiProfilerHostGetNumOfPasses(&raw mut passes)?
        };
        Ok(passes.numOfPasses)
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

fn text(name: &str) -> Result<CString, Error> {
    CString::new(name)
        .map_err(|_| Error::arguments(format!("{name:?} is no name: it holds a zero")))
}

/// # Safety
/// There are `count` texts at `list`, or it is null.
unsafe fn texts(list: *const *const c_char, count: usize) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The CUPTI that `cargo xtask cuda` brings, where it did.
    fn brought() -> Option<Metrics> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../target/cuda/nvidia/cuda_cupti/lib/libcupti.so.12");
        if !path.is_file() {
            println!("skipped: `cargo xtask cuda` has not brought CUPTI");
            return None;
        }
        Some(Metrics::new(&Cupti::open_at(&path).unwrap()))
    }

    const TIME: &str = "gpu__time_duration.sum";
    const DRAM: [&str; 3] = [TIME, "dram__bytes_read.sum", "dram__bytes_write.sum"];
    const WARPS: &str = "sm__warps_active.avg.pct_of_peak_sustained_active";
    const TENSOR_CYCLES: &str = "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active";
    const SPEED_OF_LIGHT: [&str; 2] = [
        "sm__throughput.avg.pct_of_peak_sustained_elapsed",
        "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed",
    ];

    #[test]
    fn passes_of_every_chip_are_known_before_a_gpu_is_there() {
        let Some(metrics) = brought() else { return };
        let chips = ["GH100", "GB100", "GA100", "AD102"];
        let check = |set: &[&str], expected: [usize; 4]| {
            for (chip, expected) in chips.into_iter().zip(expected) {
                assert_eq!(
                    metrics.passes(chip, set).unwrap(),
                    expected,
                    "{chip}: {set:?}"
                );
            }
        };
        check(&[TIME], [1; 4]);
        check(&DRAM, [1; 4]);
        check(
            &["dram__throughput.avg.pct_of_peak_sustained_elapsed"],
            [1; 4],
        );
        check(&["sm__inst_executed_pipe_tensor.sum"], [1; 4]);
        check(&[TENSOR_CYCLES], [1; 4]);
        check(&[WARPS], [1; 4]);
        check(&[L2_HIT_RATE], [2, 2, 2, 1]);
        check(&SPEED_OF_LIGHT, [9, 8, 8, 7]);
        check(&ROOFLINE, [1; 4]);
    }

    #[test]
    fn chips_and_metrics_are_listed() {
        let Some(metrics) = brought() else { return };
        let chips = metrics.chips().unwrap();
        for chip in ["GA100", "AD102", "GH100", "GB100"] {
            assert!(chips.iter().any(|c| c == chip), "{chips:?}");
        }
        for (metric_type, count) in [
            (MetricType::Counter, 3379),
            (MetricType::Ratio, 199),
            (MetricType::Throughput, 56),
        ] {
            assert_eq!(metrics.names("gh100", metric_type).unwrap().len(), count);
        }
    }

    #[test]
    fn names_that_are_not_known_are_named() {
        let Some(metrics) = brought() else { return };
        let error = metrics.passes("GH900", &[TIME]).unwrap_err().to_string();
        assert!(
            error.contains("does not know the chip GH900; it knows GV100"),
            "{error}"
        );
        let hmma = "sm__inst_executed_pipe_tensor_op_hmma.sum";
        let error = metrics
            .passes("GB100", &[TIME, hmma])
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            format!("GB100 does not have the metrics {hmma}; the names differ from chip to chip")
        );
        assert!(metrics.passes("GH100", &["a\0b"]).is_err());
    }
}
