//! The samples of one kernel.

use serde::{Deserialize, Serialize};

use crate::recorder::Timer;
use crate::{gate, stats};

/// One timed run of a kernel, or of several launches of it in a row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Of one launch, nanoseconds.
    pub time_ns: f64,
    /// The clock of the multiprocessors meanwhile, Hz, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sm_clock_hz: Option<f64>,
}

/// What the L2 cache held when a launch began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheState {
    /// Nothing of the inputs: it was overwritten before each sample.
    Flushed,
    /// Nothing of the inputs: each launch had the next of so many copies that together they outgrow the cache.
    Rotated,
    /// What a launch on the same inputs had left there.
    Warm,
}

impl CacheState {
    /// As tables write it.
    pub const fn name(self) -> &'static str {
        match self {
            CacheState::Flushed => "cold, flushed",
            CacheState::Rotated => "cold, rotated",
            CacheState::Warm => "warm",
        }
    }

    /// Whether the inputs come from the device's memory.
    pub const fn is_cold(self) -> bool {
        matches!(self, CacheState::Flushed | CacheState::Rotated)
    }
}

/// Why no more samples were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// The standard deviation is a small enough part of the mean.
    LowNoise,
    /// The standard deviation does not get smaller with more samples.
    StableNoise,
    /// More samples bring nothing new: the entropy of their distribution stays.
    StableEntropy,
    /// As many were taken as were asked for.
    SampleCount,
    /// The most that were allowed.
    MostSamples,
    /// No time was left.
    TimeLimit,
    /// Sample after sample no estimate of the noise was a number: the times are zero.
    NoEstimate,
}

impl Stopped {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Stopped::LowNoise => "the noise is low enough",
            Stopped::StableNoise => "the noise does not get lower",
            Stopped::StableEntropy => "more samples bring nothing new",
            Stopped::SampleCount => "as many samples as asked for",
            Stopped::MostSamples => "the most samples allowed",
            Stopped::TimeLimit => "no time was left",
            Stopped::NoEstimate => "the times are zero",
        }
    }
}

/// All samples of one kernel at one shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What took the times.
    pub timer: Timer,
    /// Launches within a sample: more than one where a launch is too short to be timed by itself.
    pub launches_per_sample: usize,
    /// What the L2 cache held, where a GPU ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l2: Option<CacheState>,
    /// Whether the device waited until everything of a sample was queued, so that no cost of launching is in the times.
    #[serde(default)]
    pub launch_hidden: bool,
    /// Those that count, in the order in which they were taken.
    pub samples: Vec<Sample>,
    /// Those taken while the clock was held down, which do not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<Sample>,
    /// Why there are no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
}

impl Series {
    /// Samples that count, of which no more is known.
    pub fn new(timer: Timer, launches_per_sample: usize, samples: Vec<Sample>) -> Series {
        Series {
            timer,
            launches_per_sample,
            l2: None,
            launch_hidden: false,
            samples,
            set_aside: Vec::new(),
            stopped: None,
        }
    }

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

    /// The shortest, nanoseconds.
    pub fn min_ns(&self) -> Option<f64> {
        self.times_ns().into_iter().reduce(f64::min)
    }

    /// How far the quartiles lie apart, as a part of the median: a noise that outliers do not move.
    pub fn quartile_noise(&self) -> Option<f64> {
        let ([q1, q3], median) = (self.quartiles_ns()?, self.median_ns()?);
        (median > 0.0).then(|| (q3 - q1) / median)
    }

    /// The standard deviation as a part of the mean.
    pub fn relative_deviation(&self) -> Option<f64> {
        let times = self.times_ns();
        let (deviation, mean) = (stats::stddev(&times)?, stats::mean(&times)?);
        (mean > 0.0).then(|| deviation / mean)
    }

    /// The middle of the clocks of the samples that count, Hz, where each has one.
    pub fn median_clock_hz(&self) -> Option<f64> {
        stats::median(&self.clocks_hz()?)
    }

    /// The clock of each sample that counts, Hz; none where one has none.
    pub fn clocks_hz(&self) -> Option<Vec<f64>> {
        let clocks = self.samples.iter().map(|sample| sample.sm_clock_hz);
        let clocks: Option<Vec<f64>> = clocks.collect();
        clocks.filter(|clocks| !clocks.is_empty())
    }

    /// As the gate takes it, with clocks where every sample has one: a difference is then confirmed in cycles.
    pub fn to_gate(&self) -> gate::Samples {
        gate::Samples {
            times_ns: self.times_ns(),
            clocks_hz: self.clocks_hz(),
            timer: self.timer,
            observation: gate::Observation::Step,
        }
    }
}
