//! Why a GPU was idle between two activities.

use serde::Serialize;

use super::events::{Activity, ActivityKind, Call, CallKind};

/// Why nothing ran before an activity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The call that was to launch it had not returned: the host was too slow.
    LaunchedLate,
    /// It had been launched, and still did not start: it waited for another stream, for work that the trace does not hold, or
    /// for the GPU's own latency between kernels.
    Dependency,
    /// The trace does not tell: there is no call for it, its clock disagrees with the GPU's, or it is within a graph whose
    /// launch was still under way.
    Unknown,
}

/// A part of a gap: from when, until when, why.
pub(super) type Part = (i64, i64, Cause);

impl Cause {
    /// What people call it.
    pub fn label(self) -> &'static str {
        match self {
            Cause::LaunchedLate => "launch came late (host)",
            Cause::Dependency => "launched, but waited",
            Cause::Unknown => "unknown",
        }
    }

    /// The gap between `idle_from_ns` and the start of `next`, which `call` launched, divided where the launch was done;
    /// `is_first` says whether `next` is the first thing that this call launched (a graph launch launches many).
    pub(super) fn divide(
        idle_from_ns: i64,
        next: &Activity,
        call: Option<&Call>,
        is_first: bool,
    ) -> impl Iterator<Item = Part> {
        let to_ns = next.start_ns;
        let parts = match call {
            // A launch after the start: the two clocks disagree.
            Some(call) if call.start_ns <= to_ns => {
                // A copy that the host waits for returns when it is done, whenever it was enqueued.
                let blocks = call.kind == CallKind::Memory
                    && matches!(next.kind, ActivityKind::Copy | ActivityKind::Set)
                    && call.end_ns() >= next.end_ns();
                if is_first || call.end_ns() <= to_ns {
                    let launched_ns = if blocks { call.start_ns } else { call.end_ns() };
                    let launched_ns = launched_ns.clamp(idle_from_ns, to_ns);
                    [
                        (idle_from_ns, launched_ns, Cause::LaunchedLate),
                        (launched_ns, to_ns, Cause::Dependency),
                    ]
                } else {
                    [
                        (idle_from_ns, to_ns, Cause::Unknown),
                        (to_ns, to_ns, Cause::Unknown),
                    ]
                }
            }
            _ => [
                (idle_from_ns, to_ns, Cause::Unknown),
                (to_ns, to_ns, Cause::Unknown),
            ],
        };
        parts.into_iter().filter(|(from, to, _)| from < to)
    }
}

/// Shorter gaps are not counted, though their time is: they are what clocks leave between kernels that follow each other.
const COUNTED_NS: u64 = 100;

/// All gaps of one cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GapTotal {
    /// Why.
    pub cause: Cause,
    /// How many gaps of at least 0.1 µs it has a part in.
    pub count: u64,
    /// Their sum, shorter ones included.
    pub total_ns: u64,
    /// The longest.
    pub longest_ns: u64,
}

impl GapTotal {
    /// Adds a gap to the total of its cause.
    pub(super) fn add(totals: &mut Vec<GapTotal>, cause: Cause, gap_ns: u64) {
        let index = totals
            .iter()
            .position(|total| total.cause == cause)
            .unwrap_or_else(|| {
                totals.push(GapTotal {
                    cause,
                    count: 0,
                    total_ns: 0,
                    longest_ns: 0,
                });
                totals.len() - 1
            });
        let total = &mut totals[index];
        total.count += u64::from(gap_ns >= COUNTED_NS);
        total.total_ns = total.total_ns.saturating_add(gap_ns);
        total.longest_ns = total.longest_ns.max(gap_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::super::events::NameId;
    use super::*;

    fn activity(kind: ActivityKind) -> Activity {
        Activity {
            start_ns: 1000,
            duration_ns: 100,
            correlation: 1,
            name: NameId(0),
            stream: 7,
            device: 0,
            kind,
        }
    }

    /// A gap from 500 to 1000 before an activity whose call ran over the given time: what is late, waiting and unknown in it.
    #[track_caller]
    fn check(kind: ActivityKind, call: (CallKind, i64, i64), is_first: bool, expected: [i64; 3]) {
        let call = Call {
            start_ns: call.1,
            duration_ns: call.2.abs_diff(call.1),
            correlation: 1,
            thread: 0,
            name: NameId(0),
            kind: call.0,
        };
        let mut actual = [0; 3];
        for (from, to, cause) in Cause::divide(500, &activity(kind), Some(&call), is_first) {
            actual[cause as usize] += to - from;
        }
        assert_eq!(actual, expected);
    }

    #[test]
    fn causes() {
        use ActivityKind::{Copy, Kernel};
        use CallKind::{GraphLaunch, Launch, Memory};
        check(Kernel, (Launch, 600, 700), true, [200, 300, 0]);
        check(Kernel, (Launch, 400, 600), true, [100, 400, 0]);
        check(Kernel, (Launch, 900, 1050), true, [500, 0, 0]);
        check(Kernel, (Launch, 300, 400), true, [0, 500, 0]);
        // Later kernels of a graph were launched with it; while the call is under way, nobody knows.
        check(Kernel, (GraphLaunch, 300, 400), false, [0, 500, 0]);
        check(Kernel, (GraphLaunch, 300, 2000), false, [0, 0, 500]);
        check(Kernel, (GraphLaunch, 300, 2000), true, [500, 0, 0]);
        // A copy that blocks the host returns after it ended.
        check(Copy, (Memory, 300, 1200), true, [0, 500, 0]);
        check(Copy, (Memory, 600, 1200), true, [100, 400, 0]);
        // A launch after the start: clocks disagree.
        check(Kernel, (Launch, 1100, 1200), true, [0, 0, 500]);
        let without_call: Vec<Part> = Cause::divide(500, &activity(Kernel), None, true).collect();
        assert_eq!(without_call, [(500, 1000, Cause::Unknown)]);
    }
}
