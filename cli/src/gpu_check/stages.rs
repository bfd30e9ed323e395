//! Stages, each a process of its own, and what became of them.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stepscope_microbench::peers::python::{ending, telling_line, wait};

use super::plan::Planned;

/// What became of a stage.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    end: End,
    pub(super) seconds: Option<f64>,
    /// One line.
    pub(super) detail: String,
    result: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Ok,
    Failed(Option<i32>),
    TimedOut,
    Skipped,
}

/// Where a stage's standard output is kept.
pub(super) fn stdout_file(out: &Path, name: &str) -> std::path::PathBuf {
    out.join(format!("{}.stdout", name.replace(' ', "-")))
}

/// Runs a stage for as long as `limit`; what it prints is kept in `out`.
pub(super) fn run(program: &Path, out: &Path, stage: &Planned, limit: Duration) -> Outcome {
    for path in &stage.appends_to {
        let _ = fs::remove_file(path); // it need not be there
    }
    let stdout = stdout_file(out, &stage.name);
    let stderr = stdout.with_extension("stderr");
    let start = Instant::now();
    let child = File::create(&stdout).and_then(|out| {
        let err = File::create(&stderr)?;
        let mut command = match &stage.program {
            Some(other) => Command::new(other),
            None => Command::new(program),
        };
        command
            .args(&stage.arguments)
            .envs(stage.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        if stage.knows_its_time {
            command.arg("--seconds").arg(limit.as_secs().to_string());
        }
        command.spawn()
    });
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            let what = stage.program.as_deref().unwrap_or("the program");
            return Outcome::skipped(&format!("{what} cannot be started: {error}"));
        }
    };
    let status = wait(&mut child, limit);
    let seconds = start.elapsed().as_secs_f64();
    let text = fs::read_to_string(&stdout).unwrap_or_default();
    let errors = fs::read_to_string(&stderr).unwrap_or_default();
    let result = serde_json::from_str(&text).unwrap_or_else(|_| lines_of(&text));
    let (end, detail) = match status {
        None => (
            End::TimedOut,
            format!("stopped after {:.0} s", limit.as_secs_f64()),
        ),
        Some(status) if status.success() => (End::Ok, summary_of(&result)),
        Some(status) => {
            let why = telling_line(&errors);
            let why = match &stage.program {
                // Errors of this program say what there is to say.
                None => why.to_owned(),
                Some(_) => format!("{}: {why}", ending(status)),
            };
            (End::Failed(status.code()), why)
        }
    };
    let end = match end {
        End::Failed(_) | End::TimedOut if stage.is_optional => End::Skipped,
        end => end,
    };
    Outcome {
        end,
        seconds: Some(seconds),
        detail,
        result,
    }
}

/// Standard output that is no JSON document, line by line.
fn lines_of(text: &str) -> Value {
    json!({ "lines": text.lines().collect::<Vec<_>>() })
}

/// What a stage says of itself, or its most telling lines.
fn summary_of(result: &Value) -> String {
    if let Some(summary) = result["summary"].as_str() {
        return summary.to_owned();
    }
    if let (Some(same), Some(different)) = (result["same"].as_u64(), result["different"].as_u64()) {
        return format!("{same} as emulated, {different} not");
    }
    if let Some(gpu) = result["gpus"][0]["name"].as_str() {
        return gpu.to_owned();
    }
    let lines = result["lines"].as_array();
    let lines = lines.into_iter().flatten().filter_map(Value::as_str);
    let telling = lines
        .skip_while(|line| !line.starts_with("Benchmark"))
        .filter(|line| line.starts_with("Prefill") || line.contains("median"));
    let figures: Vec<&str> = telling
        .filter_map(|line| line.split("latency: ").nth(1)?.split(" s").next())
        .map(str::trim)
        .collect();
    match figures.is_empty() {
        true => String::new(),
        false => format!("prefill and decode, s: {}", figures.join(", ")),
    }
}

impl Outcome {
    pub(super) fn skipped(why: &str) -> Outcome {
        Outcome {
            end: End::Skipped,
            seconds: None,
            detail: why.to_owned(),
            result: Value::Null,
        }
    }

    pub(super) fn is_ok(&self) -> bool {
        self.end == End::Ok
    }

    pub(super) fn is_failure(&self) -> bool {
        matches!(self.end, End::Failed(_) | End::TimedOut)
    }

    pub(super) fn status(&self) -> &'static str {
        match self.end {
            End::Ok => "ok",
            End::Failed(_) => "FAILED",
            End::TimedOut => "TIMED OUT",
            End::Skipped => "skipped",
        }
    }

    pub(super) fn summary(&self) -> String {
        match self.detail.as_str() {
            "" => self.status().to_owned(),
            detail => format!("{}: {detail}", self.status()),
        }
    }

    pub(super) fn to_json(&self, stage: &Planned) -> Value {
        json!({
            "name": stage.name,
            "arguments": stage.arguments,
            "status": self.status().to_lowercase(),
            "exit_code": match self.end {
                End::Ok => Some(0),
                End::Failed(code) => code,
                End::TimedOut | End::Skipped => None,
            },
            "seconds": self.seconds,
            "detail": self.detail,
            "result": self.result,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, is_optional: bool, limit: Duration) -> (Outcome, Value) {
        let scratch = tempfile::tempdir().unwrap();
        let stage = Planned {
            name: "a stage".to_owned(),
            arguments: ["-c", script].map(str::to_owned).to_vec(),
            program: Some("sh".to_owned()),
            is_optional,
            appends_to: vec![scratch.path().join("lines")],
            environment: vec![("LINES_FILE".to_owned(), "lines".to_owned())],
            ..Planned::default()
        };
        fs::write(scratch.path().join("lines"), "of an earlier run").unwrap();
        let outcome = run(Path::new("/nowhere"), scratch.path(), &stage, limit);
        assert!(scratch.path().join("a-stage.stdout").is_file());
        assert!(!scratch.path().join("lines").exists());
        let json = outcome.to_json(&stage);
        (outcome, json)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_result_is_what_was_printed() {
        let (outcome, json) = shell(r#"echo '{"summary": "all well", "n": 1}'"#, false, LONG);
        assert!(outcome.is_ok());
        assert_eq!(outcome.summary(), "ok: all well");
        assert_eq!(json["result"]["n"], 1);
        let (_, json) = shell("echo $LINES_FILE; echo two", false, LONG);
        assert_eq!(json["result"]["lines"], json!(["lines", "two"]));
    }

    #[test]
    fn an_end_without_success_costs_an_optional_stage_nothing() {
        let script = "echo '{\"n\": 1}'; echo 'ValueError: no' >&2; exit 3";
        let (outcome, json) = shell(script, false, LONG);
        assert!(outcome.is_failure());
        assert_eq!(outcome.summary(), "FAILED: exit code 3: ValueError: no");
        assert_eq!([&json["exit_code"], &json["result"]["n"]], [3, 1]);
        let (outcome, _) = shell(script, true, LONG);
        assert!(!outcome.is_failure() && !outcome.is_ok());
        assert_eq!(outcome.summary(), "skipped: exit code 3: ValueError: no");
    }

    #[test]
    fn a_stage_that_hangs_is_stopped_and_keeps_what_it_printed() {
        for (is_optional, status) in [(false, "timed out"), (true, "skipped")] {
            let limit = Duration::from_millis(300);
            let (_, json) = shell("echo before; exec sleep 60", is_optional, limit);
            assert_eq!(json["status"], status);
            assert_eq!(json["detail"], "stopped after 0 s");
            assert_eq!(json["result"]["lines"], json!(["before"]));
        }
    }
}
