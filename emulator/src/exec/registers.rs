//! A warp's registers: rows of 32 lanes, two rows for 64-bit registers, one mask per predicate.

use std::marker::PhantomData;

use bytemuck::{Pod, Zeroable};

use crate::memory::cells::Quad;
use crate::program::Code;

/// 32 lanes of 32 bits; 64-bit registers are two neighbouring rows read as 32 lanes of 64 bits. No vector of a row crosses a
/// cache line.
#[derive(Debug, Clone, Copy, Hash, Pod, Zeroable)]
#[repr(C, align(64))]
struct Row([u64; 16]);

#[derive(Debug, Hash)]
pub(crate) struct Registers {
    rows: Vec<Row>,
    pub(crate) predicates: Vec<u32>,
    /// Lanes that wrote each row, for rows that a path may read unwritten.
    pub(crate) written: Vec<u32>,
    pub(crate) predicates_written: Vec<u32>,
}

impl Registers {
    pub(crate) fn new(code: &Code) -> Self {
        let mut registers = Self {
            rows: vec![Row::zeroed(); code.rows as usize],
            predicates: vec![0; code.predicates as usize],
            written: vec![0; code.rows as usize],
            predicates_written: vec![0; code.predicates as usize],
        };
        for &(row, value, wide) in &code.constants {
            if wide {
                registers.write64(row, &[value; 32], u32::MAX);
            } else {
                registers.write32(row, &[value as u32; 32], u32::MAX);
            }
        }
        for &(row, value) in &code.constant_predicates {
            registers.predicates[row as usize] = if value { u32::MAX } else { 0 };
        }
        registers
    }

    /// The first lane of the first row; the next row begins 32 lanes of 32 bits behind it.
    #[inline(always)]
    pub(super) fn pointer(&mut self) -> *mut u32 {
        self.rows.as_mut_ptr().cast()
    }

    /// All rows, as 32 lanes of 32 bits.
    pub(crate) fn all_mut(&mut self) -> &mut [[u32; 32]] {
        bytemuck::cast_slice_mut(&mut self.rows)
    }

    #[inline(always)]
    pub(crate) fn r32(&self, row: u32) -> &[u32; 32] {
        bytemuck::cast_ref(&self.rows[row as usize])
    }

    #[inline(always)]
    pub(crate) fn r32_mut(&mut self, row: u32) -> &mut [u32; 32] {
        bytemuck::cast_mut(&mut self.rows[row as usize])
    }

    #[inline(always)]
    pub(crate) fn r64(&self, row: u32) -> &[u64; 32] {
        let row = row as usize;
        let pair: &[Row; 2] = self.rows[row..row + 2]
            .first_chunk()
            .unwrap_or(&[Row([0; 16]); 2]);
        bytemuck::cast_ref(pair)
    }

    #[inline(always)]
    pub(crate) fn r64_mut(&mut self, row: u32) -> &mut [u64; 32] {
        let row = row as usize;
        bytemuck::cast_slice_mut::<Row, [u64; 32]>(&mut self.rows[row..row + 2])
            .first_mut()
            .expect("two rows are 32 lanes")
    }

    /// Several registers to be written part by part, of 64 bits each where they are wide.
    ///
    /// # Panics
    /// There is no such register.
    #[inline(always)]
    pub(super) fn places<const N: usize>(&mut self, rows: [u32; N], wide: bool) -> Places<'_, N> {
        let end = self.rows.len().saturating_sub(usize::from(wide));
        let start = self.rows.as_mut_ptr();
        let mut starts = [std::ptr::null_mut(); N];
        for (place, row) in starts.iter_mut().zip(rows) {
            assert!((row as usize) < end);
            // SAFETY: the assertion keeps it within the rows.
            *place = unsafe { start.add(row as usize).cast() };
        }
        Places {
            starts,
            quads: if wide { 16 } else { 8 },
            registers: PhantomData,
        }
    }

    /// Writes the lanes of a mask.
    #[inline(always)]
    pub(crate) fn write32(&mut self, row: u32, values: &[u32; 32], mask: u32) {
        let target = self.r32_mut(row);
        if mask == u32::MAX {
            *target = *values;
        } else {
            for lane in 0..32 {
                let keep = 0u32.wrapping_sub((mask >> lane) & 1);
                target[lane] = (values[lane] & keep) | (target[lane] & !keep);
            }
        }
    }

    #[inline(always)]
    pub(crate) fn write64(&mut self, row: u32, values: &[u64; 32], mask: u32) {
        let target = self.r64_mut(row);
        if mask == u32::MAX {
            *target = *values;
        } else {
            for lane in 0..32 {
                let keep = 0u64.wrapping_sub(u64::from(mask >> lane) & 1);
                target[lane] = (values[lane] & keep) | (target[lane] & !keep);
            }
        }
    }

    #[inline(always)]
    pub(crate) fn write_predicate(&mut self, row: u32, value: u32, mask: u32) {
        let target = &mut self.predicates[row as usize];
        *target = (value & mask) | (*target & !mask);
    }

    /// One lane of a register of 32 or 64 bits.
    #[inline(always)]
    pub(crate) fn lane(&self, row: u32, lane: usize, wide: bool) -> u64 {
        if wide {
            self.r64(row)[lane]
        } else {
            u64::from(self.r32(row)[lane])
        }
    }
}

/// Registers that are written part by part.
#[derive(Debug)]
pub(super) struct Places<'a, const N: usize> {
    /// They may be the same.
    starts: [*mut Quad; N],
    /// Of each register.
    quads: usize,
    registers: PhantomData<&'a mut Registers>,
}

impl<const N: usize> Places<'_, N> {
    /// Writes 16 bytes of a register, four lanes or two, as far as they are in a mask of all lanes.
    #[inline(always)]
    pub(super) fn set(&mut self, register: usize, quad: usize, words: Quad, mask: u32) {
        assert!(quad < self.quads);
        // SAFETY: the register was found to have so many when this was made, and is borrowed as long as this lives.
        let place = unsafe { &mut *self.starts[register].add(quad) };
        if mask == u32::MAX {
            *place = words;
            return;
        }
        // Of 32 lanes.
        let (first, words_per_lane) = (quad * 32 / self.quads, self.quads / 8);
        for (i, word) in words.into_iter().enumerate() {
            if mask >> (first + i / words_per_lane) & 1 == 1 {
                place[i] = word;
            }
        }
    }
}
