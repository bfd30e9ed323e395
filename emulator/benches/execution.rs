//! How fast kernels are executed, with no check and with every check, on one core.
//!
//! `cargo bench -p stepscope-emulator --bench execution` measures everything; `-- rate_shared` those of that name. Elements are lane-instructions,
//! or lane-accesses where the kernel is named for a memory; of the matrix products they are floating-point operations. The
//! fastest run of each goes into the table at the end: what else the machine does can only slow a run down.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use stepscope_emulator::check::Checks;
use support::{Arg, Bench, matrix_map};

const RATES: &str = include_str!("../tests/kernels/rates.ptx");
const HOPPER_RATES: &str = include_str!("../tests/kernels/rates_hopper.ptx");
const HOPPER: &str = include_str!("../tests/kernels/hopper.ptx");
const SAMPLES: &str = include_str!("../tests/kernels/samples.ptx");
const TENSOR: &str = include_str!("../tests/kernels/tensor.ptx");

/// What the elements of a throughput are.
#[derive(Clone, Copy)]
enum Elements {
    LaneInstructions,
    Accesses(u64),
    Flops(u64),
    Blocks,
}

struct Case {
    kernel: &'static str,
    ptx: &'static str,
    compute_capability: (u32, u32),
    /// Bytes of dynamic shared memory.
    shared: u32,
    grid: [u32; 3],
    block: u32,
    block_y: u32,
    elements: Elements,
    /// Arguments after those that `buffers` makes.
    arguments: fn(&Bench) -> Vec<Arg>,
}

impl Case {
    fn name(&self) -> String {
        match self.compute_capability {
            (9, 0) => self.kernel.to_owned(),
            (major, minor) => format!("{}_sm_{major}{minor}", self.kernel),
        }
    }
}

const LOOPS: u32 = 40;
const BLOCKS: u64 = 8;

fn buffer(bench: &Bench, bytes: usize) -> Arg {
    Arg::U64(bench.buffer(&vec![0u8; bytes]))
}

/// A loop of [`LOOPS`] rounds in [`BLOCKS`] blocks of 256 threads.
fn rate(kernel: &'static str, accesses: Option<u64>) -> Case {
    Case {
        kernel,
        ptx: RATES,
        compute_capability: (9, 0),
        shared: 0,
        grid: [BLOCKS as u32, 1, 1],
        block: 256,
        block_y: 1,
        elements: accesses.map_or(Elements::LaneInstructions, |each| {
            Elements::Accesses(each * BLOCKS * 256 * u64::from(LOOPS))
        }),
        arguments: |bench| vec![buffer(bench, 1 << 16), Arg::U32(LOOPS)],
    }
}

/// How often a block of [`copies`] goes over its parts: the start of a thread does not count then.
const PASSES: u32 = 8;

/// Copies within 4 MiB.
fn copies(kernel: &'static str, loops: u32, arguments: fn(&Bench) -> Vec<Arg>) -> Case {
    Case {
        elements: Elements::Accesses(16 * BLOCKS * 256 * u64::from(loops * PASSES)),
        arguments,
        ..rate(kernel, None)
    }
}

/// `mma.sync` alone, with the arithmetic of a device's tensor cores.
fn mma(compute_capability: (u32, u32)) -> Case {
    Case {
        compute_capability,
        elements: Elements::Flops(8 * 2 * 16 * 8 * 16 * BLOCKS * 8 * u64::from(LOOPS)),
        ..rate("rate_mma", None)
    }
}

/// `wgmma` alone, of `n` columns.
fn wgmma(kernel: &'static str, n: u64) -> Case {
    const BLOCKS: u64 = 2;
    Case {
        ptx: HOPPER_RATES,
        grid: [BLOCKS as u32, 1, 1],
        block: 128,
        elements: Elements::Flops(2 * 64 * n * 64 * BLOCKS * u64::from(LOOPS)),
        ..rate(kernel, None)
    }
}

/// Rows and columns of the matrices of the whole products.
const N: u64 = 256;

/// Numbers of every mantissa, from 1/2 to 1, of either sign.
fn operand() -> Vec<u16> {
    let mut next = support::random(1);
    let numbers = std::iter::repeat_with(|| (next() & 0x807f) as u16 | 0x3f00);
    numbers.take((N * N) as usize).collect()
}

