//! What an access to memory is checked for and counted as, before it is made.

use super::memory::{Addresses, Site, count_shared, is_row, is_row_of_offsets, lanes};
use super::race;
use super::scatter;
use super::state::{Group, Warp, Worker};
use super::vectorise::each;
use crate::check::finding::{FindingKind, Instance};
use crate::count::coalesce;
use crate::error::{Error, ErrorKind};
use crate::program::op::Space;

/// The memory that a finding is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) space: &'static str,
    pub(super) address: u64,
    pub(super) bytes: u32,
    /// Base and size.
    pub(super) allocation: Option<(u64, u64)>,
}

pub(super) fn instance(g: &Group, warp: &Warp, lane: usize, what: Memory) -> Instance {
    Instance {
        address: Some(what.address),
        space: Some(what.space),
        bytes: what.bytes,
        allocation: what.allocation,
        ..Instance::new(g.blocks[warp.rank].index, warp.thread(lane))
    }
}

/// Adds a finding.
pub(super) fn report(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    lane: usize,
    kind: FindingKind,
    what: Memory,
    pc: u32,
) {
    w.findings.add(kind, pc, 0, instance(g, warp, lane, what));
}

/// An access that cannot be made: a finding where that is checked, the end of the launch where not.
pub(super) fn illegal(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    lane: usize,
    kind: FindingKind,
    what: Memory,
    pc: u32,
) -> Result<(), Error> {
    if w.launch.checks.memory {
        report(w, g, warp, lane, kind, what, pc);
        return Ok(());
    }
    let Memory {
        space,
        address,
        bytes,
        ..
    } = what;
    let name = match kind {
        FindingKind::Misaligned => "misaligned access",
        FindingKind::WriteToConstant => "write to constant memory",
        FindingKind::UseAfterFree => "use after free",
        _ => "access out of bounds",
    };
    let kind = if kind == FindingKind::Misaligned {
        ErrorKind::Misaligned
    } else {
        ErrorKind::IllegalAddress
    };
    let by = (w.launch).thread_name(g.blocks[warp.rank].index, warp.thread(lane));
    let what = format!("{name} of {bytes} bytes of {space} memory at 0x{address:x} by {by}");
    Err(w.fail(kind, pc, &what))
}

/// Where an access to global memory goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// The allocation, its number and base, that all lanes' accesses are in.
    pub(super) whole: Option<(usize, u64)>,
    /// Lanes whose access can be made.
    pub(super) mask: u32,
}

/// Checks and counts an access to global memory; a write marks what it writes.
#[inline(always)]
pub(super) fn global(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    at: &Addresses,
    site: Site,
) -> Result<Found, Error> {
    let memory = w.launch.memory;
    let first = site.mask.trailing_zeros() as usize & 31;
    let Some(allocation) = memory.find(at[first], &mut w.hint) else {
        return scattered(w, g, warp, at, site);
    };
    let index = w.hint;
    let base = allocation.base;
    let mut low = 0;
    let mut high = 0;
    for address in at {
        low |= address;
        high = high.max(address.wrapping_sub(base));
    }
    if allocation.bytes < site.bytes
        || high > allocation.bytes - site.bytes
        || low & (site.bytes - 1) != 0
        || (site.is_write && allocation.read_only)
    {
        return scattered(w, g, warp, at, site);
    }
    let row = is_row(at, site.mask, site.bytes);
    w.counters[site.pc as usize].requests += 1;
    if row {
        let counters = &mut w.counters[site.pc as usize];
        let start = at[0] - base;
        let length = 32 * site.bytes;
        let sectors = (start + length - 1) / 32 - start / 32 + 1;
        counters.sectors += sectors;
        counters.ideal_sectors += site.bytes;
        w.touched.mark(index, site.is_write, start, length);
    } else {
        let sectors = if base % 32 == 0 && allocation.bytes <= u64::from(u32::MAX) {
            let offsets = each(|lane| (at[lane] - base) as u32);
            scatter::mark(w, index, site.is_write, &offsets)
        } else {
            w.touched
                .mark_lanes(index, site.is_write, at, base, site.mask, site.bytes);
            u64::from(coalesce::sectors(at, site.mask, site.bytes))
        };
        let counters = &mut w.counters[site.pc as usize];
        counters.sectors += sectors;
        counters.ideal_sectors += coalesce::ideal_sectors(site.mask, site.bytes, sectors);
    }
    let checks = w.launch.checks;
    if checks.init {
        if row {
            let (start, length) = (at[0] - base, 32 * site.bytes);
            if site.is_write {
                allocation.define(start, length);
            } else if !allocation.is_defined_range(start, length) {
                undefined(w, g, warp, at, site);
            }
        } else {
            for lane in lanes(site.mask) {
                if site.is_write {
                    allocation.define(at[lane] - base, site.bytes);
                } else if !allocation.is_defined(at[lane] - base, site.bytes) {
                    undefined(
                        w,
                        g,
                        warp,
                        at,
                        Site {
                            mask: 1 << lane,
                            ..site
                        },
                    );
                }
            }
        }
    }
    // A write says itself what it writes, so that equal values can be told apart.
    if checks.race && !site.is_write {
        race::race_global(w, g, warp, at, site, |_, _| false);
    }
    Ok(Found {
        whole: Some((index, base)),
        mask: site.mask,
    })
}

