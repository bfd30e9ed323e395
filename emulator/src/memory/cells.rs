//! Memory as the lanes of a warp access it: words of 4 bytes, pairs and quads of them, and lines of four quads.
//!
//! Blocks on several cores read and write one allocation, so that every access to it is a relaxed atomic: of its own size, of 4
//! or of 8 bytes. Where the processor has AVX2, a quad is one vector instead. The compiler has no atomic vectors, so that these
//! are written in assembly, of which it assumes no more than of the atomics in their place; the processor moves each word of a
//! vector whole.

#[cfg(target_arch = "x86_64")]
use std::arch::{asm, x86_64::__m128i};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Four words side by side.
pub(crate) type Quad = [u32; 4];
/// As many as a cache line has.
pub(crate) type Line = [Quad; 4];

/// Memory that lanes load from.
pub(crate) trait Words: Copy {
    /// Loads a word.
    ///
    /// # Safety
    /// The word is within the memory, and `offset` a multiple of 4.
    unsafe fn word(self, offset: u64) -> u32;

    /// Loads a pair of words, the first in the low half.
    ///
    /// # Safety
    /// The pair is within the memory, and `offset` a multiple of 8.
    unsafe fn pair(self, offset: u64) -> u64;

    /// Loads a quad.
    ///
    /// # Safety
    /// The quad is within the memory, and `offset` a multiple of 8.
    unsafe fn quad(self, offset: u64) -> Quad;

    /// Loads a line.
    ///
    /// # Safety
    /// The line is within the memory, and `offset` a multiple of 4.
    unsafe fn line(self, offset: u64) -> Line;
}

/// Memory that lanes store to.
pub(crate) trait SetWords: Copy {
    /// Stores a word.
    ///
    /// # Safety
    /// As of [`Words::word`].
    unsafe fn set_word(self, offset: u64, word: u32);

    /// Stores a pair of words, the first in the low half.
    ///
    /// # Safety
    /// As of [`Words::pair`].
    unsafe fn set_pair(self, offset: u64, pair: u64);

    /// Stores a quad.
    ///
    /// # Safety
    /// As of [`Words::quad`].
    unsafe fn set_quad(self, offset: u64, quad: Quad);

    /// Stores a line.
    ///
    /// # Safety
    /// As of [`Words::line`].
    unsafe fn set_line(self, offset: u64, line: Line);
}

/// An atomic integer of which a buffer may be viewed as many.
pub(super) trait Cell {}
impl Cell for AtomicU8 {}
impl Cell for AtomicU16 {}
impl Cell for AtomicU32 {}
impl Cell for AtomicU64 {}

/// The cells of an allocation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cells<'a> {
    start: *const u8,
    bytes: u64,
    _allocation: PhantomData<&'a [AtomicU64]>,
}

impl<'a> Cells<'a> {
    /// # Safety
    /// `start` is a multiple of 8, and so many bytes from there on are accessed as atomics alone as long as this lives.
    #[inline(always)]
    pub(super) unsafe fn new(start: *const u8, bytes: u64) -> Self {
        Self {
            start,
            bytes,
            _allocation: PhantomData,
        }
    }

    /// A cell at a byte offset.
    ///
    /// # Safety
    /// The offset is a multiple of the cell's size, and the cell within the allocation.
    #[inline(always)]
    pub(super) unsafe fn at<T: Cell>(self, offset: u64) -> &'a T {
        let size = size_of::<T>() as u64;
        debug_assert!(offset.is_multiple_of(size) && offset + size <= self.bytes);
        // SAFETY: the caller keeps the cell within the buffer and aligned; every access to the buffer is atomic, and all bit
        // patterns are valid for the four types that implement Cell.
        unsafe { &*self.start.add(offset as usize).cast::<T>() }
    }
}

impl Words for Cells<'_> {
    #[inline(always)]
    unsafe fn word(self, offset: u64) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { self.at::<AtomicU32>(offset) }.load(Relaxed)
    }

    #[inline(always)]
    unsafe fn pair(self, offset: u64) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { self.at::<AtomicU64>(offset) }.load(Relaxed)
    }

    #[inline(always)]
    unsafe fn quad(self, offset: u64) -> Quad {
        // SAFETY: the caller's promise.
        bytemuck::cast(unsafe { [self.pair(offset), self.pair(offset + 8)] })
    }

    #[inline(always)]
    unsafe fn line(self, offset: u64) -> Line {
        let mut line = [[0; 4]; 4];
        for (at, quad) in (offset..).step_by(16).zip(&mut line) {
            // SAFETY: the caller's promise, and what is asked for here.
            unsafe {
                if offset.is_multiple_of(8) {
                    *quad = self.quad(at);
                } else {
                    for (at, word) in (at..).step_by(4).zip(quad) {
                        *word = self.word(at);
                    }
                }
            }
        }
        line
    }
}

