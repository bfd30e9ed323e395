//! The sentence that says what bounds a step.

use super::{ABOVE_ROOF, level};
use crate::breakdown::{Breakdown, OperationMean, share};
use crate::quantity;
use crate::record::{Record, Roofs};
use crate::recorder::StepKind;

/// Floors that cover less of a step than this do not bound it.
const BOUND_SHARE: f64 = 0.4;
/// Floors that cover less of a step than this leave a loss worth naming.
const LOSS_SHARE: f64 = 0.8;

/// One plain sentence on what bounds the mean step of `kind` at a point, with the figures it follows from, and a second one
/// where much of the step is lost to something else.
pub fn sentence(record: &Record, point_index: usize, kind: StepKind) -> String {
    let roofs = record.environment.roofs.as_ref();
    let breakdown = record
        .points
        .get(point_index)
        .and_then(|point| point.total(kind))
        .and_then(|total| Breakdown::new(total, roofs));
    match breakdown {
        Some(breakdown) if breakdown.wall_ns > 0.0 => explain(&breakdown, roofs, kind.title()),
        _ => format!("{} was not measured.", kind.title()),
    }
}

fn explain(step: &Breakdown, roofs: Option<&Roofs>, title: &str) -> String {
    let wall = quantity::duration(step.wall_ns);
    if step.operations.is_empty() {
        return format!("{title} takes {wall} per step; its operations were not recorded.");
    }
    let floors_ns = step.floors.total_ns();
    let (Some(roofs), true) = (roofs, floors_ns > 0.0) else {
        return without_roofs(step, title);
    };
    let floor_share = floors_ns / step.wall_ns;
    let floor = quantity::duration(floors_ns);
    if floor_share > ABOVE_ROOF {
        return format!(
            "{title} took {wall} per step, but its work needs {floor} at the limits measured on this machine: the cost model \
             or a roof is wrong."
        );
    }
    let loss = Loss::largest(step);
    if floor_share < BOUND_SHARE {
        let cause = match loss {
            Loss::Operation(_) => "slow kernels",
            Loss::Uncovered { .. } => "overhead",
        };
        return format!(
            "{title} is bound by {cause}: the limits of this machine account for {floor} ({}) of the {wall} step; the largest \
             loss is {}.",
            quantity::percent(floor_share),
            loss.describe(step),
        );
    }
    let mut sentence = bound_by_a_roof(step, roofs, title, &wall);
    if floor_share < LOSS_SHARE {
        sentence += &format!(" The largest loss is {}.", loss.describe(step));
    }
    sentence
}

/// Compute or memory.
fn bound_by_a_roof(step: &Breakdown, roofs: &Roofs, title: &str, wall: &str) -> String {
    let floors = &step.floors;
    if floors.compute_ns >= floors.weights_ns + floors.kv_ns + floors.activations_ns {
        let flops_per_s = step.work.flops / step.wall_ns * 1e9;
        return format!(
            "{title} is bound by compute: {} in {wall} is {}, {} of the {} this machine reaches.",
            quantity::with_prefix(step.work.flops, "FLOP"),
            quantity::with_prefix(flops_per_s, "FLOP/s"),
            quantity::percent(flops_per_s / roofs.flops_per_s),
            quantity::with_prefix(roofs.flops_per_s, "FLOP/s"),
        );
    }
    let (weights, kv, activations) = (
        step.work.weight_bytes,
        step.work.kv_bytes,
        step.work.activation_bytes,
    );
    let (what, amount, bytes, level) = if floors.activations_ns > floors.weights_ns + floors.kv_ns {
        let largest_call = step
            .operations
            .iter()
            .filter_map(|o| share(o.work.activation_bytes, o.calls))
            .fold(0.0, f64::max);
        let amount = quantity::bytes(activations);
        (
            "moving activations",
            amount,
            activations,
            level(roofs, largest_call),
        )
    } else {
        let (what, first, second, second_name) = if floors.kv_ns > floors.weights_ns {
            ("reading the KV cache", kv, weights, "weights")
        } else {
            ("reading weights", weights, kv, "KV cache")
        };
        let mut amount = quantity::bytes(first);
        if second > 0.05 * first {
            amount += &format!(" and {} of {second_name}", quantity::bytes(second));
        }
        (what, amount, weights + kv, level(roofs, weights + kv))
    };
    let bytes_per_s = bytes / step.wall_ns * 1e9;
    let (name, roof) = level.map_or(("memory", f64::NAN), |l| (&l.name, l.bytes_per_s));
    format!(
        "{title} is bound by {what}: {amount} in {wall} is {}, {} of the {} this machine reads from {name}.",
        quantity::with_prefix(bytes_per_s, "B/s"),
        quantity::percent(bytes_per_s / roof),
        quantity::with_prefix(roof, "B/s"),
    )
}

/// The item of a step that loses most time above its floor.
enum Loss<'a> {
    Operation(&'a OperationMean),
    Uncovered {
        phase: &'static str,
        has_operations: bool,
        ns: f64,
    },
}

impl Loss<'_> {
    /// From the larger of the two kinds of loss, so that many slow operations outweigh one slow phase.
    fn largest(step: &Breakdown) -> Loss<'_> {
        let lost_in = |o: &OperationMean| (o.ns - o.floor_ns).max(0.0);
        let slowest = step
            .operations
            .iter()
            .filter(|o| o.is_timed)
            .max_by(|a, b| lost_in(a).total_cmp(&lost_in(b)));
        let largest = step
            .phases
            .iter()
            .max_by(|a, b| a.uncovered_ns.total_cmp(&b.uncovered_ns));
        let lost_in_operations: f64 = step.operations.iter().map(lost_in).sum();
        match (slowest, largest) {
            (Some(operation), _) if lost_in_operations > step.wall_ns - step.operations_ns() => {
                Loss::Operation(operation)
            }
            (_, Some(phase)) => Loss::Uncovered {
                phase: phase.name.name(),
                has_operations: phase.has_operations,
                ns: phase.uncovered_ns,
            },
            _ => Loss::Uncovered {
                phase: "other",
                has_operations: false,
                ns: step.wall_ns,
            },
        }
    }

    fn describe(&self, step: &Breakdown) -> String {
        let (what, ns) = match self {
            Loss::Operation(o) => {
                let what = format!("{} ({}), above its floor", o.name, o.kernel);
                (what, o.ns - o.floor_ns)
            }
            Loss::Uncovered {
                phase,
                has_operations: true,
                ns,
            } => (format!("{phase}, between its operations"), *ns),
            Loss::Uncovered { phase, ns, .. } => ((*phase).to_owned(), *ns),
        };
        format!(
            "{what}: {} or {} of the step",
            quantity::duration(ns),
            quantity::percent(ns / step.wall_ns),
        )
    }
}

fn without_roofs(step: &Breakdown, title: &str) -> String {
    let largest = step.operations.iter().find(|o| o.is_timed);
    let largest = largest.map_or_else(String::new, |o| {
        let share = quantity::percent(o.ns / step.wall_ns);
        format!(", {share} of it in {}", o.name)
    });
    let per_second = |amount: f64| amount / step.wall_ns * 1e9;
    format!(
        "{title} takes {} per step{largest}: {} at {} and {} at {}. What bounds it is not known: no roof of this machine was \
         measured.",
        quantity::duration(step.wall_ns),
        quantity::with_prefix(step.work.flops, "FLOP"),
        quantity::with_prefix(per_second(step.work.flops), "FLOP/s"),
        quantity::bytes(step.work.bytes()),
        quantity::with_prefix(per_second(step.work.bytes()), "B/s"),
    )
}
