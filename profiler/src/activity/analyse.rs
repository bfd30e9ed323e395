//! From records to times: which span each kernel belongs to, what was busy, and what the gaps waited for.

use std::collections::HashMap;
use std::ops::Range;

use stepscope_device::cupti::{Call, Kernel, Transfer};

use super::intervals::{self, Interval};
use super::{Cause, DeviceActivity, Span, Trace};

/// What the program launched in a step, in the order in which it did.
#[derive(Debug, Clone, Default)]
pub struct Launched {
    /// The number of the step.
    pub step: u32,
    /// Kernels in all.
    pub kernels: u64,
    /// Kernels of each operation.
    pub operations: Vec<OperationLaunches>,
    /// The operations of each stretch of a phase.
    pub stretches: Vec<Range<usize>>,
}

/// Kernels of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationLaunches {
    /// How many.
    pub kernels: u32,
    /// Whether they ran inside a replayed graph: then their place among its nodes says whose they are.
    pub is_replayed: bool,
}

/// What a step's records say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributed {
    /// The whole step.
    pub activity: DeviceActivity,
    /// Start, from the beginning of the step, and time of each operation; nothing where the records do not tell. The time is
    /// that in which at least one of its kernels ran.
    pub operations: Vec<Option<[u64; 2]>>,
    /// From the first kernel's start to the last one's end, of each stretch that ran kernels.
    pub stretches: Vec<Option<u64>>,
}

/// Something that ran on the device.
struct Ran {
    start_ns: u64,
    end_ns: u64,
    correlation: u32,
    is_kernel: bool,
    in_graph: bool,
    /// The span of this step that launched it.
    span: Option<Span>,
}

impl Ran {
    fn of_kernel(kernel: &Kernel, span: Option<Span>) -> Ran {
        Ran {
            start_ns: kernel.start_ns,
            end_ns: kernel.end_ns,
            correlation: kernel.correlation,
            is_kernel: true,
            in_graph: kernel.node.is_some(),
            span,
        }
    }

    fn of_transfer(transfer: &Transfer, span: Option<Span>) -> Ran {
        Ran {
            start_ns: transfer.start_ns,
            end_ns: transfer.end_ns,
            correlation: transfer.correlation,
            is_kernel: false,
            in_graph: transfer.node.is_some(),
            span,
        }
    }

    /// Both times are there, and in order.
    fn is_timed(&self) -> bool {
        self.start_ns != 0 && self.end_ns >= self.start_ns
    }
}

/// Makes times from the records of a step.
pub fn analyse(trace: &Trace, launched: &Launched) -> Attributed {
    let records = &trace.activity;
    let spans: HashMap<u32, u64> = records
        .correlations
        .iter()
        .map(|c| (c.correlation, c.span))
        .collect();
    let mut activity = DeviceActivity {
        steps: 1,
        launched: launched.kernels,
        dropped: records.dropped,
        malformed: records.malformed,
        ..DeviceActivity::default()
    };
    let [begin, end] = trace.window_ns;
    let mut ran = Vec::new();
    let kernels = records.kernels.iter();
    let kernels = kernels.map(|k| (spans.get(&k.correlation), Ran::of_kernel(k, None)));
    let transfers = records.transfers.iter();
    let transfers = transfers.map(|t| (spans.get(&t.correlation), Ran::of_transfer(t, None)));
    for (span, mut it) in kernels.chain(transfers) {
        match span.map(|&packed| Span::unpack(packed)) {
            Some((step, span)) if step == launched.step => it.span = Some(span),
            Some(_) => {
                activity.late += 1;
                continue;
            }
            // Between steps tokens are read back, for instance.
            None if it.end_ns <= begin || it.start_ns >= end => continue,
            // Whoever launched it, it kept the device busy.
            None if it.is_kernel => activity.foreign += 1,
            None => {}
        }
        match it.is_kernel {
            true if it.span.is_some() => {
                activity.kernels += 1;
                activity.graph_kernels += u64::from(it.in_graph);
                activity.untimed += u64::from(!it.is_timed());
            }
            true => {}
            false => activity.transfers += 1,
        }
        ran.push(it);
    }
    ran.sort_by_key(|it| (it.start_ns, it.end_ns));
    fill_window(&mut activity, trace, &ran);
    let operations = operation_times(&mut activity, begin, &ran, launched);
    Attributed {
        stretches: stretch_times(&ran, launched),
        operations,
        activity,
    }
}

