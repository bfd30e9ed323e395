//! The error of this crate.

/// Why a flame graph could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] ErrorKind);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ErrorKind {
    #[error(
        "there is nothing to draw: the stacks hold no time (were steps of this kind measured?)"
    )]
    Empty,
    #[error(
        "line {line} is not a folded stack of at most 500 frames, `frame;frame… count`: {text:?}"
    )]
    NotAStack { line: usize, text: String },
    #[error("the stacks add up to {0} ns, more than the 2⁵³ that a flame graph can show")]
    TooLong(u128),
    #[error("cannot draw the flame graph: {0}")]
    Draw(#[from] std::io::Error),
}
