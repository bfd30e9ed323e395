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
    let size = g
        .blocks
        .get(rank)
        .map_or(0, |block| block.shared.len() as u64);
    let bytes = range.end - range.start;
    let what = Memory {
        space: "shared",
        address: u64::from(range.start),
        bytes,
        allocation: Some((0, size)),
    };
    if u64::from(range.end) > size || range.end < range.start {
        observe::illegal(
            w,
            g,
            warp,
            site.lane,
            FindingKind::OutOfBounds,
            what,
            site.pc,
        )?;
        return Ok(false);
    }
    if rank != warp.rank && g.blocks[rank].threads == 0 {
        observe::illegal(
            w,
            g,
            warp,
            site.lane,
            FindingKind::UseAfterFree,
            what,
            site.pc,
        )?;
        return Ok(false);
    }
    let (start, end) = (range.start as usize, range.end as usize);
    if w.launch.checks.init {
        let defined = &mut g.blocks[rank].defined[start..end];
        // A reduction reads what it adds to.
        let reads_undefined = (!site.is_write || site.is_atomic) && defined.contains(&0);
        if site.is_write {
            defined.fill(1);
        }
        if reads_undefined {
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
    }
    if w.launch.checks.race {
        let busy = g.blocks[rank].in_flight[start / 4..end.div_ceil(4)]
            .iter()
            .any(|&count| count > 0);
        // Reductions do not disturb one another.
        let other = match (busy, site.is_atomic) {
            (false, _) => None,
            (true, false) => copy::find(g, warp, rank, range.start, bytes),
            (true, true) => g.bulk.find(g, rank, range.start, bytes, true),
        };
        if let Some((other_pc, other)) = other {
            let instance = Instance {
                other: Some(other),
                ..observe::instance(g, warp, site.lane, what)
            };
            w.findings
                .add(FindingKind::MissingWait, site.pc, other_pc, instance);
        }
        race::race_async(w, g, warp, rank, range, site);
    }
    Ok(true)
}

/// Shared memory that `wgmma` reads: checked as a copy's source is.
pub(in super::super) fn check_read(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    range: Range<u32>,
    lane: usize,
    pc: u32,
) -> Result<bool, Error> {
    shared(
        w,
        g,
        warp,
        warp.rank,
        range,
        Site {
            lane,
            pc,
            is_write: false,
            is_atomic: false,
            kind: Async::Wgmma,
        },
    )
}
