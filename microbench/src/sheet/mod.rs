//! What a GPU really does: probes, each of one thing.
//!
//! [`run`] measures them group by group ([`Group`]) and gives rows for a
//! [`DeviceSheet`](stepscope_profiler::device_sheet::DeviceSheet). A group is a module here with the source of its kernels beside it;
//! `docs/device-sheet.md` says of every probe what it claims, in which regime that holds, and what is expected.
//!
//! - Latencies and rates per clock are counted in cycles by the kernel (`clock64`), with the clock that it ran at beside them. The loop
//!   around what is measured is taken out by a second kernel whose loop is twice as long: the difference has no loop in it.
//! - Bandwidths and rates per second are timed from outside, by [`Bench`].
//! - Every result is checked: of arithmetic, of the place where a chase ends, of the sum of what was read. On an emulated device the
//!   work is counted, too, and must be what the probe claims, exactly.
//!
//! **Invariant:** no setting of a device is changed, and an emulated device has no value.

mod arithmetic;
mod atomics;
mod context;
mod energy;
mod kernels;
mod latency;
mod launch;
mod loops;
mod memory;
mod mma;
mod numbers;
mod shared;
mod stamps;
mod timers;
mod transfer;
mod wgmma;

use std::time::Instant;

use stepscope_device::nvrtc::{Arch, Program};
use stepscope_profiler::device_sheet::{Group, Row};

use crate::{Bench, Error};

pub use context::{Counted, Counts};

/// What a person chooses.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// These groups alone; all if there is none.
    pub only: Vec<Group>,
    /// Fewer samples and fewer points.
    pub quick: bool,
    /// What has not begun by then is skipped.
    pub until: Option<Instant>,
}

/// Measures the device of `bench`. `counts` tells what an emulated device counted since it was last asked; `seen` is shown each row
/// as it comes.
///
/// A probe that fails or is wrong is a row that says so, and costs no other.
///
/// # Errors
/// The device has no memory for anything.
pub fn run(
    bench: &Bench<'_>,
    options: &Options,
    counts: Option<Counts<'_>>,
    seen: &mut dyn FnMut(&Row),
) -> Result<Vec<Row>, Error> {
    let mut context = context::Context::new(bench, options, counts, seen)?;
    for group in Group::ALL {
        if !options.only.is_empty() && !options.only.contains(&group) {
            continue;
        }
        match group {
            Group::Memory => memory::run(&mut context),
            Group::Shared => shared::run(&mut context),
            Group::Latency => latency::run(&mut context),
            Group::Tensor => {
                mma::run(&mut context);
                wgmma::run(&mut context);
            }
            Group::Arithmetic => arithmetic::run(&mut context),
            Group::Atomics => atomics::run(&mut context),
            Group::Launch => launch::run(&mut context),
            Group::Timers => timers::run(&mut context),
            Group::Transfer => transfer::run(&mut context),
            Group::Energy => energy::run(&mut context),
        }
    }
    Ok(context.into_rows())
}

/// All programs of the probes for an architecture, as machines without a compiler need them.
pub fn programs(arch: Arch) -> Vec<Program> {
    let mut programs = vec![
        memory::program(),
        shared::program(),
        latency::program(),
        mma::program(),
        arithmetic::program(),
        atomics::program(),
        launch::program(),
    ];
    if wgmma::is_for(arch) {
        programs.push(wgmma::program());
    }
    programs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Machines without a compiler get every program that a run loads, each under a name of its own.
    #[test]
    fn there_is_a_program_for_every_group_with_kernels() {
        for (arch, count) in [("sm_80", 7), ("sm_90a", 8), ("sm_100a", 7)] {
            let programs = programs(arch.parse().unwrap());
            let mut names: Vec<&str> = programs.iter().map(|p| p.name.as_str()).collect();
            assert!(
                programs
                    .iter()
                    .all(|program| !program.expressions.is_empty())
            );
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{arch}: {names:?}");
        }
    }
}
