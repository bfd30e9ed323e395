//! The hardware counters of each chip, and what it costs to count them.
//!
//! A GPU has few counters and many things to count: what does not fit at once is counted by running the same kernel again, in so many
//! passes. CUPTI knows for every chip which metrics there are and how many passes a set of them takes; it needs no GPU for that, and
//! CUPTI 12 no driver either (CUPTI 13 answers "unknown error" without one). So a set is checked before a run on another machine
//! fails over it.

use std::mem::size_of;
use std::ptr;
use std::sync::Arc;

use cudarc::cupti::sys::{
    CUpti_MetricType, CUpti_Profiler_Host_GetBaseMetrics_Params as GetBaseMetrics,
};

use super::Cupti;
use super::host::{self, Host, texts};
use crate::Error;

/// Time, bytes of device memory and instructions of the tensor cores: what a roofline of a kernel needs. It takes one pass on every
/// chip that the tests look at.
pub const ROOFLINE: [&str; 4] = [
    "gpu__time_duration.sum",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "sm__inst_executed_pipe_tensor.sum",
];

/// What `--counters` counts of each kernel: [`ROOFLINE`], and accesses to L2 in sectors of 32 bytes. They take one pass on every chip
/// that the tests look at, so that no kernel runs twice, and they add up over kernels, as a share does not.
pub const COUNTERS: [&str; 5] = [
    ROOFLINE[0],
    ROOFLINE[1],
    ROOFLINE[2],
    ROOFLINE[3],
    "lts__t_sectors.sum",
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
        host::chips(&self.cupti)
    }

    /// The metrics of `chip` of one type, without rollups.
    ///
    /// # Errors
    /// CUPTI does not know the chip, or refused.
    pub fn names(&self, chip: &str, metric_type: MetricType) -> Result<Vec<String>, Error> {
        let host = Host::new(&self.cupti, chip)?;
        let mut parameters = GetBaseMetrics {
            structSize: size_of::<GetBaseMetrics>(),
            pPriv: ptr::null_mut(),
            pHostObject: host.object(),
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
        let mut image = Host::with(&self.cupti, chip, metrics)?.config_image()?;
        host::passes(&self.cupti, &mut image)
    }
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
        check(&COUNTERS, [1; 4]);
        // With the sectors that L2 served beside all of them it is a second pass, and so it is one of the two.
        check(
            &[COUNTERS[4], "lts__t_sectors_lookup_hit.sum"],
            [2, 2, 2, 1],
        );
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
