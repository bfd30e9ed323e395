//! The steps of a record as folded stacks.

use stepscope_profiler::{OperationTotal, Phase, Record, StepKind, StepTotal, Timer};

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
        let own_ns: u64 = total
            .phases
            .iter()
            .filter(|p| p.name == phase)
            // Where the GPU's time was taken, the host only queued the work.
            .map(|p| mean(p.gpu_ns.unwrap_or(p.host_ns)))
            .fold(0, u64::saturating_add);
        let phase_ns = match phase {
            // The last one: what the others leave of the step.
            Phase::Other => left_ns,
            _ => own_ns,
        };
        left_ns = left_ns.saturating_sub(phase_ns);
        let operations: Vec<&OperationTotal> = total
            .operations
            .iter()
            .filter(|o| o.phase == phase && o.timer != Timer::None)
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

#[cfg(test)]
mod tests {
    use stepscope_profiler::{Operation, PhaseTime, Step, Work};

    use super::*;

    /// A step on a GPU: the host queues the forward pass in 10 ns, the GPU takes 700 for it, and the host waits in `other`.
    fn on_gpu(timer: Timer, duration_ns: u64) -> StepTotal {
        let phase = |name, host_ns, gpu_ns| PhaseTime {
            name,
            start_ns: 0,
            host_ns,
            gpu_ns,
        };
        let step = Step {
            kind: StepKind::Decode,
            index: 0,
            batch_size: 1,
            wall_ns: 1000,
            phases: vec![
                phase(Phase::Prepare, 100, None),
                phase(Phase::Forward, 10, Some(700)),
                phase(Phase::Other, 890, None),
            ],
            operations: vec![Operation {
                name: "gemm".into(),
                kernel: "gemv".into(),
                phase: Phase::Forward,
                layer: None,
                work: Work::default(),
                launches: 1,
                start_ns: 110,
                duration_ns,
                timer,
            }],
            kernels: Vec::new(),
            findings: Vec::new(),
            device: None,
            sm_clock_mhz: None,
        };
        let mut total = StepTotal::empty();
        total.add(&step);
        total
    }

    fn lines(total: &StepTotal) -> Vec<(String, u128)> {
        let mut root = Tree::default();
        add_step(&mut root, total, false);
        let mut lines = Vec::new();
        root.visit(&mut |path, tree| {
            if tree.own[1] > 0 {
                lines.push((path.to_string(), tree.own[1]));
            }
        });
        lines
    }

    #[test]
    fn a_gpu_s_time_stands_at_its_phase_and_widths_add_up() {
        let with_operations = lines(&on_gpu(Timer::Event, 600));
        let widths: Vec<u128> = with_operations.iter().map(|(_, width)| *width).collect();
        assert_eq!(widths.iter().sum::<u128>(), 1000, "{with_operations:?}");
        assert!(
            with_operations
                .iter()
                .any(|(path, width)| path.ends_with("gemv") && *width == 600)
        );
        // Inside a graph no operation has a time: the phase is one frame.
        let graph = lines(&on_gpu(Timer::None, 0));
        let graph: Vec<(&str, u128)> = graph.iter().map(|(p, w)| (p.as_str(), *w)).collect();
        assert_eq!(graph, [("prepare", 100), ("forward", 700), ("other", 200)]);
    }
}
