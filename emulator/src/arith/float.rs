//! Addition, multiplication, division and their kind, in every rounding direction.

use super::Round;
use super::format::{f64_to_f32, fma_f64};

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

/// Moves a correctly rounded result to a directed one, given the sign of (exact − result).
fn direct(result: f64, error: f64, round: Round) -> f64 {
    if error == 0.0 || error.is_nan() || !result.is_finite() {
        return result;
    }
    match round {
        Round::Near | Round::NearAway => result,
        Round::Down if error < 0.0 => result.next_down(),
        Round::Up if error > 0.0 => result.next_up(),
        Round::Zero if result > 0.0 && error < 0.0 => result.next_down(),
        Round::Zero if result < 0.0 && error > 0.0 => result.next_up(),
        _ => result,
    }
}

/// `a / b`. Directed roundings are exact while the remainder is a normal number.
pub(crate) fn div_f64(a: f64, b: f64, round: Round) -> f64 {
    let quotient = a / b;
    if round == Round::Near {
        return quotient;
    }
    let rest = (-quotient).mul_add(b, a);
    direct(quotient, if b > 0.0 { rest } else { -rest }, round)
}

/// The square root. Directed roundings are exact while the remainder is a normal number.
pub(crate) fn sqrt_f64(a: f64, round: Round) -> f64 {
    let root = a.sqrt();
    if round == Round::Near {
        root
    } else {
        direct(root, (-root).mul_add(root, a), round)
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

/// `a × b + c` of 16-bit floats held as `f32`, as an `f64` that rounds to the format as if done once.
pub(crate) fn fma_half(a: f32, b: f32, c: f32) -> f64 {
    add_to_odd(f64::from(a) * f64::from(b), f64::from(c))
}

#[cfg(test)]
mod tests {
    use super::super::format::{F16, F64};
    use super::*;
    use proptest::prelude::*;

    const DIRECTED: [Round; 3] = [Round::Zero, Round::Down, Round::Up];

    /// Holds a directed result against an exact comparison with its neighbours.
    fn check(result: f32, round: Round, compare: impl Fn(f32) -> std::cmp::Ordering) -> bool {
        use std::cmp::Ordering::*;
        // `compare(x)`: x against the exact value.
        let (lower, upper) = (compare(result.next_down()), compare(result.next_up()));
        match (compare(result), round) {
            (Equal, _) => true,
            (Less, Round::Down) => upper == Greater,
            (Greater, Round::Up) => lower == Less,
            (Less, Round::Zero) => result >= 0.0 && upper == Greater,
            (Greater, Round::Zero) => result <= 0.0 && lower == Less,
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn directed_products_are_tight(a in -1e10f32..1e10, b in -1e10f32..1e10) {
            let exact = f64::from(a) * f64::from(b);
            for round in DIRECTED {
                let result = f32::from_bits(mul_f32(a, b, round));
                prop_assert!(check(result, round, |x| f64::from(x).total_cmp(&exact)), "{a} {b} {round:?}");
            }
        }

        #[test]
        fn directed_quotients_are_tight(a in 1e-3f32..1e10, b in 1e-3f32..1e10) {
            for round in DIRECTED {
                let result = f32::from_bits(div_f32(a, b, round));
                // x against a / b is x b against a, and x b is exact in f64.
                prop_assert!(check(result, round, |x| (f64::from(x) * f64::from(b)).total_cmp(&f64::from(a))));
                let root = f32::from_bits(sqrt_f32(a, round));
                prop_assert!(check(root, round, |x| (f64::from(x) * f64::from(x)).total_cmp(&f64::from(a))));
            }
        }

        #[test]
        fn directed_sums_are_tight(a in -1e6f32..1e6, b in -1.0f32..1.0) {
            // Both are multiples of 2^-149 far from overflow: the sum of f64 is exact but for tiny b, which TwoSum covers.
            let exact = f64::from(a) + f64::from(b);
            prop_assume!(exact - f64::from(a) == f64::from(b));
            for round in DIRECTED {
                let result = f32::from_bits(add_f32(a, b, round));
                prop_assert!(check(result, round, |x| f64::from(x).partial_cmp(&exact).unwrap()), "{a} {b} {round:?} {result}");
            }
        }

        #[test]
        fn half_fma_rounds_once(a: u16, b: u16, c: u16) {
            let wide = super::super::half::f16_to_f32;
            let (a, b, c) = (wide(a), wide(b), wide(c));
            prop_assume!(a.is_finite() && b.is_finite() && c.is_finite());
            // In units of 2^-48 everything is an integer below 2^100.
            let units = |x: f32, scale: i32| (f64::from(x) * 2f64.powi(scale)) as i128;
            let exact = units(a, 24) * units(b, 24) + (units(c, 24) << 24);
            let found = F16.convert(&F64, fma_half(a, b, c).to_bits(), Round::Near, false);
            if exact != 0 {
                prop_assert_eq!(found, F16.round(exact < 0, exact.unsigned_abs(), -48, false, Round::Near, false));
            }
        }
    }

    #[test]
    fn zeros_and_nans() {
        assert_eq!(add_f32(1.0, -1.0, Round::Down), 0x8000_0000);
        assert_eq!(add_f32(1.0, -1.0, Round::Up), 0);
        assert_eq!(add_f32(-0.0, -0.0, Round::Zero), 0x8000_0000);
        assert_eq!(add_f32(f32::INFINITY, f32::NEG_INFINITY, Round::Near), NAN);
        assert_eq!(min_f32(f32::NAN, 2.0, false), 2f32.to_bits());
        assert_eq!(min_f32(f32::NAN, 2.0, true), NAN);
        assert_eq!(min_f32(0.0, -0.0, false), 0x8000_0000);
        assert_eq!(max_f32(-0.0, 0.0, false), 0);
        assert_eq!(saturate(NAN), 0);
        assert_eq!(saturate((-3f32).to_bits()), 0);
        assert_eq!(saturate(3f32.to_bits()), 1f32.to_bits());
        assert_eq!(flush(0x8000_0001), 0x8000_0000);
        assert_eq!(mul_f64(-0.0, 3.0, Round::Up).to_bits(), (-0.0f64).to_bits());
    }
}
