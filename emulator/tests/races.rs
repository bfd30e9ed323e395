//! Kernels in pairs, one right and one with one mistake: the mistake is found, and nothing is found in the other.
#![allow(clippy::unwrap_used)] // a test

mod support;

use std::collections::BTreeSet;
use stepscope_emulator::check::FindingKind::{
    self, BarrierAfterExit, OutOfBounds, RaceReadAfterWrite as ReadAfterWrite,
    RaceWriteAfterRead as WriteAfterRead, RaceWriteAfterWrite as WriteAfterWrite,
    UninitialisedMemory, UninitialisedRegister,
};
use stepscope_emulator::check::Severity;
use stepscope_emulator::{ErrorKind, Launch, Report};
use support::{Arg, Bench};

const KERNELS: &str = include_str!("kernels/races.ptx");

/// Values that buffers of kernels begin with.
const ZEROS: [i32; 4096] = [0; 4096];

/// Launches with zeros in both buffers.
fn launch(bench: &Bench, name: &str, blocks: u32, threads: u32) -> Report {
    let arguments = [
        Arg::U64(bench.buffer(&ZEROS)),
        Arg::U64(bench.buffer(&ZEROS[..64])),
    ];
    bench.launch(name, [blocks, 1, 1], [threads, 1, 1], &arguments)
}

/// As [`launch`], with a first buffer that nothing was written to.
fn launch_empty(bench: &Bench, name: &str, blocks: u32, threads: u32) -> Report {
    let arguments = [
        Arg::U64(bench.empty::<i32>(4096)),
        Arg::U64(bench.buffer(&ZEROS[..64])),
    ];
    bench.launch(name, [blocks, 1, 1], [threads, 1, 1], &arguments)
}

fn text(report: &Report) -> String {
    let list: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    let failure = report.failure.iter().map(ToString::to_string);
    failure.chain(list).collect::<Vec<_>>().join("\n")
}

/// What a kernel does wrong is of these classes, and each of them is found.
fn check(blocks: u32, threads: u32, cases: &[(&str, &[FindingKind])]) {
    let bench = Bench::new(KERNELS);
    for (name, kinds) in cases {
        let report = launch(&bench, name, blocks, threads);
        let found: BTreeSet<FindingKind> = report.findings.iter().map(|f| f.kind).collect();
        let expected: BTreeSet<FindingKind> = kinds.iter().copied().collect();
        assert_eq!(found, expected, "{name}: {}", text(&report));
        assert!(report.failure.is_none(), "{name}: {}", text(&report));
    }
}

#[test]
fn barriers_of_a_block() {
    check(
        2,
        128,
        &[
            ("ok_reduce", &[]),
            ("bad_reduce_first", &[UninitialisedMemory, WriteAfterRead]),
            ("ok_reduce_before", &[]),
            ("bad_reduce_last_warp", &[ReadAfterWrite]),
        ],
    );
    check(
        1,
        64,
        &[
            ("ok_double_buffer", &[]),
            ("ok_single_buffer", &[]),
            ("bad_single_buffer", &[ReadAfterWrite, WriteAfterRead]),
            ("ok_stages", &[]),
            ("bad_stages", &[ReadAfterWrite, WriteAfterRead]),
            ("ok_named", &[]),
            ("ok_named_both", &[]),
            ("bad_named_refill", &[WriteAfterRead]),
            ("bad_arrive_reads", &[UninitialisedMemory, WriteAfterRead]),
            ("ok_bar_red", &[]),
            ("bad_early_exit", &[BarrierAfterExit]),
        ],
    );
    check(2, 64, &[("ok_exit_of_block", &[])]);
}

#[test]
fn lanes_of_a_warp() {
    check(
        1,
        32,
        &[
            ("ok_warp_reduce", &[]),
            ("bad_warp_reduce", &[ReadAfterWrite, WriteAfterRead]),
            ("bad_warp_shuffles", &[ReadAfterWrite, WriteAfterRead]),
            ("ok_halves", &[]),
            ("bad_halves", &[ReadAfterWrite]),
            ("ok_half_collectives", &[]),
            ("ok_branches", &[]),
            (
                "bad_branches",
                &[UninitialisedMemory, ReadAfterWrite, WriteAfterRead],
            ),
        ],
    );
    check(1, 64, &[("ok_divergent_local", &[])]);
    check(
        2,
        32,
        &[
            ("ok_leader", &[]),
            ("bad_leader", &[ReadAfterWrite]),
            ("bad_leader_of_half", &[ReadAfterWrite]),
        ],
    );
}

