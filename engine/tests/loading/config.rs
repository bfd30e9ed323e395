//! What a `config.json` may say, in both spellings, and what is refused.

use std::path::Path;

use serde_json::{Map, Value, json};
use stepscope_engine::model::{Architecture, ModelConfig, RopeScaling};
use stepscope_kernels::DType;

use crate::support::{overrides, tiny_config};

fn read(config: &Value, overriding: Value) -> Result<ModelConfig, String> {
    let text = config.to_string();
    ModelConfig::from_json(
        text.as_bytes(),
        Path::new("config.json"),
        &overrides(overriding),
    )
    .map_err(|e| {
        assert!(e.is_input());
        e.to_string()
    })
}

/// [`tiny_config`] with some keys replaced.
fn with(keys: Value) -> Value {
    let mut config = tiny_config();
    for (key, value) in overrides(keys) {
        config[key] = value;
    }
    config
}

fn check_error(keys: Value, expected: &str) {
    assert_eq!(read(&with(keys), json!({})).unwrap_err(), expected);
}

#[test]
fn a_config_that_says_little() {
    let config = read(&tiny_config(), json!({})).unwrap();
    assert_eq!(config.architecture, Architecture::Llama);
    assert_eq!(config.architecture_name, "LlamaForCausalLM");
    assert_eq!(config.head_dim, 4, "hidden / heads");
    assert_eq!(config.rope_theta, 10_000.0);
    assert_eq!(config.rope_scaling, RopeScaling::None);
    assert_eq!(config.rms_norm_eps, 1e-6);
    assert_eq!((config.bos_token_id, config.eos_token_ids), (None, vec![]));
    assert_eq!(config.dtype, DType::BF16);
}

