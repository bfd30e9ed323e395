//! Copies of bytes that lie side by side.

use super::super::mbarrier;
use super::super::observe::{self, Memory, RANK_SHIFT, rank_of};
use super::super::state::{Async, Group, Warp, Worker};
use super::access::{Site, global, shared};
use super::{Piece, Source, What, address, barrier_of, destinations, push};
use crate::check::finding::FindingKind;
use crate::error::Error;
use crate::program::op_async::{At, BulkReduction, BulkWay};

/// Starts a copy of bytes that lie side by side.
pub(super) fn plain(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    way: BulkWay,
    (to, from, barrier): (&At, &At, Option<&At>),
    reduction: Option<BulkReduction>,
    r: &[u32],
    lane: usize,
    pc: u32,
) -> Result<(), Error> {
    let (target, source) = (
        address(warp, to, r[0], lane),
        address(warp, from, r[1], lane),
    );
    let bytes = warp.registers.r32(r[2])[lane];
    let site = Site {
        lane,
        pc,
        is_write: false,
        is_atomic: false,
        kind: if way == BulkWay::Store {
            Async::Store
        } else {
            Async::Load
        },
    };
    if (target | source | u64::from(bytes)) & 15 != 0 {
        let what = Memory {
            space: "global",
            address: source,
            bytes,
            allocation: None,
        };
        return observe::illegal(w, g, warp, lane, FindingKind::Misaligned, what, pc);
    }
    w.counters[pc as usize].bulk_bytes += u64::from(bytes);
    if bytes == 0 {
        return Ok(());
    }
    let barrier = barrier_of(warp, barrier, *r.get(3).unwrap_or(&0), lane);
    let offset = |address: u64| (address & ((1 << RANK_SHIFT) - 1)) as u32;
    let length = u64::from(bytes);
    if way == BulkWay::Store {
        let (rank, start) = (rank_of(warp, source, None), offset(source));
        let is_atomic = reduction.is_some();
        if shared(w, g, warp, rank, start..start.saturating_add(bytes), site)?
            && global(
                w,
                g,
                warp,
                target..target.saturating_add(length),
                Site {
                    is_write: true,
                    is_atomic,
                    ..site
                },
            )?
        {
            let what = What::Store {
                rank,
                pieces: vec![(start, target, bytes)],
                reduction,
            };
            push(g, warp, what, None, lane, pc);
        }
        return Ok(());
    }
    let fetched = if way == BulkWay::Across {
        let (rank, start) = (rank_of(warp, source, None), offset(source));
        shared(w, g, warp, rank, start..start.saturating_add(bytes), site)?
            .then_some(Source::Shared(rank, start))
    } else {
        global(w, g, warp, source..source.saturating_add(length), site)?
            .then_some(Source::Global(source))
    };
    let Some(fetched) = fetched else {
        return Ok(());
    };
    let start = offset(target);
    for (rank, barrier) in destinations(g, warp, way, target, barrier, r, lane) {
        let write = Site {
            is_write: true,
            is_atomic: reduction.is_some(),
            ..site
        };
        if let Some(barrier) = barrier {
            mbarrier::check_signal(w, g, warp, rank, barrier, lane, pc);
        }
        if shared(w, g, warp, rank, start..start.saturating_add(bytes), write)? {
            let pieces = vec![Piece {
                shared: start,
                bytes,
                source: fetched.clone(),
            }];
            push(
                g,
                warp,
                What::Load {
                    rank,
                    pieces,
                    bytes: length,
                    reduction,
                },
                barrier,
                lane,
                pc,
            );
        }
    }
    Ok(())
}
