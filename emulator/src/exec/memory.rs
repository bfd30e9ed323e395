//! Loads and stores of the lanes of a warp.

use super::observe::{self, Shared};
use super::order;
use super::race;
use super::registers::Registers;
use super::state::{Group, Warp, Worker};
use crate::check::finding::FindingKind;
use crate::count::coalesce;
use crate::error::Error;
use crate::memory::window::{self, Place};
use crate::program::op::{Access, Order, Space, Width};

/// Addresses of a warp's access. Lanes that take no part have the address of one that does.
pub(super) type Addresses = [u64; 32];

/// What one access is, apart from its addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site {
    pub(super) pc: u32,
    pub(super) mask: u32,
    /// Bytes of a lane.
    pub(super) bytes: u64,
    pub(super) is_write: bool,
    /// Atomic accesses do not race with one another.
    pub(super) is_atomic: bool,
}

#[inline(always)]
pub(super) fn addresses(
    registers: &Registers,
    row: u32,
    wide: bool,
    offset: i64,
    mask: u32,
) -> Addresses {
    let mut out = [0; 32];
    if wide {
        let base = registers.r64(row);
        for lane in 0..32 {
            out[lane] = base[lane].wrapping_add(offset as u64);
        }
    } else {
        let base = registers.r32(row);
        for lane in 0..32 {
            out[lane] = u64::from(base[lane].wrapping_add(offset as u32));
        }
    }
    fill_inactive(&mut out, mask);
    out
}

#[inline(always)]
pub(super) fn fill_inactive(addresses: &mut Addresses, mask: u32) {
    if mask != u32::MAX {
        let first = addresses[(mask.trailing_zeros() & 31) as usize];
        for (lane, address) in addresses.iter_mut().enumerate() {
            if mask >> lane & 1 == 0 {
                *address = first;
            }
        }
    }
}

/// The lanes of a mask.
pub(super) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let lane = rest.trailing_zeros() as usize;
        rest &= rest.wrapping_sub(1);
        (lane < 32).then_some(lane)
    })
}

/// Whether a load may wait for what another thread does.
pub(super) fn is_poll(access: &Access) -> bool {
    access.order != Order::Weak
        && !matches!(access.space, Space::Local | Space::Param | Space::Const)
}

/// Calls `f` once per state space that the generic addresses of a warp are in, with the addresses within it.
pub(super) fn by_space(
    space: Space,
    addresses: &Addresses,
    mask: u32,
    mut f: impl FnMut(Space, &Addresses, u32) -> Result<(), Error>,
) -> Result<(), Error> {
    if space != Space::Generic {
        return f(space, addresses, mask);
    }
    let mut rest = mask;
    while rest != 0 {
        let kind = |address: u64| match window::place(address) {
            Place::Global(at) => (Space::Global, at),
            Place::Shared(at) => (Space::Cluster, at),
            Place::Local(at) => (Space::Local, at),
            Place::Param(at) => (Space::Param, at),
        };
        let (space, _) = kind(addresses[rest.trailing_zeros() as usize]);
        let mut same = 0;
        let mut within = *addresses;
        for lane in lanes(rest) {
            let (own, at) = kind(addresses[lane]);
            if own == space {
                same |= 1 << lane;
                within[lane] = at;
            }
        }
        fill_inactive(&mut within, same);
        f(space, &within, same)?;
        rest &= !same;
    }
    Ok(())
}

fn extend(value: u64, a: &Access) -> u64 {
    if a.signed {
        let shift = 64 - 8 * u32::from(a.bytes);
        ((value << shift) as i64 >> shift) as u64
    } else {
        value
    }
}

/// Puts the loaded values of one element of the vector into its register.
#[inline(always)]
fn deliver(registers: &mut Registers, a: &Access, row: u32, values: &[u64; 32], mask: u32) {
    match a.width {
        Width::B64 => registers.write64(row, &values.map(|value| extend(value, a)), mask),
        Width::B32 => registers.write32(row, &values.map(|value| extend(value, a) as u32), mask),
        Width::B16 => registers.write32(
            row,
            &values.map(|value| extend(value, a) as u32 & 0xffff),
            mask,
        ),
    }
}

