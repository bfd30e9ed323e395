//! The header of a GGUF file: metadata and where each tensor lies.
//!
//! The format is that of ggml's `docs/gguf.md`, versions 2 and 3, little endian. A header is untrusted: every count and length
//! is held against the bytes that are left before anything is read or reserved for it.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use stepscope_kernels::DType;

use crate::error::Error;
use crate::model::encoding::Encoding;
use crate::model::file::shown;

/// What a GGUF file says about itself.
#[derive(Debug)]
pub(crate) struct Header<'a> {
    pub(crate) metadata: Metadata<'a>,
    pub(crate) tensors: HashMap<&'a str, TensorInfo>,
}

/// Where a tensor lies.
#[derive(Debug)]
pub(crate) struct TensorInfo {
    /// Outermost dimension first (GGUF writes the innermost first).
    pub(crate) shape: Vec<usize>,
    /// How it is written, or the number of the GGML type that is not supported.
    pub(crate) encoding: Result<Encoding, u32>,
    /// Its bytes in the file; empty if the type is not supported.
    pub(crate) range: Range<usize>,
}

/// The key-value pairs of a GGUF file.
#[derive(Debug)]
pub(crate) struct Metadata<'a> {
    values: HashMap<&'a str, Item<'a>>,
    path: &'a Path,
}

#[derive(Debug, Clone, Copy)]
enum Item<'a> {
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
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
    const ALL: [Kind; 13] = [
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
    const fn least_bytes(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 | Kind::Text => 8,
            Kind::Array => 12,
        }
    }
}

/// The least that a key-value pair takes: length of the key, kind, one byte.
const PAIR_BYTES: usize = 8 + 4 + 1;
/// The least that a tensor's entry takes: length of the name, count of dimensions, type, offset.
const TENSOR_BYTES: usize = 8 + 4 + 4 + 8;
/// GGML's own limit.
const MAX_DIMENSIONS: u32 = 4;

impl<'a> Header<'a> {
    /// Reads the header of the file that is `bytes`.
    pub(crate) fn parse(bytes: &'a [u8], path: &'a Path) -> Result<Header<'a>, Error> {
        let mut cursor = Cursor { bytes, at: 0, path };
        if cursor.take(4).ok() != Some(b"GGUF") {
            return Err(cursor.error("does not begin with GGUF: it is not a GGUF file"));
        }
        match cursor.u32()? {
            2 | 3 => {}
            version if matches!(version.swap_bytes(), 1..=3) => {
                return Err(cursor.error("is a big-endian GGUF file, which is not supported: convert it again, little-endian"));
            }
            version => {
                return Err(cursor.error(format_args!(
                    "has GGUF version {version}, but 2 and 3 are supported: convert the model again"
                )));
            }
        }
        let tensor_count = cursor.u64()?;
        let pair_count = cursor.u64()?;
        let pairs = cursor.plausible(pair_count, PAIR_BYTES, "key-value pairs")?;
        let tensors = cursor.plausible(tensor_count, TENSOR_BYTES, "tensors")?;

        let mut values = HashMap::new();
        for _ in 0..pairs {
            let key = cursor.text()?;
            let item = cursor.item(key)?;
            if values.insert(key, item).is_some() {
                return Err(cursor.error(format_args!("holds the key {} twice", shown(key))));
            }
        }
        let metadata = Metadata { values, path };
        let alignment = match metadata.unsigned("general.alignment")? {
            None => 32,
            Some(n) if n.is_power_of_two() && n <= 1 << 20 => n as usize,
            Some(n) => {
                return Err(cursor.error(format_args!(
                    "has general.alignment {n}, expected a power of two up to 1048576"
                )));
            }
        };

        let mut entries = Vec::new();
        for _ in 0..tensors {
            entries.push(cursor.tensor_entry()?);
        }
        let data_start = cursor.at.next_multiple_of(alignment);
        let mut tensors = HashMap::new();
        for entry in entries {
            let name = entry.name;
            let info = entry.place(data_start, alignment, &cursor)?;
            if tensors.insert(name, info).is_some() {
                return Err(cursor.error(format_args!("holds the tensor {} twice", shown(name))));
            }
        }
        refuse_overlap(&tensors, &cursor)?;
        Ok(Header { metadata, tensors })
    }
}

