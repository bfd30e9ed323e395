//! Operands taken apart, eight lanes at a time: the value as an `f32`, and the exponent that decides where terms are cut off.
//!
//! Exponents are the formats' fields, packed as densely as their sums allow: the largest of K sums is then found two or four at a
//! time. Subnormals have the field of the smallest normal numbers, 1.

use super::eight::Eight;
use super::fragment::{Columns, Rows};
use crate::program::op::Element;
use std::mem::MaybeUninit;

/// Field of zero: with any other added, its own too, the sum is negative.
const ZERO: i16 = -8192;
const ZERO_BYTE: i8 = -64;
/// Field of infinities and NaN: with any other added, zero's too, the sum is above all of finite numbers.
const SPECIAL: i16 = 16000;
const SPECIAL_BYTE: i8 = 127;

/// Sums of two fields above this have an infinity or a NaN in them.
pub(super) const fn largest_sum(elements_per_word: usize) -> i32 {
    if elements_per_word == 4 { 62 } else { 510 }
}

/// What a format's field has added to the exponent.
pub(super) fn bias(element: Element) -> i32 {
    match element {
        Element::F16 | Element::E5m2 => 15,
        Element::E4m3 => 7,
        Element::Bf16 | Element::Tf32 | Element::F64 => 127,
        Element::S8 | Element::U8 => 0,
    }
}

/// Fields of a tame operand with a wide exponent: A from 2^-70, B from 2^-30 (softmax puts tiny probabilities in A), both below
/// 2^60. Their products' exponents are then in the range of the fast way, which does not have to look.
const LOWEST_A: i16 = 127 - 70;
const LOWEST_B: i16 = 127 - 30;
const HIGHEST: i16 = 127 + 60;

/// `X` groups of eight words, each word with `H` elements. Element `h` of a word is in bits `32 h / H` and up.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Decoded<const H: usize, const X: usize> {
    pub(super) values: [[[f32; 8]; H]; X],
    /// In bytes where `H` is 4, otherwise in halves; where it is 1, those of words 2 w and 2 w + 1 of K are where the former is.
    pub(super) exponents: [[i32; 8]; X],
}

/// A taken apart.
pub(super) type RowParts<const H: usize> = Decoded<H, 16>;
/// B taken apart.
pub(super) type ColumnParts<const H: usize> = Decoded<H, 8>;

/// Smallest and largest field that was seen.
struct Range<E: Eight> {
    smallest: E::Int,
    largest: E::Int,
}

/// Takes words apart into `decoded`. `H` is the number of elements in a word: 1 for TF32, 2 for 16-bit and 4 for 8-bit types.
/// Returns it with whether it is tame: all numbers are finite, and none is so small or so large that products need care.
///
/// The buffer is the caller's, and not cleared: it is larger than what is decoded into it takes to compute.
#[inline(always)]
pub(super) fn decode<'a, E: Eight, const H: usize, const X: usize>(
    element: Element,
    words: &[[u32; 8]; X],
    decoded: &'a mut MaybeUninit<Decoded<H, X>>,
) -> (&'a Decoded<H, X>, bool) {
    let (values, exponents) = places(decoded);
    let mut range = Range::<E> {
        smallest: E::splat(-1),
        largest: E::splat(0),
    };
    let lowest = if X == 16 { LOWEST_A } else { LOWEST_B };
    // One loop for each type: with the choice inside, the compiler makes it for every group of words.
    macro_rules! each {
        ($parts:expr) => {
            for x in 0..X {
                let (found, exponent) = $parts(E::load_words(&words[x]), &mut range);
                for h in 0..H {
                    values[x][h].write(bytemuck::cast(found[h % found.len()]));
                }
                exponents[x].write(bytemuck::cast(exponent));
            }
        };
    }
    let is_wild = match element {
        Element::Bf16 => {
            each!(bf16::<E>);
            range.leaves_halves(lowest, HIGHEST)
        }
        Element::F16 => {
            each!(f16::<E>);
            range.leaves_halves(0, 30)
        }
        Element::Tf32 | Element::F64 => {
            each!(tf32::<E>);
            range.leaves_halves(lowest, HIGHEST)
        }
        Element::E4m3 | Element::S8 | Element::U8 => {
            each!(e4m3::<E>);
            range.has_special_byte()
        }
        Element::E5m2 => {
            each!(e5m2::<E>);
            range.has_special_byte()
        }
    };
    // SAFETY: the loops above wrote all of the `X` groups of both arrays.
    let decoded = unsafe { decoded.assume_init_mut() };
    if H == 1 {
        pair_exponents::<E, X>(&mut decoded.exponents);
    }
    (decoded, !is_wild)
}

