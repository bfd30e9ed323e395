//! The fast way through the model, two rows of eight columns at a time, bit for bit what [`Model::dot`] returns.
//!
//! Products of two elements are exact in `f32`. A first pass over K finds each output's largest exponent; a second one scales
//! every product by the power of two that puts the bit to cut at below one, cuts with a conversion to integers, and adds those.
//!
//! Why it is exact, with e the largest exponent and F at most 25: a product is below 2^(e + 2), or zero, and the accumulator
//! below 2^(e + 1). Scaled by 2^(F - e), a product is below 2^27, so that 16 of them fit an `i32`, and 32 with the F = 13 of FP8.
//! A product too small for a normal `f32` is at most one half after scaling, whatever was rounded away: e is at least -100.
//!
//! Nothing is checked on the way where both operands are tame, as [`decode`](super::decode) says, and what the accumulators
//! were is looked at once for all: m16n8k16 of bf16 on one core (EPYC, Zen 3) went from 8.3 to 14.1 GFLOP/s with Hopper's chunks
//! and from 6.2 to 12.7 with Ampere's. Only tiles that fail are computed again, with a check for every output: those that are not
//! finite are known without their sum, and those out of `f32`'s range take the slow way.

use super::decode::{ColumnParts, RowParts, largest_sum};
use super::eight::Eight;
use super::fragment::{self, Accumulators};
use super::model::{Model, Output};

/// In this module exponents are fields of `f32`, 127 more than what they stand for.
const fn field(exponent: i32) -> i32 {
    exponent + 127
}

/// Largest exponents below this are left to the slow way: the powers of two for them are no normal `f32`.
const LOWEST: i32 = field(-100);
/// A product with this exponent is below 2^128. Above it are all that are not finite.
const HIGHEST: i32 = field(126);
/// Accumulators below 2^120 stay far from the largest `f32` with tame products added.
const TAME: i32 = field(120) << 23;
/// Sums of products up to this do not overflow with an accumulator, which is below 2^26, added.
const FITS: i32 = i32::MAX - (1 << 26);

pub(super) const F32: u8 = Output::F32 as u8;
pub(super) const E8M13: u8 = Output::E8M13 as u8;
pub(super) const F16: u8 = Output::F16 as u8;

/// What to multiply.
pub(super) struct Task<'a, const H: usize> {
    pub(super) model: &'a Model,
    /// Words of K that are there; those of a chunk that are not have to be zero.
    pub(super) words: usize,
    pub(super) a: &'a RowParts<H>,
    pub(super) b: &'a ColumnParts<H>,
    /// What is to be added to the sum of two fields to make it that of their product.
    pub(super) product_bias: i32,
}

/// One chunk of one output the slow way: row, lane, the first of the words and the accumulator.
pub(super) trait Slow {
    fn dot(&self, row: usize, lane: usize, first: usize, accumulator: u32) -> u32;
}

/// What became of a tile that no output was checked in.
struct Seen<E: Eight> {
    /// Largest magnitude of an accumulator, as bits.
    accumulator: E::Int,
    /// Largest magnitude of a sum without its accumulator.
    sum: E::Int,
}

/// `d = c + a × b` in chunks of `W` words. Arrays always go the checked way, which is half of their machine code.
#[inline(always)]
pub(super) fn multiply<E: Eight, const H: usize, const W: usize, const OUTPUT: u8>(
    task: &Task<'_, H>,
    is_tame: bool,
    c: &Accumulators<'_>,
    d: &mut [[u32; 32]],
    slow: &impl Slow,
) {
    if E::IS_FAST && is_tame && tile::<E, H, W, OUTPUT, false>(task, c, d, slow) {
        return;
    }
    tile::<E, H, W, OUTPUT, true>(task, c, d, slow);
}

