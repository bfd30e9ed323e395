//! The arithmetic of tensor cores: `mma.sync` and `wgmma`, bit for bit. Pure functions; operands are read and results are
//! written by the caller.
//!
//! [`Model`] says what the hardware computes and has it in plain integers; `dot` is the fast way to the same bits, and
//! `fragment` knows where registers keep a matrix. The three see operands as 32-bit words along K, whatever is packed in them:
//! `mma` has 16 rows of four or eight words, `wgmma` always eight.
//!
//! **Invariant:** the result depends on neither the host's processor nor on which of the two ways an output took.

mod decode;
mod dot;
mod eight;
pub(crate) mod fragment;
mod integer;
mod model;
#[cfg(test)]
mod tests;

use crate::program::op::{Accumulator, Element, Mma};
use decode::{ColumnParts, RowParts, decode};
use dot::{E8M13, F16, F32, Task};
#[cfg(target_arch = "x86_64")]
use eight::{Avx2, has_avx2};
use eight::{Eight, Plain};
use fragment::Accumulators;
pub(crate) use fragment::{Columns, Rows, columns_k_major, rows};
use model::{FP8_FRACTION, Model, Output};
use std::mem::MaybeUninit;

/// Whose tensor cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Generation {
    Ampere,
    Ada,
    Hopper,
}

impl Generation {
    /// Of a device with this compute capability. Newer ones count as Hopper, whose `mma` Blackwell shares.
    pub(crate) fn of(compute_capability: (u32, u32)) -> Self {
        match compute_capability {
            (9.., _) => Self::Hopper,
            (8, 9) => Self::Ada,
            _ => Self::Ampere,
        }
    }
}

/// `wgmma.mma_async`: m64, and K as long as 32 bytes of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wgmma {
    /// 8 to 256, in steps of 8.
    pub(crate) n: u16,
    /// 8 for TF32, 16 for 16-bit and 32 for 8-bit elements.
    pub(crate) k: u16,
    pub(crate) a: Element,
    pub(crate) b: Element,
    pub(crate) accumulator: Accumulator,
    /// `imm-scale-a` is -1.
    pub(crate) negate_a: bool,
    pub(crate) negate_b: bool,
    /// `.satfinite` of the integer forms.
    pub(crate) saturate: bool,
}

/// The arithmetic of one instruction.
#[derive(Debug)]
struct Unit {
    model: Model,
    a: Element,
    b: Element,
    /// Of the integer forms: sums stop at the ends of `s32` instead of wrapping.
    saturate: bool,
}

/// `mma.sync` of a warp: `d[16][8] = a[16][k] × b[k][8] + c[16][8]`, all in the registers of their fragments.
///
/// A has two or four registers, B half as many, C and D have four, or two where accumulators are `f16`.
pub(crate) fn mma(
    generation: Generation,
    mma: &Mma,
    a: &[&[u32; 32]],
    b: &[&[u32; 32]],
    c: &[&[u32; 32]],
    d: &mut [[u32; 32]],
) {
    let unit = Unit::mma(generation, mma);
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the processor has AVX2 and F16C.
        return unsafe { mma_avx2(&unit, a, b, c, d) };
    }
    mma_on::<Plain>(&unit, a, b, c, d);
}

/// What a warp has of a `wgmma`.
pub(crate) struct Tile<'a> {
    /// Its 16 rows; from registers they come by [`rows`], in shared memory they are 32 bytes each.
    pub(crate) a: &'a Rows,
    pub(crate) registers: &'a mut [[u32; 32]],
    /// Which of the registers are D's: n / 2 of them, or n / 4 where accumulators are `f16`.
    pub(crate) accumulators: &'a [u32],
    /// Lanes that are written.
    pub(crate) mask: u32,
}

impl Tile<'_> {
    /// What up to four registers of D hold, from the one with number `first` on. No closures here: see [`dot`].
    #[inline(always)]
    fn load(&self, first: usize, count: usize, before: &mut [[u32; 32]; 4]) {
        for (before, &row) in before.iter_mut().zip(&self.accumulators[first..][..count]) {
            *before = self.registers[row as usize];
        }
    }

    #[inline(always)]
    fn store(&mut self, first: usize, after: &[[u32; 32]]) {
        for (after, &row) in after.iter().zip(&self.accumulators[first..]) {
            let register = &mut self.registers[row as usize];
            if self.mask == u32::MAX {
                *register = *after;
                continue;
            }
            for lane in 0..32 {
                if self.mask >> lane & 1 == 1 {
                    register[lane] = after[lane];
                }
            }
        }
    }
}

/// Warps of a `wgmma` whose rows are taken apart before its columns are: a warpgroup.
const WARPS: usize = 4;

