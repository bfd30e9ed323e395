//! The work of a step that nobody ran here: numbers from a model's shape, for steps that other programs measured.

use serde::Serialize;

use crate::recorder::{StepKind, Work};

/// A step of a static batch, all requests alike.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepShape {
    /// Prefill or decode.
    pub kind: StepKind,
    /// Requests.
    pub batch_size: u64,
    /// Tokens of each request that go through the layers: the prompt in a prefill, 1 in a decode step.
    pub new_tokens: u64,
    /// Tokens of each request in the KV cache once the step's own are written.
    pub context: u64,
}

impl StepShape {
    /// Tokens that go through the layers.
    pub fn tokens(&self) -> u64 {
        self.batch_size.saturating_mul(self.new_tokens)
    }

    /// `decode, batch 4, context 1536` or `prefill, batch 4, 1024 tokens each`.
    pub fn label(&self) -> String {
        match self.kind {
            StepKind::Prefill => format!(
                "prefill, batch {}, {} tokens each",
                self.batch_size, self.new_tokens
            ),
            StepKind::Decode => format!(
                "decode, batch {}, context {}",
                self.batch_size, self.context
            ),
        }
    }
}

/// One operation of a step, on one rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OperationWork {
    /// As in records: `qkv_proj`, `attention`.
    pub name: &'static str,
    /// How often it runs in the step.
    pub calls: u64,
    /// The work of one call.
    pub work: Work,
}

/// What the ranks of a tensor-parallel step tell each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Communication {
    /// Tensor-parallel ranks.
    pub ranks: u64,
    /// All-reduces in the step: two per layer, and one after the embedding.
    pub all_reduces: u64,
    /// Bytes of the tensor that each all-reduce sums.
    pub all_reduce_bytes: u64,
    /// Bytes of the logits that the ranks gather at the end.
    pub gathered_bytes: u64,
}

impl Communication {
    /// Bytes that every rank sends in all all-reduces by the ring algorithm, which sends no more than it must:
    /// 2 (n − 1) / n of the tensor (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms", 2009).
    pub fn ring_bytes(&self) -> f64 {
        if self.ranks < 2 {
            return 0.0;
        }
        let ranks = self.ranks as f64;
        2.0 * (ranks - 1.0) / ranks * self.all_reduces as f64 * self.all_reduce_bytes as f64
    }
}

/// The work of a step on one rank.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct StepWork {
    /// Its operations.
    pub operations: Vec<OperationWork>,
    /// What the ranks tell each other.
    pub communication: Communication,
}

impl StepWork {
    /// All operations together.
    pub fn total(&self) -> Work {
        let mut total = Work::default();
        for operation in &self.operations {
            total.flops += operation.calls * operation.work.flops;
            total.weight_bytes += operation.calls * operation.work.weight_bytes;
            total.kv_bytes += operation.calls * operation.work.kv_bytes;
            total.activation_bytes += operation.calls * operation.work.activation_bytes;
        }
        total
    }

    /// Kernels that must be launched at least: one per operation and all-reduce.
    pub fn launches(&self) -> u64 {
        self.operations.iter().map(|o| o.calls).sum::<u64>() + self.communication.all_reduces
    }
}

/// A model whose steps' work is known: what an explanation asks about shapes that were measured elsewhere.
pub trait StepModel {
    /// The name that sentences use.
    fn name(&self) -> &str;

    /// The work of a step on one of `tp` ranks.
    fn step(&self, shape: &StepShape) -> StepWork;

    /// Tensor-parallel ranks.
    fn tp(&self) -> u64;

    /// Pipeline-parallel stages, which a batch passes through one after the other.
    fn pp(&self) -> u64 {
        1
    }

    /// Bytes of all weights on one rank, the embedding included.
    fn weight_bytes(&self) -> u64;

    /// Bytes of one token's keys and values on one rank.
    fn kv_bytes_per_token(&self) -> u64;
}
