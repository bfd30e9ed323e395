//! Floating-point arithmetic and approximations.

use super::{Decoded, Modifiers, destination, source};
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

pub(super) fn mode(m: Modifiers<'_>) -> Mode {
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
    }
}

pub(super) fn decode(b: &mut Builder<'_>, base: &str, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    m.only(&[
        "rn", "rz", "rm", "rp", "ftz", "sat", "NaN", "relu", "approx", "full",
    ])?;
    let ty = m.last_type()?;
    if m.types().count() != 1 {
        return Err("mixed precision".into());
    }
    let (precision, width) = precision(ty).ok_or_else(|| format!("the type .{ty}"))?;
    let mode = mode(m);
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
    if is_half && mode.round != Round::Near
        || precision == Precision::F64 && (mode.ftz && base != "rcp" || mode.sat)
    {
        return Err("this combination of modifiers".into());
    }
    if matches!(op, Float::Min | Float::Max) && (m.has("xorsign") || o.len() > 3) {
        return Err("this form".into());
    }
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
    let function = match base {
        "ex2" => Approx::Exp2,
        "lg2" => Approx::Log2,
        "sin" => Approx::Sin,
        "cos" => Approx::Cos,
        "tanh" => Approx::Tanh,
        _ => Approx::ReciprocalRoot,
    };
    let ty = m.last_type()?;
    let (precision, width) = precision(ty).ok_or_else(|| format!("the type .{ty}"))?;
    let d = destination(b, o, 0, width)?;
    let s = [source(b, o, 1, width)?];
    match precision {
        Precision::F32 => b.emit(
            Op::Approx {
                function,
                ftz: m.has("ftz"),
            },
            &[d],
            &s,
        ),
        Precision::F64 => return Err("the type .f64".into()),
        _ if matches!(function, Approx::Exp2 | Approx::Tanh) => {
            b.emit(
                Op::ApproxHalf {
                    function,
                    precision,
                },
                &[d],
                &s,
            );
        }
        _ => return Err(format!("the type .{ty}")),
    }
    Ok(())
}
