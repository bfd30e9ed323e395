//! The arithmetic of the device, one lane at a time: pure functions of bits, with every rounding and saturation.
//!
//! Where the host's instruction gives the same bits (`fma`, `sqrt`, round to nearest) it is used; everything else is exact
//! integer arithmetic in [`format`]. What hardware only bounds by an error (`ex2.approx` and its kind) is in [`approx`].

pub(crate) mod approx;
pub(crate) mod convert;
pub(crate) mod float;
pub(crate) mod format;
pub(crate) mod half;
pub(crate) mod int;

/// A rounding direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Round {
    /// To nearest, ties to even (`.rn`).
    Near,
    /// To nearest, ties away from zero (`.rna`).
    NearAway,
    /// Toward zero (`.rz`).
    Zero,
    /// Toward minus infinity (`.rm`).
    Down,
    /// Toward plus infinity (`.rp`).
    Up,
}
