//! Whole steps and their host phases on the CPU device, under criterion: `cargo bench -p stepscope-engine --bench steps`.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)] // a benchmark

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use stepscope_engine::model::{LoadFormat, LoadOptions, Model, NoProgress, load};
use stepscope_engine::pool::{KvAllocator, TokenPool};
use stepscope_engine::{Runner, RunnerOptions};
use stepscope_kernels::Cpu;

fn dummy_smollm2() -> Model {
    let options = LoadOptions {
        model: "smollm2-135m".to_owned(),
        format: LoadFormat::Dummy,
        skip_tokenizer: true,
        ..LoadOptions::default()
    };
    load(&options, &Cpu::new(None).unwrap(), &NoProgress).unwrap()
}

fn steps(c: &mut Criterion) {
    let model = dummy_smollm2();
    let mut group = c.benchmark_group("prefill");
    group.sample_size(10);
    for tokens in [32, 512] {
        let mut runner = Runner::new(
            Cpu::new(None).unwrap(),
            &model,
            &RunnerOptions::small(1, tokens),
        )
        .unwrap();
        let prompt = vec![1; tokens];
        group.throughput(Throughput::Elements(tokens as u64));
        group.bench_function(format!("smollm2-135m/1x{tokens}"), |b| {
            b.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    let (batch, step) = runner.prefill(&[&prompt]).unwrap();
                    total += Duration::from_nanos(step.wall_ns);
                    runner.release(batch);
                }
                total
            });
        });
    }
    group.finish();

    let mut group = c.benchmark_group("decode");
    group.sample_size(10);
    for batch_size in [1, 4, 16] {
        let mut runner = Runner::new(
            Cpu::new(None).unwrap(),
            &model,
            &RunnerOptions::small(batch_size, 4096),
        )
        .unwrap();
        let prompt = vec![1; 256];
        group.throughput(Throughput::Elements(batch_size as u64));
        group.bench_function(format!("smollm2-135m/{batch_size}x256"), |b| {
            b.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                let prompts = vec![prompt.as_slice(); batch_size];
                let (mut batch, _) = runner.prefill(&prompts).unwrap();
                for _ in 0..iterations {
                    total += Duration::from_nanos(runner.decode(&mut batch, None).unwrap().wall_ns);
                }
                runner.release(batch);
                total
            });
        });
    }
    group.finish();
}

fn pools(c: &mut Criterion) {
    c.bench_function("token_pool/take and release 64 rows", |b| {
        let mut pool = TokenPool::new(64, 1024).unwrap();
        b.iter(|| {
            for row in black_box(pool.take(64).unwrap()) {
                pool.release(row);
            }
        });
    });
    c.bench_function("kv_alloc/64 requests of 1024 tokens, 16 per page", |b| {
        b.iter_batched_ref(
            || {
                (
                    KvAllocator::new(64 * 64, 16).unwrap(),
                    Vec::with_capacity(64 * 64),
                )
            },
            |(pool, pages)| pool.take(64 * 64, pages).unwrap(),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, pools, steps);
criterion_main!(benches);
