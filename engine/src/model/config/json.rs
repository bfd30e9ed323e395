//! `config.json`, in the spelling of transformers 4 (`rope_theta`, `rope_scaling`, `torch_dtype`) and of transformers
//! 5 (`rope_parameters`, `dtype`).

use std::path::Path;

use serde_json::{Map, Value};
use stepscope_kernels::DType;

use super::{Architecture, ModelConfig, RopeScaling};
use crate::error::Error;
use crate::model::file::{json_kind, shown};

/// A bound on every dimension, far above any model's: products of two stay far below what `usize` holds.
const MAX_DIMENSION: usize = 1 << 26;
/// A bound on the weights of a model, far above any there is: sums of bytes stay far below what `u64` holds.
const MAX_PARAMETERS: u128 = 1 << 46;

/// Where a value came from, for errors.
pub(super) struct Origin<'a> {
    pub(super) path: &'a Path,
    pub(super) overrides: &'a Map<String, Value>,
}

impl Origin<'_> {
    /// The file, or the overrides if `key` is one of them.
    fn of(&self, key: &str) -> String {
        if self.overrides.contains_key(key) {
            "the config overrides".to_owned()
        } else {
            self.path.display().to_string()
        }
    }

    fn error(&self, key: &str, problem: impl std::fmt::Display) -> Error {
        Error::input(format!("{}: {problem}", self.of(key)))
    }
}

/// Replaces keys at the top level. A key in one spelling replaces the same thing in the other.
pub(super) fn apply_overrides(map: &mut Map<String, Value>, overrides: &Map<String, Value>) {
    for (key, value) in overrides {
        match key.as_str() {
            "dtype" => drop(map.shift_remove("torch_dtype")),
            "torch_dtype" => drop(map.shift_remove("dtype")),
            "rope_theta" => {
                if let Some(Value::Object(rope)) = map.get_mut("rope_parameters") {
                    rope.insert(key.clone(), value.clone());
                }
            }
            "rope_scaling" => {
                if let Some(Value::Object(rope)) = map.shift_remove("rope_parameters")
                    && let Some(theta) = rope.get("rope_theta")
                {
                    map.insert("rope_theta".to_owned(), theta.clone());
                }
            }
            _ => {}
        }
        map.insert(key.clone(), value.clone());
    }
}

pub(super) fn read_config(
    map: Map<String, Value>,
    origin: &Origin<'_>,
) -> Result<ModelConfig, Error> {
    let fields = Fields {
        map: &map,
        origin,
        outer: None,
    };
    let (architecture, architecture_name) = architecture(&fields)?;
    refuse_unsupported(&fields)?;

    let hidden_size = fields.dimension("hidden_size")?;
    let heads = fields.dimension("num_attention_heads")?;
    let kv_heads = fields.dimension_or("num_key_value_heads", heads)?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(origin.error(
            "num_key_value_heads",
            format_args!(
                "{heads} attention heads cannot share {kv_heads} key and value heads evenly"
            ),
        ));
    }
    let head_dim = match (fields.get("head_dim"), architecture) {
        (Some(_), _) => fields.dimension("head_dim")?,
        // transformers' Qwen3Config fills in 128.
        (None, Architecture::Qwen3) => 128,
        (None, _) => hidden_size / heads,
    };
    if head_dim == 0 || !head_dim.is_multiple_of(2) {
        return Err(origin.error(
            "head_dim",
            format_args!("a head_dim of {head_dim} cannot be rotated in pairs: it must be even"),
        ));
    }
    let layers = fields.dimension("num_hidden_layers")?;
    let max_position_embeddings = fields.dimension_or("max_position_embeddings", 2048)?;
    refuse_sliding_window(&fields, layers, max_position_embeddings)?;
    let (rope_theta, rope_scaling) = rope(&fields)?;
    let attention_bias = fields.boolean("attention_bias")?;

    let config = ModelConfig {
        architecture,
        architecture_name,
        vocab_size: fields.dimension("vocab_size")?,
        hidden_size,
        intermediate_size: fields.dimension("intermediate_size")?,
        layers,
        heads,
        kv_heads,
        head_dim,
        rms_norm_eps: fields.positive_or("rms_norm_eps", 1e-6)? as f32,
        rope_theta,
        rope_scaling,
        max_position_embeddings,
        tie_word_embeddings: fields.boolean("tie_word_embeddings")?,
        qkv_bias: architecture == Architecture::Qwen2 || attention_bias,
        o_bias: architecture != Architecture::Qwen2 && attention_bias,
        mlp_bias: architecture == Architecture::Llama && fields.boolean("mlp_bias")?,
        qk_norm: architecture == Architecture::Qwen3,
        dtype: dtype(&fields)?,
        bos_token_id: fields.token_ids("bos_token_id")?.first().copied(),
        eos_token_ids: fields.token_ids("eos_token_id")?,
        raw: Value::Null,
    };
    refuse_absurd_size(&config, origin)?;
    Ok(ModelConfig {
        raw: Value::Object(map),
        ..config
    })
}

