//! What a trace cannot say, and what to read with care.

use super::analysis::Analysis;
use super::annotations::Spelling;
use super::events::{Format, Trace};
use super::families::Family;
use super::names;
use super::steps::{Steps, Tie};
use crate::quantity;

/// Kernels that no rule knows are named from this part of a step's or a window's time on.
const WORTH_NAMING: f64 = 0.02;

/// All remarks on an analysis whose other fields are filled in.
pub(super) fn of(analysis: &Analysis, trace: &Trace, steps: &Steps) -> Vec<String> {
    let mut remarks = Vec::new();
    damage(analysis, &mut remarks);
    content(analysis, trace, &mut remarks);
    ties(analysis, trace, steps, &mut remarks);
    method(analysis, &mut remarks);
    remarks
}

fn damage(analysis: &Analysis, remarks: &mut Vec<String>) {
    let damage = &analysis.damage;
    if let Some(why) = &damage.broken_off {
        remarks.push(format!(
            "The file breaks off ({why}): everything here is of the part before, and the last step may be cut."
        ));
    }
    let mut counted = |count: u64, what: &str| {
        if count > 0 {
            remarks.push(format!("{what}: {count}."));
        }
    };
    counted(
        damage.without_time,
        "Events left out because they have no start or no duration",
    );
    counted(
        damage.negative,
        "Events left out because their duration is negative",
    );
    counted(
        damage.out_of_range,
        "Events left out because no clock counts to their times (the trace may mix units of time)",
    );
    counted(
        damage.zero_duration,
        "GPU activities of no duration, shorter than the recorder's clock tells",
    );
    counted(
        damage.malformed,
        "Entries left out because they are no events or have no name",
    );
    counted(
        damage.not_numbers,
        "Numbers that are NaN or infinite and count as missing",
    );
    counted(
        damage.begin_end,
        "Begin and end events passed over, as only complete events are read",
    );
    if damage.is_coarse {
        remarks.push(
            "Time stamps are so large that a double holds them to a quarter of a microsecond: short kernels and gaps are that \
             uncertain."
                .to_owned(),
        );
    }
    for diagnostic in &damage.diagnostics {
        remarks.push(format!("The recorder says: {diagnostic}"));
    }
}

fn content(analysis: &Analysis, trace: &Trace, remarks: &mut Vec<String>) {
    if analysis.devices.is_empty() {
        let why = if analysis.damage.counter_ranges > 0 {
            format!(
                "it holds {} ranges of performance counters, which are measured by replaying kernels and say nothing of time",
                analysis.damage.counter_ranges
            )
        } else if trace.calls.iter().any(|call| call.correlation != 0) {
            "it holds launches, but not what they launched: CUPTI may have been in use by another profiler".to_owned()
        } else {
            "it was recorded without GPU activity".to_owned()
        };
        remarks.push(format!(
            "The trace has no kernel: {why}. Record again with ProfilerActivity.CUDA, or with nsys profile --trace=cuda,nvtx."
        ));
        return;
    }
    if analysis.format == Format::Stepscope {
        remarks.push(
            "This is stepscope's own trace: a process is a point of the sweep, and times are those of the timer that each \
             operation names. Its record says more: stepscope report RECORD."
                .to_owned(),
        );
    } else if analysis
        .devices
        .iter()
        .any(|device| device.device.name.is_empty())
    {
        remarks.push("The trace does not name its GPU: floors need --gpu.".to_owned());
    }
    let longest = analysis
        .devices
        .iter()
        .map(|device| device.window.span_ns)
        .max();
    if longest.is_some_and(|ns| ns > 24 * 3600 * 1_000_000_000) {
        remarks.push(
            "The window is longer than a day: time stamps may be of different clocks or units, and only what is said of single \
             steps holds."
                .to_owned(),
        );
    }
    for device in &analysis.devices {
        unknown_kernels(device.device.id, trace, device.window.busy_ns, remarks);
    }
    let has_whole_graphs =
        |families: &[super::FamilyTime]| families.iter().any(|f| f.family == Family::Graph);
    if analysis
        .devices
        .iter()
        .any(|device| has_whole_graphs(&device.window.families))
    {
        remarks.push(
            "Graph replays were recorded as a whole, without their kernels: record with nsys profile --cuda-graph-trace=node."
                .to_owned(),
        );
    }
}

