//! How tables look: no frame, a rule under the header and above the total, numbers on the right.

use std::borrow::Cow;

use comfy_table::{Cell, CellAlignment, LineStyle, TableStyle};

const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// A table under construction.
///
/// ```
/// use stepscope_profiler::report::Table;
///
/// let mut table = Table::new("lr", ["counter".to_owned(), "count".to_owned()]);
/// table.row(["loads".to_owned(), "12".to_owned()]);
/// assert_eq!(table.render().lines().last(), Some("loads        12"));
/// ```
#[derive(Debug)]
pub struct Table {
    /// One letter per column: `l` or `r`.
    alignments: Cow<'static, str>,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    total: Option<Vec<String>>,
}

impl Table {
    /// A table with a column per header cell; `alignments` has one letter per column, `l` or `r`.
    pub fn new(
        alignments: impl Into<Cow<'static, str>>,
        header: impl IntoIterator<Item = String>,
    ) -> Table {
        Table {
            alignments: alignments.into(),
            header: header.into_iter().collect(),
            rows: Vec::new(),
            total: None,
        }
    }

    /// The next row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The last row, under a rule.
    pub fn total(&mut self, cells: impl IntoIterator<Item = String>) {
        self.total = Some(cells.into_iter().collect());
    }

    /// The table's lines, without a line feed at the end.
    pub fn render(self) -> String {
        let aligned = |cells: Vec<String>| {
            cells
                .into_iter()
                .zip(self.alignments.chars())
                .map(|(cell, alignment)| {
                    Cell::new(cell).set_alignment(match alignment {
                        'l' => CellAlignment::Left,
                        _ => CellAlignment::Right,
                    })
                })
                .collect::<Vec<_>>()
        };
        let header_height = self.header.iter().map(|cell| cell.lines().count()).max();
        let mut table = comfy_table::Table::new();
        table.load_style(STYLE);
        // Short header cells stand at the bottom, beside the units of their neighbours.
        let height = header_height.unwrap_or(1);
        table.set_header(aligned(
            self.header
                .into_iter()
                .map(|cell| "\n".repeat(height - cell.lines().count().max(1)) + &cell)
                .collect(),
        ));
        let has_total = self.total.is_some();
        for row in self.rows.into_iter().chain(self.total) {
            table.add_row(aligned(row));
        }
        let mut lines: Vec<String> = table.lines().collect();
        if has_total
            && let (Some(rule), Some(last)) =
                (lines.get(height).cloned(), lines.len().checked_sub(1))
        {
            lines.insert(last, rule);
        }
        let unpadded = lines.iter().map(|line| {
            let mut characters = line.chars();
            characters.next(); // the first column's padding
            characters.as_str().trim_end()
        });
        unpadded.collect::<Vec<_>>().join("\n")
    }
}

/// The cell of a figure that there is not.
pub(crate) fn none() -> String {
    "–".to_owned()
}

/// `value` with `decimals` decimals; what would vanish in rounding is shown as less than the last digit.
pub(super) fn fixed(value: f64, decimals: usize) -> String {
    let step = 0.1_f64.powi(decimals as i32);
    if !value.is_finite() {
        "n/a".to_owned()
    } else if value > 0.0 && value < step / 2.0 {
        format!("<{step:.decimals$}")
    } else {
        format!("{value:.decimals$}")
    }
}

/// A share as a percentage with one decimal.
pub(crate) fn percentage(share: Option<f64>) -> String {
    share.map_or_else(none, |share| fixed(share * 100.0, 1))
}

/// The unit and the decimals that all times of a column share, so that they can be compared and added by eye.
pub(crate) struct TimeUnit {
    pub(crate) name: &'static str,
    nanoseconds: f64,
    decimals: usize,
}

impl TimeUnit {
    /// The unit in which the column's largest time has one to four digits before the point.
    pub(crate) fn for_largest(nanoseconds: f64) -> TimeUnit {
        let (name, scale) = match nanoseconds {
            ns if ns < 1e6 => ("µs", 1e3),
            ns if ns < 1e10 => ("ms", 1e6),
            _ => ("s", 1e9),
        };
        let decimals = if nanoseconds / scale < 100.0 { 3 } else { 2 };
        TimeUnit {
            name,
            nanoseconds: scale,
            decimals,
        }
    }

    pub(crate) fn cell(&self, nanoseconds: f64) -> String {
        fixed(nanoseconds / self.nanoseconds, self.decimals)
    }

    pub(crate) fn optional(&self, nanoseconds: Option<f64>) -> String {
        nanoseconds.map_or_else(none, |ns| self.cell(ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_has_one_unit() {
        let unit = TimeUnit::for_largest(15_812_345.0);
        assert_eq!(unit.name, "ms");
        assert_eq!(unit.cell(15_812_345.0), "15.812");
        assert_eq!(unit.cell(700.0), "0.001");
        assert_eq!(unit.cell(300.0), "<0.001");
        assert_eq!(unit.cell(0.0), "0.000");
        assert_eq!(unit.optional(None), "–");
        assert_eq!(TimeUnit::for_largest(142e6).cell(142e6), "142.00");
        assert_eq!(TimeUnit::for_largest(900.0).name, "µs");
        assert_eq!(TimeUnit::for_largest(2e9).cell(2e9), "2000.00");
        assert_eq!(TimeUnit::for_largest(20e9).cell(2e9), "2.000");
        assert_eq!(TimeUnit::for_largest(f64::NAN).cell(f64::NAN), "n/a");
    }

    #[test]
    fn the_total_stands_under_a_rule() {
        let strings = |cells: [&str; 2]| cells.map(str::to_owned);
        let mut table = Table::new("lr", strings(["item", "time\nms"]));
        table.row(strings(["forward", "1.5"]));
        table.total(strings(["step", "12.25"]));
        let expected = "
           time
item         ms
────────────────
forward     1.5
────────────────
step      12.25";
        assert_eq!(format!("\n{}", table.render()), expected);
    }
}
