//! The fast way through the model, two rows of eight columns at a time, bit for bit what [`Model::dot`] returns.
//!
//! Products of two elements are exact in `f32`. A first pass over K finds each output's largest exponent; a second one scales
//! every product by the power of two that puts the bit to cut at below one, cuts with a conversion to integers, and adds those.
//! The few outputs whose products leave the range of `f32`, or that are not finite, take the slow way.
//!
//! Why it is exact, with e the largest exponent and F at most 25: a product is below 2^(e + 2), or zero, and the accumulator
//! below 2^(e + 1). Scaled by 2^(F - e), a product is below 2^27, so that 16 of them fit an `i32`, and 32 with the F = 13 of FP8.
//! A product too small for a normal `f32` is at most one half after scaling, whatever was rounded away: e is at least -100.

use super::decode::{Decoded, NO_PRODUCT, f16};
use super::eight::Eight;
use super::fragment::Tile;
use super::model::{Model, Output};

/// Largest exponents below this are left to the slow way: the powers of two for them are no normal `f32`.
const LOWEST: i32 = -100;
/// A product with this exponent is below 2^128. Above it are all that are not finite.
const HIGHEST: i32 = 126;

/// `d += a × b` over the first `words` words of K, in chunks of `W` words. `slow(row, first, d)` does one chunk, from word
/// `first` on, of a row.
#[inline(always)]
pub(super) fn multiply<E: Eight, const H: usize, const W: usize>(
    model: &Model,
    words: usize,
    a: &Decoded<H, 16>,
    b: &Decoded<H, 8>,
    d: &mut Tile,
    mut slow: impl FnMut(usize, usize, &mut [u32; 8]),
) {
    for (pair, d) in d.chunks_exact_mut(2).enumerate() {
        let [even, odd] = d else { continue };
        let row = 2 * pair;
        for first in (0..words.min(8)).step_by(W) {
            // Exponents of both rows, in 16 bits each.
            let mut products = E::splat(i32::from(i16::MIN) << 16 | 0x8000);
            for w in first..first + W {
                for h in 0..H {
                    let exponent = E::splat(a.exponents[row][h][w]);
                    let sum = E::add_halves(exponent, E::load(&b.exponents[w][h]));
                    products = E::max_halves(products, sum);
                }
            }
            let even_products = E::sar::<16>(E::shl::<16>(products));
            let (Some(even_scale), Some(odd_scale)) = (
                Scale::<E>::of(model, even_products, even),
                Scale::<E>::of(model, E::sar::<16>(products), odd),
            ) else {
                slow(row, first, even);
                slow(row + 1, first, odd);
                continue;
            };
            let (mut even_sums, mut odd_sums) = (E::splat(0), E::splat(0));
            for w in first..first + W {
                for h in 0..H {
                    let b = E::load_floats(&b.values[w][h]);
                    let product = E::mul(E::splat_float(a.values[row][h][w]), b);
                    even_sums = E::add(even_sums, E::cut(E::mul(product, even_scale.up)));
                    let product = E::mul(E::splat_float(a.values[row + 1][h][w]), b);
                    odd_sums = E::add(odd_sums, E::cut(E::mul(product, odd_scale.up)));
                }
            }
            *even = even_scale.round(model, even_sums);
            *odd = odd_scale.round(model, odd_sums);
        }
    }
}

/// Eight outputs between the passes.
struct Scale<E: Eight> {
    /// 2^(F - largest exponent), or less where there is nothing to scale.
    up: E::Float,
    /// The inverse.
    down: E::Float,
    value: E::Float,
    /// The accumulators' bits.
    bits: E::Int,
    /// Mask of outputs whose products are all zero.
    is_alone: E::Int,
}

impl<E: Eight> Scale<E> {
    /// `products`: the largest exponents without the accumulators'. `None` where one of the outputs has to take the slow way.
    #[inline(always)]
    fn of(model: &Model, products: E::Int, accumulators: &[u32; 8]) -> Option<Self> {
        let bits = E::load_words(accumulators);
        let (value, exponent) = match model.output {
            // Zeros, subnormals, and with them the exponent of zero, are below `LOWEST`; what is not finite is above `HIGHEST`.
            Output::F32 | Output::E8M13 => {
                let field = E::and(E::shr::<23>(bits), E::splat(255));
                (E::from_bits(bits), E::sub(field, E::splat(127)))
            }
            Output::F16 => {
                let (value, exponent) = f16::<E>(bits);
                (value, E::max(exponent, E::splat(model.zero_exponent)))
            }
        };
        let largest = E::max(products, exponent);
        let is_alone = E::greater(E::splat(NO_PRODUCT), products);
        // A tiny accumulator without products is no trouble: see `round`.
        let is_tiny = E::greater(E::splat(LOWEST), largest);
        let has_product = E::greater(products, E::splat(NO_PRODUCT));
        let is_huge = E::greater(largest, E::splat(HIGHEST));
        if E::any(E::or(is_huge, E::and(is_tiny, has_product))) {
            return None;
        }
        let up = E::min(E::sub(E::splat(model.fraction), largest), E::splat(126));
        Some(Self {
            up: E::from_bits(E::shl::<23>(E::add(E::splat(127), up))),
            down: E::from_bits(E::shl::<23>(E::sub(E::splat(127), up))),
            value,
            bits,
            is_alone,
        })
    }

    /// The new accumulators, with the integer `sums` of the products.
    #[inline(always)]
    fn round(&self, model: &Model, sums: E::Int) -> [u32; 8] {
        let accumulator = E::cut(E::mul(self.value, self.up));
        if model.output == Output::F16 {
            let odd = E::mul(E::sum::<true>(sums, accumulator), self.down);
            return bytemuck::cast(narrow::<E>(odd));
        }
        // The sum is zero or a normal number where there are products, so that scaling does not round. Without any, the
        // accumulator stays, even where it is too small to be scaled.
        let sum = E::bits(E::mul(E::sum::<false>(sums, accumulator), self.down));
        let mut bits = E::select(self.is_alone, self.bits, sum);
        if model.output == Output::E8M13 {
            bits = E::and(bits, E::splat(!0x3ff));
        }
        // No result is -0.
        let result = E::add_float(E::from_bits(bits), E::splat_float(0.0));
        bytemuck::cast(result)
    }
}

/// `f32` to the bits of `f16`, to nearest even; what rounds to zero is never -0.
#[inline(always)]
fn narrow<E: Eight>(value: E::Float) -> E::Int {
    let bits = E::bits(value);
    let sign = E::and(E::shr::<16>(bits), E::splat(0x8000));
    let magnitude = E::and(bits, E::splat(i32::MAX));
    // Normal numbers: half of the last place is added to the bits, less one where the last bit is even. Below them, the
    // addition of one half aligns and rounds.
    let odd = E::and(E::shr::<13>(magnitude), E::splat(1));
    let rounded = E::add(E::add(magnitude, odd), E::splat(0xfff - 0x3800_0000));
    let aligned = E::add_float(E::from_bits(magnitude), E::splat_float(0.5));
    let finite = E::select(
        E::greater(E::splat(0x3880_0000), magnitude),
        E::sub(E::bits(aligned), E::splat(0x3f00_0000)),
        E::shr::<13>(rounded),
    );
    let is_infinite = E::greater(magnitude, E::splat(0x477f_ffff));
    let result = E::select(is_infinite, E::splat(0x7c00), finite);
    let is_zero = E::equal(result, E::splat(0));
    E::select(is_zero, result, E::or(result, sign))
}
