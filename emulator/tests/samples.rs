//! Kernels in the style of the CUDA samples: their results are known, and nothing is wrong with them.
#![allow(clippy::unwrap_used)] // a test

mod support;

use stepscope_emulator::ErrorKind;
use support::{Arg, Bench, random};

const SAMPLES: &str = include_str!("kernels/samples.ptx");

#[test]
fn reduction() {
    let bench = Bench::new(SAMPLES);
    let input: Vec<f32> = (0..10_000).map(|i| (i % 17) as f32).collect();
    let (x, out) = (bench.buffer(&input), bench.empty::<f32>(8));
    bench.run(
        "reduce",
        [8, 1, 1],
        [256, 1, 1],
        &[Arg::U64(x), Arg::U64(out), Arg::U32(10_000)],
    );
    let sum: f32 = bench.read::<f32>(out, 8).iter().sum();
    assert_eq!(sum, input.iter().sum::<f32>());
}

#[test]
fn scan() {
    let mut bench = Bench::new(SAMPLES);
    bench.shared = 512 * 4;
    let input: Vec<i32> = (0..512).map(|i| i % 7 - 3).collect();
    let (x, out) = (bench.buffer(&input), bench.empty::<i32>(512));
    bench.run(
        "scan",
        [1, 1, 1],
        [512, 1, 1],
        &[Arg::U64(x), Arg::U64(out)],
    );
    let mut sum = 0;
    let expected: Vec<i32> = input
        .iter()
        .map(|x| {
            sum += x;
            sum
        })
        .collect();
    assert_eq!(bench.read::<i32>(out, 512), expected);
}

#[test]
fn transposes_and_their_counters() {
    const N: usize = 128;
    let bench = Bench::new(SAMPLES);
    let input: Vec<f32> = (0..N * N).map(|i| i as f32).collect();
    let expected: Vec<f32> = (0..N * N).map(|i| input[i % N * N + i / N]).collect();
    let (x, out) = (bench.buffer(&input), bench.empty::<f32>(N * N));
    let blocks = (N / 32) as u32;
    let warps = u64::from(blocks * blocks) * 8;
    let accesses = warps * 4;
    // Stores of the direct one go down a column: each lane its own sector.
    for (kernel, store_sectors, load_wavefronts) in [
        ("transpose_direct", 32, 0),
        ("transpose_naive", 4, 32),
        ("transpose_padded", 4, 1),
        ("transpose_swizzled", 4, 1),
    ] {
        let arguments = [Arg::U64(x), Arg::U64(out), Arg::U32(N as u32)];
        let report = bench.run(kernel, [blocks, blocks, 1], [32, 8, 1], &arguments);
        assert_eq!(bench.read::<f32>(out, N * N), expected, "{kernel}");
        let c = report.counters;
        assert_eq!(
            (c.global_load_requests, c.global_store_requests),
            (accesses, accesses),
            "{kernel}"
        );
        assert_eq!(c.global_load_sectors, accesses * 4, "{kernel}");
        assert_eq!(c.global_store_sectors, accesses * store_sectors, "{kernel}");
        if load_wavefronts > 0 {
            assert_eq!(
                (c.shared_load_requests, c.shared_store_requests),
                (accesses, accesses),
                "{kernel}"
            );
            assert_eq!(
                c.shared_wavefronts,
                accesses * (1 + load_wavefronts),
                "{kernel}"
            );
            assert_eq!(c.shared_ideal_wavefronts, accesses * 2, "{kernel}");
        }
        let bytes = (N * N * 4) as u64;
        assert_eq!(
            (c.compulsory_read_bytes, c.compulsory_write_bytes),
            (bytes, bytes),
            "{kernel}"
        );
    }
}

#[test]
fn histogram() {
    let bench = Bench::new(SAMPLES);
    let mut next = random(3);
    let input: Vec<u8> = (0..5000).map(|_| next() as u8).collect();
    let (x, out) = (bench.buffer(&input), bench.buffer(&[0u32; 256]));
    bench.run(
        "histogram",
        [6, 1, 1],
        [256, 1, 1],
        &[Arg::U64(x), Arg::U64(out), Arg::U32(5000)],
    );
    let mut expected = vec![0u32; 256];
    input.iter().for_each(|&x| expected[usize::from(x)] += 1);
    assert_eq!(bench.read::<u32>(out, 256), expected);
}

#[test]
fn bitonic_sort() {
    let bench = Bench::new(SAMPLES);
    let mut next = random(4);
    let mut input: Vec<u32> = (0..512).map(|_| next()).collect();
    let x = bench.buffer(&input);
    bench.run("bitonic", [1, 1, 1], [256, 1, 1], &[Arg::U64(x)]);
    input.sort_unstable();
    assert_eq!(bench.read::<u32>(x, 512), input);
}

