//! The buffers that CUPTI fills: handed out and taken back by its callbacks.
//!
//! CUPTI calls back while it holds locks of its own, from its own threads and out of a flush that we asked for. A lock of ours
//! that both a callback and a caller of CUPTI take can therefore deadlock, and so there is none: full buffers go onto a list by
//! compare-and-swap and come off it all at once, and empty ones lie in slots that are swapped. Neither has an ABA problem. A request
//! is never turned down while there is memory: CUPTI before 12.9 crashes on that.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::mem::size_of;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use cudarc::driver::sys::CUcontext;

/// Bytes of a buffer: what NVIDIA's samples use, room for some thirty thousand kernels.
pub(super) const BUFFER_BYTES: usize = 8 << 20;

/// Empty buffers that are kept for the next request.
const KEPT: usize = 8;

/// What lies in front of a buffer's bytes.
#[repr(C, align(64))]
struct Block {
    next: *mut Block,
    /// Bytes that CUPTI filled.
    valid: usize,
    /// The queue the records are of.
    context: CUcontext,
    stream: u32,
}

const HEADER: usize = size_of::<Block>();
const LAYOUT: Layout = match Layout::from_size_align(HEADER + BUFFER_BYTES, 64) {
    Ok(layout) => layout,
    Err(_) => panic!("64 is a power of two"),
};

/// Full buffers, the last one first.
static FULL: AtomicPtr<Block> = AtomicPtr::new(ptr::null_mut());
static EMPTY: [AtomicPtr<Block>; KEPT] = [const { AtomicPtr::new(ptr::null_mut()) }; KEPT];
/// Buffers that CUPTI holds; tests look at it.
static LENT: AtomicUsize = AtomicUsize::new(0);

/// `CUpti_BuffersCallbackRequestFunc`.
pub(super) unsafe extern "C" fn requested(
    buffer: *mut *mut u8,
    bytes: *mut usize,
    most_records: *mut usize,
) {
    let kept = EMPTY.iter().find_map(|slot| {
        let block = slot.swap(ptr::null_mut(), Ordering::Acquire);
        (!block.is_null()).then_some(block)
    });
    let block = match kept {
        Some(block) => block,
        // SAFETY: the layout is not empty.
        None => unsafe { alloc_zeroed(LAYOUT) }.cast::<Block>(),
    };
    let (data, capacity) = match block.is_null() {
        true => (ptr::null_mut(), 0),
        false => {
            LENT.fetch_add(1, Ordering::Relaxed);
            // SAFETY: the block is `HEADER + BUFFER_BYTES` long.
            (unsafe { block.cast::<u8>().add(HEADER) }, BUFFER_BYTES)
        }
    };
    // SAFETY: CUPTI gives places for all three.
    unsafe {
        *buffer = data;
        *bytes = capacity;
        *most_records = 0; // as many as fit
    }
}

/// `CUpti_BuffersCallbackCompleteFunc`.
pub(super) unsafe extern "C" fn completed(
    context: CUcontext,
    stream: u32,
    buffer: *mut u8,
    _bytes: usize,
    valid: usize,
) {
    if buffer.is_null() {
        return;
    }
    // SAFETY: the buffer came from `requested`, which put it behind a block, and is nobody else's now.
    unsafe {
        let block = buffer.sub(HEADER).cast::<Block>();
        block.write(Block {
            next: ptr::null_mut(),
            valid: valid.min(BUFFER_BYTES),
            context,
            stream,
        });
        push(block);
    }
    LENT.fetch_sub(1, Ordering::Relaxed);
}

/// # Safety
/// The block is whole, and nobody else's.
unsafe fn push(block: *mut Block) {
    let mut first = FULL.load(Ordering::Relaxed);
    loop {
        // SAFETY: the block is ours until the exchange succeeds.
        unsafe { (*block).next = first };
        match FULL.compare_exchange_weak(first, block, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => first = now,
        }
    }
}

/// A buffer that CUPTI filled. Dropping it makes it free for the next request.
pub(super) struct Full(*mut Block);

impl Full {
    /// Its first byte, aligned to 64, and how many are filled.
    pub(super) fn data(&self) -> (*mut u8, usize) {
        // SAFETY: the block is ours until it is dropped.
        unsafe { (self.0.cast::<u8>().add(HEADER), (*self.0).valid) }
    }

    /// The queue that the records are of: a context and a stream's number.
    pub(super) fn queue(&self) -> (CUcontext, u32) {
        // SAFETY: the block is ours until it is dropped.
        unsafe { ((*self.0).context, (*self.0).stream) }
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        for slot in &EMPTY {
            let kept = slot.compare_exchange(
                ptr::null_mut(),
                self.0,
                Ordering::Release,
                Ordering::Relaxed,
            );
            if kept.is_ok() {
                return;
            }
        }
        // SAFETY: the block was allocated with this layout, and is nobody else's.
        unsafe { dealloc(self.0.cast(), LAYOUT) };
    }
}

/// Takes all full buffers, in the order in which they came back.
pub(super) fn take() -> Vec<Full> {
    let mut block = FULL.swap(ptr::null_mut(), Ordering::Acquire);
    let mut buffers = Vec::new();
    while !block.is_null() {
        // SAFETY: the list was taken off as a whole, so that every block on it is ours.
        let next = unsafe { (*block).next };
        buffers.push(Full(block));
        block = next;
    }
    buffers.reverse();
    buffers
}

/// How many buffers CUPTI holds.
#[cfg(test)]
pub(super) fn lent() -> usize {
    LENT.load(Ordering::Relaxed)
}
