//! The record: what one run was, and what was measured.

use std::borrow::Cow;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

use crate::Error;
use crate::activity::DeviceActivity;
use crate::counts::{self, Finding, KernelCount};
use crate::gpu_watch::GpuWatch;
use crate::measured::CountedStep;
use crate::recorder::{Phase, StepKind, Timer, Work};
use crate::replays::ReplayedOperation;

/// The schema of the records this program writes. A change that breaks readers raises the number.
pub const SCHEMA: &str = "stepscope.record/1";

/// One run of a benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: String,
    /// The program that measured.
    pub program: Program,
    /// When the run started, RFC 3339 in UTC.
    pub started: String,
    /// The machine.
    pub environment: Environment,
    /// What ran.
    pub run: Run,
    /// Memory, in bytes.
    pub memory: Memory,
    /// How times were taken, and what that costs; absent where no GPU ran and the cost was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// What was measured, in the order of the sweep.
    pub points: Vec<Point>,
    /// Points of the sweep that did not fit.
    pub skipped: Vec<Skipped>,
    /// Whether the whole sweep ran; false in the record of a run that was interrupted or failed.
    pub complete: bool,
}

/// How times were taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// What took the times of operations.
    pub timer: Timer,
    /// The version of CUDA that CUPTI came with, where it took them.
    pub cupti: Option<String>,
    /// Why no better timer took them, or what else is to be known of this one.
    pub reason: Option<String>,
    /// What recording costs, where that was measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overhead: Vec<RecordingCost>,
    /// Where the clock of each step ([`Step::sm_clock_mhz`]) comes from; absent where steps have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sm_clock: Option<String>,
}

/// A decode step with recording at some level beside one without.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordingCost {
    /// What was recorded, in words.
    pub what: String,
    /// Median step time with it, nanoseconds.
    pub with_ns: u64,
    /// Median step time without any recording, from steps between those others.
    pub without_ns: u64,
    /// Steps of each.
    pub steps: usize,
}

impl Timing {
    /// That of a device whose calls return when their work is done.
    pub fn of_host() -> Timing {
        Timing {
            timer: Timer::Wall,
            cupti: None,
            reason: None,
            overhead: Vec::new(),
            sm_clock: None,
        }
    }

    /// What took the times of operations, in words.
    pub fn words(&self) -> String {
        match (self.timer, &self.cupti) {
            (Timer::Cupti, Some(version)) => {
                format!("CUPTI of CUDA {version}, every kernel, those inside graphs included")
            }
            (Timer::Cupti, None) => "CUPTI, every kernel, those inside graphs included".to_owned(),
            (Timer::Event, _) => {
                "CUDA events behind every operation; operations inside graphs have no time"
                    .to_owned()
            }
            (Timer::Graph, _) => {
                "CUDA events around phases; operations by replaying graphs of their launches after the steps".to_owned()
            }
            (Timer::Wall, _) => "the host's clock around every operation".to_owned(),
            (Timer::None, _) => {
                "the host's clock for steps and phases; operations have no time".to_owned()
            }
        }
    }
}

/// The program that wrote a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// `stepscope`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The commit it was built from, when known.
    pub commit: Option<String>,
    /// The command line.
    pub command: Vec<String>,
}

/// The machine a run ran on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Host name.
    pub host: Option<String>,
    /// Operating system and its version.
    pub os: String,
    /// The processor.
    pub cpu: Cpu,
    /// Main memory, bytes.
    pub memory_bytes: u64,
    /// Load average over the last minute when the run started: other work on the machine shows here.
    pub load_average: Option<f64>,
    /// The GPU that ran the kernels, or the emulated one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// What this machine can do, measured in this run.
    pub roofs: Option<Roofs>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// As the driver calls it.
    pub name: String,
    /// As nvidia-smi writes it; empty if the driver does not tell.
    pub uuid: String,
    /// Major and minor number.
    pub compute_capability: [u32; 2],
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// L2 cache.
    pub l2_bytes: u64,
    /// Device memory.
    pub memory_bytes: u64,
    /// The clock of the multiprocessors when boosted, and that of the memory, kHz.
    pub clocks_khz: [u32; 2],
    /// The CUDA version that the driver is for.
    pub driver: String,
    /// The version of the compiler that made the kernels.
    pub nvrtc: String,
}

