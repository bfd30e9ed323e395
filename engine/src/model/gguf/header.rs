//! The header of a GGUF file: metadata and where each tensor lies.
//!
//! The format is that of ggml's `docs/gguf.md`, versions 2 and 3, little endian. A header is untrusted: every count
//! and length is held against the bytes that are left before anything is read or reserved for it.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use super::cursor::Cursor;
use super::ggml_type;
use super::metadata::Metadata;
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
                return Err(cursor.error(format_args!(
                    "holds the key {} twice: it is damaged, download it again",
                    shown(key)
                )));
            }
        }
        let metadata = Metadata { values, path };
        let alignment = match metadata.unsigned("general.alignment")? {
            None => 32,
            Some(n) if n.is_power_of_two() && n <= 1 << 20 => n as usize,
            Some(n) => {
                return Err(cursor.error(format_args!(
                    "has general.alignment {n}, expected a power of two up to 1048576: convert the model again"
                )));
            }
        };

        let mut entries = Vec::new();
        for _ in 0..tensors {
            entries.push(Entry::read(&mut cursor)?);
        }
        let data_start = cursor.at.next_multiple_of(alignment);
        let mut tensors = HashMap::new();
        for entry in entries {
            let name = entry.name;
            let info = entry.place(data_start, alignment, &cursor)?;
            if tensors.insert(name, info).is_some() {
                return Err(cursor.error(format_args!(
                    "holds the tensor {} twice: it is damaged, download it again",
                    shown(name)
                )));
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

impl<'a> Entry<'a> {
    /// The next entry.
    fn read(cursor: &mut Cursor<'a>) -> Result<Entry<'a>, Error> {
        let name = cursor.text()?;
        let dimensions = cursor.u32()?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(cursor.error(format_args!(
                "gives the tensor {} {dimensions} dimensions, expected 1 to {MAX_DIMENSIONS}: it is damaged, download it again",
                shown(name)
            )));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let n = cursor.u64()?;
            let n = usize::try_from(n).ok().filter(|&n| n > 0).ok_or_else(|| {
                cursor.error(format_args!(
                    "gives the tensor {} a dimension of {n}: it is damaged, download it again",
                    shown(name)
                ))
            })?;
            shape.insert(0, n);
        }
        Ok(Entry {
            name,
            shape,
            ggml_type: cursor.u32()?,
            offset: cursor.u64()?,
        })
    }

    /// Where the tensor's bytes lie, if they do.
    fn place(
        self,
        data_start: usize,
        alignment: usize,
        cursor: &Cursor<'_>,
    ) -> Result<TensorInfo, Error> {
        let name = shown(self.name);
        let Ok(encoding) = ggml_type::encoding(self.ggml_type) else {
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
                "holds the tensor {name} of shape {:?}, whose rows are not whole {} blocks: it is damaged, download it again",
                self.shape,
                ggml_type::name(self.ggml_type)
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
                "places the tensor {name} at offset {}, which is no multiple of its alignment {alignment}: it is damaged, download it again",
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
                "places the tensors {} and {} on the same bytes: it is damaged, download it again",
                shown(first),
                shown(second)
            )));
        }
    }
    Ok(())
}
