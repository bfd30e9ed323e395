//! `cp.async`: each copy is made when it is waited for and not before, so that a missing wait shows.

use super::memory::{Site, addresses, lanes};
use super::observe;
use super::race;
use super::state::{Group, Warp, Worker};
use super::vectorise::vectorised;
use crate::check::race::Stamp;
use crate::error::Error;
use crate::program::op::{Op, Space};

/// The copies that one instruction of a warp started.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pc: u32,
    mask: u32,
    bytes: u8,
    shared: [u32; 32],
    global: [u64; 32],
    /// The allocation that all of `bytes` of every lane come from, where it is one.
    whole: Option<usize>,
    /// Bytes taken from global memory; the rest becomes zero.
    taken: [u8; 32],
    /// Which group of its lanes it was committed to.
    group: Option<u32>,
}

/// A warp's copies that have not been waited for.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    batches: Vec<Batch>,
    /// Committed groups of each lane.
    groups: [u32; 32],
}

vectorised! {
    pub(super) fn start(w: &mut Worker<'_>, g: &mut Group, warp: &mut Warp, op: &Op, r: &[u32], mask: u32, pc: u32) -> Result<(), Error> {
        begin(w, g, warp, op, r, mask, pc)
    }
}

#[inline(always)]
fn begin(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    op: &Op,
    r: &[u32],
    mask: u32,
    pc: u32,
) -> Result<(), Error> {
    let Op::CopyAsync {
        bytes,
        shared_wide,
        shared_offset,
        global_offset,
        global_wide,
        has_size,
    } = *op
    else {
        return Ok(());
    };
    let shared = addresses(&warp.registers, r[0], shared_wide, shared_offset, mask);
    let global = addresses(&warp.registers, r[1], global_wide, global_offset, mask);
    let mut taken = [bytes; 32];
    let mut whole = mask;
    if has_size {
        let sizes = warp.registers.r32(r[2]);
        for lane in 0..32 {
            taken[lane] = sizes[lane].min(u32::from(bytes)) as u8;
            whole &= !(u32::from(taken[lane] != bytes) << lane);
        }
    }
    w.changes += 1;
    let requests = w.counters[pc as usize].requests;
    let mut readable = 0;
    let mut allocation = None;
    if whole != 0 {
        let site = Site {
            pc,
            mask: whole,
            bytes: u64::from(bytes),
            is_write: false,
            is_atomic: false,
        };
        let mut at = global;
        super::memory::fill_inactive(&mut at, whole);
        let found = observe::global(w, g, warp, &at, site)?;
        readable |= found.mask;
        allocation = found.whole.filter(|_| whole == mask);
    }
    for lane in lanes(mask & !whole) {
        if taken[lane] > 0 {
            // The bytes that are taken need not be a power of two: the largest one within them is looked at.
            let part = 1 << taken[lane].ilog2();
            let site = Site {
                pc,
                mask: 1 << lane,
                bytes: part,
                is_write: false,
                is_atomic: false,
            };
            readable |= observe::global(w, g, warp, &[global[lane]; 32], site)?.mask;
        } else {
            readable |= 1 << lane;
        }
    }
    w.counters[pc as usize].requests = requests;
    let site = Site {
        pc,
        mask,
        bytes: u64::from(bytes),
        is_write: true,
        is_atomic: false,
    };
    let found = observe::shared(w, g, warp, &shared, site, Space::Shared)?;
    if w.launch.checks.race {
        race::race_shared(w, g, warp, &shared, &found, site, |_, _, _, _| false);
    }
    let mask = found.mask & readable;
    if mask == 0 {
        return Ok(());
    }
    let batch = Batch {
        pc,
        mask,
        bytes,
        shared: found.offsets,
        global,
        whole: allocation.map(|(index, _)| index),
        taken,
        group: None,
    };
    mark(g, warp.rank, &batch, batch.mask, true);
    warp.copies.batches.push(batch);
    Ok(())
}

/// Counts the destinations of a batch as under way, or as arrived.
fn mark(g: &mut Group, rank: usize, batch: &Batch, mask: u32, begins: bool) {
    let in_flight = &mut g.blocks[rank].in_flight;
    for lane in lanes(mask) {
        let from = batch.shared[lane];
        let bytes = from..from + u32::from(batch.bytes);
        if begins {
            in_flight.begin(bytes);
        } else {
            in_flight.end(bytes);
        }
    }
}

impl Copies {
    /// Cuts batches so that each is either within the mask or outside of it, and its lanes have committed as many groups.
    fn separate(&mut self, mask: u32) {
        let groups = self.groups;
        if mask == u32::MAX && groups.iter().all(|&group| group == groups[0]) {
            return;
        }
        let mut parts: Vec<Batch> = Vec::new();
        for batch in self.batches.drain(..) {
            let mut rest = batch.mask;
            while rest != 0 {
                let first = rest.trailing_zeros() as usize;
                let alike = |lane: &usize| {
                    groups[*lane] == groups[first] && (mask >> lane & 1 == mask >> first & 1)
                };
                let same = lanes(rest)
                    .filter(alike)
                    .fold(0, |same, lane| same | 1 << lane);
                parts.push(Batch {
                    mask: same,
                    ..batch.clone()
                });
                rest &= !same;
            }
        }
        self.batches = parts;
    }
}

