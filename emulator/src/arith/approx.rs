//! The `.approx` instructions. Hardware bounds their error instead of defining their bits; here each is computed in `f64` and
//! rounded once, which is within every bound of the PTX manual but not bit for bit what a GPU gives.

use super::float::canonical;

/// Which approximation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Approx {
    Exp2,
    Log2,
    Sin,
    Cos,
    Tanh,
    Reciprocal,
    ReciprocalRoot,
    Root,
}

/// The approximation of `x`.
pub(crate) fn approx(function: Approx, x: f32) -> u32 {
    let wide = f64::from(x);
    let value = match function {
        Approx::Exp2 => exp2(wide),
        Approx::Log2 => wide.log2(),
        Approx::Sin => wide.sin(),
        Approx::Cos => wide.cos(),
        Approx::Tanh => wide.tanh(),
        Approx::Reciprocal => return canonical(1.0 / x),
        Approx::ReciprocalRoot => 1.0 / wide.sqrt(),
        Approx::Root => return canonical(x.sqrt()),
    };
    // 1 / √−0 is −∞ by the manual, and so it is in f64.
    canonical(value as f32)
}

/// `2^x` by a polynomial that is good to 2^-45: no call, so that a warp of it is vector code.
#[inline(always)]
pub(crate) fn exp2(x: f64) -> f64 {
    let clamped = if x > 200.0 { 200.0 } else { x };
    let clamped = if clamped < -200.0 { -200.0 } else { clamped };
    // Adding 1.5 × 2^52 leaves the nearest integer in the low bits.
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    let shifted = clamped + MAGIC;
    let integer = shifted - MAGIC;
    let t = (clamped - integer) * std::f64::consts::LN_2;
    let mut sum = 1.0 / 6_227_020_800.0;
    for denominator in [
        479_001_600.0,
        39_916_800.0,
        3_628_800.0,
        362_880.0,
        40_320.0,
        5_040.0,
        720.0,
        120.0,
        24.0,
        6.0,
        2.0,
        1.0,
        1.0,
    ] {
        sum = sum * t + 1.0 / denominator;
    }
    let scale = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
    let result = sum * scale;
    if x.is_nan() { x } else { result }
}

/// `div.approx`: the manual has it give 0 for a finite number divided by one beyond 2^126, and NaN for an infinity.
pub(crate) fn div_approx(a: f32, b: f32) -> u32 {
    let is_huge = b.is_finite() && b.abs() > f32::from_bits(0x7e80_0000);
    if is_huge && a.is_infinite() {
        return canonical(f32::NAN);
    }
    if is_huge && a.is_finite() {
        return (a.to_bits() ^ b.to_bits()) & 1 << 31;
    }
    canonical(a / b)
}

#[cfg(test)]
mod tests;
