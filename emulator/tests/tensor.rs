//! Matrix multiplication by `mma.sync`, `ldmatrix` and `cp.async`.
#![allow(clippy::unwrap_used)] // a test

mod support;

use stepscope_emulator::check::FindingKind;
use support::{Arg, Bench, random};

const TENSOR: &str = include_str!("kernels/tensor.ptx");

const M: usize = 128;
const N: usize = 64;
const K: usize = 160;

struct Gemm {
    bench: Bench,
    arguments: [Arg; 6],
    c: u64,
    expected: Vec<f32>,
}

/// Small integers: every order of the sums gives the same.
fn gemm() -> Gemm {
    let bench = Bench::on((8, 0), TENSOR);
    let mut next = random(11);
    let mut matrix =
        |count: usize| -> Vec<f32> { (0..count).map(|_| (next() % 9) as f32 - 4.0).collect() };
    let (a, b) = (matrix(M * K), matrix(N * K));
    let bits = |values: &[f32]| {
        values
            .iter()
            .map(|v| half::bf16::from_f32(*v).to_bits())
            .collect::<Vec<u16>>()
    };
    let (pa, pb, c) = (
        bench.buffer(&bits(&a)),
        bench.buffer(&bits(&b)),
        bench.empty::<f32>(M * N),
    );
    let expected = (0..M * N)
        .map(|i| (0..K).map(|x| a[i / N * K + x] * b[i % N * K + x]).sum())
        .collect();
    let size = |size: usize| Arg::U32(size as u32);
    let arguments = [
        Arg::U64(pa),
        Arg::U64(pb),
        Arg::U64(c),
        size(M),
        size(N),
        size(K),
    ];
    Gemm {
        bench,
        arguments,
        c,
        expected,
    }
}

#[test]
fn results_and_counters_as_by_hand() {
    let Gemm {
        bench,
        arguments,
        c,
        expected,
    } = gemm();
    let blocks = (M / 64 * N / 64) as u64;
    let tiles = (K / 32) as u64;
    // Of a warp and tile: 2 k-steps of 1 + 4 ldmatrix.x4 with 4 wavefronts, or 16 where the rows of 64 bytes collide in four
    // ways; of the block's 4 warps and tile: 4 cp.async each, whose 16-byte lanes fill lines in either layout.
    let copies = blocks * tiles * 4 * 4;
    let reads = blocks * tiles * 4 * 10;
    for (kernel, wavefronts_per_read) in [("gemm_swizzled", 4), ("gemm_plain", 16)] {
        let report = bench.run(
            kernel,
            [(N / 64) as u32, (M / 64) as u32, 1],
            [128, 1, 1],
            &arguments,
        );
        assert_eq!(bench.read::<f32>(c, M * N), expected, "{kernel}");
        let counters = report.counters;
        assert_eq!(counters.tensor_flops, 2 * (M * N * K) as u64, "{kernel}");
        assert_eq!(
            (
                counters.shared_store_requests,
                counters.shared_load_requests
            ),
            (copies, reads),
            "{kernel}"
        );
        assert_eq!(
            counters.shared_wavefronts,
            copies * 4 + reads * wavefronts_per_read,
            "{kernel}"
        );
        assert_eq!(
            counters.shared_ideal_wavefronts,
            (copies + reads) * 4,
            "{kernel}"
        );
        // A warp's copy takes 64 bytes of each of 8 rows: 16 sectors.
        assert_eq!(
            (counters.global_load_requests, counters.global_load_sectors),
            (copies, copies * 16),
            "{kernel}"
        );
        assert_eq!(
            counters.compulsory_read_bytes,
            ((M + N) * K * 2) as u64,
            "{kernel}"
        );
        assert_eq!(
            counters.compulsory_write_bytes,
            (M * N * 4) as u64,
            "{kernel}"
        );
    }
}

#[test]
fn a_missing_wait_is_found() {
    let Gemm {
        bench, arguments, ..
    } = gemm();
    let grid = [(N / 64) as u32, (M / 64) as u32, 1];
    let report = bench.launch("gemm_without_wait", grid, [128, 1, 1], &arguments);
    let lines: Vec<&str> = include_str!("kernels/tensor.cu").lines().collect();
    // The compiler places an `asm` of two lines at its second.
    let is_at = |line: u32, text: &str| {
        lines[line as usize - 2..line as usize]
            .concat()
            .contains(text)
    };
    // It names the read and the copy.
    let found = report.findings.iter().any(|finding| {
        finding.kind == FindingKind::MissingWait
            && is_at(finding.party.line, "ldmatrix")
            && finding
                .other
                .as_ref()
                .is_some_and(|other| is_at(other.line, "cp.async"))
    });
    let list: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(found, "{list:?}");
}
