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
}
