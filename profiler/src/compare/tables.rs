//! The tables of a comparison: which columns there are, without those that no file has.

use super::ranking::{Ranking, Statistic};
use super::{Comparison, Entry, Group, alike};
use crate::quantity::significant;
use crate::report::Table;
use crate::results::{Latency, Length, Load, ResultRow};

/// A table before it is text: columns, of which empty ones are left out.
#[derive(Debug)]
pub(super) struct Grid {
    pub(super) title: String,
    columns: Vec<Column>,
    rows: usize,
}

#[derive(Debug)]
struct Column {
    /// Lines of the header.
    header: String,
    is_number: bool,
    cells: Vec<Option<String>>,
}

impl Grid {
    fn new(title: impl Into<String>, rows: usize) -> Grid {
        Grid {
            title: title.into(),
            columns: Vec::new(),
            rows,
        }
    }

    fn column(
        &mut self,
        header: impl Into<String>,
        is_number: bool,
        cells: impl Iterator<Item = Option<String>>,
    ) {
        let cells: Vec<Option<String>> = cells.collect();
        if cells.iter().any(Option::is_some) {
            self.columns.push(Column {
                header: header.into(),
                is_number,
                cells,
            });
        }
    }

    /// Leaves out the rows that have nothing but their number; absent if that leaves none.
    fn with_rows_that_say_something(mut self) -> Option<Grid> {
        let others = self.columns.get(1..)?;
        let says_something: Vec<bool> = (0..self.rows)
            .map(|row| {
                others
                    .iter()
                    .any(|column| column.cells.get(row).is_some_and(Option::is_some))
            })
            .collect();
        for column in &mut self.columns {
            let mut says_something = says_something.iter();
            column
                .cells
                .retain(|_| says_something.next() == Some(&true));
        }
        self.rows = says_something.into_iter().filter(|&says| says).count();
        (self.rows > 0).then_some(self)
    }

    fn cell(column: &Column, row: usize) -> String {
        column
            .cells
            .get(row)
            .cloned()
            .flatten()
            .unwrap_or_else(|| "–".to_owned())
    }

    /// As a terminal shows it.
    pub(super) fn text(&self) -> String {
        let alignments: String = self
            .columns
            .iter()
            .map(|column| if column.is_number { 'r' } else { 'l' })
            .collect();
        let mut table = Table::new(
            alignments,
            self.columns.iter().map(|column| column.header.clone()),
        );
        for row in 0..self.rows {
            table.row(self.columns.iter().map(|column| Grid::cell(column, row)));
        }
        format!("{}\n\n{}", self.title, table.render())
    }

    /// As Markdown.
    pub(super) fn markdown(&self) -> String {
        let line = |cells: Vec<String>| {
            let escaped: Vec<String> = cells
                .iter()
                .map(|cell| {
                    cell.replace('|', "\\|")
                        .replace('*', "\\*")
                        .replace('\n', " ")
                })
                .collect();
            format!("| {} |\n", escaped.join(" | "))
        };
        let mut text = format!("## {}\n\n", self.title);
        text += &line(
            self.columns
                .iter()
                .map(|column| column.header.trim().to_owned())
                .collect(),
        );
        text += &line(
            self.columns
                .iter()
                .map(|column| if column.is_number { "---:" } else { "---" }.to_owned())
                .collect(),
        );
        for row in 0..self.rows {
            text += &line(
                self.columns
                    .iter()
                    .map(|column| Grid::cell(column, row))
                    .collect(),
            );
        }
        text.trim_end().to_owned()
    }
}

/// The tables of all rows.
pub(super) fn grids(comparison: &Comparison<'_>) -> Vec<Grid> {
    let entries = comparison.entries.as_slice();
    if entries.is_empty() {
        return Vec::new();
    }
    let mut grids = vec![origin(entries)];
    let others = [setup, first_token, per_token, between_chunks, whole, rates];
    grids.extend(others.into_iter().filter_map(|grid| grid(entries)));
    grids
}

