//! Allocations: of device memory, of host memory that kernels may use, and of host memory that was there before.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::abi::functions;
use super::argument::Out;
use super::context::Context;
use super::gpu::Gpu;
use super::pool::Pool;
use super::registry::{Handle, lock};
use super::status::Status;
use super::stream::{Stream, refuse_while_capturing, stream};
use super::types::Location;

/// Host memory for kernels begins at a page, as the driver's does.
const PAGE: usize = 4096;

/// An allocation, by the address at which it begins.
#[derive(Clone)]
pub(super) struct Allocation {
    pub(super) address: u64,
    pub(super) bytes: u64,
    pub(super) kind: Kind,
    pub(super) context: Handle<Context>,
    pub(super) gpu: Arc<Gpu>,
    /// Never given out twice.
    pub(super) id: u64,
}

/// Where an allocation comes from.
#[derive(Clone)]
pub(super) enum Kind {
    Device,
    Pool(Arc<Pool>),
    /// Host memory of ours, with the flags it was asked for with.
    Host(u32),
    /// Host memory of the program's.
    Registered(u32),
    /// Memory for both, which is host memory here: nothing migrates.
    Managed,
}

impl Kind {
    pub(super) fn is_device(&self) -> bool {
        matches!(self, Kind::Device | Kind::Pool(_))
    }
}

static ALLOCATIONS: Mutex<BTreeMap<u64, Allocation>> = Mutex::new(BTreeMap::new());

/// The allocation that holds an address.
pub(super) fn allocation_of(address: u64) -> Option<Allocation> {
    let allocations = lock(&ALLOCATIONS);
    let (_, last) = allocations.range(..=address).next_back()?;
    (address - last.address < last.bytes).then(|| last.clone())
}

fn note(context: &Context, address: u64, bytes: u64, kind: Kind) {
    static IDS: AtomicU64 = AtomicU64::new(1);
    let allocation = Allocation {
        address,
        bytes,
        kind,
        context: context.handle,
        gpu: Arc::clone(&context.gpu),
        id: IDS.fetch_add(1, Ordering::Relaxed),
    };
    lock(&ALLOCATIONS).insert(address, allocation);
}

/// Device memory.
pub(super) fn allocate(context: &Context, bytes: usize, kind: Kind) -> Result<u64, Status> {
    let address = context.gpu.device.allocate(bytes as u64)?;
    if let Kind::Pool(pool) = &kind {
        pool.grew(bytes as u64);
    }
    note(context, address, bytes as u64, kind);
    Ok(address)
}

fn layout(bytes: u64) -> Result<Layout, Status> {
    let bytes = usize::try_from(bytes).map_err(|_| Status::OUT_OF_MEMORY)?;
    // Whole words, since that is how kernels access them.
    let layout = Layout::from_size_align(bytes.next_multiple_of(8), PAGE);
    layout.map_err(|_| Status::OUT_OF_MEMORY)
}

/// Host memory that kernels may use at its own address.
fn allocate_host(context: &Context, bytes: usize, kind: Kind) -> Result<usize, Status> {
    if bytes == 0 || bytes > isize::MAX as usize - PAGE {
        return Err(Status::INVALID_VALUE);
    }
    let layout = layout(bytes as u64)?;
    // SAFETY: the size is not 0.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        return Err(Status::OUT_OF_MEMORY);
    }
    let address = memory.expose_provenance();
    // SAFETY: the memory is freed by `free` only, which takes it from the device first. The host using it while a kernel runs is
    // for the program to avoid, as on hardware.
    let registered = unsafe { context.gpu.device.register_host(address, bytes as u64) };
    if let Err(error) = registered {
        // SAFETY: it was allocated above with this layout, and nobody knows of it.
        unsafe { dealloc(memory, layout) };
        return Err(error.into());
    }
    note(context, address as u64, bytes as u64, kind);
    Ok(address)
}

/// Frees the allocation that begins at `address`, if `fits` says that it is one of those the caller may free.
fn free(address: u64, fits: impl Fn(&Kind) -> bool) -> Result<(), Status> {
    let mut allocations = lock(&ALLOCATIONS);
    match allocations.get(&address) {
        Some(allocation) if fits(&allocation.kind) => {}
        _ => return Err(Status::INVALID_VALUE),
    }
    let freed = allocations.remove(&address);
    drop(allocations);
    freed.map_or(Ok(()), |allocation| release(&allocation))
}

