//! Loads and stores of a word each by whole warps whose lanes lie 8 or 16 bytes apart, as in a column of pairs or of structures:
//! one range stands for 32 addresses, with the words in between left out.
//!
//! As in [`row`](super::row), an access is made here as a whole or not at all; [`memory`](super::memory) makes the others.

use super::race::is_before_all;
use super::row;
use super::state::{Group, Warp, Worker};
use super::vectorise::each;
use crate::check::race::Stamp;
use crate::count::coalesce;
use crate::program::op::{Access, Width};

/// Bytes of a lane.
const BYTES: u64 = 4;

/// A warp's accesses: the address of lane 0, and bytes from a lane to the next.
#[derive(Debug, Clone, Copy)]
struct Strided {
    first: u64,
    stride: u64,
}

impl Strided {
    /// From the first byte to the last.
    fn length(self) -> u64 {
        31 * self.stride + BYTES
    }

    /// The bytes that are accessed, of 64 from a multiple of 64 on, where the first lane's are at `offset`.
    fn bits(self, offset: u64) -> u64 {
        let each = match self.stride {
            8 => 0x0f0f_0f0f_0f0f_0f0f,
            _ => 0x000f_000f_000f_000f,
        };
        // Within a stride, since the offset is a multiple of the bytes.
        each << (offset % self.stride)
    }
}

/// Where the lanes are, if they are so.
#[inline(always)]
fn strided(warp: &Warp, a: &Access, row: u32) -> Option<Strided> {
    if (a.bytes, a.width, a.lanes) != (4, Width::B32, 1) {
        return None;
    }
    let (first, stride, differ);
    if a.wide {
        let base = warp.registers.r64(row);
        stride = base[1].wrapping_sub(base[0]);
        if !matches!(stride, 8 | 16) || base[31].wrapping_sub(base[0]) != 31 * stride {
            return None;
        }
        let steps: [u64; 31] = each(|lane| base[lane + 1].wrapping_sub(base[lane]) ^ stride);
        differ = steps.iter().fold(0, |any, step| any | step) != 0;
        first = base[0].wrapping_add(a.offset as u64);
    } else {
        let base = warp.registers.r32(row);
        stride = u64::from(base[1].wrapping_sub(base[0]));
        if !matches!(stride, 8 | 16) || base[31].wrapping_sub(base[0]) != 31 * stride as u32 {
            return None;
        }
        let steps: [u32; 31] = each(|lane| base[lane + 1].wrapping_sub(base[lane]) ^ stride as u32);
        differ = steps.iter().fold(0, |any, step| any | step) != 0;
        first = u64::from(base[0].wrapping_add(a.offset as u32));
    }
    (!differ && first.is_multiple_of(BYTES)).then_some(Strided { first, stride })
}

/// Checks and counts an access to shared memory; where it begins, if it can be made here.
#[inline(always)]
fn shared(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    at: Strided,
    is_write: bool,
    pc: u32,
) -> Option<usize> {
    let checks = w.launch.checks;
    let end = at.first.checked_add(at.length())?;
    if end > g.blocks[warp.rank].shared.len() as u64 {
        return None;
    }
    let (from, to) = (at.first as usize, end as usize);
    let step = at.stride as usize;
    if checks.init && !is_write {
        let defined = g.blocks[warp.rank].defined.get(from..to)?;
        let mut missing = false;
        for lane in 0..32 {
            missing |= defined[lane * step..].first_chunk() != Some(&[1; BYTES as usize]);
        }
        if missing {
            return None;
        }
    }
    if checks.race {
        let (slot, access) = row::stamped(g, warp, (), pc, is_write);
        let block = &mut g.blocks[warp.rank];
        if block.in_flight.any(from as u32..to as u32) {
            return None;
        }
        let ordered = |other: Stamp, ()| is_before_all(warp, slot, other);
        let size = (at.stride, BYTES);
        if !(block.shadow.as_mut()?).access_row(at.first, size, &access, ordered) {
            return None;
        }
    }
    if checks.init && is_write {
        let defined = &mut g.blocks[warp.rank].defined[from..to];
        for lane in 0..32 {
            if let Some(bytes) = defined[lane * step..].first_chunk_mut() {
                *bytes = [1; BYTES as usize];
            }
        }
    }
    let counters = &mut w.counters[pc as usize];
    counters.requests += 1;
    // Every second or fourth bank has all the words.
    counters.wavefronts += at.stride / BYTES;
    counters.ideal_wavefronts += 1;
    Some(from)
}

