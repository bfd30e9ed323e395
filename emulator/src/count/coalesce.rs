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

/// The first sector of a warp's access, and a bit for each of the 64 from there on that is among the access's; `None` where they
/// are further apart. Offsets are from a multiple of 32, and each lane's access is aligned to its size, at most 16 bytes. Lanes
/// that take no part have the offset of one that does.
#[inline(always)]
pub(crate) fn near_sectors(offsets: &[u32; 32]) -> Option<(u32, u64)> {
    const SHIFT: u32 = SECTOR.trailing_zeros();
    let (mut low, mut high) = (u32::MAX, 0);
    for &offset in offsets {
        low = low.min(offset);
        high = high.max(offset);
    }
    let first = low >> SHIFT;
    let span = (high >> SHIFT) - first;
    // Half of the vectors do where half of the bits do.
    if span < 32 {
        let mut bits = 0u32;
        for offset in offsets {
            bits |= 1 << ((offset >> SHIFT).wrapping_sub(first) & 31);
        }
        return Some((first, u64::from(bits)));
    }
    if span >= 64 {
        return None;
    }
    let mut bits = 0u64;
    for offset in offsets {
        bits |= 1 << ((offset >> SHIFT).wrapping_sub(first) & 63);
    }
    Some((first, bits))
}

