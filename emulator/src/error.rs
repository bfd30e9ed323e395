//! The error of this crate.

use std::fmt;

/// What went wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The text is not PTX.
    InvalidPtx,
    /// The PTX uses instructions or features that are not supported; the message lists every one with its line.
    Unsupported,
    /// A kernel, variable or allocation of this name or address does not exist.
    NotFound,
    /// A launch or an argument that the device cannot accept.
    InvalidValue,
    /// A cooperative launch of more blocks than the device holds at once.
    CooperativeLaunchTooLarge,
    /// The device's memory is used up.
    OutOfMemory,
    /// A kernel made an illegal access. Only where the check that would make it a finding is off.
    IllegalAddress,
    /// As `IllegalAddress`, for an address that is not a multiple of the access's size.
    Misaligned,
    /// A kernel executed `trap`.
    Trap,
    /// An assertion in a kernel failed.
    Assertion,
    /// Every thread waits for something that cannot happen.
    Deadlock,
    /// A limit of the launch was reached.
    Limit,
}

/// What failed, on which input, and what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// The kind, for programs.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