/// As [`shared`], of global memory: the allocation and the offset in it.
#[inline(always)]
fn global(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    at: Strided,
    is_write: bool,
    pc: u32,
) -> Option<(usize, u64)> {
    let checks = w.launch.checks;
    let length = at.length();
    let allocation = w.launch.memory.find(at.first, &mut w.hint)?;
    let index = w.hint;
    let offset = at.first - allocation.base;
    // Host memory begins anywhere.
    if allocation.bytes - offset < length
        || !allocation.base.is_multiple_of(32)
        || is_write && allocation.read_only
    {
        return None;
    }
    let bits = at.bits(offset);
    if checks.init && !is_write && !allocation.is_defined_among(offset, length, bits) {
        return None;
    }
    if checks.race {
        let (slot, access) = row::stamped(g, warp, g.index, pc, is_write);
        let ordered = |other: Stamp, group: u32| row::is_before_all_of(g, warp, slot, other, group);
        if !(w.shadow).access_row(at.first, (at.stride, BYTES), &access, ordered) {
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
    counters.ideal_sectors += coalesce::ideal_sectors(u32::MAX, BYTES, sectors);
    w.touched.mark(index, is_write, offset, length);
    Some((index, offset))
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
    #[inline(always)]
    fn gather<const STRIDE: usize>(bytes: &[u8]) -> [u32; 32] {
        each(|lane| {
            let word = bytes
                .get(lane * STRIDE..)
                .and_then(|rest| rest.first_chunk());
            word.map_or(0, |word| u32::from_le_bytes(*word))
        })
    }
    let Some(at) = strided(warp, a, r[1]) else {
        return false;
    };
    let Some(from) = shared(w, g, warp, at, false, pc) else {
        return false;
    };
    let bytes = &g.blocks[warp.rank].shared[from..from + at.length() as usize];
    *warp.registers.r32_mut(r[0]) = match at.stride {
        8 => gather::<8>(bytes),
        _ => gather::<16>(bytes),
    };
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
    #[inline(always)]
    fn scatter<const STRIDE: usize>(bytes: &mut [u8], values: &[u32; 32]) {
        for (place, value) in bytes.chunks_mut(STRIDE).zip(values) {
            if let Some(word) = place.first_chunk_mut() {
                *word = value.to_le_bytes();
            }
        }
    }
    let Some(at) = strided(warp, a, r[0]) else {
        return false;
    };
    let Some(from) = shared(w, g, warp, at, true, pc) else {
        return false;
    };
    let values = warp.registers.r32(r[1]);
    let bytes = &mut g.blocks[warp.rank].shared[from..from + at.length() as usize];
    match at.stride {
        8 => scatter::<8>(bytes, values),
        _ => scatter::<16>(bytes, values),
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
    if !a.wide {
        return false;
    }
    let Some(at) = strided(warp, a, r[1]) else {
        return false;
    };
    let Some((index, offset)) = global(w, g, warp, at, false, pc) else {
        return false;
    };
    let allocation = &w.launch.memory.allocations()[index];
    // SAFETY: `global` found the words of every lane, so many strides from an aligned offset on, within the allocation.
    let values = unsafe {
        match at.stride {
            8 => allocation.gather32(|lane| offset + 8 * lane as u64),
            _ => allocation.gather32(|lane| offset + 16 * lane as u64),
        }
    };
    *warp.registers.r32_mut(r[0]) = values;
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
    if !a.wide {
        return false;
    }
    let Some(at) = strided(warp, a, r[0]) else {
        return false;
    };
    let Some((index, offset)) = global(w, g, warp, at, true, pc) else {
        return false;
    };
    let allocation = &w.launch.memory.allocations()[index];
    let values = warp.registers.r32(r[1]);
    // SAFETY: as in `load_global`.
    unsafe {
        match at.stride {
            8 => allocation.scatter32(|lane| offset + 8 * lane as u64, values),
            _ => allocation.scatter32(|lane| offset + 16 * lane as u64, values),
        }
    }
    true
}