#[test]
fn old_and_new_spelling_say_the_same() {
    let llama3 = json!({
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    let old = with(json!({"rope_theta": 5e5, "rope_scaling": llama3, "torch_dtype": "float16"}));
    let mut parameters = overrides(llama3);
    parameters.insert("rope_theta".to_owned(), json!(5e5));
    let new = with(json!({"rope_parameters": parameters, "torch_dtype": null, "dtype": "float16"}));
    let (old, new) = (
        read(&old, json!({})).unwrap(),
        read(&new, json!({})).unwrap(),
    );
    let without_raw = |config: ModelConfig| ModelConfig {
        raw: Value::Null,
        ..config
    };
    assert_eq!(without_raw(old.clone()), without_raw(new));
    assert_eq!(old.rope_theta, 5e5);
    assert_eq!(
        old.rope_scaling,
        RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192
        }
    );
    assert_eq!(old.dtype, DType::F16);
}

#[test]
fn the_first_spelling_of_rope_scaling() {
    let config = read(
        &with(json!({"rope_scaling": {"type": "linear", "factor": 2}})),
        json!({}),
    )
    .unwrap();
    assert_eq!(config.rope_scaling, RopeScaling::Linear { factor: 2.0 });
}

#[test]
fn architectures_differ_in_biases_and_norms() {
    let flags = |keys: Value| {
        let config = read(&with(keys), json!({})).unwrap();
        (
            config.qkv_bias,
            config.o_bias,
            config.mlp_bias,
            config.qk_norm,
            config.head_dim,
        )
    };
    assert_eq!(flags(json!({})), (false, false, false, false, 4));
    let biases = json!({"attention_bias": true, "mlp_bias": true});
    assert_eq!(flags(biases), (true, true, true, false, 4));
    let qwen2 = json!({"architectures": ["Qwen2ForCausalLM"]});
    assert_eq!(flags(qwen2), (true, false, false, false, 4));
    let qwen3 = json!({"architectures": null, "model_type": "qwen3"});
    assert_eq!(flags(qwen3), (false, false, false, true, 128));
    let qwen3 =
        json!({"architectures": ["Qwen3ForCausalLM"], "head_dim": 16, "attention_bias": true});
    assert_eq!(flags(qwen3), (true, true, false, true, 16));
}

#[test]
fn several_tokens_may_end_a_text() {
    let config = read(
        &with(json!({"bos_token_id": 1, "eos_token_id": [2, 5]})),
        json!({}),
    )
    .unwrap();
    assert_eq!(
        (config.bos_token_id, config.eos_token_ids),
        (Some(1), vec![2, 5])
    );
}

#[test]
fn parameters_and_cache_are_counted_from_the_shape() {
    let config = read(&tiny_config(), json!({})).unwrap();
    let layer = 8 + 8 * 8 + 2 * 4 * 8 + 8 * 8 + 8 + 3 * 12 * 8;
    assert_eq!(config.parameters(), 10 * 8 + 8 + layer);
    assert_eq!(config.kv_bytes_per_token(DType::BF16), 2 * 4 * 2);
    let untied = read(&with(json!({"tie_word_embeddings": false})), json!({})).unwrap();
    assert_eq!(untied.parameters(), config.parameters() + 10 * 8);
}

#[test]
fn overrides_replace_either_spelling() {
    let new = with(json!({
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
        "dtype": "float32",
        "torch_dtype": null,
    }));
    let config = read(
        &new,
        json!({"rope_theta": 5e5, "num_hidden_layers": 3, "torch_dtype": "float16"}),
    )
    .unwrap();
    assert_eq!(config.rope_theta, 5e5);
    assert_eq!(config.rope_scaling, RopeScaling::Linear { factor: 4.0 });
    assert_eq!(config.layers, 3);
    assert_eq!(config.dtype, DType::F16);
    assert_eq!(config.raw["num_hidden_layers"], 3);

    let config = read(&new, json!({"rope_scaling": null})).unwrap();
    assert_eq!(
        (config.rope_theta, config.rope_scaling),
        (1e6, RopeScaling::None)
    );
}

#[test]
fn a_wrong_override_is_named_as_one() {
    let error = read(&tiny_config(), json!({"num_hidden_layers": "one"})).unwrap_err();
    assert_eq!(
        error,
        "the config overrides: \"num_hidden_layers\" is \"one\", expected a whole number from 1 to 67108864"
    );
}

#[test]
fn what_is_not_json_is_refused() {
    let read = |text: &[u8]| {
        ModelConfig::from_json(text, Path::new("config.json"), &Map::new())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        read(b"{\"hidden_size\": "),
        "config.json is not JSON (EOF while parsing a value at line 1 column 16): download it again"
    );
    assert_eq!(
        read(b"[1]"),
        "config.json holds an array, not a JSON object: download it again"
    );
    assert!(read(b"").starts_with("config.json is not JSON"));
    assert!(read(b"\xff\xfe{}").starts_with("config.json is not JSON"));
    assert!(read(&b"[".repeat(100_000)).starts_with("config.json is not JSON"));
    assert!(
        read(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
            .contains("git lfs pull")
    );
}

#[test]
fn values_that_cannot_be() {
    check_error(
        json!({"hidden_size": null}),
        "config.json: \"hidden_size\" is missing: this config cannot be used",
    );
    check_error(
        json!({"vocab_size": 0}),
        "config.json: \"vocab_size\" is 0, expected a whole number from 1 to 67108864",
    );
    check_error(
        json!({"num_hidden_layers": 1e300}),
        "config.json: \"num_hidden_layers\" is 1e+300, expected a whole number from 1 to 67108864",
    );
    check_error(
        json!({"num_key_value_heads": 3}),
        "config.json: 2 attention heads cannot share 3 key and value heads evenly",
    );
    check_error(
        json!({"head_dim": 5}),
        "config.json: a head_dim of 5 cannot be rotated in pairs: it must be even",
    );
    check_error(
        json!({"num_attention_heads": 16, "num_key_value_heads": 16}),
        "config.json: a head_dim of 0 cannot be rotated in pairs: it must be even",
    );
    check_error(
        json!({"rms_norm_eps": -1}),
        "config.json: \"rms_norm_eps\" is -1, expected a number above 0",
    );
    check_error(
        json!({"tie_word_embeddings": "yes"}),
        "config.json: \"tie_word_embeddings\" is \"yes\", expected true or false",
    );
    check_error(
        json!({"eos_token_id": [1, "two"]}),
        "config.json: \"eos_token_id\" is \"two\", expected a token id",
    );
    check_error(
        json!({"torch_dtype": "float8_e4m3fn"}),
        "config.json: \"torch_dtype\" is \"float8_e4m3fn\", expected float32, float16 or bfloat16",
    );
    check_error(
        json!({"hidden_size": 60_000_000, "num_hidden_layers": 60_000_000}),
        "config.json: this config asks for more than 2^46 weights: is it damaged?",
    );
}

#[test]
fn what_is_not_supported_is_named() {
    check_error(
        json!({"architectures": ["MixtralForCausalLM"]}),
        "config.json: architecture \"MixtralForCausalLM\" is not supported; LlamaForCausalLM, Qwen2ForCausalLM and Qwen3ForCausalLM are",
    );
    check_error(
        json!({"architectures": null}),
        "config.json: neither \"architectures\" nor \"model_type\" says what model this is",
    );
    check_error(
        json!({"num_local_experts": 8}),
        "config.json: \"num_local_experts\" is 8: mixtures of experts are not supported, only models with one MLP per layer",
    );
    check_error(
        json!({"hidden_act": "gelu"}),
        "config.json: \"hidden_act\" is \"gelu\", but only \"silu\" is supported",
    );
    check_error(
        json!({"quantization_config": {"quant_method": "awq"}}),
        "config.json: the weights are quantised (\"awq\"), which is not supported for safetensors: take the original weights, or a GGUF file",
    );
    check_error(
        json!({"partial_rotary_factor": 0.5}),
        "config.json: \"partial_rotary_factor\" is 0.5, expected 1: rotating a part of each head is not supported",
    );
    check_error(
        json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
        "config.json: rotary embeddings of type \"yarn\" are not supported; default, linear and llama3 are (override \"rope_scaling\" to run without)",
    );
    check_error(
        json!({"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}),
        "config.json: \"low_freq_factor\" is null, expected a number above 0",
    );
    check_error(
        json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
        "config.json: \"rope_parameters\" differs by kind of layer, which is not supported",
    );
}

#[test]
fn a_sliding_window_is_refused_where_it_would_be_felt() {
    let window = |keys: Value| {
        let mut config = with(json!({
            "architectures": ["Qwen2ForCausalLM"],
            "use_sliding_window": true,
            "sliding_window": 1024,
            "max_position_embeddings": 4096,
            "max_window_layers": 0,
        }));
        for (key, value) in overrides(keys) {
            config[key] = value;
        }
        read(&config, json!({}))
    };
    assert_eq!(
        window(json!({})).unwrap_err(),
        "config.json: sliding window attention (1024 of 4096 positions) is not supported; to run with full attention, override \"use_sliding_window\" with false"
    );
    assert!(window(json!({"layer_types": ["sliding_attention"]})).is_err());
    for harmless in [
        json!({"use_sliding_window": false}),
        json!({"sliding_window": null}),
        json!({"sliding_window": 4096}),
        json!({"max_window_layers": 28}),
        json!({"layer_types": ["full_attention"]}),
    ] {
        assert!(window(harmless.clone()).is_ok(), "{harmless}");
    }
}

#[test]
fn texts_from_a_file_stay_on_one_line_and_short() {
    let long = format!("two\nlines {}", "x".repeat(1000));
    let error = read(&with(json!({"architectures": [long]})), json!({})).unwrap_err();
    assert!(!error.contains('\n') && error.len() < 350, "{error}");
}
