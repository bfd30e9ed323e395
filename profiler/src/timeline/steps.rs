//! Which activities belong to which step.

use std::collections::HashMap;

use serde::Serialize;

use super::annotations::{Spelling, StepLabel};
use super::events::{ActivityKind, Annotation, Call, CallKind, Format, Place, Trace};

/// How kernels were tied to their step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tie {
    /// The call that launched them was made within the step's annotation, on its thread.
    Launch,
    /// The same, on whatever thread: no thread of a step launches anything.
    LaunchOnAnyThread,
    /// They started within an annotation on the GPU.
    Device,
    /// There is no annotation: a graph launch is taken as a step.
    GraphLaunch,
    /// There is nothing that separates steps: the whole window is taken as one.
    Window,
}

/// A step, and which activities and calls are its own.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) label: Option<StepLabel>,
    pub(super) annotation: Option<Annotation>,
    pub(super) tie: Tie,
}

/// Steps in order of time, and the step of each activity and call.
#[derive(Debug)]
pub(super) struct Steps {
    pub(super) steps: Vec<Step>,
    /// Per activity: its step.
    pub(super) of_activity: Vec<Option<u32>>,
    /// Per call: its step.
    pub(super) of_call: Vec<Option<u32>>,
    /// Per activity: the call that launched it.
    pub(super) launched_by: Vec<Option<u32>>,
    /// Per activity: whether its call lies within an annotation around a step, though not within the step.
    pub(super) is_around: Vec<bool>,
    /// Activities whose number several calls share, so that none of them is theirs.
    pub(super) ambiguous: u64,
}

/// A graph launch is a step of its own if it launches at least as many kernels.
const FEWEST_IN_GRAPH: u64 = 10;

/// Finds the steps of a trace and ties its activities to them.
pub(super) fn find(trace: &Trace) -> Steps {
    let (launched_by, ambiguous) = launches(trace);
    let is_ours = trace.format == Format::Stepscope;
    let host = |a: &Annotation| matches!(a.place, Place::Host(_)) != is_ours;
    let mut labelled: Vec<(Annotation, StepLabel)> = labelled(trace, is_ours, host);
    let is_on_device = labelled.is_empty() || is_ours;
    if labelled.is_empty() {
        labelled = self::labelled(trace, is_ours, |_| true);
    }
    // A step of the profiler says nothing where the program's own are there.
    if labelled
        .iter()
        .any(|(_, label)| label.spelling != Spelling::Profiler)
    {
        labelled.retain(|(_, label)| label.spelling != Spelling::Profiler);
    }
    if labelled.is_empty() {
        return without_annotations(trace, launched_by, ambiguous);
    }

    let (leaves, around) = innermost(labelled);
    let mut steps: Vec<Step> = leaves
        .iter()
        .map(|(annotation, label)| Step {
            name: trace.names.get(annotation.name).to_owned(),
            label: Some(label.clone()),
            annotation: Some(*annotation),
            tie: if is_on_device {
                Tie::Device
            } else {
                Tie::Launch
            },
        })
        .collect();
    let places = Places::of(leaves.iter().map(|(annotation, _)| annotation));
    let mut of_call: Vec<Option<u32>> = trace
        .calls
        .iter()
        .map(|call| places.at(Some(Place::Host(call.thread)), call.start_ns))
        .collect();
    if !is_on_device && of_call.iter().all(Option::is_none) {
        of_call = trace
            .calls
            .iter()
            .map(|call| places.at(None, call.start_ns))
            .collect();
        steps
            .iter_mut()
            .for_each(|step| step.tie = Tie::LaunchOnAnyThread);
    }
    let of_activity = trace
        .activities
        .iter()
        .zip(&launched_by)
        .map(|(activity, call)| {
            if is_on_device {
                places.at(Some(Place::Device(activity.device)), activity.start_ns)
            } else {
                call.and_then(|call| of_call[call as usize])
            }
        })
        .collect::<Vec<_>>();
    let around = Places::of(around.iter());
    let is_around = launched_by
        .iter()
        .zip(&of_activity)
        .map(|(call, step)| {
            let call = call
                .map(|call| &trace.calls[call as usize])
                .filter(|_| step.is_none());
            call.is_some_and(|call| {
                around
                    .at(Some(Place::Host(call.thread)), call.start_ns)
                    .is_some()
            })
        })
        .collect();
    Steps {
        steps,
        of_activity,
        of_call,
        launched_by,
        is_around,
        ambiguous,
    }
}

fn labelled(
    trace: &Trace,
    is_ours: bool,
    wanted: impl Fn(&Annotation) -> bool,
) -> Vec<(Annotation, StepLabel)> {
    // A step's text comes again with every step of its kind.
    let mut known: HashMap<super::NameId, Option<StepLabel>> = HashMap::new();
    trace
        .annotations
        .iter()
        .filter(|a| wanted(a))
        .filter_map(|a| {
            let text = trace.names.get(a.name);
            let label = if is_ours {
                Some(StepLabel::own(text, a.batch))
            } else {
                known
                    .entry(a.name)
                    .or_insert_with(|| StepLabel::parse(text))
                    .clone()
            };
            Some((*a, label?))
        })
        .collect()
}

