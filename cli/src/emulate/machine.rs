//! The GPU that is emulated.

use stepscope_device::nvrtc::Arch;
use stepscope_emulator::DeviceOptions;
use stepscope_emulator::count::{Capacity, Occupancy, occupancy};

use crate::output::Failure;

/// What code is compiled for, and the GPU that it runs on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// As `sm_90a`.
    pub(crate) arch: Arch,
    pub(crate) compute_capability: (u32, u32),
    pub(crate) capacity: Capacity,
}

impl Machine {
    /// The machine for an architecture's name.
    pub(crate) fn named(arch: &str) -> Result<Machine, Failure> {
        let unknown = || {
            Failure::input(format!(
                "--arch {arch} cannot be emulated; sm_80, sm_86, sm_89, sm_90 and sm_90a can"
            ))
        };
        let compute_capability = match arch {
            "sm_80" => (8, 0),
            "sm_86" => (8, 6),
            "sm_89" => (8, 9),
            "sm_90" | "sm_90a" => (9, 0),
            _ => return Err(unknown()),
        };
        Ok(Machine {
            arch: arch.parse().map_err(|_| unknown())?,
            compute_capability,
            capacity: Capacity::of(compute_capability).ok_or_else(unknown)?,
        })
    }

    pub(crate) fn options(&self) -> DeviceOptions {
        DeviceOptions {
            compute_capability: self.compute_capability,
            multiprocessors: self.capacity.multiprocessors,
            ..DeviceOptions::default()
        }
    }

    /// How many blocks of this size a multiprocessor holds. `registers` of a thread, where they are known.
    pub(crate) fn occupancy(
        &self,
        threads: u32,
        registers: Option<u32>,
        shared_bytes: u32,
    ) -> Result<Occupancy, Failure> {
        occupancy(self.compute_capability, threads, registers, shared_bytes)
            .ok_or_else(|| Failure::run("nothing is known about this device's occupancy"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_architectures_are_refused() {
        for arch in ["sm_75", "sm_100a", "compute_90", "", "90"] {
            assert!(Machine::named(arch).is_err());
        }
    }
}
