//! `cvt` between any two types.

use super::Round;
use super::float::flush;
use super::format::{BF16, E4M3, E5M2, F16, F32, F64, Format, Number, TF32};

/// One side of a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Unsigned(u32),
    Signed(u32),
    Float(Format),
}

impl Kind {
    /// From a type's name, as in `cvt.f32.s32`.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "u8" | "b8" => Self::Unsigned(8),
            "u16" | "b16" => Self::Unsigned(16),
            "u32" | "b32" => Self::Unsigned(32),
            "u64" | "b64" => Self::Unsigned(64),
            "s8" => Self::Signed(8),
            "s16" => Self::Signed(16),
            "s32" => Self::Signed(32),
            "s64" => Self::Signed(64),
            "f16" => Self::Float(F16),
            "bf16" => Self::Float(BF16),
            "tf32" => Self::Float(TF32),
            "f32" => Self::Float(F32),
            "f64" => Self::Float(F64),
            "e4m3" => Self::Float(E4M3),
            "e5m2" => Self::Float(E5M2),
            _ => return None,
        })
    }
}

/// A conversion with its modifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conversion {
    pub(crate) from: Kind,
    pub(crate) to: Kind,
    pub(crate) round: Round,
    /// `.rni` and its kind: to an integral value.
    pub(crate) integral: bool,
    pub(crate) ftz: bool,
    pub(crate) sat: bool,
    pub(crate) satfinite: bool,
    pub(crate) relu: bool,
}

/// Converts one value; the result is sign- or zero-extended to 64 bits.
pub(crate) fn convert(conversion: &Conversion, bits: u64) -> u64 {
    let c = conversion;
    match (c.from, c.to) {
        (Kind::Float(from), Kind::Float(to)) => float_to_float(c, from, to, bits),
        (Kind::Float(from), Kind::Unsigned(width)) => {
            float_to_int(c, from, bits, 0, (1i128 << width) - 1, width)
        }
        (Kind::Float(from), Kind::Signed(width)) => float_to_int(
            c,
            from,
            bits,
            -(1i128 << (width - 1)),
            (1i128 << (width - 1)) - 1,
            width,
        ),
        (from, Kind::Float(to)) => {
            let value = integer(from, bits);
            let result = to.round(value < 0, value.unsigned_abs(), 0, false, c.round, false);
            if c.sat { to_unit(to, result) } else { result }
        }
        (from, to) => {
            let mut value = integer(from, bits);
            let (width, signed) = match to {
                Kind::Signed(width) => (width, true),
                Kind::Unsigned(width) => (width, false),
                Kind::Float(_) => return 0,
            };
            if c.sat {
                let (low, high) = if signed {
                    (-(1i128 << (width - 1)), (1i128 << (width - 1)) - 1)
                } else {
                    (0, (1i128 << width) - 1)
                };
                value = value.clamp(low, high);
            }
            extend(value as u64, width, signed)
        }
    }
}

/// Keeps `width` bits and extends them to 64.
#[inline(always)]
pub(crate) fn extend(bits: u64, width: u32, signed: bool) -> u64 {
    let shift = 64 - width;
    if signed {
        ((bits << shift) as i64 >> shift) as u64
    } else {
        bits << shift >> shift
    }
}

fn integer(kind: Kind, bits: u64) -> i128 {
    match kind {
        Kind::Unsigned(width) => i128::from(extend(bits, width, false)),
        Kind::Signed(width) => i128::from(extend(bits, width, true) as i64),
        Kind::Float(_) => 0,
    }
}

/// The integer that a number rounds to.
fn to_integer(negative: bool, significand: u64, exponent: i32, round: Round) -> i128 {
    let magnitude = if exponent >= 0 {
        // Beyond 2^100 every destination saturates.
        u128::from(significand) << exponent.min(60)
    } else if exponent < -64 {
        let any = significand != 0;
        u128::from(any && (round == Round::Up && !negative || round == Round::Down && negative))
    } else {
        let drop = -exponent as u32;
        let wide = u128::from(significand);
        let kept = wide >> drop;
        let half = wide >> (drop - 1) & 1 == 1;
        let rest = wide & ((1 << (drop - 1)) - 1) != 0;
        let up = match round {
            Round::Near => half && (rest || kept & 1 == 1),
            Round::NearAway => half,
            Round::Zero => false,
            Round::Down => negative && (half || rest),
            Round::Up => !negative && (half || rest),
        };
        kept + u128::from(up)
    };
    if negative {
        -(magnitude as i128)
    } else {
        magnitude as i128
    }
}

fn float_to_int(c: &Conversion, from: Format, bits: u64, low: i128, high: i128, width: u32) -> u64 {
    let bits = if c.ftz && from == F32 {
        u64::from(flush(bits as u32))
    } else {
        bits
    };
    match from.unpack(bits) {
        // The manual: zero, unless 64 bits are on either side.
        Number::Nan => {
            if from == F64 || width == 64 {
                extend(1 << (width - 1), width, low < 0)
            } else {
                0
            }
        }
        Number::Infinity { negative } => (if negative { low } else { high }) as u64,
        Number::Finite {
            negative,
            significand,
            exponent,
        } => to_integer(negative, significand, exponent, c.round).clamp(low, high) as u64,
    }
}

/// `.sat` of a floating-point result: to [0, 1], with NaN to +0. Through F64, which holds any of these formats.
fn to_unit(format: Format, bits: u64) -> u64 {
    let value = f64::from_bits(F64.convert(&format, bits, Round::Near, false));
    let clamped = if value > 0.0 { value.min(1.0) } else { 0.0 };
    format.convert(&F64, clamped.to_bits(), Round::Near, false)
}

fn float_to_float(c: &Conversion, from: Format, to: Format, bits: u64) -> u64 {
    let mut bits = if c.ftz && from == F32 {
        u64::from(flush(bits as u32))
    } else {
        bits
    };
    // Of the source, as the largest negative number of a format without infinities may round to NaN.
    let is_negative = matches!(
        from.unpack(bits),
        Number::Infinity { negative: true } | Number::Finite { negative: true, .. }
    );
    if c.relu && is_negative {
        return 0;
    }
    if c.integral
        && let Number::Finite {
            negative,
            significand,
            exponent,
        } = from.unpack(bits)
        && exponent < 0
    {
        let value = to_integer(negative, significand, exponent, c.round);
        bits = from.round(negative, value.unsigned_abs(), 0, false, Round::Near, false);
    }
    let mut result = if from == to && to == F64 {
        bits
    } else {
        to.convert(&from, bits, c.round, c.satfinite)
    };
    if c.ftz && to == F32 {
        result = u64::from(flush(result as u32));
    }
    if c.sat {
        result = to_unit(to, result);
    }
    result
}

#[cfg(test)]
mod tests;
