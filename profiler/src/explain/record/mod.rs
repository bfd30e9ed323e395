//! Why a step that this program measured takes as long as it does.
//!
//! The step's wall time is cut into parts that add up to it: what the work needs at the ceilings (arithmetic, weights, KV cache,
//! activations; of each operation the longer of its arithmetic and its bytes), what operations take above that, communication, the time
//! between operations, the host's phases, and what is left unexplained.

mod sentences;
mod text;

use serde::Serialize;

use super::statement::Statement;
use crate::breakdown::{Breakdown, OperationMean};
use crate::gpus;
use crate::record::{Point, Record, Roofs, Step, StepTotal};
use crate::recorder::{Phase, StepKind};
use crate::report::ShownSteps;
use crate::roofline;

/// Operations of which the name begins so move data between ranks.
const COMMUNICATION: [&str; 2] = ["all_reduce", "all_gather"];

/// An explained record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// What it was measured on.
    pub device: String,
    /// What its ceilings are and where they come from; absent when there are none.
    pub ceilings: Option<Roofs>,
    /// One per point of the sweep and kind of step.
    pub steps: Vec<StepExplanation>,
    /// What weakens it.
    pub remarks: Vec<Statement>,
}

/// An explained step: the prefill, or the median decode step, of a point.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepExplanation {
    /// Which point of the sweep, from 0.
    pub point: usize,
    /// `batch=1 in=1024 out=128`.
    pub label: String,
    /// Prefill or decode.
    pub kind: StepKind,
    /// Its wall time, nanoseconds.
    pub wall_ns: f64,
    /// Its parts; they add up to `wall_ns`.
    pub parts: Vec<Part>,
    /// Its operations, by what could be saved.
    pub operations: Vec<OperationExplanation>,
    /// In plain words.
    pub statements: Vec<Statement>,
}

/// What a part of a step's time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PartKind {
    /// Floors of operations that arithmetic bounds.
    Compute,
    /// Reading weights, in operations that memory bounds.
    Weights,
    /// Reading and writing keys and values, likewise.
    Kv,
    /// Reading and writing activations, likewise.
    Activations,
    /// What operations take above their floors.
    AboveFloors,
    /// Operations that move data between ranks.
    Communication,
    /// Time of a phase with operations that none of them covers: launches, and waiting for them.
    Gaps,
    /// Phases of the host: token pool, KV slots, batch metadata.
    Host,
    /// What no phase covers.
    Unexplained,
}

impl PartKind {
    /// As tables and plots name it.
    pub fn title(self) -> &'static str {
        match self {
            PartKind::Compute => "compute floor",
            PartKind::Weights => "weights floor",
            PartKind::Kv => "KV cache floor",
            PartKind::Activations => "activations floor",
            PartKind::AboveFloors => "operations above their floors",
            PartKind::Communication => "communication",
            PartKind::Gaps => "between operations",
            PartKind::Host => "host phases",
            PartKind::Unexplained => "unexplained",
        }
    }

    /// Whether it is time that the work needs at the ceilings.
    pub fn is_floor(self) -> bool {
        matches!(
            self,
            PartKind::Compute | PartKind::Weights | PartKind::Kv | PartKind::Activations
        )
    }
}

/// A part of a step's time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Part {
    /// What it is.
    pub kind: PartKind,
    /// Nanoseconds.
    pub ns: f64,
}

/// An operation of a step, all its layers together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OperationExplanation {
    /// The operation.
    pub name: String,
    /// The kernel that ran it.
    pub kernel: String,
    /// How often it ran.
    pub calls: f64,
    /// Its time, nanoseconds; absent inside a replayed graph, where nothing times it.
    pub ns: Option<f64>,
    /// Its floor, nanoseconds; zero without ceilings.
    pub floor_ns: f64,
    /// Floor over time.
    pub efficiency: Option<f64>,
    /// `compute` or a memory level.
    pub bound: Option<String>,
    /// What the step would save if it took its floor, nanoseconds.
    pub saving_ns: f64,
    /// FLOP of all calls.
    pub flops: f64,
    /// Bytes of all calls.
    pub bytes: f64,
    /// Whether it is faster than its floor by more than noise: the cost model or a ceiling is wrong.
    pub is_above_roof: bool,
}

/// Explains a record; `gpu` overrides what the card is taken for. Ceilings that the run measured count first, then the table of
/// GPUs.
pub fn explain(record: &Record, gpu: Option<&gpus::Gpu>) -> Explanation {
    let environment = &record.environment;
    let on_gpu = record.run.device != "cpu";
    let device = match &environment.gpu {
        Some(gpu) if on_gpu => gpu.name.clone(),
        _ => environment.cpu.name.clone(),
    };
    let known = environment.gpu.as_ref().filter(|_| on_gpu);
    let from_table = || {
        let gpu = gpu.or_else(|| gpus::find(&known?.name).ok())?;
        Some(gpu.roofs(None))
    };
    let ceilings = match gpu {
        Some(gpu) => Some(gpu.roofs(None)),
        None => environment.roofs.clone().or_else(from_table),
    };
    let mut steps = Vec::new();
    if record.has_times() {
        for (index, point) in record.points.iter().enumerate() {
            for kind in [StepKind::Prefill, StepKind::Decode] {
                steps.extend(step(record, point, index, kind, ceilings.as_ref()));
            }
        }
    }
    let mut explanation = Explanation {
        device,
        ceilings,
        steps,
        remarks: Vec::new(),
    };
    explanation.remarks = sentences::remarks(record, &explanation);
    explanation
}

