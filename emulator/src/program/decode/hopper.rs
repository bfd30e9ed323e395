//! Barriers in shared memory, bulk copies, matrix instructions of four warps, clusters.

use super::data::{positive, vector};
use super::tensor::{accumulator, element};
use super::{
    Decoded, Modifiers, address, destination, destination_operand, operand, predicate_destination,
    source,
};
use crate::program::builder::{Builder, Reg, RegKind};
use crate::program::op::{Accumulator, Atomic, AtomicType, Element, Op, Space, Width};
use crate::program::op_async::{At, BulkOp, BulkReduction, BulkWay, MbarrierOp, Wgmma, WgmmaOp};
use crate::ptx::ast::{Address, Operand};

/// A place in shared memory; `Generic` where the instruction does not say.
fn place(
    b: &mut Builder<'_>,
    o: &[Operand],
    index: usize,
    space: Space,
) -> Result<(At, Reg), String> {
    let (space, reg, offset, wide) = address(b, o, index, space)?;
    Ok((
        At {
            space,
            wide,
            offset,
        },
        reg,
    ))
}

fn shared_space(m: Modifiers<'_>) -> Space {
    if m.has("shared::cluster") {
        Space::Cluster
    } else if m.has("shared") || m.has("shared::cta") {
        Space::Shared
    } else {
        Space::Generic
    }
}

const SCOPES: &[&str] = &[
    "shared",
    "shared::cta",
    "shared::cluster",
    "relaxed",
    "acquire",
    "release",
    "cta",
    "cluster",
    "gpu",
    "sys",
];

/// `mbarrier`.
pub(super) fn mbarrier(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let (name, rest) = m.all.split_first().ok_or("no operation")?;
    let m = Modifiers { all: rest };
    let mut allowed = SCOPES.to_vec();
    allowed.extend(["parity", "expect_tx", "noComplete"]);
    m.only(&allowed)?;
    let space = shared_space(m);
    let relaxed = m.has("relaxed");
    match *name {
        "init" => {
            let (at, base) = place(b, o, 0, space)?;
            let count = source(b, o, 1, Width::B32)?;
            b.emit(Op::Mbarrier(MbarrierOp::Init(at)), &[], &[base, count]);
        }
        "inval" => {
            let (at, base) = place(b, o, 0, space)?;
            b.emit(Op::Mbarrier(MbarrierOp::Invalidate(at)), &[], &[base]);
        }
        "expect_tx" | "complete_tx" => {
            let (at, base) = place(b, o, 0, space)?;
            let bytes = source(b, o, 1, Width::B32)?;
            let op = if *name == "expect_tx" {
                MbarrierOp::ExpectTx(at)
            } else {
                MbarrierOp::CompleteTx(at)
            };
            b.emit(Op::Mbarrier(op), &[], &[base, bytes]);
        }
        "arrive" | "arrive_drop" => {
            // The form without a state has the address first.
            let first = usize::from(!matches!(operand(o, 0)?, Operand::Address(_)));
            let (at, base) = place(b, o, first, space)?;
            let expects = m.has("expect_tx");
            let has_count = o.len() > first + 1;
            if expects && !has_count {
                return Err("expect_tx without bytes".into());
            }
            let mut d = Vec::new();
            let returns = first == 1 && !matches!(o[0], Operand::Sink);
            if returns {
                d.push(destination(b, o, 0, Width::B64)?);
            }
            let mut s = vec![base];
            if has_count {
                s.push(source(b, o, first + 1, Width::B32)?);
            }
            let drops = *name == "arrive_drop";
            b.emit(
                Op::Mbarrier(MbarrierOp::Arrive {
                    at,
                    has_count,
                    expects,
                    drops,
                    returns,
                    relaxed,
                    no_complete: m.has("noComplete"),
                }),
                &d,
                &s,
            );
        }
        "test_wait" | "try_wait" => {
            let d = predicate_destination(b, operand(o, 0)?)?;
            let (at, base) = place(b, o, 1, space)?;
            let parity = m.has("parity");
            let state = source(b, o, 2, if parity { Width::B32 } else { Width::B64 })?;
            let may_wait = *name == "try_wait";
            // A hint how long to wait may follow: there is no time here.
            if o.len() > 3 + usize::from(may_wait) {
                return Err("this form".into());
            }
            b.emit(
                Op::Mbarrier(MbarrierOp::Wait {
                    at,
                    parity,
                    may_wait,
                    relaxed,
                }),
                &[d],
                &[base, state],
            );
        }
        "pending_count" => {
            let d = destination(b, o, 0, Width::B32)?;
            let s = source(b, o, 1, Width::B64)?;
            b.emit(Op::Mbarrier(MbarrierOp::PendingCount), &[d], &[s]);
        }
        other => return Err(format!("mbarrier.{other}")),
    }
    Ok(())
}

