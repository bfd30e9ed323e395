//! `bench`: the groups of benchmarks, on machines without the repository.
//!
//! criterion reads the command line of the process. So the program starts itself anew under another name, with the words that
//! criterion is to read.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use stepscope_microbench::benches::{Surroundings, run_all};

use crate::args::bench::Bench;
use crate::device::emulated_driver;
use crate::output::{Failure, print_error};

/// What the process is called that runs the groups.
const NAME: &str = "stepscope-bench";

/// Does not come back, unless the program cannot be started.
pub(crate) fn run(args: &Bench) -> Result<(), Failure> {
    let program = std::env::current_exe()
        .map_err(|e| Failure::run(format!("cannot find this program's own file: {e}")))?;
    let mut command = Command::new(program);
    command.arg0(NAME).arg("--bench").args(&args.words);
    if std::env::var_os("CRITERION_HOME").is_none() {
        command.env("CRITERION_HOME", "runs/bench");
    }
    let error = command.exec();
    Err(Failure::run(format!("cannot start the benches: {error}")))
}

/// Whether this process is the one that runs the groups.
pub(crate) fn is_this() -> bool {
    let name = std::env::args_os().next();
    let name = name.as_deref().map(Path::new).and_then(Path::file_name);
    name.is_some_and(|name| name == NAME)
}

/// Runs what the command line asks for.
pub(crate) fn groups() -> ExitCode {
    match run_all(Surroundings::of_this_program(Some(emulated_driver))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.to_string().lines() {
                print_error(line);
            }
            ExitCode::from(if error.is_input() { 2 } else { 1 })
        }
    }
}
