//! The key-value pairs of a GGUF file.

use std::collections::HashMap;
use std::path::Path;

use super::cursor::Cursor;
use crate::error::Error;
use crate::model::file::shown;

/// The key-value pairs of a GGUF file.
#[derive(Debug)]
pub(crate) struct Metadata<'a> {
    pub(super) values: HashMap<&'a str, Item<'a>>,
    pub(super) path: &'a Path,
}

/// A value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(&'a str),
    /// Elements of `kind`, as they lie in the file; strings are checked to be whole and UTF-8.
    Array {
        kind: Kind,
        len: usize,
        bytes: &'a [u8],
    },
}

/// What kind of value it is, in the order of GGUF's numbers for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    pub(super) const ALL: [Kind; 13] = [
        Kind::U8,
        Kind::I8,
        Kind::U16,
        Kind::I16,
        Kind::U32,
        Kind::I32,
        Kind::F32,
        Kind::Bool,
        Kind::Text,
        Kind::Array,
        Kind::U64,
        Kind::I64,
        Kind::F64,
    ];

    /// Bytes of a number; the least that a string or array takes.
    pub(super) const fn least_bytes(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 | Kind::Text => 8,
            Kind::Array => 12,
        }
    }
}

impl<'a> Metadata<'a> {
    /// The file that this is the metadata of.
    pub(crate) fn path(&self) -> &'a Path {
        self.path
    }

    /// The whole number under `key`.
    pub(crate) fn unsigned(&self, key: &str) -> Result<Option<u64>, Error> {
        match self.values.get(key) {
            None => Ok(None),
            Some(&Item::Unsigned(n)) => Ok(Some(n)),
            Some(&Item::Signed(n)) if n >= 0 => Ok(Some(n as u64)),
            Some(_) => Err(self.wrong(key, "a whole number from 0")),
        }
    }

    /// The whole number under `key`, or the one number that all elements of an array there are (one per layer).
    pub(crate) fn uniform(&self, key: &str) -> Result<Option<u64>, Error> {
        let Some(&Item::Array { .. }) = self.values.get(key) else {
            return self.unsigned(key);
        };
        let mut elements = self.integers(key)?.into_iter().flatten();
        let Some(first) = elements.next() else {
            return Ok(None);
        };
        if first < 0 || elements.any(|n| n != first) {
            return Err(self.wrong(key, "one whole number from 0 for all layers"));
        }
        Ok(Some(first as u64))
    }

    /// The number under `key`.
    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        match self.values.get(key) {
            None => Ok(None),
            Some(&Item::Float(n)) => Ok(Some(n)),
            Some(&Item::Unsigned(n)) => Ok(Some(n as f64)),
            Some(&Item::Signed(n)) => Ok(Some(n as f64)),
            Some(_) => Err(self.wrong(key, "a number")),
        }
    }

    /// The truth value under `key`.
    pub(crate) fn boolean(&self, key: &str) -> Result<Option<bool>, Error> {
        match self.values.get(key) {
            None => Ok(None),
            Some(&Item::Bool(b)) => Ok(Some(b)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// The string under `key`.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, Error> {
        match self.values.get(key) {
            None => Ok(None),
            Some(&Item::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "a string")),
        }
    }

    /// The strings under `key`.
    pub(crate) fn texts(
        &self,
        key: &str,
    ) -> Result<Option<impl ExactSizeIterator<Item = &'a str>>, Error> {
        match self.values.get(key) {
            None => Ok(None),
            Some(&Item::Array {
                kind: Kind::Text,
                len,
                bytes,
            }) => {
                let mut cursor = Cursor {
                    bytes,
                    at: 0,
                    path: self.path,
                };
                // Every string was read once, so none can fail here.
                Ok(Some(
                    (0..len).map(move |_| cursor.text().unwrap_or_default()),
                ))
            }
            Some(_) => Err(self.wrong(key, "an array of strings")),
        }
    }

    /// The whole numbers under `key`.
    pub(crate) fn integers(
        &self,
        key: &str,
    ) -> Result<Option<impl ExactSizeIterator<Item = i64> + 'a>, Error> {
        match self.values.get(key) {
            None => Ok(None),
            Some(&Item::Array {
                kind,
                len: _,
                bytes,
            }) if !matches!(kind, Kind::F32 | Kind::F64 | Kind::Text | Kind::Array) => Ok(Some(
                bytes
                    .chunks_exact(kind.least_bytes())
                    .map(move |raw| integer(kind, raw)),
            )),
            Some(_) => Err(self.wrong(key, "an array of whole numbers")),
        }
    }

    /// The numbers under `key`.
    pub(crate) fn floats(
        &self,
        key: &str,
    ) -> Result<Option<impl ExactSizeIterator<Item = f32> + 'a>, Error> {
        match self.values.get(key) {
            None => Ok(None),
            Some(&Item::Array {
                kind: Kind::F32,
                len: _,
                bytes,
            }) => Ok(Some(
                bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|raw| f32::from_le_bytes(*raw)),
            )),
            Some(_) => Err(self.wrong(key, "an array of float32")),
        }
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        let found = match self.values.get(key) {
            None => "missing".to_owned(),
            Some(Item::Unsigned(n)) => n.to_string(),
            Some(Item::Signed(n)) => n.to_string(),
            Some(Item::Float(n)) => n.to_string(),
            Some(Item::Bool(b)) => b.to_string(),
            Some(Item::Text(text)) => shown(text),
            Some(Item::Array { kind, len, .. }) => format!("an array of {len} {kind:?}"),
        };
        Error::input(format!(
            "{}: {key} is {found}, expected {expected}",
            self.path.display()
        ))
    }
}

/// A whole number of `kind` from its bytes; 64-bit ones beyond `i64` become negative, which no caller takes.
pub(super) fn integer(kind: Kind, raw: &[u8]) -> i64 {
    let mut wide = [0; 8];
    wide[..raw.len()].copy_from_slice(raw);
    let unsigned = i64::from_le_bytes(wide);
    match kind {
        Kind::I8 => i64::from(unsigned as i8),
        Kind::I16 => i64::from(unsigned as i16),
        Kind::I32 => i64::from(unsigned as i32),
        _ => unsigned,
    }
}
