//! A model's weights, tensor by tensor: what they are called, and of what shape they must be.

use stepscope_kernels::HostTensor;

use super::ModelConfig;
use crate::error::Error;

/// One decoder layer, each weight a `T`. Matrices are `[out, in]`, as a checkpoint holds them.
#[derive(Debug)]
pub struct LayerWeights<T = HostTensor> {
    /// `[hidden]`.
    pub input_norm: T,
    /// `[heads * head_dim, hidden]`.
    pub q: T,
    /// `[kv_heads * head_dim, hidden]`.
    pub k: T,
    /// `[kv_heads * head_dim, hidden]`.
    pub v: T,
    /// `[heads * head_dim]`.
    pub q_bias: Option<T>,
    /// `[kv_heads * head_dim]`.
    pub k_bias: Option<T>,
    /// `[kv_heads * head_dim]`.
    pub v_bias: Option<T>,
    /// `[head_dim]` (Qwen3).
    pub q_norm: Option<T>,
    /// `[head_dim]` (Qwen3).
    pub k_norm: Option<T>,
    /// `[hidden, heads * head_dim]`.
    pub o: T,
    /// `[hidden]`.
    pub o_bias: Option<T>,
    /// `[hidden]`.
    pub post_attention_norm: T,
    /// `[intermediate, hidden]`.
    pub gate: T,
    /// `[intermediate, hidden]`.
    pub up: T,
    /// `[hidden, intermediate]`.
    pub down: T,
    /// `[intermediate]`.
    pub gate_bias: Option<T>,
    /// `[intermediate]`.
    pub up_bias: Option<T>,
    /// `[hidden]`.
    pub down_bias: Option<T>,
}

/// All weights of a model, each a `T`.
#[derive(Debug)]
pub struct Weights<T = HostTensor> {
    /// `[vocab, hidden]`.
    pub embedding: T,
    /// First layer first.
    pub layers: Vec<LayerWeights<T>>,
    /// `[hidden]`.
    pub final_norm: T,
    /// `[vocab, hidden]`; `None` when it is the embedding (tied).
    pub lm_head: Option<T>,
}

impl<T> Weights<T> {
    /// The weights of a model of `config`, each made by `tensor`.
    pub(crate) fn build(
        config: &ModelConfig,
        mut tensor: impl FnMut(TensorId) -> Result<T, Error>,
    ) -> Result<Weights<T>, Error> {
        let mut get = |role, layer| tensor(TensorId { role, layer });
        let embedding = get(Role::Embedding, 0)?;
        let mut layers = Vec::new();
        for layer in 0..config.layers {
            let mut get = |role| get(role, layer);
            let mut maybe = |role| config.has(role).then(|| get(role)).transpose();
            let (q_bias, k_bias, v_bias) = (
                maybe(Role::QBias)?,
                maybe(Role::KBias)?,
                maybe(Role::VBias)?,
            );
            let (q_norm, k_norm, o_bias) = (
                maybe(Role::QNorm)?,
                maybe(Role::KNorm)?,
                maybe(Role::OBias)?,
            );
            let (gate_bias, up_bias, down_bias) = (
                maybe(Role::GateBias)?,
                maybe(Role::UpBias)?,
                maybe(Role::DownBias)?,
            );
            layers.push(LayerWeights {
                input_norm: get(Role::InputNorm)?,
                q: get(Role::Q)?,
                k: get(Role::K)?,
                v: get(Role::V)?,
                q_bias,
                k_bias,
                v_bias,
                q_norm,
                k_norm,
                o: get(Role::O)?,
                o_bias,
                post_attention_norm: get(Role::PostAttentionNorm)?,
                gate: get(Role::Gate)?,
                up: get(Role::Up)?,
                down: get(Role::Down)?,
                gate_bias,
                up_bias,
                down_bias,
            });
        }
        Ok(Weights {
            embedding,
            layers,
            final_norm: get(Role::FinalNorm, 0)?,
            lm_head: config
                .has(Role::LmHead)
                .then(|| get(Role::LmHead, 0))
                .transpose()?,
        })
    }
}

/// What a tensor is in a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Embedding,
    FinalNorm,
    LmHead,
    InputNorm,
    Q,
    K,
    V,
    QBias,
    KBias,
    VBias,
    QNorm,
    KNorm,
    O,
    OBias,
    PostAttentionNorm,
    Gate,
    Up,
    Down,
    GateBias,
    UpBias,
    DownBias,
}

impl Role {
    const OF_MODEL: [Role; 3] = [Role::Embedding, Role::FinalNorm, Role::LmHead];
    const OF_LAYER: [Role; 18] = [
        Role::InputNorm,
        Role::Q,
        Role::K,
        Role::V,
        Role::QBias,
        Role::KBias,
        Role::VBias,
        Role::QNorm,
        Role::KNorm,
        Role::O,
        Role::OBias,
        Role::PostAttentionNorm,
        Role::Gate,
        Role::Up,
        Role::Down,
        Role::GateBias,
        Role::UpBias,
        Role::DownBias,
    ];

