//! Device memory: a table of allocations. Addresses of freed memory are not given out again, so that a use after free is
//! always recognised.
//!
//! Blocks on several cores read and write one buffer. Every access is a relaxed atomic of its own size: on the hosts this runs
//! on that is a plain load or store, and a race in the emulated program stays a race there instead of becoming one here.

mod defined;

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::cells::{Cell, Cells, Vectors};
use super::window;
use crate::error::{Error, ErrorKind};
use crate::exec::vectorise::{each, has_avx2};

/// CUDA aligns what it allocates to this.
const ALIGNMENT: u64 = 256;

/// One live allocation.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) base: u64,
    pub(crate) bytes: u64,
    words: Words,
    /// One bit per byte that was written; empty where everything counts as written.
    defined: Box<[AtomicU64]>,
    pub(crate) read_only: bool,
    /// The device it counts for.
    pool: usize,
}

/// Where the bytes of an allocation are.
#[derive(Debug)]
enum Words {
    Own(Box<[AtomicU64]>),
    /// Host memory that the device may use: its address is the device address.
    Host {
        address: usize,
        words: usize,
    },
}

impl Words {
    #[inline(always)]
    fn pointer(&self) -> *const u8 {
        match self {
            Self::Own(words) => words.as_ptr().cast(),
            Self::Host { address, .. } => std::ptr::with_exposed_provenance(*address),
        }
    }

    #[inline(always)]
    fn bytes(&self) -> u64 {
        match self {
            Self::Own(words) => words.len() as u64 * 8,
            Self::Host { words, .. } => *words as u64 * 8,
        }
    }
}

/// The memory of one device.
#[derive(Debug, Clone, Copy)]
struct Pool {
    used: u64,
    capacity: u64,
}

/// All allocations of all devices, by address.
#[derive(Debug)]
pub(crate) struct GlobalMemory {
    allocations: Vec<Allocation>,
    freed: Vec<(u64, u64)>,
    next: u64,
    pools: Vec<Pool>,
}

fn zeroed(words: u64) -> Option<Box<[AtomicU64]>> {
    let words = usize::try_from(words).ok()?;
    // Asked for first, so that too much is an error; `vec!` of zeros then gets pages that cost nothing until they are touched.
    Vec::<u64>::new().try_reserve_exact(words).ok()?;
    let zeros: Box<[u64]> = vec![0u64; words].into_boxed_slice();
    // SAFETY: AtomicU64 has the size and bit validity of u64, and the alignment of u64 on 64-bit hosts; the box is owned.
    Some(unsafe { Box::from_raw(Box::into_raw(zeros) as *mut [AtomicU64]) })
}

impl GlobalMemory {
    pub(crate) fn new() -> Self {
        Self {
            allocations: Vec::new(),
            freed: Vec::new(),
            next: window::GLOBAL,
            pools: Vec::new(),
        }
    }

    /// Another device's memory; its number.
    pub(crate) fn add_pool(&mut self, capacity: u64) -> usize {
        self.pools.push(Pool { used: 0, capacity });
        self.pools.len() - 1
    }

    /// Bytes free, and bytes in all.
    pub(crate) fn room(&self, pool: usize) -> (u64, u64) {
        let Pool { used, capacity } = self.pools[pool];
        (capacity - used, capacity)
    }

    pub(crate) fn allocations(&self) -> &[Allocation] {
        &self.allocations
    }

