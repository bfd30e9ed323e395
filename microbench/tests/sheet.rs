//! Every probe of the device sheet on the emulated device: its result is right, and it does exactly the work that it claims.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeMap;

use stepscope_device::driver::Driver;
use stepscope_emulator::check::Checks;
use stepscope_emulator::driver::{Configuration, configure, symbol, take_reports};
use stepscope_kernels::DType;
use stepscope_kernels::cuda::Cuda;
use stepscope_microbench::Bench;
use stepscope_microbench::sheet::{self, Counted, Options};
use stepscope_profiler::device_sheet::{Group, Quantity, Row, RowTimer, Status};

/// What the emulated device counted, in the sheet's words.
fn counted(report: &stepscope_emulator::driver::LaunchReport) -> Counted {
    let c = &report.report.counters;
    let of = [
        (Quantity::Launches, 1),
        (Quantity::LoadedBytes, 32 * c.global_load_sectors),
        (Quantity::StoredBytes, 32 * c.global_store_sectors),
        (Quantity::ReadSetBytes, c.compulsory_read_bytes),
        (Quantity::WrittenSetBytes, c.compulsory_write_bytes),
        (Quantity::GlobalLoads, c.global_load_requests),
        (Quantity::SharedLoads, c.shared_load_requests),
        (Quantity::SharedWavefronts, c.shared_wavefronts),
        (
            Quantity::BankConflicts,
            c.shared_wavefronts - c.shared_ideal_wavefronts,
        ),
        (Quantity::TensorInstructions, c.tensor_instructions),
        (Quantity::TensorFlops, c.tensor_flops),
        (
            Quantity::TensorIntegerOperations,
            c.tensor_integer_operations,
        ),
        (Quantity::F32Flops, c.f32_flops),
        (Quantity::IntegerInstructions, c.integer_instructions),
        (Quantity::Atomics, c.global_atomics),
        (Quantity::LocalAccesses, c.local_requests),
    ];
    Counted {
        kernel: report.kernel.clone(),
        of: BTreeMap::from(of),
        findings: report
            .report
            .findings
            .iter()
            .map(ToString::to_string)
            .collect(),
    }
}

/// Two devices as H100s, with every check on. Everything is one test, since a process has one driver.
fn device() -> Option<Cuda> {
    configure(Configuration {
        devices: 2,
        memory_bytes: 1 << 30,
        checks: Checks::ALL,
        keep_reports: true,
        ..Configuration::default()
    })
    .unwrap();
    // SAFETY: the emulator's functions have the signatures and the meaning of cuda.h.
    let driver = unsafe { Driver::emulated(symbol) }.unwrap();
    match Cuda::new(&driver, 0, DType::BF16) {
        Ok(cuda) => Some(cuda),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

fn run(cuda: &Cuda, options: &Options, alter: impl Fn(&mut Counted)) -> Vec<Row> {
    let bench = Bench::new(cuda).unwrap();
    let counts = || {
        let mut launches: Vec<Counted> = take_reports(0).iter().map(counted).collect();
        launches.iter_mut().for_each(&alter);
        launches
    };
    let mut seen = 0;
    let rows = sheet::run(&bench, options, Some(Box::new(counts)), &mut |_| seen += 1).unwrap();
    assert_eq!(seen, rows.len());
    rows
}

/// All rows but points of curves.
#[rustfmt::skip] // by group
const NAMES: [&str; 55] = [
    "dram_write", "dram_read", "dram_copy", "l2_read",
    "shared_read_clk", "shared_read",
    "shared_latency", "l1_latency", "l2_latency", "dram_latency",
    "mma_bf16_clk", "mma_bf16", "mma_f16_clk", "mma_f16", "mma_tf32_clk", "mma_tf32", "mma_s8_clk", "mma_s8", "mma_latency",
    "wgmma_bf16_clk", "wgmma_bf16", "wgmma_f16_clk", "wgmma_f16", "wgmma_e4m3_clk", "wgmma_e4m3",
    "fma_f32_clk", "fma_f32", "ex2_clk", "rcp_clk", "sin_clk", "imad_clk", "iadd3_clk", "fma_latency",
    "red_one", "atom_one", "red_packed", "atom_packed", "red_apart", "atom_apart",
    "launch_host", "launch_stream", "launch_graph_node", "graph_host", "graph_launch", "launch_round_trip",
    "event_gap", "event_step", "globaltimer_step",
    "h2d_pinned", "d2h_pinned", "h2d_pageable", "d2h_pageable", "peer_copy",
    "tensor_power", "dram_power",
];

#[test]
fn every_probe_is_right_and_does_what_it_claims() {
    let Some(cuda) = device() else { return };
    let rows = run(&cuda, &Options::default(), |_| {});
    let names: Vec<&str> = rows
        .iter()
        .filter(|row| row.at.is_none())
        .map(|row| row.name.as_str())
        .collect();
    assert_eq!(names, NAMES);
    for row in &rows {
        let expected = match row.group {
            Group::Energy => Status::Skipped,
            _ => Status::NoTime,
        };
        assert_eq!(row.status, expected, "{row:?}");
        assert_eq!((row.value, row.timer), (None, RowTimer::None), "{row:?}");
        assert!(row.samples.is_empty() && !row.claim.is_empty(), "{row:?}");
        for claim in &row.claims {
            assert_eq!(claim.counted, Some(claim.claimed), "{row:?}");
        }
        let is_counted = !matches!(row.group, Group::Timers | Group::Transfer | Group::Energy);
        assert!(!is_counted || !row.claims.is_empty(), "{row:?}");
    }
    for curve in ["set_read", "set_latency", "tlb_latency"] {
        assert!(
            rows.iter().filter(|row| row.name == curve).count() >= 2,
            "{curve}"
        );
    }

    // One FLOP more or less is found.
    let only = |group| Options {
        only: vec![group],
        ..Options::default()
    };
    let rows = run(&cuda, &only(Group::Arithmetic), |launch| {
        *launch.of.get_mut(&Quantity::F32Flops).unwrap() *= 3;
    });
    let fma = rows.iter().find(|row| row.name == "fma_f32_clk").unwrap();
    assert_eq!(fma.status, Status::Wrong, "{fma:?}");
    assert!(fma.note.as_ref().unwrap().contains("claimed"), "{fma:?}");
    // And so is what the emulated device finds.
    let rows = run(&cuda, &only(Group::Shared), |launch| {
        launch.findings.push("a race".to_owned());
    });
    assert!(
        rows.iter().all(|row| row.status == Status::Wrong),
        "{rows:?}"
    );

    // What has no time left is skipped, and said to be.
    let late = Options {
        until: Some(std::time::Instant::now()),
        ..Options::default()
    };
    for row in run(&cuda, &late, |_| {}) {
        assert_eq!(row.status, Status::Skipped, "{row:?}");
    }
}