fn unknown_kernels(device: u32, trace: &Trace, busy_ns: u64, remarks: &mut Vec<String>) {
    let mut by_name: std::collections::BTreeMap<super::NameId, u64> =
        std::collections::BTreeMap::new();
    let mut total = 0_u64;
    let families = super::families::Families::of(trace);
    for activity in trace.activities.iter().filter(|a| a.device == device) {
        if families.get(activity) == Family::Other {
            total = total.saturating_add(activity.duration_ns);
            let sum = by_name.entry(activity.name).or_default();
            *sum = sum.saturating_add(activity.duration_ns);
        }
    }
    if total as f64 <= WORTH_NAMING * busy_ns as f64 {
        return;
    }
    let mut largest: Vec<_> = by_name.into_iter().collect();
    largest.sort_by_key(|&(_, sum)| std::cmp::Reverse(sum));
    let named: Vec<String> = largest
        .iter()
        .take(3)
        .map(|&(name, _)| names::short(trace.names.get(name)))
        .collect();
    remarks.push(format!(
        "Kernels whose names no rule knows took {} of the busy time of GPU {device}; the largest: {}.",
        quantity::percent(total as f64 / busy_ns.max(1) as f64),
        named.join(", ")
    ));
}

fn ties(analysis: &Analysis, trace: &Trace, steps: &Steps, remarks: &mut Vec<String>) {
    let tied_by = |tie| {
        analysis
            .devices
            .iter()
            .any(|d| d.steps.iter().any(|step| step.tie == tie))
    };
    let of_profiler = |step: &super::StepAnalysis| step.spelling == Some(Spelling::Profiler);
    if tied_by(Tie::Window) {
        remarks.push(
            "Nothing separates steps: there is no annotation of sglang, vLLM, TensorRT-LLM or PyTorch's profiler, and no graph \
             launch. The whole window is taken as one."
                .to_owned(),
        );
    }
    if tied_by(Tie::GraphLaunch) {
        remarks.push(
            "No annotation says what a step is: every graph launch is taken as one, and kernels launched one by one stand \
             outside."
                .to_owned(),
        );
    }
    if tied_by(Tie::LaunchOnAnyThread) {
        remarks.push(
            "The threads with the annotations launch nothing: kernels are tied by the time of their launch on other threads."
                .to_owned(),
        );
    }
    if tied_by(Tie::Device) && analysis.format == Format::Kineto {
        remarks.push(
            "Steps are annotated on the GPU only: kernels are tied to them by time, and may belong to their neighbours."
                .to_owned(),
        );
    }
    if analysis
        .devices
        .iter()
        .any(|d| d.steps.iter().any(of_profiler))
    {
        remarks.push(
            "A ProfilerStep is whatever the program does between two calls of the profiler: several forward passes in one \
             count as one step, with all their layers."
                .to_owned(),
        );
    }
    let idle_steps = steps.steps.len().saturating_sub(
        analysis
            .devices
            .iter()
            .map(|d| d.steps.len())
            .max()
            .unwrap_or(0),
    );
    if idle_steps > 0 && !analysis.devices.is_empty() {
        remarks.push(format!(
            "Annotated steps without a kernel in the file: {idle_steps}."
        ));
    }
    if steps.ambiguous > 0 {
        remarks.push(format!(
            "Kernels tied to no step because several calls have their correlation id, as in merged traces of several ranks: {}.",
            steps.ambiguous
        ));
    }
    let disagreeing =
        trace
            .activities
            .iter()
            .zip(&steps.launched_by)
            .filter_map(|(activity, call)| {
                let call = trace.calls.get((*call)? as usize)?;
                u64::try_from(call.start_ns - activity.start_ns)
                    .ok()
                    .filter(|&ns| ns > 0)
            });
    let (count, worst) =
        disagreeing.fold((0_u64, 0), |(count, worst), ns| (count + 1, ns.max(worst)));
    if count > 0 {
        remarks.push(format!(
            "Kernels that start before the call that launched them: {count}, by up to {}. The clocks of host and GPU disagree, and \
             causes of gaps of that size cannot be told.",
            quantity::duration(worst as f64)
        ));
    }
}

fn method(analysis: &Analysis, remarks: &mut Vec<String>) {
    if analysis.devices.is_empty() || analysis.format == Format::Stepscope {
        return;
    }
    remarks.push(
        "A profiler slows the host down and leaves kernels as they are: gaps because a launch came late are at most this long \
         without it."
            .to_owned(),
    );
    if analysis
        .devices
        .iter()
        .any(|d| d.steps.iter().any(|s| s.overlap_in_stream_ns > 0))
    {
        remarks.push(
            "Kernels of one stream overlap (programmatic dependent launch): part of a kernel's duration is waiting for the one \
             before, so that its own time is at most this long."
                .to_owned(),
        );
    }
}
