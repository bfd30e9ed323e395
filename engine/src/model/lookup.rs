//! The config of a model that only a name is known of, without its weights.

use std::path::Path;

use serde_json::Map;

use super::config::ModelConfig;
use super::file::{ModelFile, read_json_object};
use super::gguf::GgufCheckpoint;
use super::shapes::{self, Shape};
use super::source::{Source, resolve};
use super::{CONFIG_LIMIT, LoadFormat, name_of};
use crate::error::Error;

/// The name and the config of the model that a person, or another program's result, means: a `config.json`, a folder, a GGUF
/// file, a named shape, or the repository of one with what is usually added to its name (`Qwen/Qwen2.5-32B-Instruct`).
///
/// # Errors
/// When there is no such model, or its config cannot be read.
pub fn find_config(model: &str) -> Result<(String, ModelConfig), Error> {
    let path = Path::new(model);
    if path.is_file() && path.extension().is_some_and(|e| e == "json") {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        return Ok((name_of(folder.unwrap_or(path)), config_of_file(path)?));
    }
    if !path.exists()
        && let Some(shape) = shapes::of_repository(model)
    {
        return Ok((shape.name.to_owned(), config_of_shape(shape)?));
    }
    match resolve(model, LoadFormat::Dummy)? {
        Source::Folder(folder) => Ok((
            name_of(&folder),
            config_of_file(&folder.join("config.json"))?,
        )),
        Source::Gguf(path) => {
            let file = ModelFile::open(&path)?;
            let (_, config) = GgufCheckpoint::open(&file, &Map::new())?;
            Ok((name_of(&path), config))
        }
        Source::Shape(shape) => Ok((shape.name.to_owned(), config_of_shape(shape)?)),
    }
}

fn config_of_file(path: &Path) -> Result<ModelConfig, Error> {
    ModelConfig::from_map(read_json_object(path, CONFIG_LIMIT)?, path, &Map::new())
}

fn config_of_shape(shape: &Shape) -> Result<ModelConfig, Error> {
    ModelConfig::from_map(shape.config_json(), Path::new(shape.name), &Map::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(model: &str, expected: &str) {
        assert_eq!(find_config(model).unwrap().0, expected, "{model}");
    }

    #[test]
    fn a_repository_means_its_shape() {
        check("qwen2.5-32b", "qwen2.5-32b");
        check("Qwen/Qwen2.5-32B-Instruct", "qwen2.5-32b");
        check("Qwen2.5-7B-Instruct-1M", "qwen2.5-7b");
        check("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b");
        check("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m");
        let error = find_config("Qwen/Qwen9-3B").unwrap_err().to_string();
        assert!(error.contains("no model"), "{error}");
    }

    #[test]
    fn a_config_file_is_enough() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("my-model");
        std::fs::create_dir(&model).unwrap();
        let path = model.join("config.json");
        let (_, config) = find_config("qwen2.5-0.5b").unwrap();
        std::fs::write(&path, config.raw.to_string()).unwrap();
        let (name, read) = find_config(path.to_str().unwrap()).unwrap();
        assert_eq!((name.as_str(), read.layers), ("my-model", 24));
        check(model.to_str().unwrap(), "my-model");
        std::fs::write(&path, "{").unwrap();
        assert!(find_config(path.to_str().unwrap()).is_err());
    }
}