pub(super) fn load(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    mask: u32,
    pc: u32,
) -> Result<(), Error> {
    let base = r[usize::from(a.lanes)];
    let all = addresses(&warp.registers, base, a.wide, a.offset, mask);
    let bytes = u64::from(a.bytes) * u64::from(a.lanes);
    by_space(a.space, &all, mask, |space, at, mask| {
        let is_atomic = a.order != Order::Weak;
        let site = Site {
            pc,
            mask,
            bytes,
            is_write: false,
            is_atomic,
        };
        match space {
            Space::Global | Space::Const => {
                if space == Space::Global && is_atomic {
                    order::acquire_global(w, g, warp, at, mask, a.order);
                }
                global_load(w, g, warp, a, r, at, site)
            }
            Space::Shared | Space::Cluster | Space::Generic => {
                if is_atomic {
                    order::acquire_shared(w, g, warp, at, mask, a.order);
                }
                shared_load(w, g, warp, a, r, at, site, space)
            }
            Space::Local => local_load(w, g, warp, a, r, at, site),
            Space::Param => {
                for element in 0..usize::from(a.lanes) {
                    let mut values = [0; 32];
                    for lane in lanes(mask) {
                        let from = at[lane].wrapping_add(element as u64 * u64::from(a.bytes));
                        values[lane] = parameter(w, g, warp, lane, from, a, pc)?;
                    }
                    deliver(&mut warp.registers, a, r[element], &values, mask);
                }
                Ok(())
            }
        }
    })
}

fn parameter(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    lane: usize,
    at: u64,
    a: &Access,
    pc: u32,
) -> Result<u64, Error> {
    let bytes = usize::from(a.bytes);
    match w
        .launch
        .parameters
        .get(at as usize..)
        .and_then(|rest| rest.get(..bytes))
    {
        Some(found) => {
            let mut value = [0; 8];
            value[..bytes].copy_from_slice(found);
            Ok(u64::from_le_bytes(value))
        }
        None => {
            let what = observe::Memory {
                space: "parameter",
                address: at,
                bytes: bytes as u32,
                allocation: None,
            };
            observe::illegal(w, g, warp, lane, FindingKind::OutOfBounds, what, pc)?;
            Ok(0)
        }
    }
}

fn global_load(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    at: &Addresses,
    site: Site,
) -> Result<(), Error> {
    let found = observe::global(w, g, warp, at, site)?;
    let memory = w.launch.memory;
    if let Some((index, base)) = found.whole {
        let allocation = &memory.allocations()[index];
        for element in 0..usize::from(a.lanes) {
            let add = element as u64 * u64::from(a.bytes);
            match (a.bytes, a.width) {
                (4, Width::B32) => {
                    let values = allocation.gather32(at, base.wrapping_sub(add));
                    warp.registers.write32(r[element], &values, site.mask);
                }
                (8, _) => {
                    let values = allocation.gather64(at, base.wrapping_sub(add));
                    warp.registers.write64(r[element], &values, site.mask);
                }
                _ => {
                    let values = at.map(|address| allocation.load(address - base + add, a.bytes));
                    deliver(&mut warp.registers, a, r[element], &values, site.mask);
                }
            }
        }
        return Ok(());
    }
    for element in 0..usize::from(a.lanes) {
        let mut values = [0; 32];
        for lane in lanes(found.mask) {
            let address = at[lane] + element as u64 * u64::from(a.bytes);
            if let Some(allocation) = memory.find(address, &mut w.hint) {
                values[lane] = allocation.load(address - allocation.base, a.bytes);
            }
        }
        deliver(&mut warp.registers, a, r[element], &values, site.mask);
    }
    Ok(())
}

fn shared_load(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    at: &Addresses,
    site: Site,
    space: Space,
) -> Result<(), Error> {
    let Shared {
        rank,
        mask,
        offsets,
    } = observe::shared(w, g, warp, at, site, space)?;
    if mask != site.mask {
        for element in 0..usize::from(a.lanes) {
            deliver(
                &mut warp.registers,
                a,
                r[element],
                &[0; 32],
                site.mask & !mask,
            );
        }
    }
    if mask == 0 {
        return Ok(());
    }
    for element in 0..usize::from(a.lanes) {
        let add = element * usize::from(a.bytes);
        match rank {
            Some(rank) if a.bytes == 4 && a.width == Width::B32 => {
                let shared = &g.blocks[rank].shared;
                let mut values = [0; 32];
                for lane in 0..32 {
                    let from = offsets[lane] as usize + add;
                    values[lane] = shared[from..]
                        .first_chunk()
                        .map_or(0, |bytes| u32::from_le_bytes(*bytes));
                }
                warp.registers.write32(r[element], &values, mask);
            }
            _ => {
                let mut values = [0; 32];
                for lane in lanes(mask) {
                    let block = observe::rank_of(warp, at[lane], rank);
                    let from = offsets[lane] as usize + add;
                    values[lane] = word(&g.blocks[block].shared, from, a.bytes);
                }
                deliver(&mut warp.registers, a, r[element], &values, mask);
            }
        }
    }
    Ok(())
}

