//! Tokenizers as Hugging Face folders hold them.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use std::collections::HashMap;

use super::chat::ChatTemplate;
use super::{Tokenizer, guarded};
use crate::error::Error;
use crate::model::{read_json_object, read_whole, shown};

const TOKENIZER: &str = "tokenizer.json";
/// The tokenizer of a model of 256 000 tokens has about 34 MB.
const TOKENIZER_LIMIT: u64 = 512 << 20;
const CONFIG_LIMIT: u64 = 64 << 20;
const TEMPLATE_LIMIT: u64 = 4 << 20;

/// Special tokens that templates call by name.
const SPECIAL: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// The tokenizer at `path`, a file or a folder.
pub(super) fn from_path(path: &Path) -> Result<Tokenizer, Error> {
    let is_folder = fs::metadata(path)
        .map_err(|e| Error::read(path, &e))?
        .is_dir();
    if !is_folder {
        return from_files(path, path.parent().unwrap_or(Path::new(".")));
    }
    from_folder(path)?.ok_or_else(|| {
        Error::input(format!(
            "{} holds no {TOKENIZER}: name a folder or file with one",
            path.display()
        ))
    })
}

/// The tokenizer in `folder`, if there is one.
pub(super) fn from_folder(folder: &Path) -> Result<Option<Tokenizer>, Error> {
    let path = folder.join(TOKENIZER);
    path.exists().then(|| from_files(&path, folder)).transpose()
}

/// The tokenizer in `tokenizer`, with what `folder` says about it.
fn from_files(tokenizer: &Path, folder: &Path) -> Result<Tokenizer, Error> {
    let inner = read_tokenizer(tokenizer)?;
    let config_path = folder.join("tokenizer_config.json");
    let config = match config_path.exists() {
        true => read_json_object(&config_path, CONFIG_LIMIT)?,
        false => Map::new(),
    };
    let special: Vec<(String, String)> = SPECIAL
        .iter()
        .filter_map(|&name| Some((name.to_owned(), token_text(config.get(name)?)?.to_owned())))
        .collect();
    let id_of = |name: &str| {
        let (_, text) = special.iter().find(|(n, _)| n == name)?;
        inner.token_to_id(text)
    };
    let (bos_token_id, eos_token_ids) =
        (id_of("bos_token"), id_of("eos_token").into_iter().collect());
    let chat = chat_template(folder, &config)?.map(|source| ChatTemplate::new(source, special));
    Ok(Tokenizer {
        inner,
        chat,
        bos_token_id,
        eos_token_ids,
    })
}

fn read_tokenizer(path: &Path) -> Result<tokenizers::Tokenizer, Error> {
    let bytes = read_whole(path, TOKENIZER_LIMIT)?;
    parse_tokenizer(&bytes).map_err(|e| {
        Error::input(format!(
            "{} is no tokenizer that can be used ({e}): download it again",
            path.display()
        ))
    })
}

fn parse_tokenizer(bytes: &[u8]) -> Result<tokenizers::Tokenizer, String> {
    refuse_impossible_merges(bytes)?;
    guarded(|| {
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes)?;
        // What a training script left behind; transformers switches both off too.
        inner.with_truncation(None)?;
        inner.with_padding(None);
        Ok(inner)
    })
}

/// The tokenizers crate panics on a merge whose result is longer than every token.
fn refuse_impossible_merges(bytes: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct File {
        model: Model,
    }
    #[derive(Deserialize)]
    struct Model {
        #[serde(default)]
        vocab: Option<Vocab>,
        #[serde(default)]
        merges: Option<Vec<Merge>>,
        #[serde(default)]
        continuing_subword_prefix: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Vocab {
        Ids(HashMap<String, IgnoredAny>),
        Other(IgnoredAny),
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Merge {
        Spaced(String),
        Pair(String, String),
    }

    let Model {
        vocab,
        merges,
        continuing_subword_prefix,
    } = serde_json::from_slice::<File>(bytes)
        .map_err(|e| e.to_string())?
        .model;
    let (Some(Vocab::Ids(vocab)), Some(merges)) = (vocab, merges) else {
        return Ok(());
    };
    let prefix = continuing_subword_prefix.map_or(0, |p| p.len());
    let longest = vocab.keys().map(String::len).max().unwrap_or(0);
    for merge in &merges {
        let (left, right) = match merge {
            Merge::Spaced(text) => text.split_once(' ').unwrap_or((text, "")),
            Merge::Pair(left, right) => (left.as_str(), right.as_str()),
        };
        if right.len() < prefix || left.len() + right.len() - prefix > longest {
            return Err(format!(
                "merge {} is no token",
                shown(&format!("{left} {right}"))
            ));
        }
    }
    Ok(())
}

/// A token in `tokenizer_config.json`: its text, or an object with it.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// The chat template: a file of its own since transformers 4.51, a key of `tokenizer_config.json` before. Of several,
/// the one called `default`.
fn chat_template(folder: &Path, config: &Map<String, Value>) -> Result<Option<String>, Error> {
    let path = folder.join("chat_template.jinja");
    if path.exists() {
        let bytes = read_whole(&path, TEMPLATE_LIMIT)?;
        let text = String::from_utf8(bytes).map_err(|_| {
            Error::input(format!(
                "{} is not UTF-8: download it again",
                path.display()
            ))
        })?;
        return Ok(Some(text));
    }
    Ok(match config.get("chat_template") {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Array(named)) => named
            .iter()
            .find(|t| t.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|t| t.get("template")?.as_str())
            .map(str::to_owned),
        _ => None,
    })
}
