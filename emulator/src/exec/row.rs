//! Loads and stores of whole warps whose lanes lie side by side, in order: most of what a good kernel does. One range stands for
//! 32 addresses in every check, and in every counter.
//!
//! An access is made here as a whole, or not at all: whatever is out of the ordinary (an access that cannot be made, or one that
//! a check has something to say about) is left to [`memory`](super::memory), which looks at each lane.

use super::quads;
use super::race::is_before_all;
use super::state::{Group, Warp, Worker};
use super::vectorise::each;
use crate::check::race::{Access as Stamped, Stamp};
use crate::program::op::{Access, Width};

/// The address of lane 0 where all lanes' accesses lie side by side.
#[inline(always)]
fn start<const BYTES: u32>(warp: &Warp, row: u32, wide: bool, offset: i64) -> Option<u64> {
    if wide {
        let base = warp.registers.r64(row);
        let first = base[0];
        let mut differ = 0;
        for lane in 0..32 {
            differ |= base[lane] ^ first.wrapping_add(lane as u64 * u64::from(BYTES));
        }
        (differ == 0).then(|| first.wrapping_add(offset as u64))
    } else {
        let base = warp.registers.r32(row);
        let first = base[0];
        let mut differ = 0;
        for lane in 0..32 {
            differ |= base[lane] ^ first.wrapping_add(lane as u32 * BYTES);
        }
        (differ == 0).then(|| u64::from(first.wrapping_add(offset as u32)))
    }
}

/// Bytes of a lane, and the address of lane 0, of an access that may be made here; of whole words, and by a whole warp.
#[inline(always)]
fn range(warp: &Warp, a: &Access, row: u32) -> Option<(u64, u64)> {
    if a.width == Width::B16 || a.bytes < 4 {
        return None;
    }
    let bytes = u64::from(a.bytes) * u64::from(a.lanes);
    let first = match bytes {
        4 => start::<4>(warp, row, a.wide, a.offset),
        8 => start::<8>(warp, row, a.wide, a.offset),
        16 => start::<16>(warp, row, a.wide, a.offset),
        _ => None,
    }?;
    first.is_multiple_of(bytes).then_some((bytes, first))
}

/// Whether the registers of a lane's data are words, or one of 8 bytes: others are taken apart lane by lane.
#[inline(always)]
fn is_plain(a: &Access) -> bool {
    matches!(
        (a.bytes, a.width, a.signed),
        (4, Width::B32, _) | (8, Width::B64, _)
    )
}

/// What the race check needs of an access; `G` is the group's number where it matters.
#[inline(always)]
pub(super) fn stamped<G>(
    g: &Group,
    warp: &Warp,
    group: G,
    pc: u32,
    is_write: bool,
) -> (u32, Stamped<G>) {
    let slot = g.slot(warp.rank, warp.index);
    let access = Stamped {
        stamp: Stamp::new(warp.clock.of(slot), slot, 0, pc, None),
        group,
        is_write,
        limit: Stamp::limit(warp.clock.floor().min(warp.order.all())),
        home: g.home(warp.rank),
    };
    (slot, access)
}

/// Whether an access, of a group or another, is before those of all lanes.
#[inline(always)]
pub(super) fn is_before_all_of(
    g: &Group,
    warp: &Warp,
    slot: u32,
    other: Stamp,
    group: u32,
) -> bool {
    if group == g.index {
        is_before_all(warp, slot, other)
    } else {
        (warp.clock).covers_all_foreign(group, other.slot(), other.time())
    }
}

/// Checks and counts an access to shared memory; where it begins, if it can be made here.
#[inline(always)]
fn shared(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    (bytes, first): (u64, u64),
    is_write: bool,
    pc: u32,
) -> Option<usize> {
    let checks = w.launch.checks;
    let length = 32 * bytes;
    let end = first.checked_add(length)?;
    if end > g.blocks[warp.rank].shared.len() as u64 {
        return None;
    }
    let (from, to) = (first as usize, end as usize);
    if checks.init && !is_write {
        let defined = g.blocks[warp.rank].defined.get(from..to)?;
        // Bytes that are 0 or 1.
        if defined.iter().fold(1, |all, byte| all & byte) == 0 {
            return None;
        }
    }
    if checks.race {
        let (slot, access) = stamped(g, warp, (), pc, is_write);
        let block = &mut g.blocks[warp.rank];
        if block.in_flight.any(from as u32..to as u32) {
            return None;
        }
        let ordered = |other: Stamp, ()| is_before_all(warp, slot, other);
        if !block
            .shadow
            .as_mut()?
            .access_row(first, (bytes, bytes), &access, ordered)
        {
            return None;
        }
    }
    if checks.init && is_write {
        g.blocks[warp.rank].defined[from..to].fill(1);
    }
    let counters = &mut w.counters[pc as usize];
    counters.requests += 1;
    // A part of the warp after the other has all banks to itself.
    counters.wavefronts += bytes / 4;
    counters.ideal_wavefronts += bytes / 4;
    Some(from)
}