/// Reads up to 8 bytes.
pub(super) fn word(memory: &[u8], at: usize, bytes: u8) -> u64 {
    let mut value = [0; 8];
    let bytes = usize::from(bytes);
    if let Some(found) = memory.get(at..at + bytes) {
        value[..bytes].copy_from_slice(found);
    }
    u64::from_le_bytes(value)
}

/// Writes up to 8 bytes.
pub(super) fn set_word(memory: &mut [u8], at: usize, bytes: u8, value: u64) {
    let bytes = usize::from(bytes);
    if let Some(found) = memory.get_mut(at..at + bytes) {
        found.copy_from_slice(&value.to_le_bytes()[..bytes]);
    }
}

/// A thread's local memory begins at its lane's share.
fn local_place(warp: &Warp, lane: usize, at: u64, bytes: u64) -> Option<usize> {
    let size = warp.local.len() as u64 / 32;
    (at.checked_add(bytes)? <= size).then_some((lane as u64 * size + at) as usize)
}

fn local_load(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    at: &Addresses,
    site: Site,
) -> Result<(), Error> {
    w.counters[site.pc as usize].requests += 1;
    for element in 0..usize::from(a.lanes) {
        let mut values = [0; 32];
        for lane in lanes(site.mask) {
            let address = at[lane] + element as u64 * u64::from(a.bytes);
            let Some(place) = local(w, g, warp, lane, address, a.bytes, site.pc)? else {
                continue;
            };
            let bytes = usize::from(a.bytes);
            if w.launch.checks.init && warp.local_defined[place..place + bytes].contains(&0) {
                let what = observe::Memory {
                    space: "local",
                    address,
                    bytes: bytes as u32,
                    allocation: None,
                };
                observe::report(
                    w,
                    g,
                    warp,
                    lane,
                    FindingKind::UninitialisedMemory,
                    what,
                    site.pc,
                );
            }
            values[lane] = word(&warp.local, place, a.bytes);
        }
        deliver(&mut warp.registers, a, r[element], &values, site.mask);
    }
    Ok(())
}

/// Where an access to local memory goes, if it is one that may be made.
fn local(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    lane: usize,
    address: u64,
    bytes: u8,
    pc: u32,
) -> Result<Option<usize>, Error> {
    let what = observe::Memory {
        space: "local",
        address,
        bytes: u32::from(bytes),
        allocation: None,
    };
    if !address.is_multiple_of(u64::from(bytes)) {
        observe::illegal(w, g, warp, lane, FindingKind::Misaligned, what, pc)?;
        return Ok(None);
    }
    let place = local_place(warp, lane, address, u64::from(bytes));
    if place.is_none() {
        observe::illegal(w, g, warp, lane, FindingKind::OutOfBounds, what, pc)?;
    }
    Ok(place)
}

pub(super) fn store(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    mask: u32,
    pc: u32,
) -> Result<(), Error> {
    let all = addresses(&warp.registers, r[0], a.wide, a.offset, mask);
    let bytes = u64::from(a.bytes) * u64::from(a.lanes);
    w.changes += 1;
    by_space(a.space, &all, mask, |space, at, mask| {
        let is_atomic = a.order != Order::Weak;
        let site = Site {
            pc,
            mask,
            bytes,
            is_write: true,
            is_atomic,
        };
        match space {
            Space::Global => {
                if is_atomic {
                    order::release_global(w, g, warp, at, mask, a.order, false);
                }
                global_store(w, g, warp, a, r, at, site)
            }
            Space::Shared | Space::Cluster | Space::Generic => {
                if is_atomic {
                    order::release_shared(w, g, warp, at, mask, a.order, false);
                }
                shared_store(w, g, warp, a, r, at, site, space)
            }
            Space::Local => {
                w.counters[pc as usize].requests += 1;
                for element in 0..usize::from(a.lanes) {
                    for lane in lanes(mask) {
                        let address = at[lane] + element as u64 * u64::from(a.bytes);
                        let value = value(&warp.registers, a, r[1 + element], lane);
                        let Some(place) = local(w, g, warp, lane, address, a.bytes, pc)? else {
                            continue;
                        };
                        set_word(&mut warp.local, place, a.bytes, value);
                        if w.launch.checks.init {
                            warp.local_defined[place..place + usize::from(a.bytes)].fill(1);
                        }
                    }
                }
                Ok(())
            }
            Space::Const | Space::Param => {
                let lane = mask.trailing_zeros() as usize;
                let what = observe::Memory {
                    space: "parameter",
                    address: at[lane],
                    bytes: bytes as u32,
                    allocation: None,
                };
                observe::illegal(w, g, warp, lane, FindingKind::WriteToConstant, what, pc)
            }
        }
    })
}

