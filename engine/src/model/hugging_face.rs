//! Hugging Face folders: safetensors files, one or several, with or without an index.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};
use stepscope_kernels::DType;

use super::ModelConfig;
use super::checkpoint::{Checkpoint, StoredTensor};
use super::encoding::Encoding;
use super::file::{ModelFile, read_json_object, shown};
use super::weights::TensorId;
use crate::error::Error;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// An index of 100 000 tensors has about 8 MB.
const INDEX_LIMIT: u64 = 256 << 20;
/// The length of a safetensors header comes first, as a `u64`.
const LENGTH_BYTES: usize = 8;
/// The limit of the safetensors crate.
const HEADER_LIMIT: usize = 100_000_000;

/// The safetensors files of a folder, their headers read.
#[derive(Debug)]
pub(crate) struct HuggingFaceCheckpoint {
    origin: PathBuf,
    files: Vec<SafetensorsFile>,
    /// Which file holds a tensor.
    locations: HashMap<String, usize>,
}

impl HuggingFaceCheckpoint {
    /// Opens those files of `folder` that hold tensors of a model of `config`.
    pub(crate) fn open(
        folder: &Path,
        config: &ModelConfig,
    ) -> Result<HuggingFaceCheckpoint, Error> {
        let single = folder.join(SINGLE);
        if single.exists() {
            return HuggingFaceCheckpoint::of(
                single.clone(),
                vec![SafetensorsFile::open(&single)?],
            );
        }
        let index = folder.join(INDEX);
        if index.exists() {
            return HuggingFaceCheckpoint::indexed(folder, index, config);
        }
        let mut files = Vec::new();
        for path in safetensors_in(folder)? {
            files.push(SafetensorsFile::open(&path)?);
        }
        if files.is_empty() {
            return Err(no_weights(folder));
        }
        HuggingFaceCheckpoint::of(folder.to_owned(), files)
    }

    /// All tensors of all `files`; `origin` stands for them in errors.
    pub(crate) fn of(
        origin: PathBuf,
        files: Vec<SafetensorsFile>,
    ) -> Result<HuggingFaceCheckpoint, Error> {
        let mut locations = HashMap::new();
        for (number, file) in files.iter().enumerate() {
            for name in file.tensors.keys() {
                if let Some(other) = locations.insert(name.clone(), number) {
                    return Err(Error::input(format!(
                        "{} and {} both hold the tensor {}: remove one of them",
                        files[other].file.path.display(),
                        file.file.path.display(),
                        shown(name)
                    )));
                }
            }
        }
        Ok(HuggingFaceCheckpoint {
            origin,
            files,
            locations,
        })
    }

    /// Goes by `index`, which says for each tensor which file of `folder` holds it.
    fn indexed(
        folder: &Path,
        index: PathBuf,
        config: &ModelConfig,
    ) -> Result<HuggingFaceCheckpoint, Error> {
        let map = read_json_object(&index, INDEX_LIMIT)?;
        let Some(Value::Object(weight_map)) = map.get("weight_map") else {
            return Err(Error::input(format!(
                "{} has no object \"weight_map\": download it again",
                index.display()
            )));
        };
        let mut files: Vec<SafetensorsFile> = Vec::new();
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut locations = HashMap::new();
        for id in config.tensors() {
            let name = id.hugging_face_name();
            let Some(file) = file_of(weight_map, &name, &index)? else {
                continue; // reported as missing, with what was expected
            };
            let number = match numbers.get(file) {
                Some(&number) => number,
                None => {
                    files.push(SafetensorsFile::open(&folder.join(file))?);
                    numbers.insert(file, files.len() - 1);
                    files.len() - 1
                }
            };
            if !files[number].tensors.contains_key(&name) {
                return Err(Error::input(format!(
                    "{} says that {file} holds the tensor {name}, but it does not: download both again",
                    index.display()
                )));
            }
            locations.insert(name, number);
        }
        Ok(HuggingFaceCheckpoint {
            origin: index,
            files,
            locations,
        })
    }

    /// The files that were opened.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|f| f.file.path.clone()).collect()
    }

    /// How the embedding is stored, which speaks for a config that does not say.
    pub(crate) fn stored_dtype(&self) -> Option<DType> {
        let embedding = TensorId::EMBEDDING.hugging_face_name();
        let number = *self.locations.get(&embedding)?;
        dtype(self.files[number].tensors.get(&embedding)?.dtype)
    }
}

impl Checkpoint for HuggingFaceCheckpoint {
    fn name_of(&self, id: TensorId) -> String {
        id.hugging_face_name()
    }

    fn find(&self, id: TensorId) -> Result<Option<StoredTensor<'_>>, Error> {
        let name = id.hugging_face_name();
        let Some(&number) = self.locations.get(&name) else {
            return Ok(None);
        };
        self.files[number].stored(&name)
    }

    fn origin(&self) -> &Path {
        &self.origin
    }

    fn described_by(&self) -> &'static str {
        "config.json"
    }
}

/// A safetensors file, its header read.
#[derive(Debug)]
pub(crate) struct SafetensorsFile {
    file: ModelFile,
    tensors: HashMap<String, Placed>,
}

