//! Made-up records of a GPU: an eight-billion-weight model on H100, each operation as slow as its floor and a ramp make it, with the
//! activity that CUPTI would have recorded. Nothing here was measured.

use serde_json::json;
use stepscope_profiler::activity::{Cause, DeviceActivity, GapTotal};
use stepscope_profiler::gpu_watch::{GpuWatch, Range};
use stepscope_profiler::*;

use super::sample;

const HIDDEN: u64 = 4096;
const KV: u64 = 1024;
const INTERMEDIATE: u64 = 14336;
const VOCABULARY: u64 = 128_256;
const LAYERS: u32 = 32;
const BATCH: u64 = 4;
const INPUT: u64 = 512;
const OUTPUT: usize = 8;

/// How the steps ran.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Ranks that share the model.
    pub tp: usize,
    /// Whether decode steps replay a graph. Otherwise the host is late with each launch.
    pub graph: bool,
    /// The clock that the multiprocessors held.
    pub clock_mhz: u32,
}

impl Setup {
    pub const GRAPH: Setup = Setup {
        tp: 1,
        graph: true,
        clock_mhz: 1830,
    };
}

/// One point of two repetitions.
pub fn record(setup: Setup) -> Record {
    let mut record = sample::record(0);
    record.environment.roofs = None;
    record.environment.gpu = Some(Gpu {
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        uuid: String::new(),
        compute_capability: [9, 0],
        multiprocessors: 132,
        l2_bytes: 50 << 20,
        memory_bytes: 80 << 30,
        clocks_khz: [1_980_000, 2_619_000],
        driver: "13.0".to_owned(),
        nvrtc: "13.0".to_owned(),
    });
    record.run.model.name = "made-up-8b".to_owned();
    record.run.model.config = json!({"hidden_size": HIDDEN, "num_hidden_layers": LAYERS});
    record.run.device = "cuda".to_owned();
    record.run.tp = setup.tp;
    record.run.cuda_graph = Some(setup.graph);
    record.timing = Some(Timing {
        sm_clock: None,
        timer: Timer::Cupti,
        cupti: Some("13.0".to_owned()),
        reason: None,
        overhead: Vec::new(),
    });
    record.skipped.clear();
    record.points = vec![point(setup)];
    record
}

fn point(setup: Setup) -> Point {
    let mut prefill = StepTotal::empty();
    let mut decode = StepTotal::empty();
    let repetitions = (0..2)
        .map(|_| {
            let mut steps = vec![step(setup, StepKind::Prefill, 0)];
            steps.extend((0..OUTPUT - 1).map(|index| step(setup, StepKind::Decode, index)));
            for step in &steps {
                match step.kind {
                    StepKind::Prefill => prefill.add(step),
                    StepKind::Decode => decode.add(step),
                }
            }
            let seconds = |step: &Step| step.wall_ns as f64 / 1e9;
            Repetition {
                prefill_latency_s: seconds(&steps[0]),
                first_decode_latency_s: Some(seconds(&steps[1])),
                median_decode_latency_s: Some(seconds(&steps[4])),
                total_latency_s: steps.iter().map(seconds).sum(),
                output_ids: vec![1, 2, 3],
                steps,
            }
        })
        .collect();
    let clock = Range {
        min: setup.clock_mhz,
        median: setup.clock_mhz,
        max: setup.clock_mhz,
    };
    Point {
        counted: Vec::new(),
        replayed: Vec::new(),
        batch_size: BATCH as usize,
        input_len: INPUT as usize,
        output_len: OUTPUT,
        repetitions,
        prefill,
        decode: Some(decode),
        gpu: Some(GpuWatch {
            samples: 40,
            seconds: 3.0,
            sm_clock_mhz: Some(clock),
            loaded_sm_clock_mhz: Some(clock),
            throttle_bits: Some(0),
            other_processes: Some(0),
            ..GpuWatch::default()
        }),
    }
}

/// What is between two kernels of a stream, and what a step has before the first and after the last.
const DEPENDENCY_NS: u64 = 900;
const HOST_NS: u64 = 7_000;
const FIRST_LAUNCH_NS: u64 = 6_000;
const AFTER_LAST_NS: u64 = 9_000;
/// How much later the host's launch returns than the kernel before ends, without a graph.
const LATE_NS: u64 = 2_500;

