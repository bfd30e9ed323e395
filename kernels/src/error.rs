use crate::DType;

/// What can go wrong in an operation or in the memory it needs.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] ErrorKind);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ErrorKind {
    #[error(
        "a tensor of shape {shape:?} in {dtype} needs {needed} bytes, but {given} bytes were given"
    )]
    Length {
        shape: Vec<usize>,
        dtype: DType,
        needed: u128,
        given: usize,
    },
    #[error("{what} needs {bytes} bytes of memory, which this machine did not grant")]
    OutOfMemory { what: String, bytes: u128 },
    #[error("the thread pool could not be started: {0}")]
    Threads(String),
    #[error("{0}")]
    Shape(String),
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Device(stepscope_device::Error),
}

impl Error {
    /// `what` (a noun phrase) asked for `bytes` and did not get them.
    pub fn out_of_memory(what: impl Into<String>, bytes: u128) -> Error {
        Error(ErrorKind::OutOfMemory {
            what: what.into(),
            bytes,
        })
    }

    /// Shapes that do not fit together; `message` names both.
    pub fn shape(message: impl Into<String>) -> Error {
        Error(ErrorKind::Shape(message.into()))
    }

    /// The device failed; `message` names the kernel, or says how to find it.
    pub(crate) fn failed(message: impl Into<String>) -> Error {
        Error(ErrorKind::Failed(message.into()))
    }

    /// Whether memory ran out, as opposed to a mistake in shapes.
    pub fn is_out_of_memory(&self) -> bool {
        match &self.0 {
            ErrorKind::OutOfMemory { .. } => true,
            ErrorKind::Device(error) => error.kind() == stepscope_device::Kind::OutOfMemory,
            _ => false,
        }
    }
}

impl Error {
    /// Whether a source does not compile.
    pub fn is_compilation(&self) -> bool {
        matches!(&self.0, ErrorKind::Device(error) if error.kind() == stepscope_device::Kind::Compile)
    }
}

impl From<stepscope_device::Error> for Error {
    fn from(error: stepscope_device::Error) -> Error {
        Error(ErrorKind::Device(error))
    }
}
