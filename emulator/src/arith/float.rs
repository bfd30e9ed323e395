//! Addition, multiplication, division and their kind, in every rounding direction.

use std::num::FpCategory;

use super::Round;
use super::format::{F64, Number, f64_to_f32, fma_f64};

/// The NaN that `f32` instructions return.
const NAN: u32 = 0x7fff_ffff;

/// Replaces any NaN by the canonical one.
#[inline(always)]
pub(crate) fn canonical(value: f32) -> u32 {
    if value.is_nan() { NAN } else { value.to_bits() }
}

/// Flushes a subnormal to zero of its sign.
#[inline(always)]
pub(crate) fn flush(bits: u32) -> u32 {
    if bits & 0x7f80_0000 == 0 {
        bits & 0x8000_0000
    } else {
        bits
    }
}

/// `.sat`: to [0, 1], with NaN to +0.
#[inline(always)]
pub(crate) fn saturate(bits: u32) -> u32 {
    let value = f32::from_bits(bits);
    let value = if value > 0.0 { value } else { 0.0 };
    (if value < 1.0 { value } else { 1.0 }).to_bits()
}

/// `a + b` in `f64`, rounded to odd: a later rounding to at most 51 bits is then as if done once.
fn add_to_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    if !sum.is_finite() {
        return sum;
    }
    let virtual_b = sum - a;
    let error = (a - (sum - virtual_b)) + (b - virtual_b);
    toward(sum, error)
}

/// Makes the last bit of an inexact `value` odd, where `error` is (exact − value), or only its sign.
fn toward(value: f64, error: f64) -> f64 {
    if error == 0.0 || error.is_nan() || value.to_bits() & 1 == 1 {
        return value;
    }
    let away = (error > 0.0) == (value > 0.0);
    f64::from_bits(if away {
        value.to_bits() + 1
    } else {
        value.to_bits() - 1
    })
}

/// `a × b + c`, rounded once.
pub(crate) fn fma_f32(a: f32, b: f32, c: f32, round: Round) -> u32 {
    if round == Round::Near {
        return canonical(a.mul_add(b, c));
    }
    let product = f64::from(a) * f64::from(b);
    let addend = f64::from(c);
    let sum = add_to_odd(product, addend);
    if sum == 0.0 {
        // Exact zeros of equal sign keep it; otherwise the sign depends on the direction.
        let same = product == 0.0
            && addend == 0.0
            && product.is_sign_negative() == addend.is_sign_negative();
        let negative = if same {
            product.is_sign_negative()
        } else {
            round == Round::Down
        };
        return if negative { 1 << 31 } else { 0 };
    }
    f64_to_f32(sum, round)
}

/// `a + b`.
pub(crate) fn add_f32(a: f32, b: f32, round: Round) -> u32 {
    fma_f32(a, 1.0, b, round)
}

/// `a × b`. The product of two `f32` is exact in `f64`.
pub(crate) fn mul_f32(a: f32, b: f32, round: Round) -> u32 {
    if round == Round::Near {
        canonical(a * b)
    } else {
        f64_to_f32(f64::from(a) * f64::from(b), round)
    }
}

/// `a / b`.
pub(crate) fn div_f32(a: f32, b: f32, round: Round) -> u32 {
    if round == Round::Near {
        return canonical(a / b);
    }
    let (a, b) = (f64::from(a), f64::from(b));
    let quotient = a / b;
    if !quotient.is_finite() || quotient == 0.0 {
        return f64_to_f32(quotient, round);
    }
    let rest = (-quotient).mul_add(b, a);
    f64_to_f32(toward(quotient, if b > 0.0 { rest } else { -rest }), round)
}

/// The square root.
pub(crate) fn sqrt_f32(a: f32, round: Round) -> u32 {
    if round == Round::Near {
        return canonical(a.sqrt());
    }
    let a = f64::from(a);
    let root = a.sqrt();
    if !root.is_finite() || root == 0.0 {
        return f64_to_f32(root, round);
    }
    f64_to_f32(toward(root, (-root).mul_add(root, a)), round)
}

/// `a + b`.
pub(crate) fn add_f64(a: f64, b: f64, round: Round) -> f64 {
    if round == Round::Near {
        a + b
    } else {
        fma_f64(a, 1.0, b, round)
    }
}

/// `a × b`.
pub(crate) fn mul_f64(a: f64, b: f64, round: Round) -> f64 {
    if round == Round::Near {
        a * b
    } else {
        // A zero of the product's own sign, so that a zero product keeps its sign.
        let zero = if a.is_sign_negative() != b.is_sign_negative() {
            -0.0
        } else {
            0.0
        };
        fma_f64(a, b, zero, round)
    }
}