/// Returns whether the results are right, which those of `CHECKED` always are.
#[inline(always)]
fn tile<E: Eight, const H: usize, const W: usize, const OUTPUT: u8, const CHECKED: bool>(
    task: &Task<'_, H>,
    c: &Accumulators<'_>,
    d: &mut [[u32; 32]],
    slow: &impl Slow,
) -> bool {
    let mut seen = Seen::<E> {
        accumulator: E::splat(0),
        sum: E::splat(0),
    };
    for row in (0..16).step_by(2) {
        let rows = [row, row + 1];
        // No closures here nor below: one that is not inlined is not compiled for AVX2 either, and all was 40 times slower.
        let mut values = [load::<E, OUTPUT>(c, rows[0]), load::<E, OUTPUT>(c, rows[1])];
        for first in (0..task.words.min(8)).step_by(W) {
            values = chunk::<E, H, W, OUTPUT, CHECKED>(task, rows, first, values, &mut seen, slow);
        }
        for i in 0..2 {
            if OUTPUT == F16 {
                fragment::store_pairs::<E>(d, rows[i], values[i]);
            } else {
                fragment::store_row::<E>(d, rows[i], E::bits(values[i]));
            }
        }
    }
    CHECKED
        || !E::any(E::or(
            E::greater(seen.accumulator, E::splat(TAME)),
            E::greater(seen.sum, E::splat(FITS)),
        ))
}

/// The values of a row's accumulators.
#[inline(always)]
fn load<E: Eight, const OUTPUT: u8>(c: &Accumulators<'_>, row: usize) -> E::Float {
    if OUTPUT == F16 {
        return fragment::row_of_pairs::<E>(c, row);
    }
    // No result is -0, not even where all products are zero.
    let value = E::from_bits(fragment::row::<E>(c, row));
    E::add_float(value, E::splat_float(0.0))
}

/// The values of two rows' accumulators after a chunk.
#[inline(always)]
fn chunk<E: Eight, const H: usize, const W: usize, const OUTPUT: u8, const CHECKED: bool>(
    task: &Task<'_, H>,
    rows: [usize; 2],
    first: usize,
    before: [E::Float; 2],
    seen: &mut Seen<E>,
    slow: &impl Slow,
) -> [E::Float; 2] {
    let even = largest_products::<E, H, W>(task, rows[0], first);
    let odd = largest_products::<E, H, W>(task, rows[1], first);
    let scales = [
        Scale::<E>::of::<H, OUTPUT>(task, even, before[0]),
        Scale::<E>::of::<H, OUTPUT>(task, odd, before[1]),
    ];
    if !CHECKED && (OUTPUT == F16 || first == 0) {
        let largest = E::max(scales[0].magnitude, scales[1].magnitude);
        seen.accumulator = E::max(seen.accumulator, largest);
    }
    let [even_up, odd_up] = [scales[0].up, scales[1].up];
    let (mut even_sums, mut odd_sums) = (E::splat(0), E::splat(0));
    for w in first..first + W {
        for h in 0..H {
            let b = E::load_floats(&task.b.values[w][h]);
            let product = E::mul(E::splat_float(task.a.values[rows[0]][h][w]), b);
            even_sums = E::add(even_sums, E::cut(E::mul(product, even_up)));
            let product = E::mul(E::splat_float(task.a.values[rows[1]][h][w]), b);
            odd_sums = E::add(odd_sums, E::cut(E::mul(product, odd_up)));
        }
    }
    let sums = [even_sums, odd_sums];
    let mut after = before;
    for i in 0..2 {
        // With F = 25 and 16 products the accumulator may be one too many.
        if H == 2 && W == 8 {
            seen.sum = E::max(seen.sum, E::abs(sums[i]));
        }
        after[i] = scales[i].round::<OUTPUT>(before[i], sums[i]);
        if CHECKED {
            let mut wrong = scales[i].wrong::<H, OUTPUT>();
            if H == 2 && W == 8 {
                let is_full = E::greater(E::abs(sums[i]), E::splat(FITS));
                wrong = E::or(wrong, is_full);
            }
            if E::any(wrong) {
                let repair = Repair {
                    row: rows[i],
                    first,
                };
                after[i] = repair.run::<E, H, W, OUTPUT>(task, wrong, before[i], after[i], slow);
            }
        }
    }
    after
}

