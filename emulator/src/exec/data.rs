//! Moves, conversions, comparisons and selections on a warp.

use super::lanes::{Lane, map1, map2};
use super::registers::Registers;
use super::vectorise::vectorised;
use crate::arith::Round;
use crate::arith::convert::{Conversion, Kind, convert, extend};
use crate::arith::float::{canonical, flush};
use crate::arith::format::{BF16, F16, F32, F64};
use crate::arith::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::program::op::{Bool, Compare, CompareType, Op, Width};

vectorised! {
    pub(super) fn pack(registers: &mut Registers, bits: u32, width: Width, r: &[u32], mask: u32) {
        let sources = &r[1..];
        // A register of 16 bits may have a sign extension above them.
        let keep = if bits >= 32 { u32::MAX } else { (1 << bits) - 1 };
        if width == Width::B64 {
            let mut out = [0u64; 32];
            for (i, &row) in sources.iter().enumerate() {
                let part = registers.r32(row);
                for lane in 0..32 {
                    out[lane] |= u64::from(part[lane] & keep) << (bits * i as u32);
                }
            }
            registers.write64(r[0], &out, mask);
        } else {
            let mut out = [0u32; 32];
            for (i, &row) in sources.iter().enumerate() {
                let part = registers.r32(row);
                for lane in 0..32 {
                    out[lane] |= (part[lane] & keep) << (bits * i as u32);
                }
            }
            registers.write32(r[0], &out, mask);
        }
    }
}

vectorised! {
    pub(super) fn unpack(registers: &mut Registers, bits: u32, width: Width, r: &[u32], mask: u32) {
        let (destinations, source) = (&r[..r.len() - 1], r[r.len() - 1]);
        let keep = if bits >= 32 { u32::MAX } else { (1 << bits) - 1 };
        let whole: [u64; 32] = if width == Width::B64 { *registers.r64(source) } else { registers.r32(source).map(u64::from) };
        for (i, &row) in destinations.iter().enumerate() {
            let mut out = [0u32; 32];
            for lane in 0..32 {
                out[lane] = (whole[lane] >> (bits * i as u32)) as u32 & keep;
            }
            registers.write32(row, &out, mask);
        }
    }
}

vectorised! {
    pub(super) fn mov(registers: &mut Registers, width: Width, r: &[u32], mask: u32) {
        if width == Width::B64 {
            map1(registers, r, mask, |a: u64| a);
        } else {
            map1(registers, r, mask, |a: u32| a);
        }
    }
}

vectorised! {
    pub(super) fn cvt(registers: &mut Registers, c: &Conversion, from: Width, to: Width, r: &[u32], mask: u32) {
        // A register may be wider than the type it is used with; that is left to the general way.
        let natural = (from == Width::B64) == is_wide(c.from) && (to == Width::B64) == is_wide(c.to);
        let plain = natural && c.round == Round::Near && !c.integral && !c.ftz && !c.sat && !c.satfinite && !c.relu;
        match (c.to, c.from) {
            (Kind::Float(F32), Kind::Float(BF16)) if plain => map1(registers, r, mask, |a: u32| canonical(bf16_to_f32(a as u16))),
            (Kind::Float(F32), Kind::Float(F16)) if plain => map1(registers, r, mask, |a: u32| canonical(f16_to_f32(a as u16))),
            (Kind::Float(BF16), Kind::Float(F32)) if plain => map1(registers, r, mask, |a: f32| u32::from(f32_to_bf16(a))),
            (Kind::Float(F16), Kind::Float(F32)) if plain => map1(registers, r, mask, |a: f32| u32::from(f32_to_f16(a))),
            (Kind::Float(F32), Kind::Signed(32)) if plain => map1(registers, r, mask, |a: u32| a as i32 as f32),
            (Kind::Float(F32), Kind::Unsigned(32)) if plain => map1(registers, r, mask, |a: u32| a as f32),
            (Kind::Float(F64), Kind::Float(F32)) if plain => map1(registers, r, mask, |a: f32| f64::from(a)),
            (Kind::Float(F32), Kind::Float(F64)) if plain => map1(registers, r, mask, |a: f64| canonical(a as f32)),
            (Kind::Signed(32), Kind::Float(F32)) if natural && c.round == Round::Zero && !c.ftz => map1(registers, r, mask, |a: f32| a as i32 as u32),
            (Kind::Signed(64), Kind::Signed(32)) if natural && !c.sat => map1(registers, r, mask, |a: u32| i64::from(a as i32) as u64),
            (Kind::Unsigned(64) | Kind::Signed(64), Kind::Unsigned(32)) if natural && !c.sat => map1(registers, r, mask, |a: u32| u64::from(a)),
            (Kind::Unsigned(32) | Kind::Signed(32), Kind::Unsigned(64) | Kind::Signed(64)) if natural && !c.sat => map1(registers, r, mask, |a: u64| a as u32),
            _ => general(registers, c, from, to, r, mask),
        }
    }
}

