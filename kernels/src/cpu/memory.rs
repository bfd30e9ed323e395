use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use bytemuck::{Pod, Zeroable};

use crate::Error;

/// Cache lines of every machine we know are at most this long, and AVX-512 loads are this wide.
const ALIGNMENT: usize = 64;

/// A zeroed array of fixed length, aligned to 64 bytes.
///
/// Its memory comes zeroed from the allocator, so that the kernel commits a page of a large array only when it is first
/// written: a KV pool may be larger than what a run ever fills.
pub struct CpuBuffer<T: Pod = f32> {
    /// What the allocator gave: `start` lies up to 63 bytes behind it.
    ///
    /// The allocation itself is aligned for `T` alone. Asked for more, Rust's system allocator takes memory from
    /// `aligned_alloc` and writes the zeroes itself, which commits every page: 21 GB for a KV pool of a 135M model.
    allocation: NonNull<u8>,
    start: NonNull<T>,
    len: usize,
}

// SAFETY: the buffer owns its memory, as a `Vec` does, and `T: Pod` implies `Send + Sync`-safe plain data.
unsafe impl<T: Pod + Send> Send for CpuBuffer<T> {}
// SAFETY: shared access only reads.
unsafe impl<T: Pod + Sync> Sync for CpuBuffer<T> {}

impl<T: Pod> CpuBuffer<T> {
    /// `len` zeroes; `what` names the array in the error.
    ///
    /// # Errors
    /// When the machine does not grant the memory.
    pub(crate) fn zeroed(what: &str, len: usize) -> Result<CpuBuffer<T>, Error> {
        let bytes = len as u128 * size_of::<T>() as u128;
        let refused = || Error::out_of_memory(what, bytes);
        if bytes == 0 {
            return Ok(CpuBuffer {
                allocation: NonNull::dangling(),
                start: NonNull::dangling(),
                len,
            });
        }
        let layout = usize::try_from(bytes)
            .ok()
            .and_then(Self::layout)
            .ok_or_else(refused)?;
        // SAFETY: the size is not zero.
        let allocation = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(refused)?;
        let padding = allocation.align_offset(ALIGNMENT);
        // SAFETY: `padding` is less than the alignment (a byte pointer can always be aligned), which the allocation is
        // longer than the array by.
        let start = unsafe { allocation.add(padding) }.cast::<T>();
        Ok(CpuBuffer {
            allocation,
            start,
            len,
        })
    }

    /// What to ask the allocator for, to place `size` aligned bytes in it.
    fn layout(size: usize) -> Option<Layout> {
        Layout::from_size_align(size.checked_add(ALIGNMENT - 1)?, align_of::<T>()).ok()
    }
}

impl<T: Pod> Drop for CpuBuffer<T> {
    fn drop(&mut self) {
        let size = self.len * size_of::<T>();
        if size != 0
            && let Some(layout) = Self::layout(size)
        {
            // SAFETY: `zeroed` allocated with this very layout.
            unsafe { dealloc(self.allocation.as_ptr(), layout) };
        }
    }
}

impl<T: Pod> Deref for CpuBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `start` points to `len` initialised elements, all zero at first, which is a value of `T: Zeroable`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Pod> DerefMut for CpuBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `&mut self` makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Pod> fmt::Debug for CpuBuffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuBuffer").field("len", &self.len).finish()
    }
}

const _: () = {
    const fn zeroable<T: Zeroable>() {}
    zeroable::<f32>();
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_zeroed_and_aligned() {
        for len in [0, 1, 63, 100_000] {
            let buffer = CpuBuffer::<f32>::zeroed("a test", len).unwrap();
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|&x| x == 0.0));
            assert!(len == 0 || (buffer.as_ptr() as usize).is_multiple_of(ALIGNMENT));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_large_buffer_takes_memory_only_where_it_is_written() {
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        let before = resident();
        let mut buffer = CpuBuffer::<f32>::zeroed("a test", 1 << 28).unwrap();
        buffer[1 << 27] = 1.0;
        assert!(resident() < before + (64 << 20), "a gigabyte was committed");
    }

    #[test]
    fn memory_that_no_machine_has_is_an_error() {
        for len in [usize::MAX, usize::MAX / 8, 1 << 60] {
            let error = CpuBuffer::<f32>::zeroed("the buffer", len).unwrap_err();
            assert!(error.is_out_of_memory(), "{error}");
            assert!(
                error.to_string().starts_with("the buffer needs "),
                "{error}"
            );
        }
    }
}