impl SetWords for Cells<'_> {
    #[inline(always)]
    unsafe fn set_word(self, offset: u64, word: u32) {
        // SAFETY: the caller's promise.
        unsafe { self.at::<AtomicU32>(offset) }.store(word, Relaxed);
    }

    #[inline(always)]
    unsafe fn set_pair(self, offset: u64, pair: u64) {
        // SAFETY: the caller's promise.
        unsafe { self.at::<AtomicU64>(offset) }.store(pair, Relaxed);
    }

    #[inline(always)]
    unsafe fn set_quad(self, offset: u64, quad: Quad) {
        let [low, high] = bytemuck::cast(quad);
        // SAFETY: the caller's promise.
        unsafe {
            self.set_pair(offset, low);
            self.set_pair(offset + 8, high);
        }
    }

    #[inline(always)]
    unsafe fn set_line(self, offset: u64, line: Line) {
        for (at, quad) in (offset..).step_by(16).zip(line) {
            // SAFETY: the caller's promise, and what is asked for here.
            unsafe {
                if offset.is_multiple_of(8) {
                    self.set_quad(at, quad);
                } else {
                    for (at, word) in (at..).step_by(4).zip(quad) {
                        self.set_word(at, word);
                    }
                }
            }
        }
    }
}

/// [`Cells`] for processors with AVX2.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vectors<'a>(Cells<'a>);

impl<'a> Vectors<'a> {
    /// # Safety
    /// The processor has AVX2.
    #[inline(always)]
    pub(super) unsafe fn new(cells: Cells<'a>) -> Self {
        Self(cells)
    }

    /// Where so many bytes at an offset are.
    ///
    /// # Safety
    /// They are within the allocation.
    #[inline(always)]
    unsafe fn place(self, offset: u64, bytes: u64) -> *const u8 {
        debug_assert!(offset.is_multiple_of(4) && offset + bytes <= self.0.bytes);
        // SAFETY: the caller's promise.
        unsafe { self.0.start.add(offset as usize) }
    }
}

