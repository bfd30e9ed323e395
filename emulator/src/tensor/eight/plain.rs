//! Eight lanes in arrays.

use super::{COLUMNS, Eight};

/// Arrays.
#[derive(Debug)]
pub(in crate::tensor) struct Plain;

#[inline(always)]
fn zip<A: Copy, B: Copy, R>(a: [A; 8], b: [B; 8], f: impl Fn(A, B) -> R) -> [R; 8] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

#[inline(always)]
fn mask(condition: bool) -> i32 {
    -i32::from(condition)
}

#[inline(always)]
fn halves(a: [i32; 8], b: [i32; 8], f: impl Fn(i16, i16) -> i16) -> [i32; 8] {
    zip(a, b, |a, b| {
        let (low, high) = (f(a as i16, b as i16), f((a >> 16) as i16, (b >> 16) as i16));
        i32::from(low as u16) | i32::from(high) << 16
    })
}

#[inline(always)]
fn bytes(a: [i32; 8], b: [i32; 8], f: impl Fn(i8, i8) -> i8) -> [i32; 8] {
    zip(a, b, |a, b| {
        let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
        i32::from_le_bytes(std::array::from_fn(|i| f(a[i] as i8, b[i] as i8) as u8))
    })
}

/// The value of an `f16`, exactly.
#[inline(always)]
fn widen(bits: u32) -> f32 {
    let magnitude = bits & 0x7fff;
    let value = match magnitude >> 10 {
        0 => magnitude as f32 * f32::from_bits((127 - 24) << 23),
        31 => f32::from_bits(0x7f80_0000 | magnitude << 13),
        _ => f32::from_bits((magnitude << 13) + ((127 - 15) << 23)),
    };
    if bits & 0x8000 == 0 { value } else { -value }
}

/// To nearest even.
#[inline(always)]
fn narrow(value: f32) -> u32 {
    let sign = value.to_bits() >> 16 & 0x8000;
    let magnitude = value.to_bits() & 0x7fff_ffff;
    let bits = match magnitude {
        // The addition of one half aligns and rounds.
        ..0x3880_0000 => (f32::from_bits(magnitude) + 0.5).to_bits() - 0x3f00_0000,
        0x3880_0000..0x4780_0000 => {
            // Half of the last place, less one where the last bit is even.
            (magnitude - 0x3800_0000 + 0xfff + (magnitude >> 13 & 1)) >> 13
        }
        0x4780_0000..0x7f80_0001 => 0x7c00,
        _ => 0x7e00 | (magnitude >> 13 & 0x3ff),
    };
    bits | sign
}

impl Eight for Plain {
    type Float = [f32; 8];
    type Int = [i32; 8];

    const IS_FAST: bool = false;

