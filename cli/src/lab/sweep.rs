//! `stepscope lab --sweep`: all combinations of a kernel's params.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};
use stepscope_microbench::lab::{KernelFile, Point};
use stepscope_microbench::{Bench, Measured, Settings};
use stepscope_profiler::report::Table;

use super::evaluate::{Group, Side};
use super::{Session, write_file};
use crate::output::{Failure, write_stdout};

/// A point of the sweep.
struct Row {
    point: Point,
    /// Why there is nothing to say of it, or what there is.
    outcome: Result<Measurement, String>,
}

struct Measurement {
    side: Side,
    median_ns: Option<f64>,
}

/// A figure that a table has, by its name on a page.
const COLUMNS: [(Group, &str, &str, usize); 7] = [
    (Group::Resources, "registers of a thread", "registers", 0),
    (Group::Resources, "spilled (B)", "spilled (B)", 0),
    (
        Group::Resources,
        "shared memory of a block (B)",
        "shared (B)",
        0,
    ),
    (
        Group::Resources,
        "occupancy, at best (%)",
        "occupancy (%)",
        1,
    ),
    (Group::Counters, "warp instructions", "warp instructions", 0),
    (
        Group::Counters,
        "sectors beyond the fewest",
        "extra sectors",
        0,
    ),
    (Group::Counters, "bank conflicts", "bank conflicts", 0),
];

pub(super) fn run(session: &Session<'_>, file: &KernelFile) -> Result<ExitCode, Failure> {
    if file.directives.params.is_empty() {
        return Err(Failure::input(format!(
            "{} has no params to try; `// stepscope: param TILE = 16, 32` makes one",
            file.path
        )));
    }
    let rows: Vec<Row> = file
        .points()
        .into_iter()
        .map(|point| {
            let outcome = measure(session, file, &point);
            let outcome = outcome.map_err(Failure::into_message);
            Row { point, outcome }
        })
        .collect();
    let text = match session.args.json {
        true => format!("{:#}\n", document(session, file, &rows)),
        false => page(session, file, &rows),
    };
    if let Some(path) = &session.args.plot {
        write_file(path, plot(session, file, &rows).as_bytes())?;
    }
    if let Some(path) = &session.args.save {
        write_file(
            path,
            format!("{:#}\n", document(session, file, &rows)).as_bytes(),
        )?;
    }
    write_stdout(text.as_bytes())?;
    let is_right = |row: &Row| row.outcome.as_ref().is_ok_and(|m| m.side.is_right());
    Ok(match rows.iter().all(is_right) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn measure(
    session: &Session<'_>,
    file: &KernelFile,
    point: &Point,
) -> Result<Measurement, Failure> {
    let (side, subject) = session.file(file, point)?;
    let mut median_ns = None;
    if let (Some(mut subject), true) = (subject, side.is_right()) {
        let bench = Bench::new(session.cuda)?;
        if let Measured::Timed(series) = bench.measure(&mut subject, &Settings::default())? {
            median_ns = series.median_ns();
        }
    }
    Ok(Measurement { side, median_ns })
}

fn page(session: &Session<'_>, file: &KernelFile, rows: &[Row]) -> String {
    let case = &session.case;
    let mut header: Vec<String> = vec![file.path.clone(), "right".to_owned()];
    header.extend(COLUMNS.map(|(.., title, _)| title.to_owned()));
    header.push("median (µs)".to_owned());
    let mut table = Table::new("llrrrrrrrr", header);
    let mut remarks = Vec::new();
    for row in rows {
        let mut cells = vec![row.point.to_string()];
        match &row.outcome {
            Ok(Measurement { side, median_ns }) => {
                cells.push(if side.is_right() { "yes" } else { "no" }.to_owned());
                cells.extend(COLUMNS.map(|(group, name, _, decimals)| {
                    let value = side.figure(group, name);
                    value.map_or("–".to_owned(), |value| format!("{value:.decimals$}"))
                }));
                cells.push(median_ns.map_or("–".to_owned(), |ns| format!("{:.2}", ns / 1e3)));
                if !side.is_right() {
                    remarks.push(format!("{}: {}", row.point, why(side)));
                }
            }
            Err(error) => {
                cells.push("no".to_owned());
                cells.extend((0..=COLUMNS.len()).map(|_| "–".to_owned()));
                remarks.push(format!("{}: {error}", row.point));
            }
        }
        table.row(cells);
    }
    let mut text = format!(
        "{} at {}; {}\n\n{}\n",
        case.operation().name,
        case.shape(),
        session.gpu.device().name,
        table.render()
    );
    for remark in remarks {
        let _ = writeln!(text, "\n{remark}"); // a String takes everything
    }
    if session.gpu.is_emulated() {
        text += "\nno times: an emulated device has none\n";
    }
    text
}

/// What is wrong with it.
fn why(side: &Side) -> String {
    let wrong = match &side.comparisons {
        Ok(all) => all.iter().find(|c| !c.is_right()).map(ToString::to_string),
        Err(why) => Some(why.clone()),
    };
    wrong
        .or_else(|| side.findings.first().cloned())
        .unwrap_or_default()
}

fn document(session: &Session<'_>, file: &KernelFile, rows: &[Row]) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let point: serde_json::Map<String, Value> = row
                .point
                .0
                .iter()
                .map(|(name, value)| (name.clone(), json!(value)))
                .collect();
            match &row.outcome {
                Ok(Measurement { side, median_ns }) => {
                    let figures: serde_json::Map<String, Value> = COLUMNS
                        .iter()
                        .map(|&(group, name, ..)| {
                            (name.to_owned(), json!(side.figure(group, name)))
                        })
                        .collect();
                    let wrong = (!side.is_right()).then(|| why(side));
                    json!({ "params": point, "is_right": side.is_right(), "why": wrong,
                        "figures": figures, "median_ns": median_ns })
                }
                Err(error) => json!({ "params": point, "is_right": false, "why": error }),
            }
        })
        .collect();
    json!({
        "schema": "stepscope.lab_sweep/1",
        "operation": session.case.operation().name,
        "shape": session.case.shape().to_string(),
        "file": file.path,
        "device": session.gpu.device().name,
        "is_emulated": session.gpu.is_emulated(),
        "points": rows,
    })
}