/// A processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// The name it gives itself.
    pub name: String,
    /// Hardware threads that this process may use.
    pub threads: usize,
    /// Instruction sets that the kernels used, for instance `avx2+fma+f16c`.
    pub simd: String,
}

/// Measured limits of the device that ran the kernels, all threads together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Roofs {
    /// Floating-point operations per second, float32 multiply-add.
    #[serde(deserialize_with = "number")]
    pub flops_per_s: f64,
    /// Read bandwidth by where the data lies, fastest level first.
    pub bandwidth: Vec<BandwidthRoof>,
    /// How they were measured.
    pub method: String,
}

/// The read bandwidth of one level of the memory hierarchy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BandwidthRoof {
    /// `L2`, `L3`, `DRAM`.
    pub name: String,
    /// Working sets up to this many bytes are served by this level; absent for the last one.
    pub up_to_bytes: Option<u64>,
    /// Bytes per second.
    #[serde(deserialize_with = "number")]
    pub bytes_per_s: f64,
}

/// What ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// `--run-name`.
    pub name: String,
    /// The model.
    pub model: ModelInfo,
    /// Data type of the weights.
    pub dtype: String,
    /// Data type of the KV cache.
    pub kv_cache_dtype: String,
    /// Tensor-parallel ranks.
    pub tp: usize,
    /// `cpu`, `cuda` or `emulated`.
    pub device: String,
    /// Host threads that run operations.
    pub threads: usize,
    /// Slots per page of the KV pool.
    pub page_size: usize,
    /// Slots of the KV pool.
    pub max_total_num_tokens: usize,
    /// Seed of prompts and sampling.
    pub seed: u64,
    /// Which version of sglang's `bench_one_batch` the run follows.
    pub compat: String,
    /// How tokens were drawn.
    pub sampling: Sampling,
    /// Whether decode steps replayed a CUDA graph; absent on devices without graphs.
    pub cuda_graph: Option<bool>,
    /// The table of tuned kernels that took the choosers' place; absent where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<Tuning>,
    /// Seconds to load the weights.
    #[serde(deserialize_with = "number")]
    pub load_s: f64,
}

/// A table of kernels that were measured to be the fastest, as `stepscope tune` writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// The file.
    pub file: String,
    /// The hash of its bytes.
    pub sha256: String,
    /// Shapes that it has.
    pub shapes: usize,
}

/// The model of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Folder, file or named shape.
    pub name: String,
    /// For instance `LlamaForCausalLM`.
    pub architecture: String,
    /// `safetensors`, `gguf` or `dummy`.
    pub load_format: String,
    /// Number of weights.
    pub parameters: u64,
    /// The model's config, as read.
    pub config: serde_json::Value,
}

/// How tokens were drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Sampling {
    #[serde(deserialize_with = "number")]
    pub temperature: f32,
    pub top_k: u32,
    #[serde(deserialize_with = "number")]
    pub top_p: f32,
    #[serde(deserialize_with = "number")]
    pub min_p: f32,
    pub seed: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Weights, in their storage type.
    pub weights: u64,
    /// The part of the weights that is mapped from files.
    pub weights_mapped: u64,
    /// The KV pool at its full size.
    pub kv_pool: u64,
    /// The most of the KV pool that was in use at once.
    pub kv_used_peak: u64,
    /// Request → token-slot table.
    pub token_pool: u64,
    /// Buffers of a step.
    pub activations: u64,
    /// The most memory the process ever held, when the system tells.
    pub peak_rss: Option<u64>,
}

