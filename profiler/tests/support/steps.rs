//! Records with given step times.

use stepscope_profiler::gate::{Observed, observe};
use stepscope_profiler::*;

use super::sample;

/// A record of one process: each repetition is a prefill's time followed by its decode steps', in nanoseconds. Every step has
/// the operations `qkv_proj` (two layers, a quarter of the step each) and `lm_head` (a tenth of it).
pub fn record(repetitions: &[Vec<u64>]) -> Record {
    let mut record = sample::record(0);
    let mut prefill = StepTotal::empty();
    let mut decode = StepTotal::empty();
    let repetitions: Vec<Repetition> = repetitions
        .iter()
        .map(|times| Repetition {
            prefill_latency_s: times[0] as f64 / 1e9,
            first_decode_latency_s: times.get(1).map(|&t| t as f64 / 1e9),
            median_decode_latency_s: None,
            total_latency_s: times.iter().sum::<u64>() as f64 / 1e9,
            output_ids: vec![28],
            steps: times
                .iter()
                .enumerate()
                .map(|(index, &wall_ns)| match index {
                    0 => step(StepKind::Prefill, 0, wall_ns),
                    _ => step(StepKind::Decode, index - 1, wall_ns),
                })
                .collect(),
        })
        .collect();
    for step in repetitions.iter().flat_map(|r| &r.steps) {
        match step.kind {
            StepKind::Prefill => prefill.add(step),
            StepKind::Decode => decode.add(step),
        }
    }
    let output_len = repetitions.first().map_or(1, |r| r.steps.len());
    record.points = vec![Point {
        batch_size: 1,
        input_len: 32,
        output_len,
        repetitions,
        prefill,
        decode: (output_len > 1).then_some(decode),
        gpu: None,
        counted: Vec::new(),
        replayed: Vec::new(),
    }];
    record.skipped.clear();
    record
}

fn step(kind: StepKind, index: usize, wall_ns: u64) -> Step {
    let operation = |name: &'static str, layer, duration_ns| Operation {
        name: name.into(),
        kernel: "gemv_avx2".into(),
        phase: Phase::Forward,
        layer,
        work: Work::default(),
        launches: 0,
        start_ns: 0,
        duration_ns,
        timer: Timer::Wall,
    };
    Step {
        kind,
        index,
        batch_size: 1,
        wall_ns,
        phases: vec![PhaseTime {
            name: Phase::Other,
            start_ns: 0,
            host_ns: wall_ns,
            gpu_ns: None,
        }],
        operations: vec![
            operation("qkv_proj", Some(0), wall_ns / 4),
            operation("qkv_proj", Some(1), wall_ns / 4),
            operation("lm_head", None, wall_ns / 10),
        ],
        kernels: Vec::new(),
        findings: Vec::new(),
        device: None,
        sm_clock_mhz: None,
    }
}

/// Twelve repetitions of a prefill of about 2 ms and eight decode steps of about 1 ms, times `factor`; spread over 0.4 %.
pub fn steady(factor: f64) -> Record {
    let time = |base: f64, i: usize| (base * factor * (1.0 + 0.0004 * (i * 7 % 11) as f64)) as u64;
    let repetitions: Vec<Vec<u64>> = (0..12)
        .map(|r| {
            let mut times = vec![time(2e6, r)];
            times.extend((0..8).map(|s| time(1e6, r + s)));
            times[1] = times[1] * 3 / 2; // a first decode step is slow
            times
        })
        .collect();
    record(&repetitions)
}

/// What the gate takes from a record.
pub fn observed(name: &str, record: &Record) -> Observed {
    observe(name, record).unwrap()
}

/// Processes of [`steady`], each with a factor of its own.
pub fn processes(name: &str, factors: &[f64]) -> Vec<Observed> {
    let each = factors.iter().enumerate();
    each.map(|(i, &factor)| observed(&format!("{name}-{i}"), &steady(factor)))
        .collect()
}
