//! Explaining what another profiler recorded.

use std::path::Path;

use stepscope_engine::model::find_config;
use stepscope_engine::{DTypes, ShardedModel};
use stepscope_kernels::DType;
use stepscope_profiler::StepKind;
use stepscope_profiler::explain::page::trace_page;
use stepscope_profiler::explain::{Ceilings, OperationWork, StepModel, StepShape, operation_floor};
use stepscope_profiler::gpus::{self, Gpu};
use stepscope_profiler::timeline::{self, Family, Floor, Kind, StepAnalysis};

use super::page;
use super::result::precision;
use crate::args::explain::Explain;
use crate::output::{Failure, print_stderr, write_stdout};

pub(super) fn explain(gpu: Option<&'static Gpu>, args: &Explain) -> Result<(), Failure> {
    let trace = timeline::read(&args.input)?;
    let mut analysis = timeline::analyse(&trace);
    let mut roofs = None;
    if let Some(model) = &args.model {
        let (name, config) = find_config(model)?;
        let dtypes = DTypes::all(DType::BF16);
        let matrices = precision("--dtype", args.dtype.as_deref(), || None)?;
        let kv = precision("--kv-cache-dtype", args.kv_cache_dtype.as_deref(), || None)?;
        let model = ShardedModel::new(name, &config, args.tp.unwrap_or(1), dtypes)?
            .with_bits(matrices.weight_bits, kv.weight_bits);
        for device in &mut analysis.devices {
            let name = &device.device.name;
            let Some(gpu) = gpu.or_else(|| gpus::find(name).ok()) else {
                print_stderr(
                    "note: the trace does not name a GPU that the table knows, so there are no floors: --gpu NAME adds them",
                );
                continue;
            };
            let ceilings = Ceilings::of_gpu_for(gpu, None, matrices);
            for step in &mut device.steps {
                step.floors = floors(step, &model, &ceilings);
            }
            roofs.get_or_insert_with(|| {
                let mut roofs = gpu.roofs(None);
                roofs.flops_per_s = ceilings.weights_flops_per_s;
                roofs
            });
        }
    }
    if let Some(path) = &args.html {
        page::write(path, &trace_page(&trace, &analysis, roofs.as_ref()))?;
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
    let mut floors: Vec<FamilyFloor> = Vec::new();
    for operation in model.step(&shape).operations {
        let family = family(operation.name);
        // Without a known context nothing can be said of reading it.
        if family == Family::Attention && step.context_tokens.is_none() {
            continue;
        }
        let index = floors
            .iter()
            .position(|f| f.family == family)
            .unwrap_or_else(|| {
                floors.push(FamilyFloor::none(family));
                floors.len() - 1
            });
        floors[index].add(&operation, ceilings);
    }
    floors.iter().map(FamilyFloor::finish).collect()
}

/// The floor of a family, while its operations are added up.
struct FamilyFloor {
    family: Family,
    seconds: f64,
    compute_s: f64,
    memory_s: f64,
    flops: u64,
    bytes: u64,
}

impl FamilyFloor {
    fn none(family: Family) -> FamilyFloor {
        FamilyFloor {
            family,
            seconds: 0.0,
            compute_s: 0.0,
            memory_s: 0.0,
            flops: 0,
            bytes: 0,
        }
    }

    fn add(&mut self, operation: &OperationWork, ceilings: &Ceilings) {
        let [compute_s, memory_s] = operation_floor(operation, ceilings);
        let calls = operation.calls as f64;
        self.seconds += calls * compute_s.max(memory_s);
        self.compute_s += calls * compute_s;
        self.memory_s += calls * memory_s;
        self.flops += operation.calls * operation.work.flops;
        self.bytes += operation.calls * operation.work.bytes();
    }

    fn finish(&self) -> Floor {
        Floor {
            family: self.family,
            floor_ns: (self.seconds * 1e9).round() as u64,
            bound_by: if self.compute_s > self.memory_s {
                "compute".to_owned()
            } else {
                "memory".to_owned()
            },
            flops: self.flops,
            bytes: self.bytes,
        }
    }
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
