//! What a file of microbenchmarks says, for people and for programs.

use serde_json::{Value, json};

use super::{Microbench, Peer, Row, Series, Status};
use crate::Timer;
use crate::gate::printable;
use crate::quantity::significant;
use crate::report::Table;

/// A row this many times faster than its roof says that the work or the roof is wrong.
const ABOVE_ROOF: f64 = 1.1;

/// What ran where, a table per group, and what the columns mean.
pub fn text(bench: &Microbench) -> String {
    let mut sections = vec![heading(bench)];
    for rows in bench.rows.chunk_by(|a, b| a.group == b.group) {
        sections.push(group(rows));
    }
    if bench.rows.is_empty() {
        sections.push("Nothing was measured.".to_owned());
    }
    sections.extend(legend(bench));
    sections.join("\n\n") + "\n"
}

fn heading(bench: &Microbench) -> String {
    let program = &bench.program;
    let mut line = format!("Microbenchmarks of {} {}", program.name, program.version);
    if let Some(commit) = &program.commit {
        line += &format!(" ({commit})");
    }
    line += &format!(", {}", bench.started);
    let environment = &bench.environment;
    let gpu = environment.gpu.as_ref().map(|gpu| {
        format!(
            "{}, {} multiprocessors, L2 {} MiB, driver for CUDA {}",
            gpu.name,
            gpu.multiprocessors,
            gpu.l2_bytes >> 20,
            gpu.driver
        )
    });
    let machine = gpu.unwrap_or_else(|| format!("no GPU; {}", environment.cpu.name));
    let mut lines = vec![line, machine];
    if let Some(watch) = &bench.gpu
        && !watch.throttled_by.is_empty()
    {
        lines.push(format!(
            "Clocks were held down by: {}",
            watch.throttled_by.join(", ")
        ));
    }
    lines.join("\n")
}

/// A table of what ran, and a line for each reason why others did not.
fn group(rows: &[Row]) -> String {
    let mut lines = vec![printable(&rows[0].group)];
    let ran: Vec<&Row> = rows
        .iter()
        .filter(|row| row.status != Status::Skipped)
        .collect();
    if !ran.is_empty() {
        lines.push(table(&ran));
    }
    let mut skipped: Vec<(&str, &str, usize)> = Vec::new();
    for row in rows.iter().filter(|row| row.status == Status::Skipped) {
        let reason = row.reason.as_deref().unwrap_or("no reason given");
        let known = |(kernel, why, _): &&mut (&str, &str, usize)| {
            *kernel == row.kernel.as_str() && *why == reason
        };
        match skipped.iter_mut().find(known) {
            Some((_, _, count)) => *count += 1,
            None => skipped.push((&row.kernel, reason, 1)),
        }
    }
    for (kernel, reason, count) in skipped {
        lines.push(format!(
            "skipped, {count} of {}: {}",
            printable(kernel),
            printable(reason)
        ));
    }
    lines.join("\n")
}

/// Our kernels, each with its peers on lines of their own.
fn table(rows: &[&Row]) -> String {
    let header = [
        "operation",
        "shape",
        "type",
        "kernel or peer",
        "median\nµs",
        "Q1 to Q3\n% of median",
        "\nsamples",
        "ours by\npeer",
        "\nTFLOP/s",
        "\nGB/s",
        "of the\nroof, %",
        "",
    ];
    let mut table = Table::new("llllrrrrrrrl", header.map(str::to_owned));
    for row in rows {
        table.row(own_cells(row));
        for peer in &row.peers {
            table.row(peer_cells(row, peer));
        }
    }
    table.render()
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| significant(value, 3))
}

fn timing(series: Option<&Series>) -> [String; 3] {
    let median = series.and_then(Series::median_ns);
    let noise = series.and_then(Series::quartile_noise);
    [
        median.map_or_else(String::new, |ns| significant(ns / 1e3, 4)),
        number(noise.map(|noise| 100.0 * noise)),
        series.map_or_else(String::new, |series| series.samples.len().to_string()),
    ]
}

fn own_cells(row: &Row) -> [String; 12] {
    let [median, noise, samples] = timing(row.series.as_ref());
    [
        printable(&row.operation),
        printable(&row.shape),
        printable(&row.dtype),
        printable(&row.kernel),
        median,
        noise,
        samples,
        String::new(),
        number(row.flops_per_s().map(|rate| rate / 1e12)),
        number(row.bytes_per_s().map(|rate| rate / 1e9)),
        number(row.share_of_roof().map(|share| 100.0 * share)),
        printable(&remarks(row).join("; ")),
    ]
}

fn peer_cells(row: &Row, peer: &Peer) -> [String; 12] {
    let [median, noise, samples] = timing(peer.series.as_ref());
    let mut name = format!("· {}", peer.name);
    if let Some(kernel) = &peer.kernel {
        name += &format!(" ({kernel})");
    }
    let mut notes = Vec::new();
    notes.extend(fate(peer.status, peer.reason.as_deref()));
    notes.extend(peer.series.as_ref().map(of_series).unwrap_or_default());
    notes.extend(
        peer.verdict
            .map(|verdict| format!("ours is {}", verdict.name())),
    );
    if peer.series.is_some() && !peer.in_turn {
        notes.push("not in turn with ours".to_owned());
    }
    [
        String::new(),
        String::new(),
        String::new(),
        printable(&name),
        median,
        noise,
        samples,
        number(row.ratio_to(peer)),
        String::new(),
        String::new(),
        String::new(),
        printable(&notes.join("; ")),
    ]
}

