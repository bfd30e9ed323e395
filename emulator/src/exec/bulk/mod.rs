//! Bulk copies, plain and of tensor tiles: each is made when it is waited for and not before.

mod access;
mod plain;
mod tensor;

use std::collections::HashMap;
use std::ops::Range;

pub(super) use access::{Site, check_read};
use plain::plain;
use tensor::tensor;

use super::atomic;
use super::copy::Batch;
use super::mbarrier;
use super::memory::{lanes, set_word, word};
use super::observe::{RANK_SHIFT, rank_of};
use super::state::{Async, Group, Warp, Worker};
use crate::check::clock::Clock;
use crate::check::finding::{FindingKind, Instance};
use crate::error::Error;
use crate::memory::window::{self, Place};
use crate::program::op::{BulkOp, Space};
use crate::program::op_async::{At, BulkReduction, BulkWay};

/// Bulk copies of a group that nobody has waited for.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pending: Vec<Pending>,
    /// Committed groups, by slot of the warp and lane.
    groups: HashMap<(u32, u32), u32>,
    /// Grows with everything that can complete a phase of a barrier.
    pub(super) version: u64,
}

/// A copy under way.
#[derive(Debug)]
struct Pending {
    what: What,
    pc: u32,
    /// The thread that started it: slot of its warp, lane; block in the launch, thread in it.
    slot: u32,
    lane: u32,
    thread: (u32, u32),
    /// When it was started.
    time: u32,
    /// What waits for it: a barrier (rank and offset), or the group of its thread, once committed.
    barrier: Option<(usize, u32)>,
    group: Option<u32>,
}

#[derive(Debug)]
enum What {
    /// `cp.async` copies of lanes of a block, whose arrival counts as so many arrivals.
    Copies {
        rank: usize,
        batches: Vec<Batch>,
        arrivals: u32,
        clock: Clock,
    },
    /// Pieces of shared memory of a block, each with what fills it.
    Load {
        rank: usize,
        pieces: Vec<Piece>,
        bytes: u64,
        reduction: Option<BulkReduction>,
    },
    /// Pieces of shared memory of a block, each with where it goes.
    Store {
        rank: usize,
        pieces: Vec<(u32, u64, u32)>,
        reduction: Option<BulkReduction>,
    },
    /// A store that has read its pieces: bytes, each with where they go.
    Drained {
        pieces: Vec<(Vec<u8>, u64)>,
        reduction: Option<BulkReduction>,
    },
}

/// Bytes of shared memory that a load fills.
#[derive(Debug, Clone)]
struct Piece {
    shared: u32,
    bytes: u32,
    source: Source,
}

impl Piece {
    fn range(&self) -> Range<u32> {
        self.shared..self.shared + self.bytes
    }
}

#[derive(Debug, Clone)]
enum Source {
    Global(u64),
    /// Global memory, of floats that are rounded to tf32 on their way.
    Tf32(u64),
    /// Shared memory of a block of the group.
    Shared(usize, u32),
    /// What stands for elements outside of a tensor: a pattern of two bytes.
    Fill(u16),
}

impl What {
    /// Whether it takes shared memory of a block to another.
    fn reads(&self, rank: usize) -> bool {
        let Self::Load { pieces, .. } = self else {
            return false;
        };
        let mut sources = pieces.iter().map(|piece| &piece.source);
        sources.any(|source| matches!(source, Source::Shared(from, _) if *from == rank))
    }
}

