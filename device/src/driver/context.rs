use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::driver::sys::{CUcontext, CUdevice};

use super::{Device, Driver};
use crate::Error;

/// The answer of `cuCtxEnablePeerAccess` where access is enabled already.
const PEER_ACCESS_ALREADY_ENABLED: u32 = 704;

/// A device, ready: its primary context, which NVIDIA's own libraries share.
///
/// Any thread may use it, and everything made from it: what needs the context to be the thread's current one makes it so.
#[derive(Debug)]
pub struct Context {
    driver: Arc<Driver>,
    device: Device,
    device_handle: CUdevice,
    handle: CUcontext,
    /// Tells contexts apart, also those that got the address of one that is gone.
    number: u64,
}

// SAFETY: the driver's functions may be called from any thread with the same context; `handle` is an opaque value that the
// driver checks, and nothing behind it is accessed from here.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

thread_local! {
    /// The number of the context that this thread made current last.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

impl Context {
    /// Makes the device with this ordinal ready.
    ///
    /// # Errors
    /// There is no such device, or the driver refused.
    pub fn new(driver: &Arc<Driver>, ordinal: usize) -> Result<Arc<Context>, Error> {
        static CONTEXTS: AtomicU64 = AtomicU64::new(1);
        let device = driver.device(ordinal)?;
        let device_handle = driver.device_handle(ordinal)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the device came from the driver; the pointer is to a handle that lives through the call.
        let retained = unsafe { driver.cuDevicePrimaryCtxRetain(&raw mut handle, device_handle) };
        retained.map_err(|error| {
            error.during(&format!("making device {ordinal} ({}) ready", device.name))
        })?;
        Ok(Arc::new(Context {
            driver: Arc::clone(driver),
            device,
            device_handle,
            handle,
            number: CONTEXTS.fetch_add(1, Ordering::Relaxed),
        }))
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The driver.
    pub fn driver(&self) -> &Arc<Driver> {
        &self.driver
    }

    /// The driver's handle, for libraries of NVIDIA's that take one. It is valid as long as this context is.
    pub fn raw(&self) -> CUcontext {
        self.handle
    }

    /// The driver, with this context the thread's current one.
    ///
    /// Whoever makes another context current in this thread, past this crate, must restore it.
    #[inline]
    pub(crate) fn bound(&self) -> Result<&Driver, Error> {
        if CURRENT.get() != self.number {
            // SAFETY: the context is retained until `self` is dropped.
            unsafe { self.driver.cuCtxSetCurrent(self.handle)? };
            CURRENT.set(self.number);
        }
        Ok(&self.driver)
    }

    /// Waits until the device has done everything it was asked to.
    ///
    /// # Errors
    /// A kernel failed since the last time anybody waited, and which one is not known; or the driver refused.
    pub fn synchronize(&self) -> Result<(), Error> {
        // SAFETY: the context is current.
        unsafe { self.bound()?.cuCtxSynchronize() }
    }

    /// Bytes of device memory: free, and all.
    ///
    /// # Errors
    /// The driver refused.
    pub fn memory(&self) -> Result<(usize, usize), Error> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: the context is current; both pointers are to integers that live through the call.
        unsafe {
            self.bound()?
                .cuMemGetInfo_v2(&raw mut free, &raw mut total)?
        };
        Ok((free, total))
    }

    /// Whether kernels on this device can access the memory of `peer`'s.
    ///
    /// # Errors
    /// The driver refused.
    pub fn can_access(&self, peer: &Context) -> Result<bool, Error> {
        let mut can = 0;
        // SAFETY: both devices came from the driver; the pointer is to an integer that lives through the call.
        unsafe {
            self.driver.cuDeviceCanAccessPeer(
                &raw mut can,
                self.device_handle,
                peer.device_handle,
            )?
        };
        Ok(can != 0)
    }

    /// Lets kernels on this device access the memory of `peer`'s; allowing it twice is no error.
    ///
    /// # Errors
    /// The two devices cannot reach each other, or the driver refused.
    pub fn enable_access_to(&self, peer: &Context) -> Result<(), Error> {
        // SAFETY: this context is current, and `peer`'s is retained while it is borrowed.
        match unsafe { self.bound()?.cuCtxEnablePeerAccess(peer.handle, 0) } {
            Err(error) if error.code() != Some(PEER_ACCESS_ALREADY_ENABLED) => {
                Err(error.during(&format!(
                    "giving device {} access to the memory of device {}",
                    self.device.ordinal, peer.device.ordinal
                )))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if CURRENT.get() == self.number {
            CURRENT.set(0);
        }
        // SAFETY: the context was retained once by `new`; everything made from it holds it, and so is gone.
        let _ = unsafe { self.driver.cuDevicePrimaryCtxRelease_v2(self.device_handle) };
    }
}
