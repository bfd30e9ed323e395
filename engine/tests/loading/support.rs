//! Small models on disk, and loading them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};
use stepscope_engine::Error;
use stepscope_engine::model::{LoadOptions, Model, NoProgress, Weights, load};
use stepscope_kernels::{Cpu, DType, HostTensor};
use tempfile::TempDir;

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

pub(crate) fn try_load(options: &LoadOptions) -> Result<Model, Error> {
    load(options, &Cpu::new(Some(2)).unwrap(), &NoProgress)
}

pub(crate) fn options(model: &Path) -> LoadOptions {
    LoadOptions::new(model.to_str().unwrap())
}

pub(crate) fn overrides(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

/// The error that loading gives, with `DIR` for the folder that everything lies in; it must blame the input, in one
/// line.
pub(crate) fn load_error(dir: &Path, options: &LoadOptions) -> String {
    let error = try_load(options).expect_err("this should not load");
    let message = error.to_string();
    assert!(error.is_input(), "not an input error: {message}");
    assert!(!message.contains('\n'), "several lines: {message}");
    message.replace(dir.to_str().unwrap(), "DIR")
}

/// A tensor as a file holds it.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// The config of a Llama with one layer: hidden 8, two heads of 4 that share one key head.
pub(crate) fn tiny_config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 10,
        "tie_word_embeddings": true,
        "torch_dtype": "bfloat16",
    })
}

/// Weights for [`tiny_config`] in bfloat16, all different.
pub(crate) fn tiny_tensors() -> HashMap<String, Stored> {
    let shapes: [(&str, &[usize]); 11] = [
        ("model.embed_tokens.weight", &[10, 8]),
        ("model.norm.weight", &[8]),
        ("model.layers.0.input_layernorm.weight", &[8]),
        ("model.layers.0.self_attn.q_proj.weight", &[8, 8]),
        ("model.layers.0.self_attn.k_proj.weight", &[4, 8]),
        ("model.layers.0.self_attn.v_proj.weight", &[4, 8]),
        ("model.layers.0.self_attn.o_proj.weight", &[8, 8]),
        ("model.layers.0.post_attention_layernorm.weight", &[8]),
        ("model.layers.0.mlp.gate_proj.weight", &[12, 8]),
        ("model.layers.0.mlp.up_proj.weight", &[12, 8]),
        ("model.layers.0.mlp.down_proj.weight", &[8, 12]),
    ];
    let mut next = 0_u16;
    shapes
        .into_iter()
        .map(|(name, shape)| {
            let len: usize = shape.iter().product();
            let bytes = (0..len).flat_map(|_| {
                next += 1;
                (0x3c00 + next).to_le_bytes() // bfloat16 from 0.0078 up
            });
            let stored = Stored {
                dtype: Dtype::BF16,
                shape: shape.to_vec(),
                bytes: bytes.collect(),
            };
            (name.to_owned(), stored)
        })
        .collect()
}

pub(crate) fn safetensors_bytes(tensors: &HashMap<String, Stored>) -> Vec<u8> {
    let views: Vec<_> = tensors
        .iter()
        .map(|(name, t)| {
            (
                name,
                TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap(),
            )
        })
        .collect();
    safetensors::serialize(views, None).unwrap()
}

/// A folder with [`tiny_config`] and [`tiny_tensors`] in one file.
pub(crate) fn tiny_folder() -> TempDir {
    folder(&tiny_config(), &tiny_tensors())
}

pub(crate) fn folder(config: &Value, tensors: &HashMap<String, Stored>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    fs::write(
        dir.path().join("model.safetensors"),
        safetensors_bytes(tensors),
    )
    .unwrap();
    dir
}

/// The tensors of a safetensors file.
pub(crate) fn read_safetensors(path: &Path) -> HashMap<String, Stored> {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, view)| {
            let stored = Stored {
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                bytes: view.data().to_vec(),
            };
            (name.to_owned(), stored)
        })
        .collect()
}

/// Every tensor of `weights` with its name in a Hugging Face checkpoint.
pub(crate) fn named(weights: &Weights) -> Vec<(String, &HostTensor)> {
    let mut all = vec![
        ("model.embed_tokens.weight".to_owned(), &weights.embedding),
        ("model.norm.weight".to_owned(), &weights.final_norm),
    ];
    all.extend(
        weights
            .lm_head
            .iter()
            .map(|t| ("lm_head.weight".to_owned(), t)),
    );
    for (number, layer) in weights.layers.iter().enumerate() {
        let always = [
            ("input_layernorm.weight", &layer.input_norm),
            ("self_attn.q_proj.weight", &layer.q),
            ("self_attn.k_proj.weight", &layer.k),
            ("self_attn.v_proj.weight", &layer.v),
            ("self_attn.o_proj.weight", &layer.o),
            (
                "post_attention_layernorm.weight",
                &layer.post_attention_norm,
            ),
            ("mlp.gate_proj.weight", &layer.gate),
            ("mlp.up_proj.weight", &layer.up),
            ("mlp.down_proj.weight", &layer.down),
        ];
        let sometimes = [
            ("self_attn.q_proj.bias", &layer.q_bias),
            ("self_attn.k_proj.bias", &layer.k_bias),
            ("self_attn.v_proj.bias", &layer.v_bias),
            ("self_attn.o_proj.bias", &layer.o_bias),
            ("self_attn.q_norm.weight", &layer.q_norm),
            ("self_attn.k_norm.weight", &layer.k_norm),
            ("mlp.gate_proj.bias", &layer.gate_bias),
            ("mlp.up_proj.bias", &layer.up_bias),
            ("mlp.down_proj.bias", &layer.down_bias),
        ];
        let sometimes = sometimes
            .into_iter()
            .filter_map(|(name, t)| Some((name, t.as_ref()?)));
        let layer = always.into_iter().chain(sometimes);
        all.extend(layer.map(|(name, tensor)| (format!("model.layers.{number}.{name}"), tensor)));
    }
    all
}

/// Panics unless `weights` are exactly `stored` (which may hold more), all as `dtype`.
pub(crate) fn assert_weights(weights: &Weights, stored: &HashMap<String, Stored>, dtype: DType) {
    for (name, tensor) in named(weights) {
        let stored = stored
            .get(&name)
            .unwrap_or_else(|| panic!("{name} came from nowhere"));
        assert_eq!(tensor.shape(), stored.shape, "{name}");
        assert_eq!(tensor.dtype(), dtype, "{name}");
        let file_dtype = match stored.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            _ => DType::BF16,
        };
        let wanted = HostTensor::new(file_dtype, &stored.shape, stored.bytes.clone().into())
            .and_then(|t| t.to_dtype(dtype))
            .unwrap();
        assert_eq!(tensor.bytes(), wanted.bytes(), "{name}");
    }
}
