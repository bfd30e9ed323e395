//! Integer instructions on a warp.

use super::lanes::{map1, map2, map3, map4};
use super::registers::Registers;
use super::vectorise::vectorised;
use crate::arith::int;
use crate::program::op::{Carry, Int, Op, Width};

/// The instructions of one width: `$u` and `$i` are its unsigned and signed type.
macro_rules! width {
    ($name:ident, $u:ty, $i:ty, $bits:expr) => {
        vectorised! {
            fn $name(registers: &mut Registers, op: Int, signed: bool, r: &[u32], mask: u32) {
                type U = $u;
                type I = $i;
                const BITS: u32 = $bits;
                match op {
                    Int::Add => map2(registers, r, mask, |a: U, b: U| a.wrapping_add(b)),
                    Int::Sub => map2(registers, r, mask, |a: U, b: U| a.wrapping_sub(b)),
                    Int::Mul => map2(registers, r, mask, |a: U, b: U| a.wrapping_mul(b)),
                    Int::Mad => map3(registers, r, mask, |a: U, b: U, c: U| a.wrapping_mul(b).wrapping_add(c)),
                    Int::MulHigh if signed => map2(registers, r, mask, |a: U, b: U| mul_high(i128::from(a as I), i128::from(b as I), BITS) as U),
                    Int::MulHigh => map2(registers, r, mask, |a: U, b: U| mul_high(i128::from(a), i128::from(b), BITS) as U),
                    Int::MadHigh if signed => map3(registers, r, mask, |a: U, b: U, c: U| (mul_high(i128::from(a as I), i128::from(b as I), BITS) as U).wrapping_add(c)),
                    Int::MadHigh => map3(registers, r, mask, |a: U, b: U, c: U| (mul_high(i128::from(a), i128::from(b), BITS) as U).wrapping_add(c)),
                    // Division by zero has no defined result; hardware gives all ones, and the dividend as the remainder.
                    Int::Div if signed => map2(registers, r, mask, |a: U, b: U| if b == 0 { U::MAX } else { (a as I).wrapping_div(b as I) as U }),
                    Int::Div => map2(registers, r, mask, |a: U, b: U| a.checked_div(b).unwrap_or(U::MAX)),
                    Int::Rem if signed => map2(registers, r, mask, |a: U, b: U| if b == 0 { a } else { (a as I).wrapping_rem(b as I) as U }),
                    Int::Rem => map2(registers, r, mask, |a: U, b: U| a.checked_rem(b).unwrap_or(a)),
                    Int::Min if signed => map2(registers, r, mask, |a: U, b: U| (a as I).min(b as I) as U),
                    Int::Min => map2(registers, r, mask, |a: U, b: U| a.min(b)),
                    Int::Max if signed => map2(registers, r, mask, |a: U, b: U| (a as I).max(b as I) as U),
                    Int::Max => map2(registers, r, mask, |a: U, b: U| a.max(b)),
                    Int::And => map2(registers, r, mask, |a: U, b: U| a & b),
                    Int::Or => map2(registers, r, mask, |a: U, b: U| a | b),
                    Int::Xor => map2(registers, r, mask, |a: U, b: U| a ^ b),
                    Int::Not => map1(registers, r, mask, |a: U| !a),
                    Int::CNot => map1(registers, r, mask, |a: U| U::from(a == 0)),
                    Int::Neg => map1(registers, r, mask, |a: U| a.wrapping_neg()),
                    Int::Abs => map1(registers, r, mask, |a: U| (a as I).wrapping_abs() as U),
                    Int::Shl => map2(registers, r, mask, |a: U, b: u32| if b < BITS { a << b } else { 0 }),
                    Int::Shr if signed => map2(registers, r, mask, |a: U, b: u32| ((a as I) >> b.min(BITS - 1)) as U),
                    Int::Shr => map2(registers, r, mask, |a: U, b: u32| if b < BITS { a >> b } else { 0 }),
                    Int::Popc => map1(registers, r, mask, |a: U| a.count_ones()),
                    Int::Clz => map1(registers, r, mask, |a: U| a.leading_zeros()),
                    Int::Reverse => map1(registers, r, mask, |a: U| a.reverse_bits()),
                    Int::Sad if signed => map3(registers, r, mask, |a: U, b: U, c: U| c.wrapping_add((a as I).abs_diff(b as I))),
                    Int::Sad => map3(registers, r, mask, |a: U, b: U, c: U| c.wrapping_add(a.abs_diff(b))),
                    Int::AddSat => map2(registers, r, mask, |a: U, b: U| (a as I).saturating_add(b as I) as U),
                    Int::SubSat => map2(registers, r, mask, |a: U, b: U| (a as I).saturating_sub(b as I) as U),
                    Int::Bfind { shift_amount } => map1(registers, r, mask, |a: U| int::bfind(u64::from(a), BITS, signed, shift_amount)),
                    Int::Bfe => map3(registers, r, mask, |a: U, b: u32, c: u32| int::bfe(u64::from(a), b, c, BITS, signed) as U),
                    Int::Bfi => map4(registers, r, mask, |a: U, b: U, c: u32, d: u32| int::bfi(u64::from(a), u64::from(b), c, d, BITS) as U),
                }
            }
        }
    };
}

