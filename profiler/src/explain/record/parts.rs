//! The parts that a step's wall time is cut into.

use serde::Serialize;

use super::device::DeviceExplanation;
use super::is_communication;
use crate::activity::Cause;
use crate::breakdown::Breakdown;
use crate::recorder::Phase;

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
    /// What every kernel takes besides its work: filling the GPU and draining it ([`RAMP_S`](crate::explain::practice::RAMP_S)), of operations of a GPU.
    Ramp,
    /// What operations take above their floors and that.
    AboveFloors,
    /// Operations that move data between ranks.
    Communication,
    /// Time in which the GPU ran copies, fills and kernels that belong to no operation.
    OutsideOperations,
    /// What operations took at the same time as others, below zero: their times add up to more than the GPU was busy.
    Overlap,
    /// The GPU waited for the host: the launch of what came next returned only after the gap began.
    LaunchLate,
    /// The GPU waited though the next kernel was in its queue: for the kernel before, or between two dependent kernels.
    Dependency,
    /// From the last kernel to the end of the step.
    AfterLast,
    /// The GPU waited, and the records do not tell for what.
    UnknownGap,
    /// Time of a phase with operations that none of them covers, where nothing recorded what it was: launches, and waiting for them.
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
            PartKind::Ramp => "ramp of each kernel",
            PartKind::AboveFloors => "operations above their floors",
            PartKind::Communication => "communication",
            PartKind::OutsideOperations => "copies and kernels of no operation",
            PartKind::Overlap => "operations that ran at once",
            PartKind::LaunchLate => "GPU waiting for launches",
            PartKind::Dependency => "GPU waiting for the kernel before",
            PartKind::AfterLast => "after the last kernel",
            PartKind::UnknownGap => "GPU waiting, not known for what",
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

    /// Where its time comes from.
    pub(super) fn arithmetic(self) -> &'static str {
        match self {
            PartKind::Ramp => {
                "kernels × 1.85 µs, fitted to reads on H100 (flash-vla), no more than they took above their floors"
            }
            PartKind::AboveFloors => "sum over operations of time − floor",
            PartKind::Communication => "time of all-reduces and all-gathers",
            PartKind::OutsideOperations | PartKind::Overlap => {
                "time in which anything ran − times of all operations"
            }
            PartKind::LaunchLate => {
                "gaps that ended only after the call that launched what came next had returned late, − host phases"
            }
            PartKind::Dependency => "gaps before kernels that were in the queue already",
            PartKind::AfterLast => "end of the step − end of its last kernel",
            PartKind::UnknownGap => "gaps before kernels of which the launch was not recorded",
            PartKind::Gaps => "time of the phases with operations − time of these operations",
            PartKind::Host => "host time of token_pool, kv_alloc and prepare",
            _ => "wall time − all other parts",
        }
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

/// The time of a step in which no operation ran, before it is divided.
struct Rest {
    /// What operations without a time of their own ran in.
    untimed_ns: f64,
    parts: Vec<(PartKind, f64)>,
}