    pub(crate) fn allocate(&mut self, pool: usize, bytes: u64, align: u64) -> Result<u64, Error> {
        if bytes == 0 {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                "an allocation of 0 bytes",
            ));
        }
        let taken = bytes
            .checked_next_multiple_of(ALIGNMENT)
            .unwrap_or(u64::MAX);
        let (free, _) = self.room(pool);
        let out_of_memory = || {
            Error::new(
                ErrorKind::OutOfMemory,
                format!("out of memory: {bytes} bytes asked for, {free} bytes free"),
            )
        };
        if taken > free {
            return Err(out_of_memory());
        }
        let base = self.next.next_multiple_of(align.max(ALIGNMENT));
        let words = zeroed(taken / 8).ok_or_else(out_of_memory)?;
        let defined = zeroed(taken / 64).ok_or_else(out_of_memory)?;
        // A gap of the same alignment catches an access just past the end.
        self.next = base + taken + ALIGNMENT;
        if self.next > window::GLOBAL_END {
            return Err(Error::new(
                ErrorKind::OutOfMemory,
                "the device's address space is used up",
            ));
        }
        self.pools[pool].used += taken;
        // Host memory may lie above: the table is in order of addresses.
        let index = self.allocations.partition_point(|a| a.base < base);
        self.allocations.insert(
            index,
            Allocation {
                base,
                bytes,
                words: Words::Own(words),
                defined,
                read_only: false,
                pool,
            },
        );
        Ok(base)
    }

    /// Lets kernels use host memory at its own address, which must be a multiple of 8.
    ///
    /// # Safety
    /// The memory must stay valid until it is freed here, and be accessed by others only as atomics or while no kernel runs.
    pub(crate) unsafe fn add_host(
        &mut self,
        pool: usize,
        address: usize,
        bytes: u64,
    ) -> Result<(), Error> {
        let base = address as u64;
        let clash = self
            .allocations
            .iter()
            .any(|a| a.base < base + bytes && base < a.base + a.bytes);
        let is_devices = base < window::GLOBAL_END && window::GLOBAL < base + bytes;
        if bytes == 0 || !base.is_multiple_of(8) || clash || is_devices {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                format!("host memory at 0x{base:x} cannot be registered"),
            ));
        }
        self.freed
            .retain(|(start, size)| start + size <= base || *start >= base + bytes);
        let words = Words::Host {
            address,
            words: bytes.div_ceil(8) as usize,
        };
        let index = self.allocations.partition_point(|a| a.base < base);
        let defined = Box::default();
        self.allocations.insert(
            index,
            Allocation {
                base,
                bytes,
                words,
                defined,
                read_only: false,
                pool,
            },
        );
        Ok(())
    }

    pub(crate) fn set_read_only(&mut self, base: u64) {
        if let Some(allocation) = self
            .allocations
            .iter_mut()
            .find(|allocation| allocation.base == base)
        {
            allocation.read_only = true;
        }
    }

    pub(crate) fn free(&mut self, base: u64) -> Result<(), Error> {
        match self
            .allocations
            .binary_search_by_key(&base, |allocation| allocation.base)
        {
            Ok(index) => {
                let allocation = self.allocations.remove(index);
                if let Words::Own(_) = allocation.words {
                    self.pools[allocation.pool].used -=
                        allocation.bytes.next_multiple_of(ALIGNMENT);
                }
                self.freed.push((base, allocation.bytes));
                Ok(())
            }
            Err(_) => Err(Error::new(
                ErrorKind::NotFound,
                format!("0x{base:x} is not the start of an allocation"),
            )),
        }
    }

    /// The allocation that was freed and held this address.
    pub(crate) fn was_freed(&self, address: u64) -> Option<(u64, u64)> {
        let after = self
            .freed
            .iter()
            .find(|(base, bytes)| (*base..base + bytes).contains(&address));
        after.copied()
    }

    /// The allocation that holds an address; `hint` is where the last one was found.
    #[inline(always)]
    pub(crate) fn find(&self, address: u64, hint: &mut usize) -> Option<&Allocation> {
        if let Some(allocation) = self.allocations.get(*hint)
            && address.wrapping_sub(allocation.base) < allocation.bytes
        {
            return Some(allocation);
        }
        let index = self
            .allocations
            .partition_point(|allocation| allocation.base <= address)
            .checked_sub(1)?;
        let allocation = &self.allocations[index];
        if address - allocation.base >= allocation.bytes {
            return None;
        }
        *hint = index;
        Some(allocation)
    }

    /// The allocation nearest below an address, for a message.
    pub(crate) fn nearest(&self, address: u64) -> Option<&Allocation> {
        let index = self
            .allocations
            .partition_point(|allocation| allocation.base <= address);
        self.allocations.get(index.saturating_sub(1))
    }

    fn range(&self, address: u64, bytes: u64) -> Result<(&Allocation, u64), Error> {
        let allocation = self
            .find(address, &mut 0)
            .filter(|a| bytes <= a.bytes - (address - a.base));
        match allocation {
            Some(allocation) => Ok((allocation, address - allocation.base)),
            None => Err(Error::new(
                ErrorKind::InvalidValue,
                format!("{bytes} bytes at 0x{address:x} are not within one allocation"),
            )),
        }
    }

    pub(crate) fn write(&self, address: u64, data: &[u8]) -> Result<(), Error> {
        if data.is_empty() {
            return Ok(());
        }
        let (allocation, offset) = self.range(address, data.len() as u64)?;
        allocation.write(offset, data);
        Ok(())
    }

    /// Marks bytes as written.
    pub(crate) fn define(&self, address: u64, bytes: u64) -> Result<(), Error> {
        if bytes > 0 {
            let (allocation, offset) = self.range(address, bytes)?;
            allocation.define(offset, bytes);
        }
        Ok(())
    }

    pub(crate) fn read(&self, address: u64, data: &mut [u8]) -> Result<(), Error> {
        if data.is_empty() {
            return Ok(());
        }
        let (allocation, offset) = self.range(address, data.len() as u64)?;
        allocation.read(offset, data);
        Ok(())
    }

    /// Copies within the device.
    pub(crate) fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), Error> {
        self.range(to, bytes.max(1))?;
        let (source, offset) = self.range(from, bytes.max(1))?;
        let mut data = vec![0; bytes as usize];
        source.read(offset, &mut data);
        // One bit per byte, and none where all were written.
        let mut defined = Vec::new();
        if !source.is_defined_range(offset, bytes) {
            defined = vec![0u8; (bytes as usize).div_ceil(8)];
            for byte in (0..bytes).filter(|byte| source.is_defined(offset + byte, 1)) {
                defined[byte as usize / 8] |= 1 << (byte % 8);
            }
        }
        self.write(to, &data)?;
        if let Ok((target, offset)) = self.range(to, bytes.max(1)) {
            let is_undefined = |byte: &u64| defined[*byte as usize / 8] >> (byte % 8) & 1 == 0;
            if !defined.is_empty() {
                for byte in (0..bytes).filter(is_undefined) {
                    target.undefine(offset + byte);
                }
            }
        }
        Ok(())
    }

    /// Fills with a repeated pattern of 1, 2 or 4 bytes.
    pub(crate) fn fill(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), Error> {
        let bytes = count.saturating_mul(pattern.len() as u64);
        if bytes == 0 {
            return Ok(());
        }
        let (allocation, offset) = self.range(address, bytes)?;
        let chunk: Vec<u8> = pattern
            .iter()
            .copied()
            .cycle()
            .take(bytes.min(4096) as usize)
            .collect();
        let mut done = 0;
        while done < bytes {
            let part = (bytes - done).min(chunk.len() as u64);
            allocation.write(offset + done, &chunk[..part as usize]);
            done += part;
        }
        Ok(())
    }
}

