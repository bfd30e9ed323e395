//! Kernels in pairs, one right and one with one mistake: scopes of atomics and fences, what single lanes know, mbarriers,
//! clusters, bulk copies, and registers.
#![allow(clippy::unwrap_used)] // a test

mod support;

use std::collections::BTreeSet;
use stepscope_emulator::check::FindingKind::{
    self, RaceReadAfterWrite as ReadAfterWrite, RaceWriteAfterRead as WriteAfterRead,
    RaceWriteAfterWrite as WriteAfterWrite, RegisterBudget, UninitialisedMemory,
    UninitialisedRegister,
};
use stepscope_emulator::{ErrorKind, Report};
use support::{Arg, Bench};

const KERNELS: &str = include_str!("kernels/scopes.ptx");

fn bench() -> Bench {
    Bench::new(KERNELS)
}

fn launch(bench: &Bench, name: &str, blocks: u32, threads: u32) -> Report {
    let arguments = [
        Arg::U64(bench.buffer(&[0; 4096])),
        Arg::U64(bench.buffer(&[0; 64])),
    ];
    bench.launch(name, [blocks, 1, 1], [threads, 1, 1], &arguments)
}

fn text(report: &Report) -> String {
    let list: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    let failure = report.failure.iter().map(ToString::to_string);
    failure.chain(list).collect::<Vec<_>>().join("\n")
}

/// What a kernel does wrong is of these classes, and each of them is found.
fn check(bench: &Bench, blocks: u32, threads: u32, cases: &[(&str, &[FindingKind])]) {
    for (name, kinds) in cases {
        let report = launch(bench, name, blocks, threads);
        let found: BTreeSet<FindingKind> = report.findings.iter().map(|f| f.kind).collect();
        let expected: BTreeSet<FindingKind> = kinds.iter().copied().collect();
        assert_eq!(found, expected, "{name}: {}", text(&report));
        assert!(report.failure.is_none(), "{name}: {}", text(&report));
    }
}

#[test]
fn atomics_reach_as_far_as_their_scope() {
    check(
        &bench(),
        2,
        64,
        &[
            ("ok_gpu_adds", &[]),
            ("ok_block_adds", &[]),
            ("bad_block_adds", &[WriteAfterWrite]),
            ("bad_block_and_gpu_adds", &[WriteAfterWrite]),
            ("ok_block_and_gpu_adds", &[]),
            // Its threads write equal values besides, which is a note.
            ("bad_block_poll", &[ReadAfterWrite, WriteAfterWrite]),
            ("ok_mixed", &[]),
            ("bad_mixed_before", &[WriteAfterWrite]),
            ("bad_mixed_after", &[ReadAfterWrite, WriteAfterRead]),
        ],
    );
}

#[test]
fn flags_reach_as_far_as_their_scope() {
    check(
        &bench(),
        2,
        64,
        &[
            ("ok_sys", &[]),
            ("ok_sys_gpu", &[]),
            // The flag itself is read by an atomic that its writer's does not reach.
            ("bad_release_cta", &[ReadAfterWrite]),
            ("bad_acquire_cta", &[ReadAfterWrite]),
            ("bad_release_cluster", &[ReadAfterWrite]),
            ("ok_fence_sc", &[]),
            ("bad_fence_block_out", &[ReadAfterWrite]),
            ("bad_fence_block_in", &[ReadAfterWrite]),
            ("ok_both_fences", &[]),
            ("ok_system_fences", &[]),
            ("ok_cta_in_block", &[]),
            ("ok_cta_fences_in_block", &[]),
            ("ok_gpu_cta_in_block", &[]),
            ("bad_no_fence_in_block", &[ReadAfterWrite]),
        ],
    );
}

#[test]
fn releases_hand_on_what_was_acquired() {
    check(
        &bench(),
        3,
        32,
        &[
            ("ok_relay", &[]),
            ("bad_relay_in", &[ReadAfterWrite]),
            ("bad_relay_out", &[ReadAfterWrite]),
        ],
    );
    check(
        &bench(),
        2,
        64,
        &[
            ("ok_through_block", &[]),
            ("bad_through_block", &[ReadAfterWrite]),
        ],
    );
}

#[test]
fn lanes_know_what_they_acquired_themselves() {
    check(
        &bench(),
        2,
        32,
        &[
            ("ok_lane_itself", &[]),
            ("ok_lane_and_warp", &[]),
            ("ok_lane_and_half", &[]),
            ("bad_lane_and_warp", &[ReadAfterWrite]),
            ("bad_lane_and_half", &[ReadAfterWrite]),
            ("ok_lane_fences", &[]),
            ("bad_lane_fences_out", &[ReadAfterWrite]),
            ("bad_lane_fences_in", &[ReadAfterWrite]),
            ("ok_lane_locks", &[]),
            ("bad_lane_locks", &[WriteAfterRead]),
        ],
    );
}

