//! Floating-point instructions on a warp.

use super::lanes::{map1, map2, map3};
use super::registers::Registers;
use super::vectorise::vectorised;
use crate::arith::Round;
use crate::arith::approx::{Approx, approx, div_approx, exp2};
use crate::arith::float::{
    Test, add_f32, add_f64, canonical, div_f32, div_f64, flush, fma_f32, fma_half, max_f32,
    max_f64, min_f32, min_f64, mul_f32, mul_f64, saturate, sqrt_f32, sqrt_f64, testp, xorsign_f32,
};
use crate::arith::format::{BF16, F16, F64, Format, fma_f64};
use crate::arith::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::program::op::{Float, Mode, Precision};

/// Executes an instruction of any precision and mode.
#[inline]
pub(super) fn execute(
    registers: &mut Registers,
    op: Float,
    precision: Precision,
    mode: Mode,
    r: &[u32],
    mask: u32,
) {
    match precision {
        Precision::F32 if mode == Mode::DEFAULT => f32_plain(registers, op, r, mask),
        Precision::F32 => f32_any(registers, op, mode, r, mask),
        Precision::F64 => f64_any(registers, op, mode, r, mask),
        Precision::F16 | Precision::Bf16 => half(
            registers,
            op,
            precision == Precision::F16,
            mode,
            r,
            mask,
            false,
        ),
        Precision::F16x2 | Precision::Bf16x2 => half(
            registers,
            op,
            precision == Precision::F16x2,
            mode,
            r,
            mask,
            true,
        ),
    }
}

vectorised! {
    /// To nearest, without flushing or saturation.
    fn f32_plain(registers: &mut Registers, op: Float, r: &[u32], mask: u32) {
        match op {
            Float::Add => map2(registers, r, mask, |a: f32, b: f32| canonical(a + b)),
            Float::Sub => map2(registers, r, mask, |a: f32, b: f32| canonical(a - b)),
            Float::Mul => map2(registers, r, mask, |a: f32, b: f32| canonical(a * b)),
            Float::Fma => map3(registers, r, mask, |a: f32, b: f32, c: f32| canonical(a.mul_add(b, c))),
            Float::Div => map2(registers, r, mask, |a: f32, b: f32| canonical(a / b)),
            Float::Sqrt => map1(registers, r, mask, |a: f32| canonical(a.sqrt())),
            Float::Reciprocal => map1(registers, r, mask, |a: f32| canonical(1.0 / a)),
            Float::Min => map2(registers, r, mask, |a: f32, b: f32| min_f32(a, b, false)),
            Float::Max => map2(registers, r, mask, |a: f32, b: f32| max_f32(a, b, false)),
            Float::Neg => map1(registers, r, mask, |a: u32| a ^ 1 << 31),
            Float::Abs => map1(registers, r, mask, |a: u32| a & 0x7fff_ffff),
            Float::CopySign => map2(registers, r, mask, |a: u32, b: u32| (b & 0x7fff_ffff) | (a & 0x8000_0000)),
        }
    }
}

vectorised! {
    fn f32_any(registers: &mut Registers, op: Float, mode: Mode, r: &[u32], mask: u32) {
        let round = mode.round;
        let input = |bits: u32| f32::from_bits(if mode.ftz { flush(bits) } else { bits });
        let output = |bits: u32| {
            let bits = if mode.ftz { flush(bits) } else { bits };
            if mode.sat { saturate(bits) } else { bits }
        };
        match op {
            Float::Add => map2(registers, r, mask, |a: u32, b: u32| output(add_f32(input(a), input(b), round))),
            Float::Sub => map2(registers, r, mask, |a: u32, b: u32| output(add_f32(input(a), -input(b), round))),
            Float::Mul => map2(registers, r, mask, |a: u32, b: u32| output(mul_f32(input(a), input(b), round))),
            Float::Fma => map3(registers, r, mask, |a: u32, b: u32, c: u32| output(fma_f32(input(a), input(b), input(c), round))),
            Float::Div if mode.approx => map2(registers, r, mask, |a: u32, b: u32| output(div_approx(input(a), input(b)))),
            Float::Div => map2(registers, r, mask, |a: u32, b: u32| output(div_f32(input(a), input(b), round))),
            Float::Sqrt => map1(registers, r, mask, |a: u32| output(sqrt_f32(input(a), round))),
            Float::Reciprocal => map1(registers, r, mask, |a: u32| output(div_f32(1.0, input(a), round))),
            Float::Min | Float::Max if mode.xorsign => map2(registers, r, mask, |a: u32, b: u32| output(xorsign_f32(input(a), input(b), mode.nan, op == Float::Max))),
            Float::Min => map2(registers, r, mask, |a: u32, b: u32| output(min_f32(input(a), input(b), mode.nan))),
            Float::Max => map2(registers, r, mask, |a: u32, b: u32| output(max_f32(input(a), input(b), mode.nan))),
            Float::Neg => map1(registers, r, mask, |a: u32| output(input(a).to_bits() ^ 1 << 31)),
            Float::Abs => map1(registers, r, mask, |a: u32| output(input(a).to_bits() & 0x7fff_ffff)),
            Float::CopySign => map2(registers, r, mask, |a: u32, b: u32| (b & 0x7fff_ffff) | (a & 0x8000_0000)),
        }
    }
}