/// The parts of a step; what they leave of its wall time is unexplained. `device` is what the GPU's records say of it, where they can
/// be believed.
///
/// `ramp_ns` is what a kernel takes besides its work; 0 of a CPU.
pub(super) fn parts(
    step: &Breakdown,
    device: Option<&DeviceExplanation>,
    ramp_ns: f64,
) -> Vec<Part> {
    let untimed: Vec<_> = step.operations.iter().filter(|o| !o.is_timed).collect();
    let untimed_floors_ns: f64 = untimed.iter().map(|o| o.floor_ns).sum();
    let rest = match device {
        Some(device) => recorded_rest(step, device, untimed_floors_ns > 0.0),
        None => unrecorded_rest(step, untimed_floors_ns > 0.0),
    };
    let untimed_scale = if untimed_floors_ns > rest.untimed_ns {
        rest.untimed_ns / untimed_floors_ns
    } else {
        1.0
    };
    let mut floors = [0.0; 4];
    let mut above_ns = 0.0;
    let mut ramps_ns = 0.0;
    let mut communication_ns = 0.0;
    for operation in &step.operations {
        if is_communication(&operation.name) && operation.is_timed {
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
            let above = operation.ns - floor_ns;
            let ramp = (ramp_ns * operation.calls).min(above);
            ramps_ns += ramp;
            above_ns += above - ramp;
        }
        let shares = &operation.floor_parts;
        let total_ns: f64 = shares.iter().sum();
        if total_ns > 0.0 {
            for (floor, part_ns) in floors.iter_mut().zip(shares) {
                *floor += part_ns / total_ns * floor_ns;
            }
        }
    }
    if untimed_floors_ns > 0.0 {
        let above = rest.untimed_ns - untimed_floors_ns * untimed_scale;
        let calls: f64 = untimed.iter().map(|o| o.calls).sum();
        let ramp = (ramp_ns * calls).min(above).max(0.0);
        ramps_ns += ramp;
        above_ns += above - ramp;
    }
    let [compute, weights, kv, activations] = floors;
    let of_operations = [
        (PartKind::Compute, compute),
        (PartKind::Weights, weights),
        (PartKind::Kv, kv),
        (PartKind::Activations, activations),
        (PartKind::Ramp, ramps_ns),
        (PartKind::AboveFloors, above_ns),
        (PartKind::Communication, communication_ns),
    ];
    let mut parts: Vec<Part> = of_operations
        .into_iter()
        .chain(rest.parts)
        .map(|(kind, ns)| Part { kind, ns })
        .collect();
    let covered: f64 = parts.iter().map(|p| p.ns).sum();
    parts.push(Part {
        kind: PartKind::Unexplained,
        ns: step.wall_ns - covered,
    });
    parts
}

/// Time of phases without operations, on the host.
pub(super) fn host_ns(step: &Breakdown) -> f64 {
    let phases = step
        .phases
        .iter()
        .filter(|phase| !is_device_phase(phase.name, phase.has_operations));
    phases
        .filter(|phase| phase.name != Phase::Other)
        .map(|phase| phase.uncovered_ns)
        .sum()
}

fn is_device_phase(name: Phase, has_operations: bool) -> bool {
    matches!(name, Phase::Forward | Phase::Sample) || has_operations
}

/// What the host's clock, or events around operations, leave: nothing tells what it is.
fn unrecorded_rest(step: &Breakdown, has_untimed: bool) -> Rest {
    let phases = step
        .phases
        .iter()
        .filter(|phase| phase.name != Phase::Other);
    let gaps_ns: f64 = phases
        .filter(|phase| is_device_phase(phase.name, phase.has_operations))
        .map(|phase| phase.uncovered_ns)
        .sum();
    // Operations of a replayed graph lie in the forward phase's time, which nothing divides further.
    let (untimed_ns, gaps_ns) = if has_untimed {
        (gaps_ns, 0.0)
    } else {
        (0.0, gaps_ns)
    };
    Rest {
        untimed_ns,
        parts: vec![(PartKind::Gaps, gaps_ns), (PartKind::Host, host_ns(step))],
    }
}

/// What the records of a GPU say.
fn recorded_rest(step: &Breakdown, device: &DeviceExplanation, has_untimed: bool) -> Rest {
    let timed = step.operations.iter().filter(|o| o.is_timed);
    let outside_ns = device.busy_ns - timed.map(|o| o.ns).sum::<f64>();
    let (untimed_ns, outside_ns) = match has_untimed {
        true => (outside_ns.max(0.0), outside_ns.min(0.0)),
        false => (0.0, outside_ns),
    };
    // While the host prepares a step the GPU has nothing to do: that is the first of the gaps in which it waits for a launch.
    let late_ns = device.gap_ns(Cause::LaunchLate);
    let host_ns = host_ns(step).min(late_ns);
    Rest {
        untimed_ns,
        parts: vec![
            (PartKind::OutsideOperations, outside_ns.max(0.0)),
            (PartKind::Overlap, outside_ns.min(0.0)),
            (PartKind::Host, host_ns),
            (PartKind::LaunchLate, late_ns - host_ns),
            (PartKind::Dependency, device.gap_ns(Cause::Dependency)),
            (PartKind::AfterLast, device.gap_ns(Cause::AfterLast)),
            (PartKind::UnknownGap, device.gap_ns(Cause::Unknown)),
        ],
    }
}
