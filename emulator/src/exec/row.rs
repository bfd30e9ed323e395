//! Loads and stores of whole warps whose lanes lie evenly apart, in order: side by side, which is most of what a good kernel does,
//! or words 8 or 16 bytes apart, as in a column of pairs or of structures. One range stands for 32 addresses in every check, and
//! in every counter.
//!
//! An access is made here as a whole, or not at all: whatever is out of the ordinary (an access that cannot be made, or one that
//! a check has something to say about) is left to [`memory`](super::memory), which looks at each lane.

use super::race::is_before_all;
use super::registers::Registers;
use super::state::{Group, Warp, Worker};
use super::words::{self, is_plain};
use crate::check::race::{Access as Stamped, Stamp};
use crate::count::coalesce;
use crate::memory::cells::{Plain, PlainMut, SetWords, Words};
use crate::program::op::Access;

/// A warp's accesses: the address of lane 0, bytes from a lane to the next, and bytes that each accesses.
#[derive(Debug, Clone, Copy)]
struct Row {
    first: u64,
    stride: u64,
    bytes: u64,
}

impl Row {
    /// From the first byte to the last.
    #[inline(always)]
    fn length(self) -> u64 {
        31 * self.stride + self.bytes
    }

    /// The bytes that are accessed, of 64 from a multiple of 64 on, where the first lane's are at `offset`.
    #[inline(always)]
    fn bits(self, offset: u64) -> u64 {
        let each = match self.stride / self.bytes {
            2 => 0x0f0f_0f0f_0f0f_0f0f,
            4 => 0x000f_000f_000f_000f,
            _ => return u64::MAX,
        };
        // Within a stride, since the offset is a multiple of the bytes.
        each << (offset % self.stride)
    }
}

/// Whether numbers of 64 bits lie `STRIDE` apart.
#[inline(always)]
fn is_even<const STRIDE: u64>(numbers: &[u64; 32]) -> bool {
    let mut differ = 0;
    for lane in 0..32 {
        differ |= numbers[lane] ^ numbers[0].wrapping_add(lane as u64 * STRIDE);
    }
    differ == 0
}

/// As [`is_even`], of 32 bits.
#[inline(always)]
fn is_even_narrow<const STRIDE: u32>(numbers: &[u32; 32]) -> bool {
    let mut differ = 0;
    for lane in 0..32 {
        differ |= numbers[lane] ^ numbers[0].wrapping_add(lane as u32 * STRIDE);
    }
    differ == 0
}

