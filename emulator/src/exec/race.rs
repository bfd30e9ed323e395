//! Looks for races of an access, and says what was found.

use std::ops::Range;

use super::memory::{Addresses, Site, lanes};
use super::observe::{Memory, Shared, instance, rank_of, shared_memory};
use super::state::{Async, Group, Warp, Worker};
use crate::check::clock::Clock;
use crate::check::finding::{FindingKind, Instance, Severity};
use crate::check::race::{self, Conflict, Home, Memo, Outcome, Stamp};
use crate::program::op::{Op, Scope};

/// Block in the launch and thread in it that a stamp is of, or that started the asynchronous operation.
fn party(w: &Worker<'_>, group: u32, stamp: Stamp) -> (u32, u32) {
    let warps = w.launch.warps_per_block();
    let slot = stamp.slot() % (warps * w.launch.cluster_size());
    (
        w.launch.block_index(group, slot / warps),
        slot % warps * 32 + stamp.lane(),
    )
}

/// Whether an access in the own group is before what a lane does.
fn is_ordered(warp: &Warp, slot: u32, lane: u32, group: u32, other: Stamp) -> bool {
    let by_warp = if other.slot() == slot && !other.is_async() {
        warp.order.covers(other.time(), other.lane(), lane)
    } else {
        (warp.clock).covers_lane(other.slot(), other.lane(), other.time())
    };
    by_warp || is_known(warp, lane, group, other)
}

/// Whether an access is before what a lane does, by what only some lanes know.
fn is_known(warp: &Warp, lane: u32, group: u32, other: Stamp) -> bool {
    let (slot, by, time) = (other.slot(), other.lane(), other.time());
    (warp.lanes).knows(lane, |clock| clock.covers_of(group, slot, by, time))
}

/// How far an atomic access reaches.
fn reach(w: &Worker<'_>, pc: u32, is_atomic: bool) -> Option<Scope> {
    if !is_atomic {
        return None;
    }
    Some(match &w.launch.kernel.code.instructions[pc as usize].op {
        Op::Load(access) | Op::Store(access) | Op::Atom { access, .. } => access.scope,
        // Reductions of bulk copies, and looks at an mbarrier.
        _ => Scope::Device,
    })
}

/// Whether an access in the own group is before those of all lanes. Of the own warp, whether that is told at once.
#[inline(always)]
pub(super) fn is_before_all(warp: &Warp, slot: u32, other: Stamp) -> bool {
    if other.slot() == slot {
        other.time() < warp.order.all()
    } else {
        warp.clock.covers_all(other.slot(), other.time())
    }
}

