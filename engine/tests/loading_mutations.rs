//! Files with every byte spoilt and cut off everywhere: whatever comes of it, nothing panics, and nothing asks for
//! more memory than a small multiple of the file. And a right model is never in memory twice.

// clippy.toml allows these in test functions; what they share is no such function.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "loading/gguf_writer.rs"]
#[allow(dead_code)]
mod gguf_writer;
#[path = "loading/support.rs"]
#[allow(dead_code)]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use serde_json::Map;
use stepscope_engine::model::{LoadOptions, ModelConfig, from_bytes};
use stepscope_kernels::DType;

use gguf_writer::{BF16, F32, GgufWriter, Q8_0};
use support::{safetensors_bytes, tiny_config, tiny_tensors};

/// Counts what is asked for.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(held, Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Held by a test from its first line to its last: the counts are of the whole process, and what another test makes ready
/// would count as well.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// Runs `load` on mutations of `file`; each may hold `times` the file's size and `fixed` bytes at once.
fn check(file: &[u8], times: usize, fixed: usize, load: impl Fn(&[u8])) {
    load(file); // whatever is made once and kept
    // The counts are of the whole process: the test harness's own threads allocate a few kilobytes beside us.
    const HARNESS: usize = 64 << 10;
    let allowed = times * file.len() + fixed + HARNESS;
    let mut highest = 0;
    let mut run = |bytes: &[u8], what: &dyn Fn() -> String| {
        let ((), peak) = peak_of(|| load(bytes));
        assert!(
            peak <= allowed,
            "{}: {peak} bytes at once, allowed {allowed}",
            what()
        );
        highest = highest.max(peak);
    };
    run(file, &|| "as it is".to_owned());
    for len in 0..file.len() {
        run(&file[..len], &|| format!("cut after {len} bytes"));
    }
    for at in 0..file.len() {
        let mut spoilt = file.to_vec();
        for value in [
            0,
            1,
            b'"',
            b'9',
            0x7f,
            0x80,
            0xff,
            file[at] ^ 1,
            file[at].wrapping_add(1),
        ] {
            spoilt[at] = value;
            run(&spoilt, &|| format!("{value} at {at}"));
        }
    }
    for at in 0..file.len().saturating_sub(8) {
        for value in [u64::MAX, 1 << 62, 1 << 40, 1 << 31, 0] {
            let mut spoilt = file.to_vec();
            spoilt[at..at + 8].copy_from_slice(&value.to_le_bytes());
            run(&spoilt, &|| format!("{value} in 8 bytes at {at}"));
        }
    }
    let mut random = Random(20);
    for round in 0..5000 {
        let mut spoilt = file.to_vec();
        for _ in 0..random.below(8) + 1 {
            random.spoil(&mut spoilt);
        }
        run(&spoilt, &|| format!("random mutation {round}"));
    }
    println!(
        "at most {highest} bytes at once for a file of {}",
        file.len()
    );
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    /// Changes, removes, doubles or moves a few bytes.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        if bytes.len() < 16 {
            return;
        }
        let at = self.below(bytes.len() - 8);
        let len = self.below(8) + 1;
        match self.below(4) {
            0 => bytes[at] = self.below(256) as u8,
            1 => drop(bytes.drain(at..at + len)),
            2 => {
                let copied = bytes[at..at + len].to_vec();
                bytes.splice(at..at, copied);
            }
            _ => {
                let to = self.below(bytes.len() - 8);
                bytes.copy_within(at..at + len, to);
            }
        }
    }
}

/// The most that `run` asks for at once, beyond what was held before.
fn peak_of<R>(run: impl FnOnce() -> R) -> (R, usize) {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = run();
    (result, PEAK.load(Relaxed) - before)
}

fn read_config(bytes: &[u8]) -> Option<ModelConfig> {
    ModelConfig::from_json(bytes, Path::new("config.json"), &Map::new()).ok()
}

