//! Tensor maps as the 128 bytes that programs carry around.

use super::map::{TensorMap, TiledArguments, check_rank};

/// Opens the words of a map, so that anything else in its place is recognised. The last byte is the layout's version.
const MAGIC: u64 = u64::from_le_bytes(*b"tensmap\x01");

impl TensorMap {
    /// The map as the 128 bytes of a `CUtensorMap`. NVIDIA's layout is not public, and this is not it.
    ///
    /// | word | contents |
    /// | --- | --- |
    /// | 0 | magic number |
    /// | 1 | address |
    /// | 2 | bytes: element type, rank, swizzle, promotion, fill |
    /// | 3–7 | extents |
    /// | 8–11 | strides of all dimensions but the first |
    /// | 12 | bytes: tile, each less 1 |
    /// | 13 | bytes: element strides |
    /// | 14–15 | 0 |
    pub(crate) fn to_words(self) -> [u64; 16] {
        let mut words = [0; 16];
        words[0] = MAGIC;
        words[1] = self.address;
        words[2] = pack([
            self.element as u32,
            self.rank,
            self.swizzle as u32,
            self.promotion as u32,
            self.fill as u32,
        ]);
        words[3..8].copy_from_slice(&self.extents);
        words[8..12].copy_from_slice(&self.strides[1..]);
        words[12] = pack(self.tile.map(|elements| elements - 1));
        words[13] = pack(self.element_strides);
        words
    }

    /// The map that [`to_words`](Self::to_words) wrote; `None` of anything else.
    pub(crate) fn from_words(words: &[u64; 16]) -> Option<Self> {
        if words[0] != MAGIC {
            return None;
        }
        let [data_type, rank, swizzle, promotion, fill] = unpack(words[2]);
        let rank = check_rank(rank).ok()?;
        let tile = unpack(words[12]).map(|elements| elements + 1);
        let element_strides = unpack(words[13]);
        let map = Self::encode(&TiledArguments {
            data_type,
            address: words[1],
            extents: &words[3..3 + rank],
            strides: &words[8..7 + rank],
            tile: &tile[..rank],
            element_strides: &element_strides[..rank],
            interleave: 0,
            swizzle,
            promotion,
            fill,
        })
        .ok()?;
        // Bits that no field uses, and dimensions beyond the rank, must be as they were written.
        (map.to_words() == *words).then_some(map)
    }
}

/// Five numbers below 256 as the low bytes of a word.
fn pack(bytes: [u32; 5]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, &byte| word << 8 | u64::from(byte))
}

fn unpack(word: u64) -> [u32; 5] {
    std::array::from_fn(|byte| (word >> (8 * byte)) as u32 & 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tma::map::tests::arguments;
    use crate::tma::tests::any_map;
    use proptest::prelude::*;

    #[test]
    fn other_words_are_no_map() {
        assert_eq!(TensorMap::from_words(&[0; 16]), None);
        assert_eq!(TensorMap::from_words(&[u64::MAX; 16]), None);
        let map = TensorMap::encode(&arguments()).unwrap();
        let words = map.to_words();
        for (word, change) in [
            (0, 1),
            (2, 1 << 40),
            (5, 1),
            (9, 16),
            (12, 1 << 16),
            (15, 1),
        ] {
            let mut changed = words;
            changed[word] ^= change;
            assert_eq!(TensorMap::from_words(&changed), None, "word {word}");
        }
    }

    proptest! {
        #[test]
        fn words_hold_the_map(map in any_map()) {
            prop_assert_eq!(TensorMap::from_words(&map.to_words()), Some(map));
        }

        #[test]
        fn random_words_never_panic(mut words: [u64; 16], has_magic: bool, small: bool) {
            if has_magic {
                words[0] = MAGIC;
            }
            if small {
                // Likely to pass for fields.
                words[2] &= 0x01_0101_0303;
                words.iter_mut().skip(3).for_each(|word| *word &= 0x07_0707_0770);
            }
            if let Some(map) = TensorMap::from_words(&words) {
                prop_assert_eq!(map.to_words(), words);
            }
        }
    }
}
