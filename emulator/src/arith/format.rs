//! Binary floating-point formats, and the one rounding routine that everything exact goes through.

use super::Round;

/// A binary format with an implicit leading bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    /// Bits after the leading one.
    pub(crate) fraction: u32,
    pub(crate) exponent_bits: u32,
    /// E4M3 has no infinity: its largest exponent holds numbers, and only all ones is NaN.
    pub(crate) has_infinity: bool,
    /// Shift of the fraction in storage: 13 for TF32, which is kept in 32 bits.
    pub(crate) shift: u32,
    pub(crate) nan: u64,
}

pub(crate) const F64: Format = Format {
    fraction: 52,
    exponent_bits: 11,
    has_infinity: true,
    shift: 0,
    nan: 0xfff8_0000_0000_0000,
};
pub(crate) const F32: Format = Format {
    fraction: 23,
    exponent_bits: 8,
    has_infinity: true,
    shift: 0,
    nan: 0x7fff_ffff,
};
pub(crate) const F16: Format = Format {
    fraction: 10,
    exponent_bits: 5,
    has_infinity: true,
    shift: 0,
    nan: 0x7fff,
};
pub(crate) const BF16: Format = Format {
    fraction: 7,
    exponent_bits: 8,
    has_infinity: true,
    shift: 0,
    nan: 0x7fff,
};
pub(crate) const E5M2: Format = Format {
    fraction: 2,
    exponent_bits: 5,
    has_infinity: true,
    shift: 0,
    nan: 0x7f,
};
pub(crate) const E4M3: Format = Format {
    fraction: 3,
    exponent_bits: 4,
    has_infinity: false,
    shift: 0,
    nan: 0x7f,
};
pub(crate) const TF32: Format = Format {
    fraction: 10,
    exponent_bits: 8,
    has_infinity: true,
    shift: 13,
    nan: 0x7fff_ffff,
};

/// A number taken apart: `(-1)^negative × significand × 2^exponent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    Nan,
    Infinity {
        negative: bool,
    },
    Finite {
        negative: bool,
        significand: u64,
        exponent: i32,
    },
}

impl Format {
    const fn bias(&self) -> i32 {
        (1 << (self.exponent_bits - 1)) - 1
    }

    const fn sign_bit(&self) -> u64 {
        1 << (self.fraction + self.exponent_bits + self.shift)
    }

    const fn exponent_mask(&self) -> u64 {
        (1 << self.exponent_bits) - 1
    }

    /// The largest finite value's bits, without sign.
    pub(crate) const fn max_finite(&self) -> u64 {
        let bits = if self.has_infinity {
            (self.exponent_mask() << self.fraction) - 1
        } else {
            (self.exponent_mask() << self.fraction) | ((1 << self.fraction) - 2)
        };
        bits << self.shift
    }

    const fn infinity(&self) -> u64 {
        (self.exponent_mask() << self.fraction) << self.shift
    }

    pub(crate) fn unpack(&self, bits: u64) -> Number {
        let negative = bits & self.sign_bit() != 0;
        let magnitude = (bits & (self.sign_bit() - 1)) >> self.shift;
        let exponent = (magnitude >> self.fraction) & self.exponent_mask();
        let fraction = magnitude & ((1 << self.fraction) - 1);
        if exponent == self.exponent_mask() {
            if self.has_infinity {
                return if fraction == 0 {
                    Number::Infinity { negative }
                } else {
                    Number::Nan
                };
            }
            if fraction == (1 << self.fraction) - 1 {
                return Number::Nan;
            }
        }
        let scale = 1 - self.bias() - self.fraction as i32;
        if exponent == 0 {
            Number::Finite {
                negative,
                significand: fraction,
                exponent: scale,
            }
        } else {
            Number::Finite {
                negative,
                significand: fraction | 1 << self.fraction,
                exponent: scale + exponent as i32 - 1,
            }
        }
    }