fn release(allocation: &Allocation) -> Result<(), Status> {
    allocation.gpu.device.free(aligned(allocation.address))?;
    match &allocation.kind {
        Kind::Pool(pool) => pool.shrank(allocation.bytes),
        Kind::Host(_) | Kind::Managed => {
            let memory = std::ptr::with_exposed_provenance_mut::<u8>(allocation.address as usize);
            // SAFETY: it was allocated with this layout by `allocate_host`, and left the table that says so just now.
            unsafe { dealloc(memory, layout(allocation.bytes)?) };
        }
        Kind::Device | Kind::Registered(_) => {}
    }
    Ok(())
}

/// Registered memory begins where the program likes; the device knows it from the word before on.
fn aligned(address: u64) -> u64 {
    address & !7
}

/// Frees what a context leaves behind when it is destroyed.
pub(super) fn free_all_of(context: Handle<Context>) {
    let mut allocations = lock(&ALLOCATIONS);
    let all = std::mem::take(&mut *allocations);
    let (gone, kept) = all.into_iter().partition(|(_, a)| a.context == context);
    *allocations = kept;
    drop(allocations);
    let gone: BTreeMap<u64, Allocation> = gone;
    for allocation in gone.values() {
        // The table said that they are there; there is nobody to tell if not.
        let _ = release(allocation);
    }
}

/// Frees memory that a graph frees in its course.
pub(super) fn free_in_graph(address: u64) -> Result<(), Status> {
    free(address, Kind::is_device)
}

/// Waits for all that might use the memory, and frees it.
pub(super) fn free_device(address: u64) -> Result<(), Status> {
    let context = Context::current()?;
    refuse_while_capturing(&context)?;
    if address == 0 {
        return context.wait();
    }
    free(address, |kind| {
        kind.is_device() || matches!(kind, Kind::Managed)
    })?;
    context.wait()
}

fn host_alloc(memory: Out<usize>, bytes: usize, flags: u32) -> Result<(), Status> {
    let context = Context::current()?;
    refuse_while_capturing(&context)?;
    // Portable, mapped and write-combined.
    if memory.is_null() || flags > 7 {
        return Err(Status::INVALID_VALUE);
    }
    context.works()?;
    memory.set(allocate_host(&context, bytes, Kind::Host(flags))?)
}