/// Busy time, gaps and overlap of the step.
fn fill_window(activity: &mut DeviceActivity, trace: &Trace, ran: &[Ran]) {
    let [begin, end] = trace.window_ns;
    // The two clocks agree to within a microsecond or so: what belongs to the step by its span is not cut off.
    let ours = || ran.iter().filter(|it| it.is_timed() && it.span.is_some());
    let begin = ours().map(|it| it.start_ns).fold(begin, u64::min);
    let end = ours().map(|it| it.end_ns).fold(end.max(begin), u64::max);
    let timed = ran.iter().enumerate().filter(|(_, it)| it.is_timed());
    let clipped: Vec<Interval> = timed
        .map(|(record, it)| Interval {
            start_ns: it.start_ns.clamp(begin, end),
            end_ns: it.end_ns.clamp(begin, end),
            record,
        })
        .collect();
    let in_all: u64 = clipped
        .iter()
        .map(|i| i.end_ns - i.start_ns)
        .fold(0, u64::saturating_add);
    let busy = intervals::union(clipped);
    activity.window_ns = end - begin;
    activity.busy_ns = intervals::length_ns(&busy);
    activity.overlap_ns = in_all - activity.busy_ns;
    activity.recording_ns = trace
        .activity
        .overheads
        .iter()
        .filter(|o| o.is_recording() && o.end_ns > begin && o.start_ns < end)
        .map(|o| o.end_ns.min(end).saturating_sub(o.start_ns.max(begin)))
        .fold(0, u64::saturating_add);

    let calls: HashMap<u32, &Call> = trace
        .activity
        .calls
        .iter()
        .map(|call| (call.correlation, call))
        .collect();
    let mut idle_since = begin;
    for stretch in busy {
        if stretch.start_ns > idle_since {
            let call = calls.get(&ran[stretch.record].correlation);
            let cause = match call {
                Some(call) if call.end_ns > idle_since => Cause::LaunchLate,
                Some(_) => Cause::Dependency,
                None => Cause::Unknown,
            };
            activity.add_gaps(cause, 1, stretch.start_ns - idle_since);
        }
        idle_since = stretch.end_ns;
    }
    if end > idle_since {
        activity.add_gaps(Cause::AfterLast, 1, end - idle_since);
    }
}

/// The time of each operation whose kernels were all recorded.
fn operation_times(
    activity: &mut DeviceActivity,
    begin: u64,
    ran: &[Ran],
    launched: &Launched,
) -> Vec<Option<[u64; 2]>> {
    let mut of_operation: Vec<Vec<&Ran>> = vec![Vec::new(); launched.operations.len()];
    let mut of_graphs: Vec<&Ran> = Vec::new();
    for it in ran.iter().filter(|it| it.is_kernel) {
        match it.span {
            Some(Span::Operation(index)) if !it.in_graph => {
                if let Some(kernels) = of_operation.get_mut(index as usize) {
                    kernels.push(it);
                }
            }
            Some(_) if it.in_graph => of_graphs.push(it),
            _ => {}
        }
    }
    // A graph's kernels run in the order in which they were recorded into it, since one stream recorded them.
    let replayed = || launched.operations.iter().filter(|o| o.is_replayed);
    let expected: u64 = replayed().map(|o| u64::from(o.kernels)).sum();
    // One without times has no place in that order.
    let graphs_match =
        expected == of_graphs.len() as u64 && of_graphs.iter().all(|it| it.is_timed());
    let mut of_graphs = of_graphs.into_iter();
    let mut times = Vec::with_capacity(launched.operations.len());
    for (operation, of_span) in launched.operations.iter().zip(of_operation) {
        let kernels: Vec<&Ran> = match operation.is_replayed {
            true if graphs_match => of_graphs
                .by_ref()
                .take(operation.kernels as usize)
                .collect(),
            true => Vec::new(),
            false => of_span,
        };
        let is_whole = kernels.len() == operation.kernels as usize
            && kernels.iter().all(|kernel| kernel.is_timed());
        let time = (is_whole && operation.kernels > 0).then(|| busy(begin, &kernels));
        activity.unmatched += u64::from(time.is_none() && operation.kernels > 0);
        times.push(time);
    }
    times
}

/// When the first of `kernels` started, from `begin`, and how long any of them ran.
fn busy(begin: u64, kernels: &[&Ran]) -> [u64; 2] {
    let first = kernels.iter().map(|k| k.start_ns).min().unwrap_or(begin);
    let intervals = kernels.iter().enumerate().map(|(record, k)| Interval {
        start_ns: k.start_ns,
        end_ns: k.end_ns,
        record,
    });
    let busy_ns = intervals::length_ns(&intervals::union(intervals.collect()));
    [first.saturating_sub(begin), busy_ns]
}

/// From the first to the last of what each stretch ran; stretches without kernels have no time.
fn stretch_times(ran: &[Ran], launched: &Launched) -> Vec<Option<u64>> {
    let mut ends: Vec<Option<[u64; 2]>> = vec![None; launched.stretches.len()];
    for it in ran.iter().filter(|it| it.is_kernel && it.is_timed()) {
        let stretch = match it.span {
            Some(Span::Stretch(index)) => Some(usize::from(index)),
            Some(Span::Operation(index)) => launched
                .stretches
                .iter()
                .position(|operations| operations.contains(&(index as usize))),
            _ => None,
        };
        if let Some(ends) = stretch.and_then(|index| ends.get_mut(index)) {
            let [first, last] = ends.unwrap_or([it.start_ns, it.end_ns]);
            *ends = Some([first.min(it.start_ns), last.max(it.end_ns)]);
        }
    }
    let lengths = ends
        .into_iter()
        .map(|ends| ends.map(|[first, last]| last - first));
    lengths.collect()
}