#[test]
fn config() {
    let _alone = alone();
    let mut config = tiny_config();
    config["rope_parameters"] = serde_json::json!({
        "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    config["eos_token_id"] = serde_json::json!([1, 2]);
    check(config.to_string().as_bytes(), 32, 16 << 10, |bytes| {
        if let Some(config) = read_config(bytes) {
            let _ = (config.parameters(), config.kv_bytes_per_token(DType::F32));
        }
    });
}

#[test]
fn safetensors() {
    let _alone = alone();
    let config = read_config(tiny_config().to_string().as_bytes()).unwrap();
    let file = safetensors_bytes(&tiny_tensors());
    check(&file, 16, 32 << 10, |bytes| {
        let _ = from_bytes::safetensors(bytes.to_vec(), &config, DType::F32);
    });
}

/// A model with one layer, matrices in different types.
fn gguf_model() -> GgufWriter {
    let mut file = GgufWriter::new();
    file.text("general.architecture", "llama")
        .u32("llama.block_count", 1)
        .u32("llama.context_length", 64)
        .u32("llama.embedding_length", 32)
        .u32("llama.feed_forward_length", 32)
        .u32("llama.attention.head_count", 2)
        .u32("llama.attention.head_count_kv", 1)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .tensor("token_embd.weight", &[6, 32], Q8_0, &[0.5; 192])
        .tensor("output_norm.weight", &[32], F32, &[1.0; 32])
        .tensor("rope_freqs.weight", &[8], F32, &[1.0; 8]);
    for (name, rows, ggml_type) in [
        ("attn_q", 32, BF16),
        ("attn_k", 16, Q8_0),
        ("attn_v", 16, Q8_0),
        ("attn_output", 32, Q8_0),
        ("ffn_gate", 32, Q8_0),
        ("ffn_up", 32, Q8_0),
        ("ffn_down", 32, Q8_0),
    ] {
        let values: Vec<f32> = (0..rows * 32).map(|i| i as f32).collect();
        file.tensor(
            &format!("blk.0.{name}.weight"),
            &[rows, 32],
            ggml_type,
            &values,
        );
    }
    for norm in ["attn_norm", "ffn_norm"] {
        file.tensor(&format!("blk.0.{norm}.weight"), &[32], F32, &[1.0; 32]);
    }
    file
}

#[test]
fn gguf() {
    let _alone = alone();
    let file = gguf_model().bytes();
    check(&file, 16, 32 << 10, |bytes| {
        let (_, weights) = from_bytes::gguf(bytes.to_vec(), DType::F32);
        drop(weights);
    });
}

#[test]
fn gguf_tokenizers() {
    let _alone = alone();
    let tokens = [
        "<unk>", "<s>", "</s>", "a", "b", "ab", "Ġ", "▁", "aba", "<0x0A>",
    ]
    .map(str::to_owned);
    let merges = ["a b", "ab a"].map(str::to_owned);
    for model in ["gpt2", "llama"] {
        let mut file = GgufWriter::new();
        file.text("general.architecture", "llama");
        for key in [
            "block_count",
            "context_length",
            "feed_forward_length",
            "attention.head_count",
        ] {
            file.u32(&format!("llama.{key}"), 1);
        }
        file.u32("llama.embedding_length", 2)
            .text("tokenizer.ggml.model", model)
            .text("tokenizer.ggml.pre", "smollm")
            .texts("tokenizer.ggml.tokens", &tokens)
            .i32s("tokenizer.ggml.token_type", &[2, 3, 3, 1, 1, 1, 1, 1, 4, 6])
            .f32s(
                "tokenizer.ggml.scores",
                &[0.0, 0.0, 0.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0, 0.0],
            )
            .texts("tokenizer.ggml.merges", &merges)
            .u32("tokenizer.ggml.bos_token_id", 1)
            .u32("tokenizer.ggml.eos_token_id", 2)
            .u32("tokenizer.ggml.unknown_token_id", 0)
            .text(
                "tokenizer.chat_template",
                "{% for m in messages %}{{ m.content }}{% endfor %}",
            )
            .tensor("token_embd.weight", &[1, 2], F32, &[0.0; 2]);
        // A tokenizer has caches and compiled expressions, whatever its size.
        check(&file.bytes(), 64, 4 << 20, |bytes| {
            let (tokenizer, _) = from_bytes::gguf(bytes.to_vec(), DType::F32);
            if let Ok(Some(tokenizer)) = tokenizer {
                let _ = tokenizer.encode("aba ab<s>\n", true);
                let _ = tokenizer.decode(&[1, 5, 8, 9, 2], true);
            }
        });
    }
}

#[test]
fn a_converted_model_is_held_once() {
    let _alone = alone();
    let mut file = gguf_model();
    let embedding = vec![0.5; 32 * 400_000];
    file.tensors.retain(|t| t.name != "token_embd.weight");
    file.tensor("token_embd.weight", &[400_000, 32], Q8_0, &embedding);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, file.bytes()).unwrap();
    drop((file, embedding));
    let options = LoadOptions {
        skip_tokenizer: true,
        ..support::options(&path)
    };
    let (model, peak) = peak_of(|| support::try_load(&options).unwrap());
    let weights = model.weight_bytes as usize;
    assert_eq!((model.dtype, model.mapped_bytes), (DType::BF16, 0));
    assert!(weights > 25_000_000);
    // Beside the weights: what each thread reads and widens at a time.
    let allowed = weights + (4 << 20);
    assert!(
        peak <= allowed,
        "{peak} bytes at once for weights of {weights}"
    );
}
