//! Instructions on parts of registers.

use super::lanes::{map2, map3};
use super::registers::Registers;
use crate::arith::half::{bf16_to_f32, f16_to_f32};
use crate::arith::int;
use crate::program::op::{
    Bool, Compare, HalfType, Packed, PackedInt, Part, Second, Selection, Video, VideoOp,
};

pub(super) fn execute(registers: &mut Registers, op: &Packed, r: &[u32], mask: u32) {
    match *op {
        Packed::Integer {
            op,
            signed,
            relu,
            whole,
        } => map2(registers, r, mask, |a: u32, b: u32| {
            if whole {
                return integer(op, signed, relu, 32, a, b);
            }
            let low = integer(op, signed, relu, 16, a & 0xffff, b & 0xffff);
            low | integer(op, signed, relu, 16, a >> 16, b >> 16) << 16
        }),
        Packed::Compare { op, half, combine } => {
            let [low, high] = compare(registers, op, half, combine, &r[2..]);
            registers.write_predicate(r[0], low, mask);
            registers.write_predicate(r[1], high, mask);
        }
        Packed::Set {
            op,
            half,
            one,
            combine,
        } => {
            let holds = compare(registers, op, half, combine, &r[1..]);
            let one = u32::from(one);
            let out = std::array::from_fn(|lane| {
                let part = |mask: u32| if mask >> lane & 1 == 1 { one } else { 0 };
                part(holds[0]) | part(holds[1]) << 16
            });
            registers.write32(r[0], &out, mask);
        }
        Packed::Saturate { bits, signed } => {
            // Without a third source the two parts fill the register.
            let third = r.get(3).copied();
            let r = [r[0], r[1], r[2], third.unwrap_or(r[2])];
            map3(registers, &r, mask, |a: u32, b: u32, c: u32| {
                let (low, high) = limits(bits, signed);
                let part = |value: u32| {
                    let value = i64::from(value as i32).clamp(low, high);
                    value as u64 & ((1 << bits) - 1)
                };
                let above = if third.is_some() { u64::from(c) } else { 0 };
                (part(b) | part(a) << bits | above << (2 * bits)) as u32
            });
        }
        Packed::Mask { wrap } => {
            map2(registers, r, mask, |a: u32, b: u32| int::bmsk(a, b, wrap));
        }
        Packed::Extend { wrap, signed } => map2(registers, r, mask, |a: u32, b: u32| {
            int::szext(a, b, signed, wrap)
        }),
        Packed::NthSet => map3(registers, r, mask, |a: u32, b: u32, c: u32| {
            int::fns(a, b, c as i32)
        }),
        Packed::Video(video) => {
            let r = [r[0], r[1], r[2], *r.last().unwrap_or(&r[2])];
            map3(registers, &r, mask, |a: u32, b: u32, c: u32| {
                if video.parts == 1 {
                    scalar(&video, a, b, c)
                } else {
                    parts(&video, a, b, c)
                }
            });
        }
    }
}

/// The smallest and the largest integer of some bits.
fn limits(bits: u32, signed: bool) -> (i64, i64) {
    if signed {
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    } else {
        (0, (1 << bits) - 1)
    }
}

/// Keeps `bits` of a value and extends them.
fn extend(value: u32, bits: u32, signed: bool) -> i64 {
    let shift = 64 - bits;
    let high = u64::from(value) << shift;
    if signed {
        high as i64 >> shift
    } else {
        (high >> shift) as i64
    }
}

fn integer(op: PackedInt, signed: bool, relu: bool, bits: u32, a: u32, b: u32) -> u32 {
    let (a, b) = (extend(a, bits, signed), extend(b, bits, signed));
    let value = match op {
        PackedInt::Add => a + b,
        PackedInt::Min => a.min(b),
        PackedInt::Max => a.max(b),
    };
    let value = if relu { value.max(0) } else { value };
    (value as u64 & ((1 << bits) - 1)) as u32
}

