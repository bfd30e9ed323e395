//! The GPUs: what they are, and what state they are in.

use std::fs;
use std::path::Path;

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use serde::Serialize;

use crate::Error;
use crate::driver::{Device, Driver};
use crate::nvml::throttle_names;

/// A GPU that the driver sees.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gpu {
    /// What it is.
    #[serde(flatten)]
    pub device: Device,
    /// The state it is in, if NVML tells.
    pub state: Option<GpuState>,
}

/// The state of a GPU at the moment of the examination; each value as far as NVML tells it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct GpuState {
    /// The clock of the multiprocessors now.
    pub sm_clock_mhz: Option<u32>,
    /// The most it can be.
    pub max_sm_clock_mhz: Option<u32>,
    /// The clock of the memory now.
    pub memory_clock_mhz: Option<u32>,
    /// The most it can be.
    pub max_memory_clock_mhz: Option<u32>,
    /// What holds the clocks down, in NVML's names; nothing, if the list is empty.
    pub throttled_by: Option<Vec<String>>,
    /// The temperature of the chip.
    pub temperature_celsius: Option<u32>,
    /// The power it draws.
    pub power_watts: Option<f64>,
    /// The power that it may draw.
    pub power_limit_watts: Option<f64>,
    /// Memory in use, by whomever.
    pub used_memory_bytes: Option<u64>,
}

/// Every GPU, with its state if there is an NVML at `nvml_path` that works.
pub(super) fn examine(driver: &Driver, nvml_path: Option<&Path>) -> Result<Vec<Gpu>, Error> {
    let nvml = nvml_path.and_then(|path| Nvml::builder().lib_path(path.as_os_str()).init().ok());
    let gpus = driver.devices()?.into_iter().map(|device| Gpu {
        state: nvml.as_ref().and_then(|nvml| state(nvml, &device.uuid)),
        device,
    });
    Ok(gpus.collect())
}

/// By UUID: NVML counts in the order of the bus, whatever `CUDA_VISIBLE_DEVICES` says.
fn state(nvml: &Nvml, uuid: &str) -> Option<GpuState> {
    let device = nvml.device_by_uuid(uuid).ok()?;
    let watts = |milliwatts: u32| f64::from(milliwatts) / 1000.0;
    Some(GpuState {
        sm_clock_mhz: device.clock_info(Clock::SM).ok(),
        max_sm_clock_mhz: device.max_clock_info(Clock::SM).ok(),
        memory_clock_mhz: device.clock_info(Clock::Memory).ok(),
        max_memory_clock_mhz: device.max_clock_info(Clock::Memory).ok(),
        throttled_by: device
            .current_throttle_reasons()
            .ok()
            .map(|reasons| throttle_names(reasons.bits())),
        temperature_celsius: device.temperature(TemperatureSensor::Gpu).ok(),
        power_watts: device.power_usage().ok().map(watts),
        power_limit_watts: device.enforced_power_limit().ok().map(watts),
        used_memory_bytes: device.memory_info().ok().map(|memory| memory.used),
    })
}

/// The version of the driver's kernel module.
pub(super) fn kernel_module_version() -> Option<String> {
    let text = fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    version_in(&text)
}

/// `580.65.06` of `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build …`.
fn version_in(text: &str) -> Option<String> {
    let mut words = text
        .lines()
        .find(|line| line.starts_with("NVRM"))?
        .split_whitespace();
    let is_version = |word: &&str| {
        word.contains('.')
            && word
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    words.find(is_version).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_modules_version_is_found() {
        let text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (x)  Sun Jul 27\nGCC version:  gcc version 12.3.0\n";
        assert_eq!(version_in(text).as_deref(), Some("580.65.06"));
        assert_eq!(version_in("GCC version: 12.3.0\n"), None);
    }
}
