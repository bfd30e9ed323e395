//! Tests over made-up records: streams with gaps, overlap, graphs, and everything that can be missing.

use std::sync::Arc;

use proptest::prelude::*;
use stepscope_device::cupti::{
    Call, Correlation, GraphNode, Interface, Kernel, Overhead, Transfer, TransferKind,
};

use super::*;
use crate::clock::Clock;
use crate::recorder::{Level, Phase, Recorder, StepKind, Timer, Work};

const STEP: u32 = 3;

/// Records of one step, built launch by launch.
#[derive(Debug, Default)]
struct Stream {
    trace: Trace,
    correlation: u32,
}

impl Stream {
    fn new(window_ns: [u64; 2]) -> Stream {
        Stream {
            trace: Trace {
                window_ns,
                ..Trace::default()
            },
            correlation: 0,
        }
    }

    /// A call that returned at `returned_ns`, within `span`.
    fn call(&mut self, span: Option<Span>, returned_ns: u64) -> u32 {
        self.correlation += 1;
        let correlation = self.correlation;
        let activity = &mut self.trace.activity;
        if let Some(span) = span {
            activity.correlations.push(Correlation {
                correlation,
                span: span.pack(STEP),
            });
        }
        activity.calls.push(Call {
            interface: Interface::Driver,
            function: 307,
            start_ns: returned_ns.saturating_sub(5),
            end_ns: returned_ns,
            thread: 1,
            correlation,
            status: 0,
        });
        correlation
    }

    fn ran(&mut self, correlation: u32, start_ns: u64, end_ns: u64, node: Option<u64>) {
        self.trace.activity.kernels.push(Kernel {
            name: Arc::from("k"),
            start_ns,
            end_ns,
            device: 0,
            context: 1,
            stream: 7,
            grid: [1; 3],
            block: [32, 1, 1],
            registers: 32,
            shared_bytes: [0, 0],
            correlation,
            node: node.map(|node| GraphNode { graph: 1, node }),
        });
    }

    fn kernel(&mut self, operation: u32, returned_ns: u64, start_ns: u64, end_ns: u64) {
        let correlation = self.call(Some(Span::Operation(operation)), returned_ns);
        self.ran(correlation, start_ns, end_ns, None);
    }

    fn analyse(&self, operations: &[u32]) -> Attributed {
        analyse(&self.trace, &launched(operations, false))
    }
}

/// Operations with so many kernels each, in one stretch.
fn launched(operations: &[u32], is_replayed: bool) -> Launched {
    let of = |&kernels: &u32| OperationLaunches {
        kernels,
        is_replayed,
    };
    Launched {
        step: STEP,
        kernels: operations.iter().map(|&n| u64::from(n)).sum(),
        operations: operations.iter().map(of).collect(),
        stretches: std::iter::once(0..operations.len()).collect(),
    }
}

#[test]
fn gaps_are_told_by_when_the_next_launch_came() {
    let mut stream = Stream::new([1000, 2000]);
    stream.kernel(0, 1090, 1100, 1200); // launched 90 ns after the step began
    stream.kernel(1, 1150, 1230, 1300); // in the queue before the one ahead had ended
    stream.kernel(2, 1390, 1400, 1500); // came 90 ns late
    let unknown = stream.call(Some(Span::Operation(3)), 0);
    stream.trace.activity.calls.pop();
    stream.ran(unknown, 1600, 1700, None);
    let found = stream.analyse(&[1, 1, 1, 1]);
    let activity = &found.activity;
    assert_eq!((activity.window_ns, activity.busy_ns), (1000, 370));
    assert_eq!(activity.gap(Cause::LaunchLate), (2, 200));
    assert_eq!(activity.gap(Cause::Dependency), (1, 30));
    assert_eq!(activity.gap(Cause::Unknown), (1, 100));
    assert_eq!(activity.gap(Cause::AfterLast), (1, 300));
    assert_eq!(
        found.operations,
        [
            Some([100, 100]),
            Some([230, 70]),
            Some([400, 100]),
            Some([600, 100])
        ]
    );
    assert_eq!(found.stretches, [Some(600)]);
    assert_eq!((activity.kernels, activity.unmatched), (4, 0));
}

