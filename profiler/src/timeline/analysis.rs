//! A trace taken apart: per GPU its window, its steps, and what lies outside of them.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::annotations::{Kind, Spelling};
use super::events::{Activity, ActivityKind, Call, CallKind, Damage, Device, Format, Trace};
use super::families::{Families, Family, FamilyTime};
use super::gaps::{Cause, GapTotal, Part};
use super::hta::{self, HtaShares};
use super::intervals::{Union, by_set, shared};
use super::layers::{self, Layers};
use super::steps::{self, Steps, Tie};
use super::{names, remarks, trust};
use crate::activity::{Grade, Trust};

/// As many kernel names as a step lists.
const TOP_KERNELS: usize = 8;

/// All that is said of a trace.
#[derive(Debug, Clone, Serialize)]
pub struct Analysis {
    /// What a person calls the trace.
    pub trace: String,
    /// Who wrote it.
    pub format: Format,
    /// The GPUs that did anything, by number.
    pub devices: Vec<DeviceAnalysis>,
    /// What Holistic Trace Analysis says of the file, where it has GPU activity.
    pub holistic_trace_analysis: Option<HtaShares>,
    /// What was wrong with the file.
    pub damage: Damage,
    /// How far what is said can be believed.
    pub trust: Trust,
    /// What the trace cannot say, and what to read with care; one sentence or two each.
    pub remarks: Vec<String>,
}

/// One GPU.
#[derive(Debug, Clone, Serialize)]
pub struct DeviceAnalysis {
    /// The GPU; without a name where the trace has none.
    pub device: Device,
    /// From its first activity to its last.
    pub window: Window,
    /// Its steps, in order of time.
    pub steps: Vec<StepAnalysis>,
    /// What belongs to no step.
    pub outside: Outside,
}

/// From the first activity of a GPU to the end of its last.
#[derive(Debug, Clone, Serialize)]
pub struct Window {
    /// Its length.
    pub span_ns: u64,
    /// The time during which anything ran.
    pub busy_ns: u64,
    /// The rest.
    pub idle_ns: u64,
    /// The part of the idle time within steps.
    pub idle_in_steps_ns: u64,
    /// The time during which a kernel ran that computes.
    pub compute_ns: u64,
    /// The time during which a kernel ran that communicates.
    pub communication_ns: u64,
    /// The time during which a copy or a set ran.
    pub memory_ns: u64,
    /// The part of the communication during which nothing computed.
    pub exposed_communication_ns: u64,
    /// Kernels, copies and sets.
    pub activities: u64,
    /// By cause.
    pub gaps: Vec<GapTotal>,
    /// By family, largest first.
    pub families: Vec<FamilyTime>,
}

/// One step on one GPU.
#[derive(Debug, Clone, Serialize)]
pub struct StepAnalysis {
    /// Its annotation's text.
    pub name: String,
    /// Whose annotation it is.
    pub spelling: Option<Spelling>,
    /// What it does.
    pub kind: Kind,
    /// Requests in it.
    pub requests: Option<u64>,
    /// Those whose prompt it runs.
    pub prefill_requests: Option<u64>,
    /// New tokens through the model.
    pub tokens: Option<u64>,
    /// Tokens that attention looks back at, over all requests.
    pub context_tokens: Option<u64>,
    /// How kernels were tied to it.
    pub tie: Tie,
    /// Its first activity, counted from the first of the GPU.
    pub start_ns: u64,
    /// From its first activity to the end of its last.
    pub span_ns: u64,
    /// The time during which any activity of its own ran.
    pub busy_ns: u64,
    /// The time within its span during which only activities of others ran.
    pub others_ns: u64,
    /// The time within its span during which nothing ran.
    pub idle_ns: u64,
    /// The sum of its activities' durations.
    pub sum_ns: u64,
    /// What the sum has too much because activities of one stream overlap, as programmatic dependent launch allows.
    pub overlap_in_stream_ns: u64,
    /// What it has too much because streams overlap.
    pub overlap_of_streams_ns: u64,
    /// By cause.
    pub gaps: Vec<GapTotal>,
    /// By family, largest first.
    pub families: Vec<FamilyTime>,
    /// The least that families can take. [`analyse`] knows no model and leaves this empty; who does fills it in, and the text
    /// and the JSON show it.
    pub floors: Vec<Floor>,
    /// Layers seen, where any pattern repeats.
    pub layers: Option<Layers>,
    /// Kernels, copies and sets.
    pub activities: u64,
    /// Those with the largest sums.
    pub top_kernels: Vec<KernelTotal>,
    /// On the host.
    pub host: Option<HostSide>,
}

