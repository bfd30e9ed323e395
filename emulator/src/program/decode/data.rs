//! Moves, conversions, comparisons and selections.

use super::{
    Decoded, Modifiers, destination, destination_operand, elements, exactly, integer_type, operand,
    predicate_destination, predicate_source, register_width, source, source_operand,
};
use crate::arith::Round;
use crate::arith::convert::{Conversion, Kind};
use crate::arith::float::Test;
use crate::program::builder::{Builder, Reg, RegKind};
use crate::program::op::{Bool, Compare, CompareType, HalfType, Op, Packed, Width};
use crate::ptx::ast::Operand;

/// Bits of a width.
fn bits(width: Width) -> u32 {
    match width {
        Width::B16 => 16,
        Width::B32 => 32,
        Width::B64 => 64,
    }
}

pub(super) fn mov(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    m.only(&[])?;
    exactly(o, 2)?;
    let ty = m.last_type()?;
    if ty == "pred" {
        let d = predicate_destination(b, operand(o, 0)?)?;
        let (s, negated) = predicate_source(b, operand(o, 1)?)?;
        b.emit(
            Op::Pred(if negated { Bool::Not } else { Bool::Copy }),
            &[d],
            &[s],
        );
        return Ok(());
    }
    let (width, _) = integer_type(ty).ok_or_else(|| format!("the type .{ty}"))?;
    match (operand(o, 0)?, operand(o, 1)?) {
        (Operand::Vector(parts), from) => {
            let part = bits(width) / parts.len().max(1) as u32;
            let part_width = part_width(part)?;
            let s = source_operand(b, from, width)?;
            let mut d = Vec::new();
            for part in parts {
                d.push(destination_operand(b, part, part_width)?);
            }
            b.emit(Op::Unpack { bits: part, width }, &d, &[s]);
        }
        (to, Operand::Vector(parts)) => {
            let part = bits(width) / parts.len().max(1) as u32;
            let part_width = part_width(part)?;
            let d = destination_operand(b, to, width)?;
            let mut s = Vec::new();
            for part in parts {
                s.push(source_operand(b, part, part_width)?);
            }
            b.emit(Op::Pack { bits: part, width }, &[d], &s);
        }
        (to, from) => {
            let d = destination_operand(b, to, width)?;
            let s = source_operand(b, from, width)?;
            b.emit(Op::Mov(width), &[d], &[s]);
        }
    }
    Ok(())
}

fn part_width(bits: u32) -> Result<Width, String> {
    match bits {
        8 | 16 => Ok(Width::B16),
        32 => Ok(Width::B32),
        _ => Err("a vector of this size".into()),
    }
}

pub(super) fn logic(b: &mut Builder<'_>, base: &str, o: &[Operand]) -> Decoded {
    let d = predicate_destination(b, operand(o, 0)?)?;
    let op = match base {
        "and" => Bool::And,
        "or" => Bool::Or,
        "xor" => Bool::Xor,
        _ => Bool::Not,
    };
    let mut s = Vec::new();
    for operand in o.iter().skip(1).take(if op == Bool::Not { 1 } else { 2 }) {
        s.push(positive(b, operand)?);
    }
    exactly(o, if op == Bool::Not { 2 } else { 3 })?;
    b.emit(Op::Pred(op), &[d], &s);
    Ok(())
}

/// A predicate source; a negated one is inverted into a register of its own first.
pub(super) fn positive(b: &mut Builder<'_>, operand: &Operand) -> Result<Reg, String> {
    let (reg, negated) = predicate_source(b, operand)?;
    if !negated {
        return Ok(reg);
    }
    let inverted = b.fresh(RegKind::Predicate);
    let guard = b.guard.take();
    b.emit(Op::Pred(Bool::Not), &[inverted], &[reg]);
    b.guard = guard;
    Ok(inverted)
}

