//! `stepscope tune`: the fastest variants for the shapes of a model; and the table of them, when a model runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sha2::{Digest as _, Sha256};
use stepscope_engine::model::find_config;
use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::cuda::catalog::Shape;
use stepscope_kernels::{DType, Tuning, TuningSource};
use stepscope_microbench::operations::{self, Builtin, Case, Comparison, copies_for_cold_cache};
use stepscope_microbench::tuning::{Entry, TuningFile, variants};
use stepscope_microbench::{Bench, Measured, Settings};
use stepscope_profiler::report::Table;

use crate::args::tune::Tune;
use crate::device::Gpu;
use crate::emulate::machine::Machine;
use crate::output::{Failure, print_stderr, write_stdout};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Which table runs use, or `none`.
const VARIABLE: &str = "STEPSCOPE_TUNING";
/// A variant that is less faster than this is no winner: medians of one kernel differ as much from one run to the next.
const LEAST_GAIN: f64 = 0.02;

/// A shape of the model's steps.
struct Job {
    operation: &'static str,
    shape: Shape,
}

/// What became of one.
struct Row {
    job: Job,
    variants: usize,
    /// The chooser's median, ns.
    chosen_ns: Option<f64>,
    /// The fastest and its median.
    best: Option<(String, f64)>,
    /// Variants whose results are wrong, and how.
    wrong: Vec<String>,
}

impl Row {
    /// The winner, if it is faster by enough.
    fn entry(&self) -> Option<Entry> {
        let ((variant, best), chosen) = (self.best.as_ref()?, self.chosen_ns?);
        (*best <= chosen * (1.0 - LEAST_GAIN)).then(|| Entry {
            median_ns: Some(*best),
            chosen_ns: Some(chosen),
            ..Entry::new(self.job.operation, &self.job.shape, variant)
        })
    }
}

