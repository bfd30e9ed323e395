//! Any bytes as a `config.json`, and what is computed from it.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use serde_json::Map;
use stepscope_engine::model::ModelConfig;
use stepscope_kernels::DType;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(config) = ModelConfig::from_json(bytes, Path::new("config.json"), &Map::new()) {
        let _ = config.parameters();
        let _ = config.kv_bytes_per_token(DType::F32);
        if config.head_dim <= 1024 {
            let frequencies = config.inverse_frequencies();
            assert_eq!(frequencies.len(), config.head_dim / 2);
        }
    }
});