#[test]
fn flags_between_blocks() {
    check(
        2,
        64,
        &[
            ("ok_fence_fence", &[]),
            ("bad_no_release_fence", &[ReadAfterWrite]),
            ("bad_no_acquire_fence", &[ReadAfterWrite]),
            ("ok_release_acquire", &[]),
            ("bad_relaxed_acquire", &[ReadAfterWrite]),
            ("bad_release_relaxed", &[ReadAfterWrite]),
            ("ok_release_relaxed_fence", &[]),
            ("ok_volatile_fences", &[]),
            ("bad_volatile", &[ReadAfterWrite]),
            ("ok_red_release", &[]),
            ("ok_fence_relaxed", &[]),
            ("ok_poll_by_add", &[]),
            ("ok_poll_by_cas", &[]),
            ("ok_poll_acq_rel", &[]),
            ("bad_no_block_barrier", &[ReadAfterWrite]),
            ("ok_waits_by_add", &[]),
            ("ok_waits_by_cas", &[]),
            ("ok_waits_and_counts", &[]),
            ("ok_waits_asleep", &[]),
            ("ok_flag_reset", &[]),
            ("ok_flag_reset_fences", &[]),
            ("bad_flag_reset", &[ReadAfterWrite]),
            ("bad_failed_cas", &[ReadAfterWrite]),
            ("ok_may_overwrite", &[]),
            ("bad_may_overwrite", &[WriteAfterRead]),
        ],
    );
    check(
        3,
        32,
        &[
            ("ok_exchange", &[]),
            ("bad_store_breaks", &[ReadAfterWrite]),
        ],
    );
    check(
        1,
        64,
        &[
            ("ok_shared_flag", &[]),
            ("bad_shared_flag_out", &[ReadAfterWrite]),
            ("bad_shared_flag_in", &[ReadAfterWrite]),
        ],
    );
}

#[test]
fn locks() {
    check(
        4,
        32,
        &[
            ("ok_lock", &[]),
            ("ok_lock_per_thread", &[]),
            ("bad_lock_acquire", &[ReadAfterWrite, WriteAfterWrite]),
            ("bad_lock_release", &[ReadAfterWrite, WriteAfterWrite]),
            ("ok_ticket_lock", &[]),
            ("bad_ticket_lock", &[ReadAfterWrite, WriteAfterWrite]),
            ("ok_checked_twice", &[]),
            ("bad_checked_twice", &[ReadAfterWrite]),
        ],
    );
}

#[test]
fn patterns_of_the_grid() {
    check(
        6,
        64,
        &[
            ("ok_last_block", &[]),
            ("bad_last_block_release", &[ReadAfterWrite]),
            ("bad_last_block_acquire", &[ReadAfterWrite]),
            ("ok_last_block_acq_rel", &[]),
            ("ok_grid_sync", &[]),
            ("bad_grid_sync_block", &[ReadAfterWrite]),
            ("bad_grid_sync_fence", &[ReadAfterWrite]),
            ("ok_fences_and_barriers", &[]),
            ("bad_barriers_release", &[ReadAfterWrite]),
            ("bad_barriers_acquire", &[ReadAfterWrite]),
            ("ok_look_back", &[]),
            ("bad_look_back", &[ReadAfterWrite]),
            ("ok_semaphore", &[]),
            ("bad_semaphore_wait", &[ReadAfterWrite, WriteAfterWrite]),
            ("bad_semaphore_release", &[ReadAfterWrite, WriteAfterWrite]),
            ("ok_split_sum", &[]),
            ("bad_split_sum", &[ReadAfterWrite, WriteAfterWrite]),
        ],
    );
}

#[test]
fn bytes_and_vectors() {
    check(
        2,
        64,
        &[
            ("ok_bytes", &[]),
            ("ok_byte_neighbours", &[]),
            ("bad_half_overlap", &[WriteAfterWrite]),
            ("ok_vector_neighbours", &[]),
            ("bad_vector_overlap", &[WriteAfterWrite]),
            ("bad_vector_read", &[ReadAfterWrite]),
            ("note_equal_writes", &[WriteAfterWrite]),
            ("bad_other_writes", &[WriteAfterWrite]),
        ],
    );
    check(
        1,
        64,
        &[
            ("ok_half_neighbours", &[]),
            (
                "bad_byte_of_word",
                &[UninitialisedMemory, ReadAfterWrite, WriteAfterRead],
            ),
            ("ok_generic", &[]),
            (
                "bad_generic",
                &[UninitialisedMemory, ReadAfterWrite, WriteAfterRead],
            ),
        ],
    );
    check(3, 128, &[("ok_fill", &[]), ("bad_fill", &[OutOfBounds])]);
    check(33, 128, &[("ok_guarded", &[])]);
}

#[test]
fn within_a_warp_races_are_warnings_and_equal_writes_are_notes() {
    let bench = Bench::new(KERNELS);
    for (name, threads, severity) in [
        ("bad_warp_reduce", 32, Severity::Warning),
        ("bad_halves", 32, Severity::Warning),
        ("note_equal_writes", 64, Severity::Note),
    ] {
        let report = launch(&bench, name, 1, threads);
        let all = |f: &stepscope_emulator::check::Finding| f.severity == severity;
        assert!(report.findings.iter().all(all), "{}", text(&report));
    }
}