/// A tensor's entry in the header.
struct Entry<'a> {
    name: &'a str,
    shape: Vec<usize>,
    ggml_type: u32,
    offset: u64,
}

impl Entry<'_> {
    /// Where the tensor's bytes lie, if they do.
    fn place(
        self,
        data_start: usize,
        alignment: usize,
        cursor: &Cursor<'_>,
    ) -> Result<TensorInfo, Error> {
        let name = shown(self.name);
        let Ok(encoding) = encoding(self.ggml_type) else {
            return Ok(TensorInfo {
                shape: self.shape,
                encoding: Err(self.ggml_type),
                range: 0..0,
            });
        };
        if self
            .shape
            .last()
            .is_some_and(|n| !n.is_multiple_of(encoding.block_len()))
        {
            return Err(cursor.error(format_args!(
                "holds the tensor {name} of shape {:?}, whose rows are not whole {} blocks",
                self.shape,
                ggml_type_name(self.ggml_type)
            )));
        }
        let bytes = self
            .shape
            .iter()
            .try_fold(1_usize, |n, &d| n.checked_mul(d))
            .and_then(|len| encoding.bytes_of(len));
        let start = usize::try_from(self.offset)
            .ok()
            .and_then(|o| o.checked_add(data_start));
        let range = match (start, bytes) {
            (Some(start), Some(bytes)) => start.checked_add(bytes).map(|end| start..end),
            _ => None,
        };
        let range = range.filter(|r| r.end <= cursor.bytes.len()).ok_or_else(|| {
            cursor.error(format_args!(
                "ends within the tensor {name} (shape {:?}, offset {}): it has {} bytes and is truncated, download it again",
                self.shape,
                self.offset,
                cursor.bytes.len()
            ))
        })?;
        if !self.offset.is_multiple_of(alignment as u64) {
            return Err(cursor.error(format_args!(
                "places the tensor {name} at offset {}, which is no multiple of its alignment {alignment}",
                self.offset
            )));
        }
        Ok(TensorInfo {
            shape: self.shape,
            encoding: Ok(encoding),
            range,
        })
    }
}