/// The least time that a family's work can take, by a model's work and a GPU's rates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Floor {
    /// Whose.
    pub family: Family,
    /// How long.
    pub floor_ns: u64,
    /// What sets it: `memory`, `compute`, or as the roofline says it.
    pub bound_by: String,
    /// Its arithmetic, FLOP.
    pub flops: u64,
    /// What it reads and writes, bytes.
    pub bytes: u64,
}

/// All kernels of one name in a step.
#[derive(Debug, Clone, Serialize)]
pub struct KernelTotal {
    /// The name, shortened.
    pub name: String,
    /// Its family.
    pub family: Family,
    /// How many.
    pub count: u64,
    /// The sum of their durations.
    pub sum_ns: u64,
}

/// What the host did for a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HostSide {
    /// The annotation's length.
    pub annotation_ns: Option<u64>,
    /// Kernel launches.
    pub launches: u64,
    /// Graph launches.
    pub graph_launches: u64,
    /// Copies and sets enqueued.
    pub memory_calls: u64,
    /// In calls that launch or enqueue.
    pub launching_ns: u64,
    /// In calls that wait for the GPU; copies that turned out to wait are not among them.
    pub waiting_ns: u64,
}

/// What belongs to no step.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outside {
    /// Kernels, copies and sets.
    pub activities: u64,
    /// The time during which any of them ran.
    pub busy_ns: u64,
    /// Those launched within an annotation around a step, before or after it.
    pub around_steps: u64,
    /// Those without a call in the file: launched before recording began.
    pub without_call: u64,
    /// By family, largest first.
    pub families: Vec<FamilyTime>,
}

/// Takes a trace apart.
pub fn analyse(trace: &Trace) -> Analysis {
    let families = Families::of(trace);
    let steps = steps::find(trace);
    let mut by_device: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (index, activity) in trace.activities.iter().enumerate() {
        by_device.entry(activity.device).or_default().push(index);
    }
    let context = Context::new(trace, &families, &steps);
    let devices: Vec<DeviceAnalysis> = by_device
        .into_iter()
        .map(|(device, indices)| context.device(device, &indices))
        .collect();
    let mut analysis = Analysis {
        trace: trace.name.clone(),
        format: trace.format,
        devices,
        holistic_trace_analysis: hta::shares(trace),
        damage: trace.damage.clone(),
        trust: Trust {
            grade: Grade::Good,
            reasons: Vec::new(),
        },
        remarks: Vec::new(),
    };
    analysis.trust = trust::of(&analysis, trace, &steps);
    analysis.remarks = remarks::of(&analysis, trace, &steps);
    analysis
}

/// Per activity, whether it is the first that its call launched.
fn first_of_calls(steps: &Steps, trace: &Trace) -> Vec<bool> {
    let mut seen = vec![false; trace.calls.len()];
    steps
        .launched_by
        .iter()
        .map(|call| call.is_some_and(|call| !std::mem::replace(&mut seen[call as usize], true)))
        .collect()
}

