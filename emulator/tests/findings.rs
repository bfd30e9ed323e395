//! For each class of finding a kernel that has it.
#![allow(clippy::unwrap_used)] // a test

mod support;

use stepscope_emulator::check::{Finding, FindingKind, Severity};
use stepscope_emulator::{ErrorKind, Report};
use support::{Arg, Bench};

const BROKEN: &str = include_str!("kernels/broken.ptx");

/// The line of `broken.cu` that a finding must name is the one that holds this text.
fn line_of(text: &str) -> u32 {
    let source = include_str!("kernels/broken.cu");
    source.lines().position(|line| line.contains(text)).unwrap() as u32 + 1
}

fn only(report: &Report) -> &Finding {
    let list: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(report.findings.len(), 1, "{list:?}");
    &report.findings[0]
}

#[test]
fn out_of_bounds_names_thread_address_allocation_and_line() {
    let bench = Bench::new(BROKEN);
    let p = bench.empty::<i32>(32);
    let report = bench.launch("out_of_bounds", [1, 1, 1], [32, 1, 1], &[Arg::U64(p)]);
    let finding = only(&report);
    assert_eq!(
        (finding.kind, finding.severity, finding.count),
        (FindingKind::OutOfBounds, Severity::Error, 1)
    );
    assert_eq!(
        (finding.address, finding.bytes, finding.allocation),
        (Some(p + 128), 4, Some((p, 128)))
    );
    assert_eq!(
        (finding.party.thread, finding.party.line),
        ([31, 0, 0], line_of("out_of_bounds"))
    );
    assert!(finding.party.file.ends_with("broken.cu"), "{finding}");
    // What could be stored is stored.
    assert_eq!(bench.read::<i32>(p + 4, 31), [1; 31]);
}

#[test]
fn without_the_check_an_illegal_access_ends_the_launch() {
    let mut bench = Bench::new(BROKEN);
    bench.checks.memory = false;
    let p = bench.empty::<i32>(32);
    let failure = |kernel| {
        bench
            .launch(kernel, [1, 1, 1], [32, 1, 1], &[Arg::U64(p)])
            .failure
            .unwrap()
    };
    let error = failure("out_of_bounds");
    assert_eq!(error.kind(), ErrorKind::IllegalAddress);
    assert!(error.to_string().contains("broken.cu:2"), "{error}");
    assert_eq!(failure("misaligned").kind(), ErrorKind::Misaligned);
}

#[test]
fn misaligned() {
    let bench = Bench::new(BROKEN);
    let p = bench.empty::<i32>(32);
    let report = bench.launch("misaligned", [1, 1, 1], [1, 1, 1], &[Arg::U64(p)]);
    assert_eq!(only(&report).kind, FindingKind::Misaligned);
}

#[test]
fn use_after_free_and_uninitialised_reads() {
    let bench = Bench::new(BROKEN);
    let (p, out) = (bench.empty::<i32>(32), bench.empty::<i32>(32));
    let report = bench.launch("read", [1, 1, 1], [32, 1, 1], &[Arg::U64(p), Arg::U64(out)]);
    let finding = only(&report);
    assert_eq!(
        (finding.kind, finding.count),
        (FindingKind::UninitialisedMemory, 32)
    );
    bench.device.write(p, &[1; 64]).unwrap();
    let report = bench.launch("read", [1, 1, 1], [32, 1, 1], &[Arg::U64(p), Arg::U64(out)]);
    assert_eq!(
        (only(&report).kind, only(&report).count),
        (FindingKind::UninitialisedMemory, 16)
    );
    bench.device.free(p).unwrap();
    let report = bench.launch("read", [1, 1, 1], [32, 1, 1], &[Arg::U64(p), Arg::U64(out)]);
    assert_eq!(
        (only(&report).kind, only(&report).allocation),
        (FindingKind::UseAfterFree, Some((p, 128)))
    );
}

#[test]
fn shared_memory_uninitialised_and_out_of_bounds() {
    let mut bench = Bench::new(BROKEN);
    let out = bench.empty::<i32>(64);
    let report = bench.launch(
        "shared_uninitialised",
        [1, 1, 1],
        [64, 1, 1],
        &[Arg::U64(out)],
    );
    assert_eq!(
        (only(&report).kind, only(&report).count),
        (FindingKind::UninitialisedMemory, 48)
    );
    bench.shared = 128;
    let report = bench.launch(
        "shared_out_of_bounds",
        [1, 1, 1],
        [32, 1, 1],
        &[Arg::U64(out), Arg::U32(4)],
    );
    let kinds: Vec<FindingKind> = report.findings.iter().map(|finding| finding.kind).collect();
    assert!(kinds.contains(&FindingKind::OutOfBounds), "{kinds:?}");
}

#[test]
fn registers_that_a_path_leaves_unwritten() {
    let bench = Bench::new(BROKEN);
    let out = bench.empty::<i32>(32);
    let report = bench.launch(
        "register_uninitialised",
        [1, 1, 1],
        [32, 1, 1],
        &[Arg::U64(out)],
    );
    assert_eq!(
        (only(&report).kind, only(&report).party.thread),
        (FindingKind::UninitialisedRegister, [7, 0, 0])
    );
}