pub(super) fn cvt(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    m.only(&[
        "rn",
        "rz",
        "rm",
        "rp",
        "rna",
        "rni",
        "rzi",
        "rmi",
        "rpi",
        "ftz",
        "sat",
        "satfinite",
        "relu",
    ])?;
    let types: Vec<&str> = m.types().collect();
    let [to, from] = types[..] else {
        return Err("this form".into());
    };
    exactly(
        o,
        if to.ends_with("x2") && !from.ends_with("x2") {
            3
        } else {
            2
        },
    )?;
    let integral = ["rni", "rzi", "rmi", "rpi"].iter().any(|name| m.has(name));
    let is_float = |ty: &str| matches!(Kind::parse(ty), Some(Kind::Float(_)));
    if integral && is_float(to) && to != from {
        return Err("rounding to an integer between two floating-point types".into());
    }
    let element = to.strip_suffix("x2").unwrap_or(to);
    if m.has("relu") && !matches!(element, "f16" | "bf16" | "tf32" | "e4m3" | "e5m2") {
        return Err(format!("the modifier .relu with the type .{to}"));
    }
    if m.has("ftz") && to != "f32" && from != "f32" {
        return Err("the modifier .ftz without the type .f32".into());
    }
    let round = if m.has("rz") || m.has("rzi") {
        Round::Zero
    } else if m.has("rm") || m.has("rmi") {
        Round::Down
    } else if m.has("rp") || m.has("rpi") {
        Round::Up
    } else if m.has("rna") {
        Round::NearAway
    } else {
        Round::Near
    };
    let conversion = |to: &str, from: &str| -> Result<Conversion, String> {
        Ok(Conversion {
            from: Kind::parse(from).ok_or_else(|| format!("the type .{from}"))?,
            to: Kind::parse(to).ok_or_else(|| format!("the type .{to}"))?,
            round,
            integral,
            ftz: m.has("ftz"),
            sat: m.has("sat"),
            satfinite: m.has("satfinite"),
            relu: m.has("relu"),
        })
    };
    match (to.strip_suffix("x2"), from.strip_suffix("x2")) {
        (Some(to_element), None) => {
            // Two f32 to one register.
            let narrow = matches!(to_element, "e4m3" | "e5m2");
            let d = destination(b, o, 0, if narrow { Width::B16 } else { Width::B32 })?;
            let s = [source(b, o, 1, Width::B32)?, source(b, o, 2, Width::B32)?];
            b.emit(Op::ConvertPack(conversion(to_element, from)?), &[d], &s);
        }
        (Some(to_element), Some(from_element)) => {
            let conversion = conversion(to_element, from_element)?;
            let widens = matches!(from_element, "e4m3" | "e5m2");
            let narrows = matches!(to_element, "e4m3" | "e5m2");
            if widens == narrows {
                return Err("this pair of types".into());
            }
            let d = destination(b, o, 0, if narrows { Width::B16 } else { Width::B32 })?;
            let s = [source(
                b,
                o,
                1,
                if widens { Width::B16 } else { Width::B32 },
            )?];
            b.emit(Op::ConvertUnpack(conversion), &[d], &s);
        }
        (None, Some(_)) => return Err("this pair of types".into()),
        (None, None) => {
            let conversion = conversion(to, from)?;
            if matches!(to, "e4m3" | "e5m2") || matches!(from, "e4m3" | "e5m2") {
                return Err("this pair of types".into());
            }
            // A register may be wider than the type it is used with.
            let width = |b: &mut Builder<'_>, index: usize, ty: &str| -> Result<Width, String> {
                let by_type = integer_type(ty).map_or(Width::B32, |(width, _)| width);
                Ok(register_width(b, operand(o, index)?).unwrap_or(by_type))
            };
            let to_width = width(b, 0, to)?;
            let from_width = width(b, 1, from)?;
            let d = destination(b, o, 0, to_width)?;
            let s = source(b, o, 1, from_width)?;
            b.emit(
                Op::Convert {
                    conversion,
                    from: from_width,
                    to: to_width,
                },
                &[d],
                &[s],
            );
        }
    }
    Ok(())
}

fn comparison(m: Modifiers<'_>) -> Option<Compare> {
    m.all.iter().find_map(|name| {
        Some(match *name {
            "eq" => Compare::Eq,
            "ne" => Compare::Ne,
            "lt" | "lo" => Compare::Lt,
            "le" | "ls" => Compare::Le,
            "gt" | "hi" => Compare::Gt,
            "ge" | "hs" => Compare::Ge,
            "equ" => Compare::EqU,
            "neu" => Compare::NeU,
            "ltu" => Compare::LtU,
            "leu" => Compare::LeU,
            "gtu" => Compare::GtU,
            "geu" => Compare::GeU,
            "num" => Compare::Num,
            "nan" => Compare::Nan,
            _ => return None,
        })
    })
}

