//! Floating-point arithmetic and approximations.

use super::{Decoded, Modifiers, destination, exactly, source};
use crate::arith::Round;
use crate::arith::approx::Approx;
use crate::program::builder::Builder;
use crate::program::op::{Float, Mode, Op, Precision, Width};
use crate::ptx::ast::Operand;

fn precision(ty: &str) -> Option<(Precision, Width)> {
    Some(match ty {
        "f32" => (Precision::F32, Width::B32),
        "f64" => (Precision::F64, Width::B64),
        "f16" => (Precision::F16, Width::B16),
        "bf16" => (Precision::Bf16, Width::B16),
        "f16x2" => (Precision::F16x2, Width::B32),
        "bf16x2" => (Precision::Bf16x2, Width::B32),
        _ => return None,
    })
}

fn mode(m: Modifiers<'_>) -> Mode {
    let round = if m.has("rz") {
        Round::Zero
    } else if m.has("rm") {
        Round::Down
    } else if m.has("rp") {
        Round::Up
    } else {
        Round::Near
    };
    Mode {
        round,
        ftz: m.has("ftz"),
        sat: m.has("sat"),
        nan: m.has("NaN"),
        relu: m.has("relu"),
        xorsign: m.has("xorsign"),
        approx: false,
    }
}

/// What may stand beside the type, by format: an instruction that has a modifier in one may not have it in another.
fn modifiers(base: &str, precision: Precision) -> &'static [&'static str] {
    use Precision::{Bf16, Bf16x2, F16, F16x2, F32, F64};
    match (base, precision) {
        ("add" | "sub" | "mul" | "fma" | "mad", F32) => &["rn", "rz", "rm", "rp", "ftz", "sat"],
        ("add" | "sub" | "mul" | "fma" | "mad", F64) => &["rn", "rz", "rm", "rp"],
        ("add" | "sub" | "mul", F16 | F16x2) => &["rn", "ftz", "sat"],
        ("add" | "sub" | "mul", Bf16 | Bf16x2) => &["rn"],
        ("fma", F16 | F16x2) => &["rn", "ftz", "sat", "relu"],
        ("fma", Bf16 | Bf16x2) => &["rn", "relu"],
        ("div", F32) => &["rn", "rz", "rm", "rp", "ftz", "approx", "full"],
        ("rcp" | "sqrt", F32) => &["rn", "rz", "rm", "rp", "ftz", "approx"],
        ("div" | "rcp" | "sqrt", F64) => &["rn", "rz", "rm", "rp"],
        ("min" | "max", F32 | F16 | F16x2) => &["ftz", "NaN", "xorsign", "abs"],
        ("min" | "max", Bf16 | Bf16x2) => &["NaN", "xorsign", "abs"],
        ("neg" | "abs", F32 | F16 | F16x2) => &["ftz"],
        _ => &[],
    }
}

pub(super) fn decode(b: &mut Builder<'_>, base: &str, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let ty = m.last_type()?;
    if m.types().count() != 1 {
        return Err("mixed precision".into());
    }
    let (precision, width) = precision(ty).ok_or_else(|| format!("the type .{ty}"))?;
    if base == "rcp" && precision == Precision::F64 && m.has("approx") {
        return approximate_double(b, m, o, false);
    }
    m.only(modifiers(base, precision))
        .map_err(|what| format!("{what} with the type .{ty}"))?;
    let (op, count) = match base {
        "add" => (Float::Add, 2),
        "sub" => (Float::Sub, 2),
        "mul" => (Float::Mul, 2),
        "fma" | "mad" => (Float::Fma, 3),
        "div" => (Float::Div, 2),
        "min" => (Float::Min, 2),
        "max" => (Float::Max, 2),
        "neg" => (Float::Neg, 1),
        "abs" => (Float::Abs, 1),
        "sqrt" => (Float::Sqrt, 1),
        "rcp" => (Float::Reciprocal, 1),
        "copysign" => (Float::CopySign, 2),
        _ => return Err("unknown instruction".into()),
    };
    let is_half = !matches!(precision, Precision::F32 | Precision::F64);
    if is_half
        && matches!(
            op,
            Float::Div | Float::Sqrt | Float::Reciprocal | Float::CopySign
        )
    {
        return Err(format!("the type .{ty}"));
    }
    if base == "mad" && is_half {
        return Err(format!("the type .{ty}"));
    }
    if m.has("xorsign") != m.has("abs") {
        return Err("one of .xorsign and .abs without the other".into());
    }
    if matches!(op, Float::Min | Float::Max) && o.len() == 4 {
        return Err("three inputs".into());
    }
    exactly(o, 1 + count)?;
    let mode = Mode {
        approx: op == Float::Div && m.has("approx"),
        ..mode(m)
    };
    let d = destination(b, o, 0, width)?;
    let mut s = Vec::with_capacity(3);
    for index in 1..=count {
        s.push(source(b, o, index, width)?);
    }
    b.emit(
        Op::Float {
            op,
            precision,
            mode,
        },
        &[d],
        &s,
    );
    Ok(())
}

pub(super) fn approximation(
    b: &mut Builder<'_>,
    base: &str,
    m: Modifiers<'_>,
    o: &[Operand],
) -> Decoded {
    m.only(&["approx", "ftz"])?;
    if !m.has("approx") {
        return Err("without .approx".into());
    }
    let function = match base {
        "ex2" => Approx::Exp2,
        "lg2" => Approx::Log2,
        "sin" => Approx::Sin,
        "cos" => Approx::Cos,
        "tanh" => Approx::Tanh,
        _ => Approx::ReciprocalRoot,
    };
    let ty = m.last_type()?;
    let ftz = m.has("ftz");
    let (precision, width) = precision(ty).ok_or_else(|| format!("the type .{ty}"))?;
    if base == "rsqrt" && precision == Precision::F64 {
        return approximate_double(b, m, o, true);
    }
    if base == "tanh" && ftz {
        return Err("the modifier .ftz".into());
    }
    exactly(o, 2)?;
    let op = match precision {
        Precision::F32 => Op::Approx { function, ftz },
        Precision::F64 => return Err("the type .f64".into()),
        _ if matches!(function, Approx::Exp2 | Approx::Tanh) => Op::ApproxHalf {
            function,
            precision,
            ftz,
        },
        _ => return Err(format!("the type .{ty}")),
    };
    let d = destination(b, o, 0, width)?;
    let s = [source(b, o, 1, width)?];
    b.emit(op, &[d], &s);
    Ok(())
}

/// `rcp.approx.ftz.f64`, and `rsqrt.approx.f64` with or without `.ftz`: what the compiler begins a division or a root with.
fn approximate_double(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand], root: bool) -> Decoded {
    m.only(&["approx", "ftz"])?;
    if !root && !m.has("ftz") {
        return Err("without .ftz".into());
    }
    exactly(o, 2)?;
    let d = destination(b, o, 0, Width::B64)?;
    let s = [source(b, o, 1, Width::B64)?];
    let coarse = m.has("ftz");
    b.emit(Op::ApproxDouble { root, coarse }, &[d], &s);
    Ok(())
}