/// Where the lanes of an access are, if they are so.
#[inline(always)]
fn find(warp: &Warp, a: &Access, row: u32) -> Option<Row> {
    if !is_plain(a) {
        return None;
    }
    let bytes = u64::from(a.bytes) * u64::from(a.lanes);
    let (first, stride, is_even) = if a.wide {
        let base = warp.registers.r64(row);
        let stride = base[1].wrapping_sub(base[0]);
        let is_even = match stride {
            4 => is_even::<4>(base),
            8 => is_even::<8>(base),
            16 => is_even::<16>(base),
            _ => false,
        };
        (base[0].wrapping_add(a.offset as u64), stride, is_even)
    } else {
        let base = warp.registers.r32(row);
        let stride = base[1].wrapping_sub(base[0]);
        let is_even = match stride {
            4 => is_even_narrow::<4>(base),
            8 => is_even_narrow::<8>(base),
            16 => is_even_narrow::<16>(base),
            _ => false,
        };
        let first = base[0].wrapping_add(a.offset as u32);
        (u64::from(first), u64::from(stride), is_even)
    };
    let is_row = is_even && (stride == bytes || bytes == 4);
    (is_row && first & (bytes - 1) == 0).then_some(Row {
        first,
        stride,
        bytes,
    })
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

/// Whether all bytes of shared memory that a row reads, from its first on, were written: 1 each.
#[inline(always)]
fn is_defined(row: Row, defined: &[u8]) -> bool {
    if row.stride == row.bytes {
        return defined.iter().fold(1, |all, byte| all & byte) == 1;
    }
    let mut missing = false;
    for word in defined.chunks(row.stride as usize) {
        missing |= word.first_chunk() != Some(&[1; 4]);
    }
    !missing
}

/// Marks the bytes that a row writes.
#[inline(always)]
fn define(row: Row, defined: &mut [u8]) {
    if row.stride == row.bytes {
        defined.fill(1);
        return;
    }
    for word in defined.chunks_mut(row.stride as usize) {
        if let Some(bytes) = word.first_chunk_mut() {
            *bytes = [1; 4];
        }
    }
}

/// Checks and counts an access to shared memory; where it begins, if it can be made here.
#[inline(always)]
fn shared(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    row: Row,
    is_write: bool,
    pc: u32,
) -> Option<u64> {
    let checks = w.launch.checks;
    let end = row.first.checked_add(row.length())?;
    let block = &mut g.blocks[warp.rank];
    if end > block.shared.len() as u64 {
        return None;
    }
    let (from, to) = (row.first as usize, end as usize);
    if checks.init && !is_write && !is_defined(row, block.defined.get(from..to)?) {
        return None;
    }
    if checks.race {
        let (slot, access) = stamped(g, warp, (), pc, is_write);
        let block = &mut g.blocks[warp.rank];
        if block.in_flight.any(from as u32..to as u32) {
            return None;
        }
        let ordered = |other: Stamp, ()| is_before_all(warp, slot, other);
        let size = (row.stride, row.bytes);
        if !(block.shadow.as_mut()?).access_row(row.first, size, &access, ordered) {
            return None;
        }
    }
    if checks.init && is_write {
        define(row, &mut g.blocks[warp.rank].defined[from..to]);
    }
    let counters = &mut w.counters[pc as usize];
    counters.requests += 1;
    // Side by side, a part of the warp after the other has all banks to itself; further apart, every second or fourth bank has
    // all the words.
    counters.wavefronts += row.stride / 4;
    counters.ideal_wavefronts += row.bytes / 4;
    Some(row.first)
}

/// As [`shared`], of global memory: the allocation and the offset in it.
#[inline(always)]
fn global(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    row: Row,
    is_write: bool,
    pc: u32,
) -> Option<(usize, u64)> {
    let checks = w.launch.checks;
    let length = row.length();
    let allocation = w.launch.memory.find(row.first, &mut w.hint)?;
    let index = w.hint;
    let offset = row.first - allocation.base;
    // Host memory begins at any multiple of 8.
    if allocation.bytes - offset < length
        || row.stride != row.bytes && !allocation.base.is_multiple_of(32)
        || is_write && allocation.read_only
    {
        return None;
    }
    // One warp follows the other through the pages of an unrolled loop: no prefetcher of a processor foresees that.
    let ahead = w.launch.kernel.code.quick[pc as usize].ahead();
    if ahead != 0 {
        allocation.prefetch(offset.wrapping_add(ahead as u64), length);
    }
    let bits = row.bits(offset);
    if checks.init && !is_write && !allocation.is_defined_among(offset, length, bits) {
        return None;
    }
    if checks.race {
        let (slot, access) = stamped(g, warp, g.index, pc, is_write);
        let ordered = |other: Stamp, group: u32| is_before_all_of(g, warp, slot, other, group);
        if !(w.shadow).access_row(row.first, (row.stride, row.bytes), &access, ordered) {
            return None;
        }
    }
    if checks.init && is_write {
        allocation.define_among(offset, length, bits);
    }
    // A stride is less than a sector: none is left out.
    let sectors = (offset + length - 1) / 32 - offset / 32 + 1;
    let counters = &mut w.counters[pc as usize];
    counters.requests += 1;
    counters.sectors += sectors;
    counters.ideal_sectors += coalesce::ideal_sectors(u32::MAX, row.bytes, sectors);
    w.touched.mark(index, is_write, offset, length);
    Some((index, offset))
}

/// Loads a row that begins at an offset.
///
/// # Safety
/// The row is within the memory, and the offset a multiple of the bytes of a lane, or of 8.
#[inline(always)]
unsafe fn load<M: Words>(
    registers: &mut Registers,
    memory: M,
    a: &Access,
    r: &[u32],
    row: Row,
    from: u64,
) {
    let all = u32::MAX;
    // SAFETY: lines of 64 bytes of a row without gaps, or its words one by one, are within it.
    unsafe {
        let line = |line: usize| memory.line(from + 64 * line as u64);
        match (row.bytes, row.stride) {
            (4, 4) => words::put::<4>(registers, a, r, all, line),
            (4, 8) => words::load(registers, memory, a, r, all, |lane| from + 8 * lane as u64),
            (4, _) => words::load(registers, memory, a, r, all, |lane| from + 16 * lane as u64),
            (8, _) => words::put::<8>(registers, a, r, all, line),
            _ => words::put::<16>(registers, a, r, all, line),
        }
    }
}

/// As [`load`], the other way; `r` begins with what is stored.
///
/// # Safety
/// As of [`load`].
#[inline(always)]
unsafe fn store<M: SetWords>(
    registers: &Registers,
    memory: M,
    a: &Access,
    r: &[u32],
    row: Row,
    from: u64,
) {
    // SAFETY: as in `load`.
    unsafe {
        let line = |line: usize, words| memory.set_line(from + 64 * line as u64, words);
        match (row.bytes, row.stride) {
            (4, 4) => words::take::<4>(registers, a, r, line),
            (4, 8) => words::store(registers, memory, a, r, |lane| from + 8 * lane as u64),
            (4, _) => words::store(registers, memory, a, r, |lane| from + 16 * lane as u64),
            (8, _) => words::take::<8>(registers, a, r, line),
            _ => words::take::<16>(registers, a, r, line),
        }
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
    let Some(row) = find(warp, a, r[usize::from(a.lanes)]) else {
        return false;
    };
    let Some(from) = shared(w, g, warp, row, false, pc) else {
        return false;
    };
    let memory = Plain::new(&g.blocks[warp.rank].shared);
    // SAFETY: `shared` found the row within the block's shared memory, and `find` its alignment.
    unsafe { load(&mut warp.registers, memory, a, r, row, from) };
    true
}

/// A store by a whole warp, if it can be made here.
#[inline(always)]
pub(super) fn store_shared(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    a: &Access,
    r: &[u32],
    pc: u32,
) -> bool {
    let Some(row) = find(warp, a, r[0]) else {
        return false;
    };
    let Some(from) = shared(w, g, warp, row, true, pc) else {
        return false;
    };
    let memory = PlainMut::new(&mut g.blocks[warp.rank].shared);
    // SAFETY: as in `load_shared`.
    unsafe { store(&warp.registers, memory, a, &r[1..], row, from) };
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
    let Some(row) = find(warp, a, r[usize::from(a.lanes)]) else {
        return false;
    };
    let Some((index, offset)) = global(w, g, warp, row, false, pc) else {
        return false;
    };
    let allocation = &w.launch.memory.allocations()[index];
    let registers = &mut warp.registers;
    // SAFETY: `global` found the row within the allocation, and `find` its alignment; an allocation begins at a multiple of 8.
    unsafe {
        match allocation.vectors() {
            Some(memory) => load(registers, memory, a, r, row, offset),
            None => load(registers, allocation.cells(), a, r, row, offset),
        }
    }
    true
}

/// As [`store_shared`], of global memory.
#[inline(always)]
pub(super) fn store_global(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    a: &Access,
    r: &[u32],
    pc: u32,
) -> bool {
    let Some(row) = find(warp, a, r[0]) else {
        return false;
    };
    let Some((index, offset)) = global(w, g, warp, row, true, pc) else {
        return false;
    };
    let allocation = &w.launch.memory.allocations()[index];
    let (registers, r) = (&warp.registers, &r[1..]);
    // SAFETY: as in `load_global`.
    unsafe {
        match allocation.vectors() {
            Some(memory) => store(registers, memory, a, r, row, offset),
            None => store(registers, allocation.cells(), a, r, row, offset),
        }
    }
    true
}
