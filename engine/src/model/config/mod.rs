//! A model's shape, from `config.json` or from what stands for one.

mod json;
mod rope;

use std::path::Path;

use serde_json::{Map, Value};
use stepscope_kernels::DType;

pub use rope::RopeScaling;

use super::file::parse_json_object;
use crate::error::Error;

/// The families of models that the engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Llama 1 to 3.3 and what follows it (SmolLM2).
    Llama,
    /// Qwen2 and Qwen2.5: biases on queries, keys and values.
    Qwen2,
    /// Qwen3: norms on queries and keys.
    Qwen3,
}

/// A model's shape.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// As `config.json` names it, such as `LlamaForCausalLM`.
    pub architecture_name: String,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements per head; even.
    pub head_dim: usize,
    /// Added to the mean square under the root.
    pub rms_norm_eps: f32,
    /// The base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are stretched.
    pub rope_scaling: RopeScaling,
    /// The longest context that the model claims, in tokens.
    pub max_position_embeddings: usize,
    /// Whether the embedding is the output matrix too.
    pub tie_word_embeddings: bool,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the attention's output has a bias.
    pub o_bias: bool,
    /// Whether the MLP's three matrices have biases.
    pub mlp_bias: bool,
    /// Whether each query and key head is normalised.
    pub qk_norm: bool,
    /// How the checkpoint says its weights are stored.
    pub dtype: DType,
    /// The token that begins a text.
    pub bos_token_id: Option<u32>,
    /// The tokens that end one.
    pub eos_token_ids: Vec<u32>,
    /// All of it, overrides applied; what a record keeps.
    pub raw: Value,
}

impl ModelConfig {
    /// Reads a `config.json`. `origin` is what errors name; `overrides` replace keys at the top level.
    ///
    /// # Errors
    /// When it is not a JSON object, lacks a key or has an absurd value, or asks for something that the engine does
    /// not do: an architecture, an activation, a kind of rotary embedding, a sliding window, experts, quantised
    /// weights.
    pub fn from_json(
        text: &[u8],
        origin: &Path,
        overrides: &Map<String, Value>,
    ) -> Result<ModelConfig, Error> {
        ModelConfig::from_map(parse_json_object(text, origin)?, origin, overrides)
    }

    /// [`ModelConfig::from_json`] of what is parsed already.
    pub(crate) fn from_map(
        mut map: Map<String, Value>,
        origin: &Path,
        overrides: &Map<String, Value>,
    ) -> Result<ModelConfig, Error> {
        json::apply_overrides(&mut map, overrides);
        json::read_config(
            map,
            &json::Origin {
                path: origin,
                overrides,
            },
        )
    }

    /// Radians per position of each pair of elements, `[head_dim / 2]`: pair `i` is the elements `i` and `i +
    /// head_dim / 2`.
    pub fn inverse_frequencies(&self) -> Vec<f64> {
        rope::inverse_frequencies(self.rope_theta, self.head_dim, &self.rope_scaling)
    }

    /// Weights of the model, tied ones counted once.
    pub fn parameters(&self) -> u64 {
        self.count_parameters()
    }

    /// Bytes that one position takes in a KV cache stored as `dtype`.
    pub fn kv_bytes_per_token(&self, dtype: DType) -> u64 {
        2 * (self.layers * self.kv_heads * self.head_dim * dtype.size()) as u64
    }
}
