//! How a warp's addresses fall on sectors and banks.

/// Bytes of a sector of global memory.
const SECTOR: u64 = 32;

/// Distinct 32-byte sectors of a warp's access. `addresses` of the lanes in `mask`, each of `bytes` contiguous bytes.
#[inline(always)]
pub(crate) fn sectors(addresses: &[u64; 32], mask: u32, bytes: u64) -> u32 {
    // Ascending addresses of whole warps, each within a sector: the common case.
    if mask == u32::MAX {
        let mut descends = 0u64;
        let mut crosses = 0;
        let mut starts = 0u64;
        for lane in 0..31 {
            let (own, next) = (addresses[lane] / SECTOR, addresses[lane + 1] / SECTOR);
            // As differences: sectors are below 2^59.
            descends |= next.wrapping_sub(own) >> 63;
            starts += u64::from(own != next);
        }
        for address in addresses {
            crosses |= (address ^ (address + bytes - 1)) / SECTOR;
        }
        if descends | crosses == 0 {
            return 1 + starts as u32;
        }
    }
    let mut count = 0;
    let mut last = u64::MAX;
    let mut lanes = mask;
    while lanes != 0 {
        let lane = lanes.trailing_zeros() as usize;
        lanes &= lanes - 1;
        let first = addresses[lane] / SECTOR;
        let end = (addresses[lane] + bytes - 1) / SECTOR;
        if last != u64::MAX && first < last {
            return unordered_sectors(addresses, mask, bytes);
        }
        if first != last {
            count += 1;
        }
        count += (end - first) as u32;
        last = end;
    }
    count
}

/// Sectors that the access would need if its lanes' bytes lay side by side, or as few as it does need.
#[inline]
pub(crate) fn ideal_sectors(mask: u32, bytes: u64, sectors: u64) -> u64 {
    (u64::from(mask.count_ones()) * bytes)
        .div_ceil(SECTOR)
        .min(sectors)
}

fn unordered_sectors(addresses: &[u64; 32], mask: u32, bytes: u64) -> u32 {
    let mut all = [u64::MAX; 64];
    let mut length = 0;
    for lane in (0..32).filter(|lane| mask >> lane & 1 == 1) {
        for sector in addresses[lane] / SECTOR..=(addresses[lane] + bytes - 1) / SECTOR {
            if length < all.len() {
                all[length] = sector;
                length += 1;
            }
        }
    }
    let all = &mut all[..length];
    all.sort_unstable();
    let mut count = 0;
    let mut last = u64::MAX;
    for &sector in all.iter() {
        count += u32::from(sector != last);
        last = sector;
    }
    count
}

/// Wavefronts of a warp's access to shared memory, and how few they could be.
///
/// 32 banks of 4 bytes; lanes that read one word share it. Accesses of 8 bytes go in two halves of the warp, of 16 bytes in four
/// quarters; in each the bank with most distinct words decides.
#[inline(always)]
pub(crate) fn wavefronts(addresses: &[u64; 32], mask: u32, bytes: u64) -> (u32, u32) {
    // Side by side: each part has all banks to itself.
    if mask == u32::MAX && matches!(bytes, 4 | 8 | 16) {
        let mut differ = 0;
        for lane in 0..32 {
            differ |= addresses[lane] ^ addresses[0].wrapping_add(lane as u64 * bytes);
        }
        if differ | addresses[0] & (bytes - 1) == 0 {
            return (bytes as u32 / 4, bytes as u32 / 4);
        }
    }
    let (parts, lanes_per_part) = match bytes {
        8 => (2, 16),
        16 => (4, 8),
        _ => (1, 32),
    };
    let mut total = 0;
    let mut ideal = 0;
    for part in 0..parts {
        let lanes = (((1u64 << lanes_per_part) - 1) as u32) << (part * lanes_per_part);
        let lanes = mask & lanes;
        if lanes != 0 {
            ideal += 1;
            total += conflicts(addresses, lanes, bytes);
        }
    }
    (total, ideal)
}

/// The largest number of distinct words in one bank.
#[inline(always)]
fn conflicts(addresses: &[u64; 32], mask: u32, bytes: u64) -> u32 {
    // What a lane accesses is one word, or two or four that lie in as many banks: 32, 16 or 8 places for it.
    let (shift, places) = match bytes {
        1 | 2 | 4 => (2, 32),
        8 => (3, 16),
        16 => (4, 8),
        _ => return conflicts_by_word(addresses, mask, bytes),
    };
    let first = addresses[mask.trailing_zeros() as usize & 31];
    let mut taken = 0u32;
    let mut differ = 0;
    let mut misaligned = 0;
    for lane in 0..32 {
        let is_in = 0u32.wrapping_sub(mask >> lane & 1);
        let word = (addresses[lane] >> shift) as u32;
        taken |= 1 << (word & (places - 1)) & is_in;
        differ |= (word ^ (first >> shift) as u32) & is_in;
        misaligned |= addresses[lane] as u32 & is_in;
    }
    if misaligned & (bytes as u32 - 1) != 0 {
        return conflicts_by_word(addresses, mask, bytes);
    }
    if differ == 0 || taken.count_ones() == mask.count_ones() {
        return 1;
    }
    if let Some(conflicts) = strided_conflicts(addresses, mask, shift, places) {
        return conflicts;
    }
    // Of every place a list of its lanes with distinct words.
    let mut heads = [NONE; 32];
    let mut next = [NONE; 32];
    let mut counts = [0u8; 32];
    let mut most = 1;
    let mut rest = mask;
    while rest != 0 {
        let lane = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        let word = (addresses[lane] >> shift) as u32;
        let place = (word & (places - 1)) as usize;
        let mut other = heads[place];
        while other != NONE && (addresses[usize::from(other)] >> shift) as u32 != word {
            other = next[usize::from(other)];
        }
        if other == NONE {
            next[lane] = heads[place];
            heads[place] = lane as u8;
            counts[place] += 1;
            most = most.max(counts[place]);
        }
    }
    u32::from(most)
}

