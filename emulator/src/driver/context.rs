//! Contexts: what a thread works in, and what a kernel's failure takes down.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::abi::functions;
use super::argument::{In, Out};
use super::event::Event;
use super::gpu::{self, Gpu};
use super::graph::GraphExec;
use super::memory;
use super::module::{Function, Module};
use super::registry::{Handle, Object as _, lock, object};
use super::status::Status;
use super::stream::{self, Stream};
use super::types::DeviceNumber;

/// A context.
pub(super) struct Context {
    pub(super) handle: Handle<Context>,
    pub(super) gpu: Arc<Gpu>,
    is_primary: bool,
    flags: AtomicU32,
    failure: Mutex<Option<Failure>>,
    /// Whether it was destroyed: objects made from it may still hold it.
    is_gone: AtomicBool,
    limits: Mutex<BTreeMap<u32, usize>>,
    /// Devices whose memory it was given access to.
    pub(super) peers: Mutex<BTreeSet<usize>>,
}

object!(Context, stale: Status::INVALID_CONTEXT);

/// A kernel failed: nothing works in the context any more.
#[derive(Clone, Copy)]
struct Failure {
    status: Status,
    /// Whether a call that waits has said so. Until then, calls that do not wait succeed without doing anything, as they do on
    /// hardware while the failure is not known yet.
    is_known: bool,
}

/// A device's primary context, and how often it is retained.
pub(super) struct Primary {
    handle: Handle<Context>,
    retained: u32,
    flags: u32,
}

impl Primary {
    pub(super) fn new() -> Self {
        Self {
            handle: Handle::reserve(),
            retained: 0,
            flags: 0,
        }
    }
}

thread_local! {
    /// The thread's stack of contexts, the current one last.
    static STACK: RefCell<Vec<Handle<Context>>> = const { RefCell::new(Vec::new()) };
}

fn current_handle() -> Handle<Context> {
    STACK.with_borrow(|stack| stack.last().copied().unwrap_or(Handle::NULL))
}

impl Context {
    fn make(gpu: &Arc<Gpu>, handle: Handle<Context>, is_primary: bool, flags: u32) -> Arc<Context> {
        let context = Arc::new(Context {
            handle,
            gpu: Arc::clone(gpu),
            is_primary,
            flags: AtomicU32::new(flags),
            failure: Mutex::new(None),
            is_gone: AtomicBool::new(false),
            limits: Mutex::new(BTreeMap::new()),
            peers: Mutex::new(BTreeSet::new()),
        });
        Context::registry().add(handle, Arc::clone(&context));
        context
    }

    /// The thread's current context.
    pub(super) fn current() -> Result<Arc<Context>, Status> {
        gpu::machine()?;
        let handle = current_handle();
        if handle == Handle::NULL {
            return Err(Status::INVALID_CONTEXT);
        }
        handle.find().ok_or(Status::CONTEXT_IS_DESTROYED)
    }

