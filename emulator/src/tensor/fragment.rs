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

use std::borrow::Borrow;

/// A: 16 rows of up to eight words of K.
pub(crate) type Rows = [[u32; 8]; 16];

/// Eight columns of B: words of K down, columns across.
pub(crate) type Columns = [[u32; 8]; 8];

/// Accumulators of 16 rows and eight columns, one in each word.
pub(super) type Tile = [[u32; 8]; 16];

/// A from the two or four registers of its fragment; words that are not there are zero.
#[inline(always)]
pub(crate) fn rows(registers: &[&[u32; 32]]) -> Rows {
    let mut rows = [[0; 8]; 16];
    for (i, register) in registers.iter().enumerate() {
        for g in 0..8 {
            for t in 0..4 {
                rows[g + 8 * (i % 2)][t + 4 * (i / 2)] = register[4 * g + t];
            }
        }
    }
    rows
}

/// B of an `mma` from the one or two registers of its fragment; words that are not there are zero.
#[inline(always)]
pub(super) fn columns(registers: &[&[u32; 32]]) -> Columns {
    let mut columns = [[0; 8]; 8];
    for (i, register) in registers.iter().enumerate() {
        for g in 0..8 {
            for t in 0..4 {
                columns[t + 4 * i][g] = register[4 * g + t];
            }
        }
    }
    columns
}

/// Eight columns of B from memory in which K is contiguous: 32 bytes of each column.
#[inline(always)]
pub(crate) fn columns_k_major(bytes: &[[u32; 8]; 8]) -> Columns {
    let mut columns = [[0; 8]; 8];
    for (c, column) in bytes.iter().enumerate() {
        for (w, word) in column.iter().enumerate() {
            columns[w][c] = *word;
        }
    }
    columns
}

/// Eight columns of B from memory in which N is contiguous: eight 16-bit elements of each of 16 steps of K.
#[inline(always)]
pub(crate) fn columns_n_major(steps: &[[u16; 8]; 16]) -> Columns {
    let mut columns = [[0; 8]; 8];
    for (w, words) in columns.iter_mut().enumerate() {
        for (c, word) in words.iter_mut().enumerate() {
            *word = u32::from(steps[2 * w][c]) | u32::from(steps[2 * w + 1][c]) << 16;
        }
    }
    columns
}

/// Accumulators from their registers: four, or two that hold pairs.
#[inline(always)]
pub(super) fn tile<R: Borrow<[u32; 32]>>(registers: &[R]) -> Tile {
    let mut tile = [[0; 8]; 16];
    if let [a, b, c, d] = registers {
        for (half, pair) in [[a, b], [c, d]].into_iter().enumerate() {
            for g in 0..8 {
                for t in 0..4 {
                    tile[8 * half + g][2 * t] = pair[0].borrow()[4 * g + t];
                    tile[8 * half + g][2 * t + 1] = pair[1].borrow()[4 * g + t];
                }
            }
        }
    } else {
        for (half, register) in registers.iter().take(2).enumerate() {
            for g in 0..8 {
                for t in 0..4 {
                    let pair = register.borrow()[4 * g + t];
                    tile[8 * half + g][2 * t] = pair & 0xffff;
                    tile[8 * half + g][2 * t + 1] = pair >> 16;
                }
            }
        }
    }
    tile
}

/// The inverse of [`tile`].
#[inline(always)]
pub(super) fn store(tile: &Tile, registers: &mut [[u32; 32]]) {
    if let [a, b, c, d] = registers {
        for (half, pair) in [[a, b], [c, d]].into_iter().enumerate() {
            for g in 0..8 {
                for t in 0..4 {
                    pair[0][4 * g + t] = tile[8 * half + g][2 * t];
                    pair[1][4 * g + t] = tile[8 * half + g][2 * t + 1];
                }
            }
        }
    } else {
        for (half, register) in registers.iter_mut().take(2).enumerate() {
            for g in 0..8 {
                for t in 0..4 {
                    let row = &tile[8 * half + g];
                    register[4 * g + t] = row[2 * t] | row[2 * t + 1] << 16;
                }
            }
        }
    }
}
