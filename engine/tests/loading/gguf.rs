//! GGUF files: the same model gives the same weights as its safetensors.

use std::collections::HashMap;
use std::fs;

use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::json;
use stepscope_engine::model::{
    Architecture, LoadFormat, LoadOptions, Model, ModelConfig, RopeScaling,
};
use stepscope_kernels::DType;

use crate::gguf_writer::{BF16, F16, F32, GgufWriter, Q8_0};
use crate::support::{
    Stored, assert_weights, fixtures, load_error, named, options, overrides, read_safetensors,
    try_load,
};

/// The GGUF name of a Hugging Face tensor.
fn gguf_name(name: &str) -> String {
    let parts = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    parts
        .iter()
        .fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// llama.cpp's `LlamaModel.permute`: `reshape(heads, 2, d / 2, cols).swapaxes(1, 2)`.
fn permute(values: &[f32], heads: usize, cols: usize) -> Vec<f32> {
    let d = values.len() / cols / heads;
    let mut out = Vec::new();
    for head in 0..heads {
        for pair in 0..d / 2 {
            for half in 0..2 {
                let row = head * d + half * (d / 2) + pair;
                out.extend(&values[row * cols..(row + 1) * cols]);
            }
        }
    }
    out
}

fn widen(stored: &Stored) -> Vec<f32> {
    assert_eq!(stored.dtype, Dtype::BF16);
    stored
        .bytes
        .chunks(2)
        .map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32())
        .collect()
}

/// The model of `config` as llama.cpp's converter would write it, matrices as `ggml_type`, vectors as F32.
pub(crate) fn convert(
    config: &ModelConfig,
    tensors: &HashMap<String, Stored>,
    ggml_type: u32,
) -> GgufWriter {
    let name = match config.architecture {
        Architecture::Llama => "llama",
        Architecture::Qwen2 => "qwen2",
        Architecture::Qwen3 => "qwen3",
    };
    let key = |suffix: &str| format!("{name}.{suffix}");
    let mut file = GgufWriter::new();
    file.text("general.architecture", name)
        .u32(&key("block_count"), config.layers as u32)
        .u32(
            &key("context_length"),
            config.max_position_embeddings as u32,
        )
        .u32(&key("embedding_length"), config.hidden_size as u32)
        .u32(&key("feed_forward_length"), config.intermediate_size as u32)
        .u32(&key("attention.head_count"), config.heads as u32)
        .u32(&key("attention.head_count_kv"), config.kv_heads as u32)
        .u32(&key("attention.key_length"), config.head_dim as u32)
        .u32(&key("attention.value_length"), config.head_dim as u32)
        .f32(
            &key("attention.layer_norm_rms_epsilon"),
            config.rms_norm_eps,
        )
        .f32(&key("rope.freq_base"), config.rope_theta as f32)
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2);
    let mut names: Vec<_> = tensors.keys().collect();
    names.sort();
    for name in names {
        let stored = &tensors[name];
        let cols = if stored.shape.len() == 1 {
            1
        } else {
            stored.shape[1]
        };
        let heads = match name {
            n if n.contains("q_proj") => config.heads,
            n if n.contains("k_proj") => config.kv_heads,
            _ => 0,
        };
        let mut values = widen(stored);
        if config.architecture == Architecture::Llama && heads > 0 {
            values = permute(&values, heads, cols);
        }
        let ggml_type = if cols == 1 { F32 } else { ggml_type };
        file.tensor(&gguf_name(name), &stored.shape, ggml_type, &values);
    }
    file
}

/// The config and tensors of a fixture.
pub(crate) fn mini(name: &str) -> (ModelConfig, HashMap<String, Stored>) {
    let model = try_load(&options(&fixtures().join("models").join(name))).unwrap();
    (model.config, read_safetensors(&model.files[0]))
}

fn load_bytes(bytes: &[u8], dtype: Option<DType>) -> Model {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    let options = LoadOptions {
        dtype,
        skip_tokenizer: true,
        ..options(&path)
    };
    try_load(&options).unwrap()
}

