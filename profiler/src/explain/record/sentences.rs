//! What an explained step comes to, in words.

use super::{Explanation, PartKind, StepExplanation, part_ns};
use crate::explain::statement::{Figure, Statement};
use crate::measured::CountedStep;
use crate::quantity::{self, duration, percent, significant};
use crate::record::{Record, Roofs};

/// Savings below this share of the step are not worth a sentence.
const WORTH_A_SENTENCE: f64 = 0.02;

/// What the hardware counted of the device's memory, beside the bytes that the floors were computed with.
pub(super) fn of_counters(counted: &CountedStep) -> Option<Statement> {
    let (dram, model) = counted.dram_and_model_bytes()?;
    if model <= 0.0 {
        return None;
    }
    let more = counted.operations.iter().filter_map(|o| {
        let more = o.dram_bytes()? - o.work.bytes() as f64;
        (more > 0.02 * model).then_some((o, more))
    });
    let worst = match more.max_by(|a, b| a.1.total_cmp(&b.1)) {
        None => String::new(),
        Some((operation, more)) => format!(
            " Most that is read or written beyond them is {}'s: {}.",
            operation.name,
            quantity::bytes(more)
        ),
    };
    Some(Statement::new(
        format!(
            "Counted by the hardware, a {} step moves {} to and from DRAM, {} of the {} that the cost model has.{worst}",
            counted.kind.name(),
            quantity::bytes(dram),
            percent(dram / model),
            quantity::bytes(model),
        ),
        vec![
            Figure::new(
                "DRAM bytes, measured",
                dram,
                "B",
                "dram__bytes_read.sum + dram__bytes_write.sum over the kernels of a step that ran for it alone",
            ),
            Figure::new(
                "bytes, by shape",
                model,
                "B",
                "sum of the cost models of the same operations",
            ),
        ],
    ))
}