fn step(
    record: &Record,
    point: &Point,
    index: usize,
    kind: StepKind,
    ceilings: Option<&Roofs>,
) -> Option<StepExplanation> {
    let shown = ShownSteps::of(point);
    let measured: &Step = match kind {
        StepKind::Prefill => shown.prefill?,
        StepKind::Decode => shown.decode?,
    };
    let mut total = StepTotal::empty();
    // The median step of a record that keeps few has its operations; of a decode step without any the mean serves.
    let has_operations = !measured.operations.is_empty();
    if has_operations {
        total.add(measured);
    } else {
        total = point.total(kind)?.clone();
    }
    let breakdown = Breakdown::new(&total, ceilings)?;
    let mut explanation = StepExplanation {
        point: index,
        label: point.label(),
        kind,
        wall_ns: breakdown.wall_ns,
        parts: parts(&breakdown),
        operations: operations(&breakdown),
        statements: Vec::new(),
    };
    explanation.statements = sentences::of_step(record, &explanation, ceilings, has_operations);
    Some(explanation)
}

fn is_communication(operation: &OperationMean) -> bool {
    COMMUNICATION
        .iter()
        .any(|name| operation.name.starts_with(name))
}

/// The parts of a step; what they leave of its wall time is unexplained.
fn parts(step: &Breakdown) -> Vec<Part> {
    let mut gaps_ns = 0.0;
    let mut host_ns = 0.0;
    for phase in &step.phases {
        match phase.name {
            Phase::Other => {} // what all other parts leave
            Phase::Forward | Phase::Sample => gaps_ns += phase.uncovered_ns,
            _ if phase.has_operations => gaps_ns += phase.uncovered_ns,
            _ => host_ns += phase.uncovered_ns,
        }
    }
    // Operations of a replayed graph lie in the forward phase's time, which nothing divides further.
    let untimed_floors_ns = untimed_floors_ns(step);
    let has_untimed = untimed_floors_ns > 0.0;
    let untimed_scale = if untimed_floors_ns > gaps_ns {
        gaps_ns / untimed_floors_ns
    } else {
        1.0
    };
    let mut floors = [0.0; 4];
    let mut above_ns = 0.0;
    let mut communication_ns = 0.0;
    for operation in &step.operations {
        if is_communication(operation) && operation.is_timed {
            communication_ns += operation.ns;
            continue;
        }
        // None owes more to its floor than it took: one above its roof is reported as such.
        let floor_ns = if operation.is_timed {
            operation.floor_ns.min(operation.ns)
        } else {
            operation.floor_ns * untimed_scale
        };
        if operation.is_timed {
            above_ns += operation.ns - floor_ns;
        }
        let shares = &operation.floor_parts;
        let total_ns: f64 = shares.iter().sum();
        if total_ns > 0.0 {
            for (floor, part_ns) in floors.iter_mut().zip(shares) {
                *floor += part_ns / total_ns * floor_ns;
            }
        }
    }
    if has_untimed {
        above_ns += gaps_ns - untimed_floors_ns * untimed_scale;
        gaps_ns = 0.0;
    }
    let [compute, weights, kv, activations] = floors;
    let mut parts: Vec<Part> = [
        (PartKind::Compute, compute),
        (PartKind::Weights, weights),
        (PartKind::Kv, kv),
        (PartKind::Activations, activations),
        (PartKind::AboveFloors, above_ns),
        (PartKind::Communication, communication_ns),
        (PartKind::Gaps, gaps_ns),
        (PartKind::Host, host_ns),
    ]
    .map(|(kind, ns)| Part { kind, ns })
    .to_vec();
    let covered: f64 = parts.iter().map(|p| p.ns).sum();
    parts.push(Part {
        kind: PartKind::Unexplained,
        ns: step.wall_ns - covered,
    });
    parts
}

/// Floors of the operations that nothing timed, nanoseconds.
fn untimed_floors_ns(step: &Breakdown) -> f64 {
    let untimed = step.operations.iter().filter(|o| !o.is_timed);
    untimed.map(|o| o.floor_ns).sum()
}

fn operations(step: &Breakdown) -> Vec<OperationExplanation> {
    let mut operations: Vec<OperationExplanation> = step
        .operations
        .iter()
        .map(|o| OperationExplanation {
            name: o.name.clone(),
            kernel: o.kernel.clone(),
            calls: o.calls,
            ns: o.is_timed.then_some(o.ns),
            floor_ns: o.floor_ns,
            efficiency: o.roof_share().filter(|_| o.is_timed),
            bound: o.bound.as_ref().map(|b| b.name().to_owned()),
            saving_ns: if o.is_timed && o.floor_ns > 0.0 {
                (o.ns - o.floor_ns).max(0.0)
            } else {
                0.0
            },
            flops: o.work.flops,
            bytes: o.work.bytes(),
            is_above_roof: o.ns * roofline::ABOVE_ROOF < o.floor_ns && o.is_timed,
        })
        .collect();
    operations.sort_by(|a, b| {
        b.saving_ns
            .total_cmp(&a.saving_ns)
            .then(b.floor_ns.total_cmp(&a.floor_ns))
    });
    operations
}