/// Of lanes with no gap between them whose words are one stride apart.
#[inline(always)]
fn strided_conflicts(addresses: &[u64; 32], mask: u32, shift: u32, places: u32) -> Option<u32> {
    let (first, lanes) = (mask.trailing_zeros(), mask.count_ones());
    // A part of the warp, or all of it.
    if lanes != places || !first.is_multiple_of(places) || mask >> first != u32::MAX >> (32 - lanes)
    {
        return None;
    }
    let word = |lane: u32| (addresses[lane as usize & 31] >> shift) as u32;
    let start = word(first);
    let stride = word(first + 1).wrapping_sub(start);
    let mut differ = 0;
    for lane in 0..32u32 {
        let is_in = 0u32.wrapping_sub(mask >> lane & 1);
        let expected = start.wrapping_add(stride.wrapping_mul(lane.wrapping_sub(first)));
        differ |= (word(lane) ^ expected) & is_in;
    }
    // As many lanes come to one place as the stride and the number of places have factors in common.
    (differ == 0 && stride != 0).then(|| 1 << stride.trailing_zeros().min(places.trailing_zeros()))
}

/// No lane.
const NONE: u8 = 32;

/// As [`conflicts`], of accesses of any size and alignment.
#[cold]
fn conflicts_by_word(addresses: &[u64; 32], mask: u32, bytes: u64) -> u32 {
    let mut counts = [0u8; 32];
    let mut held = [[0u64; 32]; 32];
    let mut most = 1;
    for lane in (0..32).filter(|lane| mask >> lane & 1 == 1) {
        for word in addresses[lane] / 4..(addresses[lane] + bytes).div_ceil(4) {
            let bank = (word % 32) as usize;
            let count = usize::from(counts[bank]);
            if !held[bank][..count].contains(&word) && count < 32 {
                held[bank][count] = word;
                counts[bank] += 1;
                most = most.max(u32::from(counts[bank]));
            }
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strided(stride: u64) -> [u64; 32] {
        std::array::from_fn(|lane| lane as u64 * stride)
    }

    #[test]
    fn sectors_of_common_patterns() {
        assert_eq!(sectors(&strided(4), u32::MAX, 4), 4);
        assert_eq!(sectors(&strided(8), u32::MAX, 8), 8);
        assert_eq!(sectors(&strided(16), u32::MAX, 16), 16);
        assert_eq!(sectors(&strided(32), u32::MAX, 4), 32);
        assert_eq!(sectors(&[64; 32], u32::MAX, 4), 1);
        assert_eq!(sectors(&strided(4).map(|a| 124 - a), u32::MAX, 4), 4);
        assert_eq!(sectors(&strided(4).map(|a| a + 16), u32::MAX, 4), 5);
        assert_eq!(sectors(&strided(4), 0x1, 4), 1);
    }

    #[test]
    fn wavefronts_of_common_patterns() {
        let count = |stride, bytes| wavefronts(&strided(stride), u32::MAX, bytes).0;
        assert_eq!(count(4, 4), 1);
        assert_eq!(count(0, 4), 1);
        assert_eq!(count(8, 4), 2);
        assert_eq!(count(128, 4), 32);
        assert_eq!(count(132, 4), 1);
        assert_eq!(count(8, 8), 2);
        assert_eq!(count(16, 16), 4);
        assert_eq!(count(32, 16), 8);
        // Two bytes of one word are no conflict.
        assert_eq!(count(2, 2), 1);
        assert_eq!(wavefronts(&strided(64), u32::MAX, 16), (16, 4));
    }

    use proptest::prelude::*;

    fn addresses() -> impl Strategy<Value = [u64; 32]> {
        let patterns = prop_oneof![
            (0u64..64, 0u64..40).prop_map(|(start, stride)| {
                std::array::from_fn(|lane| start + stride * lane as u64)
            }),
            prop::array::uniform32(0u64..64),
            prop::array::uniform32(0u64..4096),
            (0u64..32, 0u64..32).prop_map(|(xor, add)| {
                std::array::from_fn(|lane| (lane as u64 ^ xor) + 32 * (lane as u64 * add % 7))
            }),
        ];
        patterns
    }

    proptest! {
        #[test]
        fn counts_are_those_of_the_plain_way(
            units in addresses(),
            mask in prop_oneof![Just(u32::MAX), any::<u32>(), (0u32..32).prop_map(|n| u32::MAX >> n)],
            size in 0u32..5,
        ) {
            prop_assume!(mask != 0);
            let bytes = 1u64 << size;
            let at = units.map(|unit| unit * bytes);
            let lanes = || (0..32).filter(|lane| mask >> lane & 1 == 1);
            let touched = |unit: u64| -> std::collections::BTreeSet<u64> {
                lanes().flat_map(|lane| at[lane] / unit..=(at[lane] + bytes - 1) / unit).collect()
            };
            prop_assert_eq!(sectors(&at, mask, bytes) as usize, touched(SECTOR).len());
            let per_part = if bytes > 4 { 128 / bytes as usize } else { 32 };
            let mut expected = (0, 0);
            for part in 0..32 / per_part {
                let within = (u64::MAX >> (64 - per_part) << (part * per_part)) as u32 & mask;
                if within != 0 {
                    expected.0 += conflicts_by_word(&at, within, bytes);
                    expected.1 += 1;
                }
            }
            prop_assert_eq!(wavefronts(&at, mask, bytes), expected);
        }
    }
}