/// One `(batch size, input length, output length)` of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Requests.
    pub batch_size: usize,
    /// Prompt tokens per request.
    pub input_len: usize,
    /// Tokens generated per request, the prefill's included.
    pub output_len: usize,
    /// Every repetition, in order; each printed sglang's lines and wrote one line of the result file.
    pub repetitions: Vec<Repetition>,
    /// Sums over all prefill steps of all repetitions.
    pub prefill: StepTotal,
    /// Sums over all decode steps of all repetitions; absent when `output_len` is 1.
    pub decode: Option<StepTotal>,
    /// The state of the GPU while the repetitions ran, where it was watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuWatch>,
    /// What the hardware counted, in steps that ran for it alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counted: Vec<CountedStep>,
    /// Operations of the decode step, timed by replaying graphs of their launches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replayed: Vec<ReplayedOperation>,
}

/// One timed run of a point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Repetition {
    /// Seconds of the prefill step.
    #[serde(deserialize_with = "number")]
    pub prefill_latency_s: f64,
    /// Seconds of the first decode step.
    pub first_decode_latency_s: Option<f64>,
    /// Median over all decode steps, seconds.
    pub median_decode_latency_s: Option<f64>,
    /// Prefill plus all decode steps, seconds.
    #[serde(deserialize_with = "number")]
    pub total_latency_s: f64,
    /// The first request's tokens, at most 32 of them: what was timed was also looked at.
    pub output_ids: Vec<u32>,
    /// All steps in order. Operations are kept for the prefill, the first, the median and the slowest decode step, and for
    /// every step when the run was told to keep them all.
    pub steps: Vec<Step>,
}

/// Sums over steps of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepTotal {
    /// Steps summed.
    pub steps: usize,
    /// Their wall time.
    pub wall_ns: u64,
    /// Their phases, in order; these add up to `wall_ns`.
    pub phases: Vec<PhaseTotal>,
    /// Their operations, by name, kernel, phase, layer and timer, in order of first appearance.
    pub operations: Vec<OperationTotal>,
    /// What the device counted of their kernels; an emulated device does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<KernelCount>,
    /// What the device found wrong with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// What a GPU did, where its kernels were recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceActivity>,
}

/// One phase, summed over steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTotal {
    /// The phase.
    pub name: Phase,
    /// Host time.
    pub host_ns: u64,
    /// GPU time, where a GPU timer ran.
    pub gpu_ns: Option<u64>,
}

/// One operation of one layer, summed over steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationTotal {
    /// The operation.
    pub name: String,
    /// The kernel that ran it.
    pub kernel: String,
    /// The phase it lies in.
    pub phase: Phase,
    /// The layer it belongs to, if to any.
    pub layer: Option<u32>,
    /// How often it ran.
    pub count: u64,
    /// Kernels that it put into the device's queue; 0 where the device has none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub launches: u64,
    /// Sum of its times.
    pub duration_ns: u64,
    /// The shortest.
    pub min_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// Sum of its work.
    #[serde(flatten)]
    pub work: Work,
    /// What took the times.
    pub timer: Timer,
}

/// One prefill or decode step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Prefill or decode.
    pub kind: StepKind,
    /// Counts the steps of this kind from 0 in each repetition.
    pub index: usize,
    /// Requests in the step.
    pub batch_size: usize,
    /// Wall time; 0 of a step on an emulated device, which has no time.
    pub wall_ns: u64,
    /// In order; these add up to `wall_ns`.
    pub phases: Vec<PhaseTime>,
    /// In order of time; empty where they were not kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<Operation>,
    /// What the device counted of its kernels; an emulated device does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<KernelCount>,
    /// What the device found wrong with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// What a GPU did, where its kernels were recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceActivity>,
    /// The clock that the GPU's multiprocessors held during the step, MHz, where it was read ([`Timing::sm_clock`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sm_clock_mhz: Option<f64>,
}

