//! Operations that were timed by replaying graphs of their launches.

use super::fold_line;
use super::table::{self, Table, TimeUnit};
use crate::quantity;
use crate::record::Point;

/// The table of them; nothing where none were.
pub(super) fn text(point: &Point) -> Option<String> {
    if point.replayed.is_empty() {
        return None;
    }
    let longest = point.replayed.iter().filter_map(|o| o.step_ns());
    let unit = TimeUnit::for_largest(longest.fold(0.0, f64::max));
    let mut table = Table::new(
        "llrrrrrl",
        [
            "operation".to_owned(),
            "kernel".to_owned(),
            "calls".to_owned(),
            "µs per\ncall".to_owned(),
            format!("{} per\nstep", unit.name),
            "GB/s".to_owned(),
            "replays".to_owned(),
            "timer".to_owned(),
        ],
    );
    for operation in &point.replayed {
        let call_ns = operation.call_ns();
        let rate = call_ns.filter(|ns| *ns > 0.0 && operation.work.bytes() > 0);
        table.row([
            operation.name.clone(),
            operation.kernel.clone(),
            operation.calls.to_string(),
            call_ns.map_or_else(table::none, |ns| quantity::significant(ns / 1e3, 4)),
            unit.optional(operation.step_ns()),
            rate.map_or_else(table::none, |ns| {
                quantity::significant(operation.work.bytes() as f64 / ns, 3)
            }),
            operation.samples_ns.len().to_string(),
            operation.timer.name().to_owned(),
        ]);
    }
    let note = "Each row is a CUDA graph that holds the operation in every layer, again and again, replayed between two events after the \
                steps: medians over replays. Activations lie in L2 then and the host makes no gaps, so that the rows need not add up to a \
                step; `forward` is all of them in their order.";
    Some(format!(
        "Decode operations by graph replay\n\n{}\n\n{}",
        table.render(),
        fold_line(note)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::StepTotal;
    use crate::recorder::{Timer, Work};
    use crate::replays::ReplayedOperation;

    #[test]
    fn rows_are_medians_of_a_call_and_their_sum_over_a_step() {
        let operation = |name: &str, kernel: &str, calls, samples_ns: &[f64]| ReplayedOperation {
            name: name.to_owned(),
            kernel: kernel.to_owned(),
            calls,
            launches: 1.0,
            work: Work {
                weight_bytes: 40_000_000,
                ..Work::default()
            },
            calls_in_graph: 2 * calls,
            samples_ns: samples_ns.to_vec(),
            timer: Timer::Graph,
        };
        let point = Point {
            batch_size: 1,
            input_len: 8,
            output_len: 4,
            repetitions: Vec::new(),
            prefill: StepTotal::empty(),
            decode: None,
            gpu: None,
            counted: Vec::new(),
            replayed: vec![
                operation("qkv_proj", "gemv", 28, &[16_000.0, 15_900.0, 20_000.0]),
                operation("forward", "", 1, &[3_100_000.0]),
                operation("o_proj", "gemv", 28, &[]),
            ],
        };
        insta::assert_snapshot!(text(&point).unwrap());
        let point = Point {
            replayed: Vec::new(),
            ..point
        };
        assert_eq!(text(&point), None);
    }
}