/// Tensors that share bytes could make a small file ask for much memory.
fn refuse_overlap(tensors: &HashMap<&str, TensorInfo>, cursor: &Cursor<'_>) -> Result<(), Error> {
    let mut placed: Vec<_> = tensors.iter().filter(|(_, t)| t.encoding.is_ok()).collect();
    placed.sort_unstable_by_key(|(name, t)| (t.range.start, t.range.end, **name));
    for pair in placed.windows(2) {
        let [(first, a), (second, b)] = pair else {
            continue;
        };
        if b.range.start < a.range.end {
            return Err(cursor.error(format_args!(
                "places the tensors {} and {} on the same bytes",
                shown(first),
                shown(second)
            )));
        }
    }
    Ok(())
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
fn integer(kind: Kind, raw: &[u8]) -> i64 {
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

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    path: &'a Path,
}

impl<'a> Cursor<'a> {
    fn error(&self, problem: impl std::fmt::Display) -> Error {
        Error::input(format!("{} {problem}", self.path.display()))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let end = self
            .at
            .checked_add(len)
            .filter(|&end| end <= self.bytes.len());
        let Some(end) = end else {
            return Err(self.error(format_args!(
                "ends within its header ({len} bytes wanted at {} of {}): it is truncated or damaged, download it again",
                self.at,
                self.bytes.len()
            )));
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// `count`, if that many things of `least` bytes each can follow.
    fn plausible(&self, count: u64, least: usize, what: &str) -> Result<usize, Error> {
        let most = (self.bytes.len() - self.at) / least;
        usize::try_from(count).ok().filter(|&n| n <= most).ok_or_else(|| {
            self.error(format_args!(
                "claims {count} {what}, but its {} bytes hold at most {most}: it is truncated or damaged, download it again",
                self.bytes.len()
            ))
        })
    }

    fn text(&mut self) -> Result<&'a str, Error> {
        let len = self.u64()?;
        let len = self.plausible(len, 1, "bytes of a string")?;
        let at = self.at;
        std::str::from_utf8(self.take(len)?).map_err(|_| {
            self.error(format_args!(
                "holds a string that is not UTF-8 (at byte {at})"
            ))
        })
    }

    fn kind(&mut self, key: &str) -> Result<Kind, Error> {
        let number = self.u32()?;
        Kind::ALL.get(number as usize).copied().ok_or_else(|| {
            self.error(format_args!(
                "holds a value of the unknown kind {number} under {}: it is damaged, download it again",
                shown(key)
            ))
        })
    }

    fn item(&mut self, key: &str) -> Result<Item<'a>, Error> {
        match self.kind(key)? {
            Kind::Text => Ok(Item::Text(self.text()?)),
            Kind::Array => self.items(key),
            kind => {
                let raw = self.take(kind.least_bytes())?;
                Ok(match (kind, integer(kind, raw)) {
                    (Kind::F32, bits) => Item::Float(f64::from(f32::from_bits(bits as u32))),
                    (Kind::F64, bits) => Item::Float(f64::from_bits(bits as u64)),
                    (Kind::Bool, n) => Item::Bool(n != 0),
                    (Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64, n) => Item::Signed(n),
                    (_, n) => Item::Unsigned(n as u64),
                })
            }
        }
    }

    fn items(&mut self, key: &str) -> Result<Item<'a>, Error> {
        let kind = self.kind(key)?;
        let len = self.u64()?;
        let len = self.plausible(len, kind.least_bytes(), "elements of an array")?;
        let start = self.at;
        match kind {
            Kind::Array => {
                return Err(self.error(format_args!(
                    "nests arrays under {}, which is not supported",
                    shown(key)
                )));
            }
            Kind::Text => {
                for _ in 0..len {
                    self.text()?;
                }
            }
            kind => drop(self.take(len * kind.least_bytes())?),
        }
        Ok(Item::Array {
            kind,
            len,
            bytes: &self.bytes[start..self.at],
        })
    }

    fn tensor_entry(&mut self) -> Result<Entry<'a>, Error> {
        let name = self.text()?;
        let dimensions = self.u32()?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(self.error(format_args!(
                "gives the tensor {} {dimensions} dimensions, expected 1 to {MAX_DIMENSIONS}: it is damaged, download it again",
                shown(name)
            )));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let n = self.u64()?;
            let n = usize::try_from(n).ok().filter(|&n| n > 0).ok_or_else(|| {
                self.error(format_args!(
                    "gives the tensor {} a dimension of {n}",
                    shown(name)
                ))
            })?;
            shape.insert(0, n);
        }
        Ok(Entry {
            name,
            shape,
            ggml_type: self.u32()?,
            offset: self.u64()?,
        })
    }
}

/// The types of `enum ggml_type` in ggml.h. The numbers between are of types that were withdrawn.
const GGML_TYPES: [(u32, &str); 33] = [
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (6, "Q5_0"),
    (7, "Q5_1"),
    (8, "Q8_0"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (12, "Q4_K"),
    (13, "Q5_K"),
    (14, "Q6_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (30, "BF16"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

/// What ggml calls the type with this number.
pub(super) fn ggml_type_name(number: u32) -> String {
    GGML_TYPES.iter().find(|(n, _)| *n == number).map_or_else(
        || format!("number {number}"),
        |(_, name)| (*name).to_owned(),
    )
}

fn encoding(ggml_type: u32) -> Result<Encoding, u32> {
    match ggml_type {
        0 => Ok(Encoding::Plain(DType::F32)),
        1 => Ok(Encoding::Plain(DType::F16)),
        2 => Ok(Encoding::Q4_0),
        3 => Ok(Encoding::Q4_1),
        8 => Ok(Encoding::Q8_0),
        12 => Ok(Encoding::Q4K),
        14 => Ok(Encoding::Q6K),
        30 => Ok(Encoding::Plain(DType::BF16)),
        other => Err(other),
    }
}
