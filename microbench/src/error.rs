/// What can go wrong while something is measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel, or the memory it needs.
    #[error(transparent)]
    Kernel(#[from] stepscope_kernels::Error),
    /// The driver or the compiler.
    #[error(transparent)]
    Device(#[from] stepscope_device::Error),
    /// The results are wrong: by what, and where.
    #[error("{0}")]
    Wrong(String),
    /// It cannot be measured: why, and what can be done.
    #[error("{0}")]
    Unusable(String),
    /// What a person asked for is not possible: what it was, and the way out.
    #[error("{0}")]
    Input(String),
}

impl Error {
    /// Whether a person's input is at fault.
    pub fn is_input(&self) -> bool {
        matches!(self, Error::Input(_))
    }
}
