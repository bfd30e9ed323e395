//! What Holistic Trace Analysis says of a trace, computed as it does, to set beside what is so.
//!
//! Its definitions are those of `get_temporal_breakdown` and `get_gpu_kernel_breakdown` in `hta/analyzers/breakdown_analysis.py`,
//! on what `hta/common/trace_parser.py` and `trace.py` leave of a trace (version 0.5.0, MIT licence):
//! - If any time stamp has decimals, every event is rounded inwards to whole microseconds: its start up, its end down. A
//!   kernel loses up to 2 µs and one below a microsecond can get a negative duration, on which an assertion fails.
//! - If there is more than one `ProfilerStep#…`, kernels launched in the last one, or by no call in the file, are left out.
//! - All GPUs and streams of a file count as one. A gap ends where a start lies behind the latest end so far.
//! - *Idle* is the time from the first start to the last end that no kernel, copy or set covers; *compute* the time that
//!   kernels cover which are neither NCCL's nor copies or sets; *non-compute* the rest.

use std::collections::HashSet;

use serde::Serialize;

use super::annotations::{Spelling, StepLabel};
use super::events::{Activity, Place, Trace};
use super::intervals::{Union, by_set};

/// Shares as Holistic Trace Analysis computes them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HtaShares {
    /// From the first start to the last end.
    pub window_us: f64,
    /// Of the window.
    pub idle_percent: f64,
    /// Of the window.
    pub compute_percent: f64,
    /// Of the window.
    pub non_compute_percent: f64,
    /// Shares of the time in which anything runs, by what runs: `COMPUTATION`, `COMPUTATION overlapping MEMORY`, …
    pub kernel_types_percent: Vec<(String, f64)>,
    /// Busy time that its rounding loses, in nanoseconds.
    pub rounding_loss_ns: u64,
    /// Whether it leaves out the last step of the profiler.
    pub drops_last_step: bool,
    /// Whether it stops with a failed assertion, because its rounding made durations negative.
    pub fails: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Computation,
    Communication,
    Memory,
    Other,
}

impl Type {
    /// Its three regular expressions, in its order.
    fn of(name: &str) -> Type {
        if name.starts_with("nccl") && name.contains("Kernel") {
            Type::Communication
        } else if ["Memcpy", "Memset", "dma"]
            .iter()
            .any(|start| name.starts_with(start))
        {
            Type::Memory
        } else if name.contains("Memcpy") || name.contains("Sync") {
            Type::Other
        } else {
            Type::Computation
        }
    }
}

/// What it says of `trace`; `None` where there is no GPU activity for it.
pub(super) fn shares(trace: &Trace) -> Option<HtaShares> {
    let drops_last_step = profiler_steps(trace) > 1;
    let kept: Vec<&Activity> = if drops_last_step {
        let last = last_step_start(trace);
        let launched: HashSet<u64> = trace
            .calls
            .iter()
            .filter(|call| call.start_ns < last && call.correlation != 0)
            .map(|call| call.correlation)
            .collect();
        trace
            .activities
            .iter()
            .filter(|a| launched.contains(&a.correlation))
            .collect()
    } else {
        trace.activities.iter().collect()
    };
    // In nanoseconds, on whole microseconds where it rounds.
    let round = |a: &Activity| match trace.has_decimals {
        true => (
            a.start_ns.div_euclid(1000) * 1000
                + if a.start_ns.rem_euclid(1000) > 0 {
                    1000
                } else {
                    0
                },
            a.end_ns().div_euclid(1000) * 1000,
        ),
        false => (a.start_ns, a.end_ns()),
    };
    let mut rounded: Vec<(i64, i64, Type)> = kept
        .iter()
        .map(|a| {
            let (start, end) = round(a);
            (start, end, Type::of(trace.names.get(a.name)))
        })
        .collect();
    rounded.sort_by_key(|&(start, _, _)| start);

    let all = groups(rounded.iter().map(|&(start, end, _)| (start, end)));
    let (first, last) = (all.first()?, all.last()?);
    let window = last.1 - first.0;
    let run = length(&all);
    let of_type = |wanted: Type| {
        let of_type = rounded.iter().filter(move |&&(_, _, t)| t == wanted);
        of_type.map(|&(start, end, _)| (start, end))
    };
    let compute = length(&groups(of_type(Type::Computation)));
    let idle = window - run;
    let non_compute = window - compute - idle;
    let exact = Union::of(kept.iter().map(|a| (a.start_ns, a.end_ns()))).length();
    let percent = |ns: i64| {
        if window == 0 {
            0.0
        } else {
            100.0 * ns as f64 / window as f64
        }
    };
    Some(HtaShares {
        window_us: window as f64 / 1e3,
        idle_percent: percent(idle),
        compute_percent: percent(compute),
        non_compute_percent: percent(non_compute),
        kernel_types_percent: kernel_types([
            Union::of(of_type(Type::Computation).filter(|(s, e)| s <= e)),
            Union::of(of_type(Type::Communication).filter(|(s, e)| s <= e)),
            Union::of(of_type(Type::Memory).filter(|(s, e)| s <= e)),
        ]),
        rounding_loss_ns: exact.saturating_sub(u64::try_from(run).unwrap_or(0)),
        drops_last_step,
        fails: non_compute < 0,
    })
}

