//! The instructions of sm_90 on kernels with known results, and what is found where a wait or a fence is missing.
#![allow(clippy::unwrap_used)] // a test

mod support;

use stepscope_emulator::ErrorKind;
use stepscope_emulator::check::{Checks, FindingKind};
use support::{Arg, Bench, matrix_map, random};

const HOPPER: &str = include_str!("kernels/hopper.ptx");

/// The loops that the benchmarks time.
const RATES: &str = include_str!("kernels/rates_hopper.ptx");

const F32: u32 = 7;
const BF16: u32 = 9;
const SWIZZLE_128: u32 = 3;

fn kinds(report: &stepscope_emulator::Report) -> Vec<FindingKind> {
    report.findings.iter().map(|finding| finding.kind).collect()
}

#[test]
fn bulk_copies_in_and_out() {
    let bench = Bench::new(HOPPER);
    let input: Vec<i32> = (0..1024).collect();
    let (x, out) = (bench.buffer(&input), bench.empty::<i32>(1024));
    let report = bench.run(
        "bulk_copy",
        [4, 1, 1],
        [256, 1, 1],
        &[Arg::U64(x), Arg::U64(out)],
    );
    assert_eq!(
        bench.read::<i32>(out, 1024),
        (1..=1024).collect::<Vec<i32>>()
    );
    let c = report.counters;
    assert_eq!((c.bulk_load_bytes, c.bulk_store_bytes), (4096, 4096));
    assert_eq!(
        (c.compulsory_read_bytes, c.compulsory_write_bytes),
        (4096, 4096)
    );
    // The copies are not the threads' accesses.
    assert_eq!((c.global_load_requests, c.global_store_requests), (0, 0));
}

#[test]
fn what_a_bulk_copy_needs_and_lacks() {
    let bench = Bench::new(HOPPER);
    let (x, out) = (bench.buffer(&[1i32; 256]), bench.empty::<i32>(256));
    let arguments = [Arg::U64(x), Arg::U64(out)];
    let launch = |kernel| bench.launch(kernel, [1, 1, 1], [256, 1, 1], &arguments);
    let report = launch("bulk_without_wait");
    assert!(
        kinds(&report).contains(&FindingKind::MissingWait),
        "{:?}",
        report.findings
    );
    let report = launch("bulk_without_fence");
    assert_eq!(kinds(&report), [FindingKind::MissingProxyFence]);
    let report = launch("bulk_expects_too_much");
    let failure = report.failure.as_ref().unwrap();
    assert_eq!(failure.kind(), ErrorKind::Deadlock);
    assert!(failure.to_string().contains("1024 more bytes"), "{failure}");
    assert_eq!(kinds(&report), [FindingKind::ExpectedBytes]);
}

#[test]
fn tensor_tiles_with_what_lies_outside() {
    let bench = Bench::new(HOPPER);
    let (rows, columns) = (20, 40);
    let input: Vec<f32> = (1..=rows * columns).map(|i| i as f32).collect();
    let (x, out) = (bench.buffer(&input), bench.buffer(&[0f32; 16 * 32]));
    for (x0, y0) in [(0, 0), (20, 10), (-8, -4), (36, 19)] {
        let from = matrix_map(x, F32, 4, [rows as u64, columns as u64], [16, 32], 0);
        let to = matrix_map(out, F32, 4, [16, 32], [16, 32], 0);
        let arguments = [from, to, Arg::U32(x0 as u32), Arg::U32(y0 as u32)];
        let report = bench.run("tensor_copy", [1, 1, 1], [64, 1, 1], &arguments);
        let expected: Vec<f32> = (0..16 * 32)
            .map(|i| {
                let (y, x) = (y0 + i / 32, x0 + i % 32);
                let is_inside = (0..rows).contains(&y) && (0..columns).contains(&x);
                if is_inside {
                    -input[(y * columns + x) as usize]
                } else {
                    -0.0
                }
            })
            .collect();
        assert_eq!(bench.read::<f32>(out, 512), expected, "{x0} {y0}");
        // The barrier counts the whole tile, inside or not.
        assert_eq!(report.counters.bulk_load_bytes, 2048);
    }
}

