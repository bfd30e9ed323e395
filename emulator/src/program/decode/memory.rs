//! Loads, stores, atomics, address spaces and asynchronous copies.

use super::data::vector;
use super::{
    Decoded, Modifiers, address, destination, elements, exactly, integer_type, operand,
    predicate_destination, predicate_source, register_width, source,
};
use crate::program::builder::{Builder, RegKind};
use crate::program::op::{Access, Atomic, AtomicType, Fence, Op, Order, Scope, Space, Width};
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

/// Without one it is the device; what is volatile reaches all of the system.
fn scope(m: Modifiers<'_>) -> Scope {
    if m.has("cta") {
        Scope::Block
    } else if m.has("cluster") {
        Scope::Cluster
    } else {
        Scope::Device
    }
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
    "L2::evict_first",
    "L2::evict_last",
    "L2::evict_normal",
    "L2::cache_hint",
    "unified",
];

/// Drops the cache policy that `.L2::cache_hint` adds as the last operand: caches are not emulated.
fn without_policy<'a>(m: Modifiers<'_>, o: &'a [Operand]) -> &'a [Operand] {
    match o.split_last() {
        Some((_, rest)) if m.has("L2::cache_hint") => rest,
        _ => o,
    }
}

fn vector_length(m: Modifiers<'_>) -> usize {
    let lengths = [("v2", 2), ("v4", 4), ("v8", 8)];
    let found = lengths.iter().find(|(name, _)| m.has(name));
    found.map_or(1, |&(_, length)| length)
}

/// The modifiers' access, the registers' width being that of `data`.
fn access(b: &mut Builder<'_>, m: Modifiers<'_>, data: &Operand) -> Result<Access, String> {
    m.only(MEMORY_MODIFIERS)?;
    let ty = m.last_type()?;
    let bytes = type_bytes(ty)
        .filter(|&bytes| bytes <= 8)
        .ok_or_else(|| format!("the type .{ty}"))?;
    let lanes = vector_length(m);
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
        scope: scope(m),
        offset: 0,
    })
}

pub(super) fn load(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let o = without_policy(m, o);
    exactly(o, 2)?;
    let mut access = access(b, m, operand(o, 0)?)?;
    let d = vector(b, operand(o, 0)?, access.width, true)?;
    let base;
    (access.space, base, access.offset, access.wide) = address(b, o, 1, access.space)?;
    b.emit(Op::Load(access), &d, &[base]);
    Ok(())
}

pub(super) fn store(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let o = without_policy(m, o);
    exactly(o, 2)?;
    let mut access = access(b, m, operand(o, 1)?)?;
    if access.space == Space::Const || m.has("nc") {
        return Err("a store to constant memory".into());
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
        "v2",
        "v4",
        "v8",
        "L2::cache_hint",
    ])?;
    let o = without_policy(m, o);
    let name = m.last_type()?;
    if m.types().count() != 1 {
        return Err("this number of types".into());
    }
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
    let is_half = name.contains("16") && is_float;
    let parts = vector_length(m);
    let is_known = match op {
        Atomic::Add => !name.starts_with('b') || is_half,
        Atomic::Min | Atomic::Max if is_float => is_half && parts > 1,
        Atomic::Min | Atomic::Max => !name.starts_with('b'),
        Atomic::Inc | Atomic::Dec => name == "u32",
        Atomic::And | Atomic::Or | Atomic::Xor => matches!(name, "b32" | "b64"),
        Atomic::Exchange => matches!(name, "b32" | "b64"),
        Atomic::CompareExchange => matches!(name, "b16" | "b32" | "b64"),
    };
    if !is_known {
        return Err(format!("this operation on the type .{name}"));
    }
    if is_half && !m.has("noftz") {
        return Err(format!("the type .{name} without .noftz"));
    }
    if parts > 1 && !(is_half || ty == AtomicType::F32) {
        return Err(format!("a vector of the type .{name}"));
    }
    let (width, _) = integer_type(name).ok_or_else(|| format!("the type .{name}"))?;
    let first = usize::from(returns);
    exactly(o, first + 2 + usize::from(op == Atomic::CompareExchange))?;
    let (space, base, offset, wide) = address(b, o, first, space(m))?;
    let returns = returns && !matches!(o.first(), Some(Operand::Sink));
    let values = vector(b, operand(o, first + 1)?, width, false)?;
    let mut d = Vec::new();
    if returns {
        d = vector(b, operand(o, 0)?, width, true)?;
    }
    if values.len() != parts || returns && d.len() != parts {
        return Err("a vector of another length".into());
    }
    let order = match order(m) {
        Order::Weak => Order::Relaxed,
        order => order,
    };
    let bytes = type_bytes(name).unwrap_or(4) as u8;
    // Each element of a vector is atomic by itself.
    for (part, &value) in values.iter().enumerate() {
        if d.iter().take(part).any(|reg| *reg == value || *reg == base) {
            return Err("a result in a register that the vector still needs".into());
        }
        let mut s = vec![base, value];
        if op == Atomic::CompareExchange {
            s.push(source(b, o, first + 2, width)?);
        }
        let access = Access {
            space,
            wide,
            bytes,
            lanes: 1,
            signed: false,
            width,
            order,
            scope: scope(m),
            offset: offset.wrapping_add(part as i64 * i64::from(bytes)),
        };
        b.emit(
            Op::Atom {
                access,
                op,
                ty,
                returns,
            },
            if returns { &d[part..=part] } else { &[] },
            &s,
        );
    }
    Ok(())
}

