//! The video instructions: `vadd` and its kind, `vadd2`, `vadd4`.

use super::integer::packed;
use super::{Decoded, Modifiers, destination, operand, source};
use crate::program::builder::Builder;
use crate::program::op::{Compare, Op, Packed, Part, Second, Selection, Video, VideoOp, Width};
use crate::ptx::ast::Operand;

/// Whether a base opcode is one of them.
pub(super) fn is_video(base: &str) -> bool {
    let name = base.trim_end_matches(['2', '4']);
    operation(name).is_some() || name == "vset"
}

fn operation(name: &str) -> Option<VideoOp> {
    Some(match name {
        "vadd" => VideoOp::Add,
        "vsub" => VideoOp::Subtract,
        "vabsdiff" => VideoOp::AbsoluteDifference,
        "vmin" => VideoOp::Min,
        "vmax" => VideoOp::Max,
        "vavrg" => VideoOp::Average,
        _ => return None,
    })
}

fn comparison(m: Modifiers<'_>) -> Option<Compare> {
    m.all.iter().find_map(|name| {
        Some(match *name {
            "eq" => Compare::Eq,
            "ne" => Compare::Ne,
            "lt" => Compare::Lt,
            "le" => Compare::Le,
            "gt" => Compare::Gt,
            "ge" => Compare::Ge,
            _ => return None,
        })
    })
}

pub(super) fn decode(b: &mut Builder<'_>, base: &str, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let name = base.trim_end_matches(['2', '4']);
    let parts = match base.as_bytes().last() {
        Some(b'2') => 2,
        Some(b'4') => 4,
        _ => 1,
    };
    if parts == 1 && name == "vavrg" {
        return Err("unknown instruction".into());
    }
    let mut signed = Vec::new();
    for ty in m.types() {
        signed.push(match ty {
            "s32" => true,
            "u32" => false,
            _ => return Err(format!("the type .{ty}")),
        });
    }
    // `vset` has no type for its result, which is 0 or 1.
    let (op, of_result, of_a, of_b) = match (operation(name), signed[..].as_ref()) {
        (Some(op), &[result, a, b]) => (op, result, a, b),
        (None, &[a, b]) => {
            let compare = comparison(m).ok_or("this comparison")?;
            (VideoOp::Set(compare), false, a, b)
        }
        _ => return Err("this number of types".into()),
    };
    m.only(match (name, parts) {
        ("vset", 1) => &["eq", "ne", "lt", "le", "gt", "ge", "add", "min", "max"],
        ("vset", _) => &["eq", "ne", "lt", "le", "gt", "ge", "add"],
        (_, 1) => &["sat", "add", "min", "max"],
        _ => &["sat", "add"],
    })?;
    let second = if m.has("add") {
        Some(Second::Add)
    } else if m.has("min") {
        Some(Second::Min)
    } else if m.has("max") {
        Some(Second::Max)
    } else {
        None
    };
    let ((d, d_suffix), (a, a_suffix), (c, b_suffix)) = (split(o, 0)?, split(o, 1)?, split(o, 2)?);
    let mut operands = vec![d, a, c];
    operands.extend(o.iter().skip(3).cloned());
    let selection = |signed, suffix, first| -> Result<Selection, String> {
        Ok(Selection {
            signed,
            part: if parts == 1 {
                part(suffix)?
            } else {
                Part::WHOLE
            },
            from: if parts == 1 {
                [0; 4]
            } else {
                places(suffix, parts, first)?
            },
        })
    };
    let video = Video {
        op,
        parts,
        signed: of_result,
        a: selection(of_a, a_suffix, 0)?,
        b: selection(of_b, b_suffix, parts)?,
        saturate: m.has("sat"),
        second,
        into: if parts == 1 {
            part(d_suffix)?
        } else {
            Part::WHOLE
        },
        mask: if parts == 1 {
            1
        } else {
            mask(d_suffix, parts)?
        },
    };
    // A scalar has a third operand where it goes on with it, or is put into it.
    let needs_third = parts > 1 || second.is_some() || video.into != Part::WHOLE;
    if second.is_some() && video.into != Part::WHOLE {
        return Err("a second operation on a part".into());
    }
    packed(
        b,
        Packed::Video(video),
        &operands,
        if needs_third { 3 } else { 2 },
    )
}

