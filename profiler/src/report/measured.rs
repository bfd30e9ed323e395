//! What the hardware counted, for a step that ran for it alone.

use super::table::{self, Table};
use super::{fold_line, operations};
use crate::breakdown::share;
use crate::measured::{CountedOperation, CountedStep, DRAM_READ, DRAM_WRITE};
use crate::quantity;

/// Metrics that have a column of their own, which says what they are.
const COLUMNS: [(&str, &str); 4] = [
    (DRAM_READ, "DRAM read,\nbytes"),
    (DRAM_WRITE, "DRAM written,\nbytes"),
    ("lts__t_sectors.sum", "L2\nsectors"),
    ("sm__inst_executed_pipe_tensor.sum", "tensor\ninstructions"),
];

/// The table of a counted step.
pub(super) fn text(step: &CountedStep) -> String {
    let counted = |metric: &str| step.metrics.iter().any(|m| m == metric);
    let columns: Vec<(&str, String)> = COLUMNS
        .iter()
        .filter(|(metric, _)| counted(metric))
        .map(|&(metric, title)| (metric, title.to_owned()))
        .collect();
    let has_column = |metric: &String| COLUMNS.iter().any(|(name, _)| name == metric);
    // The time of a kernel that runs alone, at whatever clock, is no time of the run; the record has it.
    let is_time = |metric: &String| metric == "gpu__time_duration.sum";
    let others = step
        .metrics
        .iter()
        .filter(|m| !has_column(m) && !is_time(m));
    let columns: Vec<(&str, String)> = columns
        .into_iter()
        .chain(others.map(|metric| (metric.as_str(), metric.replacen('.', "\n.", 1))))
        .collect();
    let has_dram = counted(DRAM_READ) && counted(DRAM_WRITE);
    let of_dram = ["bytes,\nby shape", "DRAM /\nby shape %"].map(str::to_owned);
    let header = ["operation", "kernel", "launches"].map(str::to_owned);
    let titles = columns.iter().map(|(_, title)| title.clone());
    let extra = has_dram.then_some(of_dram).into_iter().flatten();
    let alignments = format!(
        "llr{}",
        "r".repeat(columns.len() + 2 * usize::from(has_dram))
    );
    let mut table = Table::new(alignments, header.into_iter().chain(titles).chain(extra));
    let amount =
        |value: Option<f64>| value.map_or_else(table::none, |v| quantity::significant(v, 4));
    let dram = |bytes: Option<f64>, model: f64| {
        let cells = [
            amount(Some(model)),
            table::percentage(bytes.and_then(|bytes| share(bytes, model))),
        ];
        has_dram.then_some(cells).into_iter().flatten()
    };
    for operation in &step.operations {
        let values = columns
            .iter()
            .map(|(metric, _)| amount(operation.values.get(*metric).copied()));
        let cells = [
            operation.name.clone(),
            operation.kernel.clone(),
            operations::calls(operation.launches as f64),
        ];
        let model = operation.work.bytes() as f64;
        table.row(
            cells
                .into_iter()
                .chain(values)
                .chain(dram(operation.dram_bytes(), model)),
        );
    }
    let launches = step.operations.iter().map(|o| o.launches);
    let launches = launches.fold(0, u64::saturating_add);
    let sums = columns.iter().map(|(metric, _)| amount(sum(step, metric)));
    let (bytes, model) = step.dram_and_model_bytes().unzip();
    let total = ["all".to_owned(), String::new(), launches.to_string()];
    table.total(
        total
            .into_iter()
            .chain(sums)
            .chain(dram(bytes, model.unwrap_or(0.0))),
    );
    let passes = match step.passes {
        1 => "in one pass".to_owned(),
        n => format!("in {n} passes"),
    };
    let note = "Measured in a step of its own, in which kernels run one at a time and the host waits for each: no time of the run. What lies \
                in L2 need not be read from DRAM, and what is written may stay there, so that less than the bytes by shape is no mistake; \
                more means that something is read twice.";
    format!(
        "{} hardware counters of {}, one step {passes}, all layers together\n\n{}\n\n{}",
        step.kind.title(),
        step.chip,
        table.render(),
        fold_line(note)
    )
}

/// Over all operations, of what adds up and was counted of every launch.
fn sum(step: &CountedStep, metric: &str) -> Option<f64> {
    let launched = step.operations.iter().filter(|o| o.launches > 0);
    let value = |o: &CountedOperation| o.values.get(metric).copied();
    let values: Option<Vec<f64>> = launched.map(value).collect();
    let adds_up = metric.ends_with(".sum");
    values.filter(|_| adds_up).map(|v| v.iter().sum())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::measured::CountSource;
    use crate::recorder::{StepKind, Work};

    fn operation(
        name: &str,
        kernel: &str,
        launches: u64,
        bytes: u64,
        values: &[(&str, f64)],
    ) -> CountedOperation {
        CountedOperation {
            name: name.to_owned(),
            kernel: kernel.to_owned(),
            launches,
            work: Work {
                weight_bytes: bytes,
                ..Work::default()
            },
            values: values
                .iter()
                .map(|&(name, value)| (name.to_owned(), value))
                .collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn measured_bytes_stand_beside_those_of_the_cost_model() {
        let step = CountedStep {
            kind: StepKind::Decode,
            source: CountSource::Measured,
            chip: "GH100".to_owned(),
            metrics: [
                "gpu__time_duration.sum",
                DRAM_READ,
                DRAM_WRITE,
                "lts__t_sectors.sum",
                "lts__t_sector_hit_rate.pct",
            ]
            .map(str::to_owned)
            .to_vec(),
            passes: 2,
            operations: vec![
                operation(
                    "qkv_proj",
                    "gemv",
                    28,
                    925_000_000,
                    &[
                        ("gpu__time_duration.sum", 4e5),
                        (DRAM_READ, 926_100_000.0),
                        (DRAM_WRITE, 260_000.0),
                        ("lts__t_sectors.sum", 29_000_000.0),
                        ("lts__t_sector_hit_rate.pct", 3.25),
                    ],
                ),
                operation(
                    "silu_mul",
                    "silu_mul",
                    28,
                    3_000_000,
                    &[(DRAM_READ, 12_000.0)],
                ),
            ],
        };
        insta::assert_snapshot!(text(&step));
    }
}
