//! The model of a tensor core, and its plain implementation: the slow path, and what the fast one is tested against.
//!
//! A tensor core is no chain of IEEE additions. It cuts K into chunks; the sum of one is the accumulator of the next. In a
//! chunk, every product and the accumulator is cut off at a bit that the term with the largest exponent decides; the rest is
//! added exactly and rounded once. Source of the model and its constants: MMA-Sim (<https://github.com/microsoft/MMA-Sim>,
//! arXiv 2511.10909), version 2.1.1.

use super::{Generation, Wgmma};
use crate::arith::Round;
use crate::arith::format::{BF16, E4M3, E5M2, F16, F32, Format, Number, TF32};
use crate::program::op::{Accumulator, Element, Mma};

/// How a sum becomes an accumulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// Toward zero; from 2^128 on, infinity.
    F32,
    /// An `f32` of which only 13 bits of fraction are kept; as `F32` otherwise.
    E8M13,
    /// To nearest even.
    F16,
}

/// What tells one tensor core's sums from another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Model {
    /// Bits that a term keeps below the largest exponent (F).
    pub(super) fraction: i32,
    /// 32-bit words of A's rows and B's columns in one chunk (L): 4 or 8.
    pub(super) chunk_words: usize,
    /// Exponent of a term that is zero.
    pub(super) zero_exponent: i32,
    pub(super) output: Output,
}

/// Bits that FP8 units keep (F), which tells them from units that compute in `f16`.
pub(super) const FP8_FRACTION: i32 = 13;

/// `f32` with 13 bits of fraction.
const E8M13: Format = Format {
    fraction: 13,
    shift: 10,
    ..F32
};

impl Model {
    pub(super) fn mma(generation: Generation, mma: &Mma) -> Self {
        match generation {
            Generation::Ada if is_fp8(mma.a) => {
                Self::new(FP8_FRACTION, 4, 24, true, mma.accumulator)
            }
            Generation::Ampere | Generation::Ada => Self::new(24, 4, 24, false, mma.accumulator),
            Generation::Hopper => Self::new(25, 8, 25, false, mma.accumulator),
        }
    }

    pub(super) fn wgmma(shape: &Wgmma) -> Self {
        let is_short = is_fp8(shape.a);
        let fraction = if is_short { FP8_FRACTION } else { 25 };
        Self::new(fraction, 8, 25, is_short, shape.accumulator)
    }

    /// `unit`: the fraction bits of the unit's wider formats, on which the exponent of zero depends.
    fn new(
        fraction: i32,
        chunk_words: usize,
        unit: i32,
        is_short: bool,
        accumulator: Accumulator,
    ) -> Self {
        let output = match accumulator {
            Accumulator::F16 => Output::F16,
            _ if is_short => Output::E8M13,
            _ => Output::F32,
        };
        let zero_exponent = match output {
            Output::F16 => 4 - unit,
            Output::F32 | Output::E8M13 => -108 - unit,
        };
        Self {
            fraction,
            chunk_words,
            zero_exponent,
            output,
        }
    }

    /// One output of one chunk: `c` plus the products of `a` and `b`, words of packed elements.
    pub(super) fn dot(
        &self,
        elements: (Element, Element),
        a: impl Iterator<Item = u32>,
        b: impl Iterator<Item = u32>,
        c: u32,
    ) -> u32 {
        let mut terms = Terms::new();
        for (a, b) in a.zip(b) {
            for (a, b) in unpack(elements.0, a).zip(unpack(elements.1, b)) {
                terms.product(a, b);
            }
        }
        let format = match self.output {
            Output::F32 | Output::E8M13 => F32,
            Output::F16 => F16,
        };
        terms.accumulator(Operand::of(&format, c));
        terms.sum(self)
    }
}

fn is_fp8(element: Element) -> bool {
    matches!(element, Element::E4m3 | Element::E5m2)
}

/// A number and the exponent that the hardware sees: the smallest normal one for subnormals.
#[derive(Debug, Clone, Copy)]
struct Operand {
    number: Number,
    fraction: u32,
}

impl Operand {
    fn of(format: &Format, bits: u32) -> Self {
        Self {
            number: format.unpack(u64::from(bits)),
            fraction: format.fraction,
        }
    }
}

/// The elements of a word, the first in the low bits.
fn unpack(element: Element, word: u32) -> impl Iterator<Item = Operand> {
    let (format, bits) = match element {
        Element::F16 => (F16, 16),
        Element::Bf16 => (BF16, 16),
        Element::E4m3 => (E4M3, 8),
        Element::E5m2 => (E5M2, 8),
        // The 13 low bits are not looked at, not even to tell infinity from NaN.
        Element::Tf32 | Element::S8 | Element::U8 | Element::F64 => (TF32, 32),
    };
    (0..32 / bits).map(move |i| {
        let mask = u32::MAX >> (32 - bits);
        Operand::of(&format, word >> (i * bits) & mask)
    })
}

