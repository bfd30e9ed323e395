//! Matrix instructions of a warp.

use super::data::vector;
use super::{Decoded, Modifiers, address, destination, elements, operand, source};
use crate::program::builder::Builder;
use crate::program::op::{Access, Accumulator, Element, Mma, Op, Order, Scope, Space, Width};
use crate::ptx::ast::Operand;

pub(super) fn element(ty: &str) -> Option<Element> {
    Some(match ty {
        "f16" => Element::F16,
        "bf16" => Element::Bf16,
        "tf32" => Element::Tf32,
        "e4m3" => Element::E4m3,
        "e5m2" => Element::E5m2,
        "s8" => Element::S8,
        "u8" => Element::U8,
        "f64" => Element::F64,
        _ => return None,
    })
}

pub(super) fn accumulator(ty: &str) -> Option<Accumulator> {
    Some(match ty {
        "f32" => Accumulator::F32,
        "f16" => Accumulator::F16,
        "s32" => Accumulator::S32,
        "f64" => Accumulator::F64,
        _ => return None,
    })
}

/// `mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32`.
pub(super) fn mma(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    if m.has("sp") || m.has("block_scale") || m.has("xor") || m.has("and") {
        return Err("this form".into());
    }
    let shape = m
        .all
        .iter()
        .find(|name| name.starts_with('m') && name.contains('n'))
        .ok_or("no shape")?;
    let types: Vec<&str> = m.types().collect();
    let [d_ty, a_ty, b_ty, c_ty] = types[..] else {
        return Err("this form".into());
    };
    let a = element(a_ty).ok_or_else(|| format!("the type .{a_ty}"))?;
    let b_element = element(b_ty).ok_or_else(|| format!("the type .{b_ty}"))?;
    let accumulator = accumulator(d_ty).ok_or_else(|| format!("the type .{d_ty}"))?;
    let (n, k) = match *shape {
        "m16n8k4" => (8, 4),
        "m16n8k8" => (8, 8),
        "m16n8k16" => (8, 16),
        "m16n8k32" => (8, 32),
        _ => return Err(format!("the shape {shape}")),
    };
    let is_known = match a {
        Element::F16 => {
            matches!(k, 8 | 16)
                && b_element == a
                && matches!(accumulator, Accumulator::F32 | Accumulator::F16)
        }
        Element::Bf16 => matches!(k, 8 | 16) && b_element == a && accumulator == Accumulator::F32,
        Element::Tf32 => matches!(k, 4 | 8) && b_element == a && accumulator == Accumulator::F32,
        Element::S8 | Element::U8 => {
            matches!(k, 16 | 32)
                && matches!(b_element, Element::S8 | Element::U8)
                && accumulator == Accumulator::S32
        }
        Element::E4m3 | Element::E5m2 => {
            k == 32
                && matches!(b_element, Element::E4m3 | Element::E5m2)
                && accumulator == Accumulator::F32
        }
        Element::F64 => false,
    };
    if !is_known || d_ty != c_ty || !m.has("row") || !m.has("col") {
        return Err("this combination of shape and types".into());
    }
    let d = vector(b, operand(o, 0)?, Width::B32, true)?;
    let mut s = vector(b, operand(o, 1)?, Width::B32, false)?;
    let b_registers = vector(b, operand(o, 2)?, Width::B32, false)?;
    let c = vector(b, operand(o, 3)?, Width::B32, false)?;
    let element_bytes = match a {
        Element::F16 | Element::Bf16 => 2,
        Element::Tf32 => 4,
        _ => 1,
    };
    let a_count = 16 * usize::from(k) * element_bytes / 128;
    let b_count = 8 * usize::from(k) * element_bytes / 128;
    let c_count = if accumulator == Accumulator::F16 {
        2
    } else {
        4
    };
    if s.len() != a_count
        || b_registers.len() != b_count
        || c.len() != c_count
        || d.len() != c_count
    {
        return Err("another number of registers".into());
    }
    s.extend(b_registers);
    s.extend(c);
    b.emit(
        Op::Mma(Mma {
            n,
            k,
            a,
            b: b_element,
            accumulator,
            satfinite: m.has("satfinite"),
        }),
        &d,
        &s,
    );
    Ok(())
}

fn matrix_count(m: Modifiers<'_>) -> Result<u8, String> {
    if !m.has("m8n8") || !m.has("b16") {
        return Err("this shape".into());
    }
    m.all
        .iter()
        .find_map(|name| match *name {
            "x1" => Some(1),
            "x2" => Some(2),
            "x4" => Some(4),
            _ => None,
        })
        .ok_or_else(|| "no count".into())
}

fn matrix_access(space: Space, offset: i64, wide: bool) -> Access {
    Access {
        space,
        wide,
        bytes: 16,
        lanes: 1,
        signed: false,
        width: Width::B32,
        order: Order::Weak,
        scope: Scope::Device,
        offset,
    }
}

pub(super) fn ldmatrix(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let count = matrix_count(m)?;
    let space = if m.all.iter().any(|name| name.starts_with("shared")) {
        Space::Shared
    } else {
        Space::Generic
    };
    let d = vector(b, operand(o, 0)?, Width::B32, true)?;
    if d.len() != usize::from(count) || elements(operand(o, 0)?).len() != d.len() {
        return Err("another number of registers".into());
    }
    let (space, base, offset, wide) = address(b, o, 1, space)?;
    let op = Op::LoadMatrix {
        access: matrix_access(space, offset, wide),
        count,
        transposed: m.has("trans"),
    };
    b.emit(op, &d, &[base]);
    Ok(())
}

pub(super) fn stmatrix(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let count = matrix_count(m)?;
    let space = if m.all.iter().any(|name| name.starts_with("shared")) {
        Space::Shared
    } else {
        Space::Generic
    };
    let (space, base, offset, wide) = address(b, o, 0, space)?;
    let mut s = vec![base];
    s.extend(vector(b, operand(o, 1)?, Width::B32, false)?);
    if s.len() != 1 + usize::from(count) {
        return Err("another number of registers".into());
    }
    let op = Op::StoreMatrix {
        access: matrix_access(space, offset, wide),
        count,
        transposed: m.has("trans"),
    };
    b.emit(op, &[], &s);
    Ok(())
}

pub(super) fn movmatrix(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    if !m.has("trans") || !m.has("m8n8") {
        return Err("this form".into());
    }
    let d = destination(b, o, 0, Width::B32)?;
    let s = [source(b, o, 1, Width::B32)?];
    b.emit(Op::MoveMatrix, &[d], &s);
    Ok(())
}