/// The largest sums of two elements' fields.
#[inline(always)]
fn largest_products<E: Eight, const H: usize, const W: usize>(
    task: &Task<'_, H>,
    row: usize,
    first: usize,
) -> E::Int {
    if H == 4 {
        let mut largest = E::splat_bytes(i8::MIN);
        for w in first..first + W {
            let a = E::splat(task.a.exponents[row][w]);
            let sum = E::add_bytes(a, E::load(&task.b.exponents[w]));
            largest = E::max_bytes(largest, sum);
        }
        let largest = E::max_bytes(largest, E::shl::<16>(largest));
        let largest = E::max_bytes(largest, E::shl::<8>(largest));
        return E::sar::<24>(largest);
    }
    let mut largest = E::splat_halves(i16::MIN);
    for w in (first..first + W).step_by(if H == 1 { 2 } else { 1 }) {
        let a = E::splat(task.a.exponents[row][w]);
        let sum = E::add_halves(a, E::load(&task.b.exponents[w]));
        largest = E::max_halves(largest, sum);
    }
    E::sar::<16>(E::max_halves(largest, E::shl::<16>(largest)))
}

/// Eight outputs between the passes.
struct Scale<E: Eight> {
    /// The largest sum of fields, negative where all products are zero.
    sums: E::Int,
    /// The largest exponent, that of the accumulator included.
    largest: E::Int,
    /// The accumulators' bits without the sign, as `f32`.
    magnitude: E::Int,
    /// 2^(F - largest exponent).
    up: E::Float,
    /// The inverse.
    down: E::Float,
}

impl<E: Eight> Scale<E> {
    #[inline(always)]
    fn of<const H: usize, const OUTPUT: u8>(
        task: &Task<'_, H>,
        sums: E::Int,
        before: E::Float,
    ) -> Self {
        let magnitude = E::and(E::bits(before), E::splat(i32::MAX));
        let field_of = E::shr::<23>(magnitude);
        let (accumulator, lowest) = if OUTPUT == F16 {
            // Subnormal `f16` have the exponent of the smallest normal ones, and zero has its own.
            let smallest = E::and(E::greater(magnitude, E::splat(0)), E::splat(field(-14)));
            (E::max(field_of, smallest), field(task.model.zero_exponent))
        } else {
            // Zeros, subnormals, and with them the exponent of zero, are below `LOWEST`.
            (field_of, LOWEST)
        };
        let products = E::add(sums, E::splat(task.product_bias));
        let largest = E::max(products, accumulator);
        let kept = E::max(largest, E::splat(lowest));
        let up = E::shl::<23>(E::sub(E::splat(254 + task.model.fraction), kept));
        Self {
            sums,
            largest,
            magnitude,
            up: E::from_bits(up),
            down: E::from_bits(E::sub(E::splat(254 << 23), up)),
        }
    }

    /// The new accumulators, with the integer `sums` of the products.
    #[inline(always)]
    fn round<const OUTPUT: u8>(&self, before: E::Float, sums: E::Int) -> E::Float {
        let sum = E::add(sums, E::cut(E::mul(before, self.up)));
        let magnitude = E::abs(sum);
        // Integers of 24 bits are exact in `f32`. Of longer ones, so much is cleared or noted first that the conversion rounds in
        // the right direction. (By way of `f64` it takes 13 instructions for eight outputs, where `F32` takes 6.)
        let exact = match OUTPUT {
            // F = 13: there are no longer ones.
            E8M13 => sum,
            // Toward zero: without the highest of the bits to be cut off, what is left of them is below one half.
            F32 => E::sign(E::without(magnitude, E::shr::<24>(magnitude)), sum),
            // The second rounding has to see whether anything is below the bits that it looks at.
            _ => {
                let low = E::and(magnitude, E::splat(0xff));
                let sticky = E::and(E::add(low, E::splat(0xff)), E::splat(0x100));
                let short = E::or(E::without(magnitude, E::splat(0xff)), sticky);
                let is_long = E::greater(magnitude, E::splat(0xff_ffff));
                E::sign(E::select(is_long, short, magnitude), sum)
            }
        };
        // The value is zero or a normal number, so that scaling does not round; from 2^128 on it is infinity.
        let value = E::mul(E::float(exact), self.down);
        // Without products the accumulator stays, even where it is too small to be scaled.
        match OUTPUT {
            // No result is -0, neither a small number that loses all its bits.
            F16 => E::add_float(E::f16_round(value), E::splat_float(0.0)),
            E8M13 => {
                let value = E::select_negative(self.sums, before, value);
                let kept = E::from_bits(E::without(E::bits(value), E::splat(0x3ff)));
                E::add_float(kept, E::splat_float(0.0))
            }
            _ => E::select_negative(self.sums, before, value),
        }
    }

