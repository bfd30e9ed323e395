//! The state of a GPU while something runs on it, through NVML.
//!
//! A [`Monitor`] reads clocks, power, temperature, what holds the clocks down, memory and who else is there, and on GPUs since Hopper
//! the utilisation counters that NVML calls GPM.
//!
//! **Invariant:** it reads. No setting of a GPU is ever changed.

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::error::{Bits, NvmlError};
use nvml_wrapper::gpm::{GpmSample, gpm_metrics_get};

use crate::Error;
use crate::library::{self, Library};

/// The state of a GPU at one moment; each value as far as NVML tells it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GpuSample {
    /// The clock of the multiprocessors.
    pub sm_clock_mhz: Option<u32>,
    /// The clock of the memory.
    pub memory_clock_mhz: Option<u32>,
    /// Power drawn; on most GPUs since Ampere an average over a second.
    pub power_milliwatts: Option<u32>,
    /// The temperature of the chip.
    pub temperature_celsius: Option<u32>,
    /// What holds the clocks down, as NVML's bits: those without a name in this version too.
    pub throttle_bits: Option<u64>,
    /// Share of the last sampling period in which a kernel ran, percent.
    pub utilization_percent: Option<u32>,
    /// Memory in use, by whomever.
    pub used_memory_bytes: Option<u64>,
    /// Processes that compute on it, beside this one.
    pub other_processes: Option<u32>,
    /// Energy since the driver was loaded.
    pub energy_millijoules: Option<u64>,
    /// What GPM measured since the sample before, of the whole GPU.
    pub gpm: Option<Gpm>,
}

/// Averages over the time between two samples, percent of the most there can be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gpm {
    /// Time in which the multiprocessors were busy.
    pub sm_percent: f64,
    /// Time in which the tensor cores were busy.
    pub tensor_percent: f64,
    /// Bandwidth of device memory.
    pub dram_percent: f64,
}

/// Reads one GPU's state.
#[derive(Debug)]
pub struct Monitor {
    nvml: &'static Nvml,
    device: nvml_wrapper::Device<'static>,
    /// The sample before, where the GPU has GPM.
    last: Option<GpmSample<'static>>,
    has_gpm: bool,
}

impl Monitor {
    /// Watches the GPU with this UUID, as the driver gives it. NVML counts in the order of the bus, whatever
    /// `CUDA_VISIBLE_DEVICES` says.
    ///
    /// # Errors
    /// NVML is nowhere, or does not know the GPU.
    pub fn open(uuid: &str) -> Result<Monitor, Error> {
        let found = library::open(Library::Nvml)?;
        let refused = |what: String, error: &NvmlError| {
            Error::profiler(format!(
                "NVML ({}) {what}: {error}; see `stepscope doctor`",
                found.path.display()
            ))
        };
        let nvml = Nvml::builder().lib_path(found.path.as_os_str()).init();
        let nvml = nvml.map_err(|error| refused("cannot be started".to_owned(), &error))?;
        // A library that was opened stays loaded, and what it gives lives as long.
        let nvml: &'static Nvml = Box::leak(Box::new(nvml));
        let device = nvml
            .device_by_uuid(uuid)
            .map_err(|error| refused(format!("does not know the GPU {uuid}"), &error))?;
        let has_gpm = device.gpm_support().unwrap_or(false);
        Ok(Monitor {
            nvml,
            device,
            last: None,
            has_gpm,
        })
    }

    /// The state now. It takes some tens to hundreds of microseconds of a host thread, and nothing of the GPU's.
    pub fn sample(&mut self) -> GpuSample {
        let device = &self.device;
        let processes = device.running_compute_processes().ok();
        let processes: Option<Vec<u32>> =
            processes.map(|all| all.iter().map(|process| process.pid).collect());
        GpuSample {
            sm_clock_mhz: device.clock_info(Clock::SM).ok(),
            memory_clock_mhz: device.clock_info(Clock::Memory).ok(),
            power_milliwatts: device.power_usage().ok(),
            temperature_celsius: device.temperature(TemperatureSensor::Gpu).ok(),
            throttle_bits: bits(device.current_throttle_reasons_strict()),
            utilization_percent: device.utilization_rates().ok().map(|u| u.gpu),
            used_memory_bytes: device.memory_info().ok().map(|memory| memory.used),
            other_processes: processes.map(|all| others(&all, std::process::id())),
            energy_millijoules: device.total_energy_consumption().ok(),
            gpm: self.gpm(),
        }
    }