fn undefined(w: &mut Worker<'_>, g: &Group, warp: &Warp, at: &Addresses, site: Site) {
    for lane in lanes(site.mask) {
        let Some(allocation) = w.launch.memory.find(at[lane], &mut w.hint) else {
            continue;
        };
        let (base, bytes) = (allocation.base, allocation.bytes);
        if !allocation.is_defined(at[lane] - base, site.bytes) {
            let what = Memory {
                space: "global",
                address: at[lane],
                bytes: site.bytes as u32,
                allocation: Some((base, bytes)),
            };
            report(
                w,
                g,
                warp,
                lane,
                FindingKind::UninitialisedMemory,
                what,
                site.pc,
            );
        }
    }
}

/// As [`global`], where the lanes' accesses are in several allocations, or some cannot be made.
#[cold]
fn scattered(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    at: &Addresses,
    site: Site,
) -> Result<Found, Error> {
    let mut good = 0;
    for lane in lanes(site.mask) {
        let address = at[lane];
        let found = w.launch.memory.find(address, &mut w.hint);
        let found = found.map(|a| (a.base, a.bytes, a.read_only));
        let nearest = || w.launch.memory.nearest(address).map(|a| (a.base, a.bytes));
        let (kind, allocation) = match found {
            Some((base, bytes, read_only)) => {
                if !address.is_multiple_of(site.bytes) {
                    (FindingKind::Misaligned, Some((base, bytes)))
                } else if address - base + site.bytes > bytes {
                    (FindingKind::OutOfBounds, Some((base, bytes)))
                } else if site.is_write && read_only {
                    (FindingKind::WriteToConstant, Some((base, bytes)))
                } else {
                    good |= 1 << lane;
                    let start = address - base;
                    let index = w.hint;
                    w.touched.mark(index, site.is_write, start, site.bytes);
                    if site.is_write && w.launch.checks.init {
                        w.launch.memory.allocations()[index].define(start, site.bytes);
                    }
                    continue;
                }
            }
            None => match w.launch.memory.was_freed(address) {
                Some(freed) => (FindingKind::UseAfterFree, Some(freed)),
                None => (FindingKind::OutOfBounds, nearest()),
            },
        };
        let what = Memory {
            space: "global",
            address,
            bytes: site.bytes as u32,
            allocation,
        };
        illegal(w, g, warp, lane, kind, what, site.pc)?;
    }
    if good != 0 {
        let counters = &mut w.counters[site.pc as usize];
        counters.requests += 1;
        let sectors = u64::from(coalesce::sectors(at, good, site.bytes));
        counters.sectors += sectors;
        counters.ideal_sectors += coalesce::ideal_sectors(good, site.bytes, sectors);
        let site = Site { mask: good, ..site };
        if !site.is_write {
            if w.launch.checks.init {
                undefined(w, g, warp, at, site);
            }
            if w.launch.checks.race {
                race::race_global(w, g, warp, at, site, |_, _| false);
            }
        }
    }
    Ok(Found {
        whole: None,
        mask: good,
    })
}

/// Where an access to shared memory goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared {
    /// The block in the group, where all lanes mean the same.
    pub(super) rank: Option<usize>,
    /// Lanes whose access can be made.
    pub(super) mask: u32,
    /// Offsets within the block's shared memory. Lanes that take no part have that of one that does.
    pub(super) offsets: [u32; 32],
}

/// Bits of a shared address that say where in a block's shared memory it is; above them is the rank of the block plus 1, or 0
/// for the own block.
pub(super) const RANK_SHIFT: u32 = 24;

