//! How fast kernels are executed, with no check and with every check, on one core.
//!
//! `cargo bench -p stepscope-emulator` measures everything; `-- rate_shared` those of that name. Elements are lane-instructions,
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
use support::{Arg, Bench};

const RATES: &str = include_str!("../tests/kernels/rates.ptx");
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
    grid: [u32; 3],
    block: u32,
    block_y: u32,
    elements: Elements,
    /// Arguments after those that `buffers` makes.
    arguments: fn(&Bench) -> Vec<Arg>,
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
        grid: [BLOCKS as u32, 1, 1],
        block: 256,
        block_y: 1,
        elements: accesses.map_or(Elements::LaneInstructions, |each| {
            Elements::Accesses(each * BLOCKS * 256 * u64::from(LOOPS))
        }),
        arguments: |bench| vec![buffer(bench, 1 << 16), Arg::U32(LOOPS)],
    }
}

/// Copies within 4 MiB.
fn copies(kernel: &'static str, loops: u32, arguments: fn(&Bench) -> Vec<Arg>) -> Case {
    Case {
        elements: Elements::Accesses(16 * BLOCKS * 256 * u64::from(loops)),
        arguments,
        ..rate(kernel, None)
    }
}

fn gemm(kernel: &'static str) -> Case {
    const N: u64 = 256;
    Case {
        kernel,
        ptx: TENSOR,
        grid: [4, 4, 1],
        block: 128,
        block_y: 1,
        elements: Elements::Flops(2 * N * N * N),
        arguments: |bench| {
            let operand = vec![0x3c00u16; (N * N) as usize];
            let n = Arg::U32(N as u32);
            vec![
                Arg::U64(bench.buffer(&operand)),
                Arg::U64(bench.buffer(&operand)),
                buffer(bench, (N * N * 4) as usize),
                n.clone(),
                n.clone(),
                n,
            ]
        },
    }
}

fn cases() -> Vec<Case> {
    let transpose = |kernel| Case {
        kernel,
        ptx: SAMPLES,
        grid: [8, 8, 1],
        block: 32,
        block_y: 8,
        elements: Elements::LaneInstructions,
        arguments: |bench| {
            vec![
                buffer(bench, 256 * 256 * 4),
                buffer(bench, 256 * 256 * 4),
                Arg::U32(256),
            ]
        },
    };
    vec![
        rate("rate_float", None),
        rate("rate_integer", None),
        rate("rate_shared", Some(16)),
        rate("rate_shared_16", Some(16)),
        rate("rate_shared_strided", Some(16)),
        rate("rate_shared_atomic", Some(8)),
        copies("rate_global", 32, |b| {
            vec![buffer(b, 4 << 20), Arg::U32(32)]
        }),
        copies("rate_global_16", 8, |b| {
            vec![buffer(b, 4 << 20), Arg::U32(8)]
        }),
        copies("rate_global_strided", 8, |b| {
            vec![buffer(b, 4 << 20), Arg::U32(8)]
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
        gemm("gemm_swizzled"),
        gemm("gemm_plain"),
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
    let is_word = |a: &String| !a.starts_with('-') && a.parse::<f64>().is_err();
    let words: Vec<String> = std::env::args().skip(1).filter(is_word).collect();
    let is_named = |word: &String| word.split('/').next().unwrap_or_default().to_owned();
    for (index, case) in cases().iter().enumerate() {
        if !words.is_empty()
            && !words
                .iter()
                .any(|word| case.kernel.contains(&is_named(word)))
        {
            continue;
        }
        let mut bench = Bench::new(case.ptx);
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
        let mut group = criterion.benchmark_group(case.kernel);
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
            case.kernel,
            plain / checked
        );
    }
    println!("Repeat one with `cargo bench -p stepscope-emulator -- NAME`.");
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