/// `cp.async.mbarrier.arrive`.
pub(super) fn copies_arrive(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let (at, base) = place(b, o, 0, shared_space(m))?;
    b.emit(
        Op::Mbarrier(MbarrierOp::ArriveOnCopies {
            at,
            noinc: m.has("noinc"),
        }),
        &[],
        &[base],
    );
    Ok(())
}

fn reduction(m: Modifiers<'_>) -> Result<Atomic, String> {
    m.all
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
                _ => return None,
            })
        })
        .ok_or_else(|| "no reduction".into())
}

/// What may follow the operands of a form: a mask where it multicasts, and a cache policy, which is of no matter here.
fn trailing(
    b: &mut Builder<'_>,
    m: Modifiers<'_>,
    o: &[Operand],
    from: usize,
    s: &mut Vec<Reg>,
) -> Decoded {
    let multicast = m.has("multicast::cluster");
    let mut next = from;
    if multicast {
        // The mask is of 16 bits.
        let mask = match operand(o, next)? {
            Operand::Int(value) => b.bits(*value, Width::B32),
            _ => source(b, o, next, Width::B16)?,
        };
        s.push(mask);
        next += 1;
    }
    next += usize::from(m.has("L2::cache_hint"));
    if o.len() != next {
        Err("another number of operands".into())
    } else {
        Ok(())
    }
}

const BULK_MODIFIERS: &[&str] = &[
    "async",
    "bulk",
    "tensor",
    "1d",
    "2d",
    "3d",
    "4d",
    "5d",
    "tile",
    "shared::cluster",
    "shared::cta",
    "global",
    "mbarrier::complete_tx::bytes",
    "bulk_group",
    "multicast::cluster",
    "L2::cache_hint",
    "cta_group::1",
    "noftz",
    "add",
    "min",
    "max",
    "inc",
    "dec",
    "and",
    "or",
    "xor",
    "prefetch",
    "L2",
    "reduce",
    "relaxed",
];

