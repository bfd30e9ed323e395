//! The loading paths on bytes instead of files: what the fuzz targets and mutation tests call.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Map;
use stepscope_kernels::DType;

use super::checkpoint::load_weights;
use super::file::ModelFile;
use super::gguf::GgufCheckpoint;
use super::hugging_face::{HuggingFaceCheckpoint, SafetensorsFile};
use super::{ModelConfig, NoProgress, Weights};
use crate::error::Error;
use crate::tokenizer::Tokenizer;

/// The weights of a model of `config`, from a safetensors file.
pub fn safetensors(bytes: Vec<u8>, config: &ModelConfig, dtype: DType) -> Result<Weights, Error> {
    let path = Path::new("model.safetensors");
    let file = SafetensorsFile::parse(ModelFile::from_bytes(path, Bytes::from(bytes))?)?;
    let checkpoint = HuggingFaceCheckpoint::of(PathBuf::from(path), vec![file])?;
    Ok(load_weights(config, dtype, &checkpoint, &NoProgress)?.weights)
}

/// The model in a GGUF file. Its tokenizer comes first, so that neither is left out when the other is at fault.
pub fn gguf(
    bytes: Vec<u8>,
    dtype: DType,
) -> (Result<Option<Tokenizer>, Error>, Result<Weights, Error>) {
    let path = Path::new("model.gguf");
    let file = match ModelFile::from_bytes(path, Bytes::from(bytes)) {
        Ok(file) => file,
        Err(e) => return (Err(Error::input(e.to_string())), Err(e)),
    };
    let (checkpoint, config) = match GgufCheckpoint::open(&file, &Map::new()) {
        Ok(opened) => opened,
        Err(e) => return (Err(Error::input(e.to_string())), Err(e)),
    };
    let tokenizer = Tokenizer::from_gguf(&checkpoint.header.metadata);
    let weights =
        load_weights(&config, dtype, &checkpoint, &NoProgress).map(|loaded| loaded.weights);
    (tokenizer, weights)
}