    #[inline(always)]
    fn splat(value: i32) -> [i32; 8] {
        [value; 8]
    }
    #[inline(always)]
    fn splat_float(value: f32) -> [f32; 8] {
        [value; 8]
    }
    #[inline(always)]
    fn mul(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn add_float(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn cut(a: [f32; 8]) -> [i32; 8] {
        a.map(|a| a as i32)
    }
    #[inline(always)]
    fn float(a: [i32; 8]) -> [f32; 8] {
        a.map(|a| a as f32)
    }
    #[inline(always)]
    fn add(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn sub(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    fn max(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, i32::max)
    }
    #[inline(always)]
    fn abs(a: [i32; 8]) -> [i32; 8] {
        a.map(i32::wrapping_abs)
    }
    #[inline(always)]
    fn sign(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, |a, b| a.wrapping_mul(b.signum()))
    }
    #[inline(always)]
    fn and(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, |a, b| a & b)
    }
    #[inline(always)]
    fn without(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, |a, b| a & !b)
    }
    #[inline(always)]
    fn or(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, |a, b| a | b)
    }
    #[inline(always)]
    fn shl<const N: i32>(a: [i32; 8]) -> [i32; 8] {
        a.map(|a| a << N)
    }
    #[inline(always)]
    fn shr<const N: i32>(a: [i32; 8]) -> [i32; 8] {
        a.map(|a| (a as u32 >> N) as i32)
    }
    #[inline(always)]
    fn sar<const N: i32>(a: [i32; 8]) -> [i32; 8] {
        a.map(|a| a >> N)
    }
    #[inline(always)]
    fn greater(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, |a, b| mask(a > b))
    }
    #[inline(always)]
    fn equal(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, |a, b| mask(a == b))
    }
    #[inline(always)]
    fn select(mask: [i32; 8], a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| (a[i] & mask[i]) | (b[i] & !mask[i]))
    }
    #[inline(always)]
    fn select_negative(by: [i32; 8], a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| if by[i] < 0 { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn any(mask: [i32; 8]) -> bool {
        mask.iter().any(|lane| *lane != 0)
    }

    #[inline(always)]
    fn shl_halves<const N: i32>(a: [i32; 8]) -> [i32; 8] {
        halves(a, a, |a, _| a << N)
    }
    #[inline(always)]
    fn shr_halves<const N: i32>(a: [i32; 8]) -> [i32; 8] {
        halves(a, a, |a, _| (a as u16 >> N) as i16)
    }
    #[inline(always)]
    fn sar_halves<const N: i32>(a: [i32; 8]) -> [i32; 8] {
        halves(a, a, |a, _| a >> N)
    }
    #[inline(always)]
    fn add_halves(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        halves(a, b, i16::wrapping_add)
    }
    #[inline(always)]
    fn max_halves(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        halves(a, b, i16::max)
    }
    #[inline(always)]
    fn min_halves(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        halves(a, b, |a, b| (a as u16).min(b as u16) as i16)
    }
    #[inline(always)]
    fn excess_halves(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        halves(a, b, |a, b| (a as u16).saturating_sub(b as u16) as i16)
    }
    #[inline(always)]
    fn equal_halves(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        halves(a, b, |a, b| -i16::from(a == b))
    }
    #[inline(always)]
    fn dot_halves(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, |a, b| {
            let low = i32::from(a as i16) * i32::from(b as i16);
            low.wrapping_add((a >> 16) * (b >> 16))
        })
    }
    #[inline(always)]
    fn add_bytes(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        bytes(a, b, i8::saturating_add)
    }
    #[inline(always)]
    fn max_bytes(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        bytes(a, b, i8::max)
    }
    #[inline(always)]
    fn equal_bytes(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        bytes(a, b, |a, b| -i8::from(a == b))
    }

    #[inline(always)]
    fn pair(a: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| a[i] | if i % 2 == 0 { a[i + 1] << 16 } else { 0 })
    }
    #[inline(always)]
    fn join(low: &[u32; 4], high: &[u32; 4]) -> [i32; 8] {
        std::array::from_fn(|i| if i < 4 { low[i] } else { high[i - 4] } as i32)
    }
    #[inline(always)]
    fn transpose(rows: &[u32; 32]) -> [[i32; 8]; 4] {
        std::array::from_fn(|word| COLUMNS.map(|row| rows[4 * row + word] as i32))
    }
    #[inline(always)]
    fn f16_halves(words: [i32; 8]) -> [[f32; 8]; 2] {
        [
            words.map(|word| widen(word as u32 & 0xffff)),
            words.map(|word| widen(word as u32 >> 16)),
        ]
    }
    #[inline(always)]
    fn f16_join(words: &[u32; 4]) -> [f32; 8] {
        std::array::from_fn(|i| widen(words[i % 4] >> (16 * (i / 4)) & 0xffff))
    }
    #[inline(always)]
    fn f16_split(values: [f32; 8]) -> [u32; 4] {
        std::array::from_fn(|i| narrow(values[i]) | narrow(values[i + 4]) << 16)
    }
    #[inline(always)]
    fn f16_round(values: [f32; 8]) -> [f32; 8] {
        values.map(|value| widen(narrow(value)))
    }
}
