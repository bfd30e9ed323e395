//! The command line.

pub(crate) mod bench;
pub(crate) mod compare;
mod emulate;
pub(crate) mod explain;
pub(crate) mod gate;
pub(crate) mod gpu_check;
pub(crate) mod kernel;
pub(crate) mod lab;
pub(crate) mod reproduce;
pub(crate) mod sheet;
pub(crate) mod timers;
pub(crate) mod tune;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use stepscope_engine::sglang::Compat;
use stepscope_kernels::DType;

pub(crate) use self::emulate::{Check, Emulate};
use self::timers::Timers;

/// Takes an LLM inference step apart: runs prefill and decode steps of real models, and shows where the time goes.
///
/// Start with `stepscope one-batch`: without any option it runs a small model with random weights on this machine.
#[derive(Debug, Parser)]
#[command(name = "stepscope", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    OneBatch(Box<OneBatch>),
    Generate(Box<Generate>),
    Report(Report),
    Explain(explain::Explain),
    Reproduce(reproduce::Reproduce),
    Compare(compare::Compare),
    Flamegraph(Flamegraph),
    Trace(Trace),
    Doctor(Doctor),
    Emulate(Box<Emulate>),
    Conformance(Conformance),
    Device(sheet::Sheet),
    Gate(Box<gate::Gate>),
    GpuCheck(gpu_check::GpuCheck),
    Bench(bench::Bench),
    Kernel(kernel::Kernel),
    Lab(Box<lab::Lab>),
    Tune(tune::Tune),
    /// Print a completion script for a shell
    ///
    /// For bash: stepscope completions bash > ~/.local/share/bash-completion/completions/stepscope
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Measure prefill and decode of one static batch, without a server
///
/// A drop-in for `python -m sglang.bench_one_batch`: the same options (also in the short forms of sglang's documentation), the
/// same lines on standard output, the same lines in the result file. On top of that, every step is taken apart: phases and
/// operations go to standard error as tables, and to a record file from which `stepscope report`, `flamegraph` and `trace`
/// make everything again.
///
/// Several values of --batch-size, --input-len and --output-len sweep their product:
///   stepscope one-batch --model-path ~/models/Qwen2.5-0.5B --batch 1 4 16 --input 1024 --output 128 --run-name test
///
/// Random weights of a model's shape, without its files:
///   stepscope one-batch --model llama-3.2-1b --batch 1 --input 256 --output 32
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct OneBatch {
    #[command(flatten)]
    pub(crate) model: ModelArgs,

    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,

    /// Requests in the batch; several values sweep
    #[arg(long, visible_alias = "batch", num_args = 1.., value_name = "N", default_values_t = [1], value_parser = positive)]
    pub(crate) batch_size: Vec<usize>,

    /// Prompt tokens per request; several values sweep [default: 1024, or 128 when no model is given]
    #[arg(long, visible_alias = "input", num_args = 1.., value_name = "N", value_parser = positive)]
    pub(crate) input_len: Vec<usize>,

    /// Tokens to generate per request, the prefill's first one included; several values sweep [default: 16]
    #[arg(long, visible_alias = "output", num_args = 1.., value_name = "N", value_parser = positive)]
    pub(crate) output_len: Vec<usize>,

    /// Name of the run, in its results and as its folder
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) run_name: String,

    /// File to append one JSON line per measured point to, in sglang's form; "" for none
    #[arg(long, value_name = "FILE", default_value = "result.jsonl")]
    pub(crate) result_filename: String,

    /// Folder for record.json, the flame graphs and the trace [default: runs/<run-name>]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,

    /// File of prompts, one per line, instead of synthetic ones
    #[arg(long, value_name = "FILE")]
    pub(crate) prompt_filename: Option<PathBuf>,

    /// Which version of sglang to follow: v0.4.2 or latest
    ///
    /// It decides the decode line, the synthetic prompts (every id 1, or random ids below 10000) and the length of the warm-up (8
    /// tokens, or 32 at most).
    #[arg(long, value_name = "VERSION", default_value = "v0.4.2")]
    pub(crate) compat: Compat,

    /// Measure every point so often; tables and record then show mean, deviation and percentiles
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    pub(crate) repetitions: usize,

    /// Warm up every point of a sweep, where sglang warms up the first only
    #[arg(long)]
    pub(crate) warmup_per_point: bool,

    /// Print every N-th decode step too, not only the first five; 0 for none
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) log_decode_step: usize,

    /// Keep the operations of every step in the record, not only those of the prefill and of the first, the median and the
    /// slowest decode step
    #[arg(long)]
    pub(crate) record_all_steps: bool,

    #[command(flatten)]
    pub(crate) timers: Timers,

    /// Also write a Chrome trace per point, named as sglang names its own
    #[arg(long)]
    pub(crate) profile: bool,

    /// Prefix of those traces
    #[arg(
        long,
        visible_alias = "profile-prefix",
        value_name = "PREFIX",
        default_value = "profile"
    )]
    pub(crate) profile_filename_prefix: String,

    /// Instead of measuring, show input ids, logits and text of three prompts, as sglang does
    #[arg(long, visible_alias = "correct")]
    pub(crate) correctness_test: bool,

    /// Tokens of the first half of each prompt in the correctness test
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) cut_len: usize,

    /// Print nothing but sglang's lines
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// Generate text, or token ids, from prompts
///
/// All prompts run as one ragged batch:
///   stepscope generate --model-path model.gguf --prompt "The capital of France is" --max-new-tokens 16
///   stepscope generate --model-path ~/models/Qwen2.5-0.5B-Instruct --chat --prompt "List three rivers."
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Generate {
    #[command(flatten)]
    pub(crate) model: ModelArgs,

    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,

    /// Prompts
    #[arg(long, num_args = 1.., value_name = "TEXT", required_unless_present = "prompt_ids", conflicts_with = "prompt_ids")]
    pub(crate) prompt: Vec<String>,

    /// File of prompts as token ids: a JSON list of lists
    #[arg(long, value_name = "FILE.json")]
    pub(crate) prompt_ids: Option<PathBuf>,

    /// Tokens to generate per prompt, at most
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = positive)]
    pub(crate) max_new_tokens: usize,

    /// Wrap each prompt in the model's chat template, as a user's message
    #[arg(long, conflicts_with = "prompt_ids")]
    pub(crate) chat: bool,

    /// Go on after the end-of-text token
    #[arg(long)]
    pub(crate) ignore_eos: bool,

    /// File of token ids to feed instead of those sampled: a JSON list of lists, one per prompt
    #[arg(long, value_name = "FILE.json")]
    pub(crate) forced_ids: Option<PathBuf>,

    /// Print {"outputs": [{"input_ids": …, "output_ids": …, "text": …}]}
    #[arg(long)]
    pub(crate) json: bool,

    /// File for the float32 logits: `prefill` [prompts, vocab] and `decode` [prompts, steps, vocab]
    #[arg(long, value_name = "FILE.safetensors")]
    pub(crate) logits: Option<PathBuf>,

    /// Print nothing on standard error but errors
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// Which model, and how to run it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model and device")]
pub(crate) struct ModelArgs {
    /// Hugging Face folder, GGUF file, or the name of a shape without weights [default: smollm2-135m]
    ///
    /// Shapes: smollm2-135m/360m/1.7b, qwen2.5-0.5b/1.5b/3b/7b/14b/32b/72b, qwen3-0.6b/1.7b/4b/8b/14b/32b, llama-3.1-8b/70b,
    /// llama-3.2-1b/3b.
    #[arg(long, visible_alias = "model", value_name = "PATH")]
    pub(crate) model_path: Option<String>,

