//! Integer arithmetic and bit fields.

use super::{Decoded, Modifiers, destination, exactly, integer_type, source};
use crate::arith::int::Permute;
use crate::program::builder::Builder;
use crate::program::op::{Carry, Int, Op, Packed, PackedInt, Width};
use crate::ptx::ast::Operand;

pub(super) fn decode(b: &mut Builder<'_>, base: &str, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    if m.has("cc") || matches!(base, "addc" | "subc" | "madc") {
        return carry(b, base, m, o);
    }
    m.only(modifiers(base))?;
    match base {
        "lop3" => {
            let Some(Operand::Int(table)) = o.get(4) else {
                return Err("this form of lop3".into());
            };
            return three(b, Op::Lop3(*table as u8), &o[..4]);
        }
        "prmt" => {
            let mode = match m.all {
                ["b32", "f4e"] => Permute::Forward4,
                ["b32", "b4e"] => Permute::Backward4,
                ["b32", "rc8"] => Permute::Replicate8,
                ["b32", "ecl"] => Permute::EdgeLeft,
                ["b32", "ecr"] => Permute::EdgeRight,
                ["b32", "rc16"] => Permute::Replicate16,
                ["b32"] => Permute::Index,
                _ => return Err("this form".into()),
            };
            return three(b, Op::Prmt(mode), o);
        }
        "shf" => {
            let (left, wrap) = match m.all {
                ["l", "wrap", "b32"] => (true, true),
                ["l", "clamp", "b32"] => (true, false),
                ["r", "wrap", "b32"] => (false, true),
                ["r", "clamp", "b32"] => (false, false),
                _ => return Err("this form".into()),
            };
            return three(b, Op::Funnel { left, wrap }, o);
        }
        "dp4a" | "dp2a" => {
            let signed: Vec<bool> = m.types().map(|ty| ty == "s32").collect();
            let [a_signed, b_signed] = signed[..] else {
                return Err("this form".into());
            };
            let op = if base == "dp4a" {
                Op::Dp4a { a_signed, b_signed }
            } else if m.has("lo") || m.has("hi") {
                Op::Dp2a {
                    a_signed,
                    b_signed,
                    high: m.has("hi"),
                }
            } else {
                return Err("neither .lo nor .hi".into());
            };
            return three(b, op, o);
        }
        "bmsk" | "szext" => {
            if m.has("wrap") == m.has("clamp") {
                return Err("neither .wrap nor .clamp".into());
            }
            let wrap = m.has("wrap");
            let signed = m.last_type()? == "s32";
            let op = if base == "bmsk" {
                Packed::Mask { wrap }
            } else {
                Packed::Extend { wrap, signed }
            };
            return packed(b, op, o, 2);
        }
        "fns" => return packed(b, Packed::NthSet, o, 3),
        _ => {}
    }
    if m.types().count() != 1 {
        return Err("this number of types".into());
    }
    let ty = m.last_type()?;
    let (relu, half) = (m.has("relu"), matches!(ty, "u16x2" | "s16x2"));
    if relu || half {
        let op = match base {
            "add" => PackedInt::Add,
            "min" => PackedInt::Min,
            "max" => PackedInt::Max,
            _ => return Err(format!("the type .{ty}")),
        };
        if relu && (op == PackedInt::Add || !matches!(ty, "s32" | "s16x2")) {
            return Err(format!("the modifier .relu with the type .{ty}"));
        }
        let op = Packed::Integer {
            op,
            signed: ty.starts_with('s'),
            relu,
            whole: !half,
        };
        return packed(b, op, o, 2);
    }
    let (width, signed) = integer_type(ty).ok_or_else(|| format!("the type .{ty}"))?;
    if ty.contains('f') {
        return Err(format!("the type .{ty}"));
    }
    if m.has("sat") && ty != "s32" {
        return Err(format!("the modifier .sat with the type .{ty}"));
    }
    if matches!(base, "mul24" | "mad24") {
        if m.has("hi") || m.has("sat") || width != Width::B32 {
            return Err("this form".into());
        }
        let d = destination(b, o, 0, Width::B32)?;
        let mut s = vec![source(b, o, 1, Width::B32)?, source(b, o, 2, Width::B32)?];
        if base == "mad24" {
            s.push(source(b, o, 3, Width::B32)?);
        }
        let add = base == "mad24";
        exactly(o, 1 + s.len())?;
        b.emit(Op::Mul24 { signed, add }, &[d], &s);
        return Ok(());
    }
    if m.has("wide") {
        let result = match width {
            Width::B16 => Width::B32,
            Width::B32 => Width::B64,
            Width::B64 => return Err(format!("the modifier .wide with the type .{ty}")),
        };
        let d = destination(b, o, 0, result)?;
        let mut s = vec![source(b, o, 1, width)?, source(b, o, 2, width)?];
        let add = base == "mad";
        if add {
            s.push(source(b, o, 3, result)?);
        }
        exactly(o, 1 + s.len())?;
        b.emit(
            Op::MulWide {
                from: width,
                signed,
                add,
            },
            &[d],
            &s,
        );
        return Ok(());
    }
    plain(b, base, m, o, width, signed)
}

/// What may stand beside the type.
fn modifiers(base: &str) -> &'static [&'static str] {
    match base {
        "mul" => &["lo", "hi", "wide"],
        "mad" => &["lo", "hi", "wide", "sat"],
        "mul24" | "mad24" => &["lo", "hi", "sat"],
        "add" | "sub" => &["sat"],
        "min" | "max" => &["relu"],
        "bfind" => &["shiftamt"],
        "dp2a" => &["lo", "hi"],
        "shf" => &["l", "r", "wrap", "clamp"],
        "bmsk" | "szext" => &["wrap", "clamp"],
        "prmt" => &["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"],
        _ => &[],
    }
}

