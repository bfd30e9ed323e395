//! Looks for races of an access, and says what was found.

use super::memory::{Addresses, Site, lanes};
use super::observe::{Memory, Shared, instance, rank_of, shared_memory};
use super::state::{Group, Warp, Worker};
use crate::check::finding::{FindingKind, Instance, Severity};
use crate::check::race::{self, Conflict, Stamp};

fn is_ordered(warp: &Warp, slot: u32, lane: u32, other: Stamp) -> bool {
    if other.slot() == slot {
        warp.order.covers(other.time(), other.lane(), lane)
    } else {
        warp.clock.covers(other.slot(), other.time())
    }
}

/// Looks for races of an access to global memory. `same` says whether a lane writes what is there already, or what another
/// lane of the instruction writes.
pub(super) fn race_global(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    at: &Addresses,
    site: Site,
    same: impl Fn(usize, Option<usize>) -> bool,
) {
    let slot = g.slot(warp.rank, warp.index);
    let stamp = Stamp::new(warp.clock.of(slot), slot, 0, site.pc, site.is_atomic);
    let limit = Stamp::limit(warp.clock.floor().min(warp.order.all()));
    let granule = site.bytes.min(16);
    for lane in lanes(site.mask) {
        let own = stamp.of_lane(lane);
        let access = race::Access {
            stamp: own,
            group: g.index,
            is_write: site.is_write,
            limit,
        };
        let found = w.shadow.access(at[lane], granule, &access, |other, group| {
            if group == g.index {
                is_ordered(warp, slot, lane as u32, other)
            } else {
                warp.clock.covers_foreign(group, other.slot(), other.time())
            }
        });
        let Some(conflict) = found else { continue };
        let allocation = w
            .launch
            .memory
            .find(at[lane], &mut w.hint)
            .map(|a| (a.base, a.bytes));
        let what = Memory {
            space: "global",
            address: at[lane],
            bytes: site.bytes as u32,
            allocation,
        };
        let warps = w.launch.warps_per_block();
        let block = w
            .launch
            .block_index(conflict.group, conflict.other.slot() / warps);
        let same_group = conflict.group == g.index;
        race(
            w,
            g,
            warp,
            lane,
            &site,
            own,
            conflict,
            same_group,
            block,
            what,
            |other| same(lane, other),
        );
    }
}

/// Turns a conflict into a finding, unless it is one within an instruction that writes the same value.
fn race<G: race::Tag>(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    lane: usize,
    site: &Site,
    own: Stamp,
    conflict: Conflict<G>,
    same_group: bool,
    other_block: u32,
    what: Memory,
    same: impl Fn(Option<usize>) -> bool,
) {
    let other = conflict.other;
    let mut severity = Severity::Error;
    if same_group && other.slot() == own.slot() {
        severity = Severity::Warning;
        if other.time() == own.time() && other.pc() == own.pc() && site.is_write {
            if same(Some(other.lane() as usize)) {
                return;
            }
        } else if site.is_write && conflict.other_wrote && same(None) {
            severity = Severity::Note;
        }
    } else if site.is_write && conflict.other_wrote && same(None) {
        severity = Severity::Note;
    }
    let kind = match (site.is_write, conflict.other_wrote) {
        (true, true) => FindingKind::RaceWriteAfterWrite,
        (true, false) => FindingKind::RaceWriteAfterRead,
        (false, _) => FindingKind::RaceReadAfterWrite,
    };
    let warps = w.launch.warps_per_block();
    let thread = other.slot() % warps * 32 + other.lane();
    let instance = Instance {
        other: Some((other_block, thread)),
        ..instance(g, warp, lane, what)
    };
    w.findings
        .add_with(kind, severity, site.pc, other.pc(), instance);
}

/// As [`race_global`], of shared memory.
pub(super) fn race_shared(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    at: &Addresses,
    found: &Shared,
    site: Site,
    same: impl Fn(&Group, &Warp, usize, Option<usize>) -> bool,
) {
    let slot = g.slot(warp.rank, warp.index);
    let stamp = Stamp::new(warp.clock.of(slot), slot, 0, site.pc, site.is_atomic);
    let limit = Stamp::limit(warp.clock.floor().min(warp.order.all()));
    for lane in lanes(found.mask) {
        let rank = rank_of(warp, at[lane], found.rank);
        let own = stamp.of_lane(lane);
        let access = race::Access {
            stamp: own,
            group: (),
            is_write: site.is_write,
            limit,
        };
        let Some(shadow) = &mut g.blocks[rank].shadow else {
            return;
        };
        let offset = u64::from(found.offsets[lane]);
        let conflict = shadow.access(offset, site.bytes, &access, |other, ()| {
            is_ordered(warp, slot, lane as u32, other)
        });
        let Some(conflict) = conflict else { continue };
        let what = shared_memory(g, warp, at[lane], found, lane, site);
        let block = w
            .launch
            .block_index(g.index, conflict.other.slot() / w.launch.warps_per_block());
        let (group, warp) = (&*g, warp);
        race(
            w,
            group,
            warp,
            lane,
            &site,
            own,
            conflict,
            true,
            block,
            what,
            |other| same(group, warp, lane, other),
        );
    }
}