/// A trace with its families and steps, for computing what is said of it.
pub(super) struct Context<'a> {
    trace: &'a Trace,
    families: &'a Families,
    steps: &'a Steps,
    is_first_of_call: Vec<bool>,
    /// Per step: its calls.
    calls_of_step: Vec<Vec<u32>>,
}

fn calls_of_steps(steps: &Steps, trace: &Trace) -> Vec<Vec<u32>> {
    let mut calls = vec![Vec::new(); steps.steps.len()];
    for (call, step) in (0..trace.calls.len() as u32).zip(&steps.of_call) {
        if let Some(step) = step {
            calls[*step as usize].push(call);
        }
    }
    calls
}

fn interval(a: &Activity) -> (i64, i64) {
    (a.start_ns, a.end_ns())
}

impl<'a> Context<'a> {
    pub(super) fn new(trace: &'a Trace, families: &'a Families, steps: &'a Steps) -> Context<'a> {
        Context {
            trace,
            families,
            steps,
            is_first_of_call: first_of_calls(steps, trace),
            calls_of_step: calls_of_steps(steps, trace),
        }
    }
}

impl Context<'_> {
    fn activity(&self, index: usize) -> &Activity {
        &self.trace.activities[index]
    }

    pub(super) fn intervals(&self, indices: &[usize]) -> Union {
        Union::of(indices.iter().map(|&i| interval(self.activity(i))))
    }

    /// `indices` are those of the GPU's activities, by start; there is at least one.
    fn device(&self, id: u32, indices: &[usize]) -> DeviceAnalysis {
        let all = self.intervals(indices);
        let start = all.0.first().map_or(0, |first| first.0);
        let gaps = self.gaps(indices, &all);
        let mut of_step: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        let mut outside = Vec::new();
        for &index in indices {
            match self.steps.of_activity[index] {
                Some(step) => of_step.entry(step).or_default().push(index),
                None => outside.push(index),
            }
        }
        let steps: Vec<StepAnalysis> = of_step
            .iter()
            .map(|(&step, indices)| self.step(step, indices, &all, &gaps, start))
            .collect();
        let spans = Union::of({
            let mut spans: Vec<(i64, i64)> =
                of_step.values().map(|indices| self.span(indices)).collect();
            spans.sort_unstable();
            spans
        });
        DeviceAnalysis {
            device: self.named_device(id),
            window: self.window(indices, &all, &spans, &gaps),
            steps,
            outside: self.outside(&outside),
        }
    }

    fn named_device(&self, id: u32) -> Device {
        let known = &self.trace.devices;
        let exact = known.iter().find(|device| device.id == id);
        // Numbers may be those of the machine, and the list that of the process: then they help only if all are alike.
        let alike = known
            .first()
            .filter(|first| known.iter().all(|device| device.name == first.name));
        exact.or(alike).map_or_else(
            || Device {
                id,
                name: String::new(),
                multiprocessors: None,
                memory_bytes: None,
            },
            |device| Device {
                id,
                ..device.clone()
            },
        )
    }

    /// From the first start to the last end of some activities.
    fn span(&self, indices: &[usize]) -> (i64, i64) {
        let start = indices.first().map_or(0, |&i| self.activity(i).start_ns);
        let end = indices.iter().map(|&i| self.activity(i).end_ns()).max();
        (start, end.unwrap_or(start))
    }

    /// The gaps of a GPU, divided by cause.
    pub(super) fn gaps(&self, indices: &[usize], all: &Union) -> Vec<Part> {
        let mut next = 0;
        let mut parts = Vec::new();
        for pair in all.0.windows(2) {
            let (from, to) = (pair[0].1, pair[1].0);
            while self.activity(indices[next]).start_ns < to {
                next += 1;
            }
            let index = indices[next];
            let call = self.steps.launched_by[index].map(|call| &self.trace.calls[call as usize]);
            let is_first = self.is_first_of_call[index];
            parts.extend(Cause::divide(from, self.activity(index), call, is_first));
        }
        parts
    }