/// `significand × 2^(exponent - fraction)`.
#[derive(Debug, Default, Clone, Copy)]
struct Term {
    negative: bool,
    significand: u128,
    exponent: i32,
    fraction: i32,
}

/// The products of a chunk, at most 32, and the accumulator.
#[derive(Debug)]
struct Terms {
    finite: [Term; 33],
    count: usize,
    is_nan: bool,
    positive_infinity: bool,
    negative_infinity: bool,
}

impl Terms {
    fn new() -> Self {
        Self {
            finite: [Term::default(); 33],
            count: 0,
            is_nan: false,
            positive_infinity: false,
            negative_infinity: false,
        }
    }

    fn push(&mut self, term: Term) {
        self.finite[self.count] = term;
        self.count += 1;
    }

    fn infinity(&mut self, negative: bool) {
        if negative {
            self.negative_infinity = true;
        } else {
            self.positive_infinity = true;
        }
    }

    fn product(&mut self, a: Operand, b: Operand) {
        match (a.number, b.number) {
            (Number::Nan, _) | (_, Number::Nan) => self.is_nan = true,
            (Number::Infinity { .. }, Number::Finite { significand: 0, .. })
            | (Number::Finite { significand: 0, .. }, Number::Infinity { .. }) => {
                self.is_nan = true;
            }
            (
                Number::Infinity { negative: a },
                Number::Infinity { negative: b } | Number::Finite { negative: b, .. },
            )
            | (Number::Finite { negative: a, .. }, Number::Infinity { negative: b }) => {
                self.infinity(a != b);
            }
            (
                Number::Finite {
                    negative,
                    significand,
                    exponent,
                },
                Number::Finite {
                    negative: b_negative,
                    significand: b_significand,
                    exponent: b_exponent,
                },
            ) => {
                let fraction = (a.fraction + b.fraction) as i32;
                self.push(Term {
                    negative: negative != b_negative,
                    significand: u128::from(significand) * u128::from(b_significand),
                    exponent: exponent + b_exponent + fraction,
                    fraction,
                });
            }
        }
    }

    fn accumulator(&mut self, c: Operand) {
        match c.number {
            Number::Nan => self.is_nan = true,
            Number::Infinity { negative } => self.infinity(negative),
            Number::Finite {
                negative,
                significand,
                exponent,
            } => self.push(Term {
                negative,
                significand: u128::from(significand),
                exponent: exponent + c.fraction as i32,
                fraction: c.fraction as i32,
            }),
        }
    }

    fn sum(&self, model: &Model) -> u32 {
        let format = match model.output {
            Output::F32 => F32,
            Output::E8M13 => E8M13,
            Output::F16 => F16,
        };
        if self.is_nan || (self.positive_infinity && self.negative_infinity) {
            return format.nan as u32;
        }
        if self.positive_infinity || self.negative_infinity {
            return infinity(model.output, self.negative_infinity);
        }
        let finite = &self.finite[..self.count];
        let largest = finite
            .iter()
            .filter(|term| term.significand != 0)
            .map(|term| term.exponent)
            .fold(model.zero_exponent, i32::max);
        // A zero among the terms would raise the exponent to that of zero, which no largest exponent is below: the
        // accumulator's is higher, or it is zero itself.
        let unit = largest - model.fraction;
        let sum: i128 = finite
            .iter()
            .map(|term| {
                let shift = term.exponent - term.fraction - unit;
                let kept = if shift >= 0 {
                    term.significand << shift.min(127)
                } else {
                    term.significand >> (-shift).min(127)
                } as i128;
                if term.negative { -kept } else { kept }
            })
            .sum();
        let (negative, magnitude) = (sum < 0, sum.unsigned_abs());
        let round = match model.output {
            Output::F16 => Round::Near,
            Output::F32 | Output::E8M13 => Round::Zero,
        };
        let top = 128 - magnitude.leading_zeros() as i32 + unit;
        if top > 128 && magnitude != 0 {
            return infinity(model.output, negative);
        }
        let bits = format.round(negative, magnitude, unit, false, round, false) as u32;
        let sign = match model.output {
            Output::F16 => 0x8000,
            Output::F32 | Output::E8M13 => 0x8000_0000,
        };
        // No result is -0.
        if bits == sign { 0 } else { bits }
    }
}

fn infinity(output: Output, negative: bool) -> u32 {
    match output {
        Output::F16 => 0x7c00 | u32::from(negative) << 15,
        Output::F32 | Output::E8M13 => 0x7f80_0000 | u32::from(negative) << 31,
    }
}