/// `wgmma` of one or more warps, each with 16 rows: `d[16][n] = a[16][k] × b[k][n]`, with `scale_d` added to what is in `d`.
///
/// `b`, which the warps share, is taken apart only once; it has n / 8 elements, from [`columns_k_major`] or
/// [`columns_n_major`](fragment::columns_n_major).
pub(crate) fn wgmma(shape: &Wgmma, b: &[Columns], scale_d: bool, tiles: &mut [Tile<'_>]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the processor has AVX2 and F16C.
        return unsafe { wgmma_avx2(shape, b, scale_d, tiles) };
    }
    wgmma_on::<Plain>(shape, b, scale_d, tiles);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn mma_avx2(
    unit: &Unit,
    a: &[&[u32; 32]],
    b: &[&[u32; 32]],
    c: &[&[u32; 32]],
    d: &mut [[u32; 32]],
) {
    mma_on::<Avx2>(unit, a, b, c, d);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn wgmma_avx2(shape: &Wgmma, b: &[Columns], scale_d: bool, tiles: &mut [Tile<'_>]) {
    wgmma_on::<Avx2>(shape, b, scale_d, tiles);
}

#[inline(always)]
fn mma_on<E: Eight>(
    unit: &Unit,
    a: &[&[u32; 32]],
    b: &[&[u32; 32]],
    c: &[&[u32; 32]],
    d: &mut [[u32; 32]],
) {
    let words = 2 * a.len();
    let (a, b) = (fragment::rows_on::<E>(a), fragment::columns::<E>(b));
    let c = fragment::accumulators(c);
    match unit.a {
        Element::F16 | Element::Bf16 => unit.multiply::<E, 2>(words, &a, &b, &c, d),
        Element::Tf32 | Element::F64 => unit.multiply::<E, 1>(words, &a, &b, &c, d),
        Element::S8 | Element::U8 => unit.multiply_integers::<E>(&a, &b, &c, d),
        // Not covered by MMA-Sim: only Ada has FP8 in `mma`; Hopper compiles it to conversions to f16, which are exact, and
        // two f16 `mma` of half of K.
        Element::E4m3 | Element::E5m2 if unit.model.fraction != FP8_FRACTION => {
            let halves = Unit {
                a: Element::F16,
                b: Element::F16,
                ..*unit
            };
            let a = decode::widen_rows(unit.a, &a);
            let b = decode::widen_columns(unit.b, &b);
            halves.multiply::<E, 2>(8, &a[0], &b[0], &c, d);
            if words > 4 {
                let mut first = [[0; 32]; 4];
                first[..d.len()].copy_from_slice(d);
                halves.multiply::<E, 2>(8, &a[1], &b[1], &first.each_ref(), d);
            }
        }
        Element::E4m3 | Element::E5m2 => unit.multiply::<E, 4>(words, &a, &b, &c, d),
    }
}

#[inline(always)]
fn wgmma_on<E: Eight>(shape: &Wgmma, b: &[Columns], scale_d: bool, tiles: &mut [Tile<'_>]) {
    let unit = Unit {
        model: Model::wgmma(shape),
        a: shape.a,
        b: shape.b,
        saturate: shape.saturate,
    };
    match shape.a {
        Element::F16 | Element::Bf16 => unit.wgmma::<E, 2>(shape, b, scale_d, tiles),
        Element::Tf32 | Element::F64 => unit.wgmma::<E, 1>(shape, b, scale_d, tiles),
        Element::S8 | Element::U8 => unit.wgmma_integers::<E>(b, scale_d, tiles),
        Element::E4m3 | Element::E5m2 => unit.wgmma::<E, 4>(shape, b, scale_d, tiles),
    }
}

impl Unit {
    fn mma(generation: Generation, mma: &Mma) -> Self {
        Self {
            model: Model::mma(generation, mma),
            a: mma.a,
            b: mma.b,
            saturate: mma.satfinite,
        }
    }

    #[inline(always)]
    fn multiply<E: Eight, const H: usize>(
        &self,
        words: usize,
        a: &Rows,
        b: &Columns,
        c: &Accumulators<'_>,
        d: &mut [[u32; 32]],
    ) {
        let (mut a_parts, mut b_parts) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        let a_parts = decode::<E, H, 16>(self.a, a, &mut a_parts);
        let b_parts = decode::<E, H, 8>(self.b, b, &mut b_parts);
        self.multiply_parts::<E, H>(words, (a, a_parts), (b, b_parts), c, d);
    }

    #[inline(always)]
    fn multiply_parts<E: Eight, const H: usize>(
        &self,
        words: usize,
        (a, (a_parts, a_is_tame)): (&Rows, (&RowParts<H>, bool)),
        (b, (b_parts, b_is_tame)): (&Columns, (&ColumnParts<H>, bool)),
        c: &Accumulators<'_>,
        d: &mut [[u32; 32]],
    ) {
        let task = Task {
            model: &self.model,
            words,
            a: a_parts,
            b: b_parts,
            product_bias: 127 - decode::bias(self.a) - decode::bias(self.b),
        };
        let is_tame = a_is_tame && b_is_tame;
        let slow = Slow { unit: self, a, b };
        // The guards leave out what no unit computes.
        match (self.model.output, self.model.chunk_words) {
            (Output::F16, 4) if H > 1 => dot::multiply::<E, H, 4, F16>(&task, is_tame, c, d, &slow),
            (Output::F16, _) if H > 1 => dot::multiply::<E, H, 8, F16>(&task, is_tame, c, d, &slow),
            (Output::E8M13, 4) if H == 4 => {
                dot::multiply::<E, H, 4, E8M13>(&task, is_tame, c, d, &slow);
            }
            (Output::E8M13, _) if H == 4 => {
                dot::multiply::<E, H, 8, E8M13>(&task, is_tame, c, d, &slow);
            }
            (_, 4) => dot::multiply::<E, H, 4, F32>(&task, is_tame, c, d, &slow),
            _ => dot::multiply::<E, H, 8, F32>(&task, is_tame, c, d, &slow),
        }
    }

    #[inline(always)]
    fn multiply_integers<E: Eight>(
        &self,
        a: &Rows,
        b: &Columns,
        c: &Accumulators<'_>,
        d: &mut [[u32; 32]],
    ) {
        let (a, b) = ((a, self.a == Element::S8), (b, self.b == Element::S8));
        integer::multiply::<E>(self.saturate, a, b, c, d);
    }

    #[inline(always)]
    fn wgmma_integers<E: Eight>(&self, b: &[Columns], scale_d: bool, tiles: &mut [Tile<'_>]) {
        for tile in tiles {
            let a = tile.a;
            for (block, b) in b.iter().enumerate() {
                let (mut before, mut after) = ([[0; 32]; 4], [[0; 32]; 4]);
                if scale_d {
                    tile.load(4 * block, 4, &mut before);
                }
                self.multiply_integers::<E>(a, b, &before.each_ref(), &mut after);
                tile.store(4 * block, &after);
            }
        }
    }

    #[inline(always)]
    fn wgmma<E: Eight, const H: usize>(
        &self,
        shape: &Wgmma,
        b: &[Columns],
        scale_d: bool,
        tiles: &mut [Tile<'_>],
    ) {
        let registers = if shape.accumulator == Accumulator::F16 {
            2
        } else {
            4
        };
        for tiles in tiles.chunks_mut(WARPS) {
            let mut buffers = [const { ([[0; 8]; 16], MaybeUninit::uninit()) }; WARPS];
            let mut a_parts = [None; WARPS];
            for ((tile, (rows, buffer)), parts) in tiles.iter().zip(&mut buffers).zip(&mut a_parts)
            {
                *rows = decode::negate(shape.a, shape.negate_a, tile.a);
                *parts = Some((&*rows, decode::<E, H, 16>(shape.a, rows, buffer)));
            }
            for (block, b) in b.iter().enumerate() {
                let b = decode::negate(shape.b, shape.negate_b, b);
                let mut b_parts = MaybeUninit::uninit();
                let b_parts = decode::<E, H, 8>(shape.b, &b, &mut b_parts);
                for (tile, a) in tiles.iter_mut().zip(&a_parts) {
                    let Some(a) = *a else { continue };
                    let (mut before, mut after) = ([[0; 32]; 4], [[0; 32]; 4]);
                    let mut c = fragment::ZEROS;
                    if scale_d {
                        tile.load(registers * block, registers, &mut before);
                        c = before.each_ref();
                    }
                    let d = &mut after[..registers];
                    self.multiply_parts::<E, H>(8, a, (&b, b_parts), &c, d);
                    tile.store(registers * block, d);
                }
            }
        }
    }
}

/// Both operands as they came, for the model.
struct Slow<'a> {
    unit: &'a Unit,
    a: &'a Rows,
    b: &'a Columns,
}

impl dot::Slow for Slow<'_> {
    #[cold]
    #[inline(never)]
    fn dot(&self, row: usize, lane: usize, first: usize, accumulator: u32) -> u32 {
        let Unit { model, a, b, .. } = self.unit;
        let chunk = first..first + model.chunk_words;
        let row = self.a[row][chunk.clone()].iter().copied();
        let column = self.b[chunk].iter().map(|words| words[lane]);
        model.dot((*a, *b), row, column, accumulator)
    }
}