fn is_wide(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Unsigned(64) | Kind::Signed(64) | Kind::Float(F64)
    )
}

fn general(
    registers: &mut Registers,
    c: &Conversion,
    from: Width,
    to: Width,
    r: &[u32],
    mask: u32,
) {
    let one = |bits: u64| {
        let result = convert(c, bits);
        // A destination narrower than its register is extended in it.
        match c.to {
            Kind::Signed(width) => extend(result, width, true),
            _ => result,
        }
    };
    match (from == Width::B64, to == Width::B64) {
        (false, false) => map1(registers, r, mask, |a: u32| one(u64::from(a)) as u32),
        (false, true) => map1(registers, r, mask, |a: u32| one(u64::from(a))),
        (true, false) => map1(registers, r, mask, |a: u64| one(a) as u32),
        (true, true) => map1(registers, r, mask, one),
    }
    if c.to == Kind::Signed(16) && to != Width::B64 || c.to == Kind::Signed(8) && to == Width::B16 {
        map1(registers, &[r[0], r[0]], mask, |a: u32| {
            if to == Width::B16 { a & 0xffff } else { a }
        });
    }
}

vectorised! {
    /// Two sources to one packed register, the first in the high half.
    pub(super) fn cvt_pack(registers: &mut Registers, c: &Conversion, r: &[u32], mask: u32) {
        let plain = c.round == Round::Near && !c.relu && !c.satfinite && c.from == Kind::Float(F32);
        match c.to {
            Kind::Float(BF16) if plain => map2(registers, r, mask, |a: f32, b: f32| u32::from(f32_to_bf16(a)) << 16 | u32::from(f32_to_bf16(b))),
            Kind::Float(F16) if plain => map2(registers, r, mask, |a: f32, b: f32| u32::from(f32_to_f16(a)) << 16 | u32::from(f32_to_f16(b))),
            _ => {
                let shift = if matches!(c.to, Kind::Float(f) if f.exponent_bits + f.fraction == 7) { 8 } else { 16 };
                map2(registers, r, mask, |a: u32, b: u32| {
                    (convert(c, u64::from(a)) << shift | convert(c, u64::from(b))) as u32
                });
            }
        }
    }
}

/// A packed register of two to a packed register of two.
pub(super) fn cvt_unpack(registers: &mut Registers, c: &Conversion, r: &[u32], mask: u32) {
    let bits = |kind: Kind| match kind {
        Kind::Float(f) => 1 + f.exponent_bits + f.fraction,
        Kind::Unsigned(bits) | Kind::Signed(bits) => bits,
    };
    let (from, to) = (bits(c.from), bits(c.to));
    map1(registers, r, mask, |a: u32| {
        let part = |i: u32| convert(c, u64::from(a >> (i * from)) & ((1 << from) - 1)) as u32;
        part(0) | part(1) << to
    });
}

