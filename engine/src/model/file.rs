//! A checkpoint's file, mapped for what is used as it is and read piecewise for what is converted.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use memmap2::Mmap;
use serde_json::{Map, Value};

use crate::error::Error;

/// What `git clone` leaves where Git LFS was not at work.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// The bytes of a file of weights.
#[derive(Debug)]
pub(crate) struct ModelFile {
    /// Where it is, for errors.
    pub(crate) path: PathBuf,
    bytes: Bytes,
    /// `None` for bytes that were in memory from the start.
    file: Option<File>,
}

impl ModelFile {
    /// Maps the file at `path`.
    pub(crate) fn open(path: &Path) -> Result<ModelFile, Error> {
        let file = open_regular(path)?;
        // SAFETY: a mapping is sound while nobody changes or shortens the file. Keeping to that is up to whoever owns
        // the file: checkpoints are written once, and a person who rewrites one in place under a running program
        // breaks this program as every other one that maps its weights.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::read(path, &e))?;
        let bytes = if map.is_empty() {
            Bytes::new()
        } else {
            Bytes::from_owner(map)
        };
        ModelFile::checked(path, bytes, Some(file))
    }

    /// `bytes` as if they were the file at `path`.
    pub(crate) fn from_bytes(path: &Path, bytes: Bytes) -> Result<ModelFile, Error> {
        ModelFile::checked(path, bytes, None)
    }

    fn checked(path: &Path, bytes: Bytes, file: Option<File>) -> Result<ModelFile, Error> {
        refuse_lfs_pointer(path, &bytes)?;
        if bytes.is_empty() {
            return Err(Error::input(format!(
                "{} is empty: download it again",
                path.display()
            )));
        }
        Ok(ModelFile {
            path: path.to_owned(),
            bytes,
            file,
        })
    }

    /// All of it, mapped.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A part of it, mapped; holds the mapping alive. `range` must lie within the file.
    pub(crate) fn slice(&self, range: Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    /// Fills `out` with the bytes from `offset` on, without touching the mapping: what is converted and dropped must
    /// not count as resident memory too. `offset + out.len()` must lie within the file.
    pub(crate) fn read_at(&self, offset: usize, out: &mut [u8]) -> Result<(), Error> {
        match &self.file {
            Some(file) => file
                .read_exact_at(out, offset as u64)
                .map_err(|e| Error::read(&self.path, &e)),
            None => {
                out.copy_from_slice(&self.bytes[offset..offset + out.len()]);
                Ok(())
            }
        }
    }
}

/// The JSON object in the file at `path`, which may be up to `limit` bytes long.
pub(crate) fn read_json_object(path: &Path, limit: u64) -> Result<Map<String, Value>, Error> {
    parse_json_object(&read_whole(path, limit)?, path)
}

/// The JSON object in `text`. `origin` is what errors name.
pub(crate) fn parse_json_object(text: &[u8], origin: &Path) -> Result<Map<String, Value>, Error> {
    refuse_lfs_pointer(origin, text)?;
    match serde_json::from_slice(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(other) => Err(Error::input(format!(
            "{} holds {}, not a JSON object: download it again",
            origin.display(),
            json_kind(&other)
        ))),
        Err(e) => Err(Error::input(format!(
            "{} is not JSON ({e}): download it again",
            origin.display()
        ))),
    }
}

/// What kind of JSON value this is, with its article.
pub(crate) fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// All bytes of the file at `path`, which may be up to `limit` bytes long.
pub(crate) fn read_whole(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    open_regular(path)?;
    let len = fs::metadata(path).map_err(|e| Error::read(path, &e))?.len();
    if len > limit {
        return Err(Error::input(format!(
            "{} has {len} bytes, where at most {limit} are plausible: is it the right file?",
            path.display()
        )));
    }
    let bytes = fs::read(path).map_err(|e| Error::read(path, &e))?;
    refuse_lfs_pointer(path, &bytes)?;
    Ok(bytes)
}

/// Text from a file as an error shows it: on one line, quoted, and not endless.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 100;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

fn open_regular(path: &Path) -> Result<File, Error> {
    // Metadata first: opening a pipe would wait for a writer.
    let metadata = fs::metadata(path).map_err(|e| Error::read(path, &e))?;
    if !metadata.is_file() {
        return Err(Error::input(format!("{} is not a file", path.display())));
    }
    File::open(path).map_err(|e| Error::read(path, &e))
}

fn refuse_lfs_pointer(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if bytes.starts_with(LFS_POINTER) {
        return Err(Error::input(format!(
            "{} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder",
            path.display()
        )));
    }
    Ok(())
}