#[test]
fn a_gguf_file_is_the_model_that_it_was_made_of() {
    for name in ["mini-llama", "mini-qwen2", "mini-qwen3"] {
        let (config, tensors) = mini(name);
        for (ggml_type, declared, auto) in [
            (F32, DType::F32, DType::F16),
            (F16, DType::F16, DType::F16),
            (BF16, DType::BF16, DType::BF16),
        ] {
            let bytes = convert(&config, &tensors, ggml_type).bytes();
            let model = load_bytes(&bytes, None);
            assert_eq!(
                (model.config.dtype, model.dtype),
                (declared, auto),
                "{name}"
            );
            assert_eq!(model.load_format, LoadFormat::Gguf);
            assert_weights(model.weights.as_ref().unwrap(), &tensors, auto);
            let wide = load_bytes(&bytes, Some(DType::F32));
            match ggml_type {
                F16 => {} // float16 cannot hold what bfloat16 can
                _ => assert_weights(wide.weights.as_ref().unwrap(), &tensors, DType::F32),
            }
            let found = model.config;
            assert_eq!(found.architecture_name, config.architecture_name);
            assert_eq!(found.parameters(), config.parameters());
            assert_eq!(found.head_dim, config.head_dim);
            assert_eq!(found.rms_norm_eps, config.rms_norm_eps);
            assert_eq!(found.rope_theta, config.rope_theta);
            assert_eq!(
                found.max_position_embeddings,
                config.max_position_embeddings
            );
            assert_eq!(found.tie_word_embeddings, config.tie_word_embeddings);
            assert_eq!(
                (found.bos_token_id, found.eos_token_ids),
                (Some(1), vec![2])
            );
        }
    }
}

#[test]
fn plain_matrices_of_the_wanted_type_are_mapped() {
    let (config, tensors) = mini("mini-qwen3");
    let model = load_bytes(&convert(&config, &tensors, BF16).bytes(), None);
    let matrices = named(model.weights.as_ref().unwrap())
        .into_iter()
        .filter(|(_, t)| t.shape().len() == 2);
    let bytes: u64 = matrices.map(|(_, t)| t.bytes().len() as u64).sum();
    assert_eq!(model.mapped_bytes, bytes);
    assert!(
        model.mapped_bytes < model.weight_bytes,
        "norms are converted from F32"
    );
}

#[test]
fn quantised_matrices_become_bfloat16() {
    let (config, tensors) = mini("mini-llama");
    let model = load_bytes(&convert(&config, &tensors, Q8_0).bytes(), None);
    assert_eq!(
        (model.config.dtype, model.dtype, model.mapped_bytes),
        (DType::BF16, DType::BF16, 0)
    );
    for (name, tensor) in named(model.weights.as_ref().unwrap()) {
        let wanted = widen(&tensors[&name]);
        if tensor.shape().len() == 1 {
            assert_eq!(tensor.to_f32(), wanted, "{name}");
            continue;
        }
        for (found, wanted) in tensor.to_f32().chunks(32).zip(wanted.chunks(32)) {
            let most = wanted.iter().fold(0.0_f32, |m, w| m.max(w.abs()));
            // Half a step of the block, the scale's rounding to float16, the result's to bfloat16.
            let step = most / 127.0;
            for (f, w) in found.iter().zip(wanted) {
                let allowed = 0.5 * step + most * (f16::EPSILON.to_f32() + bf16::EPSILON.to_f32());
                assert!(
                    (f - w).abs() <= allowed,
                    "{name}: {f} is not {w} (± {allowed})"
                );
            }
        }
    }
}

#[test]
fn frequency_factors_stand_for_llama_3s_scaling() {
    let (config, tensors) = mini("mini-llama");
    let RopeScaling::Llama3 { .. } = config.rope_scaling else {
        panic!("mini-llama has another scaling");
    };
    let plain = ModelConfig {
        rope_scaling: RopeScaling::None,
        ..config.clone()
    };
    let factors: Vec<f32> = plain
        .inverse_frequencies()
        .iter()
        .zip(config.inverse_frequencies())
        .map(|(plain, scaled)| (plain / scaled) as f32)
        .collect();
    let mut file = convert(&config, &tensors, BF16);
    file.tensor("rope_freqs.weight", &[factors.len()], F32, &factors);
    let model = load_bytes(&file.bytes(), None);
    let found = model.config.inverse_frequencies();
    assert_eq!(found.len(), 32);
    for (found, wanted) in found.iter().zip(config.inverse_frequencies()) {
        assert!(
            (found / wanted - 1.0).abs() < 1e-6,
            "{found} is not {wanted}"
        );
    }
    let none = load_bytes(&convert(&config, &tensors, BF16).bytes(), None);
    assert_eq!(none.config.rope_scaling, RopeScaling::None);
}

