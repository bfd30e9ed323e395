//! Memory pools. What is freed goes back to the device at once, so a pool is a count of what was taken from it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::abi::functions;
use super::argument::{In, Out};
use super::context::Context;
use super::gpu::gpu;
use super::memory::{self, Kind, allocation_of};
use super::registry::{Handle, Object as _, lock, object};
use super::status::Status;
use super::stream::{Stream, stream};
use super::types::{DeviceNumber, Location, PoolProperties};
use super::work::Work;

/// A pool of a device.
pub(super) struct Pool {
    pub(super) handle: Handle<Pool>,
    pub(super) ordinal: usize,
    used: AtomicU64,
    most: AtomicU64,
    settings: Mutex<BTreeMap<u32, u64>>,
}

object!(Pool);

/// `CUmemPool_attribute`: three settings of 32 bits, the threshold, and counts of 64 bits.
const RELEASE_THRESHOLD: u32 = 4;
const RESERVED: u32 = 5;
const RESERVED_MOST: u32 = 6;
const USED: u32 = 7;
const USED_MOST: u32 = 8;

impl Pool {
    pub(super) fn new(ordinal: usize) -> Arc<Pool> {
        let handle = Handle::reserve();
        let pool = Arc::new(Pool {
            handle,
            ordinal,
            used: AtomicU64::new(0),
            most: AtomicU64::new(0),
            settings: Mutex::new(BTreeMap::new()),
        });
        Pool::registry().add(handle, Arc::clone(&pool));
        pool
    }

    pub(super) fn grew(&self, bytes: u64) {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.most.fetch_max(used, Ordering::Relaxed);
    }

    pub(super) fn shrank(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn allocate(
    out: Out<u64>,
    bytes: usize,
    pool: Option<Arc<Pool>>,
    handle: Handle<Stream>,
) -> Result<(), Status> {
    let stream = stream(handle)?;
    if out.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let context = &stream.context;
    let pool = pool.unwrap_or_else(|| Arc::clone(&lock(&context.gpu.current_pool)));
    if pool.ordinal != context.gpu.ordinal {
        return Err(Status::INVALID_VALUE);
    }
    // In a capture the address is decided at once, as the driver does it; the memory is there until the graph frees it.
    if let Some(capture) = stream.capture()? {
        let address = memory::allocate(context, bytes, Kind::Pool(pool))?;
        capture.add(&stream, Work::Allocate)?;
        capture.graph().own(address);
        return out.set(address);
    }
    context.works()?;
    out.set(memory::allocate(context, bytes, Kind::Pool(pool))?)
}

functions! {
    fn cuMemAllocAsync(address: Out<u64>, bytes: usize, stream: Handle<Stream>) {
        allocate(address, bytes, None, stream)
    }

    fn cuMemAllocFromPoolAsync(address: Out<u64>, bytes: usize, pool: Handle<Pool>, stream: Handle<Stream>) {
        allocate(address, bytes, Some(pool.get()?), stream)
    }

    fn cuMemFreeAsync(address: u64, handle: Handle<Stream>) {
        let stream = stream(handle)?;
        if address == 0 {
            return Ok(());
        }
        match allocation_of(address) {
            Some(found) if found.address == address && found.kind.is_device() => {}
            _ => return Err(Status::INVALID_VALUE),
        }
        if let Some(capture) = stream.capture()? {
            // What the graph allocated is used again by its next launch, and so is freed with the graph.
            let work = if capture.graph().owns(address) { Work::Empty } else { Work::Free(address) };
            return capture.add(&stream, work).map(drop);
        }
        memory::free_in_graph(address)
    }

    fn cuDeviceGetDefaultMemPool(pool: Out<Handle<Pool>>, device: DeviceNumber) {
        pool.set(gpu(device)?.default_pool.handle)
    }

    fn cuDeviceGetMemPool(pool: Out<Handle<Pool>>, device: DeviceNumber) {
        pool.set(lock(&gpu(device)?.current_pool).handle)
    }

    fn cuDeviceSetMemPool(device: DeviceNumber, pool: Handle<Pool>) {
        let gpu = gpu(device)?;
        let pool = pool.get()?;
        if pool.ordinal != gpu.ordinal {
            return Err(Status::INVALID_VALUE);
        }
        *lock(&gpu.current_pool) = pool;
        Ok(())
    }

    fn cuMemPoolCreate(pool: Out<Handle<Pool>>, properties: In<PoolProperties>) {
        let properties = properties.get()?;
        // Pinned memory (1) on a device (1), and not to be shared with other processes.
        if pool.is_null() || properties.allocation_type != 1 || properties.location.kind != 1 {
            return Err(Status::INVALID_VALUE);
        }
        if properties.handle_types != 0 {
            return Err(Status::NOT_SUPPORTED);
        }
        pool.set(Pool::new(gpu(properties.location.id)?.ordinal).handle)
    }

    fn cuMemPoolDestroy(pool: Handle<Pool>) {
        let pool = pool.get()?;
        let gpu = gpu(pool.ordinal as i32)?;
        if Arc::ptr_eq(&pool, &gpu.default_pool) {
            return Err(Status::INVALID_VALUE);
        }
        let mut current = lock(&gpu.current_pool);
        if Arc::ptr_eq(&pool, &current) {
            *current = Arc::clone(&gpu.default_pool);
        }
        drop(current);
        Pool::registry().remove(pool.handle);
        Ok(())
    }

    fn cuMemPoolTrimTo(pool: Handle<Pool>, _keep: usize) {
        pool.get().map(drop)
    }

    fn cuMemPoolGetAttribute(pool: Handle<Pool>, attribute: u32, value: Out<u64>) {
        let pool = pool.get()?;
        let set = lock(&pool.settings).get(&attribute).copied();
        match attribute {
            1..=3 => {
                let number = set.unwrap_or(1) as u32;
                // The place is for an `int`.
                value.cast::<u32>().set(number)
            }
            RELEASE_THRESHOLD => value.set(set.unwrap_or(0)),
            RESERVED | USED => value.set(pool.used.load(Ordering::Relaxed)),
            RESERVED_MOST | USED_MOST => value.set(pool.most.load(Ordering::Relaxed)),
            _ => Err(Status::INVALID_VALUE),
        }
    }

    fn cuMemPoolSetAttribute(pool: Handle<Pool>, attribute: u32, value: Out<u64>) {
        let pool = pool.get()?;
        let number = match attribute {
            1..=3 => u64::from(value.cast::<u32>().get()?),
            _ => value.get()?,
        };
        match attribute {
            1..=RELEASE_THRESHOLD => {
                lock(&pool.settings).insert(attribute, number);
                Ok(())
            }
            RESERVED_MOST | USED_MOST if number == 0 => {
                let used = pool.used.load(Ordering::Relaxed);
                pool.most.store(used, Ordering::Relaxed);
                Ok(())
            }
            _ => Err(Status::INVALID_VALUE),
        }
    }

    // Every device can access every pool.
    fn cuMemPoolSetAccess(pool: Handle<Pool>, _access: In<u8>, _count: usize) {
        pool.get().map(drop)
    }

    fn cuMemPoolGetAccess(flags: Out<u32>, pool: Handle<Pool>, _location: In<Location>) {
        pool.get()?;
        flags.set(3)
    }

    fn cuDeviceGraphMemTrim(device: DeviceNumber) {
        gpu(device).map(drop)
    }

    fn cuMemGetDefaultMemPool(pool: Out<Handle<Pool>>, location: In<Location>, _kind: u32) {
        Context::current()?;
        pool.set(gpu(location.get()?.id)?.default_pool.handle)
    }
}
