//! Every rounding against exact sums of products of integers.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::super::format::F16;
use super::*;

const ROUNDS: [Round; 4] = [Round::Near, Round::Zero, Round::Down, Round::Up];

/// A fixed-point number wide enough for any product of two `f64`: its last bit is 2^-2200.
struct Exact([u64; 72]);

impl Exact {
    /// The sign of a sum of products.
    fn sign(products: &[(f64, f64)]) -> Ordering {
        let mut sum = Self([0; 72]);
        for &(a, b) in products {
            sum.add(a, b);
        }
        if sum.0[71] >> 63 == 1 {
            Ordering::Less
        } else if sum.0.iter().all(|&limb| limb == 0) {
            Ordering::Equal
        } else {
            Ordering::Greater
        }
    }

    fn add(&mut self, a: f64, b: f64) {
        let split = |value: f64| {
            let exponent = (value.to_bits() >> 52 & 0x7ff) as i32;
            let fraction = value.to_bits() & ((1 << 52) - 1);
            let significand = if exponent == 0 {
                fraction
            } else {
                fraction | 1 << 52
            };
            (u128::from(significand), exponent.max(1) - 1075)
        };
        let ((am, ae), (bm, be)) = (split(a), split(b));
        let product = am * bm;
        let at = (ae + be + 2200) as usize;
        let (limb, shift) = (at / 64, at % 64);
        let low = product << shift;
        let high = if shift == 0 {
            0
        } else {
            product >> (128 - shift)
        };
        let mut pieces = [low as u64, (low >> 64) as u64, high as u64].into_iter();
        let is_negative = a.is_sign_negative() != b.is_sign_negative();
        let mut carry = false;
        for own in &mut self.0[limb..] {
            let piece = pieces.next().unwrap_or(0);
            let (sum, first) = if is_negative {
                own.overflowing_sub(piece)
            } else {
                own.overflowing_add(piece)
            };
            let (sum, second) = if is_negative {
                sum.overflowing_sub(u64::from(carry))
            } else {
                sum.overflowing_add(u64::from(carry))
            };
            carry = first || second;
            *own = sum;
        }
    }
}

/// Holds a result between its neighbours (`f64`, exact) against the exact value: `compare(x, y)` is twice that value against
/// x + y.
fn is_right(
    [below, result, above]: [f64; 3],
    round: Round,
    is_even: bool,
    compare: impl Fn(f64, f64) -> Ordering,
) -> bool {
    use Ordering::{Equal, Greater, Less};
    let against = |x: f64| match x {
        f64::INFINITY => Less,
        f64::NEG_INFINITY => Greater,
        _ => compare(x, x),
    };
    let exact = against(result);
    let sign = compare(0.0, 0.0);
    let signed = result != 0.0 || sign == Equal || (sign == Less) == result.is_sign_negative();
    let down = exact != Less && against(above) == Less;
    let up = exact != Greater && against(below) == Greater;
    signed
        && match round {
            Round::Down => down,
            Round::Up => up,
            Round::Zero if sign == Less => up,
            Round::Zero => down,
            _ => {
                let between = |x: f64, y: f64| match x + y {
                    f64::INFINITY => Less,
                    f64::NEG_INFINITY => Greater,
                    _ => compare(x, y),
                };
                let (low, high) = (between(below, result), between(result, above));
                low != Less && high != Greater && (is_even || low == Greater && high == Less)
            }
        }
}

/// An `f32` result with its neighbours. What lies beyond the largest number counts as 2^128, where a number would be.
fn around_f32(bits: u32) -> ([f64; 3], bool) {
    let limit = 2f64.powi(128);
    let wide = |x: f32| f64::from(x).clamp(-limit, limit);
    let x = f32::from_bits(bits);
    (
        [wide(x.next_down()), wide(x), wide(x.next_up())],
        bits & 1 == 0,
    )
}

fn check_f32(bits: u32, round: Round, compare: impl Fn(f64, f64) -> Ordering) -> bool {
    let (mut around, is_even) = around_f32(bits);
    if round != Round::Near {
        // For a directed rounding no number lies there.
        around = around.map(|x| {
            if x.abs() == 2f64.powi(128) {
                x * f64::INFINITY
            } else {
                x
            }
        });
    } else if around[1].abs() == 2f64.powi(128) {
        let limit = around[1];
        around[if limit > 0.0 { 2 } else { 0 }] = limit * f64::INFINITY;
    }
    is_right(around, round, is_even, compare)
}

fn check_f64(x: f64, round: Round, compare: impl Fn(f64, f64) -> Ordering) -> bool {
    is_right([x.next_down(), x, x.next_up()], round, true, compare)
}

/// Any finite number, with those near the ends of the range, near 1 and zero drawn often.
fn any_f32() -> impl Strategy<Value = f32> {
    let part = |low: u32, high: u32| {
        (low..high, any::<u32>())
            .prop_map(|(exponent, bits)| f32::from_bits(bits & 0x807f_ffff | exponent << 23))
    };
    prop_oneof![
        4 => part(0, 255),
        3 => part(120, 134),
        1 => part(0, 3),
        1 => part(250, 255),
        1 => part(60, 70),
        1 => prop_oneof![Just(0.0), Just(-0.0f32), Just(1.0), Just(f32::MAX), Just(f32::MIN_POSITIVE), Just(1e-45f32)],
    ]
}

