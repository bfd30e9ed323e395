//! The group `launch`: what a launch costs the host, by each way to the driver ([docs/bench.md]).
//!
//! [docs/bench.md]: https://github.com/stepscope/stepscope/blob/main/docs/bench.md

#![allow(
    clippy::print_stderr,
    reason = "a program: what failed is said on standard error"
)]

#[cfg(feature = "cust")]
mod cust_symbols;
#[cfg(feature = "cust")]
mod cust_way;

use std::process::ExitCode;

use stepscope_microbench::benches::{Surroundings, launch};

fn main() -> ExitCode {
    #[cfg(feature = "cust")]
    let more: &[(&'static str, launch::MakeWay)] = &[("cust", cust_way::Cust::make)];
    #[cfg(not(feature = "cust"))]
    let more: &[(&'static str, launch::MakeWay)] = &[];
    match launch::run(Surroundings::of_this_program(None), more) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.to_string().lines() {
                eprintln!("error: {line}");
            }
            ExitCode::from(if error.is_input() { 2 } else { 1 })
        }
    }
}