impl Queue {
    /// The copy under way to a place of a block's shared memory: its instruction and thread. Another reduction is none where
    /// that is asked for.
    pub(super) fn find(
        &self,
        g: &Group,
        rank: usize,
        from: u32,
        bytes: u32,
        skips_reductions: bool,
    ) -> Option<(u32, (u32, u32))> {
        self.pending.iter().find_map(|pending| match &pending.what {
            What::Load {
                rank: to,
                pieces,
                reduction,
                ..
            } if *to == rank && !(skips_reductions && reduction.is_some()) => {
                let hit = pieces
                    .iter()
                    .any(|piece| piece.shared < from + bytes && from < piece.shared + piece.bytes);
                hit.then_some((pending.pc, pending.thread))
            }
            What::Copies {
                rank: to, batches, ..
            } if *to == rank => {
                let (pc, lane) = batches.iter().find_map(|batch| batch.writer(from, bytes))?;
                let warps = g.blocks[rank].warps.len() as u32;
                Some((
                    pc,
                    (
                        g.blocks[rank].index,
                        pending.slot % warps * 32 + lane as u32,
                    ),
                ))
            }
            _ => None,
        })
    }
}

/// `cp.async.mbarrier.arrive`: copies that arrive with a barrier.
pub(super) fn arrive_on_copies(
    w: &Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    batches: Vec<Batch>,
    barrier: (usize, u32),
    mask: u32,
) {
    let slot = g.slot(warp.rank, warp.index);
    let lane = mask.trailing_zeros();
    let pc = 0;
    let mut clock = Clock::default();
    if w.launch.checks.race {
        clock = warp.past(slot, mask);
    }
    let what = What::Copies {
        rank: warp.rank,
        batches,
        arrivals: mask.count_ones(),
        clock,
    };
    let thread = (g.blocks[warp.rank].index, warp.thread(lane as usize));
    g.bulk.pending.push(Pending {
        what,
        pc,
        slot,
        lane,
        thread,
        time: g.time,
        barrier: Some(barrier),
        group: None,
    });
}

/// Lets the first copy that a barrier waits for arrive; whether there was one.
pub(super) fn deliver_one(w: &mut Worker<'_>, g: &mut Group, rank: usize, offset: u32) -> bool {
    let Some(index) = g
        .bulk
        .pending
        .iter()
        .position(|pending| pending.barrier == Some((rank, offset)))
    else {
        return false;
    };
    let pending = g.bulk.pending.remove(index);
    deliver(w, g, pending);
    true
}

/// Makes a copy and tells its barrier.
fn deliver(w: &mut Worker<'_>, g: &mut Group, pending: Pending) {
    w.changes += 1;
    match pending.what {
        What::Copies {
            rank,
            batches,
            arrivals,
            clock,
        } => {
            for batch in &batches {
                super::copy::put(w, g, rank, batch);
                if w.launch.checks.race {
                    batch.stamp(g, rank, clock.of(pending.slot), pending.slot);
                }
            }
            // The copies happened before the arrival that they stand for.
            let mut clock = clock;
            if clock.is_kept() {
                let now = clock.of(pending.slot) + 1;
                clock.set(pending.slot, now);
            }
            if let Some((rank, offset)) = pending.barrier {
                mbarrier::deliver_arrivals(w, g, rank, offset, arrivals, &clock);
            }
        }
        What::Load {
            rank,
            pieces,
            bytes,
            reduction,
        } => {
            for piece in &pieces {
                fill(w, g, rank, piece, reduction);
                g.blocks[rank].in_flight.end(piece.range());
            }
            let mut clock = Clock::default();
            if w.launch.checks.race {
                // What the barrier orders is the copy, not what its thread did besides.
                clock = Clock::new(g.index, g.warps());
                clock.raise(g.async_slot(Async::Load, pending.slot), pending.time + 1);
            }
            if let Some((rank, offset)) = pending.barrier {
                mbarrier::deliver(w, g, rank, offset, bytes, &clock);
            }
        }
        What::Store {
            rank,
            pieces,
            reduction,
        } => {
            for (data, address) in drained(g, rank, &pieces) {
                write(w, &data, address, reduction);
            }
        }
        What::Drained { pieces, reduction } => {
            for (data, address) in pieces {
                write(w, &data, address, reduction);
            }
        }
    }
}