macro_rules! atomics {
    ($load:ident, $store:ident, $update:ident, $atomic:ty, $value:ty) => {
        #[inline(always)]
        fn $load(&self, offset: u64) -> $value {
            self.at::<$atomic>(offset).load(Relaxed)
        }

        #[inline(always)]
        fn $store(&self, offset: u64, value: $value) {
            self.at::<$atomic>(offset).store(value, Relaxed);
        }

        fn $update(&self, offset: u64, mut f: impl FnMut(u64) -> u64) -> u64 {
            let cell = self.at::<$atomic>(offset);
            let mut old = cell.load(Relaxed);
            loop {
                match cell.compare_exchange_weak(old, f(u64::from(old)) as $value, Relaxed, Relaxed)
                {
                    Ok(_) => return u64::from(old),
                    Err(now) => old = now,
                }
            }
        }
    };
}

impl Allocation {
    /// A cell at a byte offset that is a multiple of its size and within the allocation.
    #[inline(always)]
    fn at<T: Cell>(&self, offset: u64) -> &T {
        let size = size_of::<T>() as u64;
        assert!(offset.is_multiple_of(size) && offset + size <= self.words.bytes());
        // SAFETY: that is what the assertion says.
        unsafe { self.cells().at(offset) }
    }

    atomics!(load8, store8, update8, AtomicU8, u8);
    atomics!(load16, store16, update16, AtomicU16, u16);
    atomics!(load32, store32, update32, AtomicU32, u32);
    atomics!(load64, store64, update64, AtomicU64, u64);

    /// Reads 1, 2, 4 or 8 bytes at an aligned offset.
    #[inline(always)]
    pub(crate) fn load(&self, offset: u64, bytes: u8) -> u64 {
        match bytes {
            1 => u64::from(self.load8(offset)),
            2 => u64::from(self.load16(offset)),
            4 => u64::from(self.load32(offset)),
            _ => self.load64(offset),
        }
    }