/// `cp.async.bulk` and `cp.reduce.async.bulk`.
pub(super) fn bulk(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    if m.has("commit_group") {
        b.emit(Op::Bulk(BulkOp::Commit), &[], &[]);
        return Ok(());
    }
    if m.has("wait_group") {
        let Some(Operand::Int(keep)) = o.first() else {
            return Err("this form".into());
        };
        let keep = (*keep).min(1 << 20) as u32;
        b.emit(
            Op::Bulk(BulkOp::Wait {
                keep,
                read: m.has("read"),
            }),
            &[],
            &[],
        );
        return Ok(());
    }
    m.only(BULK_MODIFIERS)?;
    if m.has("prefetch") {
        // Caches are not emulated; what is prefetched is checked when it is used.
        return super::memory::prefetch(b);
    }
    if m.has("tensor") {
        return tensor(b, m, o);
    }
    let spaces: Vec<&str> = m
        .all
        .iter()
        .copied()
        .filter(|name| name.starts_with("shared") || *name == "global")
        .collect();
    let way = match spaces[..] {
        ["shared::cluster" | "shared::cta", "global"] => BulkWay::Load {
            multicast: m.has("multicast::cluster"),
        },
        ["shared::cluster", "shared::cta"] => BulkWay::Across,
        ["global", "shared::cta"] => BulkWay::Store,
        _ => return Err("these state spaces".into()),
    };
    let (to_space, from_space) = match way {
        BulkWay::Load { .. } => (Space::Cluster, Space::Global),
        BulkWay::Across => (Space::Cluster, Space::Shared),
        BulkWay::Store => (Space::Global, Space::Shared),
    };
    let (to, to_base) = place(b, o, 0, to_space)?;
    let (from, from_base) = place(b, o, 1, from_space)?;
    let mut s = vec![to_base, from_base, source(b, o, 2, Width::B32)?];
    let mut barrier = None;
    let mut next = 3;
    if m.has("mbarrier::complete_tx::bytes") {
        let (at, base) = place(b, o, 3, Space::Cluster)?;
        barrier = Some(at);
        s.push(base);
        next += 1;
    }
    if barrier.is_some() == (way == BulkWay::Store) {
        return Err("this way of completion".into());
    }
    trailing(b, m, o, next, &mut s)?;
    let reduction = if m.has("reduce") {
        let ty = m.last_type()?;
        let (ty, bytes) = match ty {
            "u32" | "b32" => (AtomicType::Unsigned, 4),
            "u64" | "b64" => (AtomicType::Unsigned, 8),
            "s32" => (AtomicType::Signed, 4),
            "s64" => (AtomicType::Signed, 8),
            "f16" => (AtomicType::F16, 2),
            "bf16" => (AtomicType::Bf16, 2),
            "f32" => (AtomicType::F32, 4),
            "f64" => (AtomicType::F64, 8),
            other => return Err(format!("the type .{other}")),
        };
        Some(BulkReduction {
            op: reduction(m)?,
            ty,
            bytes,
        })
    } else {
        None
    };
    b.emit(
        Op::Bulk(BulkOp::Plain {
            way,
            to,
            from,
            barrier,
            reduction,
        }),
        &[],
        &s,
    );
    Ok(())
}

/// The map and the coordinates of `[map, {x, y}]`.
fn coordinates(
    b: &mut Builder<'_>,
    o: &[Operand],
    index: usize,
    s: &mut Vec<Reg>,
) -> Result<(At, u8), String> {
    let Operand::Address(whole) = operand(o, index)? else {
        return Err("no tensor map".into());
    };
    let Address {
        base,
        offset,
        extra,
    } = whole.as_ref();
    let plain = Operand::Address(Box::new(Address {
        base: base.clone(),
        offset: *offset,
        extra: Vec::new(),
    }));
    let (map, base) = place(b, std::slice::from_ref(&plain), 0, Space::Generic)?;
    s.push(base);
    let [Operand::Vector(list)] = extra.as_slice() else {
        return Err("no coordinates".into());
    };
    for coordinate in list {
        s.push(super::source_operand(b, coordinate, Width::B32)?);
    }
    Ok((map, list.len() as u8))
}