#[test]
fn swizzles_move_chunks_of_sixteen_bytes() {
    let mut bench = Bench::new(HOPPER);
    bench.shared = 64 * 128;
    let input: Vec<u32> = (0..64 * 32).collect();
    let (x, out) = (bench.buffer(&input), bench.empty::<u32>(64 * 32));
    for (swizzle, words, mask) in [(0, 32, 0), (1, 8, 1), (2, 16, 3), (3, 32, 7)] {
        let map = matrix_map(x, 2, 4, [64, 32], [64, words], swizzle);
        let count = 64 * words;
        bench.run(
            "tensor_as_it_lies",
            [1, 1, 1],
            [128, 1, 1],
            &[map, Arg::U64(out), Arg::U32(count)],
        );
        let got = bench.read::<u32>(out, count as usize);
        for (at, value) in got.iter().enumerate() {
            // The inverse: where in the tile the word at this address comes from.
            let line = at * 4 / 128;
            let chunk = (at / 4) ^ (line & mask);
            let plain = chunk * 4 + at % 4;
            let (row, column) = (plain / words as usize, plain % words as usize);
            let expected = if mask == 1 || mask == 3 {
                None
            } else {
                Some(row as u32 * 32 + column as u32)
            };
            if let Some(expected) = expected {
                assert_eq!(*value, expected, "swizzle {swizzle} word {at}");
            }
        }
        // Whatever the pattern, it is a permutation of the tile.
        let mut sorted = got.clone();
        sorted.sort_unstable();
        let mut tile: Vec<u32> = (0..64)
            .flat_map(|row| (0..words).map(move |c| row * 32 + c))
            .collect();
        tile.sort_unstable();
        assert_eq!(sorted, tile, "swizzle {swizzle}");
    }
}

fn bf16(values: &[f32]) -> Vec<u16> {
    values
        .iter()
        .map(|value| half::bf16::from_f32(*value).to_bits())
        .collect()
}

struct Gemm {
    bench: Bench,
    arguments: Vec<Arg>,
    grid: [u32; 3],
    c: u64,
    expected: Vec<f32>,
}

/// Small integers: every order of the sums gives the same.
fn gemm(m: usize, n: usize, k: usize) -> Gemm {
    let mut bench = Bench::new(HOPPER);
    bench.shared = 2 * 16384;
    let mut next = random(7);
    let a: Vec<f32> = (0..m * k).map(|_| (next() % 9) as f32 - 4.0).collect();
    let b: Vec<f32> = (0..n * k).map(|_| (next() % 9) as f32 - 4.0).collect();
    let (pa, pb, c) = (
        bench.buffer(&bf16(&a)),
        bench.buffer(&bf16(&b)),
        bench.empty::<f32>(m * n),
    );
    let map = |at, rows| matrix_map(at, BF16, 2, [rows as u64, k as u64], [64, 64], SWIZZLE_128);
    let arguments = vec![
        map(pa, m),
        map(pb, n),
        Arg::U64(c),
        Arg::U32(n as u32),
        Arg::U32(k as u32),
    ];
    let dot = |i: usize, j: usize| (0..k).map(|x| a[i * k + x] * b[j * k + x]).sum();
    let expected = (0..m * n).map(|i| dot(i / n, i % n)).collect();
    Gemm {
        bench,
        arguments,
        grid: [n as u32 / 64, m as u32 / 64, 1],
        c,
        expected,
    }
}