/// `cp.async.commit_group`.
pub(super) fn commit(warp: &mut Warp, mask: u32) {
    let copies = &mut warp.copies;
    copies.separate(mask);
    for batch in &mut copies.batches {
        if batch.group.is_none() && batch.mask & mask != 0 {
            batch.group = Some(copies.groups[batch.mask.trailing_zeros() as usize]);
        }
    }
    for lane in lanes(mask) {
        copies.groups[lane] += 1;
    }
}

/// `cp.async.wait_group`; without a number of groups to keep, `wait_all`.
pub(super) fn wait(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    keep: Option<u32>,
    mask: u32,
) {
    warp.copies.separate(mask);
    let mut batches = std::mem::take(&mut warp.copies.batches);
    batches.retain(|batch| {
        if batch.mask & mask == 0 {
            return true;
        }
        let committed = warp.copies.groups[batch.mask.trailing_zeros() as usize];
        let is_due = match (keep, batch.group) {
            (None, _) => true,
            (Some(keep), Some(group)) => group + keep < committed,
            (Some(_), None) => false,
        };
        if is_due {
            arrive(w, g, warp, batch);
        }
        !is_due
    });
    warp.copies.batches = batches;
}

/// Makes the copies of a batch.
fn arrive(w: &mut Worker<'_>, g: &mut Group, warp: &Warp, batch: &Batch) {
    put(w, g, warp.rank, batch);
    if w.launch.checks.race {
        // From here on the lanes count as having written: what others do before a barrier is a race with it.
        let slot = g.slot(warp.rank, warp.index);
        let stamp = Stamp::new(warp.clock.of(slot), slot, 0, batch.pc, None);
        for lane in lanes(batch.mask) {
            race::mark_written(
                g,
                warp.rank,
                batch.shared[lane],
                u64::from(batch.bytes),
                stamp.of_lane(lane),
            );
        }
    }
}

/// Moves the bytes of a batch into a block's shared memory.
pub(super) fn put(w: &mut Worker<'_>, g: &mut Group, rank: usize, batch: &Batch) {
    mark(g, rank, batch, batch.mask, false);
    if let (Some(index), 16) = (batch.whole, batch.bytes) {
        let allocation = &w.launch.memory.allocations()[index];
        let shared = &mut g.blocks[rank].shared;
        for lane in lanes(batch.mask) {
            let words: [u64; 2] = allocation.load_range(batch.global[lane] - allocation.base);
            if let Some(place) = shared[batch.shared[lane] as usize..].first_chunk_mut() {
                *place = bytemuck::cast::<[u64; 2], [u8; 16]>(words);
            }
        }
        return;
    }
    for lane in lanes(batch.mask) {
        let (from, bytes, taken) = (
            batch.shared[lane] as usize,
            usize::from(batch.bytes),
            usize::from(batch.taken[lane]),
        );
        let mut data = [0; 16];
        if taken > 0
            && let Some(allocation) = w.launch.memory.find(batch.global[lane], &mut w.hint)
        {
            allocation.read(batch.global[lane] - allocation.base, &mut data[..taken]);
        }
        g.blocks[rank].shared[from..from + bytes].copy_from_slice(&data[..bytes]);
    }
}

/// Lanes that exit leave their copies to arrive by themselves.
pub(super) fn abandon(w: &mut Worker<'_>, g: &mut Group, warp: &mut Warp, mask: u32) {
    if !warp.copies.batches.is_empty() {
        wait(w, g, warp, None, mask);
    }
}

/// `cp.async.mbarrier.arrive`: takes the copies that these lanes have under way; they arrive with the barrier.
pub(super) fn take(warp: &mut Warp, mask: u32) -> Vec<Batch> {
    warp.copies.separate(mask);
    let (taken, kept) = std::mem::take(&mut warp.copies.batches)
        .into_iter()
        .partition(|batch| batch.mask & mask != 0);
    warp.copies.batches = kept;
    taken
}

impl Batch {
    /// Stamps the destinations of a block's copies as written.
    pub(super) fn stamp(&self, g: &mut Group, rank: usize, time: u32, slot: u32) {
        for lane in lanes(self.mask) {
            let stamp = Stamp::new(time, slot, lane, self.pc, None);
            race::mark_written(g, rank, self.shared[lane], u64::from(self.bytes), stamp);
        }
    }

    /// The instruction and the lane that copies to a place, if one does.
    pub(super) fn writer(&self, from: u32, bytes: u32) -> Option<(u32, usize)> {
        let holds = |lane: &usize| {
            self.shared[*lane] < from + bytes && from < self.shared[*lane] + u32::from(self.bytes)
        };
        lanes(self.mask).find(holds).map(|lane| (self.pc, lane))
    }
}

/// The instruction and the thread (block and thread in it) that started a copy to a place of a block's shared memory.
pub(super) fn find(
    g: &Group,
    own: &Warp,
    rank: usize,
    from: u32,
    bytes: u32,
) -> Option<(u32, (u32, u32))> {
    let block = &g.blocks[rank];
    let others = block.warps.iter().flatten().map(|warp| &**warp);
    for warp in others.chain((own.rank == rank).then_some(own)) {
        for batch in &warp.copies.batches {
            if let Some((pc, lane)) = batch.writer(from, bytes) {
                return Some((pc, (block.index, warp.thread(lane))));
            }
        }
    }
    g.bulk.find(g, rank, from, bytes, false)
}
