//! Operands taken apart, eight lanes at a time: the value as an `f32`, and the exponent that decides where terms are cut off.

use super::eight::Eight;
use super::fragment::{Columns, Rows};
use crate::arith::Round;
use crate::arith::format::{E4M3, F16};
use crate::program::op::Element;

/// Exponent of zero: with any other exponent added it stays below all real ones.
pub(super) const ZERO: i32 = -1000;
/// Exponent of infinities and NaN: with any other exponent added, zero's too, it stays above all real ones.
pub(super) const SPECIAL: i32 = 4000;
/// Sums of two exponents below this have a zero in them.
pub(super) const NO_PRODUCT: i32 = -500;

/// `X` groups of eight words, each word with `H` elements. Element `h` of a word is in bits `32 h / H` and up.
#[derive(Debug, Clone)]
pub(super) struct Decoded<const H: usize, const X: usize> {
    /// Finite values as they are; anything for the others.
    pub(super) values: [[[f32; 8]; H]; X],
    /// In both halves of each lane.
    pub(super) exponents: [[[i32; 8]; H]; X],
}

impl<const H: usize, const X: usize> Decoded<H, X> {
    pub(super) const ZERO: Self = Self {
        values: [[[0.0; 8]; H]; X],
        exponents: [[[0; 8]; H]; X],
    };
}

/// Takes words apart. `H` is the number of elements in a word: 1 for TF32, 2 for 16-bit and 4 for 8-bit types.
#[inline(always)]
pub(super) fn decode<E: Eight, const H: usize, const X: usize>(
    element: Element,
    words: &[[u32; 8]; X],
    decoded: &mut Decoded<H, X>,
) {
    // One loop for each type: with the choice inside, the compiler makes it for every group of words.
    macro_rules! each {
        ($parts:expr) => {
            for x in 0..X {
                let word = E::load_words(&words[x]);
                for h in 0..H {
                    let element = match (H, h) {
                        (1, _) => word,
                        (2, 0) => E::and(word, E::splat(0xffff)),
                        (2, _) => E::shr::<16>(word),
                        (_, 0) => E::and(word, E::splat(0xff)),
                        (_, 1) => E::and(E::shr::<8>(word), E::splat(0xff)),
                        (_, 2) => E::and(E::shr::<16>(word), E::splat(0xff)),
                        (_, _) => E::shr::<24>(word),
                    };
                    let (value, exponent) = $parts(element);
                    decoded.values[x][h] = bytemuck::cast(value);
                    let low = E::and(exponent, E::splat(0xffff));
                    let twice = E::or(low, E::shl::<16>(exponent));
                    decoded.exponents[x][h] = bytemuck::cast(twice);
                }
            }
        };
    }
    match element {
        Element::F16 => each!(f16::<E>),
        Element::Bf16 => each!(bf16::<E>),
        Element::E4m3 => each!(e4m3::<E>),
        Element::E5m2 => each!(e5m2::<E>),
        Element::S8 => each!(s8::<E>),
        Element::U8 => each!(u8::<E>),
        Element::Tf32 | Element::F64 => each!(tf32::<E>),
    }
}

/// Takes rows apart, and puts the exponents of two rows in one: the low halves of those of an even row stay, the high ones
/// become those of the row after it.
#[inline(always)]
pub(super) fn decode_rows<E: Eight, const H: usize>(
    element: Element,
    words: &[[u32; 8]; 16],
    decoded: &mut Decoded<H, 16>,
) {
    decode::<E, H, 16>(element, words, decoded);
    for pair in decoded.exponents.chunks_exact_mut(2) {
        let [even, odd] = pair else { continue };
        for (even, odd) in even.iter_mut().zip(odd) {
            let low = E::and(E::load(even), E::splat(0xffff));
            let high = E::and(E::load(odd), E::splat(!0xffff));
            *even = bytemuck::cast(E::or(low, high));
        }
    }
}

/// The exponent that terms are compared by: `finite`, or what stands for zero and for all that is not finite.
#[inline(always)]
fn exponent<E: Eight>(is_zero: E::Int, is_special: E::Int, finite: E::Int) -> E::Int {
    let finite = E::select(is_zero, E::splat(ZERO), finite);
    E::select(is_special, E::splat(SPECIAL), finite)
}

#[inline(always)]
fn f32_parts<E: Eight>(bits: E::Int) -> (E::Float, E::Int) {
    let field = E::and(E::shr::<23>(bits), E::splat(255));
    let exponent = exponent::<E>(
        E::equal(E::shl::<1>(bits), E::splat(0)),
        E::equal(field, E::splat(255)),
        E::sub(E::max(field, E::splat(1)), E::splat(127)),
    );
    (E::from_bits(bits), exponent)
}