    /// tokenizer.json, or a folder with one, instead of the model's own
    #[arg(long, value_name = "PATH")]
    pub(crate) tokenizer_path: Option<PathBuf>,

    /// Where weights come from; dummy: random ones, as sglang makes them
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub(crate) load_format: Format,

    /// How weights and KV cache are stored; auto: as in the files
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    pub(crate) dtype: Dtype,

    /// How keys and values are stored; auto: as the weights where speed is measured, and float32, which rounds nothing, where
    /// a model is checked (generate, --correctness-test)
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    pub(crate) kv_cache_dtype: Dtype,

    /// auto, cpu, cuda[:N] or emulated
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: Device,

    /// Launch the kernels of decode steps one by one, instead of replaying a CUDA graph
    #[arg(long)]
    pub(crate) disable_cuda_graph: bool,

    /// With --device emulated, what to look for in the kernels: memory, race, sync, init, all, none [default: none]
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    pub(crate) check: Vec<Check>,

    /// Tensor-parallel ranks
    #[arg(long, visible_aliases = ["tp", "tensor-parallel-size"], value_name = "N", default_value_t = 1, value_parser = positive)]
    pub(crate) tp_size: usize,

    /// Threads of the CPU device [default: all]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) threads: Option<usize>,

    /// Part of the free memory that weights and KV pool may take
    #[arg(long, value_name = "FRACTION", default_value_t = 0.88, value_parser = fraction)]
    pub(crate) mem_fraction_static: f64,

    /// Tokens of the KV pool, if fewer than memory allows
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) max_total_tokens: Option<usize>,

    /// Tokens per page of the KV pool
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = positive)]
    pub(crate) page_size: usize,

    /// Longest sequence to allow, up to what the model's config says [default: that]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) context_length: Option<usize>,

    /// JSON object of keys to replace in the model's config, for instance '{"num_hidden_layers": 1}'
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = json_object)]
    pub(crate) json_model_override_args: JsonObject,

    /// Seed of random prompts and of sampling
    #[arg(long, visible_alias = "seed", value_name = "N", default_value_t = 42)]
    pub(crate) random_seed: u64,
}

