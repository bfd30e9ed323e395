//! Correct kernels in the forms that libraries use: nothing is found in them, and their results are right.
#![allow(clippy::unwrap_used)] // a test

mod support;

use stepscope_emulator::check::FindingKind;
use stepscope_emulator::{Report, TensorMapOptions, encode_tensor_map};
use support::{Arg, Bench, random};

const F32: u32 = 7;
const BF16: u32 = 9;

/// The map of a matrix of `rows` x `columns`, in boxes of `tile`; of bf16 with the swizzle of 128 bytes.
fn map(address: u64, data_type: u32, [rows, columns]: [usize; 2], tile: [u32; 2]) -> Arg {
    let is_half = data_type == BF16;
    let options = TensorMapOptions {
        data_type,
        address,
        extents: &[columns as u64, rows as u64],
        strides: &[(columns * if is_half { 2 } else { 4 }) as u64],
        tile: &[tile[1], tile[0]],
        element_strides: &[1, 1],
        interleave: 0,
        swizzle: if is_half { 3 } else { 0 },
        promotion: 0,
        fill: 0,
    };
    Arg::Bytes(bytemuck::cast_slice(&encode_tensor_map(&options).unwrap()).to_vec())
}

struct Matrix {
    values: Vec<f32>,
    address: u64,
}

fn bf16(bench: &Bench, count: usize, mut value: impl FnMut() -> f32) -> Matrix {
    let bits: Vec<u16> = (0..count)
        .map(|_| half::bf16::from_f32(value()).to_bits())
        .collect();
    let values = bits
        .iter()
        .map(|&bits| half::bf16::from_bits(bits).to_f32())
        .collect();
    Matrix {
        values,
        address: bench.buffer(&bits),
    }
}

/// Small integers: every order of the sums gives the same.
fn integers(bench: &Bench, count: usize, seed: u64) -> Matrix {
    let mut next = random(seed);
    bf16(bench, count, || (next() % 9) as f32 - 4.0)
}

/// A B^T of matrices whose rows have `k` elements.
fn product(a: &Matrix, b: &Matrix, k: usize) -> Vec<f32> {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x * y).sum();
    let rows = a.values.chunks(k);
    rows.flat_map(|row| b.values.chunks(k).map(move |column| dot(row, column)))
        .collect()
}

const PIPELINES: &str = include_str!("kernels/pipelines.ptx");

/// What a launch reported, what it gave and what it should have given.
struct Outcome {
    report: Report,
    got: Vec<f32>,
    expected: Vec<f32>,
}

impl Outcome {
    fn kinds(&self) -> Vec<FindingKind> {
        let findings = self.report.findings.iter();
        findings.map(|finding| finding.kind).collect()
    }

    fn is_right(&self, what: &str) {
        let findings: Vec<String> = self.report.findings.iter().map(|f| f.to_string()).collect();
        assert!(findings.is_empty(), "{what}: {}", findings.join("\n"));
        assert!(
            self.report.failure.is_none(),
            "{what}: {:?}",
            self.report.failure
        );
        assert_eq!(self.got, self.expected, "{what}");
    }
}

fn bench(text: &str, shared: u32) -> Bench {
    let mut bench = Bench::new(text);
    bench.shared = shared;
    bench
}

/// A matrix multiplication by a producer and two consumers.
fn gemm(text: &str, cluster: bool, grid: u32, [m, n, k]: [usize; 3]) -> Outcome {
    let mut bench = bench(text, 3 * 24576 + 32768);
    bench.cluster = cluster.then_some([2, 1, 1]);
    let (a, b) = (integers(&bench, m * k, 3), integers(&bench, n * k, 5));
    let c = bench.empty::<f32>(m * n);
    let arguments = [
        map(a.address, BF16, [m, k], [128, 64]),
        map(b.address, BF16, [n, k], [if cluster { 32 } else { 64 }, 64]),
        map(c, F32, [m, n], [128, 64]),
        Arg::U32(m as u32),
        Arg::U32(n as u32),
        Arg::U32(k as u32),
    ];
    let kernel = if cluster {
        "gemm_cluster"
    } else {
        "gemm_persistent"
    };
    let report = bench.launch(kernel, [grid, 1, 1], [384, 1, 1], &arguments);
    Outcome {
        report,
        got: bench.read(c, m * n),
        expected: product(&a, &b, k),
    }
}

/// A matrix multiplication whose threads copy.
fn gemm_copies(text: &str) -> Outcome {
    let (m, n, k) = (64, 128, 320);
    let bench = bench(text, 3 * 16384);
    let (a, b) = (integers(&bench, m * k, 3), integers(&bench, n * k, 5));
    let c = bench.empty::<f32>(m * n);
    let arguments = [
        Arg::U64(a.address),
        Arg::U64(b.address),
        Arg::U64(c),
        Arg::U32(n as u32),
        Arg::U32(k as u32),
    ];
    let grid = [n as u32 / 64, m as u32 / 64, 1];
    let report = bench.launch("gemm_copies", grid, [128, 1, 1], &arguments);
    Outcome {
        report,
        got: bench.read(c, m * n),
        expected: product(&a, &b, k),
    }
}