#[test]
fn warp_aggregated_atomics() {
    let bench = Bench::new(SAMPLES);
    let mut next = random(5);
    let input: Vec<i32> = (0..1000).map(|_| next() as i32).collect();
    let (x, out, count) = (
        bench.buffer(&input),
        bench.empty::<i32>(1000),
        bench.buffer(&[0u32]),
    );
    let arguments = [Arg::U64(x), Arg::U64(out), Arg::U64(count), Arg::U32(1000)];
    bench.run("filter", [8, 1, 1], [128, 1, 1], &arguments);
    let mut expected: Vec<i32> = input.into_iter().filter(|x| *x > 0).collect();
    assert_eq!(bench.read::<u32>(count, 1)[0] as usize, expected.len());
    let mut got = bench.read::<i32>(out, expected.len());
    got.sort_unstable();
    expected.sort_unstable();
    assert_eq!(got, expected);
}

#[test]
fn the_last_block_sees_what_the_others_released() {
    let bench = Bench::new(SAMPLES);
    let input: Vec<i32> = (0..320).collect();
    let (x, partial) = (bench.buffer(&input), bench.empty::<i32>(10));
    let (arrived, out) = (bench.buffer(&[0u32]), bench.empty::<i32>(1));
    let arguments = [
        Arg::U64(x),
        Arg::U64(partial),
        Arg::U64(arrived),
        Arg::U64(out),
    ];
    bench.run("last_block", [10, 1, 1], [32, 1, 1], &arguments);
    assert_eq!(bench.read::<i32>(out, 1), [320 * 319 / 2]);
}

#[test]
fn spin_locks_and_grid_barriers_end() {
    let mut bench = Bench::new(SAMPLES);
    let (lock, value) = (bench.buffer(&[0i32]), bench.buffer(&[0i32]));
    bench.run(
        "spin_lock",
        [3, 1, 1],
        [48, 1, 1],
        &[Arg::U64(lock), Arg::U64(value)],
    );
    assert_eq!(bench.read::<i32>(value, 1), [144]);

    bench.cooperative = true;
    let input: Vec<i32> = (0..512).collect();
    let (arrived, x) = (bench.buffer(&[0u32]), bench.buffer(&input));
    let (mid, out) = (bench.empty::<i32>(512), bench.empty::<i32>(512));
    let arguments = [Arg::U64(arrived), Arg::U64(x), Arg::U64(mid), Arg::U64(out)];
    bench.run("grid_barrier", [8, 1, 1], [64, 1, 1], &arguments);
    assert_eq!(
        bench.read::<i32>(out, 512),
        (0..512).map(|i| 2 * (511 - i)).collect::<Vec<i32>>()
    );
}

#[test]
fn a_cooperative_launch_must_be_resident_at_once() {
    let bench = Bench::on(
        (8, 0),
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k() { ret; }",
    );
    let kernel = bench.module.kernel("k").unwrap();
    let run = |blocks: u32, threads: u32, shared: u32, cooperative: bool| {
        let mut launch = stepscope_emulator::Launch::new([blocks, 1, 1], [threads, 1, 1]);
        launch.cooperative = cooperative;
        launch.dynamic_shared_bytes = shared;
        launch.checks = stepscope_emulator::check::Checks::NONE;
        let done = (bench.device).launch(&kernel, &launch, &[]);
        done.map(|report| assert!(report.failure.is_none()))
    };
    // Multiprocessors with 2048 threads and 164 KiB of shared memory each, of which a block takes 1 KiB more than it asks for.
    let multiprocessors = bench.device.options().multiprocessors;
    for (held, threads, shared) in [(2, 1024, 0), (1, 64, 100 << 10), (2, 64, 80 << 10)] {
        let most = held * multiprocessors;
        run(most, threads, shared, true).unwrap();
        let error = run(most + 1, threads, shared, true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CooperativeLaunchTooLarge);
        let told = [
            format!("cooperative launch of {} blocks", most + 1),
            format!("holds {most} at once"),
        ];
        assert!(
            told.iter().all(|part| error.to_string().contains(part)),
            "{error}"
        );
        // Blocks that need not wait for one another may be as many as they like.
        run(most + 1, threads, shared, false).unwrap();
    }
}

#[test]
fn producers_and_consumers_meet_at_named_barriers() {
    let bench = Bench::new(SAMPLES);
    let input: Vec<i32> = (0..128).collect();
    let (x, out) = (bench.buffer(&input), bench.empty::<i32>(128));
    bench.run(
        "named_barriers",
        [1, 1, 1],
        [64, 1, 1],
        &[Arg::U64(x), Arg::U64(out)],
    );
    let expected: Vec<i32> = (0..128).map(|i| i / 32 * 32 + 31 - i % 32).collect();
    assert_eq!(bench.read::<i32>(out, 128), expected);
}