pub(crate) fn run(args: &Tune) -> Result<ExitCode, Failure> {
    let (name, config) = find_config(&args.model_path)?;
    let dtype = match config.dtype {
        DType::F16 => DType::F16,
        // The kernels store 16-bit types; float32 checkpoints run in bfloat16.
        _ => DType::BF16,
    };
    let machine = Machine::named(&args.arch)?;
    let gpu = Gpu::for_kernels(args.device, machine.compute_capability)?;
    let cuda = gpu.cuda(dtype)?;
    let jobs = jobs(args, &config, dtype)?;
    let mut rows = Vec::new();
    for (index, job) in jobs.into_iter().enumerate() {
        print_stderr(&format!(
            "{}: {} at {}",
            index + 1,
            job.operation,
            job.shape
        ));
        rows.push(tune(&gpu, &cuda, job)?);
    }
    let mut file = TuningFile::new(VERSION, gpu.device(), dtype, &name);
    file.entries = rows.iter().filter_map(Row::entry).collect();
    write_stdout(page(&rows, gpu.is_emulated()).as_bytes())?;
    if gpu.is_emulated() {
        print_stderr("no table is written: an emulated device has no time, and winners need a GPU");
    } else {
        write(args.out.as_deref(), &gpu, dtype, &file)?;
    }
    let wrong: Vec<&String> = rows.iter().flat_map(|row| &row.wrong).collect();
    for wrong in &wrong {
        print_stderr(wrong);
    }
    Ok(match wrong.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The products and the attention of the model's decode and prefill steps, each once.
fn jobs(
    args: &Tune,
    config: &stepscope_engine::model::ModelConfig,
    dtype: DType,
) -> Result<Vec<Job>, Failure> {
    let layout = stepscope_kernels::QkvLayout {
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
    };
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let of_layer = [
        (layout.width(), hidden),
        (hidden, layout.q_width()),
        (2 * inner, hidden),
        (hidden, inner),
    ];
    let mut sizes = BTreeSet::new();
    for &m in args.batch_size.iter().chain(&args.input_len) {
        sizes.extend(of_layer.map(|(n, k)| (m, n, k)));
    }
    // Of a prefill, only the last row of each request has logits.
    sizes.extend(
        args.batch_size
            .iter()
            .map(|&m| (m, config.vocab_size, hidden)),
    );
    let mut jobs = Vec::new();
    let mut add = |operation: &'static str, shape: String| {
        let shape = operations::find(operation)?
            .shape(&shape)?
            .with_dtype(dtype);
        jobs.push(Job { operation, shape });
        Ok::<(), Failure>(())
    };
    for (m, n, k) in sizes {
        add("gemm", format!("M={m},N={n},K={k}"))?;
    }
    for &requests in &args.batch_size {
        for kv_len in &args.kv_len {
            add(
                "attention_decode",
                format!(
                    "requests={requests},heads={},kv_heads={},head_dim={},kv_len={kv_len}",
                    layout.heads, layout.kv_heads, layout.head_dim
                ),
            )?;
        }
    }
    Ok(jobs)
}

fn tune(gpu: &Gpu, cuda: &Cuda, job: Job) -> Result<Row, Failure> {
    let case = Case::new(operations::find(job.operation)?, &job.shape, 1)?;
    let mut builtin = case.builtin(cuda, copies_for_cold_cache(cuda, &case))?;
    let names = variants(job.operation, &job.shape);
    let mut row = Row {
        variants: names.len(),
        job,
        chosen_ns: None,
        best: None,
        wrong: Vec::new(),
    };
    cuda.set_tuning(None);
    row.chosen_ns = measure(cuda, &mut builtin)?.unwrap_or_default();
    for name in names {
        let entry = Entry::new(row.job.operation, &row.job.shape, &name);
        let tuned = entry.tuned().map_err(Failure::run)?;
        cuda.set_tuning(Some(Tuning::new(&[tuned])?));
        let outcome = measure(cuda, &mut builtin);
        cuda.set_tuning(None);
        match outcome? {
            Err(wrong) => row.wrong.push(format!(
                "{} at {}, {name}: {wrong}",
                row.job.operation, row.job.shape
            )),
            Ok(Some(ns)) if row.best.as_ref().is_none_or(|(_, best)| ns < *best) => {
                row.best = Some((name, ns));
            }
            Ok(_) => {}
        }
    }
    gpu.take_reports(); // of no use here, and they would pile up
    Ok(row)
}

/// Its median, where there are times; or what is wrong with its results.
fn measure(cuda: &Cuda, builtin: &mut Builtin<'_>) -> Result<Result<Option<f64>, String>, Failure> {
    builtin.start_over();
    let comparisons = builtin.compare()?;
    if let Some(wrong) = comparisons
        .iter()
        .find(|comparison| !Comparison::is_right(comparison))
    {
        return Ok(Err(wrong.to_string()));
    }
    if cuda.context().device().is_emulated() {
        return Ok(Ok(None));
    }
    match Bench::new(cuda)?.measure(builtin, &Settings::default())? {
        Measured::Timed(series) => Ok(Ok(series.median_ns())),
        Measured::Untimed(_) => Ok(Ok(None)),
    }
}

fn page(rows: &[Row], is_emulated: bool) -> String {
    let mut header = vec!["Operation", "shape", "variants", "wrong"];
    if !is_emulated {
        header.extend(["chosen (µs)", "best (µs)", "best variant", "less time"]);
    }
    let columns = if is_emulated { "llrr" } else { "llrrrrlr" };
    let mut table = Table::new(columns, header.into_iter().map(str::to_owned));
    for row in rows {
        let mut cells = vec![
            row.job.operation.to_owned(),
            row.job.shape.to_string(),
            row.variants.to_string(),
            row.wrong.len().to_string(),
        ];
        if !is_emulated {
            let us = |ns: f64| format!("{:.2}", ns / 1e3);
            let (variant, best) = row.best.clone().unzip();
            cells.push(row.chosen_ns.map_or("–".to_owned(), us));
            cells.push(best.map_or("–".to_owned(), us));
            cells.push(variant.unwrap_or_default());
            let gain = best
                .zip(row.chosen_ns)
                .map(|(best, chosen)| 100.0 * (1.0 - best / chosen));
            let wins = row.entry().is_some();
            cells.push(match gain {
                Some(gain) if wins => format!("{gain:.1} %"),
                _ => String::new(),
            });
        }
        table.row(cells);
    }
    table.render() + "\n"
}

fn write(out: Option<&Path>, gpu: &Gpu, dtype: DType, file: &TuningFile) -> Result<(), Failure> {
    let path = match out {
        Some(path) => path.to_owned(),
        None => TuningFile::default_path(gpu.device(), dtype)
            .ok_or_else(|| Failure::input("there is no home for a cache; name a file by --out"))?,
    };
    let refuse = |error: std::io::Error| {
        Failure::input(format!("{} cannot be written: {error}", path.display()))
    };
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        std::fs::create_dir_all(folder).map_err(refuse)?;
    }
    let text =
        serde_json::to_string_pretty(file).map_err(|error| Failure::run(error.to_string()))?;
    std::fs::write(&path, text + "\n").map_err(refuse)?;
    print_stderr(&format!(
        "{}: {} shapes with another variant than the chooser's",
        path.display(),
        file.entries.len()
    ));
    Ok(())
}

/// Makes `cuda` use the table for its device, if there is one that is for it; says why it does not.
pub(crate) fn apply(cuda: &Cuda) -> Result<(), Failure> {
    let device = cuda.context().device();
    let asked = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
    let (path, is_asked): (PathBuf, bool) = match asked {
        Some(value) if value == "none" => return Ok(()),
        Some(value) => (value.into(), true),
        // Nobody tunes an emulated device.
        None if device.is_emulated() => return Ok(()),
        None => match TuningFile::default_path(device, cuda.dtype()) {
            Some(path) if path.is_file() => (path, false),
            _ => return Ok(()),
        },
    };
    let shown = path.display().to_string();
    let file = match TuningFile::read(&path) {
        Ok(file) => file,
        Err(why) if is_asked => {
            return Err(Failure::input(format!(
                "{VARIABLE}={shown} cannot be read: {why}"
            )));
        }
        Err(why) => {
            print_stderr(&format!("the tuning table {shown} is not used: {why}"));
            return Ok(());
        }
    };
    match file.tuning(VERSION, device, cuda.dtype()) {
        Ok(tuning) => {
            let bytes = std::fs::read(&path).unwrap_or_default();
            let sha256: String = Sha256::digest(&bytes)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            let shapes = tuning.len();
            let source = TuningSource {
                file: shown,
                sha256,
                shapes,
            };
            cuda.set_tuning(Some(tuning.of(source)));
        }
        Err(why) => print_stderr(&format!("the tuning table {shown} is not used: {why}")),
    }
    Ok(())
}