fn origin(entries: &[Entry<'_>]) -> Grid {
    let mut grid = numbered("Results", entries);
    // A file of one row needs no line.
    let rows_of = |source: &str| {
        entries
            .iter()
            .filter(|entry| entry.source == source)
            .count()
    };
    grid.column(
        "file",
        false,
        entries.iter().map(|entry| {
            Some(match entry.row.line {
                Some(line) if rows_of(entry.source) > 1 => {
                    format!("{}:{line}", file_name(entry.source))
                }
                _ => file_name(entry.source).to_owned(),
            })
        }),
    );
    let mut text = |header: &str, of: &dyn Fn(&ResultRow) -> Option<String>| {
        grid.column(header, false, entries.iter().map(|entry| of(entry.row)));
    };
    text("program", &|row| Some(program(row)));
    text("version", &|row| row.version.clone());
    text("run", &|row| row.label.clone());
    text("back end", &|row| row.backend.clone());
    grid
}

fn setup(entries: &[Entry<'_>]) -> Option<Grid> {
    let mut grid = numbered("Set-up", entries);
    let mut column = |header: &str, is_number, of: &dyn Fn(&ResultRow) -> Option<String>| {
        grid.column(header, is_number, entries.iter().map(|entry| of(entry.row)));
    };
    column("model", false, &|row| row.model.clone());
    column("device", false, &|row| {
        alike::hardware(row).map(str::to_owned)
    });
    column("tp", true, &|row| row.tp.map(|n| n.to_string()));
    column("pp", true, &|row| {
        row.pp.filter(|&pp| pp > 1).map(|n| n.to_string())
    });
    column("dtype", false, &|row| row.dtype.clone());
    column("load", false, &|row| match row.load {
        Load::Concurrency {
            limit: Some(_),
            mean: Some(mean),
        } => Some(format!(
            "{}, mean {}",
            alike::load(row.load)?,
            significant(mean, 3)
        )),
        load => alike::load(load),
    });
    column("requests", true, &|row| match row.load {
        Load::StaticBatch(_) => None, // the batch
        _ => row.requests.map(|n| n.to_string()),
    });
    column("input\ntokens", true, &|row| {
        length(row, row.input_len, "input_len")
    });
    column("output\ntokens", true, &|row| {
        length(row, row.output_len, "output_len")
    });
    column("cached\nbefore", true, &|row| {
        row.kv_depth.filter(|&d| d > 0.0).map(alike::whole)
    });
    column("runs", true, &|row| row.repetitions.map(|n| n.to_string()));
    grid.with_rows_that_say_something()
}

fn first_token(entries: &[Entry<'_>]) -> Option<Grid> {
    let mut grid = numbered("Time to first token (TTFT), ms", entries);
    distribution(&mut grid, entries, "ttft", |row| row.ttft.as_ref());
    grid.with_rows_that_say_something()
}

fn per_token(entries: &[Entry<'_>]) -> Option<Grid> {
    let mut grid = numbered("Time per output token (TPOT), ms", entries);
    distribution(&mut grid, entries, "tpot", |row| row.tpot.as_ref());
    grid.column(
        "first decode\nstep",
        true,
        entries
            .iter()
            .map(|entry| entry.row.first_decode_steps_s.first().map(|&s| ms(s))),
    );
    grid.with_rows_that_say_something()
}

fn between_chunks(entries: &[Entry<'_>]) -> Option<Grid> {
    let mut grid = numbered("Inter-token latency (ITL), ms", entries);
    distribution(&mut grid, entries, "itl", |row| row.itl.as_ref());
    grid.with_rows_that_say_something()
}

fn whole(entries: &[Entry<'_>]) -> Option<Grid> {
    let mut grid = numbered(
        "End-to-end latency (E2E), ms, and duration of the run, s",
        entries,
    );
    distribution(&mut grid, entries, "e2e", |row| row.e2e.as_ref());
    grid.column(
        "duration\ns",
        true,
        entries
            .iter()
            .map(|entry| entry.row.duration_s.map(|s| significant(s, 4))),
    );
    grid.with_rows_that_say_something()
}

/// Mean, median, 99th percentile and deviation of a latency, and what they are of.
fn distribution(
    grid: &mut Grid,
    entries: &[Entry<'_>],
    name: &'static str,
    of: fn(&ResultRow) -> Option<&Latency>,
) {
    type Of = fn(&Latency) -> Option<f64>;
    let columns: [(&str, &str, Of); 4] = [
        ("mean", "", |latency| latency.mean_s),
        ("median", ".median_s", |latency| latency.median_s),
        ("p99", "", |latency| latency.p99_s),
        ("std", ".std_s", |latency| latency.std_s),
    ];
    for (header, suffix, figure) in columns {
        let field = format!("{name}{suffix}");
        let cells = entries.iter().map(|entry| {
            let value = figure(of(entry.row)?)?;
            let is_derived = entry.row.derived.iter().any(|d| *d == name || *d == field);
            Some(if is_derived {
                format!("*{}", ms(value))
            } else {
                ms(value)
            })
        });
        grid.column(header, true, cells.collect::<Vec<_>>().into_iter());
    }
    grid.column(
        "measured over",
        false,
        entries
            .iter()
            .map(|entry| of(entry.row).map(|latency| latency.basis.name().to_owned())),
    );
    grid.column(
        "percentiles",
        false,
        entries
            .iter()
            .map(|entry| of(entry.row)?.percentiles.map(|p| p.name().to_owned())),
    );
}

fn rates(entries: &[Entry<'_>]) -> Option<Grid> {
    let mut grid = numbered("Rates, token/s", entries);
    type Of = fn(&ResultRow) -> Option<f64>;
    let columns: [(&str, &str, Of); 8] = [
        ("prefill\nonly", "rates.prefill_tokens_per_s", |row| {
            row.rates.prefill_tokens_per_s
        }),
        ("decode\nonly", "rates.decode_tokens_per_s", |row| {
            row.rates.decode_tokens_per_s
        }),
        ("input\nover all", "rates.input_tokens_per_s", |row| {
            row.rates.input_tokens_per_s
        }),
        ("output\nover all", "rates.output_tokens_per_s", |row| {
            row.rates.output_tokens_per_s
        }),
        ("in + out\nover all", "rates.total_tokens_per_s", |row| {
            row.rates.total_tokens_per_s
        }),
        ("requests/s\nover all", "rates.requests_per_s", |row| {
            row.rates.requests_per_s
        }),
        (
            "output per user\n(request)",
            "rates.output_tokens_per_s_per_user",
            |row| row.rates.output_tokens_per_s_per_user,
        ),
        (
            "output per\nGPU",
            "rates.output_tokens_per_s_per_gpu",
            |row| row.rates.output_tokens_per_s_per_gpu,
        ),
    ];
    for (header, name, of) in columns {
        let cells = entries
            .iter()
            .map(|entry| Some(mark(entry.row, name, significant(of(entry.row)?, 4))));
        grid.column(header, true, cells.collect::<Vec<_>>().into_iter());
    }
    grid.column(
        "prefill\nmeasured over",
        false,
        entries.iter().map(|entry| {
            entry.row.rates.prefill_tokens_per_s?;
            entry
                .row
                .rates
                .prefill_basis
                .map(|basis| basis.name().to_owned())
        }),
    );
    grid.column(
        "decode\nmeasured over",
        false,
        entries.iter().map(|entry| {
            entry.row.rates.decode_tokens_per_s?;
            entry
                .row
                .rates
                .decode_basis
                .map(|basis| basis.name().to_owned())
        }),
    );
    grid.with_rows_that_say_something()
}

/// The ranking of a group: a pair of columns per ranked figure, rows in the order of the first.
pub(super) fn ranking_grid(comparison: &Comparison<'_>, group: &Group) -> Option<Grid> {
    let first = group.rankings.first()?;
    let mut order: Vec<usize> = first.places.iter().map(|place| place.row).collect();
    order.extend(
        group
            .rows
            .iter()
            .filter(|row| !first.places.iter().any(|place| place.row == **row)),
    );
    let entries: Vec<Entry<'_>> = order
        .iter()
        .filter_map(|&number| comparison.entries.iter().find(|e| e.number == number))
        .copied()
        .collect();
    let mut grid = numbered(heading(&entries), &entries);
    grid.column(
        "program",
        false,
        entries.iter().map(|entry| Some(program(entry.row))),
    );
    for ranking in &group.rankings {
        let place = |entry: &Entry<'_>| {
            ranking
                .places
                .iter()
                .find(|place| place.row == entry.number)
                .copied()
        };
        let value = |value| {
            if ranking.statistic == Statistic::Rate {
                significant(value, 4)
            } else {
                ms(value)
            }
        };
        grid.column(
            column_header(ranking),
            true,
            entries
                .iter()
                .map(|entry| place(entry).map(|place| value(place.value))),
        );
        grid.column(
            "× best",
            true,
            entries
                .iter()
                .map(|entry| place(entry).map(|place| format!("{:.2}", place.times_best))),
        );
    }
    Some(grid)
}

fn column_header(ranking: &Ranking) -> String {
    let figure = match ranking.statistic {
        Statistic::Rate => format!("{}\ntoken/s", ranking.metric),
        statistic => format!("{}, ms\n{}", ranking.metric, statistic.name()),
    };
    match ranking.basis {
        Some(basis) => format!("{figure}\n{}", basis.name()),
        None => figure,
    }
}

/// What the rows of a group have in common.
fn heading(entries: &[Entry<'_>]) -> String {
    let mut parts = Vec::new();
    let of_any =
        |of: &dyn Fn(&ResultRow) -> Option<String>| entries.iter().find_map(|entry| of(entry.row));
    parts.extend(of_any(&|row| row.model.clone()));
    parts.extend(of_any(&|row| alike::hardware(row).map(str::to_owned)));
    parts.extend(of_any(&|row| alike::load(row.load)));
    let tokens = |length: Option<Length>| length.map(|length| alike::whole(length.tokens));
    if let (Some(input), Some(output)) = (
        of_any(&|row| tokens(row.input_len)),
        of_any(&|row| tokens(row.output_len)),
    ) {
        parts.push(format!("{input} in, {output} out"));
    }
    format!("Ranking: {}", parts.join(" · "))
}

fn numbered(title: impl Into<String>, entries: &[Entry<'_>]) -> Grid {
    let mut grid = Grid::new(title, entries.len());
    grid.column(
        "#",
        true,
        entries.iter().map(|entry| Some(entry.number.to_string())),
    );
    grid
}

fn length(row: &ResultRow, length: Option<Length>, name: &str) -> Option<String> {
    let length = length?;
    Some(if length.realised {
        mark(row, name, alike::whole(length.tokens))
    } else {
        format!("{} asked", alike::whole(length.tokens))
    })
}

/// A star before what the file does not hold itself.
fn mark(row: &ResultRow, name: &str, figure: String) -> String {
    if row.derived.contains(&name) {
        format!("*{figure}")
    } else {
        figure
    }
}

fn ms(seconds: f64) -> String {
    significant(seconds * 1e3, 4)
}

/// Who measured, with the framework's name where the program's does not hold it.
fn program(row: &ResultRow) -> String {
    format!("{} {}", row.framework.name(), row.program)
}

/// A path's last part; paths are long and tables narrow.
pub(super) fn file_name(path: &str) -> &str {
    let path = path.trim_end_matches(['/', '\\']);
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    // All records have this name; the folder tells them apart.
    match path
        .strip_suffix(name)
        .map(|folder| folder.trim_end_matches(['/', '\\']))
    {
        Some(folder) if name == "record.json" && !folder.is_empty() => file_name(folder),
        _ => name,
    }
}
