//! Which bytes of an allocation were written: one bit each.

use std::sync::atomic::Ordering::Relaxed;

use super::Allocation;

impl Allocation {
    /// Marks bytes as written.
    pub(crate) fn define(&self, offset: u64, bytes: u64) {
        self.define_among(offset, bytes, u64::MAX);
    }

    /// Marks bytes of a range as written: those with their bits in `among`, which says it of 64 bytes from a multiple of 64 on.
    #[inline(always)]
    pub(crate) fn define_among(&self, offset: u64, bytes: u64, among: u64) {
        if self.defined.is_empty() {
            return;
        }
        let mut at = offset;
        while at < offset + bytes {
            let bit = at % 64;
            let count = (64 - bit).min(offset + bytes - at);
            let mask = u64::MAX >> (64 - count) << bit & among;
            if mask == u64::MAX {
                // As many whole words as there are.
                let end = (offset + bytes) / 64;
                for word in &self.defined[(at / 64) as usize..end as usize] {
                    word.store(u64::MAX, Relaxed);
                }
                at = 64 * end;
                continue;
            }
            let word = &self.defined[(at / 64) as usize];
            if word.load(Relaxed) & mask != mask {
                word.fetch_or(mask, Relaxed);
            }
            at += count;
        }
    }

    /// Whether all bytes of a range were written.
    #[inline]
    pub(crate) fn is_defined_range(&self, offset: u64, bytes: u64) -> bool {
        self.is_defined_among(offset, bytes, u64::MAX)
    }

    /// As [`Self::is_defined_range`], of the bytes that [`Self::define_among`] marks.
    #[inline(always)]
    pub(crate) fn is_defined_among(&self, offset: u64, bytes: u64, among: u64) -> bool {
        if self.defined.is_empty() {
            return true;
        }
        let (first, last) = (offset / 64, (offset + bytes - 1) / 64);
        (first..=last).all(|word| {
            let from = offset.max(64 * word) - 64 * word;
            let to = (offset + bytes).min(64 * word + 64) - 64 * word;
            let mask = u64::MAX >> (64 - (to - from)) << from & among;
            self.defined[word as usize].load(Relaxed) & mask == mask
        })
    }

    pub(super) fn undefine(&self, offset: u64) {
        if self.defined.is_empty() {
            return;
        }
        self.defined[(offset / 64) as usize].fetch_and(!(1 << (offset % 64)), Relaxed);
    }

    /// Whether all of at most 16 bytes were written.
    #[inline(always)]
    pub(crate) fn is_defined(&self, offset: u64, bytes: u64) -> bool {
        if self.defined.is_empty() {
            return true;
        }
        let bit = offset % 64;
        let word = self.defined[(offset / 64) as usize].load(Relaxed);
        if bit + bytes <= 64 {
            let mask = ((1 << bytes) - 1) << bit;
            word & mask == mask
        } else {
            (offset..offset + bytes)
                .all(|at| self.defined[(at / 64) as usize].load(Relaxed) >> (at % 64) & 1 == 1)
        }
    }
}