fn tensor(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let rank = ["1d", "2d", "3d", "4d", "5d"]
        .iter()
        .position(|name| m.has(name))
        .ok_or("no dimension")? as u8
        + 1;
    let is_load = m.has("mbarrier::complete_tx::bytes");
    if is_load == m.has("bulk_group") {
        return Err("this way of completion".into());
    }
    let mut s = Vec::new();
    let op = if is_load {
        let (shared, base) = place(b, o, 0, Space::Cluster)?;
        s.push(base);
        let (map, found) = coordinates(b, o, 1, &mut s)?;
        let (barrier, base) = place(b, o, 2, Space::Cluster)?;
        s.push(base);
        trailing(b, m, o, 3, &mut s)?;
        if found != rank {
            return Err("another number of coordinates".into());
        }
        let way = BulkWay::Load {
            multicast: m.has("multicast::cluster"),
        };
        BulkOp::Tensor {
            way,
            shared,
            map,
            rank,
            barrier: Some(barrier),
            reduction: None,
        }
    } else {
        let (shared, base) = place(b, o, 1, Space::Shared)?;
        s.push(base);
        let (map, found) = coordinates(b, o, 0, &mut s)?;
        trailing(b, m, o, 2, &mut s)?;
        if found != rank {
            return Err("another number of coordinates".into());
        }
        let reduction = if m.has("reduce") {
            Some(reduction(m)?)
        } else {
            None
        };
        BulkOp::Tensor {
            way: BulkWay::Store,
            shared,
            map,
            rank,
            barrier: None,
            reduction,
        }
    };
    b.emit(Op::Bulk(op), &[], &s);
    Ok(())
}

/// `wgmma`.
pub(super) fn wgmma(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let (name, rest) = m.all.split_first().ok_or("no operation")?;
    let simple = |b: &mut Builder<'_>, op| {
        b.emit(Op::Wgmma(op), &[], &[]);
        Ok(())
    };
    match *name {
        "fence" => simple(b, WgmmaOp::Fence),
        "commit_group" => simple(b, WgmmaOp::Commit),
        "wait_group" => {
            let Some(Operand::Int(keep)) = o.first() else {
                return Err("this form".into());
            };
            simple(
                b,
                WgmmaOp::Wait {
                    keep: (*keep).min(1 << 20) as u32,
                },
            )
        }
        "mma_async" => wgmma_mma(b, Modifiers { all: rest }, o),
        other => Err(format!("wgmma.{other}")),
    }
}

/// An immediate that is 1 or -1; whether it is -1.
fn sign(o: &[Operand], index: usize) -> Result<bool, String> {
    match operand(o, index)? {
        Operand::Int(1) => Ok(false),
        Operand::Int(value) if *value as i64 == -1 => Ok(true),
        _ => Err("a scale that is neither 1 nor -1".into()),
    }
}

fn flag(o: &[Operand], index: usize) -> Result<bool, String> {
    match operand(o, index)? {
        Operand::Int(value @ (0 | 1)) => Ok(*value == 1),
        _ => Err("a transposition that is neither 0 nor 1".into()),
    }
}

