//! What an emulated device counted, for a step of a point.

use super::table::{self, Table};
use super::{fold_line, heading};
use crate::counts::KernelCount;
use crate::quantity;
use crate::record::{OperationTotal, Point, StepTotal};
use crate::recorder::{StepKind, Work};

/// Findings that are printed; the record has all.
const FINDINGS: usize = 10;

/// The counters of both kinds of steps.
pub(super) fn text(point: &Point) -> String {
    let mut sections = vec![heading(&point.label())];
    for kind in [StepKind::Prefill, StepKind::Decode] {
        if let Some(total) = point.total(kind).filter(|total| total.steps > 0) {
            sections.push(table(total, kind));
            sections.extend(findings(total, kind));
        }
    }
    sections.join("\n\n") + "\n"
}

fn table(total: &StepTotal, kind: StepKind) -> String {
    let steps = total.steps as f64;
    let mut table = Table::new(
        "llrrrrrrrr",
        [
            "operation",
            "function",
            "launches",
            "warp\ninstructions",
            "FLOP,\ncounted",
            "FLOP,\nby shape",
            "bytes,\ncounted",
            "bytes,\nby shape",
            "sectors per\nrequest",
            "shared\nconflicts",
        ]
        .map(str::to_owned),
    );
    let amount = |value: f64| match value {
        0.0 => table::none(),
        value => quantity::significant(value, 4),
    };
    let mut last = None;
    for kernel in &total.kernels {
        // A kernel of several functions has its cost beside the first.
        let owner = (&kernel.operation, &kernel.kernel);
        let is_first = last.replace(owner) != Some(owner);
        let work = work_of(total, kernel);
        let by_shape = |value: u64| match is_first {
            true => amount(value as f64 / steps),
            false => String::new(),
        };
        let per_step = |value: u64| amount(value as f64 / steps);
        table.row([
            if is_first {
                kernel.operation.clone()
            } else {
                String::new()
            },
            kernel.function.clone(),
            count(kernel.launches as f64 / steps),
            per_step(kernel.counter("warp_instructions")),
            per_step(flops(kernel)),
            by_shape(work.flops),
            per_step(
                kernel.counter("compulsory_read_bytes") + kernel.counter("compulsory_write_bytes"),
            ),
            by_shape(work.bytes()),
            sectors_per_request(kernel),
            conflicts(kernel),
        ]);
    }
    format!(
        "{} counters of the emulated device, {}, all layers together\n\n{}",
        kind.title(),
        match total.steps {
            1 => "1 step".to_owned(),
            n => format!("mean of {n} steps"),
        },
        table.render()
    )
}

fn count(launches: f64) -> String {
    match launches.fract() {
        0.0 => format!("{launches}"),
        _ => quantity::significant(launches, 3),
    }
}

fn work_of(total: &StepTotal, kernel: &KernelCount) -> Work {
    let mut work = Work::default();
    let is_same = |o: &&OperationTotal| o.name == kernel.operation && o.kernel == kernel.kernel;
    for o in total.operations.iter().filter(is_same) {
        work += o.work;
    }
    work
}

fn flops(kernel: &KernelCount) -> u64 {
    ["tensor_flops", "f32_flops", "half_flops", "f64_flops"]
        .iter()
        .map(|name| kernel.counter(name))
        .sum()
}

/// Of loads and stores to global memory together.
fn sectors_per_request(kernel: &KernelCount) -> String {
    let requests = kernel.counter("global_load_requests") + kernel.counter("global_store_requests");
    let sectors = kernel.counter("global_load_sectors") + kernel.counter("global_store_sectors");
    match requests {
        0 => table::none(),
        n => quantity::significant(sectors as f64 / n as f64, 3),
    }
}

/// The share of wavefronts that would not be there without bank conflicts.
fn conflicts(kernel: &KernelCount) -> String {
    let wavefronts = kernel.counter("shared_wavefronts");
    let ideal = kernel.counter("shared_ideal_wavefronts");
    match wavefronts {
        0 => table::none(),
        n => quantity::percent(n.saturating_sub(ideal) as f64 / n as f64),
    }
}

fn findings(total: &StepTotal, kind: StepKind) -> Option<String> {
    if total.findings.is_empty() {
        return None;
    }
    let mut lines = vec![format!("{} findings", kind.title())];
    for finding in total.findings.iter().take(FINDINGS) {
        let times = match finding.count {
            1 => String::new(),
            n => format!(" ({n} times)"),
        };
        let line = format!(
            "! {}, {}: {}{times}",
            finding.operation, finding.function, finding.message
        );
        lines.push(fold_line(&line));
    }
    if total.findings.len() > FINDINGS {
        let more = total.findings.len() - FINDINGS;
        lines.push(format!("and {more} more, in the record"));
    }
    Some(lines.join("\n"))
}