    fn window(&self, indices: &[usize], all: &Union, spans: &Union, gaps: &[Part]) -> Window {
        let union_of = |wanted: &dyn Fn(&Activity) -> bool| {
            let activities = indices.iter().map(|&i| self.activity(i));
            Union::of(activities.filter(|a| wanted(a)).map(interval))
        };
        let is_memory = |a: &Activity| matches!(a.kind, ActivityKind::Copy | ActivityKind::Set);
        let communicates = |a: &Activity| self.families.get(a) == Family::Communication;
        let memory = union_of(&is_memory);
        let communication = union_of(&communicates);
        let compute = union_of(&|a| !is_memory(a) && !communicates(a));
        let (start, end) = self.span(indices);
        let span_ns = end.abs_diff(start);
        let busy_ns = all.length();
        let exposed = by_set(&[communication.clone(), compute.clone()])[0b01];
        let mut totals = Vec::new();
        for &(from, to, cause) in gaps {
            GapTotal::add(&mut totals, cause, to.abs_diff(from));
        }
        Window {
            span_ns,
            busy_ns,
            idle_ns: span_ns - busy_ns,
            idle_in_steps_ns: spans
                .0
                .iter()
                .map(|&(from, to)| to.abs_diff(from) - all.length_within(from, to))
                .sum(),
            compute_ns: compute.length(),
            communication_ns: communication.length(),
            memory_ns: memory.length(),
            exposed_communication_ns: exposed,
            activities: indices.len() as u64,
            gaps: by_size(totals),
            families: self.family_times(indices),
        }
    }

    fn family_times(&self, indices: &[usize]) -> Vec<FamilyTime> {
        let mut class_of: HashMap<Family, usize> = HashMap::new();
        let mut times: Vec<FamilyTime> = Vec::new();
        let mut intervals = Vec::with_capacity(indices.len());
        for &index in indices {
            let activity = self.activity(index);
            let family = self.families.get(activity);
            let class = *class_of.entry(family).or_insert_with(|| {
                times.push(FamilyTime {
                    family,
                    busy_ns: 0,
                    sum_ns: 0,
                    count: 0,
                });
                times.len() - 1
            });
            times[class].count += 1;
            times[class].sum_ns = times[class].sum_ns.saturating_add(activity.duration_ns);
            intervals.push((activity.start_ns, activity.end_ns(), class));
        }
        for (time, busy) in times.iter_mut().zip(shared(&intervals, class_of.len())) {
            time.busy_ns = busy.round() as u64;
        }
        times.sort_by_key(|time| (std::cmp::Reverse(time.busy_ns), time.family));
        times
    }