/// The lanes where the comparison holds, of the low and of the high halves.
fn compare(
    registers: &Registers,
    op: Compare,
    half: HalfType,
    combine: Option<(Bool, bool)>,
    sources: &[u32],
) -> [u32; 2] {
    let (a, b) = (registers.r32(sources[0]), registers.r32(sources[1]));
    let value = |bits: u16| match half {
        HalfType::F16 { ftz: true } if bits & 0x7c00 == 0 => f16_to_f32(bits & 0x8000),
        HalfType::F16 { .. } => f16_to_f32(bits),
        HalfType::Bf16 => bf16_to_f32(bits),
    };
    [0, 16].map(|shift| {
        let holds = (0..32).fold(0, |mask, lane| {
            let part = |row: &[u32; 32]| value((row[lane] >> shift) as u16);
            mask | u32::from(holds(op, part(a), part(b))) << lane
        });
        let Some((with, negated)) = combine else {
            return holds;
        };
        let other = registers.predicates[sources[2] as usize] ^ if negated { u32::MAX } else { 0 };
        match with {
            Bool::And => holds & other,
            Bool::Or => holds | other,
            _ => holds ^ other,
        }
    })
}

fn holds(op: Compare, a: f32, b: f32) -> bool {
    let unordered = a.is_nan() || b.is_nan();
    match op {
        Compare::Eq => a == b,
        Compare::Ne => !unordered && a != b,
        Compare::Lt => a < b,
        Compare::Le => a <= b,
        Compare::Gt => a > b,
        Compare::Ge => a >= b,
        Compare::EqU => unordered || a == b,
        Compare::NeU => a != b,
        Compare::LtU => unordered || a < b,
        Compare::LeU => unordered || a <= b,
        Compare::GtU => unordered || a > b,
        Compare::GeU => unordered || a >= b,
        Compare::Num => !unordered,
        Compare::Nan => unordered,
    }
}

fn video(op: VideoOp, a: i64, b: i64) -> i64 {
    match op {
        VideoOp::Add => a + b,
        VideoOp::Subtract => a - b,
        VideoOp::AbsoluteDifference => (a - b).abs(),
        VideoOp::Min => a.min(b),
        VideoOp::Max => a.max(b),
        // A half is rounded up where the sum is not negative.
        VideoOp::Average => (a + b + i64::from(a + b >= 0)) >> 1,
        VideoOp::Set(compare) => i64::from(match compare {
            Compare::Eq => a == b,
            Compare::Ne => a != b,
            Compare::Lt => a < b,
            Compare::Le => a <= b,
            Compare::Gt => a > b,
            _ => a >= b,
        }),
    }
}

fn take(selection: &Selection, value: u32) -> i64 {
    let Part { shift, bits } = selection.part;
    extend(value >> shift, u32::from(bits), selection.signed)
}

/// One part of each operand; the result goes on with c, or into a part of it.
fn scalar(v: &Video, a: u32, b: u32, c: u32) -> u32 {
    let mut value = video(v.op, take(&v.a, a), take(&v.b, b));
    if v.saturate {
        let (low, high) = limits(u32::from(v.into.bits), v.signed);
        value = value.clamp(low, high);
    }
    let value = value as u32;
    let less = if v.signed {
        (value as i32) < c as i32
    } else {
        value < c
    };
    match v.second {
        Some(Second::Add) => value.wrapping_add(c),
        Some(Second::Min) => {
            if less {
                value
            } else {
                c
            }
        }
        Some(Second::Max) => {
            if less {
                c
            } else {
                value
            }
        }
        None if v.into == Part::WHOLE => value,
        None => {
            let keep = ((1u32 << v.into.bits) - 1) << v.into.shift;
            (value << v.into.shift & keep) | (c & !keep)
        }
    }
}

/// Two halves or four bytes.
fn parts(v: &Video, a: u32, b: u32, c: u32) -> u32 {
    let bits = 32 / u32::from(v.parts);
    let keep = (1u32 << bits) - 1;
    let both = u64::from(b) << 32 | u64::from(a);
    let mut out = c;
    for part in 0..u32::from(v.parts) {
        if v.mask >> part & 1 == 0 {
            continue;
        }
        let operand = |selection: &Selection| {
            let from = u32::from(selection.from[part as usize]);
            extend((both >> (from * bits)) as u32, bits, selection.signed)
        };
        let mut value = video(v.op, operand(&v.a), operand(&v.b));
        if v.saturate {
            let (low, high) = limits(bits, v.signed);
            value = value.clamp(low, high);
        }
        if v.second.is_some() {
            out = out.wrapping_add(extend(value as u32, bits, v.signed) as u32);
        } else {
            let shift = part * bits;
            out = (out & !(keep << shift)) | (value as u32 & keep) << shift;
        }
    }
    out
}
