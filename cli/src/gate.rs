//! `stepscope gate`: which records, the null control, and the exit code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use stepscope_profiler::gate::{self, Observed, Options, Verdict};
use stepscope_profiler::microbench::{self, Microbench};
use stepscope_profiler::{Program, Record};

use crate::args::gate::{Gate, Only};
use crate::output::{Failure, print_stderr, write_stdout};

/// Larger records are refused: read into memory they take several times their size.
const LARGEST_RECORD_BYTES: u64 = 1 << 30;

pub(crate) fn run(args: &Gate) -> Result<ExitCode, Failure> {
    let given = args.base.iter().chain(&args.head);
    let mut given = given.chain(&args.base_files).chain(&args.head_files);
    if given.any(|path| Microbench::is_at(path)) {
        return judge_microbenchmarks(args);
    }
    let side = |one: &Option<PathBuf>, several: &[PathBuf]| {
        let paths: Vec<&Path> = several.iter().chain(one).map(PathBuf::as_path).collect();
        read_side(&paths)
    };
    let base = side(&args.base, &args.base_files)?;
    let head = side(&args.head, &args.head_files)?;
    refuse_repeats(&[&base, &head])?;
    let options = Options {
        thresholds: args.limits.thresholds(),
        select: Only::select(args.only),
        point: args.point,
        across_cards: args.across_cards,
    };
    let observed = |side: &[Process]| side.iter().map(|p| p.observed.clone()).collect::<Vec<_>>();
    let (base_observed, head_observed) = (observed(&base), observed(&head));
    let null = match (&args.null_run, args.null.as_slice()) {
        (Some(program), _) => {
            // What cannot be compared is not worth two runs.
            gate::compare(&base_observed, &head_observed, None, &options)?;
            let [a, b] = run_twice(&base, program.as_deref())?;
            Some((observed(&a), observed(&b)))
        }
        (None, []) => None,
        (None, files) => {
            let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
            let null = read_side(&paths)?;
            refuse_repeats(&[&base, &null])?;
            for process in &null {
                check_build(&base[0], process)?;
            }
            Some((base_observed.clone(), observed(&null)))
        }
    };
    let null = null.as_ref().map(|(a, b)| (a.as_slice(), b.as_slice()));
    let outcome = gate::compare(&base_observed, &head_observed, null, &options)?;
    let text = if args.json {
        format!("{:#}\n", gate::json(&outcome))
    } else if args.markdown {
        gate::markdown(&outcome)
    } else {
        gate::text(&outcome)
    };
    write_stdout(text.as_bytes())?;
    Ok(exit_code(outcome.verdict()))
}

fn exit_code(verdict: Verdict) -> ExitCode {
    match verdict {
        Verdict::Slow => ExitCode::FAILURE,
        Verdict::Unusable => ExitCode::from(2),
        Verdict::Same | Verdict::Fast | Verdict::Ambiguous => ExitCode::SUCCESS,
    }
}

/// Two files of microbenchmarks, row by row.
fn judge_microbenchmarks(args: &Gate) -> Result<ExitCode, Failure> {
    let one = |side: &str, one: &Option<PathBuf>, several: &[PathBuf]| {
        let mut files = one.iter().chain(several);
        match (files.next(), files.next()) {
            (Some(file), None) => Ok(file.clone()),
            _ => Err(Failure::input(format!(
                "{side} has several files; of microbenchmarks give one file a side"
            ))),
        }
    };
    let base = one("BASE", &args.base, &args.base_files)?;
    let head = one("HEAD", &args.head, &args.head_files)?;
    let of_steps = [
        ("--null", !args.null.is_empty()),
        ("--null-run", args.null_run.is_some()),
        ("--only", args.only.is_some()),
        ("--point", args.point.is_some()),
    ];
    if let Some((option, _)) = of_steps.iter().find(|(_, is_given)| *is_given) {
        return Err(Failure::input(format!(
            "{option} is for records of steps, and {} holds microbenchmarks",
            base.display()
        )));
    }
    if fs::canonicalize(&base).ok() == fs::canonicalize(&head).ok() {
        return Err(Failure::input(format!(
            "{} is given twice: it cannot be held against itself",
            base.display()
        )));
    }
    let read =
        |path: &Path| Ok::<_, Failure>((path.display().to_string(), Microbench::read(path)?));
    let ((base_name, base), (head_name, head)) = (read(&base)?, read(&head)?);
    let outcome = microbench::compare(
        (&base_name, &base),
        (&head_name, &head),
        &args.limits.thresholds(),
        args.across_cards,
    )?;
    let text = if args.json {
        format!("{:#}\n", outcome.json())
    } else if args.markdown {
        outcome.markdown()
    } else {
        outcome.text()
    };
    write_stdout(text.as_bytes())?;
    Ok(exit_code(outcome.verdict()))
}

