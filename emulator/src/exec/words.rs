//! Between the words of memory and the registers of a warp. In memory a lane's words lie side by side; a register has one word, or
//! one pair of words, of every lane.

use super::registers::Registers;
use super::shuffle::{halves, pairs_together, together, transpose, unzip, zip};
use crate::memory::cells::{Line, Quad, SetWords, Words};
use crate::program::op::{Access, Width};

/// Whether the registers of a lane's data are words, or pairs of them: others are taken apart lane by lane.
#[inline(always)]
pub(super) fn is_plain(a: &Access) -> bool {
    matches!((a.bytes, a.width), (4, Width::B32) | (8, Width::B64))
}

/// A function of four numbers in a row.
#[inline(always)]
fn four<T>(first: usize, f: impl Fn(usize) -> T) -> [T; 4] {
    [f(first), f(first + 1), f(first + 2), f(first + 3)]
}

/// The lanes of a register, four words each.
#[inline(always)]
fn words(registers: &Registers, row: u32) -> &[Quad; 8] {
    bytemuck::cast_ref(registers.r32(row))
}

/// As [`words`], of a register of 64 bits.
#[inline(always)]
fn pairs(registers: &Registers, row: u32) -> &[Quad; 16] {
    bytemuck::cast_ref(registers.r64(row))
}

/// Writes the registers of a load, of the lanes of a mask. `line` gives what lies in memory: first what lane 0 loads, then lane 1,
/// `BYTES` each.
#[inline(always)]
pub(super) fn put<const BYTES: usize>(
    registers: &mut Registers,
    a: &Access,
    r: &[u32],
    mask: u32,
    line: impl Fn(usize) -> Line,
) {
    match (BYTES, a.bytes) {
        (4, _) | (8, 8) => {
            let mut places = registers.places([r[0]], BYTES == 8);
            for part in 0..BYTES / 2 {
                for (i, quad) in line(part).into_iter().enumerate() {
                    places.set(0, 4 * part + i, quad, mask);
                }
            }
        }
        (8, _) => {
            let mut places = registers.places([r[0], r[1]], false);
            for part in 0..4 {
                let [a, b, c, d] = line(part);
                for (i, words) in [unzip(a, b), unzip(c, d)].into_iter().enumerate() {
                    places.set(0, 2 * part + i, words[0], mask);
                    places.set(1, 2 * part + i, words[1], mask);
                }
            }
        }
        (_, 8) => {
            let mut places = registers.places([r[0], r[1]], true);
            for part in 0..8 {
                let [a, b, c, d] = line(part);
                for (i, pairs) in [halves(a, b), halves(c, d)].into_iter().enumerate() {
                    places.set(0, 2 * part + i, pairs[0], mask);
                    places.set(1, 2 * part + i, pairs[1], mask);
                }
            }
        }
        _ => {
            let mut places = registers.places([r[0], r[1], r[2], r[3]], false);
            for part in 0..8 {
                for (element, words) in transpose(line(part)).into_iter().enumerate() {
                    places.set(element, part, words, mask);
                }
            }
        }
    }
}

/// As [`put`], the other way: gives what is to lie in memory to `line`. `r` begins with what is stored.
#[inline(always)]
pub(super) fn take<const BYTES: usize>(
    registers: &Registers,
    a: &Access,
    r: &[u32],
    mut line: impl FnMut(usize, Line),
) {
    match (BYTES, a.bytes) {
        (4, _) => {
            let words = words(registers, r[0]);
            for part in 0..2 {
                line(part, four(4 * part, |i| words[i]));
            }
        }
        (8, 8) => {
            let pairs = pairs(registers, r[0]);
            for part in 0..4 {
                line(part, four(4 * part, |i| pairs[i]));
            }
        }
        (8, _) => {
            let (low, high) = (words(registers, r[0]), words(registers, r[1]));
            for part in 0..4 {
                let [a, b] = zip(low[2 * part], high[2 * part]);
                let [c, d] = zip(low[2 * part + 1], high[2 * part + 1]);
                line(part, [a, b, c, d]);
            }
        }
        (_, 8) => {
            let (low, high) = (pairs(registers, r[0]), pairs(registers, r[1]));
            for part in 0..8 {
                let [a, b] = halves(low[2 * part], high[2 * part]);
                let [c, d] = halves(low[2 * part + 1], high[2 * part + 1]);
                line(part, [a, b, c, d]);
            }
        }
        _ => {
            let (a, b) = (words(registers, r[0]), words(registers, r[1]));
            let (c, d) = (words(registers, r[2]), words(registers, r[3]));
            for part in 0..8 {
                line(part, transpose([a[part], b[part], c[part], d[part]]));
            }
        }
    }
}

/// Loads what each lane accesses, from its offset on, for the lanes of a mask.
///
/// # Safety
/// [`is_plain`] holds, the accesses of all 32 lanes are within the memory, and their offsets multiples of their size, or of 8.
#[inline(always)]
pub(super) unsafe fn load<M: Words>(
    registers: &mut Registers,
    memory: M,
    a: &Access,
    r: &[u32],
    mask: u32,
    at: impl Fn(usize) -> u64,
) {
    match a.bytes * a.lanes {
        4 => put::<4>(registers, a, r, mask, |line| {
            // SAFETY: the caller's promise.
            let word = |lane| unsafe { memory.word(at(lane)) };
            four(4 * line, |quad| together(four(4 * quad, word)))
        }),
        8 => put::<8>(registers, a, r, mask, |line| {
            // SAFETY: the caller's promise.
            let pair = |lane| unsafe { memory.pair(at(lane)) };
            four(4 * line, |quad| {
                pairs_together([pair(2 * quad), pair(2 * quad + 1)])
            })
        }),
        _ => put::<16>(registers, a, r, mask, |line| {
            // SAFETY: the caller's promise.
            four(4 * line, |lane| unsafe { memory.quad(at(lane)) })
        }),
    }
}

/// Stores what each lane accesses, from its offset on, in the order of lanes. `r` begins with what is stored.
///
/// # Safety
/// As of [`load`].
#[inline(always)]
pub(super) unsafe fn store<M: SetWords>(
    registers: &Registers,
    memory: M,
    a: &Access,
    r: &[u32],
    at: impl Fn(usize) -> u64,
) {
    match a.bytes * a.lanes {
        4 => {
            for (lane, &word) in registers.r32(r[0]).iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { memory.set_word(at(lane), word) };
            }
        }
        8 => take::<8>(registers, a, r, |line, quads| {
            let pairs: [u64; 8] = bytemuck::cast(quads);
            for (i, pair) in pairs.into_iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { memory.set_pair(at(8 * line + i), pair) };
            }
        }),
        _ => take::<16>(registers, a, r, |line, quads| {
            for (i, quad) in quads.into_iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { memory.set_quad(at(4 * line + i), quad) };
            }
        }),
    }
}

#[cfg(test)]
mod tests;