fn wgmma_mma(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let shape = m
        .all
        .iter()
        .find(|name| name.starts_with("m64n"))
        .ok_or("no shape")?;
    let (n, k) = shape["m64n".len()..].split_once('k').ok_or("no shape")?;
    let number = |text: &str| {
        text.parse::<u16>()
            .map_err(|_| format!("the shape {shape}"))
    };
    let (n, k) = (number(n)?, number(k)?);
    let types: Vec<&str> = m.types().collect();
    let [d_ty, a_ty, b_ty] = types[..] else {
        return Err("this form".into());
    };
    let a = element(a_ty).ok_or_else(|| format!("the type .{a_ty}"))?;
    let b_element = element(b_ty).ok_or_else(|| format!("the type .{b_ty}"))?;
    let accumulator = accumulator(d_ty).ok_or_else(|| format!("the type .{d_ty}"))?;
    let is_known = match a {
        Element::F16 => {
            b_element == a && matches!(accumulator, Accumulator::F32 | Accumulator::F16)
        }
        Element::Bf16 | Element::Tf32 => b_element == a && accumulator == Accumulator::F32,
        Element::E4m3 | Element::E5m2 => {
            matches!(b_element, Element::E4m3 | Element::E5m2)
                && matches!(accumulator, Accumulator::F32 | Accumulator::F16)
        }
        Element::S8 | Element::U8 => {
            matches!(b_element, Element::S8 | Element::U8) && accumulator == Accumulator::S32
        }
        Element::F64 => false,
    };
    let is_integer = accumulator == Accumulator::S32;
    let n_fits = n.is_multiple_of(8)
        && (8..=256).contains(&n)
        && (!is_integer || n <= 24 || n.is_multiple_of(16));
    if !is_known || !n_fits || usize::from(k) * a.bytes() != 32 {
        return Err("this combination of shape and types".into());
    }
    m.only(&["sync", "aligned", "satfinite", shape])?;
    let d = vector(b, operand(o, 0)?, Width::B32, true)?;
    let count = usize::from(n)
        / if accumulator == Accumulator::F16 {
            4
        } else {
            2
        };
    if d.len() != count {
        return Err("another number of accumulators".into());
    }
    let a_in_registers = matches!(operand(o, 1)?, Operand::Vector(_));
    // A predicate, or an integer or `p` that says whether D is added.
    let scale = match operand(o, 3)? {
        Operand::Name(name)
            if b.register(name)
                .is_some_and(|reg| reg.kind() != RegKind::Predicate) =>
        {
            return Err("a scale that is not a predicate".into());
        }
        scale => positive(b, scale)?,
    };
    let mut s = vec![scale];
    if a_in_registers {
        let registers = vector(b, operand(o, 1)?, Width::B32, false)?;
        if registers.len() != 4 {
            return Err("another number of registers of A".into());
        }
        s.extend(registers);
    } else {
        s.push(source(b, o, 1, Width::B64)?);
    }
    s.push(source(b, o, 2, Width::B64)?);
    s.extend(vector(b, operand(o, 0)?, Width::B32, false)?);
    let (mut negate_a, mut negate_b, mut transpose_a, mut transpose_b) =
        (false, false, false, false);
    let mut next = 4;
    if !is_integer {
        (negate_a, negate_b) = (sign(o, 4)?, sign(o, 5)?);
        next = 6;
        if a.bytes() == 2 {
            if !a_in_registers {
                transpose_a = flag(o, next)?;
                next += 1;
            }
            transpose_b = flag(o, next)?;
            next += 1;
        }
    }
    if o.len() != next {
        return Err("another number of operands".into());
    }
    let op = Wgmma {
        n,
        k,
        a,
        b: b_element,
        accumulator,
        a_in_registers,
        negate_a,
        negate_b,
        transpose_a,
        transpose_b,
        satfinite: m.has("satfinite"),
    };
    b.emit(Op::Wgmma(WgmmaOp::Mma(op)), &d, &s);
    Ok(())
}

/// `setmaxnreg`.
pub(super) fn setmaxnreg(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    m.only(&["inc", "dec", "sync", "aligned"])?;
    match o.first() {
        Some(Operand::Int(count)) if (24..=256).contains(count) && count.is_multiple_of(8) => {
            let count = *count as u32;
            let increases = m.has("inc");
            b.emit(Op::SetMaxRegisters { count, increases }, &[], &[]);
            Ok(())
        }
        _ => Err("a register count that is not a multiple of 8 from 24 to 256".into()),
    }
}

/// `mapa` and `getctarank`.
pub(super) fn mapa(b: &mut Builder<'_>, base: &str, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    m.only(&["shared::cluster"])?;
    let generic = !m.has("shared::cluster");
    let wide = m.last_type()? == "u64";
    let width = if wide { Width::B64 } else { Width::B32 };
    let s = source(b, o, 1, width)?;
    if base == "mapa" {
        let d = destination_operand(b, operand(o, 0)?, width)?;
        let rank = source(b, o, 2, Width::B32)?;
        b.emit(Op::MapAddress { wide, generic }, &[d], &[s, rank]);
    } else {
        let d = destination_operand(b, operand(o, 0)?, Width::B32)?;
        b.emit(Op::ClusterRank { wide, generic }, &[d], &[s]);
    }
    Ok(())
}