#[test]
fn lanes_arrive_at_mbarriers_for_themselves() {
    check(
        &bench(),
        1,
        64,
        &[
            ("ok_hand_over", &[]),
            ("bad_hand_over_out", &[ReadAfterWrite]),
            ("bad_hand_over_in", &[UninitialisedMemory, WriteAfterRead]),
            ("ok_all_arrive", &[]),
        ],
    );
}

#[test]
fn clusters() {
    let mut bench = bench();
    bench.cluster = Some([2, 1, 1]);
    check(
        &bench,
        2,
        64,
        &[
            ("ok_cluster_barrier", &[]),
            ("bad_cluster_relaxed", &[ReadAfterWrite]),
            ("ok_cluster_fence", &[]),
            ("bad_cluster_fence", &[ReadAfterWrite]),
            ("ok_cluster_flags", &[]),
            ("ok_cluster_fences", &[]),
            ("bad_cluster_flags", &[ReadAfterWrite, WriteAfterRead]),
            ("ok_cluster_adds", &[]),
            ("bad_block_adds", &[WriteAfterWrite]),
        ],
    );
    // Two clusters are not within reach of one another.
    check(
        &bench,
        4,
        64,
        &[
            ("ok_cluster_barrier", &[]),
            ("ok_gpu_adds", &[]),
            ("ok_cluster_adds", &[WriteAfterWrite]),
        ],
    );
}

#[test]
fn bulk_stores_are_read_before_they_are_written() {
    check(
        &bench(),
        1,
        64,
        &[
            ("ok_drain_read", &[]),
            ("bad_drain_read", &[ReadAfterWrite]),
            ("ok_drain", &[]),
        ],
    );
    let report = launch(&bench(), "bad_drain", 1, 64);
    let kinds: Vec<FindingKind> = report.findings.iter().map(|f| f.kind).collect();
    assert!(kinds.contains(&ReadAfterWrite), "{}", text(&report));
    assert!(kinds.contains(&FindingKind::UnfinishedAtExit), "{kinds:?}");
    assert!(!kinds.contains(&WriteAfterRead), "{kinds:?}");
}

#[test]
fn what_a_wait_for_the_reads_leaves_under_way_arrives() {
    let bench = bench();
    let data = bench.buffer(&[0; 4096]);
    let arguments = [Arg::U64(data), Arg::U64(bench.buffer(&[0; 64]))];
    bench.run("ok_drain_read", [1; 3], [64, 1, 1], &arguments);
    // What was written to shared memory after the wait is not in it.
    let expected: Vec<i32> = (0..64).collect();
    assert_eq!(bench.read::<i32>(data, 64), expected);
}

#[test]
fn registers_are_given_back_before_they_are_taken() {
    check(
        &bench(),
        1,
        384,
        &[
            ("ok_registers", &[]),
            ("bad_dec", &[RegisterBudget]),
            ("ok_unbounded", &[]),
        ],
    );
    for name in ["bad_registers", "bad_no_dec"] {
        let report = launch(&bench(), name, 1, 384);
        let failure = report.failure.as_ref().unwrap();
        assert_eq!(failure.kind(), ErrorKind::Deadlock, "{name}");
        assert!(failure.to_string().contains("setmaxnreg"), "{failure}");
        assert!(failure.to_string().contains("block (0, 0, 0)"), "{failure}");
        let all = |f: &stepscope_emulator::check::Finding| f.kind == RegisterBudget;
        assert!(!report.findings.is_empty() && report.findings.iter().all(all));
    }
}

#[test]
fn halves_of_pairs_are_read_where_they_are_used() {
    check(
        &bench(),
        1,
        64,
        &[
            ("ok_half", &[]),
            ("bad_half", &[UninitialisedRegister]),
            ("bad_whole", &[UninitialisedRegister]),
            ("bad_moved", &[UninitialisedRegister]),
            ("ok_written_later", &[]),
        ],
    );
}

#[test]
fn findings_say_what_both_threads_did() {
    let report = launch(&bench(), "bad_mixed_after", 2, 64);
    let finding = &report.findings[0];
    assert_eq!(finding.party.operation, "load");
    assert_eq!(finding.other.as_ref().unwrap().operation, "atomic");
    let shown = finding.to_string();
    assert!(
        shown.contains("load by block [") && shown.contains("atomic by block ["),
        "{shown}"
    );
}