/// As [`shared`], of global memory: the allocation and the offset in it.
#[inline(always)]
fn global(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    (bytes, first): (u64, u64),
    is_write: bool,
    pc: u32,
) -> Option<(usize, u64)> {
    let checks = w.launch.checks;
    let length = 32 * bytes;
    let allocation = w.launch.memory.find(first, &mut w.hint)?;
    let index = w.hint;
    let offset = first - allocation.base;
    if allocation.bytes - offset < length || is_write && allocation.read_only {
        return None;
    }
    // Host memory begins at any multiple of 8.
    if !offset.is_multiple_of(bytes.min(8)) {
        return None;
    }
    if checks.init && !is_write && !allocation.is_defined_range(offset, length) {
        return None;
    }
    if checks.race {
        let (slot, access) = stamped(g, warp, g.index, pc, is_write);
        let ordered = |other: Stamp, group: u32| is_before_all_of(g, warp, slot, other, group);
        if !w.shadow.access_row(first, (bytes, bytes), &access, ordered) {
            return None;
        }
    }
    if checks.init && is_write {
        allocation.define(offset, length);
    }
    let counters = &mut w.counters[pc as usize];
    counters.requests += 1;
    counters.sectors += (offset + length - 1) / 32 - offset / 32 + 1;
    counters.ideal_sectors += bytes;
    w.touched.mark(index, is_write, offset, length);
    Some((index, offset))
}

/// Takes vectors of words apart: `words[lane × N + element]` to the register of the element.
#[inline(always)]
fn spread<const N: usize>(warp: &mut Warp, r: &[u32], word: impl Fn(usize) -> u32) {
    for element in 0..N {
        let values = each(|lane| word(lane * N + element));
        *warp.registers.r32_mut(r[element]) = values;
    }
}

/// A load by a whole warp, if it can be made here.
#[inline(always)]
pub(super) fn load_shared(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    pc: u32,
) -> bool {
    let Some(range) = range(warp, a, r[usize::from(a.lanes)]).filter(|_| is_plain(a)) else {
        return false;
    };
    let Some(from) = shared(w, g, warp, range, false, pc) else {
        return false;
    };
    let bytes = &g.blocks[warp.rank].shared[from..];
    match (a.lanes, a.bytes) {
        (1, 4) => {
            if let Some(row) = bytes.first_chunk::<128>() {
                *warp.registers.r32_mut(r[0]) = bytemuck::cast(*row);
            }
        }
        (1, _) => {
            if let Some(row) = bytes.first_chunk::<256>() {
                *warp.registers.r64_mut(r[0]) = bytemuck::cast(*row);
            }
        }
        (2, 4) => {
            if let Some(row) = bytes.first_chunk::<256>() {
                let words: [u32; 64] = bytemuck::cast(*row);
                spread::<2>(warp, r, |word| words[word]);
            }
        }
        (4, 4) => {
            if let Some(row) = bytes.first_chunk::<512>() {
                let lanes = row.as_chunks::<16>().0;
                let registers = quads::split(|lane| bytemuck::cast(lanes[lane]));
                for (element, values) in registers.iter().enumerate() {
                    *warp.registers.r32_mut(r[element]) = *values;
                }
            }
        }
        _ => {
            if let Some(row) = bytes.first_chunk::<512>() {
                let words: [u64; 64] = bytemuck::cast(*row);
                for element in 0..2 {
                    let values = each(|lane| words[2 * lane + element]);
                    *warp.registers.r64_mut(r[element]) = values;
                }
            }
        }
    }
    true
}