#[test]
fn persistent_and_cluster_matrix_multiplications() {
    for (cluster, grid, size) in [
        (false, 2, [256, 192, 320]),
        (false, 1, [128, 64, 64]),
        (true, 4, [256, 192, 320]),
        (true, 2, [256, 128, 128]),
    ] {
        let outcome = gemm(PIPELINES, cluster, grid, size);
        outcome.is_right(&format!("{cluster} {size:?}"));
        let flops = 2 * size.iter().product::<usize>() as u64;
        assert_eq!(outcome.report.counters.tensor_flops, flops);
    }
}

#[test]
fn copies_in_three_stages() {
    gemm_copies(PIPELINES).is_right("gemm_copies");
}

/// The same kernels, each without one of the instructions that make it right.
#[test]
fn what_is_found_where_an_instruction_lacks() {
    use FindingKind::{
        MissingFence, MissingProxyFence, MissingWait, RaceReadAfterWrite, RaceWriteAfterRead,
        UseAfterFree,
    };
    let without = |from: &str, to: &str| {
        assert!(PIPELINES.contains(from), "{from}");
        PIPELINES.replace(from, to)
    };
    let size = [256, 128, 320];
    let persistent = |from, to| gemm(&without(from, to), false, 1, size).kinds();
    let cluster = |from, to| gemm(&without(from, to), true, 2, size).kinds();
    let copies = |from, to| gemm_copies(&without(from, to)).kinds();
    let check = |found: Vec<FindingKind>, kind: FindingKind, what: &str| {
        assert!(found.contains(&kind), "{what}: {found:?}");
    };
    let proxy = "fence.proxy.async.shared::cta;";
    check(persistent(proxy, ""), MissingProxyFence, "the store of C");
    check(copies(proxy, ""), MissingProxyFence, "copies before wgmma");
    let init = "fence.mbarrier_init.release.cluster;";
    check(persistent(init, ""), MissingProxyFence, "barriers");
    check(
        cluster(init, ""),
        RaceReadAfterWrite,
        "barriers of a cluster",
    );
    let fence = "wgmma.fence.sync.aligned;";
    check(persistent(fence, ""), MissingFence, "no fence");
    let read = "cp.async.bulk.wait_group.read 0;";
    check(persistent(read, ""), RaceWriteAfterRead, "C overwritten");
    let one = "wgmma.wait_group.sync.aligned 1;";
    let two = "wgmma.wait_group.sync.aligned 2;";
    check(persistent(one, two), RaceWriteAfterRead, "stage given back");
    let none = "wgmma.wait_group.sync.aligned 0;";
    check(persistent(none, one), MissingWait, "accumulators");
    check(
        copies("cp.async.wait_group 1;", "cp.async.wait_group 2;"),
        MissingWait,
        "copies",
    );
    let together = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;";
    check(cluster(together, ""), UseAfterFree, "arrivals at the end");
}

#[test]
fn attention_by_two_warpgroups_in_turns() {
    let (queries, keys) = (256, 320);
    let bench = bench(PIPELINES, 16384 + 4 * 8192);
    let mut next = random(9);
    let mut draw = |count: usize| bf16(&bench, count * 64, || (next() % 255) as f32 / 64.0 - 2.0);
    let (q, k, v) = (draw(queries), draw(keys), draw(keys));
    let out = bench.empty::<f32>(queries * 64);
    let arguments = [
        map(q.address, BF16, [queries, 64], [128, 64]),
        map(k.address, BF16, [keys, 64], [64, 64]),
        map(v.address, BF16, [keys, 64], [64, 64]),
        Arg::U64(out),
        Arg::U32(keys as u32),
    ];
    bench.run(
        "attention",
        [queries as u32 / 128, 1, 1],
        [384, 1, 1],
        &arguments,
    );
    let got = bench.read::<f32>(out, queries * 64);
    let scores = product(&q, &k, 64);
    for (row, scores) in scores.chunks(keys).enumerate() {
        let weights: Vec<f64> = scores
            .iter()
            .map(|&score| (f64::from(score) / 8.0).exp())
            .collect();
        let sum: f64 = weights.iter().sum();
        for column in 0..64 {
            let weighted =
                |(key, weight): (usize, &f64)| weight * f64::from(v.values[64 * key + column]);
            let expected = weights.iter().enumerate().map(weighted).sum::<f64>() / sum;
            let value = f64::from(got[64 * row + column]);
            // The weights are rounded to 8 bits, the values are up to 2.
            assert!(
                (value - expected).abs() < 2.0 / 256.0,
                "{row} {column}: {value} for {expected}"
            );
        }
    }
}

#[test]
fn barriers_with_work_between_arrival_and_wait() {
    for rounds in [1, 8] {
        let mut bench = bench(PIPELINES, 0);
        bench.cluster = Some([2, 1, 1]);
        let input: Vec<i32> = (0..512).map(|i| i * i % 31).collect();
        let (x, out) = (bench.buffer(&input), bench.empty::<i32>(512));
        let arguments = [Arg::U64(x), Arg::U64(out), Arg::U32(rounds)];
        bench.run("split_barriers", [4, 1, 1], [128, 1, 1], &arguments);
        let mut values = input;
        for _ in 0..rounds {
            let old = values.clone();
            for (i, value) in values.iter_mut().enumerate() {
                let block = i / 128 * 128;
                let at = |offset: usize| old[block + (i + offset) % 128];
                *value = 3 * *value + at(1) - at(127);
            }
        }
        let expected: Vec<i32> = (0..512).map(|i| 5 * values[i] + values[i ^ 128]).collect();
        assert_eq!(bench.read::<i32>(out, 512), expected);
    }
}
