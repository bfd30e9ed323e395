use std::ffi::{CStr, c_char, c_int};

use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::sys::{CUdevice, CUdevice_attribute, CUuuid};

use super::Driver;
use crate::Error;

/// What is to be known about a device.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Device {
    /// The driver's number for it, which follows `CUDA_VISIBLE_DEVICES`.
    pub ordinal: usize,
    /// As the driver calls it, `NVIDIA H100 80GB HBM3` for instance.
    pub name: String,
    /// As nvidia-smi writes it: `GPU-…`; empty if the driver does not tell.
    pub uuid: String,
    /// Major and minor number of the compute capability: `[9, 0]`.
    pub compute_capability: [u32; 2],
    /// Device memory.
    pub memory_bytes: u64,
    /// What a launch can ask for.
    pub limits: Limits,
}

/// What a device has, and what a launch on it can ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Limits {
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// L2 cache.
    pub l2_bytes: u64,
    /// Threads of a block.
    pub threads_per_block: u32,
    /// Threads of a multiprocessor.
    pub threads_per_multiprocessor: u32,
    /// Registers of a multiprocessor.
    pub registers_per_multiprocessor: u32,
    /// Shared memory of a block that did not opt in to more.
    pub shared_bytes_per_block: u32,
    /// Shared memory that a block may opt in to.
    pub shared_bytes_per_block_opt_in: u32,
    /// Shared memory of a multiprocessor.
    pub shared_bytes_per_multiprocessor: u32,
    /// The clock of the multiprocessors when boosted.
    pub clock_khz: u32,
    /// The clock of the memory.
    pub memory_clock_khz: u32,
    /// The width of the memory's bus.
    pub memory_bus_bits: u32,
    /// Whether a launch can be cooperative.
    pub can_launch_cooperatively: bool,
    /// Whether blocks can form clusters.
    pub can_form_clusters: bool,
    /// Whether memory can be allocated in the order of a stream.
    pub has_memory_pools: bool,
}

impl Device {
    /// Whether it is none of hardware: it runs PTX, not machine code, and its times mean nothing. Such a device says so in its name,
    /// whichever way its driver was opened.
    pub fn is_emulated(&self) -> bool {
        self.name.starts_with("Emulated ")
    }
}

impl Driver {
    /// The device with this ordinal.
    ///
    /// # Errors
    /// There are fewer devices, or the driver refused.
    pub fn device(&self, ordinal: usize) -> Result<Device, Error> {
        let handle = self.device_handle(ordinal)?;
        let attribute = |attribute| self.attribute(handle, attribute);
        Ok(Device {
            ordinal,
            name: self.device_name(handle)?,
            uuid: self.device_uuid(handle).unwrap_or_default(),
            compute_capability: [
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ],
            memory_bytes: self.device_memory(handle)?,
            limits: Limits {
                multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
                l2_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?.into(),
                threads_per_block: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
                threads_per_multiprocessor: attribute(
                    Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR,
                )?,
                registers_per_multiprocessor: attribute(
                    Attribute::CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR,
                )?,
                shared_bytes_per_block: attribute(
                    Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK,
                )?,
                shared_bytes_per_block_opt_in: attribute(
                    Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
                )?,
                shared_bytes_per_multiprocessor: attribute(
                    Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
                )?,
                clock_khz: attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?,
                memory_clock_khz: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?,
                memory_bus_bits: attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?,
                can_launch_cooperatively: attribute(
                    Attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH,
                )? != 0,
                can_form_clusters: attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH)? != 0,
                has_memory_pools: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)?
                    != 0,
            },
        })
    }

    /// Every device there is.
    ///
    /// # Errors
    /// The driver refused.
    pub fn devices(&self) -> Result<Vec<Device>, Error> {
        (0..self.device_count()?)
            .map(|ordinal| self.device(ordinal))
            .collect()
    }

    pub(super) fn device_handle(&self, ordinal: usize) -> Result<CUdevice, Error> {
        let count = self.device_count()?;
        let number = c_int::try_from(ordinal).ok().filter(|_| ordinal < count);
        let Some(number) = number else {
            let has = match count {
                0 => "no device".to_owned(),
                1 => "one device, number 0".to_owned(),
                count => format!("{count} devices, numbered from 0"),
            };
            return Err(Error::no_device(format!(
                "device {ordinal} does not exist: the driver has {has}"
            )));
        };
        let mut handle = 0;
        // SAFETY: the pointer is to a handle that lives through the call.
        unsafe { self.cuDeviceGet(&raw mut handle, number)? };
        Ok(handle)
    }

    fn attribute(&self, device: CUdevice, attribute: CUdevice_attribute) -> Result<u32, Error> {
        let mut value = 0;
        // SAFETY: `device` came from the driver; the pointer is to an integer that lives through the call.
        unsafe { self.cuDeviceGetAttribute(&raw mut value, attribute, device)? };
        Ok(value.unsigned_abs())
    }

    fn device_name(&self, device: CUdevice) -> Result<String, Error> {
        let mut name: [c_char; 256] = [0; 256];
        // SAFETY: the driver writes 255 bytes and a zero at most; the zero after them is ours.
        unsafe { self.cuDeviceGetName(name.as_mut_ptr(), 255, device)? };
        // SAFETY: the last byte is zero.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) };
        Ok(name.to_string_lossy().into_owned())
    }

    fn device_uuid(&self, device: CUdevice) -> Result<String, Error> {
        let mut uuid = CUuuid { bytes: [0; 16] };
        // SAFETY: the pointer is to 16 bytes that live through the call.
        unsafe { self.cuDeviceGetUuid_v2(&raw mut uuid, device)? };
        let mut text = "GPU-".to_owned();
        for (index, byte) in uuid.bytes.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        Ok(text)
    }

    fn device_memory(&self, device: CUdevice) -> Result<u64, Error> {
        let mut bytes = 0;
        // SAFETY: the pointer is to an integer that lives through the call.
        unsafe { self.cuDeviceTotalMem_v2(&raw mut bytes, device)? };
        Ok(bytes as u64)
    }
}