    /// The context that a call names, or the current one where it names none.
    pub(super) fn named(handle: Handle<Context>) -> Result<Arc<Context>, Status> {
        if handle == Handle::NULL {
            Self::current()
        } else {
            gpu::machine()?;
            handle.get()
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    /// Notes that a kernel failed. The first failure stays.
    pub(super) fn fail(&self, status: Status) {
        lock(&self.failure).get_or_insert(Failure {
            status,
            is_known: false,
        });
    }

    /// For calls that wait: says what failed, now and from now on.
    pub(super) fn wait(&self) -> Result<(), Status> {
        match &mut *lock(&self.failure) {
            Some(failure) => {
                failure.is_known = true;
                Err(failure.status)
            }
            None => Ok(()),
        }
    }

    /// For calls that do not wait: whether what they ask for is done at all.
    pub(super) fn works(&self) -> Result<bool, Status> {
        match *lock(&self.failure) {
            Some(failure) if failure.is_known => Err(failure.status),
            Some(_) => Ok(false),
            None => Ok(true),
        }
    }

    /// Takes it away, with all that was made from it.
    fn destroy(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
        Context::registry().remove(self.handle);
        let own = self.handle;
        GraphExec::registry().remove_where(|exec| exec.context.handle == own);
        Stream::registry().remove_where(|stream| stream.context.handle == own);
        Event::registry().remove_where(|event| event.context.handle == own);
        Function::registry().remove_where(|function| function.module.context.handle == own);
        Module::registry().remove_where(|module| module.context.handle == own);
        memory::free_all_of(own);
    }
}

fn release_primary(gpu: &Gpu, all: bool) -> Result<(), Status> {
    let mut primary = lock(&gpu.primary);
    if primary.retained == 0 {
        return if all {
            Ok(())
        } else {
            Err(Status::INVALID_CONTEXT)
        };
    }
    // A reset takes away everything, but whoever retained the context still has to release it.
    if !all {
        primary.retained -= 1;
    }
    if all || primary.retained == 0 {
        if let Some(context) = primary.handle.find() {
            context.destroy();
        }
        if all {
            Context::make(
                &gpu::machine()?.gpus[gpu.ordinal],
                primary.handle,
                true,
                primary.flags,
            );
        }
    }
    Ok(())
}

fn create(out: Out<Handle<Context>>, flags: u32, device: DeviceNumber) -> Result<(), Status> {
    if out.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let context = Context::make(gpu::gpu(device)?, Handle::reserve(), false, flags);
    STACK.with_borrow_mut(|stack| stack.push(context.handle));
    out.set(context.handle)
}

fn set_primary_flags(device: DeviceNumber, flags: u32) -> Result<(), Status> {
    let mut primary = lock(&gpu::gpu(device)?.primary);
    primary.flags = flags;
    if let Some(context) = primary.handle.find() {
        context.flags.store(flags, Ordering::Relaxed);
    }
    Ok(())
}

/// What the limits of this number in `CUlimit` are until somebody sets them.
fn default_limit(limit: u32) -> Result<usize, Status> {
    match limit {
        0 => Ok(1024),
        1 => Ok(1 << 20),
        2 => Ok(8 << 20),
        3 => Ok(2),
        4 => Ok(2048),
        5 => Ok(64),
        6 => Ok(0),
        7..=9 => Ok(0),
        _ => Err(Status::INVALID_VALUE),
    }
}

functions! {
    fn cuDevicePrimaryCtxRetain(context: Out<Handle<Context>>, device: DeviceNumber) {
        let gpu = gpu::gpu(device)?;
        if context.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        let mut primary = lock(&gpu.primary);
        if primary.retained == 0 {
            Context::make(gpu, primary.handle, true, primary.flags);
        }
        primary.retained += 1;
        context.set(primary.handle)
    }

    fn cuDevicePrimaryCtxRelease(device: DeviceNumber) {
        release_primary(gpu::gpu(device)?, false)
    }

    fn cuDevicePrimaryCtxRelease_v2(device: DeviceNumber) {
        release_primary(gpu::gpu(device)?, false)
    }

    fn cuDevicePrimaryCtxReset(device: DeviceNumber) {
        release_primary(gpu::gpu(device)?, true)
    }

    fn cuDevicePrimaryCtxReset_v2(device: DeviceNumber) {
        release_primary(gpu::gpu(device)?, true)
    }

    fn cuDevicePrimaryCtxSetFlags(device: DeviceNumber, flags: u32) {
        set_primary_flags(device, flags)
    }

    fn cuDevicePrimaryCtxSetFlags_v2(device: DeviceNumber, flags: u32) {
        set_primary_flags(device, flags)
    }

    fn cuDevicePrimaryCtxGetState(device: DeviceNumber, flags: Out<u32>, active: Out<i32>) {
        let primary = lock(&gpu::gpu(device)?.primary);
        flags.set_if_wanted(primary.flags);
        active.set_if_wanted(i32::from(primary.retained > 0));
        Ok(())
    }

    fn cuCtxCreate_v2(context: Out<Handle<Context>>, flags: u32, device: DeviceNumber) {
        create(context, flags, device)
    }

    // The second and third argument are shares of the device, which are all of it here.
    fn cuCtxCreate_v3(context: Out<Handle<Context>>, _shares: usize, _count: i32, flags: u32, device: DeviceNumber) {
        create(context, flags, device)
    }

    fn cuCtxCreate_v4(context: Out<Handle<Context>>, _shares: usize, flags: u32, device: DeviceNumber) {
        create(context, flags, device)
    }

    fn cuCtxDestroy_v2(context: Handle<Context>) {
        gpu::machine()?;
        let context = context.get()?;
        if context.is_primary {
            return Err(Status::INVALID_CONTEXT);
        }
        context.destroy();
        STACK.with_borrow_mut(|stack| {
            if stack.last() == Some(&context.handle) {
                stack.pop();
            }
        });
        Ok(())
    }

    fn cuCtxPushCurrent_v2(context: Handle<Context>) {
        gpu::machine()?;
        context.get()?;
        STACK.with_borrow_mut(|stack| stack.push(context));
        Ok(())
    }

    fn cuCtxPopCurrent_v2(context: Out<Handle<Context>>) {
        gpu::machine()?;
        let popped = STACK.with_borrow_mut(Vec::pop);
        context.set_if_wanted(popped.ok_or(Status::INVALID_CONTEXT)?);
        Ok(())
    }

    fn cuCtxSetCurrent(context: Handle<Context>) {
        gpu::machine()?;
        if context != Handle::NULL {
            context.get()?;
        }
        STACK.with_borrow_mut(|stack| {
            stack.pop();
            if context != Handle::NULL {
                stack.push(context);
            }
        });
        Ok(())
    }

    fn cuCtxGetCurrent(context: Out<Handle<Context>>) {
        gpu::machine()?;
        context.set(current_handle())
    }

    fn cuCtxGetDevice(device: Out<DeviceNumber>) {
        device.set(Context::current()?.gpu.ordinal as i32)
    }

    fn cuCtxGetDevice_v2(device: Out<DeviceNumber>, context: Handle<Context>) {
        device.set(Context::named(context)?.gpu.ordinal as i32)
    }

    fn cuCtxSynchronize() {
        let context = Context::current()?;
        stream::refuse_while_capturing(&context)?;
        context.wait()
    }

    fn cuCtxSynchronize_v2(context: Handle<Context>) {
        let context = Context::named(context)?;
        stream::refuse_while_capturing(&context)?;
        context.wait()
    }

    fn cuCtxGetId(context: Handle<Context>, id: Out<u64>) {
        id.set(Context::named(context)?.handle.number() as u64)
    }

    fn cuCtxGetApiVersion(context: Handle<Context>, version: Out<u32>) {
        Context::named(context)?;
        version.set(3020)
    }

    fn cuCtxGetFlags(flags: Out<u32>) {
        flags.set(Context::current()?.flags.load(Ordering::Relaxed))
    }

    fn cuCtxSetFlags(flags: u32) {
        Context::current()?.flags.store(flags, Ordering::Relaxed);
        Ok(())
    }

    fn cuCtxGetLimit(value: Out<usize>, limit: u32) {
        let default = default_limit(limit)?;
        let context = Context::current()?;
        let limits = lock(&context.limits);
        value.set(limits.get(&limit).copied().unwrap_or(default))
    }

    // Limits are kept, and mean nothing: the stack and the heap of an emulated kernel are as large as it needs.
    fn cuCtxSetLimit(limit: u32, value: usize) {
        default_limit(limit)?;
        lock(&Context::current()?.limits).insert(limit, value);
        Ok(())
    }

    fn cuCtxGetCacheConfig(config: Out<u32>) {
        Context::current()?;
        config.set(0)
    }

    fn cuCtxSetCacheConfig(_config: u32) {
        Context::current().map(drop)
    }

    fn cuCtxGetSharedMemConfig(config: Out<u32>) {
        Context::current()?;
        config.set(1)
    }

    fn cuCtxSetSharedMemConfig(_config: u32) {
        Context::current().map(drop)
    }

    fn cuCtxResetPersistingL2Cache() {
        Context::current().map(drop)
    }

    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        Context::current()?;
        least.set_if_wanted(0);
        greatest.set_if_wanted(stream::GREATEST_PRIORITY);
        Ok(())
    }

    fn cuCtxRecordEvent(context: Handle<Context>, event: Handle<Event>) {
        let context = Context::named(context)?;
        stream::refuse_while_capturing(&context)?;
        event.get()?.pass();
        Ok(())
    }

    fn cuCtxWaitEvent(context: Handle<Context>, event: Handle<Event>) {
        let context = Context::named(context)?;
        stream::refuse_while_capturing(&context)?;
        event.get().map(drop)
    }

    fn cuProfilerStart() {
        Context::current().map(drop)
    }

    fn cuProfilerStop() {
        Context::current().map(drop)
    }

    fn cuProfilerInitialize(_configuration: In<u8>, _output: In<u8>, _mode: u32) {
        Err(Status::NOT_SUPPORTED)
    }
}
