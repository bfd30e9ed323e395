//! A step as a picture needs it: every activity with its place, and the gaps between.

use super::analysis::Context;
use super::events::{Call, CallKind, Trace};
use super::families::{Families, Family};
use super::gaps::Cause;
use super::intervals::Union;
use super::{DeviceAnalysis, names, steps};

/// The activities of a step, its gaps, and what its host did. Times count from the step's first activity, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drawing {
    /// From the first activity to the end of the last.
    pub span_ns: u64,
    /// Kernels, copies and sets, by start.
    pub activities: Vec<DrawnActivity>,
    /// Where nothing ran on the GPU, whoever's it was: from, until, why.
    pub gaps: Vec<(u64, u64, Cause)>,
    /// Calls of the host that launch, enqueue or wait; those before the first activity begin below zero.
    pub calls: Vec<DrawnCall>,
}

/// An activity of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrawnActivity {
    /// Start.
    pub start_ns: u64,
    /// Duration.
    pub duration_ns: u64,
    /// The stream it ran in.
    pub stream: u32,
    /// What it computes.
    pub family: Family,
    /// The kernel's name, shortened.
    pub name: String,
}

/// A call of a step's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrawnCall {
    /// Start.
    pub start_ns: i64,
    /// Duration.
    pub duration_ns: u64,
    /// What it does.
    pub kind: CallKind,
}

/// Step number `index` of a GPU of the analysis of `trace`; nothing if there is none.
pub fn drawing(trace: &Trace, device: &DeviceAnalysis, index: usize) -> Option<Drawing> {
    let families = Families::of(trace);
    let steps = steps::find(trace);
    let context = Context::new(trace, &families, &steps);
    let id = device.device.id;
    let activities = trace.activities.iter().enumerate();
    let of_device: Vec<usize> = activities
        .filter(|(_, activity)| activity.device == id)
        .map(|(index, _)| index)
        .collect();
    let all: Union = context.intervals(&of_device);
    // Steps of an analysis come in the order of their numbers, those without activities on the GPU left out.
    let mut numbers: Vec<u32> = of_device
        .iter()
        .filter_map(|&i| steps.of_activity[i])
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    let number = *numbers.get(index)?;
    let own = of_device
        .iter()
        .filter(|&&i| steps.of_activity[i] == Some(number))
        .map(|&i| &trace.activities[i]);
    let start = own.clone().map(|a| a.start_ns).min()?;
    let end = own.clone().map(super::Activity::end_ns).max()?;
    let from_start = |at: i64| at.max(start).abs_diff(start);
    let gaps = context
        .gaps(&of_device, &all)
        .into_iter()
        .filter(|(from, to, _)| *to > start && *from < end)
        .map(|(from, to, cause)| (from_start(from), from_start(to.min(end)), cause));
    let calls = (trace.calls.iter().zip(&steps.of_call))
        .filter(|(call, step)| **step == Some(number) && call.kind != CallKind::Memory)
        .map(|(call, _)| call);
    let drawn = |call: &Call| DrawnCall {
        start_ns: call.start_ns.saturating_sub(start),
        duration_ns: call.duration_ns,
        kind: call.kind,
    };
    Some(Drawing {
        span_ns: end.abs_diff(start),
        gaps: gaps.collect(),
        calls: calls.map(drawn).collect(),
        activities: own
            .map(|activity| DrawnActivity {
                start_ns: from_start(activity.start_ns),
                duration_ns: activity.duration_ns,
                stream: activity.stream,
                family: families.get(activity),
                name: names::short(trace.names.get(activity.name)),
            })
            .collect(),
    })
}
