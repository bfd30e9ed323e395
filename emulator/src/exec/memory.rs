//! Loads and stores of the lanes of a warp.

use super::local;
use super::observe::{self, Shared};
use super::order;
use super::race;
use super::registers::Registers;
use super::row;
use super::scatter;
use super::state::{Group, Warp, Worker};
use super::vectorise::{each, vectorised};
use super::words::{self, is_plain};
use crate::check::finding::FindingKind;
use crate::count::coalesce;
use crate::error::Error;
use crate::memory::cells::{Plain, PlainMut};
use crate::memory::window::{self, Place};
use crate::program::op::{Access, Op, Order, Space, Width};

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

/// Whether all lanes' accesses lie side by side, in order.
#[inline(always)]
pub(super) fn is_row(at: &Addresses, mask: u32, bytes: u64) -> bool {
    let mut differ = 0;
    for lane in 0..32 {
        differ |= at[lane] ^ at[0].wrapping_add(lane as u64 * bytes);
    }
    differ == 0 && mask == u32::MAX
}

/// As [`is_row`], of offsets in shared memory.
#[inline(always)]
pub(super) fn is_row_of_offsets(at: &[u32; 32], mask: u32, bytes: u32) -> bool {
    let mut differ = 0;
    for lane in 0..32 {
        differ |= at[lane] ^ at[0].wrapping_add(lane as u32 * bytes);
    }
    differ == 0 && mask == u32::MAX
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
pub(super) fn deliver(
    registers: &mut Registers,
    a: &Access,
    row: u32,
    values: &[u64; 32],
    mask: u32,
) {
    match a.width {
        Width::B64 => registers.write64(row, &each(|lane| extend(values[lane], a)), mask),
        Width::B32 => registers.write32(row, &each(|lane| extend(values[lane], a) as u32), mask),
        Width::B16 => registers.write32(
            row,
            &each(|lane| extend(values[lane], a) as u32 & 0xffff),
            mask,
        ),
    }
}

/// A load of the lanes of a mask.
#[inline(always)]
pub(super) fn load(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    mask: u32,
    pc: u32,
) -> Result<(), Error> {
    if mask == u32::MAX && a.order == Order::Weak && load_whole(w, g, warp, a, r, pc) {
        return Ok(());
    }
    load_lanes(w, g, warp, a, r, mask, pc)
}

vectorised! {
    /// A load by a whole warp, if it can be made as one.
    fn load_whole(w: &mut Worker<'_>, g: &mut Group, warp: &mut Warp, a: &Access, r: &[u32], pc: u32) -> bool {
        match a.space {
            Space::Global => row::load_global(w, g, warp, a, r, pc) || scatter::load_global(w, warp, a, r, pc),
            Space::Shared => row::load_shared(w, g, warp, a, r, pc) || scatter::load_shared(w, g, warp, a, r, pc),
            _ => false,
        }
    }
}

vectorised! {
    /// A load, lane by lane.
    fn load_lanes(w: &mut Worker<'_>, g: &mut Group, warp: &mut Warp, a: &Access, r: &[u32], mask: u32, pc: u32) -> Result<(), Error> {
        let all = addresses(&warp.registers, r[usize::from(a.lanes)], a.wide, a.offset, mask);
        let site = Site {
            pc,
            mask,
            bytes: u64::from(a.bytes) * u64::from(a.lanes),
            is_write: false,
            is_atomic: false,
        };
        match (a.order, a.space) {
            (Order::Weak, Space::Global | Space::Const) => global_load(w, g, warp, a, r, &all, site),
            (Order::Weak, Space::Shared) => shared_load(w, g, warp, a, r, &all, site, Space::Shared),
            _ => any_load(w, g, warp, a, r, &all, site),
        }
    }
}

/// A load of any kind, from any space.
fn any_load(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    all: &Addresses,
    site: Site,
) -> Result<(), Error> {
    by_space(a.space, all, site.mask, |space, at, mask| {
        let is_atomic = a.order != Order::Weak;
        let site = Site {
            mask,
            is_atomic,
            ..site
        };
        match space {
            Space::Global | Space::Const => {
                if space == Space::Global && is_atomic {
                    order::acquire_global(w, g, warp, at, mask, a);
                }
                global_load(w, g, warp, a, r, at, site)
            }
            Space::Shared | Space::Cluster | Space::Generic => {
                if is_atomic {
                    order::acquire_shared(w, g, warp, at, mask, a);
                }
                shared_load(w, g, warp, a, r, at, site, space)
            }
            Space::Local => local::load(w, g, warp, a, r, at, site),
            Space::Param => local::load_parameter(w, g, warp, a, r, at, site),
        }
    })
}

#[inline(always)]
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
        let registers = &mut warp.registers;
        let offset = |lane: usize| at[lane] - base;
        if is_plain(a) {
            // SAFETY: `whole` says that each lane's bytes, a.lanes × a.bytes from its address on, are within the allocation, and
            // the address a multiple of their number, which is a power of two; an allocation begins at a multiple of 8.
            unsafe {
                match allocation.vectors() {
                    Some(cells) => words::load(registers, cells, a, r, site.mask, offset),
                    None => words::load(registers, allocation.cells(), a, r, site.mask, offset),
                }
            }
            return Ok(());
        }
        for element in 0..usize::from(a.lanes) {
            let add = element as u64 * u64::from(a.bytes);
            let values = each(|lane| allocation.load(offset(lane) + add, a.bytes));
            deliver(registers, a, r[element], &values, site.mask);
        }
        return Ok(());
    }
    for element in 0..usize::from(a.lanes) {
        let mut values = [0; 32];
        for lane in lanes(found.mask) {
            let address = at[lane].wrapping_add(element as u64 * u64::from(a.bytes));
            if let Some(allocation) = memory.find(address, &mut w.hint) {
                values[lane] = allocation.load(address - allocation.base, a.bytes);
            }
        }
        deliver(&mut warp.registers, a, r[element], &values, site.mask);
    }
    Ok(())
}

