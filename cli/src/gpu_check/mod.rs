//! `stepscope gpu-check`: what a machine with a GPU is asked, in one go.

mod fixtures;
mod kernels;
mod stages;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stepscope_profiler::environment;
use stepscope_profiler::report::Table;

use crate::args::gpu_check::{GpuCheck, Stage};
use crate::output::{Failure, print_stderr, write_stdout};

use self::stages::{Outcome, Planned};

pub(crate) fn run(args: &GpuCheck) -> Result<(), Failure> {
    match args.only {
        Some(Stage::Kernels) => return kernels::run(args),
        Some(Stage::Fixtures) => return fixtures::run(args),
        None => {}
    }
    fs::create_dir_all(&args.out)
        .map_err(|e| Failure::input(format!("cannot create {}: {e}", args.out.display())))?;
    let program = std::env::current_exe()
        .map_err(|e| Failure::run(format!("cannot find this program's own file: {e}")))?;
    let started = environment::utc_now();
    let start = Instant::now();
    let limit = Duration::from_secs(60 * args.minutes as u64);
    let mut done = Vec::new();
    for stage in stages::plan(args) {
        let left = limit.saturating_sub(start.elapsed());
        let outcome = stages::run(&program, args, &stage, left);
        print_stderr(&format!("{:28} {}", stage.name, outcome.summary()));
        done.push((stage, outcome));
        write_results(args, &started, &done)?;
    }
    write_stdout(format!("{}\n", table(&done)).as_bytes())?;
    let failed = done.iter().filter(|(_, o)| o.is_failure()).count();
    match failed {
        0 => Ok(()),
        n => Err(Failure::run(format!(
            "{n} of {} stages failed; {} has what each printed",
            done.len(),
            args.out.display()
        ))),
    }
}

/// Everything so far: a run that is killed has it on disk.
fn write_results(
    args: &GpuCheck,
    started: &str,
    done: &[(Planned, Outcome)],
) -> Result<(), Failure> {
    let stages: Vec<Value> = done
        .iter()
        .map(|(stage, outcome)| outcome.to_json(stage))
        .collect();
    let document = json!({
        "schema": "stepscope.gpu-check/1",
        "program": { "version": env!("CARGO_PKG_VERSION"), "commit": option_env!("STEPSCOPE_COMMIT") },
        "command": std::env::args().collect::<Vec<_>>(),
        "started": started,
        "stages": stages,
    });
    let path = args.out.join("results.json");
    write(&path, format!("{document:#}\n").as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes)
        .map_err(|e| Failure::run(format!("cannot write {}: {e}", path.display())))
}

fn table(done: &[(Planned, Outcome)]) -> String {
    let mut table = Table::new("llrl", ["stage", "", "seconds", ""].map(str::to_owned));
    for (stage, outcome) in done {
        table.row([
            stage.name.clone(),
            outcome.status().to_owned(),
            outcome
                .seconds
                .map_or_else(String::new, |seconds| format!("{seconds:.1}")),
            outcome.detail.clone(),
        ]);
    }
    table.render()
}
