//! Whether one build is slower than another, from their records: SAME, FAST, SLOW or AMBIGUOUS.
//!
//! [`observe`] takes the times of one process out of its record, [`compare`] holds the processes of two builds against each
//! other, step by step and operation by operation, by the rule of [`judge`]; [`text`], [`markdown`] and [`json`] say what came
//! out. Where several processes of a build were recorded, one process is one observation: steps of one process share its memory
//! layout, clocks and neighbours, and agree with one another more than with those of the next process.
//!
//! ```
//! use stepscope_profiler::Timer;
//! use stepscope_profiler::gate::{Observation, Samples, Thresholds, Verdict, judge};
//!
//! let samples = |times: Vec<f64>| Samples {
//!     times_ns: times,
//!     clocks_hz: None,
//!     timer: Timer::Event,
//!     observation: Observation::Step,
//! };
//! let base = samples((0..20).map(|i| 1000.0 + f64::from(i)).collect());
//! let head = samples((0..20).map(|i| 1040.0 + f64::from(i)).collect());
//! let judgement = judge(&base, &head, &Thresholds::default());
//! assert_eq!(judgement.verdict, Verdict::Slow);
//! assert_eq!(judgement.reason.code(), "gap_in_time"); // no clock is known: nothing confirms it in cycles
//! ```
//!
//! **Invariant:** times of different timers, devices, models or shapes are never held against each other.
//!
//! **Invariant:** a false alarm is worse than a missed change: what is not clear is AMBIGUOUS, and a control that alarms on a
//! build held against itself takes the verdict back.

mod compare;
mod coverage;
mod json;
mod like;
mod observe;
mod reason;
mod rule;
mod text;

pub use compare::{Options, Outcome, Row, Select, compare};
pub use json::json;
pub use observe::{Observed, Series, observe};
pub use reason::Reason;
pub use rule::{Observation, Samples, chance_of_gap, judge};
pub(crate) use text::{change, escape, printable};
pub use text::{markdown, text};

use serde::{Deserialize, Serialize};

/// What came out of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// The two agree.
    Same,
    /// The head is faster.
    Fast,
    /// The head is slower.
    Slow,
    /// The data do not say.
    Ambiguous,
    /// There is nothing to compare.
    Unusable,
}

impl Verdict {
    /// As tables write it.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Same => "SAME",
            Verdict::Fast => "FAST",
            Verdict::Slow => "SLOW",
            Verdict::Ambiguous => "AMBIGUOUS",
            Verdict::Unusable => "UNUSABLE",
        }
    }

    /// Whether it says that something changed.
    pub const fn is_change(self) -> bool {
        matches!(self, Verdict::Fast | Verdict::Slow)
    }
}

/// When two lists of times differ, and when they agree. Fractions, not percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// How far apart the intervals must lie for SLOW or FAST.
    pub gap: f64,
    /// How near medians must be for SAME, and how near a sample's neighbour.
    pub same: f64,
    /// How much of the narrower interval must lie in the other one for SAME.
    pub same_overlap: f64,
    /// The part of the samples of either side that need a near neighbour on the other for SAME.
    pub sample_coverage: f64,
    /// The same of the distinct values.
    pub support_coverage: f64,
    /// Fewer steps on a side are AMBIGUOUS.
    pub min_steps: usize,
    /// Fewer processes on a side are AMBIGUOUS.
    pub min_processes: usize,
    /// Where a sample is a process: in which part of the comparisons of equal builds chance alone may make some row SLOW. Half of
    /// it is for the steps, half for the operations; a gap that so many rows would show more often than that is AMBIGUOUS.
    pub false_alarms: f64,
}

impl Default for Thresholds {
    /// NVBench's, of its preset `default` and of its stopping rules (at least 10 samples). What concerns processes is ours: with
    /// six on a side a row of two equal builds is SLOW by chance in at most 0.8 % of comparisons ([`chance_of_gap`]), with five in
    /// 2.4 %.
    fn default() -> Thresholds {
        Thresholds {
            gap: 0.005,
            same: 0.005,
            same_overlap: 0.5,
            sample_coverage: 0.97,
            support_coverage: 0.8,
            min_steps: 10,
            min_processes: 6,
            false_alarms: 0.05,
        }
    }
}

impl Thresholds {
    /// The fewest observations of a kind on a side that can decide.
    pub const fn minimum(&self, observation: Observation) -> usize {
        match observation {
            Observation::Step => self.min_steps,
            Observation::Process => self.min_processes,
        }
    }
}

/// Where the undisturbed part of some samples lies, in their unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The smallest.
    pub min: f64,
    /// The middle one.
    pub median: f64,
    /// The third quartile: what lies above is taken for disturbed.
    pub q3: f64,
}

/// The verdict on two lists of times.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// What it rests on.
    pub reason: Reason,
    /// The base's times, ns.
    pub base: Option<Interval>,
    /// The head's times, ns.
    pub head: Option<Interval>,
    /// How many of either there are.
    pub samples: [usize; 2],
    /// Median of the head over that of the base.
    pub ratio: Option<f64>,
}

impl Judgement {
    /// A verdict on what has no times.
    pub(crate) fn without_times(verdict: Verdict, reason: Reason) -> Judgement {
        Judgement {
            verdict,
            reason,
            base: None,
            head: None,
            samples: [0, 0],
            ratio: None,
        }
    }
}