type Places<'a, const H: usize, const X: usize> = (
    &'a mut [[MaybeUninit<[f32; 8]>; H]; X],
    &'a mut [MaybeUninit<[i32; 8]>; X],
);

/// The two arrays of a buffer that may not be initialised.
#[inline(always)]
fn places<const H: usize, const X: usize>(
    decoded: &mut MaybeUninit<Decoded<H, X>>,
) -> Places<'_, H, X> {
    let decoded = decoded.as_mut_ptr();
    // SAFETY: both pointers are to fields of one value that is borrowed for as long as the references are, and the fields do not
    // overlap. `MaybeUninit` has the layout of what is in it, and needs no initialisation.
    unsafe {
        (
            &mut *(&raw mut (*decoded).values).cast(),
            &mut *(&raw mut (*decoded).exponents).cast(),
        )
    }
}

/// TF32 has one element in a word: puts the halves of two words of K in one.
#[inline(always)]
fn pair_exponents<E: Eight, const X: usize>(exponents: &mut [[i32; 8]; X]) {
    let low = E::splat(0xffff);
    if X == 16 {
        for row in exponents {
            *row = bytemuck::cast(E::pair(E::and(E::load(row), low)));
        }
    } else {
        for pair in exponents.chunks_exact_mut(2) {
            let second = E::shl::<16>(E::load(&pair[1]));
            pair[0] = bytemuck::cast(E::or(E::and(E::load(&pair[0]), low), second));
        }
    }
}

impl<E: Eight> Range<E> {
    #[inline(always)]
    fn note_halves(&mut self, fields: E::Int) {
        // Zero, which is negative, is large without a sign.
        self.smallest = E::min_halves(self.smallest, fields);
        self.largest = E::max_halves(self.largest, fields);
    }

    #[inline(always)]
    fn leaves_halves(&self, lowest: i16, highest: i16) -> bool {
        E::any(E::or(
            E::excess_halves(E::splat_halves(lowest), self.smallest),
            E::excess_halves(self.largest, E::splat_halves(highest)),
        ))
    }

    #[inline(always)]
    fn has_special_byte(&self) -> bool {
        E::any(E::equal_bytes(self.largest, E::splat_bytes(SPECIAL_BYTE)))
    }
}

/// Fields in halves, from words without their signs in which zero is zero.
#[inline(always)]
fn in_halves<E: Eight>(
    magnitude: E::Int,
    field: E::Int,
    special: i16,
    range: &mut Range<E>,
) -> E::Int {
    let is_zero = E::equal_halves(magnitude, E::splat(0));
    let is_special = E::equal_halves(field, E::splat_halves(special));
    let field = E::max_halves(field, E::splat_halves(1));
    let field = E::select(is_zero, E::splat_halves(ZERO), field);
    let field = E::select(is_special, E::splat_halves(SPECIAL), field);
    range.note_halves(field);
    field
}

#[inline(always)]
fn bf16<E: Eight>(words: E::Int, range: &mut Range<E>) -> ([E::Float; 2], E::Int) {
    let magnitude = E::shl_halves::<1>(words);
    let exponent = in_halves(magnitude, E::shr_halves::<8>(magnitude), 255, range);
    let high = E::and(words, E::splat(!0xffff));
    let values = [E::from_bits(E::shl::<16>(words)), E::from_bits(high)];
    (values, exponent)
}

#[inline(always)]
fn f16<E: Eight>(words: E::Int, range: &mut Range<E>) -> ([E::Float; 2], E::Int) {
    let magnitude = E::shl_halves::<1>(words);
    let exponent = in_halves(magnitude, E::shr_halves::<11>(magnitude), 31, range);
    (E::f16_halves(words), exponent)
}

/// The low bits are not looked at, not even to tell infinity from NaN. Both halves get the exponent.
#[inline(always)]
fn tf32<E: Eight>(words: E::Int, range: &mut Range<E>) -> ([E::Float; 1], E::Int) {
    let words = E::and(words, E::splat(!0x1fff));
    let magnitude = E::shl::<1>(words);
    let field = E::shr::<24>(magnitude);
    let is_zero = E::equal(magnitude, E::splat(0));
    let is_special = E::equal(field, E::splat(255));
    let field = E::max(field, E::splat(1));
    let field = E::or(field, E::shl::<16>(field));
    let field = E::select(is_zero, E::splat_halves(ZERO), field);
    let field = E::select(is_special, E::splat_halves(SPECIAL), field);
    range.note_halves(field);
    ([E::from_bits(words)], field)
}