fn value(registers: &Registers, a: &Access, row: u32, lane: usize) -> u64 {
    registers.lane(row, lane, a.width == Width::B64)
}

fn global_store(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    at: &Addresses,
    site: Site,
) -> Result<(), Error> {
    let found = observe::global(w, g, warp, at, site)?;
    let memory = w.launch.memory;
    if w.launch.checks.race {
        let registers = &warp.registers;
        let same = |lane: usize, other: Option<usize>| {
            (0..usize::from(a.lanes)).all(|element| {
                let own = value(registers, a, r[1 + element], lane);
                let before = match other {
                    Some(other) => value(registers, a, r[1 + element], other),
                    None => {
                        let address = at[lane] + element as u64 * u64::from(a.bytes);
                        let allocation = memory.find(address, &mut 0);
                        allocation.map_or(0, |found| found.load(address - found.base, a.bytes))
                    }
                };
                let keep = u64::MAX >> (64 - 8 * u32::from(a.bytes));
                own & keep == before & keep
            })
        };
        race::race_global(
            w,
            g,
            warp,
            at,
            Site {
                mask: found.mask,
                ..site
            },
            same,
        );
    }
    for element in 0..usize::from(a.lanes) {
        let add = element as u64 * u64::from(a.bytes);
        if let Some((index, base)) = found.whole {
            let allocation = &memory.allocations()[index];
            if a.bytes == 4 && a.width == Width::B32 {
                let values = warp.registers.r32(r[1 + element]);
                for lane in lanes(site.mask) {
                    allocation.store(at[lane] - base + add, 4, u64::from(values[lane]));
                }
            } else {
                for lane in lanes(site.mask) {
                    allocation.store(
                        at[lane] - base + add,
                        a.bytes,
                        value(&warp.registers, a, r[1 + element], lane),
                    );
                }
            }
        } else {
            for lane in lanes(found.mask) {
                let address = at[lane] + add;
                if let Some(allocation) = memory.find(address, &mut w.hint) {
                    let value = value(&warp.registers, a, r[1 + element], lane);
                    allocation.store(address - allocation.base, a.bytes, value);
                }
            }
        }
    }
    Ok(())
}

fn shared_store(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    at: &Addresses,
    site: Site,
    space: Space,
) -> Result<(), Error> {
    let found = observe::shared(w, g, warp, at, site, space)?;
    if w.launch.checks.race {
        let same = |g: &Group, warp: &Warp, lane: usize, other: Option<usize>| {
            (0..usize::from(a.lanes)).all(|element| {
                let own = value(&warp.registers, a, r[1 + element], lane);
                let before = match other {
                    Some(other) => value(&warp.registers, a, r[1 + element], other),
                    None => {
                        let block = observe::rank_of(warp, at[lane], found.rank);
                        let from = found.offsets[lane] as usize + element * usize::from(a.bytes);
                        word(&g.blocks[block].shared, from, a.bytes)
                    }
                };
                let keep = u64::MAX >> (64 - 8 * u32::from(a.bytes));
                own & keep == before & keep
            })
        };
        race::race_shared(w, g, warp, at, &found, site, same);
    }
    for element in 0..usize::from(a.lanes) {
        let add = element * usize::from(a.bytes);
        if let (Some(rank), 4, Width::B32) = (found.rank, a.bytes, a.width) {
            let shared = &mut g.blocks[rank].shared;
            let values = warp.registers.r32(r[1 + element]);
            for lane in lanes(found.mask) {
                let from = found.offsets[lane] as usize + add;
                if let Some(place) = shared[from..].first_chunk_mut() {
                    *place = values[lane].to_le_bytes();
                }
            }
            continue;
        }
        for lane in lanes(found.mask) {
            let block = observe::rank_of(warp, at[lane], found.rank);
            let value = value(&warp.registers, a, r[1 + element], lane);
            set_word(
                &mut g.blocks[block].shared,
                found.offsets[lane] as usize + add,
                a.bytes,
                value,
            );
        }
    }
    Ok(())
}

/// Counts an access to shared memory.
#[inline(always)]
pub(super) fn count_shared(w: &mut Worker<'_>, at: &Addresses, site: Site) {
    let (wavefronts, ideal) = coalesce::wavefronts(at, site.mask, site.bytes);
    let counters = &mut w.counters[site.pc as usize];
    counters.requests += 1;
    counters.wavefronts += u64::from(wavefronts);
    counters.ideal_wavefronts += u64::from(ideal);
}
