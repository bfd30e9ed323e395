//! Random records: well-formed JSON with any content, absurd figures and contradictions included.

use std::borrow::Cow;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use stepscope_profiler::activity::{Cause, DeviceActivity, GapTotal};
use stepscope_profiler::gpu_watch::{GpuWatch, Range};
use stepscope_profiler::*;

use super::sample;

/// Any record that [`Record::read`] accepts, without NaN, which does not equal itself.
pub fn record() -> impl Strategy<Value = Record> {
    (
        vec(point(), 0..4),
        option::of(roofs()),
        memory(),
        any::<(bool, bool)>(),
        name(),
        number(),
    )
        .prop_map(
            |(points, roofs, memory, (complete, skips), model, load_s)| {
                let mut record = sample::record(0);
                record.points = points;
                record.environment.roofs = roofs;
                record.memory = memory;
                record.complete = complete;
                record.run.model.name = model;
                record.run.load_s = load_s;
                if !skips {
                    record.skipped.clear();
                }
                record
            },
        )
}

/// Names that break careless writers.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["qkv_proj", "attention", "silu_mul", "lm_head", "sample"])
            .prop_map(str::to_owned),
        1 => prop::sample::select(vec!["layer 3", "a;b", "gemm_[k]", "\"<&>'", "", " ", "x 1.5", "\n", "-", "Ω"])
            .prop_map(str::to_owned),
        1 => ".{0,12}",
    ]
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => 0.0..1e12,
        1 => prop::sample::select(vec![0.0, -1.0, f64::MIN_POSITIVE, f64::MAX]),
        1 => prop::num::f64::NORMAL,
    ]
}

fn integer() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0..100_000_000_u64,
        1 => Just(0),
        1 => any::<u64>(),
    ]
}

fn kind() -> impl Strategy<Value = StepKind> {
    prop_oneof![Just(StepKind::Prefill), Just(StepKind::Decode)]
}

fn phase() -> impl Strategy<Value = Phase> {
    prop::sample::select(Phase::ALL.to_vec())
}

fn layer() -> impl Strategy<Value = Option<u32>> {
    option::of(prop_oneof![8 => 0..4_u32, 1 => any::<u32>()])
}

prop_compose! {
    fn work()(flops in integer(), weight_bytes in integer(), kv_bytes in integer(), activation_bytes in integer()) -> Work {
        Work { flops, weight_bytes, kv_bytes, activation_bytes }
    }
}

prop_compose! {
    fn roofs()(
        flops_per_s in number(),
        bandwidth in vec((name(), option::of(integer()), number()), 0..3),
    ) -> Roofs {
        Roofs {
            flops_per_s,
            bandwidth: bandwidth
                .into_iter()
                .map(|(name, up_to_bytes, bytes_per_s)| BandwidthRoof { name, up_to_bytes, bytes_per_s })
                .collect(),
            method: String::new(),
        }
    }
}

prop_compose! {
    fn memory()(parts in any::<[u64; 6]>(), peak_rss in option::of(integer())) -> Memory {
        let [weights, weights_mapped, kv_pool, kv_used_peak, token_pool, activations] = parts;
        Memory { weights, weights_mapped, kv_pool, kv_used_peak, token_pool, activations, peak_rss }
    }
}

prop_compose! {
    fn operation()(
        name in name(), kernel in name(), phase in phase(), layer in layer(), work in work(),
        start_ns in integer(), duration_ns in integer(), timer in 0..5_usize,
    ) -> Operation {
        Operation {
            name: Cow::Owned(name), kernel: Cow::Owned(kernel), phase, layer, work, launches: layer.unwrap_or(0), start_ns, duration_ns,
            timer: [Timer::Wall, Timer::Event, Timer::Cupti, Timer::None, Timer::Graph][timer],
        }
    }
}

prop_compose! {
    /// What a GPU did, or did not.
    fn device()(parts in any::<[u64; 12]>(), gaps in vec((0..4_usize, integer(), integer()), 0..6)) -> DeviceActivity {
        let [steps, window_ns, busy_ns, overlap_ns, launched, kernels, graph_kernels, untimed, foreign, dropped, recording_ns, untraced] = parts;
        DeviceActivity {
            steps, window_ns, busy_ns, overlap_ns, launched, kernels, graph_kernels, untimed, foreign, dropped, recording_ns, untraced,
            gaps: gaps.into_iter().map(|(cause, count, ns)| GapTotal { cause: Cause::ALL[cause], count, ns }).collect(),
            ..DeviceActivity::default()
        }
    }
}

