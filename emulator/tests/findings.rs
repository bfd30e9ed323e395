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
    assert!(
        error
            .to_string()
            .contains("block (0, 0, 0) thread (5, 0, 0)"),
        "{error}"
    );
}

/// Thread 27 of block 17, by number, of a grid of 3 x 2 x 4 blocks of 4 x 3 x 5 threads.
const PLACES: &str = "
.version 8.0
.target sm_80
.address_size 64
.global .align 1 .b8 text[5] = {97, 32, 60, 32, 98};
.extern .func __assertfail(.param .b64 message, .param .b64 file, .param .b32 line, .param .b64 function, .param .b64 size);
.visible .entry k(.param .u32 what, .param .u64 at) {
.reg .b32 %r<12>;
.reg .b64 %d<4>;
.reg .pred %p<4>;
mov.u32 %r1, %ctaid.x;
mov.u32 %r2, %ctaid.y;
mov.u32 %r3, %ctaid.z;
mad.lo.u32 %r2, %r3, 2, %r2;
mad.lo.u32 %r1, %r2, 3, %r1;
mov.u32 %r4, %tid.x;
mov.u32 %r5, %tid.y;
mov.u32 %r6, %tid.z;
mad.lo.u32 %r5, %r6, 3, %r5;
mad.lo.u32 %r4, %r5, 4, %r4;
mad.lo.u32 %r4, %r1, 100, %r4;
setp.ne.u32 %p1, %r4, 1727;
@%p1 ret;
ld.param.u32 %r7, [what];
ld.param.u64 %d1, [at];
setp.eq.u32 %p2, %r7, 0;
@%p2 trap;
setp.eq.u32 %p2, %r7, 1;
@!%p2 bra access;
mov.u64 %d2, text;
cvta.global.u64 %d2, %d2;
{
.param .b64 p0; .param .b64 p1; .param .b32 p2; .param .b64 p3; .param .b64 p4;
st.param.b64 [p0], %d2; st.param.b64 [p1], %d2; st.param.b32 [p2], 7; st.param.b64 [p3], %d2; st.param.b64 [p4], 1;
call.uni __assertfail, (p0, p1, p2, p3, p4);
}
access:
ld.global.u32 %r8, [%d1];
st.global.u32 [%d1], %r8;
ret;
}";

#[test]
fn failures_name_block_and_thread_as_the_kernel_sees_them() {
    let mut bench = Bench::new(PLACES);
    bench.checks = stepscope_emulator::check::Checks::NONE;
    let (grid, block) = ([3, 2, 4], [4, 3, 5]);
    for (what, at, kind) in [
        (0, 0, ErrorKind::Trap),
        (1, 0, ErrorKind::Assertion),
        (2, 0x7000, ErrorKind::IllegalAddress),
        (2, bench.buffer(&[0u32]) + 2, ErrorKind::Misaligned),
    ] {
        let arguments = [Arg::U32(what), Arg::U64(at)];
        let error = bench.launch("k", grid, block, &arguments).failure.unwrap();
        assert_eq!(error.kind(), kind, "{error}");
        // 17 = 2 + 3 × (1 + 2 × 2), 27 = 3 + 4 × (0 + 3 × 2).
        let place = "block (2, 1, 2) thread (3, 0, 2)";
        assert!(error.to_string().contains(place), "{error}");
    }
}
