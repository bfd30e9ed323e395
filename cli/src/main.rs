//! stepscope: takes an LLM inference step apart.

mod args;
mod bench;
mod compare;
mod conformance;
mod device;
mod doctor;
mod emulate;
mod explain;
mod gate;
mod generate;
mod gpu_check;
mod kernel;
mod lab;
mod model;
mod one_batch;
mod output;
mod progress;
mod reports;
mod reproduce;
mod sheet;
mod timing;
mod tune;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};

use crate::args::{Cli, Command};
use crate::output::{Failure, print_error};

fn main() -> ExitCode {
    if bench::is_this() {
        return bench::groups();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(cli.command) {
        Ok(code) => code,
        // Whoever reads our output has seen enough of it.
        Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(Failure::Input(error)) => {
            print_error(&format!("{error:#}"));
            ExitCode::from(2)
        }
        Err(Failure::Run(error)) => {
            print_error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::OneBatch(args) => one_batch::run(&args)?,
        Command::Generate(args) => generate::run(&args)?,
        Command::Report(args) => reports::report(&args)?,
        Command::Explain(args) => explain::run(&args)?,
        Command::Reproduce(args) => reproduce::run(&args)?,
        Command::Compare(args) => return compare::run(&args),
        Command::Flamegraph(args) => reports::flamegraph(&args)?,
        Command::Trace(args) => reports::trace(&args)?,
        Command::Doctor(args) => doctor::run(&args)?,
        Command::Conformance(args) => conformance::run(&args)?,
        Command::Device(args) => sheet::run(&args)?,
        Command::Gate(args) => return gate::run(&args),
        Command::GpuCheck(args) => gpu_check::run(&args)?,
        Command::Emulate(args) => return emulate::run(&args),
        Command::Bench(args) => bench::run(&args)?,
        Command::Kernel(args) => return kernel::run(&args.action),
        Command::Lab(args) => return lab::run(&args),
        Command::Tune(args) => return tune::run(&args),
        Command::Completions { shell } => completions(shell)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Help and version go to standard output; a mistake in the command line is one line on standard error.
fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print(); // a closed pipe is no failure
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(2)
        }
        _ => {
            let text = error.to_string();
            let text = text.split("\n\nUsage:").next().unwrap_or(&text);
            let text = text
                .split("\n\nFor more information")
                .next()
                .unwrap_or(text);
            let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let line = line.strip_prefix("error: ").unwrap_or(&line);
            print_error(&format!("{line}; see --help"));
            ExitCode::from(2)
        }
    }
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "stepscope", &mut script);
    output::write_stdout(&script)
}