vectorised! {
    fn f64_any(registers: &mut Registers, op: Float, mode: Mode, r: &[u32], mask: u32) {
        let round = mode.round;
        match op {
            Float::Add => map2(registers, r, mask, |a: f64, b: f64| add_f64(a, b, round)),
            Float::Sub => map2(registers, r, mask, |a: f64, b: f64| add_f64(a, -b, round)),
            Float::Mul => map2(registers, r, mask, |a: f64, b: f64| mul_f64(a, b, round)),
            Float::Fma => map3(registers, r, mask, |a: f64, b: f64, c: f64| fma_f64(a, b, c, round)),
            Float::Div => map2(registers, r, mask, |a: f64, b: f64| div_f64(a, b, round)),
            Float::Sqrt => map1(registers, r, mask, |a: f64| sqrt_f64(a, round)),
            Float::Reciprocal => map1(registers, r, mask, |a: f64| div_f64(1.0, a, round)),
            Float::Min => map2(registers, r, mask, min_f64),
            Float::Max => map2(registers, r, mask, max_f64),
            Float::Neg => map1(registers, r, mask, |a: u64| a ^ 1 << 63),
            Float::Abs => map1(registers, r, mask, |a: u64| a & !(1 << 63)),
            Float::CopySign => map2(registers, r, mask, |a: u64, b: u64| (b & !(1 << 63)) | (a & 1 << 63)),
        }
    }
}

/// The two 16-bit formats.
#[derive(Clone, Copy)]
struct Half {
    is_f16: bool,
    mode: Mode,
}

impl Half {
    #[inline(always)]
    fn flush(self, bits: u16) -> u16 {
        let exponent = if self.is_f16 { 0x7c00 } else { 0x7f80 };
        if self.mode.ftz && bits & exponent == 0 {
            bits & 0x8000
        } else {
            bits
        }
    }

    #[inline(always)]
    fn wide(self, bits: u16) -> f32 {
        let bits = self.flush(bits);
        if self.is_f16 {
            f16_to_f32(bits)
        } else {
            bf16_to_f32(bits)
        }
    }

    #[inline(always)]
    fn finish(self, bits: u16) -> u16 {
        let mut bits = self.flush(bits);
        let infinity = if self.is_f16 { 0x7c00 } else { 0x7f80 };
        let one = if self.is_f16 { 0x3c00 } else { 0x3f80 };
        let is_nan = bits & 0x7fff > infinity;
        if self.mode.sat {
            bits = if is_nan || bits & 0x8000 != 0 {
                0
            } else {
                bits.min(one)
            };
        }
        if self.mode.relu && !is_nan && bits & 0x8000 != 0 {
            bits = 0;
        }
        bits
    }

    #[inline(always)]
    fn narrow(self, value: f32) -> u16 {
        self.finish(if self.is_f16 {
            f32_to_f16(value)
        } else {
            f32_to_bf16(value)
        })
    }

    fn narrow_f64(self, value: f64) -> u16 {
        let format: Format = if self.is_f16 { F16 } else { BF16 };
        self.finish(format.convert(&F64, value.to_bits(), Round::Near, false) as u16)
    }

