//! The error of this crate.

use std::path::{Path, PathBuf};

/// What can go wrong with a record file.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] ErrorKind);

#[derive(Debug, thiserror::Error)]
enum ErrorKind {
    // `cause` is part of the message, so it is no `source`: a chain would tell it twice.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("cannot write {}: {cause}", path.display())]
    Write {
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("{} is not a stepscope record: {reason}", path.display())]
    NotARecord { path: PathBuf, reason: String },
    #[error("{0}")]
    Content(String),
}

impl Error {
    pub(crate) fn read(path: &Path, source: std::io::Error) -> Error {
        Error(ErrorKind::Read {
            path: path.to_owned(),
            cause: source,
        })
    }

    pub(crate) fn write(path: &Path, source: std::io::Error) -> Error {
        Error(ErrorKind::Write {
            path: path.to_owned(),
            cause: source,
        })
    }

    pub(crate) fn not_a_record(path: &Path, reason: impl Into<String>) -> Error {
        Error(ErrorKind::NotARecord {
            path: path.to_owned(),
            reason: reason.into(),
        })
    }

    /// A record that lacks what was asked of it; `message` says what and the way out.
    pub fn content(message: impl Into<String>) -> Error {
        Error(ErrorKind::Content(message.into()))
    }

    /// Whether the input was at fault (exit code 2), as opposed to writing the output (exit code 1).
    pub fn is_input(&self) -> bool {
        !matches!(self.0, ErrorKind::Write { .. })
    }
}