fn gemm(kernel: &'static str) -> Case {
    Case {
        ptx: TENSOR,
        grid: [4, 4, 1],
        block: 128,
        elements: Elements::Flops(2 * N * N * N),
        arguments: |bench| {
            let n = Arg::U32(N as u32);
            vec![
                Arg::U64(bench.buffer(&operand())),
                Arg::U64(bench.buffer(&operand())),
                buffer(bench, (N * N * 4) as usize),
                n.clone(),
                n.clone(),
                n,
            ]
        },
        ..rate(kernel, None)
    }
}

/// The product with tensor copies and `wgmma`.
fn gemm_wgmma() -> Case {
    Case {
        ptx: HOPPER,
        shared: 2 * 16384,
        block: 160,
        arguments: |bench| {
            const BF16: u32 = 9;
            const SWIZZLE_128: u32 = 3;
            let map = || {
                let at = bench.buffer(&operand());
                matrix_map(at, BF16, 2, [N, N], [64, 64], SWIZZLE_128)
            };
            vec![
                map(),
                map(),
                buffer(bench, (N * N * 4) as usize),
                Arg::U32(N as u32),
                Arg::U32(N as u32),
            ]
        },
        ..gemm("gemm_wgmma")
    }
}

fn cases() -> Vec<Case> {
    let transpose = |kernel| Case {
        ptx: SAMPLES,
        grid: [8, 8, 1],
        block: 32,
        block_y: 8,
        arguments: |bench| {
            vec![
                buffer(bench, 256 * 256 * 4),
                buffer(bench, 256 * 256 * 4),
                Arg::U32(256),
            ]
        },
        ..rate(kernel, None)
    };
    vec![
        // Long enough for the start of a thread not to count.
        Case {
            arguments: |bench| vec![buffer(bench, 1 << 16), Arg::U32(40 * LOOPS)],
            ..rate("rate_float", None)
        },
        Case {
            arguments: |bench| vec![buffer(bench, 1 << 16), Arg::U32(10 * LOOPS)],
            ..rate("rate_integer", None)
        },
        rate("rate_shared", Some(16)),
        rate("rate_shared_16", Some(16)),
        rate("rate_shared_strided", Some(16)),
        rate("rate_shared_atomic", Some(8)),
        copies("rate_global", 32, |b| {
            vec![buffer(b, 4 << 20), Arg::U32(32), Arg::U32(PASSES)]
        }),
        copies("rate_global_16", 8, |b| {
            vec![buffer(b, 4 << 20), Arg::U32(8), Arg::U32(PASSES)]
        }),
        copies("rate_global_strided", 8, |b| {
            vec![buffer(b, 4 << 20), Arg::U32(8), Arg::U32(PASSES)]
        }),
        rate("rate_global_atomic", Some(8)),
        Case {
            grid: [1000, 1, 1],
            block: 128,
            elements: Elements::Blocks,
            arguments: |bench| vec![buffer(bench, 1000 * 128 * 4)],
            ..rate("rate_blocks", None)
        },
        transpose("transpose_direct"),
        transpose("transpose_naive"),
        transpose("transpose_padded"),
        Case {
            grid: [16, 1, 1],
            arguments: |bench| vec![buffer(bench, 1 << 20), buffer(bench, 64), Arg::U32(1 << 18)],
            ptx: SAMPLES,
            ..rate("reduce", None)
        },
        mma((8, 0)),
        mma((9, 0)),
        wgmma("rate_wgmma_128", 128),
        wgmma("rate_wgmma_256", 256),
        wgmma("rate_wgmma_registers", 128),
        gemm("gemm_swizzled"),
        gemm("gemm_plain"),
        gemm_wgmma(),
    ]
}

