use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::api::out_of_memory;
use super::{Context, DevicePointer};
use crate::Error;

/// `CU_MEMHOSTALLOC_DEVICEMAP` of cuda.h.
const MAPPED: u32 = 2;

/// Words of host memory that host and kernels read and write at the same time: what the one stores the other sees, without a copy
/// and without waiting for a stream.
///
/// Both sides must use atomic or volatile accesses. The memory must stay until every kernel that uses it is done: wait for the stream
/// before this is dropped.
#[derive(Debug)]
pub struct HostWords {
    context: Arc<Context>,
    memory: *mut AtomicU32,
    len: usize,
}

// SAFETY: the memory is plain memory of this process, owned by the value and lent out as atomics.
unsafe impl Send for HostWords {}
// SAFETY: as above.
unsafe impl Sync for HostWords {}

impl HostWords {
    /// `len` words of zero. `what` says in an error what they were for.
    ///
    /// # Errors
    /// Memory ran out.
    pub fn new(context: &Arc<Context>, what: &str, len: usize) -> Result<HostWords, Error> {
        let bytes = super::memory::bytes_of::<u32>(what, len.max(1))?;
        let mut memory: *mut c_void = ptr::null_mut();
        // SAFETY: the context is current; the pointer is to a pointer that lives through the call.
        let allocated = unsafe {
            context
                .bound()?
                .cuMemHostAlloc(&raw mut memory, bytes, MAPPED)
        };
        allocated.map_err(|error| out_of_memory(error, what, bytes, "mapped host", None))?;
        // SAFETY: the driver gave `bytes` bytes.
        unsafe { ptr::write_bytes(memory.cast::<u8>(), 0, bytes) };
        Ok(HostWords {
            context: Arc::clone(context),
            memory: memory.cast(),
            len: len.max(1),
        })
    }

    /// The words, as the host sees them.
    pub fn words(&self) -> &[AtomicU32] {
        // SAFETY: the memory holds as many words, aligned to a page, and is freed by `drop` alone; whoever else writes to them does
        // so atomically.
        unsafe { std::slice::from_raw_parts(self.memory, self.len) }
    }

    /// The address that a kernel gets. Where addresses are unified, as on every 64-bit system, it is the host's own (CUDA driver API,
    /// "Unified Addressing").
    pub fn pointer(&self) -> DevicePointer {
        DevicePointer(self.memory.addr() as u64)
    }
}

impl Drop for HostWords {
    fn drop(&mut self) {
        if let Ok(driver) = self.context.bound() {
            // SAFETY: the memory was allocated by us and is freed here only.
            let _ = unsafe { driver.cuMemFreeHost(self.memory.cast()) };
        }
    }
}
