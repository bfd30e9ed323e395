//! The real SmolLM2-135M-Instruct, where `cargo xtask model smollm2` has fetched it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use stepscope_engine::model::{LoadFormat, LoadOptions, Model, RopeScaling};
use stepscope_engine::tokenizer::ChatMessage;
use stepscope_kernels::{DType, Values};

use crate::support::{fixtures, named, options, try_load};

const GGUF: &str = "target/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

fn find_gguf() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(GGUF);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: no {GGUF}, which `cargo xtask model smollm2` fetches");
    None
}

/// Σ (i + 1) · x_i over the bit patterns, modulo 2^64.
fn checksum(values: Values<'_>) -> u64 {
    let Values::BF16(values) = values else {
        panic!("not bfloat16");
    };
    values.iter().enumerate().fold(0, |sum, (i, x)| {
        sum.wrapping_add((i as u64 + 1).wrapping_mul(u64::from(x.to_bits())))
    })
}

fn sum_of(model: &Model, part: &str) -> u64 {
    let of_part = named(model.weights.as_ref().unwrap())
        .into_iter()
        .filter(|(name, _)| name.ends_with(part));
    of_part.fold(0, |sum: u64, (_, tensor)| {
        sum.wrapping_mul(31).wrapping_add(checksum(tensor.values()))
    })
}

#[test]
fn smollm2_weights_are_gguf_pys() {
    let Some(path) = find_gguf() else { return };
    let model = try_load(&options(&path)).unwrap();
    assert_eq!(model.name, "SmolLM2-135M-Instruct.Q4_1");
    assert_eq!(
        (model.load_format, model.dtype),
        (LoadFormat::Gguf, DType::BF16)
    );
    assert_eq!((model.weight_bytes, model.mapped_bytes), (269_030_016, 0));
    let config = &model.config;
    assert_eq!(
        (
            config.layers,
            config.heads,
            config.kv_heads,
            config.head_dim
        ),
        (30, 9, 3, 64)
    );
    assert_eq!(
        (
            config.hidden_size,
            config.intermediate_size,
            config.vocab_size
        ),
        (576, 1536, 49_152)
    );
    assert_eq!(
        (config.rope_theta, &config.rope_scaling),
        (1e5, &RopeScaling::None)
    );
    assert_eq!(config.rms_norm_eps, 1e-5);
    assert!(config.tie_word_embeddings);
    assert_eq!(
        (config.bos_token_id, &config.eos_token_ids[..]),
        (Some(1), &[2][..])
    );
    assert_eq!(config.parameters(), 134_515_008);
    // By gguf-py 0.19 and numpy: dequantised, rows of queries and keys put back, rounded to bfloat16. A numpy forward
    // pass over the same numbers gives the logits of fixtures/smollm2/expected.json.
    for (part, expected) in [
        ("embed_tokens.weight", 12_637_229_850_286_888_512),
        ("model.norm.weight", 2_727_061_978),
        ("input_layernorm.weight", 14_748_650_524_680_608_527),
        ("q_proj.weight", 4_040_669_930_704_148_217),
        ("k_proj.weight", 11_865_676_648_878_337_609),
        ("v_proj.weight", 6_271_470_839_094_477_804),
        ("o_proj.weight", 12_285_392_941_566_830_130),
        (
            "post_attention_layernorm.weight",
            12_659_314_469_501_229_720,
        ),
        ("gate_proj.weight", 4_634_776_098_044_816_067),
        ("up_proj.weight", 5_893_148_893_812_449_763),
        ("down_proj.weight", 3_976_465_227_647_928_827),
    ] {
        assert_eq!(sum_of(&model, part), expected, "{part}");
    }
}

#[test]
fn smollm2_tokens_and_chat_are_those_of_transformers() {
    let Some(path) = find_gguf() else { return };
    let expected = fs::read(fixtures().join("smollm2/expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let ids = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    // One layer will do.
    let tokenizer = try_load(&LoadOptions {
        config_overrides: [("num_hidden_layers".to_owned(), Value::from(1))]
            .into_iter()
            .collect(),
        ..options(&path)
    })
    .unwrap()
    .tokenizer
    .unwrap();
    assert_eq!(tokenizer.vocab_size(), 49_152);
    assert_eq!(
        (tokenizer.bos_token_id(), tokenizer.eos_token_ids()),
        (Some(1), &[2][..])
    );
    for row in expected["rows"].as_array().unwrap() {
        let prompt = text(&row["prompt"]);
        let found = tokenizer.encode(&prompt, true).unwrap();
        assert_eq!(found, ids(&row["input_ids"]), "{prompt:?}");
        assert_eq!(tokenizer.decode(&found, false).unwrap(), prompt);
        assert_eq!(
            tokenizer.decode(&ids(&row["greedy"]), false).unwrap(),
            text(&row["text"])
        );
    }
    let chat = &expected["chat"];
    let messages: Vec<ChatMessage> = serde_json::from_value(chat["messages"].clone()).unwrap();
    let rendered = tokenizer.render_chat(&messages, true).unwrap();
    assert_eq!(rendered, text(&chat["rendered"]));
    assert_eq!(
        tokenizer.encode(&rendered, false).unwrap(),
        ids(&chat["input_ids"])
    );
    assert_eq!(
        tokenizer.decode(&ids(&chat["greedy"]), true).unwrap(),
        text(&chat["text"])
    );
}