/// Bars: times where there are any, or else what the emulated device counted.
fn plot(session: &Session<'_>, file: &KernelFile, rows: &[Row]) -> String {
    const WIDTH: f64 = 860.0;
    const LABEL: f64 = 220.0;
    const ROW: f64 = 24.0;
    let has_time = !session.gpu.is_emulated();
    let unit = if has_time {
        "median time (µs)"
    } else {
        "warp instructions"
    };
    let value = |row: &Row| -> Option<f64> {
        let measurement = row.outcome.as_ref().ok().filter(|m| m.side.is_right())?;
        match has_time {
            true => Some(measurement.median_ns? / 1e3),
            false => measurement
                .side
                .figure(Group::Counters, "warp instructions"),
        }
    };
    let most = rows.iter().filter_map(value).fold(0.0, f64::max).max(1e-9);
    let height = 70.0 + ROW * rows.len() as f64;
    let case = &session.case;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"15\">{}: {unit}</text>\n\
         <text x=\"10\" y=\"38\" fill=\"#555\">{}</text>\n",
        escape(&format!("{} of {}", case.operation().name, file.path)),
        escape(&format!("{}; {}", case.shape(), session.gpu.device().name)),
    );
    for (index, row) in rows.iter().enumerate() {
        let y = 50.0 + ROW * index as f64;
        let label = escape(&row.point.to_string());
        let (length, shown) = match value(row) {
            Some(value) => {
                let decimals = if has_time { 2 } else { 0 };
                (
                    value / most * (WIDTH - LABEL - 120.0),
                    format!("{value:.decimals$}"),
                )
            }
            None => (0.0, "not right".to_owned()),
        };
        let end = LABEL + length;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>\
             <rect x=\"{LABEL}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"14\" fill=\"#4a6fa5\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{shown}</text>",
            LABEL - 8.0,
            y + 12.0,
            y + 1.0,
            end + 6.0,
            y + 12.0
        ); // a String takes everything
    }
    svg + "</svg>\n"
}

fn escape(text: &str) -> String {
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    text.chars().filter(|c| !c.is_control()).collect()
}
