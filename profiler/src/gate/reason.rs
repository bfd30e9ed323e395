//! What a verdict rests on.

use super::Verdict;
use crate::recorder::Timer;

/// What a verdict rests on.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// The intervals lie apart in time and in cycles.
    GapInTimeAndCycles,
    /// The intervals lie apart in time; no clock is known that could confirm it in cycles.
    GapInTime,
    /// The intervals lie apart in time, but not in cycles: the clock changed, not the program.
    GapNotInCycles,
    /// Clocks were measured but are no clocks.
    ClocksUnusable,
    /// The samples agree in time and in cycles.
    SameInTimeAndCycles,
    /// The samples agree in time; no clock is known.
    SameInTime,
    /// The samples agree in time, but not in cycles.
    SameNotInCycles,
    /// No clear gap, and medians too far apart to be the same.
    MediansApart,
    /// Medians are near, but the intervals hardly overlap.
    IntervalsApart,
    /// Medians and intervals agree, but too many samples have no near neighbour on the other side.
    SamplesScattered,
    /// Too few samples to decide.
    TooFew {
        /// Of the base.
        base: usize,
        /// Of the head.
        head: usize,
        /// On each side.
        needed: usize,
    },
    /// The base has it, the head has not.
    OnlyInBase,
    /// The head has it, the base has not.
    OnlyInHead,
    /// The control, a build against itself, came out as a change too.
    NullAlarmed(Verdict),
    /// One half of the base's repetitions against the other came out as a change too.
    SplitHalfAlarmed(Verdict),
    /// A side has no sample.
    NoSamples,
    /// A side has one sample: no interval.
    OneSample,
    /// Some samples are zero, negative or no number.
    NotTimes {
        /// How many of the base's.
        base: usize,
        /// How many of the head's.
        head: usize,
    },
    /// Nothing took the times.
    NoTimer,
    /// The two sides were timed differently.
    TimersDiffer {
        /// What took the base's times.
        base: Timer,
        /// What took the head's times.
        head: Timer,
    },
    /// Steps on one side, processes on the other.
    ObservationsDiffer,
}

impl Reason {
    /// A short name for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Reason::GapInTimeAndCycles => "gap_in_time_and_cycles",
            Reason::GapInTime => "gap_in_time",
            Reason::GapNotInCycles => "gap_not_in_cycles",
            Reason::ClocksUnusable => "clocks_unusable",
            Reason::SameInTimeAndCycles => "same_in_time_and_cycles",
            Reason::SameInTime => "same_in_time",
            Reason::SameNotInCycles => "same_not_in_cycles",
            Reason::MediansApart => "medians_apart",
            Reason::IntervalsApart => "intervals_apart",
            Reason::SamplesScattered => "samples_scattered",
            Reason::TooFew { .. } => "too_few",
            Reason::OnlyInBase => "only_in_base",
            Reason::OnlyInHead => "only_in_head",
            Reason::NullAlarmed(_) => "null_alarmed",
            Reason::SplitHalfAlarmed(_) => "split_half_alarmed",
            Reason::NoSamples => "no_samples",
            Reason::OneSample => "one_sample",
            Reason::NotTimes { .. } => "not_times",
            Reason::NoTimer => "no_timer",
            Reason::TimersDiffer { .. } => "timers_differ",
            Reason::ObservationsDiffer => "observations_differ",
        }
    }

    /// For people: fits into a table's last column.
    pub fn phrase(&self) -> String {
        let text = match self {
            Reason::GapInTimeAndCycles => "clear gap in time and in cycles",
            Reason::GapInTime => "clear gap in time; no clock known",
            Reason::GapNotInCycles => "gap in time, none in cycles: the clock changed",
            Reason::ClocksUnusable => "clocks are zero, missing or no numbers",
            Reason::SameInTimeAndCycles => "agree in time and in cycles",
            Reason::SameInTime => "agree in time; no clock known",
            Reason::SameNotInCycles => "agree in time, not in cycles",
            Reason::MediansApart => "medians apart, no clear gap",
            Reason::IntervalsApart => "medians near, intervals hardly overlap",
            Reason::SamplesScattered => "medians near, samples too scattered",
            Reason::TooFew { base, head, needed } => {
                return format!("{base} and {head} samples; {needed} each needed");
            }
            Reason::OnlyInBase => "only in BASE",
            Reason::OnlyInHead => "only in HEAD",
            Reason::NullAlarmed(verdict) => {
                return format!("looks {}, but so does the null control", verdict.name());
            }
            Reason::SplitHalfAlarmed(verdict) => {
                return format!("looks {}, but so do BASE's own halves", verdict.name());
            }
            Reason::NoSamples => "no samples",
            Reason::OneSample => "one sample has no interval",
            Reason::NotTimes { base, head } => {
                return format!("{base} of BASE's and {head} of HEAD's samples are no times");
            }
            Reason::NoTimer => "nothing took its times",
            Reason::TimersDiffer { base, head } => {
                return format!(
                    "timers differ: {} in BASE, {} in HEAD",
                    base.name(),
                    head.name()
                );
            }
            Reason::ObservationsDiffer => "steps on one side, processes on the other",
        };
        text.to_owned()
    }
}