    /// The outputs that [`round`](Self::round) does not give, for they are not finite or leave the range of `f32` on the way.
    #[inline(always)]
    fn wrong<const H: usize, const OUTPUT: u8>(&self) -> E::Int {
        let is_huge = E::greater(self.largest, E::splat(HIGHEST));
        let is_special = E::greater(self.sums, E::splat(largest_sum(H)));
        let wrong = E::or(is_huge, is_special);
        if OUTPUT == F16 {
            return wrong;
        }
        let is_tiny = E::greater(E::splat(LOWEST), self.largest);
        let has_product = E::greater(self.sums, E::splat(-1));
        E::or(wrong, E::and(is_tiny, has_product))
    }
}

/// Outputs of one row and chunk that went wrong.
struct Repair {
    row: usize,
    first: usize,
}

impl Repair {
    /// Puts right what is marked.
    #[inline(always)]
    fn run<E: Eight, const H: usize, const W: usize, const OUTPUT: u8>(
        &self,
        task: &Task<'_, H>,
        wrong: E::Int,
        before: E::Float,
        after: E::Float,
        slow: &impl Slow,
    ) -> E::Float {
        // Whatever their size, the sum is infinite or NaN as it is with finite numbers replaced by 1 and -1.
        let mut signs = sign_of::<E>(before);
        for w in self.first..self.first + W {
            for h in 0..H {
                let a = sign_of::<E>(E::splat_float(task.a.values[self.row][h][w]));
                let b = sign_of::<E>(E::load_floats(&task.b.values[w][h]));
                signs = E::add_float(signs, E::mul(a, b));
            }
        }
        let infinity = E::splat(0x7f80_0000);
        let magnitude = E::and(E::bits(signs), E::splat(i32::MAX));
        let is_nan = E::greater(magnitude, infinity);
        let special = E::select(is_nan, E::splat(i32::MAX), E::bits(signs));
        let is_special = E::greater(magnitude, E::splat(0x7f7f_ffff));
        let after = E::select(is_special, special, E::bits(after));
        let still_wrong = E::select(is_special, E::splat(0), wrong);
        if !E::any(still_wrong) {
            return E::from_bits(after);
        }
        let still_wrong: [i32; 8] = bytemuck::cast(still_wrong);
        let lanes = (0..8).filter(|lane| still_wrong[*lane] != 0);
        if OUTPUT == F16 {
            let before = E::f16_split(before);
            let mut pairs = E::f16_split(E::from_bits(after));
            for lane in lanes {
                let (pair, shift) = (lane % 4, 16 * (lane / 4));
                let accumulator = before[pair] >> shift & 0xffff;
                let value = slow.dot(self.row, lane, self.first, accumulator);
                pairs[pair] = pairs[pair] & !(0xffff << shift) | value << shift;
            }
            return E::f16_join(&pairs);
        }
        let before: [u32; 8] = bytemuck::cast(before);
        let mut values: [u32; 8] = bytemuck::cast(after);
        for lane in lanes {
            values[lane] = slow.dot(self.row, lane, self.first, before[lane]);
        }
        E::from_bits(E::load_words(&values))
    }
}

/// 1 or -1 for finite numbers but zero; the others stay.
#[inline(always)]
fn sign_of<E: Eight>(value: E::Float) -> E::Float {
    let bits = E::bits(value);
    let magnitude = E::and(bits, E::splat(i32::MAX));
    let is_zero = E::equal(magnitude, E::splat(0));
    let is_special = E::greater(magnitude, E::splat(0x7f7f_ffff));
    let one = E::or(E::splat(0x3f80_0000), E::without(bits, E::splat(i32::MAX)));
    E::from_bits(E::select(E::or(is_zero, is_special), bits, one))
}