    fn step(
        &self,
        step: u32,
        indices: &[usize],
        all: &Union,
        gaps: &[Part],
        origin: i64,
    ) -> StepAnalysis {
        let found = &self.steps.steps[step as usize];
        let (start, end) = self.span(indices);
        let own = self.intervals(indices);
        let busy_ns = own.length();
        let running_ns = all.length_within(start, end);
        let first_gap = gaps.partition_point(|gap| gap.1 <= start);
        let mut totals = Vec::new();
        for &(from, to, cause) in gaps[first_gap..].iter().take_while(|gap| gap.0 < end) {
            GapTotal::add(&mut totals, cause, to.min(end).abs_diff(from.max(start)));
        }
        let mut by_stream: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for &index in indices {
            by_stream
                .entry(self.activity(index).stream)
                .or_default()
                .push(index);
        }
        let sum = |indices: &[usize]| {
            indices.iter().fold(0_u64, |sum, &i| {
                sum.saturating_add(self.activity(i).duration_ns)
            })
        };
        let streams_ns: u64 = by_stream
            .values()
            .map(|indices| self.intervals(indices).length())
            .sum();
        let sum_ns = sum(indices);
        let activities: Vec<&Activity> = indices.iter().map(|&i| self.activity(i)).collect();
        let label = found.label.as_ref();
        StepAnalysis {
            name: found.name.clone(),
            spelling: label.map(|label| label.spelling),
            kind: label.map_or(Kind::Unknown, |label| label.kind),
            requests: label.and_then(|label| label.requests),
            prefill_requests: label.and_then(|label| label.prefill_requests),
            tokens: label.and_then(|label| label.tokens),
            context_tokens: label.and_then(|label| label.context_tokens),
            tie: found.tie,
            start_ns: start.abs_diff(origin),
            span_ns: end.abs_diff(start),
            busy_ns,
            others_ns: running_ns.saturating_sub(busy_ns),
            idle_ns: end.abs_diff(start).saturating_sub(running_ns),
            sum_ns,
            overlap_in_stream_ns: sum_ns.saturating_sub(streams_ns),
            overlap_of_streams_ns: streams_ns.saturating_sub(busy_ns),
            gaps: by_size(totals),
            families: self.family_times(indices),
            floors: Vec::new(),
            // A window of many steps repeats as often as they have layers in all.
            layers: match found.tie {
                Tie::Window => None,
                _ => layers::count(&activities, self.families),
            },
            activities: indices.len() as u64,
            top_kernels: self.top_kernels(&activities),
            host: self.host(step),
        }
    }

    fn top_kernels(&self, activities: &[&Activity]) -> Vec<KernelTotal> {
        let mut by_name: HashMap<super::NameId, (u64, u64, Family)> = HashMap::new();
        for activity in activities {
            let entry = by_name
                .entry(activity.name)
                .or_insert((0, 0, self.families.get(activity)));
            entry.0 += 1;
            entry.1 = entry.1.saturating_add(activity.duration_ns);
        }
        let mut totals: Vec<_> = by_name.into_iter().collect();
        totals.sort_by_key(|&(name, (_, sum, _))| (std::cmp::Reverse(sum), name));
        totals
            .into_iter()
            .take(TOP_KERNELS)
            .map(|(name, (count, sum_ns, family))| KernelTotal {
                name: names::short(self.trace.names.get(name)),
                family,
                count,
                sum_ns,
            })
            .collect()
    }

    fn host(&self, step: u32) -> Option<HostSide> {
        let calls: Vec<&Call> = self.calls_of_step[step as usize]
            .iter()
            .map(|&call| &self.trace.calls[call as usize])
            .collect();
        if calls.is_empty() {
            return None;
        }
        let count = |kind| calls.iter().filter(|call| call.kind == kind).count() as u64;
        let time = |wanted: &dyn Fn(CallKind) -> bool| {
            let calls = calls.iter().filter(|call| wanted(call.kind));
            Union::of(calls.map(|call| (call.start_ns, call.end_ns()))).length()
        };
        Some(HostSide {
            annotation_ns: self.steps.steps[step as usize]
                .annotation
                .map(|a| a.duration_ns),
            launches: count(CallKind::Launch),
            graph_launches: count(CallKind::GraphLaunch),
            memory_calls: count(CallKind::Memory),
            launching_ns: time(&|kind| kind != CallKind::Wait),
            waiting_ns: time(&|kind| kind == CallKind::Wait),
        })
    }

    fn outside(&self, indices: &[usize]) -> Outside {
        let count =
            |wanted: &dyn Fn(usize) -> bool| indices.iter().filter(|&&i| wanted(i)).count() as u64;
        Outside {
            activities: indices.len() as u64,
            busy_ns: self.intervals(indices).length(),
            around_steps: count(&|i| self.steps.is_around[i]),
            without_call: count(&|i| self.steps.launched_by[i].is_none()),
            families: self.family_times(indices),
        }
    }
}

fn by_size(mut totals: Vec<GapTotal>) -> Vec<GapTotal> {
    totals.sort_by_key(|total| (std::cmp::Reverse(total.total_ns), total.cause));
    totals
}
