//! Where the elements of a matrix are in a warp's registers (PTX ISA, "Matrix Fragments for mma" and "Register Fragments for
//! wgmma"), and the plain layouts that the arithmetic works on.
//!
//! Lane `l` has `g = l / 4` and `t = l % 4`. Counted in 32-bit words along K, all element types have the same fragments:
//!
//! ```text
//! A          register i: row g + 8 (i % 2), word t + 4 (i / 2)
//! B          register i: word t + 4 i, column g
//! C, D f32   register i: row g + 8 (i / 2), column 2 t + i % 2
//! C, D f16   register i: row g + 8 i, columns 2 t (low half) and 2 t + 1
//! ```
//!
//! The accumulators of a `wgmma` are those of an `mma` for every eight columns, one after the other.

use super::eight::{COLUMNS, Eight, Plain};

/// A: 16 rows of up to eight words of K.
pub(crate) type Rows = [[u32; 8]; 16];

/// Eight columns of B: words of K down, columns across in the order of [`COLUMNS`].
pub(crate) type Columns = [[u32; 8]; 8];

/// A from the two or four registers of its fragment; words that are not there are zero.
pub(crate) fn rows(registers: &[&[u32; 32]]) -> Rows {
    rows_on::<Plain>(registers)
}

/// [`rows`] in whole vectors: the halves of a row are together in one register each.
#[inline(always)]
pub(super) fn rows_on<E: Eight>(registers: &[&[u32; 32]]) -> Rows {
    const NOTHING: &[u32; 32] = &[0; 32];
    let register = |i| registers.get(i).copied().unwrap_or(NOTHING);
    let halves = [[register(0), register(2)], [register(1), register(3)]];
    let mut rows = [[0; 8]; 16];
    for row in 0..16 {
        let [low, high] = halves[row / 8];
        rows[row] = bytemuck::cast(E::join(four(low, row % 8), four(high, row % 8)));
    }
    rows
}

/// B of an `mma` from the one or two registers of its fragment; words that are not there are zero.
#[inline(always)]
pub(super) fn columns<E: Eight>(registers: &[&[u32; 32]]) -> Columns {
    let mut columns = [[0; 8]; 8];
    for (i, register) in registers.iter().take(2).enumerate() {
        let transposed = E::transpose(register);
        for t in 0..4 {
            columns[4 * i + t] = bytemuck::cast(transposed[t]);
        }
    }
    columns
}

/// The words of lanes 4 `g` to 4 `g` + 3.
#[inline(always)]
fn four(register: &[u32; 32], g: usize) -> &[u32; 4] {
    &register.as_chunks().0[g]
}

#[inline(always)]
fn four_mut(register: &mut [u32; 32], g: usize) -> &mut [u32; 4] {
    &mut register.as_chunks_mut().0[g]
}

/// Eight columns of B from memory in which K is contiguous: 32 bytes of each column.
#[inline(always)]
pub(crate) fn columns_k_major(bytes: &[[u32; 8]; 8]) -> Columns {
    let mut columns = [[0; 8]; 8];
    for (to, column) in COLUMNS.into_iter().enumerate() {
        for (w, words) in columns.iter_mut().enumerate() {
            words[to] = bytes[column][w];
        }
    }
    columns
}

/// Eight columns of B from memory in which N is contiguous: eight 16-bit elements of each of 16 steps of K.
#[inline(always)]
pub(crate) fn columns_n_major(steps: &[[u16; 8]; 16]) -> Columns {
    let mut columns = [[0; 8]; 8];
    for (w, words) in columns.iter_mut().enumerate() {
        *words = COLUMNS.map(|column| {
            u32::from(steps[2 * w][column]) | u32::from(steps[2 * w + 1][column]) << 16
        });
    }
    columns
}

/// The registers of an accumulator's fragment: four, or the first two where they hold pairs.
pub(super) type Accumulators<'a> = [&'a [u32; 32]; 4];

/// Accumulators that are zero.
pub(super) const ZEROS: Accumulators<'static> = [&[0; 32]; 4];

/// Fills up to four registers.
#[inline(always)]
pub(super) fn accumulators<'a>(registers: &[&'a [u32; 32]]) -> Accumulators<'a> {
    std::array::from_fn(|i| registers.get(i).copied().unwrap_or(&[0; 32]))
}

/// A row of 32-bit accumulators, columns in the order of [`COLUMNS`].
#[inline(always)]
pub(super) fn row<E: Eight>(registers: &Accumulators<'_>, row: usize) -> E::Int {
    let half = row / 8 * 2;
    E::join(
        four(registers[half], row % 8),
        four(registers[half + 1], row % 8),
    )
}

/// The same where a register holds two `f16`.
#[inline(always)]
pub(super) fn row_of_pairs<E: Eight>(registers: &Accumulators<'_>, row: usize) -> E::Float {
    E::f16_join(four(registers[row / 8], row % 8))
}

/// The inverse of [`row()`].
#[inline(always)]
pub(super) fn store_row<E: Eight>(registers: &mut [[u32; 32]], row: usize, values: E::Int) {
    let [low, high]: [[u32; 4]; 2] = bytemuck::cast(values);
    let half = row / 8 * 2;
    if let Some([a, b]) = registers[half..].first_chunk_mut() {
        *four_mut(a, row % 8) = low;
        *four_mut(b, row % 8) = high;
    }
}

/// The inverse of [`row_of_pairs`].
#[inline(always)]
pub(super) fn store_pairs<E: Eight>(registers: &mut [[u32; 32]], row: usize, values: E::Float) {
    *four_mut(&mut registers[row / 8], row % 8) = E::f16_split(values);
}