#[inline(always)]
fn combine(result: u32, other: u32, op: Bool) -> u32 {
    match op {
        Bool::And => result & other,
        Bool::Or => result | other,
        Bool::Xor => result ^ other,
        Bool::Not => !other,
        Bool::Copy => other,
    }
}

#[inline(always)]
pub(super) fn mask_of<T: Lane>(registers: &Registers, r: &[u32], f: impl Fn(T, T) -> bool) -> u32 {
    let (a, b) = (T::load(registers, r[0]), T::load(registers, r[1]));
    let mut flags = [0u32; 32];
    for lane in 0..32 {
        flags[lane] = u32::from(f(a[lane], b[lane])) << lane;
    }
    flags.iter().fold(0, |mask, flag| mask | flag)
}

macro_rules! integer_compare {
    ($registers:expr, $op:expr, $r:expr, $u:ty, $t:ty) => {
        match $op {
            Compare::Eq | Compare::EqU => mask_of($registers, $r, |a: $u, b: $u| a == b),
            Compare::Ne | Compare::NeU => mask_of($registers, $r, |a: $u, b: $u| a != b),
            Compare::Lt | Compare::LtU => {
                mask_of($registers, $r, |a: $u, b: $u| (a as $t) < (b as $t))
            }
            Compare::Le | Compare::LeU => {
                mask_of($registers, $r, |a: $u, b: $u| (a as $t) <= (b as $t))
            }
            Compare::Gt | Compare::GtU => {
                mask_of($registers, $r, |a: $u, b: $u| (a as $t) > (b as $t))
            }
            Compare::Ge | Compare::GeU => {
                mask_of($registers, $r, |a: $u, b: $u| (a as $t) >= (b as $t))
            }
            Compare::Num => u32::MAX,
            Compare::Nan => 0,
        }
    };
}

macro_rules! float_compare {
    ($registers:expr, $op:expr, $r:expr, $t:ty, $value:expr) => {{
        let value = $value;
        match $op {
            Compare::Eq => mask_of($registers, $r, |a: $t, b: $t| value(a) == value(b)),
            Compare::Ne => mask_of($registers, $r, |a: $t, b: $t| {
                value(a) < value(b) || value(a) > value(b)
            }),
            Compare::Lt => mask_of($registers, $r, |a: $t, b: $t| value(a) < value(b)),
            Compare::Le => mask_of($registers, $r, |a: $t, b: $t| value(a) <= value(b)),
            Compare::Gt => mask_of($registers, $r, |a: $t, b: $t| value(a) > value(b)),
            Compare::Ge => mask_of($registers, $r, |a: $t, b: $t| value(a) >= value(b)),
            Compare::EqU => !mask_of($registers, $r, |a: $t, b: $t| {
                value(a) < value(b) || value(a) > value(b)
            }),
            Compare::NeU => !mask_of($registers, $r, |a: $t, b: $t| value(a) == value(b)),
            Compare::LtU => !mask_of($registers, $r, |a: $t, b: $t| value(a) >= value(b)),
            Compare::LeU => !mask_of($registers, $r, |a: $t, b: $t| value(a) > value(b)),
            Compare::GtU => !mask_of($registers, $r, |a: $t, b: $t| value(a) <= value(b)),
            Compare::GeU => !mask_of($registers, $r, |a: $t, b: $t| value(a) < value(b)),
            Compare::Num => !mask_of($registers, $r, |a: $t, b: $t| {
                value(a).is_nan() || value(b).is_nan()
            }),
            Compare::Nan => mask_of($registers, $r, |a: $t, b: $t| {
                value(a).is_nan() || value(b).is_nan()
            }),
        }
    }};
}

