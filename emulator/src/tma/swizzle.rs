//! The permutation of 16-byte chunks in shared memory.

/// How 16-byte chunks of shared memory are permuted, so that a column of a tile does not lie in the same banks throughout.
///
/// The chunk's number within its span is XORed with the low bits of the number of its 128-byte line. CUTLASS writes the modes as
/// `Swizzle<3,4,3>`, `Swizzle<2,4,3>` and `Swizzle<1,4,3>`: one to three bits from bit 4 on, XORed with those three places higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Swizzle {
    /// Chunks stay where they are.
    #[default]
    None,
    /// Within 32 bytes: address bit 4 is XORed with bit 7.
    Bytes32,
    /// Within 64 bytes: bits 4–5 with bits 7–8.
    Bytes64,
    /// Within 128 bytes: bits 4–6 with bits 7–9.
    Bytes128,
}

impl Swizzle {
    /// From a `CUtensorMapSwizzle`; the modes with atoms of 32 and 64 bytes are not Hopper's.
    pub(crate) fn from_tensor_map(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Bytes32),
            2 => Some(Self::Bytes64),
            3 => Some(Self::Bytes128),
            _ => None,
        }
    }

    /// From bits 62–63 of a matrix descriptor, which count the other way (PTX, "Matrix Descriptor Format").
    pub(crate) fn from_descriptor(bits: u64) -> Self {
        match bits & 3 {
            0 => Self::None,
            1 => Self::Bytes128,
            2 => Self::Bytes64,
            _ => Self::Bytes32,
        }
    }

    /// Where the byte that an unswizzled layout puts at the shared address `address` really lies. Its own inverse.
    ///
    /// The pattern is anchored to addresses, not to tiles: CUDA's programming guide adds `address / 128` of the tile to its row
    /// numbers, and CUTLASS applies the swizzle to pointers.
    #[inline(always)]
    pub(crate) fn apply(self, address: u32) -> u32 {
        address ^ ((address >> 3) & self.mask())
    }

    /// Bytes within which chunks move; a swizzled tile's row occupies so many. `None` without swizzle.
    pub(crate) fn span_bytes(self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Bytes32 => Some(32),
            Self::Bytes64 => Some(64),
            Self::Bytes128 => Some(128),
        }
    }

    /// Bytes after which the pattern repeats. A tile at a multiple of it starts with the pattern's first row; elsewhere (a multiple
    /// of 128 is all that a copy asks for) it starts with a later one.
    pub(crate) fn repeat_bytes(self) -> u32 {
        match self {
            Self::None => 16,
            Self::Bytes32 => 256,
            Self::Bytes64 => 512,
            Self::Bytes128 => 1024,
        }
    }

    #[inline(always)]
    fn mask(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Bytes32 => 0x10,
            Self::Bytes64 => 0x30,
            Self::Bytes128 => 0x70,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Swizzle; 4] = [
        Swizzle::None,
        Swizzle::Bytes32,
        Swizzle::Bytes64,
        Swizzle::Bytes128,
    ];

    #[test]
    fn the_programming_guides_index_relation_holds() {
        // "smem[y][x] <-> smem[y][((y+offset)%n)^x]" for lines `y` of 128 bytes in chunks `x` of 16.
        for (swizzle, rows) in [
            (Swizzle::Bytes128, 8),
            (Swizzle::Bytes64, 4),
            (Swizzle::Bytes32, 2),
        ] {
            for base in (0..2048).step_by(128) {
                let offset = base / 128 % rows;
                for y in 0..16 {
                    for x in 0..8 {
                        assert_eq!(
                            swizzle.apply(base + y * 128 + x * 16),
                            base + y * 128 + (((y + offset) % rows) ^ x) * 16
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_numbers_of_the_driver_and_of_descriptors_differ() {
        assert_eq!(
            [0, 1, 2, 3].map(Swizzle::from_tensor_map),
            ALL.map(Option::Some)
        );
        assert_eq!(Swizzle::from_tensor_map(4), None);
        assert_eq!(
            [0, 1, 2, 3].map(Swizzle::from_descriptor),
            [ALL[0], ALL[3], ALL[2], ALL[1]]
        );
    }

    proptest! {
        #[test]
        fn applied_twice_is_nothing_and_stays_within_the_span(address: u32) {
            for swizzle in ALL {
                let moved = swizzle.apply(address);
                prop_assert_eq!(swizzle.apply(moved), address);
                let span = swizzle.span_bytes().unwrap_or(1);
                prop_assert_eq!(moved / span, address / span);
                prop_assert_eq!(moved % 16, address % 16);
                let later = address.wrapping_add(swizzle.repeat_bytes());
                prop_assert_eq!(swizzle.apply(later).wrapping_sub(moved), swizzle.repeat_bytes());
            }
        }
    }
}