#[test]
fn overlapping_kernels_are_busy_once() {
    let mut stream = Stream::new([0, 100]);
    stream.kernel(0, 1, 10, 50);
    stream.kernel(1, 2, 40, 90); // its prologue ran beside the end of the first
    let found = stream.analyse(&[1, 1]);
    assert_eq!(found.activity.busy_ns, 80);
    assert_eq!(found.activity.overlap_ns, 10);
    assert_eq!(found.operations, [Some([10, 40]), Some([40, 50])]);
}

#[test]
fn an_operation_of_several_kernels_is_busy_without_the_gap_between() {
    let mut stream = Stream::new([0, 100]);
    stream.kernel(0, 1, 10, 30);
    stream.kernel(0, 2, 40, 60);
    assert_eq!(stream.analyse(&[2]).operations, [Some([10, 40])]);
}

#[test]
fn kernels_inside_a_graph_belong_to_operations_by_their_order() {
    let mut stream = Stream::new([0, 1000]);
    let replay = stream.call(Some(Span::Stretch(0)), 50);
    // Records come back in any order.
    for (node, start, end) in [(33, 300, 400), (11, 100, 200), (22, 210, 290)] {
        stream.ran(replay, start, end, Some(node));
    }
    let found = analyse(&stream.trace, &launched(&[1, 2], true));
    assert_eq!(found.operations, [Some([100, 100]), Some([210, 180])]);
    assert_eq!(found.activity.graph_kernels, 3);
    assert_eq!(found.activity.gap(Cause::Dependency), (2, 20));
    assert_eq!(found.activity.gap(Cause::LaunchLate), (1, 100));
    assert_eq!(found.stretches, [Some(300)]);
}

#[test]
fn a_graph_with_another_number_of_kernels_gives_no_operation_a_time() {
    let mut stream = Stream::new([0, 1000]);
    let replay = stream.call(Some(Span::Stretch(0)), 50);
    stream.ran(replay, 100, 200, Some(1));
    let found = analyse(&stream.trace, &launched(&[1, 1], true));
    assert_eq!(found.operations, [None, None]);
    assert_eq!((found.activity.kernels, found.activity.launched), (1, 2));
    assert_eq!(found.activity.unmatched, 2);
    assert_eq!(trust(Some(&found.activity), None).grade, Grade::Unusable);
    // One without times has no place in the order.
    stream.ran(replay, 0, 0, Some(2));
    let found = analyse(&stream.trace, &launched(&[1, 1], true));
    assert_eq!(found.operations, [None, None]);
    assert_eq!(found.activity.untimed, 1);
}

#[test]
fn an_operation_whose_kernel_is_missing_has_no_time_and_the_others_keep_theirs() {
    let mut stream = Stream::new([0, 100]);
    stream.kernel(0, 1, 10, 20);
    stream.kernel(2, 1, 30, 40);
    let found = stream.analyse(&[1, 1, 1]);
    assert_eq!(found.operations, [Some([10, 10]), None, Some([30, 10])]);
    assert_eq!(found.activity.unmatched, 1);
}

#[test]
fn what_is_not_of_the_step_is_told_apart() {
    let mut stream = Stream::new([100, 200]);
    stream.kernel(0, 105, 110, 120);
    let foreign = stream.call(None, 115);
    stream.ran(foreign, 130, 140, None);
    let between_steps = stream.call(None, 10);
    stream.ran(between_steps, 20, 30, None);
    let late = stream.call(None, 10);
    stream.trace.activity.correlations.push(Correlation {
        correlation: late,
        span: Span::Operation(0).pack(STEP - 1),
    });
    stream.ran(late, 50, 60, None);
    let copy = stream.call(Some(Span::Stretch(0)), 150);
    stream.trace.activity.transfers.push(Transfer {
        kind: TransferKind::Copy(1),
        bytes: 64,
        start_ns: 160,
        end_ns: 165,
        device: 0,
        context: 1,
        stream: 7,
        correlation: copy,
        node: None,
    });
    stream.trace.activity.overheads.push(Overhead {
        kind: 1 << 16,
        start_ns: 190,
        end_ns: 250,
    });
    let activity = stream.analyse(&[1]).activity;
    assert_eq!((activity.kernels, activity.foreign), (1, 1));
    assert_eq!((activity.late, activity.transfers), (1, 1));
    assert_eq!(activity.busy_ns, 10 + 10 + 5);
    assert_eq!(activity.recording_ns, 10);
}

