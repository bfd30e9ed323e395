//! For each class of mistake with asynchronous instructions a kernel that makes it, found at the right lines, and one that does
//! not, with nothing found.
#![allow(clippy::unwrap_used)] // a test

mod support;

use stepscope_emulator::check::{Finding, FindingKind};
use stepscope_emulator::{ErrorKind, Report};
use support::{Arg, Bench};

const SOURCE: &str = include_str!("kernels/asynchronous.cu");

/// The line that ends with a comment of this text.
fn line_of(tag: &str) -> u32 {
    let comment = format!("// {tag}");
    let found = SOURCE.lines().position(|line| line.ends_with(&comment));
    found.unwrap_or_else(|| panic!("no line {tag}")) as u32 + 1
}

fn launch(kernel: &str) -> (Report, Vec<i32>) {
    let mut bench = Bench::new(include_str!("kernels/asynchronous.ptx"));
    let is_cluster = kernel.starts_with("visit") || kernel.starts_with("tail");
    bench.cluster = is_cluster.then_some([2, 1, 1]);
    let input: Vec<i32> = (0..1024).map(|i| 7 * i % 1009).collect();
    let (x, out) = (bench.buffer(&input), bench.buffer(&[0i32; 256]));
    let grid = [if is_cluster { 2 } else { 1 }, 1, 1];
    let report = bench.launch(kernel, grid, [128, 1, 1], &[Arg::U64(x), Arg::U64(out)]);
    (report, bench.read(out, 256))
}

fn list(report: &Report) -> String {
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    format!("{}\n{:?}", findings.join("\n"), report.failure)
}

/// The kernel runs clean, and gives this.
fn clean(kernel: &str, expected: impl Fn(usize) -> i32) {
    let (report, out) = launch(kernel);
    assert!(
        report.findings.is_empty() && report.failure.is_none(),
        "{kernel}: {}",
        list(&report)
    );
    let count = if kernel.starts_with("ring") { 96 } else { 128 };
    for (i, &value) in out[..count].iter().enumerate() {
        assert_eq!(value, expected(i), "{kernel}: {i}");
    }
}

/// One of the findings is of one of these kinds, at this line, with that other line if one is named.
fn found(kernel: &str, kinds: &[FindingKind], tag: &str, other: Option<&str>) -> Report {
    let (report, _) = launch(kernel);
    let is_it = |finding: &&Finding| {
        kinds.contains(&finding.kind)
            && finding.party.line == line_of(tag)
            && other.is_none_or(|tag| {
                finding
                    .other
                    .as_ref()
                    .is_some_and(|party| party.line == line_of(tag))
            })
    };
    let finding = report.findings.iter().find(is_it);
    let finding = finding.unwrap_or_else(|| panic!("{kernel}: {}", list(&report)));
    assert_eq!(finding.party.file, "asynchronous.cu");
    report
}

/// Nothing but this is found.
fn only(kernel: &str, kind: FindingKind, tag: &str, other: Option<&str>) {
    let report = found(kernel, &[kind], tag, other);
    assert_eq!(report.findings.len(), 1, "{kernel}: {}", list(&report));
}

use FindingKind::{
    DivergentInstruction, ExpectedBytes, MbarrierMisuse, MissingFence, MissingProxyFence,
    MissingWait, RaceReadAfterWrite, RaceWriteAfterRead, UnfinishedAtExit, UseAfterFree,
};

fn input(i: usize) -> i32 {
    7 * i as i32 % 1009
}

#[test]
fn copies_that_are_not_waited_for() {
    clean("copy_groups_mended", |i| input(127 - i) + input(255 - i));
    found(
        "copy_groups_broken",
        &[MissingWait],
        "copy_groups",
        Some("copy_groups other"),
    );
    clean("load_wait_mended", input);
    found(
        "load_wait_broken",
        &[MissingWait, RaceReadAfterWrite],
        "load_wait",
        Some("load_wait other"),
    );
}

