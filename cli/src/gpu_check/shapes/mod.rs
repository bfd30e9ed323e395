//! Every GEMM and attention shape of the models: right first, then timed beside a peer.
//!
//! Ours and cuBLASLt's products run in this process, in graphs of many launches over copies of the inputs that together outgrow the
//! L2 cache, replayed in turn between CUDA events. Attention has torch's as its peer, in a process of its own behind ours. On an
//! emulated device small shapes run once for their results, and nothing has a time.

mod attention;
mod gemm;
mod inputs;
mod list;
mod method;
mod sdpa;
mod table;
mod timing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use stepscope_device::cublaslt::{CublasLt, Handle};
use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::{Backend, DType};
use stepscope_profiler::gpus;

use crate::args::Device;
use crate::args::gpu_check::GpuCheck;
use crate::device::Gpu;
use crate::output::{Failure, print_stderr, write_stdout};

use self::attention::Requests;
use self::inputs::{Difference, Pattern};
use self::list::{Operation, Shape, shapes};
use self::sdpa::Sdpa;
use self::timing::Measured;

/// Seconds that the stage takes when nobody says how long it may.
pub(super) const SECONDS: u64 = 100;
/// The part of the time that is ours, where torch is asked, too.
const OUR_PART: f64 = 0.65;

/// A shape to look at.
#[derive(Debug)]
struct Wanted<'a> {
    cuda: &'a Cuda,
    pattern: &'a Pattern,
    /// Copies of everything that a launch reads and writes.
    copies: usize,
    is_timed: bool,
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
    sdpa: Option<sdpa::Row>,
}

/// What the rows are to be read with.
#[derive(Debug)]
struct Conditions {
    is_emulated: bool,
    cublaslt: Result<Arc<Handle>, String>,
    sdpa: Sdpa,
    data_sheet: Option<&'static gpus::Gpu>,
    /// What copies within the device's memory reach, read and written bytes together.
    copy_gb_per_s: Option<f64>,
}

pub(super) fn run(args: &GpuCheck) -> Result<(), Failure> {
    let start = Instant::now();
    let limit = Duration::from_secs(args.seconds.map_or(SECONDS, |seconds| seconds as u64));
    let gpu = Gpu::start(args.device)?;
    let cuda = gpu.cuda(DType::BF16)?;
    let device = cuda.context().device().clone();
    let is_emulated = gpu.is_emulated();
    let wanted = wanted_shapes(args.small || is_emulated)?;
    let pattern = Pattern::new(&cuda)?;
    let mut conditions = Conditions {
        is_emulated,
        cublaslt: open_cublaslt(&cuda),
        sdpa: Sdpa::default(),
        data_sheet: gpus::find(&device.name).ok().filter(|_| !is_emulated),
        copy_gb_per_s: None,
    };
    if !is_emulated {
        conditions.copy_gb_per_s = timing::copy_gb_per_s(&cuda)?;
    }
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
                let wanted = Wanted {
                    cuda: &cuda,
                    pattern: &pattern,
                    copies,
                    is_timed: !is_emulated,
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
    conditions.sdpa = match args.device {
        _ if is_emulated => Sdpa {
            missing: Some("torch runs on GPUs only, and this device is emulated".to_owned()),
            ..Sdpa::default()
        },
        Device::Cuda { ordinal } => {
            ask_torch(&mut rows, ordinal, device.limits.l2_bytes, start + limit)
        }
        _ => ask_torch(&mut rows, 0, device.limits.l2_bytes, start + limit),
    };
    print_stderr(&table::render(&rows, &conditions));
    let summary = table::summary(&rows, &conditions);
    let document = json!({
        "schema": "stepscope.shapes/1",
        "device": gpu.describe()?,
        "summary": summary,
        "timer": if is_emulated { "none" } else { "cuda_events" },
        "peers": conditions.peers(),
        "limits": conditions.limits(),
        "rows": rows.iter().map(|row| row.to_json(&conditions)).collect::<Vec<_>>(),
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

fn open_cublaslt(cuda: &Cuda) -> Result<Arc<Handle>, String> {
    let device = cuda.context().device();
    if device.is_emulated() {
        return Err("cuBLASLt runs on NVIDIA's GPUs only, and this device is emulated".to_owned());
    }
    let opened = CublasLt::open().and_then(|library| Handle::new(&library, cuda.context()));
    opened.map(Arc::new).map_err(|error| error.to_string())
}

/// Copies of what a launch of the shape works on.
fn copies_of(shape: &Shape, gpu: &Gpu, l2_bytes: u64) -> Result<usize, Failure> {
    match gpu.is_emulated() {
        // Enough for the last to be another one than the first.
        true => Ok(2),
        false => Ok(method::copies(shape.bytes(), l2_bytes, gpu.free_memory()?)),
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

/// Lets torch measure the shapes that ours has times of, in what is left until `end`.
fn ask_torch(rows: &mut [Row], ordinal: usize, l2_bytes: u64, end: Instant) -> Sdpa {
    const RESERVE: Duration = Duration::from_secs(3);
    const LEAST: Duration = Duration::from_secs(10);
    let left = end
        .saturating_duration_since(Instant::now())
        .saturating_sub(RESERVE);
    if left < LEAST {
        return Sdpa {
            missing: Some("no time was left".to_owned()),
            ..Sdpa::default()
        };
    }
    let shapes: Vec<&Shape> = rows.iter().map(|row| &row.shape).collect();
    let mut sdpa = sdpa::measure(&shapes, ordinal, l2_bytes, left);
    for (id, row) in std::mem::take(&mut sdpa.rows) {
        if let Some(of) = rows.get_mut(id) {
            of.sdpa = Some(row);
        }
    }
    sdpa
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
        self.outcome()?.measured.as_ref()?.ours.median()
    }

    /// Of the peer that this operation has.
    fn theirs(&self) -> Option<&method::Times> {
        match (&self.sdpa, self.outcome()) {
            (Some(sdpa::Row::Measured { times, .. }), _) => Some(times),
            (_, Some(outcome)) => outcome.measured.as_ref()?.theirs.as_ref(),
            _ => None,
        }
    }

    fn theirs_us(&self) -> Option<f64> {
        self.theirs()?.median()
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
        Some(method::floor_us(data_sheet?, cost.flops, cost.bytes()) / self.ours_us()?)
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
            (Fate::Done(_), Some(sdpa::Row::Failed(why))) => Some(format!("SDPA: {why}")),
            (Fate::Done(outcome), _) => outcome.note.clone(),
        }
    }

    fn to_json(&self, conditions: &Conditions) -> Value {
        let mut json = self.shape.to_json();
        let outcome = self.outcome();
        let checked = outcome.map(|outcome| &outcome.checked);
        let measured = outcome.and_then(|outcome| outcome.measured.as_ref());
        let backend = match &self.sdpa {
            Some(sdpa::Row::Measured { backend, .. }) => backend.as_deref(),
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
            "launches": measured.map(|measured| measured.launches),
            "ours_us": measured.map(|measured| measured.ours.to_json()),
            "peer": self.theirs().map(|_| self.peer()),
            "peer_backend": backend,
            "peer_us": self.theirs().map(method::Times::to_json),
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
