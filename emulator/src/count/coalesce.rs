//! How a warp's addresses fall on sectors and banks.

/// Bytes of a sector of global memory.
const SECTOR: u64 = 32;

/// Distinct 32-byte sectors of a warp's access. `addresses` of the lanes in `mask`, each of `bytes` contiguous bytes.
#[inline(always)]
pub(crate) fn sectors(addresses: &[u64; 32], mask: u32, bytes: u64) -> u32 {
    // Ascending addresses, the common case, need no sorting.
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
fn conflicts(addresses: &[u64; 32], mask: u32, bytes: u64) -> u32 {
    let first = mask.trailing_zeros() as usize;
    // One word after the other from some word on, or all the same: no conflict.
    let words = bytes.div_ceil(4);
    let step = addresses[if first < 31 { first + 1 } else { 31 }].wrapping_sub(addresses[first]);
    if (step == 0 || step == 4 * words)
        && (0..32).all(|lane| {
            mask >> lane & 1 == 0
                || addresses[lane]
                    == addresses[first].wrapping_add(step.wrapping_mul((lane - first) as u64))
        })
        && words * 4 * u64::from(mask.count_ones()) <= 128
    {
        return 1;
    }
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
}
