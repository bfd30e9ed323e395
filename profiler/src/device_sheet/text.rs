//! The sheet as a person reads it.

use super::{Bound, DeviceSheet, Group, Quantity, Row, Status};
use crate::quantity;
use crate::report::Table;

/// Characters of the longest bar of a curve.
const BAR: usize = 30;

impl DeviceSheet {
    /// All groups, each a table, and their curves; the sources of what is expected below.
    pub fn text(&self) -> String {
        let mut sections = vec![self.head()];
        let mut sources: Vec<&str> = Vec::new();
        for group in Group::ALL {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.group == group).collect();
            if rows.is_empty() {
                continue;
            }
            sections.push(format!("{}\n", group.title()));
            let single: Vec<&Row> = rows.iter().copied().filter(|r| r.at.is_none()).collect();
            if !single.is_empty() {
                sections.push(table(&single, &mut sources));
            }
            for curve in curves(&rows) {
                sections.push(bars(&curve));
            }
        }
        if !sources.is_empty() {
            let listed: Vec<String> = sources
                .iter()
                .enumerate()
                .map(|(index, source)| format!("[{}] {source}", index + 1))
                .collect();
            sections.push(format!("Expected by\n{}", listed.join("\n")));
        }
        if self.rows.iter().any(Row::is_far) {
            sections.push(format!(
                "! marks what is more than {:.0} % away from what is expected: a card that is held down, shared or not what it seems, or an \
                 expectation of another machine.",
                100.0 * super::TOLERANCE
            ));
        }
        sections.push(self.summary.clone());
        sections.join("\n") + "\n"
    }

    /// Which GPU, when, and at which clocks.
    pub(crate) fn about(&self) -> Vec<String> {
        let gpu = &self.gpu;
        let mut lines = vec![format!(
            "{}, compute capability {}.{}, {} multiprocessors, L2 {}, memory {}, up to {:.0} MHz; CUDA {}; {}",
            gpu.name,
            gpu.compute_capability[0],
            gpu.compute_capability[1],
            gpu.multiprocessors,
            quantity::bytes(gpu.l2_bytes as f64),
            quantity::bytes(gpu.memory_bytes as f64),
            f64::from(gpu.clocks_khz[0]) / 1e3,
            gpu.driver,
            self.created,
        )];
        if self.device == "emulated" {
            lines.push(
                "An emulated device has no time: results and counts were checked, and no row has a value."
                    .to_owned(),
            );
            return lines;
        }
        let watch = self.watch.as_ref();
        let clocks = watch.and_then(|watch| watch.loaded_sm_clock_mhz.or(watch.sm_clock_mhz));
        match clocks {
            Some(range) => lines.push(format!(
                "Multiprocessors held {} MHz under load ({} to {}){}.",
                range.median,
                range.min,
                range.max,
                match watch.map(|w| w.throttled_by.join(", ")) {
                    Some(why) if !why.is_empty() => format!("; held down by: {why}"),
                    _ => String::new(),
                }
            )),
            None => lines.push(format!(
                "Clocks were not watched{}; those of rows are measured by the kernels.",
                self.no_watch
                    .as_ref()
                    .map_or_else(String::new, |why| format!(" ({why})"))
            )),
        }
        if self.quick {
            lines.push("Measured with few samples and points (--quick).".to_owned());
        }
        lines
    }

    fn head(&self) -> String {
        self.about().join("\n") + "\n"
    }
}

/// The rows of each curve, in order of their place on it.
pub(crate) fn curves<'a>(rows: &[&'a Row]) -> Vec<Vec<&'a Row>> {
    let mut curves: Vec<Vec<&Row>> = Vec::new();
    for &row in rows.iter().filter(|row| row.at.is_some()) {
        match curves.iter_mut().find(|curve| curve[0].name == row.name) {
            Some(curve) => curve.push(row),
            None => curves.push(vec![row]),
        }
    }
    for curve in &mut curves {
        curve.sort_by(|a, b| a.at.unwrap_or(0.0).total_cmp(&b.at.unwrap_or(0.0)));
    }
    curves
}