/// As [`near_sectors`], however far apart they are: calls `mark` with each, some perhaps more than once, and counts them.
#[inline(always)]
pub(crate) fn far_sectors(offsets: &[u32; 32], mut mark: impl FnMut(u32)) -> u32 {
    const SHIFT: u32 = SECTOR.trailing_zeros();
    let mut last = offsets[0] >> SHIFT;
    let (mut count, mut ascends) = (1, true);
    mark(last);
    for offset in &offsets[1..] {
        let sector = offset >> SHIFT;
        if sector != last {
            ascends &= sector > last;
            count += 1;
            last = sector;
            mark(sector);
        }
    }
    if ascends {
        count
    } else {
        unordered_sectors(&offsets.map(u64::from), u32::MAX, 1)
    }
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

/// Wavefronts of a warp's access to shared memory, and how few they could be without bank conflicts. Lanes that take no part have
/// the offset of one that does.
///
/// 32 banks of 4 bytes; lanes that read one word share it. A wavefront returns 128 bytes: accesses of 8 bytes go in two halves of
/// the warp, of 16 bytes in four quarters; in each the bank with most distinct words decides.
///
/// `packs` is of loads. Where lanes `n` and `n ^ 1` have the same address, for all active lanes, or all `n` and `n ^ 2`, a
/// wavefront returns the registers of twice as many lanes, so that there are half as many parts (G. Smith of NVIDIA on devices of
/// compute capability 7.0 and 7.5, forums.developer.nvidia.com/t/77228; assumed to hold for newer ones). A lane whose partner takes
/// no part is taken as in order.
#[inline(always)]
pub(crate) fn wavefronts(offsets: &[u32; 32], mask: u32, bytes: u32, packs: bool) -> (u32, u32) {
    let (mut parts, mut lanes_per_part) = match bytes {
        8 => (2, 16),
        16 => (4, 8),
        _ => (1, 32),
    };
    if mask == u32::MAX
        && let Some(wavefronts) = of_whole_warp(offsets, bytes)
    {
        return (wavefronts, parts);
    }
    if packs && bytes >= 8 && (is_paired(offsets, mask, 1) || is_paired(offsets, mask, 2)) {
        (parts, lanes_per_part) = (parts / 2, lanes_per_part * 2);
    }
    let mut total = 0;
    let mut ideal = 0;
    for part in 0..parts {
        let lanes = (((1u64 << lanes_per_part) - 1) as u32) << (part * lanes_per_part);
        let lanes = mask & lanes;
        if lanes != 0 {
            ideal += 1;
            total += conflicts(offsets, lanes, bytes);
        }
    }
    (total, ideal)
}

/// Whether every lane has the offset of the lane whose number differs by one bit, where both are active.
#[inline(always)]
fn is_paired(offsets: &[u32; 32], mask: u32, bit: usize) -> bool {
    let mut differ = 0;
    for lane in 0..32 {
        let both = mask >> lane & mask >> (lane ^ bit) & 1;
        differ |= (offsets[lane] ^ offsets[lane ^ bit]) & 0u32.wrapping_sub(both);
    }
    differ == 0
}

/// Wavefronts of common accesses of all lanes, aligned to their size: without conflicts, or one stride apart.
#[inline(always)]
fn of_whole_warp(offsets: &[u32; 32], bytes: u32) -> Option<u32> {
    let (shift, places, lanes) = match bytes {
        4 => (2, 32, 32),
        8 => (3, 16, 16),
        16 => (4, 8, 8),
        _ => return None,
    };
    let mut misaligned = 0;
    for offset in offsets {
        misaligned |= offset;
    }
    if misaligned & (bytes - 1) != 0 {
        return None;
    }
    // Whether the lanes of each part have all the places there are.
    let mut is_full = true;
    for part in offsets.chunks_exact(lanes) {
        let mut taken = 0u32;
        for offset in part {
            taken |= 1 << (offset >> shift & (places - 1));
        }
        is_full &= taken == u32::MAX >> (32 - places);
    }
    let parts = 32 / places;
    if is_full {
        return Some(parts);
    }
    let stride = offsets[1].wrapping_sub(offsets[0]);
    let mut differ = 0;
    for lane in 0..32u32 {
        let expected = offsets[0].wrapping_add(stride.wrapping_mul(lane));
        differ |= offsets[lane as usize] ^ expected;
    }
    if differ != 0 || stride == 0 {
        return None;
    }
    // As many lanes come to one place as the stride and the number of places have factors in common.
    let words = stride >> shift;
    Some(parts << words.trailing_zeros().min(places.trailing_zeros()))
}

/// The largest number of distinct words in one bank.
#[inline(always)]
fn conflicts(offsets: &[u32; 32], mask: u32, bytes: u32) -> u32 {
    // What a lane accesses is one word, or two or four that lie in as many banks: 32, 16 or 8 places for it.
    let (shift, places) = match bytes {
        1 | 2 | 4 => (2, 32),
        8 => (3, 16),
        16 => (4, 8),
        _ => return conflicts_by_word(offsets, mask, bytes),
    };
    let first = offsets[mask.trailing_zeros() as usize & 31] >> shift;
    let mut taken = 0u32;
    let mut differ = 0;
    let mut misaligned = 0;
    for lane in 0..32 {
        let is_in = 0u32.wrapping_sub(mask >> lane & 1);
        let word = offsets[lane] >> shift;
        taken |= 1 << (word & (places - 1)) & is_in;
        differ |= (word ^ first) & is_in;
        misaligned |= offsets[lane] & is_in;
    }
    if misaligned & (bytes - 1) != 0 {
        return conflicts_by_word(offsets, mask, bytes);
    }
    if differ == 0 || taken.count_ones() == mask.count_ones() {
        return 1;
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
        let word = offsets[lane] >> shift;
        let place = (word & (places - 1)) as usize;
        let mut other = heads[place];
        while other != NONE && offsets[usize::from(other)] >> shift != word {
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

/// No lane.
const NONE: u8 = 32;

/// As [`conflicts`], of accesses of any size and alignment.
#[cold]
fn conflicts_by_word(offsets: &[u32; 32], mask: u32, bytes: u32) -> u32 {
    let mut counts = [0u8; 32];
    let mut held = [[0u32; 32]; 32];
    let mut most = 1;
    for lane in (0..32).filter(|lane| mask >> lane & 1 == 1) {
        for word in offsets[lane] / 4..(offsets[lane] + bytes).div_ceil(4) {
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

    fn offsets(stride: u32) -> [u32; 32] {
        std::array::from_fn(|lane| lane as u32 * stride)
    }

    #[test]
    fn wavefronts_of_common_patterns() {
        let count = |stride, bytes| wavefronts(&offsets(stride), u32::MAX, bytes, true).0;
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
        assert_eq!(wavefronts(&offsets(64), u32::MAX, 16, true), (16, 4));
    }

    /// Lanes' numbers as offsets.
    fn check(
        bytes: u32,
        mask: u32,
        of_lane: impl Fn(u32) -> u32,
        load: (u32, u32),
        store: (u32, u32),
    ) {
        let offsets = std::array::from_fn(|lane| of_lane(lane as u32) * bytes);
        assert_eq!(wavefronts(&offsets, mask, bytes, true), load);
        assert_eq!(wavefronts(&offsets, mask, bytes, false), store);
    }

    #[test]
    fn loads_of_8_and_16_bytes_by_pairs_of_lanes_with_one_address() {
        let all = u32::MAX;
        // No pairs: two halves, four quarters.
        check(8, all, |lane| lane, (2, 2), (2, 2));
        check(16, all, |lane| lane, (4, 4), (4, 4));
        // One address for all.
        check(8, all, |_| 5, (1, 1), (2, 2));
        check(16, all, |_| 5, (2, 2), (4, 4));
        // T0 = T1, T2 = T3, …: 16 distinct addresses lie in 16 × 8 = 128 bytes, or twice 8 × 16.
        check(8, all, |lane| lane / 2, (1, 1), (2, 2));
        check(16, all, |lane| lane / 2, (2, 2), (4, 4));
        // T0 = T2, T1 = T3, T4 = T6, …
        check(8, all, |lane| lane / 4 * 2 + lane % 2, (1, 1), (2, 2));
        check(16, all, |lane| lane / 4 * 2 + lane % 2, (2, 2), (4, 4));
        // T0 = T4, …: no such pairs, though each quarter has only four addresses.
        check(8, all, |lane| lane / 8 * 4 + lane % 4, (2, 2), (2, 2));
        check(16, all, |lane| lane / 8 * 4 + lane % 4, (4, 4), (4, 4));
        // All but one pair.
        check(
            16,
            all,
            |lane| if lane == 31 { 40 } else { lane / 2 },
            (4, 4),
            (4, 4),
        );
        // Pairs, but 128 bytes apart: each of a half's eight addresses is in the same four banks.
        check(16, all, |lane| lane / 2 * 8, (16, 2), (16, 4));
        // Lanes without a partner: 16 addresses of 8 bytes, every second lane.
        check(8, 0x5555_5555, |lane| lane / 2, (1, 1), (2, 2));
        check(16, 0xff, |lane| lane, (1, 1), (1, 1));
        // Words are never packed.
        check(4, all, |_| 5, (1, 1), (1, 1));
    }

    use proptest::prelude::*;

    fn addresses() -> impl Strategy<Value = [u64; 32]> {
        let patterns = prop_oneof![
            (0u64..64, 0u64..40).prop_map(|(start, stride)| {
                std::array::from_fn(|lane| start + stride * lane as u64)
            }),
            prop::array::uniform32(0u64..64),
            prop::array::uniform16(0u64..32)
                .prop_map(|half| std::array::from_fn(|lane| half[lane / 2])),
            prop::array::uniform16(0u64..32)
                .prop_map(|half| std::array::from_fn(|lane| half[lane / 4 * 2 + lane % 2])),
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
            let first = at[mask.trailing_zeros() as usize];
            let filled: [u64; 32] =
                std::array::from_fn(|lane| if mask >> lane & 1 == 1 { at[lane] } else { first });
            let all = touched(SECTOR);
            let near = near_sectors(&filled.map(|address| address as u32));
            prop_assert_eq!(near.is_some(), all.last().unwrap() - all.first().unwrap() < 64);
            if let Some((first, bits)) = near {
                let found: Vec<u64> = (0..64).filter(|bit| bits >> bit & 1 == 1).map(|bit| u64::from(first) + bit).collect();
                prop_assert_eq!(found, all.into_iter().collect::<Vec<_>>());
            }
            let mut marked = std::collections::BTreeSet::new();
            let count = far_sectors(&filled.map(|address| address as u32), |sector| {
                marked.insert(u64::from(sector));
            });
            prop_assert_eq!(&marked, &touched(SECTOR));
            prop_assert_eq!(count as usize, marked.len());
            let offsets = filled.map(|address| address as u32);
            let is_pair = |bit: usize| {
                lanes().all(|lane| mask >> (lane ^ bit) & 1 == 0 || at[lane] == at[lane ^ bit])
            };
            for packs in [false, true] {
                let mut per_part = if bytes > 4 { 128 / bytes as usize } else { 32 };
                if packs && bytes > 4 && (is_pair(1) || is_pair(2)) {
                    per_part *= 2;
                }
                let mut expected = (0, 0);
                for part in 0..32 / per_part {
                    let within = (u64::MAX >> (64 - per_part) << (part * per_part)) as u32 & mask;
                    if within != 0 {
                        expected.0 += conflicts_by_word(&offsets, within, bytes as u32);
                        expected.1 += 1;
                    }
                }
                prop_assert_eq!(wavefronts(&offsets, mask, bytes as u32, packs), expected);
            }
        }
    }
}
