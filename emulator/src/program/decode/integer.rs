//! Integer arithmetic and bit fields.

use super::{Decoded, Modifiers, destination, integer_type, operand, source};
use crate::arith::int::Permute;
use crate::program::builder::Builder;
use crate::program::op::{Int, Op, Width};
use crate::ptx::ast::Operand;

pub(super) fn decode(b: &mut Builder<'_>, base: &str, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    match base {
        "lop3" => {
            let Some(Operand::Int(table)) = o.get(4) else {
                return Err("this form of lop3".into());
            };
            let d = destination(b, o, 0, Width::B32)?;
            let s = [
                source(b, o, 1, Width::B32)?,
                source(b, o, 2, Width::B32)?,
                source(b, o, 3, Width::B32)?,
            ];
            b.emit(Op::Lop3(*table as u8), &[d], &s);
            return Ok(());
        }
        "prmt" => {
            let mode = match m.all.last() {
                Some(&"f4e") => Permute::Forward4,
                Some(&"b4e") => Permute::Backward4,
                Some(&"rc8") => Permute::Replicate8,
                Some(&"ecl") => Permute::EdgeLeft,
                Some(&"ecr") => Permute::EdgeRight,
                Some(&"rc16") => Permute::Replicate16,
                _ => Permute::Index,
            };
            return three(b, Op::Prmt(mode), o);
        }
        "shf" => {
            return three(
                b,
                Op::Funnel {
                    left: m.has("l"),
                    wrap: m.has("wrap"),
                },
                o,
            );
        }
        "dp4a" | "dp2a" => {
            let signed: Vec<bool> = m.types().map(|ty| ty == "s32").collect();
            let [a_signed, b_signed] = signed[..] else {
                return Err("this form".into());
            };
            let op = if base == "dp4a" {
                Op::Dp4a { a_signed, b_signed }
            } else {
                Op::Dp2a {
                    a_signed,
                    b_signed,
                    high: m.has("hi"),
                }
            };
            return three(b, op, o);
        }
        _ => {}
    }
    m.only(&["lo", "hi", "wide", "sat", "shiftamt"])?;
    let ty = m.last_type()?;
    let (width, signed) = integer_type(ty).ok_or_else(|| format!("the type .{ty}"))?;
    if matches!(ty, "f16x2" | "bf16x2") || o.len() < 2 {
        return Err("this form".into());
    }
    let wide_result = match width {
        Width::B16 => Width::B32,
        Width::B32 => Width::B64,
        Width::B64 => return wide_or_plain(b, base, m, o, width, signed),
    };
    match base {
        "mul" if m.has("wide") => {
            let d = destination(b, o, 0, wide_result)?;
            let s = [source(b, o, 1, width)?, source(b, o, 2, width)?];
            b.emit(
                Op::MulWide {
                    from: width,
                    signed,
                    add: false,
                },
                &[d],
                &s,
            );
            Ok(())
        }
        "mad" if m.has("wide") => {
            let d = destination(b, o, 0, wide_result)?;
            let s = [
                source(b, o, 1, width)?,
                source(b, o, 2, width)?,
                source(b, o, 3, wide_result)?,
            ];
            b.emit(
                Op::MulWide {
                    from: width,
                    signed,
                    add: true,
                },
                &[d],
                &s,
            );
            Ok(())
        }
        "mul24" | "mad24" => {
            if m.has("hi") || m.has("sat") {
                return Err("this form".into());
            }
            let d = destination(b, o, 0, Width::B32)?;
            let mut s = vec![source(b, o, 1, Width::B32)?, source(b, o, 2, Width::B32)?];
            if base == "mad24" {
                s.push(source(b, o, 3, Width::B32)?);
            }
            b.emit(
                Op::Mul24 {
                    signed,
                    add: base == "mad24",
                },
                &[d],
                &s,
            );
            Ok(())
        }
        _ => wide_or_plain(b, base, m, o, width, signed),
    }
}

fn three(b: &mut Builder<'_>, op: Op, o: &[Operand]) -> Decoded {
    let d = destination(b, o, 0, Width::B32)?;
    let s = [
        source(b, o, 1, Width::B32)?,
        source(b, o, 2, Width::B32)?,
        source(b, o, 3, Width::B32)?,
    ];
    b.emit(op, &[d], &s);
    Ok(())
}

fn wide_or_plain(
    b: &mut Builder<'_>,
    base: &str,
    m: Modifiers<'_>,
    o: &[Operand],
    width: Width,
    signed: bool,
) -> Decoded {
    if m.has("wide") {
        return Err("this form".into());
    }
    let sat = m.has("sat");
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
    if operand(o, count + 1).is_ok() {
        return Err("too many operands".into());
    }
    b.emit(Op::Int { op, width, signed }, &[d], &s);
    Ok(())
}
