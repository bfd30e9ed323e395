//! Any bytes as the safetensors file of a model with one small layer.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::Map;
use stepscope_engine::model::{ModelConfig, from_bytes};
use stepscope_kernels::DType;

/// That of `tiny_config` in engine/tests/loading/support.rs, so that its file is a seed that loads.
const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 10,
    "tie_word_embeddings": true
}"#;

static MODEL: LazyLock<ModelConfig> = LazyLock::new(|| {
    ModelConfig::from_json(CONFIG.as_bytes(), Path::new("config.json"), &Map::new())
        .expect("the config above is right")
});

fuzz_target!(|bytes: &[u8]| {
    let _ = from_bytes::safetensors(bytes.to_vec(), &MODEL, DType::F32);
});