/// The processor's time that this thread has had.
fn own_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live `timespec`, which the call fills in.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The fastest run of each benchmark, with the elements of a run.
type Fastest = RefCell<BTreeMap<(usize, &'static str), (Duration, u64)>>;

fn measure(criterion: &mut Criterion, fastest: &Fastest) {
    // Words behind these are names of baselines and the like, no filters.
    const WITH_NAMES: [&str; 9] = [
        "-s",
        "-b",
        "-c",
        "--save-baseline",
        "--baseline",
        "--baseline-lenient",
        "--load-baseline",
        "--color",
        "--output-format",
    ];
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|a| a == "--list") {
        for case in cases() {
            println!("{}: benchmark", case.name());
        }
        return;
    }
    let is_word = |a: &String| !a.starts_with('-') && a.parse::<f64>().is_err();
    let pairs = arguments.windows(2);
    let words = pairs.filter(|pair| is_word(&pair[1]) && !WITH_NAMES.contains(&pair[0].as_str()));
    let words: Vec<String> = words.map(|pair| pair[1].clone()).collect();
    let is_named = |word: &String| word.split('/').next().unwrap_or_default().to_owned();
    for (index, case) in cases().iter().enumerate() {
        if !words.is_empty()
            && !words
                .iter()
                .any(|word| case.name().contains(&is_named(word)))
        {
            continue;
        }
        let mut bench = Bench::on(case.compute_capability, case.ptx);
        bench.shared = case.shared;
        let arguments = (case.arguments)(&bench);
        let block = [case.block, case.block_y, 1];
        bench.checks = Checks::ALL;
        bench.cores = 1;
        // Nothing that is measured may do what a check objects to.
        let counters = bench
            .run(case.kernel, case.grid, block, &arguments)
            .counters;
        let elements = match case.elements {
            Elements::LaneInstructions => counters.thread_instructions,
            Elements::Accesses(count) | Elements::Flops(count) => count,
            Elements::Blocks => u64::from(case.grid[0]),
        };
        let mut group = criterion.benchmark_group(case.name());
        group.throughput(Throughput::Elements(elements));
        let runs = [
            ("no checks", Checks::NONE, 1),
            ("all checks", Checks::ALL, 1),
            ("no checks, 2 cores", Checks::NONE, 2),
        ];
        for (name, checks, cores) in runs {
            if cores == 2 && !matches!(case.kernel, "rate_float" | "gemm_swizzled") {
                continue;
            }
            (bench.checks, bench.cores) = (checks, cores);
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter_custom(|iterations| {
                    let mut total = Duration::ZERO;
                    for _ in 0..iterations {
                        let (wall, own) = (Instant::now(), own_time());
                        bench.launch(case.kernel, case.grid, block, &arguments);
                        // One core is this thread: what others take from it does not count.
                        let time = match cores {
                            1 => own_time() - own,
                            _ => wall.elapsed(),
                        };
                        total += time;
                        let mut fastest = fastest.borrow_mut();
                        let best = fastest.entry((index, name)).or_insert((time, elements));
                        best.0 = best.0.min(time);
                    }
                    total
                });
            });
        }
    }
}

fn print(fastest: &Fastest) {
    let fastest = fastest.borrow();
    println!(
        "{:<20} {:>12} {:>12} {:>8} {:>12} {:>8}  elements, in 10^9 per second",
        "", "no checks", "all checks", "ratio", "2 cores", "speedup"
    );
    for (index, case) in cases().iter().enumerate() {
        let of = |name| {
            fastest
                .get(&(index, name))
                .map(|(time, elements)| *elements as f64 / time.as_nanos() as f64)
        };
        let (Some(plain), Some(checked)) = (of("no checks"), of("all checks")) else {
            continue;
        };
        let unit = match case.elements {
            Elements::LaneInstructions => "lane-instructions",
            Elements::Accesses(_) => "lane-accesses",
            Elements::Flops(_) => "floating-point operations",
            Elements::Blocks => "blocks",
        };
        let [two, speedup] = match of("no checks, 2 cores") {
            Some(two) => [format!("{two:.3}"), format!("{:.2}", two / plain)],
            None => [String::new(), String::new()],
        };
        println!(
            "{:<20} {plain:>12.4} {checked:>12.4} {:>8.2} {two:>12} {speedup:>8}  {unit}",
            case.name(),
            plain / checked
        );
    }
    println!("Repeat one with `cargo bench -p stepscope-emulator --bench execution -- NAME`.");
}

fn main() {
    let fastest = Fastest::default();
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    measure(&mut criterion, &fastest);
    criterion.final_summary();
    print(&fastest);
}