functions! {
    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) {
        let (unused, all) = Context::current()?.gpu.device.memory_info();
        free.set(unused as usize)?;
        total.set(all as usize)
    }

    fn cuMemAlloc_v2(address: Out<u64>, bytes: usize) {
        let context = Context::current()?;
        refuse_while_capturing(&context)?;
        if address.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        context.works()?;
        address.set(allocate(&context, bytes, Kind::Device)?)
    }

    // The driver rounds rows up to 512 bytes on every device that is emulated.
    fn cuMemAllocPitch_v2(address: Out<u64>, pitch: Out<usize>, width: usize, height: usize, element_bytes: u32) {
        let context = Context::current()?;
        refuse_while_capturing(&context)?;
        if address.is_null() || pitch.is_null() || !matches!(element_bytes, 4 | 8 | 16) {
            return Err(Status::INVALID_VALUE);
        }
        let row = width.checked_next_multiple_of(512).ok_or(Status::OUT_OF_MEMORY)?;
        let bytes = row.checked_mul(height).ok_or(Status::OUT_OF_MEMORY)?;
        address.set(allocate(&context, bytes, Kind::Device)?)?;
        pitch.set(row)
    }

    fn cuMemFree_v2(address: u64) {
        free_device(address)
    }

    fn cuMemAllocManaged(address: Out<u64>, bytes: usize, flags: u32) {
        let context = Context::current()?;
        refuse_while_capturing(&context)?;
        if address.is_null() || !matches!(flags, 1 | 2) {
            return Err(Status::INVALID_VALUE);
        }
        address.set(allocate_host(&context, bytes, Kind::Managed)? as u64)
    }

    fn cuMemHostAlloc(memory: Out<usize>, bytes: usize, flags: u32) {
        host_alloc(memory, bytes, flags)
    }

    fn cuMemAllocHost_v2(memory: Out<usize>, bytes: usize) {
        host_alloc(memory, bytes, 0)
    }

    fn cuMemFreeHost(memory: usize) {
        let context = Context::current()?;
        refuse_while_capturing(&context)?;
        free(memory as u64, |kind| matches!(kind, Kind::Host(_)))?;
        context.wait()
    }

    fn cuMemHostRegister_v2(memory: usize, bytes: usize, flags: u32) {
        let context = Context::current()?;
        let address = memory as u64;
        let end = address.checked_add(bytes as u64).ok_or(Status::INVALID_VALUE)?;
        if memory == 0 || bytes == 0 || flags > 15 {
            return Err(Status::INVALID_VALUE);
        }
        let overlaps = lock(&ALLOCATIONS)
            .range(..end)
            .next_back()
            .is_some_and(|(_, last)| last.address + last.bytes > address);
        if overlaps {
            return Err(Status::HOST_MEMORY_ALREADY_REGISTERED);
        }
        let start = aligned(address);
        // SAFETY: the caller promised that the memory stays until it is unregistered. The few bytes before it that belong to the
        // same word are there too, and only their neighbours are accessed.
        unsafe { context.gpu.device.register_host(start as usize, end - start)? };
        note(&context, address, bytes as u64, Kind::Registered(flags));
        Ok(())
    }

    fn cuMemHostUnregister(memory: usize) {
        Context::current()?;
        free(memory as u64, |kind| matches!(kind, Kind::Registered(_)))
            .map_err(|_| Status::HOST_MEMORY_NOT_REGISTERED)
    }

    fn cuMemHostGetDevicePointer_v2(address: Out<u64>, memory: usize, flags: u32) {
        Context::current()?;
        let found = allocation_of(memory as u64).filter(|a| !a.kind.is_device());
        if flags != 0 || found.is_none() {
            return Err(Status::INVALID_VALUE);
        }
        address.set(memory as u64)
    }

    fn cuMemHostGetFlags(flags: Out<u32>, memory: usize) {
        Context::current()?;
        match allocation_of(memory as u64).map(|a| a.kind) {
            // Pinned memory is always mapped where addresses are unified.
            Some(Kind::Host(own) | Kind::Registered(own)) => flags.set(own | 2),
            _ => Err(Status::INVALID_VALUE),
        }
    }

    fn cuMemGetAddressRange_v2(base: Out<u64>, bytes: Out<usize>, address: u64) {
        Context::current()?;
        let found = allocation_of(address).map(|a| (a.address, a.bytes));
        // Variables of modules are not in the table.
        let found = found.or_else(|| Context::current().ok()?.gpu.device.allocation_of(address));
        let (start, length) = found.ok_or(Status::NOT_FOUND)?;
        base.set_if_wanted(start);
        bytes.set_if_wanted(length as usize);
        Ok(())
    }

    // Managed memory is in one place for everybody, so advice about where it should be is taken and changes nothing.
    fn cuMemAdvise(address: u64, bytes: usize, _advice: u32, _device: i32) {
        advised(address, bytes)
    }

    fn cuMemAdvise_v2(address: u64, bytes: usize, _advice: u32, _location: Location) {
        advised(address, bytes)
    }

    fn cuMemPrefetchAsync(address: u64, bytes: usize, _device: i32, handle: Handle<Stream>) {
        stream(handle)?;
        advised(address, bytes)
    }

    fn cuMemPrefetchAsync_v2(address: u64, bytes: usize, _location: Location, _flags: u32, handle: Handle<Stream>) {
        stream(handle)?;
        advised(address, bytes)
    }
}

fn advised(address: u64, bytes: usize) -> Result<(), Status> {
    Context::current()?;
    match allocation_of(address) {
        Some(allocation) if matches!(allocation.kind, Kind::Managed) => {
            let room = allocation.bytes - (address - allocation.address);
            if bytes as u64 <= room {
                return Ok(());
            }
            Err(Status::INVALID_VALUE)
        }
        _ => Err(Status::INVALID_VALUE),
    }
}