fn fate(status: Status, reason: Option<&str>) -> Option<String> {
    match (status, reason) {
        (Status::Ok, reason) => reason.map(str::to_owned),
        (Status::Skipped, reason) => {
            Some(format!("skipped: {}", reason.unwrap_or("no reason given")))
        }
        (Status::Wrong, reason) => Some(format!("WRONG: {}", reason.unwrap_or("no reason given"))),
    }
}

fn of_series(series: &Series) -> Vec<String> {
    let mut notes = Vec::new();
    if series.launches_per_sample > 1 {
        let what = match series.timer {
            Timer::Wall => "runs",
            _ => "launches",
        };
        notes.push(format!("{} {what} per sample", series.launches_per_sample));
    }
    notes.extend(series.l2.map(|l2| l2.name().to_owned()));
    let aside = series.set_aside.len();
    match (aside, series.samples.is_empty()) {
        (0, _) => {}
        (_, false) => notes.push(format!("{aside} set aside, clock held down")),
        (_, true) => notes.push(format!(
            "NO SAMPLE COUNTS: all {aside} were taken while the clock was held down"
        )),
    }
    notes
}

fn remarks(row: &Row) -> Vec<String> {
    let mut notes: Vec<String> = fate(row.status, row.reason.as_deref())
        .into_iter()
        .collect();
    if row.share_of_roof().is_some_and(|share| share > ABOVE_ROOF) {
        notes.push("FASTER THAN ITS ROOF ALLOWS: the work or the roof is wrong".to_owned());
    }
    notes.extend(row.series.as_ref().map(of_series).unwrap_or_default());
    notes
}

/// Where roofs and peers come from. What a source says behind a semicolon may be of one row alone: many of them are not told.
fn legend(bench: &Microbench) -> Vec<String> {
    let mut sources: Vec<(&str, Vec<&str>)> = Vec::new();
    let ran = bench.rows.iter().filter(|row| row.series.is_some());
    for roof in ran.filter_map(|row| row.roof.as_ref()) {
        let (source, detail) = roof.source.split_once("; ").unwrap_or((&roof.source, ""));
        let known = sources.iter().position(|(known, _)| *known == source);
        let at = known.unwrap_or_else(|| {
            sources.push((source, Vec::new()));
            sources.len() - 1
        });
        let details = &mut sources[at].1;
        if !detail.is_empty() && !details.contains(&detail) {
            details.push(detail);
        }
    }
    let mut lines: Vec<String> = sources
        .iter()
        .map(|(source, details)| {
            let source = printable(source);
            match details[..] {
                [] => format!("roof: {source}"),
                [detail] => format!("roof: {source}; {}", printable(detail)),
                [first, ..] => format!(
                    "roof: {source}; memory by each row's own bytes, as in: {}",
                    printable(first)
                ),
            }
        })
        .collect();
    for peer in bench.rows.iter().flat_map(|row| &row.peers) {
        if let Some(version) = &peer.version {
            let line = format!("{} {}", printable(&peer.name), printable(version));
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    match lines.is_empty() {
        true => Vec::new(),
        false => vec![lines.join("\n")],
    }
}

/// The figures of the table, without the single samples.
pub fn json(bench: &Microbench) -> Value {
    let rows = bench.rows.iter().map(|row| {
        json!({
            "group": row.group,
            "operation": row.operation,
            "kernel": row.kernel,
            "shape": row.shape,
            "dtype": row.dtype,
            "status": row.status,
            "reason": row.reason,
            "times": times(row.series.as_ref()),
            "flops_per_s": row.flops_per_s(),
            "bytes_per_s": row.bytes_per_s(),
            "share_of_roof": row.share_of_roof(),
            "roof": row.roof,
            "peers": row.peers.iter().map(|peer| json!({
                "name": peer.name,
                "version": peer.version,
                "kernel": peer.kernel,
                "in_turn": peer.in_turn,
                "status": peer.status,
                "reason": peer.reason,
                "times": times(peer.series.as_ref()),
                "ours_by_peer": row.ratio_to(peer),
                "verdict": peer.verdict,
            })).collect::<Vec<_>>(),
        })
    });
    json!({
        "schema": "stepscope.microbench-report/1",
        "program": bench.program,
        "started": bench.started,
        "gpu": bench.environment.gpu,
        "rows": rows.collect::<Vec<_>>(),
    })
}

fn times(series: Option<&Series>) -> Value {
    let Some(series) = series else {
        return Value::Null;
    };
    json!({
        "timer": series.timer,
        "launches_per_sample": series.launches_per_sample,
        "l2": series.l2,
        "launch_hidden": series.launch_hidden,
        "samples": series.samples.len(),
        "set_aside": series.set_aside.len(),
        "stopped": series.stopped,
        "median_ns": series.median_ns(),
        "quartiles_ns": series.quartiles_ns(),
        "min_ns": series.min_ns(),
        "relative_deviation": series.relative_deviation(),
        "median_clock_hz": series.median_clock_hz(),
    })
}