    /// Its name in a Hugging Face checkpoint, after `model.layers.N.` if it belongs to a layer.
    const fn hugging_face_name(self) -> &'static str {
        match self {
            Role::Embedding => "model.embed_tokens.weight",
            Role::FinalNorm => "model.norm.weight",
            Role::LmHead => "lm_head.weight",
            Role::InputNorm => "input_layernorm.weight",
            Role::Q => "self_attn.q_proj.weight",
            Role::K => "self_attn.k_proj.weight",
            Role::V => "self_attn.v_proj.weight",
            Role::QBias => "self_attn.q_proj.bias",
            Role::KBias => "self_attn.k_proj.bias",
            Role::VBias => "self_attn.v_proj.bias",
            Role::QNorm => "self_attn.q_norm.weight",
            Role::KNorm => "self_attn.k_norm.weight",
            Role::O => "self_attn.o_proj.weight",
            Role::OBias => "self_attn.o_proj.bias",
            Role::PostAttentionNorm => "post_attention_layernorm.weight",
            Role::Gate => "mlp.gate_proj.weight",
            Role::Up => "mlp.up_proj.weight",
            Role::Down => "mlp.down_proj.weight",
            Role::GateBias => "mlp.gate_proj.bias",
            Role::UpBias => "mlp.up_proj.bias",
            Role::DownBias => "mlp.down_proj.bias",
        }
    }

    /// Its name in a GGUF file, after `blk.N.` if it belongs to a layer.
    const fn gguf_name(self) -> &'static str {
        match self {
            Role::Embedding => "token_embd.weight",
            Role::FinalNorm => "output_norm.weight",
            Role::LmHead => "output.weight",
            Role::InputNorm => "attn_norm.weight",
            Role::Q => "attn_q.weight",
            Role::K => "attn_k.weight",
            Role::V => "attn_v.weight",
            Role::QBias => "attn_q.bias",
            Role::KBias => "attn_k.bias",
            Role::VBias => "attn_v.bias",
            Role::QNorm => "attn_q_norm.weight",
            Role::KNorm => "attn_k_norm.weight",
            Role::O => "attn_output.weight",
            Role::OBias => "attn_output.bias",
            Role::PostAttentionNorm => "ffn_norm.weight",
            Role::Gate => "ffn_gate.weight",
            Role::Up => "ffn_up.weight",
            Role::Down => "ffn_down.weight",
            Role::GateBias => "ffn_gate.bias",
            Role::UpBias => "ffn_up.bias",
            Role::DownBias => "ffn_down.bias",
        }
    }
}

/// One tensor of a model. `layer` means nothing for those that belong to none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TensorId {
    pub(crate) role: Role,
    pub(crate) layer: usize,
}

impl TensorId {
    pub(crate) const EMBEDDING: TensorId = TensorId {
        role: Role::Embedding,
        layer: 0,
    };

    /// Its name in a Hugging Face checkpoint.
    pub(crate) fn hugging_face_name(self) -> String {
        let name = self.role.hugging_face_name();
        if Role::OF_MODEL.contains(&self.role) {
            name.to_owned()
        } else {
            format!("model.layers.{}.{name}", self.layer)
        }
    }

    /// Its name in a GGUF file.
    pub(crate) fn gguf_name(self) -> String {
        let name = self.role.gguf_name();
        if Role::OF_MODEL.contains(&self.role) {
            name.to_owned()
        } else {
            format!("blk.{}.{name}", self.layer)
        }
    }
}

impl ModelConfig {
    /// Whether a model of this config has such tensors.
    pub(crate) fn has(&self, role: Role) -> bool {
        match role {
            Role::LmHead => !self.tie_word_embeddings,
            Role::QBias | Role::KBias | Role::VBias => self.qkv_bias,
            Role::OBias => self.o_bias,
            Role::QNorm | Role::KNorm => self.qk_norm,
            Role::GateBias | Role::UpBias | Role::DownBias => self.mlp_bias,
            _ => true,
        }
    }

    /// The shape of such tensors, outermost dimension first.
    pub(crate) fn shape_of(&self, role: Role) -> Vec<usize> {
        let (hidden, intermediate) = (self.hidden_size, self.intermediate_size);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        match role {
            Role::Embedding | Role::LmHead => vec![self.vocab_size, hidden],
            Role::FinalNorm | Role::InputNorm | Role::PostAttentionNorm => vec![hidden],
            Role::Q => vec![q, hidden],
            Role::K | Role::V => vec![kv, hidden],
            Role::QBias => vec![q],
            Role::KBias | Role::VBias => vec![kv],
            Role::QNorm | Role::KNorm => vec![self.head_dim],
            Role::O => vec![hidden, q],
            Role::OBias | Role::DownBias => vec![hidden],
            Role::Gate | Role::Up => vec![intermediate, hidden],
            Role::GateBias | Role::UpBias => vec![intermediate],
            Role::Down => vec![hidden, intermediate],
        }
    }

    /// Every tensor of a model of this config, embedding first.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = TensorId> {
        let of_layers =
            (0..self.layers).flat_map(|layer| Role::OF_LAYER.map(|role| TensorId { role, layer }));
        Role::OF_MODEL
            .map(|role| TensorId { role, layer: 0 })
            .into_iter()
            .chain(of_layers)
            .filter(|id| self.has(id.role))
    }

    /// Numbers in all tensors.
    pub(crate) fn count_parameters(&self) -> u64 {
        let count = |roles: &[Role]| -> u64 {
            let of_role = |&role: &Role| self.shape_of(role).iter().product::<usize>() as u64;
            roles.iter().filter(|&&r| self.has(r)).map(of_role).sum()
        };
        count(&Role::OF_MODEL) + self.layers as u64 * count(&Role::OF_LAYER)
    }
}