/// A store by a whole warp, if it can be made here.
#[inline(always)]
pub(super) fn store_shared(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    pc: u32,
) -> bool {
    let Some(range) = range(warp, a, r[0]).filter(|_| is_plain(a)) else {
        return false;
    };
    let Some(from) = shared(w, g, warp, range, true, pc) else {
        return false;
    };
    let registers = &warp.registers;
    let bytes = &mut g.blocks[warp.rank].shared[from..];
    match (a.lanes, a.bytes) {
        (1, 4) => {
            if let Some(row) = bytes.first_chunk_mut::<128>() {
                *row = bytemuck::cast(*registers.r32(r[1]));
            }
        }
        (1, _) => {
            if let Some(row) = bytes.first_chunk_mut::<256>() {
                *row = bytemuck::cast(*registers.r64(r[1]));
            }
        }
        (2, 4) => {
            if let Some(row) = bytes.first_chunk_mut::<256>() {
                let values = [registers.r32(r[1]), registers.r32(r[2])];
                let words: [u32; 64] = each(|word| values[word % 2][word / 2]);
                *row = bytemuck::cast(words);
            }
        }
        (4, 4) => {
            if let Some(row) = bytes.first_chunk_mut::<512>() {
                let values = [1, 2, 3, 4].map(|element| registers.r32(r[element]));
                let lanes = row.as_chunks_mut::<16>().0;
                quads::join(values, |lane, words| lanes[lane] = bytemuck::cast(words));
            }
        }
        _ => {
            if let Some(row) = bytes.first_chunk_mut::<512>() {
                let values = [registers.r64(r[1]), registers.r64(r[2])];
                let words: [u64; 64] = each(|word| values[word % 2][word / 2]);
                *row = bytemuck::cast(words);
            }
        }
    }
    true
}

/// As [`load_shared`], of global memory.
#[inline(always)]
pub(super) fn load_global(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    pc: u32,
) -> bool {
    let Some(range) = range(warp, a, r[usize::from(a.lanes)]).filter(|_| is_plain(a)) else {
        return false;
    };
    let Some((index, offset)) = global(w, g, warp, range, false, pc) else {
        return false;
    };
    let allocation = &w.launch.memory.allocations()[index];
    let registers = &mut warp.registers;
    match (a.lanes, a.bytes) {
        (1, 4) if offset.is_multiple_of(8) => {
            let row: [u64; 16] = allocation.load_range(offset);
            *registers.r32_mut(r[0]) = bytemuck::cast(row);
        }
        (1, 4) => {
            // A pair less at either end.
            let middle: [u64; 15] = allocation.load_range(offset + 4);
            let row = registers.r32_mut(r[0]);
            row[0] = allocation.load(offset, 4) as u32;
            row[1..31].copy_from_slice(bytemuck::cast_slice(&middle));
            row[31] = allocation.load(offset + 124, 4) as u32;
        }
        (1, _) => *registers.r64_mut(r[0]) = allocation.load_range(offset),
        (2, 4) => {
            let pairs: [u64; 32] = allocation.load_range(offset);
            spread::<2>(warp, r, |word| {
                (pairs[word / 2] >> (32 * (word % 2))) as u32
            });
        }
        (4, 4) => {
            let words = allocation.words::<64>(offset);
            let values = quads::split(|lane| {
                bytemuck::cast([words.load(2 * lane), words.load(2 * lane + 1)])
            });
            for (element, values) in values.iter().enumerate() {
                *registers.r32_mut(r[element]) = *values;
            }
        }
        _ => {
            let words: [u64; 64] = allocation.load_range(offset);
            for element in 0..2 {
                let values = each(|lane| words[2 * lane + element]);
                *registers.r64_mut(r[element]) = values;
            }
        }
    }
    true
}

/// As [`store_shared`], of global memory.
#[inline(always)]
pub(super) fn store_global(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    pc: u32,
) -> bool {
    let Some(range) = range(warp, a, r[0]).filter(|_| is_plain(a)) else {
        return false;
    };
    let Some((index, offset)) = global(w, g, warp, range, true, pc) else {
        return false;
    };
    let allocation = &w.launch.memory.allocations()[index];
    let registers = &warp.registers;
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    match (a.lanes, a.bytes) {
        (1, 4) if offset.is_multiple_of(8) => {
            let row: &[u64; 16] = bytemuck::cast_ref(registers.r32(r[1]));
            allocation.store_range(offset, row);
        }
        (1, 4) => {
            let row = registers.r32(r[1]);
            for (lane, &value) in row.iter().enumerate() {
                allocation.store(offset + 4 * lane as u64, 4, u64::from(value));
            }
        }
        (1, _) => allocation.store_range(offset, registers.r64(r[1])),
        (2, 4) => {
            let (low, high) = (registers.r32(r[1]), registers.r32(r[2]));
            let pairs: [u64; 32] = each(|lane| pair(low[lane], high[lane]));
            allocation.store_range(offset, &pairs);
        }
        (4, 4) => {
            let values = [1, 2, 3, 4].map(|element| registers.r32(r[element]));
            let words = allocation.words::<64>(offset);
            quads::join(values, |lane, quad| {
                let [low, high] = bytemuck::cast(quad);
                words.store(2 * lane, low);
                words.store(2 * lane + 1, high);
            });
        }
        _ => {
            let values = [registers.r64(r[1]), registers.r64(r[2])];
            let words: [u64; 64] = each(|word| values[word % 2][word / 2]);
            allocation.store_range(offset, &words);
        }
    }
    true
}
