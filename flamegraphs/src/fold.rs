//! The steps of a record as folded stacks.

use stepscope_profiler::{OperationTotal, Phase, Record, StepKind, StepTotal};

use crate::blocks::block_of;
use crate::stacks::{Tree, frame};

/// The frame for the time of a phase that none of its operations covers.
const BETWEEN_OPERATIONS: &str = "(between operations)";

/// How the steps of a record become stacks.
#[derive(Debug, Clone, Copy, Default)]
pub struct FoldOptions {
    /// Only the point with this index; otherwise all points, each under a frame of its own when there are several.
    pub point: Option<usize>,
    /// A frame per layer under the layer's blocks, instead of all layers merged.
    pub by_layer: bool,
}

/// The folded stacks of the mean step of `kind`, one `frame;frame;… nanoseconds` per line, in the order in which the step
/// runs them. Empty when no such step was measured.
pub fn folded(record: &Record, kind: StepKind, options: &FoldOptions) -> Vec<String> {
    let mut root = Tree::default();
    let several = options.point.is_none() && record.points.len() > 1;
    for (index, point) in record.points.iter().enumerate() {
        let is_selected = options.point.is_none_or(|selected| selected == index);
        let Some(total) = point.total(kind).filter(|_| is_selected) else {
            continue;
        };
        let mut tree = root.child(kind.name().to_owned());
        if several {
            tree = tree.child(frame(&point.label()));
        }
        add_step(tree, total, options.by_layer);
    }
    let mut lines = Vec::new();
    root.visit(&mut |path, tree| {
        if tree.own[1] > 0 {
            lines.push(format!("{path} {}", tree.own[1]));
        }
    });
    lines
}

/// Adds the phases of the mean step. Rounding to nanoseconds is made up for where the time is not accounted for anyway: in a
/// phase by the time between operations, in the step by the phase `other`.
fn add_step(tree: &mut Tree, total: &StepTotal, by_layer: bool) {
    let Some(steps) = u64::try_from(total.steps).ok().filter(|steps| *steps > 0) else {
        return;
    };
    let mean = |ns: u64| ns / steps;
    let wall_ns = total.wall_ns / steps + u64::from(total.wall_ns % steps >= steps.div_ceil(2));
    let mut left_ns = wall_ns;
    for phase in Phase::ALL {
        let host_ns: u64 = total
            .phases
            .iter()
            .filter(|p| p.name == phase)
            .map(|p| mean(p.host_ns))
            .fold(0, u64::saturating_add);
        let phase_ns = match phase {
            // The last one: what the others leave of the step.
            Phase::Other => left_ns,
            _ => host_ns,
        };
        left_ns = left_ns.saturating_sub(phase_ns);
        let operations: Vec<&OperationTotal> = total
            .operations
            .iter()
            .filter(|o| o.phase == phase)
            .collect();
        if phase_ns == 0 && operations.is_empty() {
            continue;
        }
        let tree = tree.child(phase.name().to_owned());
        let mut uncovered_ns = phase_ns;
        for operation in &operations {
            let ns = mean(operation.duration_ns);
            uncovered_ns = uncovered_ns.saturating_sub(ns);
            stack_of(tree, operation, by_layer).own[1] += u128::from(ns);
        }
        if operations.is_empty() {
            tree.own[1] += u128::from(phase_ns);
        } else {
            let between = tree.child(BETWEEN_OPERATIONS.to_owned());
            between.own[1] += u128::from(uncovered_ns);
        }
    }
}

/// The frame of the kernel that ran `operation`, on top of the frame of its phase.
fn stack_of<'a>(phase: &'a mut Tree, operation: &OperationTotal, by_layer: bool) -> &'a mut Tree {
    let mut tree = phase;
    if let Some(layer) = operation.layer.filter(|_| by_layer) {
        tree = tree.child(format!("layer_{layer:02}"));
    }
    if operation.phase == Phase::Forward
        && let Some(block) = block_of(&operation.name)
    {
        tree = tree.child(block.to_owned());
    }
    tree.child(frame(&operation.name))
        .child(frame(&operation.kernel))
}