/// How tokens are drawn; greedy by default.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// 0: always the most likely token
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub(crate) temperature: f32,

    /// Draw from the K most likely tokens only; 0: all
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub(crate) top_k: u32,

    /// Draw from the most likely tokens that together have probability P
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub(crate) top_p: f32,

    /// Draw from tokens at least P times as likely as the most likely one
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) min_p: f32,
}

/// Make a run's tables again from its record
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// record.json, or the folder that holds it
    pub(crate) record: PathBuf,

    /// Print what the tables say as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Make flame graphs from records
///
/// Without --diff, writes prefill.svg and decode.svg (with their .folded beside them). With --diff, compares two records: widths
/// are the new one's, red frames grew, blue ones shrank.
#[derive(Debug, Args)]
pub(crate) struct Flamegraph {
    /// record.json, or the folder that holds it
    #[arg(required_unless_present = "diff", conflicts_with = "diff")]
    pub(crate) record: Option<PathBuf>,

    /// Compare two records
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"])]
    pub(crate) diff: Vec<PathBuf>,

    /// Draw with the root on top
    #[arg(long)]
    pub(crate) icicle: bool,

    /// One point of a sweep, counted from 0 [default: all, side by side]
    #[arg(long, value_name = "N")]
    pub(crate) point: Option<usize>,

    /// A frame per layer, instead of one for all layers together
    #[arg(long)]
    pub(crate) by_layer: bool,

    /// Folder for the files [default: that of the (new) record]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// Make a Chrome trace from a record, for ui.perfetto.dev or chrome://tracing
#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// record.json, or the folder that holds it
    pub(crate) record: PathBuf,

    /// One point of a sweep, counted from 0 [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) point: Option<usize>,

    /// File to write [default: trace.json beside the record]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Look at this machine: NVIDIA's libraries, the driver, the GPUs, permissions, and how to get what is missing
///
/// Every library can be chosen by an environment variable, which names its file or the folder that holds it: STEPSCOPE_LIBCUDA,
/// STEPSCOPE_NVML, STEPSCOPE_NVRTC, STEPSCOPE_CUPTI, STEPSCOPE_CUBLASLT, STEPSCOPE_NCCL. Without one it is looked for in CUDA_HOME
/// and CUDA_PATH, by the system's loader, in Python packages and in /usr/local/cuda.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Check whether a GPU computes what the emulated device does, instruction by instruction
///
/// Runs small kernels with known inputs through the driver and on the emulated device, and compares the outputs: roundings,
/// conversions, tensor-core arithmetic, copies, barriers. Exit code 1 if one differs.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Conformance {
    /// The device to check: cuda, cuda:N, or emulated, which checks the emulated driver's layer
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub(crate) device: Device,

    /// Print everything as one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Auto,
    Safetensors,
    Gguf,
    Dummy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    Auto,
    #[value(alias = "bf16")]
    Bfloat16,
    #[value(aliases = ["half", "fp16"])]
    Float16,
    #[value(aliases = ["float", "fp32"])]
    Float32,
}

impl Dtype {
    /// The type, unless it is to be chosen for the person.
    pub(crate) fn given(self) -> Option<DType> {
        match self {
            Dtype::Auto => None,
            Dtype::Bfloat16 => Some(DType::BF16),
            Dtype::Float16 => Some(DType::F16),
            Dtype::Float32 => Some(DType::F32),
        }
    }
}

/// Where operations run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    Auto,
    Cpu,
    Cuda { ordinal: usize },
    Emulated,
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda { ordinal } => write!(f, "cuda:{ordinal}"),
            Device::Emulated => f.write_str("emulated"),
        }
    }
}

impl std::str::FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Device, String> {
        let unknown =
            || format!("{text:?} is not a device; use auto, cpu, cuda, cuda:N or emulated");
        match text {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "emulated" => Ok(Device::Emulated),
            "cuda" => Ok(Device::Cuda { ordinal: 0 }),
            _ => {
                let ordinal = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                let ordinal = ordinal.parse().map_err(|_| unknown())?;
                Ok(Device::Cuda { ordinal })
            }
        }
    }
}

/// A JSON object given on the command line.
pub(crate) type JsonObject = serde_json::Map<String, serde_json::Value>;

fn json_object(text: &str) -> Result<JsonObject, String> {
    serde_json::from_str(text).map_err(|e| format!("not a JSON object: {e}"))
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(_) => Err(format!("must be a whole number from 1 to {}", usize::MAX)),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(s) if s > 0.0 => Ok(s),
        _ => Err("must be a number above 0".to_owned()),
    }
}

fn fraction(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(f) if f > 0.0 && f <= 1.0 => Ok(f),
        _ => Err("must be a number above 0 and at most 1".to_owned()),
    }
}