const SPACES: &[&str] = &[
    "to",
    "global",
    "shared",
    "shared::cta",
    "shared::cluster",
    "local",
    "const",
    "param",
    "param::entry",
];

pub(super) fn cvta(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    m.only(SPACES)?;
    exactly(o, 2)?;
    if space(m) == Space::Generic {
        return Err("without a state space".into());
    }
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
    m.only(&SPACES[1..])?;
    exactly(o, 2)?;
    if space(m) == Space::Generic {
        return Err("without a state space".into());
    }
    let d = predicate_destination(b, operand(o, 0)?)?;
    let s = source(b, o, 1, Width::B64)?;
    b.emit(Op::IsSpace(space(m)), &[d], &[s]);
    Ok(())
}

pub(super) fn prefetch(b: &mut Builder<'_>) -> Decoded {
    b.emit(Op::Prefetch, &[], &[]);
    Ok(())
}

const FENCE_MODIFIERS: &[&str] = &[
    "cta",
    "cluster",
    "gpu",
    "gl",
    "sys",
    "sc",
    "acq_rel",
    "acquire",
    "release",
    "mbarrier_init",
    "alias",
    "tensormap",
    "global",
    "shared",
    "shared::cta",
    "shared::cluster",
];

/// `fence` and `membar`.
pub(super) fn fence(b: &mut Builder<'_>, m: Modifiers<'_>) -> Decoded {
    let is_known = |name: &&&str| {
        FENCE_MODIFIERS.contains(*name)
            || [
                "proxy",
                "async",
                "tensormap",
                "sync_restrict",
                "to_proxy",
                "from_proxy",
            ]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    if let Some(name) = m.all.iter().find(|name| !is_known(name)) {
        return Err(format!("the modifier .{name}"));
    }
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
    } else if m.has("mbarrier_init") {
        Fence::Initialisation
    } else {
        Fence::Memory(scope(m))
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
                "L2::cache_hint",
            ])?;
            let o = without_policy(m, o);
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
                // `ignore-src`: where it holds nothing is taken, and zeros arrive.
                Some(Operand::Name(name) | Operand::Not(name))
                    if b.register(name)
                        .is_some_and(|reg| reg.kind() == RegKind::Predicate) =>
                {
                    let (ignored, negated) = predicate_source(b, operand(o, 3)?)?;
                    let (none, all) = (b.bits(0, Width::B32), b.bits(*bytes, Width::B32));
                    let chosen = if negated { [all, none] } else { [none, all] };
                    let size = b.fresh(RegKind::Narrow);
                    let guard = b.guard.take();
                    let select = [chosen[0], chosen[1], ignored];
                    b.emit(Op::Select(Width::B32), &[size], &select);
                    b.guard = guard;
                    s.push(size);
                    has_size = true;
                }
                Some(_) => {
                    s.push(source(b, o, 3, Width::B32)?);
                    has_size = true;
                }
            }
            if o.len() > 4 {
                return Err(format!("{} operands", o.len()));
            }
            if m.has("cg") && *bytes != 16 {
                return Err("the modifier .cg with less than 16 bytes".into());
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
