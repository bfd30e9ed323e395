//! Loads, stores, atomics, address spaces and asynchronous copies.

use super::data::vector;
use super::{
    Decoded, Modifiers, address, destination, elements, integer_type, operand,
    predicate_destination, register_width, source,
};
use crate::program::builder::{Builder, RegKind};
use crate::program::op::{Access, Atomic, AtomicType, Fence, Op, Order, Space, Width};
use crate::ptx::ast::Operand;
use crate::ptx::parser::type_bytes;

fn space(m: Modifiers<'_>) -> Space {
    m.all
        .iter()
        .find_map(|name| {
            Some(match *name {
                "global" => Space::Global,
                "shared" | "shared::cta" => Space::Shared,
                "shared::cluster" => Space::Cluster,
                "local" => Space::Local,
                "const" => Space::Const,
                "param" | "param::entry" | "param::func" => Space::Param,
                _ => return None,
            })
        })
        .unwrap_or(Space::Generic)
}

fn order(m: Modifiers<'_>) -> Order {
    for name in m.all {
        match *name {
            "volatile" | "mmio" => return Order::Volatile,
            "relaxed" => return Order::Relaxed,
            "acquire" => return Order::Acquire,
            "release" => return Order::Release,
            "acq_rel" => return Order::AcquireRelease,
            _ => {}
        }
    }
    Order::Weak
}

const MEMORY_MODIFIERS: &[&str] = &[
    "global",
    "shared",
    "shared::cta",
    "shared::cluster",
    "local",
    "const",
    "param",
    "param::entry",
    "param::func",
    "weak",
    "volatile",
    "mmio",
    "relaxed",
    "acquire",
    "release",
    "acq_rel",
    "cta",
    "cluster",
    "gpu",
    "sys",
    "nc",
    "ca",
    "cg",
    "cs",
    "lu",
    "cv",
    "wb",
    "wt",
    "v2",
    "v4",
    "v8",
    "L1::evict_first",
    "L1::evict_last",
    "L1::no_allocate",
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L2::64B",
    "L2::128B",
    "L2::256B",
    "unified",
];

/// The modifiers' access, the registers' width being that of `data`.
fn access(b: &mut Builder<'_>, m: Modifiers<'_>, data: &Operand) -> Result<Access, String> {
    m.only(MEMORY_MODIFIERS)?;
    let ty = m.last_type()?;
    let bytes = type_bytes(ty)
        .filter(|&bytes| bytes <= 8)
        .ok_or_else(|| format!("the type .{ty}"))?;
    let lanes = if m.has("v2") {
        2
    } else if m.has("v4") {
        4
    } else if m.has("v8") {
        8
    } else {
        1
    };
    if elements(data).len() != lanes {
        return Err("a vector of another length".into());
    }
    let by_type = integer_type(ty).map_or(Width::B32, |(width, _)| width);
    let named = elements(data)
        .iter()
        .find_map(|element| register_width(b, element));
    let width = named.unwrap_or(by_type);
    if width != Width::B64 && bytes == 8 || ty == "pred" {
        return Err("a register narrower than the type".into());
    }
    Ok(Access {
        space: space(m),
        wide: true,
        bytes: bytes as u8,
        lanes: lanes as u8,
        signed: ty.starts_with('s'),
        width,
        order: if m.has("cv") {
            Order::Volatile
        } else {
            order(m)
        },
        offset: 0,
    })
}

pub(super) fn load(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let mut access = access(b, m, operand(o, 0)?)?;
    if o.len() != 2 {
        return Err("a cache policy".into());
    }
    let d = vector(b, operand(o, 0)?, access.width, true)?;
    let base;
    (access.space, base, access.offset, access.wide) = address(b, o, 1, access.space)?;
    b.emit(Op::Load(access), &d, &[base]);
    Ok(())
}

pub(super) fn store(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let mut access = access(b, m, operand(o, 1)?)?;
    if o.len() != 2 || access.space == Space::Const {
        return Err("this form".into());
    }
    let base;
    (access.space, base, access.offset, access.wide) = address(b, o, 0, access.space)?;
    let mut s = vec![base];
    s.extend(vector(b, operand(o, 1)?, access.width, false)?);
    b.emit(Op::Store(access), &[], &s);
    Ok(())
}