/// The block in its group whose shared memory a lane's address means.
pub(super) fn rank_of(warp: &Warp, address: u64, all: Option<usize>) -> usize {
    all.unwrap_or_else(|| match (address >> RANK_SHIFT) as usize {
        0 => warp.rank,
        rank => rank - 1,
    })
}

/// Checks and counts an access to shared memory; a write marks what it writes.
#[inline(always)]
pub(super) fn shared(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    at: &Addresses,
    site: Site,
    space: Space,
) -> Result<Shared, Error> {
    let block = &g.blocks[warp.rank];
    let size = block.shared.len() as u64;
    let mut low = 0;
    let mut high = 0;
    for &address in at {
        low |= address;
        high = high.max(address);
    }
    if size < site.bytes || high > size - site.bytes || low & (site.bytes - 1) != 0 {
        return distant(w, g, warp, at, site, space);
    }
    let found = Shared {
        rank: Some(warp.rank),
        mask: site.mask,
        offsets: each(|lane| at[lane] as u32),
    };
    count_shared(w, &found.offsets, site);
    watch_shared(w, g, warp, at, &found, site);
    Ok(found)
}

/// Marks an access side by side as defined, or finds that it is. Whether that is all there is to do.
#[inline(always)]
fn define_row(g: &mut Group, found: &Shared, site: Site) -> bool {
    let bytes = site.bytes as usize;
    let (Some(rank), true) = (
        found.rank,
        is_row_of_offsets(&found.offsets, found.mask, site.bytes as u32),
    ) else {
        return false;
    };
    let from = found.offsets[0] as usize;
    let Some(row) = g.blocks[rank].defined.get_mut(from..from + 32 * bytes) else {
        return false;
    };
    if site.is_write {
        row.fill(1);
        return true;
    }
    row.iter().fold(1, |all, defined| all & defined) == 1
}

/// Marks what lanes write as defined; of a read, the lanes that read what is not.
#[inline(always)]
fn define_lanes(defined: &mut [u8], found: &Shared, site: Site) -> u32 {
    #[inline(always)]
    fn of<const N: usize>(defined: &mut [u8], offsets: &[u32; 32], is_write: bool) -> u32 {
        let mut missing = 0;
        // Lanes that take no part have the offset of one that does.
        for (lane, &offset) in offsets.iter().enumerate() {
            let Some(bytes) =
                (defined.get_mut(offset as usize..)).and_then(|rest| rest.first_chunk_mut::<N>())
            else {
                continue;
            };
            if is_write {
                *bytes = [1; N];
            } else {
                missing |= u32::from(*bytes != [1; N]) << lane;
            }
        }
        missing
    }
    let missing = match site.bytes {
        1 => of::<1>(defined, &found.offsets, site.is_write),
        2 => of::<2>(defined, &found.offsets, site.is_write),
        4 => of::<4>(defined, &found.offsets, site.is_write),
        8 => of::<8>(defined, &found.offsets, site.is_write),
        _ => of::<16>(defined, &found.offsets, site.is_write),
    };
    missing & found.mask
}

/// Marks what lanes write as defined; finds reads of what is not.
#[inline(always)]
fn watch_defined(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    at: &Addresses,
    found: &Shared,
    site: Site,
) {
    let missing = match found.rank {
        Some(_) if define_row(g, found, site) => 0,
        Some(rank) => define_lanes(&mut g.blocks[rank].defined, found, site),
        None => lanes(found.mask).fold(0, |missing, lane| {
            let one = Shared {
                mask: 1 << lane,
                offsets: [found.offsets[lane]; 32],
                ..*found
            };
            let block = &mut g.blocks[rank_of(warp, at[lane], None)];
            missing | define_lanes(&mut block.defined, &one, site)
        }),
    };
    for lane in lanes(missing) {
        let what = shared_memory(g, warp, at[lane], found, lane, site);
        report(
            w,
            g,
            warp,
            lane,
            FindingKind::UninitialisedMemory,
            what,
            site.pc,
        );
    }
}

/// The checks of an access to shared memory that can be made.
#[inline(always)]
fn watch_shared(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    at: &Addresses,
    found: &Shared,
    site: Site,
) {
    let checks = w.launch.checks;
    if checks.init {
        watch_defined(w, g, warp, at, found, site);
    }
    if checks.race {
        if !is_quiet(g, found, site) {
            watch_copies(w, g, warp, at, found, site);
        }
        if !site.is_write {
            race::race_shared(w, g, warp, at, found, site, |_, _, _, _| false);
        }
    }
}