    #[inline(always)]
    fn apply(self, op: Float, a: u16, b: u16, c: u16) -> u16 {
        match op {
            // In f32 sums and products of 16-bit formats round as if done once: 24 ≥ 2 × 11 + 2 bits. A product of bf16 that is
            // subnormal in f32 may lose bits there, but only below 2^-134, where all rounds to zero.
            Float::Add => self.narrow(self.wide(a) + self.wide(b)),
            Float::Sub => self.narrow(self.wide(a) - self.wide(b)),
            Float::Mul => self.narrow(self.wide(a) * self.wide(b)),
            Float::Fma => self.narrow_f64(fma_half(self.wide(a), self.wide(b), self.wide(c))),
            Float::Min | Float::Max if self.mode.xorsign => self.narrow(f32::from_bits(
                xorsign_f32(self.wide(a), self.wide(b), self.mode.nan, op == Float::Max),
            )),
            Float::Min => self.narrow(f32::from_bits(min_f32(
                self.wide(a),
                self.wide(b),
                self.mode.nan,
            ))),
            Float::Max => self.narrow(f32::from_bits(max_f32(
                self.wide(a),
                self.wide(b),
                self.mode.nan,
            ))),
            Float::Neg => self.flush(a) ^ 0x8000,
            Float::Abs => self.flush(a) & 0x7fff,
            Float::Div | Float::Sqrt | Float::CopySign | Float::Reciprocal => 0x7fff,
        }
    }
}

vectorised! {
    fn half(registers: &mut Registers, op: Float, is_f16: bool, mode: Mode, r: &[u32], mask: u32, packed: bool) {
        let half = Half { is_f16, mode };
        let apply = |a: u32, b: u32, c: u32| {
            let low = u32::from(half.apply(op, a as u16, b as u16, c as u16));
            if packed { low | u32::from(half.apply(op, (a >> 16) as u16, (b >> 16) as u16, (c >> 16) as u16)) << 16 } else { low }
        };
        match r.len() {
            2 => map1(registers, r, mask, |a: u32| apply(a, 0, 0)),
            3 => map2(registers, r, mask, |a: u32, b: u32| apply(a, b, 0)),
            _ => map3(registers, r, mask, apply),
        }
    }
}

vectorised! {
    /// `.approx` functions of `f32`.
    pub(super) fn approximate(registers: &mut Registers, function: Approx, ftz: bool, r: &[u32], mask: u32) {
        let input = |bits: u32| f32::from_bits(if ftz { flush(bits) } else { bits });
        let output = |bits: u32| if ftz { flush(bits) } else { bits };
        match function {
            Approx::Exp2 => map1(registers, r, mask, |a: u32| output(canonical(exp2(f64::from(input(a))) as f32))),
            _ => map1(registers, r, mask, |a: u32| output(approx(function, input(a)))),
        }
    }
}

/// `tanh` and `ex2` of 16-bit formats.
pub(super) fn approximate_half(
    registers: &mut Registers,
    function: Approx,
    precision: Precision,
    ftz: bool,
    r: &[u32],
    mask: u32,
) {
    let half = Half {
        is_f16: matches!(precision, Precision::F16 | Precision::F16x2),
        mode: Mode {
            ftz,
            ..Mode::DEFAULT
        },
    };
    let one = |bits: u16| u32::from(half.narrow(f32::from_bits(approx(function, half.wide(bits)))));
    let packed = matches!(precision, Precision::F16x2 | Precision::Bf16x2);
    map1(registers, r, mask, |a: u32| {
        if packed {
            one(a as u16) | one((a >> 16) as u16) << 16
        } else {
            one(a as u16)
        }
    });
}

/// `rcp.approx.ftz.f64` and `rsqrt.approx.f64`.
pub(super) fn approximate_double(
    registers: &mut Registers,
    root: bool,
    coarse: bool,
    r: &[u32],
    mask: u32,
) {
    let upper = |bits: u64| {
        // Subnormals flush, and the lower half of an operand is neither read nor written.
        if bits & 0x7ff0_0000_0000_0000 == 0 {
            bits & 1 << 63
        } else {
            bits & !0xffff_ffff
        }
    };
    map1(registers, r, mask, |a: u64| {
        // The upper half of a NaN may not have the bits that make it one.
        if !coarse || f64::from_bits(a).is_nan() {
            let a = f64::from_bits(a);
            return if root { 1.0 / a.sqrt() } else { 1.0 / a };
        }
        let a = f64::from_bits(upper(a));
        let value = if root { 1.0 / a.sqrt() } else { 1.0 / a };
        f64::from_bits(upper(value.to_bits()))
    });
}

/// `testp`.
pub(super) fn test(registers: &mut Registers, test: Test, wide: bool, r: &[u32], mask: u32) {
    let mut result = 0;
    for lane in 0..32 {
        let bits = registers.lane(r[1], lane, wide);
        let category = if wide {
            f64::from_bits(bits).classify()
        } else {
            f32::from_bits(bits as u32).classify()
        };
        result |= u32::from(testp(test, category)) << lane;
    }
    registers.write_predicate(r[0], result, mask);
}
