//! Which shapes a model's steps have.

use std::fmt;

use serde_json::{Value, json};
use stepscope_engine::model::ModelConfig;
use stepscope_kernels::{Cost, DType, QkvLayout, attention_decode, attention_prefill, gemm};
use stepscope_microbench::peers::torch::Task;

/// A prefill, or the decode steps behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    Prefill,
    Decode,
}

impl Phase {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Phase::Prefill => "prefill",
            Phase::Decode => "decode",
        }
    }
}

/// One operation of one step, as it is launched once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) model: String,
    pub(super) phase: Phase,
    /// Requests in the step.
    pub(super) batch: usize,
    pub(super) work: Operation,
}

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// `out[m, n] = x[m, k] · weight[n, k]ᵀ`.
    Gemm {
        name: &'static str,
        m: usize,
        n: usize,
        k: usize,
    },
    /// The last `queries` of `positions` of each request.
    Attention {
        layout: QkvLayout,
        queries: usize,
        positions: usize,
    },
}

impl Operation {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Operation::Gemm { name, .. } => name,
            Operation::Attention { .. } => "attention",
        }
    }
}

/// The shapes of a model's prefills of `input` tokens in each of `prefills` batches, and of its decode steps at that length in each
/// of `decodes`.
///
/// `lm_head` runs on the last token of each request alone, in a prefill too: there it has the shape that it has in decode.
pub(super) fn shapes(
    model: &str,
    config: &ModelConfig,
    prefills: &[usize],
    decodes: &[usize],
    input: usize,
) -> Vec<Shape> {
    let layout = QkvLayout {
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
    };
    let layer = [
        ("qkv", layout.width(), config.hidden_size),
        ("o", config.hidden_size, layout.q_width()),
        ("gate_up", 2 * config.intermediate_size, config.hidden_size),
        ("down", config.hidden_size, config.intermediate_size),
    ];
    let head = ("lm_head", config.vocab_size, config.hidden_size);
    let mut all = Vec::new();
    let phases = [
        (Phase::Decode, decodes, 1),
        (Phase::Prefill, prefills, input),
    ];
    for (phase, batches, queries) in phases {
        let head = (phase == Phase::Decode).then_some(head);
        for &batch in batches {
            let mut add = |work| {
                all.push(Shape {
                    model: model.to_owned(),
                    phase,
                    batch,
                    work,
                });
            };
            for (name, n, k) in layer.into_iter().chain(head) {
                add(Operation::Gemm {
                    name,
                    m: batch * queries,
                    n,
                    k,
                });
            }
            add(Operation::Attention {
                layout,
                queries,
                positions: input,
            });
        }
    }
    all
}

impl Shape {
    /// What it cannot do without, numbers stored as bfloat16.
    pub(super) fn cost(&self) -> Cost {
        const BF16: DType = DType::BF16;
        match self.work {
            Operation::Gemm { m, n, k, .. } => gemm::cost(m, n, k, false, BF16, BF16),
            Operation::Attention {
                layout,
                queries,
                positions,
            } => match self.phase {
                Phase::Prefill => {
                    let requests = vec![(queries, positions); self.batch];
                    attention_prefill::cost(&requests, layout, BF16, BF16)
                }
                Phase::Decode => {
                    attention_decode::cost(&vec![positions; self.batch], layout, BF16, BF16)
                }
            },
        }
    }

    /// Bytes of one copy of everything that a launch reads and writes.
    pub(super) fn bytes(&self) -> u64 {
        match self.work {
            Operation::Gemm { .. } => self.cost().bytes(),
            Operation::Attention {
                layout,
                queries,
                positions,
            } => {
                let tokens = (self.batch * queries) as u64;
                let kept = (self.batch * positions * 2 * layout.kv_width()) as u64;
                2 * (tokens * (layout.width() + layout.q_width()) as u64 + kept)
            }
        }
    }

    /// The same for torch, of attention.
    pub(super) fn of_torch(&self) -> Option<Task> {
        match self.work {
            Operation::Gemm { .. } => None,
            Operation::Attention {
                layout,
                queries,
                positions,
            } => Some(Task::Attention {
                requests: self.batch,
                queries,
                positions,
                layout,
            }),
        }
    }

