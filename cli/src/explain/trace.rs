//! Explaining what another profiler recorded.

use std::path::Path;

use stepscope_engine::model::find_config;
use stepscope_engine::{DTypes, ShardedModel};
use stepscope_kernels::DType;
use stepscope_profiler::StepKind;
use stepscope_profiler::explain::{Ceilings, StepModel, StepShape, operation_floor};
use stepscope_profiler::gpus::{self, Gpu};
use stepscope_profiler::timeline::{self, Family, Floor, Kind, StepAnalysis};

use crate::args::explain::Explain;
use crate::output::{Failure, print_stderr, write_stdout};

pub(super) fn explain(gpu: Option<&'static Gpu>, args: &Explain) -> Result<(), Failure> {
    if args.html.is_some() {
        return Err(Failure::input(
            "--html: a trace has no page yet; open the trace itself in Perfetto, or take --json",
        ));
    }
    let trace = timeline::read(&args.input)?;
    let mut analysis = timeline::analyse(&trace);
    if let Some(model) = &args.model {
        let (name, config) = find_config(model)?;
        let dtypes = DTypes::all(DType::BF16);
        let model = ShardedModel::new(name, &config, args.tp.unwrap_or(1), dtypes)?;
        for device in &mut analysis.devices {
            let name = &device.device.name;
            let Some(gpu) = gpu.or_else(|| gpus::find(name).ok()) else {
                print_stderr(
                    "note: the trace does not name a GPU that the table knows, so there are no floors: --gpu NAME adds them",
                );
                continue;
            };
            let ceilings = Ceilings::of_gpu(gpu, None);
            for step in &mut device.steps {
                step.floors = floors(step, &model, &ceilings);
            }
        }
    }
    let text = if args.json {
        timeline::json(&analysis) + "\n"
    } else {
        timeline::text(&analysis)
    };
    write_stdout(text.as_bytes())
}

/// Whether a file that begins so is a trace. Result files are text, too, but none begins with what these do.
pub(super) fn is_trace(path: &Path, head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head);
    let is_packed = head.starts_with(&[0x1f, 0x8b]);
    let is_database = head.starts_with(b"SQLite format 3\0");
    let is_chrome = [
        "\"traceEvents\"",
        "\"deviceProperties\"",
        "\"baseTimeNanoseconds\"",
    ]
    .iter()
    .any(|key| text.contains(key));
    let is_event_list = text.trim_start().starts_with('[') && text.contains("\"ph\"");
    // A trace that was cut to nothing recognisable still says by its name what it should be.
    let is_named = path
        .file_name()
        .is_some_and(|name| name.to_string_lossy().contains(".trace.json"));
    is_packed || is_database || is_chrome || is_event_list || is_named
}

/// The floors of a step's families, where its annotation tells the batch.
fn floors(step: &StepAnalysis, model: &ShardedModel, ceilings: &Ceilings) -> Vec<Floor> {
    let Some(shape) = shape(step) else {
        return Vec::new();
    };
    let mut floors: Vec<(Family, f64, f64, f64)> = Vec::new();
    for operation in model.step(&shape).operations {
        let family = family(operation.name);
        // Without a known context nothing can be said of reading it.
        if family == Family::Attention && step.context_tokens.is_none() {
            continue;
        }
        let [compute_s, memory_s] = operation_floor(&operation, ceilings);
        let calls = operation.calls as f64;
        let index = floors
            .iter()
            .position(|f| f.0 == family)
            .unwrap_or_else(|| {
                floors.push((family, 0.0, 0.0, 0.0));
                floors.len() - 1
            });
        floors[index].1 += calls * compute_s.max(memory_s);
        floors[index].2 += calls * compute_s;
        floors[index].3 += calls * memory_s;
    }
    floors
        .into_iter()
        .map(|(family, seconds, compute_s, memory_s)| Floor {
            family,
            floor_ns: (seconds * 1e9).round() as u64,
            bound_by: if compute_s > memory_s {
                "compute".to_owned()
            } else {
                "memory".to_owned()
            },
        })
        .collect()
}

/// The step's shape, all requests alike; nothing for a step that mixes prefill and decode.
fn shape(step: &StepAnalysis) -> Option<StepShape> {
    let batch_size = step.requests.filter(|&n| n > 0)?;
    let context = step.context_tokens.map(|tokens| tokens / batch_size);
    match step.kind {
        Kind::Decode => Some(StepShape {
            kind: StepKind::Decode,
            batch_size,
            new_tokens: 1,
            context: context.unwrap_or(1).max(1),
        }),
        Kind::Prefill => {
            let new_tokens = step.tokens? / batch_size;
            (new_tokens > 0).then_some(StepShape {
                kind: StepKind::Prefill,
                batch_size,
                new_tokens,
                context: context.unwrap_or(new_tokens).max(new_tokens),
            })
        }
        _ => None,
    }
}

/// The family of kernels that runs an operation of ours.
fn family(operation: &str) -> Family {
    match operation {
        "attention" => Family::Attention,
        "embedding" | "last_token" => Family::Embedding,
        "rope_kv" => Family::Rope,
        "silu_mul" => Family::Activation,
        "sample" => Family::Sampling,
        name if name.ends_with("norm") => Family::Norm,
        _ => Family::Gemm,
    }
}
