//! GGUF metadata as the `config.json` that the model would have on Hugging Face.

use serde_json::{Map, Value, json};

use super::{Header, Metadata};
use crate::error::Error;
use crate::model::ModelConfig;
use crate::model::file::shown;

/// The config of the model in the file that `header` heads.
pub(super) fn read_config(
    header: &Header<'_>,
    overrides: &Map<String, Value>,
) -> Result<ModelConfig, Error> {
    let metadata = &header.metadata;
    refuse_unsupported(metadata)?;
    ModelConfig::from_map(config_json(header)?, metadata.path(), overrides)
}

fn config_json(header: &Header<'_>) -> Result<Map<String, Value>, Error> {
    let metadata = &header.metadata;
    let (architecture, prefix) = architecture(metadata)?;
    let key = |name: &str| format!("{prefix}.{name}");
    let required = |name: &str| {
        metadata.uniform(&key(name))?.ok_or_else(|| {
            Error::input(format!(
                "{} lacks the key {}: convert the model again",
                metadata.path().display(),
                key(name)
            ))
        })
    };

    let mut config = Map::new();
    let mut put = |name: &str, value: Value| config.insert(name.to_owned(), value);
    put("architectures", json!([architecture]));
    put("model_type", prefix.into());
    put("hidden_size", required("embedding_length")?.into());
    put("intermediate_size", required("feed_forward_length")?.into());
    put("num_hidden_layers", required("block_count")?.into());
    let heads = required("attention.head_count")?;
    put("num_attention_heads", heads.into());
    let kv_heads = metadata
        .uniform(&key("attention.head_count_kv"))?
        .unwrap_or(heads);
    put("num_key_value_heads", kv_heads.into());
    put(
        "head_dim",
        head_dim(metadata, prefix, required("embedding_length")?, heads)?.into(),
    );
    put(
        "max_position_embeddings",
        required("context_length")?.into(),
    );
    if let Some(eps) = metadata.number(&key("attention.layer_norm_rms_epsilon"))? {
        // The file has float32; its shortest decimal form is what a config would say.
        put("rms_norm_eps", shortest(eps));
    }
    put(
        "rope_theta",
        metadata
            .number(&key("rope.freq_base"))?
            .map_or(json!(10_000.0), shortest),
    );
    put("rope_scaling", rope_scaling(metadata, prefix)?);
    put("vocab_size", vocab_size(header)?.into());
    put(
        "tie_word_embeddings",
        (!header.tensors.contains_key("output.weight")).into(),
    );
    put("hidden_act", "silu".into());
    if let Some(bos) = metadata.unsigned("tokenizer.ggml.bos_token_id")? {
        put("bos_token_id", bos.into());
    }
    let mut eos = Vec::new();
    for name in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
        eos.extend(metadata.unsigned(name)?.filter(|id| !eos.contains(id)));
    }
    put("eos_token_id", eos.into());
    Ok(config)
}

fn architecture<'a>(metadata: &Metadata<'a>) -> Result<(&'static str, &'a str), Error> {
    let prefix = metadata.text("general.architecture")?.unwrap_or_default();
    let architecture = match prefix {
        "llama" => "LlamaForCausalLM",
        "qwen2" => "Qwen2ForCausalLM",
        "qwen3" => "Qwen3ForCausalLM",
        other => {
            return Err(Error::input(format!(
                "{}: architecture {} is not supported; llama, qwen2 and qwen3 are",
                metadata.path().display(),
                shown(other)
            )));
        }
    };
    Ok((architecture, prefix))
}

fn head_dim(metadata: &Metadata<'_>, prefix: &str, hidden: u64, heads: u64) -> Result<u64, Error> {
    let get = |name: &str| metadata.unsigned(&format!("{prefix}.{name}"));
    let head_dim = match get("attention.key_length")? {
        Some(n) => n,
        None => hidden.checked_div(heads).unwrap_or(0),
    };
    for name in ["attention.value_length", "rope.dimension_count"] {
        if let Some(other) = get(name)?
            && other != head_dim
        {
            return Err(Error::input(format!(
                "{}: {prefix}.{name} is {other}, but only the length of keys ({head_dim}) is supported",
                metadata.path().display()
            )));
        }
    }
    Ok(head_dim)
}

fn rope_scaling(metadata: &Metadata<'_>, prefix: &str) -> Result<Value, Error> {
    let kind = metadata.text(&format!("{prefix}.rope.scaling.type"))?;
    let factor = match metadata.number(&format!("{prefix}.rope.scaling.factor"))? {
        Some(factor) => Some(factor),
        // The spelling of 2023.
        None => metadata.number(&format!("{prefix}.rope.scale_linear"))?,
    };
    Ok(match (kind, factor) {
        (None | Some("none"), None) => Value::Null,
        (Some("none"), Some(_)) | (None | Some("linear"), Some(0.0 | 1.0)) => Value::Null,
        (kind, factor) => {
            json!({"rope_type": kind.unwrap_or("linear"), "factor": factor.map(shortest)})
        }
    })
}

/// Rows of the embedding, which the vocabulary of the metadata may fall short of.
fn vocab_size(header: &Header<'_>) -> Result<usize, Error> {
    let embedding = header.tensors.get("token_embd.weight").ok_or_else(|| {
        Error::input(format!(
            "{} has no tensor token_embd.weight: it holds no model that can be run",
            header.metadata.path().display()
        ))
    })?;
    Ok(embedding.shape.first().copied().unwrap_or(0))
}

fn refuse_unsupported(metadata: &Metadata<'_>) -> Result<(), Error> {
    let (_, prefix) = architecture(metadata)?;
    let path = metadata.path().display();
    if let Some(parts) = metadata.unsigned("split.count")?
        && parts > 1
    {
        return Err(Error::input(format!(
            "{path} is one of {parts} parts, which is not supported: join them with llama-gguf-split --merge"
        )));
    }
    if let Some(experts) = metadata.unsigned(&format!("{prefix}.expert_count"))?
        && experts > 0
    {
        return Err(Error::input(format!(
            "{path}: {prefix}.expert_count is {experts}: mixtures of experts are not supported, only models with one MLP per layer"
        )));
    }
    if let Some(window) = metadata.unsigned(&format!("{prefix}.attention.sliding_window"))? {
        let context = metadata
            .unsigned(&format!("{prefix}.context_length"))?
            .unwrap_or(u64::MAX);
        if window > 0 && window < context {
            return Err(Error::input(format!(
                "{path}: sliding window attention ({window} of {context} positions) is not supported"
            )));
        }
    }
    Ok(())
}

/// A float32 as the shortest decimal that reads back as it: 1e-5, not 0.00000999999974738. What is no number stays a
/// string, which no config takes for one.
fn shortest(value: f64) -> Value {
    let text = (value as f32).to_string();
    let number = text.parse().ok().and_then(serde_json::Number::from_f64);
    number.map_or(Value::String(text), Value::Number)
}