/// Bytes from each lane of a whole warp to the next, if they are the same and few.
#[inline(always)]
fn stride<T: Copy + Into<u64>>(at: &[T; 32], mask: u32) -> Option<u64> {
    let first: u64 = at[0].into();
    let stride = at[1].into().wrapping_sub(first);
    if mask != u32::MAX || !matches!(stride, 4 | 8 | 16) {
        return None;
    }
    let mut differ = 0;
    for (lane, &address) in at.iter().enumerate() {
        differ |= address.into() ^ first.wrapping_add(lane as u64 * stride);
    }
    (differ == 0).then_some(stride)
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
    let scope = reach(w, site.pc, site.is_atomic);
    let stamp = Stamp::new(warp.clock.of(slot), slot, 0, site.pc, scope);
    let limit = Stamp::limit(warp.clock.floor().min(warp.order.all()));
    let whole = race::Access {
        stamp,
        group: g.index,
        is_write: site.is_write,
        limit,
        home: g.home(warp.rank),
    };
    let is_before_all = |other: Stamp, group: u32| {
        if group == g.index {
            is_before_all(warp, slot, other)
        } else {
            warp.clock
                .covers_all_foreign(group, other.slot(), other.time())
        }
    };
    if let Some(stride) = stride(at, site.mask)
        && w.shadow
            .access_row(at[0], (stride, site.bytes), &whole, is_before_all)
    {
        return;
    }
    let memo: Memo<_> = Memo::default();
    let ordered = |lane: usize, other: Stamp, group: u32| {
        if group != g.index {
            memo.is_before(other, group, || is_before_all(other, group))
                || (warp.clock).covers_foreign(group, other.slot(), other.lane(), other.time())
                || is_known(warp, lane as u32, group, other)
        } else {
            other.slot() != slot && memo.is_before(other, group, || is_before_all(other, group))
                || is_ordered(warp, slot, lane as u32, g.index, other)
        }
    };
    let mut conflicts: Vec<(usize, Conflict<u32>)> = Vec::new();
    w.shadow
        .access_lanes(at, site.mask, site.bytes, &whole, ordered, |lane, found| {
            conflicts.push((lane, found));
        });
    for (lane, conflict) in conflicts {
        let own = stamp.of_lane(lane);
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
        let other = party(w, conflict.group, conflict.other);
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
            other,
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
    other_party: (u32, u32),
    what: Memory,
    same: impl Fn(Option<usize>) -> bool,
) {
    let other = conflict.other;
    // Ordinary writes are kept where an atomic one came after.
    let op = &w.launch.kernel.code.instructions[other.pc() as usize].op;
    let other_wrote = conflict.other_wrote || matches!(op, Op::Store(_));
    let mut severity = Severity::Error;
    if same_group && other.slot() == own.slot() && !other.is_async() {
        severity = Severity::Warning;
        if other.time() == own.time() && other.pc() == own.pc() && site.is_write {
            if same(Some(other.lane() as usize)) {
                return;
            }
        } else if site.is_write && other_wrote && same(None) {
            severity = Severity::Note;
        }
    } else if site.is_write && other_wrote && same(None) {
        severity = Severity::Note;
    }
    let kind = match (site.is_write, other_wrote) {
        (true, true) => FindingKind::RaceWriteAfterWrite,
        (true, false) => FindingKind::RaceWriteAfterRead,
        (false, _) => FindingKind::RaceReadAfterWrite,
    };
    let instance = Instance {
        other: Some(other_party),
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
    let scope = reach(w, site.pc, site.is_atomic);
    let stamp = Stamp::new(warp.clock.of(slot), slot, 0, site.pc, scope);
    let limit = Stamp::limit(warp.clock.floor().min(warp.order.all()));
    let whole = race::Access {
        stamp,
        group: (),
        is_write: site.is_write,
        limit,
        home: g.home(warp.rank),
    };
    if let Some(rank) = found.rank
        && let Some(stride) = stride(&found.offsets, found.mask)
        && let Some(shadow) = &mut g.blocks[rank].shadow
    {
        let first = u64::from(found.offsets[0]);
        let is_before_all = |other: Stamp, ()| is_before_all(warp, slot, other);
        if shadow.access_row(first, (stride, site.bytes), &whole, is_before_all) {
            return;
        }
    }
    let memo: Memo<_> = Memo::default();
    let ordered = |lane: usize, other: Stamp, ()| {
        other.slot() != slot && memo.is_before(other, (), || is_before_all(warp, slot, other))
            || is_ordered(warp, slot, lane as u32, g.index, other)
    };
    let mut conflicts: Vec<(usize, Conflict<()>)> = Vec::new();
    match found.rank {
        Some(rank) => {
            let Some(shadow) = &mut g.blocks[rank].shadow else {
                return;
            };
            shadow.access_lanes(
                |lane| u64::from(found.offsets[lane]),
                found.mask,
                site.bytes,
                &whole,
                ordered,
                |lane, conflict| conflicts.push((lane, conflict)),
            );
        }
        None => {
            for lane in lanes(found.mask) {
                let rank = rank_of(warp, at[lane], found.rank);
                let Some(shadow) = &mut g.blocks[rank].shadow else {
                    return;
                };
                let access = race::Access {
                    stamp: stamp.of_lane(lane),
                    ..whole
                };
                let offset = u64::from(found.offsets[lane]);
                let conflict = shadow.access(offset, site.bytes, &access, |other, ()| {
                    ordered(lane, other, ())
                });
                conflicts.extend(conflict.map(|conflict| (lane, conflict)));
            }
        }
    }
    for (lane, conflict) in conflicts {
        let own = stamp.of_lane(lane);
        let what = shared_memory(g, warp, at[lane], found, lane, site);
        let other = party(w, g.index, conflict.other);
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
            other,
            what,
            |other| same(group, warp, lane, other),
        );
    }
}

/// Words of one range that an asynchronous operation is told to conflict at, at most.
const CONFLICTS_OF_A_RANGE: usize = 8;

/// Notes a write to shared memory that was looked at before.
pub(super) fn mark_written(g: &mut Group, rank: usize, offset: u32, bytes: u64, stamp: Stamp) {
    if let Some(shadow) = &mut g.blocks[rank].shadow {
        let access = race::Access {
            stamp,
            group: (),
            is_write: true,
            limit: 0,
            home: Home::default(),
        };
        shadow.access(u64::from(offset), bytes, &access, |_, ()| true);
    }
}

/// Accesses of an asynchronous operation to ranges of shared memory, as of the thread that starts it: what is not ordered before
/// that, and, of reads, what no fence of the asynchronous proxy follows.
pub(super) fn race_async(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    rank: usize,
    ranges: &[Range<u32>],
    site: super::bulk::Site,
) {
    let super::bulk::Site {
        lane,
        pc,
        is_write,
        is_atomic,
        kind,
    } = site;
    let slot = g.slot(warp.rank, warp.index);
    let own = g.async_slot(kind, slot);
    let access = race::Access {
        stamp: Stamp::asynchronous(g.time, own, lane, pc, reach(w, pc, is_atomic)),
        group: (),
        is_write,
        limit: Stamp::limit(warp.clock.floor().min(warp.order.all())),
        home: g.home(warp.rank),
    };
    let group = g.index;
    let Some(shadow) = &mut g.blocks[rank].shadow else {
        return;
    };
    // Asynchronous operations of one thread and another are told apart by what waits for them, not by stamps.
    let (of_warps, of_lanes) = (Memo::<(), 8>::default(), Memo::<(), 8>::default());
    let ordered = |other: Stamp, ()| {
        of_warps.is_before(other, (), || is_before_all(warp, slot, other))
            || of_lanes.is_before_of_lane(other, (), || {
                is_ordered(warp, slot, lane as u32, group, other)
            })
    };
    let is_fenced = |last: Stamp| {
        let covers = |clock: &Clock| clock.covers_proxied(last.slot(), last.time());
        covers(&warp.clock)
            || (warp.lanes).knows(lane as u32, |clock| clock.is_of(group) && covers(clock))
    };
    // The last write that was found to be behind a fence: as are others of its warp at its time.
    let mut fenced = Stamp::NONE;
    let mut outcome = Outcome::of_fresh(&access);
    let mut proxies: Vec<(u32, Stamp)> = Vec::new();
    let mut conflicts: Vec<(u32, Conflict<()>)> = Vec::new();
    for range in ranges {
        let range = u64::from(range.start)..u64::from(range.end);
        let most = conflicts.len() + CONFLICTS_OF_A_RANGE;
        let mut proxy = None;
        shadow.access_range(
            range,
            &access,
            &mut outcome,
            &ordered,
            |granule, last, conflict| {
                if !is_write && last != Stamp::NONE && !last.is_async() && !last.same_moment(fenced)
                {
                    if is_fenced(last) {
                        fenced = last;
                    } else if ordered(last, ()) {
                        proxy = proxy.or(Some((granule.start as u32, last)));
                    }
                }
                if let Some(conflict) = conflict {
                    let words = granule.step_by(4).map(|at| (at as u32, conflict));
                    conflicts.extend(words.take(most - conflicts.len()));
                }
            },
        );
        proxies.extend(proxy);
    }
    let memory = |g: &Group, offset: u32| Memory {
        space: "shared",
        address: u64::from(offset),
        bytes: 4,
        allocation: Some((0, g.blocks[rank].shared.len() as u64)),
    };
    for (offset, last) in proxies {
        let other = party(w, g.index, last);
        let instance = Instance {
            other: Some(other),
            ..instance(g, warp, lane, memory(g, offset))
        };
        w.findings
            .add(FindingKind::MissingProxyFence, pc, last.pc(), instance);
    }
    for (offset, conflict) in conflicts {
        let site = Site {
            pc,
            mask: 1 << lane,
            bytes: 4,
            is_write,
            is_atomic,
        };
        let other = party(w, g.index, conflict.other);
        let what = memory(g, offset);
        race(
            w,
            g,
            warp,
            lane,
            &site,
            access.stamp,
            conflict,
            true,
            other,
            what,
            |_| false,
        );
    }
}

/// As [`race_async`], of global memory.
pub(super) fn race_async_global(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    range: Range<u64>,
    site: super::bulk::Site,
) {
    let super::bulk::Site {
        lane,
        pc,
        is_write,
        is_atomic,
        kind,
    } = site;
    let slot = g.slot(warp.rank, warp.index);
    // What reads shared memory and what writes global memory are waited for apart.
    let kind = if is_write { Async::Written } else { kind };
    let own = g.async_slot(kind, slot);
    let stamp = Stamp::asynchronous(g.time, own, lane, pc, reach(w, pc, is_atomic));
    let access = race::Access {
        stamp,
        group: g.index,
        is_write,
        limit: Stamp::limit(warp.clock.floor().min(warp.order.all())),
        home: g.home(warp.rank),
    };
    let ordered = |other: Stamp, group: u32| {
        if group == g.index {
            is_ordered(warp, slot, lane as u32, g.index, other)
        } else {
            warp.clock
                .covers_foreign(group, other.slot(), other.lane(), other.time())
                || is_known(warp, lane as u32, group, other)
        }
    };
    let mut found: Option<(u64, Conflict<u32>)> = None;
    let mut note = |at: u64, conflict: Conflict<u32>| found = found.or(Some((at, conflict)));
    if (range.start | range.end).is_multiple_of(4) {
        w.shadow.access_range(range, &access, ordered, note);
    } else {
        let mut at = range.start;
        while at < range.end {
            let bytes = (1 << at.trailing_zeros().min(2)).min(1 << (range.end - at).ilog2());
            if let Some(conflict) = w.shadow.access(at, bytes, &access, ordered) {
                note(at, conflict);
            }
            at += bytes;
        }
    }
    if let Some((address, conflict)) = found {
        let allocation = w
            .launch
            .memory
            .find(address, &mut w.hint)
            .map(|a| (a.base, a.bytes));
        let what = Memory {
            space: "global",
            address,
            bytes: 4,
            allocation,
        };
        let other = party(w, conflict.group, conflict.other);
        let site = Site {
            pc,
            mask: 1 << lane,
            bytes: 4,
            is_write,
            is_atomic,
        };
        let same_group = conflict.group == g.index;
        race(
            w,
            g,
            warp,
            lane,
            &site,
            stamp,
            conflict,
            same_group,
            other,
            what,
            |_| false,
        );
    }
}
