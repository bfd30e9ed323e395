//! `stepscope lab --watch`: again whenever the file is saved.
//!
//! Each run is a process of its own: a kernel that crashes takes its device's context with it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::changes;
use crate::args::lab::Check;
use crate::output::{Failure, print_stderr, write_stdout};

/// How long a save stays unseen at most; looking costs a few microseconds.
const PAUSE: Duration = Duration::from_millis(150);

pub(super) fn run(args: &Check) -> Result<ExitCode, Failure> {
    let mut files: Vec<PathBuf> = args.kernel.iter().cloned().collect();
    if !["builtin", "cublaslt"].contains(&args.against.as_str()) {
        files.push(PathBuf::from(&args.against));
    }
    let folder = tempfile::tempdir()
        .map_err(|error| Failure::run(format!("no temporary folder: {error}")))?;
    let save = folder.path().join("run.json");
    let program = std::env::current_exe()
        .map_err(|error| Failure::run(format!("this program cannot be started again: {error}")))?;
    let mut before: Option<Value> = None;
    loop {
        let seen = states(&files);
        let _ = std::fs::remove_file(&save); // it is not there at first
        let mut command = Command::new(&program);
        let status = command.args(of_one_run(&save)).status();
        status.map_err(|error| Failure::run(format!("{}: {error}", program.display())))?;
        let now = std::fs::read(&save).ok();
        let now: Option<Value> = now.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let (Some(before), Some(now)) = (&before, &now) {
            let text = match changes::since(before, now) {
                Some(table) => format!("\n{table}\n"),
                None => "\nsince the last run nothing changed\n".to_owned(),
            };
            write_stdout(text.as_bytes())?;
        }
        // After a run that did not compile, the last one that did is what changes are told of.
        before = now.or(before);
        print_stderr(&format!(
            "waiting for {} to be saved; Ctrl-C ends this",
            files[0].display()
        ));
        while states(&files) == seen {
            std::thread::sleep(PAUSE);
        }
        write_stdout(format!("\n{}\n\n", "─".repeat(60)).as_bytes())?;
    }
}

/// When each file was saved last; nothing while an editor replaces it.
fn states(files: &[PathBuf]) -> Vec<Option<(SystemTime, u64)>> {
    let state = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(state).collect()
}

/// The arguments of this process, for one run that leaves its document in `save`.
fn of_one_run(save: &Path) -> Vec<OsString> {
    let mine = std::env::args_os().skip(1);
    let mut arguments: Vec<OsString> = mine.filter(|argument| argument != "--watch").collect();
    arguments.extend(["--save".into(), save.into()]);
    arguments
}
