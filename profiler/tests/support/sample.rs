//! A record with the operations, the work and the plausible times of SmolLM2-135M on two cores.

use serde_json::json;
use stepscope_profiler::*;

const HIDDEN: u64 = 576;
const KV: u64 = 192;
const INTERMEDIATE: u64 = 1536;
const VOCABULARY: u64 = 49152;

const FLOPS_PER_S: f64 = 104e9;
const DRAM_BYTES_PER_S: f64 = 22e9;

/// Two points of two repetitions, of a model with `layers` layers.
pub fn record(layers: u32) -> Record {
    let weights = 2 * (u64::from(layers) * 3_540_096 + VOCABULARY * HIDDEN);
    Record {
        schema: SCHEMA.to_owned(),
        program: Program {
            name: "stepscope".to_owned(),
            version: "0.1.0".to_owned(),
            commit: Some("0123abc".to_owned()),
            command: [
                "stepscope",
                "one-batch",
                "--batch",
                "1",
                "4",
                "--input",
                "128",
            ]
            .map(str::to_owned)
            .to_vec(),
        },
        started: "2026-02-03T04:05:06Z".to_owned(),
        environment: Environment {
            host: Some("bench-1".to_owned()),
            os: "Linux (Debian 12)".to_owned(),
            cpu: Cpu {
                name: "AMD EPYC 9554 64-Core Processor".to_owned(),
                threads: 2,
                simd: "avx2+fma+f16c".to_owned(),
            },
            memory_bytes: 8_341_000_000,
            load_average: Some(0.25),
            gpu: None,
            roofs: Some(Roofs {
                flops_per_s: FLOPS_PER_S,
                bandwidth: vec![
                    BandwidthRoof {
                        name: "L2".to_owned(),
                        up_to_bytes: Some(2_000_000),
                        bytes_per_s: 91e9,
                    },
                    BandwidthRoof {
                        name: "DRAM".to_owned(),
                        up_to_bytes: None,
                        bytes_per_s: DRAM_BYTES_PER_S,
                    },
                ],
                method: "best of 5, all threads".to_owned(),
            }),
        },
        run: Run {
            name: "default".to_owned(),
            model: ModelInfo {
                name: "smollm2-135m".to_owned(),
                architecture: "LlamaForCausalLM".to_owned(),
                load_format: "dummy".to_owned(),
                parameters: weights / 2,
                config: json!({"hidden_size": HIDDEN, "num_hidden_layers": layers}),
            },
            dtype: "bfloat16".to_owned(),
            kv_cache_dtype: "bfloat16".to_owned(),
            tp: 1,
            device: "cpu".to_owned(),
            threads: 2,
            page_size: 16,
            max_total_num_tokens: 8192,
            seed: 42,
            compat: "v0.4.2".to_owned(),
            sampling: Sampling {
                temperature: 0.0,
                top_k: 0,
                top_p: 1.0,
                min_p: 0.0,
                seed: 42,
            },
            cuda_graph: None,
            tuning: None,
            load_s: 0.31,
        },
        memory: Memory {
            weights,
            weights_mapped: 0,
            kv_pool: 8192 * 4 * KV * u64::from(layers),
            kv_used_peak: 4 * 144 * 4 * KV * u64::from(layers),
            token_pool: 131_072,
            activations: 9_437_184,
            peak_rss: Some(512_000_000),
        },
        points: vec![point(layers, 1, 128, 8), point(layers, 4, 128, 8)],
        timing: None,
        skipped: vec![Skipped {
            batch_size: 64,
            input_len: 128,
            output_len: 8,
            reason: "needs 8704 KV slots; the pool has 8192".to_owned(),
        }],
        complete: true,
    }
}

fn point(layers: u32, batch_size: usize, input_len: usize, output_len: usize) -> Point {
    let mut prefill = StepTotal::empty();
    let mut decode = StepTotal::empty();
    let repetitions = (0..2)
        .map(|repetition| {
            let mut steps = vec![step(
                layers,
                StepKind::Prefill,
                repetition,
                batch_size,
                input_len,
            )];
            for index in 0..output_len - 1 {
                let mut step = step(
                    layers,
                    StepKind::Decode,
                    index + repetition,
                    batch_size,
                    input_len + index,
                );
                step.index = index;
                steps.push(step);
            }
            let mut walls: Vec<f64> = Vec::new();
            for step in &mut steps {
                match step.kind {
                    StepKind::Prefill => prefill.add(step),
                    StepKind::Decode => {
                        decode.add(step);
                        walls.push(step.wall_ns as f64 / 1e9);
                        if step.index > 0 {
                            step.operations.clear();
                        }
                    }
                }
            }
            steps[0].index = 0;
            Repetition {
                prefill_latency_s: steps[0].wall_ns as f64 / 1e9,
                first_decode_latency_s: walls.first().copied(),
                median_decode_latency_s: stats::median(&walls),
                total_latency_s: steps.iter().map(|s| s.wall_ns as f64 / 1e9).sum(),
                output_ids: vec![28, 198, 5345, 28],
                steps,
            }
        })
        .collect();
    Point {
        batch_size,
        input_len,
        output_len,
        repetitions,
        prefill,
        decode: Some(decode),
        gpu: None,
        counted: Vec::new(),
        replayed: Vec::new(),
    }
}

