//! The tables of an analysis.

use super::analysis::{Floor, KernelTotal};
use super::families::FamilyTime;
use super::gaps::GapTotal;
use super::text::Groups;
use crate::report::Table;

/// A row per kind and number of requests; the steps of a group come by their length.
pub(super) fn groups(groups: &Groups) -> String {
    let spans = groups.values().flatten().map(|step| step.span_ns);
    let unit = Unit::for_span(spans.max().unwrap_or(0));
    let mut table = Table::new(
        "lrrrrrrrr",
        [
            "kind".to_owned(),
            "requests".to_owned(),
            "steps".to_owned(),
            format!("shortest\n{}", unit.name),
            format!("median\n{}", unit.name),
            format!("longest\n{}", unit.name),
            "busy\n% of span".to_owned(),
            "kernels\nper step".to_owned(),
            "layers".to_owned(),
        ],
    );
    for (&(kind, requests), group) in groups {
        let median = group[group.len() / 2];
        let span: u64 = group.iter().map(|step| step.span_ns).sum();
        let busy: u64 = group.iter().map(|step| step.busy_ns).sum();
        table.row([
            kind.label()
                .trim_end_matches(" step")
                .replace("step", "not said"),
            requests.map_or("-".to_owned(), |n| n.to_string()),
            group.len().to_string(),
            unit.show(group[0].span_ns),
            unit.show(median.span_ns),
            unit.show(group[group.len() - 1].span_ns),
            share(busy, span),
            median.activities.to_string(),
            median
                .layers
                .as_ref()
                .map_or("-".to_owned(), |layers| layers.count.to_string()),
        ]);
    }
    table.render() + "\n"
}

/// Time by family, with the floors of those that have one.
pub(super) fn families(
    times: &[FamilyTime],
    floors: &[Floor],
    busy_ns: u64,
    span_ns: u64,
) -> String {
    let unit = Unit::for_span(span_ns);
    let mut header = vec![
        "family".to_owned(),
        "kernels".to_owned(),
        format!("time\n{}", unit.name),
        "% of busy\ntime".to_owned(),
        "each\nµs".to_owned(),
    ];
    if !floors.is_empty() {
        header.push(format!("floor\n{}", unit.name));
        header.push("floor,\n% of time".to_owned());
        header.push("bound by".to_owned());
    }
    let mut table = Table::new(
        if floors.is_empty() {
            "lrrrr"
        } else {
            "lrrrrrrl"
        },
        header,
    );
    for time in times {
        let mut row = vec![
            time.family.label().to_owned(),
            time.count.to_string(),
            unit.show(time.busy_ns),
            share(time.busy_ns, busy_ns),
            format!("{:.2}", time.sum_ns as f64 / time.count.max(1) as f64 / 1e3),
        ];
        if !floors.is_empty() {
            row.extend(
                match floors.iter().find(|floor| floor.family == time.family) {
                    Some(floor) => [
                        unit.show(floor.floor_ns),
                        share(floor.floor_ns, time.busy_ns),
                        floor.bound_by.clone(),
                    ],
                    None => ["-".to_owned(), "-".to_owned(), String::new()],
                },
            );
        }
        table.row(row);
    }
    let mut total = vec![
        "busy".to_owned(),
        times.iter().map(|time| time.count).sum::<u64>().to_string(),
        unit.show(busy_ns),
        "100.0".to_owned(),
        String::new(),
    ];
    if !floors.is_empty() {
        let floor_ns = floors.iter().map(|floor| floor.floor_ns).sum();
        total.extend([unit.show(floor_ns), share(floor_ns, busy_ns), String::new()]);
    }
    table.total(total);
    table.render()
}

/// Idle time by cause.
pub(super) fn gaps(totals: &[GapTotal], span_ns: u64) -> String {
    let unit = Unit::for_span(span_ns);
    let mut table = Table::new(
        "lrrrr",
        [
            "cause".to_owned(),
            "gaps of\n≥ 0.1 µs".to_owned(),
            format!("time\n{}", unit.name),
            "% of\nspan".to_owned(),
            format!("longest\n{}", unit.name),
        ],
    );
    for gap in totals {
        table.row([
            gap.cause.label().to_owned(),
            gap.count.to_string(),
            unit.show(gap.total_ns),
            share(gap.total_ns, span_ns),
            unit.show(gap.longest_ns),
        ]);
    }
    table.render()
}

/// The kernels with the largest sums.
pub(super) fn kernels(totals: &[KernelTotal], busy_ns: u64, span_ns: u64) -> String {
    let unit = Unit::for_span(span_ns);
    let mut table = Table::new(
        "llrrr",
        [
            "kernel".to_owned(),
            "family".to_owned(),
            "count".to_owned(),
            format!("sum\n{}", unit.name),
            "% of busy\ntime".to_owned(),
        ],
    );
    for kernel in totals {
        table.row([
            kernel.name.clone(),
            kernel.family.label().to_owned(),
            kernel.count.to_string(),
            unit.show(kernel.sum_ns),
            share(kernel.sum_ns, busy_ns),
        ]);
    }
    table.render()
}

/// A unit for a column of times.
struct Unit {
    name: &'static str,
    nanoseconds: f64,
    decimals: usize,
}

impl Unit {
    fn for_span(span_ns: u64) -> Unit {
        match span_ns {
            0..100_000_000 => Unit {
                name: "µs",
                nanoseconds: 1e3,
                decimals: 1,
            },
            _ => Unit {
                name: "ms",
                nanoseconds: 1e6,
                decimals: 2,
            },
        }
    }

    fn show(&self, ns: u64) -> String {
        format!("{:.*}", self.decimals, ns as f64 / self.nanoseconds)
    }
}

fn share(part: u64, whole: u64) -> String {
    format!("{:.1}", 100.0 * part as f64 / whole.max(1) as f64)
}