pub(super) fn shared_memory(
    g: &Group,
    warp: &Warp,
    address: u64,
    found: &Shared,
    lane: usize,
    site: Site,
) -> Memory {
    let size = g.blocks[rank_of(warp, address, found.rank)].shared.len() as u64;
    Memory {
        space: "shared",
        address: u64::from(found.offsets[lane]),
        bytes: site.bytes as u32,
        allocation: Some((0, size)),
    }
}

/// Whether no asynchronous copy is under way to what is accessed.
#[inline(always)]
fn is_quiet(g: &Group, found: &Shared, site: Site) -> bool {
    let Some(rank) = found.rank else {
        return false;
    };
    let in_flight = &g.blocks[rank].in_flight;
    if in_flight.is_quiet() {
        return true;
    }
    let bytes = site.bytes as u32;
    if is_row_of_offsets(&found.offsets, found.mask, bytes) {
        let from = found.offsets[0];
        return !in_flight.any(from..from + 32 * bytes);
    }
    // Lanes that take no part have the offset of one that does.
    let is_busy = |&offset: &u32| in_flight.any(offset..offset + bytes);
    !found.offsets.iter().any(is_busy)
}

/// Looks for asynchronous copies under way to what is accessed.
#[cold]
fn watch_copies(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    at: &Addresses,
    found: &Shared,
    site: Site,
) {
    for lane in lanes(found.mask) {
        let rank = rank_of(warp, at[lane], found.rank);
        let from = found.offsets[lane];
        let bytes = from..from + site.bytes as u32;
        if !g.blocks[rank].in_flight.any(bytes) {
            continue;
        }
        if let Some((other_pc, other)) = super::copy::find(g, warp, rank, from, site.bytes as u32) {
            let what = shared_memory(g, warp, at[lane], found, lane, site);
            let instance = Instance {
                other: Some(other),
                ..instance(g, warp, lane, what)
            };
            w.findings
                .add(FindingKind::MissingWait, site.pc, other_pc, instance);
        }
    }
}

/// As [`shared`], where lanes mean other blocks of the cluster, or some accesses cannot be made.
#[cold]
fn distant(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    at: &Addresses,
    site: Site,
    space: Space,
) -> Result<Shared, Error> {
    let mut found = Shared {
        rank: None,
        mask: 0,
        offsets: [0; 32],
    };
    for lane in lanes(site.mask) {
        let rank = rank_of(warp, at[lane], None);
        let offset = at[lane] & ((1 << RANK_SHIFT) - 1);
        let is_near = at[lane] >> RANK_SHIFT == 0;
        let size = g
            .blocks
            .get(rank)
            .map_or(0, |block| block.shared.len() as u64);
        let reachable = (is_near || space != Space::Shared) && rank < g.blocks.len();
        let kind = if !reachable || offset + site.bytes > size {
            FindingKind::OutOfBounds
        } else if !offset.is_multiple_of(site.bytes) {
            FindingKind::Misaligned
        } else if g.blocks[rank].threads == 0 && rank != warp.rank {
            FindingKind::UseAfterFree
        } else {
            found.mask |= 1 << lane;
            found.offsets[lane] = offset as u32;
            let time = warp.clock.of(g.slot(warp.rank, warp.index));
            g.visit(rank, warp, lane, time, site.pc);
            continue;
        };
        let size = g.blocks[warp.rank].shared.len() as u64;
        let what = Memory {
            space: "shared",
            address: at[lane],
            bytes: site.bytes as u32,
            allocation: Some((0, size)),
        };
        illegal(w, g, warp, lane, kind, what, site.pc)?;
    }
    if found.mask != 0 {
        let first = found.offsets[found.mask.trailing_zeros() as usize];
        for lane in 0..32 {
            if found.mask >> lane & 1 == 0 {
                found.offsets[lane] = first;
            }
        }
        let first = rank_of(warp, at[found.mask.trailing_zeros() as usize], None);
        if lanes(found.mask).all(|lane| rank_of(warp, at[lane], None) == first) {
            found.rank = Some(first);
        }
        count_shared(
            w,
            &found.offsets,
            Site {
                mask: found.mask,
                ..site
            },
        );
        watch_shared(w, g, warp, at, &found, site);
    }
    Ok(found)
}