/// One phase of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// The phase.
    pub name: Phase,
    /// When it first started, from the start of the step.
    pub start_ns: u64,
    /// Host time.
    pub host_ns: u64,
    /// GPU time, where a GPU timer ran.
    pub gpu_ns: Option<u64>,
}

/// One operation of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The operation.
    pub name: Cow<'static, str>,
    /// The kernel that ran it.
    pub kernel: Cow<'static, str>,
    /// The phase it lies in; `other` when it ran outside every phase.
    pub phase: Phase,
    /// The layer it belongs to, if to any.
    pub layer: Option<u32>,
    /// Its work.
    #[serde(flatten)]
    pub work: Work,
    /// Kernels that it put into the device's queue; 0 where the device has none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub launches: u32,
    /// From the start of the step.
    pub start_ns: u64,
    /// Its time.
    pub duration_ns: u64,
    /// What took the time.
    pub timer: Timer,
}

/// A point that did not fit into the KV pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Skipped {
    pub batch_size: usize,
    pub input_len: usize,
    pub output_len: usize,
    pub reason: String,
}

impl Point {
    /// How tables, traces and flame graphs name the point: `batch=1 in=1024 out=128`.
    pub fn label(&self) -> String {
        format!(
            "batch={} in={} out={}",
            self.batch_size, self.input_len, self.output_len
        )
    }

    /// The sums over the point's steps of one kind.
    pub fn total(&self, kind: StepKind) -> Option<&StepTotal> {
        match kind {
            StepKind::Prefill => Some(&self.prefill),
            StepKind::Decode => self.decode.as_ref(),
        }
    }
}

impl StepTotal {
    /// Sums over no step yet.
    pub fn empty() -> StepTotal {
        StepTotal {
            steps: 0,
            wall_ns: 0,
            phases: Vec::new(),
            operations: Vec::new(),
            kernels: Vec::new(),
            findings: Vec::new(),
            device: None,
        }
    }

    /// What a phase took of the wall time: the GPU's time of it where that was taken, since the host only queues such work and
    /// waits for it at the end; `other` is what the rest leaves then.
    pub fn phase_ns(&self, name: Phase) -> u64 {
        let of_phase = |name: Phase| -> u64 {
            let times = self.phases.iter().filter(|p| p.name == name);
            times
                .map(|p| p.gpu_ns.unwrap_or(p.host_ns))
                .fold(0, u64::saturating_add)
        };
        let has_gpu_times = self.phases.iter().any(|p| p.gpu_ns.is_some());
        if name != Phase::Other || !has_gpu_times {
            return of_phase(name);
        }
        let others = Phase::ALL.into_iter().filter(|&p| p != Phase::Other);
        self.wall_ns
            .saturating_sub(others.map(of_phase).fold(0, u64::saturating_add))
    }