/// Fields in bytes. Sums of them fit: the largest of finite numbers is 31.
#[inline(always)]
fn in_bytes<E: Eight>(
    field: E::Int,
    is_zero: E::Int,
    is_special: E::Int,
    range: &mut Range<E>,
) -> E::Int {
    let field = E::max_bytes(field, E::splat_bytes(1));
    let field = E::select(is_zero, E::splat_bytes(ZERO_BYTE), field);
    let field = E::select(is_special, E::splat_bytes(SPECIAL_BYTE), field);
    range.largest = E::max_bytes(range.largest, field);
    field
}

/// Bytes are the upper halves of `f16`.
#[inline(always)]
fn e5m2<E: Eight>(words: E::Int, range: &mut Range<E>) -> ([E::Float; 4], E::Int) {
    let magnitude = E::and(words, E::splat_bytes(0x7f));
    let field = E::and(E::shr::<2>(words), E::splat_bytes(31));
    let exponent = in_bytes(
        field,
        E::equal_bytes(magnitude, E::splat(0)),
        E::equal_bytes(field, E::splat_bytes(31)),
        range,
    );
    let odd = E::and(words, E::splat_halves(!0xff));
    let [v0, v2] = E::f16_halves(E::shl_halves::<8>(words));
    let [v1, v3] = E::f16_halves(odd);
    ([v0, v1, v2, v3], exponent)
}

/// An `f16` of the same bits has the exponent less 8, also where it is subnormal.
#[inline(always)]
fn e4m3<E: Eight>(words: E::Int, range: &mut Range<E>) -> ([E::Float; 4], E::Int) {
    let magnitude = E::and(words, E::splat_bytes(0x7f));
    let field = E::and(E::shr::<3>(words), E::splat_bytes(15));
    let is_special = E::equal_bytes(magnitude, E::splat_bytes(0x7f));
    let is_zero = E::equal_bytes(magnitude, E::splat(0));
    let exponent = in_bytes(field, is_zero, is_special, range);
    // All ones where it is NaN, which is NaN in `f16` too.
    let words = E::or(words, is_special);
    let upper = E::splat_halves(!0xff);
    let even = e4m3_halves::<E>(E::shl_halves::<8>(words), E::shl_halves::<8>(is_special));
    let odd = e4m3_halves::<E>(E::and(words, upper), E::and(is_special, upper));
    ([even[0], odd[0], even[1], odd[1]], exponent)
}

/// The values of the numbers in upper bytes.
#[inline(always)]
fn e4m3_halves<E: Eight>(upper: E::Int, is_special: E::Int) -> [E::Float; 2] {
    let sign = E::and(upper, E::splat_halves(i16::MIN));
    let rest = E::shr_halves::<1>(E::and(upper, E::splat_halves(0x7f00)));
    // The exponent of NaN is not all ones by itself: it lost the highest bit to the shift.
    let rest = E::or(rest, E::and(is_special, E::splat_halves(0x7c00)));
    let [low, high] = E::f16_halves(E::or(sign, rest));
    let scale = E::splat_float(256.0);
    [E::mul(low, scale), E::mul(high, scale)]
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
    let [a, b, c, d] = word.to_le_bytes().map(|bits| {
        if element == Element::E4m3 {
            E4M3_AS_F16[usize::from(bits)]
        } else {
            u16::from(bits) << 8
        }
    });
    let pair = |low, high| u32::from(low) | u32::from(high) << 16;
    [pair(a, b), pair(c, d)]
}

/// Every E4M3 number as an `f16`, exactly.
static E4M3_AS_F16: [u16; 256] = {
    let mut table = [0; 256];
    let mut bits = 0;
    while bits < 256 {
        let sign = (bits as u16 & 0x80) << 8;
        let magnitude = bits as u16 & 0x7f;
        let value = match magnitude {
            0x7f => 0x7fff,
            0 => 0,
            // Subnormal: `magnitude` units of 2^-9, which are normal in `f16`.
            1..8 => {
                let top = magnitude.ilog2() as u16;
                (top + 6) << 10 | (magnitude << (10 - top) & 0x3ff)
            }
            _ => (magnitude << 7) + (8 << 10),
        };
        table[bits] = sign | value;
        bits += 1;
    }
    table
};