/// The keys of a config, with errors that name file, key, value and what was expected.
struct Fields<'a> {
    map: &'a Map<String, Value>,
    origin: &'a Origin<'a>,
    /// The top-level key whose object this is, if it is not the top itself.
    outer: Option<&'static str>,
}

impl Fields<'_> {
    /// The value of `key`; null is as good as none.
    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn error(&self, key: &str, problem: impl std::fmt::Display) -> Error {
        self.origin.error(self.outer.unwrap_or(key), problem)
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) -> Error {
        let value = match value {
            Value::Array(_) | Value::Object(_) => json_kind(value).to_owned(),
            Value::String(text) => shown(text),
            plain => plain.to_string(),
        };
        self.error(
            key,
            format_args!("\"{key}\" is {value}, expected {expected}"),
        )
    }

    fn dimension(&self, key: &str) -> Result<usize, Error> {
        let value = self.get(key).ok_or_else(|| {
            self.error(
                key,
                format_args!("\"{key}\" is missing: this config cannot be used"),
            )
        })?;
        whole_number(value)
            .filter(|n| (1..=MAX_DIMENSION).contains(n))
            .ok_or_else(|| {
                self.wrong(
                    key,
                    value,
                    &format!("a whole number from 1 to {MAX_DIMENSION}"),
                )
            })
    }

    fn dimension_or(&self, key: &str, default: usize) -> Result<usize, Error> {
        self.get(key).map_or(Ok(default), |_| self.dimension(key))
    }

    fn positive_or(&self, key: &str, default: f64) -> Result<f64, Error> {
        self.get(key).map_or(Ok(default), |_| self.positive(key))
    }

    fn positive(&self, key: &str) -> Result<f64, Error> {
        let value = self.get(key).unwrap_or(&Value::Null);
        value
            .as_f64()
            .filter(|n| n.is_finite() && *n > 0.0)
            .ok_or_else(|| self.wrong(key, value, "a number above 0"))
    }

    fn boolean(&self, key: &str) -> Result<bool, Error> {
        self.get(key).map_or(Ok(false), |value| {
            value
                .as_bool()
                .ok_or_else(|| self.wrong(key, value, "true or false"))
        })
    }

    fn text(&self, key: &str) -> Result<Option<&str>, Error> {
        self.get(key)
            .map(|value| {
                value
                    .as_str()
                    .ok_or_else(|| self.wrong(key, value, "a string"))
            })
            .transpose()
    }

    /// One token id, several, or none. Ids below 0 stand for none.
    fn token_ids(&self, key: &str) -> Result<Vec<u32>, Error> {
        let ids: &[Value] = match self.get(key) {
            None => &[],
            Some(Value::Array(ids)) => ids,
            Some(id) => std::slice::from_ref(id),
        };
        ids.iter()
            .filter(|id| id.as_i64().is_none_or(|id| id >= 0))
            .map(|id| {
                id.as_u64()
                    .and_then(|id| u32::try_from(id).ok())
                    .ok_or_else(|| self.wrong(key, id, "a token id"))
            })
            .collect()
    }
}

