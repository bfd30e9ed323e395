//! Which sectors of global memory a launch read and wrote.

use crate::memory::global::GlobalMemory;

/// Bytes of a sector.
const SECTOR: u64 = 32;

/// Bitmaps of sectors, per allocation.
#[derive(Debug)]
pub(crate) struct Touched {
    allocations: Vec<[Vec<u64>; 2]>,
}

impl Touched {
    pub(crate) fn new(allocations: usize) -> Self {
        Self {
            allocations: (0..allocations).map(|_| Default::default()).collect(),
        }
    }

    /// Marks the sectors of a range of an allocation, counted in its order.
    #[inline(always)]
    pub(crate) fn mark(&mut self, allocation: usize, is_write: bool, offset: u64, bytes: u64) {
        let (first, last) = (offset / SECTOR, (offset + bytes - 1) / SECTOR);
        let mut at = first;
        while at <= last {
            let count = (last - at + 1).min(64);
            self.mark_sectors(allocation, is_write, at, u64::MAX >> (64 - count));
            at += count;
        }
    }

    /// Marks sectors of an allocation: bit 0 of `bits` is that with number `first`.
    #[inline(always)]
    pub(crate) fn mark_sectors(
        &mut self,
        allocation: usize,
        is_write: bool,
        first: u64,
        bits: u64,
    ) {
        let Some(maps) = self.allocations.get_mut(allocation) else {
            return;
        };
        let map = &mut maps[usize::from(is_write)];
        let (word, bit) = ((first / 64) as usize, first % 64);
        // What goes beyond the word, if anything does, is in the next.
        let beyond = (bits >> 1) >> (63 - bit);
        let words = word + 1 + usize::from(beyond != 0);
        if map.len() < words {
            map.resize(words.next_power_of_two(), 0);
        }
        map[word] |= bits << bit;
        if beyond != 0 {
            map[word + 1] |= beyond;
        }
    }

    /// As [`Self::mark`] of every lane of a mask, each of `bytes` from its address less `base` on.
    #[inline(always)]
    pub(crate) fn mark_lanes(
        &mut self,
        allocation: usize,
        is_write: bool,
        addresses: &[u64; 32],
        base: u64,
        mask: u32,
        bytes: u64,
    ) {
        let end = addresses.iter().fold(0, |end, at| end.max(at - base)) + bytes;
        let Some(maps) = self.allocations.get_mut(allocation) else {
            return;
        };
        let map = &mut maps[usize::from(is_write)];
        let words = (end / SECTOR / 64 + 1) as usize;
        if map.len() < words {
            map.resize(words.next_power_of_two(), 0);
        }
        let mut rest = mask;
        while rest != 0 {
            let lane = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let start = addresses[lane] - base;
            // Of at most 16 bytes: one sector, or two.
            for sector in [start / SECTOR, (start + bytes - 1) / SECTOR] {
                map[(sector / 64) as usize] |= 1 << (sector % 64);
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (own, other) in self.allocations.iter_mut().zip(&other.allocations) {
            for (own, other) in own.iter_mut().zip(other) {
                if own.len() < other.len() {
                    own.resize(other.len(), 0);
                }
                for (own, other) in own.iter_mut().zip(other) {
                    *own |= other;
                }
            }
        }
    }

    /// Marks what was written as defined, by whole sectors: for launches that did not follow every byte.
    pub(crate) fn define(&self, memory: &GlobalMemory) {
        for (maps, allocation) in self.allocations.iter().zip(memory.allocations()) {
            for (word, &bits) in maps[1].iter().enumerate() {
                let mut rest = bits;
                while rest != 0 {
                    // The next sectors that lie side by side.
                    let bit = rest.trailing_zeros();
                    let count = (rest >> bit).trailing_ones();
                    let start = (word as u64 * 64 + u64::from(bit)) * SECTOR;
                    let bytes = u64::from(count) * SECTOR;
                    allocation.define(start, bytes.min(allocation.bytes - start));
                    rest &= !(u64::MAX >> (64 - count) << bit);
                }
            }
        }
    }

    /// Distinct bytes read and written, by whole sectors.
    pub(crate) fn bytes(&self) -> [u64; 2] {
        [0, 1].map(|kind: usize| {
            let maps = self.allocations.iter().map(|maps| &maps[kind]);
            maps.flatten()
                .map(|word| u64::from(word.count_ones()))
                .sum::<u64>()
                * SECTOR
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_count_once() {
        let mut touched = Touched::new(2);
        touched.mark(0, false, 0, 128);
        touched.mark(0, false, 100, 8);
        touched.mark(0, false, 64 * 32 - 4, 8);
        touched.mark(1, true, 31, 2);
        assert_eq!(touched.bytes(), [6 * 32, 64]);
        let mut sum = Touched::new(2);
        sum.merge(&touched);
        sum.merge(&touched);
        assert_eq!(sum.bytes(), [6 * 32, 64]);
    }

    #[test]
    fn lanes_are_marked_as_one_by_one() {
        let at: [u64; 32] = std::array::from_fn(|lane| 1000 + 72 * (lane as u64 * 7 % 32));
        for mask in [u32::MAX, 0x8000_0001, 0x0ff0] {
            let (mut one, mut all) = (Touched::new(1), Touched::new(1));
            all.mark_lanes(0, true, &at, 1000, mask, 16);
            for lane in (0..32).filter(|lane| mask >> lane & 1 == 1) {
                one.mark(0, true, at[lane] - 1000, 16);
            }
            assert_eq!(one.bytes(), all.bytes());
            one.merge(&all);
            assert_eq!(one.bytes(), all.bytes());
        }
    }
}
