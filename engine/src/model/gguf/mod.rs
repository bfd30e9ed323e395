//! GGUF files: one file with metadata, tokenizer and (mostly quantised) weights.

mod config;
mod cursor;
mod ggml_type;
mod header;
mod metadata;

use std::path::Path;

use serde_json::{Map, Value};
use stepscope_kernels::DType;

pub(crate) use header::Header;
pub(crate) use metadata::Metadata;

use super::checkpoint::{Checkpoint, StoredTensor};
use super::encoding::Encoding;
use super::file::ModelFile;
use super::weights::{Role, TensorId};
use super::{Architecture, ModelConfig, RopeScaling};
use crate::error::Error;

/// A GGUF file, its header read.
pub(crate) struct GgufCheckpoint<'a> {
    pub(crate) header: Header<'a>,
    file: &'a ModelFile,
    /// Llama's queries and keys pair neighbours (`2 i`, `2 i + 1`) where everyone else pairs halves (`i`, `i + d /
    /// 2`).
    interleaved: bool,
    head_dim: usize,
}

impl<'a> GgufCheckpoint<'a> {
    /// Reads the header of `file`; the config that it amounts to comes back with it.
    pub(crate) fn open(
        file: &'a ModelFile,
        overrides: &Map<String, Value>,
    ) -> Result<(GgufCheckpoint<'a>, ModelConfig), Error> {
        let header = Header::parse(file.bytes(), &file.path)?;
        let config = config::read_config(&header, overrides)?;
        let checkpoint = GgufCheckpoint {
            header,
            file,
            interleaved: config.architecture == Architecture::Llama,
            head_dim: config.head_dim,
        };
        let config = checkpoint.with_tensors_in_mind(config)?;
        Ok((checkpoint, config))
    }

    /// What only the tensors tell: biases, frequency factors, how weights are stored.
    fn with_tensors_in_mind(&self, mut config: ModelConfig) -> Result<ModelConfig, Error> {
        let holds = |role: Role| {
            self.header
                .tensors
                .contains_key(TensorId { role, layer: 0 }.gguf_name().as_str())
        };
        if config.architecture == Architecture::Llama {
            config.qkv_bias = holds(Role::QBias);
            config.o_bias = holds(Role::OBias);
            config.mlp_bias = holds(Role::GateBias);
        }
        config.dtype = self.dtype();
        if let Some(factors) = self.rope_factors(config.head_dim)? {
            if let Value::Object(raw) = &mut config.raw {
                raw.insert("rope_factors".to_owned(), factors.clone().into());
            }
            config.rope_scaling = RopeScaling::Factors(factors);
        }
        if let Value::Object(raw) = &mut config.raw {
            raw.insert("dtype".to_owned(), config.dtype.name().into());
        }
        Ok(config)
    }

    /// The type that most numbers of matrices have; bfloat16 stands for quantised ones, whose own precision is lower.
    fn dtype(&self) -> DType {
        let mut counts = [(DType::BF16, 0_u128), (DType::F16, 0), (DType::F32, 0)];
        for tensor in self.header.tensors.values().filter(|t| t.shape.len() > 1) {
            let dtype = match tensor.encoding {
                Ok(Encoding::Plain(dtype)) => dtype,
                _ => DType::BF16,
            };
            // Shapes of types that are not supported were not checked.
            let len = tensor
                .shape
                .iter()
                .fold(1_u128, |n, &d| n.saturating_mul(d as u128));
            for (of, count) in &mut counts {
                if *of == dtype {
                    *count = count.saturating_add(len);
                }
            }
        }
        // The first of equals: bfloat16.
        counts
            .into_iter()
            .rev()
            .max_by_key(|&(_, count)| count)
            .map_or(DType::BF16, |(of, _)| of)
    }

    fn rope_factors(&self, head_dim: usize) -> Result<Option<Vec<f64>>, Error> {
        const NAME: &str = "rope_freqs.weight";
        let Some(tensor) = self.stored(NAME)? else {
            return Ok(None);
        };
        tensor.require_shape(&[head_dim / 2], "the metadata")?;
        let factors = tensor.read_f32()?;
        if factors.iter().any(|f| !f.is_finite() || *f <= 0.0) {
            return Err(Error::input(format!(
                "{}: {NAME} holds a factor that is not a number above 0: the file is damaged, download it again",
                self.file.path.display()
            )));
        }
        Ok(Some(factors.into_iter().map(f64::from).collect()))
    }

    fn stored(&self, name: &str) -> Result<Option<StoredTensor<'_>>, Error> {
        let Some(tensor) = self.header.tensors.get(name) else {
            return Ok(None);
        };
        let encoding = tensor.encoding.map_err(|number| {
            Error::input(format!(
                "{}: tensor {name} has the GGML type {}, which is not supported; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K and Q6_K are",
                self.file.path.display(),
                ggml_type::name(number),
            ))
        })?;
        Ok(Some(StoredTensor {
            file: self.file,
            name: name.to_owned(),
            range: tensor.range.clone(),
            shape: tensor.shape.clone(),
            encoding,
            interleaved_head_dim: None,
        }))
    }
}

impl Checkpoint for GgufCheckpoint<'_> {
    fn name_of(&self, id: TensorId) -> String {
        id.gguf_name()
    }

    fn find(&self, id: TensorId) -> Result<Option<StoredTensor<'_>>, Error> {
        let Some(tensor) = self.stored(&id.gguf_name())? else {
            return Ok(None);
        };
        let permuted = matches!(id.role, Role::Q | Role::K | Role::QBias | Role::KBias);
        if !(self.interleaved && permuted) {
            return Ok(Some(tensor));
        }
        // The elements of a vector change places one by one, which those of a block cannot.
        if tensor.shape.len() == 1 && tensor.encoding.block_len() > 1 {
            return Err(Error::input(format!(
                "{}: the bias {} is quantised, which is not supported: convert the model again, with biases as F32",
                self.file.path.display(),
                tensor.name
            )));
        }
        Ok(Some(StoredTensor {
            interleaved_head_dim: Some(self.head_dim),
            ..tensor
        }))
    }

    fn origin(&self) -> &Path {
        &self.file.path
    }

    fn described_by(&self) -> &'static str {
        "its metadata"
    }
}