/// Floors, the largest part besides them, `more` of that, and what could be saved.
pub(super) fn of_step(
    step: &StepExplanation,
    ceilings: Option<&Roofs>,
    more: Vec<Statement>,
    has_operations: bool,
) -> Vec<Statement> {
    let title = step.kind.title();
    let wall = duration(step.wall_ns);
    let floor_ns: f64 = step
        .parts
        .iter()
        .filter(|p| p.kind.is_floor())
        .map(|p| p.ns)
        .sum();
    let mut statements = Vec::new();
    match ceilings {
        Some(roofs) if floor_ns > 0.0 => {
            let mut largest: Vec<_> = step.parts.iter().filter(|p| p.kind.is_floor()).collect();
            largest.sort_by(|a, b| b.ns.total_cmp(&a.ns));
            let made_of: Vec<String> = largest
                .iter()
                .filter(|p| p.ns > 0.02 * floor_ns)
                .map(|p| format!("{} {}", p.kind.title().trim_end_matches(" floor"), duration(p.ns)))
                .collect();
            statements.push(Statement::new(
                format!(
                    "{title} takes {wall}, {} times the {} that its work needs at the ceilings of this device ({}).",
                    significant(step.wall_ns / floor_ns, 3),
                    duration(floor_ns),
                    made_of.join(", "),
                ),
                vec![
                    Figure::new(
                        "floor",
                        floor_ns / 1e9,
                        "s",
                        format!(
                            "sum over operations of the longer of FLOP / {} and bytes / the rate of the memory level they can still be in \
                             ({})",
                            quantity::with_prefix(roofs.flops_per_s, "FLOP/s"),
                            roofs
                                .bandwidth
                                .iter()
                                .map(|l| format!(
                                    "{} {}",
                                    l.name,
                                    quantity::with_prefix(l.bytes_per_s, "B/s")
                                ))
                                .collect::<Vec<_>>()
                                .join(", "),
                        ),
                    ),
                    Figure::new(
                        "time over floor",
                        step.wall_ns / floor_ns,
                        "",
                        format!("{:.0} ns / {floor_ns:.0} ns", step.wall_ns),
                    ),
                ],
            ));
        }
        _ => statements.push(Statement::plain(format!(
            "{title} takes {wall}; without ceilings of this device there are no floors to hold it against."
        ))),
    }
    let rest = step.parts.iter().filter(|p| !p.kind.is_floor());
    if let Some(largest) = rest.max_by(|a, b| a.ns.total_cmp(&b.ns))
        && largest.ns > WORTH_A_SENTENCE * step.wall_ns
    {
        statements.push(Statement::new(
            format!(
                "Of what lies above the floor, most is {}: {}, {} of the step.",
                largest.kind.title(),
                duration(largest.ns),
                percent(largest.ns / step.wall_ns),
            ),
            vec![Figure::new(
                largest.kind.title(),
                largest.ns / 1e9,
                "s",
                largest.kind.arithmetic(),
            )],
        ));
    }
    statements.extend(more);
    let worth: Vec<_> = step
        .operations
        .iter()
        .filter(|o| o.saving_ns > WORTH_A_SENTENCE * step.wall_ns && !o.is_above_roof)
        .take(3)
        .collect();
    if !worth.is_empty() {
        let told: Vec<String> = worth
            .iter()
            .map(|o| {
                format!(
                    "{} would save {} ({} of the step; it reaches {} of its {} ceiling)",
                    o.name,
                    duration(o.saving_ns),
                    percent(o.saving_ns / step.wall_ns),
                    o.efficiency.map_or_else(|| "n/a".to_owned(), percent),
                    o.bound.as_deref().unwrap_or("unknown"),
                )
            })
            .collect();
        let figures = worth
            .iter()
            .map(|o| {
                Figure::new(
                    format!("saving in {}", o.name),
                    o.saving_ns / 1e9,
                    "s",
                    format!(
                        "{:.0} ns − {:.0} ns over {} calls of {}: {:.4e} FLOP, {:.4e} B",
                        o.ns.unwrap_or_default(),
                        o.floor_ns,
                        o.calls,
                        o.kernel,
                        o.flops,
                        o.bytes
                    ),
                )
            })
            .collect();
        statements.push(Statement::new(
            format!("At its floor, {}.", told.join("; ")),
            figures,
        ));
    }
    if part_ns(step, PartKind::Unexplained) < -0.001 * step.wall_ns {
        statements.push(Statement::plain(
            "The parts are more than the step: a timer or the record is wrong.",
        ));
    }
    if step.operations.iter().any(|o| o.ns.is_none()) {
        statements.push(Statement::plain(
            "Its operations ran inside a CUDA graph, where none was timed singly: what they take above their floors holds the gaps between \
             them too. --timer cupti or --disable-cuda-graph times each.",
        ));
    }
    if !has_operations {
        statements.push(Statement::plain(
            "The operations of the median step were not kept; the mean over all steps stands for it (--record-all-steps keeps them).",
        ));
    }
    let above: Vec<String> = step
        .operations
        .iter()
        .filter(|o| o.is_above_roof)
        .map(|o| o.name.clone())
        .collect();
    if !above.is_empty() {
        statements.push(Statement::plain(format!(
            "Faster than their floors, so that the cost model or a ceiling is wrong: {}. Believe nothing about them.",
            above.join(", "),
        )));
    }
    statements
}

/// What weakens the explanation of a record.
pub(super) fn remarks(record: &Record, explanation: &Explanation) -> Vec<Statement> {
    let mut remarks = Vec::new();
    if !record.has_times() {
        remarks.push(Statement::plain(
            "An emulated device ran these steps: it has no time, so there is nothing to explain. `stepscope report` shows what it counted.",
        ));
    } else if record.points.is_empty() {
        remarks.push(Statement::plain(
            "The record holds no point: nothing was measured.",
        ));
    }
    match &explanation.ceilings {
        Some(roofs) => remarks.push(Statement::plain(format!("Ceilings: {}.", roofs.method))),
        None if record.has_times() => remarks.push(Statement::plain(format!(
            "There are no ceilings: none were measured and the table does not know {:?}; --gpu NAME takes those of another card.",
            explanation.device
        ))),
        None => {}
    }
    if !record.complete {
        remarks.push(Statement::plain(
            "The run was interrupted or failed before the end of its sweep: later points are missing.",
        ));
    }
    remarks
}
