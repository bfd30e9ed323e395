//! What the machine's Python computes with PyTorch and Triton, if it has them.
//!
//! A script of ours gets a question as JSON and answers in lines of JSON: `{"torch": version}`, `{"triton": version}`,
//! `{"missing": why}`, `{"id": n, "us": [times…]}` or `{"id": n, "error": why}`. It runs in a process of its own behind ours, so the
//! two take no turns.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use stepscope_kernels::QkvLayout;
use stepscope_profiler::Timer;
use stepscope_profiler::microbench::{Sample, Series};

use super::python;

/// One program for Python: what all of it uses, a file for each [`Task`], and what reads the question.
const SCRIPT: &str = concat!(
    include_str!("replay.py"),
    include_str!("sdpa.py"),
    include_str!("steps.py"),
    include_str!("product.py"),
    include_str!("main.py"),
);

/// What Python said.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// The version of PyTorch.
    pub torch: Option<String>,
    /// The version of Triton.
    pub triton: Option<String>,
    /// Why there is nothing, or not all.
    pub missing: Option<String>,
    /// By the number of the question.
    pub rows: BTreeMap<usize, Row>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// It has times.
    Measured {
        /// Every sample.
        series: Series,
        /// What Python says that it took, where it does.
        backend: Option<String>,
    },
    /// Why not.
    Failed(String),
}

/// The dimensions of a decoder, as many layers of it as are to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of every model's config")]
pub struct Decoder {
    pub layers: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocab_size: usize,
}

/// What Python is asked to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// `scaled_dot_product_attention` of requests of one length in bfloat16, causal where there is more than one query; as torch wants
    /// it, keys and values lie one behind the other. Its inputs are rotated through copies that outgrow the L2 cache.
    Attention {
        /// Requests.
        requests: usize,
        /// Query rows of each.
        queries: usize,
        /// Keys that each request has.
        positions: usize,
        /// Query heads, key heads, and the elements of one.
        layout: QkvLayout,
    },
    /// One decode step of a decoder with random weights: embedding, layers, logits and the most likely token. Its time is the host's
    /// from one synchronisation to the next, as users of such a loop see it.
    DecodeStep {
        /// The model.
        decoder: Decoder,
        /// Requests.
        batch: usize,
        /// Keys that each request attends to.
        positions: usize,
        /// By `torch.compile`, with CUDA graphs; operation by operation otherwise.
        is_compiled: bool,
    },
    /// `out[m, n] = x[m, k] · weight[n, k]ᵀ` in bfloat16 by a kernel in Triton, autotuned, its inputs rotated through copies that
    /// outgrow the L2 cache.
    TritonProduct {
        /// Rows of `x`.
        m: usize,
        /// Rows of `weight`.
        n: usize,
        /// Columns of both.
        k: usize,
    },
}

impl Task {
    fn to_json(self, id: usize) -> Value {
        match self {
            Task::Attention {
                requests,
                queries,
                positions,
                layout,
            } => json!({
                "id": id,
                "task": "attention",
                "requests": requests,
                "queries": queries,
                "positions": positions,
                "heads": layout.heads,
                "kv_heads": layout.kv_heads,
                "head_dim": layout.head_dim,
            }),
            Task::DecodeStep {
                decoder,
                batch,
                positions,
                is_compiled,
            } => json!({
                "id": id,
                "task": "decode_step",
                "compiled": is_compiled,
                "batch": batch,
                "positions": positions,
                "layers": decoder.layers,
                "hidden": decoder.hidden_size,
                "intermediate": decoder.intermediate_size,
                "heads": decoder.heads,
                "kv_heads": decoder.kv_heads,
                "head_dim": decoder.head_dim,
                "vocab": decoder.vocab_size,
            }),
            Task::TritonProduct { m, n, k } => {
                json!({ "id": id, "task": "triton_product", "m": m, "n": n, "k": k })
            }
        }
    }
}

/// Lets Python do `tasks` on GPU `ordinal`, in at most `limit`. The rows of the answer go by the index of the task.
///
/// Triton is looked for only where a task needs it.
pub fn measure(tasks: &[Task], ordinal: usize, l2_bytes: u64, limit: Duration) -> Answer {
    let asked = question(tasks, ordinal, l2_bytes, limit);
    let answer = python::ask(SCRIPT, &[], &asked.to_string(), limit);
    understand(&answer.stdout, answer.failure)
}

/// It stops by itself before the limit.
fn question(tasks: &[Task], ordinal: usize, l2_bytes: u64, limit: Duration) -> Value {
    let tasks = tasks.iter().enumerate();
    let tasks: Vec<Value> = tasks.map(|(id, task)| task.to_json(id)).collect();
    json!({
        "device": ordinal,
        "seconds": (limit.as_secs_f64() - 5.0).max(1.0),
        "l2_bytes": l2_bytes,
        "tasks": tasks,
    })
}

/// Reads the script's lines. A script that was stopped leaves those that it had printed.
fn understand(stdout: &str, failure: Option<String>) -> Answer {
    let mut answer = Answer::default();
    let lines = stdout.lines().map(serde_json::from_str::<Value>);
    // A torch that prints something of its own is let talk.
    for line in lines.filter_map(Result::ok) {
        let text = |key: &str| line[key].as_str().map(str::to_owned);
        answer.missing = text("missing").or(answer.missing);
        answer.torch = text("torch").or(answer.torch);
        answer.triton = text("triton").or(answer.triton);
        let Some(id) = line["id"].as_u64().and_then(|id| usize::try_from(id).ok()) else {
            continue;
        };
        let times = line["us"].as_array().into_iter().flatten();
        let times = times.filter_map(Value::as_f64).filter(|us| us.is_finite());
        let samples: Vec<Sample> = times
            .map(|us| Sample {
                time_ns: 1e3 * us,
                sm_clock_hz: None,
            })
            .collect();
        let row = match (samples.is_empty(), line["error"].as_str()) {
            (false, None) => {
                let timer = match line["timer"].as_str() {
                    Some("wall") => Timer::Wall,
                    _ => Timer::Event,
                };
                let launches = line["launches"].as_u64().unwrap_or(1);
                Row::Measured {
                    series: Series::new(timer, usize::try_from(launches).unwrap_or(1), samples),
                    backend: text("backend"),
                }
            }
            (_, error) => Row::Failed(error.unwrap_or("it printed no times").to_owned()),
        };
        answer.rows.insert(id, row);
    }
    if let Some(failure) = failure {
        answer.missing.get_or_insert(failure);
    } else if answer.torch.is_none() {
        let silent = || "it says nothing".to_owned();
        answer.missing.get_or_insert_with(silent);
    }
    answer
}

#[cfg(test)]
mod tests;
