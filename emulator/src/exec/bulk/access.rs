//! What a bulk copy touches, checked and counted before it starts.

use std::ops::Range;

use super::super::observe::{self, Memory};
use super::super::state::{Async, Group, Warp, Worker};
use super::super::{copy, race};
use crate::check::finding::{FindingKind, Instance};
use crate::error::Error;

/// An access that a bulk copy of a lane makes.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Site {
    pub(in super::super) lane: usize,
    pub(in super::super) pc: u32,
    pub(in super::super) is_write: bool,
    pub(in super::super) is_atomic: bool,
    pub(in super::super) kind: Async,
}

/// Checks and counts bytes of global memory that a copy touches; whether it may.
pub(super) fn global(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    range: Range<u64>,
    site: Site,
) -> Result<bool, Error> {
    let bytes = range.end - range.start;
    let found = w
        .launch
        .memory
        .find(range.start, &mut w.hint)
        .map(|a| (a.base, a.bytes, a.read_only));
    let kind = match found {
        Some((base, size, _)) if range.end > base + size => {
            Some((FindingKind::OutOfBounds, Some((base, size))))
        }
        Some((base, size, true)) if site.is_write => {
            Some((FindingKind::WriteToConstant, Some((base, size))))
        }
        Some(_) => None,
        None => match w.launch.memory.was_freed(range.start) {
            Some(freed) => Some((FindingKind::UseAfterFree, Some(freed))),
            None => {
                let nearest = w
                    .launch
                    .memory
                    .nearest(range.start)
                    .map(|a| (a.base, a.bytes));
                Some((FindingKind::OutOfBounds, nearest))
            }
        },
    };
    let what = |allocation| Memory {
        space: "global",
        address: range.start,
        bytes: bytes as u32,
        allocation,
    };
    if let Some((kind, allocation)) = kind {
        observe::illegal(w, g, warp, site.lane, kind, what(allocation), site.pc)?;
        return Ok(false);
    }
    let (index, memory) = (w.hint, w.launch.memory);
    let allocation = &memory.allocations()[index];
    w.touched
        .mark(index, site.is_write, range.start - allocation.base, bytes);
    if w.launch.checks.init
        && !site.is_write
        && !allocation.is_defined_range(range.start - allocation.base, bytes)
    {
        let what = what(Some((allocation.base, allocation.bytes)));
        observe::report(
            w,
            g,
            warp,
            site.lane,
            FindingKind::UninitialisedMemory,
            what,
            site.pc,
        );
    }
    if w.launch.checks.race {
        race::race_async_global(w, g, warp, range, site);
    }
    Ok(true)
}

/// Checks bytes of a block's shared memory that a copy touches; whether it may.
pub(super) fn shared(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    rank: usize,
    range: Range<u32>,
    site: Site,
) -> Result<bool, Error> {
    Ok(shared_ranges(w, g, warp, rank, &[range], site)? == 1)
}

/// As [`shared`], of several ranges, up to the first that the copy may not touch: how many it may.
pub(super) fn shared_ranges(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    rank: usize,
    ranges: &[Range<u32>],
    site: Site,
) -> Result<usize, Error> {
    let size = g
        .blocks
        .get(rank)
        .map_or(0, |block| block.shared.len() as u64);
    let what = |range: &Range<u32>| Memory {
        space: "shared",
        address: u64::from(range.start),
        bytes: range.end.wrapping_sub(range.start),
        allocation: Some((0, size)),
    };
    let is_outside = |range: &Range<u32>| u64::from(range.end) > size || range.end < range.start;
    let is_gone = g
        .blocks
        .get(rank)
        .is_some_and(|block| rank != warp.rank && block.threads == 0);
    let wrong = match is_gone {
        true => (!ranges.is_empty()).then_some(0),
        false => ranges.iter().position(is_outside),
    };
    let good = &ranges[..wrong.unwrap_or(ranges.len())];
    if !good.is_empty() {
        watch_shared(w, g, warp, rank, good, what, site);
    }
    if let Some(wrong) = wrong.and_then(|wrong| ranges.get(wrong)) {
        let kind = match is_outside(wrong) {
            true => FindingKind::OutOfBounds,
            false => FindingKind::UseAfterFree,
        };
        observe::illegal(w, g, warp, site.lane, kind, what(wrong), site.pc)?;
    }
    Ok(good.len())
}

/// The checks of ranges of a block's shared memory that a copy may touch.
fn watch_shared(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    rank: usize,
    ranges: &[Range<u32>],
    what: impl Fn(&Range<u32>) -> Memory,
    site: Site,
) {
    let checks = w.launch.checks;
    if checks.init {
        for range in ranges {
            let defined = &mut g.blocks[rank].defined[range.start as usize..range.end as usize];
            // A reduction reads what it adds to.
            let reads_undefined = (!site.is_write || site.is_atomic) && !is_defined(defined);
            if site.is_write {
                defined.fill(1);
            }
            if reads_undefined {
                let kind = FindingKind::UninitialisedMemory;
                observe::report(w, g, warp, site.lane, kind, what(range), site.pc);
            }
        }
    }
    if checks.race {
        if !g.blocks[rank].in_flight.is_quiet() {
            watch_copies(w, g, warp, rank, ranges, what, site);
        }
        race::race_async(w, g, warp, rank, ranges, site);
    }
}

/// Whether all bytes, which are 0 or 1, are 1.
#[inline(always)]
fn is_defined(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<16>();
    chunks.iter().all(|chunk| *chunk == [1; 16]) && !rest.contains(&0)
}

/// Looks for other copies under way to what is touched.
fn watch_copies(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    rank: usize,
    ranges: &[Range<u32>],
    what: impl Fn(&Range<u32>) -> Memory,
    site: Site,
) {
    for range in ranges {
        let in_flight = &g.blocks[rank].in_flight;
        if !in_flight.any(range.clone()) {
            continue;
        }
        let bytes = range.end - range.start;
        // Reductions do not disturb one another.
        let other = match site.is_atomic {
            false => copy::find(g, warp, rank, range.start, bytes),
            true => g.bulk.find(g, rank, range.start, bytes, true),
        };
        if let Some((other_pc, other)) = other {
            let instance = Instance {
                other: Some(other),
                ..observe::instance(g, warp, site.lane, what(range))
            };
            w.findings
                .add(FindingKind::MissingWait, site.pc, other_pc, instance);
        }
    }
}

/// Shared memory that `wgmma` reads: checked as a copy's source is. Whether all of it may be read.
pub(in super::super) fn check_read(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    ranges: &[Range<u32>],
    lane: usize,
    pc: u32,
) -> Result<bool, Error> {
    let site = Site {
        lane,
        pc,
        is_write: false,
        is_atomic: false,
        kind: Async::Wgmma,
    };
    Ok(shared_ranges(w, g, warp, warp.rank, ranges, site)? == ranges.len())
}