    /// Rounds `(-1)^negative × (significand [+ something below its last bit]) × 2^exponent`.
    ///
    /// `saturate`: what is beyond the largest finite value becomes that value, as `.satfinite` asks.
    pub(crate) fn round(
        &self,
        negative: bool,
        significand: u128,
        exponent: i32,
        sticky: bool,
        round: Round,
        saturate: bool,
    ) -> u64 {
        let sign = if negative { self.sign_bit() } else { 0 };
        if significand == 0 && !sticky {
            return sign;
        }
        let up = |odd: bool, half: bool, rest: bool| match round {
            Round::Near => half && (rest || odd),
            Round::NearAway => half,
            Round::Zero => false,
            Round::Down => negative && (half || rest),
            Round::Up => !negative && (half || rest),
        };
        // Exponent of the last bit that is kept.
        let lowest = 1 - self.bias() - self.fraction as i32;
        let length = 128 - significand.leading_zeros() as i32;
        let last = (exponent + length - 1 - self.fraction as i32).max(lowest);
        let drop = last - exponent;
        let (mut kept, half, rest) = if drop <= 0 {
            // Only reached with at most `fraction + 1` significant bits, so that the shift is safe.
            ((significand << (-drop).min(127)) as u64, false, sticky)
        } else if drop > 127 {
            (0, false, true)
        } else {
            let kept = (significand >> drop) as u64;
            let half = (significand >> (drop - 1)) & 1 == 1;
            (
                kept,
                half,
                sticky || significand & ((1 << (drop - 1)) - 1) != 0,
            )
        };
        if up(kept & 1 == 1, half, rest) {
            kept += 1;
        }
        // A carry out of the fraction moves into the exponent by itself.
        let biased = (last - lowest) as u64;
        let magnitude = if kept >> self.fraction == 0 {
            kept
        } else {
            (biased << self.fraction) + kept
        };
        let magnitude = magnitude << self.shift;
        if magnitude > self.max_finite() {
            let away = match round {
                Round::Near | Round::NearAway => true,
                Round::Zero => false,
                Round::Down => negative,
                Round::Up => !negative,
            };
            return if saturate || !away {
                sign | self.max_finite()
            } else if self.has_infinity {
                sign | self.infinity()
            } else {
                sign | self.nan
            };
        }
        sign | magnitude
    }

    /// Converts from another format.
    pub(crate) fn convert(&self, from: &Self, bits: u64, round: Round, saturate: bool) -> u64 {
        match from.unpack(bits) {
            Number::Nan => self.nan,
            Number::Infinity { negative } => {
                let sign = if negative { self.sign_bit() } else { 0 };
                if saturate {
                    sign | self.max_finite()
                } else if self.has_infinity {
                    sign | self.infinity()
                } else {
                    sign | self.nan
                }
            }
            Number::Finite {
                negative,
                significand,
                exponent,
            } => self.round(
                negative,
                u128::from(significand),
                exponent,
                false,
                round,
                saturate,
            ),
        }
    }
}

/// An `f64` with the bits of an exact value in it, to the bits of an `f32`.
pub(crate) fn f64_to_f32(value: f64, round: Round) -> u32 {
    F32.convert(&F64, value.to_bits(), round, false) as u32
}