/// A register's name and what follows its dot.
fn split(o: &[Operand], index: usize) -> Result<(Operand, Option<&str>), String> {
    match operand(o, index)? {
        Operand::Name(name) if !name.starts_with("%tid") && !name.starts_with("%ntid") => {
            match name.split_once('.') {
                Some((register, suffix)) => Ok((Operand::Name(register.to_owned()), Some(suffix))),
                None => Ok((Operand::Name(name.clone()), None)),
            }
        }
        other => Ok((other.clone(), None)),
    }
}

/// `.b0` to `.b3`, `.h0` and `.h1`.
fn part(suffix: Option<&str>) -> Result<Part, String> {
    Ok(match suffix {
        None => Part::WHOLE,
        Some("b0") => Part { shift: 0, bits: 8 },
        Some("b1") => Part { shift: 8, bits: 8 },
        Some("b2") => Part { shift: 16, bits: 8 },
        Some("b3") => Part { shift: 24, bits: 8 },
        Some("h0") => Part { shift: 0, bits: 16 },
        Some("h1") => Part {
            shift: 16,
            bits: 16,
        },
        Some(other) => return Err(format!("the part .{other}")),
    })
}

/// `.h10` or `.b7654`, highest first; without it the operand's own parts in order.
fn places(suffix: Option<&str>, parts: u8, first: u8) -> Result<[u8; 4], String> {
    let mut places = [0, 1, 2, 3].map(|part| part + first);
    if let Some(suffix) = suffix {
        let wrong = || format!("the parts .{suffix}");
        let digits = digits(suffix, parts, 2 * parts).ok_or_else(wrong)?;
        if digits.len() != usize::from(parts) {
            return Err(wrong());
        }
        places[..digits.len()].copy_from_slice(&digits);
    }
    Ok(places)
}

/// Which parts of the destination are written.
fn mask(suffix: Option<&str>, parts: u8) -> Result<u8, String> {
    let Some(suffix) = suffix else {
        return Ok((1 << parts) - 1);
    };
    let digits = digits(suffix, parts, parts).ok_or_else(|| format!("the parts .{suffix}"))?;
    Ok(digits.iter().fold(0, |mask, digit| mask | 1 << digit))
}

/// The digits behind `h` or `b`, last first, each below `end`.
fn digits(suffix: &str, parts: u8, end: u8) -> Option<Vec<u8>> {
    let letter = if parts == 2 { 'h' } else { 'b' };
    let digits = suffix.strip_prefix(letter)?;
    digits
        .bytes()
        .rev()
        .map(|digit| digit.checked_sub(b'0').filter(|&digit| digit < end))
        .collect()
}

/// `cvt.pack.sat`: two integers of 32 bits saturated and put side by side, with what a third register has above them.
pub(super) fn pack(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let (to, has_third) = match *m.all {
        ["pack", "sat", to, "s32"] => (to, false),
        ["pack", "sat", to, "s32", "b32"] => (to, true),
        _ => return Err("this form".into()),
    };
    let signed = to.starts_with('s');
    let bits = match (to.trim_start_matches(['u', 's']), has_third) {
        ("16", false) => 16,
        ("8", true) => 8,
        ("4", true) => 4,
        ("2", true) => 2,
        _ => return Err(format!("the type .{to}")),
    };
    let op = Packed::Saturate { bits, signed };
    packed(b, op, o, if has_third { 3 } else { 2 })
}

/// `createpolicy`: caches are not emulated, so that every policy is the same.
pub(super) fn create_policy(b: &mut Builder<'_>, o: &[Operand]) -> Decoded {
    let d = destination(b, o, 0, Width::B64)?;
    let none = source(b, &[Operand::Int(0)], 0, Width::B64)?;
    b.emit(Op::Mov(Width::B64), &[d], &[none]);
    Ok(())
}