fn profiler_steps(trace: &Trace) -> usize {
    let steps = trace
        .annotations
        .iter()
        .filter(|a| is_profiler_step(trace, a.place, a.name));
    steps.map(|a| a.name).collect::<HashSet<_>>().len()
}

fn last_step_start(trace: &Trace) -> i64 {
    let steps = trace
        .annotations
        .iter()
        .filter(|a| is_profiler_step(trace, a.place, a.name));
    steps.map(|a| a.start_ns).max().unwrap_or(i64::MAX)
}

fn is_profiler_step(trace: &Trace, place: Place, name: super::NameId) -> bool {
    matches!(place, Place::Host(_))
        && StepLabel::parse(trace.names.get(name))
            .is_some_and(|label| label.spelling == Spelling::Profiler)
}

/// Intervals merged as it does: a new group begins behind the latest end so far. Ends may lie before starts.
fn groups(intervals: impl Iterator<Item = (i64, i64)>) -> Vec<(i64, i64)> {
    let mut groups: Vec<(i64, i64)> = Vec::new();
    let mut latest = i64::MIN;
    for (start, end) in intervals {
        match groups.last_mut() {
            Some(group) if start <= latest => group.1 = group.1.max(end),
            _ => groups.push((start, end)),
        }
        latest = latest.max(end);
    }
    groups
}

fn length(groups: &[(i64, i64)]) -> i64 {
    groups.iter().map(|&(start, end)| end - start).sum()
}

fn kernel_types(unions: [Union; 3]) -> Vec<(String, f64)> {
    const NAMES: [&str; 3] = ["COMPUTATION", "COMMUNICATION", "MEMORY"];
    let time = by_set(&unions);
    let total: u64 = time.iter().sum();
    let mut shares: Vec<(String, f64)> = (1..time.len())
        .filter(|&set| time[set] > 0)
        .map(|set| {
            let names: Vec<&str> = (0..3)
                .filter(|bit| set & (1 << bit) != 0)
                .map(|bit| NAMES[bit])
                .collect();
            (
                names.join(" overlapping "),
                100.0 * time[set] as f64 / total as f64,
            )
        })
        .collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_classes() {
        assert_eq!(
            Type::of("ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t(ncclDevComm*)"),
            Type::Communication
        );
        assert_eq!(Type::of("Memcpy DtoD (Device -> Device)"), Type::Memory);
        assert_eq!(
            Type::of("void vllm::cross_device_reduce_1stage<float>"),
            Type::Computation
        );
        assert_eq!(Type::of("void batchMemcpyKernel<>"), Type::Other);
    }

    #[test]
    fn a_group_may_shrink_below_nothing() {
        // Rounded inwards, a kernel of 0.8 µs across no full microsecond ends before it starts.
        let merged = groups([(0, 4), (6, 5), (8, 9), (9, 12)].into_iter());
        assert_eq!(merged, [(0, 4), (6, 5), (8, 12)]);
        assert_eq!(length(&merged), 7);
    }
}