#[test]
fn races_between_warps_are_errors_and_within_one_warnings() {
    let bench = Bench::new(BROKEN);
    let out = bench.empty::<i32>(64);
    let report = bench.launch("missing_barrier", [1, 1, 1], [64, 1, 1], &[Arg::U64(out)]);
    let is_race = |f: &&Finding| {
        matches!(
            f.kind,
            FindingKind::RaceReadAfterWrite | FindingKind::RaceWriteAfterRead
        )
    };
    let finding = report.findings.iter().find(is_race).unwrap();
    assert_eq!(finding.severity, Severity::Error);
    let other = finding.other.as_ref().unwrap();
    assert_ne!(
        other.thread[0] / 32,
        finding.party.thread[0] / 32,
        "{finding}"
    );

    let report = bench.launch("missing_warp_sync", [1, 1, 1], [32, 1, 1], &[Arg::U64(out)]);
    assert_eq!(
        (only(&report).kind, only(&report).severity),
        (FindingKind::RaceReadAfterWrite, Severity::Warning)
    );
    bench.run("with_warp_sync", [1, 1, 1], [32, 1, 1], &[Arg::U64(out)]);
}

#[test]
fn races_between_blocks() {
    let bench = Bench::new(BROKEN);
    let out = bench.buffer(&[0i32; 64]);
    let report = bench.launch("write_write", [2, 1, 1], [1, 1, 1], &[Arg::U64(out)]);
    assert_eq!(
        (only(&report).kind, only(&report).severity),
        (FindingKind::RaceWriteAfterWrite, Severity::Error)
    );
    let report = bench.launch("blocks_race", [2, 1, 1], [32, 1, 1], &[Arg::U64(out)]);
    let finding = only(&report);
    assert_eq!(finding.kind, FindingKind::RaceReadAfterWrite);
    assert_eq!(
        (finding.party.block, finding.other.as_ref().unwrap().block),
        ([1, 0, 0], [0, 0, 0])
    );
    assert_eq!(finding.count, 32);
}

#[test]
fn barriers_that_not_all_reach() {
    let bench = Bench::new(BROKEN);
    let out = bench.empty::<i32>(64);
    let report = bench.launch("divergent_barrier", [1, 1, 1], [64, 1, 1], &[Arg::U64(out)]);
    assert!(
        report
            .findings
            .iter()
            .any(|f| f.kind == FindingKind::DivergentInstruction),
        "{:?}",
        report.findings
    );
    let report = bench.launch(
        "exit_before_barrier",
        [1, 1, 1],
        [64, 1, 1],
        &[Arg::U64(out)],
    );
    assert_eq!(
        (only(&report).kind, only(&report).severity),
        (FindingKind::BarrierAfterExit, Severity::Warning)
    );
}

#[test]
fn a_deadlock_names_every_warp() {
    let bench = Bench::new(BROKEN);
    let out = bench.empty::<i32>(64);
    let error = bench
        .launch("deadlock", [1, 1, 1], [64, 1, 1], &[Arg::U64(out)])
        .failure
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Deadlock);
    let text = error.to_string();
    for part in [
        "warp 0",
        "warp 1",
        "barrier 1, where 32 of 64",
        "barrier 2, where 32 of 64",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let flag = bench.buffer(&[0i32]);
    let error = bench
        .launch("spin_forever", [1, 1, 1], [32, 1, 1], &[Arg::U64(flag)])
        .failure
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Deadlock);
    assert!(error.to_string().contains("polls"), "{error}");
}

#[test]
fn limits_and_traps_end_a_launch() {
    let bench = Bench::new(BROKEN);
    let kernel = bench.module.kernel("endless").unwrap();
    let mut launch = stepscope_emulator::Launch::new([1, 1, 1], [32, 1, 1]);
    launch.limits.warp_instructions = 100_000;
    let error = bench
        .device
        .launch(&kernel, &launch, &[])
        .unwrap()
        .failure
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Limit);
    // It is looked at every few thousand instructions.
    launch.limits.warp_instructions = 1;
    let report = bench.device.launch(&kernel, &launch, &[]).unwrap();
    assert_eq!(report.failure.unwrap().kind(), ErrorKind::Limit);
    assert!(report.counters.warp_instructions < 10_000);
    launch.limits.warp_instructions = u64::MAX;
    launch.limits.seconds = 0.05;
    assert_eq!(
        bench
            .device
            .launch(&kernel, &launch, &[])
            .unwrap()
            .failure
            .unwrap()
            .kind(),
        ErrorKind::Limit
    );

    let out = bench.empty::<i32>(32);
    let error = bench
        .launch("traps", [1, 1, 1], [32, 1, 1], &[Arg::U64(out)])
        .failure
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Trap);
    assert!(error.to_string().contains("thread 5"), "{error}");
}
