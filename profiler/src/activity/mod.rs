//! What a GPU did during a step, computed from records of its kernels.
//!
//! While a step runs, the recorder tells a [`Tracer`] which [`Span`] it is in; afterwards the tracer gives a [`Trace`]: kernels,
//! transfers and calls as they were recorded, and the step's window on the same clock. [`analyse`] makes from it the time in which the
//! GPU was busy, the gaps between with what they waited for, and the times of phases and operations, those inside replayed graphs
//! included. [`trust`](trust()) says how far all that can be believed.
//!
//! Everything here is plain arithmetic over plain values: it runs, and is tested, without a GPU.
//!
//! **Invariant:** busy time and gaps add up to the window, to the nanosecond.
//!
//! **Invariant:** an operation has a time only if exactly the kernels that it launched were recorded, each with its times.

mod analyse;
mod intervals;
mod trust;

use serde::{Deserialize, Serialize};
use stepscope_device::cupti::Activity;

pub use analyse::{Attributed, Launched, OperationLaunches, analyse};
pub use trust::{Grade, Trust, trust};

/// A part of a step, as the recorder numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Span {
    /// The step, outside of every phase.
    Step,
    /// One stretch of a phase, outside of every operation; a phase may run several times in a step.
    Stretch(u16),
    /// An operation.
    Operation(u32),
}

/// The first number of operations in a packed span.
const OPERATIONS: u32 = 1 << 16;

impl Span {
    /// The span of step `step` as one number, which CUPTI keeps beside each call.
    pub fn pack(self, step: u32) -> u64 {
        let part = match self {
            Span::Step => 0,
            Span::Stretch(index) => u32::from(index).saturating_add(1),
            Span::Operation(index) => index.saturating_add(OPERATIONS + 1),
        };
        u64::from(step) << 32 | u64::from(part)
    }

    /// The step and the span of a number that [`Span::pack`] made.
    pub fn unpack(packed: u64) -> (u32, Span) {
        let part = packed as u32; // the lower half
        let span = match part {
            0 => Span::Step,
            1..=OPERATIONS => Span::Stretch((part - 1) as u16),
            _ => Span::Operation(part - OPERATIONS - 1),
        };
        ((packed >> 32) as u32, span)
    }
}

/// Records what a device does, from outside of its queue.
pub trait Tracer: std::fmt::Debug + Send {
    /// The step with this number begins.
    fn begin(&mut self, step: u32);
    /// What this thread launches belongs to `span` of the step, until [`Tracer::leave`]. Spans nest.
    fn enter(&mut self, span: Span);
    /// The innermost span ends.
    fn leave(&mut self);
    /// Turns recording on or off. It is on at first. While it is off, nothing else is called.
    ///
    /// # Errors
    /// Why it cannot be, in a sentence.
    fn set_recording(&mut self, on: bool) -> Result<(), String>;
    /// The step is over, and the device has nothing left to do; it was given `launched` kernels.
    ///
    /// # Errors
    /// Why there is no trace of this step, in a sentence.
    fn end(&mut self, launched: u64) -> Result<Trace, String>;
}

/// What was recorded of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// The records.
    pub activity: Activity,
    /// When the step began and when it ended, nanoseconds on the clock of the records.
    pub window_ns: [u64; 2],
}

/// What the GPU was waiting for while it did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The host: the launch of what came next returned only after the gap began.
    LaunchLate,
    /// What came before, or the time between two dependent kernels: the next one was in the queue already.
    Dependency,
    /// Nothing more was to come: the time from the last kernel to the end of the step.
    AfterLast,
    /// It cannot be told: the call that launched what came next was not recorded.
    Unknown,
}

impl Cause {
    /// All of them, in the order of tables.
    pub const ALL: [Cause; 4] = [
        Cause::LaunchLate,
        Cause::Dependency,
        Cause::AfterLast,
        Cause::Unknown,
    ];

    /// In words, for a row of a table.
    pub const fn words(self) -> &'static str {
        match self {
            Cause::LaunchLate => "waited for the host's launch",
            Cause::Dependency => "waited for the kernel before",
            Cause::AfterLast => "after the last kernel",
            Cause::Unknown => "waited, not known for what",
        }
    }
}

