//! The stages, each a process of this program, and what became of them.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args::gpu_check::GpuCheck;

/// The models whose steps are measured, with random weights, and the batch sizes.
const MODELS: [&str; 3] = ["qwen2.5-0.5b", "qwen2.5-7b", "llama-3.1-8b"];

/// How often it is looked whether a stage has ended.
const POLL: Duration = Duration::from_millis(20);

/// A stage to come.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) name: String,
    arguments: Vec<String>,
    /// Another program than this one.
    program: Option<String>,
    /// What may be missing without harm: then it is skipped.
    is_optional: bool,
    seconds: u64,
}

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

/// The stages in their order: what explains a failure comes before what fails.
pub(super) fn plan(args: &GpuCheck) -> Vec<Planned> {
    let device = args.device.to_string();
    let stage = |name: &str, arguments: &[&str], seconds: u64| Planned {
        name: name.to_owned(),
        arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
        program: None,
        is_optional: false,
        seconds,
    };
    let fixtures = args
        .fixtures
        .as_deref()
        .map(|path| path.display().to_string());
    let mut of_ours = vec!["gpu-check", "--device", &device];
    if args.small {
        of_ours.push("--small");
    }
    if let Some(fixtures) = &fixtures {
        of_ours.extend(["--fixtures", fixtures]);
    }
    let ours = |name: &'static str| [of_ours.as_slice(), &["--only", name]].concat();
    let mut stages = vec![
        stage("doctor", &["doctor", "--json"], 30),
        stage(
            "micro-kernels",
            &["conformance", "--device", &device, "--json"],
            60,
        ),
        stage("kernels", &ours("kernels"), 150),
    ];
    if fixtures.is_some() {
        stages.push(stage("fixtures", &ours("fixtures"), 90));
    }
    let out = |name: &str| args.out.join(name).display().to_string();
    let models: &[&str] = if args.small {
        &["smollm2-135m"]
    } else {
        &MODELS
    };
    let (batches, input, output) = match args.small {
        true => (vec!["1"], "4", "2"),
        false => (vec!["1", "8", "64"], "1024", "64"),
    };
    for model in models {
        let (run, lines) = (out(model), out(&format!("{model}.jsonl")));
        let mut arguments = vec!["one-batch", "--model-path", model, "--load-format", "dummy"];
        arguments.extend(["--device", &device, "--run-name", model, "--out", &run]);
        arguments.extend([
            "--result-filename",
            &lines,
            "--input",
            input,
            "--output",
            output,
        ]);
        arguments.push("--batch");
        arguments.extend(&batches);
        if args.small {
            arguments.extend(["--json-model-override-args", r#"{"num_hidden_layers": 1}"#]);
        }
        stages.push(stage(&format!("steps {model}"), &arguments, 120));
    }
    if let Some(pack) = &args.sglang {
        for model in models {
            let config = pack.join("configs").join(model).display().to_string();
            let script = pack.join("gpu-run.sh").display().to_string();
            let lines = out(&format!("sglang-{model}.jsonl"));
            let pack = pack.display().to_string();
            let mut arguments = vec![script.as_str(), &pack, &config, "--batch-size"];
            arguments.extend(&batches);
            arguments.extend(["--input-len", input, "--output-len", output]);
            arguments.extend(["--result-filename", &lines]);
            stages.push(Planned {
                program: Some("bash".to_owned()),
                is_optional: true,
                ..stage(&format!("sglang {model}"), &arguments, 120)
            });
        }
    }
    stages
}

/// Runs a stage for as long as it may, and no longer than `left`.
pub(super) fn run(program: &Path, args: &GpuCheck, stage: &Planned, left: Duration) -> Outcome {
    const LEAST: Duration = Duration::from_secs(5);
    let limit = left.min(Duration::from_secs(stage.seconds));
    if left < LEAST {
        return Outcome::skipped("no time is left; raise --minutes");
    }
    let name: String = stage.name.replace(' ', "-");
    let stdout = args.out.join(format!("{name}.stdout"));
    let stderr = args.out.join(format!("{name}.stderr"));
    let start = Instant::now();
    let child = File::create(&stdout).and_then(|out| {
        let err = File::create(&stderr)?;
        let mut command = match &stage.program {
            Some(other) => Command::new(other),
            None => Command::new(program),
        };
        command
            .args(&stage.arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
    });
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return Outcome::skipped(&format!("cannot be started: {error}")),
    };
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if start.elapsed() < limit => thread::sleep(POLL),
            Ok(None) | Err(_) => {
                let _ = child.kill(); // it may have ended just now
                let _ = child.wait();
                break None;
            }
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    let text = std::fs::read_to_string(&stdout).unwrap_or_default();
    let errors = std::fs::read_to_string(&stderr).unwrap_or_default();
    let result = serde_json::from_str(&text).unwrap_or_else(|_| lines_of(&text));
    let last_error = errors.lines().rev().find(|line| !line.trim().is_empty());
    let (end, detail) = match status {
        None => (
            End::TimedOut,
            format!("stopped after {:.0} s", limit.as_secs_f64()),
        ),
        Some(status) if status.success() => (End::Ok, summary_of(&result)),
        Some(status) if stage.is_optional => {
            let why = last_error.unwrap_or("it says nothing");
            (
                End::Skipped,
                format!("exit code {:?}: {why}", status.code()),
            )
        }
        Some(status) => {
            let why = last_error.unwrap_or("it says nothing");
            (End::Failed(status.code()), why.to_owned())
        }
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
    fn skipped(why: &str) -> Outcome {
        Outcome {
            end: End::Skipped,
            seconds: None,
            detail: why.to_owned(),
            result: Value::Null,
        }
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
