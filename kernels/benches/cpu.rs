//! Times of single operations on the CPU: `cargo bench -p stepscope-kernels --bench cpu`.
//!
//! Shapes are those of SmolLM2-135M. A product that repeats finds its weights in the third-level cache, where one is large enough;
//! `--bench ratios` measures whole steps, whose weights come from memory.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stepscope_kernels::sample::SamplingParams;
use stepscope_kernels::{
    AttentionBatch, Backend, Cpu, CpuBuffer, DType, QkvLayout, attention_decode, attention_prefill,
    dummy_weights, gemm, rms_norm, silu_mul,
};

const HIDDEN: usize = 576;
const INTERMEDIATE: usize = 1536;
const VOCAB: usize = 49152;
const LAYOUT: QkvLayout = QkvLayout {
    heads: 9,
    kv_heads: 3,
    head_dim: 64,
};
const MATRICES: [(&str, usize, usize); 5] = [
    ("qkv", 960, HIDDEN),
    ("o", HIDDEN, HIDDEN),
    ("gate_up", 2 * INTERMEDIATE, HIDDEN),
    ("down", HIDDEN, INTERMEDIATE),
    ("head", VOCAB, HIDDEN),
];

fn filled(cpu: &Cpu, len: usize) -> CpuBuffer {
    let mut buffer = cpu.buffer(len).expect("memory");
    for (i, x) in buffer.iter_mut().enumerate() {
        *x = (i % 17) as f32 * 0.1 - 0.8;
    }
    buffer
}

fn product(
    c: &mut Criterion,
    group: &str,
    rows: &[usize],
    throughput: fn(&stepscope_kernels::Cost) -> Throughput,
) {
    let cpu = Cpu::new(None).expect("threads");
    let mut group = c.benchmark_group(group);
    for (name, n, k) in MATRICES {
        let weight = dummy_weights::uniform(&cpu, DType::BF16, &[n, k]).expect("memory");
        let weight = cpu.matrix(&[weight]).expect("one block");
        for &m in rows {
            if m > 16 && n == VOCAB {
                continue; // a prefill computes the logits of last tokens only
            }
            let (x, mut out) = (filled(&cpu, m * k), filled(&cpu, m * n));
            group.throughput(throughput(&gemm::cost(
                m,
                n,
                k,
                false,
                DType::BF16,
                DType::F32,
            )));
            group.bench_function(BenchmarkId::new(name, m), |b| {
                b.iter(|| {
                    cpu.gemm(black_box(&x), m, &weight, None, &mut out)
                        .expect("shapes fit")
                });
            });
        }
    }
}

fn gemv(c: &mut Criterion) {
    product(c, "gemv", &[1, 4], |cost| {
        Throughput::Bytes(cost.weight_bytes)
    });
}

fn gemm(c: &mut Criterion) {
    product(c, "gemm", &[16, 64, 512], |cost| {
        Throughput::Elements(cost.flops)
    });
}

fn attention(c: &mut Criterion) {
    let cpu = Cpu::new(None).expect("threads");
    let mut group = c.benchmark_group("attention");
    for (name, queries, positions) in [
        ("prefill", 512, 512),
        ("prefill", 1024, 1024),
        ("decode", 1, 512),
        ("decode", 1, 4096),
    ] {
        let qkv = filled(&cpu, queries * LAYOUT.width());
        let kv = cpu
            .kv_pool(1, positions, LAYOUT, DType::BF16)
            .expect("memory");
        let mut out = filled(&cpu, queries * LAYOUT.q_width());
        let page_table: Vec<i32> = (0..positions as i32).collect();
        let batch = AttentionBatch {
            requests: 1,
            tokens: queries,
            max_query_len: queries,
            max_kv_len: positions,
            query_start: &vec![0, queries as i32],
            kv_len: &vec![positions as i32],
            page_table: &page_table,
            max_pages: positions,
            page_size: 1,
        };
        let id = BenchmarkId::new(name, positions);
        if name == "prefill" {
            let cost =
                attention_prefill::cost(&[(queries, positions)], LAYOUT, DType::F32, DType::BF16);
            group.throughput(Throughput::Elements(cost.flops));
            group.bench_function(id, |b| {
                b.iter(|| {
                    cpu.attention_prefill(&qkv, LAYOUT, &batch, &kv, 0, &mut out)
                        .expect("shapes fit")
                });
            });
        } else {
            let cost = attention_decode::cost(&[positions], LAYOUT, DType::F32, DType::BF16);
            group.throughput(Throughput::Bytes(cost.kv_bytes));
            group.bench_function(id, |b| {
                b.iter(|| {
                    cpu.attention_decode(&qkv, LAYOUT, &batch, &kv, 0, &mut out)
                        .expect("shapes fit")
                });
            });
        }
    }
}

fn norm(c: &mut Criterion) {
    let cpu = Cpu::new(None).expect("threads");
    let mut group = c.benchmark_group("norm");
    for rows in [1, 512] {
        let (x, mut residual) = (filled(&cpu, rows * HIDDEN), filled(&cpu, rows * HIDDEN));
        let mut out = filled(&cpu, rows * HIDDEN);
        let weight = vec![1.0; HIDDEN];
        group.throughput(Throughput::Bytes(
            rms_norm::add_cost(rows, HIDDEN, DType::F32).bytes(),
        ));
        group.bench_function(BenchmarkId::new("add_rms_norm", rows), |b| {
            b.iter(|| {
                cpu.add_rms_norm(&x, &mut residual, rows, &weight, 1e-5, &mut out)
                    .expect("shapes fit")
            });
        });
        let (gate_up, mut out) = (
            filled(&cpu, rows * 2 * INTERMEDIATE),
            filled(&cpu, rows * INTERMEDIATE),
        );
        group.throughput(Throughput::Bytes(
            silu_mul::cost(rows, INTERMEDIATE, DType::F32).bytes(),
        ));
        group.bench_function(BenchmarkId::new("silu_mul", rows), |b| {
            b.iter(|| {
                cpu.silu_mul(&gate_up, rows, INTERMEDIATE, &mut out)
                    .expect("shapes fit")
            });
        });
    }
}

fn sampling(c: &mut Criterion) {
    let cpu = Cpu::new(None).expect("threads");
    let mut group = c.benchmark_group("sample");
    group.throughput(Throughput::Elements(VOCAB as u64));
    let logits = filled(&cpu, VOCAB);
    let mut out = vec![0];
    let warm = SamplingParams {
        temperature: 0.8,
        ..SamplingParams::greedy()
    };
    for (name, params) in [
        ("greedy", SamplingParams::greedy()),
        ("temperature", warm),
        ("top_k", SamplingParams { top_k: 50, ..warm }),
        ("top_p", SamplingParams { top_p: 0.9, ..warm }),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                cpu.sample(&logits, 1, VOCAB, &params, 0, &mut out)
                    .expect("shapes fit")
            });
        });
    }
}

criterion_group!(benches, gemv, gemm, attention, norm, sampling);
criterion_main!(benches);
