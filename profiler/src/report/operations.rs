//! The operations of the mean step, longest first, and whatever else its time went to.

use super::fold_line;
use super::table::{self, Table, TimeUnit};
use crate::breakdown::{Breakdown, OperationMean, share};
use crate::quantity;
use crate::record::{Point, Roofs};
use crate::recorder::{StepKind, Timer};

/// Operations with a row of their own; the others share one.
const ROWS: usize = 12;

/// The table of operations of the steps of `kind`, unless none were recorded.
pub(super) fn text(point: &Point, kind: StepKind, roofs: Option<&Roofs>) -> Option<String> {
    let step = Breakdown::new(point.total(kind)?, roofs)?;
    if step.operations.is_empty() {
        return None;
    }
    let unit = TimeUnit::for_largest(step.wall_ns);
    // Where every time is the host's, nobody asks.
    let names_timers = step.operations.iter().any(|o| o.timer != Timer::Wall);
    let header = [
        "operation".to_owned(),
        "kernel".to_owned(),
        "calls".to_owned(),
        format!("{} per\nstep", unit.name),
        "% of\nstep".to_owned(),
        "GFLOP/s".to_owned(),
        "GB/s".to_owned(),
        "% of\nroof".to_owned(),
        "bound by".to_owned(),
    ];
    let timers = names_timers.then(|| "timer".to_owned());
    let mut table = Table::new("llrrrrrrll", header.into_iter().chain(timers));
    let shown = if step.operations.len() == ROWS + 1 {
        ROWS + 1
    } else {
        ROWS
    };
    let (longest, rest) = step.operations.split_at(shown.min(step.operations.len()));
    for operation in longest {
        let timer = names_timers.then(|| operation.timer.name().to_owned());
        table.row(row(operation, &unit, step.wall_ns).into_iter().chain(timer));
    }
    let mut plain = |name: String, calls: String, ns: f64| {
        let mut cells = vec![name, String::new(), calls, unit.cell(ns)];
        cells.push(table::percentage(share(ns, step.wall_ns)));
        cells.extend(std::iter::repeat_n(String::new(), 4));
        table.row(cells);
    };
    if !rest.is_empty() {
        plain(
            format!("{} more operations", rest.len()),
            calls(rest.iter().map(|o| o.calls).sum()),
            rest.iter().map(|o| o.ns).sum(),
        );
    }
    plain(
        "between operations".to_owned(),
        String::new(),
        step.between_operations_ns(),
    );
    plain(
        "phases without operations".to_owned(),
        String::new(),
        step.outside_operations_ns(),
    );
    table.total([
        "step, wall time".to_owned(),
        String::new(),
        calls(step.operations.iter().map(|o| o.calls).sum()),
        unit.cell(step.wall_ns),
        table::percentage(share(step.wall_ns, step.wall_ns)),
        rate(step.work.flops, step.wall_ns),
        rate(step.work.bytes(), step.wall_ns),
        roof(share(step.floors.total_ns(), step.wall_ns).filter(|share| *share > 0.0)),
        String::new(),
    ]);

    let mut text = format!(
        "{} operations, mean of {}, all layers together\n\n{}",
        kind.title(),
        match step.steps {
            1 => "1 step".to_owned(),
            n => format!("{n} steps"),
        },
        table.render()
    );
    if step.operations.iter().any(|o| !o.is_timed) {
        let note = "Operations whose timer is `none` have no time of their own: they ran inside a CUDA graph that was replayed as a \
                    whole, or their kernels were not all recorded. --timer cupti times kernels inside graphs, and \
                    --disable-cuda-graph does without graphs.";
        text += &format!("\n\n{}", fold_line(note));
    }
    let above_roof: Vec<String> = step
        .operations
        .iter()
        .filter(|o| o.is_above_roof())
        .map(|o| {
            let share = o.roof_share().map_or_else(table::none, quantity::percent);
            format!("{} ({}) {share}", o.name, o.kernel)
        })
        .collect();
    if !above_roof.is_empty() {
        let note = format!(
            "! Above its roof, so the cost model or the roof is wrong: {}.",
            above_roof.join(", ")
        );
        text += &format!("\n\n{}", fold_line(&note));
    }
    Some(text)
}

fn row(operation: &OperationMean, unit: &TimeUnit, wall_ns: f64) -> [String; 9] {
    let ns = operation.is_timed.then_some(operation.ns);
    [
        operation.name.clone(),
        operation.kernel.clone(),
        calls(operation.calls),
        unit.optional(ns),
        table::percentage(ns.and_then(|ns| share(ns, wall_ns))),
        rate(operation.work.flops, operation.ns),
        rate(operation.work.bytes(), operation.ns),
        roof(operation.roof_share()) + if operation.is_above_roof() { " !" } else { "" },
        operation
            .bound
            .as_ref()
            .map_or_else(table::none, |bound| bound.name().to_owned()),
    ]
}

/// 10⁹ of `amount` per second: an amount per nanosecond.
fn rate(amount: f64, ns: f64) -> String {
    match share(amount, ns) {
        Some(rate) if rate > 0.0 => quantity::significant(rate, 3),
        _ => table::none(),
    }
}

fn roof(share: Option<f64>) -> String {
    share.map_or_else(table::none, |share| table::fixed(share * 100.0, 0))
}

/// A mean number of calls; whole numbers stay whole.
pub(crate) fn calls(calls: f64) -> String {
    if calls.fract() == 0.0 {
        format!("{calls}")
    } else {
        quantity::significant(calls, 3)
    }
}