    /// Adds a step.
    pub fn add(&mut self, step: &Step) {
        self.steps += 1;
        self.wall_ns = self.wall_ns.saturating_add(step.wall_ns);
        for phase in &step.phases {
            match self.phases.iter_mut().find(|p| p.name == phase.name) {
                Some(total) => {
                    total.host_ns = total.host_ns.saturating_add(phase.host_ns);
                    total.gpu_ns = total
                        .gpu_ns
                        .zip(phase.gpu_ns)
                        .map(|(a, b)| a.saturating_add(b));
                }
                None => self.phases.push(PhaseTotal {
                    name: phase.name,
                    host_ns: phase.host_ns,
                    gpu_ns: phase.gpu_ns,
                }),
            }
        }
        // Steps of one kind run the same operations in the same order: the next total is nearly always the right one.
        let mut expected = 0;
        for operation in &step.operations {
            let is_same = |t: &OperationTotal| {
                t.layer == operation.layer
                    && t.name == operation.name
                    && t.kernel == operation.kernel
                    && t.phase == operation.phase
                    && t.timer == operation.timer
            };
            let found = match self.operations.get(expected) {
                Some(total) if is_same(total) => Some(expected),
                _ => self.operations.iter().position(is_same),
            };
            let index = found.unwrap_or_else(|| {
                self.operations.push(OperationTotal {
                    name: operation.name.to_string(),
                    kernel: operation.kernel.to_string(),
                    phase: operation.phase,
                    layer: operation.layer,
                    count: 0,
                    launches: 0,
                    duration_ns: 0,
                    min_ns: u64::MAX,
                    max_ns: 0,
                    work: Work::default(),
                    timer: operation.timer,
                });
                self.operations.len() - 1
            });
            let total = &mut self.operations[index];
            total.count += 1;
            total.launches += u64::from(operation.launches);
            total.duration_ns = total.duration_ns.saturating_add(operation.duration_ns);
            total.min_ns = total.min_ns.min(operation.duration_ns);
            total.max_ns = total.max_ns.max(operation.duration_ns);
            total.work += operation.work;
            expected = index + 1;
        }
        counts::merge(
            &mut self.kernels,
            &step.kernels,
            &mut self.findings,
            &step.findings,
        );
        if let Some(device) = &step.device {
            self.device.get_or_insert_default().add(device);
        }
    }
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A number, or `null`, which is how JSON writes what is none: a record that holds one stays readable.
fn number<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + From<f32>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(|| T::from(f32::NAN)))
}

impl Record {
    /// Whether the device that ran the steps has time: an emulated one has not, and a record of it holds none.
    pub fn has_times(&self) -> bool {
        self.run.device != "emulated"
    }

    /// Reads a record; `path` may also be the folder that holds `record.json`.
    ///
    /// # Errors
    /// When the file is missing, is not JSON, or has another schema.
    pub fn read(path: &Path) -> Result<Record, Error> {
        let joined = path.join("record.json");
        let path = if path.is_dir() { &joined } else { path };
        let text = fs::read(path).map_err(|e| Error::read(path, e))?;
        #[derive(Deserialize)]
        struct Head {
            schema: Option<String>,
        }
        match text.trim_ascii_start().first() {
            None => return Err(Error::not_a_record(path, "it is empty")),
            Some(b'[' | b'"' | b'0'..=b'9' | b'-') => {
                return Err(Error::not_a_record(path, "it is JSON, but not an object"));
            }
            Some(_) => {}
        }
        let head: Head = parse(path, &text)?;
        match head.schema.as_deref() {
            Some(SCHEMA) => parse(path, &text),
            Some(other) => Err(Error::not_a_record(
                path,
                format!("its schema is {other:?}; this program reads {SCHEMA:?}"),
            )),
            None => Err(Error::not_a_record(path, "it has no \"schema\"")),
        }
    }

    /// Writes the record to a temporary file beside `path` and renames it: a reader, or a full disk, never leaves half a
    /// record.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        write_whole(self, path)
    }
}

/// Writes `value` as JSON to a temporary file beside `path` and renames that.
pub(crate) fn write_whole(value: &impl Serialize, path: &Path) -> Result<(), Error> {
    let temporary = path.with_extension("json.partial");
    let written = (|| {
        let mut file = std::io::BufWriter::new(fs::File::create(&temporary)?);
        serde_json::to_writer(&mut file, value)?;
        file.write_all(b"\n")?;
        file.into_inner().map_err(|e| e.into_error())?.sync_all()?;
        fs::rename(&temporary, path)
    })();
    written.map_err(|e| {
        let _ = fs::remove_file(&temporary); // the write's own error is the one to report
        Error::write(path, e)
    })
}

pub(crate) fn parse<'de, T: Deserialize<'de>>(path: &Path, text: &'de [u8]) -> Result<T, Error> {
    serde_json::from_slice(text).map_err(|e| {
        let reason = if e.is_eof() {
            "it ends early; was the run or the copy of it interrupted?".to_owned()
        } else {
            e.to_string()
        };
        Error::not_a_record(path, reason)
    })
}
