//! What a step reaches of this machine, and what taking it apart costs; every ratio from one run, A and B interleaved:
//! `cargo bench -p stepscope-engine --bench step_ratios [-- --quick]`; other flags of criterion change nothing here.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)] // a benchmark

use stepscope_engine::model::{LoadFormat, LoadOptions, Model, NoProgress, load};
use stepscope_engine::{Runner, RunnerOptions};
use stepscope_kernels::Cpu;
use stepscope_profiler::{Level, Step, stats};

fn runner(model: &Model, level: Level, sequence_len: usize) -> Runner<Cpu> {
    let options = RunnerOptions {
        level,
        ..RunnerOptions::small(1, sequence_len)
    };
    Runner::new(Cpu::new(None).unwrap(), model, &options).unwrap()
}

fn median_ms(walls: &[f64]) -> f64 {
    stats::median(walls).unwrap_or(f64::NAN) * 1e-6
}

fn bytes(step: &Step) -> u64 {
    step.operations
        .iter()
        .map(|o| o.work.weight_bytes + o.work.kv_bytes)
        .sum()
}

fn main() {
    let has = |name: &str| std::env::args().any(|a| a == name);
    if has("--list") {
        println!("step_ratios: benchmark");
        return;
    }
    // `cargo test --all-targets` runs this without `--bench`.
    let quick = has("--quick") || has("--test") || !has("--bench");
    let options = LoadOptions {
        model: "smollm2-135m".to_owned(),
        format: LoadFormat::Dummy,
        skip_tokenizer: true,
        ..LoadOptions::default()
    };
    let cpu = Cpu::new(None).unwrap();
    let model = load(&options, &cpu, &NoProgress).unwrap();
    let roofs = cpu.measure_roofs();
    let dram = roofs
        .memory
        .last()
        .map_or(f64::NAN, |level| level.bytes_per_s);
    println!(
        "smollm2-135m bfloat16, dummy weights, {} threads ({}), DRAM read {:.1} GB/s, {:.0} GFLOP/s",
        cpu.threads(),
        cpu.simd(),
        dram * 1e-9,
        roofs.flops_per_s * 1e-9
    );

    let steps = if quick { 10 } else { 120 };
    let mut levels = [Level::Steps, Level::Phases, Level::Operations]
        .map(|level| (level, runner(&model, level, 1024)));
    let mut walls = [const { Vec::new() }; 3];
    let mut last = None;
    let mut batches = Vec::new();
    for (_, runner) in &mut levels {
        batches.push(runner.prefill(&[&[1; 64]]).unwrap().0);
    }
    for round in 0..steps + 3 {
        for (i, (level, runner)) in levels.iter_mut().enumerate() {
            let step = runner.decode(&mut batches[i], None).unwrap();
            if round >= 3 {
                walls[i].push(step.wall_ns as f64);
            }
            if *level == Level::Operations {
                last = Some(step);
            }
        }
    }
    let [plain, phases, operations] = walls.each_ref().map(|w| median_ms(w));
    println!(
        "decode, batch 1, context 64..{}: median of {steps} steps each, interleaved",
        64 + steps
    );
    println!("  not taken apart        {plain:8.3} ms");
    println!(
        "  phases                 {phases:8.3} ms   {:+.2} %",
        (phases / plain - 1.0) * 100.0
    );
    println!(
        "  phases and operations  {operations:8.3} ms   {:+.2} %",
        (operations / plain - 1.0) * 100.0
    );
    if let Some(step) = last {
        let streamed = bytes(&step) as f64;
        let rate = streamed / (plain * 1e-3);
        println!(
            "  weights and KV         {:8.1} MB per step at {:.1} GB/s = {:.0} % of the DRAM read bandwidth",
            streamed * 1e-6,
            rate * 1e-9,
            rate / dram * 100.0
        );
    }

    let mut prefill = runner(&model, Level::Operations, 512);
    let mut walls = Vec::new();
    let mut flops = 0;
    for round in 0..if quick { 2 } else { 8 } {
        let (batch, step) = prefill.prefill(&[&[1; 512]]).unwrap();
        prefill.release(batch);
        flops = step.operations.iter().map(|o| o.work.flops).sum();
        if round > 0 {
            walls.push(step.wall_ns as f64);
        }
    }
    let wall = median_ms(&walls);
    let rate = flops as f64 / (wall * 1e-3);
    println!(
        "prefill, 512 tokens: {wall:.1} ms, {:.0} token/s, {:.1} GFLOP/s = {:.0} % of the measured peak",
        512.0 / (wall * 1e-3),
        rate * 1e-9,
        rate / roofs.flops_per_s * 100.0
    );
}
