//! Whole recordings, against a CUPTI that records what it is told; and records of all shapes, as bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::record::*;
use super::*;
use crate::Kind;
use crate::driver::{Context, Driver};
use fake::{kernel, record, with};

fn context() -> Arc<Context> {
    // SAFETY: the emulator's functions have the signatures and the meaning of cuda.h.
    let driver = unsafe { Driver::emulated(stepscope_emulator::driver::symbol) }.unwrap();
    Context::new(&driver, 0).unwrap()
}

fn start() -> Session {
    Session::start(&fake::open().unwrap(), &context(), Graphs::Nodes).unwrap()
}

fn names(activity: &Activity) -> Vec<&str> {
    activity.kernels.iter().map(|k| &*k.name).collect()
}

#[test]
fn a_recording_gives_kernels_calls_and_spans() {
    let _turn = fake::turn();
    let mut session = start();
    session.enter(41).unwrap();
    session.enter(42).unwrap();
    let first = with(|fake| fake.launch(c"rms_norm", 1000, 1500));
    assert_eq!(session.leave().unwrap(), 42);
    with(|fake| fake.launch(c"gemm", 1600, 3000));
    assert_eq!(session.leave().unwrap(), 41);
    assert_eq!(session.now_ns().unwrap(), 123_456);

    let activity = session.take().unwrap();
    assert_eq!(names(&activity), ["rms_norm", "gemm"]);
    let kernel = &activity.kernels[0];
    assert_eq!((kernel.start_ns, kernel.end_ns), (1000, 1500));
    assert_eq!((kernel.grid, kernel.block), ([3, 2, 1], [128, 1, 1]));
    assert_eq!(kernel.shared_bytes, [1024, 2048]);
    assert_eq!((kernel.registers, kernel.stream), (40, 7));
    assert_eq!((kernel.correlation, kernel.node), (first, None));
    let spans: Vec<_> = activity.correlations.iter().map(|c| c.span).collect();
    assert_eq!(spans, [42, 41]);
    let call = &activity.calls[0];
    assert_eq!((call.start_ns, call.end_ns, call.thread), (995, 998, 99));
    assert_eq!((activity.malformed, activity.dropped), (0, 0));
    assert!(session.take().unwrap().is_empty());
}

#[test]
fn kernels_are_recorded_without_serialising_them() {
    let _turn = fake::turn();
    let mut session = start();
    let enabled = || with(|fake| fake.enabled.clone());
    assert_eq!(enabled(), [1, 2, 4, 5, 10, 17, 39].into());
    session.resume(Graphs::Whole).unwrap();
    assert!(enabled().contains(&51));
    session.pause().unwrap();
    assert!(enabled().is_empty());
    drop(session);
    with(|fake| {
        assert_eq!(fake.subscribers, 0);
        // The last flush is a forced one, and it was made while the session still held its context.
        assert_eq!(fake.flushes, [1]);
    });
}

#[test]
fn several_buffers_come_back_in_order_and_are_used_again() {
    let _turn = fake::turn();
    let mut session = start();
    with(|fake| fake.records_per_buffer = 2);
    for round in 0..3 {
        with(|fake| {
            for i in 0..10 {
                fake.push(kernel(c"k", 100 * i + 1, 100 * i + 50, i as u32));
            }
        });
        let activity = session.take().unwrap();
        let order: Vec<u32> = activity.kernels.iter().map(|k| k.correlation).collect();
        assert_eq!(order, (0..10).collect::<Vec<_>>(), "round {round}");
        assert_eq!(buffers::lent(), 0);
    }
}

#[test]
fn dropped_records_are_counted_once_in_every_queue() {
    let _turn = fake::turn();
    let mut session = start();
    with(|fake| {
        fake.dropped = 3;
        fake.dropped_of_stream = 4;
        fake.push(kernel(c"k", 1, 2, 1));
    });
    assert_eq!(session.take().unwrap().dropped, 7);
    assert_eq!(session.take().unwrap().dropped, 0);
}

#[test]
fn what_is_not_complete_comes_when_it_is_forced() {
    let _turn = fake::turn();
    let mut session = start();
    with(|fake| fake.incomplete.push(kernel(c"late", 0, 0, 1)));
    assert!(session.take().unwrap().is_empty());
    assert_eq!(names(&session.take_all().unwrap()), ["late"]);
}

