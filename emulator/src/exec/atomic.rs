//! Atomic operations and reductions, lane after lane.

use super::memory::{Addresses, Site, addresses, by_space, lanes, set_word, word};
use super::observe;
use super::order;
use super::race;
use super::state::{Group, Warp, Worker};
use crate::arith::Round;
use crate::arith::float::{add_f32, add_f64, flush};
use crate::arith::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::check::FindingKind;
use crate::error::Error;
use crate::program::op::{Access, Atomic, AtomicType, Op, Order, Space, Width};

/// The value after an operation on `old`; `None` where nothing is written.
fn apply(op: Atomic, ty: AtomicType, bytes: u8, old: u64, value: u64, third: u64) -> u64 {
    let keep = u64::MAX >> (64 - 8 * u32::from(bytes));
    let signed = |bits: u64| {
        let shift = 64 - 8 * u32::from(bytes);
        (bits << shift) as i64 >> shift
    };
    let value = value & keep;
    let less = match ty {
        AtomicType::Signed => signed(old) < signed(value),
        _ => old < value,
    };
    let result = match op {
        Atomic::Add => return add(ty, old, value) & keep,
        Atomic::Min | Atomic::Max if is_half(ty) => return half_extreme(op, ty, old, value) & keep,
        Atomic::Min => {
            if less {
                old
            } else {
                value
            }
        }
        Atomic::Max => {
            if less {
                value
            } else {
                old
            }
        }
        Atomic::Inc if old >= value => 0,
        Atomic::Inc => old + 1,
        Atomic::Dec if old == 0 || old > value => value,
        Atomic::Dec => old - 1,
        Atomic::And => old & value,
        Atomic::Or => old | value,
        Atomic::Xor => old ^ value,
        Atomic::Exchange => value,
        Atomic::CompareExchange if old == value => third,
        Atomic::CompareExchange => old,
    };
    result & keep
}

fn is_half(ty: AtomicType) -> bool {
    matches!(
        ty,
        AtomicType::F16 | AtomicType::Bf16 | AtomicType::F16x2 | AtomicType::Bf16x2
    )
}

/// Both halves of a packed pair, or the one there is.
fn halves(ty: AtomicType, a: u64, b: u64, f: impl Fn(u16, u16) -> u16) -> u64 {
    let low = u64::from(f(a as u16, b as u16));
    match ty {
        AtomicType::F16x2 | AtomicType::Bf16x2 => {
            low | u64::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16
        }
        _ => low,
    }
}

/// The sum, to nearest.
fn add(ty: AtomicType, a: u64, b: u64) -> u64 {
    match ty {
        AtomicType::Unsigned | AtomicType::Signed => a.wrapping_add(b),
        AtomicType::F32 => u64::from(add_f32(
            f32::from_bits(a as u32),
            f32::from_bits(b as u32),
            Round::Near,
        )),
        AtomicType::F64 => add_f64(f64::from_bits(a), f64::from_bits(b), Round::Near).to_bits(),
        AtomicType::F16 | AtomicType::F16x2 => {
            halves(ty, a, b, |a, b| f32_to_f16(f16_to_f32(a) + f16_to_f32(b)))
        }
        AtomicType::Bf16 | AtomicType::Bf16x2 => halves(ty, a, b, |a, b| {
            f32_to_bf16(bf16_to_f32(a) + bf16_to_f32(b))
        }),
    }
}

fn half_extreme(op: Atomic, ty: AtomicType, a: u64, b: u64) -> u64 {
    let wide = |bits: u16| {
        if matches!(ty, AtomicType::F16 | AtomicType::F16x2) {
            f16_to_f32(bits)
        } else {
            bf16_to_f32(bits)
        }
    };
    halves(ty, a, b, |a, b| {
        let takes_b = wide(a).is_nan()
            || if op == Atomic::Min {
                wide(b) < wide(a)
            } else {
                wide(b) > wide(a)
            };
        if takes_b { b } else { a }
    })
}

/// One operation of one lane, for the reductions of bulk copies too.
pub(super) fn update(op: Atomic, ty: AtomicType, bytes: u8, old: u64, value: u64) -> u64 {
    apply(op, ty, bytes, old, value, 0)
}

