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

#[cfg(target_arch = "x86_64")]
use crate::exec::vectorise::has_avx2;
use crate::program::op::{Accumulator, Element, Mma};
use decode::{Decoded, decode, decode_rows};
#[cfg(target_arch = "x86_64")]
use eight::Avx2;
use eight::{Eight, Plain};
use fragment::Tile;
pub(crate) use fragment::{Columns, Rows, columns_k_major, rows};
use model::{FP8_FRACTION, Model};

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
        // SAFETY: the processor has AVX2 and FMA.
        return unsafe { mma_avx2(&unit, a, b, c, d) };
    }
    mma_on::<Plain>(&unit, a, b, c, d);
}

/// `wgmma` of one or more warps, each with 16 rows: `d[16][n] = a[16][k] × b[k][n]`, with `scale_d` added to what is in `d`.
///
/// `a` has an element for each warp; from registers it comes by [`rows`], in shared memory it is 32 bytes of each row. `b`,
/// which the warps share, is taken apart only once; it has n / 8 elements, from [`columns_k_major`] or
/// [`columns_n_major`](fragment::columns_n_major).
/// `d` has, for each warp, the n / 2 registers of its fragment, or n / 4 where accumulators are `f16`.
pub(crate) fn wgmma(
    shape: &Wgmma,
    a: &[Rows],
    b: &[Columns],
    scale_d: bool,
    d: &mut [&mut [[u32; 32]]],
) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the processor has AVX2 and FMA.
        return unsafe { wgmma_avx2(shape, a, b, scale_d, d) };
    }
    wgmma_on::<Plain>(shape, a, b, scale_d, d);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
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
#[target_feature(enable = "avx2,fma")]
fn wgmma_avx2(shape: &Wgmma, a: &[Rows], b: &[Columns], scale_d: bool, d: &mut [&mut [[u32; 32]]]) {
    wgmma_on::<Avx2>(shape, a, b, scale_d, d);
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
    let (a, b, mut tile) = (rows(a), fragment::columns(b), fragment::tile(c));
    match unit.a {
        Element::F16 | Element::Bf16 => unit.multiply::<E, 2>(words, &a, &b, &mut tile),
        Element::Tf32 | Element::F64 => unit.multiply::<E, 1>(words, &a, &b, &mut tile),
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
            for (a, b) in a.iter().zip(&b).take(words / 4) {
                halves.multiply::<E, 2>(8, a, b, &mut tile);
            }
        }
        _ => unit.multiply::<E, 4>(words, &a, &b, &mut tile),
    }
    fragment::store(&tile, d);
}

#[inline(always)]
fn wgmma_on<E: Eight>(
    shape: &Wgmma,
    a: &[Rows],
    b: &[Columns],
    scale_d: bool,
    d: &mut [&mut [[u32; 32]]],
) {
    let unit = Unit {
        model: Model::wgmma(shape),
        a: shape.a,
        b: shape.b,
        saturate: shape.saturate,
    };
    match shape.a {
        Element::F16 | Element::Bf16 => unit.wgmma::<E, 2>(shape, a, b, scale_d, d),
        Element::Tf32 | Element::F64 => unit.wgmma::<E, 1>(shape, a, b, scale_d, d),
        _ => unit.wgmma::<E, 4>(shape, a, b, scale_d, d),
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
        tile: &mut Tile,
    ) {
        let mut a_parts = Decoded::ZERO;
        let mut b_parts = Decoded::ZERO;
        decode_rows::<E, H>(self.a, a, &mut a_parts);
        decode::<E, H, 8>(self.b, b, &mut b_parts);
        self.multiply_parts::<E, H>(words, (a, &a_parts), (b, &b_parts), tile);
    }

    #[inline(always)]
    fn multiply_parts<E: Eight, const H: usize>(
        &self,
        words: usize,
        (a, a_parts): (&Rows, &Decoded<H, 16>),
        (b, b_parts): (&Columns, &Decoded<H, 8>),
        d: &mut Tile,
    ) {
        let slow = |row: usize, first, d: &mut _| self.slow(&a[row], b, first, d);
        if matches!(self.a, Element::S8 | Element::U8) {
            integer::multiply::<E, H>(words, self.saturate, a_parts, b_parts, d);
        } else if self.model.chunk_words == 4 {
            dot::multiply::<E, H, 4>(&self.model, words, a_parts, b_parts, d, slow);
        } else {
            dot::multiply::<E, H, 8>(&self.model, words, a_parts, b_parts, d, slow);
        }
    }

    /// One chunk of one row in plain integers.
    #[cold]
    #[inline(never)]
    fn slow(&self, a: &[u32; 8], b: &Columns, first: usize, d: &mut [u32; 8]) {
        let chunk = first..first + self.model.chunk_words;
        for (column, d) in d.iter_mut().enumerate() {
            let a = a[chunk.clone()].iter().copied();
            let b = b[chunk.clone()].iter().map(|words| words[column]);
            *d = self.model.dot((self.a, self.b), a, b, *d);
        }
    }

    #[inline(always)]
    fn wgmma<E: Eight, const H: usize>(
        &self,
        shape: &Wgmma,
        a: &[Rows],
        b: &[Columns],
        scale_d: bool,
        d: &mut [&mut [[u32; 32]]],
    ) {
        let registers = if shape.accumulator == Accumulator::F16 {
            2
        } else {
            4
        };
        let mut a_parts = vec![(Rows::default(), Decoded::ZERO); a.len()];
        for (rows, (kept, parts)) in a.iter().zip(&mut a_parts) {
            *kept = decode::negate(shape.a, shape.negate_a, rows);
            decode_rows::<E, H>(shape.a, kept, parts);
        }
        let mut b_parts = Decoded::ZERO;
        for (block, b) in b.iter().enumerate() {
            let b = decode::negate(shape.b, shape.negate_b, b);
            decode::<E, H, 8>(shape.b, &b, &mut b_parts);
            let at = block * registers;
            for ((rows, parts), d) in a_parts.iter().zip(d.iter_mut()) {
                let d = &mut d[at..at + registers];
                let mut tile = [[0; 8]; 16];
                if scale_d {
                    tile = fragment::tile(d);
                }
                self.multiply_parts::<E, H>(8, (rows, parts), (&b, &b_parts), &mut tile);
                fragment::store(&tile, d);
            }
        }
    }
}
