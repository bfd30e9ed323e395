//! What a person's `--model` means: a folder, a GGUF file or a named shape.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::LoadFormat;
use super::hugging_face::{files_in, safetensors_in};
use super::shapes::{self, Shape};
use crate::error::Error;

/// Where a model is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    /// A Hugging Face folder, which holds a `config.json`.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
    /// A shape without weights.
    Shape(&'static Shape),
}

/// Finds out what `model` means, given the `format` that was asked for.
pub(super) fn resolve(model: &str, format: LoadFormat) -> Result<Source, Error> {
    let path = Path::new(model);
    let source = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => in_folder(path, format)?,
        Ok(_) => file(path)?,
        Err(e) if e.kind() == ErrorKind::NotFound || model.is_empty() => {
            Source::Shape(shapes::find(model).ok_or_else(|| unknown(model))?)
        }
        Err(e) => return Err(Error::read(path, &e)),
    };
    let fits = match (&source, format) {
        (_, LoadFormat::Auto | LoadFormat::Dummy) => true,
        (Source::Folder(_), LoadFormat::Safetensors) | (Source::Gguf(_), LoadFormat::Gguf) => true,
        (_, LoadFormat::Safetensors | LoadFormat::Gguf) => false,
    };
    if fits {
        return Ok(source);
    }
    let is = match source {
        Source::Folder(_) => "a folder without GGUF file",
        Source::Gguf(_) => "a GGUF file",
        Source::Shape(_) => "a named shape, which has no weights",
    };
    Err(Error::input(format!(
        "{model} is {is}: load format {} cannot be had, use auto",
        format.name()
    )))
}

fn in_folder(folder: &Path, format: LoadFormat) -> Result<Source, Error> {
    let has_config = folder.join("config.json").exists();
    let wants_folder = match format {
        LoadFormat::Safetensors | LoadFormat::Dummy => has_config,
        LoadFormat::Auto => has_config && !safetensors_in(folder)?.is_empty(),
        LoadFormat::Gguf => false,
    };
    if wants_folder {
        return Ok(Source::Folder(folder.to_owned()));
    }
    let mut ggufs = files_in(folder, "gguf")?;
    match (ggufs.pop(), ggufs.is_empty()) {
        (Some(path), true) => Ok(Source::Gguf(path)),
        (Some(_), false) => Err(Error::input(format!(
            "{} holds {} GGUF files: name the one to load",
            folder.display(),
            ggufs.len() + 1
        ))),
        // Without any weights, the error about those says more.
        (None, _) if has_config => Ok(Source::Folder(folder.to_owned())),
        (None, _) => Err(Error::input(format!(
            "{} holds neither a config.json nor a .gguf file: it is no model's folder",
            folder.display()
        ))),
    }
}

fn file(path: &Path) -> Result<Source, Error> {
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    if extension.eq_ignore_ascii_case("gguf") || begins_with_gguf(path) {
        return Ok(Source::Gguf(path.to_owned()));
    }
    let way_out = match extension {
        "safetensors" | "json" => "name the folder that it lies in",
        _ => "name a Hugging Face folder, a .gguf file or a named shape",
    };
    Err(Error::input(format!(
        "{} is neither a folder nor a GGUF file: {way_out}",
        path.display()
    )))
}

fn begins_with_gguf(path: &Path) -> bool {
    let is_file = fs::metadata(path).is_ok_and(|m| m.is_file());
    let mut magic = [0; 4];
    is_file
        && fs::File::open(path)
            .and_then(|mut f| f.read_exact(&mut magic))
            .is_ok()
        && &magic == b"GGUF"
}

/// The error for what is neither a path nor a shape.
fn unknown(model: &str) -> Error {
    let close = shapes::close_to(model);
    let hint = if close.is_empty() {
        format!(
            "named shapes are {}",
            shapes::names().collect::<Vec<_>>().join(", ")
        )
    } else {
        format!("did you mean the shape {}?", close.join(" or "))
    };
    let repository = match model.split_once('/') {
        Some((owner, name))
            if !owner.is_empty() && !owner.starts_with('.') && !name.contains('/') =>
        {
            "; a Hugging Face repository must be downloaded first (hf download)"
        }
        _ => "",
    };
    Error::input(format!(
        "no model {model:?}: there is no such file or folder, nor a shape of that name{repository}; {hint}"
    ))
}
