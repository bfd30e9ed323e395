//! Every GEMM and attention shape of the models: right first, then timed beside a peer.
//!
//! Ours and cuBLASLt's products run in this process, in turn, over copies of the inputs that together outgrow the L2 cache, measured
//! as docs/measuring.md says. Attention has torch's as its peer, in a process of its own behind ours. On an
//! emulated device small shapes run once for their results, and nothing has a time.

mod attention;
mod beside;
mod copy;
mod gemm;
mod inputs;
mod list;
mod record;
mod table;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use stepscope_device::cublaslt::Handle;
use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::{Backend, DType};
use stepscope_microbench::benches::{Surroundings, write_record};
use stepscope_microbench::peers::cublaslt;
use stepscope_microbench::peers::torch::{self, Task};
use stepscope_microbench::{Bench, Error, Series, Settings, Work, copies};
use stepscope_profiler::{Environment, environment, gpus};

use crate::args::Device;
use crate::args::gpu_check::GpuCheck;
use crate::device::Gpu;
use crate::output::{Failure, print_stderr, write_stdout};

use self::attention::Requests;
use self::beside::Beside;
use self::inputs::{Difference, Pattern};
use self::list::{Operation, Shape, shapes};

/// Seconds that the stage takes when nobody says how long it may.
pub(super) const SECONDS: u64 = 100;
/// The part of the time that is ours, where torch is asked, too.
const OUR_PART: f64 = 0.55;
/// The part of the rest in which torch is asked for attention; then come whole steps.
const SDPA_PART: f64 = 0.45;
/// What is left over of a limit, to write what came out.
const RESERVE: Duration = Duration::from_secs(3);
/// Where the record lies within the folder of results.
const FOLDER: &str = "shapes";
/// How numbers are stored.
const STORAGE: DType = DType::BF16;
/// The least time that is worth starting a process for.
const LEAST: Duration = Duration::from_secs(10);

/// A shape to look at.
#[derive(Debug)]
struct Wanted<'a> {
    cuda: &'a Cuda,
    pattern: &'a Pattern,
    /// Copies of everything that a launch reads and writes.
    copies: usize,
    /// What a launch cannot do without.
    work: Work,
    bench: &'a Bench<'a>,
    settings: &'a Settings,
}

/// What a shape's results are.
#[derive(Debug, Clone, PartialEq)]
struct Checked {
    /// The kernel that ran, as the operation names it.
    kernel: String,
    /// From sums in float64.
    difference: Difference,
    /// From a peer's results.
    from_peer: Option<Difference>,
}

impl Checked {
    fn is_right(&self) -> bool {
        let agrees = self
            .from_peer
            .is_none_or(|difference| difference.is_right());
        self.difference.is_right() && agrees
    }
}

/// The times of both sides.
#[derive(Debug, Clone, PartialEq)]
struct Measured {
    ours: Series,
    theirs: Option<Series>,
}

#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    checked: Checked,
    /// None of an emulated device, or where results are wrong.
    measured: Option<Measured>,
    /// Why the peer has nothing.
    note: Option<String>,
}