/// `add.cc`, `addc`, `madc` and their kind. The condition code is a predicate register of the builder's.
fn carry(b: &mut Builder<'_>, base: &str, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    m.only(&["cc", "lo", "hi"])?;
    let ty = m.last_type()?;
    let (width, signed) = match integer_type(ty) {
        Some(found @ (Width::B32 | Width::B64, _)) if !ty.contains('f') => found,
        _ => return Err(format!("the type .{ty}")),
    };
    let (op, count) = match base {
        "add" | "addc" => (Carry::Add, 2),
        "sub" | "subc" => (Carry::Subtract, 2),
        "mad" | "madc" if m.has("hi") => (Carry::MultiplyHigh { signed }, 3),
        "mad" | "madc" if m.has("lo") => (Carry::MultiplyLow, 3),
        _ => return Err("this form".into()),
    };
    exactly(o, 1 + count)?;
    let (takes, gives) = (base.ends_with('c'), m.has("cc"));
    let flag = b.condition_code();
    let mut d = vec![destination(b, o, 0, width)?];
    if gives {
        d.push(flag);
    }
    let mut s = Vec::with_capacity(4);
    for index in 1..=count {
        s.push(source(b, o, index, width)?);
    }
    if takes {
        s.push(flag);
    }
    b.emit(
        Op::Carry {
            op,
            width,
            takes,
            gives,
        },
        &d,
        &s,
    );
    Ok(())
}

/// An operation on parts of registers of 32 bits.
pub(super) fn packed(b: &mut Builder<'_>, op: Packed, o: &[Operand], count: usize) -> Decoded {
    exactly(o, 1 + count)?;
    let d = destination(b, o, 0, Width::B32)?;
    let mut s = Vec::with_capacity(count);
    for index in 1..=count {
        s.push(source(b, o, index, Width::B32)?);
    }
    b.emit(Op::Packed(op), &[d], &s);
    Ok(())
}

fn three(b: &mut Builder<'_>, op: Op, o: &[Operand]) -> Decoded {
    exactly(o, 4)?;
    let d = destination(b, o, 0, Width::B32)?;
    let s = [
        source(b, o, 1, Width::B32)?,
        source(b, o, 2, Width::B32)?,
        source(b, o, 3, Width::B32)?,
    ];
    b.emit(op, &[d], &s);
    Ok(())
}

fn plain(
    b: &mut Builder<'_>,
    base: &str,
    m: Modifiers<'_>,
    o: &[Operand],
    width: Width,
    signed: bool,
) -> Decoded {
    let sat = m.has("sat");
    if matches!(base, "mul" | "mad") && !m.has("lo") && !m.has("hi") {
        return Err("none of .lo, .hi and .wide".into());
    }
    // Operand widths other than the type's: shift amounts and field bounds have 32 bits, counts are 32-bit results.
    let (op, narrow_sources, narrow_result): (Int, &[usize], bool) = match base {
        "add" if sat => (Int::AddSat, &[], false),
        "sub" if sat => (Int::SubSat, &[], false),
        "add" => (Int::Add, &[], false),
        "sub" => (Int::Sub, &[], false),
        "mul" if m.has("hi") => (Int::MulHigh, &[], false),
        "mul" => (Int::Mul, &[], false),
        "mad" if sat => return Err("the modifier .sat".into()),
        "mad" if m.has("hi") => (Int::MadHigh, &[], false),
        "mad" => (Int::Mad, &[], false),
        "div" => (Int::Div, &[], false),
        "rem" => (Int::Rem, &[], false),
        "min" => (Int::Min, &[], false),
        "max" => (Int::Max, &[], false),
        "and" => (Int::And, &[], false),
        "or" => (Int::Or, &[], false),
        "xor" => (Int::Xor, &[], false),
        "not" => (Int::Not, &[], false),
        "cnot" => (Int::CNot, &[], false),
        "neg" => (Int::Neg, &[], false),
        "abs" => (Int::Abs, &[], false),
        "shl" => (Int::Shl, &[2], false),
        "shr" => (Int::Shr, &[2], false),
        "popc" => (Int::Popc, &[], true),
        "clz" => (Int::Clz, &[], true),
        "brev" => (Int::Reverse, &[], false),
        "sad" => (Int::Sad, &[], false),
        "bfind" => (
            Int::Bfind {
                shift_amount: m.has("shiftamt"),
            },
            &[],
            true,
        ),
        "bfe" => (Int::Bfe, &[2, 3], false),
        "bfi" => (Int::Bfi, &[3, 4], false),
        _ => return Err("unknown instruction".into()),
    };
    let count = match op {
        Int::Not
        | Int::CNot
        | Int::Neg
        | Int::Abs
        | Int::Popc
        | Int::Clz
        | Int::Reverse
        | Int::Bfind { .. } => 1,
        Int::Mad | Int::MadHigh | Int::Sad | Int::Bfe => 3,
        Int::Bfi => 4,
        _ => 2,
    };
    let d = destination(b, o, 0, if narrow_result { Width::B32 } else { width })?;
    let mut s = Vec::with_capacity(count);
    for index in 1..=count {
        let width = if narrow_sources.contains(&index) {
            Width::B32
        } else {
            width
        };
        s.push(source(b, o, index, width)?);
    }
    exactly(o, 1 + count)?;
    b.emit(Op::Int { op, width, signed }, &[d], &s);
    Ok(())
}