/// Reads pieces of shared memory of a block, each with where it goes.
fn drained(g: &Group, rank: usize, pieces: &[(u32, u64, u32)]) -> Vec<(Vec<u8>, u64)> {
    let shared = &g.blocks[rank].shared;
    let read = |&(from, address, bytes): &(u32, u64, u32)| {
        (
            shared[from as usize..(from + bytes) as usize].to_vec(),
            address,
        )
    };
    pieces.iter().map(read).collect()
}

/// Fills a piece of shared memory.
fn fill(
    w: &mut Worker<'_>,
    g: &mut Group,
    rank: usize,
    piece: &Piece,
    reduction: Option<BulkReduction>,
) {
    let (start, bytes) = (piece.shared as usize, piece.bytes as usize);
    let Some(BulkReduction {
        op,
        ty,
        bytes: size,
    }) = reduction
    else {
        return bring(w, g, rank, start..start + bytes, &piece.source);
    };
    let before = g.blocks[rank].shared[start..start + bytes].to_vec();
    bring(w, g, rank, start..start + bytes, &piece.source);
    let shared = &mut g.blocks[rank].shared;
    for at in (0..bytes).step_by(usize::from(size)) {
        let old = word(&before, at, size);
        let new = atomic::update(op, ty, size, old, word(shared, start + at, size));
        set_word(shared, start + at, size, new);
    }
}

/// Copies what comes from somewhere to a range of a block's shared memory.
fn bring(w: &mut Worker<'_>, g: &mut Group, rank: usize, range: Range<usize>, source: &Source) {
    match *source {
        Source::Global(address) | Source::Tf32(address) => {
            let to = &mut g.blocks[rank].shared[range];
            if let Some(allocation) = w.launch.memory.find(address, &mut w.hint) {
                let offset = address - allocation.base;
                match <&mut [u8; 16]>::try_from(&mut *to) {
                    // What a swizzle leaves together.
                    Ok(chunk) if offset.is_multiple_of(8) => {
                        *chunk = bytemuck::cast(allocation.load_range::<2>(offset));
                    }
                    _ => allocation.read(offset, to),
                }
            }
            if let Source::Tf32(_) = source {
                for at in (0..to.len()).step_by(4) {
                    let rounded = round_to_tf32(word(to, at, 4) as u32);
                    set_word(to, at, 4, u64::from(rounded));
                }
            }
        }
        Source::Shared(from, at) => {
            let from = g.blocks[from].shared[at as usize..][..range.len()].to_vec();
            g.blocks[rank].shared[range].copy_from_slice(&from);
        }
        Source::Fill(pattern) => {
            let to = g.blocks[rank].shared[range].iter_mut();
            for (byte, value) in to.zip(pattern.to_le_bytes().into_iter().cycle()) {
                *byte = value;
            }
        }
    }
}

/// A float with 10 bits of fraction: the nearest, or of two the even one.
fn round_to_tf32(bits: u32) -> u32 {
    if f32::from_bits(bits).is_nan() {
        return bits;
    }
    (bits + 0xfff + (bits >> 13 & 1)) & !0x1fff
}

/// Writes what was read from shared memory to global memory.
fn write(w: &mut Worker<'_>, data: &[u8], address: u64, reduction: Option<BulkReduction>) {
    let Some(allocation) = w.launch.memory.find(address, &mut w.hint) else {
        return;
    };
    let offset = address - allocation.base;
    match reduction {
        None => allocation.write(offset, data),
        Some(BulkReduction {
            op,
            ty,
            bytes: size,
        }) => {
            for at in (0..data.len()).step_by(usize::from(size)) {
                let value = word(data, at, size);
                allocation.update(offset + at as u64, size, |old| {
                    atomic::update(op, ty, size, old, value)
                });
            }
            allocation.define(offset, data.len() as u64);
        }
    }
}

/// The address of an operand of a lane, within the space it is in.
fn address(warp: &Warp, at: &At, row: u32, lane: usize) -> u64 {
    let base = warp.registers.lane(row, lane, at.wide);
    let address = if at.wide {
        base.wrapping_add(at.offset as u64)
    } else {
        (base as u32).wrapping_add(at.offset as u32).into()
    };
    // What is generic is turned into an address of the space that is meant.
    match (at.space, window::place(address)) {
        (Space::Shared | Space::Cluster, Place::Shared(at)) => at,
        _ => address,
    }
}