/// What became of a shape.
#[derive(Debug, Clone, PartialEq)]
enum Fate {
    Done(Outcome),
    Failed(String),
    NotMeasured(&'static str),
}

#[derive(Debug)]
struct Row {
    shape: Shape,
    copies: usize,
    fate: Fate,
    /// Of attention.
    sdpa: Option<torch::Row>,
}

/// What the rows are to be read with.
#[derive(Debug)]
struct Conditions {
    is_emulated: bool,
    cublaslt: Result<Arc<Handle>, String>,
    sdpa: torch::Answer,
    data_sheet: Option<&'static gpus::Gpu>,
    /// What copies within the device's memory reach, read and written bytes together.
    copy_gb_per_s: Option<f64>,
}

pub(super) fn run(args: &GpuCheck) -> Result<(), Failure> {
    let start = Instant::now();
    let limit = Duration::from_secs(args.seconds.map_or(SECONDS, |seconds| seconds as u64));
    let gpu = Gpu::start(args.device)?;
    let cuda = gpu.cuda(STORAGE)?;
    let device = cuda.context().device().clone();
    let is_emulated = gpu.is_emulated();
    let wanted = wanted_shapes(args.small || is_emulated)?;
    let pattern = Pattern::new(&cuda)?;
    let bench = Bench::new(&cuda)?;
    let settings = settings();
    let mut conditions = Conditions {
        is_emulated,
        cublaslt: cublaslt::open(&cuda).map_err(|error| error.to_string()),
        sdpa: torch::Answer::default(),
        data_sheet: gpus::find(&device.name).ok().filter(|_| !is_emulated),
        copy_gb_per_s: copy::gb_per_s(&bench, &settings)?,
    };
    let deadline = start + limit.mul_f64(if is_emulated { 0.9 } else { OUR_PART });
    let mut rows = Vec::new();
    let mut is_lost = false;
    for shape in wanted {
        let mut copies = 0;
        let fate = if is_lost {
            Fate::NotMeasured("a kernel crashed before")
        } else if Instant::now() > deadline {
            Fate::NotMeasured("no time was left")
        } else {
            let looked = copies_of(&shape, &gpu, device.limits.l2_bytes).and_then(|of_shape| {
                copies = of_shape;
                let cost = shape.cost();
                let wanted = Wanted {
                    cuda: &cuda,
                    pattern: &pattern,
                    copies,
                    work: Work {
                        flops: cost.flops,
                        bytes: cost.bytes(),
                    },
                    bench: &bench,
                    settings: &settings,
                };
                look_at(&wanted, &shape, conditions.cublaslt.as_ref().ok())
            });
            match looked {
                Ok(outcome) => Fate::Done(outcome),
                Err(failure) => {
                    is_lost = cuda.synchronize().is_err();
                    Fate::Failed(failure.into_message())
                }
            }
        };
        rows.push(Row {
            shape,
            copies,
            fate,
            sdpa: None,
        });
    }
    drop(pattern);
    let end = start + limit;
    let l2_bytes = device.limits.l2_bytes;
    let beside;
    if is_emulated {
        conditions.sdpa = torch::Answer {
            missing: Some("torch runs on GPUs only, and this device is emulated".to_owned()),
            ..torch::Answer::default()
        };
        beside = Beside::without("the device is emulated");
    } else {
        let ordinal = match args.device {
            Device::Cuda { ordinal } => ordinal,
            _ => 0,
        };
        let left = end.saturating_duration_since(Instant::now());
        conditions.sdpa = ask_torch(&mut rows, ordinal, l2_bytes, left.mul_f64(SDPA_PART));
        let left = end.saturating_duration_since(Instant::now());
        beside = match left.checked_sub(RESERVE).filter(|left| *left >= LEAST) {
            Some(left) => {
                let data_sheet = conditions.data_sheet;
                beside::measure(&rows, ordinal, l2_bytes, data_sheet, left)?
            }
            None => Beside::without("no time was left"),
        };
    }
    print_stderr(&table::render(&rows, &conditions));
    print_stderr(&format!("\n{}", beside.render()));
    let summary = table::summary(&rows, &conditions);
    let described = gpu.describe()?;
    let environment = Environment {
        gpu: Some(described.clone()),
        ..environment::measure("", None)
    };
    let folder = args.out.join(FOLDER);
    let program = Surroundings::of_this_program(None).program;
    let lines = record::lines(&rows, &conditions);
    for path in write_record(&folder, &program, &environment, &lines, None)? {
        print_stderr(&format!("every sample: {}", path.display()));
    }
    let document = json!({
        "schema": "stepscope.shapes/1",
        "device": described,
        "summary": summary,
        "timer": if is_emulated { "none" } else { "cuda_events" },
        "peers": conditions.peers(),
        "limits": conditions.limits(),
        "rows": rows.iter().map(|row| row.to_json(&conditions)).collect::<Vec<_>>(),
        "beside": beside.to_json(),
    });
    write_stdout(format!("{document:#}\n").as_bytes())?;
    match rows.iter().all(Row::is_good) {
        true => Ok(()),
        false => Err(Failure::run(summary)),
    }
}

/// The shapes of the models; `small` ones take an emulated device seconds.
fn wanted_shapes(small: bool) -> Result<Vec<Shape>, Failure> {
    if small {
        let overrides = json!({
            "hidden_size": 128, "intermediate_size": 192, "num_attention_heads": 2, "num_key_value_heads": 1,
            "vocab_size": 320,
        });
        let overrides = overrides.as_object().cloned().unwrap_or_default();
        let config = super::config("smollm2-135m", &overrides)?;
        return Ok(shapes("small", &config, &[1, 3], &[1, 3, 40], 24));
    }
    let mut all = Vec::new();
    for model in super::MODELS {
        let config = super::config(model, &Map::new())?;
        all.extend(shapes(model, &config, &[1, 8], &[1, 8, 64], 1024));
    }
    Ok(all)
}

/// A hundred shapes are to be measured in about a minute.
fn settings() -> Settings {
    Settings {
        most_samples: 100,
        least_device_time: Duration::from_millis(50),
        time_limit: Duration::from_millis(500),
        ..Settings::default()
    }
}

/// The times of a measurement. An emulated device has none, and wrong results neither, which their row tells.
fn timed(measured: Result<stepscope_microbench::Measured, Error>) -> Result<Option<Series>, Error> {
    match measured {
        Ok(stepscope_microbench::Measured::Timed(series)) => Ok(Some(series)),
        Ok(stepscope_microbench::Measured::Untimed(_)) | Err(Error::Wrong(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The time below which no launch of this work can be by the data sheet of a GPU, µs.
fn floor_us(gpu: &gpus::Gpu, flops: u64, bytes: u64) -> f64 {
    1e6 * (flops as f64 / gpu.flops_per_s).max(bytes as f64 / gpu.bytes_per_s)
}

fn median_us(series: &Series) -> Option<f64> {
    series.median_ns().map(|ns| ns / 1e3)
}

/// Times of one launch in µs, each sample, and how they were taken.
fn times_to_json(series: &Series) -> Value {
    let us = |ns: f64| ns / 1e3;
    let quartiles = series.quartiles_ns().map(|quartiles| quartiles.map(us));
    json!({
        "median": median_us(series),
        "q1": quartiles.map(|[q1, _]| q1),
        "q3": quartiles.map(|[_, q3]| q3),
        "samples": series.times_ns().into_iter().map(us).collect::<Vec<_>>(),
        "sm_clocks_hz": series.clocks_hz(),
        "set_aside": series.set_aside.iter().map(|sample| us(sample.time_ns)).collect::<Vec<_>>(),
        "l2": series.l2,
        "launch_hidden": series.launch_hidden,
        "stopped": series.stopped,
    })
}

/// Copies of what a launch of the shape works on.
fn copies_of(shape: &Shape, gpu: &Gpu, l2_bytes: u64) -> Result<usize, Failure> {
    match gpu.is_emulated() {
        // Enough for the last to be another one than the first.
        true => Ok(2),
        false => Ok(copies(shape.bytes(), l2_bytes, gpu.free_memory()?)),
    }
}

fn look_at(
    wanted: &Wanted<'_>,
    shape: &Shape,
    cublaslt: Option<&Arc<Handle>>,
) -> Result<Outcome, Failure> {
    match shape.work {
        Operation::Gemm { m, n, k, .. } => gemm::gemm(wanted, [m, n, k], cublaslt),
        Operation::Attention {
            layout,
            queries,
            positions,
        } => attention::attention(
            wanted,
            Requests {
                phase: shape.phase,
                count: shape.batch,
                queries,
                positions,
                layout,
            },
        ),
    }
}

/// Lets torch measure the shapes that are attention, in `limit`.
fn ask_torch(rows: &mut [Row], ordinal: usize, l2_bytes: u64, limit: Duration) -> torch::Answer {
    let left = limit.saturating_sub(RESERVE);
    if left < LEAST {
        return torch::Answer {
            missing: Some("no time was left".to_owned()),
            ..torch::Answer::default()
        };
    }
    let tasks = rows.iter().enumerate();
    let tasks = tasks.filter_map(|(at, row)| Some((at, row.shape.of_torch()?)));
    let (places, tasks): (Vec<usize>, Vec<Task>) = tasks.unzip();
    let mut answer = torch::measure(&tasks, ordinal, l2_bytes, left);
    for (id, row) in std::mem::take(&mut answer.rows) {
        if let Some(&at) = places.get(id) {
            rows[at].sdpa = Some(row);
        }
    }
    answer
}

impl Conditions {
    fn peers(&self) -> Value {
        let cublaslt = match &self.cublaslt {
            Ok(handle) => json!({
                "version": handle.library().version(),
                "path": handle.library().path().display().to_string(),
            }),
            Err(why) => json!({ "missing": why }),
        };
        json!({
            "cublaslt": cublaslt,
            "sdpa": { "torch": self.sdpa.torch, "missing": self.sdpa.missing },
        })
    }

    fn limits(&self) -> Value {
        json!({
            "data_sheet": self.data_sheet,
            "measured_copy_gb_per_s": self.copy_gb_per_s,
        })
    }
}

impl Row {
    /// Neither wrong nor failed. What was left out for want of time is no failure.
    fn is_good(&self) -> bool {
        match &self.fate {
            Fate::Done(outcome) => outcome.checked.is_right(),
            Fate::Failed(_) => false,
            Fate::NotMeasured(_) => true,
        }
    }

    fn outcome(&self) -> Option<&Outcome> {
        match &self.fate {
            Fate::Done(outcome) => Some(outcome),
            Fate::Failed(_) | Fate::NotMeasured(_) => None,
        }
    }

    fn ours_us(&self) -> Option<f64> {
        median_us(&self.outcome()?.measured.as_ref()?.ours)
    }

    /// Of the peer that this operation has.
    fn theirs(&self) -> Option<&Series> {
        match (&self.sdpa, self.outcome()) {
            (Some(torch::Row::Measured { series, .. }), _) => Some(series),
            (_, Some(outcome)) => outcome.measured.as_ref()?.theirs.as_ref(),
            _ => None,
        }
    }

    fn theirs_us(&self) -> Option<f64> {
        median_us(self.theirs()?)
    }

    fn peer(&self) -> &'static str {
        match self.shape.work {
            Operation::Gemm { .. } => "cuBLASLt",
            Operation::Attention { .. } => "SDPA",
        }
    }

    /// Our time by the peer's: above 1, ours is slower.
    fn ratio(&self) -> Option<f64> {
        Some(self.ours_us()? / self.theirs_us()?)
    }

    /// The part of the time that the data sheet's limits leave no choice about.
    fn share_of_limit(&self, data_sheet: Option<&gpus::Gpu>) -> Option<f64> {
        let cost = self.shape.cost();
        Some(floor_us(data_sheet?, cost.flops, cost.bytes()) / self.ours_us()?)
    }

    /// Not faster than the data sheet allows.
    fn is_plausible(&self, data_sheet: Option<&gpus::Gpu>) -> bool {
        self.share_of_limit(data_sheet)
            .is_none_or(|share| share <= 1.0)
    }

    /// Work in a second, by `per_us` in a microsecond.
    fn rate(&self, work: u64, per_us: f64) -> Option<f64> {
        Some(work as f64 / self.ours_us()? / per_us)
    }

    fn tflops(&self) -> Option<f64> {
        self.rate(self.shape.cost().flops, 1e6)
    }

    fn gb_per_s(&self) -> Option<f64> {
        self.rate(self.shape.cost().bytes(), 1e3)
    }

    /// What is not as it should be, in a few words.
    fn note(&self, data_sheet: Option<&gpus::Gpu>) -> Option<String> {
        if self
            .share_of_limit(data_sheet)
            .is_some_and(|share| share > 1.0)
        {
            return Some(
                "faster than the data sheet allows: an error of the measurement".to_owned(),
            );
        }
        match (&self.fate, &self.sdpa) {
            (Fate::Failed(why), _) => Some(format!("FAILED: {why}")),
            (Fate::NotMeasured(why), _) => Some(format!("not measured: {why}")),
            (Fate::Done(outcome), _) if !outcome.checked.difference.is_right() => Some(format!(
                "WRONG: {:.3} times the difference that is allowed",
                outcome.checked.difference.worst
            )),
            (Fate::Done(outcome), _) if !outcome.checked.is_right() => Some(format!(
                "{} DIFFERS: by {:.3} times what is allowed",
                self.peer(),
                outcome.checked.from_peer.unwrap_or_default().worst
            )),
            (Fate::Done(_), Some(torch::Row::Failed(why))) => Some(format!("SDPA: {why}")),
            (Fate::Done(outcome), _) => outcome.note.clone(),
        }
    }

    fn to_json(&self, conditions: &Conditions) -> Value {
        let mut json = self.shape.to_json();
        let outcome = self.outcome();
        let checked = outcome.map(|outcome| &outcome.checked);
        let measured = outcome.and_then(|outcome| outcome.measured.as_ref());
        let backend = match &self.sdpa {
            Some(torch::Row::Measured { backend, .. }) => backend.as_deref(),
            _ => None,
        };
        let more = json!({
            "status": match &self.fate {
                Fate::Done(_) if !self.is_good() => "wrong",
                Fate::Done(_) if !self.is_plausible(conditions.data_sheet) => "implausible",
                Fate::Done(_) => "ok",
                Fate::Failed(_) => "failed",
                Fate::NotMeasured(_) => "not measured",
            },
            "note": self.note(conditions.data_sheet),
            "kernel": checked.map(|checked| &checked.kernel),
            "elements_compared": checked.map(|checked| checked.difference.elements),
            "worst_difference": checked
                .map(|checked| checked.difference.worst)
                .filter(|worst| worst.is_finite()),
            "worst_difference_from_peer": checked
                .and_then(|checked| checked.from_peer)
                .map(|difference| difference.worst)
                .filter(|worst| worst.is_finite()),
            "flops": self.shape.cost().flops,
            "bytes": self.shape.cost().bytes(),
            "copies": self.copies,
            "launches": measured.map(|measured| measured.ours.launches_per_sample),
            "ours_us": measured.map(|measured| times_to_json(&measured.ours)),
            "peer": self.theirs().map(|_| self.peer()),
            "peer_backend": backend,
            "peer_us": self.theirs().map(times_to_json),
            "ours_by_peer": self.ratio(),
            "tflop_per_s": self.tflops(),
            "gb_per_s": self.gb_per_s(),
            "share_of_data_sheet": self.share_of_limit(conditions.data_sheet),
        });
        if let (Value::Object(json), Value::Object(mut more)) = (&mut json, more) {
            json.append(&mut more);
        }
        json
    }
}

#[cfg(test)]
mod tests;