pub(super) fn atom(b: &mut Builder<'_>, returns: bool, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let op = m
        .all
        .iter()
        .find_map(|name| {
            Some(match *name {
                "add" => Atomic::Add,
                "min" => Atomic::Min,
                "max" => Atomic::Max,
                "inc" => Atomic::Inc,
                "dec" => Atomic::Dec,
                "and" => Atomic::And,
                "or" => Atomic::Or,
                "xor" => Atomic::Xor,
                "exch" => Atomic::Exchange,
                "cas" => Atomic::CompareExchange,
                _ => return None,
            })
        })
        .ok_or("this operation")?;
    m.only(&[
        "add",
        "min",
        "max",
        "inc",
        "dec",
        "and",
        "or",
        "xor",
        "exch",
        "cas",
        "noftz",
        "global",
        "shared",
        "shared::cta",
        "shared::cluster",
        "relaxed",
        "acquire",
        "release",
        "acq_rel",
        "cta",
        "cluster",
        "gpu",
        "sys",
        "async",
    ])?;
    if m.has("async") {
        return Err("the modifier .async".into());
    }
    let name = m.last_type()?;
    let ty = match name {
        "u32" | "u64" | "b16" | "b32" | "b64" => AtomicType::Unsigned,
        "s32" | "s64" => AtomicType::Signed,
        "f32" => AtomicType::F32,
        "f64" => AtomicType::F64,
        "f16" => AtomicType::F16,
        "bf16" => AtomicType::Bf16,
        "f16x2" => AtomicType::F16x2,
        "bf16x2" => AtomicType::Bf16x2,
        _ => return Err(format!("the type .{name}")),
    };
    let is_float = !matches!(ty, AtomicType::Unsigned | AtomicType::Signed);
    if is_float && !matches!(op, Atomic::Add) {
        return Err("this operation on floating point".into());
    }
    let (width, _) = integer_type(name).ok_or_else(|| format!("the type .{name}"))?;
    let first = usize::from(returns);
    let (space, base, offset, wide) = address(b, o, first, space(m))?;
    let mut s = vec![base, source(b, o, first + 1, width)?];
    if op == Atomic::CompareExchange {
        s.push(source(b, o, first + 2, width)?);
    }
    let mut d = Vec::new();
    let returns = returns && !matches!(o.first(), Some(Operand::Sink));
    if returns {
        d.push(destination(b, o, 0, width)?);
    }
    let order = match order(m) {
        Order::Weak => Order::Relaxed,
        order => order,
    };
    let access = Access {
        space,
        wide,
        bytes: type_bytes(name).unwrap_or(4) as u8,
        lanes: 1,
        signed: false,
        width,
        order,
        offset,
    };
    b.emit(
        Op::Atom {
            access,
            op,
            ty,
            returns,
        },
        &d,
        &s,
    );
    Ok(())
}

pub(super) fn cvta(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let to_generic = !m.has("to");
    let width = if m.last_type()? == "u64" {
        Width::B64
    } else {
        return Err("32-bit addresses".into());
    };
    let d = destination(b, o, 0, width)?;
    let s = source(b, o, 1, width)?;
    b.emit(
        Op::Window {
            space: space(m),
            to_generic,
        },
        &[d],
        &[s],
    );
    Ok(())
}

pub(super) fn isspacep(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let d = predicate_destination(b, operand(o, 0)?)?;
    let s = source(b, o, 1, Width::B64)?;
    b.emit(Op::IsSpace(space(m)), &[d], &[s]);
    Ok(())
}

pub(super) fn prefetch(b: &mut Builder<'_>) -> Decoded {
    b.emit(Op::Prefetch, &[], &[]);
    Ok(())
}

/// `fence` and `membar`.
pub(super) fn fence(b: &mut Builder<'_>, m: Modifiers<'_>) -> Decoded {
    let is_proxy = m.all.iter().any(|name| name.starts_with("proxy"));
    let kind = if m.has("proxy") && m.has("async")
        || m.all
            .iter()
            .any(|name| name.starts_with("proxy::async") || name.starts_with("async"))
    {
        Fence::Proxy
    } else if is_proxy {
        // Aliases, constants and tensor maps are always seen as last written here.
        Fence::Other
    } else {
        // `fence.mbarrier_init` orders as much as a release of the initialisation needs.
        Fence::Memory
    };
    b.emit(Op::Fence(kind), &[], &[]);
    Ok(())
}

/// `cp.async`, but for the bulk forms.
pub(super) fn copy_async(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    match m.all {
        ["async", "commit_group"] => b.emit(Op::CopyAsyncCommit, &[], &[]),
        ["async", "wait_all"] => b.emit(Op::CopyAsyncWait { keep: None }, &[], &[]),
        ["async", "wait_group"] => {
            let Some(Operand::Int(keep)) = o.first() else {
                return Err("this form".into());
            };
            b.emit(
                Op::CopyAsyncWait {
                    keep: Some((*keep).min(1 << 20) as u32),
                },
                &[],
                &[],
            );
        }
        _ => {
            m.only(&[
                "async",
                "ca",
                "cg",
                "shared",
                "shared::cta",
                "global",
                "L2::64B",
                "L2::128B",
                "L2::256B",
            ])?;
            let (shared, shared_base, shared_offset, shared_wide) =
                address(b, o, 0, Space::Shared)?;
            let (global, global_base, global_offset, global_wide) =
                address(b, o, 1, Space::Global)?;
            if shared != Space::Shared || global != Space::Global {
                return Err("these spaces".into());
            }
            let Some(Operand::Int(bytes @ (4 | 8 | 16))) = o.get(2) else {
                return Err("this size".into());
            };
            let mut s = vec![shared_base, global_base];
            let mut has_size = false;
            match o.get(3) {
                None => {}
                Some(Operand::Name(name))
                    if b.register(name)
                        .is_some_and(|reg| reg.kind() == RegKind::Predicate) =>
                {
                    return Err("an ignore-src predicate".into());
                }
                Some(_) => {
                    s.push(source(b, o, 3, Width::B32)?);
                    has_size = true;
                }
            }
            if o.len() > 4 {
                return Err("a cache policy".into());
            }
            let op = Op::CopyAsync {
                bytes: *bytes as u8,
                shared_wide,
                shared_offset,
                global_offset,
                global_wide,
                has_size,
            };
            b.emit(op, &[], &s);
        }
    }
    Ok(())
}