fn compare_type(ty: &str, ftz: bool) -> Result<(CompareType, Width), String> {
    if ftz && !matches!(ty, "f32" | "f16") {
        return Err(format!("the modifier .ftz with the type .{ty}"));
    }
    Ok(match ty {
        "f32" => (CompareType::F32 { ftz }, Width::B32),
        "f64" => (CompareType::F64, Width::B64),
        "f16" => (CompareType::F16 { ftz }, Width::B16),
        "bf16" => (CompareType::Bf16, Width::B16),
        "f16x2" | "bf16x2" | "pred" => return Err(format!("the type .{ty}")),
        _ => {
            let (width, signed) = integer_type(ty).ok_or_else(|| format!("the type .{ty}"))?;
            (
                if signed {
                    CompareType::Signed(width)
                } else {
                    CompareType::Unsigned(width)
                },
                width,
            )
        }
    })
}

fn combination(m: Modifiers<'_>) -> Option<Bool> {
    if m.has("and") {
        Some(Bool::And)
    } else if m.has("or") {
        Some(Bool::Or)
    } else if m.has("xor") {
        Some(Bool::Xor)
    } else {
        None
    }
}

const COMPARE_MODIFIERS: &[&str] = &[
    "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu",
    "geu", "num", "nan", "and", "or", "xor", "ftz",
];

/// The comparison of a type: the unordered ones and `.num` exist for floating point, `.lo` and its kind for unsigned integers.
fn checked_comparison(m: Modifiers<'_>, ty: &str) -> Result<Compare, String> {
    m.only(COMPARE_MODIFIERS)?;
    let op = comparison(m).ok_or("this comparison")?;
    let is_float = ty.contains('f');
    let of_floats = !matches!(
        op,
        Compare::Eq | Compare::Ne | Compare::Lt | Compare::Le | Compare::Gt | Compare::Ge
    );
    let is_unsigned = ["lo", "ls", "hi", "hs"].iter().any(|name| m.has(name));
    if of_floats && !is_float || is_unsigned && !ty.starts_with('u') {
        return Err(format!("this comparison with the type .{ty}"));
    }
    Ok(op)
}

/// The format of packed halves.
fn half_type(ty: &str, ftz: bool) -> Option<HalfType> {
    match ty {
        "f16x2" => Some(HalfType::F16 { ftz }),
        "bf16x2" if !ftz => Some(HalfType::Bf16),
        _ => None,
    }
}

/// An operation with a predicate, and whether that is negated.
type Combine = Option<(Bool, bool)>;

/// The two values of a comparison, and the predicate that its result is combined with.
fn compared(
    b: &mut Builder<'_>,
    m: Modifiers<'_>,
    o: &[Operand],
    width: Width,
) -> Result<(Vec<Reg>, Combine), String> {
    let combine = combination(m);
    exactly(o, 3 + usize::from(combine.is_some()))?;
    let mut s = vec![source(b, o, 1, width)?, source(b, o, 2, width)?];
    let Some(op) = combine else {
        return Ok((s, None));
    };
    let (reg, negated) = predicate_source(b, operand(o, 3)?)?;
    s.push(reg);
    Ok((s, Some((op, negated))))
}

pub(super) fn setp(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let name = m.last_type()?;
    let op = checked_comparison(m, name)?;
    if m.types().count() != 1 {
        return Err("this number of types".into());
    }
    let mut d = Vec::new();
    match operand(o, 0)? {
        Operand::Pair(p, q) => {
            d.push(predicate_destination(b, p)?);
            d.push(predicate_destination(b, q)?);
        }
        p => d.push(predicate_destination(b, p)?),
    }
    if let Some(half) = half_type(name, m.has("ftz")) {
        if d.len() != 2 {
            return Err("one destination for two halves".into());
        }
        let (s, combine) = compared(b, m, o, Width::B32)?;
        let op = Packed::Compare { op, half, combine };
        b.emit(Op::Packed(op), &d, &s);
        return Ok(());
    }
    let (ty, width) = compare_type(name, m.has("ftz"))?;
    let (s, combine) = compared(b, m, o, width)?;
    b.emit(
        Op::Compare {
            op,
            ty,
            combine,
            second: d.len() == 2,
        },
        &d,
        &s,
    );
    Ok(())
}