pub(super) fn execute(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    op: &BulkOp,
    r: &[u32],
    mask: u32,
    pc: u32,
) -> Result<(), Error> {
    match *op {
        BulkOp::Commit => {
            let slot = g.slot(warp.rank, warp.index);
            for lane in lanes(mask) {
                let groups = g.bulk.groups.entry((slot, lane as u32)).or_default();
                let group = *groups;
                *groups += 1;
                let own =
                    |pending: &&mut Pending| (pending.slot, pending.lane) == (slot, lane as u32);
                for pending in g.bulk.pending.iter_mut().filter(own) {
                    if pending.barrier.is_none() && pending.group.is_none() {
                        pending.group = Some(group);
                    }
                }
            }
            Ok(())
        }
        BulkOp::Wait { keep, read } => {
            for lane in lanes(mask) {
                let until = if read { Until::Read } else { Until::Written };
                wait(w, g, warp, lane as u32, Some(keep), until);
            }
            Ok(())
        }
        BulkOp::Plain {
            way,
            to,
            from,
            barrier,
            reduction,
        } => {
            for lane in lanes(mask) {
                plain(
                    w,
                    g,
                    warp,
                    way,
                    (&to, &from, barrier.as_ref()),
                    reduction,
                    r,
                    lane,
                    pc,
                )?;
            }
            started(w, g, warp);
            Ok(())
        }
        BulkOp::Tensor {
            way,
            shared,
            map,
            rank,
            barrier,
            reduction,
        } => {
            for lane in lanes(mask) {
                tensor(
                    w,
                    g,
                    warp,
                    way,
                    (&shared, &map, barrier.as_ref()),
                    rank,
                    reduction,
                    r,
                    lane,
                    pc,
                )?;
            }
            started(w, g, warp);
            Ok(())
        }
    }
}

/// Time goes on: what follows is not before the copy.
fn started(w: &mut Worker<'_>, g: &mut Group, warp: &mut Warp) {
    w.changes += 1;
    g.bulk.version += 1;
    if w.launch.checks.race {
        g.advance(warp);
    }
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// `.read`: the copies have read shared memory. Nobody may yet read what they write.
    Read,
    Written,
}

/// Waits for the copies of a thread's groups but for the newest; without a number, for all of them. They happen now and not
/// before.
fn wait(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    lane: u32,
    keep: Option<u32>,
    until: Until,
) {
    let slot = g.slot(warp.rank, warp.index);
    let committed = g.bulk.groups.get(&(slot, lane)).copied().unwrap_or(0);
    let mut known = Clock::default();
    if w.launch.checks.race {
        known = Clock::new(g.index, g.warps());
    }
    let mut any = false;
    let mut index = 0;
    while index < g.bulk.pending.len() {
        let pending = &g.bulk.pending[index];
        let is_due = match (keep, pending.group) {
            (None, _) => true,
            (Some(keep), Some(group)) => group + keep < committed,
            (Some(_), None) => false,
        };
        let is_own = (pending.slot, pending.lane) == (slot, lane) && pending.barrier.is_none();
        let is_new = until == Until::Written || matches!(pending.what, What::Store { .. });
        if !(is_own && is_due && is_new) {
            index += 1;
            continue;
        }
        any = true;
        known.raise(g.async_slot(Async::Store, slot), pending.time + 1);
        if until == Until::Written {
            known.raise(g.async_slot(Async::Written, slot), pending.time + 1);
            let pending = g.bulk.pending.remove(index);
            deliver(w, g, pending);
        } else if let What::Store {
            rank,
            ref pieces,
            reduction,
        } = pending.what
        {
            let pieces = drained(g, rank, pieces);
            g.bulk.pending[index].what = What::Drained { pieces, reduction };
            w.changes += 1;
        }
    }
    if any {
        warp.acquire(&known, slot, 1 << lane);
    }
}

