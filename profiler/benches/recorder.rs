//! What recording costs: one operation, and a step as a 30-layer model makes it.
//!
//! Profiling may take 2 % of a step at most. Two reads of the clock and a push took 80 ns on an AMD EPYC virtual machine, so
//! 300 operations cost 24 µs: 2 % of a step of 1.2 ms.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use stepscope_profiler::{Level, Phase, Recorder, StepKind, Work};

const WORK: Work = Work {
    flops: 1_000,
    weight_bytes: 1_000,
    kv_bytes: 0,
    activation_bytes: 100,
};

const OPERATIONS_PER_STEP: u32 = 300;

fn record_operation(recorder: &mut Recorder, layer: u32) {
    let _ = recorder.operation("qkv_proj", Some(layer), black_box(WORK), || {
        Ok::<_, ()>(black_box("gemv_avx2"))
    });
}

fn record_step(recorder: &mut Recorder) -> stepscope_profiler::Step {
    recorder.begin_step(StepKind::Decode, 0, 1);
    recorder.phase(Phase::TokenPool, |_| ());
    recorder.phase(Phase::KvAlloc, |_| ());
    recorder.phase(Phase::Prepare, |_| ());
    recorder.phase(Phase::Forward, |recorder| {
        for index in 0..OPERATIONS_PER_STEP {
            record_operation(recorder, index / 10);
        }
    });
    recorder.phase(Phase::Sample, |_| ());
    recorder.end_step()
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recorder");
    group.bench_function("operation", |bencher| {
        bencher.iter_batched_ref(
            || {
                let mut recorder = Recorder::new(Level::Operations);
                record_step(&mut recorder); // the list of operations has its size from here on
                recorder.begin_step(StepKind::Decode, 1, 1);
                recorder
            },
            |recorder| record_operation(recorder, 0),
            BatchSize::SmallInput,
        );
    });
    for (name, level) in [
        ("step of 300 operations, all recorded", Level::Operations),
        ("step of 300 operations, phases only", Level::Phases),
        ("step of 300 operations, wall time only", Level::Steps),
    ] {
        group.bench_function(name, |bencher| {
            let mut recorder = Recorder::new(level);
            bencher.iter(|| record_step(&mut recorder));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