/// `a / b`.
pub(crate) fn div_f64(a: f64, b: f64, round: Round) -> f64 {
    let quotient = a / b;
    // Zeros, infinities and NaN do not depend on the direction; an overflow does, and comes of finite operands.
    if round == Round::Near || !a.is_finite() || !b.is_finite() || a == 0.0 || b == 0.0 {
        return quotient;
    }
    let ((an, am, ae), (bn, bm, be)) = (parts(a), parts(b));
    // With 127 bits above and at most 53 below, at least 74 bits of the quotient are exact.
    let lift = am.leading_zeros() - 1;
    let am = am << lift;
    let exponent = ae - lift as i32 - be;
    let sticky = am % bm != 0;
    f64::from_bits(F64.round(an != bn, am / bm, exponent, sticky, round, false))
}

/// The square root.
pub(crate) fn sqrt_f64(a: f64, round: Round) -> f64 {
    if round == Round::Near || !a.is_finite() || a <= 0.0 {
        return a.sqrt();
    }
    let (_, significand, exponent) = parts(a);
    // An even exponent, and as many bits as fit: the root then has at least 62.
    let lift = (significand.leading_zeros() - 2) as i32;
    let lift = lift - (exponent - lift) % 2;
    let (significand, exponent) = (significand << lift, exponent - lift);
    let root = significand.isqrt();
    let sticky = root * root != significand;
    f64::from_bits(F64.round(false, root, exponent / 2, sticky, round, false))
}

/// Sign, significand and exponent of a finite number.
fn parts(value: f64) -> (bool, u128, i32) {
    match F64.unpack(value.to_bits()) {
        Number::Finite {
            negative,
            significand,
            exponent,
        } => (negative, u128::from(significand), exponent),
        _ => (false, 0, 0),
    }
}

/// `min`: the number when one operand is NaN (NaN when `nan` is set), and −0 < +0.
#[inline(always)]
pub(crate) fn min_f32(a: f32, b: f32, nan: bool) -> u32 {
    if a.is_nan() || b.is_nan() {
        return if nan || a.is_nan() && b.is_nan() {
            NAN
        } else if a.is_nan() {
            b.to_bits()
        } else {
            a.to_bits()
        };
    }
    if a < b || a == b && a.is_sign_negative() {
        a.to_bits()
    } else {
        b.to_bits()
    }
}

/// `max`, as [`min_f32`].
#[inline(always)]
pub(crate) fn max_f32(a: f32, b: f32, nan: bool) -> u32 {
    if a.is_nan() || b.is_nan() {
        return if nan || a.is_nan() && b.is_nan() {
            NAN
        } else if a.is_nan() {
            b.to_bits()
        } else {
            a.to_bits()
        };
    }
    if a > b || a == b && a.is_sign_positive() {
        a.to_bits()
    } else {
        b.to_bits()
    }
}

/// `min.xorsign.abs` and `max.xorsign.abs`: that of the magnitudes, with the product's sign.
pub(crate) fn xorsign_f32(a: f32, b: f32, nan: bool, is_max: bool) -> u32 {
    let sign = (a.to_bits() ^ b.to_bits()) & 1 << 31;
    let result = if is_max {
        max_f32(a.abs(), b.abs(), nan)
    } else {
        min_f32(a.abs(), b.abs(), nan)
    };
    // NaN stays canonical.
    if result == NAN { NAN } else { result | sign }
}

/// `min` of `f64`.
pub(crate) fn min_f64(a: f64, b: f64) -> f64 {
    if a.is_nan() {
        b
    } else if b.is_nan() || a < b || a == b && a.is_sign_negative() {
        a
    } else {
        b
    }
}

/// `max` of `f64`.
pub(crate) fn max_f64(a: f64, b: f64) -> f64 {
    if a.is_nan() {
        b
    } else if b.is_nan() || a > b || a == b && a.is_sign_positive() {
        a
    } else {
        b
    }
}

/// What `testp` asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Test {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

/// `testp`, which counts zeros as normal.
pub(crate) fn testp(test: Test, category: FpCategory) -> bool {
    match test {
        Test::Finite => !matches!(category, FpCategory::Nan | FpCategory::Infinite),
        Test::Infinite => category == FpCategory::Infinite,
        Test::Number => category != FpCategory::Nan,
        Test::NotANumber => category == FpCategory::Nan,
        Test::Normal => matches!(category, FpCategory::Normal | FpCategory::Zero),
        Test::Subnormal => category == FpCategory::Subnormal,
    }
}

/// `a × b + c` of 16-bit floats held as `f32`, as an `f64` that rounds to the format as if done once.
pub(crate) fn fma_half(a: f32, b: f32, c: f32) -> f64 {
    add_to_odd(f64::from(a) * f64::from(b), f64::from(c))
}

#[cfg(test)]
mod tests;