pub(super) fn set(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let types: Vec<&str> = m.types().collect();
    let [to, from] = types[..] else {
        return Err("this number of types".into());
    };
    let op = checked_comparison(m, from)?;
    if let Some(half) = half_type(from, m.has("ftz")) {
        let one = match to {
            "f16x2" => 0x3c00,
            "bf16x2" => 0x3f80,
            "u32" | "s32" => 0xffff,
            _ => return Err(format!("the type .{to}")),
        };
        let d = destination(b, o, 0, Width::B32)?;
        let (s, combine) = compared(b, m, o, Width::B32)?;
        let op = Packed::Set {
            op,
            half,
            one,
            combine,
        };
        b.emit(Op::Packed(op), &[d], &s);
        return Ok(());
    }
    let (one, to_width) = match to {
        "u32" | "s32" => (u32::MAX, Width::B32),
        "f32" => (1f32.to_bits(), Width::B32),
        "u16" | "s16" => (0xffff, Width::B16),
        "f16" => (0x3c00, Width::B16),
        "bf16" => (0x3f80, Width::B16),
        _ => return Err(format!("the type .{to}")),
    };
    let (ty, width) = compare_type(from, m.has("ftz"))?;
    let d = destination(b, o, 0, to_width)?;
    let (s, combine) = compared(b, m, o, width)?;
    b.emit(
        Op::Set {
            op,
            ty,
            one,
            combine,
        },
        &[d],
        &s,
    );
    Ok(())
}

pub(super) fn selp(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    m.only(&[])?;
    exactly(o, 4)?;
    let ty = m.last_type()?;
    let (width, _) = integer_type(ty).ok_or_else(|| format!("the type .{ty}"))?;
    let d = destination(b, o, 0, width)?;
    let (p, negated) = predicate_source(b, operand(o, 3)?)?;
    let (first, second) = if negated { (2, 1) } else { (1, 2) };
    let s = [source(b, o, first, width)?, source(b, o, second, width)?, p];
    b.emit(Op::Select(width), &[d], &s);
    Ok(())
}

/// `slct d, a, b, c`: a where c ≥ 0.
pub(super) fn slct(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    m.only(&["ftz"])?;
    exactly(o, 4)?;
    let types: Vec<&str> = m.types().collect();
    let [ty, by] = types[..] else {
        return Err("this form".into());
    };
    let (width, _) = integer_type(ty).ok_or_else(|| format!("the type .{ty}"))?;
    let compare = match by {
        "s32" if !m.has("ftz") => CompareType::Signed(Width::B32),
        "f32" => CompareType::F32 { ftz: m.has("ftz") },
        _ => return Err(format!("the type .{by}")),
    };
    let d = destination(b, o, 0, width)?;
    let s = [source(b, o, 1, width)?, source(b, o, 2, width)?];
    let c = source(b, o, 3, Width::B32)?;
    let zero = b.bits(0, Width::B32);
    let p = b.fresh(RegKind::Predicate);
    let guard = b.guard.take();
    b.emit(
        Op::Compare {
            op: Compare::Ge,
            ty: compare,
            combine: None,
            second: false,
        },
        &[p],
        &[c, zero],
    );
    b.guard = guard;
    b.emit(Op::Select(width), &[d], &[s[0], s[1], p]);
    Ok(())
}

pub(super) fn testp(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let (test, ty) = match *m.all {
        [test, ty] => (test, ty),
        _ => return Err("this form".into()),
    };
    let test = match test {
        "finite" => Test::Finite,
        "infinite" => Test::Infinite,
        "number" => Test::Number,
        "notanumber" => Test::NotANumber,
        "normal" => Test::Normal,
        "subnormal" => Test::Subnormal,
        _ => return Err(format!("the modifier .{test}")),
    };
    let (width, wide) = match ty {
        "f32" => (Width::B32, false),
        "f64" => (Width::B64, true),
        _ => return Err(format!("the type .{ty}")),
    };
    exactly(o, 2)?;
    let d = predicate_destination(b, operand(o, 0)?)?;
    let s = source(b, o, 1, width)?;
    b.emit(Op::Test { test, wide }, &[d], &[s]);
    Ok(())
}

/// Unused parts of a vector become sinks; kept for vector loads.
pub(super) fn vector(
    b: &mut Builder<'_>,
    operand: &Operand,
    width: Width,
    is_destination: bool,
) -> Result<Vec<Reg>, String> {
    elements(operand)
        .iter()
        .map(|element| {
            if is_destination {
                destination_operand(b, element, width)
            } else {
                source_operand(b, element, width)
            }
        })
        .collect()
}
