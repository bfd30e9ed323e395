//! Reading a GGUF file from its front, never beyond its end.

use std::path::Path;

use super::metadata::{Item, Kind, integer};
use crate::error::Error;
use crate::model::file::shown;

/// A place in a file that was read up to there.
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    /// What the file is called in errors.
    pub(super) path: &'a Path,
}

impl<'a> Cursor<'a> {
    /// An error about the file.
    pub(super) fn error(&self, problem: impl std::fmt::Display) -> Error {
        Error::input(format!("{} {problem}", self.path.display()))
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
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

    pub(super) fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// `count`, if that many things of `least` bytes each can follow.
    pub(super) fn plausible(&self, count: u64, least: usize, what: &str) -> Result<usize, Error> {
        let most = (self.bytes.len() - self.at) / least;
        usize::try_from(count).ok().filter(|&n| n <= most).ok_or_else(|| {
            self.error(format_args!(
                "claims {count} {what}, but its {} bytes hold at most {most}: it is truncated or damaged, download it again",
                self.bytes.len()
            ))
        })
    }

    /// The next string, a length and that many bytes.
    pub(super) fn text(&mut self) -> Result<&'a str, Error> {
        let len = self.u64()?;
        let len = self.plausible(len, 1, "bytes of a string")?;
        let at = self.at;
        std::str::from_utf8(self.take(len)?).map_err(|_| {
            self.error(format_args!(
                "holds a string that is not UTF-8 (at byte {at}): it is damaged, download it again"
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

    /// The next value, which belongs to `key`.
    pub(super) fn item(&mut self, key: &str) -> Result<Item<'a>, Error> {
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
                    "nests arrays under {}, which is not supported: convert the model again",
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
}