/// `a × b + c` in `f64`, exactly, rounded once in any direction.
pub(crate) fn fma_f64(a: f64, b: f64, c: f64, round: Round) -> f64 {
    if round == Round::Near || !a.is_finite() || !b.is_finite() || !c.is_finite() {
        return a.mul_add(b, c);
    }
    let take = |value: f64| match F64.unpack(value.to_bits()) {
        Number::Finite {
            negative,
            significand,
            exponent,
        } => (negative, u128::from(significand), exponent),
        _ => (false, 0, 0),
    };
    let (an, am, ae) = take(a);
    let (bn, bm, be) = take(b);
    let (cn, cm, ce) = take(c);
    let (pn, pm, pe) = (an != bn, am * bm, ae + be);
    if pm == 0 || cm == 0 {
        if pm == 0 && cm == 0 {
            let negative = if pn == cn { pn } else { round == Round::Down };
            return if negative { -0.0 } else { 0.0 };
        }
        let (negative, significand, exponent) = if pm == 0 { (cn, cm, ce) } else { (pn, pm, pe) };
        return f64::from_bits(F64.round(negative, significand, exponent, false, round, false));
    }
    // The operand whose top bit is higher is shifted up as far as 126 bits allow, the other one is brought to its exponent.
    let top =
        |significand: u128, exponent: i32| exponent + 128 - significand.leading_zeros() as i32;
    let product_is_big = top(pm, pe) >= top(cm, ce);
    let ((bn, bm, be), (sn, sm, se)) = if product_is_big {
        ((pn, pm, pe), (cn, cm, ce))
    } else {
        ((cn, cm, ce), (pn, pm, pe))
    };
    let lift = bm.leading_zeros() as i32 - 2;
    let (bm, be) = (bm << lift, be - lift);
    let shift = be - se;
    let (sm, sticky) = if shift <= 0 {
        (sm << -shift, false)
    } else if shift > 127 {
        (0, true)
    } else {
        (sm >> shift, sm & ((1u128 << shift) - 1) != 0)
    };
    let (negative, sum) = if bn == sn {
        (bn, bm + sm)
    } else {
        let taken = sm + u128::from(sticky);
        if bm >= taken {
            (bn, bm - taken)
        } else {
            (sn, taken - bm)
        }
    };
    if sum == 0 && !sticky {
        return if round == Round::Down { -0.0 } else { 0.0 };
    }
    f64::from_bits(F64.round(negative, sum, be, sticky, round, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::half::{bf16, f16};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nearest_agrees_with_the_half_crate(bits: u32) {
            let value = f32::from_bits(bits);
            if !value.is_nan() {
                prop_assert_eq!(F16.convert(&F32, u64::from(bits), Round::Near, false) as u16, f16::from_f32(value).to_bits());
                prop_assert_eq!(BF16.convert(&F32, u64::from(bits), Round::Near, false) as u16, bf16::from_f32(value).to_bits());
            }
        }

        #[test]
        fn f64_to_f32_agrees_with_the_host(bits: u64) {
            let value = f64::from_bits(bits);
            if !value.is_nan() {
                prop_assert_eq!(f64_to_f32(value, Round::Near), (value as f32).to_bits());
            }
        }

        #[test]
        fn directed_roundings_bracket(value in -1e3f64..1e3) {
            let down = f32::from_bits(f64_to_f32(value, Round::Down));
            let up = f32::from_bits(f64_to_f32(value, Round::Up));
            prop_assert!(f64::from(down) <= value && value <= f64::from(up));
            prop_assert!(down == up || down.next_up() == up);
            let zero = f32::from_bits(f64_to_f32(value, Round::Zero));
            prop_assert_eq!(zero, if value > 0.0 { down } else { up });
        }

        #[test]
        fn soft_fma_agrees_with_the_host(a: u64, b: u64, c: u64, near in -40i32..40) {
            // The exact routine's only difference between directions is the last step: check it through brackets.
            let scale = |bits: u64, e: i32| f64::from_bits(bits & 0x800f_ffff_ffff_ffff | ((1023 + e) as u64) << 52);
            let (a, b, c) = (scale(a, 0), scale(b, 3), scale(c, near));
            let (down, up) = (fma_f64(a, b, c, Round::Down), fma_f64(a, b, c, Round::Up));
            let host = a.mul_add(b, c);
            prop_assert!(down <= host && host <= up, "{down} {host} {up}");
            prop_assert!(down == up || down.next_up() == up, "{down} {up}");
        }
    }

    #[test]
    fn every_small_number_survives() {
        for bits in 0..=0xffffu64 {
            for format in [F16, BF16] {
                if format.unpack(bits) != Number::Nan {
                    let wide = F32.convert(&format, bits, Round::Near, false);
                    assert_eq!(format.convert(&F32, wide, Round::Near, false), bits);
                }
            }
        }
        for bits in 0..=0xffu64 {
            for format in [E4M3, E5M2] {
                if format.unpack(bits) != Number::Nan {
                    let wide = F16.convert(&format, bits, Round::Near, false);
                    assert_eq!(
                        format.convert(&F16, wide, Round::Near, true),
                        if wide & 0x7fff == 0x7c00 {
                            bits - 1
                        } else {
                            bits
                        }
                    );
                }
            }
        }
    }

    #[test]
    fn known_values() {
        let e4m3 =
            |value: f32| E4M3.convert(&F32, u64::from(value.to_bits()), Round::Near, true) as u8;
        assert_eq!(e4m3(448.0), 0x7e);
        assert_eq!(e4m3(1e9), 0x7e);
        assert_eq!(e4m3(-1e9), 0xfe);
        assert_eq!(e4m3(1.0), 0x38);
        assert_eq!(e4m3(2f32.powi(-9)), 0x01);
        assert_eq!(e4m3(f32::NAN), 0x7f);
        assert_eq!(f64_to_f32(1.0 + 2f64.powi(-40), Round::Up), 0x3f80_0001);
        assert_eq!(f64_to_f32(1e300, Round::Zero), 0x7f7f_ffff);
        assert_eq!(f64_to_f32(-1e300, Round::Down), 0xff80_0000);
        assert_eq!(
            TF32.convert(&F32, 0x3f80_1000, Round::NearAway, false),
            0x3f80_2000
        );
    }
}