#[test]
fn halves_of_a_warp_vote_and_reduce_by_themselves() {
    let bench = Bench::new(KERNELS);
    let (data, flag) = (bench.buffer(&ZEROS), bench.buffer(&ZEROS[..64]));
    let arguments = [Arg::U64(data), Arg::U64(flag)];
    bench.run("ok_half_collectives", [1; 3], [32, 1, 1], &arguments);
    let values = bench.read::<u32>(data, 160);
    let halves = |low: u32, high: u32| [[low; 16], [high; 16]].concat();
    assert_eq!(values[..32], halves(120, 376));
    assert_eq!(values[32..64], halves(0xaaaa, 0xaaaa_0000));
    assert_eq!(values[64..96], halves(1, 0));
    assert_eq!(values[96..128], halves(0xffff, 0xffff_0000));
    let neighbours: Vec<u32> = (0..32).map(|lane| lane ^ 1).collect();
    assert_eq!(values[128..], neighbours);
}

#[test]
fn a_launch_is_behind_the_one_before() {
    let bench = Bench::new(KERNELS);
    let data = bench.buffer(&ZEROS);
    let flag = bench.buffer(&ZEROS[..64]);
    for _ in 0..2 {
        let arguments = [Arg::U64(data), Arg::U64(flag)];
        bench.run("ok_fill", [3, 1, 1], [128, 1, 1], &arguments);
        bench.run("ok_guarded", [33, 1, 1], [128, 1, 1], &arguments);
    }
    assert_eq!(bench.read::<i32>(data, 4096), [10; 4096]);
    bench.device.free(data).unwrap();
    let again = bench.buffer(&ZEROS);
    let arguments = [Arg::U64(again), Arg::U64(flag)];
    bench.run("ok_guarded", [33, 1, 1], [128, 1, 1], &arguments);
}

#[test]
fn what_nothing_wrote() {
    let bench = Bench::new(KERNELS);
    for (name, expected) in [
        ("ok_members", None),
        ("ok_exchange_first", None),
        ("bad_atomic_add", Some(UninitialisedMemory)),
        ("bad_shared_atomic", Some(UninitialisedMemory)),
        ("bad_half_of_pair", Some(UninitialisedMemory)),
        ("bad_predicate", Some(UninitialisedRegister)),
    ] {
        let report = launch_empty(&bench, name, 1, 64);
        let kinds: Vec<FindingKind> = report.findings.iter().map(|f| f.kind).collect();
        assert_eq!(kinds, Vec::from_iter(expected), "{name}: {}", text(&report));
    }
}

#[test]
fn launches_that_end_slowly_are_no_deadlocks() {
    let bench = Bench::new(KERNELS);
    for (name, blocks, threads) in [
        ("live_lanes", 1, 32),
        ("live_branches", 1, 64),
        ("live_switch", 1, 64),
        ("live_sleep", 1, 32),
        ("live_reads", 1, 32),
        ("live_clock", 1, 32),
    ] {
        let report = launch(&bench, name, blocks, threads);
        assert_eq!(text(&report), "", "{name}");
    }
    // A race, but it ends.
    let report = launch(&bench, "live_weak_poll", 2, 1);
    assert!(report.failure.is_none(), "{}", text(&report));
    assert!(!report.findings.is_empty());
}

#[test]
fn what_comes_back_to_the_same_state_is_a_deadlock() {
    let bench = Bench::new(KERNELS);
    for name in ["dead_lock", "dead_add", "dead_backoff", "dead_mask"] {
        let report = launch(&bench, name, 1, 64);
        let kind = report.failure.as_ref().map(|failure| failure.kind());
        assert_eq!(kind, Some(ErrorKind::Deadlock), "{name}");
    }
}

#[test]
fn limits_hold_where_warps_wait_for_one_another() {
    let bench = Bench::new(KERNELS);
    let kernel = bench.module.kernel("long_barriers").unwrap();
    let buffers = [bench.buffer(&ZEROS), bench.buffer(&ZEROS[..64])];
    let arguments: Vec<u8> = buffers.iter().flat_map(|b| b.to_le_bytes()).collect();
    let mut asked = Launch::new([1; 3], [256, 1, 1]);
    let failure = |asked: &Launch| {
        let report = bench.device.launch(&kernel, asked, &arguments).unwrap();
        (report.failure.unwrap().kind(), report.counters)
    };
    asked.limits.seconds = 0.05;
    let begin = std::time::Instant::now();
    assert_eq!(failure(&asked).0, ErrorKind::Limit);
    assert!(begin.elapsed().as_secs_f64() < 2.0);
    asked.limits.seconds = 100.0;
    asked.limits.warp_instructions = 1000;
    let (kind, counters) = failure(&asked);
    assert_eq!(kind, ErrorKind::Limit);
    assert!(counters.warp_instructions < 2000, "{counters:?}");
}

#[test]
fn releases_of_many_blocks_take_time_in_proportion() {
    let bench = Bench::new(KERNELS);
    for (name, blocks) in [
        ("many_tickets", 3000),
        ("many_acq_rel", 3000),
        ("many_releases", 100),
    ] {
        let report = launch(&bench, name, blocks, 32);
        assert_eq!(text(&report), "", "{name}");
    }
}