#[inline(always)]
fn mul_high(a: i128, b: i128, bits: u32) -> i128 {
    a.wrapping_mul(b) >> bits
}

width!(int16, u16, i16, 16);
width!(int32, u32, i32, 32);
width!(int64, u64, i64, 64);

/// Executes an integer instruction.
#[inline]
pub(super) fn execute(
    registers: &mut Registers,
    op: Int,
    width: Width,
    signed: bool,
    r: &[u32],
    mask: u32,
) {
    match width {
        Width::B16 => int16(registers, op, signed, r, mask),
        Width::B32 => int32(registers, op, signed, r, mask),
        Width::B64 => int64(registers, op, signed, r, mask),
    }
}

vectorised! {
    /// Those with a shape of their own.
    pub(super) fn special(registers: &mut Registers, op: &Op, r: &[u32], mask: u32) {
        match *op {
            Op::MulWide { from: Width::B16, signed, add } => map3(registers, &[r[0], r[1], r[2], r[r.len() - 1]], mask, |a: u32, b: u32, c: u32| {
                let product = if signed { (i32::from(a as i16) * i32::from(b as i16)) as u32 } else { (a & 0xffff) * (b & 0xffff) };
                if add { product.wrapping_add(c) } else { product }
            }),
            Op::MulWide { signed: true, add: false, .. } => map2(registers, r, mask, |a: u32, b: u32| (i64::from(a as i32) * i64::from(b as i32)) as u64),
            Op::MulWide { signed: false, add: false, .. } => map2(registers, r, mask, |a: u32, b: u32| u64::from(a) * u64::from(b)),
            Op::MulWide { signed: true, add: true, .. } => map3(registers, r, mask, |a: u32, b: u32, c: u64| ((i64::from(a as i32) * i64::from(b as i32)) as u64).wrapping_add(c)),
            Op::MulWide { signed: false, add: true, .. } => map3(registers, r, mask, |a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c)),
            Op::Mul24 { signed, add } => map3(registers, &[r[0], r[1], r[2], r[r.len() - 1]], mask, |a: u32, b: u32, c: u32| {
                let low = |x: u32| if signed { ((x << 8) as i32 >> 8) as u32 } else { x & 0xff_ffff };
                let product = low(a).wrapping_mul(low(b));
                if add { product.wrapping_add(c) } else { product }
            }),
            Op::Lop3(table) => map3(registers, r, mask, |a: u32, b: u32, c: u32| int::lop3(a, b, c, table)),
            Op::Prmt(mode) => map3(registers, r, mask, |a: u32, b: u32, c: u32| int::prmt(a, b, c, mode)),
            Op::Funnel { left, wrap } => map3(registers, r, mask, |a: u32, b: u32, c: u32| int::shf(a, b, c, left, wrap)),
            Op::Dp4a { a_signed, b_signed } => map3(registers, r, mask, |a: u32, b: u32, c: u32| int::dp4a(a, b, c, a_signed, b_signed)),
            Op::Dp2a { a_signed, b_signed, high } => map3(registers, r, mask, |a: u32, b: u32, c: u32| int::dp2a(a, b, c, a_signed, b_signed, high)),
            _ => {}
        }
    }
}

/// Arithmetic with the carry flag. `r`: D, the flag where it is given; the factors, the flag where it is taken.
pub(super) fn carry(registers: &mut Registers, op: &Op, r: &[u32], mask: u32) {
    let Op::Carry {
        op,
        width,
        takes,
        gives,
    } = *op
    else {
        return;
    };
    let wide = width == Width::B64;
    let bits = if wide { 64 } else { 32 };
    let keep = u64::MAX >> (64 - bits);
    let s = &r[1 + usize::from(gives)..];
    let flags = if takes {
        registers.predicates[s[s.len() - 1] as usize]
    } else {
        0
    };
    let mut out = [0u64; 32];
    let mut carries = 0;
    for (lane, value) in out.iter_mut().enumerate() {
        let operand = |index: usize| registers.lane(s[index], lane, wide) & keep;
        let flag = u128::from(flags >> lane & 1);
        let (a, b) = (operand(0), operand(1));
        let extended = |value: u64, signed: bool| {
            if signed {
                i128::from((value << (64 - bits)) as i64 >> (64 - bits))
            } else {
                i128::from(value)
            }
        };
        let sum = match op {
            Carry::Add => u128::from(a) + u128::from(b) + flag,
            // The flag is the borrow.
            Carry::Subtract => u128::from(a).wrapping_sub(u128::from(b)).wrapping_sub(flag),
            Carry::MultiplyLow => {
                u128::from(a.wrapping_mul(b) & keep) + u128::from(operand(2)) + flag
            }
            Carry::MultiplyHigh { signed } => {
                let high =
                    (extended(a, signed).wrapping_mul(extended(b, signed)) >> bits) as u64 & keep;
                u128::from(high) + u128::from(operand(2)) + flag
            }
        };
        *value = sum as u64 & keep;
        carries |= ((sum >> bits) as u32 & 1) << lane;
    }
    if wide {
        registers.write64(r[0], &out, mask);
    } else {
        registers.write32(r[0], &out.map(|value| value as u32), mask);
    }
    if gives {
        registers.write_predicate(r[1], carries, mask);
    }
}
