//! Loads and stores of words by whole warps whose lanes lie anywhere in one buffer, where no check looks at what is read and
//! written: offsets of 32 bits, eight to a vector.
//!
//! As in [`row`](super::row), an access is made here as a whole or not at all; [`memory`](super::memory) makes the others.

use super::registers::Registers;
use super::state::{Group, Warp, Worker};
use super::words;
use crate::count::coalesce;
use crate::memory::cells::{Plain, PlainMut, Quad};
use crate::memory::global::Allocation;
use crate::program::op::{Access, Space, Width};

/// Whether an access is of one, two or four words of each lane, and nothing but its counters is asked for.
#[inline(always)]
fn is_plain(w: &Worker<'_>, a: &Access) -> bool {
    let checks = w.launch.checks;
    a.bytes == 4 && a.width == Width::B32 && !checks.init && !checks.race
}

/// Lanes' addresses less `base`, if all of them are aligned to the `bytes` of a lane and within `size` bytes from there.
#[inline(always)]
fn offsets(
    registers: &Registers,
    row: u32,
    a: &Access,
    bytes: u32,
    base: u64,
    size: u64,
) -> Option<[u32; 32]> {
    let mut beyond = 0;
    let mut offsets = [0; 32];
    if a.wide {
        let start = (a.offset as u64).wrapping_sub(base);
        let addresses = registers.r64(row);
        for lane in 0..32 {
            let offset = addresses[lane].wrapping_add(start);
            beyond |= offset >> 32;
            offsets[lane] = offset as u32;
        }
    } else {
        let addresses = registers.r32(row);
        for lane in 0..32 {
            offsets[lane] = addresses[lane].wrapping_add(a.offset as u32);
        }
    }
    let (mut low, mut high) = (0, 0);
    for offset in offsets {
        low |= offset;
        high = high.max(offset);
    }
    let is_within = u64::from(high) + u64::from(bytes) <= size;
    (beyond == 0 && is_within && low & (bytes - 1) == 0).then_some(offsets)
}

/// Counts an access to shared memory; where its lanes are, if it can be made here.
#[inline(always)]
fn shared(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    a: &Access,
    row: u32,
    is_write: bool,
    pc: u32,
) -> Option<[u32; 32]> {
    if !is_plain(w, a) {
        return None;
    }
    let size = g.blocks[warp.rank].shared.len() as u64;
    let bytes = 4 * u32::from(a.lanes);
    let offsets = offsets(&warp.registers, row, a, bytes, 0, size)?;
    let (wavefronts, ideal) = coalesce::wavefronts(&offsets, u32::MAX, bytes, !is_write);
    let counters = &mut w.counters[pc as usize];
    counters.requests += 1;
    counters.wavefronts += u64::from(wavefronts);
    counters.ideal_wavefronts += u64::from(ideal);
    Some(offsets)
}

/// A load from shared memory by a whole warp, if it can be made here.
#[inline(always)]
pub(super) fn load_shared(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    pc: u32,
) -> bool {
    let Some(offsets) = shared(w, g, warp, a, r[usize::from(a.lanes)], false, pc) else {
        return false;
    };
    let memory = Plain::new(&g.blocks[warp.rank].shared);
    let at = |lane: usize| u64::from(offsets[lane]);
    // SAFETY: `offsets` found the bytes of every lane, 4 × a.lanes, within the block's shared memory, and aligned to their number.
    unsafe { words::load(&mut warp.registers, memory, a, r, u32::MAX, at) };
    true
}

/// As [`load_shared`], the other way.
#[inline(always)]
pub(super) fn store_shared(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    a: &Access,
    r: &[u32],
    pc: u32,
) -> bool {
    let Some(offsets) = shared(w, g, warp, a, r[0], true, pc) else {
        return false;
    };
    let memory = PlainMut::new(&mut g.blocks[warp.rank].shared);
    let at = |lane: usize| u64::from(offsets[lane]);
    // SAFETY: as in `load_shared`.
    unsafe { words::store(&warp.registers, memory, a, &r[1..], at) };
    true
}