#[test]
fn callbacks_while_records_are_taken_lose_nothing_and_block_nobody() {
    const ROUNDS: u32 = 200;
    let _turn = fake::turn();
    let mut session = start();
    let done = AtomicBool::new(false);
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                // With the fake's own lock held, as CUPTI holds its own.
                with(|fake| {
                    fake.push(kernel(c"k", 1, 2, round));
                    fake.deliver();
                });
            }
            done.store(true, Ordering::Release);
        });
        loop {
            let last = done.load(Ordering::Acquire);
            let activity = session.take().unwrap();
            seen.extend(activity.kernels.iter().map(|k| k.correlation));
            if last {
                break;
            }
        }
    });
    seen.sort_unstable();
    assert_eq!(seen, (0..ROUNDS).collect::<Vec<_>>());
}

#[test]
fn there_is_one_recording_at_a_time() {
    let _turn = fake::turn();
    let session = start();
    let error = Session::start(&fake::open().unwrap(), &context(), Graphs::Nodes).unwrap_err();
    assert_eq!(error.kind(), Kind::Profiler);
    assert!(error.to_string().contains("already"), "{error}");
    drop(session);
    start();
}

/// Fails to start because `function` answers with `status`; the next session starts all the same.
#[track_caller]
fn check_refused(function: &'static str, status: u32, expected: &str) {
    let _turn = fake::turn();
    with(|fake| fake.fails = Some((function, status)));
    let error = Session::start(&fake::open().unwrap(), &context(), Graphs::Nodes).unwrap_err();
    assert_eq!(error.code(), Some(status));
    assert_eq!(is_other_profiler(&error), status == 39);
    assert!(error.to_string().contains(expected), "{error}");
    with(|fake| {
        assert!(fake.enabled.is_empty());
        assert_eq!(fake.subscribers, 0);
        fake.fails = None;
    });
    start();
}

#[test]
fn a_refusal_says_why_and_leaves_nothing_behind() {
    check_refused(
        "cuptiSubscribe",
        39,
        "recording kernels with CUPTI: cuptiSubscribe failed: CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED (39); another profiler",
    );
    check_refused("cuptiActivityEnable", 33, "virtualised");
    check_refused("cuptiActivityRegisterCallbacks", 15, "no driver that works");
}

#[test]
fn errors_while_recording_are_told() {
    let _turn = fake::turn();
    let mut session = start();
    assert_eq!(session.leave().unwrap_err().code(), Some(18));
    with(|fake| fake.fails = Some(("cuptiActivityFlushAll", 999)));
    let error = session.take().unwrap_err().to_string();
    assert!(error.starts_with("collecting CUPTI's records: "), "{error}");
    with(|fake| fake.fails = None);
}

#[test]
fn an_older_library_lacks_functions_and_a_gpu_is_needed() {
    let _turn = fake::turn();
    with(|fake| fake.lacks = Some("cuptiActivityFlushAll"));
    let old = fake::open().unwrap();
    with(|fake| fake.lacks = None);
    assert_eq!(old.version(), "12.9");
    let mut session = Session::start(&old, &context(), Graphs::Nodes).unwrap();
    let error = session.take().unwrap_err();
    assert_eq!(error.kind(), Kind::MissingFunction);
}

/// The records of `bytes`, which begin at `starts`.
fn parse(bytes: &[u8], starts: &[usize]) -> Activity {
    let mut activity = Activity::default();
    activity.add(bytes, starts, |address| Arc::from(format!("{address:x}")));
    activity
}

#[test]
fn kernels_of_every_version_are_read() {
    // CUpti_ActivityKernel4 to Kernel13; the first has no graph.
    for bytes in [144, 160, 168, 176, 200, 208, 216, 224, 232, 248] {
        let fields = [
            (0, 10, 4),
            (16, 10, 8),
            (24, 30, 8),
            (92, 5, 4),
            (104, 0xabc, 8),
        ];
        let mut one = record(bytes, &fields);
        if bytes > 144 {
            one[144..152].copy_from_slice(&77_u64.to_ne_bytes());
            one[156..160].copy_from_slice(&8_u32.to_ne_bytes());
        }
        let two = [one.clone(), one].concat();
        let activity = parse(&two, &[0, bytes]);
        let node = (bytes > 144).then_some(GraphNode { graph: 8, node: 77 });
        assert_eq!(activity.kernels.len(), 2);
        for kernel in &activity.kernels {
            assert_eq!((&*kernel.name, kernel.node), ("abc", node), "{bytes}");
            assert_eq!((kernel.start_ns, kernel.end_ns), (10, 30));
        }
    }
}