#[test]
fn a_warp_specialised_matrix_multiplication() {
    let (m, n, k) = (128, 192, 320);
    let Gemm {
        bench,
        arguments,
        grid,
        c,
        expected,
    } = gemm(m, n, k);
    let report = bench.run("gemm_wgmma", grid, [160, 1, 1], &arguments);
    assert_eq!(bench.read::<f32>(c, m * n), expected);
    assert_eq!(report.counters.tensor_flops, 2 * (m * n * k) as u64);
    let loaded = (grid[0] * grid[1]) as u64 * (k as u64 / 64) * 16384;
    assert_eq!(report.counters.bulk_load_bytes, loaded);
    assert_eq!(
        report.counters.compulsory_read_bytes,
        ((m + n) * k * 2) as u64
    );
}

#[test]
fn stages_that_are_filled_or_given_back_too_early() {
    let Gemm {
        bench,
        arguments,
        grid,
        ..
    } = gemm(64, 64, 320);
    let report = bench.launch("gemm_without_empty", grid, [160, 1, 1], &arguments);
    assert!(!report.findings.is_empty());
    let report = bench.launch("gemm_early_arrive", grid, [160, 1, 1], &arguments);
    assert!(!report.findings.is_empty(), "{:?}", report.failure);
}

#[test]
fn clusters_share_their_memory() {
    let mut bench = Bench::new(HOPPER);
    bench.cluster = Some([4, 1, 1]);
    let input: Vec<i32> = (0..512).collect();
    let (x, out) = (bench.buffer(&input), bench.empty::<i32>(512));
    bench.run(
        "cluster_ring",
        [8, 1, 1],
        [64, 1, 1],
        &[Arg::U64(x), Arg::U64(out)],
    );
    let expected: Vec<i32> = (0..512)
        .map(|i| {
            let (block, thread) = (i / 64, i % 64);
            let other = block / 4 * 4 + (block % 4 + 1) % 4;
            other * 64 + 63 - thread
        })
        .collect();
    assert_eq!(bench.read::<i32>(out, 512), expected);
    let report = bench.launch(
        "cluster_race",
        [4, 1, 1],
        [64, 1, 1],
        &[Arg::U64(x), Arg::U64(out)],
    );
    let found = kinds(&report);
    assert!(
        found.iter().any(|kind| matches!(
            kind,
            FindingKind::RaceWriteAfterRead
                | FindingKind::RaceReadAfterWrite
                | FindingKind::UseAfterFree
        )),
        "{found:?}"
    );

    bench.run(
        "multicast",
        [8, 1, 1],
        [64, 1, 1],
        &[Arg::U64(x), Arg::U64(out)],
    );
    let expected: Vec<i32> = (0..512).map(|i| i % 64 * (i / 64 % 4 + 1)).collect();
    assert_eq!(bench.read::<i32>(out, 512), expected);
}

#[test]
fn copies_that_arrive_at_a_barrier() {
    let bench = Bench::new(HOPPER);
    let input: Vec<i32> = (0..256).collect();
    let (x, out) = (bench.buffer(&input), bench.empty::<i32>(256));
    bench.run(
        "copies_arrive",
        [1, 1, 1],
        [64, 1, 1],
        &[Arg::U64(x), Arg::U64(out)],
    );
    assert_eq!(
        bench.read::<i32>(out, 256),
        (0..256).rev().collect::<Vec<i32>>()
    );
}

/// In each iteration the four warps meet at `wgmma.wait_group` and at nothing else.
#[test]
fn a_warpgroup_that_only_multiplies_comes_to_its_end() {
    for kernel in ["rate_wgmma_128", "rate_wgmma_256", "rate_wgmma_registers"] {
        let mut bench = Bench::new(RATES);
        for checks in [Checks::ALL, Checks::NONE] {
            bench.checks = checks;
            let out = bench.empty::<f32>(256);
            let arguments = [Arg::U64(out), Arg::U32(40)];
            let report = bench.run(kernel, [2, 1, 1], [128, 1, 1], &arguments);
            assert_eq!(report.counters.tensor_instructions, 2 * 4 * 40 * 4);
            assert!(bench.read::<f32>(out, 256).iter().all(|x| x.is_finite()));
        }
    }
}