/// The value and the exponent of the bits of a format narrower than `f32`, by way of its integer significand: a detour through
/// subnormal `f32` would cost the host a hundred cycles for each.
#[inline(always)]
fn narrow<E: Eight, const FRACTION: i32, const SIGN_TO_TOP: i32>(
    bits: E::Int,
    field: E::Int,
    bias: i32,
    is_special: E::Int,
) -> (E::Float, E::Int) {
    let implicit = 1 << FRACTION;
    let fraction = E::and(bits, E::splat(implicit - 1));
    let significand = E::select(
        E::equal(field, E::splat(0)),
        fraction,
        E::or(fraction, E::splat(implicit)),
    );
    let stored = E::max(field, E::splat(1));
    let unit = E::from_bits(E::shl::<23>(E::add(
        stored,
        E::splat(127 - bias - FRACTION),
    )));
    let value = E::bits(E::mul(E::float(significand), unit));
    let sign = E::and(E::shl::<SIGN_TO_TOP>(bits), E::splat(i32::MIN));
    let exponent = exponent::<E>(
        E::equal(significand, E::splat(0)),
        is_special,
        E::sub(stored, E::splat(bias)),
    );
    (E::from_bits(E::or(value, sign)), exponent)
}

#[inline(always)]
pub(super) fn f16<E: Eight>(bits: E::Int) -> (E::Float, E::Int) {
    let field = E::and(E::shr::<10>(bits), E::splat(31));
    let is_special = E::equal(field, E::splat(31));
    narrow::<E, 10, 16>(bits, field, 15, is_special)
}

#[inline(always)]
fn bf16<E: Eight>(bits: E::Int) -> (E::Float, E::Int) {
    f32_parts::<E>(E::shl::<16>(bits))
}

/// The low bits are not looked at, not even to tell infinity from NaN.
#[inline(always)]
fn tf32<E: Eight>(bits: E::Int) -> (E::Float, E::Int) {
    f32_parts::<E>(E::and(bits, E::splat(!0x1fff)))
}

/// The upper half of an `f16`.
#[inline(always)]
fn e5m2<E: Eight>(bits: E::Int) -> (E::Float, E::Int) {
    f16::<E>(E::shl::<8>(bits))
}

#[inline(always)]
fn s8<E: Eight>(bits: E::Int) -> (E::Float, E::Int) {
    let sign = E::and(bits, E::splat(0x80));
    let value = E::sub(bits, E::shl::<1>(sign));
    (E::float(value), value)
}

#[inline(always)]
fn u8<E: Eight>(bits: E::Int) -> (E::Float, E::Int) {
    (E::float(bits), bits)
}

#[inline(always)]
fn e4m3<E: Eight>(bits: E::Int) -> (E::Float, E::Int) {
    let field = E::and(E::shr::<3>(bits), E::splat(15));
    let is_special = E::equal(E::and(bits, E::splat(0x7f)), E::splat(0x7f));
    narrow::<E, 3, 24>(bits, field, 7, is_special)
}

/// Words with the sign of every element turned.
#[inline(always)]
pub(super) fn negate<const X: usize>(
    element: Element,
    negate: bool,
    words: &[[u32; 8]; X],
) -> [[u32; 8]; X] {
    let signs = match element {
        _ if !negate => 0,
        Element::F16 | Element::Bf16 => 0x8000_8000,
        Element::E4m3 | Element::E5m2 => 0x8080_8080,
        Element::Tf32 | Element::F64 => 0x8000_0000,
        Element::S8 | Element::U8 => 0,
    };
    let mut turned = *words;
    for lanes in &mut turned {
        for word in lanes {
            *word ^= signs;
        }
    }
    turned
}

/// FP8 rows as rows of f16, in two halves of K.
#[inline(always)]
pub(super) fn widen_rows(element: Element, rows: &Rows) -> [Rows; 2] {
    let mut halves = [[[0; 8]; 16]; 2];
    for (row, words) in rows.iter().enumerate() {
        for (w, word) in words.iter().enumerate() {
            let pair = widen(element, *word);
            halves[w / 4][row][2 * (w % 4)] = pair[0];
            halves[w / 4][row][2 * (w % 4) + 1] = pair[1];
        }
    }
    halves
}

/// The same for columns.
#[inline(always)]
pub(super) fn widen_columns(element: Element, columns: &Columns) -> [Columns; 2] {
    let mut halves = [[[0; 8]; 8]; 2];
    for (w, words) in columns.iter().enumerate() {
        for (column, word) in words.iter().enumerate() {
            let pair = widen(element, *word);
            halves[w / 4][2 * (w % 4)][column] = pair[0];
            halves[w / 4][2 * (w % 4) + 1][column] = pair[1];
        }
    }
    halves
}

/// Four FP8 numbers as two words of f16.
#[inline(always)]
fn widen(element: Element, word: u32) -> [u32; 2] {
    let half = |shift: u32| {
        let bits = word >> shift & 0xff;
        if element == Element::E4m3 {
            F16.convert(&E4M3, u64::from(bits), Round::Near, false) as u32
        } else {
            bits << 8
        }
    };
    [half(0) | half(8) << 16, half(16) | half(24) << 16]
}