fn step(setup: Setup, kind: StepKind, index: usize) -> Step {
    let is_replayed = setup.graph && kind == StepKind::Decode;
    let mut now = HOST_NS + FIRST_LAUNCH_NS;
    let mut operations = Vec::new();
    let mut busy_ns = 0;
    let mut late = [1, now];
    let mut waits = [0, 0];
    for (name, layer, work) in work_of_step(setup, kind, index as u64) {
        if !operations.is_empty() {
            // Short kernels are over before the next launch returns.
            let is_late = !is_replayed
                && busy_ns / operations.len() as u64 <= 40_000
                && kind == StepKind::Decode;
            let (gaps, gap_ns) = if is_late {
                (&mut late, LATE_NS)
            } else {
                (&mut waits, DEPENDENCY_NS)
            };
            gaps[0] += 1;
            gaps[1] += gap_ns;
            now += gap_ns;
        }
        let duration_ns = match name {
            "all_reduce" => 12_000,
            _ => 1_850 + (floor_s(&work) * 1e9 / 0.8) as u64,
        };
        operations.push(Operation {
            name: name.into(),
            kernel: format!("{name}_kernel").into(),
            phase: if name == "sample" {
                Phase::Sample
            } else {
                Phase::Forward
            },
            layer,
            work,
            launches: 1,
            start_ns: now,
            duration_ns,
            timer: Timer::Cupti,
        });
        busy_ns += duration_ns;
        now += duration_ns;
    }
    let window_ns = now + AFTER_LAST_NS;
    let kernels = operations.len() as u64;
    let phase = |name, start_ns, host_ns, gpu_ns| PhaseTime {
        name,
        start_ns,
        host_ns,
        gpu_ns,
    };
    let sample_ns = operations.last().map_or(0, |o| o.duration_ns);
    Step {
        sm_clock_mhz: None,
        kind,
        index,
        batch_size: BATCH as usize,
        wall_ns: window_ns + 400,
        phases: vec![
            phase(Phase::TokenPool, 0, 1_000, None),
            phase(Phase::KvAlloc, 1_000, 1_500, None),
            phase(Phase::Prepare, 2_500, HOST_NS - 2_500, None),
            phase(
                Phase::Forward,
                HOST_NS,
                40_000,
                Some(now - sample_ns - HOST_NS - FIRST_LAUNCH_NS),
            ),
            phase(Phase::Sample, HOST_NS + 40_000, 5_000, Some(sample_ns)),
            phase(
                Phase::Other,
                HOST_NS + 45_000,
                window_ns + 400 - HOST_NS - 45_000,
                None,
            ),
        ],
        operations,
        kernels: Vec::new(),
        findings: Vec::new(),
        device: Some(DeviceActivity {
            steps: 1,
            window_ns,
            busy_ns,
            gaps: [
                (Cause::LaunchLate, late),
                (Cause::Dependency, waits),
                (Cause::AfterLast, [1, AFTER_LAST_NS]),
            ]
            .into_iter()
            .filter(|(_, [count, _])| *count > 0)
            .map(|(cause, [count, ns])| GapTotal { cause, count, ns })
            .collect(),
            launched: kernels,
            kernels,
            graph_kernels: if is_replayed { kernels - 1 } else { 0 },
            ..DeviceActivity::default()
        }),
    }
}

fn floor_s(work: &Work) -> f64 {
    (work.flops as f64 / 989.4e12).max(work.bytes() as f64 / 3.35e12)
}

/// Name, layer and work of each operation on one rank.
fn work_of_step(
    setup: Setup,
    kind: StepKind,
    index: u64,
) -> Vec<(&'static str, Option<u32>, Work)> {
    let ranks = setup.tp as u64;
    let (tokens, context) = match kind {
        StepKind::Prefill => (BATCH * INPUT, INPUT),
        StepKind::Decode => (BATCH, INPUT + index + 1),
    };
    let linear = |rows: u64, inputs: u64, outputs: u64| Work {
        flops: 2 * rows * inputs * outputs,
        weight_bytes: 2 * inputs * outputs,
        activation_bytes: 2 * rows * (inputs + outputs),
        ..Work::default()
    };
    let elementwise = |values: u64| Work {
        flops: 4 * tokens * values,
        activation_bytes: 4 * tokens * values,
        ..Work::default()
    };
    let attention = Work {
        flops: 2 * tokens * context * HIDDEN / ranks,
        kv_bytes: BATCH * context * 4 * KV / ranks,
        activation_bytes: 4 * tokens * HIDDEN / ranks,
        ..Work::default()
    };
    let mut list = vec![("embedding", None, elementwise(HIDDEN))];
    for layer in 0..LAYERS {
        let layer = Some(layer);
        let mut add = |name, work| list.push((name, layer, work));
        let mut block = vec![
            ("input_norm", elementwise(HIDDEN)),
            (
                "qkv_proj",
                linear(tokens, HIDDEN, (HIDDEN + 2 * KV) / ranks),
            ),
            ("rope_kv", elementwise((HIDDEN + 2 * KV) / ranks)),
            ("attention", attention),
            ("o_proj", linear(tokens, HIDDEN / ranks, HIDDEN)),
            ("all_reduce", elementwise(HIDDEN)),
            ("post_attention_norm", elementwise(HIDDEN)),
            (
                "gate_up_proj",
                linear(tokens, HIDDEN, 2 * INTERMEDIATE / ranks),
            ),
            ("silu_mul", elementwise(INTERMEDIATE / ranks)),
            ("down_proj", linear(tokens, INTERMEDIATE / ranks, HIDDEN)),
            ("all_reduce", elementwise(HIDDEN)),
        ];
        block.retain(|(name, _)| *name != "all_reduce" || ranks > 1);
        block.into_iter().for_each(|(name, work)| add(name, work));
    }
    list.extend([
        ("final_norm", None, elementwise(HIDDEN)),
        ("lm_head", None, linear(BATCH, HIDDEN, VOCABULARY / ranks)),
        (
            "sample",
            None,
            Work {
                activation_bytes: BATCH * VOCABULARY * 2,
                ..Work::default()
            },
        ),
    ]);
    list
}
