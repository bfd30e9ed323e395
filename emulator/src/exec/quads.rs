//! Between four words of each lane, as memory has them, and four registers, as a warp does.

use super::registers::Registers;
use super::vectorise::each;

/// Four by four words, rows against columns.
#[inline(always)]
fn transpose(rows: [[u32; 4]; 4]) -> [[u32; 4]; 4] {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            __m128i, _mm_unpackhi_epi32, _mm_unpackhi_epi64, _mm_unpacklo_epi32, _mm_unpacklo_epi64,
        };
        let [a, b, c, d]: [__m128i; 4] = bytemuck::cast(rows);
        // SAFETY: every x86-64 processor has SSE2.
        let columns: [__m128i; 4] = unsafe {
            let (ab, cd) = (_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d));
            let (ab_high, cd_high) = (_mm_unpackhi_epi32(a, b), _mm_unpackhi_epi32(c, d));
            [
                _mm_unpacklo_epi64(ab, cd),
                _mm_unpackhi_epi64(ab, cd),
                _mm_unpacklo_epi64(ab_high, cd_high),
                _mm_unpackhi_epi64(ab_high, cd_high),
            ]
        };
        bytemuck::cast(columns)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let mut columns = [[0; 4]; 4];
        for (row, words) in rows.iter().enumerate() {
            for (column, word) in words.iter().enumerate() {
                columns[column][row] = *word;
            }
        }
        columns
    }
}

/// The registers of four words of each lane, which `of_lane` gives.
#[inline(always)]
pub(super) fn split(of_lane: impl Fn(usize) -> [u32; 4]) -> [[u32; 32]; 4] {
    let mut registers = [[0; 32]; 4];
    for lane in (0..32).step_by(4) {
        let rows = [
            of_lane(lane),
            of_lane(lane + 1),
            of_lane(lane + 2),
            of_lane(lane + 3),
        ];
        let columns = transpose(rows);
        for (register, column) in registers.iter_mut().zip(columns) {
            register[lane..lane + 4].copy_from_slice(&column);
        }
    }
    registers
}

/// Gives four words of each lane to `to_lane`.
#[inline(always)]
pub(super) fn join(registers: [&[u32; 32]; 4], mut to_lane: impl FnMut(usize, [u32; 4])) {
    for lane in (0..32).step_by(4) {
        let mut rows = [[0; 4]; 4];
        for (row, register) in rows.iter_mut().zip(registers) {
            row.copy_from_slice(&register[lane..lane + 4]);
        }
        for (i, words) in transpose(rows).into_iter().enumerate() {
            to_lane(lane + i, words);
        }
    }
}

/// Loads one, two or four words of each lane.
///
/// # Safety
/// The words of every lane, from its offset on, are within `shared`.
#[inline(always)]
pub(super) unsafe fn gather_shared(
    registers: &mut Registers,
    shared: &[u8],
    words: u8,
    r: &[u32],
    offsets: &[u32; 32],
    mask: u32,
) {
    /// # Safety
    /// As of [`gather_shared`].
    #[inline(always)]
    unsafe fn at<T: bytemuck::Pod>(shared: &[u8], offset: u32) -> T {
        debug_assert!(offset as usize + size_of::<T>() <= shared.len());
        // SAFETY: the caller promises that so many bytes are there, and any of them are a `Pod`.
        unsafe {
            shared
                .as_ptr()
                .add(offset as usize)
                .cast::<T>()
                .read_unaligned()
        }
    }
    match words {
        1 => {
            // SAFETY: the caller's promise.
            let values = each(|lane| unsafe { at::<u32>(shared, offsets[lane]) });
            registers.write32(r[0], &values, mask);
        }
        2 => {
            // SAFETY: the caller's promise.
            let pairs: [u64; 32] = each(|lane| unsafe { at(shared, offsets[lane]) });
            registers.write32(r[0], &each(|lane| pairs[lane] as u32), mask);
            registers.write32(r[1], &each(|lane| (pairs[lane] >> 32) as u32), mask);
        }
        _ => {
            // SAFETY: the caller's promise.
            let values = split(|lane| unsafe { at(shared, offsets[lane]) });
            for (element, values) in values.iter().enumerate() {
                registers.write32(r[element], values, mask);
            }
        }
    }
}

/// As [`gather_shared`], the other way; `r` begins with what is stored.
///
/// # Safety
/// As of [`gather_shared`].
#[inline(always)]
pub(super) unsafe fn scatter_shared(
    registers: &Registers,
    shared: &mut [u8],
    words: u8,
    r: &[u32],
    offsets: &[u32; 32],
) {
    let length = shared.len();
    let memory = shared.as_mut_ptr();
    let place = |lane: usize| {
        let offset = offsets[lane] as usize;
        debug_assert!(offset + 4 * usize::from(words) <= length);
        // SAFETY: the caller promises that the lane's words are there.
        unsafe { memory.add(offset) }
    };
    match words {
        1 => {
            let values = registers.r32(r[0]);
            for lane in 0..32 {
                // SAFETY: as above.
                unsafe { place(lane).cast::<u32>().write_unaligned(values[lane]) };
            }
        }
        2 => {
            let (low, high) = (registers.r32(r[0]), registers.r32(r[1]));
            for lane in 0..32 {
                let pair = u64::from(low[lane]) | u64::from(high[lane]) << 32;
                // SAFETY: as above.
                unsafe { place(lane).cast::<u64>().write_unaligned(pair) };
            }
        }
        _ => {
            let values = [0, 1, 2, 3].map(|element| registers.r32(r[element]));
            join(values, |lane, words| {
                // SAFETY: as above.
                unsafe { place(lane).cast::<[u32; 4]>().write_unaligned(words) };
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_lanes_and_registers_are_the_same_both_ways() {
        let word = |lane: usize, element: usize| (100 * lane + element) as u32;
        let registers = split(|lane| [0, 1, 2, 3].map(|element| word(lane, element)));
        for (element, register) in registers.iter().enumerate() {
            for (lane, found) in register.iter().enumerate() {
                assert_eq!(*found, word(lane, element));
            }
        }
        let mut seen = 0u32;
        join(registers.each_ref(), |lane, words| {
            seen |= 1 << lane;
            assert_eq!(words, [0, 1, 2, 3].map(|element| word(lane, element)));
        });
        assert_eq!(seen, u32::MAX);
    }
}