/// The rows of 16 bytes that the lanes of an `ldmatrix` of four matrices give the addresses of, if they can be read here.
#[inline(always)]
pub(super) fn load_rows(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    a: &Access,
    row: u32,
    pc: u32,
) -> Option<[Quad; 32]> {
    let checks = w.launch.checks;
    if checks.init || checks.race || a.space != Space::Shared {
        return None;
    }
    let shared = &g.blocks[warp.rank].shared;
    let offsets = offsets(&warp.registers, row, a, 16, 0, shared.len() as u64)?;
    let (wavefronts, ideal) = coalesce::wavefronts(&offsets, u32::MAX, 16, false);
    let counters = &mut w.counters[pc as usize];
    counters.requests += 1;
    counters.wavefronts += u64::from(wavefronts);
    counters.ideal_wavefronts += u64::from(ideal);
    let mut rows = [[0; 4]; 32];
    for (row, offset) in rows.iter_mut().zip(offsets) {
        if let Some(bytes) = shared[offset as usize..].first_chunk::<16>() {
            *row = bytemuck::cast(*bytes);
        }
    }
    Some(rows)
}

/// Marks the sectors of an access to an allocation that begins at a multiple of 32 as touched; how many there are. Lanes that take
/// no part have the offset of one that does.
#[inline(always)]
pub(super) fn mark(w: &mut Worker<'_>, index: usize, is_write: bool, offsets: &[u32; 32]) -> u64 {
    if let Some((first, bits)) = coalesce::near_sectors(offsets) {
        (w.touched).mark_sectors(index, is_write, u64::from(first), bits);
        return u64::from(bits.count_ones());
    }
    let mark = |sector| (w.touched).mark_sectors(index, is_write, u64::from(sector), 1);
    u64::from(coalesce::far_sectors(offsets, mark))
}

/// Counts an access to global memory; the number of the allocation, and where in it the lanes are, if it can be made here.
#[inline(always)]
fn global(
    w: &mut Worker<'_>,
    warp: &Warp,
    a: &Access,
    row: u32,
    is_write: bool,
    pc: u32,
) -> Option<(usize, [u32; 32])> {
    if !is_plain(w, a) || !a.wide {
        return None;
    }
    let first = warp.registers.r64(row)[0].wrapping_add(a.offset as u64);
    let allocation = w.launch.memory.find(first, &mut w.hint)?;
    let index = w.hint;
    let Allocation { base, bytes, .. } = *allocation;
    // Host memory begins anywhere.
    if base % 32 != 0 || is_write && allocation.read_only {
        return None;
    }
    let lane_bytes = 4 * u32::from(a.lanes);
    let offsets = offsets(&warp.registers, row, a, lane_bytes, base, bytes)?;
    let sectors = mark(w, index, is_write, &offsets);
    let counters = &mut w.counters[pc as usize];
    counters.requests += 1;
    counters.sectors += sectors;
    counters.ideal_sectors += coalesce::ideal_sectors(u32::MAX, u64::from(lane_bytes), sectors);
    Some((index, offsets))
}

/// As [`load_shared`], from global memory.
#[inline(always)]
pub(super) fn load_global(
    w: &mut Worker<'_>,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    pc: u32,
) -> bool {
    let row = r[usize::from(a.lanes)];
    let Some((index, offsets)) = global(w, warp, a, row, false, pc) else {
        return false;
    };
    let allocation = &w.launch.memory.allocations()[index];
    let registers = &mut warp.registers;
    let at = |lane: usize| u64::from(offsets[lane]);
    // SAFETY: `offsets` found the bytes of every lane within the allocation, and aligned to their number.
    unsafe {
        match allocation.vectors() {
            Some(memory) => words::load(registers, memory, a, r, u32::MAX, at),
            None => words::load(registers, allocation.cells(), a, r, u32::MAX, at),
        }
    }
    true
}

/// As [`load_global`], the other way.
#[inline(always)]
pub(super) fn store_global(
    w: &mut Worker<'_>,
    warp: &Warp,
    a: &Access,
    r: &[u32],
    pc: u32,
) -> bool {
    let Some((index, offsets)) = global(w, warp, a, r[0], true, pc) else {
        return false;
    };
    let allocation = &w.launch.memory.allocations()[index];
    let (registers, r) = (&warp.registers, &r[1..]);
    let at = |lane: usize| u64::from(offsets[lane]);
    // SAFETY: as in `load_global`.
    unsafe {
        match allocation.vectors() {
            Some(memory) => words::store(registers, memory, a, r, at),
            None => words::store(registers, allocation.cells(), a, r, at),
        }
    }
    true
}