#[test]
fn clocks_that_disagree_by_a_little_cut_nothing_off() {
    let mut stream = Stream::new([100, 200]);
    stream.kernel(0, 90, 98, 110);
    stream.kernel(1, 120, 195, 203);
    let found = stream.analyse(&[1, 1]);
    assert_eq!(found.activity.window_ns, 105);
    assert_eq!(found.activity.busy_ns, 20);
    assert_eq!(found.operations, [Some([0, 12]), Some([95, 8])]);
}

#[test]
fn a_step_without_records_is_one_gap() {
    let activity = Stream::new([100, 200]).analyse(&[]).activity;
    assert_eq!(activity.gap(Cause::AfterLast), (1, 100));
    assert_eq!((activity.busy_ns, activity.window_ns), (0, 100));
}

proptest! {
    #[test]
    fn busy_time_and_gaps_add_up_whatever_was_recorded(
        window in (0_u64..5000, 0_u64..5000),
        kernels in proptest::collection::vec((0_u32..6, 0_u64..6000, 0_u64..6000, 0_u64..800, 0_u8..4), 0..40),
    ) {
        let mut stream = Stream::new([window.0, window.0 + window.1]);
        let mut counts = [0; 6];
        for &(operation, returned, start, length, kind) in &kernels {
            match kind {
                0 => {
                    let correlation = stream.call(None, returned);
                    stream.ran(correlation, start, start + length, None);
                }
                // Damaged: it ends before it starts, or was not timed.
                1 => stream.kernel(operation, returned, start, start.saturating_sub(length)),
                _ => {
                    counts[operation as usize] += 1;
                    stream.kernel(operation, returned, start, start + length);
                }
            }
        }
        let found = stream.analyse(&counts);
        let activity = &found.activity;
        let gaps: u64 = activity.gaps.iter().map(|gap| gap.ns).sum();
        prop_assert_eq!(activity.busy_ns + gaps, activity.window_ns);
        prop_assert!(activity.window_ns >= window.1);
        for time in found.operations.iter().flatten() {
            prop_assert!(time[0] + time[1] <= activity.window_ns);
        }
        let [kept, unmatched] = [
            found.operations.iter().flatten().count() as u64,
            activity.unmatched,
        ];
        prop_assert_eq!(kept + unmatched, counts.iter().filter(|&&n| n > 0).count() as u64);

        // Sums over steps keep the same rule.
        let mut sum = DeviceActivity::default();
        sum.add(activity);
        sum.add(activity);
        let gaps: u64 = sum.gaps.iter().map(|gap| gap.ns).sum();
        prop_assert_eq!(sum.busy_ns + gaps, sum.window_ns);
        prop_assert_eq!(sum.steps, 2);
    }
}

/// A tracer on whose device every span's kernel runs for 100 ns, 1000 ns after the one before.
#[derive(Debug, Default)]
struct Scripted {
    stream: Stream,
    step: u32,
    open: Vec<Span>,
    seen: Vec<Span>,
    problem: Option<String>,
    is_off: bool,
}

impl Tracer for Scripted {
    fn begin(&mut self, step: u32) {
        assert!(!self.is_off);
        self.step = step;
        self.stream = Stream::new([0, 0]);
        self.seen.clear();
    }

    fn enter(&mut self, span: Span) {
        self.open.push(span);
        self.seen.push(span);
        if let Span::Operation(_) = span {
            let correlation = self.stream.call(Some(span), 0);
            let correlations = &mut self.stream.trace.activity.correlations;
            if let Some(last) = correlations.last_mut() {
                last.span = span.pack(self.step);
            }
            let start = u64::from(correlation) * 1000;
            self.stream.ran(correlation, start, start + 100, None);
        }
    }