    /// Writes 1, 2, 4 or 8 bytes at an aligned offset.
    #[inline(always)]
    pub(crate) fn store(&self, offset: u64, bytes: u8, value: u64) {
        match bytes {
            1 => self.store8(offset, value as u8),
            2 => self.store16(offset, value as u16),
            4 => self.store32(offset, value as u32),
            _ => self.store64(offset, value),
        }
    }

    /// Replaces a value by a function of it, as one step, and returns the old one.
    pub(crate) fn update(&self, offset: u64, bytes: u8, f: impl FnMut(u64) -> u64) -> u64 {
        match bytes {
            1 => self.update8(offset, f),
            2 => self.update16(offset, f),
            4 => self.update32(offset, f),
            _ => self.update64(offset, f),
        }
    }

    pub(crate) fn write(&self, offset: u64, data: &[u8]) {
        let (head, words, tail) = self.in_words(offset, data.len());
        let cells = self.cells();
        for (i, &byte) in data[..head].iter().enumerate() {
            self.store8(offset + i as u64, byte);
        }
        for (i, word) in data[head..tail].as_chunks().0.iter().enumerate() {
            // SAFETY: `in_words` found all of them within the allocation.
            let cell = unsafe { cells.at::<AtomicU64>(words + 8 * i as u64) };
            cell.store(u64::from_le_bytes(*word), Relaxed);
        }
        for (i, &byte) in data[tail..].iter().enumerate() {
            self.store8(offset + (tail + i) as u64, byte);
        }
        self.define(offset, data.len() as u64);
    }

    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        let (head, words, tail) = self.in_words(offset, data.len());
        let cells = self.cells();
        for (i, byte) in data[..head].iter_mut().enumerate() {
            *byte = self.load8(offset + i as u64);
        }
        for (i, word) in data[head..tail].as_chunks_mut().0.iter_mut().enumerate() {
            // SAFETY: `in_words` found all of them within the allocation.
            let cell = unsafe { cells.at::<AtomicU64>(words + 8 * i as u64) };
            *word = cell.load(Relaxed).to_le_bytes();
        }
        for (i, byte) in data[tail..].iter_mut().enumerate() {
            *byte = self.load8(offset + (tail + i) as u64);
        }
    }

    /// Where in a range of bytes whole words of 8 bytes begin, at which offset, and where they end.
    ///
    /// # Panics
    /// The range leaves the allocation.
    #[inline(always)]
    fn in_words(&self, offset: u64, length: usize) -> (usize, u64, usize) {
        assert!(offset + length as u64 <= self.words.bytes());
        let words = offset.next_multiple_of(8);
        let head = ((words - offset) as usize).min(length);
        (head, words, head + (length - head) / 8 * 8)
    }

    /// All cells, to be looked up by byte offset, unchecked. Taken once for all lanes: the compiler cannot know that the words
    /// stay where they are.
    #[inline(always)]
    pub(crate) fn cells(&self) -> Cells<'_> {
        // SAFETY: words are at multiples of 8, and every access to them is atomic.
        unsafe { Cells::new(self.words.pointer(), self.words.bytes()) }
    }

    /// As [`Self::cells`], as vectors where the processor has them.
    #[inline(always)]
    pub(crate) fn vectors(&self) -> Option<Vectors<'_>> {
        // SAFETY: the processor was asked.
        has_avx2().then(|| unsafe { Vectors::new(self.cells()) })
    }

    /// Has the processor bring bytes into its cache that are likely to be accessed soon, whether they are in the allocation or not.
    #[inline(always)]
    pub(crate) fn prefetch(&self, offset: u64, bytes: u64) {
        #[cfg(target_arch = "x86_64")]
        for line in 0..bytes.div_ceil(64) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let at = offset.wrapping_add(64 * line) as usize;
            // SAFETY: every x86-64 processor has the instruction, which does nothing that the program sees, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.words.pointer().wrapping_add(at).cast()) };
        }
    }

    /// Loads words of 8 bytes that lie side by side, from an offset that is a multiple of 8.
    #[inline(always)]
    pub(crate) fn load_range<const N: usize>(&self, offset: u64) -> [u64; N] {
        assert!(offset.is_multiple_of(8) && offset + 8 * N as u64 <= self.words.bytes());
        let cells = self.cells();
        // SAFETY: the assertion holds for the first and the last word, and so for those between.
        each(|i| unsafe { cells.at::<AtomicU64>(offset + 8 * i as u64).load(Relaxed) })
    }
}

#[cfg(test)]
mod tests;
