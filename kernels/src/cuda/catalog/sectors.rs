//! Memory comes in sectors of 32 bytes.

use std::collections::BTreeSet;

const SECTOR: u64 = 32;

/// Bytes of the sectors of an array that begins with one.
pub(crate) fn whole_sectors(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(SECTOR)
}

/// Bytes of the sectors that these pieces of an array lie in, each (first byte, bytes).
pub(crate) fn distinct_sectors(pieces: impl IntoIterator<Item = (usize, usize)>) -> u64 {
    let sectors: BTreeSet<u64> = pieces
        .into_iter()
        .filter(|&(_, bytes)| bytes > 0)
        .flat_map(|(first, bytes)| first as u64 / SECTOR..=(first + bytes - 1) as u64 / SECTOR)
        .collect();
    sectors.len() as u64 * SECTOR
}

/// Sectors beyond the fewest of one access by a warp, whose lanes ask for `asked` bytes all together, which lie at these
/// (first byte, bytes): those that it takes because it begins within a sector, or leaves bytes out.
pub(crate) fn beyond_fewest(first: usize, bytes: usize, asked: usize) -> u64 {
    let sectors = distinct_sectors([(first, bytes)]) / SECTOR;
    sectors.saturating_sub((asked as u64).div_ceil(SECTOR))
}

/// The same of an array from `first` on that warps read side by side, `bytes` bytes of which each lane takes `of_lane`.
pub(crate) fn beyond_fewest_of(first: usize, bytes: usize, of_lane: usize) -> u64 {
    let of_warp = 32 * of_lane;
    let warps = (0..bytes).step_by(of_warp);
    warps
        .map(|at| {
            let len = of_warp.min(bytes - at);
            beyond_fewest(first + at, len, len)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_share_sectors() {
        assert_eq!(whole_sectors(1), 32);
        assert_eq!(distinct_sectors([(0, 4), (28, 4), (40, 0)]), 32);
        assert_eq!(distinct_sectors([(0, 4), (28, 8), (96, 32)]), 96);
    }

    #[test]
    fn an_access_that_begins_within_a_sector_takes_more() {
        assert_eq!(beyond_fewest(0, 128, 128), 0);
        assert_eq!(beyond_fewest(4, 128, 128), 1);
        // Two words that lie in two sectors; all of a warp that asks for one word.
        assert_eq!(beyond_fewest(28, 8, 8), 1);
        assert_eq!(beyond_fewest(28, 4, 128), 0);
        // Two warps, of which the second has 3 lanes.
        assert_eq!(beyond_fewest_of(0, 140, 4), 0);
        assert_eq!(beyond_fewest_of(8, 140, 4), 1);
        assert_eq!(beyond_fewest_of(28, 140, 4), 2);
    }
}