/// A block's shared memory must outlive the copies from it, and what a copy brings should be waited for.
pub(super) fn before_exit(w: &mut Worker<'_>, g: &mut Group, warp: &mut Warp, mask: u32) {
    let slot = g.slot(warp.rank, warp.index);
    for lane in lanes(mask) {
        let own = |pending: &&Pending| {
            (pending.slot, pending.lane) == (slot, lane as u32) && pending.barrier.is_none()
        };
        // What has left shared memory may still be on its way.
        let is_bound =
            |pending: &&Pending| own(pending) && !matches!(pending.what, What::Drained { .. });
        if let Some(pending) = g.bulk.pending.iter().find(is_bound) {
            let (pc, (block, thread)) = (pending.pc, pending.thread);
            if w.launch.checks.race {
                w.findings.add(
                    FindingKind::UnfinishedAtExit,
                    pc,
                    0,
                    Instance::new(block, thread),
                );
            }
        }
        if g.bulk.pending.iter().any(|pending| own(&pending)) {
            wait(w, g, warp, lane as u32, None, Until::Written);
        }
    }
    if g.blocks[warp.rank].threads != mask.count_ones() {
        return;
    }
    // The last threads of the block.
    let rank = warp.rank;
    while let Some(index) = g
        .bulk
        .pending
        .iter()
        .position(|p| p.barrier.is_some_and(|(to, _)| to == rank) || p.what.reads(rank))
    {
        let pending = g.bulk.pending.remove(index);
        if w.launch.checks.race && !matches!(pending.what, What::Copies { .. }) {
            let (block, thread) = pending.thread;
            w.findings.add(
                FindingKind::UnfinishedAtExit,
                pending.pc,
                0,
                Instance::new(block, thread),
            );
        }
        deliver(w, g, pending);
    }
    mbarrier::find_unbalanced(w, &g.blocks[rank]);
}

/// The barrier that a copy tells: its block and offset.
fn barrier_of(warp: &Warp, at: Option<&At>, row: u32, lane: usize) -> Option<(usize, u32)> {
    let address = address(warp, at?, row, lane);
    Some((
        rank_of(warp, address, None),
        (address & ((1 << RANK_SHIFT) - 1)) as u32,
    ))
}

/// Starts a copy.
fn push(
    g: &mut Group,
    warp: &Warp,
    what: What,
    barrier: Option<(usize, u32)>,
    lane: usize,
    pc: u32,
) {
    if let What::Load { rank, pieces, .. } = &what {
        for piece in pieces {
            g.blocks[*rank].in_flight.begin(piece.range());
        }
    }
    let slot = g.slot(warp.rank, warp.index);
    let thread = (g.blocks[warp.rank].index, warp.thread(lane));
    let time = g.time;
    g.bulk.pending.push(Pending {
        what,
        pc,
        slot,
        lane: lane as u32,
        thread,
        time,
        barrier,
        group: None,
    });
}

/// The blocks that a load goes to, each with its barrier.
fn destinations(
    g: &Group,
    warp: &Warp,
    way: BulkWay,
    target: u64,
    barrier: Option<(usize, u32)>,
    r: &[u32],
    lane: usize,
) -> Vec<(usize, Option<(usize, u32)>)> {
    if let BulkWay::Load { multicast: true } = way {
        let mask = r
            .last()
            .map_or(0, |&row| warp.registers.r32(row)[lane] & 0xffff);
        // The same place in each block, and the barrier at the same place.
        let ranks = lanes(mask).filter(|&rank| rank < g.blocks.len());
        return ranks
            .map(|rank| (rank, barrier.map(|(_, offset)| (rank, offset))))
            .collect();
    }
    let rank = rank_of(warp, target, None);
    if rank < g.blocks.len() {
        vec![(rank, barrier)]
    } else {
        Vec::new()
    }
}
