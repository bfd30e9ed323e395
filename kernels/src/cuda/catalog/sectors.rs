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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_share_sectors() {
        assert_eq!(whole_sectors(1), 32);
        assert_eq!(distinct_sectors([(0, 4), (28, 4), (40, 0)]), 32);
        assert_eq!(distinct_sectors([(0, 4), (28, 8), (96, 32)]), 96);
    }
}