/// A step over `context` cached or prompt tokens per request; `salt` varies its times a little.
fn step(layers: u32, kind: StepKind, salt: usize, batch: usize, context: usize) -> Step {
    let slowness = 1.0 + 0.01 * (salt * 7 % 5) as f64;
    let host = |phase, start_ns: &mut u64, ns: u64| {
        let time = PhaseTime {
            name: phase,
            start_ns: *start_ns,
            host_ns: ns,
            gpu_ns: None,
        };
        *start_ns += ns;
        time
    };
    let mut now = 0;
    let mut phases = vec![
        host(Phase::TokenPool, &mut now, 410),
        host(Phase::KvAlloc, &mut now, 1_280),
        host(Phase::Prepare, &mut now, 3_950),
    ];
    let forward_start = now;
    let mut operations = Vec::new();
    for (name, kernel, layer, work, efficiency) in work_of_step(layers, kind, batch, context) {
        let floor_s = (work.flops as f64 / FLOPS_PER_S).max(work.bytes() as f64 / DRAM_BYTES_PER_S);
        let duration_ns = 300 + (floor_s * 1e9 / efficiency * slowness) as u64;
        operations.push(Operation {
            name: name.into(),
            kernel: kernel.into(),
            phase: Phase::Forward,
            layer,
            work,
            launches: 0,
            start_ns: now,
            duration_ns,
            timer: Timer::Wall,
        });
        now += duration_ns + 90;
    }
    phases.push(PhaseTime {
        name: Phase::Forward,
        start_ns: forward_start,
        host_ns: now - forward_start,
        gpu_ns: None,
    });
    let sample_ns = 31_000 * batch as u64;
    operations.push(Operation {
        name: "sample".into(),
        kernel: "argmax_avx2".into(),
        phase: Phase::Sample,
        layer: None,
        work: Work {
            activation_bytes: batch as u64 * VOCABULARY * 4,
            ..Work::default()
        },
        launches: 0,
        start_ns: now,
        duration_ns: sample_ns,
        timer: Timer::Wall,
    });
    phases.push(host(Phase::Sample, &mut now, sample_ns + 150));
    phases.push(host(Phase::Other, &mut now, 860));
    Step {
        kind,
        index: salt,
        batch_size: batch,
        wall_ns: now,
        phases,
        operations,
        kernels: Vec::new(),
        findings: Vec::new(),
        device: None,
        sm_clock_mhz: None,
    }
}

type WorkOfOperation = (&'static str, &'static str, Option<u32>, Work, f64);

/// Name, kernel, layer, work and share of the roof of each operation in the forward phase.
fn work_of_step(layers: u32, kind: StepKind, batch: usize, context: usize) -> Vec<WorkOfOperation> {
    let (batch, context) = (batch as u64, context as u64);
    let (tokens, gemm, attention) = match kind {
        StepKind::Prefill => (batch * context, "gemm_avx2", "attention_prefill_avx2"),
        StepKind::Decode => (batch, "gemv_avx2", "attention_decode_avx2"),
    };
    let efficiency = match kind {
        StepKind::Prefill => 0.71,
        StepKind::Decode => 0.84,
    };
    let linear = |rows: u64, inputs: u64, outputs: u64| Work {
        flops: 2 * rows * inputs * outputs,
        weight_bytes: 2 * inputs * outputs,
        activation_bytes: 4 * rows * (inputs + outputs),
        ..Work::default()
    };
    let elementwise = |flops: u64, values: u64| Work {
        flops: tokens * values * flops,
        activation_bytes: tokens * values * 8,
        ..Work::default()
    };
    let norm = Work {
        weight_bytes: 2 * HIDDEN,
        ..elementwise(4, HIDDEN)
    };
    let keys = match kind {
        StepKind::Prefill => context.div_ceil(2),
        StepKind::Decode => context,
    };
    let attend = Work {
        flops: 4 * tokens * keys * HIDDEN,
        kv_bytes: batch * context * 4 * KV,
        activation_bytes: 8 * tokens * HIDDEN,
        ..Work::default()
    };
    let mut list = vec![(
        "embedding",
        "embedding_rows",
        None,
        Work {
            weight_bytes: tokens * 2 * HIDDEN,
            activation_bytes: tokens * 4 * HIDDEN,
            ..Work::default()
        },
        0.5,
    )];
    for layer in 0..layers {
        let layer = Some(layer);
        list.extend([
            ("input_norm", "rms_norm_avx2", layer, norm, 0.6),
            (
                "qkv_proj",
                gemm,
                layer,
                linear(tokens, HIDDEN, HIDDEN + 2 * KV),
                efficiency,
            ),
            (
                "rope_kv",
                "rope_kv_avx2",
                layer,
                elementwise(6, HIDDEN + 2 * KV),
                0.5,
            ),
            ("attention", attention, layer, attend, 0.35),
            (
                "o_proj",
                gemm,
                layer,
                linear(tokens, HIDDEN, HIDDEN),
                efficiency,
            ),
            ("post_attention_norm", "rms_norm_avx2", layer, norm, 0.6),
            (
                "gate_up_proj",
                gemm,
                layer,
                linear(tokens, HIDDEN, 2 * INTERMEDIATE),
                efficiency,
            ),
            (
                "silu_mul",
                "silu_mul_avx2",
                layer,
                elementwise(5, INTERMEDIATE),
                0.4,
            ),
            (
                "down_proj",
                gemm,
                layer,
                linear(tokens, INTERMEDIATE, HIDDEN),
                efficiency,
            ),
        ]);
    }
    list.push(("final_norm", "rms_norm_avx2", None, norm, 0.6));
    if kind == StepKind::Prefill {
        let work = Work {
            activation_bytes: batch * 8 * HIDDEN,
            ..Work::default()
        };
        list.push(("last_token", "gather_rows", None, work, 0.5));
    }
    list.push((
        "lm_head",
        "gemv_avx2",
        None,
        linear(batch, HIDDEN, VOCABULARY),
        0.9,
    ));
    list
}