    fn leave(&mut self) {
        assert!(self.open.pop().is_some());
    }

    fn set_recording(&mut self, on: bool) -> Result<(), String> {
        self.is_off = !on;
        Ok(())
    }

    fn end(&mut self, _launched: u64) -> Result<Trace, String> {
        assert!(self.open.is_empty(), "spans nest");
        match self.problem.take() {
            Some(problem) => Err(problem),
            None => Ok(std::mem::take(&mut self.stream).trace),
        }
    }
}

fn traced(problem: Option<&str>) -> crate::record::Step {
    use std::sync::atomic::{AtomicU64, Ordering};

    let launches = Arc::new(AtomicU64::new(5));
    let tracer = Scripted {
        problem: problem.map(str::to_owned),
        ..Scripted::default()
    };
    let mut recorder = Recorder::new(Level::Operations)
        .with_clock(Clock::Traced(Box::new(tracer)))
        .counting(Some(Arc::clone(&launches)));
    recorder.begin_step(StepKind::Decode, 0, 1);
    recorder.phase(Phase::Prepare, |_| ());
    let operation = |recorder: &mut Recorder, name| {
        let ran = recorder.operation(name, None, Work::default(), || {
            launches.fetch_add(1, Ordering::Relaxed);
            Ok::<_, ()>("kernel")
        });
        assert!(ran.is_ok());
    };
    recorder.phase(Phase::Forward, |recorder| {
        operation(recorder, "a");
        operation(recorder, "b");
        let failed = recorder.operation("c", None, Work::default(), || Err("no memory"));
        assert!(failed.is_err());
    });
    recorder.phase(Phase::Sample, |recorder| operation(recorder, "sample"));
    recorder.end_step()
}

#[test]
fn a_recorder_takes_the_times_of_a_trace() {
    let step = traced(None);
    let times: Vec<_> = step
        .operations
        .iter()
        .map(|o| (&*o.name, o.start_ns, o.duration_ns, o.timer))
        .collect();
    // The operation that failed had launched a kernel all the same, under the number that `sample` got then.
    assert_eq!(
        times,
        [
            ("a", 1000, 100, Timer::Cupti),
            ("b", 2000, 100, Timer::Cupti),
            ("sample", 0, 0, Timer::None),
        ]
    );
    let gpu: Vec<_> = step.phases.iter().map(|p| p.gpu_ns.is_some()).collect();
    assert_eq!(gpu, [false, true, true, false]);
    let device = step.device.unwrap();
    assert_eq!((device.launched, device.kernels), (3, 4));
    assert_eq!(device.unmatched, 1);
}

#[test]
fn a_step_without_a_trace_says_why_and_has_no_device_time() {
    let step = traced(Some("CUPTI gave up"));
    assert!(step.operations.iter().all(|o| o.timer == Timer::None));
    assert!(step.phases.iter().all(|p| p.gpu_ns.is_none()));
    let device = step.device.unwrap();
    assert_eq!(device.problem.as_deref(), Some("CUPTI gave up"));
    assert_eq!(device.untraced, 1);
}

#[test]
fn kernels_are_recorded_at_the_level_of_operations_only() {
    let clock = Clock::Traced(Box::new(Scripted::default()));
    let mut recorder = Recorder::new(Level::Operations).with_clock(clock);
    for (level, recorded) in [
        (Level::Operations, true),
        (Level::Phases, false),
        (Level::Steps, false),
        (Level::Operations, true),
    ] {
        recorder.set_level(level).unwrap();
        recorder.begin_step(StepKind::Decode, 0, 1);
        let ran = recorder.phase(Phase::Forward, |recorder| {
            recorder.operation("a", None, Work::default(), || Ok::<_, ()>("kernel"))
        });
        assert!(ran.is_ok());
        let step = recorder.end_step();
        assert_eq!(step.device.is_some(), recorded);
        assert_eq!(step.operations.len(), usize::from(recorded));
    }
}
