//! A made-up model of which the work of a step is known.

use stepscope_profiler::Work;
use stepscope_profiler::explain::{Communication, OperationWork, StepModel, StepShape, StepWork};

/// Seventy billion weights of two bytes in eighty layers, over eight ranks.
pub struct Model;

impl StepModel for Model {
    fn name(&self) -> &str {
        "a 70B model"
    }

    fn step(&self, shape: &StepShape) -> StepWork {
        let tokens = shape.tokens();
        let linear = Work {
            flops: 2 * tokens * 440_000_000 / 8 / 4,
            weight_bytes: 2 * 440_000_000 / 8,
            kv_bytes: 0,
            activation_bytes: tokens * 8192 * 4,
        };
        let attention = Work {
            flops: 4 * tokens * shape.context * 1024,
            kv_bytes: shape.batch_size * shape.context * 512,
            ..Work::default()
        };
        let operation = |name, calls, work| OperationWork { name, calls, work };
        StepWork {
            operations: vec![
                operation("linear", 320, linear),
                operation("attention", 80, attention),
            ],
            communication: Communication {
                ranks: 8,
                all_reduces: 160,
                all_reduce_bytes: tokens * 16_384,
                gathered_bytes: 0,
            },
        }
    }

    fn tp(&self) -> u64 {
        8
    }

    fn weight_bytes(&self) -> u64 {
        17_600_000_000
    }

    fn kv_bytes_per_token(&self) -> u64 {
        40_960
    }
}