fn whole_number(value: &Value) -> Option<usize> {
    if let Some(n) = value.as_u64() {
        return usize::try_from(n).ok();
    }
    // Some configs write 8192.0.
    value
        .as_f64()
        .filter(|n| n.fract() == 0.0 && (0.0..=MAX_DIMENSION as f64).contains(n))
        .map(|n| n as usize)
}

fn architecture(fields: &Fields<'_>) -> Result<(Architecture, String), Error> {
    let named = fields
        .get("architectures")
        .and_then(|a| a.get(0))
        .and_then(Value::as_str);
    let (key, name) = match (named, fields.text("model_type")?) {
        (Some(name), _) => ("architectures", name),
        (None, Some(name)) => ("model_type", name),
        (None, None) => {
            return Err(fields.error(
                "architectures",
                "neither \"architectures\" nor \"model_type\" says what model this is",
            ));
        }
    };
    let (architecture, name) = match name {
        "LlamaForCausalLM" | "llama" => (Architecture::Llama, "LlamaForCausalLM"),
        "Qwen2ForCausalLM" | "qwen2" => (Architecture::Qwen2, "Qwen2ForCausalLM"),
        "Qwen3ForCausalLM" | "qwen3" => (Architecture::Qwen3, "Qwen3ForCausalLM"),
        other => {
            return Err(fields.error(
                key,
                format_args!(
                    "architecture {} is not supported; LlamaForCausalLM, Qwen2ForCausalLM and Qwen3ForCausalLM are",
                    shown(other)
                ),
            ));
        }
    };
    Ok((architecture, name.to_owned()))
}

fn refuse_unsupported(fields: &Fields<'_>) -> Result<(), Error> {
    for key in ["num_experts", "num_local_experts", "n_routed_experts"] {
        if let Some(experts) = fields.get(key)
            && experts.as_u64() != Some(0)
        {
            return Err(fields.error(
                key,
                format_args!(
                    "\"{key}\" is {experts}: mixtures of experts are not supported, only models with one MLP per layer"
                ),
            ));
        }
    }
    if let Some(activation) = fields.text("hidden_act")?
        && activation != "silu"
    {
        return Err(fields.error(
            "hidden_act",
            format_args!(
                "\"hidden_act\" is {}, but only \"silu\" is supported",
                shown(activation)
            ),
        ));
    }
    if let Some(quantization) = fields.get("quantization_config") {
        let method = quantization
            .get("quant_method")
            .and_then(Value::as_str)
            .unwrap_or("unknown");
        return Err(fields.error(
            "quantization_config",
            format_args!(
                "the weights are quantised ({}), which is not supported for safetensors: take the original weights, or a GGUF file",
                shown(method)
            ),
        ));
    }
    if let Some(part) = fields.get("partial_rotary_factor")
        && part.as_f64() != Some(1.0)
    {
        return Err(fields.wrong(
            "partial_rotary_factor",
            part,
            "1: rotating a part of each head is not supported",
        ));
    }
    Ok(())
}

/// Refuses a window that some position of some layer would feel.
fn refuse_sliding_window(fields: &Fields<'_>, layers: usize, context: usize) -> Result<(), Error> {
    if !fields.boolean("use_sliding_window")? {
        return Ok(());
    }
    let Some(window) = fields.get("sliding_window") else {
        return Ok(());
    };
    let window = whole_number(window)
        .ok_or_else(|| fields.wrong("sliding_window", window, "a whole number of tokens"))?;
    let windowed_layer = match fields.get("layer_types").and_then(Value::as_array) {
        Some(types) => types
            .iter()
            .take(layers)
            .any(|t| t.as_str() == Some("sliding_attention")),
        // transformers: layers from max_window_layers on use the window; the default is 28.
        None => fields.dimension_or("max_window_layers", 28).unwrap_or(0) < layers,
    };
    if window < context && windowed_layer {
        return Err(fields.error(
            "use_sliding_window",
            format_args!(
                "sliding window attention ({window} of {context} positions) is not supported; to run with full attention, override \"use_sliding_window\" with false"
            ),
        ));
    }
    Ok(())
}