/// Gaps of one cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapTotal {
    /// What they waited for.
    pub cause: Cause,
    /// How many.
    pub count: u64,
    /// How long, together.
    pub ns: u64,
}

/// What a GPU did during steps, as its records tell it. Sums over steps are of the same form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceActivity {
    /// Steps.
    pub steps: u64,
    /// From the beginning to the end of the step on the records' clock.
    pub window_ns: u64,
    /// Time in which at least one kernel or transfer ran.
    pub busy_ns: u64,
    /// Time that a second kernel or transfer ran beside a first: what overlap saved.
    pub overlap_ns: u64,
    /// Time in which nothing ran, by cause; with `busy_ns` it adds up to `window_ns`.
    pub gaps: Vec<GapTotal>,
    /// Kernels that the program launched, in steps that have a trace.
    pub launched: u64,
    /// Kernels that were recorded.
    pub kernels: u64,
    /// Those of them that ran inside graphs.
    pub graph_kernels: u64,
    /// Copies and fills that were recorded.
    pub transfers: u64,
    /// Kernels that were recorded without times.
    pub untimed: u64,
    /// Kernels that ran in the window and that no span of ours launched.
    pub foreign: u64,
    /// Records of earlier steps that came too late to be counted there.
    pub late: u64,
    /// Operations that got no time, because the kernels recorded are not those launched.
    pub unmatched: u64,
    /// Records that CUPTI had no room for.
    pub dropped: u64,
    /// Records that could not be read.
    pub malformed: u64,
    /// Time that recording took, as CUPTI tells it.
    pub recording_ns: u64,
    /// Steps of which there is no trace.
    pub untraced: u64,
    /// Why the first of them has none.
    pub problem: Option<String>,
}

impl DeviceActivity {
    /// A step of which there is no trace, and why.
    pub fn missing(problem: String) -> DeviceActivity {
        DeviceActivity {
            steps: 1,
            untraced: 1,
            problem: Some(problem),
            ..DeviceActivity::default()
        }
    }

    /// Adds that of other steps.
    pub fn add(&mut self, other: &DeviceActivity) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.steps, other.steps);
        add(&mut self.window_ns, other.window_ns);
        add(&mut self.busy_ns, other.busy_ns);
        add(&mut self.overlap_ns, other.overlap_ns);
        add(&mut self.launched, other.launched);
        add(&mut self.kernels, other.kernels);
        add(&mut self.graph_kernels, other.graph_kernels);
        add(&mut self.transfers, other.transfers);
        add(&mut self.untimed, other.untimed);
        add(&mut self.foreign, other.foreign);
        add(&mut self.late, other.late);
        add(&mut self.unmatched, other.unmatched);
        add(&mut self.dropped, other.dropped);
        add(&mut self.malformed, other.malformed);
        add(&mut self.recording_ns, other.recording_ns);
        add(&mut self.untraced, other.untraced);
        for gap in &other.gaps {
            self.add_gaps(gap.cause, gap.count, gap.ns);
        }
        if self.problem.is_none() {
            self.problem.clone_from(&other.problem);
        }
    }

    fn add_gaps(&mut self, cause: Cause, count: u64, ns: u64) {
        match self.gaps.iter_mut().find(|gap| gap.cause == cause) {
            Some(gap) => {
                gap.count = gap.count.saturating_add(count);
                gap.ns = gap.ns.saturating_add(ns);
            }
            None => {
                self.gaps.push(GapTotal { cause, count, ns });
                self.gaps.sort_by_key(|gap| gap.cause);
            }
        }
    }

    /// The gaps of one cause: how many, and how long together.
    pub fn gap(&self, cause: Cause) -> (u64, u64) {
        let gap = self.gaps.iter().find(|gap| gap.cause == cause);
        gap.map_or((0, 0), |gap| (gap.count, gap.ns))
    }
}

#[cfg(test)]
mod streams;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_survive_being_packed() {
        for span in [
            Span::Step,
            Span::Stretch(0),
            Span::Stretch(u16::MAX),
            Span::Operation(0),
            Span::Operation(1 << 30),
        ] {
            assert_eq!(Span::unpack(span.pack(7)), (7, span));
        }
        assert_eq!(Span::unpack(0), (0, Span::Step));
    }
}