fn any_f64() -> impl Strategy<Value = f64> {
    let part = |low: u64, high: u64| {
        (low..high, any::<u64>(), 0u32..53).prop_map(|(exponent, bits, zeros)| {
            let fraction = bits & ((1 << 52) - 1) & (u64::MAX << zeros);
            f64::from_bits(bits & 1 << 63 | exponent << 52 | fraction)
        })
    };
    prop_oneof![
        4 => part(0, 2047),
        3 => part(1010, 1040),
        1 => part(0, 3),
        1 => part(2040, 2047),
        1 => part(490, 530),
        1 => prop_oneof![Just(0.0), Just(-0.0f64), Just(1.0), Just(f64::MAX), Just(5e-324f64)],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn f32_is_exact(a in any_f32(), b in any_f32(), c in any_f32()) {
        let [x, y, z] = [a, b, c].map(f64::from);
        for round in ROUNDS {
            let twice = |products: [(f64, f64); 2], r: f64, s: f64| {
                let [p, q] = products;
                Exact::sign(&[p, p, q, q, (-r, 1.0), (-s, 1.0)])
            };
            let sum = add_f32(a, b, round);
            prop_assert!(check_f32(sum, round, |r, s| twice([(x, 1.0), (y, 1.0)], r, s)), "{a:e} + {b:e} {round:?}");
            let product = mul_f32(a, b, round);
            prop_assert!(check_f32(product, round, |r, s| twice([(x, y), (0.0, 0.0)], r, s)), "{a:e} * {b:e} {round:?}");
            let fused = fma_f32(a, b, c, round);
            prop_assert!(check_f32(fused, round, |r, s| twice([(x, y), (z, 1.0)], r, s)), "{a:e} * {b:e} + {c:e} {round:?}");
            if b != 0.0 {
                let quotient = div_f32(a, b, round);
                let compare = |r: f64, s: f64| {
                    // The sign of zero as divisor's part is that of b.
                    let order = Exact::sign(&[(x, 1.0), (x, 1.0), (-r, y), (-s, y)]);
                    if b < 0.0 { order.reverse() } else { order }
                };
                prop_assert!(check_f32(quotient, round, compare), "{a:e} / {b:e} {round:?}");
            }
            let root = sqrt_f32(a.abs(), round);
            let compare = |r: f64, s: f64| {
                // Below zero there is no root to compare with.
                if r + s < 0.0 { return Ordering::Greater; }
                let x = x.abs();
                Exact::sign(&[(x, 4.0), (-r, r), (-r, s), (-r, s), (-s, s)])
            };
            prop_assert!(check_f32(root, round, compare), "root of {a:e} {round:?}");
        }
    }

    #[test]
    fn f64_is_exact(a in any_f64(), b in any_f64(), c in any_f64()) {
        for round in &ROUNDS[1..] {
            let round = *round;
            let once = |products: [(f64, f64); 2], r: f64| Exact::sign(&[products[0], products[1], (-r, 1.0)]);
            let sum = add_f64(a, b, round);
            prop_assert!(check_f64(sum, round, |r, _| once([(a, 1.0), (b, 1.0)], r)), "{a:e} + {b:e} {round:?}");
            let product = mul_f64(a, b, round);
            prop_assert!(check_f64(product, round, |r, _| once([(a, b), (0.0, 0.0)], r)), "{a:e} * {b:e} {round:?}");
            let fused = fma_f64(a, b, c, round);
            prop_assert!(check_f64(fused, round, |r, _| once([(a, b), (c, 1.0)], r)), "{a:e} * {b:e} + {c:e} {round:?}");
            if b != 0.0 {
                let quotient = div_f64(a, b, round);
                let compare = |r: f64, _| {
                    let order = Exact::sign(&[(a, 1.0), (-r, b)]);
                    if b < 0.0 { order.reverse() } else { order }
                };
                prop_assert!(check_f64(quotient, round, compare), "{a:e} / {b:e} {round:?}");
            }
            let root = sqrt_f64(a.abs(), round);
            let compare = |r: f64, _| if r < 0.0 { Ordering::Greater } else { Exact::sign(&[(a.abs(), 1.0), (-r, r)]) };
            prop_assert!(check_f64(root, round, compare), "root of {a:e} {round:?}");
        }
        prop_assert_eq!(fma_f64(a, b, c, Round::Near).to_bits(), a.mul_add(b, c).to_bits());
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

    #[test]
    fn extremes_order_as_numbers(a in any_f32(), b in any_f32(), nan in 0x7f80_0001u32..0x7fff_ffff) {
        let (low, high) = (min_f32(a, b, false), max_f32(a, b, false));
        // The order of all bits as signed magnitudes puts −0 below +0.
        prop_assert!(f32::from_bits(low).total_cmp(&f32::from_bits(high)).is_le());
        prop_assert!([a, b].map(f32::to_bits).contains(&low) && [a, b].map(f32::to_bits).contains(&high));
        prop_assert!(low == a.to_bits() && high == b.to_bits() || low == b.to_bits() && high == a.to_bits());
        let (x, y) = (f64::from(a), f64::from(b));
        prop_assert_eq!((min_f64(x, y) as f32).to_bits(), low);
        prop_assert_eq!((max_f64(x, y) as f32).to_bits(), high);
        let nan = f32::from_bits(nan);
        for (function, is_max) in [(min_f32 as fn(f32, f32, bool) -> u32, false), (max_f32, true)] {
            prop_assert_eq!(function(a, nan, false), a.to_bits());
            prop_assert_eq!(function(nan, a, false), a.to_bits());
            prop_assert_eq!(function(nan, nan, false), NAN);
            prop_assert_eq!(function(a, nan, true), NAN);
            prop_assert_eq!(xorsign_f32(a, nan, true, is_max), NAN);
            let result = f32::from_bits(xorsign_f32(a, b, false, is_max));
            prop_assert_eq!(result.is_sign_negative(), a.is_sign_negative() != b.is_sign_negative());
            let magnitude = if is_max { a.abs().max(b.abs()) } else { a.abs().min(b.abs()) };
            prop_assert_eq!(result.abs(), magnitude);
        }
    }

    #[test]
    fn flushing_and_saturating(bits: u32) {
        let x = f32::from_bits(bits);
        let flushed = f32::from_bits(flush(bits));
        prop_assert_eq!(flushed.is_sign_negative(), x.is_sign_negative());
        prop_assert_eq!(flush(bits), if x.is_subnormal() { 0f32.copysign(x).to_bits() } else { bits });
        let expected = if x.is_nan() || x <= 0.0 { 0.0 } else { x.min(1.0) };
        prop_assert_eq!(saturate(bits), expected.to_bits());
    }
}

#[test]
fn zeros_and_nans() {
    assert_eq!(add_f32(1.0, -1.0, Round::Down), 0x8000_0000);
    assert_eq!(add_f32(1.0, -1.0, Round::Up), 0);
    assert_eq!(add_f32(-0.0, -0.0, Round::Zero), 0x8000_0000);
    assert_eq!(add_f32(-0.0, 0.0, Round::Down), 0x8000_0000);
    assert_eq!(add_f32(-0.0, 0.0, Round::Near), 0);
    assert_eq!(min_f32(0.0, -0.0, false), 0x8000_0000);
    assert_eq!(max_f32(-0.0, 0.0, false), 0);
    assert_eq!(saturate(NAN), 0);
    assert_eq!(mul_f64(-0.0, 3.0, Round::Up).to_bits(), (-0.0f64).to_bits());
    let (inf, payload) = (f32::INFINITY, f32::from_bits(0xffc1_2345));
    for round in ROUNDS {
        for nan in [
            add_f32(inf, -inf, round),
            add_f32(payload, 1.0, round),
            mul_f32(0.0, -inf, round),
            fma_f32(inf, 0.0, 1.0, round),
            fma_f32(inf, 1.0, -inf, round),
            fma_f32(1.0, 1.0, payload, round),
            div_f32(0.0, -0.0, round),
            div_f32(inf, inf, round),
            sqrt_f32(-1.0, round),
            sqrt_f32(payload, round),
        ] {
            assert_eq!(nan, NAN, "{round:?}");
        }
        assert_eq!(div_f32(-1.0, 0.0, round), (-inf).to_bits());
        assert_eq!(div_f32(1.0, -inf, round), (-0f32).to_bits());
        assert_eq!(add_f32(inf, f32::MIN, round), inf.to_bits());
        assert_eq!(sqrt_f32(-0.0, round), (-0f32).to_bits());
        assert_eq!(sqrt_f64(-0.0, round).to_bits(), (-0f64).to_bits());
        assert_eq!(div_f64(1.0, 0.0, round), f64::INFINITY);
        assert!(sqrt_f64(-1.0, round).is_nan() && div_f64(0.0, 0.0, round).is_nan());
    }
    assert_eq!(div_f64(f64::MAX, 0.5, Round::Zero), f64::MAX);
    assert_eq!(div_f64(f64::MAX, -0.5, Round::Up), f64::MIN);
    assert_eq!(div_f64(5e-324, 2.0, Round::Up), 5e-324);
}

#[test]
fn classes() {
    use Test::{Finite, Infinite, Normal, NotANumber, Number, Subnormal};
    let all = [Finite, Infinite, Number, NotANumber, Normal, Subnormal];
    for (bits, expected) in [
        (0x8000_0000, [true, false, true, false, true, false]),
        (0x8000_0001, [true, false, true, false, false, true]),
        (0x0080_0000, [true, false, true, false, true, false]),
        (0xff80_0000, [false, true, true, false, false, false]),
        (0xff80_0001, [false, false, false, true, false, false]),
    ] {
        let x = f32::from_bits(bits);
        assert_eq!(all.map(|test| testp(test, x.classify())), expected, "{x:e}");
    }
}