/// Where a tensor lies in its file.
#[derive(Debug)]
struct Placed {
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

impl SafetensorsFile {
    fn open(path: &Path) -> Result<SafetensorsFile, Error> {
        SafetensorsFile::parse(ModelFile::open(path)?)
    }

    /// Reads the header of `file`.
    pub(crate) fn parse(file: ModelFile) -> Result<SafetensorsFile, Error> {
        let error =
            |problem: &dyn fmt::Display| Error::input(format!("{} {problem}", file.path.display()));
        let bytes = file.bytes();
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
            return Err(error(
                &"is shorter than a safetensors header: it is truncated, download it again",
            ));
        };
        let length = u64::from_le_bytes(*length);
        let header = usize::try_from(length)
            .ok()
            .filter(|&n| n <= HEADER_LIMIT)
            .and_then(|n| rest.get(..n))
            .ok_or_else(|| {
                error(&format_args!(
                    "claims a header of {length} bytes, but has {} (and at most {HEADER_LIMIT} are allowed): it is truncated, or no safetensors file",
                    bytes.len()
                ))
            })?;
        let UniqueKeys = serde_json::from_slice(header).map_err(|e| {
            error(&format_args!(
                "has a header that is not right ({e}): download it again"
            ))
        })?;
        let metadata: Metadata = serde_json::from_slice(header).map_err(|e| {
            error(&format_args!(
                "has a header that is not right ({e}): download it again"
            ))
        })?;
        let data_start = LENGTH_BYTES + header.len();
        let expected = metadata.data_len().saturating_add(data_start);
        if expected != bytes.len() {
            let what = if bytes.len() < expected {
                "truncated"
            } else {
                "damaged"
            };
            return Err(error(&format_args!(
                "has {} bytes, but its header describes {expected}: it is {what}, download it again",
                bytes.len()
            )));
        }
        let tensors = metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| {
                let (start, end) = info.data_offsets;
                let placed = Placed {
                    dtype: info.dtype,
                    shape: info.shape.clone(),
                    range: data_start + start..data_start + end,
                };
                (name, placed)
            })
            .collect();
        Ok(SafetensorsFile { file, tensors })
    }

    fn stored(&self, name: &str) -> Result<Option<StoredTensor<'_>>, Error> {
        let Some(placed) = self.tensors.get(name) else {
            return Ok(None);
        };
        let dtype = dtype(placed.dtype).ok_or_else(|| {
            Error::input(format!(
                "{}: tensor {} is stored as {}, which is not supported; F32, F16 and BF16 are",
                self.file.path.display(),
                shown(name),
                placed.dtype
            ))
        })?;
        Ok(Some(StoredTensor {
            file: &self.file,
            name: name.to_owned(),
            range: placed.range.clone(),
            shape: placed.shape.clone(),
            encoding: Encoding::Plain(dtype),
            interleaved_head_dim: None,
        }))
    }
}

fn dtype(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}

/// Every `*.safetensors` in `folder`, in the order of names.
pub(crate) fn safetensors_in(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    files_in(folder, "safetensors")
}

/// Every file in `folder` with this extension, in the order of names.
pub(crate) fn files_in(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(folder).map_err(|e| Error::read(folder, &e))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::read(folder, &e))?.path();
        if path.extension() == Some(OsStr::new(extension)) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The file that `weight_map` names for `name`: a plain name, which cannot lead out of the folder.
fn file_of<'a>(
    weight_map: &'a Map<String, Value>,
    name: &str,
    index: &Path,
) -> Result<Option<&'a str>, Error> {
    let Some(value) = weight_map.get(name) else {
        return Ok(None);
    };
    let file = value.as_str().unwrap_or_default();
    let mut components = Path::new(file).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(_)), None) => Ok(Some(file)),
        _ => Err(Error::input(format!(
            "{} names {} as the file of {name}, expected the plain name of a file beside it: download it again",
            index.display(),
            shown(&value.to_string())
        ))),
    }
}

fn no_weights(folder: &Path) -> Error {
    let has = |name: &str| folder.join(name).exists();
    let found = if has("pytorch_model.bin") || has("pytorch_model.bin.index.json") {
        "only PyTorch's .bin, which are not supported: convert them to safetensors"
    } else {
        "none: download the weights too, or run without (load format dummy)"
    };
    Error::input(format!(
        "{} should hold {SINGLE} or {INDEX} and its files, but holds {found}",
        folder.display()
    ))
}

/// A JSON object whose keys all differ. The safetensors crate keeps the last of equal ones, and would let a tensor of
/// a damaged file pass for another.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UniqueKeys, D::Error> {
        deserializer.deserialize_map(UniqueKeys)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = UniqueKeys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with one entry per tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueKeys, A::Error> {
        let mut keys = HashSet::new();
        while let Some((key, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
            if keys.contains(&key) {
                return Err(A::Error::custom(format_args!(
                    "tensor {} appears twice",
                    shown(&key)
                )));
            }
            keys.insert(key);
        }
        Ok(UniqueKeys)
    }
}
