//! Inputs that once went wrong: none may panic, whatever comes of it.

use std::fs;
use std::path::Path;

use serde_json::Map;
use stepscope_engine::model::{ModelConfig, from_bytes};
use stepscope_kernels::DType;

use crate::support::{fixtures, tiny_config};

fn each(kind: &str, run: impl Fn(Vec<u8>)) {
    let mut count = 0;
    for entry in fs::read_dir(fixtures().join("regressions").join(kind)).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        run(fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 0, "no inputs for {kind}");
}

#[test]
fn safetensors() {
    let config = tiny_config().to_string();
    let config =
        ModelConfig::from_json(config.as_bytes(), Path::new("config.json"), &Map::new()).unwrap();
    each("safetensors", |bytes| {
        drop(from_bytes::safetensors(bytes, &config, DType::BF16))
    });
}

#[test]
fn gguf() {
    each("gguf", |bytes| {
        let (tokenizer, _) = from_bytes::gguf(bytes, DType::BF16);
        if let Ok(Some(tokenizer)) = tokenizer {
            let _ = tokenizer.encode("a text", true);
        }
    });
}

#[test]
fn config() {
    each("config", |bytes| {
        if let Ok(config) = ModelConfig::from_json(&bytes, Path::new("config.json"), &Map::new()) {
            let _ = (
                config.parameters(),
                config.kv_bytes_per_token(DType::F32),
                config.inverse_frequencies(),
            );
        }
    });
}
