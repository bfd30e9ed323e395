//! torch's `scaled_dot_product_attention` on the same shapes, by the machine's Python, if that has torch.
//!
//! It runs in a process of its own behind ours, so the two take no turns. Its keys and values lie one behind the other, while ours
//! lie in pages.

use std::time::Duration;

use serde_json::{Value, json};
use stepscope_microbench::peers::{python, torch};

use super::list::{Operation, Shape};

const SCRIPT: &str = include_str!("sdpa.py");

/// Measures those of `shapes` that are attention.
pub(super) fn measure(
    shapes: &[&Shape],
    ordinal: usize,
    l2_bytes: u64,
    limit: Duration,
) -> torch::Answer {
    let asked = question(shapes, ordinal, l2_bytes, limit);
    let answer = python::ask(SCRIPT, &[], &asked.to_string(), limit);
    torch::understand(&answer.stdout, answer.failure)
}

/// What the script is asked: it stops by itself before the limit.
fn question(shapes: &[&Shape], ordinal: usize, l2_bytes: u64, limit: Duration) -> Value {
    let attention = shapes
        .iter()
        .enumerate()
        .filter(|(_, shape)| matches!(shape.work, Operation::Attention { .. }))
        .map(|(id, shape)| {
            let mut json = shape.to_json()["shape"].take();
            json["id"] = json!(id);
            json
        });
    json!({
        "device": ordinal,
        "seconds": (limit.as_secs_f64() - 5.0).max(1.0),
        "l2_bytes": l2_bytes,
        "shapes": attention.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::super::list::shapes;
    use super::*;

    #[test]
    fn attention_is_asked_for_and_nothing_else() {
        let config = crate::gpu_check::config("qwen2.5-7b", &Map::new()).unwrap();
        let all = shapes("qwen2.5-7b", &config, &[], &[8], 1024);
        let all: Vec<&Shape> = all.iter().collect();
        let asked = question(&all, 2, 50 << 20, Duration::from_secs(30));
        assert_eq!(
            asked,
            json!({
                "device": 2, "seconds": 25.0, "l2_bytes": 52_428_800,
                "shapes": [{
                    "id": 5, "requests": 8, "queries": 1, "positions": 1024,
                    "heads": 28, "kv_heads": 4, "head_dim": 128,
                }],
            })
        );
    }

    /// What the script uses of torch, without its work: every replay takes 2 ms, and head dimension 80 is refused.
    const STAND_IN: &str = r#"
import contextlib, sys, types

class Tensor:
    def __init__(self, *shape, **of):
        assert of == {"device": "cuda", "dtype": "bfloat16"}, of
        self.shape = shape
    def __mul__(self, other): return self
    def __sub__(self, other): return self

class Stream:
    def wait_stream(self, other): pass

class Graph:
    def replay(self): clock[0] += 2.0

class Event:
    def __init__(self, enable_timing): assert enable_timing
    def record(self): self.time = clock[0]
    def elapsed_time(self, end): return end.time - self.time

def attend(q, k, v, is_causal, enable_gqa=False):
    if q.shape[3] == 80:
        raise RuntimeError("No available kernel.\nAborting execution.")
    assert k.shape == v.shape and q.shape[::3] == k.shape[::3], (q.shape, k.shape)
    assert enable_gqa == (q.shape[1] != k.shape[1]) and is_causal == (q.shape[2] > 1)

clock = [0.0]
within = lambda *arguments: contextlib.nullcontext()
torch = types.ModuleType("torch")
torch.__version__, torch.bfloat16, torch.rand, torch.no_grad = "2.11.0", "bfloat16", Tensor, within
torch.manual_seed = lambda seed: None
torch._fused_sdp_choice = lambda q, k, v, mask, dropout, causal, enable_gqa: 1
torch.nn = types.SimpleNamespace(functional=types.SimpleNamespace(scaled_dot_product_attention=attend))
torch.cuda = types.SimpleNamespace(
    is_available=lambda: True, set_device=lambda device: None, get_device_name=lambda: "a GPU", empty_cache=lambda: None,
    mem_get_info=lambda: (8 << 30, 80 << 30), synchronize=lambda: None, current_stream=Stream, Stream=Stream, stream=within,
    graph=within, CUDAGraph=Graph, Event=Event)
sys.modules["torch"] = torch
"#;

    #[test]
    fn the_script_measures_each_shape() {
        let shape = |model: &str, overrides| {
            let overrides = json!({ "head_dim": overrides });
            let config = crate::gpu_check::config(model, overrides.as_object().unwrap()).unwrap();
            shapes(model, &config, &[2], &[], 256).pop().unwrap()
        };
        let all = [
            shape("qwen2.5-7b", 128),
            shape("smollm2-1.7b", 64),
            shape("qwen2.5-7b", 80),
        ];
        let all: Vec<&Shape> = all.iter().collect();
        let asked = question(&all, 0, 50 << 20, Duration::from_secs(60));
        let script = format!("{STAND_IN}\n{SCRIPT}");
        let answer = python::ask(&script, &[], &asked.to_string(), Duration::from_secs(60));
        let cannot_start = |failure: &String| failure.contains("cannot be started");
        if answer.failure.as_ref().is_some_and(cannot_start) {
            return; // no Python: the test below says so
        }
        let sdpa = torch::understand(&answer.stdout, answer.failure);
        assert_eq!(sdpa.missing, None, "{}", answer.stdout);
        assert_eq!(sdpa.torch.as_deref(), Some("2.11.0"));
        // Of 2 requests, 256 tokens, 28 and 4 heads of 128: 8.4 MB, 33 copies of which outgrow 5 times the cache.
        let copies = 33.0;
        for id in [0, 1] {
            let torch::Row::Measured { series, backend } = &sdpa.rows[&id] else {
                panic!("{sdpa:?}");
            };
            assert_eq!(backend.as_deref(), Some("flash"));
            assert_eq!(series.samples.len(), 30);
            if id == 0 {
                let median = series.median_ns().unwrap();
                assert!((median - 2e6 / copies).abs() < 1e-3, "{median}");
            }
        }
        let torch::Row::Failed(why) = &sdpa.rows[&2] else {
            panic!("{sdpa:?}");
        };
        assert_eq!(
            why,
            "RuntimeError: No available kernel. Aborting execution."
        );
    }

    /// The script itself, in the Python of this machine, which need not have torch.
    #[test]
    fn the_script_says_why_it_cannot() {
        let sdpa = measure(&[], 0, 1, Duration::from_secs(60));
        let missing = sdpa.missing.as_deref().unwrap_or_default();
        let why = [
            "cannot import torch",
            "finds no GPU",
            "cannot be started",
            "torch cannot use",
        ];
        assert!(
            sdpa.torch.is_some() || why.iter().any(|why| missing.contains(why)),
            "{sdpa:?}"
        );
    }
}