#[test]
fn transfers_graphs_and_overheads_are_read() {
    let copy = record(
        104,
        &[
            (0, 1, 4),
            (4, 2, 1),
            (8, 4096, 8),
            (16, 5, 8),
            (24, 9, 8),
            (44, 3, 4),
        ],
    );
    let set = record(
        88,
        &[(0, 2, 4), (4, 0xff, 4), (8, 64, 8), (64, 12, 8), (72, 2, 4)],
    );
    let graph = record(
        56,
        &[(0, 51, 4), (4, 6, 4), (8, 100, 8), (16, 900, 8), (28, 2, 4)],
    );
    let overhead = record(56, &[(0, 17, 4), (4, 5 << 16, 4), (24, 7, 8), (32, 8, 8)]);
    let foreign = record(24, &[(0, 39, 4), (4, 1, 4)]);
    let marker = record(56, &[(0, 12, 4)]);
    let all = [copy, set, graph, overhead, foreign, marker];
    let mut starts = vec![0];
    starts.extend(all.iter().scan(0, |at, record| {
        *at += record.len();
        Some(*at)
    }));
    starts.pop();
    let activity = parse(&all.concat(), &starts);
    assert_eq!(activity.transfers[0].kind, TransferKind::Copy(2));
    assert_eq!(activity.transfers[0].bytes, 4096);
    assert_eq!(activity.transfers[1].kind, TransferKind::Set);
    assert_eq!(
        activity.transfers[1].node,
        Some(GraphNode { graph: 2, node: 12 })
    );
    let graph = &activity.graphs[0];
    assert_eq!((graph.graph, graph.correlation, graph.end_ns), (2, 6, 900));
    let overhead = &activity.overheads[0];
    assert_eq!(overhead.words(), "loading functions at their first launch");
    assert!(!overhead.is_recording());
    assert!(activity.correlations.is_empty());
    assert_eq!(activity.unknown, [(12, 1)].into());
    assert_eq!(activity.malformed, 0);
}

#[test]
fn a_record_that_is_cut_off_is_counted_and_nothing_else() {
    let kernel = record(208, &[(0, 10, 4)]);
    for bytes in 0..112 {
        let activity = parse(&kernel[..bytes], &[0]);
        assert_eq!((activity.malformed, activity.len()), (1, 0), "{bytes}");
    }
    assert_eq!(parse(&kernel[..112], &[0]).kernels.len(), 1);
    // Beyond the end, and backwards.
    assert_eq!(parse(&kernel, &[300]).malformed, 1);
    let backwards = parse(&[kernel.clone(), kernel].concat(), &[208, 0]);
    assert_eq!((backwards.kernels.len(), backwards.malformed), (2, 0));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic_and_every_record_is_accounted_for(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600),
        starts in proptest::collection::vec(0_usize..700, 0..12),
        kinds in proptest::collection::vec(0_u32..60, 12),
    ) {
        let mut bytes = bytes;
        // Kinds that are known are rare among any bytes.
        for (&start, kind) in starts.iter().zip(kinds) {
            if let Some(place) = bytes.get_mut(start..start + 4) {
                place.copy_from_slice(&kind.to_ne_bytes());
            }
        }
        let activity = parse(&bytes, &starts);
        let unknown: u64 = activity.unknown.values().sum();
        let counted = activity.len() as u64 + unknown + activity.malformed;
        // Correlations of other interfaces are read and left.
        proptest::prop_assert!(counted <= starts.len() as u64);
        let foreign = starts.iter().filter(|&&s| bytes.get(s..s + 4) == Some(&39_u32.to_ne_bytes()[..]));
        proptest::prop_assert!(counted + foreign.count() as u64 >= starts.len() as u64);
    }
}
