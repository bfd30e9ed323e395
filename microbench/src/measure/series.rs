//! What was measured.

use serde::{Deserialize, Serialize};
use stepscope_profiler::{Timer, stats};

/// One timed run of a kernel, or of several launches of it in a row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Of one launch, nanoseconds.
    pub time_ns: f64,
    /// The clock of the multiprocessors meanwhile, Hz, where it was measured.
    pub sm_clock_hz: Option<f64>,
}

/// All samples of one kernel at one shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What took the times.
    pub timer: Timer,
    /// Launches within a sample: more than one where a launch is too short to be timed by itself.
    pub launches_per_sample: usize,
    /// Those that count, in the order in which they were taken.
    pub samples: Vec<Sample>,
    /// Those taken while the clock was held down, which do not count.
    pub set_aside: Vec<Sample>,
}

impl Series {
    /// The times that count, nanoseconds.
    pub fn times_ns(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.time_ns).collect()
    }

    /// The middle one, nanoseconds; none if no sample counts.
    pub fn median_ns(&self) -> Option<f64> {
        stats::median(&self.times_ns())
    }

    /// The first and the third quartile, nanoseconds.
    pub fn quartiles_ns(&self) -> Option<[f64; 2]> {
        let times = self.times_ns();
        let quartile = |percent| stats::percentile(&times, percent);
        Some([quartile(25.0)?, quartile(75.0)?])
    }
}

/// What became of a measurement.
#[derive(Debug, Clone, PartialEq)]
pub enum Measured {
    /// It has times.
    Timed(Series),
    /// Its results are right, and it has no time: why.
    Untimed(&'static str),
}

impl Measured {
    /// Its times, where there are any.
    pub fn series(&self) -> Option<&Series> {
        match self {
            Measured::Timed(series) => Some(series),
            Measured::Untimed(_) => None,
        }
    }
}
