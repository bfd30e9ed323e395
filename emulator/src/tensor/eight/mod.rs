//! Eight lanes at a time. The arithmetic is written once over [`Eight`]; arrays compute it anywhere, registers where there is AVX2.
//!
//! The compiler does not find these vectors by itself: left with arrays it vectorises along K, and adds across lanes.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod plain;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::{Avx2, has_avx2};
use bytemuck::Pod;
pub(super) use plain::Plain;

/// The column of eight that each lane holds: the order in which a fragment's registers give them without a shuffle.
pub(super) const COLUMNS: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// Operations on eight lanes. Both implementations give the same bits for every operand that the functions here name.
pub(super) trait Eight {
    /// Eight `f32`.
    type Float: Pod;
    /// Eight `i32`, or masks: all ones or zero. Some operations see 16 halves or 32 bytes in it.
    type Int: Pod;

    /// Whether ways that only save time are worth their machine code.
    const IS_FAST: bool;

    fn splat(value: i32) -> Self::Int;
    fn splat_float(value: f32) -> Self::Float;
    fn mul(a: Self::Float, b: Self::Float) -> Self::Float;
    fn add_float(a: Self::Float, b: Self::Float) -> Self::Float;
    /// Toward zero; of magnitudes below 2^31.
    fn cut(a: Self::Float) -> Self::Int;
    /// To nearest even.
    fn float(a: Self::Int) -> Self::Float;
    fn add(a: Self::Int, b: Self::Int) -> Self::Int;
    fn sub(a: Self::Int, b: Self::Int) -> Self::Int;
    fn max(a: Self::Int, b: Self::Int) -> Self::Int;
    fn abs(a: Self::Int) -> Self::Int;
    /// `a` with its sign turned where `b` is negative, zero where `b` is zero.
    fn sign(a: Self::Int, b: Self::Int) -> Self::Int;
    fn and(a: Self::Int, b: Self::Int) -> Self::Int;
    /// `a` without the bits of `b`.
    fn without(a: Self::Int, b: Self::Int) -> Self::Int;
    fn or(a: Self::Int, b: Self::Int) -> Self::Int;
    fn shl<const N: i32>(a: Self::Int) -> Self::Int;
    /// Fills with zeros.
    fn shr<const N: i32>(a: Self::Int) -> Self::Int;
    /// Fills with the sign.
    fn sar<const N: i32>(a: Self::Int) -> Self::Int;
    fn greater(a: Self::Int, b: Self::Int) -> Self::Int;
    fn equal(a: Self::Int, b: Self::Int) -> Self::Int;
    /// `a` where the mask is set, else `b`; masks of halves and bytes will do.
    fn select(mask: Self::Int, a: Self::Int, b: Self::Int) -> Self::Int;
    /// `a` in the lanes in which `by` is negative, else `b`.
    fn select_negative(by: Self::Int, a: Self::Float, b: Self::Float) -> Self::Float;
    /// Whether a bit is set anywhere.
    fn any(mask: Self::Int) -> bool;

    fn shl_halves<const N: i32>(a: Self::Int) -> Self::Int;
    /// Fills with zeros.
    fn shr_halves<const N: i32>(a: Self::Int) -> Self::Int;
    /// Fills with the sign.
    fn sar_halves<const N: i32>(a: Self::Int) -> Self::Int;
    fn add_halves(a: Self::Int, b: Self::Int) -> Self::Int;
    /// Of signed halves.
    fn max_halves(a: Self::Int, b: Self::Int) -> Self::Int;
    /// Of unsigned halves.
    fn min_halves(a: Self::Int, b: Self::Int) -> Self::Int;
    /// Of unsigned halves: how much `a` is above `b`, or zero.
    fn excess_halves(a: Self::Int, b: Self::Int) -> Self::Int;
    fn equal_halves(a: Self::Int, b: Self::Int) -> Self::Int;
    /// In each lane the sum of the products of both signed halves.
    fn dot_halves(a: Self::Int, b: Self::Int) -> Self::Int;
    /// Of signed bytes, stopping at their ends.
    fn add_bytes(a: Self::Int, b: Self::Int) -> Self::Int;
    /// Of signed bytes.
    fn max_bytes(a: Self::Int, b: Self::Int) -> Self::Int;
    fn equal_bytes(a: Self::Int, b: Self::Int) -> Self::Int;

    /// In each even lane, its low half below that of the lane after it. High halves have to be zero; odd lanes are anything.
    fn pair(a: Self::Int) -> Self::Int;
    fn join(low: &[u32; 4], high: &[u32; 4]) -> Self::Int;
    /// Eight rows of four words as four vectors, with the rows in the order of [`COLUMNS`].
    fn transpose(rows: &[u32; 32]) -> [Self::Int; 4];
    /// The `f16` in the low and in the high halves.
    fn f16_halves(words: Self::Int) -> [Self::Float; 2];
    /// The `f16` in the low halves, and after them those in the high ones.
    fn f16_join(words: &[u32; 4]) -> Self::Float;
    /// The inverse of [`f16_join`](Self::f16_join), to nearest even.
    fn f16_split(values: Self::Float) -> [u32; 4];
    /// To the nearest `f16`, ties to even.
    fn f16_round(values: Self::Float) -> Self::Float;

    #[inline(always)]
    fn load(lanes: &[i32; 8]) -> Self::Int {
        bytemuck::cast(*lanes)
    }
    #[inline(always)]
    fn load_words(lanes: &[u32; 8]) -> Self::Int {
        bytemuck::cast(*lanes)
    }
    #[inline(always)]
    fn load_floats(lanes: &[f32; 8]) -> Self::Float {
        bytemuck::cast(*lanes)
    }
    #[inline(always)]
    fn bits(a: Self::Float) -> Self::Int {
        bytemuck::cast(a)
    }
    #[inline(always)]
    fn from_bits(a: Self::Int) -> Self::Float {
        bytemuck::cast(a)
    }
    /// The same in both halves of each lane.
    #[inline(always)]
    fn splat_halves(value: i16) -> Self::Int {
        Self::splat(i32::from(value as u16) | i32::from(value) << 16)
    }
    #[inline(always)]
    fn splat_bytes(value: i8) -> Self::Int {
        Self::splat(i32::from_ne_bytes([value as u8; 4]))
    }
}
