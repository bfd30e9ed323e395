use std::path::Path;

/// What can go wrong in loading a model or running it.
///
/// The message says what failed, on which input, and the way out. [`Error::is_input`] tells whether the person's input was
/// at fault, which is a different exit code from a run that failed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] ErrorKind);

#[derive(Debug, thiserror::Error)]
enum ErrorKind {
    #[error("{0}")]
    Input(String),
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Kernel(#[from] stepscope_kernels::Error),
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// A person's input cannot be used; `message` names the thing, the value and the way out.
    pub fn input(message: impl Into<String>) -> Error {
        Error(ErrorKind::Input(message.into()))
    }

    /// `path` cannot be read.
    pub fn read(path: &Path, source: &std::io::Error) -> Error {
        Error::input(format!("cannot read {}: {source}", path.display()))
    }

    /// The run itself went wrong.
    pub fn failed(message: impl Into<String>) -> Error {
        Error(ErrorKind::Failed(message.into()))
    }

    /// The person asked to stop.
    pub fn interrupted() -> Error {
        Error(ErrorKind::Interrupted)
    }

    /// Whether the input was at fault, as opposed to the run.
    pub fn is_input(&self) -> bool {
        matches!(self.0, ErrorKind::Input(_))
    }

    /// Whether the person asked to stop.
    pub fn is_interrupted(&self) -> bool {
        matches!(self.0, ErrorKind::Interrupted)
    }
}

impl From<stepscope_kernels::Error> for Error {
    fn from(error: stepscope_kernels::Error) -> Error {
        Error(ErrorKind::Kernel(error))
    }
}