    fn gpm(&mut self) -> Option<Gpm> {
        if !self.has_gpm {
            return None;
        }
        let now = self.device.gpm_sample().ok()?;
        let before = self.last.replace(now)?;
        let metrics = [
            GpmMetricId::SmUtil,
            GpmMetricId::AnyTensorUtil,
            GpmMetricId::DramBwUtil,
        ];
        let results = gpm_metrics_get(self.nvml, &before, self.last.as_ref()?, &metrics).ok()?;
        let mut values = results.into_iter().map(|result| Some(result.ok()?.value));
        Some(Gpm {
            sm_percent: values.next()??,
            tensor_percent: values.next()??,
            dram_percent: values.next()??,
        })
    }
}

/// The bits, those without a name included.
fn bits(reasons: Result<ThrottleReasons, NvmlError>) -> Option<u64> {
    match reasons {
        Ok(reasons) => Some(reasons.bits()),
        Err(NvmlError::IncorrectBits(Bits::U64(bits))) => Some(bits),
        Err(_) => None,
    }
}

/// How many of `processes` are not this one. In a container NVML may tell numbers of the host, among which ours is not; then one of
/// them is taken to be it.
fn others(processes: &[u32], ours: u32) -> u32 {
    let others = processes.iter().filter(|&&pid| pid != ours).count();
    let unseen = usize::from(others == processes.len());
    u32::try_from(others.saturating_sub(unseen)).unwrap_or(u32::MAX)
}

/// What holds clocks down, in words: NVML's names, `sw power cap` for instance, and bits without a name as `0x200`. A GPU that
/// idles is not held down.
pub fn throttle_names(bits: u64) -> Vec<String> {
    let known = ThrottleReasons::from_bits_truncate(bits);
    let names = (known - ThrottleReasons::GPU_IDLE)
        .iter_names()
        .map(|(name, _)| name.to_lowercase().replace('_', " "))
        .filter(|name| name != "none");
    let unknown = bits & !ThrottleReasons::all().bits();
    let unnamed = (0..u64::BITS).map(|bit| unknown & 1 << bit);
    let unnamed = unnamed.filter(|bit| *bit != 0);
    names
        .chain(unnamed.map(|bit| format!("{bit:#x}, which has no name yet")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idling_is_no_throttling_and_unknown_bits_are_kept() {
        assert_eq!(throttle_names(0x1), Vec::<String>::new());
        assert_eq!(throttle_names(0x5), ["sw power cap"]);
        assert_eq!(
            throttle_names(0x208),
            ["hw slowdown", "0x200, which has no name yet"]
        );
        assert_eq!(
            bits(Err(NvmlError::IncorrectBits(Bits::U64(0x204)))),
            Some(0x204)
        );
        assert_eq!(bits(Ok(ThrottleReasons::SW_POWER_CAP)), Some(4));
        assert_eq!(bits(Err(NvmlError::NotSupported)), None);
    }

    #[test]
    fn this_process_is_nobody_else() {
        assert_eq!(others(&[], 7), 0);
        assert_eq!(others(&[7], 7), 0);
        assert_eq!(others(&[7, 8, 9], 7), 2);
        // Numbers of the host, seen from a container.
        assert_eq!(others(&[4711], 7), 0);
        assert_eq!(others(&[4711, 4712], 7), 1);
    }

    #[test]
    fn a_machine_without_nvml_says_so() {
        match Monitor::open("GPU-00000000-0000-0000-0000-000000000000") {
            Ok(_) => panic!("there is no such GPU"),
            Err(error) => assert!(
                error.to_string().contains("libnvidia-ml") || error.to_string().contains("NVML"),
                "{error}"
            ),
        }
    }
}
