//! The groups of benchmarks behind `cargo bench` and `stepscope bench`, over criterion.
//!
//! | group | what is measured |
//! |---|---|
//! | `launch` | what a launch costs the host, by each way to the driver |
//! | `memory` | reads and copies of each level of the memory hierarchy |
//! | `gemm`, `gemv`, `attention`, `norm`, `rope_kv`, `sampling` | single operations at shapes of real models |
//! | `token_pool`, `kv_alloc` | the engine's pools |
//! | `prefill`, `decode` | whole steps |
//! | `host` | the host's work around steps: tokenizer, recorder, record, flame graph |
//!
//! Each runs on the CPU device; `memory`, `prefill` and `decode` on a GPU too, where there is one, and say `skipped: …` where there is none.
//! In test mode (`cargo test --benches`) everything runs once on small shapes, kernels on the emulated device, and is checked.
//!
//! criterion gives the command line, the statistics of one number per sample, and baselines. Everything else of a run (all samples,
//! the timer, roofs, peers) goes into a [`Microbench`](stepscope_profiler::microbench::Microbench) per group, beside criterion's files.
//!
//! **Invariant:** nothing that an emulated device runs has a time.
#![allow(
    clippy::print_stdout,
    reason = "criterion prints its results on standard output; what was skipped belongs between them"
)]

mod arguments;
mod cpu;
mod cpu_roofs;
mod format;
mod gpu;
mod host;
pub mod launch;
mod operations;
mod peer;
mod pools;
mod profile;
mod record;
mod roofs;
mod steps;
mod stopwatch;
mod suite;

use std::sync::Arc;

use stepscope_device::driver::Driver;
use stepscope_profiler::{Environment, Program, environment};

use crate::Error;
use arguments::Arguments;
use suite::Suite;

pub use record::write_record;
pub use stopwatch::{Started, Stopwatch};

/// Opens a driver that the program has within itself.
pub type OpenDriver = fn() -> Result<Arc<Driver>, stepscope_device::Error>;

/// What the program that runs the groups brings along.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Itself, for the record.
    pub program: Program,
    /// The driver of an emulated device, on which kernels are checked in test mode.
    pub emulated: Option<OpenDriver>,
}

impl Surroundings {
    /// Of a program of this repository.
    pub fn of_this_program(emulated: Option<OpenDriver>) -> Surroundings {
        Surroundings {
            program: Program {
                name: "stepscope".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                commit: option_env!("STEPSCOPE_COMMIT").map(str::to_owned),
                command: std::env::args().collect(),
            },
            emulated,
        }
    }

    fn environment(&self) -> Environment {
        environment::measure("", None)
    }
}

/// Runs the groups that the command line of this process asks for, all but [`launch`], with criterion's flags.
///
/// # Errors
/// The filter is none ([`Error::Unusable`]), or a benchmark failed: one line for each.
pub fn run(surroundings: Surroundings) -> Result<(), Error> {
    let arguments = Arguments::parse(std::env::args().skip(1)).map_err(Error::Input)?;
    let mut suite = Suite::new(arguments, surroundings);
    suite.open_wanted_device()?;
    all_others(&mut suite)?;
    suite.finish()
}

/// [`run`], and the group `launch` with the ways of this crate.
///
/// # Errors
/// As [`run`].
pub fn run_all(surroundings: Surroundings) -> Result<(), Error> {
    let arguments = Arguments::parse(std::env::args().skip(1)).map_err(Error::Input)?;
    let mut suite = Suite::new(arguments, surroundings);
    suite.open_wanted_device()?;
    launch::group(&mut suite, &[])?;
    all_others(&mut suite)?;
    suite.finish()
}

fn all_others(suite: &mut Suite) -> Result<(), Error> {
    cpu::run(suite)?;
    gpu::run(suite)?;
    // Short: in front of what may take as long as there is time.
    pools::run(suite);
    operations::run(suite)?;
    steps::run(suite)?;
    host::run(suite)
}