/// Bytes in powers of two, as caches are sized: `256 KiB`, `48 MiB`.
pub(crate) fn binary_bytes(bytes: f64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let found = units
        .iter()
        .find(|(_, shift)| bytes >= f64::from(1_u32 << shift));
    match found {
        Some((unit, shift)) => {
            let value = bytes / f64::from(1_u32 << shift);
            format!(
                "{} {unit}",
                if value.fract() == 0.0 {
                    format!("{value:.0}")
                } else {
                    quantity::significant(value, 3)
                }
            )
        }
        None => format!("{bytes:.0} B"),
    }
}

fn table<'a>(rows: &[&'a Row], sources: &mut Vec<&'a str>) -> String {
    if rows.iter().all(|row| row.status == Status::NoTime) {
        return counts_table(rows);
    }
    let mut table = Table::new(
        "lrrrrrrl",
        [
            "",
            "value",
            "quartiles",
            "unit",
            "SM clock\nMHz",
            "expected",
            "value /\nexpected %",
            "",
        ]
        .map(str::to_owned),
    );
    for &row in rows {
        let (Some(value), Some([low, high])) = (row.value, row.quartiles) else {
            let mut cells = vec![row.title.clone()];
            cells.extend(std::iter::repeat_n(String::new(), 6));
            cells.push(outcome(row));
            table.row(cells);
            continue;
        };
        let (unit, divisor) = row.unit.prefixed(value);
        let shown = |x: f64| quantity::significant(x / divisor, 4);
        let (expected, ratio, mut mark) = match (&row.expected, row.ratio) {
            (Some(expected), Some(ratio)) => {
                let index = match sources.iter().position(|s| *s == expected.source) {
                    Some(index) => index,
                    None => {
                        sources.push(&expected.source);
                        sources.len() - 1
                    }
                };
                let sign = if expected.bound == Bound::AtMost {
                    "≤ "
                } else {
                    ""
                };
                (
                    format!("{sign}{}", shown(expected.value)),
                    format!("{:.0}", 100.0 * ratio),
                    format!("{}[{}]", if row.is_far() { "! " } else { "" }, index + 1),
                )
            }
            _ => ("–".to_owned(), "–".to_owned(), String::new()),
        };
        if let Some(note) = &row.note {
            mark = format!("{mark} {note}").trim().to_owned();
        }
        let mut title = row.title.clone();
        if let (super::Unit::Cycles, Some(mhz)) = (row.unit, row.clock_mhz()) {
            title += &format!(" ({} ns)", quantity::significant(1e3 * value / mhz, 3));
        }
        table.row([
            title,
            shown(value),
            format!("{} to {}", shown(low), shown(high)),
            unit,
            row.clock_mhz()
                .map_or_else(|| "–".to_owned(), |mhz| format!("{mhz:.0}")),
            expected,
            ratio,
            mark,
        ]);
    }
    table.render() + "\n"
}

/// What became of a row without a value, in words.
fn outcome(row: &Row) -> String {
    let note = row.note.as_deref().unwrap_or_default();
    match row.status {
        Status::Measured => note.to_owned(),
        Status::NoTime => "no time".to_owned(),
        Status::Skipped => format!("skipped: {note}"),
        Status::Wrong => format!("WRONG: {note}"),
        Status::Failed => format!("FAILED: {note}"),
    }
}

/// On an emulated device: what was counted, as claimed.
fn counts_table(rows: &[&Row]) -> String {
    let mut table = Table::new(
        "llrl",
        ["", "claimed and counted", "", ""].map(str::to_owned),
    );
    for row in rows {
        let first = row.claims.first();
        table.row([
            row.title.clone(),
            first
                .map_or("–", |claim| quantity_title(claim.quantity))
                .to_owned(),
            first.map_or_else(String::new, |claim| claim.claimed.to_string()),
            outcome(row),
        ]);
        for claim in row.claims.iter().skip(1) {
            table.row([
                String::new(),
                quantity_title(claim.quantity).to_owned(),
                claim.claimed.to_string(),
                String::new(),
            ]);
        }
    }
    table.render() + "\n"
}

