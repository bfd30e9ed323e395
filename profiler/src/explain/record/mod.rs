//! Why a step that this program measured takes as long as it does.
//!
//! The step's wall time is cut into parts that add up to it: what the work needs at the ceilings (arithmetic, weights, KV cache,
//! activations; of each operation the longer of its arithmetic and its bytes), what operations take above that, communication, the time
//! between operations, the host's phases, and what is left unexplained. Where a GPU's kernels were recorded, the time between operations
//! is divided by what the GPU waited for; [`StepExplanation::trust`] says how far that holds, and what does not hold is not stated.

mod communication;
mod device;
mod parts;
mod sentences;
mod text;
mod trust;

use serde::Serialize;

use super::ceilings::practice;
use super::statement::Statement;
use crate::activity::Trust;
use crate::breakdown::Breakdown;
use crate::gpus::{self, Link};
use crate::record::{Point, Record, Roofs, Step, StepTotal};
use crate::recorder::StepKind;
use crate::report::ShownSteps;
use crate::roofline;

pub use device::{DeviceExplanation, Gaps};
pub use parts::{Part, PartKind};

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
    /// How far it can be believed.
    pub trust: Trust,
    /// Its wall time, nanoseconds.
    pub wall_ns: f64,
    /// Whether the GPU's kernels were recorded, whatever became of the records.
    pub is_recorded: bool,
    /// What the GPU did, where its records can be believed.
    pub device: Option<DeviceExplanation>,
    /// The clock that the GPU's multiprocessors held meanwhile, MHz, where it was watched: ceilings out of a table are scaled to it.
    pub held_clock_mhz: Option<f64>,
    /// Its parts; they add up to `wall_ns`.
    pub parts: Vec<Part>,
    /// Its operations, by what could be saved.
    pub operations: Vec<OperationExplanation>,
    /// In plain words.
    pub statements: Vec<Statement>,
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
/// GPUs, at the clock that the card held.
pub fn explain(record: &Record, gpu: Option<&gpus::Gpu>) -> Explanation {
    let environment = &record.environment;
    let on_gpu = record.run.device != "cpu";
    let device = match &environment.gpu {
        Some(gpu) if on_gpu => gpu.name.clone(),
        _ => environment.cpu.name.clone(),
    };
    let known = environment.gpu.as_ref().filter(|_| on_gpu);
    let in_table = gpu.or_else(|| gpus::find(&known?.name).ok());
    // The clock is that of the card that ran, whatever card is asked about.
    let ran = known.and_then(|known| gpus::find(&known.name).ok());
    let is_same = ran.is_none_or(|ran| in_table.is_some_and(|gpu| gpu.name == ran.name));
    let source = Source {
        holds_clock: is_same,
        measured: environment.roofs.as_ref().filter(|_| gpu.is_none()),
        in_table,
    };
    let mut steps = Vec::new();
    if record.has_times() {
        for (index, point) in record.points.iter().enumerate() {
            for kind in [StepKind::Prefill, StepKind::Decode] {
                steps.extend(step(record, point, index, kind, &source));
            }
        }
    }
    // Of points that held several clocks the highest: no step is drawn above a roof for running faster than another.
    let clocks = record.points.iter().filter_map(held_clock_mhz);
    let mut explanation = Explanation {
        device,
        ceilings: source.ceilings(clocks.reduce(f64::max)),
        steps,
        remarks: Vec::new(),
    };
    explanation.remarks = sentences::remarks(record, &explanation);
    explanation
}

/// Where ceilings come from.
struct Source<'a> {
    measured: Option<&'a Roofs>,
    in_table: Option<&'a gpus::Gpu>,
    /// Whether the clock of the card that ran is that of the card of the table.
    holds_clock: bool,
}

impl Source<'_> {
    /// What was measured holds as it is; the table's are for a clock.
    fn ceilings(&self, clock_mhz: Option<f64>) -> Option<Roofs> {
        let from_table = || Some(self.in_table?.roofs(clock_mhz.filter(|_| self.holds_clock)));
        self.measured.cloned().or_else(from_table)
    }

    fn link(&self) -> Option<Link> {
        self.in_table.map(|gpu| gpu.link)
    }
}

/// The median clock of the multiprocessors while a point ran: under load, or else at all.
fn held_clock_mhz(point: &Point) -> Option<f64> {
    let watch = point.gpu.as_ref()?;
    let clock = watch.loaded_sm_clock_mhz.or(watch.sm_clock_mhz)?;
    Some(f64::from(clock.median)).filter(|mhz| *mhz > 0.0)
}

fn step(
    record: &Record,
    point: &Point,
    index: usize,
    kind: StepKind,
    source: &Source<'_>,
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
    let held_clock_mhz = held_clock_mhz(point);
    let ceilings = source.ceilings(held_clock_mhz);
    let breakdown = Breakdown::new(&total, ceilings.as_ref())?;
    let activity = total.device.as_ref();
    let trust = trust::of_measurement(record, point, kind, activity);
    let device = activity.and_then(|activity| DeviceExplanation::new(activity, &trust));
    let ramp_ns = match record.run.device.as_str() {
        "cuda" => practice::RAMP_S * 1e9,
        _ => 0.0,
    };
    let mut explanation = StepExplanation {
        point: index,
        label: point.label(),
        kind,
        wall_ns: breakdown.wall_ns,
        parts: parts::parts(&breakdown, device.as_ref(), ramp_ns),
        operations: operations(&breakdown, record.run.tp, source.link()),
        statements: Vec::new(),
        is_recorded: activity.is_some(),
        device,
        held_clock_mhz,
        trust,
    };
    trust::add_contradictions(&mut explanation);
    let mut more = device::statements(record, &explanation);
    more.extend(communication::statement(
        record,
        &explanation,
        source.link(),
    ));
    explanation.statements =
        sentences::of_step(&explanation, ceilings.as_ref(), more, has_operations);
    let counted = point.counted.iter().filter(|counted| counted.kind == kind);
    explanation
        .statements
        .extend(counted.filter_map(sentences::of_counters));
    Some(explanation)
}

fn is_communication(name: &str) -> bool {
    COMMUNICATION.iter().any(|start| name.starts_with(start))
}

fn part_ns(step: &StepExplanation, kind: PartKind) -> f64 {
    let parts = step.parts.iter().filter(|p| p.kind == kind);
    parts.map(|p| p.ns).sum()
}

/// Operations by what could be saved. The floor of what `ranks` tell each other is the time of its bytes on their link.
fn operations(step: &Breakdown, ranks: usize, link: Option<Link>) -> Vec<OperationExplanation> {
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
    if let Some(link) = link {
        let between_ranks = operations.iter_mut().filter(|o| is_communication(&o.name));
        for operation in between_ranks {
            let sent = communication::sent_bytes(&operation.name, operation.bytes, ranks);
            put_floor(operation, sent / link.bytes_per_s * 1e9, link.kind.title());
        }
    }
    operations.sort_by(|a, b| {
        b.saving_ns
            .total_cmp(&a.saving_ns)
            .then(b.floor_ns.total_cmp(&a.floor_ns))
    });
    operations
}

fn put_floor(operation: &mut OperationExplanation, floor_ns: f64, bound: &str) {
    if floor_ns <= 0.0 {
        return;
    }
    operation.floor_ns = floor_ns;
    operation.bound = Some(bound.to_owned());
    if let Some(ns) = operation.ns {
        operation.efficiency = (ns > 0.0).then(|| floor_ns / ns);
        operation.saving_ns = (ns - floor_ns).max(0.0);
        operation.is_above_roof = ns * roofline::ABOVE_ROOF < floor_ns;
    }
}
