//! An explained record as text: sentences first, the numbers under them.

use super::{Explanation, StepExplanation};
use crate::report::{Table, TimeUnit, calls, heading, none, percentage, verdict};

/// Operations with a row of their own.
const ROWS: usize = 14;

impl Explanation {
    /// The whole explanation. `why` puts the figures under each sentence.
    pub fn text(&self, why: bool) -> String {
        let mut sections = Vec::new();
        for step in &self.steps {
            let title = format!("{}, {}", step.kind.title(), step.label);
            sections.push(heading(&title));
            sections.push(verdict(&step.trust));
            sections.extend(step.statements.iter().map(|s| s.render(why)));
            sections.push(parts_table(step));
            if !step.operations.is_empty() {
                sections.push(operations_table(step));
            }
        }
        let remarks: Vec<String> = self.remarks.iter().map(|s| s.render(why)).collect();
        if !remarks.is_empty() {
            sections.push(remarks.join("\n"));
        }
        sections.join("\n\n") + "\n"
    }
}

fn parts_table(step: &StepExplanation) -> String {
    let unit = TimeUnit::for_largest(step.wall_ns);
    let mut table = Table::new(
        "lrr",
        [
            "part of the step".to_owned(),
            unit.name.to_owned(),
            "% of\nstep".to_owned(),
        ],
    );
    let cells = |name: &str, ns: f64| {
        [
            name.to_owned(),
            unit.cell(ns),
            percentage((step.wall_ns > 0.0).then(|| ns / step.wall_ns)),
        ]
    };
    for part in step.parts.iter().filter(|p| p.ns != 0.0) {
        table.row(cells(part.kind.title(), part.ns));
    }
    table.total(cells("step, wall time", step.wall_ns));
    table.render()
}

fn operations_table(step: &StepExplanation) -> String {
    let unit = TimeUnit::for_largest(step.wall_ns);
    let mut table = Table::new(
        "lrrrrrrl",
        [
            "operation, by saving".to_owned(),
            "calls".to_owned(),
            format!("time\n{}", unit.name),
            format!("floor\n{}", unit.name),
            "floor /\ntime %".to_owned(),
            format!("saving\n{}", unit.name),
            "% of\nstep".to_owned(),
            "bound by".to_owned(),
        ],
    );
    for operation in step.operations.iter().take(ROWS) {
        let has_floor = operation.floor_ns > 0.0;
        let is_timed = operation.ns.is_some();
        table.row([
            operation.name.clone(),
            calls(operation.calls),
            unit.optional(operation.ns),
            unit.optional(has_floor.then_some(operation.floor_ns)),
            percentage(operation.efficiency) + if operation.is_above_roof { " !" } else { "" },
            unit.optional((has_floor && is_timed).then_some(operation.saving_ns)),
            percentage((has_floor && is_timed).then(|| operation.saving_ns / step.wall_ns)),
            operation.bound.clone().unwrap_or_else(none),
        ]);
    }
    let more = step.operations.len().saturating_sub(ROWS);
    let mut text = table.render();
    if more > 0 {
        text += &format!("\n{more} more operations could save less.");
    }
    text
}
