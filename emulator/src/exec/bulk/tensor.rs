//! Copies of tensor tiles.

use std::ops::Range;

use super::super::mbarrier;
use super::super::observe::{self, Memory, RANK_SHIFT, rank_of};
use super::super::state::{Async, Group, Warp, Worker};
use super::access::{Site, global, shared, shared_ranges};
use super::{Piece, Source, What, address, barrier_of, destinations, push};
use crate::check::finding::FindingKind;
use crate::error::{Error, ErrorKind};
use crate::memory::window::{self, Place};
use crate::program::op::{Atomic, AtomicType};
use crate::program::op_async::{At, BulkReduction, BulkWay};
use crate::tma::element::ElementType;
use crate::tma::map::TensorMap;
use crate::tma::tile;

/// The type that a reduction works on.
fn reduction_type(element: ElementType) -> (AtomicType, u8) {
    match element {
        ElementType::U8 => (AtomicType::Unsigned, 1),
        ElementType::U16 => (AtomicType::Unsigned, 2),
        ElementType::U32 => (AtomicType::Unsigned, 4),
        ElementType::I32 => (AtomicType::Signed, 4),
        ElementType::U64 => (AtomicType::Unsigned, 8),
        ElementType::I64 => (AtomicType::Signed, 8),
        ElementType::F16 => (AtomicType::F16, 2),
        ElementType::BF16 => (AtomicType::Bf16, 2),
        ElementType::F64 => (AtomicType::F64, 8),
        _ => (AtomicType::F32, 4),
    }
}

/// The tensor map that a lane's address means.
fn tensor_map(
    w: &Worker<'_>,
    g: &Group,
    warp: &Warp,
    address: u64,
    lane: usize,
    pc: u32,
) -> Result<TensorMap, Error> {
    let mut bytes = [0; 128];
    let is_read = match window::place(address) {
        Place::Global(at) => w.launch.memory.read(at, &mut bytes).is_ok(),
        Place::Param(at) => match w.launch.parameters.get(at as usize..at as usize + 128) {
            Some(found) => {
                bytes.copy_from_slice(found);
                true
            }
            None => false,
        },
        Place::Shared(_) | Place::Local(_) => false,
    };
    let words = std::array::from_fn(|i| {
        u64::from_le_bytes(bytes[8 * i..][..8].try_into().unwrap_or_default())
    });
    let map = if is_read && address.is_multiple_of(64) {
        TensorMap::from_words(&words)
    } else {
        None
    };
    map.ok_or_else(|| {
        let by = (w.launch).thread_name(g.blocks[warp.rank].index, warp.thread(lane));
        let what = format!("{by}: there is no tensor map at 0x{address:x}");
        w.fail(ErrorKind::InvalidValue, pc, &what)
    })
}