fn rope(fields: &Fields<'_>) -> Result<(f64, RopeScaling), Error> {
    let (key, settings) = match (fields.get("rope_parameters"), fields.get("rope_scaling")) {
        (Some(settings), _) => ("rope_parameters", settings),
        (None, Some(settings)) => ("rope_scaling", settings),
        (None, None) => {
            return Ok((
                fields.positive_or("rope_theta", 10_000.0)?,
                RopeScaling::None,
            ));
        }
    };
    let Value::Object(settings) = settings else {
        return Err(fields.wrong(key, settings, "an object"));
    };
    if settings.values().any(Value::is_object) {
        return Err(fields.error(
            key,
            format_args!("\"{key}\" differs by kind of layer, which is not supported"),
        ));
    }
    let inner = Fields {
        map: settings,
        origin: fields.origin,
        outer: Some(key),
    };
    let theta = match inner.get("rope_theta") {
        Some(_) => inner.positive("rope_theta")?,
        None => fields.positive_or("rope_theta", 10_000.0)?,
    };
    let kind = match inner.text("rope_type")? {
        Some(kind) => kind,
        None => inner.text("type")?.unwrap_or("default"),
    };
    let scaling = match kind {
        "default" | "none" => RopeScaling::None,
        "linear" => RopeScaling::Linear {
            factor: inner.positive("factor")?,
        },
        "llama3" => {
            let scaling = RopeScaling::Llama3 {
                factor: inner.positive("factor")?,
                low_freq_factor: inner.positive("low_freq_factor")?,
                high_freq_factor: inner.positive("high_freq_factor")?,
                original_max_position_embeddings: inner
                    .dimension("original_max_position_embeddings")?,
            };
            if inner.positive("low_freq_factor")? >= inner.positive("high_freq_factor")? {
                return Err(fields.error(
                    key,
                    format_args!(
                        "\"{key}\" has a low_freq_factor that is not below its high_freq_factor"
                    ),
                ));
            }
            scaling
        }
        other => {
            return Err(fields.error(
                key,
                format_args!(
                    "rotary embeddings of type {} are not supported; default, linear and llama3 are (override \"{key}\" to run without)",
                    shown(other)
                ),
            ));
        }
    };
    Ok((theta, scaling))
}

/// How the config says weights are stored; float32 where it says nothing, as in transformers.
fn dtype(fields: &Fields<'_>) -> Result<DType, Error> {
    let key = if fields.get("dtype").is_some() {
        "dtype"
    } else {
        "torch_dtype"
    };
    let Some(name) = fields.text(key)? else {
        return Ok(DType::F32);
    };
    DType::parse(name).ok_or_else(|| {
        fields.error(
            key,
            format_args!(
                "\"{key}\" is {}, expected float32, float16 or bfloat16",
                shown(name)
            ),
        )
    })
}

fn refuse_absurd_size(config: &ModelConfig, origin: &Origin<'_>) -> Result<(), Error> {
    // An upper bound, so that no later sum of weights can overflow.
    let widest = config.heads as u128 * config.head_dim as u128
        + config.intermediate_size as u128
        + config.hidden_size as u128;
    let bound = 4
        * (config.layers as u128 * widest + config.vocab_size as u128)
        * config.hidden_size as u128;
    if bound > MAX_PARAMETERS {
        return Err(Error::input(format!(
            "{}: this config asks for more than 2^46 weights: is it damaged?",
            origin.path.display()
        )));
    }
    Ok(())
}