pub(super) fn execute(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    op: &Op,
    r: &[u32],
    mask: u32,
    pc: u32,
) -> Result<(), Error> {
    let Op::Atom {
        access: a,
        op,
        ty,
        returns,
    } = *op
    else {
        return Ok(());
    };
    let s = &r[usize::from(returns)..];
    let keep = u64::MAX >> (64 - 8 * u32::from(a.bytes));
    let all = addresses(&warp.registers, s[0], a.wide, a.offset, mask);
    let mut old = [0; 32];
    // Lanes that found what they compare with; the others write nothing and release nothing.
    let mut written = 0;
    let writes = |old: u64, value: u64| op != Atomic::CompareExchange || old == value;
    by_space(a.space, &all, mask, |space, at, mask| {
        let site = Site {
            pc,
            mask,
            bytes: u64::from(a.bytes),
            is_write: true,
            is_atomic: true,
        };
        let operands = |warp: &Warp, lane: usize| {
            let wide = a.width == Width::B64;
            let third = if op == Atomic::CompareExchange {
                warp.registers.lane(s[2], lane, wide)
            } else {
                0
            };
            (warp.registers.lane(s[1], lane, wide), third)
        };
        match space {
            Space::Global => {
                order::acquire_global(w, g, warp, at, mask, &a);
                if w.launch.checks.init && op != Atomic::Exchange {
                    find_undefined_global(w, g, warp, at, site);
                }
                let found = observe::global(w, g, warp, at, site)?;
                if w.launch.checks.race {
                    race::race_global(
                        w,
                        g,
                        warp,
                        at,
                        Site {
                            mask: found.mask,
                            ..site
                        },
                        |_, _| false,
                    );
                }
                for lane in lanes(found.mask) {
                    let (value, third) = operands(warp, lane);
                    if let Some(allocation) = w.launch.memory.find(at[lane], &mut w.hint) {
                        let from = at[lane] - allocation.base;
                        // Sums of `f32` in global memory flush subnormals, as the PTX manual says of hardware so far.
                        let flushes = op == Atomic::Add && ty == AtomicType::F32;
                        let flush = |bits: u64| {
                            if flushes {
                                u64::from(flush(bits as u32))
                            } else {
                                bits
                            }
                        };
                        let mut new = 0;
                        old[lane] = allocation.update(from, a.bytes, |old| {
                            new = flush(apply(op, ty, a.bytes, flush(old), flush(value), third));
                            new
                        });
                        w.changes += u64::from(new != old[lane]);
                        written |= u32::from(writes(old[lane], value & keep)) << lane;
                    }
                }
                order::release_global(w, g, warp, at, written & mask, &a, true);
            }
            Space::Shared | Space::Cluster => {
                order::acquire_shared(w, g, warp, at, mask, &a);
                if w.launch.checks.init && op != Atomic::Exchange {
                    find_undefined_shared(w, g, warp, at, site);
                }
                let found = observe::shared(w, g, warp, at, site, space)?;
                if w.launch.checks.race {
                    race::race_shared(w, g, warp, at, &found, site, |_, _, _, _| false);
                }
                for lane in lanes(found.mask) {
                    let (value, third) = operands(warp, lane);
                    let rank = observe::rank_of(warp, at[lane], found.rank);
                    let from = found.offsets[lane] as usize;
                    let shared = &mut g.blocks[rank].shared;
                    old[lane] = word(shared, from, a.bytes);
                    let new = apply(op, ty, a.bytes, old[lane], value, third);
                    set_word(shared, from, a.bytes, new);
                    w.changes += u64::from(new != old[lane]);
                    written |= u32::from(writes(old[lane], value & keep)) << lane;
                }
                order::release_shared(w, g, warp, at, written & mask, &a, true);
            }
            _ => {
                let lane = mask.trailing_zeros() as usize;
                let what = observe::Memory {
                    space: "local",
                    address: at[lane],
                    bytes: u32::from(a.bytes),
                    allocation: None,
                };
                observe::illegal(w, g, warp, lane, FindingKind::OutOfBounds, what, pc)?;
            }
        }
        Ok(())
    })?;
    if returns {
        match a.width {
            Width::B64 => warp.registers.write64(r[0], &old, mask),
            _ => warp
                .registers
                .write32(r[0], &old.map(|old| old as u32), mask),
        }
    }
    Ok(())
}

/// An atomic reads what it changes, which the check of a write does not look at. Lanes whose access cannot be made are found there.
fn find_undefined_global(w: &mut Worker<'_>, g: &Group, warp: &Warp, at: &Addresses, site: Site) {
    for lane in lanes(site.mask) {
        let Some(allocation) = w.launch.memory.find(at[lane], &mut w.hint) else {
            continue;
        };
        let (base, bytes) = (allocation.base, allocation.bytes);
        let is_inside = at[lane] - base + site.bytes <= bytes;
        if is_inside && !allocation.is_defined(at[lane] - base, site.bytes) {
            let what = observe::Memory {
                space: "global",
                address: at[lane],
                bytes: site.bytes as u32,
                allocation: Some((base, bytes)),
            };
            let kind = FindingKind::UninitialisedMemory;
            observe::report(w, g, warp, lane, kind, what, site.pc);
        }
    }
}

/// As [`find_undefined_global`].
fn find_undefined_shared(w: &mut Worker<'_>, g: &Group, warp: &Warp, at: &Addresses, site: Site) {
    for lane in lanes(site.mask) {
        let from = (at[lane] & ((1 << observe::RANK_SHIFT) - 1)) as usize;
        let Some(block) = g.blocks.get(observe::rank_of(warp, at[lane], None)) else {
            continue;
        };
        let defined = block.defined.get(from..from + site.bytes as usize);
        if defined.is_some_and(|defined| defined.contains(&0)) {
            let what = observe::Memory {
                space: "shared",
                address: from as u64,
                bytes: site.bytes as u32,
                allocation: Some((0, block.shared.len() as u64)),
            };
            let kind = FindingKind::UninitialisedMemory;
            observe::report(w, g, warp, lane, kind, what, site.pc);
        }
    }
}

/// Whether an atomic may stand for waiting: one whose result the kernel looks at.
pub(super) fn is_poll(access: &Access, returns: bool) -> bool {
    returns && access.order != Order::Weak
}
