//! `stepscope gpu-check`: what a machine with a GPU is asked, in one go.

mod fixtures;
mod kernels;
mod plan;
mod sglang;
mod shapes;
mod stages;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use stepscope_engine::model::{ModelConfig, find_config};
use stepscope_profiler::environment;
use stepscope_profiler::report::Table;

use crate::args::gpu_check::{GpuCheck, Stage};
use crate::output::{Failure, print_stderr, write_stdout};

use self::plan::{Planned, Sizes};
use self::sglang::points;
use self::stages::Outcome;

/// The models whose steps and shapes are measured, with random weights.
const MODELS: [&str; 3] = ["qwen2.5-0.5b", "qwen2.5-7b", "llama-3.1-8b"];

/// The least time that is worth starting a stage for.
const LEAST: Duration = Duration::from_secs(5);

/// The models of the steps.
const fn models(small: bool) -> &'static [&'static str] {
    match small {
        true => &["smollm2-135m"],
        false => &MODELS,
    }
}

/// What of a model's config is another one in its steps.
fn overrides(small: bool) -> Map<String, Value> {
    let one_layer = ("num_hidden_layers".to_owned(), json!(1));
    small.then_some(one_layer).into_iter().collect()
}

/// The config of a named shape, these keys of it replaced.
fn config(model: &str, overrides: &Map<String, Value>) -> Result<ModelConfig, Failure> {
    let (name, config) = find_config(model)?;
    let text = config.raw.to_string();
    Ok(ModelConfig::from_json(
        text.as_bytes(),
        Path::new(&name),
        overrides,
    )?)
}

pub(crate) fn run(args: &GpuCheck) -> Result<(), Failure> {
    match args.only {
        Some(Stage::Kernels) => return kernels::run(args),
        Some(Stage::Fixtures) => return fixtures::run(args),
        Some(Stage::Shapes) => return shapes::run(args),
        Some(Stage::Sglang) => return sglang::set_up(args),
        None => {}
    }
    fs::create_dir_all(&args.out)
        .map_err(|e| Failure::input(format!("cannot create {}: {e}", args.out.display())))?;
    let program = std::env::current_exe()
        .map_err(|e| Failure::run(format!("cannot find this program's own file: {e}")))?;
    let started = environment::utc_now();
    let start = Instant::now();
    let whole = Duration::from_secs(60 * args.minutes as u64);
    let stages = plan::plan(args);
    let mut kept: u64 = stages.iter().map(|stage| stage.budget.kept).sum();
    let mut done: Vec<(Planned, Outcome)> = Vec::new();
    for stage in stages {
        kept -= stage.budget.kept;
        let left = whole.saturating_sub(start.elapsed());
        let limit = stage.budget.limit(left, kept);
        let outcome = match without(&stage, &done) {
            Some(why) => Outcome::skipped(&why),
            None if limit < LEAST => Outcome::skipped("no time is left; raise --minutes"),
            None => stages::run(&program, &args.out, &stage, limit),
        };
        print_stderr(&format!("{:28} {}", stage.name, outcome.summary()));
        done.push((stage, outcome));
        write_results(args, &started, &done)?;
    }
    let _ = fs::remove_dir_all(sglang::site(&args.out)); // it is there only with sglang, and made anew
    let mut text = table(&done);
    if let Some(table) = points::table(&pairs(args)) {
        text = format!("{text}\n\n{table}");
    }
    write_stdout(format!("{text}\n").as_bytes())?;
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

/// Why a stage has no chance: the one that it needs did not succeed.
fn without(stage: &Planned, done: &[(Planned, Outcome)]) -> Option<String> {
    let needed = stage.needs?;
    let (_, outcome) = done.iter().find(|(stage, _)| stage.name == needed)?;
    (!outcome.is_ok()).then(|| format!("without the stage {needed}"))
}

/// What sglang has measured so far, beside ours of the same size.
fn pairs(args: &GpuCheck) -> Vec<points::Pair> {
    if args.sglang.is_none() {
        return Vec::new();
    }
    let sizes = Sizes::of(args.small).points();
    let of_model = |model: &&str| {
        let points = |lines: &Path, stage: String| {
            points::of_files(lines, &stages::stdout_file(&args.out, &stage), &sizes)
        };
        let lines = args.out.join(format!("{model}.jsonl"));
        let ours = points(&lines, format!("steps {model}"));
        let lines = sglang::lines_file(&args.out, model);
        let sglang = points(&lines, format!("sglang {model}"));
        points::pairs(model, &ours, &sglang)
    };
    models(args.small).iter().flat_map(of_model).collect()
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
    let pairs = pairs(args);
    let document = json!({
        "schema": "stepscope.gpu-check/1",
        "program": { "version": env!("CARGO_PKG_VERSION"), "commit": option_env!("STEPSCOPE_COMMIT") },
        "command": std::env::args().collect::<Vec<_>>(),
        "started": started,
        "stages": stages,
        "beside_sglang": pairs.iter().map(points::Pair::to_json).collect::<Vec<_>>(),
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
