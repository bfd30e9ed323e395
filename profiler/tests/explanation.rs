//! The sentence that says what bounds a step.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use stepscope_profiler::{Phase, Record, StepKind, StepTotal, roofline};
use support::sample;

#[track_caller]
fn check(kind: StepKind, change: impl FnOnce(&mut Record), expected: &str) {
    let mut record = sample::record(30);
    change(&mut record);
    assert_eq!(roofline::sentence(&record, 0, kind), expected);
}

fn decode(record: &mut Record) -> &mut StepTotal {
    record.points[0].decode.as_mut().unwrap()
}

#[test]
fn prefill_by_compute() {
    check(
        StepKind::Prefill,
        |_| {},
        "Prefill is bound by compute: 27.9 GFLOP in 401 ms is 69.4 GFLOP/s, 67 % of the 104 GFLOP/s this machine reaches. \
         The largest loss is gate_up_proj (gemm_avx2), above its floor: 55.2 ms or 14 % of the step.",
    );
}

#[test]
fn decode_by_weights() {
    check(
        StepKind::Decode,
        |_| {},
        "Decode is bound by reading weights: 269 MB in 15.4 ms is 17.7 GB/s, 81 % of the 22.0 GB/s this machine reads from \
         DRAM.",
    );
}

#[test]
fn decode_by_kv_cache() {
    check(
        StepKind::Decode,
        |record| {
            let decode = decode(record);
            let steps = decode.steps as u64;
            for operation in &mut decode.operations {
                if operation.name == "attention" {
                    operation.work.kv_bytes = 40_000_000 * steps;
                    operation.duration_ns += 2_000_000 * steps;
                }
            }
            decode.wall_ns += 30 * 2_000_000 * steps;
        },
        "Decode is bound by reading the KV cache: 1.20 GB and 269 MB of weights in 75.4 ms is 19.5 GB/s, 89 % of the \
         22.0 GB/s this machine reads from DRAM.",
    );
}

#[test]
fn decode_by_overhead() {
    check(
        StepKind::Decode,
        |record| {
            let decode = decode(record);
            for phase in &mut decode.phases {
                if phase.name == Phase::Prepare {
                    phase.host_ns += 2 * decode.wall_ns;
                }
            }
            decode.wall_ns *= 3;
        },
        "Decode is bound by overhead: the limits of this machine account for 12.4 ms (27 %) of the 46.1 ms step; the largest \
         loss is prepare: 30.7 ms or 67 % of the step.",
    );
    check(
        StepKind::Decode,
        |record| {
            let decode = decode(record);
            for phase in &mut decode.phases {
                if phase.name == Phase::Forward {
                    phase.host_ns += 2 * decode.wall_ns;
                }
            }
            decode.wall_ns *= 3;
        },
        "Decode is bound by overhead: the limits of this machine account for 12.4 ms (27 %) of the 46.1 ms step; the largest \
         loss is forward, between its operations: 30.7 ms or 67 % of the step.",
    );
}

#[test]
fn decode_by_slow_kernels() {
    check(
        StepKind::Decode,
        |record| {
            let decode = decode(record);
            for operation in &mut decode.operations {
                operation.duration_ns *= 3;
            }
            decode.wall_ns *= 3;
        },
        "Decode is bound by slow kernels: the limits of this machine account for 12.4 ms (27 %) of the 46.1 ms step; the \
         largest loss is gate_up_proj (gemv_avx2), above its floor: 12.8 ms or 28 % of the step.",
    );
}

#[test]
fn a_model_that_fits_the_cache_is_held_to_the_caches_roof() {
    check(
        StepKind::Decode,
        |record| {
            let roofs = record.environment.roofs.as_mut().unwrap();
            roofs.bandwidth[0].up_to_bytes = Some(300_000_000);
            roofs.bandwidth[0].bytes_per_s = 25e9;
        },
        "Decode is bound by reading weights: 269 MB in 15.4 ms is 17.7 GB/s, 71 % of the 25.0 GB/s this machine reads from \
         L2. The largest loss is gate_up_proj (gemv_avx2), above its floor: 1.63 ms or 11 % of the step.",
    );
}

#[test]
fn faster_than_possible_is_an_error_report() {
    check(
        StepKind::Decode,
        |record| record.environment.roofs.as_mut().unwrap().bandwidth[1].bytes_per_s = 10e9,
        "Decode took 15.4 ms per step, but its work needs 27.2 ms at the limits measured on this machine: the cost model or \
         a roof is wrong.",
    );
}

#[test]
fn without_roofs() {
    check(
        StepKind::Decode,
        |record| record.environment.roofs = None,
        "Decode takes 15.4 ms per step, 38 % of it in gate_up_proj: 279 MFLOP at 18.1 GFLOP/s and 274 MB at 17.9 GB/s. What \
         bounds it is not known: no roof of this machine was measured.",
    );
}

#[test]
fn without_operations_or_steps() {
    check(
        StepKind::Decode,
        |record| decode(record).operations.clear(),
        "Decode takes 15.4 ms per step; its operations were not recorded.",
    );
    check(
        StepKind::Decode,
        |record| record.points[0].decode = None,
        "Decode was not measured.",
    );
    check(
        StepKind::Prefill,
        |record| record.points.clear(),
        "Prefill was not measured.",
    );
}