#[inline(always)]
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
    if let Some(rank) = rank
        && is_plain(a)
    {
        let memory = Plain::new(&g.blocks[rank].shared);
        let at = |lane: usize| u64::from(offsets[lane]);
        // SAFETY: `observe::shared` found the bytes of every lane, a.lanes × a.bytes from its offset on, within the block's shared
        // memory, and aligned to their number; lanes that take no part have the offset of one that does.
        unsafe { words::load(&mut warp.registers, memory, a, r, mask, at) };
        return Ok(());
    }
    for element in 0..usize::from(a.lanes) {
        let add = element * usize::from(a.bytes);
        let mut values = [0; 32];
        for lane in lanes(mask) {
            let block = observe::rank_of(warp, at[lane], rank);
            let from = offsets[lane] as usize + add;
            values[lane] = word(&g.blocks[block].shared, from, a.bytes);
        }
        deliver(&mut warp.registers, a, r[element], &values, mask);
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

/// A store of the lanes of a mask.
#[inline(always)]
pub(super) fn store(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    mask: u32,
    pc: u32,
) -> Result<(), Error> {
    w.changes += 1;
    if mask == u32::MAX && a.order == Order::Weak && store_whole(w, g, warp, a, r, pc) {
        return Ok(());
    }
    store_lanes(w, g, warp, a, r, mask, pc)
}

vectorised! {
    /// A store by a whole warp, if it can be made as one.
    fn store_whole(w: &mut Worker<'_>, g: &mut Group, warp: &mut Warp, a: &Access, r: &[u32], pc: u32) -> bool {
        match a.space {
            Space::Global => row::store_global(w, g, warp, a, r, pc) || scatter::store_global(w, warp, a, r, pc),
            Space::Shared => row::store_shared(w, g, warp, a, r, pc) || scatter::store_shared(w, g, warp, a, r, pc),
            _ => false,
        }
    }
}

vectorised! {
    /// A store, lane by lane.
    fn store_lanes(w: &mut Worker<'_>, g: &mut Group, warp: &mut Warp, a: &Access, r: &[u32], mask: u32, pc: u32) -> Result<(), Error> {
        let all = addresses(&warp.registers, r[0], a.wide, a.offset, mask);
        let site = Site {
            pc,
            mask,
            bytes: u64::from(a.bytes) * u64::from(a.lanes),
            is_write: true,
            is_atomic: false,
        };
        match (a.order, a.space) {
            (Order::Weak, Space::Global) => global_store(w, g, warp, a, r, &all, site),
            (Order::Weak, Space::Shared) => shared_store(w, g, warp, a, r, &all, site, Space::Shared),
            _ => any_store(w, g, warp, a, r, &all, site),
        }
    }
}

/// A store of any kind, to any space.
fn any_store(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    all: &Addresses,
    site: Site,
) -> Result<(), Error> {
    let pc = site.pc;
    by_space(a.space, all, site.mask, |space, at, mask| {
        let is_atomic = a.order != Order::Weak;
        let site = Site {
            mask,
            is_atomic,
            ..site
        };
        match space {
            Space::Global => {
                global_store(w, g, warp, a, r, at, site)?;
                if is_atomic {
                    order::release_global(w, g, warp, at, mask, a, false);
                }
                Ok(())
            }
            Space::Shared | Space::Cluster | Space::Generic => {
                shared_store(w, g, warp, a, r, at, site, space)?;
                if is_atomic {
                    order::release_shared(w, g, warp, at, mask, a, false);
                }
                Ok(())
            }
            Space::Local => local::store(w, g, warp, a, r, at, site),
            Space::Const | Space::Param => {
                let lane = mask.trailing_zeros() as usize;
                let what = observe::Memory {
                    space: "parameter",
                    address: at[lane],
                    bytes: site.bytes as u32,
                    allocation: None,
                };
                observe::illegal(w, g, warp, lane, FindingKind::WriteToConstant, what, pc)
            }
        }
    })
}

pub(super) fn value(registers: &Registers, a: &Access, row: u32, lane: usize) -> u64 {
    registers.lane(row, lane, a.width == Width::B64)
}

#[inline(always)]
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
                        let address = at[lane].wrapping_add(element as u64 * u64::from(a.bytes));
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
    if let Some((index, base)) = found.whole {
        let allocation = &memory.allocations()[index];
        let (registers, r) = (&warp.registers, &r[1..]);
        let offset = |lane: usize| at[lane] - base;
        if is_plain(a) && site.mask == u32::MAX {
            // SAFETY: as in `global_load`.
            unsafe {
                match allocation.vectors() {
                    Some(cells) => words::store(registers, cells, a, r, offset),
                    None => words::store(registers, allocation.cells(), a, r, offset),
                }
            }
            return Ok(());
        }
        for element in 0..usize::from(a.lanes) {
            let add = element as u64 * u64::from(a.bytes);
            for lane in lanes(site.mask) {
                let value = value(registers, a, r[element], lane);
                allocation.store(offset(lane) + add, a.bytes, value);
            }
        }
        return Ok(());
    }
    for element in 0..usize::from(a.lanes) {
        let add = element as u64 * u64::from(a.bytes);
        for lane in lanes(found.mask) {
            let address = at[lane] + add;
            if let Some(allocation) = memory.find(address, &mut w.hint) {
                let value = value(&warp.registers, a, r[1 + element], lane);
                allocation.store(address - allocation.base, a.bytes, value);
            }
        }
    }
    Ok(())
}

#[inline(always)]
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
    if let Some(rank) = found.rank
        && is_plain(a)
        && found.mask == u32::MAX
    {
        let memory = PlainMut::new(&mut g.blocks[rank].shared);
        let at = |lane: usize| u64::from(found.offsets[lane]);
        // SAFETY: as in `shared_load`.
        unsafe { words::store(&warp.registers, memory, a, &r[1..], at) };
        return Ok(());
    }
    for element in 0..usize::from(a.lanes) {
        let add = element * usize::from(a.bytes);
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
pub(super) fn count_shared(w: &mut Worker<'_>, offsets: &[u32; 32], site: Site) {
    let op = || &w.launch.kernel.code.instructions[site.pc as usize].op;
    // Only a load of a vector's kind returns registers that can be packed; `ldmatrix` and copies have their own ways.
    let packs = site.bytes >= 8 && !site.is_write && matches!(op(), Op::Load(_));
    let (wavefronts, ideal) = coalesce::wavefronts(offsets, site.mask, site.bytes as u32, packs);
    let counters = &mut w.counters[site.pc as usize];
    counters.requests += 1;
    counters.wavefronts += u64::from(wavefronts);
    counters.ideal_wavefronts += u64::from(ideal);
}