/// A quantity in words.
pub(crate) fn quantity_title(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Launches => "launches",
        Quantity::LoadedBytes => "bytes loaded",
        Quantity::StoredBytes => "bytes stored",
        Quantity::ReadSetBytes => "bytes read, each once",
        Quantity::WrittenSetBytes => "bytes written, each once",
        Quantity::GlobalLoads => "loads of warps",
        Quantity::SharedLoads => "loads of warps from shared memory",
        Quantity::SharedWavefronts => "wavefronts of shared memory",
        Quantity::BankConflicts => "wavefronts by bank conflicts",
        Quantity::TensorInstructions => "matrix instructions of warps",
        Quantity::TensorFlops => "FLOPs of tensor cores",
        Quantity::TensorIntegerOperations => "integer operations of tensor cores",
        Quantity::F32Flops => "FLOPs in float32",
        Quantity::IntegerInstructions => "integer instructions of threads",
        Quantity::Atomics => "atomic operations of threads",
        Quantity::LocalAccesses => "accesses to local memory",
    }
}

/// A curve: a line per point, with a bar of its value's length.
fn bars(curve: &[&Row]) -> String {
    let Some(first) = curve.first() else {
        return String::new();
    };
    let largest = curve.iter().filter_map(|row| row.value).fold(0.0, f64::max);
    let (unit, divisor) = first.unit.prefixed(largest);
    let is_timed = largest > 0.0;
    let header = match is_timed {
        true => ["working set".to_owned(), unit, String::new()],
        false => ["working set".to_owned(), String::new(), String::new()],
    };
    let mut table = Table::new("rrl", header);
    for row in curve {
        let at = binary_bytes(row.at.unwrap_or_default());
        match row.value {
            Some(value) => table.row([
                at,
                quantity::significant(value / divisor, 4),
                bar(value / largest),
            ]),
            None => table.row([at, String::new(), outcome(row)]),
        }
    }
    format!("{}\n{}\n", first.title, table.render())
}

/// A bar in eighths of a character.
fn bar(share: f64) -> String {
    let eighths = (share.clamp(0.0, 1.0) * (8 * BAR) as f64).round() as usize;
    let parts = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(parts[eighths % 8]);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn a_sheet_is_tables_and_bars() {
        insta::assert_snapshot!(testing::whole().text());
    }

    /// Without times there are counts, and the text says why.
    #[test]
    fn a_sheet_of_an_emulated_device_has_counts() {
        let mut sheet = testing::sheet(&[("mma_bf16", 1.0)]);
        sheet.device = "emulated".to_owned();
        let row = &mut sheet.rows[0];
        (row.status, row.value, row.quartiles) = (Status::NoTime, None, None);
        row.claims = vec![crate::device_sheet::Claim {
            quantity: Quantity::TensorFlops,
            claimed: 4096,
            counted: Some(4096),
        }];
        sheet.summary = DeviceSheet::summarised(&sheet.rows);
        insta::assert_snapshot!(sheet.text());
    }

    #[test]
    fn bars_are_as_long_as_their_share() {
        assert_eq!(bar(1.0).chars().count(), BAR);
        assert_eq!(bar(0.5).chars().count(), BAR / 2);
        assert_eq!(bar(0.0), "");
        assert_eq!(bar(f64::NAN), "");
        assert_eq!(bar(1.0 / 240.0), "▏");
    }

    #[test]
    fn sizes_are_in_powers_of_two() {
        assert_eq!(binary_bytes(262_144.0), "256 KiB");
        assert_eq!(binary_bytes(48.0 * 1_048_576.0), "48 MiB");
        assert_eq!(binary_bytes(1.5 * 1_073_741_824.0), "1.50 GiB");
        assert_eq!(binary_bytes(12.0), "12 B");
    }
}
