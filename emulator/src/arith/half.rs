//! The fast ways between 16-bit formats and `f32`, for whole warps: they compile to vector code.

/// `f16` bits to `f32`.
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff);
    // Shifted into place, the exponent is off by 112; the multiplication also normalises subnormals.
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000);
    let special = f32::from_bits((magnitude << 13) | 0x7f80_0000);
    let value = if magnitude >= 0x7c00 {
        special.to_bits()
    } else {
        scaled.to_bits()
    };
    f32::from_bits(value | sign)
}

/// `f32` to `f16` bits, to nearest even; NaN becomes 0x7fff.
#[inline(always)]
pub(crate) fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    // Normal results: round the bits. Subnormal results: the addition aligns and rounds to nearest even.
    let odd = (magnitude >> 13) & 1;
    let normal = (magnitude
        .wrapping_sub(0x3800_0000)
        .wrapping_add(0xfff + odd))
        >> 13;
    let subnormal = (f32::from_bits(magnitude) + 0.5)
        .to_bits()
        .wrapping_sub(0x3f00_0000);
    let finite = if magnitude < 0x3880_0000 {
        subnormal
    } else {
        normal
    };
    let result = if magnitude >= 0x4780_0000 {
        0x7c00
    } else {
        finite
    };
    (if magnitude > 0x7f80_0000 {
        0x7fff
    } else {
        result | sign
    }) as u16
}

/// `bf16` bits to `f32`.
#[inline(always)]
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// `f32` to `bf16` bits, to nearest even; NaN becomes 0x7fff.
#[inline(always)]
pub(crate) fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    (if bits & 0x7fff_ffff > 0x7f80_0000 {
        0x7fff
    } else {
        rounded
    }) as u16
}

#[cfg(test)]
mod tests {
    use super::super::Round;
    use super::super::format::{BF16, F16, F32, Format};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn widening_is_exact() {
        for bits in 0..=u16::MAX {
            let expected = F32.convert(&F16, u64::from(bits), Round::Near, false) as u32;
            let found = f16_to_f32(bits);
            assert!(
                found.is_nan() && expected == 0x7fff_ffff || found.to_bits() == expected,
                "{bits:04x}"
            );
        }
    }

    proptest! {
        #[test]
        fn narrowing_agrees_with_the_exact_routine(bits: u32, shrink in 0u32..60) {
            for bits in [bits, bits & 0x807f_ffff | (0x5f + shrink) << 23] {
                prop_assert_eq!(u64::from(f32_to_f16(f32::from_bits(bits))), F16.convert(&F32, u64::from(bits), Round::Near, false));
                prop_assert_eq!(u64::from(f32_to_bf16(f32::from_bits(bits))), BF16.convert(&F32, u64::from(bits), Round::Near, false));
            }
        }
    }

    #[test]
    fn narrowing_at_every_boundary() {
        // All that a rounding to 7 or 10 bits of fraction can meet: the bits kept, the half, and one bit to each side.
        for kept in 0..1u32 << 19 {
            for rest in [0, 1, 0xfff, 0x1000, 0x1001, 0x1fff] {
                let bits = kept << 13 | rest;
                let x = f32::from_bits(bits);
                let exact = |format: &Format| {
                    format.convert(&F32, u64::from(bits), Round::Near, false) as u16
                };
                assert_eq!(f32_to_f16(x), exact(&F16), "{x:e}");
                assert_eq!(f32_to_bf16(x), exact(&BF16), "{x:e}");
            }
        }
    }
}