vectorised! {
    /// The lanes where the comparison of `r[0]` and `r[1]` holds.
    fn compare(registers: &Registers, op: Compare, ty: CompareType, r: &[u32]) -> u32 {
        match ty {
            CompareType::Unsigned(Width::B16) => integer_compare!(registers, op, r, u16, u16),
            CompareType::Unsigned(Width::B32) => integer_compare!(registers, op, r, u32, u32),
            CompareType::Unsigned(Width::B64) => integer_compare!(registers, op, r, u64, u64),
            CompareType::Signed(Width::B16) => integer_compare!(registers, op, r, u16, i16),
            CompareType::Signed(Width::B32) => integer_compare!(registers, op, r, u32, i32),
            CompareType::Signed(Width::B64) => integer_compare!(registers, op, r, u64, i64),
            CompareType::F32 { ftz: false } => float_compare!(registers, op, r, f32, |x: f32| x),
            CompareType::F32 { ftz: true } => float_compare!(registers, op, r, u32, |x: u32| f32::from_bits(flush(x))),
            CompareType::F64 => float_compare!(registers, op, r, f64, |x: f64| x),
            CompareType::F16 { ftz: false } => float_compare!(registers, op, r, u16, f16_to_f32),
            CompareType::F16 { ftz: true } => float_compare!(registers, op, r, u16, |x: u16| f16_to_f32(if x & 0x7c00 == 0 { x & 0x8000 } else { x })),
            CompareType::Bf16 => float_compare!(registers, op, r, u16, bf16_to_f32),
        }
    }
}

/// `setp` and `set`.
pub(super) fn comparison(registers: &mut Registers, op: &Op, r: &[u32], mask: u32) {
    match *op {
        Op::Compare {
            op,
            ty,
            combine: with,
            second,
        } => {
            let sources = &r[1 + usize::from(second)..];
            let holds = compare(registers, op, ty, sources);
            let (first, inverse) = combined(registers, holds, with, sources);
            registers.write_predicate(r[0], first, mask);
            if second {
                registers.write_predicate(r[1], inverse, mask);
            }
        }
        Op::Set {
            op,
            ty,
            one,
            combine: with,
        } => {
            let sources = &r[1..];
            let holds = compare(registers, op, ty, sources);
            let (result, _) = combined(registers, holds, with, sources);
            let mut out = [0; 32];
            for (lane, out) in out.iter_mut().enumerate() {
                *out = if result >> lane & 1 == 1 { one } else { 0 };
            }
            registers.write32(r[0], &out, mask);
        }
        _ => {}
    }
}

fn combined(
    registers: &Registers,
    holds: u32,
    with: Option<(Bool, bool)>,
    sources: &[u32],
) -> (u32, u32) {
    match with {
        None => (holds, !holds),
        Some((op, negated)) => {
            let other =
                registers.predicates[sources[2] as usize] ^ if negated { u32::MAX } else { 0 };
            (combine(holds, other, op), combine(!holds, other, op))
        }
    }
}

/// Logic of predicates.
pub(super) fn logic(registers: &mut Registers, op: Bool, r: &[u32], mask: u32) {
    let last = registers.predicates[r[r.len() - 1] as usize];
    let result = match op {
        Bool::And | Bool::Or | Bool::Xor => combine(registers.predicates[r[1] as usize], last, op),
        Bool::Not => !last,
        Bool::Copy => last,
    };
    registers.write_predicate(r[0], result, mask);
}

vectorised! {
    pub(super) fn select(registers: &mut Registers, width: Width, r: &[u32], mask: u32) {
        let chosen = registers.predicates[r[3] as usize];
        if width == Width::B64 {
            let (a, b) = (*registers.r64(r[1]), *registers.r64(r[2]));
            let mut out = b;
            for lane in 0..32 {
                let keep = 0u64.wrapping_sub(u64::from(chosen >> lane) & 1);
                out[lane] = (a[lane] & keep) | (b[lane] & !keep);
            }
            registers.write64(r[0], &out, mask);
        } else {
            let (a, b) = (*registers.r32(r[1]), *registers.r32(r[2]));
            let mut out = b;
            for lane in 0..32 {
                let keep = 0u32.wrapping_sub((chosen >> lane) & 1);
                out[lane] = (a[lane] & keep) | (b[lane] & !keep);
            }
            registers.write32(r[0], &out, mask);
        }
    }
}