impl Words for Vectors<'_> {
    #[inline(always)]
    unsafe fn word(self, offset: u64) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.word(offset) }
    }

    #[inline(always)]
    unsafe fn pair(self, offset: u64) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { self.0.pair(offset) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn quad(self, offset: u64) -> Quad {
        let quad: __m128i;
        // SAFETY: the caller keeps the 16 bytes within the allocation, and that of `new` knows that the processor has the
        // instruction. It stands for two relaxed loads.
        unsafe {
            asm!(
                "vmovdqu {}, xmmword ptr [{}]",
                out(xmm_reg) quad,
                in(reg) self.place(offset, 16),
                options(nostack, preserves_flags, readonly)
            );
        }
        bytemuck::cast(quad)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn line(self, offset: u64) -> Line {
        let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
        // SAFETY: as in `quad`, of 64 bytes.
        unsafe {
            asm!(
                "vmovdqu {}, xmmword ptr [{at}]",
                "vmovdqu {}, xmmword ptr [{at} + 16]",
                "vmovdqu {}, xmmword ptr [{at} + 32]",
                "vmovdqu {}, xmmword ptr [{at} + 48]",
                out(xmm_reg) a,
                out(xmm_reg) b,
                out(xmm_reg) c,
                out(xmm_reg) d,
                at = in(reg) self.place(offset, 64),
                options(nostack, preserves_flags, readonly)
            );
        }
        bytemuck::cast([a, b, c, d])
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    unsafe fn quad(self, offset: u64) -> Quad {
        // SAFETY: the caller's promise.
        unsafe { self.0.quad(offset) }
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    unsafe fn line(self, offset: u64) -> Line {
        // SAFETY: the caller's promise.
        unsafe { self.0.line(offset) }
    }
}

impl SetWords for Vectors<'_> {
    #[inline(always)]
    unsafe fn set_word(self, offset: u64, word: u32) {
        // SAFETY: the caller's promise.
        unsafe { self.0.set_word(offset, word) };
    }

    #[inline(always)]
    unsafe fn set_pair(self, offset: u64, pair: u64) {
        // SAFETY: the caller's promise.
        unsafe { self.0.set_pair(offset, pair) };
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn set_quad(self, offset: u64, quad: Quad) {
        let quad: __m128i = bytemuck::cast(quad);
        // SAFETY: as in `quad`; it stands for two relaxed stores.
        unsafe {
            asm!(
                "vmovdqu xmmword ptr [{}], {}",
                in(reg) self.place(offset, 16),
                in(xmm_reg) quad,
                options(nostack, preserves_flags)
            );
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn set_line(self, offset: u64, line: Line) {
        let [a, b, c, d]: [__m128i; 4] = bytemuck::cast(line);
        // SAFETY: as in `set_quad`, of 64 bytes.
        unsafe {
            asm!(
                "vmovdqu xmmword ptr [{at}], {}",
                "vmovdqu xmmword ptr [{at} + 16], {}",
                "vmovdqu xmmword ptr [{at} + 32], {}",
                "vmovdqu xmmword ptr [{at} + 48], {}",
                in(xmm_reg) a,
                in(xmm_reg) b,
                in(xmm_reg) c,
                in(xmm_reg) d,
                at = in(reg) self.place(offset, 64),
                options(nostack, preserves_flags)
            );
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    unsafe fn set_quad(self, offset: u64, quad: Quad) {
        // SAFETY: the caller's promise.
        unsafe { self.0.set_quad(offset, quad) };
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    unsafe fn set_line(self, offset: u64, line: Line) {
        // SAFETY: the caller's promise.
        unsafe { self.0.set_line(offset, line) };
    }
}

/// Shared memory, which one core at a time accesses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain<'a>(&'a [u8]);

impl<'a> Plain<'a> {
    #[inline(always)]
    pub(crate) fn new(memory: &'a [u8]) -> Self {
        Self(memory)
    }

    /// # Safety
    /// So many bytes at the offset are within the memory.
    #[inline(always)]
    unsafe fn at<T: bytemuck::Pod>(self, offset: u64) -> T {
        debug_assert!(offset as usize + size_of::<T>() <= self.0.len());
        // SAFETY: the caller promises that so many bytes are there, and any of them are a `Pod`.
        unsafe {
            let place = self.0.as_ptr().add(offset as usize);
            place.cast::<T>().read_unaligned()
        }
    }
}

impl Words for Plain<'_> {
    #[inline(always)]
    unsafe fn word(self, offset: u64) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { self.at(offset) }
    }

    #[inline(always)]
    unsafe fn pair(self, offset: u64) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { self.at(offset) }
    }

    #[inline(always)]
    unsafe fn quad(self, offset: u64) -> Quad {
        // SAFETY: the caller's promise.
        unsafe { self.at(offset) }
    }

    #[inline(always)]
    unsafe fn line(self, offset: u64) -> Line {
        // SAFETY: the caller's promise.
        unsafe { self.at(offset) }
    }
}

/// As [`Plain`], to store to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlainMut<'a> {
    start: *mut u8,
    bytes: usize,
    _memory: PhantomData<&'a mut [u8]>,
}

impl<'a> PlainMut<'a> {
    #[inline(always)]
    pub(crate) fn new(memory: &'a mut [u8]) -> Self {
        Self {
            start: memory.as_mut_ptr(),
            bytes: memory.len(),
            _memory: PhantomData,
        }
    }

    /// # Safety
    /// So many bytes at the offset are within the memory.
    #[inline(always)]
    unsafe fn set<T: bytemuck::Pod>(self, offset: u64, value: T) {
        debug_assert!(offset as usize + size_of::<T>() <= self.bytes);
        // SAFETY: the caller promises that so many bytes are there; the memory is borrowed, and nobody else's.
        unsafe {
            let place = self.start.add(offset as usize);
            place.cast::<T>().write_unaligned(value);
        }
    }
}

impl SetWords for PlainMut<'_> {
    #[inline(always)]
    unsafe fn set_word(self, offset: u64, word: u32) {
        // SAFETY: the caller's promise.
        unsafe { self.set(offset, word) };
    }

    #[inline(always)]
    unsafe fn set_pair(self, offset: u64, pair: u64) {
        // SAFETY: the caller's promise.
        unsafe { self.set(offset, pair) };
    }

    #[inline(always)]
    unsafe fn set_quad(self, offset: u64, quad: Quad) {
        // SAFETY: the caller's promise.
        unsafe { self.set(offset, quad) };
    }

    #[inline(always)]
    unsafe fn set_line(self, offset: u64, line: Line) {
        // SAFETY: the caller's promise.
        unsafe { self.set(offset, line) };
    }
}
