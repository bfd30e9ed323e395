//! The least time that a step's work takes.

use serde::Serialize;

use super::ceilings::{Ceilings, practice};
use super::step_work::{OperationWork, StepWork};

/// The floor of a step on one rank, and what a chain of good kernels would take.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StepFloor {
    /// Every operation at the longer of its arithmetic and its bytes, one after the other, seconds. Nothing that computes the same
    /// on this device is faster.
    pub total_s: f64,
    /// The part of `total_s` in operations that arithmetic bounds.
    pub compute_s: f64,
    /// Reading weights, in operations that memory bounds.
    pub weights_s: f64,
    /// Reading and writing keys and values, likewise.
    pub kv_s: f64,
    /// Reading and writing activations, likewise.
    pub activations_s: f64,
    /// All-reduces at the whole rate of the link, not in `total_s` because they may overlap; zero on one rank.
    pub communication_s: f64,
    /// What separate kernels of the best kind take: each with its ramp, its bytes and its arithmetic at the rates of
    /// [`practice`], all-reduces left out.
    pub good_kernels_s: f64,
}

/// The floor of one call of an operation: seconds of its arithmetic and of its bytes, of which the longer counts.
pub fn operation_floor(operation: &OperationWork, ceilings: &Ceilings) -> [f64; 2] {
    let work = &operation.work;
    let activations = work.activation_bytes as f64;
    let memory_s = (work.weight_bytes + work.kv_bytes) as f64 / ceilings.bytes_per_s
        + activations / ceilings.activation_bytes_per_s(activations);
    let flops_per_s = match work.weight_bytes {
        0 => ceilings.flops_per_s,
        _ => ceilings.weights_flops_per_s,
    };
    [work.flops as f64 / flops_per_s, memory_s]
}

/// The floor of a step.
pub fn step_floor(step: &StepWork, ceilings: &Ceilings) -> StepFloor {
    let mut floor = StepFloor::default();
    for operation in &step.operations {
        let calls = operation.calls as f64;
        let work = &operation.work;
        let [compute_s, memory_s] = operation_floor(operation, ceilings);
        floor.total_s += calls * compute_s.max(memory_s);
        if compute_s >= memory_s {
            floor.compute_s += calls * compute_s;
        } else {
            let far_s = |bytes: u64| calls * bytes as f64 / ceilings.bytes_per_s;
            floor.weights_s += far_s(work.weight_bytes);
            floor.kv_s += far_s(work.kv_bytes);
            floor.activations_s +=
                calls * memory_s - far_s(work.weight_bytes) - far_s(work.kv_bytes);
        }
        let good_s = (compute_s / practice::GOOD_GEMM).max(memory_s / practice::RAMP_BANDWIDTH);
        floor.good_kernels_s += calls * (practice::RAMP_S + good_s);
    }
    if let Some(link) = ceilings.link {
        floor.communication_s = step.communication.ring_bytes() / link.bytes_per_s;
    }
    floor
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::precision::Precision;
    use crate::explain::step_work::Communication;
    use crate::gpus;
    use crate::recorder::Work;

    #[test]
    fn each_operation_takes_the_longer_of_its_two() {
        let ceilings = Ceilings {
            cache: None,
            ..Ceilings::of_gpu(gpus::find("h100-sxm").unwrap(), None)
        };
        let reads = OperationWork {
            name: "gate_up_proj",
            calls: 10,
            work: Work {
                flops: 1,
                weight_bytes: 335_000_000, // 100 µs
                kv_bytes: 33_500_000,      // 10 µs
                activation_bytes: 3_350_000,
            },
        };
        let computes = OperationWork {
            name: "attention",
            calls: 2,
            work: Work {
                flops: 989_400_000_000, // 1 ms
                ..reads.work
            },
        };
        let step = StepWork {
            operations: vec![reads, computes],
            communication: Communication {
                ranks: 2,
                all_reduces: 3,
                all_reduce_bytes: 450_000,
                gathered_bytes: 0,
            },
        };
        let floor = step_floor(&step, &ceilings);
        let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{a} instead of {b}");
        close(floor.weights_s, 1e-3);
        close(floor.kv_s, 0.1e-3);
        close(floor.activations_s, 0.01e-3);
        close(floor.compute_s, 2e-3);
        close(floor.total_s, 3.11e-3);
        // Two ranks send each tensor once: 3 × 450 KB at 450 GB/s.
        close(floor.communication_s, 3e-6);
        assert!(floor.good_kernels_s > floor.total_s + 12.0 * practice::RAMP_S);

        // With weights in fp8 their operations' arithmetic is twice as fast; both of these have some.
        let fp8 = Precision::parse("fp8").unwrap();
        let fp8 = Ceilings {
            cache: None,
            ..Ceilings::of_gpu_for(gpus::find("h100-sxm").unwrap(), None, fp8)
        };
        close(step_floor(&step, &fp8).compute_s, 2e-3 * 989.4 / 1978.9);
        close(step_floor(&step, &fp8).weights_s, 1e-3);

        // Activations that fit the cache come from there: 3.35 MB at 16.75 TB/s are 0.2 µs instead of 1.
        let cached = Ceilings {
            cache: Some([4e6, 5.0 * ceilings.bytes_per_s]),
            ..ceilings
        };
        close(step_floor(&step, &cached).activations_s, 0.002e-3);
    }
}