prop_compose! {
    fn watch()(
        samples in integer(), clocks in any::<Option<[u32; 3]>>(), seconds in number(), energy_j in option::of(number()),
        bits in any::<Option<u64>>(), names in vec(name(), 0..3), other_processes in any::<Option<u32>>(),
    ) -> GpuWatch {
        let range = clocks.map(|[min, median, max]| Range { min, median, max });
        GpuWatch {
            samples, seconds, energy_j, other_processes, sm_clock_mhz: range, loaded_sm_clock_mhz: range, throttle_bits: bits,
            throttled_by: names, gpm_percent: energy_j.map(|x| [x, x, x]), ..GpuWatch::default()
        }
    }
}

/// What an emulated device counts.
fn counts() -> impl Strategy<Value = (Vec<KernelCount>, Vec<Finding>)> {
    let kernel = (name(), name(), 1..5_u64, btree_map(name(), integer(), 0..3)).prop_map(
        |(operation, function, launches, counters)| KernelCount {
            operation,
            kernel: function.clone(),
            function,
            launches,
            counters,
        },
    );
    let finding =
        (name(), name(), name(), integer()).prop_map(|(operation, function, message, count)| {
            Finding {
                operation,
                function,
                message,
                count,
            }
        });
    (vec(kernel, 0..3), vec(finding, 0..2))
}

prop_compose! {
    fn step()(
        kind in kind(), index in 0..1000_usize, wall_ns in integer(),
        phases in vec((phase(), integer(), integer(), option::of(integer())), 0..7),
        operations in vec(operation(), 0..6),
        (kernels, findings) in counts(), device in option::of(device()), sm_clock_mhz in option::of(number()),
    ) -> Step {
        Step {
            kind, index, batch_size: index, wall_ns,
            phases: phases
                .into_iter()
                .map(|(name, start_ns, host_ns, gpu_ns)| PhaseTime { name, start_ns, host_ns, gpu_ns })
                .collect(),
            operations,
            kernels,
            findings,
            device,
            sm_clock_mhz,
        }
    }
}

prop_compose! {
    /// A step that was counted.
    fn counted()(
        kind in kind(), chip in name(), metrics in vec(name(), 0..3), passes in 0..9_usize,
        operations in vec((name(), name(), integer(), work(), btree_map(name(), number(), 0..3)), 0..3),
    ) -> CountedStep {
        CountedStep {
            kind, source: CountSource::Measured, chip, metrics, passes,
            operations: operations
                .into_iter()
                .map(|(name, kernel, launches, work, values)| CountedOperation { name, kernel, launches, work, values })
                .collect(),
        }
    }
}

prop_compose! {
    /// An operation that was replayed.
    fn replayed()(
        name in name(), kernel in name(), calls in integer(), launches in number(), work in work(), calls_in_graph in integer(),
        samples_ns in vec(number(), 0..4),
    ) -> ReplayedOperation {
        ReplayedOperation { name, kernel, calls, launches, work, calls_in_graph, samples_ns, timer: Timer::Graph }
    }
}

/// Sums that were not summed from anything.
fn total() -> impl Strategy<Value = StepTotal> {
    let steps = prop_oneof![Just(0_usize), 1..5_usize, any::<usize>()];
    (steps, integer(), vec(step(), 0..3)).prop_map(|(steps, wall_ns, summed)| {
        let mut total = StepTotal::empty();
        for step in &summed {
            total.add(step);
        }
        StepTotal {
            steps,
            wall_ns,
            ..total
        }
    })
}

prop_compose! {
    fn repetition()(
        latencies in any::<(u32, Option<u32>, Option<u32>)>(),
        total_latency_s in number(),
        output_ids in vec(any::<u32>(), 0..3),
        steps in vec(step(), 0..5),
    ) -> Repetition {
        Repetition {
            prefill_latency_s: f64::from(latencies.0) / 1e6,
            first_decode_latency_s: latencies.1.map(f64::from),
            median_decode_latency_s: latencies.2.map(f64::from),
            total_latency_s,
            output_ids,
            steps,
        }
    }
}

prop_compose! {
    fn point()(
        batch_size in any::<usize>(), input_len in any::<usize>(), output_len in any::<usize>(),
        repetitions in vec(repetition(), 0..3), prefill in total(), decode in option::of(total()),
        gpu in option::of(watch()), counted in vec(counted(), 0..3), replayed in vec(replayed(), 0..3),
    ) -> Point {
        Point { batch_size, input_len, output_len, repetitions, prefill, decode, gpu, counted, replayed }
    }
}