/// One record, with what the gate takes from it.
struct Process {
    path: PathBuf,
    program: Program,
    observed: Observed,
}

fn read_side(paths: &[&Path]) -> Result<Vec<Process>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        files.extend(records_in(path)?);
    }
    files.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<Process, Failure> {
    let bytes = fs::metadata(path).map_or(0, |m| m.len());
    if bytes > LARGEST_RECORD_BYTES {
        return Err(Failure::input(format!(
            "{} has {:.1} GB; the gate reads records up to {:.1} GB: record fewer repetitions, or without --record-all-steps",
            path.display(),
            bytes as f64 / 1e9,
            LARGEST_RECORD_BYTES as f64 / 1e9
        )));
    }
    let record = Record::read(path)?;
    Ok(Process {
        path: path.to_owned(),
        observed: gate::observe(&path.display().to_string(), &record)?,
        program: record.program,
    })
}

/// The records that a path stands for: itself, the folder of a run, or a folder of records or of runs, in the order of their
/// names.
fn records_in(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let record = path.join("record.json");
    if record.exists() {
        return Ok(vec![record]);
    }
    let cannot = |e| Failure::input(format!("cannot read the folder {}: {e}", path.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(cannot)? {
        let entry = entry.map_err(cannot)?.path();
        let inner = entry.join("record.json");
        if inner.is_file() {
            found.push(inner);
        } else if entry.is_file() && entry.extension().is_some_and(|e| e == "json") {
            found.push(entry);
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(Failure::input(format!(
            "{} holds no record: neither record.json, nor folders with one, nor .json files",
            path.display()
        )));
    }
    Ok(found)
}

/// One record given twice would count as two observations, or be compared with itself.
fn refuse_repeats(sides: &[&[Process]]) -> Result<(), Failure> {
    let mut seen = Vec::new();
    for process in sides.iter().flat_map(|side| side.iter()) {
        let file = fs::canonicalize(&process.path).unwrap_or_else(|_| process.path.clone());
        if seen.contains(&file) {
            return Err(Failure::input(format!(
                "{} is given twice: each record counts as one observation",
                process.path.display()
            )));
        }
        seen.push(file);
    }
    Ok(())
}

fn check_build(base: &Process, null: &Process) -> Result<(), Failure> {
    let build = |p: &Program| (p.version.clone(), p.commit.clone());
    if build(&base.program) == build(&null.program) {
        return Ok(());
    }
    Err(Failure::input(format!(
        "--null: {} was made by {}, {} by {}; the control is BASE's own build",
        null.path.display(),
        described(&null.program),
        base.path.display(),
        described(&base.program)
    )))
}

fn described(program: &Program) -> String {
    match &program.commit {
        Some(commit) => format!("version {} ({commit})", program.version),
        None => format!("version {}", program.version),
    }
}

/// Runs BASE's command again, twice per record and in turn (a b, b a, …): a machine that drifts then drifts through both.
fn run_twice(base: &[Process], program: Option<&Path>) -> Result<[Vec<Process>; 2], Failure> {
    let program = match program {
        Some(program) => program.to_owned(),
        None => {
            let (version, commit) = (env!("CARGO_PKG_VERSION"), option_env!("STEPSCOPE_COMMIT"));
            let made = &base[0].program;
            if made.version != version || made.commit.as_deref() != commit {
                return Err(Failure::input(format!(
                    "--null-run: BASE was made by {}, this is version {version}; give that program as --null-run=PROGRAM",
                    described(made)
                )));
            }
            std::env::current_exe()
                .map_err(|e| Failure::run(format!("cannot find this program's file: {e}")))?
        }
    };
    let folder = tempfile::tempdir()
        .map_err(|e| Failure::run(format!("cannot make a temporary folder: {e}")))?;
    let mut sides = [Vec::new(), Vec::new()];
    for (index, process) in base.iter().enumerate() {
        let arguments = rerun_arguments(&process.program.command).map_err(|why| {
            Failure::input(format!("--null-run: {}: {why}", process.path.display()))
        })?;
        for turn in [index % 2, 1 - index % 2] {
            let name = ["null A", "null B"][turn];
            // An argument may span lines: a model's config does.
            let command = arguments.join(" ");
            let command = command.split_whitespace().collect::<Vec<_>>().join(" ");
            print_stderr(&format!("{name} {}: {command}", index + 1));
            let out = folder.path().join(format!("{turn}-{index}"));
            run_once(&program, &arguments, &out)?;
            let mut process = read(&out.join("record.json"))?;
            process.observed.name = format!("{name} {}", index + 1);
            sides[turn].push(process);
        }
    }
    Ok(sides)
}

fn run_once(program: &Path, arguments: &[String], out: &Path) -> Result<(), Failure> {
    let output = Command::new(program)
        .args(arguments)
        .args(["--quiet", "--result-filename", "", "--out"])
        .arg(out)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|e| {
            Failure::input(format!(
                "--null-run: cannot start {}: {e}",
                program.display()
            ))
        })?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = errors.lines().last().unwrap_or("no message");
    Err(Failure::input(format!(
        "--null-run: BASE's command failed here ({}): {}",
        output.status,
        last.trim_start_matches("error: ")
    )))
}

/// The arguments of a recorded `one-batch` without those that say where it writes: a record may come from anywhere, and its
/// command must not overwrite anything here.
fn rerun_arguments(command: &[String]) -> Result<Vec<String>, String> {
    const WITH_VALUE: [&str; 5] = [
        "--out",
        "--result-filename",
        "--run-name",
        "--profile-filename-prefix",
        "--profile-prefix",
    ];
    let mut given = command.iter().skip(1);
    if given.next().map(String::as_str) != Some("one-batch") {
        return Err(
            "its command is no one-batch; give records of another with --null FILE…".to_owned(),
        );
    }
    let mut kept = vec!["one-batch".to_owned()];
    while let Some(argument) = given.next() {
        let name = argument.split('=').next().unwrap_or(argument);
        match name {
            name if WITH_VALUE.contains(&name) => {
                if !argument.contains('=') {
                    given.next();
                }
            }
            "--quiet" | "-q" | "--profile" => {}
            _ => kept.push(argument.clone()),
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::rerun_arguments;

    #[track_caller]
    fn check(command: &str, expected: Result<&str, ()>) {
        let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
        let kept = rerun_arguments(&words).map(|kept| kept.join(" "));
        assert_eq!(kept.as_deref().map_err(|_| ()), expected);
    }

    #[test]
    fn a_rerun_writes_nowhere_else() {
        check(
            "/old/stepscope one-batch --batch 1 2 --out runs/x --input 32 -q",
            Ok("one-batch --batch 1 2 --input 32"),
        );
        check(
            "stepscope one-batch --out=/etc --result-filename=r --profile --run-name a --profile-prefix p",
            Ok("one-batch"),
        );
        check("stepscope generate --prompt x", Err(()));
        check("rm -rf", Err(()));
    }
}