#[test]
fn versions_alignments_and_spellings_that_are_right() {
    let (config, tensors) = mini("mini-llama");
    let file = convert(&config, &tensors, BF16);
    let check = |edit: &dyn Fn(&mut GgufWriter)| {
        let mut file = file.clone();
        edit(&mut file);
        let model = load_bytes(&file.bytes(), None);
        assert_weights(model.weights.as_ref().unwrap(), &tensors, DType::BF16);
        model.config
    };
    check(&|file| file.version = 2);
    check(&|file| {
        file.u32("general.alignment", 4096).alignment = 4096;
    });
    check(&|file| {
        file.i32s("llama.attention.head_count_kv", &[1, 1]);
    });
    check(&|file| {
        file.raw("llama.context_length", 10, &4096_u64.to_le_bytes());
    });
    check(&|file| {
        file.text("general.extra", "κλειδί")
            .i32s("general.none", &[]);
    });
    let linear = check(&|file| {
        file.text("llama.rope.scaling.type", "linear")
            .f32("llama.rope.scaling.factor", 2.5);
    });
    assert_eq!(linear.rope_scaling, RopeScaling::Linear { factor: 2.5 });
    let none = check(&|file| {
        file.text("llama.rope.scaling.type", "none");
    });
    assert_eq!(none.rope_scaling, RopeScaling::None);
    let plain = check(&|file| {
        file.without("llama.rope.freq_base");
    });
    assert_eq!(plain.rope_theta, 10_000.0);
}

#[test]
fn attention_biases_are_found_and_put_in_order() {
    let (config, mut tensors) = mini("mini-llama");
    let bias = |len: usize, first: f32| Stored {
        dtype: Dtype::BF16,
        shape: vec![len],
        bytes: (0..len)
            .flat_map(|i| bf16::from_f32(first + i as f32).to_le_bytes())
            .collect(),
    };
    for layer in 0..2 {
        let name = |part: &str| format!("model.layers.{layer}.self_attn.{part}_proj.bias");
        tensors.insert(name("q"), bias(128, 0.0));
        tensors.insert(name("k"), bias(64, 1.0));
        tensors.insert(name("v"), bias(64, 2.0));
    }
    let model = load_bytes(&convert(&config, &tensors, BF16).bytes(), None);
    assert!(model.config.qkv_bias && !model.config.o_bias);
    assert_weights(model.weights.as_ref().unwrap(), &tensors, DType::BF16);
}

#[test]
fn a_folder_that_holds_one_gguf_file_is_that_file() {
    let (config, tensors) = mini("mini-qwen2");
    let dir = tempfile::tempdir().unwrap();
    let bytes = convert(&config, &tensors, BF16).bytes();
    fs::write(dir.path().join("mini.gguf"), &bytes).unwrap();
    let options = LoadOptions {
        skip_tokenizer: true,
        ..options(dir.path())
    };
    let model = try_load(&options).unwrap();
    assert_eq!(
        (model.name.as_str(), model.load_format),
        ("mini", LoadFormat::Gguf)
    );
    // Repositories of GGUF files often bring a config.json that says nothing.
    fs::write(dir.path().join("config.json"), r#"{"model_type": "qwen2"}"#).unwrap();
    assert_eq!(try_load(&options).unwrap().load_format, LoadFormat::Gguf);
    let fewer = LoadOptions {
        config_overrides: overrides(json!({"num_hidden_layers": 1})),
        ..options.clone()
    };
    assert_eq!(try_load(&fewer).unwrap().weights.unwrap().layers.len(), 1);
    fs::write(dir.path().join("other.gguf"), &bytes).unwrap();
    assert_eq!(
        load_error(dir.path(), &options),
        "DIR holds 2 GGUF files: name the one to load"
    );
}