/// Per activity the call that launched it, and how many activities have several.
fn launches(trace: &Trace) -> (Vec<Option<u32>>, u64) {
    /// Calls with one number on different threads are of different processes.
    const SEVERAL: u32 = u32::MAX;
    let mut by_correlation: HashMap<u64, u32> = HashMap::with_capacity(trace.calls.len());
    for (index, call) in trace.calls.iter().enumerate() {
        if call.correlation == 0 || call.kind == CallKind::Wait {
            continue;
        }
        by_correlation
            .entry(call.correlation)
            .and_modify(|first| {
                // The driver's call within the runtime's is the same launch.
                let is_within = *first != SEVERAL && {
                    let outer = &trace.calls[*first as usize];
                    outer.thread == call.thread && call.end_ns() <= outer.end_ns()
                };
                if !is_within {
                    *first = SEVERAL;
                }
            })
            .or_insert(index as u32);
    }
    let mut ambiguous = 0;
    let launched_by = trace
        .activities
        .iter()
        .map(|activity| match by_correlation.get(&activity.correlation) {
            Some(&SEVERAL) => {
                ambiguous += 1;
                None
            }
            call => call.copied(),
        })
        .collect();
    (launched_by, ambiguous)
}

/// Annotations that enclose no other, completed by what encloses them; and those that do enclose one.
///
/// `labelled` is ordered by start, the enclosing one first.
fn innermost(
    labelled: Vec<(Annotation, StepLabel)>,
) -> (Vec<(Annotation, StepLabel)>, Vec<Annotation>) {
    let mut open: HashMap<Place, Vec<usize>> = HashMap::new();
    let mut encloses = vec![false; labelled.len()];
    let mut completed: Vec<StepLabel> = Vec::with_capacity(labelled.len());
    for (index, (annotation, label)) in labelled.iter().enumerate() {
        let stack = open.entry(annotation.place).or_default();
        while stack
            .last()
            .is_some_and(|&outer| !labelled[outer].0.encloses(annotation))
        {
            stack.pop();
        }
        let mut label = label.clone();
        if let Some(&outer) = stack.last() {
            encloses[outer] = true;
            // The outer one was itself completed by what encloses it.
            label.complete(&completed[outer]);
        }
        completed.push(label);
        stack.push(index);
    }
    let mut leaves = Vec::new();
    let mut around = Vec::new();
    for (((annotation, _), label), encloses) in labelled.into_iter().zip(completed).zip(encloses) {
        if encloses {
            around.push(annotation);
        } else {
            leaves.push((annotation, label));
        }
    }
    (leaves, around)
}

/// Annotations by place, for finding the one at an instant.
struct Places {
    by_place: HashMap<Place, Vec<(i64, i64, u32)>>,
    all: Vec<(i64, i64, u32)>,
}

impl Places {
    fn of<'a>(annotations: impl Iterator<Item = &'a Annotation>) -> Places {
        let mut by_place: HashMap<Place, Vec<(i64, i64, u32)>> = HashMap::new();
        let mut all = Vec::new();
        for (index, a) in annotations.enumerate() {
            let entry = (a.start_ns, a.end_ns(), index as u32);
            by_place.entry(a.place).or_default().push(entry);
            all.push(entry);
        }
        Places { by_place, all }
    }

    /// The latest to begin of those that hold at `at_ns`, of those at a place or of all.
    fn at(&self, place: Option<Place>, at_ns: i64) -> Option<u32> {
        let list = match place {
            Some(place) => self.by_place.get(&place)?,
            None => &self.all,
        };
        let after = list.partition_point(|&(start, _, _)| start <= at_ns);
        let &(_, end, index) = list[..after].last()?;
        (at_ns < end).then_some(index)
    }
}

/// Graph launches as steps, or else the whole window as one.
fn without_annotations(trace: &Trace, launched_by: Vec<Option<u32>>, ambiguous: u64) -> Steps {
    let mut launched = vec![0_u64; trace.calls.len()];
    for (activity, call) in trace.activities.iter().zip(&launched_by) {
        if let Some(call) = call {
            // A replay recorded as a whole stands for its kernels.
            let is_whole = activity.kind == ActivityKind::Graph;
            launched[*call as usize] += if is_whole { FEWEST_IN_GRAPH } else { 1 };
        }
    }
    let is_step = |call: &Call, index: usize| {
        call.kind == CallKind::GraphLaunch && launched[index] >= FEWEST_IN_GRAPH
    };
    let mut of_call = vec![None; trace.calls.len()];
    let mut steps = Vec::new();
    for (index, call) in trace.calls.iter().enumerate() {
        if is_step(call, index) {
            of_call[index] = Some(steps.len() as u32);
            steps.push(Step {
                name: trace.names.get(call.name).to_owned(),
                label: None,
                annotation: None,
                tie: Tie::GraphLaunch,
            });
        }
    }
    let of_activity = if steps.is_empty() {
        of_call.fill(Some(0));
        steps.push(Step {
            name: "the whole window".to_owned(),
            label: None,
            annotation: None,
            tie: Tie::Window,
        });
        vec![Some(0); trace.activities.len()]
    } else {
        launched_by
            .iter()
            .map(|call| call.and_then(|call| of_call[call as usize]))
            .collect()
    };
    Steps {
        steps,
        of_activity,
        of_call,
        is_around: vec![false; launched_by.len()],
        launched_by,
        ambiguous,
    }
}
