//! Bounds and special values.

use super::*;
use proptest::prelude::*;

#[test]
fn within_one_ulp_of_libm() {
    for i in -2000..2000 {
        let x = i as f32 * 0.0831;
        let found = f32::from_bits(approx(Approx::Exp2, x));
        let expected = f64::from(x).exp2() as f32;
        assert!(
            (i64::from(found.to_bits()) - i64::from(expected.to_bits())).abs() <= 1,
            "{x}: {found} {expected}"
        );
    }
}

#[test]
fn special_values() {
    let bits = |function, x: f32| f32::from_bits(approx(function, x));
    assert_eq!(bits(Approx::Exp2, f32::NEG_INFINITY), 0.0);
    assert_eq!(bits(Approx::Exp2, f32::INFINITY), f32::INFINITY);
    assert_eq!(bits(Approx::Exp2, 0.0), 1.0);
    assert_eq!(bits(Approx::Exp2, -10.0), 2f32.powi(-10));
    assert_eq!(bits(Approx::Log2, 0.0), f32::NEG_INFINITY);
    assert_eq!(approx(Approx::Log2, -1.0), 0x7fff_ffff);
    assert_eq!(bits(Approx::ReciprocalRoot, -0.0), f32::NEG_INFINITY);
    assert_eq!(bits(Approx::ReciprocalRoot, 4.0), 0.5);
    assert_eq!(bits(Approx::Reciprocal, f32::INFINITY), 0.0);
    assert_eq!(approx(Approx::Sin, f32::INFINITY), 0x7fff_ffff);
}

/// The manual's bounds on normal operands.
#[test]
fn within_the_bounds_of_the_manual() {
    let f = |function, x: f32| f64::from(f32::from_bits(approx(function, x)));
    for i in 0..200_000u32 {
        // Every sign and exponent, and fractions that differ.
        let x = f32::from_bits(i.wrapping_mul(0x9e37_79b9));
        if !x.is_normal() {
            continue;
        }
        let wide = f64::from(x);
        let relative = |found: f64, exact: f64| {
            (found - exact).abs() <= 2f64.powi(-23) * exact.abs() + 2f64.powi(-149)
        };
        assert!(relative(f(Approx::Reciprocal, x), 1.0 / wide), "rcp {x:e}");
        assert!(
            relative(f(Approx::ReciprocalRoot, x.abs()), 1.0 / wide.abs().sqrt()),
            "rsqrt {x:e}"
        );
        assert!(
            relative(f(Approx::Root, x.abs()), wide.abs().sqrt()),
            "sqrt {x:e}"
        );
        assert!(relative(f(Approx::Tanh, x), wide.tanh()), "tanh {x:e}");
        if x.abs() < 126.0 {
            assert!(relative(f(Approx::Exp2, x), wide.exp2()), "ex2 {x:e}");
        }
        // Absolute near 1, relative elsewhere.
        let exact = wide.abs().log2();
        let error = (f(Approx::Log2, x.abs()) - exact).abs();
        assert!(error <= 2f64.powi(-22) * exact.abs().max(1.0), "lg2 {x:e}");
        if x.abs() < 100.0 {
            assert!(
                (f(Approx::Sin, x) - wide.sin()).abs() <= 2f64.powi(-20),
                "sin {x:e}"
            );
            assert!(
                (f(Approx::Cos, x) - wide.cos()).abs() <= 2f64.powi(-20),
                "cos {x:e}"
            );
        }
    }
}

/// The manual's tables of special values: −∞, −0, +0, +∞.
#[test]
fn the_tables_of_the_manual() {
    let nan = 0x7fff_ffff;
    let (inf, ninf, zero, nzero) = (0x7f80_0000, 0xff80_0000, 0, 0x8000_0000u32);
    let one = 1f32.to_bits();
    for (function, expected) in [
        (Approx::Exp2, [zero, one, one, inf]),
        (Approx::Log2, [nan, ninf, ninf, inf]),
        (Approx::Sin, [nan, nzero, zero, nan]),
        (Approx::Cos, [nan, one, one, nan]),
        (Approx::Tanh, [(-1f32).to_bits(), nzero, zero, one]),
        (Approx::Reciprocal, [nzero, ninf, inf, zero]),
        (Approx::ReciprocalRoot, [nan, ninf, inf, zero]),
        (Approx::Root, [nan, nzero, zero, inf]),
    ] {
        let inputs = [f32::NEG_INFINITY, -0.0, 0.0, f32::INFINITY];
        assert_eq!(
            inputs.map(|x| approx(function, x)),
            expected,
            "{function:?}"
        );
        assert_eq!(
            approx(function, f32::from_bits(0xffc1_2345)),
            nan,
            "{function:?}"
        );
    }
}

proptest! {
    #[test]
    fn quotients(a: u32, b: u32, exponent in 1u32..255) {
        let (a, b) = (f32::from_bits(a), f32::from_bits(b & 0x807f_ffff | exponent << 23));
        let found = f32::from_bits(div_approx(a, b));
        if a.is_nan() || a.is_infinite() && b.abs() > 2f32.powi(126) {
            prop_assert_eq!(found.to_bits(), 0x7fff_ffff);
        } else if b.abs() > 2f32.powi(126) {
            prop_assert_eq!(found, 0.0);
        } else {
            prop_assert_eq!(found, a / b);
        }
    }
}