pub(super) fn tensor(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    way: BulkWay,
    (at, map_at, barrier): (&At, &At, Option<&At>),
    rank: u8,
    reduction: Option<Atomic>,
    r: &[u32],
    lane: usize,
    pc: u32,
) -> Result<(), Error> {
    let target = address(warp, at, r[0], lane);
    let map = tensor_map(w, g, warp, address(warp, map_at, r[1], lane), lane, pc)?;
    let mut coordinates = [0; 5];
    for (dimension, coordinate) in coordinates.iter_mut().take(usize::from(rank)).enumerate() {
        *coordinate = warp.registers.r32(r[2 + dimension])[lane] as i32;
    }
    if map.rank != u32::from(rank) {
        let what = format!(
            "a copy of {rank} dimensions with a tensor map of {}",
            map.rank
        );
        return Err(w.fail(ErrorKind::InvalidValue, pc, &what));
    }
    let start = (target & ((1 << RANK_SHIFT) - 1)) as u32;
    let first_rank = rank_of(warp, target, None);
    let size = g
        .blocks
        .get(first_rank)
        .map_or(0, |block| block.shared.len() as u64);
    let what = |bytes: u64| Memory {
        space: "shared",
        address: u64::from(start),
        bytes: bytes.min(u64::from(u32::MAX)) as u32,
        allocation: Some((0, size)),
    };
    if !start.is_multiple_of(tile::SHARED_ALIGNMENT) {
        return observe::illegal(
            w,
            g,
            warp,
            lane,
            FindingKind::Misaligned,
            what(map.tile_bytes()),
            pc,
        );
    }
    if u64::from(start) + map.shared_bytes() > size {
        return observe::illegal(
            w,
            g,
            warp,
            lane,
            FindingKind::OutOfBounds,
            what(map.shared_bytes()),
            pc,
        );
    }
    w.counters[pc as usize].bulk_bytes += map.tile_bytes();
    if way == BulkWay::Store {
        if let Err(what) = tile::check_store(&map, &coordinates) {
            return Err(w.fail(ErrorKind::InvalidValue, pc, &what));
        }
        let (ty, bytes) = reduction_type(map.element);
        let reduction = reduction.map(|op| BulkReduction { op, ty, bytes });
        return tensor_store(
            w,
            g,
            warp,
            &map,
            &coordinates,
            first_rank,
            start,
            reduction,
            lane,
            pc,
        );
    }
    let barrier = barrier_of(warp, barrier, r[2 + usize::from(rank)], lane);
    let site = Site {
        lane,
        pc,
        is_write: false,
        is_atomic: false,
        kind: Async::Load,
    };
    let mut pieces = Vec::new();
    for run in tile::runs(&map, &coordinates) {
        let inside = run.inside();
        if let Some(address) = run.global
            && !global(w, g, warp, address..address + inside.len() as u64, site)?
        {
            return Ok(());
        }
        for piece in run.pieces(map.swizzle, start) {
            let (first, last) = (piece.start as usize, (piece.start + piece.bytes) as usize);
            let mut add = |range: Range<usize>, source: Source| {
                if !range.is_empty() {
                    let shared = piece.shared + (range.start - first) as u32;
                    pieces.push(Piece {
                        shared,
                        bytes: range.len() as u32,
                        source,
                    });
                }
            };
            let (begin, end) = (
                inside.start.clamp(first, last),
                inside.end.clamp(first, last),
            );
            add(first..begin, Source::Fill(map.fill.pattern()));
            if let Some(address) = run.global {
                let from = address + (begin - inside.start.min(begin)) as u64;
                let source = if map.element.is_rounded_to_tf32() {
                    Source::Tf32(from)
                } else {
                    Source::Global(from)
                };
                add(begin..end, source);
            }
            add(end.max(begin)..last, Source::Fill(map.fill.pattern()));
        }
    }
    let checks = w.launch.checks;
    let write = Site {
        is_write: true,
        ..site
    };
    let destinations = destinations(g, warp, way, target, barrier, r, lane);
    let count = destinations.len();
    for (index, (rank, barrier)) in destinations.into_iter().enumerate() {
        if let Some(barrier) = barrier {
            mbarrier::check_signal(w, g, warp, rank, barrier, lane, pc);
        }
        if checks.memory || checks.init || checks.race {
            let ranges = pieces.iter().map(Piece::range);
            shared_pieces(w, g, warp, rank, &ranges.collect::<Vec<_>>(), write)?;
        } else {
            // The pieces are parts of this.
            let range = start..start + map.shared_bytes() as u32;
            shared(w, g, warp, rank, range, write)?;
        }
        let pieces = if index + 1 == count {
            std::mem::take(&mut pieces)
        } else {
            pieces.clone()
        };
        let what = What::Load {
            rank,
            pieces,
            bytes: map.tile_bytes(),
            reduction: None,
        };
        push(g, warp, what, barrier, lane, pc);
    }
    Ok(())
}

/// Checks all pieces of shared memory that a copy touches, whatever becomes of one of them.
fn shared_pieces(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    rank: usize,
    pieces: &[Range<u32>],
    site: Site,
) -> Result<(), Error> {
    let mut rest = pieces;
    while !rest.is_empty() {
        let good = shared_ranges(w, g, warp, rank, rest, site)?;
        rest = rest.get(good + 1..).unwrap_or_default();
    }
    Ok(())
}

fn tensor_store(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    map: &TensorMap,
    coordinates: &[i32; 5],
    rank: usize,
    start: u32,
    reduction: Option<BulkReduction>,
    lane: usize,
    pc: u32,
) -> Result<(), Error> {
    let read = Site {
        lane,
        pc,
        is_write: false,
        is_atomic: false,
        kind: Async::Store,
    };
    let write = Site {
        is_write: true,
        is_atomic: reduction.is_some(),
        ..read
    };
    let mut pieces = Vec::new();
    let mut ranges = Vec::new();
    for run in tile::runs(map, coordinates) {
        let inside = run.inside();
        let Some(address) = run.global else { continue };
        let may_write = global(w, g, warp, address..address + inside.len() as u64, write);
        if !matches!(may_write, Ok(true)) {
            shared_pieces(w, g, warp, rank, &ranges, read)?;
            return may_write.map(|_| ());
        }
        for piece in run.pieces(map.swizzle, start) {
            let (first, last) = (piece.start as usize, (piece.start + piece.bytes) as usize);
            let (begin, end) = (
                inside.start.clamp(first, last),
                inside.end.clamp(first, last),
            );
            if begin < end {
                let from = piece.shared + (begin - first) as u32;
                ranges.push(from..from + (end - begin) as u32);
                pieces.push((
                    from,
                    address + (begin - inside.start) as u64,
                    (end - begin) as u32,
                ));
            }
        }
    }
    shared_pieces(w, g, warp, rank, &ranges, read)?;
    push(
        g,
        warp,
        What::Store {
            rank,
            pieces,
            reduction,
        },
        None,
        lane,
        pc,
    );
    Ok(())
}
