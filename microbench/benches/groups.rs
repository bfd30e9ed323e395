//! All groups of benchmarks but `launch`: `cargo bench -- gemm`, `cargo bench -- --quick` ([docs/bench.md]).
//!
//! [docs/bench.md]: https://github.com/stepscope/stepscope/blob/main/docs/bench.md

#![allow(
    clippy::print_stderr,
    reason = "a program: what failed is said on standard error"
)]

use std::process::ExitCode;
use std::sync::Arc;

use stepscope_device::driver::Driver;
use stepscope_microbench::benches::{Surroundings, run};

fn emulated() -> Result<Arc<Driver>, stepscope_device::Error> {
    // SAFETY: the emulator's functions have the signatures and the meaning of cuda.h, and are part of this program.
    unsafe { Driver::emulated(stepscope_emulator::driver::symbol) }
}

fn main() -> ExitCode {
    match run(Surroundings::of_this_program(Some(emulated))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.to_string().lines() {
                eprintln!("error: {line}");
            }
            ExitCode::from(if error.is_input() { 2 } else { 1 })
        }
    }
}