    /// The numbers of the shape, as a table shows them.
    pub(super) fn dimensions(&self) -> String {
        match self.work {
            Operation::Gemm { m, n, k, .. } => format!("{m} × {n} × {k}"),
            Operation::Attention {
                layout,
                queries,
                positions,
            } => format!(
                "{} × {queries} of {positions}, {}/{} heads of {}",
                self.batch, layout.heads, layout.kv_heads, layout.head_dim
            ),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let shape = match self.work {
            Operation::Gemm { m, n, k, .. } => json!({ "m": m, "n": n, "k": k }),
            Operation::Attention {
                layout,
                queries,
                positions,
            } => json!({
                "requests": self.batch,
                "queries": queries,
                "positions": positions,
                "heads": layout.heads,
                "kv_heads": layout.kv_heads,
                "head_dim": layout.head_dim,
            }),
        };
        json!({
            "model": self.model,
            "phase": self.phase.name(),
            "batch": self.batch,
            "operation": self.work.name(),
            "shape": shape,
        })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} ({})",
            self.model,
            self.phase.name(),
            self.work.name(),
            self.dimensions()
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    fn of(model: &str) -> Vec<Shape> {
        let config = crate::gpu_check::config(model, &Map::new()).unwrap();
        shapes(model, &config, &[1, 8], &[1, 8, 64], 1024)
    }

    #[track_caller]
    fn check(model: &str, phase: Phase, batch: usize, expected: &[&str]) {
        let found: Vec<String> = of(model)
            .into_iter()
            .filter(|shape| shape.phase == phase && shape.batch == batch)
            .map(|shape| format!("{} {}", shape.work.name(), shape.dimensions()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn shapes_are_those_of_the_model() {
        check(
            "qwen2.5-7b",
            Phase::Decode,
            64,
            &[
                "qkv 64 × 4608 × 3584",
                "o 64 × 3584 × 3584",
                "gate_up 64 × 37888 × 3584",
                "down 64 × 3584 × 18944",
                "lm_head 64 × 152064 × 3584",
                "attention 64 × 1 of 1024, 28/4 heads of 128",
            ],
        );
        check(
            "llama-3.1-8b",
            Phase::Prefill,
            8,
            &[
                "qkv 8192 × 6144 × 4096",
                "o 8192 × 4096 × 4096",
                "gate_up 8192 × 28672 × 4096",
                "down 8192 × 4096 × 14336",
                "attention 8 × 1024 of 1024, 32/8 heads of 128",
            ],
        );
        // 3 batches of 6 in decode, 2 of 5 in prefill.
        assert_eq!(of("qwen2.5-0.5b").len(), 28);
    }

    #[test]
    fn torch_is_asked_for_attention_and_nothing_else() {
        let config = crate::gpu_check::config("qwen2.5-7b", &Map::new()).unwrap();
        let all = shapes("qwen2.5-7b", &config, &[], &[8], 1024);
        let asked: Vec<Task> = all.iter().filter_map(Shape::of_torch).collect();
        let layout = QkvLayout {
            heads: 28,
            kv_heads: 4,
            head_dim: 128,
        };
        let expected = Task::Attention {
            requests: 8,
            queries: 1,
            positions: 1024,
            layout,
        };
        assert_eq!(asked, [expected]);
    }

    #[test]
    fn work_and_bytes_are_those_of_the_operations() {
        let all = of("llama-3.1-8b");
        let head = &all[4];
        assert_eq!(head.work.name(), "lm_head");
        assert_eq!(head.cost().flops, 2 * 128_256 * 4096);
        assert_eq!(head.bytes(), 2 * (128_256 * 4096 + 4096 + 128_256));
        let attention = &all[5];
        assert_eq!(attention.cost().flops, 4 * 1024 * 32 * 128);
        // A row of queries, keys and values, one of outputs, and keys and values of 1024 positions.
        assert_eq!(attention.bytes(), 2 * (6144 + 4096 + 1024 * 2 * 1024));
    }
}
