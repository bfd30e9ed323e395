//! Sets of 16-byte chunks of shared memory, as the operand of a matrix instruction is one.

use std::ops::Range;

/// Bytes of a chunk.
const CHUNK: u32 = 16;

/// Chunks by bits, lowest address first.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    words: Vec<u64>,
    /// Words that may have bits.
    used: Range<usize>,
}

impl Chunks {
    /// Adds the chunk at an address, which is a multiple of its size.
    #[inline(always)]
    pub(super) fn insert(&mut self, address: u32) {
        let chunk = address / CHUNK;
        let word = chunk as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (chunk % 64);
        if self.used.is_empty() {
            self.used = word..word + 1;
        } else {
            self.used = self.used.start.min(word)..self.used.end.max(word + 1);
        }
    }

    /// Takes the chunks out as ranges of bytes, in order; those that lie side by side are one.
    pub(super) fn take_ranges(&mut self, ranges: &mut Vec<Range<u32>>) {
        ranges.clear();
        for (word, bits) in self
            .words
            .iter_mut()
            .enumerate()
            .take(self.used.end)
            .skip(self.used.start)
        {
            let mut rest = std::mem::take(bits);
            while rest != 0 {
                let (bit, count) = (
                    rest.trailing_zeros(),
                    (rest >> rest.trailing_zeros()).trailing_ones(),
                );
                let start = (word as u32 * 64 + bit) * CHUNK;
                let end = start.saturating_add(count * CHUNK);
                match ranges.last_mut() {
                    Some(last) if last.end == start => last.end = end,
                    _ => ranges.push(start..end),
                }
                rest &= !(u64::MAX >> (64 - count) << bit);
            }
        }
        self.used = 0..0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chunks: &[u32], expected: &[Range<u32>]) {
        let (mut set, mut ranges) = (Chunks::default(), Vec::new());
        // What was taken out is gone.
        for _ in 0..2 {
            chunks.iter().for_each(|chunk| set.insert(chunk * CHUNK));
            set.take_ranges(&mut ranges);
            let found: Vec<_> = (ranges.iter())
                .map(|range| range.start / CHUNK..range.end / CHUNK)
                .collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn chunks_side_by_side_are_one_range() {
        check(&[], &[]);
        check(&[9, 8, 200, 8], &[8..10, 200..201]);
        check(&[64, 63, 65, 0], &[0..1, 63..66]);
        let all: Vec<u32> = (64..192).rev().chain([300]).collect();
        check(&all, &[64..192, 300..301]);
    }
}