#[test]
fn stages_that_are_filled_too_early_or_given_back_too_early() {
    clean("ring_mended", |i| {
        (0..6).fold(0, |sum, k| 3 * sum + input(96 * k + 95 - i))
    });
    found(
        "ring_without_empty",
        &[MissingWait, RaceWriteAfterRead],
        "ring load",
        None,
    );
    found(
        "ring_early_arrive",
        &[RaceWriteAfterRead],
        "ring load",
        Some("ring read"),
    );
}

#[test]
fn products_without_their_fences_and_waits() {
    clean("product_mended", |_| 16);
    found(
        "product_without_proxy_fence",
        &[MissingProxyFence],
        "product mma",
        Some("product store"),
    );
    only("product_without_fence", MissingFence, "product mma", None);
    only(
        "product_without_wait",
        MissingWait,
        "product read",
        Some("product mma"),
    );
}

#[test]
fn bulk_stores_and_their_source() {
    clean("store_mended", input);
    only(
        "store_without_fence",
        MissingProxyFence,
        "store copy",
        Some("store source"),
    );
    only(
        "store_without_read",
        RaceWriteAfterRead,
        "store reuse",
        Some("store copy"),
    );
    let report = found("store_without_end", &[UnfinishedAtExit], "store copy", None);
    assert!(report.failure.is_none());
}

#[test]
fn bytes_that_do_not_add_up() {
    clean("expected_mended", input);
    found("expected_too_few", &[ExpectedBytes], "expected", None);
    let report = found("expected_too_many", &[ExpectedBytes], "expected", None);
    let failure = report.failure.unwrap();
    assert_eq!(failure.kind(), ErrorKind::Deadlock);
    assert!(failure.to_string().contains("phase 0"), "{failure}");
    assert!(
        failure
            .to_string()
            .contains("0 more arrivals and 16 more bytes"),
        "{failure}"
    );
}

#[test]
fn barriers_that_are_not_ready() {
    clean("start_mended", input);
    found(
        "start_without_init",
        &[MbarrierMisuse],
        "start arrive",
        None,
    );
    found("start_without_init", &[MbarrierMisuse], "start load", None);
    found(
        "start_without_sync",
        &[RaceReadAfterWrite],
        "start arrive",
        Some("start init"),
    );
    only(
        "start_without_fence",
        MissingProxyFence,
        "start load",
        Some("start init"),
    );
    clean("arrivals_mended", input);
    found("arrivals_broken", &[MbarrierMisuse], "arrivals", None);
}

#[test]
fn blocks_that_end_too_early() {
    clean("visit_mended", |i| input(128 + i));
    found("visit_broken", &[UseAfterFree], "visit", None);
    clean("tail_mended", input);
    found("tail_broken", &[UseAfterFree], "tail", None);
}

#[test]
fn half_a_warp_at_an_instruction_for_all_of_it() {
    found(
        "divergent_broken",
        &[DivergentInstruction],
        "divergent",
        None,
    );
    let (report, _) = launch("divergent_mended");
    assert!(report.findings.is_empty(), "{}", list(&report));
}

#[test]
fn a_phase_that_never_completes_is_named() {
    let (report, _) = launch("lost_phase");
    let failure = report.failure.unwrap();
    assert_eq!(failure.kind(), ErrorKind::Deadlock);
    let place = format!("asynchronous.cu:{}", line_of("lost_phase wait"));
    for part in [
        place.as_str(),
        "phase 1",
        "2 more arrivals",
        "64 more bytes",
    ] {
        assert!(failure.to_string().contains(part), "{failure}");
    }
    let failure = launch("lost_test").0.failure.unwrap();
    assert_eq!(failure.kind(), ErrorKind::Deadlock);
    assert!(failure.to_string().contains("phase 0"), "{failure}");
    assert!(
        failure
            .to_string()
            .contains("1 more arrivals and 0 more bytes"),
        "{failure}"
    );
}
